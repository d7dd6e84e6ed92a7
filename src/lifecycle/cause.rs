//! Why the state changed: transitions and their causes.

use super::kinds::CauseName;
use std::fmt;

use super::failure::Failure;
use super::state::StateName;
use crate::codec::stored;
use crate::exit::Exit;

/// A transition from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Transition {
    /// The old state.
    pub from: StateName,
    /// The new state.
    pub to: StateName,
    /// The cause of the transition.
    pub cause: Cause,
}

impl Transition {
    /// Whether a run ended with this transition. A run ends before its [command after the run](super::State::CleaningUp) is
    /// started.
    #[must_use]
    pub const fn ends_run(self) -> bool {
        let replaced = matches!(
            (self.from, self.to),
            (StateName::Stopping, StateName::Starting | StateName::Preparing)
        );
        self.from.is_in_run() && (replaced || !self.to.is_in_run())
    }

    /// Whether a run began with this transition. A run begins with its [command before the run](super::State::Preparing), if
    /// it has one.
    #[must_use]
    pub const fn begins_run(self) -> bool {
        match self.to {
            StateName::Preparing => true,
            StateName::Starting => !matches!(self.from, StateName::Preparing),
            _ => false,
        }
    }

    /// Whether the process of the old state has ended with this transition, or will never be spawned.
    pub(crate) const fn ends_process(self) -> bool {
        let begins_another = matches!(
            self.to,
            StateName::Preparing | StateName::Starting | StateName::CleaningUp
        );
        self.from.is_alive() && (begins_another || !self.to.is_alive())
    }
}

/// The cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Cause {
    /// The host requested it.
    Requested,
    /// The process lived through its grace.
    GraceOver,
    /// The process reported that it is ready.
    Ready,
    /// The process failed.
    Failed(Failure),
    /// The process ended by itself after it had been running, or as a job that was done.
    Ended {
        /// The exit status.
        exit: Exit,
        /// Whether the policy expects the exit.
        expected: bool,
    },
    /// The policy restarts the process.
    Restart,
    /// The wait is over.
    DelayOver,
    /// No retry is left.
    RetriesUsedUp,
    /// Another try cannot succeed, and the policy does not allow one.
    Permanent,
    /// The process crashed too often within the window.
    CrashBudgetUsedUp,
    /// The cool-off time is over.
    CoolOffOver,
    /// All processes of the stop have ended.
    Gone,
    /// The host took over a process that was started elsewhere.
    Adopted,
    /// The host let the process go on by itself.
    Released,
    /// A group that this one requires was stopped by the host ([`GroupSpec::requires`](crate::GroupSpec::requires)).
    RequirementStopped,
    /// A group that this one requires has failed to start.
    RequirementFailed,
    /// A group that this one requires was removed.
    RequirementRemoved,
    /// The command before the run has succeeded.
    Prepared,
    /// Another instance of the group has ended ([`GroupSpec::strategy`](crate::GroupSpec::strategy)).
    SiblingEnded,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Requested => f.write_str("requested"),
            Cause::GraceOver => f.write_str("grace over"),
            Cause::Ready => f.write_str("ready"),
            Cause::Failed(failure) => failure.fmt(f),
            Cause::Ended { exit, expected: true } => write!(f, "{exit}, as expected"),
            Cause::Ended { exit, expected: false } => exit.fmt(f),
            Cause::Restart => f.write_str("restart policy"),
            Cause::DelayOver => f.write_str("delay over"),
            Cause::RetriesUsedUp => f.write_str("no try left"),
            Cause::Permanent => f.write_str("trying again cannot help"),
            Cause::CrashBudgetUsedUp => f.write_str("crashed too often"),
            Cause::CoolOffOver => f.write_str("cool-off over"),
            Cause::Gone => f.write_str("nothing left of it"),
            Cause::Adopted => f.write_str("adopted"),
            Cause::Released => f.write_str("released"),
            Cause::RequirementStopped => f.write_str("a required group was stopped"),
            Cause::RequirementFailed => f.write_str("a required group has failed"),
            Cause::RequirementRemoved => f.write_str("a required group was removed"),
            Cause::Prepared => f.write_str("prepared"),
            Cause::SiblingEnded => f.write_str("a sibling has ended"),
        }
    }
}

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
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::{Cause, CauseName};
    ///
    /// assert_eq!(Cause::Requested.name(), CauseName::Requested);
    /// assert_eq!("requested".parse(), Ok(CauseName::Requested));
    /// ```
    #[must_use]
    pub const fn name(&self) -> CauseName {
        match self {
            Cause::Requested => CauseName::Requested,
            Cause::GraceOver => CauseName::GraceOver,
            Cause::Ready => CauseName::Ready,
            Cause::Failed(_) => CauseName::Failed,
            Cause::Ended { .. } => CauseName::Ended,
            Cause::Restart => CauseName::Restart,
            Cause::DelayOver => CauseName::DelayOver,
            Cause::RetriesUsedUp => CauseName::RetriesUsedUp,
            Cause::Permanent => CauseName::Permanent,
            Cause::CrashBudgetUsedUp => CauseName::CrashBudgetUsedUp,
            Cause::CoolOffOver => CauseName::CoolOffOver,
            Cause::Gone => CauseName::Gone,
            Cause::Adopted => CauseName::Adopted,
            Cause::Released => CauseName::Released,
            Cause::RequirementStopped => CauseName::RequirementStopped,
            Cause::RequirementFailed => CauseName::RequirementFailed,
            Cause::RequirementRemoved => CauseName::RequirementRemoved,
            Cause::Prepared => CauseName::Prepared,
            Cause::SiblingEnded => CauseName::SiblingEnded,
        }
    }
}

stored!(enum Cause {
    0 = Requested,
    1 = GraceOver,
    2 = Ready,
    3 = Failed(failure),
    4 = Ended { exit, expected },
    5 = Restart,
    6 = DelayOver,
    7 = RetriesUsedUp,
    8 = Permanent,
    9 = CrashBudgetUsedUp,
    10 = CoolOffOver,
    11 = Gone,
    12 = Adopted,
    13 = Released,
    14 = RequirementStopped,
    15 = RequirementFailed,
    16 = RequirementRemoved,
    17 = Prepared,
    18 = SiblingEnded,
});
stored!(struct Transition { from, to, cause });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_spawn_is_explained_in_words() {
        let failed = |errno| {
            let permanent = false;
            Cause::Failed(Failure::Spawn { errno, permanent }).to_string()
        };
        assert_eq!(failed(24), "could not be spawned: Too many open files");
        assert_eq!(failed(2), "could not be spawned: No such file or directory");
        assert_eq!(failed(107), "could not be spawned: Transport endpoint is not connected");
    }
}
