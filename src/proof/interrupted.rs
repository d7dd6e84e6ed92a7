//! Hosts that are killed in the middle of one act, at each of its calls to the kernel in turn. All oracles check what the
//! next host finds, and what it makes of it.

use std::time::Duration;

use super::act::Act;
use super::crash::{Crash, When};
use super::regressions::{Scene, draft};
use crate::engine::ids::{GroupId, Target};
use crate::engine::request::Request;
use crate::lifecycle::{Failure, Input, Scope, StateName, StopLadder};
use crate::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);

/// More calls than any of these acts makes.
const MOST: u32 = 60;

/// Kills the host at each call of an act, and lets the next host look at what is left. `check` follows at once, and
/// `finally` after two minutes.
fn at_every_call(
    prepare: impl Fn(&mut Scene) -> (GroupId, Act),
    check: impl Fn(&mut Scene, GroupId),
    finally: impl Fn(&mut Scene, GroupId),
) {
    for calls in 0..MOST {
        let mut scene = Scene::with_state_file();
        let (group, act) = prepare(&mut scene);
        let was = scene.host.tally.killed_in_mid_step();
        scene.act(Act::Crash(Box::new(Crash {
            inside: Some((act, When::After(calls))),
            gap: Duration::from_millis(1),
            killed: false,
            change: None,
        })));
        let is_over = scene.host.tally.killed_in_mid_step() == was;
        let group = scene
            .host
            .model
            .groups
            .iter()
            .find(|known| known.id.index() == group.index());
        let group = group.map(|group| group.id);
        group.iter().for_each(|&group| check(&mut scene, group));
        for _ in 0..120 {
            scene.wait(SECOND);
        }
        group.iter().for_each(|&group| finally(&mut scene, group));
        if is_over {
            assert!(calls > 0, "the act makes no call");
            return;
        }
    }
    panic!("the act makes more than {MOST} calls");
}

/// Starts a group under this ladder.
fn started(scene: &mut Scene, instances: u32, ladder: StopLadder) -> GroupId {
    let mut spec = draft(instances);
    spec.policy.stop = ladder;
    spec.recipe.leads = true;
    let group = scene.add(&spec);
    scene.ask_and_serve_all(group, Request::Start);
    group
}

fn by_command() -> StopLadder {
    StopLadder::kill(Scope::Process)
        .then_command(0, 60 * SECOND, SECOND)
        .then_command(1, 60 * SECOND, SECOND)
        .then(Signal::TERM, Scope::Process, 10 * SECOND)
}

#[test]
fn instances_with_stop_commands_leave_together_with_these() {
    let prepare = |scene: &mut Scene| {
        let mut spec = draft(4);
        spec.policy.stop = by_command();
        let group = scene.add(&spec);
        (group, Act::Scale(group, 0))
    };
    at_every_call(prepare, |_, _| (), |_, _| ());
}

#[test]
fn a_kill_that_replaces_a_waiting_stop_is_not_forgotten_with_it() {
    let prepare = |scene: &mut Scene| {
        let term = StopLadder::signal(Signal::TERM, Scope::Process, 60 * SECOND);
        let first = started(scene, 1, term.clone());
        let mut second = draft(1);
        second.name = "log";
        second.policy.stop = term;
        second.after = vec![first];
        let second = scene.add(&second);
        scene.ask_and_serve_all(second, Request::Start);
        scene.defies(second, 0);
        scene.ask_and_serve_all(Target::All, Request::Stop);
        assert_eq!(scene.state(first, 0), StateName::Running);
        (first, Act::Request(first.into(), Request::Kill))
    };
    at_every_call(prepare, |_, _| (), |_, _| ());
}

#[test]
fn a_stop_by_a_command_goes_on_after_any_moment() {
    let prepare = |scene: &mut Scene| {
        let group = started(scene, 1, by_command());
        (group, Act::Request(group.into(), Request::Stop))
    };
    at_every_call(
        prepare,
        |_, _| (),
        |scene, group| {
            // Before the stop was recorded, it is lost with the host.
            let expected = usize::from(scene.state(group, 0) == StateName::Stopped);
            assert_eq!(scene.host.commands_begun(0), expected);
        },
    );
}

#[test]
fn the_end_of_a_stop_command_is_told_after_any_moment() {
    let prepare = |scene: &mut Scene| {
        let group = started(scene, 1, by_command());
        scene.defies(group, 0);
        scene.ask_and_serve_all(group, Request::Stop);
        let mut ready = None;
        for _ in 0..100_000 {
            ready = scene.ready_process();
            if ready.is_some() {
                break;
            }
            scene.pass(Duration::from_millis(1));
        }
        let serial = ready.expect("the command ends");
        (group, Act::Ready { serial })
    };
    at_every_call(
        prepare,
        |scene, group| assert_eq!(scene.state(group, 0), StateName::Stopping),
        |scene, group| {
            assert_eq!(scene.state(group, 0), StateName::Stopped);
            assert_eq!([0, 1].map(|rung| scene.host.commands_begun(rung)), [1, 1]);
        },
    );
}

#[test]
fn the_stop_after_a_missed_watchdog_goes_on_with_its_own_ladder() {
    let prepare = |scene: &mut Scene| {
        let mut spec = draft(1);
        spec.policy.stop = StopLadder::signal(Signal::TERM, Scope::Process, 60 * SECOND);
        spec.policy.watchdog_stop = Some(StopLadder::signal(Signal::INT, Scope::Process, 60 * SECOND));
        let group = scene.add(&spec);
        scene.ask_and_serve_all(group, Request::Start);
        scene.defies(group, 0);
        let id = scene.id(group, 0);
        (group, Act::Report(id, Input::Failed(Failure::Watchdog)))
    };
    at_every_call(
        prepare,
        |scene, _| assert!(!scene.sent().contains(&Signal::TERM), "{:?}", scene.sent()),
        |_, _| (),
    );
}
