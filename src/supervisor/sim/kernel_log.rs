//! What was asked of the kernel in a step: whether it had to be, and whether it was right.

use std::time::Duration;

use super::act::Act;
use super::host::{Broken, Host, Snapshot};
use super::model::{Attempt, Group, Instance};
use super::oracle::{before, ensure};
use super::recipe::Label;
use super::world::{Did, Sight};
use crate::exit::Pid;
use crate::lifecycle::{Left, Policy, Scope, State, Stopping, Wanted};
use crate::signal::Signal;
use crate::supervisor::Request;
use crate::time::Instant;

/// Takes what happened over into the model, in the order in which it happened.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    let log = std::mem::take(&mut host.world.borrow_mut().log);
    let mut result = Ok(());
    for (place, did) in log.iter().enumerate() {
        result = result.and_then(|()| one(host, did, &log[..place], &log[place + 1..]));
    }
    host.world.borrow_mut().log = log;
    result
}

fn one(host: &mut Host, did: &Did, earlier: &[Did], later: &[Did]) -> Result<(), Broken> {
    host.tally.saw(did);
    if let Some(slot) = passing(host, did) {
        host.model.passing.push(slot);
        return Ok(());
    }
    match *did {
        Did::Spawn { owner, label, at, made } => spawned(host, owner, label, at, made),
        Did::Collect {
            owner,
            serial,
            hold,
            result: Ok(Sight::Ended(exit)),
        } => {
            if let Some(attempt) = host.attempt_mut(serial) {
                attempt.exit = Some(exit);
            }
            held(host, owner, hold)
        }
        Did::Signal {
            serial, signal, failed, ..
        } => {
            if let Some(attempt) = host.attempt_mut(serial) {
                attempt.killed |= signal == Signal::KILL;
                attempt.refused += u32::from(failed.is_some());
            }
            signalled(host, did, earlier, later)
        }
        Did::Release { owner, abandons, .. } => released(host, owner, abandons),
        Did::Collect { .. } | Did::Look { .. } | Did::Arm { .. } => Ok(()),
    }
}

/// Who was made for a restart that was over at once is gone already.
fn passing(host: &Host, did: &Did) -> Option<u32> {
    let (Did::Spawn { owner: slot, .. } | Did::Signal { owner: slot, .. } | Did::Release { owner: slot, .. }) = *did
    else {
        return None;
    };
    (matches!(host.act, Act::Roll(..)) && owner(host, slot).is_err()).then_some(slot)
}

/// Whoever lives in this slot, or has just left it.
fn owner(host: &Host, owner: u32) -> Result<(&Instance, &Group), Broken> {
    let instance = host
        .model
        .instances
        .iter()
        .find(|instance| instance.id.index() == owner)
        .ok_or("something was done for an instance that is not there")?;
    let group = host.model.group(instance.group).ok_or("its group is gone")?;
    Ok((instance, group))
}

/// Only who is wanted is spawned, and by the newest description.
fn spawned(host: &mut Host, slot: u32, label: Label, at: Instant, made: Result<(u64, Pid), i32>) -> Result<(), Broken> {
    let (instance, group) = owner(host, slot)?;
    ensure(instance.wish == Wanted::Up, || {
        format!("{:?} is spawned, and is not wanted", instance.id)
    })?;
    let expected = group.recipe.label(group.name, instance.number);
    ensure(label == expected, || {
        format!("{:?} is spawned as {label:?}, and should be {expected:?}", instance.id)
    })?;
    let (id, epoch, speaks) = (instance.id, group.epoch, group.recipe.socket);
    let attempt = Attempt {
        serial: made.map_or(0, |(serial, _)| serial),
        pid: made.ok().map(|(_, pid)| pid),
        at,
        epoch,
        exit: None,
        killed: false,
        speaks,
        refused: 0,
    };
    let instance = host.model.instances.iter_mut().find(|instance| instance.id == id);
    instance.ok_or("it is not there")?.attempts.push(attempt);
    Ok(())
}

/// The others stay within reach exactly where a run is not over before they are gone.
fn held(host: &Host, slot: u32, hold: bool) -> Result<(), Broken> {
    let (instance, group) = owner(host, slot)?;
    if before(host, instance.id).is_none_or(|before| before.pending.is_some()) {
        return Ok(());
    }
    let expected = group.policy.stop.scope() > Scope::Process;
    ensure(hold == expected, || {
        format!("{:?} is collected with hold {hold}", instance.id)
    })
}

/// Where the policy stops a group, nobody of it outlives a run: neither a stop, nor the end of the
/// process by itself.
fn released(host: &Host, slot: u32, abandons: bool) -> Result<(), Broken> {
    let (instance, group) = owner(host, slot)?;
    let concerned = group.policy.stop.scope() > Scope::Process;
    ensure(!(abandons && concerned), || {
        format!(
            "the run of {:?} is over, and others of its group are alive",
            instance.id
        )
    })
}

fn signalled(host: &Host, did: &Did, earlier: &[Did], later: &[Did]) -> Result<(), Broken> {
    let Did::Signal {
        owner: slot,
        serial,
        signal,
        scope,
        failed,
        at,
    } = *did
    else {
        return Ok(());
    };
    if matches!(host.act, Act::Signal(..)) {
        return Ok(());
    }
    let (instance, group) = owner(host, slot)?;
    if cleans_up(host, instance, group, serial) {
        return ensure(signal == Signal::KILL && scope == group.policy.stop.kill, || {
            format!("{:?} has ended, and {signal} goes to those it left", instance.id)
        });
    }
    if signal == Signal::KILL {
        not_killed_early(host, instance, group, at)?;
    }
    if signal == Signal::CONT {
        return Ok(());
    }
    let to_it = |did: &Did| match did {
        Did::Signal {
            serial: other, signal, ..
        } if *other == serial => Some(*signal),
        _ => None,
    };
    let precedes = earlier.last().and_then(to_it) == Some(Signal::CONT);
    let own_cont = usize::from(precedes && signal.is_stop() && signal != Signal::STOP);
    let is_first = earlier.iter().filter_map(to_it).count() == own_cont;
    first_rung(host, instance, group, is_first, (signal, scope))?;
    if failed.is_some() {
        return Ok(());
    }
    let follows = later.first().and_then(to_it) == Some(Signal::CONT);
    // That of another rung, whose time has come. If it is refused, the signal of that rung is not sent.
    let is_refused = matches!(later.first(), Some(Did::Signal { failed: Some(_), .. }));
    let is_anothers = is_refused || later.get(1).and_then(to_it).is_some_and(Signal::is_stop);
    let goes_on = match signal {
        Signal::KILL | Signal::STOP => true,
        // SIGCONT takes back a stop signal that is pending.
        Signal::TSTP | Signal::TTIN | Signal::TTOU => precedes && (!follows || is_anothers),
        _ => follows,
    };
    ensure(goes_on, || {
        format!(
            "{signal} to {:?}: SIGCONT before it: {precedes}, after it: {follows}",
            instance.id
        )
    })
}

/// What a process leaves in its group when it ends by itself is killed, if the policy stops groups.
fn cleans_up(host: &Host, instance: &Instance, group: &Group, serial: u64) -> bool {
    let ended = instance
        .attempts
        .last()
        .is_some_and(|last| last.serial == serial && last.exit.is_some());
    let stopping = before(host, instance.id).is_some_and(|before| matches!(before.state, State::Stopping(_)));
    ended && !stopping && group.policy.stop.scope() > Scope::Process
}

/// SIGKILL was asked for, or it goes again to those that are left, or every rung before it has been given its
/// time.
fn not_killed_early(host: &Host, instance: &Instance, group: &Group, at: Instant) -> Result<(), Broken> {
    if was_to_be_killed(host, instance) || was_killed(host, instance) {
        return Ok(());
    }
    let run = instance.attempts.len();
    let (since, epoch, _) = instance
        .stopping
        .filter(|&(_, _, of)| of == run)
        .unwrap_or((host.woken, group.epoch, run));
    let earliest = since.saturating_add(patience(&group.policy));
    ensure(epoch != group.epoch || at >= earliest, || {
        format!(
            "SIGKILL goes to {:?} at {at:?}, and is due at {earliest:?}",
            instance.id
        )
    })
}

fn was_killed(host: &Host, instance: &Instance) -> bool {
    let left = |before: &Snapshot| match before.state {
        State::Stopping(stopping) => stopping.rung == Stopping::SIGKILL && stopping.left != Left::Leader,
        _ => false,
    };
    before(host, instance.id).is_some_and(left)
}

fn was_to_be_killed(host: &Host, instance: &Instance) -> bool {
    let waits = before(host, instance.id).is_some_and(|before| before.pending == Some(Request::Kill));
    waits || matches!(host.act, Act::Ask(_, Request::Kill))
}

/// How long the ladder takes up to its first SIGKILL.
fn patience(policy: &Policy) -> Duration {
    let before_kill = policy.stop.rungs.iter().take_while(|rung| rung.signal != Signal::KILL);
    before_kill.fold(Duration::ZERO, |sum, rung| sum.saturating_add(rung.wait))
}

/// A stop begins with the first rung of the ladder.
fn first_rung(
    host: &Host,
    instance: &Instance,
    group: &Group,
    is_first: bool,
    sent: (Signal, Scope),
) -> Result<(), Broken> {
    let was_up = before(host, instance.id)
        .is_some_and(|before| matches!(before.state, State::Starting { .. } | State::Running { .. }));
    if !is_first || !was_up || was_to_be_killed(host, instance) {
        return Ok(());
    }
    let ladder = &group.policy.stop;
    let expected = ladder
        .rungs
        .first()
        .map_or((Signal::KILL, ladder.kill), |rung| (rung.signal, rung.scope));
    ensure(sent == expected, || {
        format!(
            "the stop of {:?} begins with {sent:?} instead of {expected:?}",
            instance.id
        )
    })
}
