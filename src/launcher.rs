//! Spawns that nothing waits for, for a host without a [`Supervisor`](crate::Supervisor).
//!
//! A spawn lasts until the program has been executed: some hundred microseconds, or as long as a dead network file system
//! hangs. [`Spawner::spawn`] waits for that. A [`Launcher`] does not: the host begins spawns, watches one descriptor, and is
//! told when a program runs, or which step failed.
//!
//! ```
//! use pidherd::{Command, Launcher};
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut launcher = Launcher::new()?;
//! let job = Command::new("sh").args(["-c", "exit 3"]).compile()?;
//! let missing = Command::new("/no/such/program").compile()?;
//! let (first, second) = (launcher.begin(&job)?, launcher.begin(&missing)?);
//!
//! while launcher.in_flight() > 0 {
//!     poll(&mut [PollFd::new(&launcher, PollFlags::IN)], None)?;
//!     while let Some((id, outcome)) = launcher.finish() {
//!         match outcome {
//!             Ok(mut child) => {
//!                 assert_eq!(id, first);
//!                 assert_eq!(child.wait()?.exit.code(), Some(3));
//!             }
//!             Err(error) => {
//!                 assert_eq!(id, second);
//!                 println!("{error}");
//!             }
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! How it works. A failed step ends the child, so its pidfd becomes readable. A successful execve makes no descriptor
//! readable; the kernel zeroes a word in memory instead. So a timer looks at the words while spawns are in flight: first
//! after 100 us, then at growing intervals up to 100 ms. The news of a success is therefore late by at most half of the
//! time that the execve took. A pipe that execve closes was rejected: it costs five more system calls a spawn.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::epoll;

use crate::child::Child;
use crate::command::{Program, SpawnError, SpawnProgress, Spawner, Spawning, Step};
use crate::errno::SetupError;
use crate::sys::descriptors::above_standard;
use crate::timerfd::{Clock, TimerFd};

/// How long after a spawn began the word of the kernel is first looked at. A small program is executed by then.
pub(crate) const FIRST_LOOK: Duration = Duration::from_micros(100);

/// The longest time between two looks.
pub(crate) const RAREST_LOOK: Duration = Duration::from_millis(100);

/// The time from one look to the next, after this one.
pub(crate) fn next_look(pause: Duration) -> Duration {
    (pause + pause / 2).min(RAREST_LOOK)
}

/// Starts programs without waiting for their execve; see the [module](self).
///
/// It is a descriptor ([`AsFd`]), readable when [`Launcher::finish`] has something to do. It keeps an epoll, a timerfd and the
/// descriptors of a [`Spawner`]. Dropping it kills and reaps what is in flight.
#[derive(Debug)]
pub struct Launcher {
    spawner: Spawner,
    epoll: OwnedFd,
    timer: TimerFd,
    in_flight: Vec<(LaunchId, Spawning)>,
    /// Where the next look at those in flight begins.
    next: usize,
    pause: Duration,
    launches: u64,
}

/// One spawn of a [`Launcher`]. It is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaunchId(u64);

/// An epoll that waits for a timerfd.
fn watch() -> io::Result<(OwnedFd, TimerFd)> {
    let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
    let timer = TimerFd::new(Clock::Monotonic)?;
    let data = epoll::EventData::new_u64(u64::MAX);
    epoll::add(&epoll, &timer, data, epoll::EventFlags::IN)?;
    Ok((epoll, timer))
}

impl Launcher {
    /// A launcher with nothing in flight.
    ///
    /// # Errors
    /// As [`Spawner::new`]; and a [`SetupError`] of epoll_create1(2) and timerfd_create(2) (EMFILE, ENFILE, ENOMEM).
    pub fn new() -> io::Result<Launcher> {
        let spawner = Spawner::new()?;
        let (epoll, timer) =
            watch().map_err(|error| SetupError::new("make", "the launcher's epoll and timerfd", &error))?;
        Ok(Launcher {
            spawner,
            epoll,
            timer,
            in_flight: Vec::new(),
            next: 0,
            pause: FIRST_LOOK,
            launches: 0,
        })
    }

    /// Starts the program and returns as soon as the process exists. Does not wait for its execve; see
    /// [`Spawner::begin`] for the exceptions.
    ///
    /// # Errors
    /// As [`Spawner::begin`]; and if the process cannot be watched ([`Step::Watch`]), it is killed.
    pub fn begin(&mut self, program: &Program) -> Result<LaunchId, SpawnError> {
        let spawning = self.spawner.begin(program)?;
        let id = LaunchId(self.launches);
        self.launches += 1;
        let data = epoll::EventData::new_u64(id.0);
        let watched = epoll::add(&self.epoll, spawning.pidfd(), data, epoll::EventFlags::IN);
        self.in_flight.push((id, spawning));
        self.pause = FIRST_LOOK;
        match watched.map_err(io::Error::from).and_then(|()| self.arm()) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.in_flight.pop();
                Err(program.parent_error(Step::Watch, error.raw_os_error().unwrap_or(libc::EIO)))
            }
        }
    }

    /// A spawn that is over: the child whose program runs, or has run, or the step that failed. `None`: no other is over
    /// yet. Call it until then each time the descriptor is readable. Does not block.
    ///
    /// A child that was killed before its program could run counts as started; its pidfd tells.
    pub fn finish(&mut self) -> Option<(LaunchId, Result<Child, SpawnError>)> {
        while self.next < self.in_flight.len() {
            let (id, spawning) = self.in_flight.swap_remove(self.next);
            if !spawning.is_finished() {
                self.put_back(id, spawning);
                continue;
            }
            // Before the child is handed out: the caller may close its pidfd, or keep a copy of it.
            let _refused = epoll::delete(&self.epoll, spawning.pidfd());
            match self.spawner.finish(spawning) {
                SpawnProgress::Running(child) | SpawnProgress::Killed(child) => return Some((id, Ok(child))),
                SpawnProgress::Failed(error) => return Some((id, Err(error))),
                SpawnProgress::InFlight(spawning) => self.put_back(id, spawning),
            }
        }
        self.next = 0;
        // Neither can fail for a timer of this value's own.
        let _expired = self.timer.acknowledge();
        let _armed = self.arm();
        self.pause = next_look(self.pause);
        None
    }

    /// The number of spawns that have begun, and that [`Launcher::finish`] has not returned.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn put_back(&mut self, id: LaunchId, spawning: Spawning) {
        self.in_flight.push((id, spawning));
        let last = self.in_flight.len() - 1;
        self.in_flight.swap(self.next, last);
        self.next += 1;
    }

    fn arm(&mut self) -> io::Result<()> {
        let look = || Clock::Monotonic.now().saturating_add(self.pause);
        self.timer.arm((!self.in_flight.is_empty()).then(look))
    }
}

impl AsFd for Launcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Launcher {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
