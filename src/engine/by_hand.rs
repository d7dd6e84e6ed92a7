//! Requests that go beyond the policy: a stop by a ladder of its own, a restart of what is up, a signal with a scope.

use std::collections::HashSet;

use super::core::Engine;
use super::error::{Error, SpecError};
use super::ids::{GroupId, InstanceId, Target};
use super::instance::Instance;
use super::kernel::Kernel;
use super::request::{Outcome, Request};
use crate::lifecycle::{Failure, Input, PolicyError, Scope, State, StateName, StopLadder};
use crate::signal::Signal;

impl<K: Kernel> Engine<K> {
    /// Stops by this ladder instead of the policy's. A stop that is under way goes on with it.
    pub(crate) fn stop_with(&mut self, target: Target, ladder: &StopLadder) -> Result<Outcome, Error> {
        let members = self.members(target)?;
        ladder.validate().map_err(SpecError::from)?;
        let mut groups: HashSet<GroupId> = members.iter().filter_map(|&id| self.group_of(id)).collect();
        if let Target::Group(id) = target {
            // It may have no instances.
            groups.insert(id);
        }
        for group in groups {
            self.check_ladder(group, ladder)?;
        }
        for &id in &members {
            let instance = self.instances.get_mut(id);
            if let Some(instance) = instance.filter(|instance| instance.life.state().name().is_in_run()) {
                instance.extra_mut().ladder = Some(Box::new(ladder.clone()));
            }
        }
        if ladder.commands().next().is_some() {
            for &id in &members {
                self.give_stop_command(id);
            }
            self.save_if_changed();
        }
        self.request(target, Request::Stop)
    }

    fn group_of(&self, id: InstanceId) -> Option<GroupId> {
        self.instances.get(id).map(|instance| instance.group)
    }

    /// Checks that a ladder reaches what the policy's ladder reaches, and what the commands of the group allow.
    fn check_ladder(&self, id: GroupId, ladder: &StopLadder) -> Result<(), Error> {
        let group = self.group(id)?;
        if ladder.scope() < group.policy.stop.scope() {
            return Err(SpecError::from(PolicyError::StopScope).into());
        }
        if let Some(index) = ladder
            .commands()
            .find(|&index| usize::from(index) >= group.stop_commands.len())
        {
            return Err(SpecError::NoStopCommand { index }.into());
        }
        if ladder.has(Scope::Cgroup) && group.cgroup.is_none() {
            return Err(SpecError::NoCgroup.into());
        }
        let inherits = |&number: &u32| !group.commands.of(number).or_own_process_group().leads_process_group();
        // Those that are leaving have processes too.
        let mut numbers = if ladder.has(Scope::ProcessGroup) {
            0..group.roster.end().max(group.roster.target())
        } else {
            0..0
        };
        match numbers.find(inherits) {
            Some(number) => Err(SpecError::NoProcessGroup { number }.into()),
            None => Ok(()),
        }
    }

    /// Restarts the instances that are up, and leaves the others down.
    pub(crate) fn restart_if_up(&mut self, target: Target) -> Result<Outcome, Error> {
        let members = self.members(target)?;
        self.check_open()?;
        self.check_staying(target)?;
        let (up, down): (Vec<_>, Vec<_>) = members
            .into_iter()
            .partition(|&id| self.is_up(id) && !self.is_retiring(id));
        let down = Outcome {
            already: u32::try_from(down.len()).unwrap_or(u32::MAX),
            ..Outcome::default()
        };
        Ok(self.submit_all(&up, Request::Restart).and(down))
    }

    /// Sends a signal to the processes of a scope.
    pub(crate) fn signal(&mut self, target: Target, signal: Signal, scope: Scope) -> Result<Outcome, Error> {
        let members = self.members(target)?;
        let lacks_cgroup = |&&id: &&InstanceId| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| instance.process.is_some() && instance.run_cgroup.is_none())
        };
        if let Some(&id) = members.iter().find(lacks_cgroup).filter(|_| scope == Scope::Cgroup) {
            return Err(Error::NoCgroup(id));
        }
        let mut outcome = Outcome::default();
        for id in members {
            let process = self.instances.get(id).and_then(|instance| instance.process);
            let sent = process.map(|_| self.kernel.signal(id.index(), signal, scope));
            match (sent, target) {
                (None, Target::Instance(id)) => return Err(Error::NotAlive(id)),
                (Some(Err(source)), Target::Instance(instance)) => {
                    return Err(Error::Signal {
                        instance,
                        signal,
                        source,
                    });
                }
                (None, _) => outcome.already += 1,
                (Some(Ok(())), _) => outcome.accepted += 1,
                (Some(Err(source)), _) => {
                    outcome.failed += 1;
                    self.signal_failed(id, signal, &source);
                }
            }
        }
        Ok(outcome)
    }

    /// Freezes the processes of the target with their cgroups, or thaws them. Those that are being stopped are left out.
    pub(crate) fn freeze(&mut self, target: Target, on: bool) -> Result<Outcome, Error> {
        let members = self.members(target)?;
        let is_up = |instance: &Instance| {
            let state = instance.life.state().name();
            instance.process.is_some() && matches!(state, StateName::Starting | StateName::Running)
        };
        let up = |id: InstanceId| self.instances.get(id).filter(|instance| is_up(instance));
        let lacks_cgroup = |&&id: &&InstanceId| up(id).is_some_and(|instance| instance.run_cgroup.is_none());
        if let Some(&id) = members.iter().find(lacks_cgroup) {
            return Err(Error::NoCgroup(id));
        }
        let mut outcome = Outcome::default();
        let mut refused = None;
        for id in members {
            let Some(instance) = self.instances.get_mut(id).filter(|instance| is_up(instance)) else {
                if target == Target::Instance(id) {
                    return Err(Error::NotAlive(id));
                }
                outcome.already += 1;
                continue;
            };
            match self.kernel.freeze(id.index(), on) {
                Ok(()) if instance.is_frozen == on => outcome.already += 1,
                Ok(()) => {
                    instance.is_frozen = on;
                    outcome.accepted += 1;
                    // A watchdog begins anew when its process can run again.
                    self.apply_input(id, Input::Alive);
                }
                Err(source) => drop(refused.get_or_insert(Error::Freeze { instance: id, source })),
            }
        }
        refused.map_or(Ok(outcome), Err)
    }

    /// A frozen process would not handle the signals of a stop. They are pending when it is thawed.
    pub(super) fn thaw_for_stop(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(id).filter(|instance| instance.is_frozen) {
            instance.is_frozen = false;
            // If this is refused, the SIGKILL at the end of the ladder ends a frozen process too.
            let _refused = self.kernel.freeze(id.index(), false);
        }
    }

    /// Whether the time of a watchdog is over, and the process cannot report because it is frozen. Its report is then
    /// assumed, whether or not the time of the run is over too: that is judged by itself.
    pub(super) fn is_silent_because_frozen(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(id).filter(|instance| instance.is_frozen);
        instance.is_some_and(|instance| match *instance.life.state() {
            State::Running { until, ends, .. } => until <= self.now && until < ends,
            _ => false,
        })
    }

    /// The host found an instance unhealthy: it is stopped, and then judged as failed.
    pub(crate) fn report_failed(&mut self, id: InstanceId, reason: &str) -> Result<(), Error> {
        let Some(instance) = self.instances.get_mut(id) else {
            return Err(Error::UnknownInstance(id));
        };
        let state = instance.life.state().name();
        // A run fails once. The stop that follows has its reason already.
        if matches!(state, StateName::Starting | StateName::Running) {
            instance.history.set_complaint(Some(reason.into()));
        }
        self.report(id, Input::Failed(Failure::Unhealthy))
    }
}
