//! The ending of an episode: no fault occurs any more, the host decides what it wants, and every promise must come true
//! within a bounded time.

use std::cell::Cell;
use std::time::Duration;

use super::act::Act;
use super::chance::Chance;
use super::descriptors::{ORPHANS, SIGNALS};
use super::host::{Broken, Host, Snapshot, all_snapshots, snapshots};
use super::oracle::ensure;
use super::process::{Phase, SOON};
use super::tally::Tally;
use super::world::Did;
use crate::engine::core::Engine;
use crate::engine::ids::{GroupId, Target};
use crate::engine::request::Request;
use crate::group::Rolling;
use crate::lifecycle::{Input, Rung, Scope, Startup, State, StateName, StopLadder, Stopping};
use crate::time::Instant;

/// More steps than any ending needs.
const ENDLESS: u32 = 100_000;

/// How long before its end a watchdog is renewed.
const EARLY: Duration = Duration::from_millis(5);

/// Longer than any finite wait of a policy in the simulation.
const LONG: Duration = Duration::from_secs(110);

/// How a correct host waits, and when it fetches events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It waits for each descriptor by itself, and fetches now and then.
    Each,
    /// It waits for the one descriptor, and fetches after each dispatch.
    DispatchThenFetch,
    /// It waits for the one descriptor, and fetches before each dispatch.
    FetchThenDispatch,
    /// It waits for an edge of the one descriptor, and fetches before it calls until `Nothing`.
    Edges,
    /// It waits for the one descriptor, and never fetches.
    NeverFetch,
}

const WAYS: [Way; 5] = [
    Way::Each,
    Way::DispatchThenFetch,
    Way::FetchThenDispatch,
    Way::Edges,
    Way::NeverFetch,
];

/// How many times a host repeats a request before the test fails.
const ROUNDS: u32 = 6;

impl Host {
    /// Ends the episode in a way that is drawn from `chance`.
    pub(super) fn end(mut self, chance: &mut Chance) -> Result<Tally, Broken> {
        let ending = chance.below(3);
        let patient = chance.happens(4);
        self.way = chance.pick(&WAYS);
        // A registration begins with an edge for everything that is ready.
        self.edges_seen = 0;
        self.tally.endings[ending as usize] += 1;
        self.trace(|_| format!("-- the world becomes kind; ending {ending}"));
        self.world.borrow_mut().mend();
        if !matches!(self.way, Way::Each | Way::NeverFetch) {
            // Facts that were announced before are not announced again.
            self.fetch_all()?;
        }
        if chance.happens(3) {
            self.now(Act::Reexec(None))?;
        }
        if ending == 1 && !self.model.closing {
            self.everything_comes_up(chance)?;
        }
        if ending == 0 || chance.happens(2) {
            self.everything_goes_down(patient)?;
        }
        self.nothing_outlives_the_driver()
    }

    // Starting everything.

    fn everything_comes_up(&mut self, chance: &mut Chance) -> Result<(), Broken> {
        self.world.borrow_mut().execute_soon();
        self.settle(SOON + chance.time(), |_| false)?;
        self.come_up()?;
        self.stays_as_it_is()?;
        let Some(id) = chance.find(&self.model.groups.iter().map(|group| group.id).collect::<Vec<_>>()) else {
            return Ok(());
        };
        let target = self.model.group(id).map_or(1, |group| group.target);
        if chance.happens(2) {
            return self.every_instance_is_restarted_in_turn(id, target, chance);
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

    /// In a rolling restart every instance gets a new process, and at most the allowed number is down at a time.
    fn every_instance_is_restarted_in_turn(
        &mut self,
        id: GroupId,
        target: u32,
        chance: &mut Chance,
    ) -> Result<(), Broken> {
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

    /// After a start of everything, exactly the requested instances are up.
    fn come_up(&mut self) -> Result<(), Broken> {
        // In a rolling restart that is under way, each instance may take its full time, one after the other.
        let rounds = ROUNDS as usize + self.model.instances.len();
        for _ in 0..rounds {
            for id in self.required_and_empty() {
                self.now(Act::Scale(id, 1))?;
            }
            self.now(Act::Request(Target::All, Request::Start))?;
            if self.settle(LONG * self.longest_chain(), Host::is_up)? {
                return self.is_complete();
            }
            // The policy may let a stop last for ever.
            for id in self.stopping() {
                self.now(Act::Request(Target::Instance(id), Request::Kill))?;
            }
        }
        Err(format!(
            "it does not come up: {:?}",
            snapshots(&self.driver).collect::<Vec<_>>()
        ))
    }

    /// The groups without instances that others require, which wait for them to be scaled up.
    fn required_and_empty(&self) -> Vec<GroupId> {
        let groups = &self.model.groups;
        let is_required = |id: GroupId| groups.iter().any(|group| group.requires.contains(&id));
        let empty = groups.iter().filter(|group| group.target == 0 && is_required(group.id));
        empty.map(|group| group.id).collect()
    }

    /// How many groups may come up or go down one after the other.
    fn longest_chain(&self) -> u32 {
        let groups = self.model.groups.iter();
        let in_order = groups.filter(|group| !group.after.is_empty() || !group.requires.is_empty());
        1 + in_order.count() as u32
    }

    fn is_up(&self) -> bool {
        let stays = |id| self.model.instance(id).is_some_and(|known| !self.model.leaves(known));
        let world = self.world.borrow();
        // One that has ended is restarted when another parent than the host has reaped it.
        let waits = world
            .processes
            .iter()
            .any(|process| process.is_foreign && process.phase == Phase::Zombie);
        let is_up = |now: &Snapshot| now.state.name() == StateName::Running && now.pending.is_none();
        !waits && snapshots(&self.driver).all(|now| is_up(&now) && stays(now.id))
    }

    fn is_complete(&self) -> Result<(), Broken> {
        let targets: u32 = self.model.groups.iter().map(|group| group.target).sum();
        let world = self.world.borrow();
        let alive = world.processes.iter().filter(|process| process.phase == Phase::Alive);
        ensure(
            alive.count() == targets as usize && world.processes.len() == targets as usize,
            || format!("{targets} processes are wanted: {:?}", world.processes),
        )?;
        ensure(!self.model.groups.iter().any(|group| group.leaving), || {
            "a group does not go".into()
        })
    }

    /// When nothing happens, nothing is done and the host is not woken.
    fn stays_as_it_is(&mut self) -> Result<(), Broken> {
        if self.model.groups.iter().any(|group| group.policy.watchdog.is_some()) {
            return Ok(());
        }
        // A watchdog that the policy no longer has is dropped when its time is over.
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

    /// The processes of the instances with a number below this.
    fn serials(&self, group: GroupId, below: u32) -> Vec<Option<u64>> {
        let members = self
            .model
            .instances
            .iter()
            .filter(|known| known.group == group && known.number < below);
        let serial = |id| snapshots(&self.driver).find(|now| now.id == id)?.serial;
        members.map(|known| serial(known.id)).collect()
    }

    // Stopping everything.

    /// A shutdown takes the time of the ladders, and ends at the latest after SIGKILL was requested.
    fn everything_goes_down(&mut self, patient: bool) -> Result<(), Broken> {
        self.now(Act::Shutdown)?;
        let graceful = self.ladders().filter(|_| patient);
        let is_down = |host: &Host| host.driver.is_quiet();
        let mut down = self.settle(graceful.unwrap_or(Duration::from_secs(30)), is_down)?;
        ensure(down || graceful.is_none(), || {
            format!(
                "it has not gone down in {graceful:?}: {:?}",
                all_snapshots(&self.driver).collect::<Vec<_>>()
            )
        })?;
        for _ in 0..ROUNDS {
            if down {
                break;
            }
            self.now(Act::Request(Target::All, Request::Kill))?;
            down = self.settle(LONG, is_down)?;
        }
        ensure(down, || {
            format!("it can't be killed: {:?}", snapshots(&self.driver).collect::<Vec<_>>())
        })?;
        self.now(Act::Drain(usize::MAX))?;
        ensure(self.driver.is_down(), || "all is reported, and it is not down".into())?;
        ensure(self.is_woken(), || "it is down, and nothing reports it".into())?;
        // The end of the shutdown is announced once.
        self.settle(Duration::ZERO, |_| false)?;
        let armed = self.world.borrow().armed;
        ensure(armed.is_none(), || {
            format!("it is down, and the timer is armed for {armed:?}")
        })?;
        ensure(!self.model.groups.iter().any(|group| group.leaving), || {
            "a group does not go".into()
        })
    }

    /// The longest time that the stops may take; `None` if a stop may last for ever, or if one of its signals could not
    /// be delivered.
    fn ladders(&self) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        let length = |ladder: &StopLadder| {
            let waits = ladder.rungs.iter().map(|rung| match rung {
                Rung::Command { limit, wait, .. } => wait.saturating_add(*limit).saturating_add(LONG),
                Rung::Signal { wait, .. } => *wait,
            });
            waits.fold(ladder.patience, Duration::saturating_add)
        };
        for instance in &self.model.instances {
            let group = self.model.group(instance.group)?;
            let ladder = instance.ladders(&group.policy).map(length).max().unwrap_or_default();
            // The command after a run can take its whole time, and is stopped then.
            let after = group
                .policy
                .after_run
                .map_or(Duration::ZERO, |after| after.saturating_add(ladder));
            longest = longest.max(ladder.saturating_add(after));
        }
        let now = self.world.borrow().now;
        for before in snapshots(&self.driver) {
            let until = match before.state {
                State::Stopping(Stopping { until, .. }) => until,
                // It may have had its limit since an earlier policy.
                State::CleaningUp {
                    pid: Some(_), until, ..
                } => until,
                _ => continue,
            };
            let attempt = self.model.instance(before.id)?.attempts.last()?;
            if attempt.refused > 0 || until == Instant::NEVER {
                return None;
            }
            // A stop that is under way may follow an earlier policy.
            longest = longest.saturating_add(until.saturating_duration_since(now));
        }
        // So may its command.
        for command in all_snapshots(&self.driver).filter(|known| self.driver.is_stop_command(known.id)) {
            match command.state {
                State::Starting { until, .. } => {
                    longest = longest.saturating_add(until.saturating_duration_since(now));
                }
                // Its SIGKILL was refused, or came to nothing.
                State::Stopping(Stopping { until, .. })
                    if until == Instant::NEVER || self.was_refused_a_command(command.id) =>
                {
                    return None;
                }
                _ => {}
            }
        }
        (longest < Duration::from_secs(3_600)).then(|| longest * self.longest_chain() + Duration::from_secs(10))
    }

    // Dropping the supervisor.

    /// A supervisor that is dropped in any state leaves nothing alive and nothing unreaped, within a bounded time.
    fn nothing_outlives_the_driver(self) -> Result<Tally, Broken> {
        self.world.borrow_mut().mend();
        self.world.borrow_mut().begin(Chance::new(1));
        self.world.borrow_mut().dropping = true;
        let began = self.world.borrow().now;
        let whole_group = |id| {
            if self.driver.is_stop_command(id) {
                return Some(true);
            }
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
        drop::<Engine<_>>(driver);
        let mut world = world.borrow_mut();
        if let Some(broken) = world.broken.take() {
            return Err(broken);
        }
        ensure(world.processes.is_empty(), || {
            format!("left behind: {:?}", world.processes)
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

    // The loop of a correct host.

    /// Runs the loop until `done` holds, this much time has passed, or nothing can happen any more. Returns whether
    /// `done` holds.
    pub(super) fn settle(&mut self, at_most: Duration, done: impl Fn(&Host) -> bool) -> Result<bool, Broken> {
        let until = self.world.borrow().now.saturating_add(at_most);
        for turn in 0..ENDLESS {
            if done(self) {
                return Ok(true);
            }
            if self.way == Way::Each && turn % 16 == 15 {
                self.fetch_all()?;
            }
            let Some(act) = self.readable() else {
                self.nothing_waits_in_vain()?;
                match self.next() {
                    Some(at) if at <= until => self.now(self.just_before(at))?,
                    _ => {
                        self.now(Act::Pass(until))?;
                        self.renew_watchdogs()?;
                        return Ok(done(self));
                    }
                }
                continue;
            };
            if matches!(self.way, Way::FetchThenDispatch | Way::Edges) {
                self.fetch_all()?;
            }
            if self.way == Way::Edges && matches!(act, Act::Dispatch) {
                self.now(Act::Poll)?;
                self.until_nothing()?;
                continue;
            }
            self.now(act)?;
            if self.way == Way::DispatchThenFetch {
                self.fetch_all()?;
            }
        }
        Err(format!(
            "it goes on for ever, {:?}: {:?}",
            self.way,
            snapshots(&self.driver).collect::<Vec<_>>()
        ))
    }

    /// The loop of an edge-triggered host. It ends within a bounded number of calls, whatever happens meanwhile.
    pub(super) fn until_nothing(&mut self) -> Result<(), Broken> {
        for call in 0..ENDLESS {
            self.now(Act::Dispatch)?;
            if !self.asks_on {
                return Ok(());
            }
            // On any machine a call takes time.
            let later = self.world.borrow().now.saturating_add(Duration::from_micros(50));
            self.now(Act::Pass(later))?;
            if call % 3 == 1 {
                // The runtime looks for what is ready between two calls, and takes the edge.
                self.now(Act::Poll)?;
            }
        }
        Err("a host that calls until there is nothing to do calls for ever".into())
    }

    fn fetch_all(&mut self) -> Result<(), Broken> {
        self.now(Act::Drain(usize::MAX))
    }

    /// Whether a host that waits in its way is woken.
    fn is_woken(&self) -> bool {
        let world = self.world.borrow();
        match self.way {
            Way::Edges => world.set.edges > self.edges_seen,
            Way::Each | Way::DispatchThenFetch | Way::FetchThenDispatch | Way::NeverFetch => world.is_readable(),
        }
    }

    /// A host that waits, and otherwise fetches events, has received every event.
    fn nothing_waits_in_vain(&self) -> Result<(), Broken> {
        let is_late = matches!(self.way, Way::Each | Way::NeverFetch);
        ensure(is_late || self.driver.events.is_empty(), || {
            format!("events wait, and nothing wakes the host, {:?}", self.way)
        })?;
        let ready = self.world.borrow().is_readable();
        ensure(!ready, || {
            format!("something is ready, and there is no edge, {:?}", self.way)
        })
    }

    /// The act that a waiting host is woken for.
    fn readable(&self) -> Option<Act> {
        let world = self.world.borrow();
        if world.arm_failed {
            return Some(Act::Early);
        }
        match self.way {
            Way::Each => {
                if let Some(process) = world.processes.iter().find(|process| process.is_ready()) {
                    return Some(Act::Ready { serial: process.serial });
                }
                if !world.set.messages.is_empty() {
                    return Some(Act::Socket);
                }
                if !world.set.signals.is_empty() {
                    return Some(Act::Entry(SIGNALS));
                }
                if !world.set.orphans.is_empty() {
                    return Some(Act::Entry(ORPHANS));
                }
            }
            Way::Edges if self.is_woken() => return Some(Act::Dispatch),
            Way::DispatchThenFetch | Way::FetchThenDispatch | Way::NeverFetch if world.is_readable() => {
                return Some(Act::Dispatch);
            }
            Way::Edges | Way::DispatchThenFetch | Way::FetchThenDispatch | Way::NeverFetch => {}
        }
        let notifies = snapshots(&self.driver).find(|now| {
            let known = self.model.instance(now.id);
            let group = known.and_then(|known| self.model.group(known.group));
            let notify = group.is_some_and(|group| matches!(group.policy.startup, Startup::Notify { .. }));
            notify && matches!(now.state, State::Starting { executed: Some(_), .. })
        });
        if let Some(now) = notifies {
            return Some(Act::Report(now.id, Input::Ready));
        }
        (self.way == Way::Each && world.timer_is_ready()).then_some(Act::Timer)
    }

    /// A healthy process is not silent for longer than its watchdog allows.
    fn just_before(&self, at: Instant) -> Act {
        // Calls take time, and others may have a watchdog that ends at almost the same time.
        let soon = at.saturating_add(EARLY);
        let barks = |now: &Snapshot| now.state.deadline().is_some_and(|end| end <= soon);
        let runs = |now: &Snapshot| now.state.name() == StateName::Running;
        let moment = at.saturating_sub(EARLY);
        match snapshots(&self.driver).find(|now| runs(now) && barks(now)) {
            Some(now) if self.world.borrow().now >= moment => Act::Report(now.id, Input::Alive),
            Some(_) => Act::Pass(moment),
            None => Act::Pass(at),
        }
    }

    /// The host goes on with other things, and its next calls take time.
    fn renew_watchdogs(&mut self) -> Result<(), Broken> {
        let soon = self.world.borrow().now.saturating_add(EARLY);
        let barks = |now: &Snapshot| matches!(now.state, State::Running { until, .. } if until <= soon);
        let silent: Vec<_> = snapshots(&self.driver).filter(barks).map(|now| now.id).collect();
        silent
            .into_iter()
            .try_for_each(|id| self.now(Act::Report(id, Input::Alive)))
    }

    fn next(&self) -> Option<Instant> {
        let world = self.world.borrow();
        world.armed.into_iter().chain(world.next()).min()
    }

    fn stopping(&self) -> Vec<crate::engine::ids::InstanceId> {
        let ends = [StateName::Stopping, StateName::Preparing, StateName::CleaningUp];
        let stopping = snapshots(&self.driver).filter(|now| ends.contains(&now.state.name()));
        stopping.map(|now| now.id).collect()
    }

    fn now(&mut self, act: Act) -> Result<(), Broken> {
        let chance = Chance::new(self.tally.steps);
        self.step(act, chance)
    }
}
