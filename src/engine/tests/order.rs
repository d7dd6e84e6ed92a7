//! The order of groups that change while others wait.

use super::{SECOND, end, engine, instance, member, once, spec, started, state, withdrawn};
use crate::engine::error::Error;
use crate::engine::ids::Target;
use crate::engine::kernel::Collected;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::group::Rolling;
use crate::lifecycle::{Cause, StateName};

#[test]
fn a_group_that_leaves_an_order_leaves_the_others_in_it() {
    let mut engine = engine();
    let database = engine.add(spec("database")).unwrap();
    let reloaded = engine.add(spec("reloaded").after("database")).unwrap();
    let removed = engine.add(spec("removed").after("database")).unwrap();
    let web = engine.add(spec("web").requires("database")).unwrap();
    let is_required = |result: &Result<_, Error>| matches!(result, Err(Error::Required { by, .. }) if *by == web);
    engine.reload(reloaded, spec("reloaded")).unwrap();
    assert!(is_required(&engine.remove(database)));
    engine.remove(removed).unwrap();
    assert!(is_required(&engine.remove(database)));
    engine.remove(web).unwrap();
    engine.remove(database).unwrap();
}

/// Both ends are handled in one turn: that of the instance that the start requires, and that of a group that leaves,
/// which changes the order.
#[test]
fn a_start_loses_what_it_requires_although_the_order_changes_in_the_same_turn() {
    let mut engine = engine();
    let leaving = started(&mut engine, spec("leaving").grace(SECOND));
    let database = started(&mut engine, spec("database").grace(SECOND));
    let web = started(&mut engine, spec("web").requires("database"));
    let (leaving_member, required) = (member(&engine, leaving, 0), member(&engine, database, 0));
    let waiting = member(&engine, web, 0);
    assert!(instance(&engine, waiting).awaits_order);
    engine.remove(leaving).unwrap();
    engine.request(Target::Instance(required), Request::Stop).unwrap();
    engine.settle(None).unwrap();
    assert!(instance(&engine, waiting).awaits_order);

    end(&mut engine, required, Exit::Code(0));
    end(&mut engine, leaving_member, Exit::Code(0));
    engine.settle(None).unwrap();
    assert_eq!(state(&engine, required), StateName::Stopped);
    assert_eq!(instance(&engine, waiting).pending, None);
    assert_eq!(withdrawn(&mut engine), [(waiting, Cause::RequirementStopped)]);
}

/// A requirement that is running or going down is not stopped yet, even if it does not stay.
#[test]
fn only_a_stop_withdraws_the_starts_that_wait() {
    let mut engine = engine();
    let database = engine.add(spec("database")).unwrap();
    let web = started(&mut engine, spec("web").requires("database"));
    let waiting = member(&engine, web, 0);
    engine.kernel.is_slow = true;
    // None of it is up, so the restart is over when its additional instance is running.
    engine.roll(database, Rolling::new().surge(1)).unwrap();
    let additional = member(&engine, database, 1);
    engine.kernel.found.push_back(Collected::Executed { ended: false });
    engine.process_ready(additional).unwrap();
    engine.settle(None).unwrap();
    assert_eq!(state(&engine, additional), StateName::Stopping);
    assert!(instance(&engine, waiting).awaits_order);
    assert_eq!(withdrawn(&mut engine), []);
}

#[test]
fn only_starts_that_wait_in_order_are_withdrawn_with_what_they_require() {
    let mut engine = engine();
    let database = started(&mut engine, spec("database").policy(once()));
    let web = started(&mut engine, spec("web").requires("database").instances(2));
    let front = started(&mut engine, spec("front").after("web"));
    let [restarted, stopped] = [0, 1].map(|number| member(&engine, web, number));
    engine.kernel.is_saturated = true;
    engine.request(Target::Instance(restarted), Request::Restart).unwrap();
    engine.request(front.into(), Request::Stop).unwrap();
    engine.request(Target::Instance(stopped), Request::Stop).unwrap();
    let pending = |engine: &super::TestEngine| {
        [restarted, stopped].map(|id| {
            let instance = instance(engine, id);
            (instance.pending, instance.awaits_order)
        })
    };
    let expected = [(Some(Request::Restart), false), (Some(Request::Stop), true)];
    assert_eq!(pending(&engine), expected);
    let required = member(&engine, database, 0);
    end(&mut engine, required, Exit::Code(1));
    engine.settle(None).unwrap();
    assert_eq!(state(&engine, required), StateName::Exited);
    assert_eq!(pending(&engine), expected);
    assert_eq!(withdrawn(&mut engine), []);
}
