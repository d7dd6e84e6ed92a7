//! Siblings that are told of an end in several turns, and ends that concern no sibling.

use std::time::Duration;

use super::kernel::TestKernel;
use super::{SECOND, TestEngine, end, end_unnoticed, engine, instance, member, pass, policy, spec, started, state};
use crate::engine::event::Event;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::kernel::Kernel;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::group::Rolling;
use crate::lifecycle::{AutoShutdown, Joint, Policy, Restart, Startup, StateName, Strategy};

/// So many instances that those of the last numbers are not told in two turns.
const MANY: u32 = 2 * TestKernel::SLICE + 20;

/// A group that runs, and its instances by their numbers.
fn many(engine: &mut TestEngine, name: &str, instances: u32) -> (GroupId, Vec<InstanceId>) {
    let group = spec(name).instances(instances).strategy(Strategy::OneForAll);
    let group = started(engine, group);
    // Each serves a slice of the starts.
    (0..4).for_each(|_| pass(engine, SECOND));
    let members = (0..instances).map(|number| member(engine, group, number)).collect();
    (group, members)
}

fn count(engine: &TestEngine, members: &[InstanceId], in_state: StateName) -> usize {
    members.iter().filter(|&&id| state(engine, id) == in_state).count()
}

/// What is being stopped ends, and time passes, until all of these are running.
fn run_until_all_are_up(engine: &mut TestEngine, members: &[InstanceId]) {
    for _ in 0..20 {
        for &id in members {
            if state(engine, id) == StateName::Stopping {
                end(engine, id, Exit::Code(0));
            }
        }
        pass(engine, SECOND);
        if count(engine, members, StateName::Running) == members.len() {
            return;
        }
    }
    let states: Vec<_> = members.iter().map(|&id| state(engine, id)).collect();
    panic!("they are not started again: {states:?}");
}

#[test]
fn a_request_for_the_ended_one_comes_after_all_siblings_are_told() {
    for request in [Request::Start, Request::Restart, Request::Stop, Request::Kill] {
        let mut engine = engine();
        let (_, members) = many(&mut engine, "x", MANY);
        end(&mut engine, members[0], Exit::Code(1));
        let untold = (MANY - TestKernel::SLICE - 1) as usize;
        assert_eq!(count(&engine, &members, StateName::Running), untold);
        assert_eq!(instance(&engine, members[0]).life.joint(), Joint::Tells);
        engine.request(Target::Instance(members[0]), request).unwrap();
        assert_eq!(count(&engine, &members[1..], StateName::Running), 0, "{request:?}");
        assert!(engine.telling.is_empty());
    }
}

#[test]
fn a_sibling_that_ends_before_it_is_told_tells_the_others_too() {
    let mut engine = engine();
    let (_, members) = many(&mut engine, "x", MANY);
    end(&mut engine, members[0], Exit::Code(1));
    let untold = members[members.len() - 2];
    assert_eq!(state(&engine, untold), StateName::Running);
    end(&mut engine, untold, Exit::Code(1));
    assert_eq!(engine.telling.len(), 2);
    run_until_all_are_up(&mut engine, &members);
    assert!(engine.spawns.is_empty() && engine.telling.is_empty());
}

#[test]
fn siblings_that_are_still_to_be_told_hold_up_no_other_group() {
    let mut engine = engine();
    let (_, few) = many(&mut engine, "few", 2);
    let (_, members) = many(&mut engine, "many", MANY);
    end(&mut engine, few[0], Exit::Code(1));
    end(&mut engine, few[1], Exit::Code(0));
    engine.kernel.now = engine.kernel.now.saturating_add(SECOND * 2);
    engine.wake();
    end(&mut engine, members[0], Exit::Code(1));
    assert_eq!(engine.telling.len(), 1);
    engine.run_due();
    assert_eq!(count(&engine, &few, StateName::Running), 2);
}

#[test]
fn a_sibling_of_which_the_host_wants_another_thing_is_not_told() {
    let mut engine = engine();
    let (_, members) = many(&mut engine, "database", 2);
    let web = started(&mut engine, spec("web").after("database"));
    pass(&mut engine, SECOND * 2);
    let web = member(&engine, web, 0);
    engine.request(Target::Instance(web), Request::Stop).unwrap();
    engine.request(Target::Instance(members[1]), Request::Stop).unwrap();
    assert_eq!(instance(&engine, members[1]).pending, Some(Request::Stop));
    end(&mut engine, members[0], Exit::Code(1));
    engine.settle(None).unwrap();
    // It waits for the end of the other group, as it did.
    assert_eq!(state(&engine, members[1]), StateName::Running);
    end(&mut engine, web, Exit::Code(0));
    (0..2).for_each(|_| pass(&mut engine, Duration::ZERO));
    assert_eq!(state(&engine, members[1]), StateName::Stopping);
}

#[test]
fn the_end_of_an_additional_instance_is_not_that_of_the_group() {
    let mut engine = engine();
    let policy = Policy {
        restart: Restart::Never,
        auto_shutdown: AutoShutdown::AnyEnd,
        ..policy()
    };
    let group = started(&mut engine, spec("web").policy(policy));
    pass(&mut engine, SECOND * 2);
    let stops = |engine: &mut TestEngine| {
        let mut events = std::iter::from_fn(|| engine.events.fetch().0);
        events.any(|event| matches!(event, Event::GroupStops { .. }))
    };
    engine.roll(group, Rolling::new().surge(1)).unwrap();
    pass(&mut engine, Duration::ZERO);
    let (old, additional) = (member(&engine, group, 0), member(&engine, group, 1));
    assert_eq!(state(&engine, old), StateName::Stopping);
    end(&mut engine, additional, Exit::Code(0));
    assert_eq!(state(&engine, additional), StateName::Exited);
    engine.settle(None).unwrap();
    assert!(!stops(&mut engine));
    end(&mut engine, old, Exit::Code(0));
    pass(&mut engine, SECOND);
    assert_eq!(state(&engine, old), StateName::Running);
    end(&mut engine, old, Exit::Code(0));
    engine.settle(None).unwrap();
    assert!(stops(&mut engine));
}

/// The end is found by a request that comes before it, and with it the rolling restart is over, so the instance leaves.
#[test]
fn siblings_are_started_together_although_the_ended_one_has_left_meanwhile() {
    let mut engine = engine();
    let number = TestKernel::SLICE + 2;
    let policy = Policy {
        startup: Startup::Grace(SECOND),
        restart: Restart::Always,
        strategy: Strategy::OneForAll,
        ..policy()
    };
    let group = started(&mut engine, spec("x").policy(policy).instances(number));
    (0..4).for_each(|_| pass(&mut engine, SECOND));
    engine
        .roll(group, Rolling::new().surge(1).max_unavailable(number))
        .unwrap();
    (0..4).for_each(|_| pass(&mut engine, SECOND));
    let members: Vec<_> = (0..number).map(|place| member(&engine, group, place)).collect();
    // Their spawns wait, so that nothing has to end before they are started together.
    engine.kernel.is_saturated = true;
    for &id in &members {
        assert_eq!(state(&engine, id), StateName::Stopping);
        end(&mut engine, id, Exit::Code(0));
    }
    let additional = member(&engine, group, number);
    assert_eq!(state(&engine, additional), StateName::Running);
    assert_eq!(count(&engine, &members, StateName::Starting), members.len());

    engine.kernel.has_ended = true;
    end_unnoticed(&mut engine, additional, Exit::Code(1));
    engine.request(Target::Instance(additional), Request::Start).unwrap();
    assert!(
        engine.instances.get(additional).is_none(),
        "the rolling restart is over"
    );
    (engine.kernel.has_ended, engine.kernel.is_saturated) = (false, false);
    run_until_all_are_up(&mut engine, &members);
}
