//! The engine: gives inputs to the lifecycles, and carries out their decisions.
//!
//! It is generic over the [`Kernel`] seam, reads the clock once a call and after each spawn and execution, and does not
//! block. Work without a natural end, such as a command for thousands of instances or a thousand deadlines at once, is
//! done in slices (`turn.rs`). While work is left, the timer is armed for the past, so the set stays readable.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::arena::Arena;
use super::event::{Event, Events};
use super::ids::{GroupId, InstanceId};
use super::instance::{Group, Instance};
use super::kernel::{Collected, Kernel, Senders};
use super::progress::Progress;
use super::round::{Round, Streak};
use super::telling::{Telling, begins_apart};
use crate::deadlines::Deadlines;
use crate::exit::ExitRecord;
use crate::lifecycle::{Input, Own, Part, Reaction, Reply, Scope, State, StopLadder};
use crate::signal::Signal;
use crate::time::Instant;

/// The default number of remembered runs per instance.
pub(crate) const KEPT_RUNS: usize = 5;

/// The default duration of a turn of the host's loop.
pub(crate) const SLICE: Duration = Duration::from_millis(5);

/// How many times a process is collected until its end is found: its execution and its readiness come first.
pub(crate) const COLLECTIONS: u32 = 3;

/// See the [module](self).
pub(crate) struct Engine<K: Kernel> {
    pub(crate) kernel: K,
    pub(crate) groups: Arena<GroupId, Group>,
    /// The groups that have a name and are not being removed.
    pub(super) names: HashMap<Arc<str>, GroupId>,
    pub(crate) instances: Arena<InstanceId, Instance>,
    pub(crate) events: Events,
    /// The deadline of each instance, by slot.
    pub(crate) deadlines: Deadlines,
    /// The instances with a pending request, in order. An entry may be stale.
    pub(crate) waiting: VecDeque<InstanceId>,
    /// The number of instances with a pending request.
    pub(super) pending: usize,
    /// The number of pending requests that wait while the maximum of spawns is in flight.
    pub(super) held: usize,
    /// The number of pending requests that wait for other groups.
    pub(super) ordered: usize,
    /// The groups with a place in an order, by rank.
    pub(crate) ranked: Vec<GroupId>,
    /// Whether anything has changed that a request that waits for other groups can depend on.
    pub(super) order_changed: bool,
    /// Whether siblings are being told, so that nothing follows from each of them yet ([`siblings`](super::siblings)).
    pub(super) tells_siblings: bool,
    /// The instances that have ended, and still have siblings to be told.
    pub(crate) telling: VecDeque<Telling>,
    /// The instances that have ended for good in this call, which may mean something for their groups.
    pub(super) ended: Vec<InstanceId>,
    /// The instances with a spawn that waits until fewer spawns are in flight, and since when. An entry may be stale.
    pub(super) spawns: VecDeque<(InstanceId, Instant)>,
    /// The number of instances with a spawn that was decided and has not begun.
    pub(super) unspawned: usize,
    /// Whether the next turn is that of a waiting spawn. Otherwise it is that of a pending request.
    pub(super) is_spawns_turn: bool,
    /// The number of instances with a process.
    pub(super) alive: usize,
    /// The seed for the jitter of the next instance.
    pub(crate) seed: u64,
    pub(crate) closing: bool,
    /// Whether the groups have changed since the base was stored.
    pub(crate) must_save: bool,
    /// The mark in the environment of all processes, if the state is stored.
    pub(crate) mark: Option<OsString>,
    /// The number of remembered runs per instance.
    pub(crate) kept_runs: usize,
    /// The number of instances that have places in the lists of what runs.
    pub(super) roomy: usize,
    /// The notify socket's address, if there is one.
    pub(crate) socket: Option<OsString>,
    /// The largest number of messages in the socket's queue.
    pub(crate) queue: usize,
    /// The processes with accepted messages: those with an end that was not yet handled.
    pub(crate) notify_pids: Senders,
    /// The instance that is to be started now, so that its end is handled first.
    pub(super) about_to_start: Option<InstanceId>,
    /// Whether the socket was already read in this call.
    pub(crate) received: bool,
    /// The duration of a turn of the host's loop.
    pub(crate) slice: Duration,
    pub(crate) round: Round,
    pub(crate) streak: Streak,
    /// Whether a request is served next, if one waits; otherwise a descriptor is.
    pub(crate) is_requests_turn: bool,
    /// Whether the answer is `Nothing` although work is left, so that the host must be woken for it.
    pub(crate) wakes_anew: bool,
    /// The time at the beginning of the call. `now` is later after a spawn.
    pub(crate) woken: Instant,
    pub(super) now: Instant,
}

impl<K: Kernel> Engine<K> {
    pub(crate) fn new(kernel: K, events: Events, seed: u64) -> Engine<K> {
        // The number makes the ids of other supervisors unknown here.
        static DRIVERS: AtomicU32 = AtomicU32::new(0);
        let home = DRIVERS.fetch_add(1, Ordering::Relaxed);
        Engine {
            woken: kernel.now(),
            now: kernel.now(),
            kernel,
            groups: Arena::new(home),
            names: HashMap::new(),
            instances: Arena::new(home),
            events,
            deadlines: Deadlines::new(),
            waiting: VecDeque::new(),
            pending: 0,
            held: 0,
            ordered: 0,
            ranked: Vec::new(),
            order_changed: false,
            tells_siblings: false,
            telling: VecDeque::new(),
            ended: Vec::new(),
            spawns: VecDeque::new(),
            unspawned: 0,
            is_spawns_turn: false,
            alive: 0,
            seed,
            closing: false,
            must_save: false,
            mark: None,
            kept_runs: KEPT_RUNS,
            roomy: 0,
            socket: None,
            queue: 1,
            notify_pids: Senders::new(),
            about_to_start: None,
            received: false,
            slice: SLICE,
            round: Round::new(K::BATCH),
            streak: Streak::default(),
            is_requests_turn: false,
            wakes_anew: false,
        }
    }

    /// Begins a call and reads the clock. Later in the call, the clock is read only after a spawn and after the news of
    /// an execution.
    pub(crate) fn wake(&mut self) {
        self.now = self.kernel.now();
        self.woken = self.now;
        self.received = false;
    }

    /// Ends a call: arms the timer for the next deadline, or for the past if work is left. `asked` is the answer to a
    /// call of the host's loop; it is `None` for a command.
    pub(crate) fn settle(&mut self, asked: Option<Progress>) -> io::Result<()> {
        self.follow_ends();
        self.follow_order();
        self.save()?;
        let has_news = self.events.announce(self.is_down(), asked);
        if std::mem::take(&mut self.wakes_anew) {
            // Arming the timer again makes a new edge, which an edge-triggered host needs.
            self.kernel.arm(None)?;
            return self.kernel.arm(Some(Instant::ZERO));
        }
        let looks = self.kernel.look_at();
        let next = self.deadlines.earliest().into_iter().chain(looks).min();
        let waits = has_news || self.may_serve();
        self.kernel.arm(if waits { Some(Instant::ZERO) } else { next })
    }

    /// The oldest event that was not fetched. After the last one, only the fact that everything is down may still be
    /// announced.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let (event, is_news) = self.events.fetch();
        if is_news && self.kernel.is_ours() {
            // If the timer cannot be armed, the next call tries again.
            let _later = self.settle(None);
        }
        event
    }

    /// Whether a shutdown was requested, nothing is alive or pending, and the host has fetched every event.
    pub(crate) fn is_down(&self) -> bool {
        self.closing && self.is_quiet() && self.events.is_empty()
    }

    /// Whether a pending request or spawn can be served now. While the maximum of spawns is in flight, starts wait and
    /// stops do not.
    pub(crate) fn may_serve(&self) -> bool {
        self.may_serve_from(Instant::NEVER)
    }

    /// The same, without spawns that wait since a later time.
    pub(crate) fn may_serve_from(&self, time: Instant) -> bool {
        if !self.telling.is_empty() {
            return true;
        }
        if !self.may_begin_spawn() {
            return self.pending > self.held + self.ordered;
        }
        // The queue is empty when no spawn waits any more.
        let has_waited = self.spawns.front().is_some_and(|&(_, since)| since <= time);
        self.pending > self.ordered || has_waited
    }

    /// Serves a waiting spawn or a pending request, and returns whether there was one. They alternate: processes that
    /// end and are restarted again and again must not keep a requested start waiting for ever. The stop of a sibling comes
    /// first, because it would have been at once if there were fewer.
    pub(crate) fn serve_next(&mut self) -> bool {
        if self.tell_next() {
            return true;
        }
        self.is_spawns_turn = !self.is_spawns_turn;
        let served_spawn = self.is_spawns_turn && self.serve_spawn();
        served_spawn || self.serve_request() || self.serve_spawn()
    }

    /// Whether no process is alive and no request is pending.
    pub(crate) fn is_quiet(&self) -> bool {
        self.alive == 0 && self.pending == 0
    }

    /// Whether the process of an instance has ended.
    pub(crate) fn has_ended(&self, id: InstanceId) -> bool {
        let process = self.instances.get(id).and_then(|instance| instance.process);
        process.is_some() && self.kernel.has_ended(id.index())
    }

    /// Handles what happened to an instance's process, one thing at a time.
    pub(crate) fn process_ready(&mut self, id: InstanceId) -> io::Result<Progress> {
        self.collect(id).map(|(progress, _)| progress)
    }

    /// Handles a ready descriptor of an instance's process: both the execution of its program and its end, if the end
    /// is what made the descriptor ready. A look does not do so: many looks are served in one call, and the restart of
    /// one instance takes as long as many of them.
    pub(crate) fn descriptor_ready(&mut self, id: InstanceId) -> io::Result<Progress> {
        let (progress, has_ended) = self.collect(id)?;
        if has_ended {
            self.process_ready(id)?;
        }
        Ok(progress)
    }

    /// Handles one thing that happened to an instance's process. Also returns whether the process has ended and is to
    /// be collected again.
    fn collect(&mut self, id: InstanceId) -> io::Result<(Progress, bool)> {
        let nothing = if self.run_pending(id) {
            Progress::Done
        } else {
            Progress::Nothing
        };
        let heard_out = self.receive_last_messages(id);
        let Some(instance) = self.instances.get(id) else {
            return Ok((nothing, false));
        };
        if instance.process.is_none() {
            return Ok((nothing, false));
        }
        let policy = self.groups.get(instance.group).map(|group| instance.policy(group));
        let own = instance.ladder.as_deref().map(StopLadder::scope);
        let scope = own
            .or(policy.map(|policy| policy.stop.scope()))
            .unwrap_or(Scope::Process);
        let judges_others = policy.is_some_and(|policy| instance.life.judges_others(policy));
        match self.kernel.collect(id.index(), scope > Scope::Process)? {
            Collected::Nothing => return Ok((nothing, false)),
            Collected::Executed { ended } => {
                self.executed(id);
                return Ok((Progress::Done, ended));
            }
            Collected::SpawnFailed(error) => {
                let input = self.spawn_failed(id, error);
                self.apply_input(id, input);
            }
            Collected::Ended(record) => self.collect_end(id, record, judges_others.then_some(scope), heard_out),
            Collected::CgroupEmpty => {
                self.apply_input(id, Input::Empty);
            }
            Collected::Ready => {
                self.apply_input(id, Input::Ready);
            }
            Collected::NotReady => {
                self.apply_input(id, Input::NotReady);
            }
            Collected::Spurious => {}
        }
        Ok((Progress::Done, false))
    }

    /// Handles the execution of an instance's program.
    pub(super) fn executed(&mut self, id: InstanceId) {
        // The program may have been executed during this call, and its grace must not begin before that.
        self.now = self.kernel.now();
        self.apply_input(id, Input::Executed);
        self.update_limits(id);
    }

    /// Handles the end of an instance's process. `judged` is the scope with other processes that count, if any do.
    /// `heard_out` is whether its last messages were received.
    fn collect_end(&mut self, id: InstanceId, record: ExitRecord, judged: Option<Scope>, heard_out: bool) {
        let looked = judged.map(|scope| self.kernel.is_empty(id.index(), scope, 0));
        // If the kernel cannot answer, the others count as alive.
        let alone = looked.as_ref().is_none_or(|looked| *looked.as_ref().unwrap_or(&false));
        // The usage is not known if the process was no child of this host, which may not have seen its execution.
        let has_others = match looked {
            Some(Ok(is_empty)) => !is_empty,
            Some(Err(_)) => record.usage.is_none(),
            None => false,
        };
        // No other end can be the kernel's for lack of memory, so nothing is read for it.
        let is_killed = record.exit.signal() == Some(Signal::KILL);
        let oom = is_killed.then(|| self.kernel.out_of_memory(id.index())).flatten();
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        let executed = has_others && instance.life.state().is_in_flight();
        if instance.life.state().part() == Part::Program {
            instance.history.exited(record, oom);
        }
        if !heard_out {
            // The process ended after the first look.
            self.receive_queued();
        }
        self.stop_hearing(id, record.pid);
        if executed {
            // Only its program can have started others. The host did not see the execution.
            self.apply_input(id, Input::Executed);
        }
        let input = if alone { Input::Exited } else { Input::ExitedLeaving };
        self.apply_input(id, input(record.exit));
    }

    /// Gives an input to a lifecycle and carries out its decision, until no further input follows.
    pub(crate) fn apply_input(&mut self, id: InstanceId, input: Input) -> Reply {
        let mut reply = None;
        let mut joint = None;
        let mut next = Some(input);
        while let Some(input) = next {
            let others_crashes = self.others_crashes(id, input);
            let Some(instance) = self.instances.get_mut(id) else {
                break;
            };
            let Some(group) = self.groups.get(instance.group) else {
                break;
            };
            let before = *instance.life.state();
            let (life, extra) = instance.life_and_extra();
            let command = extra.stop_command.as_ref();
            let policy = command.map_or(&group.policy, |command| &command.policy);
            let own = Own {
                ladder: extra.ladder.as_deref(),
                watchdog: extra.watchdog,
                because: extra.because,
                others_crashes,
            };
            let was_joint = life.is_joint();
            let reaction = life.handle_with(policy, own, input, self.now);
            if was_joint || life.is_joint() {
                joint = Some(instance.group);
            }
            instance.is_untold &= !begins_apart(&reaction);
            let after = *instance.life.state();
            self.note_stop(id, before.name(), after.name());
            let exit = self.note_runs(id, &reaction);
            // Before anything is carried out, so that the next host knows what this one was about to do.
            self.store(id);
            let counts = |state: State| [state.name().is_alive(), state.is_unspawned()].map(usize::from);
            let ([alive, unspawned], [was_alive, was_unspawned]) = (counts(after), counts(before));
            self.alive = (self.alive + alive).saturating_sub(was_alive);
            self.unspawned = (self.unspawned + unspawned).saturating_sub(was_unspawned);
            reply.get_or_insert(reaction.reply);
            next = self.carry_out(id, &reaction, exit);
        }
        self.forget_stale_spawns();
        if input == Input::Kill {
            self.kill_stop_command(id);
        }
        self.order_changed = true;
        if let Some(group) = joint {
            self.follow_siblings(id, group);
        }
        self.follow_up(id);
        reply.unwrap_or(Reply::Ignored)
    }

    /// After any input to an instance: updates its deadline, and removes it if it is retiring and at rest.
    fn follow_up(&mut self, id: InstanceId) {
        if self.is_to_be_withdrawn(id) {
            self.apply_input(id, Input::SpawnWithdrawn);
            return;
        }
        if self.spawn_for_stop(id) {
            return;
        }
        self.note_end_of_reload(id);
        self.set_deadline(id);
        let Some(instance) = self.instances.get(id) else { return };
        if instance.is_stop_command() {
            self.follow_stop_command(id);
            return;
        }
        let group = instance.group;
        self.drop_descriptors_at_rest(id);
        self.remove_at_rest(id);
        self.roll_on(group);
    }

    /// Removes an instance that is retiring, if nothing of it is alive or pending.
    pub(super) fn remove_at_rest(&mut self, id: InstanceId) {
        let is_at_rest = |instance: &Instance| !instance.life.state().name().is_alive() && instance.pending.is_none();
        let at_rest = self.instances.get(id).is_some_and(is_at_rest);
        if at_rest && self.is_retiring(id) && self.has_no_living_command(id) {
            self.remove_instance(id);
        }
    }

    /// Closes the stored descriptors of an instance if no run of it follows without another request.
    pub(super) fn drop_descriptors_at_rest(&mut self, id: InstanceId) {
        let is_at_rest = |instance: &Instance| {
            let has_deadline = instance.life.deadline().is_some();
            let is_to_act = instance.pending.is_some() || has_deadline || instance.life.awaits_siblings();
            !instance.life.state().name().is_alive() && !is_to_act
        };
        let is_to_start = self.about_to_start == Some(id);
        if !is_to_start && self.instances.get(id).is_some_and(is_at_rest) {
            self.kernel.drop_descriptors(id.index());
        }
    }

    fn remove_instance(&mut self, id: InstanceId) {
        let command = self.instances.get(id).and_then(|instance| instance.stopper);
        if let Some(command) = command {
            // Before its program, so that no record is left of a command alone.
            self.remove_instance(command);
        }
        let Some(instance) = self.instances.remove(id) else {
            return;
        };
        self.roomy -= usize::from(instance.has_room);
        self.deadlines.clear(id.index());
        self.kernel.drop_descriptors(id.index());
        // An empty slot has an empty record.
        self.kernel.record(id.index(), &|_| ());
        if instance.is_stop_command() {
            return;
        }
        let Some(group) = self.groups.get_mut(instance.group) else {
            return;
        };
        self.order_changed = true;
        group.roster.take(instance.name.number);
        if let Some((roll, _)) = &mut group.roll {
            roll.left(id);
        }
        if instance.life.is_joint() {
            self.start_jointly(instance.group);
        }
        self.remove_if_empty(instance.group);
    }

    /// Removes a group that is leaving and has no instance.
    pub(crate) fn remove_if_empty(&mut self, id: GroupId) {
        if self
            .groups
            .get(id)
            .is_some_and(|group| group.leaving && group.roster.is_empty())
        {
            if let Some(group) = self.groups.remove(id) {
                self.must_save = true;
                self.leave_order(id, &group.order);
                self.events.push(Event::GroupRemoved {
                    group: id,
                    name: group.name,
                });
            }
        }
    }
}

/// The number of runs that a reaction begins.
pub(super) fn starts(reaction: &Reaction) -> u64 {
    reaction.transitions().map(|step| u64::from(step.begins_run())).sum()
}
