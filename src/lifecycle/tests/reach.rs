//! Wherever a lifecycle is: a stop ends it and a start begins it, if the world does its part.

use super::super::{Action, Input, Policy, Reply, StateName, Wanted};
use super::watched::{Truth, Watched};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

/// So often those of a group are still there.
const LOOKS: usize = 20;
/// More than the longest valid ladder and all looks take.
const PATIENCE: usize = 64;

/// Whether a spawn that is under way succeeds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spawn {
    Succeeds,
    Fails,
}

const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

/// Stops it. The process is deaf and dies of SIGKILL alone, if the ladder ever gets there, and those
/// of its group stay a while longer.
pub(super) fn comes_down(mut it: Watched, policy: &Policy, mut now: Instant, spawn: Spawn) {
    let resting = !it.truth.is_alive();
    it.handle(policy, Input::Stop, now);
    let mut looks = 0;
    for _ in 0..PATIENCE {
        if !it.truth.is_alive() {
            let down = [StateName::Stopped, StateName::Exited, StateName::Fatal];
            let state = it.life.state().name();
            assert!(
                if resting {
                    down.contains(&state)
                } else {
                    state == StateName::Stopped
                },
                "{it:?}"
            );
            assert_eq!((it.life.wanted(), it.life.deadline()), (Wanted::Down, None));
            return;
        }
        let (at, input) = match (it.truth, it.life.deadline()) {
            (Truth { unborn: true, .. }, _) => (now, answer(&it, spawn)),
            (Truth { killed: false, .. }, Some(at)) if looks < LOOKS => (now.max(at), Input::Timeout),
            (Truth { leader: true, .. }, _) => (now, Input::Exited(KILLED)),
            (Truth { killed: true, .. }, Some(at)) if looks < LOOKS => (now.max(at), Input::Timeout),
            _ => (now, Input::Empty),
        };
        now = at;
        let reaction = it.handle(policy, input, now);
        assert_eq!(reaction.reply, Reply::Accepted, "{input:?}");
        assert_eq!(it.life.wanted(), Wanted::Down);
        looks += usize::from(matches!(reaction.action, Some(Action::Look { .. })));
    }
    panic!("still not down: {it:?}");
}

/// Starts it. What is being stopped goes away sooner or later.
pub(super) fn comes_up(mut it: Watched, policy: &Policy, now: Instant) {
    let lives_on = matches!(it.life.state().name(), StateName::Starting | StateName::Running);
    let runs = it.life.runs() + u64::from(!lives_on);
    it.handle(policy, Input::Start, now);
    for _ in 0..5 {
        assert_eq!(it.life.wanted(), Wanted::Up);
        let name = it.life.state().name();
        if matches!(name, StateName::Starting | StateName::Running) && it.truth.leader {
            assert_eq!(it.life.runs(), runs, "one incarnation a wish");
            return;
        }
        let input = match it.truth {
            truth if truth.unborn => answer(&it, Spawn::Succeeds),
            truth if truth.leader => Input::Exited(KILLED),
            _ => Input::Empty,
        };
        assert_eq!(it.handle(policy, input, now).reply, Reply::Accepted, "{input:?}");
    }
    panic!("still not up: {it:?}");
}

fn answer(it: &Watched, spawn: Spawn) -> Input {
    match spawn {
        Spawn::Succeeds => Input::Spawned(it.pid()),
        Spawn::Fails => Input::SpawnFailed {
            errno: libc::EAGAIN,
            permanent: false,
        },
    }
}
