//! Planted faults of what is remembered: the causes of stops, and the crashes.

use std::time::Duration;

use super::act::Act;
use super::chance::Chance;
use super::host::{Host, serial_of};
use super::planted_faults::{is_noticed_besides_comparisons, is_noticed_from_the_start};
use super::recipe::Draft;
use super::regressions::{Scene, draft};
use super::stream;
use crate::engine::request::Request;
use crate::lifecycle::{Cause, CrashBudget, Restart, Strategy};
use crate::signal::Signal;

/// Gives the stops that wait another reason: those that wait for `from`.
fn change_reasons(host: &mut Host, from: Option<Cause>, to: Option<Cause>) {
    for instance in host.driver.instances.values_mut() {
        if instance.pending == Some(Request::Stop) && instance.because == from {
            instance.set_because(to);
        }
    }
}

#[test]
fn that_a_stop_because_of_a_sibling_counts_as_requested() {
    let meddle = |host: &mut Host| change_reasons(host, Some(Cause::SiblingEnded), None);
    is_noticed_from_the_start(meddle, "the cause of a stop is wrong");
}

#[test]
fn that_a_requested_stop_has_another_reason() {
    for to in [Cause::SiblingEnded, Cause::RequirementStopped] {
        let meddle = |host: &mut Host| change_reasons(host, None, Some(to));
        let as_what = "the cause of a stop is wrong|the cause of a start that is withdrawn is wrong";
        is_noticed_besides_comparisons(meddle, as_what);
    }
}

#[test]
fn that_a_stop_because_of_a_required_group_counts_as_requested() {
    // Random episodes hardly ever have more of these stops than one call serves.
    let report = |is_planted: bool| {
        let mut scene = Scene::new();
        let base = scene.add(&draft(1));
        let group = scene.add(&Draft {
            name: "mail",
            requires: vec![base],
            ..draft(6)
        });
        for id in [base, group] {
            scene.request(id, Request::Start);
            scene.handle_all();
        }
        scene.request(base, Request::Stop);
        if is_planted {
            change_reasons(&mut scene.host, Some(Cause::RequirementStopped), None);
        }
        scene.host.step(Act::Dispatch, Chance::new(1))
    };
    assert_eq!(report(false), Ok(()));
    let broken = report(true).unwrap_err();
    assert!(broken.contains("the cause of a stop is wrong"), "{broken}");
}

#[test]
fn that_a_stable_run_that_ends_with_its_siblings_does_not_forget_the_crashes() {
    let second = Duration::from_secs(1);
    let report = |is_shared: bool, is_planted: bool| {
        let mut scene = Scene::new();
        let mut pair = draft(2);
        pair.policy.restart = Restart::Always;
        pair.policy.strategy = Strategy::OneForAll;
        pair.policy.stable_after = second * 60;
        let budget = |max| Some(CrashBudget::new(max, second * 3_600));
        pair.policy.crash_budget = budget(1).filter(|_| !is_shared);
        pair.policy.shared_budget = budget(2).filter(|_| is_shared);
        let group = scene.add(&pair);
        scene.request(group, Request::Start);
        scene.handle_all();
        if is_planted {
            for group in scene.host.driver.groups.values_mut() {
                group.policy.stable_after = Duration::MAX;
            }
        }
        for (number, ran_for) in [(0, second), (1, second * 60), (0, second)] {
            scene.wait(ran_for);
            let serial = serial_of(&scene.host.driver, scene.id(group, number)).unwrap();
            let signal = Signal::KILL;
            scene.act(Act::Outside { serial, signal });
            scene.handle_all();
            scene.wait(second);
        }
        stream::drain(&mut scene.host, 1_000)
    };
    for is_shared in [false, true] {
        assert_eq!(report(is_shared, false), Ok(()));
        let broken = report(is_shared, true).unwrap_err();
        assert!(
            broken.contains("it is given up, and remembers only these crashes"),
            "{broken}"
        );
    }
}
