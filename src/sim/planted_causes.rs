//! Planted faults of the causes of stops, which the comparison with the model's reasons must report.

use super::act::Act;
use super::chance::Chance;
use super::host::Host;
use super::planted_faults::{is_noticed_besides_comparisons, is_noticed_from_the_start};
use super::recipe::Draft;
use super::regressions::{Scene, draft};
use crate::engine::request::Request;
use crate::lifecycle::Cause;

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
