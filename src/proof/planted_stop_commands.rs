//! The planted faults about stop commands; see [`planted_faults`](super::planted_faults).

use std::time::Duration;

use super::host::{Host, Snapshot, all_snapshots, snapshots};
use super::planted_faults::{is_noticed, is_noticed_in_an_image};
use crate::engine::ids::InstanceId;
use crate::engine::image::Image;
use crate::lifecycle::{State, Stopping};
use crate::time::Instant;

/// Changes the stop of the first instance for which this holds.
fn in_a_stop(host: &mut Host, holds: impl Fn(&Stopping) -> bool, change: impl Fn(&mut Stopping)) -> Option<InstanceId> {
    let is_it = |now: &Snapshot| matches!(&now.state, State::Stopping(stopping) if holds(stopping));
    let id = snapshots(&host.driver).find(is_it)?.id;
    let instance = host.driver.instances.get_mut(id)?;
    if let State::Stopping(stopping) = instance.life.state_mut() {
        change(stopping);
    }
    match instance.life.deadline() {
        Some(at) => host.driver.deadlines.set(id.index(), at),
        None => host.driver.deadlines.clear(id.index()),
    }
    Some(id)
}

#[test]
fn that_a_ladder_does_not_go_on_after_its_command() {
    let wait = |host: &mut Host| {
        let is_over = |stopping: &Stopping| !stopping.has_command && stopping.rung != Stopping::SIGKILL;
        let again = |stopping: &mut Stopping| (stopping.has_command, stopping.until) = (true, Instant::NEVER);
        in_a_stop(host, is_over, again);
    };
    is_noticed(wait, "its command is Stopped|it has no command, and waits for one");
}

#[test]
fn that_a_command_runs_which_nothing_waits_for() {
    let forget = |host: &mut Host| {
        in_a_stop(
            host,
            |stopping| stopping.has_command,
            |stopping| stopping.has_command = false,
        );
    };
    is_noticed(forget, "its command is");
}

#[test]
fn that_the_limit_of_a_stop_command_is_put_off() {
    let put_off = |host: &mut Host| {
        let runs = |now: &&Snapshot| {
            host.driver.is_stop_command(now.id) && matches!(now.state, State::Starting { pid: Some(_), .. })
        };
        let all: Vec<_> = all_snapshots(&host.driver).collect();
        let Some(id) = all.iter().find(runs).map(|now| now.id) else {
            return;
        };
        let Some(instance) = host.driver.instances.get_mut(id) else {
            return;
        };
        if let State::Starting { until, .. } = instance.life.state_mut() {
            *until = until.saturating_add(Duration::from_secs(1));
            let at = *until;
            host.driver.deadlines.set(id.index(), at);
        }
    };
    is_noticed(put_off, "its stop command may run until");
}

#[test]
fn that_a_second_command_runs_beside_the_first_one() {
    let forget = |host: &mut Host| {
        let ends = |stopping: &mut Stopping| (stopping.has_command, stopping.until) = (false, Instant::ZERO);
        let id = in_a_stop(host, |stopping| stopping.has_command, ends);
        if let Some(instance) = id.and_then(|id| host.driver.instances.get_mut(id)) {
            instance.extra_mut().stopper = None;
        }
    };
    is_noticed(
        forget,
        "a second command runs beside|its command is Starting|the image is not restored: Damaged",
    );
}

#[test]
fn that_a_ladder_does_not_wait_after_a_command_that_succeeded() {
    let hurry = |host: &mut Host| {
        let world = host.world.borrow().now;
        let waits =
            |stopping: &Stopping| !stopping.has_command && stopping.rung != Stopping::SIGKILL && stopping.until > world;
        in_a_stop(host, waits, |stopping| stopping.until = stopping.since);
    };
    is_noticed(hurry, "before its wait is over|is due at|the timer is armed for");
}

#[test]
fn that_an_image_forgets_what_a_command_is_for() {
    let forget = |image: &mut Image| {
        let instances = image.instances.iter_mut().filter_map(|place| place.value.as_mut());
        for of in instances.filter_map(|instance| instance.stop_of.as_mut()) {
            of.limit = Duration::from_nanos(1);
        }
    };
    is_noticed_in_an_image(forget, false, "the image of the next engine differs");
}
