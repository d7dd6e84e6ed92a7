//! Cases in which a naive implementation fails, with every step and its time.

use std::time::Duration;

use super::super::{ExitSet, Input, Policy, Reply, Restart, Scope, Startup, StateName, StopLadder};
use super::world::{Program, SECOND, SLEEP, World, always};
use crate::exit::Exit;
use crate::signal::Signal;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The log of a world that runs for this many seconds.
fn story(policy: Policy, program: Program, seconds: f64) -> Vec<String> {
    let mut world = World::started(policy, program);
    world.run_until(seconds);
    world.take_log()
}

fn grace_zero(restart: Restart) -> Policy {
    Policy {
        startup: Startup::Grace(Duration::ZERO),
        restart,
        ..Policy::default()
    }
}

#[test]
fn a_quick_exit_is_a_failed_start_for_every_code_under_the_rule_of_supervisord() {
    for (code, early_exit_fails) in [(0, true), (1, true), (1, false)] {
        let policy = Policy {
            restart: Restart::Never,
            early_exit_fails,
            ..Policy::default()
        };
        let backoff = format!("BACKOFF, exited with code {code}");
        assert_eq!(
            story(policy, Program::ends(ms(200), code), 1_000.0),
            [
                "0 STARTING, requested",
                &format!("0.2 {backoff}"),
                "1.2 STARTING, delay over",
                &format!("1.4 {backoff}"),
                "3.4 STARTING, delay over",
                &format!("3.6 {backoff}"),
                "6.6 STARTING, delay over",
                &format!("6.8 {backoff}"),
                "6.8 FATAL, no try left",
            ]
        );
    }
}

#[test]
fn a_job_that_is_done_at_once_has_not_failed_to_start() {
    let job = Policy {
        restart: Restart::Never,
        ..Policy::default()
    };
    let quick = Program::ends(ms(200), 0);
    let done = ["0 STARTING, requested", "0.2 EXITED, exited with code 0, as expected"];
    assert_eq!(story(job.clone(), quick, 1_000.0), done);
    for policy in [
        Policy {
            restart: Restart::Always,
            ..job.clone()
        },
        Policy {
            restart: Restart::OnUnexpected,
            ..job.clone()
        },
        Policy {
            expected: ExitSet::EMPTY,
            ..job.clone()
        },
        Policy {
            startup: Startup::Notify { timeout: SECOND },
            ..job
        },
    ] {
        assert_eq!(story(policy, quick, 0.5)[1], "0.2 BACKOFF, exited with code 0");
    }
}

#[test]
fn without_a_grace_an_exit_is_never_a_failed_start() {
    assert_eq!(
        story(
            grace_zero(Restart::OnUnexpected),
            Program::ends(Duration::ZERO, 0),
            1_000.0
        ),
        [
            "0 STARTING, requested",
            "0 RUNNING, grace over",
            "0 EXITED, exited with code 0, as expected"
        ]
    );
}

#[test]
fn without_a_grace_a_crash_loop_is_bounded_by_its_budget() {
    let mut world = World::started(grace_zero(Restart::Always), Program::ends(Duration::ZERO, 1));
    world.run_until(1_000.0);
    assert_eq!(
        world.checked.life.runs(),
        11,
        "the budget must allow ten restarts in ten seconds"
    );
    let log = world.take_log();
    assert_eq!(
        log[log.len() - 3..],
        [
            "0 RUNNING, grace over",
            "0 EXITED, exited with code 1",
            "0 FATAL, crashed too often"
        ]
    );
}

#[test]
fn without_a_grace_a_missing_program_is_still_a_failed_start() {
    let program = Program {
        spawn_error: Some((libc::ENOENT, true)),
        ..SLEEP
    };
    let policy = Policy {
        start_retries: 1,
        ..grace_zero(Restart::Always)
    };
    let backoff = "BACKOFF, could not be spawned: No such file or directory";
    assert_eq!(
        story(policy, program, 1_000.0),
        [
            "0 STARTING, requested",
            &format!("0 {backoff}"),
            "1 STARTING, delay over",
            &format!("1 {backoff}"),
            "1 FATAL, no try left",
        ]
    );
}

#[test]
fn a_stop_in_backoff_resets_the_counter() {
    let mut world = World::started(Policy::default(), Program::ends(ms(200), 1));
    world.run_until(2.0);
    assert_eq!(world.checked.life.failed_starts(), 2);
    world.take_log();
    assert_eq!(world.send(Input::Stop), Reply::Accepted);
    assert_eq!(world.checked.life.failed_starts(), 0);
    world.run_until(100.0);
    assert_eq!(
        world.take_log(),
        ["2 STOPPED, requested"],
        "the backoff deadline must not fire"
    );
    assert_eq!(world.send(Input::Start), Reply::Accepted);
    world.run_until(101.2);
    assert_eq!(
        world.take_log(),
        [
            "100 STARTING, requested",
            "100.2 BACKOFF, exited with code 1",
            "101.2 STARTING, delay over"
        ]
    );
}

#[test]
fn a_start_during_a_stop_waits_for_the_end() {
    let program = Program {
        on_signal: Some((SECOND * 2, Exit::Code(0))),
        ..SLEEP
    };
    let mut world = World::started(Policy::default(), program);
    world.run_until(5.0);
    assert_eq!(world.send(Input::Stop), Reply::Accepted);
    world.run_until(6.0);
    assert_eq!(world.send(Input::Start), Reply::Queued);
    assert_eq!(world.send(Input::Start), Reply::Already);
    world.run_until(20.0);
    assert_eq!(
        world.take_log(),
        [
            "0 STARTING, requested",
            "1 RUNNING, grace over",
            "5 STOPPING, requested",
            "5 SIGTERM to Process",
            "7 STARTING, requested",
            "8 RUNNING, grace over"
        ]
    );
    assert_eq!(world.checked.life.runs(), 2);
}

#[test]
fn a_stopped_process_is_not_restarted_after_any_exit_code() {
    let program = Program {
        on_signal: Some((ms(10), Exit::Code(3))),
        ..SLEEP
    };
    let mut world = World::started(always(), program);
    world.run_until(2.0);
    world.send(Input::Stop);
    world.run_until(1_000.0);
    assert_eq!(
        world.take_log()[2..],
        [
            "2 STOPPING, requested",
            "2 SIGTERM to Process",
            "2.01 STOPPED, nothing left of it"
        ]
    );
}

#[test]
fn a_process_that_exits_within_the_stop_time_gets_no_sigkill() {
    for millis in [0, 9_999, 10_000] {
        let program = Program {
            on_signal: Some((ms(millis), Exit::Code(0))),
            ..SLEEP
        };
        let mut world = World::started(Policy::default(), program);
        world.deadline_first = false;
        world.run_until(2.0);
        world.send(Input::Stop);
        world.run_until(1_000.0);
        assert_eq!(world.state(), StateName::Stopped);
        assert!(!world.take_log().iter().any(|line| line.contains("SIGKILL")));
    }
}

#[test]
fn a_process_group_is_stopped_when_no_process_of_it_is_left() {
    let program = Program {
        leaves_others: true,
        ..SLEEP
    };
    let policy = Policy {
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, SECOND * 3),
        ..Policy::default()
    };
    let mut world = World::started(policy, program);
    world.run_until(2.0);
    world.send(Input::Stop);
    world.run_until(4.999);
    assert_eq!(world.state(), StateName::Stopping);
    assert!(!world.checked.model.leader, "the leader must have exited");
    world.run_until(1_000.0);
    let log = world.take_log();
    assert_eq!(
        log[2..5],
        [
            "2 STOPPING, requested",
            "2 SIGTERM to ProcessGroup",
            "5 SIGKILL to ProcessGroup"
        ]
    );
    // The empty group is noticed at the next check, which is at most 256 ms later.
    let (at, what) = log[5].split_once(' ').unwrap();
    assert!((5.0..=5.256).contains(&at.parse().unwrap()), "{at}");
    assert_eq!(what, "STOPPED, nothing left of it");
    assert_eq!(log.len(), 6);
}

#[test]
fn stopping_and_starting_two_of_four_instances_does_not_affect_the_others() {
    let slow = Program {
        on_signal: Some((SECOND * 2, Exit::Code(0))),
        ..SLEEP
    };
    let mut herd = [SLEEP, SLEEP, SLEEP, slow].map(|program| World::started(Policy::default(), program));
    herd.iter_mut().for_each(|world| world.run_until(2.0));
    herd[2..]
        .iter_mut()
        .for_each(|world| assert_eq!(world.send(Input::Stop), Reply::Accepted));
    herd.iter_mut().for_each(|world| world.run_until(3.0));
    assert_eq!(
        [herd[2].state(), herd[3].state()],
        [StateName::Stopped, StateName::Stopping]
    );
    let replies = herd.each_mut().map(|world| world.send(Input::Start));
    assert_eq!(
        replies,
        [Reply::Already, Reply::Already, Reply::Accepted, Reply::Queued]
    );
    herd.iter_mut().for_each(|world| world.run_until(10.0));
    assert_eq!(herd.each_ref().map(World::state), [StateName::Running; 4]);
    assert_eq!(herd.each_ref().map(|world| world.checked.life.runs()), [1, 1, 2, 2]);
    assert_eq!(
        herd[3].take_log()[4..],
        ["4 STARTING, requested", "5 RUNNING, grace over"],
        "the start must wait until the stopped process is gone"
    );
}
