//! Everything that must hold after every step.
//!
//! Three things are compared with each other: the engine's state, the log of the kernel, and the model of the host's
//! requests. Each oracle checks one promise of the library.

use std::time::Duration;

use super::act::Act;
use super::host::{Broken, Host, Snapshot, Touched, all_snapshots, serial_of, snapshots};
use super::model::{Group, Instance, Spawn};
use super::process::{KILLED, Phase, SimProcess, oom_of};
use super::recipe::Draft;
use super::stop_commands;
use super::world::{Did, Sight};
use super::{kernel_log, waiting_starts};
use crate::cgroup::OomKill;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::request::Request;
use crate::engine::run::End;
use crate::lifecycle::{CommandFailure, Failure, Part, Remaining, Startup, State, Stopping, Wanted};
use crate::time::Instant;

/// Fails with the first broken promise.
pub(super) fn check(host: &mut Host, touched: Touched) -> Result<(), Broken> {
    nothing_that_must_never_happen(host)?;
    if matches!(
        host.act,
        Act::Scale(..) | Act::Reload(..) | Act::Roll(..) | Act::Reexec(_) | Act::Crash(_)
    ) {
        enlist_the_missing(host)?;
    }
    let grown = grown(host)?;
    kernel_log::check(host)?;
    let mut rolling = rolling(host);
    rolling.extend(grown);
    // The end of a rolling restart may have requested stops.
    waiting_starts::check(host)?;
    remove_the_departed(host)?;
    forget_the_gone(host);
    super::siblings::follow_group_stops(host, &rolling);
    super::causes::check(host, &rolling)?;
    super::order::check(host)?;
    super::siblings::check(host, &rolling)?;
    super::rolls::check(host)?;
    every_instance(host)?;
    super::stored::check(host)?;
    stop_commands::check(host)?;
    no_other_instance_was_changed(host, &touched, &rolling)?;
    every_group(host)?;
    the_whole(host)
}

/// Groups that are gone have no place in an order.
fn forget_the_gone(host: &mut Host) {
    let groups: Vec<_> = host.model.groups.iter().map(|group| group.id).collect();
    for id in groups {
        if host.driver.groups.get(id).is_none() {
            host.model.forget_order(id);
        }
    }
}

/// The groups in a rolling restart, now or before this step.
fn rolling(host: &mut Host) -> Vec<GroupId> {
    let rolls = host.model.groups.iter().filter(|group| group.after_roll.is_some());
    let rolling: Vec<_> = rolls.map(|group| group.id).collect();
    for &id in &rolling {
        if host.driver.groups.get(id).is_none_or(|group| group.roll.is_none()) {
            host.model.rolled(id);
        }
    }
    rolling
}

/// The groups with a rolling restart that is over, and that have more instances from now on: a program that took over
/// has described more.
fn grown(host: &mut Host) -> Result<Vec<GroupId>, Broken> {
    let rolls = |id| host.driver.groups.get(id).is_some_and(|group| group.roll.is_some());
    let has_grown = |group: &&Group| group.after_roll.is_some_and(|after| after > group.target) && !rolls(group.id);
    let grown: Vec<_> = host
        .model
        .groups
        .iter()
        .filter(has_grown)
        .map(|group| group.id)
        .collect();
    for &id in &grown {
        host.model.rolled(id);
    }
    if !grown.is_empty() {
        enlist_the_missing(host)?;
    }
    Ok(grown)
}

fn nothing_that_must_never_happen(host: &Host) -> Result<(), Broken> {
    let mut world = host.world.borrow_mut();
    if let Some(broken) = world.broken.take() {
        return Err(broken);
    }
    Ok(())
}

/// A group that was just added.
pub(super) fn enlist(host: &mut Host, id: GroupId, draft: &Draft) {
    host.model.groups.push(Group {
        id,
        name: draft.name,
        recipe: draft.recipe,
        policy: draft.policy.clone(),
        epoch: 0,
        target: draft.instances,
        after_roll: None,
        wanted: Wanted::Down,
        leaving: false,
        after: draft.edges().0,
        requires: draft.edges().1,
        lost_a_group: false,
        stops: 0,
        is_just_stopped: false,
        was_stopped: false,
        was_told_late: false,
    });
    // Missing instances are then found by the comparison.
    let _found = enlist_the_missing(host);
}

/// Every number below the target has an instance.
fn enlist_the_missing(host: &mut Host) -> Result<(), Broken> {
    for group in &host.model.groups {
        for number in 0..group.target {
            let known = &mut host.model.instances;
            let is_there = |instance: &Instance| host.driver.instances.get(instance.id).is_some();
            if known
                .iter()
                .any(|instance| instance.group == group.id && instance.number == number && is_there(instance))
            {
                continue;
            }
            let there = host.driver.groups.get(group.id);
            let id = there.and_then(|there| there.roster.get(number));
            let extra = group.after_roll.is_some_and(|after| number >= after);
            let Some(id) = id else {
                // An instance that was added for a restart with an immediate end may be removed already.
                ensure(extra, || format!("{}:{number} is missing", group.name))?;
                if matches!(host.act, Act::Roll(of, _) if of == group.id) {
                    host.model.passing.push((group.id, number));
                }
                continue;
            };
            let wish = if extra { Wanted::Up } else { group.wanted };
            known.push(Instance::new(id, group.id, number, wish));
        }
    }
    Ok(())
}

/// Only instances with a number beyond the target are removed, and those of removed groups.
fn remove_the_departed(host: &mut Host) -> Result<(), Broken> {
    let mut place = 0;
    while let Some(instance) = host.model.instances.get(place) {
        if host.driver.instances.get(instance.id).is_some() {
            place += 1;
            continue;
        }
        let is_successor = |other: &Instance| {
            (other.group, other.number) == (instance.group, instance.number) && other.id != instance.id
        };
        let is_replaced = host.model.instances.iter().any(is_successor);
        ensure(host.model.leaves(instance) || is_replaced, || {
            format!(
                "{:?}, number {}, is gone and should have stayed",
                instance.id, instance.number
            )
        })?;
        let gone = host.model.instances.remove(place);
        host.model.old_instances.push(gone.id);
        host.model.departed.push(gone);
    }
    let known = host.model.instances.len();
    let there = host.driver.ids().count();
    ensure(known == there, || {
        format!("{there} instances are there, and should be {known}")
    })
}

fn every_instance(host: &mut Host) -> Result<(), Broken> {
    for place in 0..host.model.instances.len() {
        let known = &host.model.instances[place];
        one_instance(host, known).map_err(|broken| format!("{:?}: {broken}", known.id))?;
        in_its_time(host, known)?;
        let stopping = began_to_stop(host, known);
        host.model.instances[place].stopping = stopping;
    }
    Ok(())
}

/// A start follows the policy, and is not earlier than the policy allows.
fn in_its_time(host: &Host, known: &Instance) -> Result<(), Broken> {
    let (Some(before), Some(group)) = (before(host, known.id), host.model.group(known.group)) else {
        return Ok(());
    };
    let (Some(instance), Some(attempt)) = (host.driver.instances.get(known.id), known.attempts.last()) else {
        return Ok(());
    };
    let now = *instance.life.state();
    // In one step a run may end, and the next one may begin.
    let is_same_run = before.serial.is_some() && before.serial == serial_of(&host.driver, known.id);
    let ran = is_same_run && matches!(before.state, State::Running { .. });
    let is_left = now.is_left_to_command() && instance.life.runs() == before.runs;
    let was_stopping = (is_same_run || is_left) && matches!(before.state, State::Stopping(_));
    if !was_stopping {
        stops_for_a_reason(host, group, known.id, &now, ran)?;
    }
    if ran || was_stopping {
        return Ok(());
    }
    let is_report = |did: &Did| {
        matches!(
            did,
            Did::Collect {
                result: Ok(Sight::Ready),
                ..
            } | Did::Receive { .. }
        )
    };
    let was_reported = matches!(host.act, Act::Report(..)) || host.world.borrow().log.iter().any(is_report);
    let now_is = host.world.borrow().now;
    let began = match now {
        // A grace begins with the execution.
        State::Running { .. } if !was_reported => attempt.executed.ok_or("it runs before its program is executed")?,
        _ => attempt.at,
    };
    let uptime = now_is.saturating_duration_since(began);
    let limit = match (now, group.policy.startup) {
        (State::Running { .. }, _) if was_reported => return Ok(()),
        (State::Running { .. }, Startup::Grace(grace)) => grace,
        (State::Running { .. }, Startup::Notify { .. } | Startup::Completes { .. }) => Duration::MAX,
        (
            State::Stopping(Stopping {
                failed: Some(failed), ..
            }),
            startup,
        ) if failed.failure == Failure::StartTimeout => match startup {
            Startup::Notify { timeout } | Startup::Completes { timeout } => timeout,
            Startup::Grace(_) => Duration::MAX,
        },
        (
            State::Stopping(Stopping {
                failed: Some(failed), ..
            }),
            _,
        ) if failed.failure == Failure::Before(CommandFailure::TimedOut) => {
            // The command has the limit of its spawn, whatever the policy is now.
            if attempt.epoch != group.epoch {
                return Ok(());
            }
            group.policy.before_run.unwrap_or_default()
        }
        _ => return Ok(()),
    };
    ensure(uptime >= limit, || {
        format!("{:?} is judged after {uptime:?}, and has {limit:?}: {now:?}", known.id)
    })
}

/// A process is stopped for a failure only if the policy knows this failure, or if it was reported. `ran` tells whether
/// the process was running before the step: then it no longer waits for readiness.
fn stops_for_a_reason(host: &Host, group: &Group, id: InstanceId, now: &State, ran: bool) -> Result<(), Broken> {
    let State::Stopping(Stopping {
        failed: Some(failed), ..
    }) = now
    else {
        return Ok(());
    };
    let by_host = matches!(host.act, Act::Report(..));
    let waits = !ran && matches!(group.policy.startup, Startup::Notify { .. });
    match failed.failure {
        Failure::Watchdog => ensure(
            by_host || host.senders.contains(&id) || group.policy.watchdog.is_some(),
            || format!("{id:?} has no watchdog"),
        ),
        Failure::NotReady => ensure(by_host || waits, || format!("{id:?} does not wait for readiness")),
        _ => Ok(()),
    }
}

/// When the current stop began.
fn began_to_stop(host: &Host, known: &Instance) -> Option<(Instant, u32, usize)> {
    let instance = host.driver.instances.get(known.id)?;
    let State::Stopping(_) = instance.life.state() else {
        return None;
    };
    let run = known.attempts.len();
    let same = known.stopping.filter(|&(_, _, of)| of == run);
    let epoch = host.model.group(known.group).map_or(0, |group| group.epoch);
    same.or(Some((host.woken, epoch, run)))
}

fn one_instance(host: &Host, known: &Instance) -> Result<(), Broken> {
    let Some(instance) = host.driver.instances.get(known.id) else {
        return Err("it is missing".into());
    };
    let state = *instance.life.state();
    let group = host.model.group(known.group).ok_or("its group is gone")?;
    check_notify_pid(host, known)?;
    ensure(
        (instance.group, instance.name.number) == (known.group, known.number),
        || "it is in another place".into(),
    )?;
    ensure(*instance.name.group == *group.name, || {
        format!(
            "its group is called {:?}, and should be {:?}",
            instance.name.group, group.name
        )
    })?;
    let wish = instance.pending.map_or(instance.life.wanted(), |request| {
        if request.wants_up() { Wanted::Up } else { Wanted::Down }
    });
    ensure(wish == known.wish, || {
        format!("it is wanted {wish:?}, and the host requested {:?}", known.wish)
    })?;
    ensure(instance.life.runs() == known.runs(), || {
        format!("{} runs, and {} were begun", instance.life.runs(), known.runs())
    })?;
    let deadline = host.driver.deadlines.of(known.id.index());
    ensure(deadline == state.deadline(), || {
        format!("its deadline is {:?}, and {deadline:?} is set", state.deadline())
    })?;
    let is_leaving = host.model.leaves(known);
    ensure(
        !is_leaving || state.name().is_alive() || instance.pending.is_some(),
        || format!("it is to leave, nothing keeps it, and it is there: {state:?}"),
    )?;
    let serial = serial_of(&host.driver, known.id);
    process_of(host, known.id, &state, serial)?;
    has_its_limit(known, group, &state)?;
    flight_of(host, known, &state, serial)
}

/// A command before or after a run has its limit from its spawn on.
fn has_its_limit(known: &Instance, group: &Group, state: &State) -> Result<(), Broken> {
    let (until, limit) = match *state {
        State::Preparing {
            pid: Some(_), until, ..
        } => (until, group.policy.before_run),
        State::CleaningUp {
            pid: Some(_), until, ..
        } => (until, group.policy.after_run),
        _ => return Ok(()),
    };
    let attempt = known.attempts.last().ok_or("it was never spawned")?;
    let (Some(limit), true) = (limit, attempt.epoch == group.epoch) else {
        return Ok(());
    };
    let expected = attempt.at.saturating_add(limit);
    ensure(until == expected, || {
        format!("its command may run until {until:?}, and should until {expected:?}")
    })
}

/// The engine records that a program was executed, or was not, exactly as the kernel has reported. A grace begins with
/// the execution, and a start that waits is not overtaken again and again.
fn flight_of(host: &Host, known: &Instance, state: &State, serial: Option<u64>) -> Result<(), Broken> {
    let Some(attempt) = known.attempts.last() else {
        return Ok(());
    };
    let world = host.world.borrow();
    let process = serial.and_then(|serial| world.process(serial));
    let was_told = attempt.spawn == Spawn::Executed;
    // A report shows an execution before the spawn is looked at.
    let is_in_flight = process.is_some_and(SimProcess::is_in_flight) && !was_told;
    match *state {
        State::Preparing {
            pid: Some(_), executed, ..
        }
        | State::CleaningUp {
            pid: Some(_), executed, ..
        }
        | State::Starting {
            pid: Some(_), executed, ..
        } => {
            // A process that was killed in flight may have ended, and have no status yet. If it is no child of the host,
            // it may have executed its program before.
            let is_unseen = |process: &SimProcess| process.executed.is_none() || process.is_foreign;
            let has_ended = process.is_some_and(|process| process.phase != Phase::Alive && is_unseen(process));
            let has_ended = has_ended && !was_told;
            ensure(executed.is_some() != (is_in_flight || has_ended), || {
                format!("its spawn is in flight: {is_in_flight}, and it is {state:?}")
            })?;
            ensure(executed.is_some() == was_told, || {
                format!("its spawn is {:?}, and it is {state:?}", attempt.spawn)
            })?;
        }
        State::Preparing { pid: None, .. }
        | State::CleaningUp { pid: None, .. }
        | State::Starting { pid: None, .. } => {
            let others = host.model.instances.len() + host.model.departed.len();
            let most = 2 * u32::try_from(others).unwrap_or(u32::MAX) + MOST_OVERTAKEN;
            ensure(attempt.overtaken <= most, || {
                format!("its start waits, and {} others have begun", attempt.overtaken)
            })?;
        }
        State::Running { .. } => {
            ensure(attempt.executed.is_some() || attempt.reported_ready_by_host, || {
                "it runs before its program is executed".into()
            })?;
        }
        State::Stopped | State::Stopping(_) | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => {}
    }
    Ok(())
}

/// How many spawns a start may be overtaken by that were already decided, besides two of each other instance.
const MOST_OVERTAKEN: u32 = 4;

/// A sender is accepted by its pid until its process has ended, and no longer.
fn check_notify_pid(host: &Host, known: &Instance) -> Result<(), Broken> {
    let Some(attempt) = known.attempts.last() else {
        return Ok(());
    };
    let may_notify = attempt.may_notify && attempt.exit.is_none() && !attempt.has_failed();
    let known_by = |pid| host.driver.is_heard(known.id, pid);
    if has_lost_its_number(host, attempt.serial) {
        return Ok(());
    }
    ensure(attempt.pid.is_none_or(|pid| known_by(pid) == may_notify), || {
        format!("it may notify: {may_notify}, {:?}", host.driver.notify_pids)
    })
}

/// Whether a process has ended, and another parent than the host has reaped it. Its number may be that of a new process.
pub(super) fn has_lost_its_number(host: &Host, serial: u64) -> bool {
    let world = host.world.borrow();
    let process = world.process(serial);
    process.is_some_and(|process| process.is_foreign && !process.has_number(world.now))
}

/// A process is held exactly while it may be alive, and it is the process that the state contains.
fn process_of(host: &Host, id: InstanceId, state: &State, serial: Option<u64>) -> Result<(), Broken> {
    let world = host.world.borrow();
    let process = serial.and_then(|serial| world.process(serial));
    let Some(process) = process else {
        let may_be_alive = state.name().is_alive() && state.pid().is_some();
        return ensure(!may_be_alive && serial.is_none(), || {
            format!("no process is left, and it is {state:?}")
        });
    };
    ensure(state.name().is_alive(), || {
        format!("a process is left over in {state:?}")
    })?;
    ensure(process.owner == id.index(), || {
        format!("its process is that of slot {}", process.owner)
    })?;
    ensure(state.pid() == Some(process.pid), || {
        format!("its process is {}, and the state has {:?}", process.pid, state.pid())
    })?;
    let leader_is_gone = matches!(
        state,
        State::Stopping(Stopping {
            remaining: Remaining::Others { .. },
            ..
        })
    );
    let collected = matches!(process.phase, Phase::Held | Phase::Reaped);
    ensure(leader_is_gone == collected, || {
        format!("its process is {:?} in {state:?}", process.phase)
    })
}

/// A step changes only the instances that it concerns: their state, their deadline and their process.
fn no_other_instance_was_changed(host: &Host, touched: &Touched, rolling: &[GroupId]) -> Result<(), Broken> {
    let was_seen = |before: &Snapshot| {
        let world = host.world.borrow();
        let is_of_it = |did: &Did| match did {
            Did::Collect { serial, result, .. } => Some(*serial) == before.serial && *result != Ok(Sight::Nothing),
            _ => false,
        };
        world.log.iter().any(is_of_it)
    };
    let is_touched = |before: &Snapshot| {
        // Room may have been made in this step.
        let is_due = before.is_due(host.woken, true);
        let meant = match touched {
            Touched::These(these) => these.contains(&before.id),
            Touched::Due(these) => is_due || these.contains(&before.id),
            Touched::Ready => is_due || was_seen(before),
        };
        meant || host.senders.contains(&before.id) || host.concerns_command(before.id, touched)
    };
    let is_meant: Vec<_> = host
        .before
        .iter()
        .filter(|before| is_touched(before))
        .map(|before| before.id)
        .collect();
    let tied = super::siblings::with_siblings(host, &is_meant);
    let rolling: Vec<_> = rolling.iter().chain(&tied).copied().collect();
    let mut now = snapshots(&host.driver).peekable();
    for before in &host.before {
        let meant = is_meant.contains(&before.id);
        let rolls = |known: &Instance| rolling.contains(&known.group);
        let all = host.model.instances.iter().chain(&host.model.departed);
        let meant =
            meant || (!rolling.is_empty() && all.into_iter().any(|known| known.id == before.id && rolls(known)));
        // Both lists are in the order of the slots.
        while now.peek().is_some_and(|after| after.id.index() < before.id.index()) {
            now.next();
        }
        let after = now.peek().filter(|after| after.id == before.id);
        let has_moved = |after: &Snapshot| after.without_wait() != before.without_wait();
        // A request that waits for other groups may begin to wait, or be withdrawn.
        let waited = before.awaits_order || host.is_in_order(before.id);
        let is_served = before.awaits_order && host.act.is_of_the_loop();
        let meant = meant || is_served || (waited && !after.is_some_and(has_moved));
        if !meant && after != Some(before) {
            return Err(format!("was not concerned: {before:?}, and is now {after:?}"));
        }
    }
    Ok(())
}

fn every_group(host: &mut Host) -> Result<(), Broken> {
    let mut place = 0;
    while let Some(known) = host.model.groups.get(place) {
        if one_group(host, known).map_err(|broken| format!("group {:?}: {broken}", known.id))? {
            place += 1;
        } else {
            let gone = host.model.groups.remove(place);
            host.model.old_groups.push(gone.id);
        }
    }
    ensure(host.driver.groups.ids().count() == host.model.groups.len(), || {
        "a group too many, or too few".into()
    })
}

/// Checks a group. Returns whether it still exists.
fn one_group(host: &Host, known: &Group) -> Result<bool, Broken> {
    let mut members = host
        .model
        .instances
        .iter()
        .filter(|instance| instance.group == known.id);
    let Some(group) = host.driver.groups.get(known.id) else {
        ensure(known.leaving && members.next().is_none(), || "it is gone".into())?;
        return Ok(false);
    };
    ensure(group.roster.target() == known.target, || {
        format!(
            "its target is {}, and should be {}",
            group.roster.target(),
            known.target
        )
    })?;
    ensure(group.leaving == known.leaving, || {
        "it does not know whether it leaves".into()
    })?;
    ensure(known.leaving || group.wanted == known.wanted, || {
        format!("it is wanted {:?}, and should be {:?}", group.wanted, known.wanted)
    })?;
    let mut count = 0;
    for member in members {
        count += 1;
        ensure(group.roster.get(member.number) == Some(member.id), || {
            format!("number {} is another", member.number)
        })?;
    }
    ensure(group.roster.iter().count() == count, || "a member too many".into())?;
    ensure(count > 0 || !known.leaving, || "it leaves, and has no member".into())?;
    Ok(true)
}

/// Nothing is leaked or forgotten, and the timer is armed for the next deadline.
fn the_whole(host: &Host) -> Result<(), Broken> {
    let world = host.world.borrow();
    let held = host.driver.instances.ids();
    let held = held.filter(|&id| {
        host.driver
            .instances
            .get(id)
            .is_some_and(|instance| instance.process.is_some())
    });
    ensure(held.count() == world.processes.len(), || {
        format!(
            "{} processes, and not all of them belong to an instance",
            world.processes.len()
        )
    })?;
    let has_room = world.has_room();
    let waits = all_snapshots(&host.driver).any(|now| now.waits(has_room)) || !host.driver.telling.is_empty();
    let is_pending = all_snapshots(&host.driver).any(|now| now.pending.is_some() || now.awaits_spawn());
    let quiet = world.processes.is_empty() && !is_pending;
    let holds_back = |now: &Snapshot| now.is_held && matches!(now.pending, Some(Request::Stop | Request::Kill));
    let held = snapshots(&host.driver).find(holds_back);
    ensure(held.is_none(), || format!("a stop waits for room: {held:?}"))?;
    ensure(host.driver.is_quiet() == quiet, || {
        format!("quiet: {}, and it is {quiet}", host.driver.is_quiet())
    })?;
    let deadlines = all_snapshots(&host.driver).filter_map(|now| now.state.deadline());
    let (count, earliest) = deadlines.fold((0, None), |(count, earliest), at| {
        (count + 1, Some(earliest.map_or(at, |other: Instant| other.min(at))))
    });
    ensure(host.driver.deadlines.len() == count, || {
        format!(
            "{} deadlines are kept, and {count} are meant",
            host.driver.deadlines.len()
        )
    })?;
    let looked_at = |process: &SimProcess| process.is_ready() || process.look.is_some_and(|at| at != Instant::NEVER);
    let unseen = world
        .processes
        .iter()
        .find(|process| process.is_in_flight() && process.look.is_none_or(|at| at == Instant::NEVER));
    ensure(unseen.is_none(), || {
        format!("nothing looks at a spawn in flight: {unseen:?}")
    })?;
    let forgotten = world
        .processes
        .iter()
        .find(|process| process.phase == Phase::Zombie && !looked_at(process));
    ensure(forgotten.is_none(), || {
        format!("nothing reports that this one has ended: {forgotten:?}")
    })?;
    let earliest = earliest.into_iter().chain(world.look_at()).min();
    is_woken(host, waits, earliest)
}

/// The timer is armed for the next deadline, or for the past if work is left.
fn is_woken(host: &Host, waits: bool, earliest: Option<Instant>) -> Result<(), Broken> {
    let world = host.world.borrow();
    let events = &host.driver.events;
    let is_told = host.fetches || !host.act.is_of_the_loop();
    let is_new = is_told && events.pushed() > host.pushed && !events.is_empty();
    let is_at_once = world.armed == Some(Instant::ZERO);
    ensure(world.arm_failed || is_at_once || !(waits || is_new), || {
        format!("something waits, and the timer is armed for {:?}", world.armed)
    })?;
    // The host is woken if events are left, or if it got `Nothing` while work was left.
    let is_left = world.is_readable_but_for_the_timer() || earliest.is_some_and(|at| at <= world.now);
    let may_be_woken = !events.is_empty() || host.driver.is_down() || is_left;
    let is_next = world.armed == earliest || (is_at_once && (waits || may_be_woken || world.armed_anew));
    ensure(world.arm_failed || is_next, || {
        format!("the timer is armed for {:?}, and {earliest:?} is next", world.armed)
    })
}

/// A status agrees with the world.
pub(super) fn status(host: &Host, id: InstanceId) -> Result<(), Broken> {
    let known = host.model.instance(id);
    let (status, known) = match (host.driver.status(id), known) {
        (None, None) => return Ok(()),
        (Some(status), Some(known)) => (status, known),
        (status, _) => return Err(format!("the status of {id:?} is {status:?}")),
    };
    let world = host.world.borrow();
    let last = known.attempts.last();
    let alive = last.filter(|_| status.state.name().is_alive());
    let pid = alive
        .filter(|_| !status.state.is_left_to_command())
        .and_then(|attempt| attempt.pid);
    ensure(status.pid == pid, || {
        format!("the status has pid {:?}, and it is {pid:?}", status.pid)
    })?;
    let uptime = alive.map(|attempt| world.now.saturating_duration_since(attempt.at));
    ensure(status.uptime == uptime, || {
        format!("up for {:?}, and it is {uptime:?}", status.uptime)
    })?;
    let programs = known
        .attempts
        .iter()
        .rev()
        .filter(|attempt| attempt.part == Part::Program);
    let exit = programs.into_iter().find_map(|attempt| attempt.exit);
    ensure(status.last_exit.map(|record| record.exit) == exit, || {
        format!("the last exit is {:?}, and it was {exit:?}", status.last_exit)
    })?;
    let mut starts = known
        .attempts
        .iter()
        .rev()
        .filter(|attempt| attempt.part != Part::After);
    let failed = starts
        .next()
        .is_some_and(|last| last.has_failed() && !last.is_error_lost);
    ensure(status.last_error.is_some() == failed, || {
        format!(
            "the last error is {:?}; the last spawn failed: {failed}",
            status.last_error
        )
    })?;
    let over = last.is_some() && !status.state.name().is_in_run();
    ensure(
        status.lasted.is_some() == over && status.ended_at.is_some() == over && status.lasted != Some(Duration::MAX),
        || format!("over: {over}, lasted {:?}, ended {:?}", status.lasted, status.ended_at),
    )?;
    remembered_runs(host, known)?;
    ensure(status.started_at.is_some() == last.is_some(), || {
        format!("started {:?}, and never was", status.started_at)
    })
}

/// The remembered runs agree with the last runs of the world.
fn remembered_runs(host: &Host, known: &Instance) -> Result<(), Broken> {
    let Some(instance) = host.driver.instances.get(known.id) else {
        return Ok(());
    };
    for run in instance.history.runs() {
        if let End::BeforeFailed(failure) = run.end {
            let before = known.attempt(run.number, Part::Before);
            let is_true = before.is_some_and(|before| match failure {
                CommandFailure::Spawn { .. } => before.has_failed(),
                CommandFailure::Ended(exit) => before.may_have_ended(exit),
                _ => before.exit.is_some(),
            });
            ensure(is_true && run.exit.is_none(), || format!("{run:?} was {before:?}"))?;
            continue;
        }
        let attempt = known.start(run.number);
        let attempt = attempt.ok_or_else(|| format!("there was no such run: {run:?}"))?;
        if attempt.part == Part::Before {
            ensure(
                run.exit.is_none() && matches!(run.end, End::Stopped | End::StopTimeout),
                || format!("{run:?} was {attempt:?}"),
            )?;
            continue;
        }
        let exit = run.exit.map(|record| record.exit);
        let spawned = !matches!(run.end, End::NotSpawned(_));
        // The error may have been lost with the host, while a command of the stop ran.
        let is_lost = attempt.is_error_lost && run.end == End::Unknown;
        let pid = attempt.pid.filter(|_| !attempt.has_failed());
        let withdrawn = attempt.spawn == Spawn::Withdrawn;
        ensure(
            run.pid == pid && exit == attempt.exit && (spawned != attempt.has_failed() || is_lost),
            || format!("{run:?} was {attempt:?}"),
        )?;
        let told = match run.end {
            End::OutOfMemory(limit) => Some((limit, true)),
            End::MaybeOutOfMemory(limit) => Some((limit, false)),
            _ => None,
        };
        if let Some((limit, is_certain)) = told {
            let is_true = exit == Some(KILLED) && oom_of(attempt.serial) == Some(OomKill { limit, is_certain });
            ensure(is_true, || format!("{run:?} had enough memory, or it is not certain"))?;
        }
        ensure(!withdrawn || run.end == End::Stopped, || {
            format!("{run:?} was withdrawn")
        })?;
    }
    let runs = usize::try_from(known.runs()).map_err(|error| error.to_string())?;
    let over = runs - usize::from(instance.life.state().name().is_in_run());
    let over = over - known.forgotten;
    ensure(
        instance.history.runs().count() == over.min(host.driver.kept_runs),
        || {
            format!(
                "{over} runs are over, and {} are remembered",
                instance.history.runs().count()
            )
        },
    )
}

pub(super) fn ensure(holds: bool, broken: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// The instance before the step.
pub(super) fn before(host: &Host, id: InstanceId) -> Option<&Snapshot> {
    host.before.iter().find(|before| before.id == id)
}
