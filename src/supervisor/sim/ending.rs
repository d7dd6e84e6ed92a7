//! How an episode ends: the world becomes kind, the host makes up its mind, and what was promised
//! has to come true in a bounded time.

use std::cell::Cell;
use std::time::Duration;

use super::act::Act;
use super::chance::Chance;
use super::host::{Broken, Host, Snapshot, snapshots};
use super::oracle::ensure;
use super::process::{Phase, SOON};
use super::tally::Tally;
use super::world::Did;
use crate::group::Rolling;
use crate::lifecycle::{Input, Scope, Startup, State, StateName, Stopping};
use crate::supervisor::driver::Driver;
use crate::supervisor::{GroupId, Request, Target};
use crate::time::Instant;

/// More steps than any ending takes.
const ENDLESS: u32 = 100_000;

/// Longer than any finite wait of a policy in the simulation.
const LONG: Duration = Duration::from_secs(110);

/// How many times a host repeats itself before it is entitled to despair.
const ROUNDS: u32 = 6;

impl Host {
    /// Ends the episode in a way that chance decides.
    pub(super) fn end(mut self, chance: &mut Chance) -> Result<Tally, Broken> {
        let ending = chance.below(3);
        let patient = chance.happens(4);
        self.tally.endings[ending as usize] += 1;
        self.trace(|_| format!("-- the world becomes kind; ending {ending}"));
        self.world.borrow_mut().mend();
        if ending == 1 && !self.model.closing {
            self.everything_comes_up(chance)?;
        }
        if ending == 0 || chance.happens(2) {
            self.everything_goes_down(patient)?;
        }
        self.nothing_outlives_the_driver()
    }

    // Up.

    fn everything_comes_up(&mut self, chance: &mut Chance) -> Result<(), Broken> {
        self.settle(SOON + chance.time(), |_| false)?;
        self.come_up()?;
        self.stays_as_it_is()?;
        let Some(id) = chance.find(&self.model.groups.iter().map(|group| group.id).collect::<Vec<_>>()) else {
            return Ok(());
        };
        let target = self.model.group(id).map_or(1, |group| group.target);
        if chance.happens(2) {
            return self.everybody_has_his_turn(id, target, chance);
        }
        self.now(Act::Scale(id, target + 2))?;
        self.come_up()?;
        let survivors = self.serials(id, target);
        self.now(Act::Scale(id, target))?;
        self.settle(chance.time(), |_| false)?;
        self.now(Act::Scale(id, target + 2))?;
        self.come_up()?;
        ensure(self.serials(id, target) == survivors, || {
            "scaling down and up did not leave the survivors their processes".into()
        })
    }

    /// In a rolling restart everybody gets a new process, and no more are down at a time than may be.
    fn everybody_has_his_turn(&mut self, id: GroupId, target: u32, chance: &mut Chance) -> Result<(), Broken> {
        let rolling = Rolling {
            max_unavailable: 1 + chance.below(3) as u32,
            surge: chance.below(3) as u32,
        };
        let Some(longest) = self.ladders() else {
            return Ok(());
        };
        let before = self.serials(id, target);
        self.now(Act::Roll(id, rolling))?;
        let most_down = Cell::new(0);
        let is_over = |host: &Host| {
            let members = host
                .model
                .instances
                .iter()
                .filter(|known| known.group == id && known.number < target);
            let runs = |id| snapshots(&host.driver).any(|now| now.id == id && now.state.name() == StateName::Running);
            let down = members.filter(|known| !runs(known.id)).count();
            most_down.set(most_down.get().max(down));
            let rolls = host.model.group(id).is_some_and(|group| group.after_roll.is_some());
            !rolls && host.is_up()
        };
        let time = (longest + LONG) * (target + rolling.surge + 1);
        ensure(self.settle(time, is_over)?, || {
            "a rolling restart does not come to its end".into()
        })?;
        let after = self.serials(id, target);
        ensure(before.iter().all(|old| !after.contains(old)), || {
            format!("{before:?} were to be exchanged, and now there are {after:?}")
        })?;
        ensure(most_down.get() <= rolling.max_unavailable as usize, || {
            format!("{} were down at a time, in {rolling:?}", most_down.get())
        })?;
        self.is_complete()
    }

    /// Asked to be up, everyone is, and nobody else.
    fn come_up(&mut self) -> Result<(), Broken> {
        // In a rolling restart that is under way everybody may take his time, one after the other.
        let rounds = ROUNDS as usize + self.model.instances.len();
        for _ in 0..rounds {
            self.now(Act::Ask(Target::All, Request::Start))?;
            if self.settle(LONG, Host::is_up)? {
                return self.is_complete();
            }
            // A stop may be meant to last for ever.
            for id in self.stopping() {
                self.now(Act::Ask(Target::Instance(id), Request::Kill))?;
            }
        }
        Err(format!(
            "it does not come up: {:?}",
            snapshots(&self.driver).collect::<Vec<_>>()
        ))
    }

    fn is_up(&self) -> bool {
        let stays = |id| self.model.instance(id).is_some_and(|known| !self.model.leaves(known));
        snapshots(&self.driver)
            .all(|now| now.state.name() == StateName::Running && now.pending.is_none() && stays(now.id))
    }

    fn is_complete(&self) -> Result<(), Broken> {
        let targets: u32 = self.model.groups.iter().map(|group| group.target).sum();
        let world = self.world.borrow();
        let alive = world.processes.iter().filter(|process| process.phase == Phase::Alive);
        ensure(
            alive.count() == targets as usize && world.processes.len() == targets as usize,
            || format!("{targets} processes are asked for: {:?}", world.processes),
        )?;
        ensure(!self.model.groups.iter().any(|group| group.leaving), || {
            "a group does not go".into()
        })
    }

    /// Where nothing happens, nothing is done, and nobody is woken up.
    fn stays_as_it_is(&mut self) -> Result<(), Broken> {
        if self.model.groups.iter().any(|group| group.policy.watchdog.is_some()) {
            return Ok(());
        }
        // A watchdog that the policy has no more is forgotten when its time comes.
        self.settle(LONG, |_| false)?;
        let before: Vec<_> = snapshots(&self.driver).collect();
        let armed = self.world.borrow().armed;
        ensure(armed.is_none(), || {
            format!("all is well, and the timer is armed for {armed:?}")
        })?;
        self.settle(Duration::from_secs(100_000), |_| false)?;
        self.now(Act::Early)?;
        ensure(snapshots(&self.driver).eq(before), || {
            "all was well, and something has changed".into()
        })
    }

    /// The processes of those whose number is below this.
    fn serials(&self, group: GroupId, below: u32) -> Vec<Option<u64>> {
        let members = self
            .model
            .instances
            .iter()
            .filter(|known| known.group == group && known.number < below);
        let serial = |id| snapshots(&self.driver).find(|now| now.id == id)?.serial;
        members.map(|known| serial(known.id)).collect()
    }

    // Down.

    /// A shutdown is over in the time that the ladders take, or at the latest when SIGKILL has been
    /// asked for.
    fn everything_goes_down(&mut self, patient: bool) -> Result<(), Broken> {
        self.now(Act::Shutdown)?;
        let graceful = self.ladders().filter(|_| patient);
        let is_down = |host: &Host| host.driver.is_quiet();
        let mut down = self.settle(graceful.unwrap_or(Duration::from_secs(30)), is_down)?;
        ensure(down || graceful.is_none(), || {
            format!(
                "it has not gone down: {:?}",
                snapshots(&self.driver).collect::<Vec<_>>()
            )
        })?;
        for _ in 0..ROUNDS {
            if down {
                break;
            }
            self.now(Act::Ask(Target::All, Request::Kill))?;
            down = self.settle(LONG, is_down)?;
        }
        ensure(down, || {
            format!("it can't be killed: {:?}", snapshots(&self.driver).collect::<Vec<_>>())
        })?;
        self.now(Act::Drain(usize::MAX))?;
        let armed = self.world.borrow().armed;
        ensure(armed.is_none(), || {
            format!("it is down, and the timer is armed for {armed:?}")
        })?;
        ensure(!self.model.groups.iter().any(|group| group.leaving), || {
            "a group does not go".into()
        })
    }

    /// The longest that the stops may take; `None` if one may take for ever, or a signal of it could
    /// not be delivered.
    fn ladders(&self) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for group in &self.model.groups {
            let waits = group.policy.stop.rungs.iter().map(|rung| rung.wait);
            longest = longest.max(waits.fold(group.policy.stop.patience, Duration::saturating_add));
        }
        let now = self.world.borrow().now;
        for before in snapshots(&self.driver) {
            let State::Stopping(Stopping { until, .. }) = before.state else {
                continue;
            };
            let attempt = self.model.instance(before.id)?.attempts.last()?;
            if attempt.refused > 0 || until == Instant::NEVER {
                return None;
            }
            // What is under way may be by another policy.
            longest = longest.saturating_add(until.saturating_duration_since(now));
        }
        (longest < Duration::from_secs(3_600)).then(|| longest + Duration::from_secs(10))
    }

    // Gone.

    /// Dropped in whatever state, it leaves nothing alive and nothing unreaped, in a bounded time.
    fn nothing_outlives_the_driver(self) -> Result<Tally, Broken> {
        self.world.borrow_mut().mend();
        self.world.borrow_mut().begin(Chance::new(1));
        self.world.borrow_mut().dropping = true;
        let began = self.world.borrow().now;
        let whole_group = |id| {
            let group = self.model.group(self.model.instance(id)?.group)?;
            Some(group.policy.stop.scope() >= Scope::ProcessGroup)
        };
        let ids = self.driver.instances.ids();
        let owners: Vec<u32> = ids
            .filter(|&id| whole_group(id) == Some(true))
            .map(|id| id.index())
            .collect();
        let Host {
            driver, world, tally, ..
        } = self;
        drop::<Driver<_>>(driver);
        let mut world = world.borrow_mut();
        if let Some(broken) = world.broken.take() {
            return Err(broken);
        }
        ensure(world.processes.is_empty(), || {
            format!("left behind: {:?}", world.processes)
        })?;
        ensure(world.lost_handles() == 0, || {
            "a process was dropped without being released".into()
        })?;
        let took = world.now.saturating_duration_since(began);
        ensure(took <= Duration::from_secs(2), || format!("dropping it took {took:?}"))?;
        let abandoned = world
            .log
            .iter()
            .find(|did| matches!(did, Did::Release { abandons: true, owner, .. } if owners.contains(owner)));
        ensure(abandoned.is_none(), || {
            format!("others of a group were left alive: {abandoned:?}")
        })?;
        Ok(tally)
    }

    // The loop of a host that does what it should.

    /// Goes on until this holds, or so much time has passed, or nothing will ever happen. Says
    /// whether it holds.
    fn settle(&mut self, at_most: Duration, done: impl Fn(&Host) -> bool) -> Result<bool, Broken> {
        let until = self.world.borrow().now.saturating_add(at_most);
        for turn in 0..ENDLESS {
            if done(self) {
                return Ok(true);
            }
            if turn % 16 == 15 {
                self.now(Act::Drain(usize::MAX))?;
            }
            let act = match self.readable() {
                Some(act) => act,
                None => match self.next() {
                    Some(at) if at <= until => self.just_before(at),
                    _ => {
                        self.now(Act::Pass(until))?;
                        return Ok(done(self));
                    }
                },
            };
            self.now(act)?;
        }
        Err(format!(
            "it goes on for ever: {:?}",
            snapshots(&self.driver).collect::<Vec<_>>()
        ))
    }

    /// What a host that waits is woken up for.
    fn readable(&self) -> Option<Act> {
        let world = self.world.borrow();
        if world.arm_failed {
            return Some(Act::Early);
        }
        if let Some(process) = world.processes.iter().find(|process| process.is_ready()) {
            return Some(Act::Ready { serial: process.serial });
        }
        let notifies = snapshots(&self.driver).find(|now| {
            let known = self.model.instance(now.id);
            let group = known.and_then(|known| self.model.group(known.group));
            let notify = group.is_some_and(|group| matches!(group.policy.startup, Startup::Notify { .. }));
            notify && now.state.name() == StateName::Starting
        });
        if let Some(now) = notifies {
            return Some(Act::Tell(now.id, Input::Ready));
        }
        world.timer_is_ready().then_some(Act::Timer)
    }

    /// Nobody who is well is silent for longer than his watchdog bears.
    fn just_before(&self, at: Instant) -> Act {
        let barks = |now: &Snapshot| now.state.name() == StateName::Running && now.state.deadline() == Some(at);
        let moment = at.saturating_sub(Duration::from_nanos(1));
        match snapshots(&self.driver).find(barks) {
            Some(now) if self.world.borrow().now >= moment => Act::Tell(now.id, Input::Alive),
            Some(_) => Act::Pass(moment),
            None => Act::Pass(at),
        }
    }

    fn next(&self) -> Option<Instant> {
        let world = self.world.borrow();
        world.armed.into_iter().chain(world.next()).min()
    }

    fn stopping(&self) -> Vec<crate::supervisor::InstanceId> {
        let stopping = snapshots(&self.driver).filter(|now| now.state.name() == StateName::Stopping);
        stopping.map(|now| now.id).collect()
    }

    fn now(&mut self, act: Act) -> Result<(), Broken> {
        let chance = Chance::new(self.tally.steps);
        self.step(act, chance)
    }
}
