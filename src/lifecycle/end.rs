//! Why a run ended, as the table judges it.

use super::state::{Failure, Prospect, Stopping};
use super::stop::StopLadder;
use crate::exit::Exit;
use crate::signal::Signal;

/// Why a run ended. [`Reaction::end`](super::Reaction::end) has it when an input ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunEnd {
    /// The process could not be spawned, or could not execute its program.
    NotSpawned,
    /// The process ended by itself, with this code.
    Exited(u8),
    /// A signal that a process brings upon itself (SIGSEGV, SIGABRT and the like) ended it, or it left a core dump.
    Crashed {
        /// The signal.
        signal: Signal,
        /// Whether the process left a core dump.
        core: bool,
    },
    /// A signal ended the process that the supervisor did not send: another process sent it, or the kernel when it was
    /// short of memory.
    KilledFromOutside(Signal),
    /// The process was stopped on request.
    Stopped,
    /// The process was stopped on request, and did not end within the waits of the ladder: SIGKILL ended it.
    StopTimeout,
    /// The process was stopped because it was not ready in time.
    StartTimeout,
    /// The process was stopped because it closed its readiness descriptor without a message.
    NotReady,
    /// The process was stopped because it missed its watchdog.
    Watchdog,
    /// The exit status is not known; see [`Exit::Unknown`].
    Unknown,
}

impl RunEnd {
    /// The end of a process that nothing has stopped.
    #[must_use]
    pub const fn of_exit(exit: Exit) -> RunEnd {
        match exit {
            Exit::Code(code) => RunEnd::Exited(code),
            Exit::Signal { signal, core } if core || is_fault(signal) => RunEnd::Crashed { signal, core },
            Exit::Signal { signal, .. } => RunEnd::KilledFromOutside(signal),
            Exit::Unknown => RunEnd::Unknown,
        }
    }

    /// The end of a process that was being stopped.
    pub(super) fn of_stop(stopping: &Stopping, exit: Exit, ladder: &StopLadder) -> RunEnd {
        match (stopping.prospect, stopping.failed) {
            (Prospect::EndedBefore, _) => RunEnd::of_exit(exit),
            (_, Some(failed)) => RunEnd::of_failure(failed.failure),
            (Prospect::Open, None) if timed_out(stopping, exit, ladder) => RunEnd::StopTimeout,
            (Prospect::Open | Prospect::KillRequested, None) => RunEnd::Stopped,
        }
    }

    pub(super) const fn of_failure(failure: Failure) -> RunEnd {
        match failure {
            Failure::StartTimeout => RunEnd::StartTimeout,
            Failure::NotReady => RunEnd::NotReady,
            Failure::Watchdog => RunEnd::Watchdog,
            Failure::Ended(exit) => RunEnd::of_exit(exit),
            Failure::Spawn { .. } => RunEnd::NotSpawned,
        }
    }
}

/// Whether SIGKILL ended the process after all rungs of the ladder.
fn timed_out(stopping: &Stopping, exit: Exit, ladder: &StopLadder) -> bool {
    let exhausted = !ladder.rungs.is_empty() && stopping.rung == Stopping::SIGKILL;
    exhausted && exit.signal() == Some(Signal::KILL)
}

/// Whether a process brings this signal upon itself.
const fn is_fault(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::SEGV
            | Signal::BUS
            | Signal::FPE
            | Signal::ILL
            | Signal::TRAP
            | Signal::ABRT
            | Signal::SYS
            | Signal::PIPE
            | Signal::XCPU
            | Signal::XFSZ
    )
}
