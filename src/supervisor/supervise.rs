//! The calls that a supervisor has on any kernel, for a host that is generic over it.
//!
//! Each call is written once, here, over the engine. The methods of [`Supervisor`](crate::Supervisor) with the same names
//! lead here, and the simulation for hosts has these alone. Two ways were rejected: a type parameter of `Supervisor`,
//! because each crate that uses it would compile the engine anew; and a macro that writes the methods twice, because
//! neither rustfmt nor a search follows it.

use std::time::Duration;
use std::vec;

use super::driven::Driven;
use crate::cgroup::CgroupUsage;
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::event::Event;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::kernel::Kernel;
use crate::engine::progress::Progress;
use crate::engine::request::{Outcome, Request};
use crate::engine::run::Run;
use crate::engine::spec::GroupSpec;
use crate::engine::status::{GroupStatus, Status};
use crate::group::{ReloadPlan, Rolling};
use crate::lifecycle::{Input, Scope, StopLadder};
use crate::signal::Signal;
use crate::time::Instant;

/// The calls of a [`Supervisor`](crate::Supervisor) that need no descriptor: all that a host's own policy is made of.
///
/// A host that writes its decisions over this trait can have them tested on a simulated kernel and in virtual time
/// (`pidherd::sim::Simulation`, with the feature `sim`). Each method is that of `Supervisor` with the same name, which
/// has the whole description. Calls with descriptors stay with `Supervisor`: the set, pidfds, pipes, adoption, wakers and
/// subscriptions. So does the wait: a simulation has no descriptor to wait for, but a clock to move.
///
/// The trait is sealed: it cannot be implemented outside of the crate.
///
/// ```
/// use pidherd::supervisor::Supervise;
/// use pidherd::{Command, Event, GroupSpec, StateName, Supervisor};
///
/// /// The host's own policy: when a worker is given up, so is the whole group.
/// fn follow(supervisor: &mut impl Supervise, event: &Event) -> Result<(), pidherd::Error> {
///     if let Event::Transition(step) = event {
///         if step.to == StateName::Fatal {
///             supervisor.stop(step.group)?;
///         }
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut supervisor = Supervisor::new()?;
/// let group = supervisor.add(GroupSpec::new("worker", Command::new("sleep").arg("1000")).instances(3))?;
/// supervisor.start(group)?;
/// while let Some(event) = supervisor.next_event() {
///     follow(&mut supervisor, &event)?;
/// }
/// # Ok(())
/// # }
/// ```
#[allow(private_bounds, reason = "the private trait seals this one")]
pub trait Supervise: Driven {
    // Groups.

    /// Adds a group; see [`Supervisor::add`](crate::Supervisor::add).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn add_worker(supervisor: &mut impl Supervise) -> Result<GroupId, Error> {
    ///     supervisor.add(GroupSpec::new("worker", Command::new("/usr/bin/worker")).instances(4))
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// let worker = add_worker(&mut supervisor)?;
    /// assert_eq!(supervisor.group_named("worker"), Some(worker));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::ShuttingDown`].
    fn add(&mut self, spec: GroupSpec) -> Result<GroupId, Error> {
        if self.lacks_socket(&spec) {
            self.engine().check_new(&spec)?;
            self.listen()?;
        }
        self.reserve_state(spec.instances, Some(&spec))?;
        self.call(|driver| driver.add(spec))
    }

    /// Stops a group, and removes it when its last instance has ended; see
    /// [`Supervisor::remove`](crate::Supervisor::remove).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// The host's configuration does not have these any more.
    /// fn forget(supervisor: &mut impl Supervise, names: &[&str]) -> Result<(), Error> {
    ///     for name in names {
    ///         if let Some(group) = supervisor.group_named(name) {
    ///             supervisor.remove(group)?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// forget(&mut supervisor, &["web", "unknown"])?;
    /// assert_eq!(supervisor.group_named("web"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Required`].
    fn remove(&mut self, group: GroupId) -> Result<Outcome, Error> {
        self.call(|driver| driver.remove(group))
    }

    /// Changes the number of instances; see [`Supervisor::scale`](crate::Supervisor::scale).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// One worker for ten jobs.
    /// fn follow_load(supervisor: &mut impl Supervise, workers: GroupId, jobs: u32) -> Result<(), Error> {
    ///     supervisor.scale(workers, jobs.div_ceil(10))?;
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// follow_load(&mut supervisor, group, 35)?;
    /// assert_eq!(supervisor.group(group).ok_or("no group")?.target, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::Rolling`], [`Error::ShuttingDown`], [`Error::Spec`].
    fn scale(&mut self, group: GroupId, instances: u32) -> Result<Outcome, Error> {
        self.reserve_state(instances, None)?;
        self.call(|driver| driver.scale(group, instances))
    }

    /// What a reload would do; see [`Supervisor::plan_reload`](crate::Supervisor::plan_reload).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn needs_restart(supervisor: &impl Supervise, group: GroupId, spec: &GroupSpec) -> Result<bool, Error> {
    ///     Ok(supervisor.plan_reload(group, spec)?.restarts().next().is_some())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let same = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// assert!(!needs_restart(&supervisor, group, &same)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::reload`].
    fn plan_reload(&self, group: GroupId, spec: &GroupSpec) -> Result<ReloadPlan, Error> {
        self.check_owner()?;
        self.engine().plan(group, spec)
    }

    /// Gives a group a new description; see [`Supervisor::reload`](crate::Supervisor::reload).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// Exchanges the program, and keeps the number of instances.
    /// fn upgrade(supervisor: &mut impl Supervise, group: GroupId, command: Command) -> Result<(), Error> {
    ///     let Some(status) = supervisor.group(group) else { return Ok(()) };
    ///     supervisor.reload(group, GroupSpec::new(&status.name, command).instances(status.target))?;
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// upgrade(&mut supervisor, group, Command::new("sleep").arg("2000"))?;
    /// assert_eq!(supervisor.group(group).ok_or("no group")?.instances.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::Rolling`], [`Error::ShuttingDown`], [`Error::Spec`].
    fn reload(&mut self, group: GroupId, spec: GroupSpec) -> Result<ReloadPlan, Error> {
        if self.lacks_socket(&spec) {
            self.engine().plan(group, &spec)?;
            self.listen()?;
        }
        self.reserve_state(spec.instances, Some(&spec))?;
        self.call(|driver| driver.reload(group, spec))
    }

    // Commands.

    /// Starts what is not up; see [`Supervisor::start`](crate::Supervisor::start).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn start_one(supervisor: &mut impl Supervise, name: &str) -> Result<bool, Error> {
    ///     match supervisor.group_named(name) {
    ///         Some(group) => Ok(supervisor.start(group)?.accepted > 0),
    ///         None => Ok(false),
    ///     }
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// assert!(start_one(&mut supervisor, "web")? && !start_one(&mut supervisor, "mail")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Leaving`], [`Error::LeavingInstance`],
    /// [`Error::ShuttingDown`].
    fn start(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Start))
    }

    /// Stops what is up, by the ladder of its policy; see [`Supervisor::stop`](crate::Supervisor::stop).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// At night, only this group stays.
    /// fn only(supervisor: &mut impl Supervise, stays: GroupId) -> Result<(), Error> {
    ///     for group in supervisor.groups().filter(|&group| group != stays) {
    ///         supervisor.stop(group)?;
    ///     }
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// only(&mut supervisor, group)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    fn stop(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Stop))
    }

    /// Stops what is up, by this ladder; see [`Supervisor::stop_with`](crate::Supervisor::stop_with).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// # use pidherd::{Scope, StopLadder};
    /// # use std::time::Duration;
    /// fn stop_quickly(supervisor: &mut impl Supervise) -> Result<u32, Error> {
    ///     let ladder = StopLadder::signal(Signal::TERM, Scope::Process, Duration::from_secs(1));
    ///     Ok(supervisor.stop_with(Target::All, &ladder)?.accepted)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// assert_eq!(stop_quickly(&mut supervisor)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Spec`].
    fn stop_with(&mut self, target: impl Into<Target>, ladder: &StopLadder) -> Result<Outcome, Error> {
        self.call(|driver| driver.stop_with(target.into(), ladder))
    }

    /// Restarts what is up, and starts what is down; see [`Supervisor::restart`](crate::Supervisor::restart).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn renew(supervisor: &mut impl Supervise, instance: InstanceId) -> Result<(), Error> {
    ///     supervisor.restart(instance)?;
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// renew(&mut supervisor, instance)?;
    /// assert_eq!(supervisor.status(instance).ok_or("no status")?.state.name(), StateName::Starting);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::start`].
    fn restart(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Restart))
    }

    /// Restarts what is up; see [`Supervisor::restart_if_up`](crate::Supervisor::restart_if_up).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// The certificate is a new one. What is down reads it when it is started.
    /// fn certificate_changed(supervisor: &mut impl Supervise) -> Result<(), Error> {
    ///     supervisor.restart_if_up(Target::All)?;
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// certificate_changed(&mut supervisor)?;
    /// assert!(supervisor.instances().all(|instance| supervisor.pidfd(instance).is_none()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::start`].
    fn restart_if_up(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.restart_if_up(target.into()))
    }

    /// Stops what is up with SIGKILL at once; see [`Supervisor::kill`](crate::Supervisor::kill).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// A second Ctrl-C ends the patience of the first.
    /// fn interrupted(supervisor: &mut impl Supervise, times: u32) -> Result<(), Error> {
    ///     match times {
    ///         1 => supervisor.shutdown()?,
    ///         _ => supervisor.kill(Target::All)?,
    ///     };
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// interrupted(&mut supervisor, 1)?;
    /// interrupted(&mut supervisor, 2)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    fn kill(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Kill))
    }

    /// Restarts the instances of a group that are up, a few at a time; see
    /// [`Supervisor::rolling_restart`](crate::Supervisor::rolling_restart).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// use pidherd::group::Rolling;
    ///
    /// fn renew_all(supervisor: &mut impl Supervise, group: GroupId) -> Result<u32, Error> {
    ///     Ok(supervisor.rolling_restart(group, Rolling::new().surge(1))?.total())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// renew_all(&mut supervisor, group)?;
    /// assert_eq!(supervisor.group(group).ok_or("no group")?.instances.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::ShuttingDown`], [`Error::Rolling`],
    /// [`Error::NoneUnavailable`], [`Error::Spec`].
    fn rolling_restart(&mut self, group: GroupId, rolling: Rolling) -> Result<Outcome, Error> {
        self.reserve_state(rolling.surge, None)?;
        self.call(|driver| driver.roll(group, rolling))
    }

    /// Sends a signal to the processes of the target; see [`Supervisor::signal`](crate::Supervisor::signal).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn rotate_logs(supervisor: &mut impl Supervise, group: GroupId) -> Result<u32, Error> {
    ///     Ok(supervisor.signal(group, Signal::WINCH)?.accepted)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// assert_eq!(rotate_logs(&mut supervisor, group)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::NotAlive`], [`Error::Signal`].
    fn signal(&mut self, target: impl Into<Target>, signal: Signal) -> Result<Outcome, Error> {
        self.signal_scope(target, signal, Scope::Process)
    }

    /// Sends a signal to all processes of a scope; see
    /// [`Supervisor::signal_scope`](crate::Supervisor::signal_scope).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// use pidherd::Scope;
    ///
    /// fn window_changed(supervisor: &mut impl Supervise) -> Result<(), Error> {
    ///     supervisor.signal_scope(Target::All, Signal::WINCH, Scope::ProcessGroup)?;
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// window_changed(&mut supervisor)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::signal`]; [`Error::NoCgroup`].
    fn signal_scope(&mut self, target: impl Into<Target>, signal: Signal, scope: Scope) -> Result<Outcome, Error> {
        self.call(|driver| driver.signal(target.into(), signal, scope))
    }

    /// Lets running processes read their configuration again; see
    /// [`Supervisor::reload_program`](crate::Supervisor::reload_program).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn read_again(supervisor: &mut impl Supervise, group: GroupId) -> Result<u32, Error> {
    ///     Ok(supervisor.reload_program(group, Signal::HUP, None)?.accepted)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// // None of them is running.
    /// assert_eq!(read_again(&mut supervisor, group)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::NotAlive`], [`Error::CannotNotify`],
    /// [`Error::Signal`].
    fn reload_program(
        &mut self,
        target: impl Into<Target>,
        signal: Signal,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Error> {
        self.call(|driver| driver.reload_program(target.into(), signal, timeout))
    }

    /// Freezes the processes of the target with their cgroups; see
    /// [`Supervisor::freeze`](crate::Supervisor::freeze).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// Whether all of them stand still.
    /// fn pause(supervisor: &mut impl Supervise, batch: GroupId) -> Result<bool, Error> {
    ///     match supervisor.freeze(batch) {
    ///         Ok(_) => Ok(true),
    ///         // They have no cgroups.
    ///         Err(Error::NoCgroup(_)) => Ok(false),
    ///         Err(error) => Err(error),
    ///     }
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// assert!(!pause(&mut supervisor, group)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::NoCgroup`], [`Error::NotAlive`],
    /// [`Error::Freeze`].
    fn freeze(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.freeze(target.into(), true))
    }

    /// Thaws what [`Supervise::freeze`] froze; see [`Supervisor::thaw`](crate::Supervisor::thaw).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn resume_all(supervisor: &mut impl Supervise) -> Result<u32, Error> {
    ///     Ok(supervisor.thaw(Target::All)?.accepted)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// // Nothing was frozen.
    /// assert_eq!(resume_all(&mut supervisor)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::freeze`].
    fn thaw(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.freeze(target.into(), false))
    }

    /// Reports that an instance is ready; see [`Supervisor::report_ready`](crate::Supervisor::report_ready).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// The host has seen that the port answers.
    /// fn answers(supervisor: &mut impl Supervise, instance: InstanceId) -> Result<(), Error> {
    ///     match supervisor.report_ready(instance) {
    ///         // It has ended meanwhile.
    ///         Err(Error::NotAlive(_)) => Ok(()),
    ///         result => result,
    ///     }
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// answers(&mut supervisor, instance)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_ready(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Ready))
    }

    /// Reports that an instance is alive; see [`Supervisor::report_alive`](crate::Supervisor::report_alive).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn check(supervisor: &mut impl Supervise, instance: InstanceId, answer: Result<(), &str>) -> Result<(), Error> {
    ///     match answer {
    ///         Ok(()) => supervisor.report_alive(instance),
    ///         Err(reason) => supervisor.report_failed(instance, reason),
    ///     }
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// assert!(matches!(check(&mut supervisor, instance, Ok(())), Err(Error::NotAlive(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_alive(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Alive))
    }

    /// Reports that an instance has failed although its process is alive; see
    /// [`Supervisor::report_failed`](crate::Supervisor::report_failed).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn give_up(supervisor: &mut impl Supervise, instance: InstanceId) -> Result<(), Error> {
    ///     supervisor.report_failed(instance, "no answer from /health")
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// give_up(&mut supervisor, instance)?;
    /// assert_eq!(supervisor.status(instance).ok_or("no status")?.state.name(), StateName::Stopping);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_failed(&mut self, instance: InstanceId, reason: &str) -> Result<(), Error> {
        self.call(|driver| driver.report_failed(instance, reason))
    }

    /// Stops everything gracefully, and starts nothing any more; see
    /// [`Supervisor::shutdown`](crate::Supervisor::shutdown).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn on_signal(supervisor: &mut impl Supervise, event: &Event) -> Result<(), Error> {
    ///     if let Event::Signal(info) = event {
    ///         if info.signal == Signal::TERM {
    ///             supervisor.shutdown()?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// while let Some(event) = supervisor.next_event() {
    ///     on_signal(&mut supervisor, &event)?;
    /// }
    /// assert!(!supervisor.is_down());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    fn shutdown(&mut self) -> Result<Outcome, Error> {
        self.call(|driver| Ok(driver.shutdown()))
    }

    /// Whether a shutdown is over, and its last event was fetched; see
    /// [`Supervisor::is_down`](crate::Supervisor::is_down).
    #[must_use]
    fn is_down(&self) -> bool {
        self.engine().is_down()
    }

    // The event loop.

    /// Serves what is due and ready; see [`Supervisor::dispatch`](crate::Supervisor::dispatch).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// /// One turn of a loop that was woken.
    /// fn turn(supervisor: &mut impl Supervise) -> Result<usize, Error> {
    ///     supervisor.dispatch()?;
    ///     Ok(std::iter::from_fn(|| supervisor.next_event()).count())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// supervisor.start(group)?;
    /// assert!(turn(&mut supervisor)? >= 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    fn dispatch(&mut self) -> Result<Progress, Error> {
        self.turn(Engine::dispatch)
    }

    /// Takes the oldest event; see [`Supervisor::next_event`](crate::Supervisor::next_event).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn count_ends(supervisor: &mut impl Supervise) -> usize {
    ///     let mut ends = 0;
    ///     while let Some(event) = supervisor.next_event() {
    ///         ends += usize::from(matches!(event, Event::Transition(step) if step.exit.is_some()));
    ///     }
    ///     ends
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// assert_eq!(count_ends(&mut supervisor), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn next_event(&mut self) -> Option<Event> {
        self.engine_mut().next_event()
    }

    /// How many events were dropped; see [`Supervisor::dropped_events`](crate::Supervisor::dropped_events).
    #[must_use]
    fn dropped_events(&self) -> u64 {
        self.engine().events.dropped()
    }

    // How things stand.

    /// The status of an instance; see [`Supervisor::status`](crate::Supervisor::status).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn is_up(supervisor: &impl Supervise, instance: InstanceId) -> bool {
    ///     supervisor.status(instance).is_some_and(|status| status.state.name() == StateName::Running)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// assert!(!is_up(&supervisor, instance));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn status(&self, instance: InstanceId) -> Option<Status> {
        self.engine().status(instance)
    }

    /// The last runs of an instance that have ended; see [`Supervisor::runs`](crate::Supervisor::runs).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn last_end(supervisor: &impl Supervise, instance: InstanceId) -> Option<&'static str> {
    ///     supervisor.runs(instance).next_back().map(|run| run.end.as_str())
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// assert_eq!(last_end(&supervisor, instance), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn runs(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = Run> {
        let instance = self.engine().instances.get(instance);
        instance.map(|instance| instance.history.runs()).into_iter().flatten()
    }

    /// The resources that the present run of an instance has used in its cgroup; see
    /// [`Supervisor::usage`](crate::Supervisor::usage).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn memory(supervisor: &impl Supervise, group: GroupId) -> u64 {
    ///     let members = supervisor.group(group).map_or(Vec::new(), |group| group.instances);
    ///     members.iter().filter_map(|&instance| supervisor.usage(instance)?.memory_current).sum()
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// // Without cgroups, nothing is counted.
    /// assert_eq!(memory(&supervisor, group), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn usage(&self, instance: InstanceId) -> Option<CgroupUsage> {
        self.engine().usage(instance)
    }

    /// The status of a group; see [`Supervisor::group`](crate::Supervisor::group).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn is_wanted(supervisor: &impl Supervise, group: GroupId) -> bool {
    ///     supervisor.group(group).is_some_and(|group| group.wanted == pidherd::lifecycle::Wanted::Up)
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// assert!(!is_wanted(&supervisor, group));
    /// supervisor.start(group)?;
    /// assert!(is_wanted(&supervisor, group));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn group(&self, group: GroupId) -> Option<GroupStatus> {
        self.engine().group_status(group)
    }

    /// The group with this name; see [`Supervisor::group_named`](crate::Supervisor::group_named).
    ///
    /// ```
    /// # use pidherd::supervisor::{GroupId, InstanceId, Supervise};
    /// # use pidherd::{Command, Error, Event, GroupSpec, Restart, Signal, StateName, Supervisor, Target};
    /// fn require(supervisor: &impl Supervise, name: &str) -> Result<GroupId, String> {
    ///     supervisor.group_named(name).ok_or_else(|| format!("there is no group {name}"))
    /// }
    /// # let mut supervisor = Supervisor::new()?;
    /// # let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2))?;
    /// assert_eq!(require(&supervisor, "web"), Ok(group));
    /// assert!(require(&supervisor, "mail").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    fn group_named(&self, name: &str) -> Option<GroupId> {
        self.engine().group_named(name)
    }

    /// The ids of all groups; see [`Supervisor::groups`](crate::Supervisor::groups).
    #[must_use]
    fn groups(&self) -> vec::IntoIter<GroupId> {
        self.engine().groups.ids().collect::<Vec<_>>().into_iter()
    }

    /// The ids of all instances; see [`Supervisor::instances`](crate::Supervisor::instances).
    #[must_use]
    fn instances(&self) -> vec::IntoIter<InstanceId> {
        self.engine().ids().collect::<Vec<_>>().into_iter()
    }

    /// The time on the supervisor's clock; see [`Supervisor::now`](crate::Supervisor::now).
    #[must_use]
    fn now(&self) -> Instant {
        self.engine().kernel.now()
    }
}
