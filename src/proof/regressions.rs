//! Situations that once failed, each replayed step by step under all oracles.

use std::time::Duration;

use super::act::Act;
use super::chance::Chance;
use super::fault_profile::FaultProfile;
use super::host::{Host, serial_of};
use super::process::{Member, Takeoff};
use super::recipe::{Draft, Recipe};
use super::reexec::Redescribed;
use super::world::{Did, World};
use crate::engine::event::{Event, TransitionEvent};
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::request::Request;
use crate::group::Rolling;
use crate::lifecycle::{Delay, Input, Policy, Restart, Scope, Startup, StateName, StopLadder};
use crate::notify::NotifyAccess;
use crate::signal::Signal;
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A host in a world without faults.
pub(super) struct Scene {
    pub(super) host: Host,
}

/// Instances of one command that are running at once after a spawn.
pub(super) fn draft(instances: u32) -> Draft {
    Draft {
        name: "web",
        recipe: Recipe {
            each: false,
            versions: [1; 3],
            env: 1,
            leads: false,
            cgroup: None,
            ready_fd: false,
            before: None,
            after: None,
            stop_version: 1,
            socket: false,
            access: NotifyAccess::All,
            most_stored: 0,
        },
        instances,
        policy: Policy {
            startup: Startup::Grace(Duration::ZERO),
            backoff: Delay::Fixed(SECOND),
            ..Policy::default()
        },
        flawed: false,
        after: Vec::new(),
        requires: Vec::new(),
    }
}

/// The same description with another version of the command.
fn changed(draft: &Draft) -> Draft {
    let mut draft = draft.clone();
    draft.recipe.versions = [2; 3];
    draft
}

impl Scene {
    pub(super) fn new() -> Scene {
        Scene::in_flight(0)
    }

    /// A scene with a host that keeps its state.
    pub(super) fn with_state_file() -> Scene {
        let scene = Scene::new();
        scene.host.world.borrow_mut().file.is_kept = true;
        scene
    }

    /// A scene with at most this many spawns in flight. With 0, each spawn waits for the execution.
    fn in_flight(most: usize) -> Scene {
        let mut world = World::new(1);
        world.faults = FaultProfile::KIND;
        world.most_in_flight = most;
        Scene {
            host: Host::new(world, 4_096, None),
        }
    }

    pub(super) fn act(&mut self, act: Act) {
        let played = self.host.step(act, Chance::new(1));
        played.unwrap_or_else(|broken| panic!("{broken}"));
    }

    pub(super) fn add(&mut self, draft: &Draft) -> GroupId {
        self.act(Act::Add(Box::new(draft.clone())));
        self.host.model.groups.last().unwrap().id
    }

    pub(super) fn reload(&mut self, group: GroupId, draft: &Draft) {
        self.act(Act::Reload(group, Box::new(draft.clone())));
    }

    pub(super) fn request(&mut self, target: impl Into<Target>, request: Request) {
        self.act(Act::Request(target.into(), request));
    }

    /// Submits a request, and serves every pending request.
    pub(super) fn ask_and_serve_all(&mut self, target: impl Into<Target>, request: Request) {
        self.request(target, request);
        self.handle_all();
    }

    fn set_faults(&mut self, change: impl FnOnce(&mut FaultProfile)) {
        let mut faults = self.host.world.borrow().faults;
        change(&mut faults);
        self.act(Act::Faults(faults));
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.host.world.borrow().now.saturating_add(time);
        self.act(Act::Pass(until));
    }

    /// Advances the time, and handles everything that becomes ready.
    pub(super) fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.handle_all();
    }

    /// A process with a readable descriptor.
    pub(super) fn ready_process(&self) -> Option<u64> {
        let world = self.host.world.borrow();
        let ready = world.processes.iter().find(|process| process.is_ready());
        ready.map(|process| process.serial)
    }

    /// Handles every readable entry.
    pub(super) fn handle_all(&mut self) {
        loop {
            let timer = self.host.world.borrow().timer_is_ready();
            match (self.ready_process(), timer) {
                (Some(serial), _) => self.act(Act::Ready { serial }),
                (None, true) => self.act(Act::Timer),
                (None, false) => return,
            }
        }
    }

    pub(super) fn id(&self, group: GroupId, number: u32) -> InstanceId {
        let group = self.host.driver.groups.get(group).unwrap();
        group.roster.get(number).unwrap()
    }

    pub(super) fn state(&self, group: GroupId, number: u32) -> StateName {
        let instance = self.host.driver.instances.get(self.id(group, number)).unwrap();
        instance.life.state().name()
    }

    fn states(&self, group: GroupId) -> Vec<StateName> {
        let roster = &self.host.driver.groups.get(group).unwrap().roster;
        (0..roster.target()).map(|number| self.state(group, number)).collect()
    }

    /// Makes a process ignore every signal but SIGKILL.
    pub(super) fn defies(&mut self, group: GroupId, number: u32) {
        let serial = serial_of(&self.host.driver, self.id(group, number)).unwrap();
        self.host
            .world
            .borrow_mut()
            .process_mut(serial)
            .unwrap()
            .ignore_signals();
    }

    /// Gives a process a child that only SIGKILL ends.
    fn has_a_child_that_ignores_signals(&mut self, group: GroupId, number: u32) {
        let serial = serial_of(&self.host.driver, self.id(group, number)).unwrap();
        let child = Member {
            in_group: true,
            ends: Instant::NEVER,
            ends_on_signal: false,
            is_reaped: true,
            alive: true,
        };
        let mut world = self.host.world.borrow_mut();
        world.process_mut(serial).unwrap().others.push(child);
    }

    /// The next execution takes this long, and fails with this errno if there is one.
    fn executes(&mut self, takes: Duration, fails: Option<i32>) {
        self.host.world.borrow_mut().next_takeoff = Some(Takeoff {
            takes,
            fails,
            blocks: true,
        });
    }

    /// The last transition to a state in the events. The events are fetched by this call.
    fn last_transition(&mut self, to: StateName) -> TransitionEvent {
        let events = std::iter::from_fn(|| self.host.driver.next_event());
        let steps = events.filter_map(|event| match event {
            Event::Transition(step) if step.to == to => Some(step),
            _ => None,
        });
        steps.last().unwrap()
    }

    /// The number of spawns in the last step.
    fn spawns(&self) -> usize {
        let world = self.host.world.borrow();
        world.log.iter().filter(|did| matches!(did, Did::Spawn { .. })).count()
    }

    /// The signals that were sent in the last step.
    pub(super) fn sent(&self) -> Vec<Signal> {
        let world = self.host.world.borrow();
        let signals = world.log.iter().filter_map(|did| match did {
            Did::Signal { signal, .. } => Some(*signal),
            _ => None,
        });
        signals.collect()
    }

    /// The signals that an event reports as refused. The events are fetched by this call.
    fn refused_in_events(&mut self) -> Vec<Signal> {
        let events = std::iter::from_fn(|| self.host.driver.next_event());
        let refused = events.filter_map(|event| match event {
            Event::SignalFailed { signal, .. } => Some(signal),
            _ => None,
        });
        refused.collect()
    }
}

/// A group of two instances with a command each. The second one leaves, and takes its time; the command has changed
/// since.
fn with_an_instance_that_leaves(scene: &mut Scene) -> GroupId {
    let mut each = draft(2);
    each.recipe.each = true;
    let group = scene.add(&each);
    scene.request(group, Request::Start);
    scene.defies(group, 1);
    let one = Draft { instances: 1, ..each };
    scene.reload(group, &one);
    scene.reload(group, &changed(&one));
    group
}

#[test]
fn an_instance_recalled_by_a_scale_runs_the_current_command() {
    let mut scene = Scene::new();
    let group = with_an_instance_that_leaves(&mut scene);
    scene.act(Act::Scale(group, 2));
    // The ladder takes ten seconds. Then the instance is spawned again, and the oracle checks its program.
    scene.wait(SECOND * 11);
    assert_eq!(scene.states(group), [StateName::Running; 2]);
}

#[test]
fn an_instance_recalled_for_a_rolling_restart_runs_the_current_command() {
    let mut scene = Scene::new();
    let group = with_an_instance_that_leaves(&mut scene);
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
fn a_reload_does_not_restart_an_instance_with_a_pending_stop() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(5));
    scene.ask_and_serve_all(group, Request::Start);
    for request in [Request::Stop, Request::Kill] {
        // Three requests are applied at once, and two are pending.
        scene.request(group, request);
        scene.reload(group, &changed(&draft(5)));
        scene.handle_all();
        scene.wait(SECOND);
        assert_eq!(scene.states(group), [StateName::Stopped; 5]);
        scene.reload(group, &draft(5));
        scene.ask_and_serve_all(group, Request::Start);
    }
}

#[test]
fn a_reload_starts_an_instance_in_backoff_and_leaves_an_exited_one() {
    let mut scene = Scene::new();
    let mut once = draft(1);
    once.policy.restart = Restart::Never;
    let group = scene.add(&once);
    scene.request(group, Request::Start);
    scene.act(Act::Signal(Target::Group(group), Signal::KILL));
    scene.handle_all();
    assert_eq!(scene.state(group, 0), StateName::Exited);
    scene.reload(group, &changed(&once));
    assert_eq!((scene.spawns(), scene.state(group, 0)), (0, StateName::Exited));
    scene.set_faults(|faults| faults.spawn_fails = 1);
    scene.request(group, Request::Start);
    assert_eq!(scene.state(group, 0), StateName::Backoff);
    // With another command the start may succeed.
    scene.reload(group, &once);
    assert_eq!(scene.spawns(), 1);
}

#[test]
fn an_instance_with_a_pending_stop_is_not_started_by_its_delay() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(5));
    scene.set_faults(|faults| faults.spawn_fails = 1);
    scene.ask_and_serve_all(group, Request::Start);
    assert_eq!(scene.states(group), [StateName::Backoff; 5]);
    // The delay of all five is over when the host makes its next call.
    scene.pass(SECOND);
    scene.act(Act::Shutdown);
    scene.handle_all();
    assert_eq!(scene.states(group), [StateName::Stopped; 5]);
}

#[test]
fn an_instance_with_a_pending_stop_is_not_restarted_after_its_end() {
    let mut scene = Scene::new();
    let mut always = draft(5);
    always.policy.restart = Restart::Always;
    let group = scene.add(&always);
    scene.ask_and_serve_all(group, Request::Start);
    scene.act(Act::Signal(Target::Group(group), Signal::KILL));
    scene.act(Act::Shutdown);
    // All five have ended meanwhile.
    scene.handle_all();
    assert_eq!(scene.states(group), [StateName::Stopped; 5]);
}

#[test]
fn a_process_keeps_its_cgroup_when_its_group_is_renamed() {
    let mut scene = Scene::new();
    let mut web = draft(1);
    web.recipe.cgroup = Some(0);
    let group = scene.add(&web);
    scene.request(group, Request::Start);
    let renamed = Draft {
        name: "mail",
        ..web.clone()
    };
    scene.reload(group, &renamed);
    // Refused, as the model predicts. Otherwise the process in web-0 would have been killed.
    scene.act(Act::Add(Box::new(web.clone())));
    assert_eq!(scene.host.model.groups.len(), 1);
    // From its next start on, the instance uses the cgroup mail-0.
    scene.request(group, Request::Restart);
    scene.wait(SECOND);
    let other = scene.add(&web);
    scene.request(other, Request::Start);
    assert_eq!(scene.state(group, 0), StateName::Running);
    assert_eq!(scene.state(other, 0), StateName::Running);
}

#[test]
fn a_kill_that_was_refused_can_be_asked_for_again() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.request(group, Request::Start);
    scene.set_faults(|faults| faults.signal_fails = 1);
    scene.request(group, Request::Kill);
    scene.set_faults(|faults| faults.signal_fails = 0);
    // While the signal may still take effect, one is enough.
    scene.request(group, Request::Kill);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Stopping);
    scene.wait(SECOND * 5);
    scene.request(group, Request::Kill);
    scene.handle_all();
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}

#[test]
fn a_signal_that_is_refused_is_told_and_nothing_follows_it() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.request(group, Request::Start);
    scene.set_faults(|faults| faults.signal_fails = 1);
    for (request, signal) in [(Request::Stop, Signal::TERM), (Request::Kill, Signal::KILL)] {
        scene.request(group, request);
        assert_eq!(scene.sent(), [signal]);
        assert_eq!(scene.refused_in_events(), [signal]);
    }
    // A signal that may be sent is not reported, and a process that is killed needs no SIGCONT.
    scene.set_faults(|faults| faults.signal_fails = 0);
    scene.wait(SECOND * 5);
    scene.request(group, Request::Kill);
    assert_eq!(scene.sent(), [Signal::KILL]);
    assert!(scene.refused_in_events().is_empty());
}

#[test]
fn a_wider_stop_scope_sends_sigkill_to_the_newly_reached_processes() {
    let mut scene = Scene::new();
    let mut leader = draft(1);
    leader.recipe.leads = true;
    let group = scene.add(&leader);
    scene.request(group, Request::Start);
    scene.has_a_child_that_ignores_signals(group, 0);
    // The kill has the scope of the process alone. Then the policy has the scope of its group.
    scene.request(group, Request::Kill);
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
    scene.request(group, Request::Start);
    spec.policy.startup = Startup::Notify { timeout: SECOND * 30 };
    scene.reload(group, &spec);
    scene.wait(SECOND * 29);
    assert_eq!(scene.state(group, 0), StateName::Starting);
    scene.act(Act::Report(scene.id(group, 0), Input::Ready));
    assert_eq!(scene.state(group, 0), StateName::Running);
}

#[test]
fn a_removed_watchdog_stops_no_silent_process() {
    let mut scene = Scene::new();
    let mut spec = draft(1);
    spec.policy.watchdog = Some(SECOND);
    let group = scene.add(&spec);
    scene.request(group, Request::Start);
    spec.policy.watchdog = None;
    scene.reload(group, &spec);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Running);
    assert_eq!(scene.host.world.borrow().armed, None);
}

#[test]
fn an_instance_retired_by_a_rolling_restart_during_a_command_is_not_started_by_it() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(6));
    scene.set_faults(|faults| faults.spawn_fails = 1);
    scene.request(scene.id(group, 0), Request::Start);
    scene.set_faults(|faults| faults.spawn_fails = 0);
    let surge = Rolling {
        max_unavailable: 1,
        surge: 1,
    };
    scene.act(Act::Roll(group, surge));
    scene.request(group, Request::Kill);
    // The first instance is in its backoff, and it is stopped at once when it is requested to start. That ends the
    // rolling restart before the seventh instance, with its pending kill, is served.
    scene.request(group, Request::Start);
    scene.handle_all();
    scene.wait(SECOND);
    assert_eq!(scene.states(group), [StateName::Running; 6]);
}

#[test]
fn a_rolling_restart_starts_each_added_instance_once() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(1));
    scene.request(group, Request::Start);
    scene.set_faults(|faults| faults.spawn_fails = 1);
    let surge = Rolling {
        max_unavailable: 1,
        surge: 1,
    };
    scene.act(Act::Roll(group, surge));
    assert_eq!(scene.spawns(), 1);
}

#[test]
fn an_instance_retired_when_its_end_is_found_is_not_started() {
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
    // One end is handled. The other one waits behind a start that is pending too.
    let first = scene.host.world.borrow().processes[0].serial;
    scene.act(Act::Ready { serial: first });
    scene.request(group, Request::Start);
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
    scene.request(group, Request::Start);
    scene.defies(group, 0);
    scene.request(group, Request::Stop);
    scene.wait(SECOND);
    spec.policy.stop.rungs.truncate(1);
    scene.reload(group, &spec);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}

const HANGS: Duration = Duration::MAX;

#[test]
fn a_start_that_fails_in_flight_has_no_exit_record_of_an_earlier_run() {
    let mut scene = Scene::in_flight(1);
    let group = scene.add(&draft(1));
    let id = scene.id(group, 0);
    scene.request(group, Request::Start);
    scene.wait(SECOND);
    scene.request(group, Request::Kill);
    scene.wait(SECOND);
    scene.executes(SECOND, Some(libc::ENOENT));
    scene.request(group, Request::Start);
    scene.wait(SECOND * 2);
    let status = scene.host.driver.status(id).unwrap();
    assert_eq!(status.state.name(), StateName::Backoff);
    assert_eq!(status.last_exit.unwrap().exit.signal(), Some(Signal::KILL));
    assert_eq!(scene.last_transition(StateName::Backoff).exit, None);
    let instance = scene.host.driver.instances.get(id).unwrap();
    let run = instance.history.runs().last().unwrap();
    assert_eq!((run.number, run.pid, run.exit), (2, None, None));
}

#[test]
fn a_restart_that_waits_is_told_with_the_exit_record_of_the_run_before() {
    let mut scene = Scene::in_flight(1);
    let (first, second) = (
        scene.add(&draft(1)),
        scene.add(&Draft {
            name: "mail",
            ..draft(1)
        }),
    );
    scene.request(first, Request::Start);
    scene.wait(SECOND);
    scene.request(first, Request::Restart);
    scene.executes(HANGS, None);
    scene.request(second, Request::Start);
    scene.wait(SECOND);
    assert_eq!(scene.states(first), [StateName::Starting]);
    scene.request(second, Request::Kill);
    scene.wait(SECOND);
    let step = scene.last_transition(StateName::Starting);
    assert_eq!((step.from, step.run), (StateName::Stopping, 2));
    assert!(step.exit.is_some());
}

/// Five instances with spawns that wait, because another process hangs in flight. Its group is returned second.
fn five_that_wait(scene: &mut Scene) -> (GroupId, GroupId) {
    let mut five = draft(5);
    five.policy.backoff = Delay::Fixed(SECOND * 2);
    let five = scene.add(&five);
    let hangs = scene.add(&Draft {
        name: "mail",
        ..draft(1)
    });
    scene.set_faults(|faults| faults.spawn_fails = 1);
    scene.ask_and_serve_all(five, Request::Start);
    scene.set_faults(|faults| faults.spawn_fails = 0);
    scene.executes(HANGS, None);
    scene.request(hangs, Request::Start);
    scene.wait(SECOND * 3);
    assert_eq!(scene.states(five), [StateName::Starting; 5]);
    (five, hangs)
}

#[test]
fn a_spawn_that_waits_does_not_begin_while_its_stop_is_pending() {
    let mut scene = Scene::in_flight(1);
    let (five, hangs) = five_that_wait(&mut scene);
    scene.request(hangs, Request::Kill);
    scene.act(Act::Shutdown);
    for _ in 0..10 {
        scene.wait(Duration::from_millis(1));
        assert_eq!(scene.spawns(), 0);
    }
    assert_eq!(scene.states(five), [StateName::Stopped; 5]);
}

#[test]
fn a_spawn_that_was_withdrawn_does_not_wake_the_host() {
    let mut scene = Scene::in_flight(1);
    let (five, hangs) = five_that_wait(&mut scene);
    scene.ask_and_serve_all(five, Request::Stop);
    scene.request(hangs, Request::Kill);
    scene.handle_all();
    scene.act(Act::Drain(usize::MAX));
    assert_eq!(scene.states(five), [StateName::Stopped; 5]);
    assert_eq!(scene.host.world.borrow().armed, None);
}

#[test]
fn a_program_that_is_executed_during_a_long_call_has_its_whole_grace() {
    let mut scene = Scene::in_flight(1);
    let mut spec = draft(1);
    spec.policy.startup = Startup::Grace(SECOND);
    let group = scene.add(&spec);
    scene.executes(Duration::from_micros(101), None);
    scene.request(group, Request::Start);
    scene.set_faults(|faults| faults.call_takes_long = 1);
    while scene.state(group, 0) == StateName::Starting {
        // The oracles check the time.
        scene.wait(Duration::from_micros(100));
        scene.act(Act::Pass(
            scene.host.driver.deadlines.earliest().unwrap_or(Instant::ZERO),
        ));
    }
    assert_eq!(scene.state(group, 0), StateName::Running);
}

#[test]
fn a_process_that_hangs_in_flight_is_stopped_within_its_ladder() {
    let mut scene = Scene::in_flight(1);
    let group = scene.add(&draft(1));
    scene.executes(HANGS, None);
    scene.request(group, Request::Start);
    scene.act(Act::Shutdown);
    // The signals of the rungs are blocked.
    scene.wait(SECOND * 9);
    assert_eq!(scene.states(group), [StateName::Stopping]);
    scene.wait(SECOND * 2);
    assert_eq!(scene.states(group), [StateName::Stopped]);
}

#[test]
fn a_grace_that_replaces_a_timeout_begins_with_the_execution() {
    let half = Duration::from_millis(500);
    let mut scene = Scene::in_flight(1);
    let mut spec = draft(1);
    spec.policy.startup = Startup::Notify { timeout: SECOND };
    let group = scene.add(&spec);
    scene.executes(half, None);
    scene.request(group, Request::Start);
    scene.wait(half);
    spec.policy.startup = Startup::Grace(SECOND);
    scene.reload(group, &spec);
    scene.wait(half);
    assert_eq!(scene.states(group), [StateName::Starting]);
    scene.wait(SECOND);
    assert_eq!(scene.states(group), [StateName::Running]);
}

#[test]
fn a_restart_that_is_due_at_once_begins_after_the_starts_that_wait() {
    let mut scene = Scene::in_flight(1);
    let (five, hangs) = five_that_wait(&mut scene);
    let mut at_once = Draft {
        name: "mail",
        ..draft(1)
    };
    at_once.policy.backoff = Delay::NONE;
    at_once.policy.start_retries = u32::MAX;
    scene.reload(hangs, &at_once);
    let mut begun = Vec::new();
    for _ in 0..5 {
        let in_flight = scene.host.world.borrow().processes[0].serial;
        scene.executes(HANGS, None);
        // The first one is that of the other group, which is due again at once.
        scene.act(Act::Outside {
            serial: in_flight,
            signal: Signal::KILL,
        });
        scene.handle_all();
        begun.push(scene.host.world.borrow().processes[0].owner);
    }
    let waited: Vec<u32> = (0..5).map(|number| scene.id(five, number).index()).collect();
    assert_eq!(begun, waited);
}

#[test]
fn a_hand_over_keeps_a_stop_whose_process_has_given_up_its_number() {
    let mut scene = Scene::new();
    scene.host.world.borrow_mut().keeps_zombies = false;
    let mut trees = draft(2);
    trees.recipe.cgroup = Some(0);
    trees.recipe.leads = true;
    trees.policy.stop = StopLadder::signal(Signal::TERM, Scope::Cgroup, SECOND * 10);
    let group = scene.add(&trees);
    let id = scene.id(group, 0);
    scene.ask_and_serve_all(id, Request::Start);
    scene.has_a_child_that_ignores_signals(group, 0);
    {
        // The child is in the cgroup and has left the process group, so nothing keeps the number.
        let mut world = scene.host.world.borrow_mut();
        world.processes[0].others[0].in_group = false;
    }
    scene.request(id, Request::Stop);
    scene.wait(SECOND);
    scene.ask_and_serve_all(scene.id(group, 1), Request::Start);
    let pid = |number| {
        let instance = scene.host.driver.instances.get(scene.id(group, number));
        instance.unwrap().process
    };
    assert_eq!(pid(0), pid(1));
    scene.act(Act::Reexec(None));
    let group = scene.host.model.groups[0].id;
    assert_eq!(scene.states(group), [StateName::Stopping, StateName::Running]);
}

#[test]
fn a_group_that_grows_by_a_hand_over_in_a_rolling_restart_is_complete_after_it() {
    let mut scene = Scene::new();
    let group = scene.add(&draft(2));
    scene.ask_and_serve_all(group, Request::Start);
    scene.act(Act::Roll(group, Rolling::default()));
    assert!(scene.host.model.groups[0].after_roll.is_some());
    scene.act(Act::Reexec(Some(Redescribed::Resized(group, 4))));
    scene.handle_all();
    scene.wait(SECOND);
    let group = scene.host.model.groups[0].id;
    assert_eq!(scene.states(group), [StateName::Running; 4]);
}
