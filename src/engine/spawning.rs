//! The spawns that the lifecycles decide: at once, or in turn while the maximum of spawns is in flight.

use rustix::io::Errno;

use super::context::SpawnContext;
use super::core::Engine;
use super::ids::InstanceId;
use super::instance::Instance;
use super::kernel::{Coming, Kernel, Spawned};
use super::request::Request;
use super::run_command::Told;
use super::stop_of::StopCommand;
use crate::command::SpawnError;
use crate::lifecycle::{Input, Part, Wanted};
use crate::time::Instant;

impl<K: Kernel> Engine<K> {
    /// Spawns a process for an instance. If the maximum of spawns is in flight, the spawn waits in the queue. It also
    /// waits behind the spawns of others that wait: restarts that are due again and again must not keep those waiting
    /// for ever. With a pending stop, which may have waited for other groups, the spawn waits too, so that the stop
    /// withdraws it. A spawn that belongs to a stop does not wait ([`Engine::spawns_for_stop`]).
    pub(super) fn spawn(&mut self, id: InstanceId) -> Option<Input> {
        let others_wait = self.unspawned > 1;
        let is_to_stop = self.instances.get(id).is_some_and(|instance| {
            let may_be_withdrawn = instance.life.state().part() != Part::After;
            may_be_withdrawn && matches!(instance.pending, Some(Request::Stop | Request::Kill))
        });
        let must_wait = others_wait || is_to_stop || self.kernel.is_saturated();
        if must_wait && !self.spawns_for_stop(id) {
            self.spawns.push_back((id, self.now));
            return None;
        }
        Some(self.spawn_now(id))
    }

    /// Whether the next spawn of an instance belongs to its stop: it is that of a command of the ladder, or of the
    /// command after the last run. The processes in flight may hang, and may be what is to be stopped. Their stop may
    /// wait for the end of this one, if the order of the groups says so, so this one must not wait for theirs.
    pub(super) fn spawns_for_stop(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_some_and(|instance| match instance.part() {
            Part::Stop => true,
            Part::After => instance.life.wanted() == Wanted::Down,
            Part::Before | Part::Program => false,
        })
    }

    /// Whether the first spawn that waits may begin. One that belongs to a stop waits only after a change of the host.
    pub(super) fn may_begin_spawn(&self) -> bool {
        let is_for_stop = |&(id, _): &(InstanceId, Instant)| self.awaits_spawn(id) && self.spawns_for_stop(id);
        !self.kernel.is_saturated() || self.spawns.front().is_some_and(is_for_stop)
    }

    /// Forgets the first entries of the queue that nothing waits for any more.
    pub(super) fn forget_stale_spawns(&mut self) {
        while self.spawns.front().is_some_and(|&(id, _)| !self.awaits_spawn(id)) {
            self.spawns.pop_front();
        }
    }

    /// Begins a spawn that has waited, if it belongs to a stop that was requested meanwhile. Returns whether it did.
    pub(super) fn spawn_for_stop(&mut self, id: InstanceId) -> bool {
        let is_due = self.awaits_spawn(id) && self.spawns_for_stop(id);
        if is_due {
            let input = self.spawn_now(id);
            self.apply_input(id, input);
        }
        is_due
    }

    /// Begins the next waiting spawn, or applies the pending request of its instance, which may withdraw the spawn.
    /// Returns whether there was one.
    pub(super) fn serve_spawn(&mut self) -> bool {
        while self.may_begin_spawn() {
            let Some((id, _)) = self.spawns.pop_front() else { break };
            if !self.awaits_spawn(id) {
                continue;
            }
            let had_request = self.run_pending(id);
            if self.awaits_spawn(id) {
                let input = self.spawn_now(id);
                self.apply_input(id, input);
                return true;
            }
            if had_request {
                return true;
            }
        }
        false
    }

    /// Whether a spawn of the instance was decided and has not begun.
    pub(super) fn awaits_spawn(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(id);
        instance.is_some_and(|instance| instance.life.state().is_unspawned())
    }

    /// Whether the spawn of an instance has not begun and is not wanted any more. The command after a run is started
    /// whatever is wanted.
    pub(super) fn is_to_be_withdrawn(&self, id: InstanceId) -> bool {
        let is_unwanted = |instance: &Instance| {
            let state = instance.life.state();
            state.is_unspawned() && state.part() != Part::After && instance.life.wanted() == Wanted::Down
        };
        self.instances.get(id).is_some_and(is_unwanted)
    }

    fn spawn_now(&mut self, id: InstanceId) -> Input {
        let wall = self.kernel.wall();
        // Every instance has a program, its own or its group's. Without one, nothing can be started.
        let nothing = Input::SpawnFailed {
            errno: Errno::NOENT.raw_os_error(),
            permanent: true,
        };
        let part = self.instances.get(id).map(Instance::part);
        if let Some(part @ (Part::Before | Part::After | Part::Stop)) = part {
            return self.spawn_command(id, part);
        }
        let Some(instance) = self.instances.get_mut(id) else {
            return nothing;
        };
        let group = self.groups.get(instance.group);
        let has_socket = group.is_some_and(|group| group.notify.socket);
        let shared = group.and_then(|group| group.programs.program.as_ref());
        let Some(program) = instance.program.as_ref().or(shared) else {
            return nothing;
        };
        self.kernel.begin_birth(id.index(), instance.life.process_number());
        self.kernel.announce(&instance.coming(id, has_socket));
        let spawned = self.kernel.spawn(id.index(), program, &instance.context);
        // A spawn takes time, which must not count against the instances that wait.
        self.now = self.kernel.now();
        instance.history.began(self.now, wall);
        match spawned {
            Ok(Spawned { pid, pipes, executed }) => {
                instance.process = Some(pid);
                instance.enter_cgroup();
                instance.set_pipes(Some(pipes));
                if let Some(extra) = instance.known_extra() {
                    extra.status_text = None;
                }
                self.hear_if_described(id, pid);
                if executed {
                    Input::Spawned(pid)
                } else {
                    Input::Cloned(pid)
                }
            }
            Err(error) => self.spawn_failed(id, error),
        }
    }

    /// Spawns the command before or after the present run, or one that stops it. It has the cgroup of the run, made anew,
    /// or one beside it, and neither the readiness descriptor nor the notify socket.
    fn spawn_command(&mut self, id: InstanceId, part: Part) -> Input {
        let wall = self.kernel.wall();
        // A reload can have removed the command since its spawn was decided.
        let nothing = Input::SpawnFailed {
            errno: Errno::NOENT.raw_os_error(),
            permanent: true,
        };
        let Some(instance) = self.instances.get(id) else {
            return nothing;
        };
        let Some(group) = self.groups.get(instance.group) else {
            return nothing;
        };
        let program = match part {
            Part::Before => group.programs.before.as_ref(),
            Part::Program | Part::After => group.programs.after.as_ref(),
            Part::Stop => {
                let index = instance.stop_command.as_ref().map(|command| command.of.index);
                index.and_then(|index| group.programs.stop.get(usize::from(index)))
            }
        };
        let program_of = |command: &StopCommand| self.instances.get(command.of.program)?.main_process();
        let Some(program) = program else { return nothing };
        let last = instance.history.last_run();
        let told = Told {
            name: &instance.name,
            main: instance.stop_command.as_deref().and_then(program_of),
            ended: instance.life.state().ended(),
            last: last.as_ref(),
            expected: &group.policy.expected,
        };
        let program = program.with_environment(&told.entries());
        let context = SpawnContext {
            ready_fd: false,
            gets_stored: false,
            ..SpawnContext::clone(&instance.context)
        };
        self.kernel.begin_birth(id.index(), instance.life.process_number());
        let coming = instance.coming(id, false);
        let run_of = |command: &StopCommand| Some(self.instances.get(command.of.program)?.life.runs());
        self.kernel.announce(&Coming {
            id: instance.known_as(id),
            run: instance.stop_command.as_deref().and_then(run_of).unwrap_or(coming.run),
            ..coming
        });
        let spawned = self.kernel.spawn(id.index(), &program, &context);
        self.now = self.kernel.now();
        if let Some(instance) = self.instances.get_mut(id).filter(|_| part == Part::Before) {
            instance.history.began(self.now, wall);
        }
        match spawned {
            Ok(Spawned { pid, executed, .. }) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.process = Some(pid);
                    instance.enter_cgroup();
                }
                self.report_stop_command(id, pid);
                if executed {
                    Input::Spawned(pid)
                } else {
                    Input::Cloned(pid)
                }
            }
            Err(error) => self.spawn_failed(id, error),
        }
    }

    /// Records why a spawn failed. Returns the input for the lifecycle.
    pub(super) fn spawn_failed(&mut self, id: InstanceId, error: SpawnError) -> Input {
        let input = Input::SpawnFailed {
            errno: error.errno(),
            permanent: !error.is_transient(),
        };
        if let Some(instance) = self.instances.get_mut(id) {
            let process = instance.process;
            match instance.part() {
                Part::Before | Part::Program | Part::Stop => instance.history.set_last_error(Some(error)),
                Part::After => instance.extra_mut().after_error = Some(error),
            }
            if let Some(pid) = process {
                self.stop_hearing(id, pid);
            }
        }
        input
    }
}

impl Instance {
    /// The process that is about to be spawned for the present state.
    fn coming(&self, id: InstanceId, has_socket: bool) -> Coming<'_> {
        Coming {
            id,
            group: self.group,
            name: &self.name,
            part: self.part(),
            run: self.life.runs(),
            has_socket,
        }
    }
}
