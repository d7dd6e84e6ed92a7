//! The way down, and wishes that come in the midst of something: the rules, one test for each.

use std::time::Duration;

use super::super::{
    Action, CrashBudget, Failure, Input, Policy, Reply, Restart, Rung, Scope, State, StateName, StopLadder, Stopping,
};
use super::world::{Program, SECOND, SLEEP, World, always};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

#[test]
fn a_stop_climbs_the_ladder_and_ends_with_sigkill() {
    let rung = |signal, wait| Rung {
        signal,
        scope: Scope::Process,
        wait,
    };
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
        let mut world = World::started(policy.clone(), Program::deaf());
        world.until(at);
        let (reply, told) = world.answer(Input::Stop);
        assert_eq!(reply, Reply::Accepted);
        assert_eq!(
            [told, world.story(100.0)].concat(),
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
fn a_ladder_without_rungs_is_sigkill_at_once() {
    let policy = Policy {
        stop: StopLadder::kill(Scope::ProcessGroup),
        ..Policy::default()
    };
    let mut world = World::started(policy, Program::deaf());
    assert_eq!(
        world.answer(Input::Stop).1,
        ["0 STOPPING, requested", "0 SIGKILL to ProcessGroup"]
    );
    assert_eq!(world.ask(Input::Kill), Reply::Already);
    assert_eq!(world.story(0.0), ["0 STOPPED, nothing left of it"]);
}

#[test]
fn a_second_stop_extends_nothing() {
    let mut world = World::started(Policy::default(), Program::deaf());
    world.until(2.0);
    world.ask(Input::Stop);
    world.until(11.9);
    assert_eq!(world.answer(Input::Stop), (Reply::Already, vec![]));
    assert_eq!(world.story(12.0)[0], "12 SIGKILL to Process");
}

#[test]
fn a_kill_goes_to_the_end_of_the_ladder_from_everywhere() {
    for (started, stopped) in [(0.5, false), (5.0, false), (5.0, true)] {
        let mut world = World::started(Policy::default(), Program::deaf());
        world.until(started);
        if stopped {
            world.ask(Input::Stop);
        }
        let (reply, told) = world.answer(Input::Kill);
        assert_eq!(reply, Reply::Accepted);
        assert_eq!(told[told.len() - 1], format!("{started} SIGKILL to Process"));
        assert_eq!(world.answer(Input::Kill), (Reply::Already, vec![]), "SIGKILL goes once");
        assert_eq!(world.story(started), [format!("{started} STOPPED, nothing left of it")]);
    }
}

#[test]
fn a_kill_takes_back_a_queued_start_and_says_so() {
    let stuck = Program {
        stuck: true,
        ..Program::deaf()
    };
    let mut world = World::started(Policy::default(), stuck);
    world.ask(Input::Kill);
    assert_eq!(world.ask(Input::Start), Reply::Queued);
    assert_eq!(world.ask(Input::Kill), Reply::Accepted);
    assert_eq!(world.ask(Input::Kill), Reply::Already);
}

#[test]
fn what_sigkill_does_not_end_is_reported_once_and_waited_for() {
    let stuck = Program {
        stuck: true,
        ..Program::deaf()
    };
    let mut world = World::started(Policy::default(), stuck);
    world.ask(Input::Kill);
    assert_eq!(world.story(1_000.0), ["5 unkillable"]);
    assert_eq!(world.state(), StateName::Stopping);
    assert_eq!(world.life.life.deadline(), None);
    assert_eq!(world.ask(Input::Exited(Exit::Unknown)), Reply::Accepted);
    assert_eq!(world.state(), StateName::Stopped);
}

#[test]
fn a_wish_to_be_up_again_is_kept_until_it_is_taken_back() {
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
        let mut world = World::started(Policy::default(), Program::deaf());
        world.until(2.0);
        for &wish in &wishes {
            world.ask(wish);
        }
        world.process_is_gone();
        world.ask(Input::Exited(Exit::Code(0)));
        assert_eq!(world.state(), reached, "{wishes:?}");
    }
}

#[test]
fn a_wish_while_the_spawn_is_under_way_is_kept_too() {
    let now = Instant::from_nanos(1);
    let policy = Policy::default();
    for (wishes, reached) in [
        (vec![Input::Stop], StateName::Stopping),
        (vec![Input::Kill], StateName::Stopping),
        (vec![Input::Stop, Input::Start], StateName::Starting),
        (vec![Input::Restart], StateName::Starting),
    ] {
        let mut life = World::new(policy.clone(), SLEEP).life;
        life.handle(&policy, Input::Start, now);
        for &wish in &wishes {
            life.handle(&policy, wish, now);
        }
        life.handle(&policy, Input::Spawned(life.pid()), now);
        assert_eq!(life.life.state().name(), reached, "{wishes:?}");
    }
}

#[test]
fn a_spawn_that_fails_when_it_is_not_wanted_any_more_is_no_reason_to_try_again() {
    let now = Instant::from_nanos(1);
    let policy = Policy::default();
    let failed = Input::SpawnFailed {
        errno: libc::EAGAIN,
        permanent: false,
    };
    let mut life = World::new(policy.clone(), SLEEP).life;
    life.handle(&policy, Input::Start, now);
    life.handle(&policy, failed, now);
    life.handle(&policy, Input::Timeout, now.saturating_add(SECOND));
    life.handle(&policy, Input::Stop, now.saturating_add(SECOND));
    life.handle(&policy, failed, now.saturating_add(SECOND));
    assert_eq!(*life.life.state(), State::Stopped);
    assert_eq!(life.life.failed_starts(), 0, "as after any other stop");
}

#[test]
fn a_failure_while_running_is_a_crash_with_a_cause_of_its_own() {
    for (restart, after) in [
        (Restart::Always, vec!["3 STARTING, restart policy"]),
        (Restart::OnUnexpected, vec!["3 STARTING, restart policy"]),
        (Restart::Never, vec![]),
    ] {
        let policy = Policy {
            restart,
            ..Policy::default()
        };
        let obeys = Some((SECOND, Exit::Code(0)));
        let mut world = World::started(policy, Program { obeys, ..SLEEP });
        world.until(2.0);
        world.told();
        world.ask(Input::Failed(Failure::Watchdog));
        world.until(3.0);
        let told = world.told();
        assert_eq!(
            told[..3],
            [
                "2 STOPPING, watchdog missed",
                "2 SIGTERM to Process",
                "3 EXITED, watchdog missed"
            ]
        );
        assert_eq!(told[3..], after);
    }
}

#[test]
fn a_failure_while_running_spends_the_crash_budget() {
    let policy = Policy {
        crash_budget: Some(CrashBudget { max: 0, window: SECOND }),
        ..Policy::default()
    };
    let mut world = World::started(policy, SLEEP);
    world.until(2.0);
    world.ask(Input::Failed(Failure::Watchdog));
    world.until(2.0);
    assert_eq!(
        *world.life.life.state(),
        State::Fatal {
            until: Instant::NEVER,
            failure: Failure::Watchdog
        }
    );
}

#[test]
fn a_start_forgives_the_failure_that_is_being_stopped_for() {
    let deaf = Program::deaf();
    for (failure, at) in [(Failure::Watchdog, 2.0), (Failure::NotReady, 0.5)] {
        let mut world = World::started(always(), deaf);
        world.until(at);
        world.ask(Input::Failed(failure));
        assert_eq!(world.answer(Input::Start), (Reply::Queued, vec![]));
        world.process_is_gone();
        let (_, told) = world.answer(Input::Exited(Exit::Code(1)));
        assert_eq!(told, [format!("{at} STARTING, requested")]);
    }
}

#[test]
fn a_stop_takes_back_the_restart_that_a_failure_would_lead_to() {
    let mut world = World::started(always(), Program::deaf());
    world.until(2.0);
    world.ask(Input::Failed(Failure::Watchdog));
    assert_eq!(world.answer(Input::Stop), (Reply::Accepted, vec![]));
    assert_eq!(
        world.story(100.0),
        ["12 SIGKILL to Process", "12 STOPPED, nothing left of it"]
    );
}

#[test]
fn looks_for_others_become_rarer_and_never_stop() {
    let policy = Policy {
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::MAX),
        ..Policy::default()
    };
    let now = Instant::from_nanos(1);
    let mut life = World::new(policy.clone(), SLEEP).life;
    life.handle(&policy, Input::Start, now);
    life.handle(&policy, Input::Spawned(life.pid()), now);
    life.handle(&policy, Input::Stop, now);
    let first = life.handle(&policy, Input::Exited(Exit::Code(0)), now);
    let scope = Scope::ProcessGroup;
    assert_eq!(first.action, Some(Action::Look { scope, looks: 0 }));
    let mut waits = Vec::new();
    let mut now = now;
    for looks in 1..=300_u32 {
        let at = life.life.deadline().unwrap();
        waits.push(at.saturating_duration_since(now).as_millis());
        now = at;
        let looks = looks.min(8) as u8;
        let reaction = life.handle(&policy, Input::Timeout, now);
        assert_eq!(reaction.action, Some(Action::Look { scope, looks }));
    }
    assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    assert!(waits[10..].iter().all(|&wait| wait == 256));
}

#[test]
fn sigkill_goes_again_to_those_whom_it_did_not_reach() {
    // The ladder is widened when SIGKILL has been sent to the process alone.
    let narrow = Policy {
        stop: StopLadder::kill(Scope::Process),
        ..Policy::default()
    };
    let wide = Policy {
        stop: StopLadder::kill(Scope::ProcessGroup),
        ..Policy::default()
    };
    let mut now = Instant::from_nanos(1);
    let mut life = World::new(narrow.clone(), SLEEP).life;
    life.handle(&narrow, Input::Start, now);
    life.handle(&narrow, Input::Spawned(life.pid()), now);
    life.handle(&narrow, Input::Stop, now);
    life.handle(&wide, Input::Exited(Exit::Code(0)), now);
    let mut killed = Vec::new();
    for _ in 0..100 {
        now = life.life.deadline().expect("it is not forgotten");
        let action = life.handle(&wide, Input::Timeout, now).action;
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
fn a_policy_may_be_exchanged_in_the_midst_of_a_stop() {
    let rung = Rung {
        signal: Signal::TERM,
        scope: Scope::Process,
        wait: SECOND,
    };
    let of = |rungs| Policy {
        stop: StopLadder {
            rungs: vec![rung; rungs],
            ..StopLadder::default()
        },
        ..Policy::default()
    };
    // Shorter: what was the middle is now beyond the end, and SIGKILL has not been sent.
    for (before, climbed, after) in [(1, 0, 0), (3, 1, 1), (3, 2, 0)] {
        let mut world = World::started(of(before), Program::deaf());
        world.ask(Input::Stop);
        world.until(f64::from(climbed) + 0.5);
        world.policy = of(after);
        let killed = world.story(10.0);
        assert_eq!(killed.len(), 2, "{killed:?}");
        assert!(killed[0].ends_with("SIGKILL to Process"));
    }
    // Longer: SIGKILL has been sent, and what is new comes too late.
    let stuck = Program {
        stuck: true,
        ..Program::deaf()
    };
    let mut world = World::started(of(0), stuck);
    world.ask(Input::Stop);
    world.policy = of(3);
    assert_eq!(world.ask(Input::Kill), Reply::Already);
    assert_eq!(world.story(1_000.0), ["5 unkillable"]);
}

// What means nothing.

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut world = World::started(Policy::default(), SLEEP);
    world.until(2.0);
    let nonsense = [
        Input::Spawned(world.life.pid()),
        Input::SpawnFailed {
            errno: libc::ENOENT,
            permanent: true,
        },
        Input::Empty,
        Input::Ready,
        Input::Timeout,
    ];
    for input in nonsense {
        assert_eq!(world.answer(input), (Reply::Ignored, vec![]), "{input:?}");
    }
    assert_eq!(world.state(), StateName::Running);
    assert_eq!(world.answer(Input::Start), (Reply::Already, vec![]));
}

#[test]
fn the_last_rung_is_sigkill_however_long_a_ladder_is() {
    // Too long to be valid; nothing forces a host to ask.
    let mut policy = Policy::default();
    policy.stop.rungs = vec![policy.stop.rungs[0]; 300];
    let now = Instant::from_nanos(1);
    let mut life = World::new(Policy::default(), SLEEP).life;
    life.handle(&policy, Input::Start, now);
    life.handle(&policy, Input::Spawned(life.pid()), now);
    let killed = life.handle(&policy, Input::Kill, now);
    assert_eq!(
        killed.action,
        Some(Action::Signal {
            signal: Signal::KILL,
            scope: Scope::Process
        })
    );
    let State::Stopping(Stopping { rung, .. }) = *life.life.state() else {
        panic!("{life:?}")
    };
    assert_eq!(rung, Stopping::SIGKILL);
}
