//! What is remembered of an instance's runs: the last few, each with a typed cause of its end.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cgroup::CgroupUsage;
use crate::command::SpawnError;
use crate::exit::{Exit, ExitRecord, Pid};
use crate::lifecycle::{Failure, State, StopLadder, Stopping};
use crate::signal::Signal;
use crate::time::Instant;

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The how-manieth it was, from 1 up.
    pub number: u64,
    /// Its process; `None` if it could not be spawned.
    pub pid: Option<Pid>,
    /// When it was spawned, or tried to be; for showing.
    pub started_at: SystemTime,
    /// When it ended; for showing.
    pub ended_at: SystemTime,
    /// How long it lasted, on the supervisor's clock.
    pub lasted: Duration,
    /// How the process ended and what it used.
    pub exit: Option<ExitRecord>,
    /// What the run used in its cgroup, if the group has [cgroups](super::GroupSpec::cgroup): with the processes that it
    /// started, and exact about memory. Read when the run was over, before the cgroup was removed; with a stop whose scope
    /// is not the cgroup, processes may have lived there still.
    pub cgroup: Option<CgroupUsage>,
    /// Why.
    pub end: End,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It never began.
    NotSpawned(SpawnError),
    /// It ended by itself, with this code.
    Exited(u8),
    /// A signal that processes bring upon themselves (SIGSEGV, SIGABRT and the like) ended it.
    Crashed {
        /// Which.
        signal: Signal,
        /// Whether it left a core dump.
        core: bool,
    },
    /// Any other signal ended it, and it was not the supervisor's: somebody else's, or the kernel's for
    /// want of memory.
    KilledFromOutside(Signal),
    /// It was stopped on request.
    Stopped,
    /// It was stopped on request, and had to be killed when the ladder's time was over.
    StopTimeout,
    /// It was stopped because it was not ready in time.
    StartTimeout,
    /// It was stopped because it gave up its readiness descriptor.
    NotReady,
    /// It was stopped because it had been silent for too long.
    Watchdog,
    /// Nobody knows; see [`Exit::Unknown`].
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::NotSpawned(error) => error.fmt(f),
            End::Exited(code) => write!(f, "exited with code {code}"),
            End::Crashed { signal, core: false } => write!(f, "crashed: {signal}"),
            End::Crashed { signal, core: true } => write!(f, "crashed: {signal}, core dumped"),
            End::KilledFromOutside(signal) => write!(f, "killed from outside: {signal}"),
            End::Stopped => f.write_str("stopped"),
            End::StopTimeout => f.write_str("killed, not stopped in time"),
            End::StartTimeout => f.write_str("stopped, not ready in time"),
            End::NotReady => f.write_str("stopped, readiness descriptor closed without a message"),
            End::Watchdog => f.write_str("stopped, watchdog missed"),
            End::Unknown => f.write_str("ended with an unknown status"),
        }
    }
}

impl End {
    /// Why the run of a process that was in this state, and was not found dead when its stop began, ended as
    /// it did.
    pub(super) fn of(before: &State, exit: Exit, ladder: &StopLadder, asked_to_kill: bool) -> End {
        match before {
            State::Stopping(Stopping {
                failed: Some(failed), ..
            }) => End::of_failure(failed.failure),
            State::Stopping(stopping) if !asked_to_kill && timed_out(stopping, exit, ladder) => End::StopTimeout,
            State::Stopping(_) => End::Stopped,
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Exited { .. }
            | State::Backoff { .. }
            | State::Fatal { .. } => End::of_exit(exit),
        }
    }

    fn of_failure(failure: Failure) -> End {
        match failure {
            Failure::StartTimeout => End::StartTimeout,
            Failure::NotReady => End::NotReady,
            Failure::Watchdog => End::Watchdog,
            Failure::Ended(exit) => End::of_exit(exit),
            Failure::Spawn { .. } => End::Unknown,
        }
    }

    /// Why it ended, if nobody had to do with it but itself.
    pub(super) const fn of_exit(exit: Exit) -> End {
        match exit {
            Exit::Code(code) => End::Exited(code),
            Exit::Signal { signal, core } if core || is_fault(signal) => End::Crashed { signal, core },
            Exit::Signal { signal, .. } => End::KilledFromOutside(signal),
            Exit::Unknown => End::Unknown,
        }
    }
}

/// Whether it was the ladder's own SIGKILL that ended it, after all its rungs.
fn timed_out(stopping: &Stopping, exit: Exit, ladder: &StopLadder) -> bool {
    let climbed = !ladder.rungs.is_empty() && stopping.rung == Stopping::SIGKILL;
    climbed && exit.signal() == Some(Signal::KILL)
}

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

/// What is known of a run that is over.
pub(super) struct Over {
    pub(super) end: End,
    pub(super) exit: Option<ExitRecord>,
    pub(super) cgroup: Option<CgroupUsage>,
}

/// The run that there is, and the last few that were.
pub(super) struct History {
    pub(super) started_at: Option<SystemTime>,
    pub(super) last_error: Option<SpawnError>,
    pub(super) last_exit: Option<ExitRecord>,
    /// When the last run ended and how long it had lasted, unless there is one.
    pub(super) over: Option<(SystemTime, Duration)>,
    /// The host asked for SIGKILL.
    pub(super) asked_to_kill: bool,
    /// When its stop began it had ended already, and nobody had been told.
    pub(super) ended_before: bool,
    start: Instant,
    runs: VecDeque<Run>,
    most: usize,
}

impl History {
    /// Room for `most` runs, reserved now: a restart allocates nothing.
    pub(super) fn new(most: usize) -> History {
        let runs = VecDeque::with_capacity(most);
        History {
            started_at: None,
            last_error: None,
            last_exit: None,
            over: None,
            asked_to_kill: false,
            ended_before: false,
            start: Instant::ZERO,
            runs,
            most,
        }
    }

    pub(super) fn began(&mut self, now: Instant, wall: SystemTime) {
        self.start = now;
        self.started_at = Some(wall);
        self.last_error = None;
        self.over = None;
        self.asked_to_kill = false;
        self.ended_before = false;
    }

    /// Notes a run that is over at this time, which was the `number`th.
    pub(super) fn ended(&mut self, number: u64, over: Over, now: Instant, wall: SystemTime) {
        let Over { end, exit, cgroup } = over;
        let lasted = now.saturating_duration_since(self.start);
        self.over = Some((wall, lasted));
        if self.runs.len() == self.most {
            self.runs.pop_front();
        }
        if self.most == 0 {
            return;
        }
        self.runs.push_back(Run {
            number,
            pid: exit.map(|record| record.pid),
            started_at: self.started_at.unwrap_or(wall),
            ended_at: wall,
            lasted,
            exit,
            cgroup,
            end,
        });
    }

    /// The last runs, the oldest first.
    pub(super) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Failed, Left, Scope};

    fn stopping(rung: u8, failed: Option<Failure>) -> State {
        State::Stopping(Stopping {
            pid: Pid::new(1).unwrap(),
            since: Instant::ZERO,
            failed: failed.map(|failure| Failed { failure, ran: true }),
            prospect: crate::lifecycle::Prospect::Open,
            rung,
            until: Instant::NEVER,
            left: Left::Leader,
        })
    }

    #[test]
    fn every_end_has_its_cause() {
        let ladder = StopLadder::default();
        let killed = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        let running = State::Running {
            pid: Pid::new(1).unwrap(),
            since: Instant::ZERO,
            until: Instant::NEVER,
        };
        let of = |state: &State, exit| End::of(state, exit, &ladder, false);
        assert_eq!(of(&running, Exit::Code(3)), End::Exited(3));
        assert_eq!(of(&running, killed), End::KilledFromOutside(Signal::KILL));
        let segv = |core| Exit::Signal {
            signal: Signal::SEGV,
            core,
        };
        assert_eq!(
            of(&running, segv(true)),
            End::Crashed {
                signal: Signal::SEGV,
                core: true
            }
        );
        assert_eq!(
            of(&running, segv(false)),
            End::Crashed {
                signal: Signal::SEGV,
                core: false
            }
        );
        let quit = Exit::Signal {
            signal: Signal::QUIT,
            core: true,
        };
        assert_eq!(
            of(&running, quit),
            End::Crashed {
                signal: Signal::QUIT,
                core: true
            }
        );
        assert_eq!(of(&stopping(0, None), Exit::Code(1)), End::Stopped);
        assert_eq!(
            of(&stopping(0, None), killed),
            End::Stopped,
            "somebody was faster than the ladder"
        );
        assert_eq!(of(&stopping(Stopping::SIGKILL, None), killed), End::StopTimeout);
        let by_request = End::of(&stopping(Stopping::SIGKILL, None), killed, &ladder, true);
        assert_eq!(by_request, End::Stopped);
        assert_eq!(of(&stopping(0, Some(Failure::Watchdog)), killed), End::Watchdog);
        assert_eq!(of(&stopping(1, Some(Failure::StartTimeout)), killed), End::StartTimeout);
        let none = StopLadder::kill(Scope::Process);
        assert_eq!(
            End::of(&stopping(Stopping::SIGKILL, None), killed, &none, false),
            End::Stopped,
            "a ladder without rungs"
        );
    }

    #[test]
    fn only_the_last_few_are_kept() {
        let over = || Over {
            end: End::Stopped,
            exit: None,
            cgroup: None,
        };
        let mut history = History::new(2);
        for number in 1..=3 {
            history.ended(number, over(), Instant::ZERO, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(history.runs().map(|run| run.number).collect::<Vec<_>>(), [2, 3]);
        let mut none = History::new(0);
        none.ended(1, over(), Instant::ZERO, SystemTime::UNIX_EPOCH);
        assert_eq!(none.runs().count(), 0);
    }
}
