//! One watched process, and the operations on it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::run_cgroup::RunCgroup;
use crate::command::InFlight;
use crate::exit::Pid;
use crate::fdset::Token;
use crate::lifecycle::Scope;
use crate::notify::ReadyFd;
use crate::pidfd::PidFd;
use crate::procfs;
use crate::signal::Signal;
use crate::sys::process::{number_is_taken, process_group, signal_group_by_number};
use crate::time::Instant;

/// A child, and which of its resources are still held.
pub(crate) struct Watched {
    pub(crate) pidfd: PidFd,
    pub(crate) watch: Watch,
    pub(crate) slot: u32,
    /// The resources that the child uses until it executes its program.
    pub(crate) in_flight: Option<InFlight>,
    /// What only some processes have.
    pub(crate) rest: Option<Box<Rest>>,
}

/// What only processes of some groups have. Each instance has a place for a process, so this is in a box.
#[derive(Default)]
pub(crate) struct Rest {
    pub(crate) run_cgroup: Option<RunCgroup>,
    /// The readiness descriptor, until the process is ready or has closed it.
    pub(crate) ready: Option<(ReadyFd, Token)>,
    /// When its spawn began, and the name of its program, if the program before this one began it (exec(2) of the
    /// host) and no execve was seen yet.
    pub(crate) inherited_flight: Option<(Instant, OsString)>,
    /// A member of its process group that was alive at the last look at /proc.
    pub(crate) member: Option<Pid>,
}

impl Rest {
    pub(crate) const fn is_empty(&self) -> bool {
        let has_facts = self.inherited_flight.is_some() || self.member.is_some();
        self.run_cgroup.is_none() && self.ready.is_none() && !has_facts
    }

    /// The same in a box; `None` if it is empty.
    pub(crate) fn boxed(self) -> Option<Box<Rest>> {
        (!self.is_empty()).then(|| Box::new(self))
    }
}

/// The boxes of processes that have ended, for later ones: a restart does not allocate.
#[derive(Default)]
#[allow(
    clippy::vec_box,
    reason = "a process takes the box, so that nothing is allocated for it"
)]
pub(crate) struct Spare(Vec<Box<Rest>>);

impl Spare {
    /// A box with these; `None` if there are none.
    pub(crate) fn rest(&mut self, run_cgroup: Option<RunCgroup>, ready: Option<(ReadyFd, Token)>) -> Option<Box<Rest>> {
        if run_cgroup.is_none() && ready.is_none() {
            return None;
        }
        let mut rest = self.0.pop().unwrap_or_default();
        (rest.run_cgroup, rest.ready) = (run_cgroup, ready);
        Some(rest)
    }

    /// Empties a box and keeps it. Returns its content.
    pub(crate) fn emptied(&mut self, rest: Option<Box<Rest>>) -> Rest {
        let Some(mut rest) = rest else {
            return Rest::default();
        };
        let content = std::mem::take(&mut *rest);
        self.0.push(rest);
        content
    }
}

pub(crate) enum Watch {
    /// Alive at the last look, and in the set.
    Alive(Token),
    /// The process has ended, and its status is not available yet. Its descriptor is kept outside of the set, because a
    /// pidfd of an ended process stays readable. The number counts the looks so far.
    Late(u32),
    /// Reaped, and still in the set.
    Reaped(Token),
    /// Reaped and not in the set. Its descriptor is kept, to reach its process group.
    Group,
    /// The same for kernels before 6.9: a zombie, which keeps its number and so the number of its group.
    Zombie,
}

impl Watched {
    pub(crate) fn run_cgroup(&self) -> Option<&RunCgroup> {
        self.rest.as_ref()?.run_cgroup.as_ref()
    }

    pub(crate) fn run_cgroup_mut(&mut self) -> Option<&mut RunCgroup> {
        self.rest.as_mut()?.run_cgroup.as_mut()
    }

    pub(crate) fn ready(&self) -> Option<&(ReadyFd, Token)> {
        self.rest.as_ref()?.ready.as_ref()
    }

    pub(crate) fn inherited_flight(&self) -> Option<&(Instant, OsString)> {
        self.rest.as_ref()?.inherited_flight.as_ref()
    }

    /// The age of its spawn in flight and the name of the program, if the spawn is in flight.
    pub(crate) fn flight(&self, now: Instant) -> Option<(Duration, OsString)> {
        match (&self.in_flight, self.inherited_flight()) {
            (Some(in_flight), _) => Some((in_flight.age(), in_flight.program_name())),
            (None, Some((began, program))) => Some((now.saturating_duration_since(*began), program.clone())),
            (None, None) => None,
        }
    }

    /// The descriptor of the set's entry with this token, if it is one of this process.
    pub(crate) fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        match self.watch {
            Watch::Alive(own) | Watch::Reaped(own) if own == token => Some(self.pidfd.as_fd()),
            _ => match self.ready() {
                Some((ready, own)) if *own == token => Some(ready.as_fd()),
                _ => self.run_cgroup()?.events_fd(token),
            },
        }
    }

    /// Whether the process with this pid is in the cgroup of this run or below.
    pub(crate) fn contains(&self, pid: Pid) -> bool {
        self.run_cgroup().is_some_and(|run_cgroup| run_cgroup.contains(pid))
    }

    /// The pid, while it cannot be given to another process.
    pub(crate) fn unreaped(&self) -> Option<Pid> {
        matches!(self.watch, Watch::Alive(_) | Watch::Late(_) | Watch::Zombie).then(|| self.pidfd.pid())
    }
}

/// Sends one signal to a scope.
pub(crate) fn send(process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
    match (scope, process.run_cgroup()) {
        (Scope::Cgroup, Some(run_cgroup)) => deliver_to_cgroup(process, run_cgroup, signal),
        (Scope::Process | Scope::ProcessGroup | Scope::Cgroup, _) => deliver(process, signal, scope),
    }
}

/// Sends one signal. ESRCH is a success, because no process is left to receive the signal.
fn deliver(process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
    let sent = match scope {
        Scope::Process => process.pidfd.signal(signal),
        Scope::ProcessGroup | Scope::Cgroup => match deliver_to_group(process, signal) {
            // The leader may have left its group, and belongs to the scope all the same.
            sent if signal == Signal::KILL || is_errno(&sent, Errno::SRCH) || has_left_group(process) => {
                process.pidfd.signal(signal).or(sent)
            }
            sent => sent,
        },
    };
    if is_errno(&sent, Errno::SRCH) { Ok(()) } else { sent }
}

/// Sends one signal to every process of a cgroup, and to the main process if it has moved itself to another cgroup. No
/// process gets a signal twice, except SIGKILL.
fn deliver_to_cgroup(process: &Watched, run_cgroup: &RunCgroup, signal: Signal) -> io::Result<()> {
    let (reached, sent) = run_cgroup.signal(signal, process.pidfd.pid());
    match process.watch {
        Watch::Alive(_) | Watch::Late(_) if !reached => deliver(process, signal, Scope::Process).and(sent),
        Watch::Alive(_) | Watch::Late(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => sent,
    }
}

/// Whether a process that led its own group from the start has moved to another group (setpgid(2)). The number of a
/// reaped process may belong to another process; a signal to the pidfd has no effect then.
fn has_left_group(process: &Watched) -> bool {
    let pid = process.pidfd.pid();
    process_group(pid).is_ok_and(|group| group != pid.as_raw())
}

fn deliver_to_group(process: &Watched, signal: Signal) -> io::Result<()> {
    let sent = process.pidfd.signal_group(Some(signal));
    match process.watch {
        // The group is signalled by number before 6.9, and if a filter refuses the call.
        Watch::Alive(_) | Watch::Late(_) | Watch::Zombie if is_refused(&sent) => {
            if keeps_number(process) {
                signal_group_by_number(process.pidfd.pid(), signal.as_raw())
            } else {
                Err(Errno::SRCH.into())
            }
        }
        Watch::Alive(_) | Watch::Late(_) | Watch::Zombie | Watch::Reaped(_) | Watch::Group => sent,
    }
}

/// Whether the pidfd reaches the process group, which may be empty.
pub(crate) fn reaches_group(process: &Watched) -> bool {
    let asked = process.pidfd.signal_group(None);
    asked.is_ok() || is_errno(&asked, Errno::SRCH)
}

/// Whether a number still refers to this process and its group. It does while the process is unreaped. If other code
/// has reaped the process (a host that ignores SIGCHLD, or waits for any child), it does while no process has the
/// number, because a group with members keeps its number from being given to another process.
pub(crate) fn keeps_number(process: &Watched) -> bool {
    process.pidfd.is_unreaped() || !number_is_taken(process.pidfd.pid())
}

pub(crate) fn group_is_alive(process: &mut Watched) -> io::Result<bool> {
    let last = process.rest.as_ref().and_then(|rest| rest.member);
    let member = procfs::live_member(process.pidfd.pid(), last)?;
    if member != last {
        process.rest.get_or_insert_default().member = member;
    }
    Ok(member.is_some())
}

/// Waits until the process has ended, for at most `patience`, and reaps it. A process that does not end in time stays.
pub(crate) fn wait_for_end(pidfd: &PidFd, patience: Duration) {
    pidfd.end_until(std::time::Instant::now() + patience);
}

/// Whether the kernel or a filter does not know or allow a call. The result then contains no fact about the process.
fn is_refused<T>(result: &io::Result<T>) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::PERM]
        .iter()
        .any(|&errno| is_errno(result, errno))
}

pub(crate) fn is_errno<T>(result: &io::Result<T>, errno: Errno) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests;
