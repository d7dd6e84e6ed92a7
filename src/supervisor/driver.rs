//! The driver: feeds what happens to the lifecycles, and carries out what they decide.
//!
//! It is written against the [`Kernel`] seam, reads the clock once a call and after each spawn, and never blocks.
//! Work without a natural end (a command for thousands, a thousand deadlines at once) is done in slices of
//! [`Kernel::SLICE`]; while something is left, the timer is armed for the past, so the set stays readable.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::arena::Arena;
use super::event::{Event, Events, TransitionEvent};
use super::history::{End, Over};
use super::instance::{Group, Instance};
use super::kernel::{Kernel, Seen};
use super::{GroupId, InGroups, InInstances, InstanceId, Request};
use crate::deadlines::Deadlines;
use crate::exit::Pid;
use crate::lifecycle::{
    Action, Cause, Failure, Input, Reaction, Reply, Rung, Scope, Startup, State, StateName, Transition,
};
use crate::signal::Signal;
use crate::time::Instant;

/// How many runs of each instance are remembered unless the host wants otherwise.
pub(super) const KEPT_RUNS: usize = 5;

/// How many times a process may have to be looked at until its end is seen: its readiness comes first.
const MESSAGES: u32 = 2;

/// See the [module](self).
pub(super) struct Driver<K: Kernel> {
    pub(super) kernel: K,
    pub(super) groups: Arena<InGroups, Group>,
    pub(super) instances: Arena<InInstances, Instance<K::Process>>,
    pub(super) events: Events,
    /// When each instance has to be looked at again, by its slot.
    pub(super) deadlines: Deadlines,
    /// Whose pending request is next. Some may have had their turn since.
    waiting: VecDeque<InstanceId>,
    /// How many instances have a request that is pending.
    pending: usize,
    /// How many instances have a process.
    alive: usize,
    /// What the jitter of the next instance is drawn from.
    pub(super) seed: u64,
    pub(super) closing: bool,
    /// How many runs of each instance are remembered.
    pub(super) kept_runs: usize,
    /// The notify socket's address, if there is one.
    pub(super) socket: Option<OsString>,
    /// Whose messages are heard: processes that have not been reaped.
    pub(super) speakers: HashMap<Pid, InstanceId>,
    /// When the call began, and what time it is: spawning takes some.
    woken: Instant,
    now: Instant,
}

/// Whether a call found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Progress {
    /// Nothing: the call was spurious, and harmless.
    Nothing,
    /// What was due is done.
    Done,
    /// There is more; the set stays readable until it is done.
    More,
}

impl<K: Kernel> Driver<K> {
    pub(super) fn new(kernel: K, events: Events, seed: u64) -> Driver<K> {
        // So that an id of another supervisor is unknown here.
        static DRIVERS: AtomicU32 = AtomicU32::new(0);
        let home = DRIVERS.fetch_add(1, Ordering::Relaxed);
        Driver {
            woken: kernel.now(),
            now: kernel.now(),
            kernel,
            groups: Arena::new(home),
            instances: Arena::new(home),
            events,
            deadlines: Deadlines::new(),
            waiting: VecDeque::new(),
            pending: 0,
            alive: 0,
            seed,
            closing: false,
            kept_runs: KEPT_RUNS,
            socket: None,
            speakers: HashMap::new(),
        }
    }

    /// Begins a call: the one reading of the clock, but for one after each spawn.
    pub(super) fn wake(&mut self) {
        self.now = self.kernel.now();
        self.woken = self.now;
    }

    /// Ends a call: the timer is armed for whatever comes next.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let next = if self.pending == 0 {
            let looks = self.kernel.look_at();
            self.deadlines.earliest().into_iter().chain(looks).min()
        } else {
            Some(Instant::ZERO)
        };
        self.kernel.arm(next)
    }

    /// Whether nothing is alive and nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.alive == 0 && self.pending == 0
    }

    /// Makes room for instances that have just been made, so that no restart has to.
    pub(super) fn reserve(&mut self, made: usize, speakers: usize) {
        self.speakers.reserve(speakers);
        self.kernel.reserve(made);
        self.deadlines.reserve(self.instances.slots());
        let room = self.instances.slots() as usize;
        self.waiting.reserve(room.saturating_sub(self.waiting.len()));
    }

    // Requests.

    /// Asks an instance for something: now, while the budget lasts and nothing waits before it.
    pub(super) fn ask(&mut self, id: InstanceId, request: Request, budget: &mut u32) -> Reply {
        // A rolling restart that ends in the middle of a command sends away whom it had added.
        if request.wants_up() && self.leaves(id) {
            return Reply::Ignored;
        }
        let Some(instance) = self.instances.get_mut(id) else {
            return Reply::Ignored;
        };
        let Some(earlier) = instance.pending else {
            if *budget > 0 {
                *budget -= 1;
                return self.obey(id, request);
            }
            instance.pending = Some(request);
            self.pending += 1;
            self.waiting.push_back(id);
            return Reply::Queued;
        };
        instance.pending = Some(earlier.then(request).unwrap_or(request));
        if earlier.then(request).is_none() {
            // The two can't be said as one: the earlier one takes its turn now.
            self.obey(id, earlier);
        }
        Reply::Queued
    }

    /// Lets a pending request take its turn, and says whether there was one.
    fn take_turn(&mut self, id: InstanceId) -> bool {
        let pending = self.instances.get_mut(id).and_then(|instance| instance.pending.take());
        if let Some(request) = pending {
            self.pending = self.pending.saturating_sub(1);
            self.obey(id, request);
        }
        if self.pending == 0 {
            self.waiting.clear();
        }
        pending.is_some()
    }

    /// Whoever is to be started and has just ended, unseen, is seen first: it is not "already" running.
    fn obey(&mut self, id: InstanceId, request: Request) -> Reply {
        // Its readiness may have to be heard before its end.
        for _ in 0..MESSAGES {
            if request != Request::Start || !self.has_ended(id) {
                break;
            }
            // Whatever fails is tried again when its descriptor is ready.
            let _later = self.process_ready(id);
        }
        // Its end may have been the last that a rolling restart waited for, which sends it away.
        if request.wants_up() && self.leaves(id) {
            return Reply::Ignored;
        }
        self.feed(id, request.input())
    }

    /// Whether the process of an instance that is up has ended, and nobody has been told.
    fn has_ended(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_some_and(|instance| {
            let is_up = matches!(instance.life.state().name(), StateName::Starting | StateName::Running);
            let process = instance.process.as_ref().filter(|_| is_up);
            process.is_some_and(|process| self.kernel.has_ended(process))
        })
    }

    // What happens. What was asked for before comes first: nothing is started, because of a delay that
    // is over or a process that has ended, when its stop is pending.

    /// Whatever is due: deadlines first, then requests that wait, each at most a slice of them.
    pub(super) fn run_due(&mut self) -> Progress {
        let mut done = self.look_again();
        while done < K::SLICE {
            let Some(index) = self.deadlines.pop_due(self.woken) else {
                break;
            };
            if let Some(id) = self.instances.id_at(index) {
                self.take_turn(id);
                self.look_before_silence(id);
                self.feed(id, Input::Timeout);
            }
            done += 1;
        }
        for _ in 0..K::SLICE {
            let Some(id) = self.waiting.pop_front() else { break };
            self.take_turn(id);
            done += 1;
        }
        let next = self.deadlines.earliest().into_iter().chain(self.kernel.look_at()).min();
        let more = self.pending > 0 || next.is_some_and(|at| at <= self.woken);
        match (done, more) {
            (_, true) => Progress::More,
            (0, false) => Progress::Nothing,
            (_, false) => Progress::Done,
        }
    }

    /// Collects processes that had ended before and were to be looked at again, at most a slice of them.
    fn look_again(&mut self) -> u32 {
        let mut looked = 0;
        while looked < K::SLICE {
            let Some(index) = self.kernel.look_again(self.woken) else {
                break;
            };
            if let Some(id) = self.instances.id_at(index) {
                // Where it fails, the kernel's side sets the next look.
                let _later = self.process_ready(id);
            }
            looked += 1;
        }
        looked
    }

    /// Who is about to be judged by his silence may have spoken, or ended, and nobody has looked.
    fn look_before_silence(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(id) else { return };
        let notifies = || {
            let group = self.groups.get(instance.group);
            group.is_some_and(|group| matches!(group.policy.startup, Startup::Notify { .. }))
        };
        let is_judged = match instance.life.state().name() {
            StateName::Running => true,
            StateName::Starting => notifies(),
            _ => false,
        };
        if is_judged {
            // Whatever fails is tried again when its descriptor is ready.
            let _later = self.process_ready(id);
        }
    }

    /// The descriptor of an instance's process is ready.
    pub(super) fn process_ready(&mut self, id: InstanceId) -> io::Result<Progress> {
        let nothing = if self.take_turn(id) {
            Progress::Done
        } else {
            Progress::Nothing
        };
        let Some(instance) = self.instances.get_mut(id) else {
            return Ok(nothing);
        };
        let Some(process) = &mut instance.process else {
            return Ok(nothing);
        };
        let policy = self.groups.get(instance.group).map(|group| &group.policy);
        let scope = policy.map_or(Scope::Process, |policy| policy.stop.scope());
        let stopping = instance.life.state().name() == StateName::Stopping;
        let hold = scope > Scope::Process;
        let notifies = policy.is_some_and(|policy| matches!(policy.startup, Startup::Notify { .. }));
        let awaited = notifies && instance.life.state().name() == StateName::Starting;
        match self.kernel.collect(process, hold)? {
            Seen::Nothing => return Ok(nothing),
            Seen::Ended(record) => {
                self.speakers.remove(&record.pid);
                // What can't be known counts as alive.
                let alone = stopping || !hold || self.kernel.is_empty(process, scope, 0).unwrap_or(false);
                instance.history.last_exit = Some(record);
                let input = if alone { Input::Exited } else { Input::ExitedLeaving };
                self.feed(id, input(record.exit));
            }
            Seen::Empty => {
                self.feed(id, Input::Empty);
            }
            Seen::Ready => {
                self.feed(id, Input::Ready);
            }
            // Who need not say anything may close what it could have said it with.
            Seen::NotReady if awaited => {
                self.feed(id, Input::Failed(Failure::NotReady));
            }
            Seen::NotReady | Seen::Noise => {}
        }
        Ok(Progress::Done)
    }

    /// Gives an input to a lifecycle and carries out what it decides, until nothing follows.
    pub(super) fn feed(&mut self, id: InstanceId, input: Input) -> Reply {
        let mut reply = None;
        let mut next = Some(input);
        while let Some(input) = next {
            let Some(instance) = self.instances.get_mut(id) else {
                break;
            };
            let Some(group) = self.groups.get(instance.group) else {
                break;
            };
            let before = *instance.life.state();
            let reaction = instance.life.handle(&group.policy, input, self.now);
            let after = instance.life.state().name().is_alive();
            self.alive = (self.alive + usize::from(after)).saturating_sub(usize::from(before.name().is_alive()));
            instance.history.asked_to_kill |= input == Input::Kill;
            reply.get_or_insert(reaction.reply);
            next = self.carry_out(id, &reaction, &before);
        }
        self.follow_up(id);
        reply.unwrap_or(Reply::Ignored)
    }

    /// Does what a reaction says, and returns what became of it.
    fn carry_out(&mut self, id: InstanceId, reaction: &Reaction, before: &State) -> Option<Input> {
        if reaction.transitions().any(|step| step.to == StateName::Stopping) {
            self.look_before_stop(id);
        }
        let ended = reaction
            .transitions()
            .any(Transition::ends_run)
            .then(|| self.bury(id, reaction, before))
            .flatten();
        let at = self.now;
        // A spawn comes before the telling, so that the way into Starting can name the process.
        let answer = (reaction.action == Some(Action::Spawn)).then(|| self.spawn(id));
        self.tell(id, reaction, ended, at);
        match reaction.action? {
            Action::Spawn => answer,
            Action::Signal { signal, scope } => {
                self.send(id, signal, scope);
                None
            }
            Action::Look { scope, looks } => self.is_empty(id, scope, looks).then_some(Input::Empty),
            Action::ReportUnkillable => {
                let instance = self.instances.get(id)?;
                self.events.push(Event::Unkillable {
                    instance: id,
                    group: instance.group,
                    name: instance.name.clone(),
                    pid: instance.life.state().pid(),
                });
                None
            }
        }
    }

    /// Who is stopped may have ended by itself: then that is what its run is remembered for.
    fn look_before_stop(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(id) {
            let process = instance.process.as_ref();
            instance.history.ended_before = process.is_some_and(|process| self.kernel.has_ended(process));
        }
    }

    /// A run is over: lets go of its process.
    fn bury(&mut self, id: InstanceId, reaction: &Reaction, before: &State) -> Option<Pid> {
        let wall = self.kernel.wall();
        let instance = self.instances.get_mut(id)?;
        let number = instance.life.runs().saturating_sub(starts(reaction));
        let process = instance.process.take();
        instance.lives_in = None;
        let exit = instance.history.last_exit.filter(|_| process.is_some());
        let end = match (exit, &instance.history.last_error, self.groups.get(instance.group)) {
            (Some(record), _, _) if instance.history.ended_before => End::of_exit(record.exit),
            (Some(record), _, Some(group)) => {
                End::of(before, record.exit, &group.policy.stop, instance.history.asked_to_kill)
            }
            (None, Some(error), _) => End::NotSpawned(error.clone()),
            (_, _, _) => End::Unknown,
        };
        let cgroup = process.as_ref().and_then(|process| self.kernel.usage(process));
        instance
            .history
            .ended(number, Over { end, exit, cgroup }, self.now, wall);
        let process = process?;
        let pid = self.kernel.pid(&process);
        self.kernel.release(process, Duration::ZERO);
        Some(pid)
    }

    fn spawn(&mut self, id: InstanceId) -> Input {
        let wall = self.kernel.wall();
        // Every instance has a program, its own or its group's; without one nothing can be started.
        let nothing = Input::SpawnFailed {
            errno: Errno::NOENT.raw_os_error(),
            permanent: true,
        };
        let Some(instance) = self.instances.get_mut(id) else {
            return nothing;
        };
        let group = self.groups.get_mut(instance.group);
        let speaks = group.as_ref().is_some_and(|group| group.voice.socket);
        let shared = group.and_then(|group| group.program.as_mut());
        let Some(program) = instance.program.as_mut().or(shared) else {
            return nothing;
        };
        let spawned = self.kernel.spawn(program, &instance.place, id.index());
        // It takes its time, and those that wait for their turn are not to be charged with that.
        self.now = self.kernel.now();
        instance.history.began(self.now, wall);
        match spawned {
            Ok((process, pipes)) => {
                let pid = self.kernel.pid(&process);
                instance.process = Some(process);
                instance.lives_in = instance.place.home.clone();
                instance.pipes = Some(pipes);
                instance.says = None;
                if speaks {
                    self.speakers.insert(pid, id);
                }
                Input::Spawned(pid)
            }
            Err(error) => {
                let input = Input::SpawnFailed {
                    errno: error.errno(),
                    permanent: !error.is_transient(),
                };
                instance.history.last_error = Some(error);
                input
            }
        }
    }

    /// Tells the host, transition by transition. `ended` is the process that ended with one of them.
    fn tell(&mut self, id: InstanceId, reaction: &Reaction, ended: Option<Pid>, at: Instant) {
        let wall = self.kernel.wall();
        let Some(instance) = self.instances.get(id) else { return };
        let current = instance.process.as_ref().map(|process| self.kernel.pid(process));
        let mut run = instance.life.runs().saturating_sub(starts(reaction));
        for step in reaction.transitions() {
            let pid = match step {
                Transition {
                    to: StateName::Starting,
                    ..
                } => current,
                Transition { from, .. } if from.is_alive() => ended.or(current),
                Transition { .. } => None,
            };
            run += u64::from(step.to == StateName::Starting);
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
                exit: instance
                    .history
                    .last_exit
                    .filter(|_| step.ends_run() && ended.is_some()),
                error: match step.cause {
                    Cause::Failed(Failure::Spawn { .. }) => instance.history.last_error.clone(),
                    _ => None,
                },
            }));
        }
        let group = instance.group;
        for step in reaction.transitions() {
            let has_worked = matches!(step.cause, Cause::Ended { expected: true, .. });
            // A job that is done has come up, if not for long.
            let reached = if has_worked { StateName::Running } else { step.to };
            self.rolled_through(id, group, reached);
        }
    }

    /// Sends the signals of a rung, up to the first that the kernel refuses.
    fn send(&mut self, id: InstanceId, signal: Signal, scope: Scope) {
        let Some(process) = self.instances.get(id).and_then(|instance| instance.process.as_ref()) else {
            return;
        };
        let mut sequence = Rung::sequence(signal);
        if let Err(error) = sequence.try_for_each(|signal| self.kernel.signal(process, signal, scope)) {
            self.signal_failed(id, signal, &error);
        }
    }

    pub(super) fn signal_failed(&mut self, id: InstanceId, signal: Signal, error: &io::Error) {
        if let Some(instance) = self.instances.get(id) {
            self.events.push(Event::SignalFailed {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                signal,
                errno: error.raw_os_error().unwrap_or_default(),
            });
        }
    }

    /// Whether nothing of this scope is alive; what can't be known counts as alive.
    fn is_empty(&mut self, id: InstanceId, scope: Scope, looks: u8) -> bool {
        let process = self.instances.get(id).and_then(|instance| instance.process.as_ref());
        process.is_none_or(|process| self.kernel.is_empty(process, scope, looks).unwrap_or(false))
    }

    /// After whatever happened to an instance: its deadline, and whether it may go.
    fn follow_up(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(id) else { return };
        match instance.life.deadline() {
            Some(at) => self.deadlines.set(id.index(), at),
            None => self.deadlines.clear(id.index()),
        }
        let group = instance.group;
        let at_rest = !instance.life.state().name().is_alive() && instance.pending.is_none();
        if at_rest && self.leaves(id) {
            self.dismiss(id);
        }
        self.roll_on(group);
    }

    fn dismiss(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.remove(id) else {
            return;
        };
        self.deadlines.clear(id.index());
        let Some(group) = self.groups.get_mut(instance.group) else {
            return;
        };
        group.roster.take(instance.name.number);
        if let Some((roll, _)) = &mut group.roll {
            roll.left(id);
        }
        self.remove_if_empty(instance.group);
    }

    /// A group that is leaving goes with its last instance.
    pub(super) fn remove_if_empty(&mut self, id: GroupId) {
        if self
            .groups
            .get(id)
            .is_some_and(|group| group.leaving && group.roster.is_empty())
        {
            if let Some(group) = self.groups.remove(id) {
                self.events.push(Event::GroupRemoved {
                    group: id,
                    name: group.name,
                });
            }
        }
    }
}

/// How many runs a reaction begins.
fn starts(reaction: &Reaction) -> u64 {
    reaction
        .transitions()
        .map(|step| u64::from(step.to == StateName::Starting))
        .sum()
}

/// How long [`Drop`] waits for processes that were sent SIGKILL, all together.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

impl<K: Kernel> Drop for Driver<K> {
    /// Leaves no child and no zombie: everything gets SIGKILL, then everything is reaped. In a copy of the process
    /// the descriptors are closed with the fields, and the children are left to the original.
    fn drop(&mut self) {
        if !self.kernel.is_ours() {
            return;
        }
        let until = self.kernel.now().saturating_add(LAST_PATIENCE);
        for instance in self.instances.values_mut() {
            let scope = self
                .groups
                .get(instance.group)
                .map_or(Scope::Process, |group| group.policy.stop.scope());
            if let Some(process) = &instance.process {
                // Who may not be signalled is waited for like the others, and no longer.
                let _refused = self.kernel.signal(process, Signal::KILL, scope);
            }
        }
        for instance in self.instances.values_mut() {
            if let Some(process) = instance.process.take() {
                let patience = until.saturating_duration_since(self.kernel.now());
                self.kernel.release(process, patience);
            }
        }
        self.kernel.close(until);
    }
}
