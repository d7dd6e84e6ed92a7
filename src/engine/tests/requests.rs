//! Requests that wait, and the ones that follow them.

use super::{SECOND, TestEngine, end, end_unnoticed, engine, events, instance, member, pass, spec, started, state};
use crate::engine::event::Event;
use crate::engine::ids::{InstanceId, Target};
use crate::engine::request::{Outcome, Request};
use crate::exit::Exit;
use crate::group::Rolling;
use crate::lifecycle::StateName;

/// The number of times that a start was reported to wait.
fn waits(engine: &mut TestEngine) -> usize {
    events(engine)
        .filter(|event| matches!(event, Event::StartWaits { .. }))
        .count()
}

/// An engine with a running instance that requires another one, which is returned first.
fn required() -> (TestEngine, InstanceId, InstanceId) {
    let mut engine = engine();
    let database = started(&mut engine, spec("database"));
    let web = started(&mut engine, spec("web").requires("database"));
    let ids = [database, web].map(|group| member(&engine, group, 0));
    (engine, ids[0], ids[1])
}

/// The host ends an instance at once, without those that require it.
fn kill(engine: &mut TestEngine, id: InstanceId) {
    engine.request(Target::Instance(id), Request::Kill).unwrap();
    end(engine, id, Exit::Code(0));
    assert_eq!(state(engine, id), StateName::Stopped);
}

#[test]
fn a_repeated_request_has_one_place_in_the_queue_at_most() {
    let (mut engine, database, web) = required();
    let other = engine.add(spec("other")).unwrap();
    for id in [web, database] {
        kill(&mut engine, id);
    }
    engine.settle(None).unwrap();
    for _ in 0..3 {
        engine.request(Target::Instance(web), Request::Start).unwrap();
        assert!(instance(&engine, web).awaits_order);
        assert_eq!(engine.waiting, [], "it waits for another group");
    }
    engine.kernel.is_saturated = true;
    for _ in 0..3 {
        engine.request(other.into(), Request::Start).unwrap();
        assert_eq!(engine.waiting, [member(&engine, other, 0)]);
    }
    assert_eq!(engine.pending, 2);
}

/// Nothing that happens to the other group would serve it.
#[test]
fn a_start_in_place_of_a_stop_that_waits_for_another_group_is_served() {
    let mut engine = engine();
    let web = started(&mut engine, spec("web"));
    let front = started(&mut engine, spec("front").after("web"));
    let id = member(&engine, web, 0);
    engine.request(front.into(), Request::Stop).unwrap();
    engine.request(web.into(), Request::Stop).unwrap();
    assert!(instance(&engine, id).awaits_order);
    engine.request(web.into(), Request::Start).unwrap();
    assert_eq!(instance(&engine, id).pending, Some(Request::Restart));
    pass(&mut engine, SECOND);
    assert_eq!(state(&engine, id), StateName::Stopping);
    end(&mut engine, id, Exit::Code(0));
    assert_eq!(state(&engine, id), StateName::Running);
}

#[test]
fn a_start_is_reported_to_wait_once() {
    let (mut engine, database, web) = required();
    kill(&mut engine, database);
    engine.request(Target::Instance(web), Request::Stop).unwrap();
    engine.settle(None).unwrap();
    // Its process has not ended, so there is news of it while its start waits.
    engine.request(Target::Instance(web), Request::Start).unwrap();
    for _ in 0..2 {
        engine.process_ready(web).unwrap();
        engine.settle(None).unwrap();
    }
    assert_eq!(state(&engine, web), StateName::Stopping);
    assert!(instance(&engine, web).awaits_order);
    assert_eq!(waits(&mut engine), 1);
}

#[test]
fn a_start_that_has_to_wait_for_another_group_when_its_turn_comes_leaves_the_queue() {
    let (mut engine, database, web) = required();
    kill(&mut engine, web);
    engine.kernel.is_saturated = true;
    engine.request(Target::Instance(web), Request::Start).unwrap();
    assert_eq!(engine.waiting, [web]);
    kill(&mut engine, database);
    engine.kernel.is_saturated = false;
    assert!(!engine.serve_next());
    assert!(instance(&engine, web).awaits_order);
    assert_eq!(engine.waiting, []);
    assert_eq!(waits(&mut engine), 1);
}

#[test]
fn a_start_during_a_stop_is_remembered_even_if_the_process_has_ended_since() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web"));
    let id = member(&engine, group, 0);
    engine.request(group.into(), Request::Stop).unwrap();
    engine.kernel.has_ended = true;
    end_unnoticed(&mut engine, id, Exit::Code(0));
    engine.kernel.spawned.clear();
    let outcome = engine.request(group.into(), Request::Start).unwrap();
    assert_eq!((outcome.queued, outcome.total()), (1, 1));
    assert_eq!(state(&engine, id), StateName::Stopping);
    engine.process_ready(id).unwrap();
    assert_eq!(engine.kernel.spawned.len(), 1);
}

#[test]
fn the_outcome_of_a_rolling_restart_counts_what_is_up() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").instances(3));
    let stopped = member(&engine, group, 1);
    kill(&mut engine, stopped);
    let expected = Outcome {
        queued: 2,
        ..Outcome::default()
    };
    assert_eq!(engine.roll(group, Rolling::new()).unwrap(), expected);
}
