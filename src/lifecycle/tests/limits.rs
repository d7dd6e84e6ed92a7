//! Runs that take too long, and ends that prevent or force a restart: one test for each rule.

use std::collections::HashSet;
use std::time::Duration;

use super::super::{
    CrashBudget, Delay, ExitSet, Failure, Input, Policy, PolicyError, Reply, Restart, RunEnd, RunTimeout, Startup,
    State, StateName,
};
use super::world::{Program, SECOND, SLEEP, World, always};
use crate::codec::{Stored, Writer};
use crate::exit::Exit;
use crate::time::Instant;

fn limited(restart: Restart, after: u32) -> Policy {
    Policy {
        restart,
        run_timeout: Some(RunTimeout {
            after: SECOND * after,
            extra: Duration::ZERO,
        }),
        ..Policy::default()
    }
}

fn fails_with(code: u8, after: f64) -> Program {
    Program::ends(Duration::from_secs_f64(after), code)
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_has_failed() {
    let mut world = World::started(limited(Restart::Never, 5), SLEEP);
    assert_eq!(
        world.log_until(1_000.0),
        [
            "1 RUNNING, grace over",
            "5 STOPPING, run timed out",
            "5 SIGTERM to Process",
            "5 EXITED, run timed out"
        ]
    );
    assert!(matches!(
        world.checked.life.state(),
        State::Exited { expected: false, .. }
    ));
}

#[test]
fn a_service_is_renewed_for_ever_and_uses_up_no_crash_budget() {
    for restart in [Restart::Always, Restart::OnUnexpected] {
        let policy = Policy {
            crash_budget: Some(super::super::CrashBudget {
                max: 0,
                window: SECOND * 1_000,
            }),
            restart_delay: Delay::Fixed(SECOND),
            ..limited(restart, 5)
        };
        let mut world = World::started(policy, SLEEP);
        world.run_until(58.0);
        assert_eq!(world.state(), StateName::Running);
        assert_eq!(world.checked.life.runs(), 10);
    }
}

#[test]
fn a_run_counts_from_its_spawn_whatever_its_process_reports() {
    let policy = Policy {
        watchdog: Some(SECOND * 3),
        ..limited(Restart::Never, 7)
    };
    let mut world = World::started(policy, SLEEP);
    for second in 1..=6 {
        world.run_until(f64::from(second));
        assert_eq!(world.send(Input::Alive), Reply::Accepted);
    }
    assert_eq!(world.log_until(100.0)[..1], ["7 STOPPING, run timed out"]);
}

#[test]
fn a_start_is_not_cut_short_and_the_run_times_out_after_it() {
    let policy = Policy {
        startup: Startup::Notify { timeout: SECOND * 60 },
        ..limited(Restart::Never, 5)
    };
    let slow = Program {
        ready: Some(SECOND * 20),
        ..SLEEP
    };
    let mut world = World::started(policy, slow);
    assert_eq!(
        world.log_until(100.0)[..2],
        ["20 RUNNING, ready", "20 STOPPING, run timed out"]
    );
}

#[test]
fn the_random_part_spreads_the_ends_of_the_runs() {
    let mut policy = limited(Restart::Always, 10);
    policy.run_timeout.as_mut().unwrap().extra = SECOND * 10;
    let mut world = World::started(policy, SLEEP);
    let (mut lengths, mut since) = (HashSet::new(), None);
    for tenth in 0..20_000 {
        world.run_until(f64::from(tenth) / 10.0);
        if let State::Running { since: began, ends, .. } = *world.checked.life.state() {
            let length = ends.saturating_duration_since(began);
            assert!((SECOND * 10..=SECOND * 20).contains(&length), "{length:?}");
            // The time of one run stays the same.
            assert!(since != Some(began) || lengths.contains(&length));
            since = Some(began);
            lengths.insert(length);
        }
    }
    assert!(lengths.len() > 100, "{}", lengths.len());
    for from in [10, 12, 14, 16, 18] {
        let part = SECOND * from..SECOND * (from + 2);
        assert!(
            lengths.iter().filter(|length| part.contains(length)).count() > 10,
            "from {from} s"
        );
    }
}

#[test]
fn another_policy_moves_the_end_of_the_run_under_way() {
    let mut world = World::started(limited(Restart::Never, 50), SLEEP);
    world.run_until(10.0);
    world.policy = limited(Restart::Never, 20);
    assert_eq!(world.send(Input::PolicyChanged), Reply::Accepted);
    let mut longer = world.clone();
    assert_eq!(world.log_until(100.0)[..1], ["20 STOPPING, run timed out"]);

    // A new limit that is exceeded already.
    let mut exceeded = longer.clone();
    exceeded.policy = limited(Restart::Never, 3);
    exceeded.send(Input::PolicyChanged);
    assert_eq!(exceeded.log_until(100.0)[..1], ["10 STOPPING, run timed out"]);

    // Without the news, the old time is kept until it is over.
    longer.policy = limited(Restart::Never, 60);
    assert_eq!(longer.log_until(100.0)[..1], ["60 STOPPING, run timed out"]);
    let mut unlimited = World::started(limited(Restart::Never, 50), SLEEP);
    unlimited.run_until(10.0);
    unlimited.policy = Policy::default();
    assert_eq!(unlimited.log_until(1_000.0), [""; 0]);
}

#[test]
fn the_reason_of_a_stop_by_the_limit_is_the_limit() {
    let mut world = World::started(limited(Restart::Never, 5), Program::ignores_signals());
    world.run_until(5.0);
    world.remove_process();
    let policy = world.policy.clone();
    let at = Instant::from_nanos(200_000_000_000);
    let reaction = world.checked.handle(&policy, Input::Exited(Exit::Code(0)), at);
    assert_eq!(reaction.end, Some(RunEnd::TimedOut));
}

#[test]
fn an_unhealthy_process_is_judged_like_a_crash_and_in_its_grace_like_a_failed_start() {
    let mut world = World::started(always(), SLEEP);
    world.run_until(2.0);
    world.send(Input::Failed(Failure::Unhealthy));
    world.run_until(2.0);
    assert_eq!(world.checked.life.restarts(), 1);
    assert_eq!(world.state(), StateName::Starting);
    world.send(Input::Failed(Failure::Unhealthy));
    world.run_until(2.0);
    assert_eq!(world.checked.life.failed_starts(), 1);
    assert_eq!(world.state(), StateName::Backoff);
}

#[test]
fn some_ends_are_never_followed_by_another_try() {
    for restart in [Restart::Always, Restart::OnUnexpected, Restart::Never] {
        let policy = Policy {
            restart,
            prevent_restart: ExitSet::EMPTY.code(78),
            cool_off: Some(SECOND),
            ..Policy::default()
        };
        // In the grace, and later.
        for (after, log) in [
            (0.5, vec!["0.5 EXITED, exited with 78"]),
            (2.0, vec!["1 RUNNING, grace over", "2 EXITED, exited with 78"]),
        ] {
            let mut world = World::started(policy.clone(), fails_with(78, after));
            let logged = world.log_until(1_000.0);
            assert_eq!(logged.len(), log.len(), "{logged:?}");
            assert_eq!(
                logged.last().unwrap().split(',').next(),
                log.last().unwrap().split(',').next()
            );
            assert!(matches!(
                world.checked.life.state(),
                State::Exited { expected: false, .. }
            ));
            // Not being tried again is not the same as being expected.
            world.policy.expected = ExitSet::EMPTY.code(78);
            world.send(Input::Start);
            world.run_until(2_000.0);
            assert!(matches!(
                world.checked.life.state(),
                State::Exited { expected: true, .. }
            ));
        }
        // Another code is judged as before.
        let mut other = World::started(policy, fails_with(77, 0.5));
        other.run_until(0.6);
        assert_eq!(other.state(), StateName::Backoff);
    }
}

#[test]
fn some_ends_are_followed_by_another_run_whatever_the_policy_says() {
    let again = Policy {
        restart: Restart::Never,
        expected: ExitSet::SUCCESS.code(75),
        force_restart: ExitSet::EMPTY.code(75),
        ..Policy::default()
    };
    // A job that ends in its grace has not failed, but is run again like a failed start.
    let mut early = World::started(again.clone(), fails_with(75, 0.5));
    early.run_until(0.6);
    assert_eq!(early.state(), StateName::Backoff);
    let mut late = World::started(again.clone(), fails_with(75, 2.0));
    late.run_until(9.0);
    assert_eq!(late.checked.life.runs(), 5);
    let mut done = World::started(again, fails_with(0, 2.0));
    done.run_until(9.0);
    assert_eq!((done.state(), done.checked.life.runs()), (StateName::Exited, 1));
}

#[test]
fn a_policy_that_contradicts_itself_is_refused() {
    let both = Policy {
        prevent_restart: ExitSet::EMPTY.code(1).code(200),
        force_restart: ExitSet::EMPTY.code(2).code(200),
        ..Policy::default()
    };
    assert_eq!(both.validate(), Err(PolicyError::Contradiction(Exit::Code(200))));
    assert_eq!(limited(Restart::Never, 0).validate(), Err(PolicyError::RunTimeout));
}

#[test]
fn the_room_for_an_encoding_is_enough_for_all_crashes() {
    let policy = Policy {
        crash_budget: Some(CrashBudget::new(100, SECOND * 1_000_000)),
        restart_delay: Delay::Fixed(Duration::ZERO),
        startup: Startup::Grace(Duration::ZERO),
        ..always()
    };
    let mut world = World::new(policy.clone(), fails_with(1, 0.5));
    let room = world.checked.life.longest_encoding(&policy);
    world.send(Input::Start);
    world.run_until(1_000.0);
    assert_eq!(world.checked.life.restarts(), 100);
    let mut encoding = Vec::new();
    world.checked.life.put(&mut Writer::new(&mut encoding));
    assert!(
        (room / 2..=room).contains(&encoding.len()),
        "{} of {room}",
        encoding.len()
    );
}
