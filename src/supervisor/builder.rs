//! What a supervisor is given once and for all.

use std::io;
use std::path::PathBuf;

use super::Supervisor;
use super::driver::{Driver, KEPT_RUNS};
use super::event::Events;
use super::kernel::{Kernel, Linux};
use crate::command::Spawner;
use crate::errno::SetupError;
use crate::signalfd::SignalFd;
use crate::timerfd::Clock;

/// The most runs of each instance that can be remembered.
const MOST_RUNS: usize = 1_000;

/// Settings of a [`Supervisor`] that it has from the start.
#[derive(Debug)]
pub struct Builder {
    clock: Clock,
    signals: Option<SignalFd>,
    events: usize,
    runs: usize,
    seed: Option<u64>,
    notify_path: Option<PathBuf>,
    pub(super) adopt: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            clock: Clock::Monotonic,
            signals: None,
            events: 4_096,
            runs: KEPT_RUNS,
            notify_path: None,
            seed: None,
            adopt: false,
        }
    }
}

impl Builder {
    /// The clock that graces, delays and waits are measured by; the monotonic one by default, which
    /// stands still while the machine is suspended.
    #[must_use]
    pub const fn clock(mut self, clock: Clock) -> Builder {
        self.clock = clock;
        self
    }

    /// Signals to the host's process, to be told as [`Event::Signal`](super::Event::Signal). They must be blocked in every
    /// thread, by a [`MaskGuard`](crate::MaskGuard) before the first is made.
    #[must_use]
    pub fn signals(mut self, signals: SignalFd) -> Builder {
        self.signals = Some(signals);
        self
    }

    /// How many events are kept for a host that does not fetch them: 4,096 by default.
    #[must_use]
    pub const fn event_capacity(mut self, events: usize) -> Builder {
        self.events = events;
        self
    }

    /// How many runs of each instance are remembered ([`Supervisor::runs`]): 5 by default, 1,000 at most.
    #[must_use]
    pub const fn remembered_runs(mut self, runs: usize) -> Builder {
        self.runs = if runs > MOST_RUNS { MOST_RUNS } else { runs };
        self
    }

    /// Where the socket for [`GroupSpec::notify_socket`](super::GroupSpec::notify_socket) is to be: for children in another network namespace,
    /// which do not see the abstract address that it has by default. See
    /// [`NotifySocket::bind`](crate::notify::NotifySocket::bind).
    #[must_use]
    pub fn notify_path(mut self, path: impl Into<PathBuf>) -> Builder {
        self.notify_path = Some(path.into());
        self
    }

    /// What the jitter of delays is drawn from; by default something that differs from process to
    /// process. The same seed gives the same delays.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// Makes the supervisor.
    ///
    /// # Errors
    /// A [`SetupError`]: the kernel refuses an epoll, a timerfd, `/dev/null` or the memory for a stack (EMFILE, ENFILE,
    /// ENOMEM; ENOENT where there is no `/dev`). [`OtherProcess`](crate::OtherProcess) inside: the [`SignalFd`] was made
    /// in another process. For [`Builder::adopt_orphans`] see there.
    pub fn build(self) -> io::Result<Supervisor> {
        if let Some(signals) = &self.signals {
            signals.check_owner()?;
        }
        let spawner = Spawner::new()?;
        let mut linux = Linux::new(self.clock, spawner, self.signals)
            .map_err(|error| SetupError::new("make", "the supervisor's epoll and timerfd", &error))?;
        if self.adopt {
            linux.adopt_orphans()?;
        }
        let seed = self
            .seed
            .unwrap_or_else(|| self.clock.now().as_nanos() ^ u64::from(std::process::id()) << 32);
        let mut driver = Driver::new(linux, Events::new(self.events), seed);
        driver.kept_runs = self.runs;
        Ok(Supervisor {
            driver,
            ready: Vec::with_capacity(Linux::SLICE as usize),
            notify_path: self.notify_path,
        })
    }
}
