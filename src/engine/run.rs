//! A run that is over, with a typed cause of its end.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cgroup::{CgroupUsage, OomKill, OomLimit};
use crate::codec::stored;
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{CommandFailure, EndName, RunEnd};
use crate::signal::Signal;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_described_with_its_reason_if_there_is_one() {
        let unhealthy = |reason: &str| End::Unhealthy { reason: reason.into() }.to_string();
        assert_eq!(unhealthy(""), "stopped, reported as failed");
        assert_eq!(unhealthy("no disk"), "stopped, reported as failed: no disk");
    }

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
}
