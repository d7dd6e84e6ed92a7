//! The errors of a policy.

/// The largest crash budget.
pub(super) const CRASHES_MAX: u16 = 1_000;

/// The largest number of rungs of a stop ladder.
pub(super) const RUNGS_MAX: usize = 16;

/// The fault of a [`Policy`](super::Policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Jitter takes a part away from a delay, at most all of it.
    #[error("a jitter of {0} %: it can be 100 % at most")]
    Jitter(u8),
    /// Every process is silent for longer than no time, so a watchdog must be longer than zero.
    #[error("a watchdog of no time")]
    Watchdog,
    /// A sliding window without a length never holds more than one crash.
    #[error("a crash window of zero length")]
    CrashWindow,
    /// Each crash of the window is remembered, so their number is limited.
    #[error("a crash budget of {0}: it can be {max} at most", max = CRASHES_MAX)]
    CrashBudget(u16),
    /// The number of rungs is limited.
    #[error("a stop ladder of {0} rungs: it can have {max} at most", max = RUNGS_MAX)]
    StopLadder(usize),
    /// A stop is over when nothing of the widest scope is alive, so SIGKILL must reach that far.
    #[error("a final SIGKILL that reaches less than a rung before it")]
    KillScope,
}
