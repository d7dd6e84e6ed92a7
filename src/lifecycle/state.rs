//! The state of a process, and the plain names for it.

use std::fmt;
use std::time::Duration;

use super::end::RunEnd;
use super::failure::Failure;
use crate::codec::stored;
use crate::exit::{Exit, Pid};
use crate::names::{machine_names, shown_by_name};
use crate::time::Instant;

/// The state of one supervised process. Data that belongs to one state is stored in that state: there is no stale pid
/// and no deadline without a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum State {
    /// Never started, or stopped on request.
    Stopped,
    /// The [command before the run](super::Policy::before_run) runs. The program is started when it has succeeded.
    Preparing {
        /// The process of the command; `None` until the spawn has been reported.
        pid: Option<Pid>,
        /// The time of the report that the command was executed. `None` while the spawn is in flight.
        executed: Option<Instant>,
        /// The time when the spawn was decided, and after its report the time of the report.
        since: Instant,
        /// The end of the time that the command has; [`Instant::NEVER`] until the spawn has been reported.
        until: Instant,
    },
    /// Spawned, and not yet known to be ready.
    Starting {
        /// The process; `None` until the spawn has been reported.
        pid: Option<Pid>,
        /// The time of the report that the process has executed its program. `None` while the spawn is in flight.
        executed: Option<Instant>,
        /// The time when the spawn was decided, and after its report the time of the report.
        since: Instant,
        /// The end of the grace, which begins with the execution, or of the timeout for readiness.
        until: Instant,
    },
    /// The process is ready and runs.
    Running {
        /// The PID of the process.
        pid: Pid,
        /// The time of the spawn: uptime counts from there.
        since: Instant,
        /// The time when the process counts as hung, unless it reports before; [`Instant::NEVER`] without a watchdog.
        until: Instant,
        /// The time when the run has timed out; [`Instant::NEVER`] without a [limit](super::RunTimeout).
        ends: Instant,
    },
    /// A process is being stopped, by request or because it failed without ending. [`Stopping::phase`] tells whether it
    /// is the program or a command around the run, and the [name](State::name) of this state follows from that.
    Stopping(Stopping),
    /// The run is over, and the [command after the run](super::Policy::after_run) runs. What follows is decided when it
    /// has ended.
    CleaningUp {
        /// The process of the command; `None` until the spawn has been reported.
        pid: Option<Pid>,
        /// The time of the report that the command was executed. `None` while the spawn is in flight.
        executed: Option<Instant>,
        /// The time when the spawn was decided, and after its report the time of the report.
        since: Instant,
        /// The end of the time that the command has; [`Instant::NEVER`] until the spawn has been reported.
        until: Instant,
        /// How the run has ended.
        ended: Ended,
    },
    /// The process ended by itself: it was running before, or it was a job that was done within its grace. If the policy
    /// restarts it, a transition to [`State::Starting`] or [`State::Backoff`] follows in the same turn.
    Exited {
        /// The exit status.
        exit: Exit,
        /// Whether the policy expects this exit.
        expected: bool,
    },
    /// The process waits for another try, or for the other instances of its group
    /// ([`GroupSpec::strategy`](crate::GroupSpec::strategy)).
    Backoff {
        /// The end of the wait; [`Instant::NEVER`] while only the other instances are waited for.
        until: Instant,
        /// The failure before the wait.
        failure: Failure,
    },
    /// The process was given up.
    Fatal {
        /// The time of the next try; [`Instant::NEVER`] if there is none.
        until: Instant,
        /// The last failure.
        failure: Failure,
    },
}

/// The data of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stopping {
    /// The process that was spawned, ended or not.
    pub pid: Pid,
    /// The time of the spawn.
    pub since: Instant,
    /// `None` for a request; otherwise the failure of the process while alive, or its end when other processes live
    /// on.
    pub failed: Option<Failed>,
    /// The known facts about the end of the process before it has ended.
    pub prospect: Prospect,
    /// The current rung, or [`Stopping::SIGKILL`].
    pub rung: u8,
    /// The time of the next rung; [`Instant::NEVER`] after the last.
    pub until: Instant,
    /// The remaining processes.
    pub remaining: Remaining,
    /// The part of the run that is being stopped.
    pub phase: Phase,
    /// Whether the command of a rung was begun and has not ended. Until then the stop is not over.
    pub has_command: bool,
    /// Whether the ladder goes on when that command has ended, and not before.
    pub awaits_command: bool,
}

/// The part of a run that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Phase {
    /// The program. The state is called [`StateName::Stopping`].
    Program,
    /// The command before the run, which failed or is not wanted any more. The state is called
    /// [`StateName::Stopping`].
    Before,
    /// The command before the run has succeeded, and other processes of its scope are killed before the program is
    /// started. The state is called [`StateName::Preparing`].
    LeftByBefore,
    /// The command after a run that has ended like this. The state is called [`StateName::CleaningUp`].
    After(Ended),
}

/// How a run has ended, while its command after the run has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Ended {
    /// Why the run ended.
    pub end: RunEnd,
    /// The exit status of the last process of the run; [`Exit::Unknown`] if that could not be spawned.
    pub exit: Exit,
    /// The failure to judge when the command has ended; `None` for a stop on request.
    pub failed: Option<Failed>,
    /// How long the run lasted.
    pub uptime: Duration,
    /// Whether the process had executed its program when it ended. If not, its end is a failed start.
    pub executed: bool,
}

impl Stopping {
    /// The number of the rung at the end of every ladder. It is not the ladder's length: the ladder can be exchanged
    /// for a longer or a shorter one during a stop.
    pub const SIGKILL: u8 = u8::MAX;

    /// Whether the policy decides what follows the stop.
    pub(super) const fn is_judged(&self) -> bool {
        match self.phase {
            Phase::After(ended) => ended.failed.is_some(),
            Phase::LeftByBefore => true,
            Phase::Program | Phase::Before => self.failed.is_some(),
        }
    }
}

/// The known cause of the end, while a process is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Prospect {
    /// The cause is open: the ladder or the process itself ends the process.
    Open,
    /// The host asked for SIGKILL, so SIGKILL is no timeout of the ladder.
    KillRequested,
    /// The process had ended by itself when its stop began.
    EndedBefore,
}

machine_names! { Prospect, "prospect of a stop",
    Open = "open"
    KillRequested = "kill-requested"
    EndedBefore = "ended-before"
}

shown_by_name! { Prospect }

/// A failure of a process that is alive, or that has left other living processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Failed {
    /// The kind of the failure.
    pub failure: Failure,
    /// Whether the process was running: then it counts as a crash, otherwise as a failed start.
    pub ran: bool,
}

/// The remaining processes of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Remaining {
    /// The process itself, and possibly others.
    Leader,
    /// The process has ended; other processes of the stop's scope can be alive.
    Others {
        /// The exit status of the process.
        exit: Exit,
        /// The time of the next check.
        look_at: Instant,
        /// The number of checks so far; it stops growing after a few dozen.
        looks: u8,
    },
    /// No process of the stop's scope is alive. The command of a rung still runs.
    Command {
        /// The exit status of the process.
        exit: Exit,
        /// Whether the process had executed its program.
        executed: bool,
    },
}

/// The name of a [`State`], without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StateName {
    /// The process was never started, or was stopped on request; see [`State::Stopped`].
    Stopped,
    /// The process is spawned, and not yet known to be ready; see [`State::Starting`].
    Starting,
    /// The process is ready and runs; see [`State::Running`].
    Running,
    /// The process is being stopped; see [`State::Stopping`].
    Stopping,
    /// The process ended by itself; see [`State::Exited`]. If the policy restarts it, the state follows at once.
    Exited,
    /// The process waits for another try; see [`State::Backoff`].
    Backoff,
    /// The process was given up; see [`State::Fatal`].
    Fatal,
    /// The command before the run runs; see [`State::Preparing`].
    Preparing,
    /// The run is over, and the command after it runs; see [`State::CleaningUp`].
    CleaningUp,
}

impl StateName {
    /// Whether a process can be alive in this state.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        match self {
            StateName::Preparing
            | StateName::Starting
            | StateName::Running
            | StateName::Stopping
            | StateName::CleaningUp => true,
            StateName::Stopped | StateName::Exited | StateName::Backoff | StateName::Fatal => false,
        }
    }

    /// Whether a run is under way in this state. It is over when the command after it runs.
    #[must_use]
    pub(crate) const fn is_in_run(self) -> bool {
        self.is_alive() && !matches!(self, StateName::CleaningUp)
    }
}

machine_names! { StateName, "state",
    Stopped = "STOPPED"
    Starting = "STARTING"
    Running = "RUNNING"
    Stopping = "STOPPING"
    Exited = "EXITED"
    Backoff = "BACKOFF"
    Fatal = "FATAL"
    Preparing = "PREPARING"
    CleaningUp = "CLEANING_UP"
}

shown_by_name! { StateName }

impl State {
    /// The name of the state.
    #[must_use]
    pub const fn name(&self) -> StateName {
        match self {
            State::Stopped => StateName::Stopped,
            State::Preparing { .. } => StateName::Preparing,
            State::Starting { .. } => StateName::Starting,
            State::Running { .. } => StateName::Running,
            State::Stopping(Stopping { phase, .. }) => match phase {
                Phase::Program | Phase::Before => StateName::Stopping,
                Phase::LeftByBefore => StateName::Preparing,
                Phase::After(_) => StateName::CleaningUp,
            },
            State::CleaningUp { .. } => StateName::CleaningUp,
            State::Exited { .. } => StateName::Exited,
            State::Backoff { .. } => StateName::Backoff,
            State::Fatal { .. } => StateName::Fatal,
        }
    }

    /// The pid, where a process exists, or existed and its descendants have not ended. It is not that of a command of a
    /// stop ladder.
    #[must_use]
    pub const fn pid(&self) -> Option<Pid> {
        match self {
            State::Preparing { pid, .. } | State::Starting { pid, .. } | State::CleaningUp { pid, .. } => *pid,
            State::Stopping(Stopping {
                remaining: Remaining::Command { .. },
                ..
            }) => None,
            State::Running { pid, .. } | State::Stopping(Stopping { pid, .. }) => Some(*pid),
            State::Stopped | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => None,
        }
    }

    /// The part of the run to which the process of this state belongs.
    pub(crate) const fn part(&self) -> Part {
        match self {
            State::Preparing { .. } => Part::Before,
            State::CleaningUp { .. } => Part::After,
            State::Stopping(Stopping { phase, .. }) => match phase {
                Phase::Program => Part::Program,
                Phase::Before | Phase::LeftByBefore => Part::Before,
                Phase::After(_) => Part::After,
            },
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Exited { .. }
            | State::Backoff { .. }
            | State::Fatal { .. } => Part::Program,
        }
    }

    /// Whether a spawn was decided and has not been reported.
    pub(crate) const fn is_unspawned(&self) -> bool {
        matches!(
            self,
            State::Preparing { pid: None, .. }
                | State::Starting { pid: None, .. }
                | State::CleaningUp { pid: None, .. }
        )
    }

    /// Whether a process exists that is not known to have executed its program.
    pub(crate) const fn is_in_flight(&self) -> bool {
        matches!(
            self,
            State::Preparing {
                pid: Some(_),
                executed: None,
                ..
            } | State::Starting {
                pid: Some(_),
                executed: None,
                ..
            } | State::CleaningUp {
                pid: Some(_),
                executed: None,
                ..
            }
        )
    }

    /// How the run has ended, while the command after it has not.
    pub(crate) const fn ended(&self) -> Option<Ended> {
        match self {
            State::CleaningUp { ended, .. }
            | State::Stopping(Stopping {
                phase: Phase::After(ended),
                ..
            }) => Some(*ended),
            _ => None,
        }
    }

    /// Whether the process has ended, and the stop is for others of its scope.
    pub(crate) const fn is_reaped(&self) -> bool {
        matches!(
            self,
            State::Stopping(Stopping {
                remaining: Remaining::Others { .. } | Remaining::Command { .. },
                ..
            })
        )
    }

    /// How the process has ended, if the stop is for others of its scope, or for a command.
    pub(crate) const fn exit_of_reaped(&self) -> Option<Exit> {
        match self {
            State::Stopping(Stopping {
                remaining: Remaining::Others { exit, .. } | Remaining::Command { exit, executed: true },
                ..
            }) => Some(*exit),
            _ => None,
        }
    }

    /// Whether nothing of a stop is left but the command of a rung.
    pub(crate) const fn is_left_to_command(&self) -> bool {
        matches!(
            self,
            State::Stopping(Stopping {
                remaining: Remaining::Command { .. },
                ..
            })
        )
    }

    /// Whether the command of a rung of a stop was begun and has not ended.
    pub(crate) const fn has_stop_command(&self) -> bool {
        matches!(self, State::Stopping(Stopping { has_command: true, .. }))
    }

    /// The spawn time of the living process.
    #[must_use]
    pub const fn since(&self) -> Option<Instant> {
        match self {
            State::Preparing { since, .. }
            | State::Starting { since, .. }
            | State::Running { since, .. }
            | State::Stopping(Stopping { since, .. })
            | State::CleaningUp { since, .. } => Some(*since),
            State::Stopped | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => None,
        }
    }

    /// The time of the next deadline in this state, if there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at = match *self {
            State::Stopped | State::Exited { .. } => Instant::NEVER,
            State::Running { until, ends, .. } => until.min(ends),
            State::Preparing { until, .. }
            | State::Starting { until, .. }
            | State::CleaningUp { until, .. }
            | State::Backoff { until, .. }
            | State::Fatal { until, .. } => until,
            State::Stopping(Stopping {
                until,
                remaining: Remaining::Leader,
                ..
            }) => until,
            State::Stopping(Stopping {
                until,
                remaining: Remaining::Others { look_at, .. },
                ..
            }) => until.min(look_at),
            // The command has a time of its own.
            State::Stopping(Stopping {
                remaining: Remaining::Command { .. },
                ..
            }) => Instant::NEVER,
        };
        (at != Instant::NEVER).then_some(at)
    }
}

/// The parts of a run. Each has a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The command before the run.
    Before,
    /// The program.
    Program,
    /// The command after the run.
    After,
    /// A command of the [ladder](super::Rung::Command) by which the program is stopped. It runs beside the program.
    Stop,
}

machine_names! { Part, "part of a run",
    Before = "before"
    Program = "program"
    After = "after"
    Stop = "stop"
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Before => "command before the run",
            Part::Program => "program",
            Part::After => "command after the run",
            Part::Stop => "stop command",
        })
    }
}

/// The wanted state of a process, independent of its actual state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Wanted {
    /// The process must be alive.
    Up,
    /// The process must not be alive.
    Down,
}

machine_names! { Wanted, "wanted state",
    Up = "up"
    Down = "down"
}

shown_by_name! { Wanted }

stored!(enum State {
    0 = Stopped,
    1 = Starting { pid, executed, since, until },
    2 = Running { pid, since, until, ends },
    3 = Stopping(stopping),
    4 = Exited { exit, expected },
    5 = Backoff { until, failure },
    6 = Fatal { until, failure },
    7 = Preparing { pid, executed, since, until },
    8 = CleaningUp { pid, executed, since, until, ended },
});
stored!(struct Stopping { pid, since, failed, prospect, rung, until, remaining, phase, has_command, awaits_command });
stored!(enum Phase { 0 = Program, 1 = Before, 2 = LeftByBefore, 3 = After(ended) });
stored!(struct Ended { end, exit, failed, uptime, executed });
stored!(enum Part { 0 = Before, 1 = Program, 2 = After, 3 = Stop });
stored!(enum Prospect { 0 = Open, 1 = KillRequested, 2 = EndedBefore });
stored!(struct Failed { failure, ran });
stored!(enum Remaining { 0 = Leader, 1 = Others { exit, look_at, looks }, 2 = Command { exit, executed } });
stored!(enum StateName {
    0 = Stopped,
    1 = Starting,
    2 = Running,
    3 = Stopping,
    4 = Exited,
    5 = Backoff,
    6 = Fatal,
    7 = Preparing,
    8 = CleaningUp,
});
stored!(enum Wanted { 0 = Up, 1 = Down });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_alive_in_five_of_the_states() {
        let alive = [
            StateName::Preparing,
            StateName::Starting,
            StateName::Running,
            StateName::Stopping,
            StateName::CleaningUp,
        ];
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
