//! Where a process stands, and the plain words for it that hosts are told.

use std::fmt;

use crate::errno::ErrnoText;
use crate::exit::{Exit, Pid};
use crate::time::Instant;

/// Where one supervised process stands. What only makes sense in one state lives in that state:
/// there is no stale pid and no deadline that belongs to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Never started, or stopped on request.
    Stopped,
    /// Spawned, and not yet known to be healthy.
    Starting {
        /// The process; `None` until the spawn has been reported.
        pid: Option<Pid>,
        /// Whether the process has executed its program. Until then the spawn is in flight.
        executed: bool,
        /// When the spawn was decided, and from its report on, when that was.
        since: Instant,
        /// When the grace, which begins with the execution, or the timeout for readiness ends.
        until: Instant,
    },
    /// Up.
    Running {
        /// The process.
        pid: Pid,
        /// When it was spawned: uptime counts from there.
        since: Instant,
        /// When it counts as hung unless it is heard of before; [`Instant::NEVER`] without a watchdog.
        until: Instant,
    },
    /// On the way down, by request or because it failed without ending.
    Stopping(Stopping),
    /// Ended by itself and left so by the policy: after it had been running, or as a job that was done within its
    /// grace.
    Exited {
        /// How it ended.
        exit: Exit,
        /// Whether that was expected.
        expected: bool,
    },
    /// Waiting before another try.
    Backoff {
        /// When the wait is over.
        until: Instant,
        /// What made it necessary.
        failure: Failure,
    },
    /// Given up.
    Fatal {
        /// When it gets another chance; [`Instant::NEVER`] if never.
        until: Instant,
        /// The last failure.
        failure: Failure,
    },
}

/// The way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopping {
    /// The process that was spawned, ended or not.
    pub pid: Pid,
    /// When it was spawned.
    pub since: Instant,
    /// `None` for a request; otherwise what it failed at while alive, or how it ended when it left others.
    pub failed: Option<Failed>,
    /// What is known of the end of the process before it has ended.
    pub prospect: Prospect,
    /// The rung that was climbed last, or [`Stopping::SIGKILL`].
    pub rung: u8,
    /// When the next rung is due; [`Instant::NEVER`] after the last.
    pub until: Instant,
    /// What is left of it.
    pub left: Left,
}

impl Stopping {
    /// The number of the rung at the end of every ladder. It is not the ladder's length: the ladder
    /// may be exchanged for a longer or a shorter one in the midst of a stop.
    pub const SIGKILL: u8 = u8::MAX;
}

/// What is known, while a process is being stopped, of the cause of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prospect {
    /// Nothing: the ladder, or the process itself, decides.
    Open,
    /// The host asked for SIGKILL, so SIGKILL is no timeout of the ladder.
    KillRequested,
    /// The process had ended by itself when its stop began.
    EndedBefore,
}

/// A process that is alive, or survived by those it started, and has failed all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failed {
    /// At what.
    pub failure: Failure,
    /// Whether it had been running: then it counts as a crash, else as a failed start.
    pub ran: bool,
}

/// What is left of a process that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// The process itself, at least.
    Leader,
    /// It has ended; others of the stop's scope may be alive.
    Others {
        /// How it ended.
        exit: Exit,
        /// When to look next.
        look_at: Instant,
        /// How many times it has been looked for, of the last few dozen.
        looks: u8,
    },
}

/// Why a start, or a run, did not go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be spawned.
    Spawn {
        /// The kernel's reason.
        errno: i32,
        /// Trying again as things are cannot help.
        permanent: bool,
    },
    /// It ended.
    Ended(Exit),
    /// It did not get ready in time.
    StartTimeout,
    /// It closed its readiness descriptor without a message.
    NotReady,
    /// It did not report in time that it is alive.
    Watchdog,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Spawn { errno, .. } => write!(f, "could not be spawned: {}", ErrnoText(*errno)),
            Failure::Ended(exit) => exit.fmt(f),
            Failure::StartTimeout => f.write_str("not ready in time"),
            Failure::NotReady => f.write_str("readiness descriptor closed without a message"),
            Failure::Watchdog => f.write_str("watchdog missed"),
        }
    }
}

/// The name of a [`State`], without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// [`State::Stopped`].
    Stopped,
    /// [`State::Starting`].
    Starting,
    /// [`State::Running`].
    Running,
    /// [`State::Stopping`].
    Stopping,
    /// [`State::Exited`].
    Exited,
    /// [`State::Backoff`].
    Backoff,
    /// [`State::Fatal`].
    Fatal,
}

impl StateName {
    /// Whether a process may be alive in it.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, StateName::Starting | StateName::Running | StateName::Stopping)
    }

    /// The name in capitals, as supervisord prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StateName::Stopped => "STOPPED",
            StateName::Starting => "STARTING",
            StateName::Running => "RUNNING",
            StateName::Stopping => "STOPPING",
            StateName::Exited => "EXITED",
            StateName::Backoff => "BACKOFF",
            StateName::Fatal => "FATAL",
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl State {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> StateName {
        match self {
            State::Stopped => StateName::Stopped,
            State::Starting { .. } => StateName::Starting,
            State::Running { .. } => StateName::Running,
            State::Stopping(_) => StateName::Stopping,
            State::Exited { .. } => StateName::Exited,
            State::Backoff { .. } => StateName::Backoff,
            State::Fatal { .. } => StateName::Fatal,
        }
    }

    /// The pid, where there is a process or was until its tree is gone.
    #[must_use]
    pub const fn pid(&self) -> Option<Pid> {
        match self {
            State::Starting { pid, .. } => *pid,
            State::Running { pid, .. } | State::Stopping(Stopping { pid, .. }) => Some(*pid),
            State::Stopped | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => None,
        }
    }

    /// When the process that is alive was spawned.
    #[must_use]
    pub const fn since(&self) -> Option<Instant> {
        match self {
            State::Starting { since, .. } | State::Running { since, .. } | State::Stopping(Stopping { since, .. }) => {
                Some(*since)
            }
            State::Stopped | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => None,
        }
    }

    /// When something is due in it, if anything is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at = match *self {
            State::Stopped | State::Exited { .. } => Instant::NEVER,
            State::Starting { until, .. }
            | State::Running { until, .. }
            | State::Backoff { until, .. }
            | State::Fatal { until, .. } => until,
            State::Stopping(Stopping {
                until,
                left: Left::Leader,
                ..
            }) => until,
            State::Stopping(Stopping {
                until,
                left: Left::Others { look_at, .. },
                ..
            }) => until.min(look_at),
        };
        (at != Instant::NEVER).then_some(at)
    }
}

/// What the host wishes for a process, whatever state it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// It shall be alive.
    Up,
    /// It shall not.
    Down,
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state left.
    pub from: StateName,
    /// The state reached.
    pub to: StateName,
    /// Why.
    pub cause: Cause,
}

impl Transition {
    /// Whether a run ended with it: a process was, and is no more.
    #[must_use]
    pub const fn ends_run(self) -> bool {
        let replaced = matches!((self.from, self.to), (StateName::Stopping, StateName::Starting));
        self.from.is_alive() && (replaced || !self.to.is_alive())
    }
}

/// Why a transition happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The host asked for it.
    Requested,
    /// It lived through its grace.
    GraceOver,
    /// It said that it is ready.
    Ready,
    /// It failed.
    Failed(Failure),
    /// It ended by itself after it had been running, or as a job that was done.
    Ended {
        /// How.
        exit: Exit,
        /// Whether the policy expects that.
        expected: bool,
    },
    /// The policy restarts it.
    Restart,
    /// The wait is over.
    DelayOver,
    /// No try is left.
    RetriesUsedUp,
    /// Trying again cannot help, and the policy does not.
    Permanent,
    /// It crashed too often in too short a time.
    CrashBudgetUsedUp,
    /// It has rested long enough to get another chance.
    CoolOffOver,
    /// Nothing that was to be stopped is left.
    Gone,
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
        }
    }
}

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

    #[test]
    fn a_process_may_be_alive_in_three_of_the_states() {
        let alive = [StateName::Starting, StateName::Running, StateName::Stopping];
        let dead = [
            StateName::Stopped,
            StateName::Exited,
            StateName::Backoff,
            StateName::Fatal,
        ];
        assert!(alive.into_iter().all(StateName::is_alive));
        assert!(!dead.into_iter().any(StateName::is_alive));
    }
}
