//! The calls that a supervisor has on any kernel, for a host that is generic over it.
//!
//! Each call is written once, here, over the engine. The methods of [`Supervisor`](crate::Supervisor) with the same names
//! lead here, and the simulation for hosts has these alone. Two ways were rejected: a type parameter of `Supervisor`,
//! because each crate that uses it would compile the engine anew; and a macro that writes the methods twice, because
//! neither rustfmt nor a search follows it.

use std::io;
use std::time::Duration;
use std::vec;

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
use crate::owner::OtherProcess;
use crate::signal::Signal;
use crate::time::Instant;

/// An engine, and what surrounds each call to it.
pub(crate) trait Driven {
    type Kernel: Kernel;

    fn engine(&self) -> &Engine<Self::Kernel>;
    fn engine_mut(&mut self) -> &mut Engine<Self::Kernel>;

    /// Whether the calling process may use it.
    fn check_owner(&self) -> Result<(), OtherProcess>;

    /// Makes the notify socket.
    fn listen(&mut self) -> Result<(), Error>;

    /// Makes room in the stored state, if there is one, for this many new instances.
    fn reserve_state(&mut self, _instances: u32, _spec: Option<&GroupSpec>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the group needs the notify socket and there is none yet. The first group that needs it makes it.
    fn lacks_socket(&self, spec: &GroupSpec) -> bool {
        spec.notify.socket && self.engine().socket.is_none()
    }

    /// Runs a command: reads the clock once at the beginning, and arms the timer at the end.
    fn call<T>(&mut self, act: impl FnOnce(&mut Engine<Self::Kernel>) -> Result<T, Error>) -> Result<T, Error> {
        self.check_owner()?;
        let engine = self.engine_mut();
        engine.wake();
        let result = act(engine);
        engine.settle(None)?;
        result
    }

    /// Does the same as `call`, for the calls of the host's loop.
    fn turn(&mut self, act: impl FnOnce(&mut Engine<Self::Kernel>) -> io::Result<Progress>) -> Result<Progress, Error> {
        self.check_owner()?;
        let engine = self.engine_mut();
        engine.wake();
        let result = act(engine);
        let progress = *result.as_ref().unwrap_or(&Progress::Done);
        engine.settle(Some(progress))?;
        Ok(result?)
    }
}

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
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Required`].
    fn remove(&mut self, group: GroupId) -> Result<Outcome, Error> {
        self.call(|driver| driver.remove(group))
    }

    /// Changes the number of instances; see [`Supervisor::scale`](crate::Supervisor::scale).
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::Rolling`], [`Error::ShuttingDown`], [`Error::Spec`].
    fn scale(&mut self, group: GroupId, instances: u32) -> Result<Outcome, Error> {
        self.reserve_state(instances, None)?;
        self.call(|driver| driver.scale(group, instances))
    }

    /// What a reload would do; see [`Supervisor::plan_reload`](crate::Supervisor::plan_reload).
    ///
    /// # Errors
    /// As for [`Supervise::reload`].
    fn plan_reload(&self, group: GroupId, spec: &GroupSpec) -> Result<ReloadPlan, Error> {
        self.check_owner()?;
        self.engine().plan(group, spec)
    }

    /// Gives a group a new description; see [`Supervisor::reload`](crate::Supervisor::reload).
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
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Leaving`], [`Error::LeavingInstance`],
    /// [`Error::ShuttingDown`].
    fn start(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Start))
    }

    /// Stops what is up, by the ladder of its policy; see [`Supervisor::stop`](crate::Supervisor::stop).
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    fn stop(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Stop))
    }

    /// Stops what is up, by this ladder; see [`Supervisor::stop_with`](crate::Supervisor::stop_with).
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Spec`].
    fn stop_with(&mut self, target: impl Into<Target>, ladder: &StopLadder) -> Result<Outcome, Error> {
        self.call(|driver| driver.stop_with(target.into(), ladder))
    }

    /// Restarts what is up, and starts what is down; see [`Supervisor::restart`](crate::Supervisor::restart).
    ///
    /// # Errors
    /// As for [`Supervise::start`].
    fn restart(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Restart))
    }

    /// Restarts what is up; see [`Supervisor::restart_if_up`](crate::Supervisor::restart_if_up).
    ///
    /// # Errors
    /// As for [`Supervise::start`].
    fn restart_if_up(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.restart_if_up(target.into()))
    }

    /// Stops what is up with SIGKILL at once; see [`Supervisor::kill`](crate::Supervisor::kill).
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    fn kill(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Kill))
    }

    /// Restarts the instances of a group that are up, a few at a time; see
    /// [`Supervisor::rolling_restart`](crate::Supervisor::rolling_restart).
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
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::NotAlive`], [`Error::Signal`].
    fn signal(&mut self, target: impl Into<Target>, signal: Signal) -> Result<Outcome, Error> {
        self.signal_scope(target, signal, Scope::Process)
    }

    /// Sends a signal to all processes of a scope; see
    /// [`Supervisor::signal_scope`](crate::Supervisor::signal_scope).
    ///
    /// # Errors
    /// As for [`Supervise::signal`]; [`Error::NoCgroup`].
    fn signal_scope(&mut self, target: impl Into<Target>, signal: Signal, scope: Scope) -> Result<Outcome, Error> {
        self.call(|driver| driver.signal(target.into(), signal, scope))
    }

    /// Lets running processes read their configuration again; see
    /// [`Supervisor::reload_program`](crate::Supervisor::reload_program).
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
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::NoCgroup`], [`Error::NotAlive`],
    /// [`Error::Freeze`].
    fn freeze(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.freeze(target.into(), true))
    }

    /// Thaws what [`Supervise::freeze`] froze; see [`Supervisor::thaw`](crate::Supervisor::thaw).
    ///
    /// # Errors
    /// As for [`Supervise::freeze`].
    fn thaw(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.freeze(target.into(), false))
    }

    /// Reports that an instance is ready; see [`Supervisor::report_ready`](crate::Supervisor::report_ready).
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_ready(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Ready))
    }

    /// Reports that an instance is alive; see [`Supervisor::report_alive`](crate::Supervisor::report_alive).
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_alive(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Alive))
    }

    /// Reports that an instance has failed although its process is alive; see
    /// [`Supervisor::report_failed`](crate::Supervisor::report_failed).
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::NotAlive`].
    fn report_failed(&mut self, instance: InstanceId, reason: &str) -> Result<(), Error> {
        self.call(|driver| driver.report_failed(instance, reason))
    }

    /// Stops everything gracefully, and starts nothing any more; see
    /// [`Supervisor::shutdown`](crate::Supervisor::shutdown).
    ///
    /// # Errors
    /// [`Error::Io`].
    fn shutdown(&mut self) -> Result<Outcome, Error> {
        self.call(|driver| Ok(driver.shutdown()))
    }

    /// Whether a shutdown is over; see [`Supervisor::is_down`](crate::Supervisor::is_down).
    #[must_use]
    fn is_down(&self) -> bool {
        self.engine().is_down()
    }

    // The event loop.

    /// Serves what is due and ready; see [`Supervisor::dispatch`](crate::Supervisor::dispatch).
    ///
    /// # Errors
    /// [`Error::Io`].
    fn dispatch(&mut self) -> Result<Progress, Error> {
        self.turn(Engine::dispatch)
    }

    /// Takes the oldest event; see [`Supervisor::next_event`](crate::Supervisor::next_event).
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
    #[must_use]
    fn status(&self, instance: InstanceId) -> Option<Status> {
        self.engine().status(instance)
    }

    /// The last runs of an instance that have ended; see [`Supervisor::runs`](crate::Supervisor::runs).
    fn runs(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = &Run> {
        let instance = self.engine().instances.get(instance);
        instance.into_iter().flat_map(|instance| instance.history.runs())
    }

    /// The resources that the present run of an instance has used in its cgroup; see
    /// [`Supervisor::usage`](crate::Supervisor::usage).
    #[must_use]
    fn usage(&self, instance: InstanceId) -> Option<CgroupUsage> {
        self.engine().usage(instance)
    }

    /// The status of a group; see [`Supervisor::group`](crate::Supervisor::group).
    #[must_use]
    fn group(&self, group: GroupId) -> Option<GroupStatus> {
        self.engine().group_status(group)
    }

    /// The group with this name; see [`Supervisor::group_named`](crate::Supervisor::group_named).
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
        self.engine().instances.ids().collect::<Vec<_>>().into_iter()
    }

    /// The time on the supervisor's clock; see [`Supervisor::now`](crate::Supervisor::now).
    #[must_use]
    fn now(&self) -> Instant {
        self.engine().kernel.now()
    }
}
