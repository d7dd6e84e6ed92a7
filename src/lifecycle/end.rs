//! The reason why a run ended.

use super::state::{Failure, Prospect, Stopping};
use super::stop::StopLadder;
use crate::exit::Exit;
use crate::signal::Signal;

/// The reason why a run ended. [`Reaction::end`](super::Reaction::end) holds it when an input ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RunEnd {
    /// The process could not be spawned, or could not execute its program.
    NotSpawned,
    /// The process ended by itself, with this code.
    Exited(u8),
    /// The process ended by a signal of its own fault (SIGSEGV, SIGABRT and the like), or left a core dump.
    Crashed {
        /// The signal that ended the process.
        signal: Signal,
        /// Whether the process left a core dump.
        core: bool,
    },
    /// The process ended by a signal that the supervisor did not send. The sender is another process, or the kernel
    /// during a shortage of memory. The lifecycle does not know which;
    /// [`End::OutOfMemory`](crate::supervisor::End::OutOfMemory) does.
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
    /// The process was stopped because its run took longer than the policy allows.
    TimedOut,
    /// The process was stopped because the host reported it as failed.
    Unhealthy,
    /// The host let the process go on by itself.
    Released,
    /// The exit status is not known; see [`Exit::Unknown`].
    Unknown,
}

impl RunEnd {
    /// The end of a process that was not being stopped.
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
            Failure::TimedOut => RunEnd::TimedOut,
            Failure::Unhealthy => RunEnd::Unhealthy,
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

/// Whether this signal usually comes from a fault of the process itself.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Pid;
    use crate::lifecycle::{Failed, Remaining, Scope};
    use crate::time::Instant;

    const KILLED: Exit = Exit::Signal {
        signal: Signal::KILL,
        core: false,
    };

    fn stopping(rung: u8, failed: Option<Failure>, prospect: Prospect) -> Stopping {
        Stopping {
            pid: Pid::new(1).unwrap(),
            since: Instant::ZERO,
            failed: failed.map(|failure| Failed { failure, ran: true }),
            prospect,
            rung,
            until: Instant::NEVER,
            remaining: Remaining::Leader,
        }
    }

    #[test]
    fn an_end_by_itself_is_judged_by_the_exit() {
        assert_eq!(RunEnd::of_exit(Exit::Code(3)), RunEnd::Exited(3));
        assert_eq!(RunEnd::of_exit(KILLED), RunEnd::KilledFromOutside(Signal::KILL));
        for (signal, core) in [(Signal::SEGV, true), (Signal::SEGV, false), (Signal::QUIT, true)] {
            assert_eq!(
                RunEnd::of_exit(Exit::Signal { signal, core }),
                RunEnd::Crashed { signal, core }
            );
        }
    }

    #[test]
    fn an_end_by_a_stop_is_judged_by_the_stop() {
        let ladder = StopLadder::default();
        let of = |rung, failed, prospect, exit| RunEnd::of_stop(&stopping(rung, failed, prospect), exit, &ladder);
        assert_eq!(of(0, None, Prospect::Open, Exit::Code(1)), RunEnd::Stopped);
        // A signal of another process came before the ladder.
        assert_eq!(of(0, None, Prospect::Open, KILLED), RunEnd::Stopped);
        assert_eq!(of(Stopping::SIGKILL, None, Prospect::Open, KILLED), RunEnd::StopTimeout);
        assert_eq!(
            of(Stopping::SIGKILL, None, Prospect::KillRequested, KILLED),
            RunEnd::Stopped
        );
        assert_eq!(of(0, None, Prospect::EndedBefore, Exit::Code(1)), RunEnd::Exited(1));
        assert_eq!(of(0, Some(Failure::Watchdog), Prospect::Open, KILLED), RunEnd::Watchdog);
        assert_eq!(
            of(1, Some(Failure::StartTimeout), Prospect::Open, KILLED),
            RunEnd::StartTimeout
        );
        let without_rungs = StopLadder::kill(Scope::Process);
        let killed = stopping(Stopping::SIGKILL, None, Prospect::Open);
        assert_eq!(RunEnd::of_stop(&killed, KILLED, &without_rungs), RunEnd::Stopped);
    }
}
