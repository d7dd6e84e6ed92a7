//! The supervisor, and the calls of the host.

use super::adopt::{self, AdoptRefusal, NotAdopted};
use super::builder::Builder;
use super::fd_change::FdChange;
use super::supervise::{Driven, Supervise};
use crate::child::Pipes;
use crate::command::Spawner;
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::event::{Event, Events};
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::progress::Progress;
use crate::engine::request::Outcome;
use crate::engine::run::Run;
use crate::engine::spec::GroupSpec;
use crate::engine::status::{GroupStatus, Status};
use crate::linux::orphans::{KnownChildren, OrphanCounts};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::errno::SetupError;
use crate::fdset::{Change, Entry, FdSet, Token};
use crate::group::{ReloadPlan, Rolling};
use crate::lifecycle::State;
use crate::linux::core::Linux;
use crate::notify::Counts;
use crate::owner::OtherProcess;
use crate::pidfd::PidFd;
use crate::time::Instant;

/// Groups of processes, and the descriptors to watch them; see the [module](super).
///
/// Dropping it leaves no child and no zombie: every process gets SIGKILL and is reaped. The drop blocks for up to two
/// seconds. For a graceful end, call [`Supervisor::shutdown`] first and dispatch until [`Supervisor::is_down`].
///
/// A supervisor belongs to the process that built it. In a copy that fork(2) made, its calls fail with
/// [`Error::OtherProcess`], and dropping it only closes the copy's descriptors.
///
/// ```
/// use pidherd::{Command, GroupSpec, Restart, Supervisor};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut supervisor = Supervisor::new()?;
/// let web = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(3).restart(Restart::Always);
/// let web = supervisor.add(web)?;
/// supervisor.start(web)?;
/// // The loop of the host. Something of the host's own calls shutdown, for example a signal.
/// # supervisor.shutdown()?;
/// while !supervisor.is_down() {
///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
///     supervisor.dispatch()?;
///     while let Some(event) = supervisor.next_event() {
///         println!("{event:?}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Supervisor {
    pub(super) driver: Engine<Linux>,
    /// The path of the notify socket; `None` for an abstract address.
    pub(super) notify_path: Option<PathBuf>,
}

impl Builder {
    /// Builds the supervisor.
    ///
    /// # Errors
    /// [`SetupError`]: the kernel refuses an epoll, a timerfd, `/dev/null` or the memory for a stack (EMFILE, ENFILE,
    /// ENOMEM; ENOENT if there is no `/dev`). [`OtherProcess`](crate::OtherProcess) inside: the
    /// [`SignalFd`](crate::SignalFd) was made in another process. [`Builder::adopt_orphans`] describes the errors of
    /// that setting.
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
        linux.most_in_flight = self.spawns_in_flight;
        let seed = self
            .seed
            .unwrap_or_else(|| self.clock.now().as_nanos() ^ u64::from(std::process::id()) << 32);
        let mut driver = Engine::new(linux, Events::new(self.events), seed);
        driver.kept_runs = self.runs;
        driver.slice = self.slice;
        let mut supervisor = Supervisor {
            driver,
            notify_path: self.notify_path,
        };
        if let Some(path) = &self.state_file {
            supervisor.open_state(path, None).map_err(io::Error::other)?;
        }
        Ok(supervisor)
    }
}

impl Supervisor {
    /// Builds a supervisor with the default settings.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> io::Result<Supervisor> {
        Supervisor::builder().build()
    }

    /// The settings of a new supervisor, all at their defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    // Groups.

    /// Adds a group. No process is started by this call.
    ///
    /// The commands are compiled here: one for the group, or one for each instance with [`GroupSpec::with`]. Compiling
    /// looks up user names, which may block on a name service, and allocates an environment for each command. For
    /// thousands of instances, use numeric ids instead of names.
    ///
    /// # Errors
    /// [`Error::Spec`] if the description is wrong: everything about it is checked here, and the group is not
    /// added then. [`Error::ShuttingDown`].
    pub fn add(&mut self, spec: GroupSpec) -> Result<GroupId, Error> {
        Supervise::add(self, spec)
    }

    /// Stops a group, and removes it when its last instance has ended, which [`Event::GroupRemoved`] reports. From now
    /// on the group accepts no start.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.remove(group)?;
    /// assert!(supervisor.group_named("web").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`].
    pub fn remove(&mut self, group: GroupId) -> Result<Outcome, Error> {
        Supervise::remove(self, group)
    }

    /// Changes the number of instances: 0 to [`GroupSpec::MOST_INSTANCES`]. The instances with the highest numbers are
    /// stopped first; the others keep their processes. New instances are started if the group is wanted up.
    ///
    /// A group that is scaled to 0 stays, with its id, its description and its place in the order of the groups, until it
    /// is [removed](Supervisor::remove). A start or a stop of it finds no instance, and decides whether the instances of a
    /// later scale are started. For the groups that come [after](GroupSpec::after) it, it is down. Those that
    /// [require](GroupSpec::requires) it are not stopped by the scale; their next start waits until an instance is running
    /// again.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let worker = GroupSpec::new("worker", Command::new("sleep").arg("1000")).instances(0);
    /// let worker = supervisor.add(worker)?;
    /// supervisor.start(worker)?;
    /// // There is work.
    /// supervisor.scale(worker, 2)?;
    /// assert_eq!(supervisor.group(worker).unwrap().instances.len(), 2);
    /// // There is none any more.
    /// supervisor.scale(worker, 0)?;
    /// assert_eq!(supervisor.group(worker).unwrap().target, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::Rolling`], [`Error::ShuttingDown`];
    /// [`Error::Spec`] if the number is out of range or the command of a new instance is wrong. Nothing changes then.
    pub fn scale(&mut self, group: GroupId, instances: u32) -> Result<Outcome, Error> {
        Supervise::scale(self, group, instances)
    }

    /// Returns what [`Supervisor::reload`] would do, and changes nothing, except that it enables the controllers that
    /// the [limits](GroupSpec::limits) need in the directory for cgroups.
    ///
    /// # Errors
    /// As for [`Supervisor::reload`], except that errors in the commands are found by the reload alone.
    pub fn plan_reload(&self, group: GroupId, spec: &GroupSpec) -> Result<ReloadPlan, Error> {
        Supervise::plan_reload(self, group, spec)
    }

    /// Gives a group a new description, with as little disturbance as possible. A new policy applies at once. New
    /// [limits](GroupSpec::limits) are written to the cgroups of living runs at once. A new environment applies at the
    /// next start. Only instances with a changed command are restarted. Such an instance is also started if it is
    /// `Fatal` and wanted up. An instance that was stopped, or that has ended and was not to be restarted, stays down.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::Rolling`], [`Error::ShuttingDown`];
    /// [`Error::Spec`] if the description is wrong. Nothing changes then.
    pub fn reload(&mut self, group: GroupId, spec: GroupSpec) -> Result<ReloadPlan, Error> {
        Supervise::reload(self, group, spec)
    }

    // Commands.

    /// Starts every instance of the target that is not up, with all counters at zero. During a stop, the start is
    /// remembered and takes place when the old process has ended.
    ///
    /// A program that cannot be started is not an error of this call. It is a failed start, which is reported as an
    /// event and retried under the policy.
    ///
    /// An instance that is leaving, because its group is scaled down or is being removed, is not started: for a single
    /// instance that is an error, and a command for many instances skips it.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Leaving`], [`Error::LeavingInstance`],
    /// [`Error::ShuttingDown`]. Nothing is started then.
    pub fn start(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::start(self, target)
    }

    /// Stops every instance of the target that is up, by its policy's stop ladder. A second stop changes nothing:
    /// deadlines stay.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// supervisor.stop(group)?;
    /// // The loop goes on until the processes have ended.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    pub fn stop(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::stop(self, target)
    }

    /// Stops every instance that is up and starts it again when its process has ended; starts every instance that is
    /// down.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.restart(group)?;
    /// assert!(supervisor.group(group).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervisor::start`].
    pub fn restart(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::restart(self, target)
    }

    /// Stops every instance that is up with SIGKILL at once, even during a graceful stop.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(Target::All)?;
    /// supervisor.stop(Target::All)?;
    /// // No patience left.
    /// supervisor.kill(Target::All)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    pub fn kill(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::kill(self, target)
    }

    /// Restarts the instances of a group that are up, a few at a time. [`Event::Rolled`] reports the end. Instances
    /// that are down stay down. For a group with 0 instances the restart is over at once, without additional ones.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::ShuttingDown`]; [`Error::Rolling`] if a rolling
    /// restart is under way, during which [`scale`](Supervisor::scale) and [`reload`](Supervisor::reload) are refused
    /// too; [`Error::NoneUnavailable`]; [`Error::Spec`] if the group would have too many instances.
    pub fn rolling_restart(&mut self, group: GroupId, rolling: Rolling) -> Result<Outcome, Error> {
        Supervise::rolling_restart(self, group, rolling)
    }

    /// Reports that an instance is ready, for a host that has its own check. With
    /// [`Startup::Notify`](crate::lifecycle::Startup::Notify) the instance is running from now on.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless the instance is starting.
    pub fn report_ready(&mut self, instance: InstanceId) -> Result<(), Error> {
        Supervise::report_ready(self, instance)
    }

    /// Reports that an instance is alive, for a host that has its own check. The time of the
    /// [watchdog](crate::lifecycle::Policy::watchdog) begins again.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless the instance is running.
    pub fn report_alive(&mut self, instance: InstanceId) -> Result<(), Error> {
        Supervise::report_alive(self, instance)
    }

    /// Stops everything gracefully, and starts nothing any more. The host goes on dispatching and fetching events until
    /// [`Supervisor::is_down`], which also makes the set readable. To end the wait for a process that does not stop,
    /// call [`Supervisor::kill`] with [`Target::All`].
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// supervisor.shutdown()?;
    /// assert!(supervisor.start(group).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the timer cannot be armed; the stops have begun all the same.
    pub fn shutdown(&mut self) -> Result<Outcome, Error> {
        Supervise::shutdown(self)
    }

    /// Whether [`Supervisor::shutdown`] was called, nothing is alive any more, and the last event has been fetched or
    /// dropped. A host that fetches no events sets [`Builder::event_capacity`] to 0.
    #[must_use]
    pub fn is_down(&self) -> bool {
        Supervise::is_down(self)
    }

    // The event loop.

    /// All descriptors, for a host that waits for each by itself. The set is also an epoll itself, the one that `as_fd`
    /// returns.
    #[must_use]
    pub fn fds(&self) -> &FdSet {
        &self.driver.kernel.fds
    }

    /// The descriptor of an entry of the set; `None` if the token is out of date.
    #[must_use]
    pub fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.driver.kernel.fd(token)
    }

    /// Another descriptor of the one that `as_fd` returns, for a loop that needs to own what it waits for, or that would
    /// borrow the supervisor for too long. [`FdSet::try_clone_fd`] has the rules for it.
    ///
    /// ```
    /// use pidherd::Supervisor;
    /// use rustix::event::{PollFd, PollFlags, Timespec, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let fd = supervisor.try_clone_fd()?;
    /// supervisor.shutdown()?;
    /// // The set is readable when all is down.
    /// assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], None)?, 1);
    /// supervisor.dispatch()?;
    /// assert!(supervisor.is_down());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] with EMFILE; [`Error::OtherProcess`].
    pub fn try_clone_fd(&self) -> Result<OwnedFd, Error> {
        self.driver.kernel.owner.check()?;
        Ok(self.fds().try_clone_fd()?)
    }

    /// Turns the log of changes to the set on or off, for a host that waits for each descriptor by itself. Turning it on
    /// logs each present descriptor as [`FdChange::Added`]. While it is off, nothing is logged, and a removed descriptor
    /// is closed at once. See [`FdSet::track_changes`].
    pub fn track_fd_changes(&mut self, on: bool) {
        self.driver.kernel.fds.track_changes(on);
    }

    /// Takes the oldest change of the set from the log. Take all of them before each wait: the log keeps removed
    /// descriptors open.
    ///
    /// ```
    /// use pidherd::Supervisor;
    /// use pidherd::supervisor::FdChange;
    /// use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.track_fd_changes(true);
    /// while let Some(change) = supervisor.next_fd_change() {
    ///     match change {
    ///         FdChange::Added { fd, interest, token } => {
    ///             let flags = EventFlags::from_bits_retain(interest.bits());
    ///             epoll::add(&epoll, fd, EventData::new_u64(token.to_raw()), flags)?;
    ///         }
    ///         FdChange::Removed { fd, .. } => epoll::delete(&epoll, fd)?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_fd_change(&mut self) -> Option<FdChange<'_>> {
        let linux = &mut self.driver.kernel;
        let entry = loop {
            match linux.fds.next_change()? {
                Change::Removed { token, fd } => return Some(FdChange::Removed { token, fd }),
                Change::Added(entry) if linux.fd(entry.token).is_some() => break entry,
                // Each entry has a descriptor, so this does not happen.
                Change::Added(_) => {}
            }
        };
        let Entry { interest, token, .. } = entry;
        linux.fd(token).map(|fd| FdChange::Added { fd, interest, token })
    }

    /// Handles a descriptor of the set that is ready, after the deadlines that are due.
    ///
    /// A call for a descriptor that is not ready is harmless; the result is [`Progress::Nothing`]. The same is true for
    /// a number that is not in the set: an earlier call of the same batch can remove an entry with an event that is
    /// still in the batch, and the kernel can give the number to another descriptor in between.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_ready(&mut self, fd: RawFd) -> Result<Progress, Error> {
        match self.fds().token_of(fd) {
            Some(token) => self.process_token(token),
            None => Ok(Progress::Nothing),
        }
    }

    /// Handles one descriptor of the set, for a host that registered tokens instead of numbers
    /// ([`Token::to_raw`](crate::fdset::Token::to_raw)). A token that is out of date, or of another set, is answered by
    /// [`Progress::Nothing`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_token(&mut self, token: Token) -> Result<Progress, Error> {
        self.turn(|driver| driver.process_token(token))
    }

    /// Serves the deadlines that are due, then pending requests and ready descriptors, for one [slice](Builder::slice).
    /// If work is left, the set stays readable.
    ///
    /// # Errors
    /// [`Error::Io`]: the kernel refused to list the ready descriptors, or to arm the timer.
    pub fn dispatch(&mut self) -> Result<Progress, Error> {
        Supervise::dispatch(self)
    }

    /// Takes the oldest event. `None` if the host has fetched all of them.
    ///
    /// Commands bring events as well. They make the set readable, so a host may fetch them when it is woken the next
    /// time. With the last event of a wakeup the timer is armed anew, which is one system call.
    pub fn next_event(&mut self) -> Option<Event> {
        Supervise::next_event(self)
    }

    /// How many events were dropped since the supervisor was built, because the host did not fetch them in time.
    #[must_use]
    pub const fn dropped_events(&self) -> u64 {
        self.driver.events.dropped()
    }

    // How things stand.

    /// The status of an instance; `None` for an unknown id.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).unwrap().instances[1];
    /// let status = supervisor.status(instance).unwrap();
    /// assert_eq!((status.name.to_string(), status.runs), ("web:1".to_owned(), 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn status(&self, instance: InstanceId) -> Option<Status> {
        Supervise::status(self, instance)
    }

    /// The last runs of an instance that have ended, the oldest first, each with the cause of its end. An unknown id
    /// has none.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).unwrap().instances[0];
    /// let last = supervisor.runs(instance).next_back();
    /// assert!(last.is_none(), "no run has ended");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn runs(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = &Run> {
        Supervise::runs(self, instance)
    }

    /// The status of a group; `None` for an unknown id.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let status = supervisor.group(group).unwrap();
    /// assert_eq!((status.target, status.instances.len()), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<GroupStatus> {
        Supervise::group(self, group)
    }

    /// The ids of all groups, in no particular order. The list is made by this call, so the supervisor can be used
    /// meanwhile.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// for group in supervisor.groups() {
    ///     supervisor.start(group)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        Supervise::groups(self)
    }

    /// The group with this name that is not being removed. No two have the same name
    /// ([`SpecError::NameTaken`](crate::supervisor::SpecError::NameTaken)). A group with the empty name is not found.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// assert_eq!(supervisor.group_named("web"), Some(web));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        Supervise::group_named(self, name)
    }

    /// All instances of all groups. The list is made by this call, so the supervisor can be used meanwhile.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + use<> {
        Supervise::instances(self)
    }

    /// The pidfd of an instance's process; `None` while it has none. It becomes readable when the process ends. The
    /// process may have ended already, and the supervisor reaps it: use the pidfd to look at it, to signal it, or to
    /// pass it on ([`PidFd::try_clone`]), and not to reap.
    #[must_use]
    pub fn pidfd(&self, instance: InstanceId) -> Option<&PidFd> {
        self.driver.instances.get(instance)?.process?;
        self.driver.kernel.pidfd(instance.index())
    }

    /// Takes over a process that was started elsewhere: by the host itself, by an earlier host, or by hand. The
    /// instance is running from now on, in a new run, and its policy applies: the process is watched, stopped and
    /// restarted like one that the supervisor has started. The next run is a start of the instance's own command.
    ///
    /// The pidfd comes from [`PidFd::open`], [`PidFd::try_from`], [`Child::into_pidfd`](crate::Child::into_pidfd) or
    /// [`Supervisor::release`]. The process need not be a child of the host, with these differences:
    ///
    /// - Its exit status is known when its own parent has reaped it, from Linux 6.15 on. If the parent does not reap it
    ///   within about ten seconds, and on older kernels, the status is [`Exit::Unknown`](crate::Exit::Unknown).
    /// - What it used is not known ([`ExitRecord::usage`](crate::exit::ExitRecord::usage) is `None`).
    ///
    /// The supervisor sees the end of such a process when its status is known, or after these ten seconds; until then
    /// the instance is not restarted, and a stop is not over.
    ///
    /// The instance may be at rest in any way: stopped, exited, in a backoff or fatal. A request of it that waits for
    /// its turn is withdrawn. The events are a transition to `Starting` and one to `Running`, both with
    /// [`Cause::Adopted`](crate::lifecycle::Cause::Adopted). A watchdog of the policy begins at once. Whether the group
    /// is [wanted](crate::supervisor::GroupStatus) up does not change.
    ///
    /// Nothing stops a host from adopting what it must not: another supervisor's process, its own parent or process 1.
    /// The supervisor stops and kills an adopted process like its own.
    ///
    /// The run has no pipes, no readiness descriptor and no cgroup. Messages to the notify socket count if the group
    /// accepts them. A stop with the scope of a process group reaches the group that the process leads; if it leads
    /// none, the process alone. Dropping the supervisor kills the process like the others.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Supervisor, Target};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sleeper = Command::new("sleep").arg("1000");
    /// let mut supervisor = Supervisor::new()?;
    /// let group = supervisor.add(GroupSpec::new("sleeper", sleeper.clone()))?;
    /// let instance = supervisor.instances().next().unwrap();
    ///
    /// let child = sleeper.process_group(0).spawn()?;
    /// supervisor.adopt(instance, child.into_pidfd())?;
    /// supervisor.stop(group)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`NotAdopted`], which gives the pidfd back. Nothing has changed.
    pub fn adopt(&mut self, instance: InstanceId, pidfd: PidFd) -> Result<(), NotAdopted> {
        let mut given = Some(pidfd);
        let mut reason = None;
        let called = self.call(|driver| {
            match given.as_ref().map(|pidfd| adopt::check(driver, instance, pidfd)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    reason = Some(refusal);
                    return Ok(());
                }
                None => return Ok(()),
            }
            let Some(pidfd) = given.take() else { return Ok(()) };
            let pid = pidfd.pid();
            match driver.kernel.take_in(instance.index(), pidfd) {
                Ok(()) => driver.adopted(instance, pid),
                Err((pidfd, error)) => {
                    given = Some(pidfd);
                    reason = Some(AdoptRefusal::Error(Error::Io(error)));
                }
            }
            Ok(())
        });
        let reason = reason.or_else(|| called.err().map(AdoptRefusal::Error));
        match (given, reason) {
            (Some(pidfd), Some(reason)) => Err(NotAdopted { pidfd, reason }),
            // The process is adopted. An error of the timer shows again at the next call.
            _ => Ok(()),
        }
    }

    /// Lets the process of an instance that is running or in its grace go on by itself, and returns its pidfd. A
    /// request of the instance that waits for its turn is withdrawn. The run ends as
    /// [`End::Released`](super::End::Released), and the instance is stopped. The process gets no signal.
    ///
    /// It stays a child of the host: when it has ended, the holder of the pidfd reaps it ([`PidFd::reap`]), or another
    /// instance adopts it ([`Supervisor::adopt`]). The supervisor closes its end of the readiness pipe, and messages of
    /// the process no longer count. What binds the process to the host stays: with
    /// [`Lifetime::Bound`](crate::Lifetime::Bound) it dies with the last descriptor of its pidfd, and with a
    /// parent-death signal when the host's thread ends. A rolling restart in which it is the instance's turn fails.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] if the instance has no process; [`Error::NotReleasable`] while
    /// its spawn is in flight, while it is being stopped, and if its run has a cgroup, because the next run would kill
    /// what is in it; [`Error::Io`] with EMFILE if no descriptor is free.
    pub fn release(&mut self, instance: InstanceId) -> Result<PidFd, Error> {
        self.call(|driver| {
            let known = driver.instances.get(instance).ok_or(Error::UnknownInstance(instance))?;
            if known.process.is_none() {
                return Err(Error::NotAlive(instance));
            }
            let is_up = matches!(
                *known.life.state(),
                State::Starting { executed: Some(_), .. } | State::Running { .. }
            );
            if !is_up || known.run_cgroup.is_some() {
                return Err(Error::NotReleasable(instance));
            }
            let pidfd = driver.kernel.let_go(instance.index())?;
            driver.released(instance);
            pidfd.ok_or(Error::NotAlive(instance))
        })
    }

    /// The host's ends of the piped streams of an instance's last run. They can be taken once per run. Pipes that were
    /// not taken are closed when the next run begins. Take them at the transition to `Starting`: at the transition to
    /// `Exited` the next run may have begun already. The pipes are blocking, and not in the set.
    pub fn take_pipes(&mut self, instance: InstanceId) -> Option<Pipes> {
        self.driver.instances.get_mut(instance)?.pipes.take()
    }

    /// How many messages the notify socket received, and how many of them were ignored; `None` if no group uses the
    /// socket.
    #[must_use]
    pub fn notify_counts(&self) -> Option<Counts> {
        self.driver.kernel.notify_counts()
    }

    /// The children that are not treated as orphans; `None` without [`Builder::adopt_orphans`].
    #[must_use]
    pub fn known_children(&self) -> Option<&KnownChildren> {
        self.driver
            .kernel
            .orphans
            .as_ref()
            .map(|orphans| &orphans.known_children)
    }

    /// How many orphans were reaped; `None` without [`Builder::adopt_orphans`].
    #[must_use]
    pub fn orphans(&self) -> Option<OrphanCounts> {
        self.driver.kernel.orphans.as_ref().map(|orphans| orphans.counts)
    }

    /// Looks for orphans that have ended, without waiting for a SIGCHLD. A host needs this after descriptors have
    /// become free again, or after pidfds were closed unused.
    ///
    /// # Errors
    /// [`Error::Io`] as for [`Supervisor::dispatch`].
    pub fn reap_orphans(&mut self) -> Result<Progress, Error> {
        self.turn(|driver| {
            let entry = driver
                .kernel
                .orphans
                .as_ref()
                .map(crate::linux::orphans::Orphans::entry);
            entry.map_or(Ok(Progress::Nothing), |entry| driver.reap_orphans(entry))
        })
    }

    /// The time on the supervisor's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Supervise::now(self)
    }

    /// Tells the engine of the socket.
    pub(super) fn heed_socket(&mut self) {
        self.driver.queue = crate::linux::core::queue_length();
        self.driver.socket = self.driver.kernel.socket().map(|socket| socket.address().to_owned());
    }
}

impl Driven for Supervisor {
    type Kernel = Linux;

    fn engine(&self) -> &Engine<Linux> {
        &self.driver
    }

    fn engine_mut(&mut self) -> &mut Engine<Linux> {
        &mut self.driver
    }

    fn check_owner(&self) -> Result<(), OtherProcess> {
        self.driver.kernel.owner.check()
    }

    fn listen(&mut self) -> Result<(), Error> {
        self.check_owner()?;
        self.driver.kernel.listen(self.notify_path.as_deref())?;
        self.heed_socket();
        Ok(())
    }

    /// Makes room before anything has happened, so that a full file system is found then.
    fn reserve_state(&mut self, instances: u32, spec: Option<&GroupSpec>) -> Result<(), Error> {
        if self.driver.kernel.state.is_none() || instances > GroupSpec::MOST_INSTANCES {
            return Ok(());
        }
        let text = spec.map_or(0, GroupSpec::longest_text);
        let size = self
            .driver
            .stored_size(instances as usize, spec.map(|spec| &spec.policy), text);
        let state = self.driver.kernel.state.as_mut();
        state
            .map_or(Ok(()), |state| state.reserve(size))
            .map_err(Error::StateFile)
    }
}

impl Supervise for Supervisor {}

impl AsRawFd for Supervisor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Supervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fds().as_fd()
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (groups, instances) = (self.groups().count(), self.instances().count());
        f.debug_struct("Supervisor")
            .field("groups", &groups)
            .field("instances", &instances)
            .finish_non_exhaustive()
    }
}
