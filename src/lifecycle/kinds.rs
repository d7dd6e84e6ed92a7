//! Names for programs of values that carry data: the name of the variant, which does not change in later versions.

use super::end::RunEnd;
use super::state::{Cause, Failure};

impl Cause {
    /// The name of the kind of cause, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// use pidherd::lifecycle::{Cause, Failure};
    ///
    /// assert_eq!(Cause::GraceOver.as_str(), "grace-over");
    /// assert_eq!(Cause::Failed(Failure::Watchdog).as_str(), "failed");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Cause::Requested => "requested",
            Cause::GraceOver => "grace-over",
            Cause::Ready => "ready",
            Cause::Failed(_) => "failed",
            Cause::Ended { .. } => "ended",
            Cause::Restart => "restart",
            Cause::DelayOver => "delay-over",
            Cause::RetriesUsedUp => "retries-used-up",
            Cause::Permanent => "permanent",
            Cause::CrashBudgetUsedUp => "crash-budget-used-up",
            Cause::CoolOffOver => "cool-off-over",
            Cause::Gone => "gone",
            Cause::Adopted => "adopted",
            Cause::Released => "released",
            Cause::RequirementStopped => "requirement-stopped",
            Cause::RequirementFailed => "requirement-failed",
            Cause::RequirementRemoved => "requirement-removed",
            Cause::Prepared => "prepared",
        }
    }
}

impl Failure {
    /// The name of the kind of failure, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::lifecycle::Failure::StartTimeout.as_str(), "start-timeout");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Failure::Spawn { .. } => "spawn",
            Failure::Ended(_) => "ended",
            Failure::StartTimeout => "start-timeout",
            Failure::NotReady => "not-ready",
            Failure::Watchdog => "watchdog",
            Failure::TimedOut => "timed-out",
            Failure::Unhealthy => "unhealthy",
            Failure::Before(_) => "before",
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
        match self {
            RunEnd::NotSpawned => "not-spawned",
            RunEnd::Exited(_) => "exited",
            RunEnd::Crashed { .. } => "crashed",
            RunEnd::KilledFromOutside(_) => "killed-from-outside",
            RunEnd::Stopped => "stopped",
            RunEnd::StopTimeout => "stop-timeout",
            RunEnd::StartTimeout => "start-timeout",
            RunEnd::NotReady => "not-ready",
            RunEnd::Watchdog => "watchdog",
            RunEnd::TimedOut => "timed-out",
            RunEnd::Unhealthy => "unhealthy",
            RunEnd::Released => "released",
            RunEnd::BeforeFailed(_) => "before-failed",
            RunEnd::Unknown => "unknown",
        }
    }
}
