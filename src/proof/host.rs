//! The simulated host: an event loop that owns an engine. In each step it makes one call, or one thing happens to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::act::Act;
use super::chance::{Chance, mix};
use super::descriptors::{self, QUEUE};
use super::ending::Way;
use super::kernel::SimKernel;
use super::model::{Attempt, Concerned, Model, Refusal};
use super::oracle::{self, ensure};
use super::recipe::Draft;
use super::reexec::Spoiler;
use super::stop_commands;
use super::stream;
use super::tally::Tally;
use super::world::{Did, Sight, Taken, World};
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::event::Events;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::progress::Progress;
use crate::engine::request::{Outcome, Request};
use crate::fdset::Token;
use crate::group::Rolling;
use crate::lifecycle::{Input, Joint, Part, Scope, State, Wanted};
use crate::signal::Signal;
use crate::time::Instant;

/// The description of a broken promise.
pub(super) type Broken = String;

/// The host of one episode.
pub(super) struct Host {
    pub(super) driver: Engine<SimKernel>,
    pub(super) world: Rc<RefCell<World>>,
    pub(super) model: Model,
    /// The entries that were readable when the host last waited, and that were not handled.
    pub(super) batch: Vec<u64>,
    /// The instances before the current step.
    pub(super) before: Vec<Snapshot>,
    /// The instances after the first of two calls in the current step.
    pub(super) between: Option<Vec<Snapshot>>,
    /// The instances of stop commands before the current step.
    pub(super) commands_before: Vec<(InstanceId, Snapshot)>,
    /// The groups that had siblings to be told of an end before the current step.
    pub(super) telling_before: Vec<GroupId>,
    /// The current step's act.
    pub(super) act: Act,
    /// The time that the engine read in this step.
    pub(super) woken: Instant,
    /// The number of dropped events when the host last looked.
    pub(super) dropped: u64,
    /// The time of the last event.
    pub(super) reported_at: Instant,
    pub(super) tally: Tally,
    /// The trace of the episode; `None` unless it is replayed.
    pub(super) trace: Option<Rc<RefCell<Vec<String>>>>,
    /// Whether a host that calls until `Nothing` calls again.
    pub(super) asks_on: bool,
    /// Whether the host has asked for events.
    pub(super) fetches: bool,
    /// How the host waits in the ending.
    pub(super) way: Way,
    /// The number of edges when the host last waited.
    pub(super) edges_seen: u64,
    /// The instances with messages that were received in this step.
    pub(super) senders: Vec<InstanceId>,
    /// The processes that reported their readiness in the step in which they were spawned.
    pub(super) early_reports: Vec<u64>,
    /// The signals and orphans that the engine took, without those of fetched events.
    pub(super) taken: VecDeque<Taken>,
    /// Whether events were dropped since the queue was last empty.
    pub(super) has_gaps: bool,
    /// The number of pushed events before the current step.
    pub(super) pushed: u64,
    /// Whether another spawn could be in flight before the current step.
    pub(super) had_room: bool,
    /// A planted fault of the host, which an oracle must notice.
    pub(super) forgets_to_settle: bool,
    /// A planted fault of the image.
    pub(super) spoiler: Option<Spoiler>,
    /// The largest number of events that wait.
    pub(super) room: usize,
    /// Whether the host was killed in the middle of this step.
    pub(super) is_killed: bool,
    /// Whether a spawn has ever waited. The event of such a start is later than its effect on the counters.
    pub(super) has_waited: bool,
}

/// An instance before a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) id: InstanceId,
    pub(super) state: State,
    pub(super) pending: Option<Request>,
    pub(super) serial: Option<u64>,
    /// Whether the pending request waits until fewer spawns are in flight.
    pub(super) is_held: bool,
    /// Whether the pending request waits for other groups.
    pub(super) awaits_order: bool,
    /// Whether the lifecycle wants it up.
    pub(super) was_wanted: bool,
    /// Whether it is a command of a stop.
    pub(super) is_command: bool,
    pub(super) runs: u64,
    /// The time of the next look at the process.
    pub(super) look: Option<Instant>,
    /// Its part in a restart together with its siblings.
    pub(super) joint: Joint,
}

/// The instances that a step may change.
#[derive(Debug)]
pub(super) enum Touched {
    These(Concerned),
    /// These instances, and every instance with something due or pending.
    Due(Concerned),
    /// Every instance with something due, pending or ready.
    Ready,
}

impl Host {
    /// A host with room for this many events.
    pub(super) fn new(world: World, events: usize, trace: Option<Rc<RefCell<Vec<String>>>>) -> Host {
        let now = world.now;
        let world = Rc::new(RefCell::new(world));
        let seed = now.as_nanos();
        let mut driver = Engine::new(SimKernel(Rc::clone(&world)), Events::new(events), seed);
        driver.socket = Some("@pretended".into());
        driver.queue = QUEUE;
        Host {
            driver,
            world,
            model: Model::default(),
            batch: Vec::new(),
            before: Vec::new(),
            telling_before: Vec::new(),
            between: None,
            commands_before: Vec::new(),
            act: Act::Poll,
            woken: now,
            dropped: 0,
            reported_at: Instant::ZERO,
            tally: Tally::default(),
            trace,
            asks_on: false,
            fetches: false,
            way: Way::Each,
            edges_seen: 0,
            senders: Vec::new(),
            early_reports: Vec::new(),
            taken: VecDeque::new(),
            has_gaps: false,
            pushed: 0,
            had_room: true,
            forgets_to_settle: false,
            spoiler: None,
            room: events,
            is_killed: false,
            has_waited: false,
        }
    }

    /// Performs one random step.
    pub(super) fn random_step(&mut self, seed: u64, number: u64) -> Result<(), Broken> {
        let mut chance = Chance::new(mix(seed, number));
        let act = Act::random(&mut chance, self);
        self.step(act, Chance::new(mix(seed, !number)))
    }

    /// Performs one step and checks every oracle after it. `chance` is the kernel's source of decisions.
    pub(super) fn step(&mut self, act: Act, chance: Chance) -> Result<(), Broken> {
        self.world.borrow_mut().begin(chance);
        self.look();
        self.act = act.clone();
        self.trace(|host| format!("{:>14} {act:?}", host.world.borrow().now.as_nanos()));
        self.tally.steps += 1;
        let touched = self.perform(act);
        self.trace_log();
        oracle::check(self, touched?)
    }

    /// Notes how everything stands before a step.
    pub(super) fn look(&mut self) {
        self.before.clear();
        self.before.extend(snapshots(&self.driver));
        self.commands_before.clear();
        let of = |now: Snapshot| Some((stop_commands::stop_of(&self.driver, now.id)?.program, now));
        self.commands_before.extend(all_snapshots(&self.driver).filter_map(of));
        self.telling_before.clear();
        self.telling_before
            .extend(self.driver.telling.iter().map(|telling| telling.group));
        self.pushed = self.driver.events.pushed();
        self.had_room = self.world.borrow().has_room();
    }

    pub(super) fn perform(&mut self, act: Act) -> Result<Touched, Broken> {
        match act {
            Act::Pass(until) => self.world.borrow_mut().pass(until),
            Act::SetWall(by) => self.set_wall(by),
            Act::Faults(faults) => self.world.borrow_mut().faults = faults,
            Act::Outside { serial, signal } => self.outside(serial, signal),
            Act::Poll => self.poll(),
            Act::Ready { serial } => return self.ready(serial),
            Act::Knock(id) => return self.process_ready(id),
            Act::Timer => return self.timer(),
            Act::Socket => return self.entry(descriptors::SOCKET),
            Act::Entry(entry) => return self.entry(entry),
            Act::SignalHost(signal) => self.world.borrow_mut().signal_host(signal),
            Act::Orphan(number) => self.world.borrow_mut().end_orphan(number),
            Act::Early => return self.early(),
            Act::Dispatch => return self.dispatch(),
            Act::Drain(most) => {
                self.fetches = true;
                stream::drain(self, most)?;
            }
            Act::Report(id, input) => return self.report(id, input),
            Act::Add(draft) => return self.add(&draft),
            Act::Request(target, request) => return self.request(target, request),
            Act::StopWith(target, ladder) => return self.stop_with(target, &ladder),
            Act::Signal(target, signal) => return self.signal(target, signal),
            Act::Scale(id, instances) => return self.scale(id, instances),
            Act::Reload(id, draft) => return self.reload(id, &draft),
            Act::Remove(id) => return self.remove(id),
            Act::Roll(id, rolling) => return self.roll(id, rolling),
            Act::Shutdown => return self.shutdown(),
            Act::Reexec(change) => return self.reexec(change),
            Act::Crash(crash) => return self.crash(*crash),
            Act::Status(id) => oracle::status(self, id)?,
        }
        Ok(Touched::These(Vec::new()))
    }

    /// Does what the supervisor does around every command.
    pub(super) fn call<T>(&mut self, act: impl FnOnce(&mut Engine<SimKernel>) -> T) -> T {
        self.driver.wake();
        self.woken = self.world.borrow().now;
        let result = act(&mut self.driver);
        if !self.forgets_to_settle {
            // After an error a host calls again; `arm_failed` remembers the error.
            let _armed = self.driver.settle(None);
        }
        result
    }

    /// Does what the supervisor does around every call of the loop.
    fn turn(&mut self, act: impl FnOnce(&mut Engine<SimKernel>) -> io::Result<Progress>) -> io::Result<Progress> {
        self.driver.wake();
        self.woken = self.world.borrow().now;
        let result = act(&mut self.driver);
        if !self.forgets_to_settle {
            let answer = *result.as_ref().unwrap_or(&Progress::Done);
            let _armed = self.driver.settle(Some(answer));
        }
        result
    }

    // Acts of the world.

    fn set_wall(&mut self, by: i64) {
        let mut world = self.world.borrow_mut();
        let span = Duration::from_secs(by.unsigned_abs());
        world.wall = if by < 0 { world.wall - span } else { world.wall + span };
    }

    fn outside(&mut self, serial: u64, signal: Signal) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        if let Some(process) = world.process_mut(serial) {
            process.receive(signal, now);
        }
        world.pass(now);
    }

    // Calls of the loop.

    fn poll(&mut self) {
        let mut world = self.world.borrow_mut();
        self.edges_seen = world.set.edges;
        self.batch.clear();
        let ready = world.processes.iter().filter(|process| process.is_ready());
        self.batch.extend(ready.map(|process| process.serial));
        world.chance.shuffle(&mut self.batch);
    }

    /// Handles an entry of the batch. The set detects an entry that is out of date.
    fn ready(&mut self, serial: u64) -> Result<Touched, Broken> {
        self.batch.retain(|&other| other != serial);
        let owner = {
            let world = self.world.borrow();
            let watched = world.process(serial).filter(|process| process.is_watched());
            watched.map(|process| process.owner)
        };
        let owner = owner.and_then(|owner| self.driver.instances.id_at(owner));
        let result = self.turn(|driver| driver.process_token(descriptors::process(serial)));
        match owner {
            // Serving what was due first may have left nothing to do for the descriptor.
            Some(id) if self.was_due() => Ok(Touched::Due(vec![id])),
            Some(id) => self.processed(id, result),
            None => Ok(Touched::Due(Vec::new())),
        }
    }

    /// Whether something was due or waiting before the step.
    fn was_due(&self) -> bool {
        let commands = self.commands_before.iter().map(|(_, before)| before);
        let mut all = self.before.iter().chain(commands);
        all.any(|before| before.is_due(self.woken, self.had_room)) || !self.telling_before.is_empty()
    }

    /// Whether something is due or waiting.
    fn is_due(&self) -> bool {
        let has_room = self.world.borrow().has_room();
        all_snapshots(&self.driver).any(|now| now.is_due(self.woken, has_room)) || !self.driver.telling.is_empty()
    }

    fn process_ready(&mut self, id: InstanceId) -> Result<Touched, Broken> {
        let result = self.turn(|driver| driver.process_ready(id));
        self.processed(id, result)
    }

    fn processed(&self, id: InstanceId, result: io::Result<Progress>) -> Result<Touched, Broken> {
        let before = oracle::before(self, id);
        let waited = before.is_some_and(|before| before.pending.is_some());
        let awaits_order = before.is_some_and(|before| before.awaits_order);
        let (mut collected, mut failed) = (false, false);
        for did in &self.world.borrow().log {
            if let Did::Collect { result, .. } = did {
                collected |= !matches!(result, Ok(Sight::Nothing | Sight::Late) | Err(_));
                failed |= result.is_err();
            }
        }
        match result {
            Err(_) if failed => (),
            Ok(Progress::Done) if collected || waited => (),
            Ok(Progress::Nothing) if !collected && !failed && (!waited || awaits_order) => (),
            other => return Err(format!("readiness of {id:?} returns {other:?}")),
        }
        Ok(Touched::These(vec![id]))
    }

    /// Handles the timer. It is read first, and counts as disarmed from then on.
    fn timer(&mut self) -> Result<Touched, Broken> {
        let answer = self.turn(|driver| driver.process_token(descriptors::TIMER));
        let more = self.is_due();
        // A host that was kept for long enough gets the answer `Nothing`.
        let is_said = matches!(answer, Ok(Progress::More)) || matches!(answer, Ok(Progress::Nothing));
        ensure(!more || is_said, || {
            format!("there is more, and the call for the timer returns {answer:?}")
        })?;
        Ok(Touched::Due(Vec::new()))
    }

    fn entry(&mut self, entry: Token) -> Result<Touched, Broken> {
        let answer = self.turn(|driver| driver.process_token(entry));
        ensure(answer.is_ok(), || format!("{entry:?} returns {answer:?}"))?;
        Ok(Touched::Due(Vec::new()))
    }

    fn early(&mut self) -> Result<Touched, Broken> {
        self.world.borrow_mut().armed = None;
        self.world.borrow_mut().note_edges();
        let answer = self.turn(|driver| Ok(driver.run_due()));
        let progress = answer.map_err(|error| error.to_string())?;
        let more = self.is_due();
        let nothing = !self.was_due();
        if (progress == Progress::More) != more || (progress == Progress::Nothing) != (nothing && !more) {
            return Err(format!(
                "more: {more}, nothing: {nothing}, and run_due returns {progress:?}"
            ));
        }
        Ok(Touched::Due(Vec::new()))
    }

    fn dispatch(&mut self) -> Result<Touched, Broken> {
        let answer = self.turn(Engine::dispatch);
        self.nothing_is_lost(&answer)?;
        self.asks_on = !matches!(answer, Ok(Progress::Nothing));
        Ok(Touched::Ready)
    }

    /// After `Nothing`, an edge-triggered host has had an edge for everything that is ready, or is going to get one.
    fn nothing_is_lost(&self, answer: &io::Result<Progress>) -> Result<(), Broken> {
        let world = self.world.borrow();
        let may_wait = matches!(answer, Ok(Progress::Nothing)) && !world.arm_failed && !self.forgets_to_settle;
        let is_told = !world.is_readable() || world.set.edges > self.edges_seen;
        ensure(!may_wait || is_told, || {
            "something is ready, and no edge will follow".into()
        })
    }

    fn report(&mut self, id: InstanceId, input: Input) -> Result<Touched, Broken> {
        let known = self.model.instance(id).is_some();
        let members = &mut self.model.instances;
        let attempt = members
            .iter_mut()
            .find(|known| known.id == id)
            .and_then(|known| known.attempts.last_mut());
        if let Some(attempt) = attempt.filter(|_| input == Input::Ready) {
            attempt.reported_ready_by_host = true;
        }
        match self.call(|driver| driver.report(id, input)) {
            Err(Error::UnknownInstance(_)) if !known => (),
            Ok(()) | Err(Error::NotAlive(_)) if known => (),
            other => return Err(format!("a report returns {other:?}")),
        }
        Ok(Touched::These(vec![id]))
    }

    // Commands. The model predicts their effect.

    fn add(&mut self, draft: &Draft) -> Result<Touched, Broken> {
        let expected = self.model.add(draft, self.is_inhabited(None, draft));
        match (self.call(|driver| driver.add(draft.spec())), expected) {
            (Ok(id), Ok(())) => {
                oracle::enlist(self, id, draft);
                Ok(Touched::These(Vec::new()))
            }
            (result, expected) => self.compare(&expected, result.map(|_| ())),
        }
    }

    /// Whether a process of another group is in the cgroup of one of this group's instances.
    fn is_inhabited(&self, own: Option<GroupId>, draft: &Draft) -> bool {
        let Some(directory) = draft.recipe.cgroup else {
            return false;
        };
        let place = format!("/pretended/{directory}/{}-", draft.name);
        let world = self.world.borrow();
        let mut there = world.processes.iter().filter(|process| {
            let home = process.home.as_ref();
            home.is_some_and(|home| home.starts_with(&place))
        });
        let is_inhabited = there.any(|process| {
            let mut members = self.model.instances.iter();
            let owner = stop_commands::known_as(&self.driver, process.owner);
            let owner = members.find(|known| Some(known.id) == owner);
            owner.is_some_and(|owner| Some(owner.group) != own)
        });
        // The next process of a run may be spawned there.
        let waits = |known: &&super::model::Instance| {
            let instance = self.driver.instances.get(known.id);
            let instance = instance.filter(|instance| instance.life.state().name().is_alive());
            let cgroup = instance.and_then(|instance| instance.context.cgroup.as_ref());
            cgroup.is_some_and(|cgroup| format!("{}/{}", cgroup.dir.path().display(), cgroup.name).starts_with(&place))
        };
        let mut waiting = self.model.instances.iter().filter(waits);
        is_inhabited || waiting.any(|known| Some(known.group) != own)
    }

    fn request(&mut self, target: Target, request: Request) -> Result<Touched, Broken> {
        let expected = self.model.request(target, request);
        let result = self.call(|driver| driver.request(target, request));
        let touched = self.concerned(expected, result)?;
        Ok(touched.and(std::mem::take(&mut self.model.also)))
    }

    fn scale(&mut self, id: GroupId, instances: u32) -> Result<Touched, Broken> {
        let expected = self.model.scale(id, instances);
        let result = self.call(|driver| driver.scale(id, instances));
        self.compare(&expected, result.map(|_| ()))?;
        Ok(Touched::These(expected.unwrap_or_default()))
    }

    fn remove(&mut self, id: GroupId) -> Result<Touched, Broken> {
        let expected = self.model.remove(id);
        let result = self.call(|driver| driver.remove(id));
        self.concerned(expected, result)
    }

    fn roll(&mut self, id: GroupId, rolling: Rolling) -> Result<Touched, Broken> {
        let expected = self.model.roll(id, rolling);
        let result = self.call(|driver| driver.roll(id, rolling));
        self.compare(&expected, result.map(|_| ()))
    }

    fn shutdown(&mut self) -> Result<Touched, Broken> {
        let expected = self.model.shutdown();
        let outcome = self.call(Engine::shutdown);
        self.concerned(Ok(expected), Ok(outcome))
    }

    fn signal(&mut self, target: Target, signal: Signal) -> Result<Touched, Broken> {
        let expected = self.model.audience(target);
        let result = self.call(|driver| driver.signal(target, signal, Scope::Process));
        let alone_and = match (&result, target) {
            (Err(Error::NotAlive(id)), Target::Instance(_)) => {
                return match self.before.iter().find(|before| before.id == *id) {
                    Some(Snapshot { serial: None, .. }) => Ok(Touched::These(Vec::new())),
                    other => Err(format!("no process is reported, and there is {other:?}")),
                };
            }
            (Err(Error::Signal { .. }), Target::Instance(_)) => true,
            _ => false,
        };
        let failed = |did: &Did| matches!(did, Did::Signal { failed: Some(_), .. });
        let failures = self.world.borrow().log.iter().filter(|did| failed(did)).count();
        match result {
            Ok(outcome) if outcome.failed as usize != failures => {
                Err(format!("{failures} signals failed, and it counts {}", outcome.failed))
            }
            Err(_) if alone_and && failures == 1 => Ok(Touched::These(Vec::new())),
            result => self.concerned(expected, result).map(|_| Touched::These(Vec::new())),
        }
    }

    fn reload(&mut self, id: GroupId, draft: &Draft) -> Result<Touched, Broken> {
        let inhabited = self.is_inhabited(Some(id), draft);
        // The time of the watchdog begins at another moment, or no longer counts.
        let watched = self.model.group(id).map(|group| group.policy.watchdog);
        let members = self.model.instances.iter().filter(|known| known.group == id);
        let others = watched.is_some_and(|watched| watched != draft.policy.watchdog);
        let watched: Vec<_> = members.filter(|_| others).map(|known| known.id).collect();
        let expected = self.model.reload(id, draft, inhabited);
        let result = self.call(|driver| driver.reload(id, draft.spec()));
        match (result, expected) {
            (Ok(plan), Ok((expected, mut concerned))) => {
                concerned.extend(watched);
                let actual = super::model::Expected {
                    policy: plan.policy,
                    scale: plan.scale,
                    instances: plan.instances,
                };
                if actual == expected {
                    Ok(Touched::These(concerned))
                } else {
                    Err(format!("the plan is {actual:?}, and should be {expected:?}"))
                }
            }
            (result, expected) => self.compare(&expected, result.map(|_| ())),
        }
    }

    /// A command that returns the number of instances it applied to.
    pub(super) fn concerned(
        &self,
        expected: Result<Concerned, Refusal>,
        result: Result<Outcome, Error>,
    ) -> Result<Touched, Broken> {
        let total = result.as_ref().map_or(0, |outcome| outcome.total() as usize);
        self.compare(&expected, result.map(|_| ()))?;
        let concerned = expected.unwrap_or_default();
        if total == concerned.len() {
            Ok(Touched::These(concerned))
        } else {
            Err(format!("{} are concerned, and it counts {total}", concerned.len()))
        }
    }

    fn compare<T>(&self, expected: &Result<T, Refusal>, result: Result<(), Error>) -> Result<Touched, Broken> {
        let refusal = result.as_ref().err().map(Refusal::of);
        if refusal == expected.as_ref().err().copied() {
            Ok(Touched::These(Vec::new()))
        } else {
            let expected = expected.as_ref().map(|_| ());
            Err(format!("the answer should be {expected:?}, and is {result:?}"))
        }
    }

    /// Whether the group of an instance has a place in an order.
    pub(super) fn is_in_order(&self, id: InstanceId) -> bool {
        let all = self.model.instances.iter().chain(&self.model.departed);
        let Some(known) = all.into_iter().find(|known| known.id == id) else {
            return false;
        };
        let names = |group: &super::model::Group| {
            let is_own = group.id == known.group && !(group.after.is_empty() && group.requires.is_empty());
            is_own || group.after.contains(&known.group) || group.requires.contains(&known.group) || group.lost_a_group
        };
        self.model.groups.iter().any(names)
    }

    // For the replay.

    pub(super) fn trace(&self, line: impl FnOnce(&Host) -> String) {
        if let Some(trace) = &self.trace {
            let line = line(self);
            trace.borrow_mut().push(line);
        }
    }

    pub(super) fn trace_log(&self) {
        if self.trace.is_some() {
            for did in &self.world.borrow().log {
                self.trace(|_| format!("{:>16} {did:?}", "-"));
            }
        }
    }

    /// The attempt that a process belongs to.
    pub(super) fn attempt_mut(&mut self, serial: u64) -> Option<&mut Attempt> {
        let all = self.model.instances.iter_mut().chain(&mut self.model.departed);
        all.flat_map(|instance| instance.attempts.iter_mut().rev().take(4))
            .find(|attempt| attempt.serial == serial)
    }
}

impl Touched {
    pub(super) fn and(self, more: Concerned) -> Touched {
        match self {
            Touched::These(mut these) => {
                these.extend(more);
                Touched::These(these)
            }
            other => other,
        }
    }
}

impl Snapshot {
    /// The same, whatever it waits for.
    pub(super) fn without_wait(&self) -> Snapshot {
        Snapshot {
            pending: None,
            is_held: false,
            awaits_order: false,
            ..*self
        }
    }

    /// Whether something is due, or waits and can be served.
    pub(super) fn is_due(&self, now: Instant, has_room: bool) -> bool {
        let next = self.state.deadline().into_iter().chain(self.look).min();
        self.waits(has_room) || next.is_some_and(|at| at <= now)
    }

    /// Whether a request or a spawn waits and can be served. A start waits for room, and what belongs to a stop does not.
    pub(super) fn waits(&self, has_room: bool) -> bool {
        let is_pending = self.pending.is_some() && !self.is_held && !self.awaits_order;
        let is_for_stop = self.is_command || (self.state.part() == Part::After && !self.was_wanted);
        is_pending || (has_room && self.is_held) || (self.awaits_spawn() && (has_room || is_for_stop))
    }

    /// Whether its spawn waits.
    pub(super) const fn awaits_spawn(&self) -> bool {
        self.state.is_unspawned()
    }
}

/// The serial number of the process that an instance has.
pub(super) fn serial_of(driver: &Engine<SimKernel>, id: InstanceId) -> Option<u64> {
    driver.instances.get(id)?.process?;
    driver.kernel.0.borrow().serial_in(id.index())
}

/// All instances of groups as they stand.
pub(super) fn snapshots(driver: &Engine<SimKernel>) -> impl Iterator<Item = Snapshot> + '_ {
    all_snapshots(driver).filter(|now| !driver.is_stop_command(now.id))
}

/// The same with those of stop commands.
pub(super) fn all_snapshots(driver: &Engine<SimKernel>) -> impl Iterator<Item = Snapshot> + '_ {
    driver.instances.ids().filter_map(|id| {
        let instance = driver.instances.get(id)?;
        Some(Snapshot {
            id,
            state: *instance.life.state(),
            pending: instance.pending,
            is_held: instance.is_held,
            awaits_order: instance.awaits_order,
            was_wanted: instance.life.wanted() == Wanted::Up,
            is_command: instance.is_stop_command(),
            runs: instance.life.runs(),
            serial: serial_of(driver, id),
            look: driver.kernel.look_of(id.index()),
            joint: instance.life.joint(),
        })
    })
}
