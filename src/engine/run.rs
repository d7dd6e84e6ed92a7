//! The history of an instance: its last runs, each with a typed cause of its end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cgroup::{CgroupUsage, OomKill, OomLimit};
use crate::codec::{Damaged, Reader, Stored, Writer, stored};
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{CommandFailure, EndName, RunEnd};
use crate::signal::Signal;
use crate::time::Instant;

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Run {
    /// The number of the run, from 1 up.
    pub number: u64,
    /// The process of the run; `None` if it was not spawned.
    pub pid: Option<Pid>,
    /// When it was spawned, or when that was tried, on the wall clock, for display.
    pub started_at: SystemTime,
    /// When it ended, on the wall clock, for display.
    pub ended_at: SystemTime,
    /// How long it lasted, on the supervisor's clock.
    pub lasted: Duration,
    /// How the process ended, and the resources it used; `None` if it was not spawned. The commands before and after
    /// the run are not meant.
    pub exit: Option<ExitRecord>,
    /// The resources that the run used in its cgroup; `None` unless the group has
    /// [cgroups](crate::supervisor::GroupSpec::cgroup). They include the processes that the run started, and are exact
    /// about memory. They are read when the run has ended, before the cgroup is removed. If the scope of the stop is
    /// not the cgroup, processes may still be alive in it at that time.
    pub cgroup: Option<CgroupUsage>,
    /// Why the run ended.
    pub end: End,
}

/// Why a run ended.
///
/// A run has one end. If several of these are true, the first rule that applies decides:
///
/// 1. A process that could not execute its program is [`NotSpawned`](End::NotSpawned), whatever else happened to it.
/// 2. A process that the supervisor has stopped has the reason of the stop, even if it ended by a signal of another
///    process or for lack of memory meanwhile. A process that had already ended when the stop began is judged by its
///    own end.
/// 3. A process that ended by itself is [`Exited`](End::Exited), even if the kernel has killed others of its cgroup.
/// 4. A process that a signal of its own fault has ended, or that left a core dump, is [`Crashed`](End::Crashed).
/// 5. A process that SIGKILL has ended is [`OutOfMemory`](End::OutOfMemory) if the kernel has killed it for lack of
///    memory, and [`MaybeOutOfMemory`](End::MaybeOutOfMemory) if the kernel has killed a process in the cgroup of this
///    run, and does not tell which one.
/// 6. Every other signal is [`KilledFromOutside`](End::KilledFromOutside).
///
/// Two facts are beside the end, in [`Run::cgroup`]: how many processes of the run the kernel has killed for lack of
/// memory ([`CgroupUsage::oom_kills`]), and how many forks a limit of processes has refused
/// ([`CgroupUsage::pids_refused`]). Neither ends a run by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum End {
    /// The process could not be spawned.
    NotSpawned(SpawnError),
    /// The process ended by itself, with this exit code.
    Exited(u8),
    /// A signal that a process usually causes itself (SIGSEGV, SIGABRT and the like) ended it.
    Crashed {
        /// The signal that ended the process.
        signal: Signal,
        /// Whether the process left a core dump.
        core: bool,
    },
    /// Another signal ended the process, and the supervisor did not send it. It came from another process; or from the
    /// kernel when memory was short, if the run has no cgroup in which the memory controller counts, or if it ended
    /// while no host was there ([`Builder::recover`](crate::supervisor::Builder::recover)).
    KilledFromOutside(Signal),
    /// The kernel killed the process because memory was short. It is known from `memory.events` of the run's cgroup, so
    /// the group needs [cgroups](crate::supervisor::GroupSpec::cgroup) with the memory controller, which every limit of
    /// memory enables. The events of earlier runs and of other cgroups do not count.
    ///
    /// The kernel does not tell which process of a cgroup it has killed. It is certain in two cases: the run has never
    /// had a second process or thread (`pids.peak` of the pids controller, Linux 6.1), or the kernel has killed all
    /// processes of the cgroup together
    /// ([`Limits::memory_oom_group`](crate::cgroup::Limits::memory_oom_group)). Otherwise the end is
    /// [`MaybeOutOfMemory`](End::MaybeOutOfMemory). In the second case the process may also have got a SIGKILL from
    /// outside a moment before, when the supervisor has not looked yet. A process with an `oom_score_adj` of -1000
    /// survives the kill of its cgroup.
    OutOfMemory(OomLimit),
    /// SIGKILL ended the process, and the kernel has killed a process of the run because memory was short: this one, or
    /// another one before. In the second case the signal came from outside.
    /// [`Limits::memory_oom_group`](crate::cgroup::Limits::memory_oom_group) makes the end certain, since the kernel
    /// then kills all processes of the run together.
    MaybeOutOfMemory(OomLimit),
    /// The process was stopped on request.
    Stopped,
    /// The process was stopped on request, and was killed when the time of the stop ladder was over.
    StopTimeout,
    /// The process was stopped because it was not ready in time.
    StartTimeout,
    /// The process was stopped because it closed its readiness descriptor without a message.
    NotReady,
    /// The process was stopped because it missed its watchdog's time.
    Watchdog,
    /// The process was stopped because its run took longer than the policy
    /// [allows](crate::lifecycle::RunTimeout).
    TimedOut,
    /// The process was stopped because the host reported it as failed
    /// ([`Supervisor::report_failed`](crate::Supervisor::report_failed)).
    Unhealthy {
        /// The host's reason. It is empty after a [recovery](crate::supervisor::Builder::recover), since the host that
        /// knew it was killed.
        reason: Arc<str>,
    },
    /// The host let the process go on by itself ([`Supervisor::release`](crate::Supervisor::release)).
    Released,
    /// The exit status is not known; see [`Exit::Unknown`](crate::Exit::Unknown).
    Unknown,
    /// The [command before the run](crate::supervisor::GroupSpec::before_run) failed, so the program was not started.
    BeforeFailed(CommandFailure),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::NotSpawned(error) => error.fmt(f),
            End::Exited(code) => write!(f, "exited with code {code}"),
            End::Crashed { signal, core: false } => write!(f, "crashed: {signal}"),
            End::Crashed { signal, core: true } => write!(f, "crashed: {signal}, core dumped"),
            End::KilledFromOutside(signal) => write!(f, "killed from outside: {signal}"),
            End::OutOfMemory(limit) => write!(f, "killed, out of memory: {limit}"),
            End::MaybeOutOfMemory(limit) => write!(f, "killed, perhaps out of memory: {limit}"),
            End::Stopped => f.write_str("stopped"),
            End::StopTimeout => f.write_str("killed, not stopped in time"),
            End::StartTimeout => f.write_str("stopped, not ready in time"),
            End::NotReady => f.write_str("stopped, readiness descriptor closed without a message"),
            End::Watchdog => f.write_str("stopped, watchdog missed"),
            End::TimedOut => f.write_str("stopped, run timed out"),
            End::Unhealthy { reason } if reason.is_empty() => f.write_str("stopped, reported as failed"),
            End::Unhealthy { reason } => write!(f, "stopped, reported as failed: {reason}"),
            End::Released => f.write_str("released"),
            End::Unknown => f.write_str("ended with an unknown status"),
            End::BeforeFailed(failure) => write!(f, "not started, command before the run: {failure}"),
        }
    }
}

impl End {
    /// The name of the kind of end, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::supervisor::End::Exited(3).as_str(), "exited");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::lifecycle::EndName;
    /// use pidherd::supervisor::End;
    ///
    /// assert_eq!(End::StopTimeout.name(), EndName::StopTimeout);
    /// assert_eq!("out-of-memory".parse(), Ok(EndName::OutOfMemory));
    /// ```
    #[must_use]
    pub const fn name(&self) -> EndName {
        match self {
            End::NotSpawned(_) => EndName::NotSpawned,
            End::Exited(_) => EndName::Exited,
            End::Crashed { .. } => EndName::Crashed,
            End::KilledFromOutside(_) => EndName::KilledFromOutside,
            End::OutOfMemory(_) => EndName::OutOfMemory,
            End::MaybeOutOfMemory(_) => EndName::MaybeOutOfMemory,
            End::Stopped => EndName::Stopped,
            End::StopTimeout => EndName::StopTimeout,
            End::StartTimeout => EndName::StartTimeout,
            End::NotReady => EndName::NotReady,
            End::Watchdog => EndName::Watchdog,
            End::TimedOut => EndName::TimedOut,
            End::Unhealthy { .. } => EndName::Unhealthy,
            End::Released => EndName::Released,
            End::BeforeFailed(_) => EndName::BeforeFailed,
            End::Unknown => EndName::Unknown,
        }
    }

    /// The end that the lifecycle found, with what is known besides: the error of a failed spawn, the kernel's kills in
    /// the run for lack of memory, and the host's reason for a report.
    pub(crate) fn new(end: RunEnd, error: Option<&SpawnError>, oom: Option<OomKill>, reason: Option<Arc<str>>) -> End {
        if let (RunEnd::KilledFromOutside(Signal::KILL), Some(OomKill { limit, is_certain })) = (end, oom) {
            return match is_certain {
                true => End::OutOfMemory(limit),
                false => End::MaybeOutOfMemory(limit),
            };
        }
        match (end, error) {
            (RunEnd::NotSpawned, Some(error)) => End::NotSpawned(error.clone()),
            (RunEnd::Exited(code), _) => End::Exited(code),
            (RunEnd::Crashed { signal, core }, _) => End::Crashed { signal, core },
            (RunEnd::KilledFromOutside(signal), _) => End::KilledFromOutside(signal),
            (RunEnd::Stopped, _) => End::Stopped,
            (RunEnd::StopTimeout, _) => End::StopTimeout,
            (RunEnd::StartTimeout, _) => End::StartTimeout,
            (RunEnd::NotReady, _) => End::NotReady,
            (RunEnd::Watchdog, _) => End::Watchdog,
            (RunEnd::TimedOut, _) => End::TimedOut,
            (RunEnd::Unhealthy, _) => End::Unhealthy {
                reason: reason.unwrap_or_default(),
            },
            (RunEnd::Released, _) => End::Released,
            (RunEnd::BeforeFailed(failure), _) => End::BeforeFailed(failure),
            (RunEnd::NotSpawned, None) | (RunEnd::Unknown, _) => End::Unknown,
        }
    }
}

/// The result of a run that has ended.
pub(crate) struct EndedRun {
    pub(crate) end: End,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) cgroup: Option<CgroupUsage>,
}

/// The current run, and the last few that have ended.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) last_error: Option<SpawnError>,
    pub(crate) last_exit: Option<ExitRecord>,
    /// When the last run ended and how long it lasted; `None` while a run is alive.
    pub(crate) over: Option<(SystemTime, Duration)>,
    /// The exit record of the current run, if its process was reaped.
    exit: Option<ExitRecord>,
    /// Why the host reported the current run as failed.
    complaint: Option<Arc<str>>,
    /// The kernel's kills in the current run for lack of memory, if SIGKILL has ended its process.
    oom: Option<OomKill>,
    start: Instant,
    runs: VecDeque<Run>,
    most: usize,
}

impl History {
    /// An empty history with room for `most` runs. The room is reserved now, so a restart allocates nothing.
    pub(crate) fn new(most: usize) -> History {
        let runs = VecDeque::with_capacity(most);
        History {
            started_at: None,
            last_error: None,
            last_exit: None,
            over: None,
            exit: None,
            complaint: None,
            oom: None,
            start: Instant::ZERO,
            runs,
            most,
        }
    }

    /// The same history with at most `most` runs. Older ones are dropped. It has no room for more runs yet.
    pub(crate) fn with_most(mut self, most: usize) -> History {
        let surplus = self.runs.len().saturating_sub(most);
        self.runs.drain(..surplus);
        self.most = most;
        self
    }

    /// Allocates for all runs that may come.
    pub(crate) fn make_room(&mut self) {
        self.runs.reserve(self.most.saturating_sub(self.runs.len()));
    }

    pub(crate) fn began(&mut self, now: Instant, wall: SystemTime) {
        self.start = now;
        self.started_at = Some(wall);
        self.last_error = None;
        self.complaint = None;
        self.over = None;
    }

    /// Sets the reason for which the host reports the current run as failed.
    pub(crate) fn set_complaint(&mut self, reason: Option<Arc<str>>) {
        self.complaint = reason;
    }

    /// The reason for which the host reported the current run as failed.
    pub(crate) const fn complaint(&self) -> Option<&Arc<str>> {
        self.complaint.as_ref()
    }

    /// The facts about the current run that a record contains.
    pub(crate) fn put_current(&self, to: &mut Writer<'_>) {
        self.started_at.put(to);
        self.start.put(to);
        self.last_exit.put(to);
        self.over.put(to);
    }

    /// A history that goes on with these facts. It contains no run that is over.
    pub(crate) fn get_current(from: &mut Reader<'_>) -> Result<History, Damaged> {
        let mut history = History::new(0);
        history.started_at = Stored::get(from)?;
        history.start = Stored::get(from)?;
        history.last_exit = Stored::get(from)?;
        history.over = Stored::get(from)?;
        Ok(history)
    }

    /// The process of the current run was reaped.
    pub(crate) const fn exited(&mut self, record: ExitRecord, oom: Option<OomKill>) {
        self.exit = Some(record);
        self.oom = oom;
        self.last_exit = Some(record);
    }

    /// The exit record of the current run, which is over, and the kernel's kills for lack of memory.
    pub(crate) const fn take_exit(&mut self) -> (Option<ExitRecord>, Option<OomKill>) {
        (self.exit.take(), self.oom.take())
    }

    /// Records the end of the run with this number.
    pub(crate) fn ended(&mut self, number: u64, over: EndedRun, now: Instant, wall: SystemTime) {
        let EndedRun { end, exit, cgroup } = over;
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
    pub(crate) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter()
    }
}

stored!(struct Run { number, pid, started_at, ended_at, lasted, exit, cgroup, end });
stored!(enum End {
    0 = NotSpawned(error),
    1 = Exited(code),
    2 = Crashed { signal, core },
    3 = KilledFromOutside(signal),
    4 = Stopped,
    5 = StopTimeout,
    6 = StartTimeout,
    7 = NotReady,
    8 = Watchdog,
    9 = Released,
    10 = Unknown,
    11 = TimedOut,
    12 = Unhealthy { reason },
    13 = OutOfMemory(limit),
    14 = BeforeFailed(failure),
    15 = MaybeOutOfMemory(limit),
});
impl Stored for History {
    fn put(&self, to: &mut Writer<'_>) {
        self.started_at.put(to);
        self.last_error.put(to);
        self.last_exit.put(to);
        self.over.put(to);
        self.exit.put(to);
        self.complaint.put(to);
        self.oom.put(to);
        self.start.put(to);
        self.runs.put(to);
    }

    /// The room is that for the runs; see [`History::make_room`].
    fn get(from: &mut Reader<'_>) -> Result<History, Damaged> {
        let mut history = History::new(0);
        history.started_at = Stored::get(from)?;
        history.last_error = Stored::get(from)?;
        history.last_exit = Stored::get(from)?;
        history.over = Stored::get(from)?;
        history.exit = Stored::get(from)?;
        history.complaint = Stored::get(from)?;
        history.oom = Stored::get(from)?;
        history.start = Stored::get(from)?;
        history.runs = Stored::get(from)?;
        history.most = history.runs.len();
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_from_outside_can_be_for_lack_of_memory() {
        let crashed = |core| RunEnd::Crashed {
            signal: Signal::KILL,
            core,
        };
        let of = |end, oom| End::new(end, None, oom, None);
        let kill = RunEnd::KilledFromOutside(Signal::KILL);
        assert_eq!(of(kill, None), End::KilledFromOutside(Signal::KILL));
        for limit in [
            OomLimit::Own,
            OomLimit::Ancestor { levels: 2 },
            OomLimit::Machine,
            OomLimit::Unknown,
        ] {
            let oom = |is_certain| Some(OomKill { limit, is_certain });
            assert_eq!(of(kill, oom(true)), End::OutOfMemory(limit));
            assert_eq!(of(kill, oom(false)), End::MaybeOutOfMemory(limit));
            for other in [
                RunEnd::NotSpawned,
                RunEnd::Exited(137),
                RunEnd::KilledFromOutside(Signal::TERM),
                crashed(true),
                RunEnd::Stopped,
                RunEnd::StopTimeout,
                RunEnd::StartTimeout,
                RunEnd::NotReady,
                RunEnd::Watchdog,
                RunEnd::Released,
                RunEnd::Unknown,
            ] {
                assert_eq!(of(other, oom(true)), of(other, None));
            }
        }
    }

    #[test]
    fn a_history_that_goes_on_gets_its_room_later() {
        let mut history = History::new(0).with_most(3);
        assert_eq!(history.runs.capacity(), 0);
        history.make_room();
        assert!(history.runs.capacity() >= 3);
    }

    #[test]
    fn only_the_last_few_are_kept() {
        let over = || EndedRun {
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
