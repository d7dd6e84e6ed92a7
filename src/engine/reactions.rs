//! What a lifecycle decided, carried out: signals, spawns, looks, and an event for each transition.

use std::io;
use std::time::Duration;

use super::core::{Engine, starts};
use super::event::{Event, TransitionEvent};
use super::ids::InstanceId;
use super::instance::{Instance, Start};
use super::kernel::Kernel;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{
    Action, Cause, CommandFailure, Failure, Input, Part, Reaction, Rung, Scope, StateName, Transition,
};
use crate::signal::Signal;
use crate::time::Instant;

impl Instance {
    /// The transition without an emitted event yet, and the exit record of the run that it ended.
    pub(super) fn start(&self) -> Option<(Transition, Option<ExitRecord>)> {
        let exit = |start: &Start| start.has_exit.then(|| self.history.last_exit()).flatten();
        self.start.as_ref().map(|start| (start.step(), exit(start)))
    }
}

impl<K: Kernel> Engine<K> {
    /// Carries out a reaction. `exit` is that of the run that ends. Returns the input that follows from it, if any.
    pub(super) fn carry_out(&mut self, id: InstanceId, reaction: &Reaction, exit: Option<ExitRecord>) -> Option<Input> {
        // Checked before any signal is sent: a process that ended by itself before its stop has that end as the cause.
        let stops = reaction.transitions().any(|step| step.to == StateName::Stopping);
        let ended_before = stops && self.has_ended(id);
        let ends = reaction.transitions().any(Transition::ends_process);
        let process = ends.then(|| self.release_process(id)).flatten();
        self.release_to_command(id);
        if let Some(failure) = reaction.after_failed {
            self.report_failed_command(id, process, failure, starts(reaction));
        }
        if self.is_stop_command(id) {
            return self.carry_out_for_command(id, reaction, process);
        }
        // Its process may have been released before.
        let ended = process.or(exit.map(|exit| exit.pid)).map(|pid| (pid, exit));
        let at = self.now;
        // The spawn comes before the event, so that the transition to Starting can contain the pid.
        let spawns = reaction.action.is_some_and(Action::spawns);
        let answer = spawns.then(|| self.spawn(id)).flatten();
        let spawn_waits = spawns && answer.is_none();
        self.emit(id, reaction, ended, at, spawn_waits);
        match reaction.action? {
            Action::Spawn | Action::SpawnBefore | Action::SpawnAfter => answer,
            Action::Signal { signal, scope } => {
                self.send(id, signal, scope);
                self.thaw_for_stop(id);
                ended_before.then_some(Input::EndedBefore)
            }
            Action::RunStopCommand { .. } if ended_before => Some(Input::EndedBefore),
            Action::RunStopCommand { index, limit } => self.begin_stop_command(id, index, limit),
            Action::Look { scope, looks } => self.is_empty(id, scope, looks).then_some(Input::Empty),
            Action::ReportUnkillable => {
                self.report_unkillable(id);
                None
            }
        }
    }

    /// The same for the lifecycle of a stop command. `process` is the process that has ended.
    fn carry_out_for_command(&mut self, id: InstanceId, reaction: &Reaction, process: Option<Pid>) -> Option<Input> {
        let answer = reaction.action.filter(|action| action.spawns());
        let answer = answer.and_then(|_| self.spawn(id));
        self.emit_of_stop_command(id, reaction, process);
        match reaction.action? {
            Action::Signal { signal, scope } => {
                self.send(id, signal, scope);
                None
            }
            Action::Look { scope, looks } => self.is_empty(id, scope, looks).then_some(Input::Empty),
            Action::ReportUnkillable => {
                self.report_unkillable(id);
                self.stop_command_is_unkillable(id);
                None
            }
            Action::Spawn | Action::SpawnBefore | Action::SpawnAfter | Action::RunStopCommand { .. } => answer,
        }
    }

    fn report_unkillable(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get(id) {
            self.events.push(Event::Unkillable {
                instance: instance.known_as(id),
                group: instance.group,
                name: instance.name.clone(),
                pid: instance.life.state().pid(),
            });
        }
    }

    /// Releases the process of a run that has ended, if only a command of its stop is left.
    fn release_to_command(&mut self, id: InstanceId) {
        let is_left =
            |instance: &&mut Instance| instance.process.is_some() && instance.life.state().is_left_to_command();
        if let Some(instance) = self.instances.get_mut(id).filter(is_left) {
            let usage = self.kernel.usage(id.index());
            if let Some(extra) = instance.extra_for(usage.as_ref()) {
                extra.usage = usage;
            }
            self.release_process(id);
            self.withdraw_stop_command(id);
        }
    }

    /// Releases the process of a run that is over. Returns it.
    fn release_process(&mut self, id: InstanceId) -> Option<Pid> {
        let instance = self.instances.get_mut(id)?;
        let pid = instance.process.take()?;
        instance.is_frozen = false;
        let had_cgroup = instance.known_extra().is_some_and(|extra| {
            extra.run_files = None;
            extra.run_cgroup.take().is_some()
        });
        self.kernel.discard(id.index(), Duration::ZERO);
        if had_cgroup {
            // The cgroup may belong to another run from now on.
            self.store(id);
        }
        Some(pid)
    }

    /// Reports that the command after a run has failed. `begun` is the number of runs that have begun since.
    fn report_failed_command(&mut self, id: InstanceId, pid: Option<Pid>, failure: CommandFailure, begun: u64) {
        if let Some(instance) = self.instances.get_mut(id) {
            let error = instance.known_extra().and_then(|extra| extra.after_error.take());
            self.events.push(Event::CommandFailed {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                run: instance.life.runs().saturating_sub(begun),
                pid,
                failure,
                error,
            });
        }
    }

    /// Emits an event for each transition. `ended` is the process that ended with one of them, and its exit record. The
    /// event of a start is emitted late if its spawn waits: when the spawn has begun, so that it can name the process,
    /// or when it is withdrawn.
    fn emit(
        &mut self,
        id: InstanceId,
        reaction: &Reaction,
        ended: Option<(Pid, Option<ExitRecord>)>,
        at: Instant,
        spawn_waits: bool,
    ) {
        let wall = self.kernel.wall();
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        let state = *instance.life.state();
        // The spawn of another part of the run may wait by now.
        let still_waits = |step: Transition| state.is_unspawned() && state.name() == step.to;
        let waited = instance.start().filter(|(step, _)| !still_waits(*step));
        instance.start.take_if(|start| !still_waits(start.step()));
        let part_of = |to| match to {
            StateName::Preparing => Part::Before,
            _ => Part::Program,
        };
        let names_process = |to| matches!(to, StateName::Starting | StateName::Preparing);
        let waits = |step: &Transition| spawn_waits && names_process(step.to);
        let with_exit = |step: Transition| (step, ended.and_then(|(_, exit)| exit).filter(|_| step.ends_run()));
        let start = reaction.transitions().find(waits).map(with_exit);
        let start = start.map(|(step, exit)| Start::new(step, exit.as_ref()));
        instance.start = start.or(instance.start);
        let current = instance.process;
        // After the end of a process, the present one belongs to the last transition.
        let former = current.filter(|_| !reaction.transitions().any(Transition::ends_process));
        let begun = starts(reaction) + u64::from(waited.is_some_and(|(step, _)| step.begins_run()));
        let mut run = instance.life.runs().saturating_sub(begun);
        let told = reaction.transitions().filter(|step| !waits(step)).map(with_exit);
        for (step, exit) in waited.into_iter().chain(told) {
            let pid = match step {
                // A start that waited may have been withdrawn, and the process may be that of another part.
                Transition { to, .. } if names_process(to) => current.filter(|_| part_of(to) == state.part()),
                Transition { from, .. } if from.is_alive() => ended.map(|(pid, _)| pid).or(former),
                Transition { .. } => None,
            };
            run += u64::from(step.begins_run());
            self.events.push(Event::Transition(TransitionEvent {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                from: step.from,
                to: step.to,
                cause: step.cause,
                pid,
                run,
                at,
                wall,
                exit,
                error: match step.cause {
                    Cause::Failed(Failure::Spawn { .. } | Failure::Before(CommandFailure::Spawn { .. })) => {
                        instance.history.last_error().cloned()
                    }
                    _ => None,
                },
            }));
        }
        let group = instance.group;
        for step in reaction.transitions() {
            let has_worked = matches!(step.cause, Cause::Ended { expected: true, .. });
            // A job that ended as expected has been up, even if only for a short time.
            let reached = if has_worked { StateName::Running } else { step.to };
            self.rolled_through(id, group, reached);
        }
    }

    /// Sends the signals of a rung, up to the first one that the kernel refuses.
    pub(super) fn send(&mut self, id: InstanceId, signal: Signal, scope: Scope) {
        let mut sequence = Rung::sequence(signal);
        if let Err(error) = sequence.try_for_each(|signal| self.kernel.signal(id.index(), signal, scope)) {
            self.signal_failed(id, signal, &error);
        }
    }

    pub(crate) fn signal_failed(&mut self, id: InstanceId, signal: Signal, error: &io::Error) {
        if let Some(instance) = self.instances.get(id) {
            self.events.push(Event::SignalFailed {
                instance: instance.known_as(id),
                group: instance.group,
                name: instance.name.clone(),
                signal,
                errno: error.raw_os_error().unwrap_or_default(),
            });
        }
    }

    /// Whether nothing of this scope is alive. If the kernel cannot answer, the scope counts as alive.
    pub(super) fn is_empty(&mut self, id: InstanceId, scope: Scope, looks: u8) -> bool {
        self.kernel.is_empty(id.index(), scope, looks).unwrap_or(false)
    }
}
