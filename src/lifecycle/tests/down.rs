//! Stops, and commands that arrive while another one is being carried out: one test for each rule.

use std::time::Duration;

use super::super::{
    Action, CrashBudget, Failure, Input, Lifecycle, Policy, Reply, Restart, Rung, Scope, Startup, State, StateName,
    StopLadder, Stopping,
};
use super::world::{Program, SECOND, SLEEP, World, always};
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

#[test]
fn a_stop_sends_each_rung_of_the_ladder_and_ends_with_sigkill() {
    let rung = |signal, wait| Rung::new(signal, Scope::Process, wait);
    let policy = Policy {
        stop: StopLadder {
            rungs: vec![
                rung(Signal::HUP, SECOND),
                rung(Signal::INT, Duration::ZERO),
                rung(Signal::TERM, SECOND * 2),
            ],
            ..StopLadder::default()
        },
        ..Policy::default()
    };
    for at in [0.5, 5.0] {
        let mut world = World::started(policy.clone(), Program::ignores_signals());
        world.run_until(at);
        let (reply, log) = world.send_and_log(Input::Stop);
        assert_eq!(reply, Reply::Accepted);
        assert_eq!(
            [log, world.log_until(100.0)].concat(),
            [
                format!("{at} STOPPING, requested"),
                format!("{at} SIGHUP to Process"),
                format!("{} SIGINT to Process", at + 1.0),
                format!("{} SIGTERM to Process", at + 1.0),
                format!("{} SIGKILL to Process", at + 3.0),
                format!("{} STOPPED, nothing left of it", at + 3.0),
            ]
        );
    }
}

#[test]
fn a_ladder_without_rungs_sends_sigkill_at_once() {
    let policy = Policy {
        stop: StopLadder::kill(Scope::ProcessGroup),
        ..Policy::default()
    };
    let mut world = World::started(policy, Program::ignores_signals());
    assert_eq!(
        world.send_and_log(Input::Stop).1,
        ["0 STOPPING, requested", "0 SIGKILL to ProcessGroup"]
    );
    assert_eq!(world.send(Input::Kill), Reply::Already);
    assert_eq!(world.log_until(0.0), ["0 STOPPED, nothing left of it"]);
}

#[test]
fn a_second_stop_does_not_extend_the_deadline() {
    let mut world = World::started(Policy::default(), Program::ignores_signals());
    world.run_until(2.0);
    world.send(Input::Stop);
    world.run_until(11.9);
    assert_eq!(world.send_and_log(Input::Stop), (Reply::Already, vec![]));
    assert_eq!(world.log_until(12.0)[0], "12 SIGKILL to Process");
}

#[test]
fn a_kill_sends_sigkill_at_once_in_every_living_state() {
    for (started, stopped) in [(0.5, false), (5.0, false), (5.0, true)] {
        let mut world = World::started(Policy::default(), Program::ignores_signals());
        world.run_until(started);
        if stopped {
            world.send(Input::Stop);
        }
        let (reply, log) = world.send_and_log(Input::Kill);
        assert_eq!(reply, Reply::Accepted);
        assert_eq!(log[log.len() - 1], format!("{started} SIGKILL to Process"));
        assert_eq!(
            world.send_and_log(Input::Kill),
            (Reply::Already, vec![]),
            "SIGKILL must be sent once"
        );
        assert_eq!(
            world.log_until(started),
            [format!("{started} STOPPED, nothing left of it")]
        );
    }
}

#[test]
fn a_kill_cancels_a_queued_start_and_is_accepted() {
    let stuck = Program {
        survives_sigkill: true,
        ..Program::ignores_signals()
    };
    let mut world = World::started(Policy::default(), stuck);
    world.send(Input::Kill);
    assert_eq!(world.send(Input::Start), Reply::Queued);
    assert_eq!(world.send(Input::Kill), Reply::Accepted);
    assert_eq!(world.send(Input::Kill), Reply::Already);
}

#[test]
fn a_process_that_survives_sigkill_is_reported_once_and_awaited() {
    let stuck = Program {
        survives_sigkill: true,
        ..Program::ignores_signals()
    };
    let mut world = World::started(Policy::default(), stuck);
    world.send(Input::Kill);
    assert_eq!(world.log_until(1_000.0), ["5 unkillable"]);
    assert_eq!(world.state(), StateName::Stopping);
    assert_eq!(world.checked.life.deadline(), None);
    assert_eq!(world.send(Input::Exited(Exit::Unknown)), Reply::Accepted);
    assert_eq!(world.state(), StateName::Stopped);
}

#[test]
fn a_start_during_a_stop_stays_queued_until_a_stop_cancels_it() {
    for (wishes, reached) in [
        (vec![Input::Stop, Input::Start], StateName::Starting),
        (vec![Input::Restart], StateName::Starting),
        (vec![Input::Stop, Input::Restart], StateName::Starting),
        (vec![Input::Kill, Input::Start], StateName::Starting),
        (vec![Input::Stop, Input::Start, Input::Stop], StateName::Stopped),
        (vec![Input::Restart, Input::Stop], StateName::Stopped),
        (vec![Input::Restart, Input::Kill], StateName::Stopped),
        (vec![Input::Restart, Input::Stop, Input::Start], StateName::Starting),
    ] {
        let mut world = World::started(Policy::default(), Program::ignores_signals());
        world.run_until(2.0);
        for &wish in &wishes {
            world.send(wish);
        }
        world.remove_process();
        world.send(Input::Exited(Exit::Code(0)));
        assert_eq!(world.state(), reached, "{wishes:?}");
    }
}

#[test]
fn a_command_during_a_spawn_takes_effect_after_it() {
    let now = Instant::from_nanos(1);
    let policy = Policy::default();
    for (wishes, reached) in [
        (vec![Input::Stop], StateName::Stopping),
        (vec![Input::Kill], StateName::Stopping),
        (vec![Input::Stop, Input::Start], StateName::Starting),
        (vec![Input::Restart], StateName::Starting),
    ] {
        let mut checked = World::new(policy.clone(), SLEEP).checked;
        checked.handle(&policy, Input::Start, now);
        for &wish in &wishes {
            checked.handle(&policy, wish, now);
        }
        checked.handle(&policy, Input::Spawned(checked.pid()), now);
        assert_eq!(checked.life.state().name(), reached, "{wishes:?}");
    }
}

#[test]
fn a_spawn_that_fails_after_a_stop_is_not_retried() {
    let now = Instant::from_nanos(1);
    let policy = Policy::default();
    let failed = Input::SpawnFailed {
        errno: libc::EAGAIN,
        permanent: false,
    };
    let mut checked = World::new(policy.clone(), SLEEP).checked;
    checked.handle(&policy, Input::Start, now);
    checked.handle(&policy, failed, now);
    checked.handle(&policy, Input::Timeout, now.saturating_add(SECOND));
    checked.handle(&policy, Input::Stop, now.saturating_add(SECOND));
    checked.handle(&policy, failed, now.saturating_add(SECOND));
    assert_eq!(*checked.life.state(), State::Stopped);
    assert_eq!(checked.life.failed_starts(), 0, "a stop resets the counter");
}

#[test]
fn a_failure_while_running_is_a_crash_with_its_own_cause() {
    for (restart, after) in [
        (Restart::Always, vec!["3 STARTING, restart policy"]),
        (Restart::OnUnexpected, vec!["3 STARTING, restart policy"]),
        (Restart::Never, vec![]),
    ] {
        let policy = Policy {
            restart,
            ..Policy::default()
        };
        let on_signal = Some((SECOND, Exit::Code(0)));
        let mut world = World::started(policy, Program { on_signal, ..SLEEP });
        world.run_until(2.0);
        world.take_log();
        world.send(Input::Failed(Failure::Watchdog));
        world.run_until(3.0);
        let log = world.take_log();
        assert_eq!(
            log[..3],
            [
                "2 STOPPING, watchdog missed",
                "2 SIGTERM to Process",
                "3 EXITED, watchdog missed"
            ]
        );
        assert_eq!(log[3..], after);
    }
}

#[test]
fn a_failure_while_running_counts_against_the_crash_budget() {
    let policy = Policy {
        crash_budget: Some(CrashBudget { max: 0, window: SECOND }),
        ..Policy::default()
    };
    let mut world = World::started(policy, SLEEP);
    world.run_until(2.0);
    world.send(Input::Failed(Failure::Watchdog));
    world.run_until(2.0);
    assert_eq!(
        *world.checked.life.state(),
        State::Fatal {
            until: Instant::NEVER,
            failure: Failure::Watchdog
        }
    );
}

#[test]
fn a_start_clears_the_failure_that_caused_the_stop() {
    let deaf = Program::ignores_signals();
    for (failure, at) in [(Failure::Watchdog, 2.0), (Failure::NotReady, 0.5)] {
        let mut world = World::started(always(), deaf);
        world.run_until(at);
        world.send(Input::Failed(failure));
        assert_eq!(world.send_and_log(Input::Start), (Reply::Queued, vec![]));
        world.remove_process();
        let (_, log) = world.send_and_log(Input::Exited(Exit::Code(1)));
        assert_eq!(log, [format!("{at} STARTING, requested")]);
    }
}

#[test]
fn a_stop_cancels_the_restart_after_a_failure() {
    let mut world = World::started(always(), Program::ignores_signals());
    world.run_until(2.0);
    world.send(Input::Failed(Failure::Watchdog));
    assert_eq!(world.send_and_log(Input::Stop), (Reply::Accepted, vec![]));
    assert_eq!(
        world.log_until(100.0),
        ["12 SIGKILL to Process", "12 STOPPED, nothing left of it"]
    );
}

#[test]
fn checks_for_remaining_processes_become_rarer_and_never_end() {
    let policy = Policy {
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::MAX),
        ..Policy::default()
    };
    let now = Instant::from_nanos(1);
    let mut checked = World::new(policy.clone(), SLEEP).checked;
    checked.handle(&policy, Input::Start, now);
    checked.handle(&policy, Input::Spawned(checked.pid()), now);
    checked.handle(&policy, Input::Stop, now);
    let first = checked.handle(&policy, Input::Exited(Exit::Code(0)), now);
    let scope = Scope::ProcessGroup;
    assert_eq!(first.action, Some(Action::Look { scope, looks: 0 }));
    let mut waits = Vec::new();
    let mut now = now;
    for looks in 1..=300_u32 {
        let at = checked.life.deadline().unwrap();
        waits.push(at.saturating_duration_since(now).as_millis());
        now = at;
        let looks = looks.min(8) as u8;
        let reaction = checked.handle(&policy, Input::Timeout, now);
        assert_eq!(reaction.action, Some(Action::Look { scope, looks }));
    }
    assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    assert!(waits[10..].iter().all(|&wait| wait == 256));
}

#[test]
fn sigkill_is_repeated_while_processes_of_the_scope_remain() {
    // The policy gets a wider scope after SIGKILL was sent to the process alone.
    let narrow = Policy {
        stop: StopLadder::kill(Scope::Process),
        ..Policy::default()
    };
    let wide = Policy {
        stop: StopLadder::kill(Scope::ProcessGroup),
        ..Policy::default()
    };
    let mut now = Instant::from_nanos(1);
    let mut checked = World::new(narrow.clone(), SLEEP).checked;
    checked.handle(&narrow, Input::Start, now);
    checked.handle(&narrow, Input::Spawned(checked.pid()), now);
    checked.handle(&narrow, Input::Stop, now);
    checked.handle(&wide, Input::Exited(Exit::Code(0)), now);
    let mut killed = Vec::new();
    for _ in 0..100 {
        now = checked.life.deadline().expect("the checks must continue");
        let action = checked.handle(&wide, Input::Timeout, now).action;
        if let Some(Action::Signal { signal, scope }) = action {
            assert_eq!((signal, scope), (Signal::KILL, Scope::ProcessGroup));
            killed.push(now.as_nanos() / 1_000_000);
        }
    }
    let looks = 16 * 256;
    assert_eq!(killed[..2], [255 + looks, 255 + 2 * looks]);
    assert_eq!(killed.len(), 5);
}

#[test]
fn a_policy_may_be_replaced_during_a_stop() {
    let rung = Rung::new(Signal::TERM, Scope::Process, SECOND);
    let of = |rungs| Policy {
        stop: StopLadder {
            rungs: vec![rung; rungs],
            ..StopLadder::default()
        },
        ..Policy::default()
    };
    // The new ladder is shorter: the current rung does not exist any more, and SIGKILL was not sent yet.
    for (before, climbed, after) in [(1, 0, 0), (3, 1, 1), (3, 2, 0)] {
        let mut world = World::started(of(before), Program::ignores_signals());
        world.send(Input::Stop);
        world.run_until(f64::from(climbed) + 0.5);
        world.policy = of(after);
        let killed = world.log_until(10.0);
        assert_eq!(killed.len(), 2, "{killed:?}");
        assert!(killed[0].ends_with("SIGKILL to Process"));
    }
    // The new ladder is longer, but SIGKILL was already sent, so the new rungs are not used.
    let stuck = Program {
        survives_sigkill: true,
        ..Program::ignores_signals()
    };
    let mut world = World::started(of(0), stuck);
    world.send(Input::Stop);
    world.policy = of(3);
    assert_eq!(world.send(Input::Kill), Reply::Already);
    assert_eq!(world.log_until(1_000.0), ["5 unkillable"]);
}

// Inputs without a meaning.

#[test]
fn an_input_that_is_impossible_in_a_state_is_ignored() {
    let mut world = World::started(Policy::default(), SLEEP);
    world.run_until(2.0);
    let nonsense = [
        Input::Spawned(world.checked.pid()),
        Input::Cloned(world.checked.pid()),
        Input::Executed,
        Input::EndedBefore,
        Input::NotReady,
        Input::Empty,
        Input::Ready,
        Input::Timeout,
    ];
    for input in nonsense {
        assert_eq!(world.send_and_log(input), (Reply::Ignored, vec![]), "{input:?}");
    }
    assert_eq!(world.state(), StateName::Running);
    assert_eq!(world.send_and_log(Input::Start), (Reply::Already, vec![]));
}

#[test]
fn the_last_rung_is_sigkill_even_on_an_overlong_ladder() {
    // The ladder is too long to be valid, but a host may use a policy without validating it.
    let mut policy = Policy::default();
    policy.stop.rungs = vec![policy.stop.rungs[0]; 300];
    let now = Instant::from_nanos(1);
    let mut checked = World::new(Policy::default(), SLEEP).checked;
    checked.handle(&policy, Input::Start, now);
    checked.handle(&policy, Input::Spawned(checked.pid()), now);
    let killed = checked.handle(&policy, Input::Kill, now);
    assert_eq!(
        killed.action,
        Some(Action::Signal {
            signal: Signal::KILL,
            scope: Scope::Process
        })
    );
    let State::Stopping(Stopping { rung, .. }) = *checked.life.state() else {
        panic!("{checked:?}")
    };
    assert_eq!(rung, Stopping::SIGKILL);
}

#[test]
fn an_extension_puts_the_next_rung_off_until_sigkill() {
    let program = Program {
        survives_sigkill: true,
        ..Program::ignores_signals()
    };
    let mut world = World::started(Policy::default(), program);
    world.run_until(1.0);
    world.send(Input::Stop);
    let replies = [20, 1].map(|seconds| world.send(Input::Extend(SECOND * seconds)));
    assert_eq!(replies, [Reply::Accepted; 2]);
    assert_eq!(world.log_until(21.0), ["21 SIGKILL to Process"]);
    assert_eq!(world.send(Input::Extend(SECOND * 20)), Reply::Ignored);
}

#[test]
fn an_end_before_the_stop_does_not_cut_the_wait_after_a_command_short() {
    let rung = Rung::Command {
        index: 0,
        limit: SECOND,
        wait: SECOND * 10,
    };
    let policy = Policy {
        startup: Startup::Grace(Duration::ZERO),
        stop: StopLadder {
            rungs: vec![rung],
            ..StopLadder::default()
        },
        ..Policy::default()
    };
    let at = |second| Instant::ZERO.saturating_add(SECOND * second);
    let mut life = Lifecycle::new(&policy, 0);
    let spawned = Input::Spawned(Pid::new(1).unwrap());
    for input in [
        Input::Start,
        spawned,
        Input::Stop,
        Input::StopCommandEnded { succeeded: true },
    ] {
        life.handle(&policy, input, at(1));
    }
    let reaction = life.handle(&policy, Input::EndedBefore, at(2));
    assert_eq!((reaction.action, life.deadline()), (None, Some(at(11))));
}

#[test]
fn the_end_of_the_process_is_kept_while_a_stop_waits_for_others() {
    let policy = Policy {
        startup: Startup::Grace(Duration::ZERO),
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, SECOND),
        ..Policy::default()
    };
    let now = Instant::ZERO;
    let mut life = Lifecycle::new(&policy, 0);
    for input in [Input::Start, Input::Spawned(Pid::new(1).unwrap()), Input::Stop] {
        life.handle(&policy, input, now);
        assert_eq!((life.state().is_reaped(), life.state().exit_of_reaped()), (false, None));
    }
    life.handle(&policy, Input::ExitedLeaving(Exit::Code(3)), now);
    assert_eq!(
        (life.state().is_reaped(), life.state().exit_of_reaped()),
        (true, Some(Exit::Code(3)))
    );
}
