//! The supervisor, and the calls of the host.

use super::builder::Builder;
use super::driven::Driven;
use super::supervise::Supervise;
use crate::command::Spawner;
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::event::Events;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::request::Outcome;
use crate::engine::run::Run;
use crate::engine::spec::GroupSpec;
use crate::engine::status::{GroupStatus, Status};
use crate::linux::orphans::{KnownChildren, OrphanCounts};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;

use crate::errno::SetupError;
use crate::group::{ReloadPlan, Rolling};
use crate::linux::core::Linux;
use crate::notify::Counts;
use crate::owner::OtherProcess;
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
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// supervisor.start(web)?;
    /// // Dropping the supervisor leaves no process.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> io::Result<Supervisor> {
        Supervisor::builder().build()
    }

    /// The settings of a new supervisor, all at their defaults.
    ///
    /// ```
    /// # use pidherd::{Clock, Supervisor};
    /// # use std::time::Duration;
    /// let supervisor = Supervisor::builder().clock(Clock::Boottime).slice(Duration::from_millis(1)).build()?;
    /// assert_eq!(supervisor.groups().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::{Command, Error, GroupSpec, Supervisor};
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).instances(2))?;
    /// assert_eq!(supervisor.group(web).ok_or("no group")?.instances.len(), 2);
    /// // What is wrong is found here, not at the start.
    /// let wrong = supervisor.add(GroupSpec::new("wrong", Command::new("a\0b")));
    /// assert!(matches!(wrong, Err(Error::Spec(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Spec`] if the description is wrong: everything about it is checked here, and the group is not
    /// added then. [`Error::ShuttingDown`].
    pub fn add(&mut self, spec: GroupSpec) -> Result<GroupId, Error> {
        Supervise::add(self, spec)
    }

    /// Stops a group, and removes it when its last instance has ended, which
    /// [`Event::GroupRemoved`](crate::Event::GroupRemoved) reports. From now on the group accepts no start.
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
    /// A group that is scaled to 0 stays, with its id, its description and its place in the order of the groups, until
    /// it is [removed](Supervisor::remove). A start or a stop of it finds no instance, and decides whether the
    /// instances of a later scale are started. For the groups that come [after](GroupSpec::after) it, it is down. Those
    /// that [require](GroupSpec::requires) it are not stopped by the scale; their next start waits until an instance is
    /// running again.
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
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::group::Effect;
    ///
    /// let longer = GroupSpec::new("web", Command::new("sleep").arg("2000")).instances(3);
    /// let plan = supervisor.plan_reload(group, &longer)?;
    /// // Both instances have another command, and there is one more.
    /// assert_eq!((plan.restarts().count(), plan.is_empty()), (2, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// let plan = supervisor.reload(group, GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(5))?;
    /// // The two instances that were there keep their processes.
    /// assert_eq!(plan.restarts().count(), 0);
    /// assert_eq!(supervisor.group(group).ok_or("no group")?.instances.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// let outcome = supervisor.start(group)?;
    /// assert_eq!(outcome.accepted, 2);
    /// // They are up already.
    /// assert_eq!(supervisor.start(group)?.already, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Restarts the instances of a group that are up, a few at a time. [`Event::Rolled`](crate::Event::Rolled) reports
    /// the end. Instances that are down stay down. For a group with 0 instances the restart is over at once, without
    /// additional ones.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::group::Rolling;
    ///
    /// supervisor.start(group)?;
    /// // One at a time; Event::Rolled follows in the loop.
    /// let outcome = supervisor.rolling_restart(group, Rolling::new())?;
    /// assert_eq!(outcome.total(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::lifecycle::{Startup, StateName};
    /// # use pidherd::{Command, GroupSpec, Policy, Supervisor};
    /// # use std::time::Duration;
    /// let mut supervisor = Supervisor::new()?;
    /// let policy = Policy::new().startup(Startup::Notify { timeout: Duration::from_secs(30) });
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).policy(policy))?;
    /// supervisor.start(web)?;
    /// let instance = supervisor.group(web).ok_or("no group")?.instances[0];
    /// // The host has reached its port.
    /// supervisor.report_ready(instance)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless the instance is starting.
    pub fn report_ready(&mut self, instance: InstanceId) -> Result<(), Error> {
        Supervise::report_ready(self, instance)
    }

    /// Reports that an instance is alive, for a host that has its own check. The time of the
    /// [watchdog](crate::lifecycle::Policy::watchdog) begins again.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// // The host calls it at each answer to its health check. An instance that does not run needs none.
    /// match supervisor.report_alive(instance) {
    ///     Ok(()) => {}
    ///     Err(error) => assert!(matches!(error, pidherd::Error::NotAlive(_))),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    pub fn runs(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = Run> {
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
