//! Proof that the oracles can fail: each test plants a fault, and an oracle must report it.
//!
//! The faults are planted from outside, by changing the engine or its world between two steps. A mutation tester plants
//! faults in the engine's own code.

use std::time::Duration;

use super::act::Act;
use super::campaign::{Episode, Meddler};
use super::chance::{Chance, mix};
use super::host::{Host, Snapshot, serial_of, snapshots};
use super::model::Instance;
use super::process::SimProcess;
use super::reexec::Spoiler;
use super::regressions::{Scene, draft};
use super::world::{Planted, Taken};
use super::{oracle, stream};
use crate::engine::event::Event;
use crate::engine::ids::InstanceId;
use crate::engine::image::Image;
use crate::engine::kernel::Kernel;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::group::{Roll, Rolling};
use crate::lifecycle::{
    AutoShutdown, Cause, CrashBudget, Input, Joint, Lifecycle, Policy, Restart, State, StateName, Strategy, Wanted,
};
use crate::signal::Signal;
use crate::time::Instant;

/// The largest number of episodes in which a planted fault may go unnoticed.
const EPISODES: u64 = 1_000;

/// Plants a fault before every fifth step, and expects a report that contains one of these texts.
#[track_caller]
pub(super) fn is_noticed(meddle: impl Fn(&mut Host), as_what: &str) {
    let every_few = |host: &mut Host, step: u64| {
        if step % 5 == 4 {
            meddle(host);
        }
    };
    is_reported(1, &every_few, as_what);
}

/// Runs episodes with seeds made of this one, and expects a report that contains one of these texts.
#[track_caller]
fn is_reported(seed: u64, meddler: Meddler<'_>, as_what: &str) {
    is_reported_besides(seed, meddler, "", as_what);
}

/// What notices every change of a description, whatever the changed setting does: the comparison with the description
/// of the next host, and that with a new description of the same host.
const COMPARISONS: &str = "the image of the next engine differs|another policy|the plan is";

/// Plants a fault before every step, and expects a report of another oracle than the comparison of descriptions.
/// Episodes in which that one is the first to report do not count.
#[track_caller]
pub(super) fn is_noticed_besides_comparisons(meddle: impl Fn(&mut Host), as_what: &str) {
    is_reported_besides(2, &|host: &mut Host, _| meddle(host), COMPARISONS, as_what);
}

fn contains_one(broken: &str, texts: &str) -> bool {
    let mut texts = texts.split('|').filter(|text| !text.is_empty());
    texts.any(|text| broken.contains(text))
}

/// The same, and what is reported as one of the texts of `besides` does not count.
#[track_caller]
fn is_reported_besides(seed: u64, meddler: Meddler<'_>, besides: &str, as_what: &str) {
    for number in 0..EPISODES {
        let episode = Episode {
            seed: mix(seed, number),
            meddler: Some(meddler),
        };
        let Err(failure) = episode.run() else { continue };
        if !contains_one(&failure.broken, besides) {
            let broken = failure.broken;
            assert!(contains_one(&broken, as_what), "expected {as_what:?}: {broken}");
            return;
        }
    }
    panic!("{EPISODES} episodes without a report of the planted fault");
}

/// The first instance in this state.
fn one_in(host: &Host, state: StateName) -> Option<InstanceId> {
    let mut all = snapshots(&host.driver);
    all.find(|now| now.state.name() == state).map(|now| now.id)
}

#[test]
fn that_the_timer_is_not_armed() {
    is_noticed(|host| host.forgets_to_settle ^= true, "the timer is armed for");
}

#[test]
fn that_a_deadline_is_lost() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Backoff) {
            host.driver.deadlines.clear(id.index());
        }
    };
    is_noticed(meddle, "its deadline is");
}

#[test]
fn that_a_deadline_is_left_over() {
    let meddle = |host: &mut Host| host.driver.deadlines.set(1_000, Instant::from_nanos(1 << 60));
    is_noticed(meddle, "1 deadlines are kept, and 0 are meant");
}

#[test]
fn that_another_look_is_forgotten() {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        if let Some(process) = world.processes.iter_mut().find(|process| process.look.is_some()) {
            process.look = Some(Instant::NEVER);
        }
    };
    is_noticed(meddle, "nothing reports that this one has ended");
}

#[test]
fn that_a_request_is_forgotten() {
    let meddle = |host: &mut Host| {
        let waits = snapshots(&host.driver).find(|now| now.pending == Some(Request::Stop));
        if let Some(instance) = waits.and_then(|now| host.driver.instances.get_mut(now.id)) {
            instance.pending = None;
        }
    };
    is_noticed(
        meddle,
        "it is wanted Up, and the host requested Down|it is to leave, nothing keeps it",
    );
}

#[test]
fn that_a_wish_is_made_up() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Stopping) {
            host.driver.apply_input(id, Input::Start);
        }
    };
    is_noticed(
        meddle,
        "it is wanted Up, and the host requested Down|is spawned, and is not wanted",
    );
}

#[test]
fn that_an_end_is_made_up() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Running) {
            host.driver.apply_input(id, Input::Exited(Exit::Code(0)));
        }
    };
    is_noticed(meddle, "was never collected");
}

#[test]
fn that_a_process_is_dropped() {
    let meddle = |host: &mut Host| {
        let running = one_in(host, StateName::Running);
        if let Some(instance) = running.and_then(|id| host.driver.instances.get_mut(id)) {
            instance.process = None;
        }
    };
    is_noticed(meddle, "no process is left");
}

#[test]
fn that_processes_are_exchanged() {
    let meddle = |host: &mut Host| {
        let up: Vec<_> = snapshots(&host.driver).filter(|now| now.serial.is_some()).collect();
        if let [first, second, ..] = &up[..] {
            let mut world = host.world.borrow_mut();
            for process in &mut world.processes {
                process.owner = match process.owner {
                    owner if owner == first.id.index() => second.id.index(),
                    owner if owner == second.id.index() => first.id.index(),
                    other => other,
                };
            }
        }
    };
    is_noticed(meddle, "and the state has");
}

#[test]
fn that_a_process_is_reaped_behind_the_lifecycles_back() {
    let meddle = |host: &mut Host| {
        let dead = host
            .world
            .borrow()
            .processes
            .iter()
            .find(|process| process.is_ready())
            .map(|p| p.owner);
        if let Some(slot) = dead {
            let _seen = host.driver.kernel.collect(slot, false);
        }
    };
    is_noticed(meddle, "its process is Reaped in");
}

#[test]
fn that_a_second_process_is_started_beside_the_first() {
    let meddle = |host: &mut Host| {
        let running = one_in(host, StateName::Running);
        let Some(instance) = running.and_then(|id| host.driver.instances.get_mut(id)) else {
            return;
        };
        let shared = host
            .driver
            .groups
            .get_mut(instance.group)
            .and_then(|group| group.programs.program.as_mut());
        if let (Some(program), Some(id)) = (instance.program.as_mut().or(shared), running) {
            let place = instance.context.clone();
            drop(host.driver.kernel.spawn(id.index(), program, &place));
        }
    };
    is_noticed(meddle, "a second process is spawned for slot");
}

#[test]
fn that_a_group_has_another_size() {
    let meddle = |host: &mut Host| {
        let id = host.driver.groups.ids().next();
        if let Some(group) = id.and_then(|id| host.driver.groups.get_mut(id)) {
            group.roster.set_target(group.roster.target() + 1);
        }
    };
    is_noticed(meddle, "its target is");
}

#[test]
fn that_an_event_is_lost() {
    // The next event does not follow from the last one, or an event is missing when all have been fetched.
    let meddle = |host: &mut Host| drop(host.driver.next_event());
    is_noticed(meddle, "reported");
}

#[test]
fn that_the_supervisor_does_not_stay_closed() {
    let meddle = |host: &mut Host| host.driver.closing = false;
    is_noticed(meddle, "the answer should be Err(ShuttingDown)");
}

#[test]
fn that_a_signal_to_the_host_is_lost() {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        if let Some(info) = world.set.signals.pop_front() {
            host.taken.push_back(Taken::Signal(info.signal));
        }
    };
    is_noticed(meddle, "reported");
}

#[test]
fn that_an_orphan_is_told_twice() {
    let meddle = |host: &mut Host| {
        let record = host.world.borrow().set.orphans.front().copied();
        if let Some(record) = record {
            host.driver.events.push(Event::Orphan(record));
        }
    };
    is_noticed(meddle, "is reported, and");
}

/// Plants a fault in the kernel's side, at most this many spawns in flight.
#[track_caller]
fn is_noticed_in_flight(planted: Planted, most: usize, as_what: &str) {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        world.planted = Some(planted);
        world.most_in_flight = most;
    };
    is_noticed(meddle, as_what);
}

#[test]
fn that_the_news_of_an_execution_is_lost() {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        let executed = |process: &&mut SimProcess| process.is_in_flight() && process.executed.is_some();
        let lost = world.processes.iter_mut().find(executed).map(SimProcess::forget_flight);
        world.in_flight -= usize::from(lost.is_some());
    };
    is_noticed(meddle, "its spawn is in flight: false, and it is");
}

#[test]
fn that_a_process_counts_as_executed_when_it_is_cloned() {
    is_noticed_in_flight(
        Planted::ExecutedAtClone,
        32,
        "it runs before its program is executed|its spawn is in flight: true, and it is",
    );
}

#[test]
fn that_an_execution_is_made_up() {
    let meddle = |host: &mut Host| {
        let in_flight = |now: &Snapshot| {
            matches!(
                now.state,
                State::Starting {
                    executed: None,
                    pid: Some(_),
                    ..
                }
            )
        };
        let id = snapshots(&host.driver).find(in_flight).map(|now| now.id);
        if let Some(id) = id {
            host.driver.apply_input(id, Input::Executed);
        }
    };
    is_noticed(
        meddle,
        "it runs before its program is executed|its spawn is in flight: true, and it is",
    );
}

#[test]
fn that_a_failed_execution_is_reported_as_an_end() {
    is_noticed_in_flight(
        Planted::FailureAsEnd,
        32,
        "was Attempt|was Some(Attempt|it ended like this: None|it may notify|the last exit is|a stop command of",
    );
}

#[test]
fn that_a_kill_in_flight_is_reported_as_a_failed_execution() {
    is_noticed_in_flight(
        Planted::EndAsFailure,
        32,
        "was Attempt|was Some(Attempt|it ended like this|it was spawned|the last exit is None|the last error is Some|the command after the run is missing",
    );
}

#[test]
fn that_the_place_of_a_spawn_killed_in_flight_is_kept() {
    is_noticed_in_flight(
        Planted::SlotKept,
        1,
        "something waits, and the timer is armed for|and run_due returns Done|there is more, and the call for the timer",
    );
}

#[test]
fn that_the_maximum_of_spawns_in_flight_is_exceeded() {
    is_noticed_in_flight(
        Planted::NoLimit,
        1,
        "a spawn begins while 1 are in flight, and 1 may be",
    );
}

#[test]
fn that_a_spawn_in_flight_is_not_looked_at_again() {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        if let Some(process) = world.processes.iter_mut().find(|process| process.is_in_flight()) {
            process.look = Some(Instant::NEVER);
        }
    };
    is_noticed(meddle, "nothing looks at a spawn in flight");
}

/// Plants a fault in every image. With `is_unseen`, the two images are not compared, so another oracle must notice it.
#[track_caller]
pub(super) fn is_noticed_in_an_image(spoil: fn(&mut Image), is_unseen: bool, as_what: &str) {
    is_noticed(|host| host.spoiler = Some(Spoiler { spoil, is_unseen }), as_what);
}

fn lives(image: &mut Image) -> impl Iterator<Item = &mut Lifecycle> {
    let instances = image.instances.iter_mut().filter_map(|place| place.value.as_mut());
    instances.map(|instance| &mut instance.life)
}

#[test]
fn that_an_image_forgets_a_pending_request() {
    let forget = |image: &mut Image| {
        let mut instances = image.instances.iter_mut().filter_map(|place| place.value.as_mut());
        if let Some(waits) = instances.find(|instance| instance.pending.is_some()) {
            waits.pending = None;
        }
    };
    is_noticed_in_an_image(forget, true, "was not concerned|it is wanted|it is to leave");
}

#[test]
fn that_an_image_forgets_an_event() {
    is_noticed_in_an_image(|image| drop(image.events.pop_back()), true, "reported");
}

#[test]
fn that_an_image_moves_a_deadline() {
    let put_off = |image: &mut Image| {
        let backoff = lives(image).find_map(|life| match life.state_mut() {
            State::Backoff { until, .. } => Some(until),
            _ => None,
        });
        if let Some(until) = backoff {
            *until = until.saturating_add(Duration::from_nanos(1));
        }
    };
    is_noticed_in_an_image(put_off, true, "was not concerned");
}

#[test]
fn that_an_image_loses_the_order_of_requests() {
    let turn = |image: &mut Image| image.waiting.make_contiguous().reverse();
    is_noticed_in_an_image(turn, false, "the image of the next engine differs");
}

#[test]
fn that_an_image_loses_the_order_of_spawns() {
    let turn = |image: &mut Image| image.spawns.make_contiguous().reverse();
    is_noticed_in_an_image(turn, false, "the image of the next engine differs");
}

#[test]
fn that_an_image_forgets_the_failed_starts() {
    let forget = |image: &mut Image| lives(image).for_each(Lifecycle::forget);
    is_noticed_in_an_image(forget, true, "are allowed");
}

#[test]
fn that_the_siblings_of_an_instance_do_not_use_up_the_shared_budget() {
    let report = |is_planted: bool| {
        let mut scene = Scene::new();
        let mut pair = draft(2);
        pair.policy.restart = Restart::Always;
        pair.policy.crash_budget = None;
        pair.policy.shared_budget = Some(CrashBudget {
            max: 1,
            window: Duration::from_secs(3_600),
        });
        pair.policy.stable_after = Duration::MAX;
        let group = scene.add(&pair);
        if is_planted {
            change_policies(&mut scene.host, |policy| policy.shared_budget = None);
        }
        scene.request(group, Request::Start);
        scene.handle_all();
        for number in 0..2 {
            let serial = serial_of(&scene.host.driver, scene.id(group, number)).unwrap();
            let signal = Signal::KILL;
            scene.act(Act::Outside { serial, signal });
            scene.handle_all();
        }
        stream::drain(&mut scene.host, 1_000)
    };
    // Random episodes hardly ever have so many crashes in the window before a description is compared.
    assert_eq!(report(false), Ok(()));
    let broken = report(true).unwrap_err();
    assert!(broken.contains("2 restarts of all together, 1 are allowed"), "{broken}");
}

#[test]
fn that_an_image_forgets_the_crashes() {
    let forget = |image: &mut Image| lives(image).for_each(Lifecycle::forget);
    is_noticed_in_an_image(forget, false, "the image of the next engine differs");
}

/// Plants a fault of the state file or of the recovery, in hosts that are killed often.
#[track_caller]
fn is_noticed_after_a_crash(planted: Planted, as_what: &str) {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        world.file.is_kept = true;
        world.planted = Some(planted);
    };
    is_noticed_from_the_start(meddle, as_what);
}

#[track_caller]
pub(super) fn is_noticed_from_the_start(meddle: impl Fn(&mut Host), as_what: &str) {
    let always = |host: &mut Host, _: u64| meddle(host);
    is_reported(2, &always, as_what);
}

#[test]
fn that_no_record_is_written() {
    is_noticed_after_a_crash(
        Planted::RecordSkipped,
        "another state was restored|runs are recorded|it is wanted|is alive, and the recovery does not find it",
    );
}

#[test]
fn that_no_birth_is_noted() {
    is_noticed_after_a_crash(
        Planted::BirthSkipped,
        "is alive, and the recovery does not find it|was Attempt|and it was|processes are left in",
    );
}

#[test]
fn that_a_recovery_takes_a_stranger() {
    is_noticed_after_a_crash(
        Planted::TimeIgnored,
        "a stranger is taken for the process of slot|another state was restored|processes are left in",
    );
}

#[test]
fn that_a_recovery_spawns_beside_the_living_process() {
    is_noticed_after_a_crash(Planted::NothingFound, "is alive, and the recovery does not find it");
}

#[test]
fn that_a_recovery_forgets_an_end() {
    is_noticed_after_a_crash(
        Planted::EndsForgotten,
        "no process is left, and it is|which has no process",
    );
}

#[test]
fn that_stored_descriptors_are_kept_at_rest() {
    is_noticed_from_the_start(
        |host| host.world.borrow_mut().planted = Some(Planted::DescriptorsKept),
        "are open, and|other descriptors are passed",
    );
}

#[test]
fn that_the_next_run_does_not_get_a_stored_descriptor() {
    is_noticed_from_the_start(
        |host| host.world.borrow_mut().planted = Some(Planted::LastDescriptorNotPassed),
        "other descriptors are passed",
    );
}

/// Changes the policy of every group in the engine alone.
fn change_policies(host: &mut Host, change: fn(&mut Policy)) {
    for group in host.driver.groups.values_mut() {
        change(&mut group.policy);
    }
}

#[test]
fn that_the_siblings_of_an_instance_that_has_ended_go_on() {
    // With another strategy than `OneForOne`, a group is still stopped when one of its instances is given up.
    let meddle = |host: &mut Host| {
        change_policies(host, |policy| {
            if policy.strategy == Strategy::OneForAll {
                policy.strategy = Strategy::RestForOne;
            }
        });
    };
    is_noticed_besides_comparisons(meddle, "and its sibling goes on");
}

#[test]
fn that_siblings_are_stopped_that_no_strategy_concerns() {
    let meddle = |host: &mut Host| change_policies(host, |policy| policy.strategy = Strategy::OneForAll);
    is_noticed_besides_comparisons(
        meddle,
        "the end of a sibling does not concern it|was not concerned|it is wanted",
    );
}

#[test]
fn that_a_joint_restart_does_not_wait_for_the_last_end() {
    let meddle = |host: &mut Host| {
        let waits = |now: &Snapshot| now.joint == Joint::Waits && now.serial.is_some();
        let groups = snapshots(&host.driver).filter(waits);
        let groups: Vec<_> = groups
            .filter_map(|now| Some(host.driver.instances.get(now.id)?.group))
            .collect();
        let is_ready = |now: &Snapshot| {
            let group = host.driver.instances.get(now.id).map(|instance| instance.group);
            now.joint == Joint::Ready && group.is_some_and(|group| groups.contains(&group))
        };
        let ready: Vec<_> = snapshots(&host.driver).filter(is_ready).map(|now| now.id).collect();
        if ready.is_empty() {
            return;
        }
        // A step of its own, since the oracle compares the states before and after the call that starts them.
        host.world.borrow_mut().begin(Chance::new(1));
        host.look();
        host.act = Act::Dispatch;
        for id in ready {
            host.driver.apply_input(id, Input::StartWithSiblings);
        }
        let touched = host.perform(Act::Dispatch);
        let checked = touched.and_then(|touched| oracle::check(host, touched));
        checked.unwrap_or_else(|broken| panic!("{broken}"));
    };
    is_noticed_from_the_start(meddle, "is started with its siblings, and");
}

#[test]
fn that_a_joint_restart_is_forgotten() {
    let forget = |image: &mut Image| lives(image).for_each(Lifecycle::forget_siblings);
    is_noticed_in_an_image(forget, false, "the image of the next engine differs");
}

#[test]
fn that_only_the_first_siblings_are_told() {
    let meddle = |host: &mut Host| {
        let told = std::mem::take(&mut host.driver.telling);
        for telling in told {
            if let Some(instance) = host.driver.instances.get_mut(telling.ended) {
                instance.life.note_told();
            }
        }
    };
    is_noticed_besides_comparisons(meddle, "and its sibling goes on");
}

#[test]
fn that_a_ready_instance_waits_for_ever() {
    let meddle = |host: &mut Host| {
        let waits = snapshots(&host.driver).find(|now| now.joint == Joint::Waits && now.serial.is_some());
        if let Some(instance) = waits.and_then(|now| host.driver.instances.get_mut(now.id)) {
            instance.life.forget_siblings();
        }
    };
    is_noticed(meddle, "all wait for each other|it is wanted|the start of");
}

#[test]
fn that_a_rolling_restart_waits_for_an_instance_that_does_not_move() {
    // The engine and the model agree that the restart is not over, so nothing else is wrong.
    let meddle = |host: &mut Host| {
        let rests = |host: &Host, id| snapshots(&host.driver).any(|now| now.id == id && now.state == State::Stopped);
        let is_it = |known: &&Instance| {
            host.driver
                .instances
                .get(known.id)
                .is_some_and(|it| it.pending.is_none())
        };
        let mut stopped = host.model.instances.iter().filter(is_it);
        let Some((id, group)) = stopped
            .find(|known| rests(host, known.id))
            .map(|known| (known.id, known.group))
        else {
            return;
        };
        let known = host
            .model
            .group_mut(group)
            .filter(|known| known.after_roll.is_none() && !known.leaving);
        if let (Some(known), Some(group)) = (known, host.driver.groups.get_mut(group)) {
            let target = group.roster.target();
            group.roll = Some((Roll::new(Rolling::new(), [], vec![id]), target));
            known.after_roll = Some(target);
        }
    };
    is_noticed(meddle, "is not over, and nothing moves|which does not move");
}

#[test]
fn that_the_end_of_an_instance_does_not_stop_its_group() {
    let meddle = |host: &mut Host| {
        change_policies(host, |policy| {
            policy.auto_shutdown = AutoShutdown::Never;
        });
    };
    is_noticed_besides_comparisons(meddle, "it is wanted");
}

#[test]
fn that_a_group_stops_without_the_end_of_an_instance() {
    let meddle = |host: &mut Host| {
        let id = host.driver.groups.ids().next();
        if let Some(group) = id.and_then(|id| host.driver.groups.get_mut(id)) {
            group.wanted = Wanted::Down;
        }
    };
    is_noticed(meddle, "it is wanted Down, and should be Up");
}

#[test]
fn that_nothing_waits_for_other_groups() {
    let meddle = |host: &mut Host| host.driver.ranked.clear();
    is_noticed(
        meddle,
        "must wait for other groups: true|is started before|is stopped before",
    );
}

#[test]
fn that_a_group_forgets_what_it_requires() {
    let meddle = |host: &mut Host| {
        for group in host.driver.groups.values_mut() {
            group.order.edges.requires.clear();
        }
    };
    is_noticed_besides_comparisons(
        meddle,
        "must wait for other groups: true|is started before|does not tell what it waits for|the answer should be|has failed",
    );
}

#[test]
fn that_a_group_that_was_down_counts_as_just_stopped() {
    let meddle = |host: &mut Host| {
        for group in host.driver.groups.values_mut() {
            group.order.ended = Some(Cause::RequirementStopped);
        }
    };
    is_noticed(
        meddle,
        "it is wanted Down, and the host requested Up|the cause of a start that is withdrawn is wrong",
    );
}

#[test]
fn that_what_waits_for_other_groups_is_not_looked_at_again() {
    let meddle = |host: &mut Host| {
        let waits = snapshots(&host.driver).find(|now| now.awaits_order);
        if let Some(instance) = waits.and_then(|now| host.driver.instances.get_mut(now.id)) {
            instance.awaits_order = false;
        }
    };
    is_noticed(
        meddle,
        "must wait for other groups: true|quiet|something waits|there is more",
    );
}

#[test]
fn that_an_image_forgets_the_order() {
    let forget = |image: &mut Image| {
        for group in image.groups.iter_mut().filter_map(|place| place.value.as_mut()) {
            group.requires.clear();
            group.after.clear();
        }
    };
    is_noticed_in_an_image(forget, false, "the image of the next engine differs");
}

#[test]
fn that_a_failed_command_before_a_run_does_not_count() {
    let meddle = |host: &mut Host| host.world.borrow_mut().planted = Some(Planted::EndsWell);
    is_noticed_from_the_start(meddle, "has Program spawned, and the last was");
}

#[test]
fn that_the_command_after_a_run_is_skipped() {
    let skip = |host: &mut Host| {
        let ids: Vec<_> = host.driver.groups.ids().collect();
        for id in ids {
            if let Some(group) = host.driver.groups.get_mut(id) {
                group.policy.after_run = None;
            }
        }
    };
    is_noticed_from_the_start(
        skip,
        "the command after the run is missing|the plan is|with another policy",
    );
}

#[test]
fn that_the_limit_of_a_command_is_put_off() {
    let put_off = |host: &mut Host| {
        let prepares = |now: &Snapshot| matches!(now.state, State::Preparing { pid: Some(_), .. });
        let Some(id) = snapshots(&host.driver).find(prepares).map(|now| now.id) else {
            return;
        };
        let Some(instance) = host.driver.instances.get_mut(id) else {
            return;
        };
        if let State::Preparing { until, .. } = instance.life.state_mut() {
            *until = until.saturating_sub(Duration::from_nanos(1));
            let at = *until;
            host.driver.deadlines.set(id.index(), at);
        }
    };
    is_noticed(put_off, "its command may run until");
}

#[test]
fn that_an_image_forgets_that_a_run_is_prepared() {
    let forget = |image: &mut Image| {
        for life in lives(image) {
            if let State::Preparing { executed, .. } = life.state_mut() {
                *executed = None;
            }
        }
    };
    is_noticed_in_an_image(forget, true, "was not concerned|its spawn is");
}
