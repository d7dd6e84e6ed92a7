//! The errors of a policy.

use crate::exit::Exit;

/// The largest crash budget.
pub(super) const CRASHES_MAX: u16 = 1_000;

/// The largest number of rungs of a stop ladder. The number of a rung is a `u8`, and 255 stands for SIGKILL, so there
/// can be 255 rungs at most.
pub(super) const RUNGS_MAX: usize = 16;

/// Why a [`Policy`](super::Policy) is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The jitter exceeds 100 %. Jitter shortens a delay by a part of it, at most by all of it.
    #[error("the jitter of a delay cannot be {0} %: it can be 100 % at most")]
    Jitter(u8),
    /// The watchdog's time is zero, so every process would miss it at once.
    #[error("the watchdog's time cannot be 0: every process would miss it at once")]
    Watchdog,
    /// The time of a run is zero, so every run would time out at once.
    #[error("the time of a run cannot be 0: every run would time out at once")]
    RunTimeout,
    /// The time limit of the command before or after a run is zero, so the command would time out at once.
    #[error("the time limit of a command before or after a run cannot be 0: the command would time out at once")]
    CommandLimit,
    /// The time limit of a command of a stop ladder is zero, so the command would time out at once.
    #[error("the time limit of a command of a stop ladder cannot be 0: the command would time out at once")]
    StopCommandLimit,
    /// The policy both prevents and forces a restart after this end.
    #[error("the policy both prevents and forces a restart after \"{0}\"")]
    Contradiction(Exit),
    /// The start of a job is over when the job is done ([`Startup::Completes`](super::Startup::Completes)), and the
    /// policy restarts a process that is done ([`Restart::Always`](super::Restart::Always)).
    #[error("a job that counts as started when it is done cannot be restarted always")]
    CompletesAlways,
    /// The window of the crash budget has the length zero, so it never holds more than one crash.
    #[error("the window of the crash budget cannot be 0: no two crashes would be in it")]
    CrashWindow,
    /// The crash budget is too large. The time of each crash in the window is stored.
    #[error("the crash budget cannot be {0}: it can be {max} at most", max = CRASHES_MAX)]
    CrashBudget(u16),
    /// The stop ladder has too many rungs.
    #[error("the stop ladder cannot have {0} rungs: it can have {max} at most", max = RUNGS_MAX)]
    StopLadder(usize),
    /// The scope of the final SIGKILL is narrower than that of a rung. A stop is over when no process of the widest
    /// scope is alive, so SIGKILL must reach all of them.
    #[error("the scope of the final SIGKILL cannot be narrower than that of a rung: processes would remain")]
    KillScope,
    /// The scope of the ladder for a missed watchdog is not that of the general ladder. Both stops are over when the same
    /// processes have ended.
    #[error("the ladder for a missed watchdog must have the scope of the general stop ladder")]
    WatchdogScope,
    /// The scope of a ladder for one stop is narrower than that of the policy's ladder: processes would remain.
    #[error("the scope of the stop ladder cannot be narrower than that of the policy: processes would remain")]
    StopScope,
}
