//! The places that are allocated before instances are started.

use super::{engine, instance, member, spec, started};
use crate::engine::ids::Target;
use crate::engine::request::Request;

#[test]
fn all_that_a_request_starts_get_their_places_at_once_and_later_starts_need_none() {
    let mut engine = engine();
    let web = started(&mut engine, spec("web").instances(3));
    assert_eq!(engine.kernel.reserved.first(), Some(&3));
    engine.kernel.reserved.clear();
    engine.request(Target::Group(web), Request::Restart).unwrap();
    assert_eq!(engine.kernel.reserved, []);
    started(&mut engine, spec("other").instances(2));
    assert_eq!(engine.kernel.reserved.first(), Some(&5));
    engine.kernel.reserved.clear();
    // Those that have places keep them.
    let third = engine.add(spec("third").instances(2)).unwrap();
    let first = member(&engine, third, 0);
    engine.request(Target::Instance(first), Request::Start).unwrap();
    engine.kernel.reserved.clear();
    engine.request(Target::Group(third), Request::Start).unwrap();
    assert_eq!(engine.kernel.reserved.first(), Some(&7));
}

#[test]
fn instances_have_their_places_in_the_queues_before_they_are_started() {
    let mut engine = engine();
    engine.add(spec("web").instances(40)).unwrap();
    assert!(engine.waiting.capacity() >= 40);
    assert_eq!(engine.kernel.reserved, []);
}

#[test]
fn an_image_brings_the_places_of_what_was_started_or_is_to_be() {
    let mut before = engine();
    started(&mut before, spec("runs").instances(2));
    before.kernel.is_saturated = true;
    started(&mut before, spec("waits").instances(3));
    let image = before.image();
    let waiting = before
        .ids()
        .filter(|&id| instance(&before, id).pending.is_some())
        .count();
    assert_eq!(waiting, 3, "no start was served");
    before.add(spec("never").instances(4)).unwrap();
    let mut after = engine();
    after.restore_left(&before.image(), Vec::new()).unwrap();
    assert_eq!(after.kernel.reserved.first(), Some(&5));
    assert_eq!((after.roomy, image.instances.len()), (5, 5));
}
