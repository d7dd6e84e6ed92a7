//! The kinds of causes, ends and failures, without their data: for statistics, logs and filters.

use crate::names::kinds;

kinds! {
    /// The kinds of a [`Cause`](super::Cause). Their texts are those of [`Cause::as_str`](super::Cause::as_str).
    CauseName, "cause",
    Requested = "requested"
    GraceOver = "grace-over"
    Ready = "ready"
    Failed = "failed"
    Ended = "ended"
    Restart = "restart"
    DelayOver = "delay-over"
    RetriesUsedUp = "retries-used-up"
    Permanent = "permanent"
    CrashBudgetUsedUp = "crash-budget-used-up"
    CoolOffOver = "cool-off-over"
    Gone = "gone"
    Adopted = "adopted"
    Released = "released"
    RequirementStopped = "requirement-stopped"
    RequirementFailed = "requirement-failed"
    RequirementRemoved = "requirement-removed"
    Prepared = "prepared"
}

kinds! {
    /// The kinds of an [`End`](crate::supervisor::End) and of a [`RunEnd`](super::RunEnd). Their texts are those of
    /// [`End::as_str`](crate::supervisor::End::as_str).
    EndName, "end of a run",
    NotSpawned = "not-spawned"
    Exited = "exited"
    Crashed = "crashed"
    KilledFromOutside = "killed-from-outside"
    OutOfMemory = "out-of-memory"
    MaybeOutOfMemory = "maybe-out-of-memory"
    Stopped = "stopped"
    StopTimeout = "stop-timeout"
    StartTimeout = "start-timeout"
    NotReady = "not-ready"
    Watchdog = "watchdog"
    TimedOut = "timed-out"
    Unhealthy = "unhealthy"
    Released = "released"
    BeforeFailed = "before-failed"
    Unknown = "unknown"
}

kinds! {
    /// The kinds of a [`Failure`](super::Failure). Their texts are those of [`Failure::as_str`](super::Failure::as_str).
    FailureName, "failure",
    Spawn = "spawn"
    Ended = "ended"
    StartTimeout = "start-timeout"
    NotReady = "not-ready"
    Watchdog = "watchdog"
    TimedOut = "timed-out"
    Unhealthy = "unhealthy"
    Before = "before"
}
