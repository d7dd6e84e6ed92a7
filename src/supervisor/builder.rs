//! The settings of a supervisor that are fixed when it is built.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::core::{KEPT_RUNS, SLICE};
use crate::linux::core::SPAWNS_IN_FLIGHT;
use crate::signalfd::SignalFd;
use crate::timerfd::Clock;

/// The largest number of remembered runs per instance.
const MOST_RUNS: usize = 1_000;

/// Settings of a [`Supervisor`](crate::Supervisor) that are fixed when it is built.
#[derive(Debug)]
pub struct Builder {
    pub(super) clock: Clock,
    pub(super) signals: Option<SignalFd>,
    pub(super) events: usize,
    pub(super) runs: usize,
    pub(super) slice: Duration,
    pub(super) spawns_in_flight: usize,
    pub(super) seed: Option<u64>,
    pub(super) notify_path: Option<PathBuf>,
    pub(super) adopt: bool,
    pub(super) state_file: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            clock: Clock::Monotonic,
            signals: None,
            events: 4_096,
            runs: KEPT_RUNS,
            slice: SLICE,
            spawns_in_flight: SPAWNS_IN_FLIGHT,
            notify_path: None,
            seed: None,
            adopt: false,
            state_file: None,
        }
    }
}

impl Builder {
    /// The clock for graces, delays and waits. The default is [`Clock::Monotonic`], which does not advance while the
    /// machine is suspended.
    ///
    /// ```
    /// # use pidherd::{Clock, Supervisor};
    /// // A backoff goes on while the machine is suspended.
    /// let supervisor = Supervisor::builder().clock(Clock::Boottime).build()?;
    /// assert!(supervisor.now() <= Clock::Boottime.now());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn clock(mut self, clock: Clock) -> Builder {
        self.clock = clock;
        self
    }

    /// Signals to the host's process that the supervisor reports as
    /// [`Event::Signal`](crate::supervisor::Event::Signal). The default is none. The signals must be blocked in every
    /// thread: make a [`MaskGuard`](crate::MaskGuard) before the first thread starts.
    ///
    /// ```
    /// # use pidherd::{Event, MaskGuard, Signal, SignalFd, SignalSet, Supervisor};
    /// let set = SignalSet::EMPTY.with(Signal::TERM);
    /// let _blocked = MaskGuard::block(set)?;
    /// let mut supervisor = Supervisor::builder().signals(SignalFd::new(set)?).build()?;
    /// rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
    /// supervisor.dispatch()?;
    /// assert!(matches!(supervisor.next_event(), Some(Event::Signal(info)) if info.signal == Signal::TERM));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn signals(mut self, signals: SignalFd) -> Builder {
        self.signals = Some(signals);
        self
    }

    /// How many unfetched events are kept: 4,096 by default. When the queue is full, the oldest event is dropped and
    /// counted ([`Supervisor::dropped_events`](crate::Supervisor::dropped_events)).
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// let mut supervisor = Supervisor::builder().event_capacity(1).build()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(3))?;
    /// supervisor.start(web)?;
    /// assert_eq!(supervisor.dropped_events(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn event_capacity(mut self, events: usize) -> Builder {
        self.events = events;
        self
    }

    /// How many runs of each instance are remembered ([`Supervisor::runs`](crate::Supervisor::runs)): 5 by default. A
    /// value above 1,000 is treated as 1,000. With 0 no run is remembered.
    ///
    /// ```
    /// # use pidherd::{Command, Event, GroupSpec, Restart, StateName, Supervisor};
    /// # use rustix::event::{PollFd, PollFlags, poll};
    /// let mut supervisor = Supervisor::builder().remembered_runs(1).build()?;
    /// let job = supervisor.add(GroupSpec::new("job", Command::new("true")).restart(Restart::Never))?;
    /// let instance = supervisor.group(job).ok_or("no group")?.instances[0];
    /// for _ in 0..2 {
    ///     supervisor.start(job)?;
    /// #     while supervisor.status(instance).is_none_or(|status| status.state.name() != StateName::Exited) {
    /// #         poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    /// #         supervisor.dispatch()?;
    /// #         while supervisor.next_event().is_some() {}
    /// #     }
    ///     // The loop goes on until it has ended.
    /// }
    /// assert!(supervisor.runs(instance).map(|run| run.number).eq([2]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn remembered_runs(mut self, runs: usize) -> Builder {
        self.runs = if runs > MOST_RUNS { MOST_RUNS } else { runs };
        self
    }

    /// How many processes may be in flight at a time: 32 by default. A process is in flight after it is cloned and
    /// before it executes its program.
    ///
    /// A spawn in flight returns as soon as the process exists, however long its execve(2) takes.
    /// [`State::Starting`](crate::lifecycle::State) begins then, with the pid. A grace begins when the program is
    /// executed. An error of a step before that is reported when the step fails. While the maximum is in flight,
    /// further starts wait and stops do not: the commands of stops, and the commands after runs that no other run
    /// follows, are spawned beyond the maximum, as many at once as instances are stopped. Each process in flight takes
    /// nine pages of address space. If a command cannot be spawned in flight (see
    /// [`Spawner::begin`](crate::Spawner::begin)), its spawn blocks until execve.
    ///
    /// With 0 each spawn blocks until execve, which takes about a hundred microseconds, or as long as a network file
    /// system hangs. The call that starts an instance then also reports each failed start.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, StateName, Supervisor};
    /// // A start returns when the program runs, or has failed to.
    /// let mut supervisor = Supervisor::builder().spawns_in_flight(0).build()?;
    /// let missing = supervisor.add(GroupSpec::new("missing", Command::new("/no/such/program")))?;
    /// supervisor.start(missing)?;
    /// let instance = supervisor.group(missing).ok_or("no group")?.instances[0];
    /// let status = supervisor.status(instance).ok_or("no status")?;
    /// assert_eq!(status.state.name(), StateName::Backoff);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn spawns_in_flight(mut self, most: usize) -> Builder {
        self.spawns_in_flight = most;
        self
    }

    /// How long one [`dispatch`](crate::Supervisor::dispatch) may last: 5 ms by default. Work that is left is done by
    /// the next call, and the descriptor set stays readable until then. A single step is not interrupted, so a call may
    /// exceed the slice by one spawn. A slice of zero is one step of each kind.
    ///
    /// A crash storm in one group may delay the deadlines of other groups and the host's other descriptors by this
    /// time. A shorter slice costs more turns of the loop for the same work.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # use std::time::Duration;
    /// # use pidherd::supervisor::Progress;
    /// // A host with little patience: its own descriptors get their turn after each step.
    /// let mut supervisor = Supervisor::builder().slice(Duration::ZERO).build()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(50))?;
    /// supervisor.start(web)?;
    /// while supervisor.dispatch()? == Progress::More {
    ///     // Serve the others here.
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn slice(mut self, slice: Duration) -> Builder {
        self.slice = slice;
        self
    }

    /// The path of the socket for [`GroupSpec::notify_socket`](crate::supervisor::GroupSpec::notify_socket). By default
    /// the socket has an abstract address, which a child in another network namespace cannot reach. Such a child needs
    /// a path. See [`NotifySocket::bind`](crate::notify::NotifySocket::bind).
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let path = std::env::temp_dir().join(format!("pidherd-doc-notify-{}", std::process::id()));
    /// let mut supervisor = Supervisor::builder().notify_path(&path).build()?;
    /// assert!(!path.exists());
    /// // The first group that needs the socket makes it.
    /// supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).notify_socket(true))?;
    /// assert!(path.exists());
    /// drop(supervisor);
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn notify_path(mut self, path: impl Into<PathBuf>) -> Builder {
        self.notify_path = Some(path.into());
        self
    }

    /// The seed of the jitter of delays. The same seed gives the same delays. By default the seed is derived from the
    /// time and the host's pid.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Policy, Supervisor};
    /// // A test in which the random parts of all waits are the same each time.
    /// let mut supervisor = Supervisor::builder().seed(7).spawns_in_flight(0).build()?;
    /// let policy = Policy::new().jitter(100);
    /// let group = supervisor.add(GroupSpec::new("web", Command::new("/no/such/program")).policy(policy))?;
    /// supervisor.start(group)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// Adopts the orphans of the process tree below the host, and reaps them. It is off by default. The init of a
    /// container and a subreaper need it. Each reaped orphan is reported as
    /// [`Event::Orphan`](crate::supervisor::Event::Orphan).
    ///
    /// The host must know all its children. Register a child that the library did not start with
    /// [`Supervisor::known_children`](crate::Supervisor::known_children), unless the host holds a pidfd of it. SIGCHLD
    /// must be blocked in every thread, and only the supervisor may read it. A host that is not PID 1 becomes a
    /// subreaper when the supervisor is built (`PR_SET_CHILD_SUBREAPER`, prctl(2)). It stays a subreaper when the
    /// supervisor is dropped, because orphans that are alive at that time would otherwise not be reaped by the host.
    ///
    /// With this setting [`Builder::build`] may fail with `InvalidInput` and an
    /// [`AdoptError`](crate::supervisor::AdoptError) inside.
    ///
    /// ```
    /// # use pidherd::{MaskGuard, Signal, SignalSet, Supervisor};
    /// // Before the first thread is started.
    /// let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::CHLD))?;
    /// let supervisor = Supervisor::builder().adopt_orphans(true).build()?;
    /// assert!(supervisor.orphans().is_some_and(|counts| counts.reaped == 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn adopt_orphans(mut self, yes: bool) -> Builder {
        self.adopt = yes;
        self
    }

    /// Keeps the state in this file, so that another host can go on after this one was killed; see
    /// [`Builder::recover`]. The default is no file. It is made with mode 600 if it is missing. A lock that ends with
    /// the process keeps two supervisors from using one file (flock(2)); another one waits for it for a second.
    ///
    /// Each process gets the variable `PIDHERD_STATE` in its environment, with a mark of the file.
    ///
    /// ```
    /// # use pidherd::Supervisor;
    /// # let path = std::env::temp_dir().join(format!("pidherd-doc-state-{}", std::process::id()));
    /// let supervisor = Supervisor::builder().state_file(&path).build()?;
    /// assert!(path.exists());
    /// # drop(supervisor);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.state_file = Some(path.into());
        self
    }
}
