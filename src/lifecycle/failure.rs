//! What can go wrong with a start, a run, and the commands around it.

use super::kinds::{CommandFailureName, FailureName, StopCommandEndName};
use std::fmt;

use crate::codec::stored;
use crate::errno::ErrnoText;
use crate::exit::Exit;

/// The failure of a start or a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Failure {
    /// The process could not be spawned.
    Spawn {
        /// The kernel's reason.
        errno: i32,
        /// Whether another try under the same conditions cannot succeed.
        permanent: bool,
    },
    /// The process ended.
    Ended(Exit),
    /// The process was not ready in time.
    StartTimeout,
    /// The process closed its readiness descriptor without a message.
    NotReady,
    /// The process did not report in time that it is alive.
    Watchdog,
    /// The run took longer than the policy [allows](super::RunTimeout).
    TimedOut,
    /// The host found the process unhealthy ([`Supervisor::report_failed`](crate::Supervisor::report_failed)).
    Unhealthy,
    /// The [command before the run](super::Policy::before_run) failed, and the program was not started.
    Before(CommandFailure),
    /// The process itself did not fail: another instance of its group has ended, and the
    /// [strategy](super::Strategy) of the group starts them again together.
    Sibling,
}

impl Failure {
    /// The name of the kind of failure, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::lifecycle::Failure::StartTimeout.as_str(), "start-timeout");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::{Failure, FailureName};
    ///
    /// assert_eq!(Failure::Watchdog.name(), FailureName::Watchdog);
    /// assert_eq!("watchdog".parse(), Ok(FailureName::Watchdog));
    /// ```
    #[must_use]
    pub const fn name(&self) -> FailureName {
        match self {
            Failure::Spawn { .. } => FailureName::Spawn,
            Failure::Ended(_) => FailureName::Ended,
            Failure::StartTimeout => FailureName::StartTimeout,
            Failure::NotReady => FailureName::NotReady,
            Failure::Watchdog => FailureName::Watchdog,
            Failure::TimedOut => FailureName::TimedOut,
            Failure::Unhealthy => FailureName::Unhealthy,
            Failure::Before(_) => FailureName::Before,
            Failure::Sibling => FailureName::Sibling,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Spawn { errno, .. } => write!(f, "could not be spawned: {}", ErrnoText(*errno)),
            Failure::Ended(exit) => exit.fmt(f),
            Failure::StartTimeout => f.write_str("not ready in time"),
            Failure::NotReady => f.write_str("readiness descriptor closed without a message"),
            Failure::Watchdog => f.write_str("watchdog missed"),
            Failure::TimedOut => f.write_str("run timed out"),
            Failure::Unhealthy => f.write_str("reported as failed by the host"),
            Failure::Before(failure) => write!(f, "command before the run: {failure}"),
            Failure::Sibling => f.write_str("a sibling has ended"),
        }
    }
}

/// The failure of a command around a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum CommandFailure {
    /// The command could not be spawned.
    Spawn {
        /// The kernel's reason.
        errno: i32,
        /// Whether another try under the same conditions cannot succeed.
        permanent: bool,
    },
    /// The command ended, and not with exit code 0.
    Ended(Exit),
    /// The command did not end within its time, and was stopped.
    TimedOut,
}

impl CommandFailure {
    /// The name of the kind of failure, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::lifecycle::CommandFailure::TimedOut.as_str(), "timed-out");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::{CommandFailure, CommandFailureName};
    ///
    /// assert_eq!(CommandFailure::TimedOut.name(), CommandFailureName::TimedOut);
    /// assert_eq!("timed-out".parse(), Ok(CommandFailureName::TimedOut));
    /// ```
    #[must_use]
    pub const fn name(&self) -> CommandFailureName {
        match self {
            CommandFailure::Spawn { .. } => CommandFailureName::Spawn,
            CommandFailure::Ended(_) => CommandFailureName::Ended,
            CommandFailure::TimedOut => CommandFailureName::TimedOut,
        }
    }

    /// The failure of a command that ended by itself; `None` for exit code 0.
    ///
    /// ```
    /// # use pidherd::Exit;
    /// # use pidherd::lifecycle::CommandFailure;
    /// assert_eq!(CommandFailure::of_exit(Exit::Code(0)), None);
    /// assert_eq!(CommandFailure::of_exit(Exit::Code(1)), Some(CommandFailure::Ended(Exit::Code(1))));
    /// ```
    #[must_use]
    pub const fn of_exit(exit: Exit) -> Option<CommandFailure> {
        match exit {
            Exit::Code(0) => None,
            _ => Some(CommandFailure::Ended(exit)),
        }
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandFailure::Spawn { errno, .. } => write!(f, "could not be spawned: {}", ErrnoText(*errno)),
            CommandFailure::Ended(exit) => exit.fmt(f),
            CommandFailure::TimedOut => f.write_str("timed out"),
        }
    }
}

/// How a command of a stop ladder has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum StopCommandEnd {
    /// The command ended with exit code 0. The next rung follows after the wait of this one.
    Succeeded,
    /// The command could not be spawned. The next rung follows at once.
    NotSpawned {
        /// The kernel's reason.
        errno: i32,
    },
    /// The command ended otherwise. The next rung follows at once.
    Failed(Exit),
    /// The command did not end within its time, and was killed. The next rung follows at once.
    TimedOut,
    /// The command was killed because a [kill](crate::Supervisor::kill) was requested. If it had no process yet, it was
    /// withdrawn, for that reason or because the program had ended.
    Killed,
}

impl StopCommandEnd {
    /// The name of the kind of end, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::lifecycle::StopCommandEnd::TimedOut.as_str(), "timed-out");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::{StopCommandEnd, StopCommandEndName};
    ///
    /// assert_eq!(StopCommandEnd::Succeeded.name(), StopCommandEndName::Succeeded);
    /// assert_eq!("succeeded".parse(), Ok(StopCommandEndName::Succeeded));
    /// ```
    #[must_use]
    pub const fn name(&self) -> StopCommandEndName {
        match self {
            StopCommandEnd::Succeeded => StopCommandEndName::Succeeded,
            StopCommandEnd::NotSpawned { .. } => StopCommandEndName::NotSpawned,
            StopCommandEnd::Failed(_) => StopCommandEndName::Failed,
            StopCommandEnd::TimedOut => StopCommandEndName::TimedOut,
            StopCommandEnd::Killed => StopCommandEndName::Killed,
        }
    }
}

impl fmt::Display for StopCommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopCommandEnd::Succeeded => f.write_str("succeeded"),
            StopCommandEnd::NotSpawned { errno } => write!(f, "could not be spawned: {}", ErrnoText(*errno)),
            StopCommandEnd::Failed(exit) => exit.fmt(f),
            StopCommandEnd::TimedOut => f.write_str("timed out"),
            StopCommandEnd::Killed => f.write_str("killed or withdrawn"),
        }
    }
}

stored!(enum StopCommandEnd { 0 = Succeeded, 1 = NotSpawned { errno }, 2 = Failed(exit), 3 = TimedOut, 4 = Killed });

stored!(enum CommandFailure { 0 = Spawn { errno, permanent }, 1 = Ended(exit), 2 = TimedOut });

stored!(enum Failure {
    0 = Spawn { errno, permanent },
    1 = Ended(exit),
    2 = StartTimeout,
    3 = NotReady,
    4 = Watchdog,
    5 = TimedOut,
    6 = Unhealthy,
    7 = Before(failure),
    8 = Sibling,
});
