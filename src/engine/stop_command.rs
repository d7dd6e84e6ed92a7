//! The commands that a stop ladder runs ([`Rung::Command`](crate::lifecycle::Rung)).
//!
//! Such a command runs beside the program, so the one process of the instance's lifecycle cannot be the command, as it
//! is for the commands before and after a run. The command has an instance of its own, which no group counts among its
//! members and no call of the host reaches: a job that is done once, or killed. So it is spawned, watched, limited,
//! stored, handed over and found again like every other process, by the same code. What the host learns of it are the
//! two events of a stop command.
//!
//! The instance of the command is made before it is needed, together with the instance of the program: a stop then makes
//! no new record in the state file. Between two commands it is `Stopped`. When its lifecycle has come to rest, the
//! lifecycle of the program gets [`Input::StopCommandEnded`], and goes on with its ladder.
//!
//! After a crash of the host the records tell how far the two lifecycles were. The one of the program is stored first
//! when a command begins, and the one of the command when it ends ([`Engine::resume_stop_commands`]).

use std::sync::Arc;
use std::time::Duration;

use super::context::{CgroupPath, SpawnContext};
use super::core::Engine;
use super::event::Event;
use super::history::History;
use super::ids::{GroupId, InstanceId};
use super::instance::{Group, Instance};
use super::kernel::Kernel;
use super::stop_of::{StopCommand, StopOf, policy_of};
use crate::exit::{Exit, ExitRecord, Pid};
use crate::lifecycle::{
    Failure, Input, Lifecycle, Part, Policy, Reaction, Remaining, Rung, State, StopCommandEnd, Stopping,
};

impl Instance {
    /// Whether it is the instance of a command.
    pub(crate) fn is_stop_command(&self) -> bool {
        self.stop_command.is_some()
    }

    /// What it is for, if it is the instance of a command.
    pub(super) fn stop_of(&self) -> Option<StopOf> {
        self.stop_command.as_ref().map(|command| command.of)
    }

    /// The policy that its lifecycle has in this group.
    pub(crate) fn policy<'a>(&'a self, group: &'a Group) -> &'a Policy {
        self.stop_command
            .as_ref()
            .map_or(&group.policy, |command| &command.policy)
    }

    /// The part of a run to which its process belongs.
    pub(crate) fn part(&self) -> Part {
        match self.stop_command {
            Some(_) => Part::Stop,
            None => self.life.state().part(),
        }
    }

    /// The process that a stop command is for. It may have ended while others of the stop's scope are alive: then its PID
    /// can be that of another process.
    pub(super) fn main_process(&self) -> Option<Pid> {
        match *self.life.state() {
            State::Stopping(Stopping {
                remaining: Remaining::Leader,
                ..
            }) => self.process,
            _ => None,
        }
    }

    /// The instance that the host knows of: the one of the program, if this one is that of a command.
    pub(super) fn known_as(&self, own: InstanceId) -> InstanceId {
        self.stop_command.as_ref().map_or(own, |command| command.of.program)
    }
}

impl Group {
    /// Whether a ladder of its policy runs a command.
    pub(super) fn runs_stop_commands(&self) -> bool {
        self.policy.stop_commands().next().is_some()
    }

    /// The context of the instance with this number, or of its stop command.
    pub(super) fn context_of(&self, number: u32, is_command: bool) -> Arc<SpawnContext> {
        match is_command {
            true => self.stop_context(number),
            false => self.context(number),
        }
    }

    /// The context of a stop command of the instance with this number. Its cgroup is beside that of the program.
    pub(super) fn stop_context(&self, number: u32) -> Arc<SpawnContext> {
        let cgroup = self.cgroup.as_ref().map(|directory| {
            let path = CgroupPath::new(directory, &self.name, number);
            let name = format!("{}.stop", path.name);
            Arc::new(CgroupPath { name, ..path })
        });
        Arc::new(SpawnContext {
            cgroup,
            ..SpawnContext::clone(&self.context)
        })
    }
}

/// How a command has ended that has come to rest in this state.
fn end_in(state: &State) -> StopCommandEnd {
    match *state {
        // With another code than 0 it has failed to start, as its policy says (`Startup::Completes`).
        State::Exited { .. } => StopCommandEnd::Succeeded,
        State::Fatal { failure, .. } | State::Backoff { failure, .. } => match failure {
            Failure::Spawn { errno, .. } => StopCommandEnd::NotSpawned { errno },
            Failure::Ended(exit) => StopCommandEnd::Failed(exit),
            Failure::StartTimeout => StopCommandEnd::TimedOut,
            Failure::NotReady
            | Failure::Watchdog
            | Failure::TimedOut
            | Failure::Unhealthy
            | Failure::Before(_)
            | Failure::Sibling => StopCommandEnd::Failed(Exit::Unknown),
        },
        // Only a kill ends it so.
        _ => StopCommandEnd::Killed,
    }
}

impl<K: Kernel> Engine<K> {
    /// The instances of the groups, without those of their stop commands.
    pub(crate) fn ids(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.instances.ids().filter(|&id| !self.is_stop_command(id))
    }

    /// Whether this is the instance of a stop command.
    pub(crate) fn is_stop_command(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_some_and(Instance::is_stop_command)
    }

    /// Gives the instances of a group their commands, if a ladder of its policy runs one, and brings those that they
    /// have up to date with the group.
    pub(super) fn give_stop_commands(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        let runs_commands = group.runs_stop_commands();
        let members: Vec<_> = group.roster.iter().collect();
        for member in members {
            let command = self.instances.get(member).and_then(|instance| instance.stopper);
            if runs_commands || command.is_some() {
                self.give_stop_command(member);
            }
        }
    }

    /// Gives an instance a command, or brings the one that it has up to date with the group. Its policy follows when it
    /// is begun. Returns the instance of the command.
    pub(super) fn give_stop_command(&mut self, program: InstanceId) -> Option<InstanceId> {
        let instance = self.instances.get(program)?;
        let group = self.groups.get(instance.group)?;
        let (name, context) = (instance.name.clone(), group.stop_context(instance.name.number));
        if let Some(id) = instance.stopper {
            let command = self.instances.get_mut(id)?;
            (command.name, command.context) = (name, context);
            return Some(id);
        }
        let of = StopOf {
            program,
            run: 0,
            index: 0,
            rung: 0,
            limit: Duration::ZERO,
        };
        let has_room = instance.has_room;
        let (owner, command) = (instance.group, StopCommand::new(of, &group.policy));
        self.seed = self.seed.wrapping_add(1);
        let life = Lifecycle::without_room(self.seed);
        let mut made = Instance {
            context,
            ..Instance::new(owner, name, life, History::new(0))
        };
        made.extra_mut().stop_command = Some(Box::new(command));
        let id = self.instances.insert(made);
        self.instances.get_mut(program)?.extra_mut().stopper = Some(id);
        self.must_save = true;
        self.reserve(0);
        if has_room {
            self.give_room(id);
        }
        Some(id)
    }

    /// After another host: gives the programs their commands again, and the groups those that they need.
    pub(super) fn restore_stop_commands(&mut self) {
        let of = |id: InstanceId| Some((self.instances.get(id)?.stop_of()?.program, id));
        let known: Vec<_> = self.instances.ids().filter_map(of).collect();
        for (program, id) in known {
            if let Some(instance) = self.instances.get_mut(program) {
                instance.extra_mut().stopper = Some(id);
            }
        }
        let groups: Vec<_> = self.groups.ids().collect();
        groups.into_iter().for_each(|id| self.give_stop_commands(id));
    }

    /// Begins the command of the rung that an instance has come to. Returns what follows if nothing can be begun.
    pub(super) fn begin_stop_command(&mut self, program: InstanceId, index: u8, limit: Duration) -> Option<Input> {
        let not_begun = Some(Input::StopCommandEnded { succeeded: false });
        let Some(instance) = self.instances.get(program) else {
            return not_begun;
        };
        let State::Stopping(stopping) = *instance.life.state() else {
            return not_begun;
        };
        let (known, run) = (instance.stopper, instance.life.runs());
        let Some(id) = known.or_else(|| self.give_stop_command(program)) else {
            return not_begun;
        };
        self.save_if_changed();
        let group = self
            .instances
            .get(id)
            .and_then(|command| self.groups.get(command.group));
        let policy = group.map(|group| policy_of(limit, &group.policy));
        let command = self.instances.get_mut(id).and_then(Instance::known_extra);
        let command = command.and_then(|extra| extra.stop_command.as_deref_mut());
        let (Some(policy), Some(command)) = (policy, command) else {
            return not_begun;
        };
        command.policy = policy;
        command.of = StopOf {
            program,
            run,
            index,
            rung: stopping.rung,
            limit,
        };
        self.thaw_for_stop(program);
        self.apply_input(id, Input::Start);
        None
    }

    /// After any input to the lifecycle of a command: when it has come to rest, the ladder of the program goes on.
    pub(super) fn follow_stop_command(&mut self, id: InstanceId) {
        let Some(command) = self.instances.get_mut(id) else {
            return;
        };
        let state = *command.life.state();
        if state.name().is_alive() {
            return;
        }
        let extra = command.known_extra();
        let Some(known) = extra.and_then(|extra| extra.stop_command.as_deref_mut()) else {
            return;
        };
        let program = known.of.program;
        known.of.run = 0;
        let succeeded = matches!(end_in(&state), StopCommandEnd::Succeeded);
        command.life.rest();
        self.deadlines.clear(id.index());
        let is_awaited = |engine: &Self| {
            let known = engine.instances.get(program);
            known.is_some_and(|known| known.life.state().has_stop_command())
        };
        if is_awaited(self) {
            // The run may be over with the command, and is not followed by another one while a stop is pending.
            self.run_pending(program);
        }
        if is_awaited(self) {
            self.apply_input(program, Input::StopCommandEnded { succeeded });
        }
        // If the next command has begun, this stores it once more.
        self.store(id);
        self.remove_at_rest(program);
    }

    /// The command of a stop ends with the wait for the program, if SIGKILL is requested.
    pub(super) fn kill_stop_command(&mut self, program: InstanceId) {
        self.apply_to_stop_command(program, Input::Kill);
    }

    /// A command that waits for its spawn is not begun any more when its program has ended.
    pub(super) fn withdraw_stop_command(&mut self, program: InstanceId) {
        let command = self.instances.get(program).and_then(|instance| instance.stopper);
        if command.is_some_and(|id| self.awaits_spawn(id)) {
            self.kill_stop_command(program);
        }
    }

    /// Gives an input to the command that the stop of an instance runs, if it runs one.
    pub(super) fn apply_to_stop_command(&mut self, program: InstanceId, input: Input) {
        let Some(instance) = self.instances.get(program) else {
            return;
        };
        let command = instance.stopper.filter(|_| instance.life.state().has_stop_command());
        if let Some(id) = command {
            self.apply_input(id, input);
        }
    }

    /// Whether an instance has no command that is alive.
    pub(super) fn has_no_living_command(&self, program: InstanceId) -> bool {
        let command = self.instances.get(program).and_then(|instance| instance.stopper);
        let command = command.and_then(|id| self.instances.get(id));
        command.is_none_or(|command| !command.life.state().name().is_alive())
    }

    /// Reports that the process of a command exists.
    pub(super) fn report_stop_command(&mut self, id: InstanceId, pid: Pid) {
        let Some(known) = self.stop_command_of(id) else { return };
        let (instance, of, run) = known;
        self.events.push(Event::StopCommandStarted {
            instance: of.program,
            group: instance.group,
            name: instance.name.clone(),
            run,
            rung: of.rung,
            index: of.index,
            pid,
        });
    }

    /// Reports that a command is over. `pid` is its process.
    fn report_stop_command_end(&mut self, id: InstanceId, pid: Option<Pid>, end: StopCommandEnd) {
        let Some((instance, of, run)) = self.stop_command_of(id) else {
            return;
        };
        let is_unspawned = matches!(end, StopCommandEnd::NotSpawned { .. });
        self.events.push(Event::StopCommandEnded {
            instance: of.program,
            group: instance.group,
            name: instance.name.clone(),
            run,
            rung: of.rung,
            index: of.index,
            pid,
            end,
            error: instance.history.last_error().cloned().filter(|_| is_unspawned),
        });
    }

    /// The instance of a command, what it is for, and the number of the run that is being stopped.
    fn stop_command_of(&self, id: InstanceId) -> Option<(&Instance, StopOf, u64)> {
        let instance = self.instances.get(id)?;
        let of = instance.stop_command.as_ref()?.of;
        let run = self.instances.get(of.program).map_or(0, |program| program.life.runs());
        Some((instance, of, run))
    }

    /// Reports what a reaction of a command's lifecycle means for the host: nothing but its end.
    pub(super) fn emit_of_stop_command(&mut self, id: InstanceId, reaction: &Reaction, pid: Option<Pid>) {
        let Some(state) = self.instances.get(id).map(|command| *command.life.state()) else {
            return;
        };
        if !state.name().is_alive() && reaction.transitions().next().is_some() {
            self.report_stop_command_end(id, pid, end_in(&state));
        }
    }

    /// The ladder of a program does not wait for a command that not even SIGKILL ends.
    pub(super) fn stop_command_is_unkillable(&mut self, id: InstanceId) {
        let command = self.instances.get(id).and_then(|known| known.stop_command.as_ref());
        if let Some(program) = command.map(|command| command.of.program) {
            self.apply_input(program, Input::StopCommandUnkillable);
        }
    }

    /// After a crash of the host: notes the ends of the runs of which only a command is left.
    pub(super) fn remember_ends(&mut self) {
        let ids: Vec<_> = self.instances.ids().collect();
        for id in ids {
            let Some(instance) = self.instances.get_mut(id) else {
                continue;
            };
            let State::Stopping(Stopping { pid, .. }) = *instance.life.state() else {
                continue;
            };
            let exit = instance.life.state().exit_of_reaped();
            if let Some(exit) = exit.filter(|_| instance.life.state().is_left_to_command()) {
                let usage = None;
                instance.history.exited(ExitRecord { pid, exit, usage }, None);
                self.store(id);
            }
        }
    }

    /// After a crash of the host: begins the commands that the last host was about to begin, tells the lifecycles of the
    /// programs about the ends that it had not told, and ends the commands that nothing waits for. `unproven` are the
    /// slots of processes that are not known to be their instances' own.
    pub(super) fn resume_stop_commands(&mut self, unproven: &[(u32, Pid)]) {
        for &(slot, pid) in unproven {
            if let Some(id) = self.instances.id_at(slot).filter(|&id| self.is_stop_command(id)) {
                self.report_stop_command_end(id, Some(pid), StopCommandEnd::Failed(Exit::Unknown));
            }
        }
        let commands: Vec<_> = self.instances.ids().filter(|&id| self.is_stop_command(id)).collect();
        for id in commands {
            self.resume_stop_command(id);
        }
    }

    /// A command is begun once for a rung of a run, and the record of its instance tells for which one it was. So it is
    /// begun if this is another one than its program waits at. Otherwise its end was not told.
    fn resume_stop_command(&mut self, id: InstanceId) {
        let Some((instance, of, run)) = self.stop_command_of(id) else {
            return;
        };
        let is_alive = instance.life.state().name().is_alive();
        let program = self.instances.get(of.program).map(|program| *program.life.state());
        match program {
            Some(State::Stopping(stopping)) if stopping.has_command => {
                let was_begun = (of.run, of.rung) == (run, stopping.rung);
                let is_left = matches!(stopping.remaining, Remaining::Command { .. });
                let is_over = was_begun || is_left || !stopping.awaits_command;
                match (is_alive, is_over) {
                    (true, _) => {}
                    (false, true) => self.follow_stop_command(id),
                    (false, false) => self.begin_again(of.program, stopping),
                }
            }
            // A kill of one that is over leaves it as it is, and it is followed.
            _ => drop(self.apply_input(id, Input::Kill)),
        }
    }

    /// Begins the command of a rung that was recorded and not begun. The ladder may be another one by now.
    fn begin_again(&mut self, program: InstanceId, stopping: Stopping) {
        let instance = self.instances.get(program);
        let group = instance.and_then(|instance| self.groups.get(instance.group));
        let rung = group.map(|group| stopping.ladder(&group.policy).rung(stopping.rung).1);
        let next = match rung {
            Some(Rung::Command { index, limit, .. }) => self.begin_stop_command(program, index, limit),
            _ => Some(Input::StopCommandEnded { succeeded: false }),
        };
        if let Some(input) = next {
            self.apply_input(program, input);
        }
    }
}
