//! The inputs of the lifecycle, and its reactions to them.

use std::time::Duration;

use super::cause::Transition;
use super::end::RunEnd;
use super::failure::{CommandFailure, Failure};
use super::stop::Scope;
use crate::exit::{Exit, Pid};
use crate::signal::Signal;

/// An event of a process, or a request of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Input {
    /// The host requests a start. All counters begin anew: such a start is exempt from every budget.
    Start,
    /// The host requests a stop by the ladder.
    Stop,
    /// The host requests a stop by the ladder and then a new start. If nothing is alive, this is the same as a start.
    Restart,
    /// The host requests SIGKILL at once.
    Kill,
    /// [`Action::Spawn`] succeeded, and the process has executed its program.
    Spawned(Pid),
    /// The process exists, and has not executed its program yet: the spawn is in flight.
    Cloned(Pid),
    /// The process in flight has executed its program.
    Executed,
    /// The spawn for [`Action::Spawn`] or [`Action::SpawnBefore`] has not begun, and is withdrawn because the process is
    /// not wanted any more. The command after a run is not withdrawn.
    SpawnWithdrawn,
    /// The host has a process that was started elsewhere, and this lifecycle takes it over as running.
    Adopted(Pid),
    /// The host lets the process go on by itself. That is the end of the run, and no [`Input::Exited`] follows.
    Released,
    /// The spawn failed: no process was made, or a step before its program failed. That is the end of the process, and
    /// no [`Input::Exited`] follows.
    SpawnFailed {
        /// The kernel's reason.
        errno: i32,
        /// Whether another try under the same conditions cannot succeed.
        permanent: bool,
    },
    /// The process ended.
    Exited(Exit),
    /// The process ended by itself, and other processes of the stop's scope live on: the run is over when they have
    /// ended.
    ExitedLeaving(Exit),
    /// Nothing of the stop's scope is alive (the result of [`Action::Look`]).
    Empty,
    /// The process reports that it is ready.
    Ready,
    /// The process closed its readiness descriptor without a message. This is a failure only while readiness is
    /// awaited.
    NotReady,
    /// The process that is being stopped had ended by itself when its stop began.
    EndedBefore,
    /// The process reports that it is alive: its watchdog begins anew.
    Alive,
    /// The host has exchanged the policy: the times that it gives to a running process begin anew.
    PolicyChanged,
    /// The process reports that its start, or its stop, takes at least this long from now on.
    Extend(Duration),
    /// The process is alive and has failed: it is stopped, and then judged as if it had ended.
    Failed(Failure),
    /// A sibling has ended, and the [strategy](super::Strategy) of the group concerns this process: it is stopped, stays
    /// wanted, and waits in [`State::Backoff`](super::State::Backoff) for [`Input::StartWithSiblings`].
    StopWithSiblings,
    /// All that are restarted together have ended, and all their delays are over: each is in
    /// [`State::Backoff`](super::State::Backoff) without a [deadline](super::Lifecycle::deadline). The run begins with the
    /// next [`Input::Timeout`], which is due at once. A lifecycle with a deadline ignores it.
    StartWithSiblings,
    /// The deadline has passed.
    Timeout,
    /// The command that [`Action::RunStopCommand`] has begun is over, and no process of it is left.
    StopCommandEnded {
        /// Whether it has ended with exit code 0. If not, or if it could not be spawned, the next rung follows at once.
        succeeded: bool,
    },
    /// Not even SIGKILL has ended the command that [`Action::RunStopCommand`] has begun: the ladder goes on without it.
    /// The stop is over when the command has ended too, so [`Input::StopCommandEnded`] is still awaited.
    StopCommandUnkillable,
}

impl Input {
    /// Whether a run can be over after this input, so that its end is judged.
    pub(crate) const fn may_end_run(self) -> bool {
        matches!(
            self,
            Input::Exited(_)
                | Input::ExitedLeaving(_)
                | Input::Empty
                | Input::SpawnFailed { .. }
                | Input::StopCommandEnded { .. }
                | Input::StopCommandUnkillable
        )
    }
}

/// An operation for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Spawn the process. The result is [`Input::Spawned`] or [`Input::SpawnFailed`]; or at first [`Input::Cloned`],
    /// and then [`Input::Executed`] or [`Input::SpawnFailed`].
    Spawn,
    /// Spawn the command before the run. The results are those of [`Action::Spawn`].
    SpawnBefore,
    /// Spawn the command after the run. The results are those of [`Action::Spawn`].
    SpawnAfter,
    /// Send this signal, together with SIGCONT in the order of [`Rung::sequence`](super::Rung::sequence).
    Signal {
        /// The signal of the rung.
        signal: Signal,
        /// The processes that it is sent to.
        scope: Scope,
    },
    /// Run a [stop command](super::Rung::Command) beside the process. The result is [`Input::StopCommandEnded`]; no other
    /// command of the ladder runs before it. The host ends the command when its time is over.
    RunStopCommand {
        /// The number of the command.
        index: u8,
        /// The time that it has.
        limit: Duration,
    },
    /// Check whether any process of this scope is alive; the result is [`Input::Empty`] if not, and no input otherwise.
    Look {
        /// The scope to check.
        scope: Scope,
        /// The number of earlier checks; it stops growing after a few dozen. A later check can be slower and more
        /// careful.
        looks: u8,
    },
    /// Report to the host that SIGKILL has not worked within the ladder's patience.
    ReportUnkillable,
}

impl Action {
    /// Whether a process is to be spawned.
    pub(crate) const fn spawns(self) -> bool {
        matches!(self, Action::Spawn | Action::SpawnBefore | Action::SpawnAfter)
    }
}

/// The effect of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It took effect.
    Accepted,
    /// The requested state existed already.
    Already,
    /// The request is remembered, and takes effect when the stopped process has ended.
    Queued,
    /// The input has no meaning in this state.
    Ignored,
}

/// The reaction to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// The effect of the input.
    pub reply: Reply,
    /// The operation to carry out now, after the transitions were reported.
    pub action: Option<Action>,
    /// The reason why the run ended, if the input ended one.
    pub end: Option<RunEnd>,
    /// The failure of the command after the run, if the input ended one. It changes nothing else.
    pub after_failed: Option<CommandFailure>,
    pub(super) transitions: [Option<Transition>; Reaction::MOST],
}

impl Reaction {
    /// No input leads to more transitions: a late exit goes through Running, Exited and Starting.
    pub(super) const MOST: usize = 3;

    pub(super) const NOTHING: Reaction = Reaction {
        reply: Reply::Ignored,
        action: None,
        end: None,
        after_failed: None,
        transitions: [None; Reaction::MOST],
    };

    /// The transitions, in order.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> + use<> {
        self.transitions.into_iter().flatten()
    }

    pub(super) fn push(&mut self, transition: Transition) {
        if let Some(free) = self.transitions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(transition);
        }
    }
}
