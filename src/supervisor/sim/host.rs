//! The simulated host: an event loop that owns a driver, and does in each step one thing that a
//! host does, or that happens to one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::act::Act;
use super::chance::{Chance, mix};
use super::model::{Attempt, Concerned, Model, Refusal};
use super::oracle;
use super::recipe::Draft;
use super::stream;
use super::tally::Tally;
use super::world::{Did, Fake, Sight, World};
use crate::group::Rolling;
use crate::lifecycle::{Input, State};
use crate::signal::Signal;
use crate::supervisor::driver::{Driver, Progress};
use crate::supervisor::event::Events;
use crate::supervisor::{Error, GroupId, InstanceId, Outcome, Request, Target};
use crate::time::Instant;

/// What a broken promise is told by.
pub(super) type Broken = String;

/// The host of one episode.
pub(super) struct Host {
    pub(super) driver: Driver<Fake>,
    pub(super) world: Rc<RefCell<World>>,
    pub(super) model: Model,
    /// What was readable when the host last waited, and has not been handled.
    pub(super) batch: Vec<u64>,
    /// How things stood before the step at hand.
    pub(super) before: Vec<Snapshot>,
    /// The step at hand.
    pub(super) act: Act,
    /// The time that the driver read in this step.
    pub(super) woken: Instant,
    /// How many events had been dropped when the host last looked.
    pub(super) dropped: u64,
    /// The time of the last event.
    pub(super) told_at: Instant,
    pub(super) tally: Tally,
    /// Kept only for a replay.
    pub(super) trace: Option<Rc<RefCell<Vec<String>>>>,
    /// Something the host does wrong on purpose, to see that it is noticed.
    pub(super) forgets_to_settle: bool,
}

/// An instance before a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) id: InstanceId,
    pub(super) state: State,
    pub(super) pending: Option<Request>,
    pub(super) serial: Option<u64>,
    /// When its process is looked at again.
    pub(super) look: Option<Instant>,
}

/// Whom a step may touch.
#[derive(Debug)]
pub(super) enum Touched {
    These(Concerned),
    /// Whoever had something due or waiting.
    Due,
}

impl Host {
    /// A host that lets so many events wait.
    pub(super) fn new(world: World, events: usize, trace: Option<Rc<RefCell<Vec<String>>>>) -> Host {
        let now = world.now;
        let world = Rc::new(RefCell::new(world));
        let seed = now.as_nanos();
        let driver = Driver::new(Fake(Rc::clone(&world)), Events::new(events), seed);
        Host {
            driver,
            world,
            model: Model::default(),
            batch: Vec::new(),
            before: Vec::new(),
            act: Act::Poll,
            woken: now,
            dropped: 0,
            told_at: Instant::ZERO,
            tally: Tally::default(),
            trace,
            forgets_to_settle: false,
        }
    }

    /// A step of chance.
    pub(super) fn random_step(&mut self, seed: u64, number: u64) -> Result<(), Broken> {
        let mut chance = Chance::new(mix(seed, number));
        let act = Act::random(&mut chance, self);
        self.step(act, Chance::new(mix(seed, !number)))
    }

    /// One step, and everything that must hold after it. `chance` is what the kernel draws from.
    pub(super) fn step(&mut self, act: Act, chance: Chance) -> Result<(), Broken> {
        self.world.borrow_mut().begin(chance);
        self.before.clear();
        self.before.extend(snapshots(&self.driver));
        self.act = act.clone();
        self.trace(|host| format!("{:>14} {act:?}", host.world.borrow().now.as_nanos()));
        self.tally.steps += 1;
        let touched = self.perform(act);
        self.trace_log();
        oracle::check(self, touched?)
    }

    fn perform(&mut self, act: Act) -> Result<Touched, Broken> {
        match act {
            Act::Pass(until) => self.world.borrow_mut().pass(until),
            Act::SetWall(by) => self.set_wall(by),
            Act::Weather(climate) => self.world.borrow_mut().climate = climate,
            Act::Outside { serial, signal } => self.outside(serial, signal),
            Act::Poll => self.poll(),
            Act::Ready { serial } => return self.ready(serial),
            Act::Knock(id) => return self.process_ready(id),
            Act::Timer => return self.timer(),
            Act::Early => return self.early(),
            Act::Drain(most) => stream::drain(self, most)?,
            Act::Tell(id, input) => return self.tell(id, input),
            Act::Add(draft) => return self.add(&draft),
            Act::Ask(target, request) => return self.ask(target, request),
            Act::Signal(target, signal) => return self.signal(target, signal),
            Act::Scale(id, instances) => return self.scale(id, instances),
            Act::Reload(id, draft) => return self.reload(id, &draft),
            Act::Remove(id) => return self.remove(id),
            Act::Roll(id, rolling) => return self.roll(id, rolling),
            Act::Shutdown => return self.shutdown(),
            Act::Status(id) => oracle::status(self, id)?,
        }
        Ok(Touched::These(Vec::new()))
    }

    /// What the supervisor does around every call.
    fn call<T>(&mut self, act: impl FnOnce(&mut Driver<Fake>) -> T) -> T {
        self.driver.wake();
        self.woken = self.world.borrow().now;
        let result = act(&mut self.driver);
        if !self.forgets_to_settle {
            // What the host is to make of an error is to call again; `arm_failed` remembers it.
            let _armed = self.driver.settle();
        }
        result
    }

    // The world.

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
    }

    // The loop.

    fn poll(&mut self) {
        let mut world = self.world.borrow_mut();
        self.batch.clear();
        let ready = world.processes.iter().filter(|process| process.is_ready());
        self.batch.extend(ready.map(|process| process.serial));
        world.chance.shuffle(&mut self.batch);
    }

    /// An entry of the batch. The set knows whether it is out of date.
    fn ready(&mut self, serial: u64) -> Result<Touched, Broken> {
        self.batch.retain(|&other| other != serial);
        let owner = {
            let world = self.world.borrow();
            let watched = world.process(serial).filter(|process| process.is_watched());
            watched.map(|process| process.owner)
        };
        match owner.and_then(|owner| self.driver.instances.id_at(owner)) {
            Some(id) => self.process_ready(id),
            None => Ok(Touched::These(Vec::new())),
        }
    }

    fn process_ready(&mut self, id: InstanceId) -> Result<Touched, Broken> {
        let result = self.call(|driver| driver.process_ready(id));
        let waited = oracle::before(self, id).is_some_and(|before| before.pending.is_some());
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
            Ok(Progress::Nothing) if !collected && !failed && !waited => (),
            other => return Err(format!("readiness of {id:?} is answered by {other:?}")),
        }
        Ok(Touched::These(vec![id]))
    }

    /// The timer is read first, and counts as disarmed from then on.
    fn timer(&mut self) -> Result<Touched, Broken> {
        if self.world.borrow().timer_is_ready() {
            self.world.borrow_mut().armed = None;
        }
        self.run_due()
    }

    fn early(&mut self) -> Result<Touched, Broken> {
        self.world.borrow_mut().armed = None;
        self.run_due()
    }

    fn run_due(&mut self) -> Result<Touched, Broken> {
        let progress = self.call(Driver::run_due);
        let more = snapshots(&self.driver).any(|now| now.is_due(self.woken));
        let nothing = !self.before.iter().any(|before| before.is_due(self.woken));
        if (progress == Progress::More) != more || (progress == Progress::Nothing) != (nothing && !more) {
            return Err(format!(
                "more: {more}, nothing: {nothing}, and run_due says {progress:?}"
            ));
        }
        Ok(Touched::Due)
    }

    fn tell(&mut self, id: InstanceId, input: Input) -> Result<Touched, Broken> {
        let known = self.model.instance(id).is_some();
        match self.call(|driver| driver.report(id, input)) {
            Err(Error::UnknownInstance(_)) if !known => (),
            Ok(()) | Err(Error::NotAlive(_)) if known => (),
            other => return Err(format!("a report is answered by {other:?}")),
        }
        Ok(Touched::These(vec![id]))
    }

    // Commands: the model says what is to come of them.

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

    /// Whether a process of another group lives where this one's are to live.
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
        there.any(|process| {
            let mut members = self.model.instances.iter();
            let owner = members.find(|known| known.id.index() == process.owner);
            owner.is_some_and(|owner| Some(owner.group) != own)
        })
    }

    fn ask(&mut self, target: Target, request: Request) -> Result<Touched, Broken> {
        let expected = self.model.ask(target, request);
        let result = self.call(|driver| driver.request(target, request));
        self.concerned(expected, result)
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
        let outcome = self.call(Driver::shutdown);
        self.concerned(Ok(expected), Ok(outcome))
    }

    fn signal(&mut self, target: Target, signal: Signal) -> Result<Touched, Broken> {
        let expected = self.model.audience(target);
        let result = self.call(|driver| driver.signal(target, signal));
        let alone_and = match (&result, target) {
            (Err(Error::NotAlive(id)), Target::Instance(_)) => {
                return match self.before.iter().find(|before| before.id == *id) {
                    Some(Snapshot { serial: None, .. }) => Ok(Touched::These(Vec::new())),
                    other => Err(format!("no process, it says, where there is {other:?}")),
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
        // Whose silence counts from another moment on, or not any more.
        let watched = self.model.group(id).map(|group| group.policy.watchdog);
        let members = self.model.instances.iter().filter(|known| known.group == id);
        let others = watched.is_some_and(|watched| watched != draft.policy.watchdog);
        let watched: Vec<_> = members.filter(|_| others).map(|known| known.id).collect();
        let expected = self.model.reload(id, draft, inhabited);
        let result = self.call(|driver| driver.reload(id, draft.spec()));
        match (result, expected) {
            (Ok(plan), Ok((expected, mut concerned))) => {
                concerned.extend(watched);
                let said = super::model::Expected {
                    policy: plan.policy,
                    scale: plan.scale,
                    instances: plan.instances,
                };
                if said == expected {
                    Ok(Touched::These(concerned))
                } else {
                    Err(format!("the plan is {said:?}, and should be {expected:?}"))
                }
            }
            (result, expected) => self.compare(&expected, result.map(|_| ())),
        }
    }

    /// A command that says how many it concerned.
    fn concerned(
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

    // For the replay.

    pub(super) fn trace(&self, line: impl FnOnce(&Host) -> String) {
        if let Some(trace) = &self.trace {
            let line = line(self);
            trace.borrow_mut().push(line);
        }
    }

    fn trace_log(&self) {
        if self.trace.is_some() {
            for did in &self.world.borrow().log {
                self.trace(|_| format!("{:>16} {did:?}", "-"));
            }
        }
    }

    /// The attempt that a process belongs to.
    pub(super) fn attempt_mut(&mut self, serial: u64) -> Option<&mut Attempt> {
        let all = self.model.instances.iter_mut().chain(&mut self.model.departed);
        all.flat_map(|instance| instance.attempts.iter_mut().rev().take(2))
            .find(|attempt| attempt.serial == serial)
    }
}

impl Snapshot {
    /// Whether something is due or waiting.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let next = self.state.deadline().into_iter().chain(self.look).min();
        self.pending.is_some() || next.is_some_and(|at| at <= now)
    }
}

/// All instances as they stand.
pub(super) fn snapshots(driver: &Driver<Fake>) -> impl Iterator<Item = Snapshot> + '_ {
    driver.instances.ids().filter_map(|id| {
        let instance = driver.instances.get(id)?;
        Some(Snapshot {
            id,
            state: *instance.life.state(),
            pending: instance.pending,
            serial: instance.process.as_ref().map(|process| process.serial),
            look: instance
                .process
                .as_ref()
                .and_then(|process| driver.kernel.look_of(process)),
        })
    })
}
