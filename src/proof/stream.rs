//! The events, as the host fetches them: late, in portions, and with gaps after the queue was full.
//!
//! The events must agree with each other and with the world: the transitions of an instance are connected, each run is
//! a spawn, and each end is the end of the process.

use std::time::Duration;

use super::host::{Broken, Host};
use super::model::{Attempt, Group, Instance, Spawn};
use super::oracle::ensure;
use super::world::Taken;
use super::{siblings, stop_commands};
use crate::engine::event::{Event, TransitionEvent};
use crate::engine::ids::InstanceId;
use crate::exit::Exit;
use crate::lifecycle::{
    AutoShutdown, Cause, CommandFailure, ExitSet, Failure, Part, Policy, Restart, Startup, StateName, Strategy,
    Transition,
};
use crate::time::Instant;

/// Fetches at most this many events, and checks each.
pub(super) fn drain(host: &mut Host, most: usize) -> Result<(), Broken> {
    let dropped = host.driver.events.dropped();
    if dropped != host.dropped {
        host.dropped = dropped;
        host.model.lose_track();
        host.has_gaps = true;
    }
    for _ in 0..most {
        let Some(event) = host.driver.next_event() else {
            return caught_up(host);
        };
        host.trace(|_| format!("{:>16} {event:?}", "event"));
        one(host, &event).map_err(|broken| format!("{broken}: {event:?}"))?;
    }
    Ok(())
}

/// A host that has fetched every event knows the present state.
fn caught_up(host: &mut Host) -> Result<(), Broken> {
    host.model.departed.clear();
    let unreported = host.taken.front();
    ensure(host.has_gaps || unreported.is_none(), || {
        format!("{unreported:?} was not reported")
    })?;
    host.taken.clear();
    let silent = host.model.groups.iter().find(|group| group.stops > 0);
    ensure(host.has_gaps || silent.is_none(), || {
        format!("the stop of {:?} was not reported", silent.map(|group| group.id))
    })?;
    host.model.groups.iter_mut().for_each(|group| group.stops = 0);
    host.has_gaps = false;
    for known in &host.model.instances {
        let waits = known.attempts.last().is_some_and(|last| last.spawn == Spawn::Waits);
        let instance = host.driver.instances.get(known.id);
        // The event of a start that waits is emitted when its spawn begins.
        let state = instance.map(|instance| match instance.start {
            Some(start) if waits => start.from,
            Some(_) | None => instance.life.state().name(),
        });
        ensure(known.reported.is_none() || known.reported == state, || {
            format!(
                "{:?} is {state:?}, and the last event reported {:?}",
                known.id, known.reported
            )
        })?;
        let last = known.attempts.last();
        let begins = |last: &Attempt| last.spawn == Spawn::Waits && is_first(known, last);
        let runs = known.runs() - u64::from(last.is_some_and(begins));
        ensure(known.run.is_none_or(|run| run == runs), || {
            format!("{:?} has had {runs} runs, and {:?} were reported", known.id, known.run)
        })?;
    }
    Ok(())
}

fn one(host: &mut Host, event: &Event) -> Result<(), Broken> {
    match event {
        Event::Transition(step) => transition(host, step),
        Event::Unkillable { instance, pid, .. } => {
            if stop_commands::started(host, *instance, pid.ok_or("it has no process")?).is_ok() {
                return Ok(());
            }
            let killed = |attempt: &Attempt| attempt.killed && attempt.pid == *pid;
            ensure(attempts(host, *instance)?.iter().any(killed), || {
                "no SIGKILL was tried".into()
            })
        }
        Event::SignalFailed { instance, .. } => {
            if stop_commands::was_refused(host, *instance) {
                return Ok(());
            }
            let refused = |attempt: &Attempt| attempt.refused > 0;
            ensure(attempts(host, *instance)?.iter().any(refused), || {
                "no signal to it failed".into()
            })
        }
        Event::Notice { instance, .. } => attempts(host, *instance).map(|_| ()),
        Event::GroupStops {
            instance,
            group,
            reason,
            ..
        } => siblings::reported(host, *instance, *group, *reason),
        Event::Reloaded { .. } => Err("no reload was requested".into()),
        Event::LimitFailed { .. } => Err("no limit can fail".into()),
        Event::StartWaits {
            instance, group, name, ..
        }
        | Event::StartWithdrawn {
            instance, group, name, ..
        } => {
            let is_known = find(host, *instance).is_some();
            let is_passing = host.model.passing.contains(&(*group, name.number));
            ensure(is_known || is_passing, no_such_instance)
        }
        Event::CommandFailed {
            instance, run, failure, ..
        } => command_failed(host, *instance, *run, *failure),
        Event::StopCommandStarted { instance, pid, .. } => stop_commands::started(host, *instance, *pid),
        Event::StopCommandEnded { instance, pid, end, .. } => stop_commands::ended(host, *instance, *pid, *end),
        Event::GroupRemoved { group, .. } => {
            let gone = host.driver.groups.get(*group).is_none() && host.model.old_groups.contains(group);
            ensure(gone, || "it is there".into())
        }
        Event::Rolled { group, failed, .. } => {
            let known = host.model.group(*group).is_some() || host.model.old_groups.contains(group);
            ensure(known, || "the model has no such group".into())?;
            match failed {
                Some(failed) if find(host, *failed).is_none() => {
                    let mut passing = host.model.passing.iter();
                    ensure(passing.any(|(of, _)| of == group), no_such_instance)
                }
                _ => Ok(()),
            }
        }
        Event::Signal(info) => taken(host, Taken::Signal(info.signal)),
        Event::Orphan(record) => taken(host, Taken::Orphan(record.pid)),
    }
}

/// Whether this is the first part of its run.
fn is_first(known: &Instance, attempt: &Attempt) -> bool {
    let mut of_run = known.attempts.iter().filter(|other| other.run == attempt.run);
    of_run.next().is_some_and(|first| first.part == attempt.part)
}

/// The command after a run has failed as it is reported, and this is reported once.
fn command_failed(host: &mut Host, id: InstanceId, run: u64, failure: CommandFailure) -> Result<(), Broken> {
    let group = find(host, id).map(|known| known.group);
    let is_described = group.is_some_and(|group| host.model.group(group).is_some_and(|group| !group.leaving));
    let Some(known) = find(host, id) else {
        return ensure(!host.model.passing.is_empty(), no_such_instance);
    };
    let after = known.attempt(run, Part::After);
    let is_tried = after.is_some_and(|after| !matches!(after.spawn, Spawn::Waits | Spawn::Withdrawn));
    if !is_tried && !is_described {
        // Its command is not known.
        return ensure(matches!(failure, CommandFailure::Spawn { .. }), || {
            "it was never tried".into()
        });
    }
    let is_true = after.is_some_and(|after| match failure {
        CommandFailure::Spawn { .. } => after.has_failed(),
        CommandFailure::Ended(exit) => after.may_have_ended(exit) && exit != Exit::Code(0),
        _ => after.exit.is_some(),
    });
    ensure(is_true, || format!("it was {after:?}"))?;
    let earlier = known.failed_command.replace(run);
    ensure(earlier.is_none_or(|earlier| earlier < run), || {
        "it was reported before".into()
    })
}

/// The command after each run that has left something was run, and its failure was reported.
fn cleaned_up(known: &Instance, group: &Group, event: &TransitionEvent) -> Result<(), Broken> {
    let step = Transition {
        from: event.from,
        to: event.to,
        cause: event.cause,
    };
    let run = event.run - u64::from(step.begins_run());
    let is_unchanged = known.start(run).is_some_and(|start| start.epoch == group.epoch);
    if !is_unchanged || group.recipe.after.is_none() {
        return Ok(());
    }
    if step.ends_run() && step.to != StateName::CleaningUp {
        let mut parts = known.attempts.iter().filter(|attempt| attempt.run == run);
        let leaves = parts.any(|part| part.exit.is_some());
        return ensure(!leaves, || "the command after the run is missing".into());
    }
    let Some(after) = known
        .attempt(run, Part::After)
        .filter(|_| step.from == StateName::CleaningUp)
    else {
        return Ok(());
    };
    let fails = after.has_failed() || after.exit.is_some_and(|exit| exit != Exit::Code(0));
    let is_reported = known.failed_command == Some(run) || known.cleaned_up != Some(run);
    ensure(!fails || is_reported, || {
        format!("the failure of the command after the run was not reported: {after:?}")
    })
}

/// Each signal and each orphan that was taken is reported once, in order.
fn taken(host: &mut Host, reported: Taken) -> Result<(), Broken> {
    let has_gaps = host.has_gaps;
    let next = host.taken.iter().position(|&taken| taken == reported);
    let in_order = next.filter(|&place| has_gaps || place == 0);
    let place = in_order.ok_or_else(|| format!("{reported:?} is reported, and {:?} is next", host.taken.front()))?;
    host.taken.drain(..=place);
    Ok(())
}

fn find(host: &mut Host, id: InstanceId) -> Option<&mut Instance> {
    let all = host.model.instances.iter_mut().chain(&mut host.model.departed);
    all.into_iter().find(|instance| instance.id == id)
}

/// An instance that was added and removed in the step in which a restart began.
fn passing(host: &Host, event: &TransitionEvent) -> Result<(), Broken> {
    let place = (event.group, event.name.number);
    ensure(host.model.passing.contains(&place), no_such_instance)
}

fn no_such_instance() -> Broken {
    "the model has no such instance".into()
}

fn attempts(host: &mut Host, id: InstanceId) -> Result<&[Attempt], Broken> {
    let instance = find(host, id).ok_or("the model has no such instance")?;
    Ok(&instance.attempts)
}

fn transition(host: &mut Host, event: &TransitionEvent) -> Result<(), Broken> {
    ensure(host.tally.count_transition(event), || "there is no such step".into())?;
    let now = host.world.borrow().now;
    let in_order = host.reported_at <= event.at && event.at <= now;
    ensure(in_order, || {
        format!("after an event of {:?}, at {now:?}", host.reported_at)
    })?;
    host.reported_at = event.at;
    let Some(known) = find(host, event.instance) else {
        return passing(host, event);
    };
    ensure((known.group, known.number) == (event.group, event.name.number), || {
        "it is another's".into()
    })?;
    follows(known, event)?;
    known.reported = Some(event.to);
    known.run = Some(event.run);
    if event.to == StateName::CleaningUp {
        known.cleaned_up = Some(event.run);
    }
    matches_its_run(known, event)?;
    let group = known.group;
    let strict = host.model.group(group).is_none_or(|group| group.policy.count_shortages);
    let known = find(host, event.instance).ok_or("it has vanished")?;
    count_failures(known, event, strict);
    let policy = host
        .model
        .group(group)
        .map(|group| (group.policy.stable_after, group.epoch));
    let known = find(host, event.instance).ok_or("it has vanished")?;
    remember_crashes(known, event, policy);
    let (id, group) = (known.id, known.group);
    let Some(group) = host.model.groups.iter().find(|known| known.id == group) else {
        return Ok(());
    };
    let all = host.model.instances.iter().chain(&host.model.departed);
    let known = all.into_iter().find(|known| known.id == id).ok_or("it has vanished")?;
    follows_the_policy(host, known, group, event)
}

/// The transition begins in the state in which the last one ended.
fn follows(known: &Instance, event: &TransitionEvent) -> Result<(), Broken> {
    ensure(known.reported.is_none_or(|reported| reported == event.from), || {
        format!("the event before reported {:?}", known.reported)
    })?;
    let runs = known.runs();
    let begins = u64::from(step_of(event).begins_run());
    ensure(known.run.is_none_or(|run| run + begins == event.run), || {
        format!("the event before was about run {:?}", known.run)
    })?;
    ensure(event.run <= runs && event.run >= begins, || {
        format!("there were {runs} runs")
    })
}

/// The process, its end and its error are those of the run.
fn matches_its_run(known: &Instance, event: &TransitionEvent) -> Result<(), Broken> {
    let attempt = |run: u64| known.attempt(run, Part::Program);
    let this = attempt(event.run);
    let fails = matches!(event.cause, Cause::Failed(Failure::Ended(_))) && event.from == StateName::Starting;
    ensure(!fails || this.is_none_or(|attempt| !attempt.reported_ready), || {
        "it had reported readiness".into()
    })?;
    let pid = subject(known, event).and_then(|attempt| attempt.pid);
    // One that did not execute its program may be forgotten while a command of its stop runs.
    let is_forgotten = event.pid.is_none() && this.is_some_and(Attempt::has_failed);
    ensure(event.pid == pid || is_forgotten, || format!("the process is {pid:?}"))?;
    let step = step_of(event);
    // In a transition from one run to the next, the earlier run ends.
    let ended = if step.begins_run() {
        attempt(event.run.wrapping_sub(1))
    } else {
        this
    };
    let ended = ended.filter(|attempt| step.ends_run() && attempt.pid.is_some() && !attempt.has_failed());
    let record = ended.and_then(|attempt| Some((attempt.pid?, attempt.exit?)));
    ensure(ended.is_some() == record.is_some(), || "it was never collected".into())?;
    ensure(event.exit.map(|record| (record.pid, record.exit)) == record, || {
        format!("it ended like this: {record:?}")
    })?;
    let before = known.attempt(event.run, Part::Before);
    let unspawned = match event.cause {
        Cause::Failed(Failure::Spawn { .. }) => Some(this),
        Cause::Failed(Failure::Before(CommandFailure::Spawn { .. })) => Some(before),
        _ => None,
    };
    let is_lost = unspawned.flatten().is_some_and(|attempt| attempt.is_error_lost);
    ensure(event.error.is_some() == (unspawned.is_some() && !is_lost), || {
        "the error is missing, or another's".into()
    })?;
    let has_failed = |attempt: Option<&Attempt>| attempt.is_some_and(Attempt::has_failed);
    ensure(unspawned.is_none_or(has_failed), || "it was spawned".into())?;
    runs_its_program(event, this)
}

const fn step_of(event: &TransitionEvent) -> Transition {
    Transition {
        from: event.from,
        to: event.to,
        cause: event.cause,
    }
}

/// The process that an event is about.
fn subject<'a>(known: &'a Instance, event: &TransitionEvent) -> Option<&'a Attempt> {
    let of = |part| known.attempt(event.run, part);
    match (event.from, event.to) {
        (_, StateName::Preparing) => of(Part::Before),
        (_, StateName::Starting) => of(Part::Program),
        (StateName::Preparing, _) => of(Part::Before),
        (StateName::CleaningUp, _) => of(Part::After),
        (StateName::Starting | StateName::Running, _) => of(Part::Program),
        (StateName::Stopping, _) => of(Part::Program).or_else(|| of(Part::Before)),
        _ => None,
    }
}

/// A process is running only after the execution of its program. Its end before that is a failed start, and not the
/// error of a spawn. The host, or an unknown process, may have called it ready all the same.
fn runs_its_program(event: &TransitionEvent, attempt: Option<&Attempt>) -> Result<(), Broken> {
    let is_start = matches!(event.to, StateName::Starting | StateName::Preparing);
    let Some(attempt) = attempt.filter(|attempt| !attempt.reported_ready_by_host && !is_start) else {
        return Ok(());
    };
    let has_run = event.from == StateName::Running || event.to == StateName::Running;
    let is_done = matches!(event.cause, Cause::Ended { .. });
    let executed = attempt.executed;
    ensure(executed.is_some() || !(has_run || is_done), || {
        "its program was not executed".into()
    })
}

/// Counts failed starts in a row, and restarts, since the last request.
fn count_failures(known: &mut Instance, event: &TransitionEvent, strict: bool) {
    let shortage = matches!(
        event.cause,
        Cause::Failed(
            Failure::Spawn { permanent: false, .. } | Failure::Before(CommandFailure::Spawn { permanent: false, .. })
        )
    );
    // The end of a run is judged when the command after it has ended.
    let anew = matches!(event.cause, Cause::Requested | Cause::CoolOffOver | Cause::Gone);
    let anew = anew && event.to != StateName::CleaningUp;
    if anew {
        known.crashes.clear();
    }
    if anew || event.to == StateName::Running {
        known.failures = Some(0);
        known.first_failure = 0;
    }
    if event.to == StateName::Backoff && matches!(event.cause, Cause::Failed(_)) {
        let counts = u32::from(strict || !shortage);
        known.failures = known.failures.map(|failures| failures + counts);
        if known.first_failure == 0 {
            known.first_failure = event.run;
        }
    }
    match event.cause {
        Cause::Ended { expected, exit } => (known.last_end, known.last_exit) = (Some((event.at, expected)), Some(exit)),
        // A run that timed out is no crash, and the host may let it time out as often as it likes.
        Cause::Failed(Failure::TimedOut) => (known.last_end, known.last_exit) = (None, None),
        Cause::Failed(_) => (known.last_end, known.last_exit) = (Some((event.at, false)), None),
        Cause::Restart => {
            // An expected exit is not a crash. The event of a restart that waited is later than its crash.
            let crash = known.last_end.filter(|&(_, expected)| !expected);
            known.crashes.extend(crash.map(|(at, _)| (at, crashed(event))));
        }
        _ => {}
    }
}

/// Notes which crashes an instance may remember. `policy` has the length of a stable run, and its epoch.
fn remember_crashes(known: &mut Instance, event: &TransitionEvent, policy: Option<(Duration, u32)>) {
    let begins_anew = step_of(event).begins_run() && matches!(event.cause, Cause::Requested | Cause::CoolOffOver);
    if event.to == StateName::Stopped || begins_anew {
        known.remembered = Some(Vec::new());
    }
    let is_over = matches!(
        event.cause,
        Cause::Ended { .. } | Cause::Failed(_) | Cause::SiblingEnded
    );
    if event.from == StateName::Running && is_over {
        let was_stable = policy.zip(known.attempt(event.run, Part::Program));
        let was_stable = was_stable.is_some_and(|((stable_after, epoch), attempt)| {
            attempt.epoch == epoch && event.at.saturating_duration_since(attempt.at) >= stable_after
        });
        known.stable_run = was_stable.then_some(event.run);
    }
    // It forgets them when its end is judged: after a stop, and after the command that follows the run.
    let is_judged = event.to == StateName::Exited || event.cause == Cause::SiblingEnded;
    if is_judged && known.stable_run == Some(event.run) {
        known.remembered = Some(Vec::new());
        known.stable_run = None;
    }
    let is_crash = known.last_end.is_some_and(|(_, expected)| !expected);
    if event.cause == Cause::Restart && is_crash {
        known.remembered.iter_mut().for_each(|crashes| crashes.push(event.at));
    }
}

/// An instance is given up for as many crashes as a budget allows, within its window. A crash is not later than the event
/// of the restart that follows it.
fn has_used_up_a_budget(host: &Host, known: &Instance, group: &Group, now: Instant) -> Result<(), Broken> {
    let recent = |of: &Instance, window| {
        let is_recent = |&&at: &&Instant| now.saturating_duration_since(at) <= window;
        Some(of.remembered.as_ref()?.iter().filter(is_recent).count())
    };
    let own = group.policy.crash_budget;
    let uses_up_own = own.is_some_and(|own| recent(known, own.window).is_none_or(|count| count >= own.max.into()));
    let uses_up_shared = group.policy.shared_budget.is_some_and(|shared| {
        let all = host.model.instances.iter().chain(&host.model.departed);
        let members = all.filter(|other| other.group == group.id);
        let counts: Option<Vec<_>> = members.map(|other| recent(other, shared.window)).collect();
        let count = counts.map(|counts| counts.iter().sum::<usize>());
        host.has_waited || count.is_none_or(|count| count >= shared.max.into())
    });
    ensure(uses_up_own || uses_up_shared, || {
        format!(
            "it is given up, and remembers only these crashes: {:?}",
            known.remembered
        )
    })
}

/// The number of the run that the restart follows.
fn crashed(event: &TransitionEvent) -> u64 {
    event.run.saturating_sub(u64::from(step_of(event).begins_run()))
}

/// The transition agrees with the policy, as far as the policy was not changed meanwhile.
fn follows_the_policy(host: &Host, known: &Instance, group: &Group, event: &TransitionEvent) -> Result<(), Broken> {
    let policy = &group.policy;
    cleaned_up(known, group, event)?;
    let since = |run: u64| known.start(run).filter(|attempt| attempt.epoch == group.epoch);
    let is_seen = |attempt: &&Attempt| !attempt.is_unseen || attempt.executed.is_none();
    let executed = since(event.run)
        .filter(is_seen)
        .map(|attempt| attempt.executed.is_some());
    judges_early_ends(group, event, executed)?;
    match event.cause {
        Cause::GraceOver => {
            // The grace begins with the execution.
            let executed = since(event.run).and_then(|attempt| attempt.executed);
            let uptime = executed.map(|at| event.at.saturating_duration_since(at));
            let enough = match policy.startup {
                Startup::Grace(grace) => uptime.is_none_or(|uptime| uptime >= grace),
                Startup::Notify { .. } | Startup::Completes { .. } => uptime.is_none(),
            };
            ensure(enough, || "the grace was not over".into())
        }
        Cause::Failed(_) | Cause::RetriesUsedUp if since(known.first_failure).is_some() => {
            let Some(failures) = known.failures.filter(|&failures| failures > 0) else {
                return Ok(());
            };
            let allowed = policy.start_retries.saturating_add(1);
            let all_used = event.cause != Cause::RetriesUsedUp || failures == allowed;
            ensure(failures <= allowed && all_used, || {
                format!("{failures} starts failed, {allowed} are allowed")
            })
        }
        Cause::Restart => {
            let is_in = |set: ExitSet| known.last_exit.is_some_and(|exit| set.contains(exit));
            let never = policy.restart == Restart::Never && !is_in(policy.force_restart);
            let never = never || is_in(policy.prevent_restart);
            // After dropped events, its end is not known.
            let is_known = since(crashed(event)).is_some() && known.last_end.is_some();
            ensure(!(never && is_known), || "it is never to be restarted".into())?;
            pauses_after_a_brief_run(known, event)?;
            within_the_budget(known, policy, |run| since(run).is_some())?;
            within_the_shared_budget(host, known, group)
        }
        Cause::SiblingEnded => {
            let has_lower = known.number > 0 || policy.strategy != Strategy::RestForOne;
            let is_right = policy.strategy != Strategy::OneForOne && has_lower;
            // A group that stops stops all.
            let is_right =
                is_right || policy.auto_shutdown != AutoShutdown::Never || group.was_stopped || group.was_told_late;
            let is_right = is_right || (policy.strategy != Strategy::OneForOne && event.to != StateName::Backoff);
            ensure(is_right || since(event.run).is_none(), || {
                "the end of a sibling does not concern it".into()
            })
        }
        Cause::CrashBudgetUsedUp => {
            ensure(known.last_end.is_none_or(|(_, expected)| !expected), || {
                "it has ended as expected".into()
            })?;
            // The crash itself has no restart.
            let (is_bound, is_known) = (policy.budgets().next().is_some(), since(event.run).is_some());
            ensure(is_bound || !is_known, || "it has no budget".into())?;
            match is_known {
                true => has_used_up_a_budget(host, known, group, event.at),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Before the process counts as running, an expected exit ends a job, unless it asks to be run again, and an exit after
/// which the policy prevents a restart is the end. Every other exit is a failed start, and so is one before the program
/// was `executed`. That is `None` if the policy was changed meanwhile.
fn judges_early_ends(group: &Group, event: &TransitionEvent, executed: Option<bool>) -> Result<(), Broken> {
    let policy = &group.policy;
    let (exit, is_done) = match (event.cause, event.to) {
        (Cause::Ended { exit, .. }, StateName::Exited | StateName::CleaningUp) if event.from == StateName::Starting => {
            (exit, true)
        }
        (Cause::Failed(Failure::Ended(exit)), StateName::Backoff) => (exit, false),
        _ => return Ok(()),
    };
    let is_job = policy.restart == Restart::Never && !policy.early_exit_fails;
    let is_job = match policy.startup {
        Startup::Grace(_) => is_job,
        Startup::Notify { .. } => false,
        Startup::Completes { .. } => true,
    };
    let is_job = is_job && !policy.force_restart.contains(exit);
    let may_be_done = (is_job && policy.expected.contains(exit)) || policy.prevent_restart.contains(exit);
    let may_be_done = may_be_done && executed != Some(false);
    ensure(executed.is_none() || may_be_done == is_done, || {
        format!("it ended within its grace with {exit}, and a job may: {may_be_done}")
    })
}

/// A loop of expected exits never keeps the host busy.
fn pauses_after_a_brief_run(known: &Instance, event: &TransitionEvent) -> Result<(), Broken> {
    let Some((ended, true)) = known.last_end else {
        return Ok(());
    };
    let uptime = known
        .attempt(crashed(event), Part::Program)
        .map(|attempt| ended.saturating_duration_since(attempt.at));
    let is_brief = uptime.is_some_and(|uptime| uptime < Policy::BRIEF_RUN);
    ensure(!is_brief || event.to == StateName::Backoff, || {
        format!("it ended as expected after {uptime:?}, and is started again at once")
    })
}

fn within_the_budget(known: &Instance, policy: &Policy, unchanged: impl Fn(u64) -> bool) -> Result<(), Broken> {
    let (Some(budget), Some(&(now, _))) = (policy.crash_budget, known.crashes.last()) else {
        return Ok(());
    };
    // A run that counts as stable clears the crash window.
    if policy.stable_after <= budget.window {
        return Ok(());
    }
    let recent = known
        .crashes
        .iter()
        .filter(|&&(at, run)| now.saturating_duration_since(at) <= budget.window && unchanged(run));
    let recent = recent.count();
    ensure(recent <= budget.max.into(), || {
        format!("{recent} restarts, {} are allowed", budget.max)
    })
}

/// The restarts of all instances of a group fit into its budget together.
fn within_the_shared_budget(host: &Host, known: &Instance, group: &Group) -> Result<(), Broken> {
    let (Some(budget), Some(&(now, _))) = (group.policy.shared_budget, known.crashes.last()) else {
        return Ok(());
    };
    if group.policy.stable_after <= budget.window || host.has_waited {
        return Ok(());
    }
    let members = host.model.instances.iter().filter(|other| other.group == group.id);
    let counts = |other: &Instance| {
        let recent = other.crashes.iter().filter(|&&(at, run)| {
            let is_unchanged = other.start(run).is_some_and(|start| start.epoch == group.epoch);
            at <= now && now.saturating_duration_since(at) <= budget.window && is_unchanged
        });
        recent.count()
    };
    let recent: usize = members.map(counts).sum();
    ensure(recent <= budget.max.into(), || {
        format!("{recent} restarts of all together, {} are allowed", budget.max)
    })
}
