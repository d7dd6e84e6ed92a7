//! The order of groups: what a start or a stop must wait for, what it must not wait for, and when a start is withdrawn.
//!
//! The model knows the order that the host has described. The states before and after a step are compared with it: the
//! engine's gates, ranks and queues are not used. In one step a group can go up and down again, so a start is wrong only
//! if it could not have been right at any moment of the step.

use super::act::Act;
use super::host::{Broken, Host, Snapshot, snapshots};
use super::model::{Group, Instance};
use super::oracle::{before as before_step, ensure};
use super::process::Phase;
use super::siblings;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::instance::Instance as Supervised;
use crate::engine::request::Request;
use crate::lifecycle::{Prospect, State, Stopping, Wanted};
use crate::time::Instant;

/// Checks the order after a step.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    let has_order = |group: &Group| group.lost_a_group || !group.after.is_empty() || !group.requires.is_empty();
    if !host.model.groups.iter().any(has_order) {
        return Ok(());
    }
    let now: Vec<_> = snapshots(&host.driver).collect();
    follow_withdrawals(host, &now);
    for known in &host.model.instances {
        let Some(after) = now.iter().find(|after| after.id == known.id) else {
            continue;
        };
        waits_for_a_reason(host, known, after, &now)?;
        if let Some(before) = before_step(host, known.id) {
            starts_in_order(host, known, before, after, &now)?;
            stops_in_order(host, known, before, after, &now)?;
        }
    }
    Ok(())
}

/// The instances of a group that stay.
fn staying<'a>(host: &'a Host, group: GroupId) -> impl Iterator<Item = &'a Instance> + 'a {
    let members = host.model.instances.iter().filter(move |known| known.group == group);
    members.filter(|known| !host.model.leaves(known))
}

fn of(now: &[Snapshot], id: InstanceId) -> Option<&Snapshot> {
    now.iter().find(|snapshot| snapshot.id == id)
}

fn is_up(now: &Snapshot) -> bool {
    now.pending.is_none() && matches!(now.state, State::Running { .. } | State::Exited { expected: true, .. })
}

fn is_failed(now: &Snapshot) -> bool {
    now.pending.is_none() && matches!(now.state, State::Fatal { .. } | State::Exited { expected: false, .. })
}

fn is_moving(now: &Snapshot) -> bool {
    let moves = matches!(
        now.state,
        State::Preparing { .. }
            | State::Starting { .. }
            | State::Backoff { .. }
            | State::Stopping(_)
            | State::CleaningUp { .. }
    );
    now.pending.is_some() || moves
}

/// Whether a start of this group may take place, if the members of other groups are like this.
fn may_start(host: &Host, group: &Group, now: &[Snapshot]) -> bool {
    let all = |id| staying(host, id).filter_map(|known| of(now, known.id));
    let is_settled = |&id: &GroupId| !all(id).any(is_moving);
    let runs = |id: &GroupId| is_settled(id) && all(*id).any(is_up) && !all(*id).any(is_failed);
    group.after.iter().all(is_settled) && group.requires.iter().all(runs)
}

fn goes_down(now: &Snapshot) -> bool {
    let is_to_stop = matches!(now.pending, Some(Request::Stop | Request::Kill));
    match now.state {
        State::Stopping(Stopping {
            rung: Stopping::SIGKILL,
            until: Instant::NEVER,
            ..
        }) => false,
        State::Stopping(_) | State::CleaningUp { .. } => !now.was_wanted || is_to_stop,
        State::Preparing { pid: Some(_), .. } | State::Starting { pid: Some(_), .. } | State::Running { .. } => {
            is_to_stop
        }
        _ => false,
    }
}

/// The groups that come after this one.
fn followers(host: &Host, id: GroupId) -> impl Iterator<Item = &Group> {
    let groups = host.model.groups.iter();
    groups.filter(move |group| group.after.contains(&id) || group.requires.contains(&id))
}

fn may_stop(host: &Host, id: GroupId, now: &[Snapshot]) -> bool {
    let is_of = |group: &Group, now: &Snapshot| {
        let known = host.model.instance(now.id);
        known.is_some_and(|known| known.group == group.id)
    };
    !followers(host, id).any(|group| now.iter().any(|now| is_of(group, now) && goes_down(now)))
}

/// A request waits in order exactly if something keeps it.
fn waits_for_a_reason(host: &Host, known: &Instance, after: &Snapshot, now: &[Snapshot]) -> Result<(), Broken> {
    let Some(group) = host.model.group(known.group) else {
        return Ok(());
    };
    let wanted = host
        .driver
        .instances
        .get(known.id)
        .map(|instance| instance.life.wanted());
    let must_wait = match (after.pending, after.state) {
        (Some(Request::Start | Request::Restart), State::Stopped | State::Exited { .. } | State::Fatal { .. }) => {
            !may_start(host, group, now)
        }
        (Some(Request::Start | Request::Restart), State::Stopping(_) | State::CleaningUp { .. }) => {
            wanted == Some(Wanted::Down) && !may_start(host, group, now)
        }
        (
            Some(Request::Stop),
            State::Preparing { pid: Some(_), .. } | State::Starting { pid: Some(_), .. } | State::Running { .. },
        ) => !may_stop(host, group.id, now),
        _ => false,
    };
    ensure(after.awaits_order == must_wait, || {
        format!("{:?} must wait for other groups: {must_wait}: {after:?}", known.id)
    })?;
    let is_start = after.pending.is_some_and(Request::wants_up);
    let lost = group.requires.iter().find(|&&id| {
        let mut members = staying(host, id).filter_map(|known| of(now, known.id));
        members.any(is_failed)
    });
    ensure(!(must_wait && is_start && lost.is_some()), || {
        format!("{:?} waits for {lost:?}, which has failed", known.id)
    })?;
    let status = host.driver.status(known.id);
    ensure(
        status.is_none_or(|status| status.waits_for.is_empty() != must_wait),
        || format!("the status of {:?} does not tell what it waits for", known.id),
    )
}

/// A start on request takes place only when what it comes after is running, or is not on its way.
fn starts_in_order(
    host: &Host,
    known: &Instance,
    before: &Snapshot,
    after: &Snapshot,
    now: &[Snapshot],
) -> Result<(), Broken> {
    let Some(group) = host.model.group(known.group) else {
        return Ok(());
    };
    let is_requested = match before.state {
        State::Stopped
        | State::Exited { .. }
        | State::Fatal {
            until: Instant::NEVER, ..
        } => true,
        // The same for a stop of which the start was not wanted before the step.
        State::Stopping(_) | State::CleaningUp { .. } => !before.was_wanted && !matches!(host.act, Act::Request(..)),
        _ => false,
    };
    if !is_requested || after.runs == before.runs || matches!(host.act, Act::Reload(..) | Act::Crash(_)) {
        return Ok(());
    }
    // At some moment of the step each other one was as it must be.
    let could_be = |known: &Instance, is: fn(&Snapshot) -> bool| {
        let (then, now) = (before_step(host, known.id), of(now, known.id));
        // With another run or state, it may have been in other states in between.
        let has_changed = then
            .zip(now)
            .is_some_and(|(then, now)| then.runs != now.runs || then.state.name() != now.state.name());
        has_changed || then.is_none_or(is) || now.is_none_or(is)
    };
    let rests = |now: &Snapshot| !is_moving(now);
    let is_good = |now: &Snapshot| !is_moving(now) && !is_failed(now);
    let unsettled = group
        .after
        .iter()
        .find(|&&id| !staying(host, id).all(|known| could_be(known, rests)));
    let missing = group.requires.iter().find(|&&id| {
        let all = staying(host, id).all(|known| could_be(known, is_good));
        !(all && staying(host, id).any(|known| could_be(known, is_up)))
    });
    ensure(unsettled.is_none() && missing.is_none(), || {
        format!("{:?} is started before {unsettled:?} {missing:?}", known.id)
    })
}

/// Whether its process has ended in the step. Before that the supervisor may have given it up, and has not waited for it.
fn has_just_ended(then: &Snapshot, now: &Snapshot) -> bool {
    let cleans_up = |of: &Snapshot| matches!(of.state, State::CleaningUp { .. });
    cleans_up(now) && !cleans_up(then)
}

/// A stop on request begins only when what comes after the group has gone down, if that is going down too.
fn stops_in_order(
    host: &Host,
    known: &Instance,
    before: &Snapshot,
    after: &Snapshot,
    now: &[Snapshot],
) -> Result<(), Broken> {
    let was_up = matches!(
        before.state,
        State::Preparing { pid: Some(_), .. } | State::Starting { pid: Some(_), .. } | State::Running { .. }
    );
    let State::Stopping(Stopping {
        failed: None, prospect, ..
    }) = after.state
    else {
        return Ok(());
    };
    let is_wanted = host
        .model
        .instance(known.id)
        .is_some_and(|known| known.wish == Wanted::Up);
    if !was_up || prospect != Prospect::Open || is_wanted || matches!(host.act, Act::Crash(_)) {
        return Ok(());
    }
    // With a joint restart the stop has waited for nothing. Its group may have been stopped in the same step.
    let is_just_stopped = |id| host.model.group(id).is_some_and(|group| group.is_just_stopped);
    if is_just_stopped(known.group) || siblings::was_to_be_told(host, before) {
        return Ok(());
    }
    // A rolling restart may have ended in the step, before the stop of the others was requested.
    let is_over = host
        .model
        .group(known.group)
        .is_some_and(|group| known.number >= group.target);
    let shrinks = match host.act {
        Act::Scale(id, _) | Act::Reload(id, _) | Act::Remove(id) => id == known.group,
        _ => false,
    };
    if is_over && !shrinks {
        return Ok(());
    }
    // The stop of a process that has ended waits for nothing.
    let world = host.world.borrow();
    let mut processes = world.processes.iter();
    if processes.any(|process| Some(process.serial) == after.serial && process.phase != Phase::Alive) {
        return Ok(());
    }
    // One that was stopped because of an end in this step may have gone on when this stop began.
    for group in followers(host, known.group).filter(|group| !is_just_stopped(group.id)) {
        let members = host.model.instances.iter().filter(|other| other.group == group.id);
        let mut both = members.filter_map(|other| Some((before_step(host, other.id)?, of(now, other.id)?)));
        // One that was up before the step may get its stop in this step, but not after this one.
        let late = both.find(|(then, now)| {
            let was_not_over = goes_down(then) || matches!(then.state, State::Running { .. });
            goes_down(now) && was_not_over && !has_just_ended(then, now)
        });
        ensure(late.is_none(), || format!("{:?} is stopped before {late:?}", known.id))?;
    }
    Ok(())
}

/// The host learns which of its starts the first of two calls in one step has withdrawn. The second call may change what
/// they required.
pub(super) fn follow_first_call(host: &mut Host) {
    let now: Vec<_> = snapshots(&host.driver).collect();
    follow_withdrawals(host, &now);
}

/// The host learns which of its starts were withdrawn, because a group that they require was lost.
fn follow_withdrawals(host: &mut Host, now: &[Snapshot]) {
    // A start that is withdrawn may be what another one waits for.
    let mut withdrawn = Vec::new();
    for _ in 0..host.model.groups.len() {
        let lost: Vec<_> = host
            .model
            .groups
            .iter()
            .filter(|group| {
                let is_lost = |&id: &GroupId| withdrawn.contains(&id) || is_lost(host, id, now);
                group.requires.iter().any(is_lost) || group.lost_a_group
            })
            .map(|group| group.id)
            .collect();
        let mut is_any_new = false;
        for known in &mut host.model.instances {
            let Some(after) = of(now, known.id) else { continue };
            let instance = host.driver.instances.get(known.id);
            let is_off = instance.is_some_and(|instance| instance.life.wanted() == Wanted::Down);
            if lost.contains(&known.group) && after.pending.is_none() && is_off {
                if known.wish == Wanted::Up {
                    is_any_new = true;
                    withdrawn.push(known.group);
                }
                known.wish = Wanted::Down;
            }
        }
        if !is_any_new {
            break;
        }
    }
    for group in &mut host.model.groups {
        group.lost_a_group = false;
    }
}

/// Whether a group has failed, or has gone down in this step: no instance of it is up or about to be any more. A group
/// that was down before is waited for.
fn is_lost(host: &Host, id: GroupId, now: &[Snapshot]) -> bool {
    let members = || staying(host, id).filter_map(|known| of(now, known.id));
    members().any(is_failed) || (!members().any(|now| is_up(now) || is_moving(now)) && has_moved(host, id))
}

/// Whether an instance of a group was up or about to be, before this step or during it.
fn has_moved(host: &Host, id: GroupId) -> bool {
    let was_down = |then: &Snapshot| then.state == State::Stopped && then.pending.is_none();
    let has_moved = |known: &Instance| {
        let then = before_step(host, known.id);
        known.group == id && then.is_some_and(|then| !was_down(then) || then.runs != known.runs())
    };
    let is_new = |known: &Instance| known.group == id && before_step(host, known.id).is_none();
    let (present, departed) = (&host.model.instances, &host.model.departed);
    // A recovery has withdrawn starts that have waited for a group that is gone.
    let has_lost = host.model.group(id).is_some_and(|group| group.lost_a_group);
    // The starts of additional instances may be withdrawn at once, and these have left.
    let rolls = matches!(host.act, Act::Roll(of, _) if of == id);
    has_lost || rolls || present.iter().chain(departed).any(has_moved) || present.iter().any(is_new)
}

impl Host {
    /// Whether the next host describes a group with its order. Otherwise the group keeps the one that it has.
    pub(super) fn describes_order(&self, group: &Group) -> bool {
        let leaves = |&id: &GroupId| self.model.group(id).is_none_or(|group| group.leaving);
        let mut others = group.after.iter().chain(&group.requires);
        self.tally.steps % 2 != 0 && !others.any(leaves)
    }

    /// After a crash, no start waits that has waited for a group that is gone.
    pub(super) fn lacks_no_group(&self, group: &Group, instance: &Supervised) -> Result<(), Broken> {
        let is_start = instance.pending.is_some_and(Request::wants_up);
        let waits = match instance.life.state() {
            State::Stopped | State::Exited { .. } | State::Fatal { .. } => true,
            State::Stopping(_) | State::CleaningUp { .. } => instance.life.wanted() == Wanted::Down,
            _ => false,
        };
        let is_kept = !(self.describes_order(group) && !(group.after.is_empty() && group.requires.is_empty()));
        ensure(!(group.lost_a_group && is_kept && is_start && waits), || {
            "it is to be started without a group that it required".into()
        })
    }
}
