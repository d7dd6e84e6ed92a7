//! Scenarios of starts that wait for other groups, and of what withdraws them.

use std::time::Duration;

use super::act::Act;
use super::crash::{Crash, When};
use super::recipe::Draft;
use super::reexec::Redescribed;
use super::regressions::{Scene, draft};
use crate::engine::ids::GroupId;
use crate::engine::request::Request;
use crate::lifecycle::{Input, Startup, StateName};

const SECOND: Duration = Duration::from_secs(1);

fn named(name: &'static str) -> Draft {
    Draft { name, ..draft(1) }
}

fn requiring(name: &'static str, group: GroupId) -> Draft {
    Draft {
        requires: vec![group],
        ..named(name)
    }
}

/// Whether the start of the first instance of a group waits.
fn waits(scene: &Scene, group: GroupId) -> bool {
    let instance = scene.host.driver.instances.get(scene.id(group, 0)).unwrap();
    instance.pending.is_some()
}

fn crash(inside: Option<(Act, When)>) -> Act {
    Act::Crash(Box::new(Crash {
        inside,
        gap: Duration::ZERO,
        killed: false,
        change: None,
    }))
}

/// The group with this name. A host that was killed or replaced had other ids.
fn found(scene: &Scene, name: &str) -> GroupId {
    let mut groups = scene.host.model.groups.iter();
    groups.find(|group| group.name == name).unwrap().id
}

/// A group that was left out of a hand-over goes down. Another one requires it, and its start waits. Returns what there
/// is to handle for the end of the first group.
fn one_that_waits_for_a_group_that_leaves(scene: &mut Scene) -> Act {
    scene.host.world.borrow_mut().file.is_kept = true;
    let base = scene.add(&named("web"));
    scene.add(&requiring("mail", base));
    scene.request(base, Request::Start);
    scene.act(Act::Reexec(Some(Redescribed::LeftOut(base))));
    let group = found(scene, "mail");
    scene.request(group, Request::Start);
    assert!(waits(scene, group));
    scene.pass(SECOND);
    let serial = scene.host.world.borrow().processes[0].serial;
    Act::Ready { serial }
}

#[test]
fn a_start_that_waits_is_withdrawn_when_the_last_instance_of_a_group_that_leaves_is_gone() {
    let mut scene = Scene::new();
    let end = one_that_waits_for_a_group_that_leaves(&mut scene);
    scene.act(end);
    let group = found(&scene, "mail");
    assert_eq!(scene.host.model.groups.len(), 1);
    assert!(!waits(&scene, group));
    assert_eq!(scene.state(group, 0), StateName::Stopped);
}

#[test]
fn no_start_is_made_without_a_required_group_whenever_the_host_is_killed_while_that_group_goes() {
    let mut gone = 0;
    for calls in 0..30 {
        let mut scene = Scene::new();
        let end = one_that_waits_for_a_group_that_leaves(&mut scene);
        scene.act(crash(Some((end, When::After(calls)))));
        scene.wait(SECOND);
        let is_gone = scene.host.model.groups.len() == 1;
        gone += u32::from(is_gone);
        let group = found(&scene, "mail");
        assert_eq!(scene.state(group, 0), StateName::Stopped, "{calls} calls");
        assert_eq!(waits(&scene, group), !is_gone, "{calls} calls");
    }
    assert!(gone > 1);
}

#[test]
fn a_start_waits_for_a_group_that_was_stopped_before_anything_required_it() {
    let mut scene = Scene::new();
    // An order between others is enough to make the stop be noted.
    let mut slow = named("index");
    slow.policy.startup = Startup::Notify { timeout: SECOND * 9 };
    let slow = scene.add(&slow);
    let mut follows = named("mail");
    follows.after = vec![slow];
    let group = scene.add(&follows);
    let base = scene.add(&named("web"));
    scene.request(base, Request::Start);
    scene.request(base, Request::Stop);
    scene.wait(SECOND);
    assert_eq!(scene.state(base, 0), StateName::Stopped);
    scene.request(slow, Request::Start);
    scene.request(group, Request::Start);
    assert!(waits(&scene, group));
    follows.requires = vec![base];
    scene.reload(group, &follows);
    scene.act(Act::Report(scene.id(slow, 0), Input::Ready));
    assert!(waits(&scene, group));
    scene.request(base, Request::Start);
    scene.wait(SECOND);
    assert_eq!(scene.state(group, 0), StateName::Running);
}
