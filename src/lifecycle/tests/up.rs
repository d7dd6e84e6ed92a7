//! Starts, restarts and exits without a stop: one test for each rule.

use std::time::Duration;

use super::super::{
    Action, CrashBudget, Delay, Failure, Input, Policy, Reply, Restart, Scope, Startup, State, StateName, StopLadder,
    Wanted,
};
use super::world::{Program, SECOND, SLEEP, World, always};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

const AT_ONCE: Startup = Startup::Grace(Duration::ZERO);

fn crashing() -> Program {
    Program::ends(SECOND * 2, 1)
}

fn notify(seconds: u64) -> Policy {
    Policy {
        startup: Startup::Notify {
            timeout: SECOND * seconds as u32,
        },
        ..Policy::default()
    }
}

// Starts.

#[test]
fn a_start_without_a_process_spawns_and_resets_all_counters() {
    let stopped = World::new(Policy::default(), SLEEP);
    let mut exited = World::started(
        Policy {
            restart: Restart::Never,
            ..Policy::default()
        },
        crashing(),
    );
    exited.run_until(2.0);
    assert_eq!(exited.state(), StateName::Exited);
    let mut fatal = World::started(Policy::default(), Program::not_executable());
    fatal.run_until(100.0);
    assert_eq!(fatal.state(), StateName::Fatal);
    assert_eq!(fatal.checked.life.failed_starts(), 4);
    for (world, runs) in [(stopped, 0), (exited, 1), (fatal, 4)] {
        for input in [Input::Start, Input::Restart] {
            let mut world = world.clone();
            let reaction = world
                .checked
                .handle(&world.policy.clone(), input, Instant::from_nanos(200_000_000_000));
            assert_eq!(
                (reaction.reply, reaction.action),
                (Reply::Accepted, Some(Action::Spawn))
            );
            assert_eq!(world.checked.life.failed_starts(), 0);
            assert_eq!(world.checked.life.restarts(), 0);
            assert_eq!(world.checked.life.runs(), runs + 1);
            assert_eq!(world.checked.life.wanted(), Wanted::Up);
        }
    }
}

#[test]
fn a_failed_spawn_is_retried_until_no_retry_is_left() {
    let mut world = World::started(
        Policy {
            start_retries: 0,
            ..Policy::default()
        },
        Program::not_executable(),
    );
    let failed = "could not be spawned: Permission denied";
    assert_eq!(
        world.take_log(),
        [
            "0 STARTING, requested",
            &format!("0 BACKOFF, {failed}"),
            "0 FATAL, no try left"
        ]
    );
    world.policy.start_retries = 2;
    world.send(Input::Start);
    world.run_until(1_000.0);
    assert_eq!(world.checked.life.runs(), 1 + 3, "n retries must allow n + 1 spawns");
}

#[test]
fn a_resource_shortage_is_retried_without_a_limit() {
    let short = Program {
        spawn_error: Some((libc::EAGAIN, false)),
        ..SLEEP
    };
    let policy = |count_shortages| Policy {
        start_retries: 1,
        count_shortages,
        ..Policy::default()
    };
    let mut patient = World::started(policy(false), short);
    patient.run_until(1_000.0);
    assert_eq!(patient.state(), StateName::Backoff);
    assert!(patient.checked.life.runs() > 40, "{}", patient.checked.life.runs());
    let mut strict = World::started(policy(true), short);
    strict.run_until(1_000.0);
    assert_eq!((strict.state(), strict.checked.life.runs()), (StateName::Fatal, 2));
}

#[test]
fn a_permanent_failure_is_retried_unless_the_policy_forbids_it() {
    let [missing, short] = [(libc::ENOENT, true), (libc::EAGAIN, false)].map(|missing| Program {
        spawn_error: Some(missing),
        ..SLEEP
    });
    for (program, retry_permanent, gives_up) in [
        (missing, true, false),
        (missing, false, true),
        (short, true, false),
        (short, false, false),
    ] {
        let policy = Policy {
            retry_permanent,
            ..Policy::default()
        };
        let mut world = World::started(policy, program);
        assert_eq!(world.state() == StateName::Fatal, gives_up);
        let log = world.take_log();
        assert_eq!(log[log.len() - 1] == "0 FATAL, trying again cannot help", gives_up);
        assert!(log[1].starts_with("0 BACKOFF, could not be spawned"));
    }
}

#[test]
fn exec_may_fail_after_the_pid_is_known() {
    for before_failing in [vec![], vec![Input::Stop], vec![Input::Restart], vec![Input::Kill]] {
        let mut world = World::started(Policy::default(), Program::ignores_signals());
        before_failing.into_iter().for_each(|input| {
            world.send(input);
        });
        let wanted = world.checked.life.wanted();
        world.remove_process();
        world.program = Program::not_executable();
        let failed = Input::SpawnFailed {
            errno: libc::ENOEXEC,
            permanent: true,
        };
        assert_eq!(world.send(failed), Reply::Accepted);
        let reached = match wanted {
            Wanted::Up => StateName::Backoff,
            Wanted::Down => StateName::Stopped,
        };
        assert_eq!(world.state(), reached);
    }
}

#[test]
fn a_process_that_outlives_its_grace_is_running_and_resets_failed_starts() {
    let mut world = World::started(Policy::default(), Program::ends(SECOND / 2, 1));
    world.run_until(1.0);
    world.program = SLEEP;
    assert_eq!(world.checked.life.failed_starts(), 1);
    world.run_until(3.0);
    assert_eq!(world.state(), StateName::Running);
    assert_eq!(world.checked.life.failed_starts(), 0);
}

#[test]
fn readiness_ends_a_start_before_its_deadline() {
    let ready = Program {
        ready: Some(SECOND * 3),
        ..SLEEP
    };
    for policy in [
        notify(5),
        Policy {
            startup: Startup::Grace(SECOND * 5),
            ..Policy::default()
        },
    ] {
        let mut world = World::started(policy, ready);
        world.run_until(100.0);
        assert_eq!(world.take_log(), ["0 STARTING, requested", "3 RUNNING, ready"]);
    }
}

#[test]
fn a_process_that_is_not_ready_in_time_is_stopped_and_has_failed_to_start() {
    let mut world = World::started(notify(5), SLEEP);
    world.run_until(6.0);
    assert_eq!(
        world.take_log(),
        [
            "0 STARTING, requested",
            "5 STOPPING, not ready in time",
            "5 SIGTERM to Process",
            "5 BACKOFF, not ready in time",
            "6 STARTING, delay over",
        ]
    );
    assert_eq!(world.checked.life.failed_starts(), 1);
}

#[test]
fn a_process_that_exits_before_it_is_ready_has_failed_to_start() {
    for deadline_first in [false, true] {
        let mut world = World::started(notify(5), Program::ends(SECOND * 5, 0));
        world.deadline_first = deadline_first;
        world.run_until(5.0);
        let log = world.take_log();
        assert_eq!(world.state(), StateName::Backoff);
        assert!(!log.iter().any(|line| line.contains("RUNNING")));
    }
}

#[test]
fn a_process_that_closes_its_readiness_descriptor_has_failed_to_start() {
    let mut world = World::started(notify(5), SLEEP);
    assert_eq!(
        world.send_and_log(Input::Failed(Failure::NotReady)).1,
        [
            "0 STOPPING, readiness descriptor closed without a message",
            "0 SIGTERM to Process"
        ]
    );
    assert_eq!(
        world.log_until(0.0),
        ["0 BACKOFF, readiness descriptor closed without a message"]
    );
}

#[test]
fn an_exit_at_the_end_of_the_grace_has_the_same_result_in_either_order() {
    let stories = [false, true].map(|deadline_first| {
        let mut world = World::started(always(), Program::ends(SECOND, 7));
        world.deadline_first = deadline_first;
        world.run_until(1.0);
        world.take_log()
    });
    assert_eq!(stories[0], stories[1]);
    assert_eq!(
        stories[0],
        [
            "0 STARTING, requested",
            "1 RUNNING, grace over",
            "1 EXITED, exited with code 7",
            "1 STARTING, restart policy"
        ]
    );
}

#[test]
fn an_exit_just_before_the_end_of_the_grace_is_a_failed_start() {
    let mut world = World::started(always(), Program::ends(SECOND - Duration::from_nanos(1), 7));
    world.run_until(1.0);
    assert_eq!(world.state(), StateName::Backoff);
}

#[test]
fn the_uptime_counts_from_the_spawn() {
    let mut world = World::started(Policy::default(), SLEEP);
    world.run_until(5.0);
    let since = world.checked.life.state().since().unwrap();
    assert_eq!(since, Instant::from_nanos(77_000_000_000));
}

// Backoff and Fatal.

#[test]
fn a_start_in_backoff_spawns_at_once_and_resets_failed_starts() {
    let mut world = World::started(Policy::default(), Program::ends(SECOND / 2, 1));
    world.run_until(0.7);
    let (reply, log) = world.send_and_log(Input::Start);
    assert_eq!((reply, &log[0][..]), (Reply::Accepted, "0.7 STARTING, requested"));
    assert_eq!(world.checked.life.failed_starts(), 0);
    assert_eq!(
        world.log_until(2.1),
        ["1.2 BACKOFF, exited with code 1"],
        "the old deadline must not fire"
    );
}

#[test]
fn a_fatal_instance_starts_again_after_its_cool_off_with_reset_counters() {
    let policy = Policy {
        start_retries: 0,
        cool_off: Some(SECOND * 60),
        ..Policy::default()
    };
    let mut world = World::started(policy, Program::not_executable());
    world.take_log();
    world.run_until(60.0);
    let log = world.take_log();
    assert_eq!(log[0], "60 STARTING, cool-off over");
    assert_eq!(log[log.len() - 1], "60 FATAL, no try left");
    assert_eq!(world.checked.life.failed_starts(), 1);
    assert_eq!(
        world.send_and_log(Input::Stop),
        (Reply::Accepted, vec!["60 STOPPED, requested".into()])
    );
    assert_eq!(world.log_until(1_000.0), [""; 0]);
}

#[test]
fn a_fatal_instance_without_a_cool_off_stays_fatal() {
    let policy = Policy {
        start_retries: 0,
        ..Policy::default()
    };
    let mut world = World::started(policy, Program::not_executable());
    assert_eq!(world.checked.life.deadline(), None);
    assert_eq!(world.send_and_log(Input::Stop), (Reply::Already, vec![]));
    assert_eq!(
        (world.state(), world.checked.life.wanted()),
        (StateName::Fatal, Wanted::Down)
    );
}

// Exits.

#[test]
fn the_policy_decides_after_which_exits_a_process_is_restarted() {
    let killed = Exit::Signal {
        signal: Signal::SEGV,
        core: true,
    };
    for (exit, restarted) in [
        (Exit::Code(0), [true, false, false]),
        (Exit::Code(1), [true, true, false]),
        (killed, [true, true, false]),
        (Exit::Unknown, [true, true, false]),
    ] {
        let policies = [Restart::Always, Restart::OnUnexpected, Restart::Never];
        for (restart, restarted) in policies.into_iter().zip(restarted) {
            let program = Program {
                ends: Some((SECOND * 2, exit)),
                ..SLEEP
            };
            let policy = Policy {
                restart,
                ..Policy::default()
            };
            let mut world = World::started(policy, program);
            world.run_until(2.0);
            let reached = if restarted {
                StateName::Starting
            } else {
                StateName::Exited
            };
            assert_eq!(world.state(), reached, "{exit} under {restart:?}");
            assert_eq!(world.take_log()[2], format!("2 EXITED, {}", ended(exit)));
        }
    }
}

fn ended(exit: Exit) -> String {
    let expected = if exit == Exit::Code(0) { ", as expected" } else { "" };
    format!("{exit}{expected}")
}

#[test]
fn the_exited_state_contains_the_exit_status() {
    let policy = Policy {
        restart: Restart::Never,
        ..Policy::default()
    };
    for (code, expected) in [(0, true), (1, false)] {
        let mut world = World::started(policy.clone(), Program::ends(SECOND * 2, code));
        world.run_until(3.0);
        let exit = Exit::Code(code);
        assert_eq!(*world.checked.life.state(), State::Exited { exit, expected });
        assert_eq!(world.send_and_log(Input::Kill), (Reply::Already, vec![]));
    }
}

#[test]
fn a_restart_waits_for_its_delay() {
    let policy = Policy {
        restart_delay: Delay::Linear {
            step: SECOND,
            cap: SECOND * 60,
        },
        ..Policy::default()
    };
    let mut world = World::started(policy, crashing());
    world.run_until(7.0);
    assert_eq!(
        world.take_log(),
        [
            "0 STARTING, requested",
            "1 RUNNING, grace over",
            "2 EXITED, exited with code 1",
            "2 BACKOFF, restart policy",
            "3 STARTING, delay over",
            "4 RUNNING, grace over",
            "5 EXITED, exited with code 1",
            "5 BACKOFF, restart policy",
            "7 STARTING, delay over",
        ]
    );
    assert_eq!(world.checked.life.restarts(), 2);
}

#[test]
fn crashes_beyond_the_budget_are_fatal_and_a_start_resets_the_count() {
    let policy = Policy {
        startup: AT_ONCE,
        crash_budget: Some(CrashBudget {
            max: 2,
            window: SECOND * 10,
        }),
        ..Policy::default()
    };
    let mut world = World::started(policy, crashing());
    world.run_until(100.0);
    let log = world.take_log();
    assert_eq!(
        log[log.len() - 2..],
        ["6 EXITED, exited with code 1", "6 FATAL, crashed too often"]
    );
    assert_eq!(world.checked.life.restarts(), 2);
    world.send(Input::Start);
    assert_eq!(world.checked.life.restarts(), 0);
    world.run_until(105.9);
    assert_eq!(world.checked.life.restarts(), 2);
    assert_eq!(world.state(), StateName::Running);
}

#[test]
fn a_loop_of_expected_exits_is_slowed_down_and_never_given_up() {
    let policy = Policy {
        startup: AT_ONCE,
        crash_budget: Some(CrashBudget {
            max: 2,
            window: SECOND * 1_000,
        }),
        ..always()
    };
    // The length of each run, and the pause after a brief one.
    for (millis, pause) in [(0, 100), (300, 100), (999, 100), (1_000, 0), (5_000, 0)] {
        let mut world = World::started(policy.clone(), Program::ends(Duration::from_millis(millis), 0));
        world.run_until(99.999);
        assert_eq!(
            world.checked.life.runs(),
            100_000_u64.div_ceil(millis + pause),
            "{millis} ms"
        );
    }
    // Crashes among the expected exits still count.
    let mut world = World::started(policy, Program::ends(SECOND, 0));
    world.run_until(50.5);
    world.program = Program::ends(SECOND, 1);
    world.run_until(100.0);
    let log = world.take_log();
    assert_eq!(log[log.len() - 1], "54 FATAL, crashed too often");
}

#[test]
fn crashes_outside_the_window_do_not_count() {
    let policy = Policy {
        startup: AT_ONCE,
        crash_budget: Some(CrashBudget {
            max: 2,
            window: SECOND * 3,
        }),
        ..Policy::default()
    };
    let mut world = World::started(policy, crashing());
    world.run_until(100.0);
    assert_eq!(world.state(), StateName::Running);
    assert_eq!(world.checked.life.runs(), 51);
}

#[test]
fn a_stable_run_resets_the_crash_count() {
    let policy = Policy {
        crash_budget: Some(CrashBudget {
            max: 1,
            window: SECOND * 1_000,
        }),
        stable_after: SECOND * 60,
        ..Policy::default()
    };
    for (uptime, reached) in [(59, StateName::Fatal), (60, StateName::Starting)] {
        let mut world = World::started(policy.clone(), crashing());
        world.run_until(1.5);
        world.program = Program::ends(SECOND * uptime, 1);
        world.run_until(2.0 + f64::from(uptime));
        assert_eq!(world.state(), reached);
    }
}

// What a supervisor asks before it judges.

#[test]
fn silence_is_a_failure_until_readiness_and_while_running() {
    let grace = Policy {
        startup: Startup::Grace(SECOND * 9),
        ..Policy::default()
    };
    for (policy, starts_by_message) in [(notify(9), true), (grace, false)] {
        let mut world = World::new(policy.clone(), SLEEP);
        let judged = |world: &World| {
            let life = &world.checked.life;
            [life.awaits_readiness(&policy), life.judges_silence(&policy)]
        };
        assert_eq!(judged(&world), [false, false]);
        world.send(Input::Start);
        assert_eq!(judged(&world), [starts_by_message, starts_by_message]);
        world.send(Input::Ready);
        world.run_until(9.0);
        assert_eq!(world.checked.life.state().name(), StateName::Running);
        assert_eq!(judged(&world), [false, true]);
        world.program = Program::ignores_signals();
        world.send(Input::Stop);
        assert_eq!(judged(&world), [false, false]);
    }
}

#[test]
fn other_processes_matter_if_a_stop_reaches_them_and_has_not_begun() {
    for scope in [Scope::Process, Scope::ProcessGroup] {
        let policy = Policy {
            stop: StopLadder::signal(Signal::TERM, scope, SECOND),
            ..Policy::default()
        };
        let mut world = World::started(policy.clone(), Program::ignores_signals());
        let matter = |world: &World| world.checked.life.judges_others(&policy);
        assert_eq!(matter(&world), scope == Scope::ProcessGroup);
        world.send(Input::Stop);
        assert!(!matter(&world));
    }
}
