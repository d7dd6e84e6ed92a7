//! A lifecycle in a restart together with its siblings: one test for each rule.

use std::time::Duration;

use super::super::strategy::Joint;
use super::super::{CrashBudget, Delay, Failure, Input, Lifecycle, Policy, Reply, Startup, StateName, Strategy};
use super::world::{SECOND, always};
use crate::exit::{Exit, Pid};
use crate::time::Instant;

fn policy() -> Policy {
    Policy {
        startup: Startup::Grace(Duration::ZERO),
        strategy: Strategy::OneForAll,
        ..always()
    }
}

fn at(seconds: u32) -> Instant {
    Instant::ZERO.saturating_add(SECOND * seconds)
}

/// Starts it, or begins the run that was decided.
fn run(life: &mut Lifecycle, policy: &Policy, input: Input, now: Instant) {
    life.handle(policy, input, now);
    life.handle(policy, Input::Spawned(Pid::new(1).unwrap()), now);
    assert_eq!(life.state().name(), StateName::Running);
}

/// A host that has one lifecycle starts it again when it finds its siblings ready.
fn start_again(life: &mut Lifecycle, policy: &Policy, now: Instant) {
    if life.deadline().is_some() {
        life.handle(policy, Input::Timeout, now);
    }
    life.handle(policy, Input::StartWithSiblings, now);
    run(life, policy, Input::Timeout, now);
}

#[test]
fn a_stable_run_that_is_stopped_with_its_siblings_forgets_earlier_crashes() {
    for (stopped_at, is_stable) in [(59, false), (60, true)] {
        let policy = Policy {
            crash_budget: Some(CrashBudget::new(1, SECOND * 1_000)),
            ..policy()
        };
        let mut life = Lifecycle::new(&policy, 0);
        run(&mut life, &policy, Input::Start, at(0));
        life.handle(&policy, Input::Exited(Exit::Code(1)), at(0));
        start_again(&mut life, &policy, at(0));
        life.handle(&policy, Input::StopWithSiblings, at(stopped_at));
        assert_eq!(life.restarts(), u32::from(!is_stable));
        life.handle(&policy, Input::Exited(Exit::Code(0)), at(stopped_at));
        start_again(&mut life, &policy, at(stopped_at));
        life.handle(&policy, Input::Exited(Exit::Code(1)), at(stopped_at));
        let expected = if is_stable {
            StateName::Backoff
        } else {
            StateName::Fatal
        };
        assert_eq!(life.state().name(), expected);
    }
}

#[test]
fn a_lifecycle_without_a_supervisor_waits_for_the_start_with_its_siblings() {
    let policy = Policy {
        restart_delay: Delay::Fixed(SECOND),
        ..policy()
    };
    let mut life = Lifecycle::new(&policy, 0);
    run(&mut life, &policy, Input::Start, at(0));
    life.handle(&policy, Input::Exited(Exit::Code(1)), at(0));
    // Its delay comes first.
    let early = life.handle(&policy, Input::StartWithSiblings, at(0));
    assert_eq!((early.reply, life.deadline()), (Reply::Ignored, Some(at(1))));
    life.handle(&policy, Input::Timeout, at(1));
    assert_eq!((life.state().name(), life.deadline()), (StateName::Backoff, None));
    let start = life.handle(&policy, Input::StartWithSiblings, at(2));
    assert_eq!((start.reply, life.deadline()), (Reply::Accepted, Some(at(2))));
    run(&mut life, &policy, Input::Timeout, at(2));
}

#[test]
fn a_delay_can_be_over_before_the_siblings_are_told() {
    let policy = Policy {
        restart_delay: Delay::Fixed(SECOND),
        ..policy()
    };
    for (told_at, joint) in [(0, Joint::Waits), (1, Joint::Ready)] {
        let mut life = Lifecycle::new(&policy, 0);
        run(&mut life, &policy, Input::Start, at(0));
        life.handle(&policy, Input::Exited(Exit::Code(1)), at(0));
        life.handle(&policy, Input::Timeout, at(told_at));
        life.note_told();
        assert_eq!(life.joint(), joint);
    }
}

#[test]
fn a_stop_that_is_judged_takes_part_and_another_does_not() {
    let failed = Input::Failed(Failure::Unhealthy);
    for (inputs, takes_part) in [
        (&[failed][..], true),
        (&[failed, Input::Stop], false),
        (&[Input::Stop], false),
        (&[Input::Restart], false),
    ] {
        let policy = policy();
        let mut life = Lifecycle::new(&policy, 0);
        run(&mut life, &policy, Input::Start, at(0));
        for input in inputs {
            life.handle(&policy, *input, at(1));
        }
        let replies = [0; 2].map(|_| life.handle(&policy, Input::StopWithSiblings, at(1)).reply);
        let (reply, joint) = match takes_part {
            true => ([Reply::Accepted, Reply::Already], Joint::Waits),
            false => ([Reply::Ignored; 2], Joint::None),
        };
        assert_eq!((replies, life.joint()), (reply, joint), "{inputs:?}");
    }
}

#[test]
fn a_start_by_request_ends_the_part() {
    let policy = policy();
    let mut life = Lifecycle::new(&policy, 0);
    run(&mut life, &policy, Input::Start, at(0));
    life.handle(&policy, Input::StopWithSiblings, at(1));
    let replies = [0; 2].map(|_| life.handle(&policy, Input::Start, at(1)).reply);
    assert_eq!((replies, life.joint()), ([Reply::Queued, Reply::Already], Joint::None));
}

#[test]
fn nothing_waits_for_an_endless_delay() {
    let policy = Policy {
        restart_delay: Delay::Fixed(Duration::MAX),
        ..policy()
    };
    let mut life = Lifecycle::new(&policy, 0);
    run(&mut life, &policy, Input::Start, at(0));
    life.handle(&policy, Input::Exited(Exit::Code(1)), at(0));
    assert_eq!((life.state().name(), life.deadline()), (StateName::Backoff, None));
    assert_eq!(life.joint(), Joint::None);
}

#[test]
fn a_part_outlasts_the_strategy() {
    let policy = policy();
    let alone = Policy {
        strategy: Strategy::OneForOne,
        ..policy.clone()
    };
    let mut life = Lifecycle::new(&policy, 0);
    run(&mut life, &policy, Input::Start, at(0));
    life.handle(&policy, Input::Failed(Failure::Unhealthy), at(1));
    life.handle(&policy, Input::StopWithSiblings, at(1));
    life.handle(&alone, Input::Exited(Exit::Code(1)), at(1));
    assert_eq!((life.state().name(), life.joint()), (StateName::Backoff, Joint::Waits));
}

#[test]
fn an_instance_that_is_given_up_for_a_time_tells_nothing() {
    for (cool_off, joint) in [(None, Joint::Tells), (Some(SECOND), Joint::None)] {
        let policy = Policy {
            crash_budget: Some(CrashBudget::new(0, SECOND)),
            cool_off,
            ..policy()
        };
        let mut life = Lifecycle::new(&policy, 0);
        run(&mut life, &policy, Input::Start, at(0));
        life.handle(&policy, Input::Exited(Exit::Code(1)), at(0));
        assert_eq!((life.state().name(), life.joint()), (StateName::Fatal, joint));
    }
}
