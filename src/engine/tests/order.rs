//! The order of groups that change while others wait.

use super::{SECOND, end, engine, instance, member, spec, started, state};
use crate::engine::error::Error;
use crate::engine::event::Event;
use crate::engine::ids::Target;
use crate::engine::request::Request;
use crate::exit::Exit;
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
    let events = std::iter::from_fn(|| engine.events.fetch().0);
    let withdrawn = events.filter_map(|event| match event {
        Event::StartWithdrawn { instance, cause, .. } => Some((instance, cause)),
        _ => None,
    });
    assert_eq!(withdrawn.collect::<Vec<_>>(), [(waiting, Cause::RequirementStopped)]);
}
