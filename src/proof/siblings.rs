//! Restarts of several instances of a group together: which ones are stopped, and when they are started again.
//!
//! The states before and after a step are compared with the strategy that the host has described. That an instance has
//! been told is taken from the engine; that it had to be told is not.

use std::time::Duration;

use super::host::{Broken, Host, Snapshot, snapshots};
use super::model::{Group, Instance};
use super::oracle::{before as before_step, ensure};
use crate::engine::event::StopReason;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::request::Request;
use crate::lifecycle::{AutoShutdown, Cause, Failure, Joint, Policy, State, StateName, Stopping, Strategy, Wanted};
use crate::time::Instant;

/// Checks the joint restarts after a step.
pub(super) fn check(host: &mut Host, rolling: &[GroupId]) -> Result<(), Broken> {
    let now: Vec<_> = snapshots(&host.driver).collect();
    let mut untold = std::mem::take(&mut host.model.untold);
    for group in &host.model.groups {
        let members: Vec<_> = members(host, group.id, &now).collect();
        nothing_waits_for_ever(host, group.id, &members)?;
        let is_rolling = rolling.contains(&group.id) || group.after_roll.is_some();
        if is_rolling {
            untold.retain(|one| members.iter().all(|(known, _)| known.id != one.sibling));
        } else {
            all_have_ended_before_a_start(host, &members)?;
            untold.extend(siblings_that_go_on(host, group, &members));
        }
    }
    host.model.untold = all_are_told(host, untold, &now)?;
    for group in &mut host.model.groups {
        let is_telling = host.driver.telling.iter().any(|telling| telling.group == group.id);
        group.was_told_late |= is_telling && group.policy.strategy == Strategy::OneForOne;
        group.is_just_stopped = false;
    }
    Ok(())
}

/// The host learns which groups were stopped because of the end of an instance in this step, or since the first of two
/// calls in it. What was decided before such an end does not follow from it.
///
/// `rolling` are the groups in a rolling restart, now or before this step.
pub(super) fn follow_group_stops(host: &mut Host, rolling: &[GroupId]) {
    let now: Vec<_> = snapshots(&host.driver).collect();
    let since = host.between.take().unwrap_or_else(|| host.before.clone());
    for place in 0..host.model.groups.len() {
        let group = &host.model.groups[place];
        let has_just_rolled = rolling.contains(&group.id) && group.after_roll.is_none();
        if !stops(host, group, has_just_rolled, &since, &now) {
            continue;
        }
        let id = group.id;
        host.model.groups[place].wanted = Wanted::Down;
        host.model.groups[place].stops += 1;
        host.model.groups[place].is_just_stopped = true;
        host.model.groups[place].was_stopped = true;
        host.tally.saw_group_stop();
        let members = host.model.instances.iter_mut().filter(|known| known.group == id);
        for known in members {
            // No stop is requested of one that is not wanted.
            match known.wish {
                Wanted::Up => known.reasons.replace(Cause::SiblingEnded),
                Wanted::Down => known.reasons.add(Cause::SiblingEnded),
            }
            known.wish = Wanted::Down;
        }
        // It may have left in the same step.
        let departed = host.model.departed.iter_mut().filter(|known| known.group == id);
        departed.for_each(|known| known.reasons.add(Cause::SiblingEnded));
    }
}

/// Whether a group ends with an instance that has ended for good in this step.
///
/// The last of all ends means a stop, and whether it was the last depends on what was requested of the others when the
/// engine looked. If nothing was, in the whole step, then the group must have stopped. Otherwise it may have: the engine's
/// word counts, unless an instance went on through the whole step. An additional instance of a rolling restart ends nothing,
/// and whether one that has just left was counted depends on the order in the step.
fn stops(host: &Host, group: &Group, has_just_rolled: bool, since: &[Snapshot], now: &[Snapshot]) -> bool {
    if group.leaving {
        return false;
    }
    let members: Vec<_> = members(host, group.id, now)
        .map(|(known, now)| (known, since.iter().find(|then| then.id == known.id), now))
        .collect();
    let has_just_ended = |(known, then, now): &&(&Instance, Option<&Snapshot>, &Snapshot)| {
        let is_new = then.is_none_or(|then| {
            then.joint == Joint::Tells || then.runs != now.runs || then.state.name() != now.state.name()
        });
        let stays = !host.model.leaves(known) && group.after_roll.is_none_or(|after| known.number < after);
        is_new && is_over(now) && known.wish == Wanted::Up && stays
    };
    let (auto, strategy) = (group.policy.auto_shutdown, group.policy.strategy);
    let ended: Vec<_> = members.iter().filter(has_just_ended).collect();
    if ended.is_empty() {
        return false;
    }
    let is_enough =
        |now: &Snapshot| auto == AutoShutdown::AnyEnd || (strategy != Strategy::OneForOne && is_given_up(now));
    if ended.iter().any(|(_, _, now)| is_enough(now)) {
        return true;
    }
    let goes_on = |known: &Instance, now: &Snapshot| {
        let rests = is_over(now) || now.state == State::Stopped;
        known.wish == Wanted::Up && (now.pending.is_some_and(Request::wants_up) || !rests)
    };
    let went_on = |known: &Instance, then: &Snapshot, now: &Snapshot| {
        then.serial.is_some() && then.serial == now.serial && known.wish == Wanted::Up && !host.model.leaves(known)
    };
    let was_to_start = |then: &Snapshot| then.pending.is_some_and(Request::wants_up);
    // A new one is started, and its start may have been withdrawn in this step too.
    let may_have_gone_on = !host.act.is_of_the_loop()
        || has_just_rolled
        || members.iter().any(|(_, then, _)| then.is_none_or(was_to_start));
    let is_last = !members.iter().any(|(known, _, now)| goes_on(known, now));
    let was_last = !members
        .iter()
        .any(|(known, then, now)| then.is_some_and(|then| went_on(known, then, now)));
    match auto {
        AutoShutdown::AllEnd if may_have_gone_on => was_last && has_stopped(host, group.id, now),
        AutoShutdown::AllEnd => is_last,
        AutoShutdown::Never | AutoShutdown::AnyEnd => false,
    }
}

fn is_given_up(now: &Snapshot) -> bool {
    matches!(now.state, State::Fatal { until, .. } if until == Instant::NEVER)
}

fn is_over(now: &Snapshot) -> bool {
    is_given_up(now) || matches!(now.state, State::Exited { .. })
}

/// Whether the engine wants nothing of a group up.
fn has_stopped(host: &Host, id: GroupId, now: &[Snapshot]) -> bool {
    let wanted = host.driver.groups.get(id).map(|group| group.wanted);
    let wants_up = |now: &Snapshot| now.pending.map_or(now.was_wanted, Request::wants_up);
    wanted == Some(Wanted::Down) && !members(host, id, now).any(|(_, now)| wants_up(now))
}

/// The event of such a stop: it is reported once, and about an instance that has ended.
pub(super) fn reported(host: &mut Host, id: InstanceId, group: GroupId, reason: StopReason) -> Result<(), Broken> {
    let all = host.model.instances.iter().chain(&host.model.departed);
    let known = all.into_iter().find(|known| known.id == id);
    let state = known.ok_or("the model has no such instance")?.reported;
    let is_over = match state {
        None | Some(StateName::Fatal) => true,
        Some(state) => state == StateName::Exited && reason != StopReason::GivenUp,
    };
    ensure(is_over, || format!("it is {state:?}"))?;
    let has_gaps = host.has_gaps;
    let Some(known) = host.model.group_mut(group) else {
        return Ok(());
    };
    ensure(known.stops > 0 || has_gaps, || "its group was not to stop".into())?;
    known.stops = known.stops.saturating_sub(1);
    Ok(())
}

fn members<'a>(
    host: &'a Host,
    group: GroupId,
    now: &'a [Snapshot],
) -> impl Iterator<Item = (&'a Instance, &'a Snapshot)> + 'a {
    let members = host.model.instances.iter().filter(move |known| known.group == group);
    members.filter_map(|known| Some((known, now.iter().find(|now| now.id == known.id)?)))
}

/// The groups in which an instance may be changed by what happens to another one.
pub(super) fn tied(host: &Host) -> Vec<GroupId> {
    let groups = host.model.groups.iter().map(|group| group.id);
    groups.filter(|&id| are_tied(host, id)).collect()
}

/// Whether an instance of this group may be changed by what happens to another one.
pub(super) fn are_tied(host: &Host, id: GroupId) -> bool {
    let has_strategy = |group: &Group| {
        group.policy.strategy != Strategy::OneForOne || group.policy.auto_shutdown != AutoShutdown::Never
    };
    let is_joint = |known: &Instance| {
        let now = host.driver.instances.get(known.id);
        let then = before_step(host, known.id);
        now.is_some_and(|now| now.life.is_joint()) || then.is_some_and(|then| then.joint != Joint::None)
    };
    let all = host.model.instances.iter().chain(&host.model.departed);
    let mut members = all.into_iter().filter(|known| known.group == id);
    host.model.group(id).is_some_and(has_strategy) || members.any(is_joint)
}

/// A sibling that is to be told of an end, and its process.
pub(super) struct Untold {
    ended: InstanceId,
    sibling: InstanceId,
    serial: u64,
}

/// Whether an instance was to be told of the end of a sibling before this step, which a request does first.
pub(super) fn was_to_be_told(host: &Host, before: &Snapshot) -> bool {
    let mut untold = host.model.untold.iter();
    untold.any(|one| one.sibling == before.id && Some(one.serial) == before.serial)
}

/// Whether the siblings of an instance are being told of its end.
fn tells(host: &Host, ended: InstanceId) -> bool {
    host.driver.telling.iter().any(|telling| telling.ended == ended)
}

/// Whoever is ready waits for one that is not, and that one has a deadline or a process that is being stopped, or its
/// siblings are being told.
fn nothing_waits_for_ever(host: &Host, group: GroupId, members: &[(&Instance, &Snapshot)]) -> Result<(), Broken> {
    let is = |joint| members.iter().any(|(_, now)| now.joint == joint);
    let is_untold = |now: &Snapshot| now.joint == Joint::Tells && !tells(host, now.id);
    let untold = members.iter().find(|(_, now)| is_untold(now));
    let is_telling = host.driver.telling.iter().any(|telling| telling.group == group);
    ensure(untold.is_none(), || {
        format!(
            "the siblings are not told of {untold:?}",
            untold = untold.map(|(_, now)| now)
        )
    })?;
    ensure(!is(Joint::Ready) || is(Joint::Waits) || is_telling, || {
        let all: Vec<_> = members.iter().map(|(_, now)| now).collect();
        format!("all wait for each other: {all:?}")
    })?;
    let stuck = members.iter().find(|(_, now)| {
        let moves = now.state.name().is_alive() || now.state.deadline().is_some();
        now.joint == Joint::Waits && !moves
    });
    ensure(stuck.is_none(), || {
        format!("nothing ends the wait of {:?}", stuck.map(|(_, now)| now))
    })
}

/// What waits for its siblings is started only when each of them has ended, unless the host has requested it.
fn all_have_ended_before_a_start(host: &Host, members: &[(&Instance, &Snapshot)]) -> Result<(), Broken> {
    if !host.act.is_of_the_loop() {
        return Ok(());
    }
    let was_held = |known: &Instance, now: &Snapshot| {
        let then = before_step(host, known.id);
        then.is_some_and(|then| {
            then.joint == Joint::Ready && then.pending.is_none() && then.runs < now.runs && now.pending.is_none()
        })
    };
    let started = members.iter().find(|(known, now)| was_held(known, now));
    let is_ending = |known: &Instance, now: &Snapshot| {
        let then = before_step(host, known.id);
        let was_joint = then.is_some_and(|then| then.joint == Joint::Waits && then.serial.is_some());
        was_joint && now.joint == Joint::Waits && then.is_some_and(|then| then.serial == now.serial)
    };
    let ending = members.iter().find(|(known, now)| is_ending(known, now));
    ensure(started.is_none() || ending.is_none(), || {
        format!(
            "{:?} is started with its siblings, and {:?} has not ended",
            started.map(|(known, _)| known.id),
            ending.map(|(known, _)| known.id)
        )
    })
}

/// The siblings of an instance that ran and has ended in this step, and is started again: those that the end concerns, and
/// that go on.
fn siblings_that_go_on(host: &Host, group: &Group, members: &[(&Instance, &Snapshot)]) -> Vec<Untold> {
    let mut untold = Vec::new();
    if group.policy.strategy == Strategy::OneForOne || group.leaving || !host.act.is_of_the_loop() {
        return untold;
    }
    for (ended, now) in members {
        let Some(then) = before_step(host, ended.id) else {
            continue;
        };
        // A run after a cool-off begins alone, and one that takes no time may end in the same step.
        let is_after_a_cool_off = group.policy.cool_off == Some(Duration::ZERO) && now.runs > then.runs;
        if is_after_a_cool_off || !has_ended_and_is_restarted(ended, then, now) {
            continue;
        }
        let concerned = |number: u32| match group.policy.strategy {
            Strategy::OneForAll => number != ended.number,
            _ => number > ended.number,
        };
        let concerned = members.iter().filter(|(known, _)| concerned(known.number));
        untold.extend(concerned.filter_map(|(known, now)| {
            let then = before_step(host, known.id)?;
            let serial = then.serial.filter(|_| then.serial == now.serial)?;
            let one = Untold {
                ended: ended.id,
                sibling: known.id,
                serial,
            };
            (goes_on(then) && goes_on(now)).then_some(one)
        }));
    }
    untold
}

/// Whether an instance is up, and the host has requested nothing else of it.
fn goes_on(it: &Snapshot) -> bool {
    let is_up = matches!(it.state, State::Starting { pid: Some(_), .. } | State::Running { .. });
    is_up && !matches!(it.pending, Some(Request::Stop | Request::Kill | Request::Restart))
}

/// Those that are still to be told. When all are told of an end, no sibling that it concerns goes on.
fn all_are_told(host: &Host, untold: Vec<Untold>, now: &[Snapshot]) -> Result<Vec<Untold>, Broken> {
    let (left, told): (Vec<_>, Vec<_>) = untold.into_iter().partition(|one| tells(host, one.ended));
    let goes_on = |one: &Untold| {
        now.iter()
            .find(|now| now.id == one.sibling && now.serial == Some(one.serial) && goes_on(now))
            .map(|now| (one.ended, now))
    };
    let missed = told.iter().find_map(goes_on);
    ensure(missed.is_none(), || {
        format!("an instance has ended, and its sibling goes on: {missed:?}")
    })?;
    Ok(left)
}

/// Whether a run that was running ended in this step by itself, and another one follows by the policy.
fn has_ended_and_is_restarted(known: &Instance, then: &Snapshot, now: &Snapshot) -> bool {
    let ran = match then.state {
        State::Running { .. } => true,
        State::Stopping(Stopping {
            failed: Some(failed), ..
        }) => failed.ran && then.was_wanted,
        _ => false,
    };
    let follows = now.runs > then.runs || matches!(now.state, State::Backoff { until, .. } if until != Instant::NEVER);
    let is_free = then.pending.is_none() && now.pending.is_none() && known.wish == Wanted::Up;
    ran && follows && is_free && then.serial.is_some() && then.serial != now.serial
}

/// Whether a start was put off because a sibling has ended.
pub(super) fn is_put_off(state: &State, joint: Joint) -> bool {
    match state {
        State::Backoff { failure, .. } => *failure == Failure::Sibling,
        State::CleaningUp { .. } => joint == Joint::Waits,
        _ => false,
    }
}

/// The tied groups in which one of these instances is, or one that is new in this step, or one that was to be told of an
/// end.
pub(super) fn with_siblings(host: &Host, meant: &[InstanceId]) -> Vec<GroupId> {
    let all = host.model.instances.iter().chain(&host.model.departed);
    let is_meant = |known: &&Instance| meant.contains(&known.id) || before_step(host, known.id).is_none();
    let mut tied = host.telling_before.clone();
    for known in all.into_iter().filter(is_meant) {
        if !tied.contains(&known.group) && are_tied(host, known.group) {
            tied.push(known.group);
        }
    }
    tied
}

/// Whether a group with this policy is stopped after the end of an instance.
pub(super) fn may_stop(policy: &Policy) -> bool {
    policy.strategy != Strategy::OneForOne || policy.auto_shutdown != AutoShutdown::Never
}
