//! Checks the log of the kernel: whether each call was needed, and whether it was right.

use std::time::Duration;

use super::act::Act;
use super::fault_profile::READY;
use super::host::{Broken, Host, Snapshot};
use super::model::{Attempt, Group, Instance, Spawn};
use super::oracle::{before, ensure};
use super::recipe::Label;
use super::reexec::Redescribed;
use super::world::{Did, Sight};
use super::{siblings, stop_commands, stored, waiting_starts};
use crate::engine::ids::InstanceId;
use crate::engine::request::Request;
use crate::exit::{Exit, Pid};
use crate::lifecycle::{Joint, Part, Remaining, Rung, Scope, State, StopLadder, Stopping, Wanted};
use crate::signal::Signal;
use crate::time::Instant;

/// Applies the log to the model, in order. The step may have ended in the middle, together with the host.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    host.senders.clear();
    host.early_reports.clear();
    let log = std::mem::take(&mut host.world.borrow_mut().log);
    let mut result = Ok(());
    // The actions of processes come first: they may occur between any two calls.
    let (sent, calls): (Vec<Did>, Vec<Did>) = log.iter().partition(|did| matches!(did, Did::Send { .. }));
    for log in [sent, calls] {
        for (place, did) in log.iter().enumerate() {
            result = result.and_then(|()| one(host, did, &log[..place], &log[place + 1..]));
        }
    }
    host.world.borrow_mut().log = log;
    note_executions(host);
    result
}

/// The engine got the end of a process.
fn ended(host: &mut Host, serial: u64, exit: Exit, later: &[Did]) {
    let Some(attempt) = host.attempt_mut(serial) else {
        return;
    };
    attempt.exit = Some(exit);
    let copy = *attempt;
    if has_given_its_number_away(host, &copy) {
        // Its last messages, which are still in the queue, will be dropped.
        host.attempt_mut(serial)
            .into_iter()
            .for_each(|it| it.reported_ready = false);
    }
    if copy.spawn != Spawn::InFlight {
        return;
    }
    let Some(attempt) = host.attempt_mut(serial) else {
        return;
    };
    // Only a program that was executed can have started others. If the kernel cannot answer, this is assumed.
    let has_others = match later.first() {
        Some(Did::Look {
            result: Ok(is_empty), ..
        }) => !is_empty,
        Some(Did::Look { result: Err(_), .. }) => attempt.is_foreign,
        _ => false,
    };
    if has_others {
        attempt.spawn = Spawn::Executed;
        attempt.reported_ready_by_host |= attempt.executed.is_none();
    } else {
        // If it was executed, the supervisor could not learn that.
        attempt.is_unseen = true;
    }
    host.tally.saw_end_in_flight();
}

/// The engine got the news of an execution; `None` if it could not be executed.
fn landed(host: &mut Host, serial: u64, executed: Option<Instant>) -> Result<(), Broken> {
    let owner = owner_of(host, serial).ok();
    let is_undescribed = owner.is_some_and(|(known, group)| known.wish == Wanted::Up && group.recipe.before.is_none());
    if let Some(attempt) = host.attempt_mut(serial) {
        attempt.is_skipped =
            is_undescribed && attempt.part == Part::Before && executed.is_none() && !attempt.is_stopped;
        attempt.spawn = if executed.is_some() {
            Spawn::Executed
        } else {
            Spawn::Failed
        };
        attempt.executed = executed;
    }
    Ok(())
}

/// Notes which programs were executed, whether the engine has got the report or not.
fn note_executions(host: &mut Host) {
    let world = host.world.borrow();
    let last = host
        .model
        .instances
        .iter_mut()
        .filter_map(|known| known.attempts.last_mut());
    for attempt in last.filter(|last| last.spawn == Spawn::InFlight && last.exit.is_none()) {
        let process = world.process(attempt.serial);
        attempt.executed = process.and_then(|process| process.executed).or(attempt.executed);
    }
}

fn one(host: &mut Host, did: &Did, earlier: &[Did], later: &[Did]) -> Result<(), Broken> {
    host.tally.saw(did);
    if stop_commands::one(host, did)? {
        return Ok(());
    }
    if is_passing(host, did, earlier, later) {
        return Ok(());
    }
    match *did {
        Did::Spawn {
            owner,
            label,
            run,
            at,
            made,
            flies,
            is_beyond,
            passed,
        } => {
            let id = owner_in(host, owner, earlier, later).ok_or(NOT_THERE)?;
            ensure(!is_beyond || label.part != Part::After || is_unwanted(host, id), || {
                format!("the command after a run of {id:?} does not wait, and a restart follows")
            })?;
            spawned(host, id, (label, run), at, made, flies)?;
            gets_stored(host, id, label.part, passed)
        }
        Did::Collect {
            serial,
            result: Ok(Sight::Executed(at)),
            ..
        }
        | Did::SeeExecution { serial, at } => landed(host, serial, Some(at)),
        Did::Collect {
            serial,
            result: Ok(Sight::NotExecuted(_)),
            ..
        } => landed(host, serial, None),
        Did::Collect {
            serial,
            hold,
            result: Ok(Sight::Ended(exit)),
            ..
        } => {
            ended(host, serial, exit, later);
            held(host, serial, hold)
        }
        Did::Signal {
            serial, signal, failed, ..
        } => {
            note_signal(host, serial, signal, failed.is_some());
            signalled(host, did, earlier, later)
        }
        Did::Release { serial, abandons, .. } => released(host, serial, abandons),
        Did::Send { serial, text } => {
            note_sent(host, serial, text);
            Ok(())
        }
        Did::Take(taken) => {
            host.taken.push_back(taken);
            Ok(())
        }
        Did::Receive { serial, owner, .. } => {
            stored::received(host, did);
            received(host, serial, owner)
        }
        Did::Collect { .. } | Did::Look { .. } | Did::Arm { .. } | Did::Leave { .. } => Ok(()),
    }
}

/// What a signal means for the attempt of a process that gets it.
fn note_signal(host: &mut Host, serial: u64, signal: Signal, is_refused: bool) {
    let is_stop = !matches!(host.act, Act::Signal(..));
    if let Some(attempt) = host.attempt_mut(serial) {
        attempt.is_stopped |= is_stop && attempt.exit.is_none();
        attempt.killed |= signal == Signal::KILL;
        attempt.refused += u32::from(is_refused);
    }
}

/// What a message means for the attempt of a process that sends it.
fn note_sent(host: &mut Host, serial: u64, text: &str) {
    match host.attempt_mut(serial) {
        Some(attempt) => attempt.reported_ready |= is_ready(text) && attempt.may_notify,
        // The process was spawned in this step and has already sent this.
        None if is_ready(text) => host.early_reports.push(serial),
        None => {}
    }
}

/// An instance that was added for a restart with an immediate end may be removed already.
fn is_passing(host: &Host, did: &Did, earlier: &[Did], later: &[Did]) -> bool {
    let (Did::Spawn { owner: slot, .. } | Did::Signal { owner: slot, .. } | Did::Release { owner: slot, .. }) = *did
    else {
        return false;
    };
    matches!(host.act, Act::Roll(..)) && owner_in(host, slot, earlier, later).is_none()
}

fn is_ready(text: &str) -> bool {
    text.lines().any(|line| line == READY)
}

/// A message is attributed to its sender's instance, even if the sender has ended since.
fn received(host: &mut Host, serial: u64, owner: Option<InstanceId>) -> Result<(), Broken> {
    let all = host.model.instances.iter().chain(&host.model.departed);
    let sender = all
        .into_iter()
        .find(|known| known.attempts.iter().any(|attempt| attempt.serial == serial));
    let Some(sender) = sender.map(|known| known.id) else {
        if let Some(owner) = owner {
            // The sender has left, and another process has got its number since.
            host.senders.push(owner);
            let mut known = host.model.instances.iter_mut();
            let last = known
                .find(|known| known.id == owner)
                .and_then(|known| known.attempts.last_mut());
            if let Some(last) = last {
                last.reported_ready_by_host = true;
            }
        }
        // The instance was added and removed in the step in which a restart began.
        return Ok(());
    };
    host.senders.push(sender);
    let all = host.model.instances.iter().chain(&host.model.departed);
    let sent_by = all
        .flat_map(|known| &known.attempts)
        .find(|attempt| attempt.serial == serial);
    let Some(sent_by) = sent_by.copied() else { return Ok(()) };
    let may_be_taken_for = |owner| sent_by.is_foreign || are_both_reaped(host, owner, &sent_by);
    if let Some(owner) = owner.filter(|&owner| owner != sender && may_be_taken_for(owner)) {
        return has_its_number(host, owner, &sent_by);
    }
    if owner.is_none() && has_given_its_number_away(host, &sent_by) {
        // Its report is lost.
        if let Some(attempt) = host.attempt_mut(serial) {
            attempt.reported_ready = false;
        }
        return Ok(());
    }
    let expected = sent_by.may_notify.then_some(sender);
    ensure(owner == expected, || {
        format!("a message of {sender:?} is taken for one of {owner:?}")
    })
}

/// The message of a process that has ended is taken for one of the process that has got its number since.
fn has_its_number(host: &mut Host, owner: InstanceId, sender: &Attempt) -> Result<(), Broken> {
    host.senders.push(owner);
    let mut known = host.model.instances.iter_mut();
    let last = known
        .find(|known| known.id == owner)
        .and_then(|known| known.attempts.last_mut());
    let last = last.filter(|last| last.pid == sender.pid);
    let last = last.ok_or_else(|| format!("a message of {sender:?} is taken for one of {owner:?}"))?;
    last.reported_ready_by_host = true;
    Ok(())
}

/// Whether the sender of a message was reaped, and so was the process of this instance with the same number: by another
/// parent, or by the host, which had seen it alive just before and has not read its last messages. No pidfd tells the two
/// apart: the message may be the last one of that process.
fn are_both_reaped(host: &Host, owner: InstanceId, sender: &Attempt) -> bool {
    let last = host.model.instance(owner).and_then(|known| known.attempts.last());
    let last = last.filter(|last| last.pid == sender.pid);
    sender.exit.is_some() && last.is_some_and(|last| last.is_foreign || last.exit.is_some())
}

/// Whether another process of the host has got the number of this one, which another parent has reaped. A message is found
/// by the number of its sender, so the last messages of this one are dropped.
fn has_given_its_number_away(host: &Host, sender: &Attempt) -> bool {
    let all = host.model.instances.iter().chain(&host.model.departed);
    let mut attempts = all.flat_map(|known| &known.attempts);
    sender.is_foreign && attempts.any(|other| other.serial > sender.serial && other.pid == sender.pid)
}

/// The instance that was in this slot at a moment of the step. In one step an instance may leave the slot and another one
/// may enter it. `None` for one that has done both.
fn owner_in(host: &Host, slot: u32, earlier: &[Did], later: &[Did]) -> Option<InstanceId> {
    let leaves = |did: &Did| matches!(did, Did::Leave { owner } if *owner == slot);
    let mut known = host.model.instances.iter().map(|known| known.id);
    let was_there = |id: &InstanceId| host.before.iter().any(|before| before.id == *id);
    let first = known.clone().find(|id| id.index() == slot && was_there(id));
    if let Some(first) = first.filter(|_| !earlier.iter().any(leaves)) {
        return Some(first);
    }
    let is_there = |id: &InstanceId| host.driver.instances.get(*id).is_some();
    let last = known.find(|id| id.index() == slot && is_there(id));
    last.filter(|_| !later.iter().any(leaves))
}

/// The instance with this process.
fn owner_of(host: &Host, serial: u64) -> Result<(&Instance, &Group), Broken> {
    let mut known = host.model.instances.iter();
    let owner = known.find(|known| known.attempts.iter().any(|attempt| attempt.serial == serial));
    with_group(host, owner)
}

const NOT_THERE: &str = "something was done for an instance that is not there";

fn with_group<'a>(host: &'a Host, instance: Option<&'a Instance>) -> Result<(&'a Instance, &'a Group), Broken> {
    let instance = instance.ok_or(NOT_THERE)?;
    let group = host.model.group(instance.group).ok_or("its group is gone")?;
    Ok((instance, group))
}

/// Whether an instance was to stay down at some time of the step: a start may have been requested after the spawn, a
/// pending stop may have been applied before it, or a rolling restart may have ended. What a recovery finds beyond the
/// size of its group stays down until the description of the host makes the group larger.
fn is_unwanted(host: &Host, id: InstanceId) -> bool {
    let is_down = |known: &Instance| known.wish == Wanted::Down;
    let is_stop = |pending| matches!(pending, Request::Stop | Request::Kill);
    let was_down = |before: &Snapshot| !before.was_wanted || before.pending.is_some_and(is_stop);
    let known = host.model.instance(id);
    let grows = |known: &Instance| match &host.act {
        Act::Crash(crash) => {
            matches!(crash.change, Some(Redescribed::Resized(group, _)) if group.index() == known.group.index())
        }
        _ => false,
    };
    known.is_none_or(|known| is_down(known) || grows(known))
        || before(host, id).is_some_and(was_down)
        || host.driver.is_retiring(id)
}

/// Only a wanted instance is spawned, and with the newest description.
fn spawned(
    host: &mut Host,
    id: InstanceId,
    (label, announced): (Label, u64),
    at: Instant,
    made: Result<(u64, Pid), i32>,
    flies: bool,
) -> Result<(), Broken> {
    let (instance, group) = with_group(host, host.model.instance(id))?;
    // The command after a run is spawned whatever is wanted.
    let is_wanted = instance.wish == Wanted::Up || group.is_just_stopped;
    ensure(is_wanted || label.part == Part::After, || {
        format!("{:?} is spawned, and is not wanted", instance.id)
    })?;
    let mut expected = group.recipe.label_of(label.part, group.name, instance.number);
    if let (Some(expected), Part::After, Wanted::Down) = (&mut expected, label.part, instance.wish) {
        // An instance that leaves keeps its cgroup when its group gets another name or another directory.
        expected.home = label.home;
    }
    ensure(Some(label) == expected, || {
        format!("{:?} is spawned as {label:?}, and should be {expected:?}", instance.id)
    })?;
    let epoch = group.epoch;
    let may_notify = group.recipe.is_heard() && label.part == Part::Program;
    let most_stored = group.recipe.most_stored;
    let place = in_its_order(host, instance, group, label.part, announced)?;
    let attempt = Attempt {
        serial: made.map_or(0, |(serial, _)| serial),
        pid: made.ok().map(|(_, pid)| pid),
        spawn: match made {
            Ok(_) if flies => Spawn::InFlight,
            Ok(_) => Spawn::Executed,
            Err(_) => Spawn::Failed,
        },
        executed: (made.is_ok() && !flies).then_some(at),
        may_notify,
        most_stored,
        ..Attempt::waiting(place, at, epoch)
    };
    let reported_ready = may_notify && host.early_reports.contains(&attempt.serial);
    for other in &mut host.model.instances {
        let waiting = other.attempts.last_mut().filter(|last| last.spawn == Spawn::Waits);
        if let Some(waiting) = waiting.filter(|_| other.id != id) {
            waiting.overtaken += 1;
        }
    }
    let instance = host.model.instances.iter_mut().find(|instance| instance.id == id);
    let attempts = &mut instance.ok_or("it is not there")?.attempts;
    if let Some(last) = attempts.last_mut().filter(|last| last.spawn == Spawn::Waits) {
        if (last.part == Part::After) != (attempt.part == Part::After) {
            last.spawn = Spawn::Withdrawn;
        }
    }
    waiting_starts::put_off_before(attempts, attempt.run, at);
    attempts.pop_if(|last| last.spawn == Spawn::Waits);
    attempts.push(Attempt {
        reported_ready,
        ..attempt
    });
    Ok(())
}

/// The program of an instance gets what it has stored. The commands around a run get nothing.
fn gets_stored(host: &mut Host, id: InstanceId, part: Part, passed: u64) -> Result<(), Broken> {
    let (_, group) = with_group(host, host.model.instance(id))?;
    let most = group.recipe.most_stored;
    if part != Part::Program {
        return ensure(passed == 0, || format!("{part:?} of {id:?} gets stored descriptors"));
    }
    let known = host.model.instances.iter_mut().find(|known| known.id == id);
    known.map_or(Ok(()), |known| stored::passed(known, most, passed))
}

/// The run that a spawn belongs to. The program is started when the command before it has succeeded, and the command
/// after a run is started once, when the run is over. With siblings, runs may have been put off in the same step before
/// the one that the engine has announced.
fn in_its_order(
    host: &Host,
    instance: &Instance,
    group: &Group,
    part: Part,
    announced: u64,
) -> Result<(u64, Part), Broken> {
    let last = instance.attempts.last();
    let first = group.recipe.before.map_or(Part::Program, |_| Part::Before);
    let waits = last.is_some_and(|last| last.spawn == Spawn::Waits);
    let was_put_off = announced > instance.runs() + u64::from(!waits);
    if part == first && was_put_off && siblings::are_tied(host, group.id) {
        return Ok((announced, part));
    }
    // A command after a run that waits for its turn is skipped when it is not described any more.
    let is_skipped = |last: &Attempt| last.part == Part::After && part != Part::After && group.recipe.after.is_none();
    if let Some(waiting) = last.filter(|last| last.spawn == Spawn::Waits && !is_skipped(last)) {
        let is_withdrawn = part == Part::After && waiting.part == Part::Program;
        let is_without = part == Part::Program && group.recipe.before.is_none();
        ensure(waiting.part == part || is_withdrawn || is_without, || {
            format!(
                "{:?} waits for {:?}, and {part:?} is spawned",
                instance.id, waiting.part
            )
        })?;
        return Ok((waiting.run, part));
    }
    let (goes_on, _) = instance.next(part);
    // A stop, on request or with the siblings, has ended the run if it came before the end of a command that is not
    // described any more, and so has an end with an unknown status.
    let is_undescribed = part == Part::Program && goes_on == instance.runs() && group.recipe.before.is_none();
    let runs = host.driver.instances.get(instance.id).map(|engine| engine.life.runs());
    let was_stopped = before(host, instance.id)
        .is_some_and(|before| (!before.was_wanted || before.joint != Joint::None) && before.runs == goes_on);
    let is_lost = last.is_some_and(|last| last.is_foreign && last.exit == Some(Exit::Unknown));
    let run = match runs {
        Some(runs) if is_undescribed && (was_stopped || is_lost) && runs > goes_on => goes_on + 1,
        _ => goes_on,
    };
    let is_next = match part {
        Part::Before => true,
        Part::After => last.is_some_and(leaves_something),
        _ => run == instance.runs() || group.recipe.before.is_none(),
    };
    ensure(is_next, || {
        format!("{:?} has {part:?} spawned, and the last was {last:?}", instance.id)
    })?;
    Ok((run, part))
}

/// Whether a run that ends with this attempt leaves something for the command after it.
pub(super) fn leaves_something(last: &Attempt) -> bool {
    match last.part {
        Part::After => false,
        _ => last.exit.is_some() || last.has_failed() || last.spawn == Spawn::Withdrawn,
    }
}

/// The other processes of a scope are kept in reach exactly if the run ends with the last of them.
fn held(host: &Host, serial: u64, hold: bool) -> Result<(), Broken> {
    let (instance, group) = owner_of(host, serial)?;
    if before(host, instance.id).is_none_or(|before| before.pending.is_some()) {
        return Ok(());
    }
    let mut ladders = instance.ladders(&group.policy);
    let is_expected = ladders.any(|ladder| hold == (ladder.scope() > Scope::Process));
    ensure(is_expected, || {
        format!("{:?} is collected with hold {hold}", instance.id)
    })
}

/// If the policy stops a group, no process of the group outlives a run, whether the run was stopped or ended by itself.
fn released(host: &Host, serial: u64, abandons: bool) -> Result<(), Broken> {
    let (instance, group) = owner_of(host, serial)?;
    let mut ladders = instance.ladders(&group.policy);
    let concerned = ladders.all(|ladder| ladder.scope() > Scope::Process);
    ensure(!(abandons && concerned), || {
        format!(
            "the run of {:?} is over, and others of its group are alive",
            instance.id
        )
    })
}

fn signalled(host: &Host, did: &Did, earlier: &[Did], later: &[Did]) -> Result<(), Broken> {
    let Did::Signal {
        serial,
        signal,
        scope,
        failed,
        at,
        ..
    } = *did
    else {
        return Ok(());
    };
    if matches!(host.act, Act::Signal(..)) {
        return Ok(());
    }
    let (instance, group) = owner_of(host, serial)?;
    let was_stopped = earlier
        .iter()
        .any(|did| matches!(did, Did::Signal { serial: other, .. } if *other == serial));
    if !was_stopped && cleans_up(host, instance, group, serial) {
        let ladders = || instance.ladders(&group.policy);
        let kills = signal == Signal::KILL && ladders().any(|ladder| scope == ladder.kill);
        // A message that was received when its end was known may have led to a stop by the ladder: its own message, or
        // one that ended a rolling restart.
        // A stop that begins with a command begins without a signal.
        let begins_with_command = ladders().any(|ladder| ladder.rung(0).1.signal().is_none());
        let is_stopped = is_heard_out(earlier, serial) || begins_with_command;
        ensure(kills || is_stopped, || {
            format!("{:?} has ended, and {signal} goes to those it left", instance.id)
        })?;
        if kills {
            return Ok(());
        }
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
    let next_stops = later.get(1).and_then(to_it).is_some_and(Signal::is_stop);
    let goes_on = goes_with_sigcont(host, signal, (precedes, follows), next_stops, later);
    ensure(goes_on, || {
        format!(
            "{signal} to {:?}: SIGCONT before it: {precedes}, after it: {follows}",
            instance.id
        )
    })
}

/// Whether SIGCONT was sent with this signal as it should be: `sent` is whether before it, and after it. `next_stops` is
/// whether a stop signal to the same process comes after the next signal.
fn goes_with_sigcont(host: &Host, signal: Signal, sent: (bool, bool), next_stops: bool, later: &[Did]) -> bool {
    let (precedes, follows) = sent;
    // The SIGCONT of another rung that is due now. If it is refused, the signal of that rung is not sent.
    let is_refused = matches!(later.first(), Some(Did::Signal { failed: Some(_), .. }));
    // A host that is killed may not come to the second signal.
    let is_cut_off = host.is_killed && later.len() == 1;
    let is_anothers = is_refused || is_cut_off || next_stops;
    match signal {
        _ if later.is_empty() && host.is_killed => true,
        Signal::KILL | Signal::STOP => true,
        // SIGCONT discards a pending stop signal.
        Signal::TSTP | Signal::TTIN | Signal::TTOU => precedes && (!follows || is_anothers),
        _ => follows,
    }
}

/// Whether messages were received after the end of this process was collected, and before that end was judged.
fn is_heard_out(earlier: &[Did], ended: u64) -> bool {
    let is_end =
        |did: &Did| matches!(did, Did::Collect { serial, result: Ok(Sight::Ended(_)), .. } if *serial == ended);
    let since = earlier.iter().rposition(is_end).unwrap_or(0);
    let is_message = |did: &Did| matches!(did, Did::Receive { .. });
    earlier.iter().skip(since).any(is_message)
}

/// The processes that are left in the group after an end by itself are killed if the policy stops groups.
fn cleans_up(host: &Host, instance: &Instance, group: &Group, serial: u64) -> bool {
    let ended = instance
        .attempts
        .last()
        .is_some_and(|last| last.serial == serial && last.exit.is_some());
    let is_stopping = |before: &Snapshot| before.serial == Some(serial) && matches!(before.state, State::Stopping(_));
    let stopping = before(host, instance.id).is_some_and(is_stopping);
    let mut ladders = instance.ladders(&group.policy);
    ended && !stopping && ladders.any(|ladder| ladder.scope() > Scope::Process)
}

/// SIGKILL is sent only if it was requested, if it is sent again to the remaining processes, or if every rung before it
/// has had its time.
fn not_killed_early(host: &Host, instance: &Instance, group: &Group, at: Instant) -> Result<(), Broken> {
    if was_to_be_killed(host, instance) || was_killed(host, instance) || is_sent_again(host, instance) {
        return Ok(());
    }
    let run = instance.attempts.len();
    // A stop of this step began before the last of its calls: a recovery makes two.
    let (since, epoch, _) =
        instance
            .stopping
            .filter(|&(_, _, of)| of == run)
            .unwrap_or((host.woken.min(at), group.epoch, run));
    let earliest = since.saturating_add(patience(instance.ladders(&group.policy)));
    ensure(epoch != group.epoch || at >= earliest, || {
        format!(
            "SIGKILL goes to {:?} at {at:?}, and is due at {earliest:?}",
            instance.id
        )
    })
}

fn was_killed(host: &Host, instance: &Instance) -> bool {
    let left = |before: &Snapshot| match before.state {
        State::Stopping(stopping) => stopping.rung == Stopping::SIGKILL && stopping.remaining != Remaining::Leader,
        _ => false,
    };
    before(host, instance.id).is_some_and(left)
}

/// Whether the host has recovered, and sends the last signal of the one before it again.
fn is_sent_again(host: &Host, instance: &Instance) -> bool {
    let is_at_the_end =
        |before: &Snapshot| matches!(before.state, State::Stopping(stopping) if stopping.rung == Stopping::SIGKILL);
    matches!(host.act, Act::Crash(_)) && before(host, instance.id).is_some_and(is_at_the_end)
}

fn was_to_be_killed(host: &Host, instance: &Instance) -> bool {
    let waits = before(host, instance.id).is_some_and(|before| before.pending == Some(Request::Kill));
    waits || matches!(host.act, Act::Request(_, Request::Kill))
}

/// The time from the beginning of a stop to its first SIGKILL, at least. A command may fail at once, and a stop may change
/// from one of these ladders to another one between two rungs.
fn patience<'a>(ladders: impl Iterator<Item = &'a StopLadder> + Clone) -> Duration {
    let mut patience = Duration::ZERO;
    for number in 0..=StopLadder::LIMIT {
        let rungs = ladders.clone().map(|ladder| ladder.rungs.get(number));
        let wait = |rung: Option<&Rung>| match rung {
            Some(Rung::Signal { signal, wait, .. }) if *signal != Signal::KILL => Some(*wait),
            Some(Rung::Command { .. }) => Some(Duration::ZERO),
            _ => None,
        };
        let Some(waits) = rungs.map(wait).collect::<Option<Vec<_>>>() else {
            break;
        };
        patience = patience.saturating_add(waits.into_iter().min().unwrap_or_default());
    }
    patience
}

/// A stop begins with the first rung of the ladder.
fn first_rung(
    host: &Host,
    instance: &Instance,
    group: &Group,
    is_first: bool,
    sent: (Signal, Scope),
) -> Result<(), Broken> {
    let was_up = before(host, instance.id).is_some_and(|before| {
        matches!(
            before.state,
            State::Preparing { .. } | State::Starting { .. } | State::Running { .. } | State::CleaningUp { .. }
        )
    });
    if !is_first || !was_up || was_to_be_killed(host, instance) {
        return Ok(());
    }
    let first = |ladder: &StopLadder| {
        let mut signals = ladder.rungs.iter().filter_map(|rung| rung.signal().zip(rung.scope()));
        signals.next().unwrap_or((Signal::KILL, ladder.kill))
    };
    let ladders = || instance.ladders(&group.policy);
    let begins_with_command = ladders().any(|ladder| ladder.rung(0).1.signal().is_none());
    if begins_with_command && ladders().count() > 1 {
        // The command has failed, and a request in the same step may have changed the ladder.
        return Ok(());
    }
    let expected: Vec<_> = ladders().map(first).collect();
    ensure(expected.contains(&sent), || {
        format!(
            "the stop of {:?} begins with {sent:?} instead of {expected:?}",
            instance.id
        )
    })
}
