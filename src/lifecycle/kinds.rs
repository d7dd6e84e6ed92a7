//! The kinds of causes, ends and failures, without their data: for statistics, logs and filters.

use crate::names::{machine_names, shown_by_name};

/// The kinds of a [`Cause`](super::Cause). Their texts are those of [`Cause::as_str`](super::Cause::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CauseName {
    /// See [`Cause::Requested`](crate::lifecycle::Cause::Requested).
    Requested,
    /// See [`Cause::GraceOver`](crate::lifecycle::Cause::GraceOver).
    GraceOver,
    /// See [`Cause::Ready`](crate::lifecycle::Cause::Ready).
    Ready,
    /// See [`Cause::Failed`](crate::lifecycle::Cause::Failed).
    Failed,
    /// See [`Cause::Ended`](crate::lifecycle::Cause::Ended).
    Ended,
    /// See [`Cause::Restart`](crate::lifecycle::Cause::Restart).
    Restart,
    /// See [`Cause::DelayOver`](crate::lifecycle::Cause::DelayOver).
    DelayOver,
    /// See [`Cause::RetriesUsedUp`](crate::lifecycle::Cause::RetriesUsedUp).
    RetriesUsedUp,
    /// See [`Cause::Permanent`](crate::lifecycle::Cause::Permanent).
    Permanent,
    /// See [`Cause::CrashBudgetUsedUp`](crate::lifecycle::Cause::CrashBudgetUsedUp).
    CrashBudgetUsedUp,
    /// See [`Cause::CoolOffOver`](crate::lifecycle::Cause::CoolOffOver).
    CoolOffOver,
    /// See [`Cause::Gone`](crate::lifecycle::Cause::Gone).
    Gone,
    /// See [`Cause::Adopted`](crate::lifecycle::Cause::Adopted).
    Adopted,
    /// See [`Cause::Released`](crate::lifecycle::Cause::Released).
    Released,
    /// See [`Cause::RequirementStopped`](crate::lifecycle::Cause::RequirementStopped).
    RequirementStopped,
    /// See [`Cause::RequirementFailed`](crate::lifecycle::Cause::RequirementFailed).
    RequirementFailed,
    /// See [`Cause::RequirementRemoved`](crate::lifecycle::Cause::RequirementRemoved).
    RequirementRemoved,
    /// See [`Cause::Prepared`](crate::lifecycle::Cause::Prepared).
    Prepared,
    /// See [`Cause::SiblingEnded`](crate::lifecycle::Cause::SiblingEnded).
    SiblingEnded,
}

machine_names! { CauseName, "cause",
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
    SiblingEnded = "sibling-ended"
}

/// The kinds of an [`End`](crate::supervisor::End) and of a [`RunEnd`](super::RunEnd). Their texts are those of
/// [`End::as_str`](crate::supervisor::End::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndName {
    /// See [`End::NotSpawned`](crate::supervisor::End::NotSpawned).
    NotSpawned,
    /// See [`End::Exited`](crate::supervisor::End::Exited).
    Exited,
    /// See [`End::Crashed`](crate::supervisor::End::Crashed).
    Crashed,
    /// See [`End::KilledFromOutside`](crate::supervisor::End::KilledFromOutside).
    KilledFromOutside,
    /// See [`End::OutOfMemory`](crate::supervisor::End::OutOfMemory).
    OutOfMemory,
    /// See [`End::MaybeOutOfMemory`](crate::supervisor::End::MaybeOutOfMemory).
    MaybeOutOfMemory,
    /// See [`End::Stopped`](crate::supervisor::End::Stopped).
    Stopped,
    /// See [`End::StopTimeout`](crate::supervisor::End::StopTimeout).
    StopTimeout,
    /// See [`End::StartTimeout`](crate::supervisor::End::StartTimeout).
    StartTimeout,
    /// See [`End::NotReady`](crate::supervisor::End::NotReady).
    NotReady,
    /// See [`End::Watchdog`](crate::supervisor::End::Watchdog).
    Watchdog,
    /// See [`End::TimedOut`](crate::supervisor::End::TimedOut).
    TimedOut,
    /// See [`End::Unhealthy`](crate::supervisor::End::Unhealthy).
    Unhealthy,
    /// See [`End::Released`](crate::supervisor::End::Released).
    Released,
    /// See [`End::BeforeFailed`](crate::supervisor::End::BeforeFailed).
    BeforeFailed,
    /// See [`End::Unknown`](crate::supervisor::End::Unknown).
    Unknown,
}

machine_names! { EndName, "end of a run",
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

/// The kinds of a [`Failure`](super::Failure). Their texts are those of [`Failure::as_str`](super::Failure::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureName {
    /// See [`Failure::Spawn`](crate::lifecycle::Failure::Spawn).
    Spawn,
    /// See [`Failure::Ended`](crate::lifecycle::Failure::Ended).
    Ended,
    /// See [`Failure::StartTimeout`](crate::lifecycle::Failure::StartTimeout).
    StartTimeout,
    /// See [`Failure::NotReady`](crate::lifecycle::Failure::NotReady).
    NotReady,
    /// See [`Failure::Watchdog`](crate::lifecycle::Failure::Watchdog).
    Watchdog,
    /// See [`Failure::TimedOut`](crate::lifecycle::Failure::TimedOut).
    TimedOut,
    /// See [`Failure::Unhealthy`](crate::lifecycle::Failure::Unhealthy).
    Unhealthy,
    /// See [`Failure::Before`](crate::lifecycle::Failure::Before).
    Before,
    /// See [`Failure::Sibling`](crate::lifecycle::Failure::Sibling).
    Sibling,
}

machine_names! { FailureName, "failure",
    Spawn = "spawn"
    Ended = "ended"
    StartTimeout = "start-timeout"
    NotReady = "not-ready"
    Watchdog = "watchdog"
    TimedOut = "timed-out"
    Unhealthy = "unhealthy"
    Before = "before"
    Sibling = "sibling"
}

/// The kinds of a [`CommandFailure`](super::CommandFailure). Their texts are those of
/// [`CommandFailure::as_str`](super::CommandFailure::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandFailureName {
    /// See [`CommandFailure::Spawn`](crate::lifecycle::CommandFailure::Spawn).
    Spawn,
    /// See [`CommandFailure::Ended`](crate::lifecycle::CommandFailure::Ended).
    Ended,
    /// See [`CommandFailure::TimedOut`](crate::lifecycle::CommandFailure::TimedOut).
    TimedOut,
}

machine_names! { CommandFailureName, "failure of a command",
    Spawn = "spawn"
    Ended = "ended"
    TimedOut = "timed-out"
}

/// The kinds of a [`StopCommandEnd`](super::StopCommandEnd). Their texts are those of
/// [`StopCommandEnd::as_str`](super::StopCommandEnd::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCommandEndName {
    /// See [`StopCommandEnd::Succeeded`](crate::lifecycle::StopCommandEnd::Succeeded).
    Succeeded,
    /// See [`StopCommandEnd::NotSpawned`](crate::lifecycle::StopCommandEnd::NotSpawned).
    NotSpawned,
    /// See [`StopCommandEnd::Failed`](crate::lifecycle::StopCommandEnd::Failed).
    Failed,
    /// See [`StopCommandEnd::TimedOut`](crate::lifecycle::StopCommandEnd::TimedOut).
    TimedOut,
    /// See [`StopCommandEnd::Killed`](crate::lifecycle::StopCommandEnd::Killed).
    Killed,
}

machine_names! { StopCommandEndName, "end of a stop command",
    Succeeded = "succeeded"
    NotSpawned = "not-spawned"
    Failed = "failed"
    TimedOut = "timed-out"
    Killed = "killed"
}

shown_by_name! { CauseName CommandFailureName EndName FailureName StopCommandEndName }

#[cfg(test)]
mod tests {
    use super::super::{Cause, CommandFailure, Failure, Part, RunEnd, StopCommandEnd};

    #[test]
    fn a_value_with_data_has_the_name_of_its_kind() {
        assert_eq!(Cause::Failed(Failure::Watchdog).as_str(), "failed");
        assert_eq!(RunEnd::Exited(3).as_str(), "exited");
        let failure = CommandFailure::TimedOut;
        assert_eq!(Failure::Before(failure).as_str(), "before");
        assert_eq!(failure.as_str(), "timed-out");
        assert_eq!(StopCommandEnd::Failed(crate::exit::Exit::Code(1)).as_str(), "failed");
        assert_eq!(Part::Before.to_string(), "command before the run");
    }
}
