//! A process that exists before its program is executed.

use std::time::Duration;

use super::checked::Checked;
use super::world::SECOND;
use crate::exit::Exit;
use crate::lifecycle::{Input, Policy, Restart, RunEnd, Startup, State, StateName};
use crate::signal::Signal;
use crate::time::Instant;

const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(1).saturating_add(SECOND * u32::try_from(seconds).unwrap())
}

/// A process in flight since second 0.
fn in_flight(policy: &Policy) -> Checked {
    let mut checked = Checked::new(policy, 0);
    checked.handle(policy, Input::Start, at(0));
    checked.handle(policy, Input::Cloned(checked.pid()), at(0));
    checked
}

fn with_startup(startup: Startup) -> Policy {
    Policy {
        startup,
        ..Policy::default()
    }
}

#[test]
fn a_grace_begins_with_the_execution() {
    let policy = with_startup(Startup::Grace(SECOND));
    let mut checked = in_flight(&policy);
    assert_eq!(checked.life.deadline(), None);
    checked.handle(&policy, Input::Executed, at(100));
    assert_eq!(checked.life.deadline(), Some(at(101)));
    checked.handle(&policy, Input::Timeout, at(101));
    assert_eq!(checked.life.state().name(), StateName::Running);
}

#[test]
fn a_grace_that_replaces_a_timeout_begins_with_the_execution() {
    let old = with_startup(Startup::Notify { timeout: SECOND * 2 });
    let new = with_startup(Startup::Grace(SECOND * 2));
    for (second, state) in [(2, StateName::Starting), (3, StateName::Running)] {
        let mut checked = in_flight(&old);
        checked.handle(&old, Input::Executed, at(1));
        checked.handle(&new, Input::Timeout, at(second));
        assert_eq!(checked.life.state().name(), state);
        assert_eq!(checked.life.deadline(), (second == 2).then_some(at(3)));
        // The result does not depend on the order in which the end and the deadline are observed.
        let mut checked = in_flight(&old);
        checked.handle(&old, Input::Executed, at(1));
        checked.handle(&new, Input::Exited(KILLED), at(second));
        assert_eq!(checked.life.failed_starts(), u32::from(second == 2));
    }
}

#[test]
fn an_extension_in_flight_outlasts_the_execution() {
    let policy = with_startup(Startup::Notify { timeout: SECOND * 2 });
    let mut checked = in_flight(&policy);
    checked.handle(&policy, Input::Extend(SECOND * 5), at(1));
    checked.handle(&policy, Input::Executed, at(1));
    assert_eq!(checked.life.deadline(), Some(at(6)));
}

#[test]
fn without_a_grace_a_process_runs_when_its_program_is_executed() {
    let policy = with_startup(Startup::Grace(Duration::ZERO));
    let mut checked = in_flight(&policy);
    assert_eq!(checked.life.state().name(), StateName::Starting);
    checked.handle(&policy, Input::Executed, at(5));
    assert_eq!(checked.life.state().name(), StateName::Running);
}

#[test]
fn a_timeout_for_readiness_also_ends_an_execution_that_hangs() {
    let policy = with_startup(Startup::Notify { timeout: SECOND });
    let mut checked = in_flight(&policy);
    assert_eq!(checked.life.deadline(), Some(at(1)));
    checked.handle(&policy, Input::Timeout, at(1));
    assert_eq!(checked.life.state().name(), StateName::Stopping);
    let ended = checked.handle(&policy, Input::Exited(KILLED), at(2));
    assert_eq!(ended.end, Some(RunEnd::StartTimeout));
}

#[test]
fn a_process_that_is_killed_before_its_program_is_a_failed_start() {
    for startup in [Startup::Grace(Duration::ZERO), Startup::Notify { timeout: SECOND }] {
        let policy = with_startup(startup);
        let mut checked = in_flight(&policy);
        let ended = checked.handle(&policy, Input::Exited(KILLED), at(0));
        assert_eq!(ended.end, Some(RunEnd::KilledFromOutside(Signal::KILL)));
        assert_eq!(checked.life.state().name(), StateName::Backoff);
        assert_eq!(checked.life.failed_starts(), 1);
    }
}

#[test]
fn a_failure_before_the_program_during_a_stop_ends_the_stop() {
    let policy = Policy::default();
    let mut checked = in_flight(&policy);
    checked.handle(&policy, Input::Stop, at(1));
    let failed = Input::SpawnFailed {
        errno: libc::ENOENT,
        permanent: true,
    };
    let ended = checked.handle(&policy, failed, at(2));
    assert_eq!(ended.end, Some(RunEnd::NotSpawned));
    assert_eq!(checked.life.state().name(), StateName::Stopped);
}

#[test]
fn an_end_that_came_before_the_stop_is_judged_by_itself() {
    let policy = Policy::default();
    for (found, end) in [(Some(Input::EndedBefore), RunEnd::Exited(3)), (None, RunEnd::Stopped)] {
        let mut checked = in_flight(&policy);
        checked.handle(&policy, Input::Executed, at(0));
        checked.handle(&policy, Input::Stop, at(1));
        if let Some(found) = found {
            checked.handle(&policy, found, at(1));
        }
        let ended = checked.handle(&policy, Input::Exited(Exit::Code(3)), at(1));
        assert_eq!(ended.end, Some(end));
    }
}

#[test]
fn without_its_command_a_process_that_is_not_wanted_is_not_started() {
    let with_command = Policy {
        before_run: Some(SECOND),
        ..Policy::default()
    };
    for (stops, state) in [(false, StateName::Starting), (true, StateName::Stopped)] {
        let mut checked = Checked::new(&with_command, 0);
        checked.handle(&with_command, Input::Start, at(0));
        if stops {
            checked.handle(&with_command, Input::Stop, at(0));
        }
        let failed = Input::SpawnFailed {
            errno: libc::ENOENT,
            permanent: false,
        };
        checked.handle(&Policy::default(), failed, at(1));
        assert_eq!(checked.life.state().name(), state);
    }
}

#[test]
fn an_end_before_the_execution_is_a_failed_start_after_the_command_after_the_run_too() {
    let policy = Policy {
        restart: Restart::Never,
        after_run: Some(SECOND),
        ..Policy::default()
    };
    let mut checked = in_flight(&policy);
    checked.handle(&policy, Input::Exited(Exit::Code(0)), at(0));
    assert_eq!(checked.life.state().name(), StateName::CleaningUp);
    checked.handle(&policy, Input::Spawned(checked.pid()), at(0));
    checked.handle(&policy, Input::Exited(Exit::Code(0)), at(0));
    assert_eq!(checked.life.state().name(), StateName::Backoff);
}

#[test]
fn the_exit_of_the_command_before_a_run_is_that_of_the_run() {
    let policy = Policy {
        before_run: Some(SECOND),
        after_run: Some(SECOND),
        ..Policy::default()
    };
    let mut checked = Checked::new(&policy, 0);
    checked.handle(&policy, Input::Start, at(0));
    checked.handle(&policy, Input::Spawned(checked.pid()), at(0));
    checked.handle(&policy, Input::Exited(Exit::Code(3)), at(0));
    let State::CleaningUp { ended, .. } = checked.life.state() else {
        panic!("{:?}", checked.life.state());
    };
    assert_eq!(ended.exit, Exit::Code(3));
}
