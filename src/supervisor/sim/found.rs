//! Situations that were found to go wrong, each played again step by step, under all oracles.

use std::time::Duration;

use super::act::Act;
use super::chance::Chance;
use super::climate::Climate;
use super::host::Host;
use super::process::Member;
use super::recipe::{Draft, Recipe};
use super::world::{Did, World};
use crate::group::Rolling;
use crate::lifecycle::{Backoff, Input, Policy, Restart, Scope, Startup, StateName, StopLadder};
use crate::signal::Signal;
use crate::supervisor::{Event, GroupId, InstanceId, Request, Target};
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A host in a kind world, who does as he is told.
struct Scene {
    host: Host,
}

/// Instances of one command that count as running at once.
fn draft(instances: u32) -> Draft {
    Draft {
        name: "web",
        recipe: Recipe {
            each: false,
            versions: [1; 3],
            env: 1,
            leads: false,
            cgroup: None,
            ready_fd: false,
            socket: false,
        },
        instances,
        policy: Policy {
            startup: Startup::Grace(Duration::ZERO),
            backoff: Backoff::Fixed(SECOND),
            ..Policy::default()
        },
        flawed: false,
    }
}

/// Of another version.
fn changed(draft: &Draft) -> Draft {
    let mut draft = draft.clone();
    draft.recipe.versions = [2; 3];
    draft
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new(1);
        world.climate = Climate::KIND;
        Scene {
            host: Host::new(world, 4_096, None),
        }
    }

    fn act(&mut self, act: Act) {
        let played = self.host.step(act, Chance::new(1));
        played.unwrap_or_else(|broken| panic!("{broken}"));
    }

    fn add(&mut self, draft: &Draft) -> GroupId {
        self.act(Act::Add(Box::new(draft.clone())));
        self.host.model.groups.last().unwrap().id
    }

    fn reload(&mut self, group: GroupId, draft: &Draft) {
        self.act(Act::Reload(group, Box::new(draft.clone())));
    }

    fn ask(&mut self, target: impl Into<Target>, request: Request) {
        self.act(Act::Ask(target.into(), request));
    }

    /// Asks, and lets everybody have his turn.
    fn ask_at_leisure(&mut self, target: impl Into<Target>, request: Request) {
        self.ask(target, request);
        self.handle_all();
    }

    fn weather(&mut self, change: impl FnOnce(&mut Climate)) {
        let mut climate = self.host.world.borrow().climate;
        change(&mut climate);
        self.act(Act::Weather(climate));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.host.world.borrow().now.saturating_add(time);
        self.act(Act::Pass(until));
    }

    /// Time passes, and what it brings is handled.
    fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.handle_all();
    }

    /// Whatever is readable.
    fn handle_all(&mut self) {
        loop {
            let (ready, timer) = {
                let world = self.host.world.borrow();
                let ready = world.processes.iter().find(|process| process.is_ready());
                (ready.map(|process| process.serial), world.timer_is_ready())
            };
            match (ready, timer) {
                (Some(serial), _) => self.act(Act::Ready { serial }),
                (None, true) => self.act(Act::Timer),
                (None, false) => return,
            }
        }
    }

    fn id(&self, group: GroupId, number: u32) -> InstanceId {
        let group = self.host.driver.groups.get(group).unwrap();
        group.roster.get(number).unwrap()
    }

    fn state(&self, group: GroupId, number: u32) -> StateName {
        let instance = self.host.driver.instances.get(self.id(group, number)).unwrap();
        instance.life.state().name()
    }

    fn states(&self, group: GroupId) -> Vec<StateName> {
        let roster = &self.host.driver.groups.get(group).unwrap().roster;
        (0..roster.target()).map(|number| self.state(group, number)).collect()
    }

    /// Whose processes heed no signal but SIGKILL.
    fn defies(&mut self, group: GroupId, number: u32) {
        let instance = self.host.driver.instances.get(self.id(group, number)).unwrap();
        let serial = instance.process.as_ref().unwrap().serial;
        self.host.world.borrow_mut().process_mut(serial).unwrap().defy();
    }

    /// Whose process has a child that ends of SIGKILL alone.
    fn has_a_deaf_child(&mut self, group: GroupId, number: u32) {
        let instance = self.host.driver.instances.get(self.id(group, number)).unwrap();
        let serial = instance.process.as_ref().unwrap().serial;
        let child = Member {
            in_group: true,
            ends: Instant::NEVER,
            obeys: false,
            is_reaped: true,
            alive: true,
        };
        let mut world = self.host.world.borrow_mut();
        world.process_mut(serial).unwrap().others.push(child);
    }

    /// How many processes were asked for in the last step.
    fn spawns(&self) -> usize {
        let world = self.host.world.borrow();
        world.log.iter().filter(|did| matches!(did, Did::Spawn { .. })).count()
    }

    /// What was sent in the last step.
    fn sent(&self) -> Vec<Signal> {
        let world = self.host.world.borrow();
        let signals = world.log.iter().filter_map(|did| match did {
            Did::Signal { signal, .. } => Some(*signal),
            _ => None,
        });
        signals.collect()
    }

    /// Which signals could not be sent, as it is told. The events are gone then.
    fn told_refused(&mut self) -> Vec<Signal> {
        let events = std::iter::from_fn(|| self.host.driver.events.pop());
        let refused = events.filter_map(|event| match event {
            Event::SignalFailed { signal, .. } => Some(signal),
            _ => None,
        });
        refused.collect()
    }
}

#[test]
fn who_is_called_back_into_a_larger_group_runs_what_the_group_runs_now() {
    let mut scene = Scene::new();
    let mut each = draft(2);
    each.recipe.each = true;
    let group = scene.add(&each);
    scene.ask(group, Request::Start);
    scene.defies(group, 1);
    let one = Draft { instances: 1, ..each };
    scene.reload(group, &one);
    scene.reload(group, &changed(&one));
    scene.act(Act::Scale(group, 2));
    // The ladder takes ten seconds; then it is spawned again, and the oracle looks as what.
    scene.wait(SECOND * 11);
    assert_eq!(scene.states(group), [StateName::Running; 2]);
}

#[test]
fn who_is_called_back_for_a_rolling_restart_runs_what_the_group_runs_now() {
    let mut scene = Scene::new();
    let mut each = draft(2);
    each.recipe.each = true;
    let group = scene.add(&each);
    scene.ask(group, Request::Start);
    scene.defies(group, 1);
    let one = Draft { instances: 1, ..each };
    scene.reload(group, &one);
    scene.reload(group, &changed(&one));
    let surge = Rolling {
        max_unavailable: 1,
        surge: 1,
    };
    scene.act(Act::Roll(group, surge));
    scene.wait(SECOND * 11);
    scene.wait(SECOND);
    assert_eq!(scene.states(group), [StateName::Running]);
}

#[test]
fn a_reload_does_not_call_back_who_is_stopped_as_soon_as_it_is_his_turn() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(5));
    scene.ask_at_leisure(group, Request::Start);
    for request in [Request::Stop, Request::Kill] {
        // Three at once, and two that wait for their turn.
        scene.ask(group, request);
        scene.reload(group, &changed(&draft(5)));
        scene.handle_all();
        scene.wait(SECOND);
        assert_eq!(scene.states(group), [StateName::Stopped; 5]);
        scene.reload(group, &draft(5));
        scene.ask_at_leisure(group, Request::Start);
    }
}

#[test]
fn a_reload_starts_who_waits_for_his_delay_and_leaves_who_has_ended() {
    let mut scene = Scene::new();
    let mut once = draft(1);
    once.policy.restart = Restart::Never;
    let group = scene.add(&once);
    scene.ask(group, Request::Start);
    scene.act(Act::Signal(Target::Group(group), Signal::KILL));
    scene.handle_all();
    assert_eq!(scene.state(group, 0), StateName::Exited);
    scene.reload(group, &changed(&once));
    assert_eq!((scene.spawns(), scene.state(group, 0)), (0, StateName::Exited));
    scene.weather(|climate| climate.spawn_fails = 1);
    scene.ask(group, Request::Start);
    assert_eq!(scene.state(group, 0), StateName::Backoff);
    // With another command it may well succeed.
    scene.reload(group, &once);
    assert_eq!(scene.spawns(), 1);
}

#[test]
fn nobody_is_started_whose_stop_waits_for_its_turn() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(5));
    scene.weather(|climate| climate.spawn_fails = 1);
    scene.ask_at_leisure(group, Request::Start);
    assert_eq!(scene.states(group), [StateName::Backoff; 5]);
    // The delay of all five is over when the host comes to ask.
    scene.pass(SECOND);
    scene.act(Act::Shutdown);
    scene.handle_all();
    assert_eq!(scene.states(group), [StateName::Stopped; 5]);
}

#[test]
fn nobody_is_started_again_whose_stop_waits_for_its_turn() {
    let mut scene = Scene::new();
    let mut always = draft(5);
    always.policy.restart = Restart::Always;
    let group = scene.add(&always);
    scene.ask_at_leisure(group, Request::Start);
    scene.act(Act::Signal(Target::Group(group), Signal::KILL));
    scene.act(Act::Shutdown);
    // All five have ended meanwhile.
    scene.handle_all();
    assert_eq!(scene.states(group), [StateName::Stopped; 5]);
}

#[test]
fn a_cgroup_is_his_who_lives_in_it_whatever_his_group_is_called() {
    let mut scene = Scene::new();
    let mut web = draft(1);
    web.recipe.cgroup = Some(0);
    let group = scene.add(&web);
    scene.ask(group, Request::Start);
    let renamed = Draft {
        name: "mail",
        ..web.clone()
    };
    scene.reload(group, &renamed);
    // Refused, as the model says; the process in web-0 would have been killed.
    scene.act(Act::Add(Box::new(web.clone())));
    assert_eq!(scene.host.model.groups.len(), 1);
    // From its next start on it lives in mail-0.
    scene.ask(group, Request::Restart);
    scene.wait(SECOND);
    let other = scene.add(&web);
    scene.ask(other, Request::Start);
    assert_eq!(scene.state(group, 0), StateName::Running);
    assert_eq!(scene.state(other, 0), StateName::Running);
}

#[test]
fn a_kill_that_was_refused_can_be_asked_for_again() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.ask(group, Request::Start);
    scene.weather(|climate| climate.signal_fails = 1);
    scene.ask(group, Request::Kill);
    scene.weather(|climate| climate.signal_fails = 0);
    // As long as it may work, once is enough.
    scene.ask(group, Request::Kill);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Stopping);
    scene.wait(SECOND * 5);
    scene.ask(group, Request::Kill);
    scene.handle_all();
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}

#[test]
fn a_signal_that_is_refused_is_told_and_nothing_follows_it() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.ask(group, Request::Start);
    scene.weather(|climate| climate.signal_fails = 1);
    for (request, signal) in [(Request::Stop, Signal::TERM), (Request::Kill, Signal::KILL)] {
        scene.ask(group, request);
        assert_eq!(scene.sent(), [signal]);
        assert_eq!(scene.told_refused(), [signal]);
    }
    // One that may be sent is not told, and who is killed need not be woken for it.
    scene.weather(|climate| climate.signal_fails = 0);
    scene.wait(SECOND * 5);
    scene.ask(group, Request::Kill);
    assert_eq!(scene.sent(), [Signal::KILL]);
    assert!(scene.told_refused().is_empty());
}

#[test]
fn who_was_out_of_reach_of_sigkill_gets_it_when_he_is_within() {
    let mut scene = Scene::new();
    let mut leader = draft(1);
    leader.recipe.leads = true;
    let group = scene.add(&leader);
    scene.ask(group, Request::Start);
    scene.has_a_deaf_child(group, 0);
    // The process alone is to be killed; then the policy is one for the whole of its group.
    scene.ask(group, Request::Kill);
    leader.policy.stop = StopLadder::kill(Scope::ProcessGroup);
    scene.reload(group, &leader);
    scene.handle_all();
    assert_eq!(scene.state(group, 0), StateName::Stopping);
    for _ in 0..30 {
        scene.wait(SECOND);
    }
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}

#[test]
fn a_start_has_the_time_that_the_policy_gives_it_now() {
    let mut scene = Scene::new();
    let mut spec = draft(1);
    spec.policy.startup = Startup::Grace(SECOND);
    let group = scene.add(&spec);
    scene.ask(group, Request::Start);
    spec.policy.startup = Startup::Notify { timeout: SECOND * 30 };
    scene.reload(group, &spec);
    scene.wait(SECOND * 29);
    assert_eq!(scene.state(group, 0), StateName::Starting);
    scene.act(Act::Tell(scene.id(group, 0), Input::Ready));
    assert_eq!(scene.state(group, 0), StateName::Running);
}

#[test]
fn nobody_is_stopped_for_his_silence_once_the_policy_does_not_mind_it() {
    let mut scene = Scene::new();
    let mut spec = draft(1);
    spec.policy.watchdog = Some(SECOND);
    let group = scene.add(&spec);
    scene.ask(group, Request::Start);
    spec.policy.watchdog = None;
    scene.reload(group, &spec);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Running);
    assert_eq!(scene.host.world.borrow().armed, None);
}

#[test]
fn whom_a_rolling_restart_sends_away_in_the_middle_of_a_command_is_not_called_back_by_it() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(6));
    scene.weather(|climate| climate.spawn_fails = 1);
    scene.ask(scene.id(group, 0), Request::Start);
    scene.weather(|climate| climate.spawn_fails = 0);
    let surge = Rolling {
        max_unavailable: 1,
        surge: 1,
    };
    scene.act(Act::Roll(group, surge));
    scene.ask(group, Request::Kill);
    // The first, in its backoff, is stopped at once when it is asked to start: that ends the rolling restart
    // before the seventh, whose kill waits for its turn, is asked.
    scene.ask(group, Request::Start);
    scene.handle_all();
    scene.wait(SECOND);
    assert_eq!(scene.states(group), [StateName::Running; 6]);
}

#[test]
fn a_rolling_restart_starts_whom_it_adds_once() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.ask(group, Request::Start);
    scene.weather(|climate| climate.spawn_fails = 1);
    let surge = Rolling {
        max_unavailable: 1,
        surge: 1,
    };
    scene.act(Act::Roll(group, surge));
    assert_eq!(scene.spawns(), 1);
}

#[test]
fn whom_a_rolling_restart_sends_away_when_his_end_is_seen_is_not_started() {
    let mut scene = Scene::new();
    let mut always = draft(5);
    always.policy.restart = crate::lifecycle::Restart::Always;
    always.policy.startup = Startup::Grace(Duration::from_nanos(1));
    let group = scene.add(&always);
    let surge = Rolling {
        max_unavailable: 2,
        surge: 2,
    };
    scene.act(Act::Roll(group, surge));
    scene.act(Act::Signal(Target::Group(group), Signal::KILL));
    scene.pass(SECOND);
    // The one end is seen; the other waits to be, behind a start that waits as well.
    let first = scene.host.world.borrow().processes[0].serial;
    scene.act(Act::Ready { serial: first });
    scene.ask(group, Request::Start);
    let last = scene.id(group, 6);
    scene.act(Act::Knock(last));
    for _ in 0..5 {
        scene.wait(SECOND);
    }
    assert_eq!(scene.states(group), [StateName::Running; 5]);
}

#[test]
fn a_ladder_that_became_shorter_still_ends_in_sigkill() {
    let mut scene = Scene::new();
    let mut spec = draft(1);
    let rung = StopLadder::signal(Signal::TERM, Scope::Process, SECOND);
    spec.policy.stop = StopLadder {
        rungs: vec![rung.rungs[0]; 3],
        ..rung
    };
    let group = scene.add(&spec);
    scene.ask(group, Request::Start);
    scene.defies(group, 0);
    scene.ask(group, Request::Stop);
    scene.wait(SECOND);
    spec.policy.stop.rungs.truncate(1);
    scene.reload(group, &spec);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}
