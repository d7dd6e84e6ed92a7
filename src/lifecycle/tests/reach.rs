//! From every state, a stop ends the process and a start brings it up, provided that the kernel and the
//! process behave normally.

use super::super::{Action, Input, Policy, Reply, StateName, Wanted};
use super::checked::{Checked, Model};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

/// How many checks find a remaining process of the group before the group is empty.
const LOOKS_BEFORE_EMPTY: usize = 20;
/// The largest number of inputs. It is more than the longest valid ladder and all checks need.
const MOST_INPUTS: usize = 128;

/// The result of a spawn that is pending.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spawn {
    Succeeds,
    Fails,
    /// The process exists, and its program is never executed.
    Hangs,
}

const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

/// Stops the lifecycle and asserts that it gets down. The process exits only after SIGKILL, and the other
/// processes of its group live a little longer.
pub(super) fn assert_stop_succeeds(mut checked: Checked, policy: &Policy, mut now: Instant, spawn: Spawn) {
    let resting = !checked.model.is_alive();
    checked.handle(policy, Input::Stop, now);
    let mut looks = 0;
    for _ in 0..MOST_INPUTS {
        if !checked.model.is_alive() {
            let down = [StateName::Stopped, StateName::Exited, StateName::Fatal];
            let state = checked.life.state().name();
            assert!(
                if resting {
                    down.contains(&state)
                } else {
                    state == StateName::Stopped
                },
                "{checked:?}"
            );
            assert_eq!((checked.life.wanted(), checked.life.deadline()), (Wanted::Down, None));
            return;
        }
        let (at, input) = match (checked.model, checked.life.deadline()) {
            (
                Model {
                    spawn_pending: true, ..
                },
                _,
            ) => (now, spawn_result(&checked, spawn)),
            // A command that the ladder does not wait for is not even ended by SIGKILL yet.
            (Model { command: true, .. }, None) => (now, Input::StopCommandEnded { succeeded: false }),
            (Model { killed: false, .. }, Some(at)) if looks < LOOKS_BEFORE_EMPTY => (now.max(at), Input::Timeout),
            (Model { leader: true, .. }, _) => (now, Input::Exited(KILLED)),
            (Model { killed: true, .. }, Some(at)) if looks < LOOKS_BEFORE_EMPTY => (now.max(at), Input::Timeout),
            _ => (now, Input::Empty),
        };
        now = at;
        let reaction = checked.handle(policy, input, now);
        assert_eq!(reaction.reply, Reply::Accepted, "{input:?}");
        assert_eq!(checked.life.wanted(), Wanted::Down);
        looks += usize::from(matches!(reaction.action, Some(Action::Look { .. })));
    }
    panic!("the stop did not end the process: {checked:?}");
}

/// Starts the lifecycle and asserts that it gets up. A process that is being stopped exits at some point.
pub(super) fn assert_start_succeeds(mut checked: Checked, policy: &Policy, now: Instant) {
    let lives_on = matches!(
        checked.life.state().name(),
        StateName::Preparing | StateName::Starting | StateName::Running
    );
    let runs = checked.life.runs() + u64::from(!lives_on);
    checked.handle(policy, Input::Start, now);
    for _ in 0..12 {
        assert_eq!(checked.life.wanted(), Wanted::Up);
        let name = checked.life.state().name();
        if matches!(name, StateName::Starting | StateName::Running) && checked.model.leader {
            assert_eq!(checked.life.runs(), runs, "a start must spawn exactly one process");
            return;
        }
        let input = match checked.model {
            model if model.spawn_pending => spawn_result(&checked, Spawn::Succeeds),
            model if model.command => Input::StopCommandEnded { succeeded: true },
            model if model.leader && name == StateName::Preparing => Input::Exited(Exit::Code(0)),
            model if model.leader => Input::Exited(KILLED),
            _ => Input::Empty,
        };
        assert_eq!(checked.handle(policy, input, now).reply, Reply::Accepted, "{input:?}");
    }
    panic!("the start did not bring the process up: {checked:?}");
}

fn spawn_result(checked: &Checked, spawn: Spawn) -> Input {
    match spawn {
        Spawn::Succeeds => Input::Spawned(checked.pid()),
        Spawn::Hangs => Input::Cloned(checked.pid()),
        Spawn::Fails => Input::SpawnFailed {
            errno: libc::EAGAIN,
            permanent: false,
        },
    }
}
