//! The causes of stops, and of starts that are withdrawn: the host, a sibling, or a group that is required.
//!
//! The model keeps why each instance may be stopped: the host has requested it, or something else of which the model knows
//! what follows. The events that a step has added to the queue are compared with that, before the host fetches them.

use super::act::Act;
use super::host::{Broken, Host, Snapshot, snapshots};
use super::model::{Group, Instance};
use super::oracle::{before as before_step, ensure};
use crate::engine::event::{Event, TransitionEvent};
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::request::Request;
use crate::lifecycle::{Cause, Joint, StateName, Strategy, Wanted};

/// Every cause of a stop that a request makes.
const ALL: [Cause; 3] = [Cause::Requested, Cause::SiblingEnded, Cause::RequirementStopped];

/// Why an instance may be stopped.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// The reasons of the requests since the last one that has taken effect.
    now: Vec<Cause>,
    /// Those before this step. What was decided before a request of the step follows from them.
    before: Vec<Cause>,
}

impl Reasons {
    /// The last request was made for this reason, and replaces what was requested before.
    pub(super) fn replace(&mut self, by: Cause) {
        self.before.append(&mut self.now);
        self.now.push(by);
    }

    /// A request can have been made for this reason too.
    pub(super) fn add(&mut self, another: Cause) {
        if !self.now.contains(&another) {
            self.now.push(another);
        }
    }

    fn contains(&self, cause: Cause) -> bool {
        self.now.contains(&cause) || self.before.contains(&cause)
    }
}

/// Checks the causes in the events of this step. `rolling` are the groups in a rolling restart, now or before it.
pub(super) fn check(host: &mut Host, rolling: &[GroupId]) -> Result<(), Broken> {
    let has_another_host = matches!(host.act, Act::Reexec(_) | Act::Crash(_));
    if !has_another_host {
        let pushed = host.driver.events.pushed().saturating_sub(host.pushed);
        let waiting = host.driver.events.waiting();
        let (left, new) = (waiting.len(), usize::try_from(pushed).unwrap_or(usize::MAX));
        let events: Vec<_> = waiting.skip(left.saturating_sub(new)).collect();
        let are_all = events.len() == new;
        for event in &events {
            let checked = match event {
                Event::Transition(step) => stops_for_its_reason(host, step, rolling),
                Event::StartWithdrawn {
                    instance, group, cause, ..
                } => withdrawn_for_its_reason(host, *instance, *group, *cause, are_all.then_some(&events)),
                _ => Ok(()),
            };
            checked.map_err(|broken| format!("{broken}: {event:?}"))?;
        }
    }
    let now: Vec<_> = snapshots(&host.driver).collect();
    for known in &mut host.model.instances {
        known.reasons.before.clear();
        if matches!(host.act, Act::Crash(_)) {
            // The records may be those before the last request, or those after it.
            ALL.iter().for_each(|&cause| known.reasons.add(cause));
        }
        let is_settled = now.iter().any(|now| now.id == known.id && now.pending.is_none());
        if known.wish == Wanted::Up && is_settled {
            known.reasons.now.clear();
        }
    }
    Ok(())
}

fn find(host: &Host, id: InstanceId) -> Option<&Instance> {
    let all = host.model.instances.iter().chain(&host.model.departed);
    all.into_iter().find(|known| known.id == id)
}

/// A stop on request begins, or a start is withdrawn, for a reason that there is.
fn stops_for_its_reason(host: &Host, step: &TransitionEvent, rolling: &[GroupId]) -> Result<(), Broken> {
    let is_stop = matches!(
        step.to,
        StateName::Stopping | StateName::Stopped | StateName::CleaningUp | StateName::Backoff
    );
    let Some(known) = find(host, step.instance).filter(|_| is_stop && ALL.contains(&step.cause)) else {
        return Ok(());
    };
    let then = before_step(host, known.id);
    let is_right = match step.cause {
        _ if known.reasons.contains(step.cause) => true,
        Cause::Requested => {
            // What the host has requested can be followed by a stop for another reason, and stays as it is.
            let is_asked = |then: &Snapshot| matches!(then.pending, Some(Request::Restart | Request::Kill));
            let is_asked = then.is_some_and(is_asked);
            let is_reloaded = matches!(host.act, Act::Reload(id, _) if id == known.group);
            is_asked || is_reloaded || rolling.contains(&known.group)
        }
        Cause::SiblingEnded => ends_with_a_sibling(host, known, step),
        _ => false,
    };
    ensure(is_right, || {
        format!("the cause of a stop is wrong, it could be {:?}", known.reasons)
    })
}

/// Whether a run, or a wait for the next one, may end together with that of a sibling.
fn ends_with_a_sibling(host: &Host, known: &Instance, step: &TransitionEvent) -> bool {
    let then = before_step(host, known.id);
    // It was told before this step, or was still to be told.
    if then.is_some_and(|then| then.joint != Joint::None) || host.telling_before.contains(&known.group) {
        return true;
    }
    let strategy = host.model.group(known.group).map(|group| group.policy.strategy);
    let concerns = |other: &Instance| match strategy {
        None | Some(Strategy::OneForOne) => false,
        Some(Strategy::RestForOne) => known.number > other.number,
        Some(_) => known.number != other.number,
    };
    let all = host.model.instances.iter().chain(&host.model.departed);
    let mut siblings = all.filter(|other| other.group == known.group && concerns(other));
    let now: Vec<_> = snapshots(&host.driver).collect();
    let may_have_ended = |other: &Instance| {
        let (then, now) = (before_step(host, other.id), now.iter().find(|now| now.id == other.id));
        let (Some(then), Some(now)) = (then, now) else {
            return true;
        };
        let has_moved = then.runs != now.runs || then.serial != now.serial || then.state.name() != now.state.name();
        has_moved || then.joint == Joint::Tells
    };
    step.to != StateName::Stopped && siblings.any(may_have_ended)
}

/// A start that waited for other groups is withdrawn for a reason that there is. `events` are those of the step, if none
/// of them was dropped.
fn withdrawn_for_its_reason(
    host: &Host,
    id: InstanceId,
    group: GroupId,
    cause: Cause,
    events: Option<&Vec<&Event>>,
) -> Result<(), Broken> {
    let (Some(known), Some(group)) = (find(host, id), host.model.group(group)) else {
        return Ok(());
    };
    let is_right = match (cause, events) {
        _ if known.reasons.contains(cause) => true,
        (Cause::RequirementRemoved, _) => group.lost_a_group,
        (Cause::RequirementStopped, Some(events)) => {
            let has_stopped = |event: &&Event| match event {
                Event::Transition(step) => is_required(group, step.group) && step.to == StateName::Stopped,
                _ => false,
            };
            events.iter().any(has_stopped)
        }
        (Cause::RequirementFailed, Some(events)) => {
            events.iter().any(|event| has_failed(group, event))
                || host.before.iter().any(|then| had_failed(host, group, then))
        }
        (Cause::RequirementStopped | Cause::RequirementFailed, None) => !group.requires.is_empty(),
        _ => false,
    };
    ensure(is_right, || {
        format!(
            "the cause of a start that is withdrawn is wrong, it could be {:?}",
            known.reasons
        )
    })
}

fn is_required(group: &Group, by: GroupId) -> bool {
    group.requires.contains(&by)
}

/// Whether this event is a failure of a group that is required. A start of it that is withdrawn is one.
fn has_failed(group: &Group, event: &Event) -> bool {
    match event {
        Event::Transition(step) => {
            is_required(group, step.group) && matches!(step.to, StateName::Fatal | StateName::Exited)
        }
        Event::StartWithdrawn { group: of, .. } => is_required(group, *of) || group.lost_a_group,
        _ => false,
    }
}

fn had_failed(host: &Host, group: &Group, then: &Snapshot) -> bool {
    let is_failed = matches!(then.state.name(), StateName::Fatal | StateName::Exited);
    is_failed && find(host, then.id).is_some_and(|known| is_required(group, known.group))
}
