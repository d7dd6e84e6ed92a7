//! The starts that were decided and have no process yet: they wait for their turn, or are withdrawn.

use super::host::{Broken, Host, Snapshot};
use super::model::{Attempt, Instance, Spawn};
use super::oracle::{before, ensure};
use super::siblings;
use crate::engine::instance::Instance as Supervised;
use crate::engine::request::Request;
use crate::lifecycle::{Lifecycle, Part, Wanted};
use crate::time::Instant;

/// A start waits only while the maximum of spawns is in flight, or behind another one that waits. If it is not wanted
/// any more, it is withdrawn.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    let waits = |before: &Snapshot| before.awaits_spawn();
    let mut may_wait = host.world.borrow().was_saturated.get() || host.before.iter().any(waits);
    may_wait |= host.commands_before.iter().any(|(_, before)| waits(before));
    // A start waits too if a stop is pending, which then withdraws it. Others wait behind it.
    may_wait |= host.model.instances.iter().any(|known| awaits_its_stop(host, known));
    let to_stop: Vec<_> = host
        .model
        .instances
        .iter()
        .filter(|known| is_to_stop(host, known))
        .map(|known| known.id)
        .collect();
    let now = host.world.borrow().now;
    let tied = siblings::tied(host);
    for known in &mut host.model.instances {
        let Some(instance) = host.driver.instances.get(known.id) else {
            // It has left. A start may have been decided and withdrawn in the same step.
            let may_wait = may_wait || to_stop.contains(&known.id);
            known.attempts.extend(may_wait.then(|| withdrawn(known, now)));
            continue;
        };
        // A request that was pending can have been served before a later one was submitted.
        let was_pending = |before: &Snapshot| before.id == known.id && before.pending.is_some();
        let was_pending = host.before.iter().any(was_pending);
        let group = host.model.groups.iter().find(|group| group.id == known.group);
        let begun = instance.life.runs().saturating_sub(known.runs());
        // A start that was decided may be put off for its siblings, and decided again.
        let is_right = begun <= u64::from(may_wait) || tied.contains(&known.group);
        ensure(is_right, || {
            format!(
                "{:?} has begun {begun} runs without a spawn, and may: {may_wait}",
                known.id
            )
        })?;
        let has = Conditions {
            may_wait,
            was_pending,
            before: group.is_some_and(|group| group.recipe.before.is_some()),
            after: group.is_some_and(|group| group.recipe.after.is_some()),
            epoch: group.map_or(0, |group| group.epoch),
        };
        host.has_waited |= follow(known, &instance.life, begun, &has, now)?;
    }
    Ok(())
}

/// What the waits of an instance depend on.
struct Conditions {
    may_wait: bool,
    was_pending: bool,
    /// Whether its group has a command before each run.
    before: bool,
    after: bool,
    epoch: u32,
}

/// Notes the runs that an instance has begun without a spawn, and those that it has withdrawn. Returns whether a start waits
/// that did not wait before.
fn follow(known: &mut Instance, life: &Lifecycle, begun: u64, has: &Conditions, now: Instant) -> Result<bool, Broken> {
    let state = *life.state();
    let waits = state.is_unspawned();
    let part = match state.part() {
        part if waits => part,
        _ if has.before => Part::Before,
        _ => Part::Program,
    };
    let has_it = |last: &Attempt| last.spawn == Spawn::Waits && last.part == part;
    let goes_on = begun == 0 && waits && !known.attempts.last().is_some_and(has_it);
    ensure(!goes_on || has.may_wait, || {
        format!("{:?} has no {part:?}, and need not wait", known.id)
    })?;
    let is_new = begun > 0 || goes_on;
    if is_new {
        put_off_before(&mut known.attempts, life.runs(), now);
        let place = (life.runs(), part);
        let since = state.since().unwrap_or(now);
        known.attempts.push(Attempt::waiting(place, since, has.epoch));
    }
    let is_left = state.part() == Part::After && life.wanted() == Wanted::Down;
    ensure(!(is_new && is_left), || {
        format!("the command after the last run of {:?} waits", known.id)
    })?;
    let Some(last) = known.attempts.last_mut() else {
        return Ok(is_new);
    };
    // The run is over, so the next program is that of another run.
    last.is_stopped |= !state.name().is_in_run();
    if last.spawn == Spawn::Waits && !waits {
        // A reload has removed the command.
        let is_removed = last.part == Part::After && !has.after;
        let is_put_off = siblings::is_put_off(&state, life.joint());
        ensure(
            known.wish == Wanted::Down || has.was_pending || is_removed || is_put_off,
            || format!("the start of {:?} was withdrawn, and it is wanted: {state:?}", known.id),
        )?;
        last.spawn = Spawn::Withdrawn;
    }
    ensure(waits == (last.spawn == Spawn::Waits), || {
        format!("{:?} is {state:?}, and its start is {:?}", known.id, last.spawn)
    })?;
    Ok(is_new)
}

/// A start that was decided and withdrawn in one step.
fn withdrawn(known: &Instance, now: Instant) -> Attempt {
    Attempt {
        spawn: Spawn::Withdrawn,
        ..Attempt::waiting(known.next(Part::Before), now, 0)
    }
}

/// Whether a run of this instance, or its program after the command before it, has begun without a spawn, because a stop
/// of it is or was pending. The stop was pending before the step, or a rolling restart that ended in the step has
/// requested it.
fn awaits_its_stop(host: &Host, known: &Instance) -> bool {
    let is_prepared = known.attempts.last().is_some_and(|last| last.part == Part::Before);
    let begins = |instance: &Supervised| {
        let state = instance.life.state();
        instance.life.runs() > known.runs() || (is_prepared && state.is_unspawned() && state.part() == Part::Program)
    };
    is_to_stop(host, known) && host.driver.instances.get(known.id).is_some_and(begins)
}

/// Whether a stop of this instance is or was pending.
fn is_to_stop(host: &Host, known: &Instance) -> bool {
    let stops = |before: &Snapshot| matches!(before.pending, Some(Request::Stop | Request::Kill));
    known.wish == Wanted::Down || before(host, known.id).is_some_and(stops)
}

/// The runs before this one that were not spawned were put off, because a sibling has ended.
pub(super) fn put_off_before(attempts: &mut Vec<Attempt>, run: u64, at: Instant) {
    let waiting = attempts.last_mut().filter(|last| last.spawn == Spawn::Waits);
    if let Some(waiting) = waiting.filter(|waiting| waiting.run < run) {
        waiting.spawn = Spawn::Withdrawn;
    }
    let last = attempts.last().map_or(0, |last| last.run);
    attempts.extend((last + 1..run).map(|run| Attempt {
        spawn: Spawn::Withdrawn,
        ..Attempt::waiting((run, Part::Program), at, 0)
    }));
}
