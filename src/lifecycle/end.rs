//! The reason why a run ended.

use super::failure::{CommandFailure, Failure};
use super::kinds::EndName;
use crate::codec::stored;
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
    /// The command before the run failed, and the program was not started.
    BeforeFailed(CommandFailure),
}

impl RunEnd {
    /// The end of a run with this failure.
    pub(super) const fn of_failure(failure: Failure) -> RunEnd {
        match failure {
            Failure::StartTimeout => RunEnd::StartTimeout,
            Failure::NotReady => RunEnd::NotReady,
            Failure::Watchdog => RunEnd::Watchdog,
            Failure::TimedOut => RunEnd::TimedOut,
            Failure::Unhealthy => RunEnd::Unhealthy,
            Failure::Ended(exit) => RunEnd::of_exit(exit),
            Failure::Spawn { .. } => RunEnd::NotSpawned,
            Failure::Before(failure) => RunEnd::BeforeFailed(failure),
            Failure::Sibling => RunEnd::Stopped,
        }
    }
}

impl RunEnd {
    /// The name of the kind of end, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::lifecycle::RunEnd::Exited(3).as_str(), "exited");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::{EndName, RunEnd};
    ///
    /// assert_eq!(RunEnd::Exited(3).name(), EndName::Exited);
    /// assert_eq!("exited".parse(), Ok(EndName::Exited));
    /// ```
    #[must_use]
    pub const fn name(&self) -> EndName {
        match self {
            RunEnd::NotSpawned => EndName::NotSpawned,
            RunEnd::Exited(_) => EndName::Exited,
            RunEnd::Crashed { .. } => EndName::Crashed,
            RunEnd::KilledFromOutside(_) => EndName::KilledFromOutside,
            RunEnd::Stopped => EndName::Stopped,
            RunEnd::StopTimeout => EndName::StopTimeout,
            RunEnd::StartTimeout => EndName::StartTimeout,
            RunEnd::NotReady => EndName::NotReady,
            RunEnd::Watchdog => EndName::Watchdog,
            RunEnd::TimedOut => EndName::TimedOut,
            RunEnd::Unhealthy => EndName::Unhealthy,
            RunEnd::Released => EndName::Released,
            RunEnd::BeforeFailed(_) => EndName::BeforeFailed,
            RunEnd::Unknown => EndName::Unknown,
        }
    }
}

impl RunEnd {
    /// The end of a process that was not being stopped.
    ///
    /// ```
    /// # use pidherd::lifecycle::RunEnd;
    /// # use pidherd::{Exit, Signal};
    /// let by = |signal| RunEnd::of_exit(Exit::Signal { signal, core: false });
    /// assert_eq!(RunEnd::of_exit(Exit::Code(3)), RunEnd::Exited(3));
    /// assert_eq!(by(Signal::KILL), RunEnd::KilledFromOutside(Signal::KILL));
    /// // The fault is its own.
    /// assert_eq!(by(Signal::SEGV).as_str(), "crashed");
    /// ```
    #[must_use]
    pub const fn of_exit(exit: Exit) -> RunEnd {
        match exit {
            Exit::Code(code) => RunEnd::Exited(code),
            Exit::Signal { signal, core } if core || is_fault(signal) => RunEnd::Crashed { signal, core },
            Exit::Signal { signal, .. } => RunEnd::KilledFromOutside(signal),
            Exit::Unknown => RunEnd::Unknown,
        }
    }
}

stored!(enum RunEnd {
    0 = NotSpawned,
    1 = Exited(code),
    2 = Crashed { signal, core },
    3 = KilledFromOutside(signal),
    4 = Stopped,
    5 = StopTimeout,
    6 = StartTimeout,
    7 = NotReady,
    8 = Watchdog,
    9 = TimedOut,
    10 = Unhealthy,
    11 = Released,
    12 = Unknown,
    13 = BeforeFailed(failure),
});

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

    const KILLED: Exit = Exit::Signal {
        signal: Signal::KILL,
        core: false,
    };

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
}
