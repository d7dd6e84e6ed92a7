//! The system calls of a spawn, the errnos that their manual pages document, and the expected outcome of each
//! failure.

use std::ffi::{c_int, c_long};

use pidherd::SpawnStep;

use crate::expected;
use crate::shim::{Call, Fault};

const CLOSE_RANGE: c_long = 436;

/// Whether a call belongs to the spawn: every call of the child, and the parent's calls that create pipes,
/// slots, the stack and the child.
pub fn counts(call: &Call) -> bool {
    const STACK: u64 = 32 * 1024;
    let own = match call.nr {
        libc::SYS_openat | libc::SYS_pipe2 | libc::SYS_dup3 | libc::SYS_clone3 | libc::SYS_clone => true,
        libc::SYS_setns => true,
        CLOSE_RANGE | libc::SYS_capget => true,
        libc::SYS_epoll_create1 | libc::SYS_epoll_ctl | libc::SYS_timerfd_create => true,
        libc::SYS_fcntl => call.args[1] == libc::F_DUPFD_CLOEXEC as u64,
        libc::SYS_mmap => call.args[3] & libc::MAP_STACK as u64 != 0,
        libc::SYS_mprotect => call.args[1] == STACK,
        _ => false,
    };
    (own || call.in_child) && expected::counts(call)
}

/// The expected outcome of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The child starts, because the failure is worked around or does not matter.
    Started,
    /// The spawn fails with one of these steps and this errno. (One call may serve different steps: a
    /// descriptor is placed for its own sake, for a file to be opened, or for a file to be written to.)
    Fails([SpawnStep; 4], c_int),
    /// The child starts, or the spawn fails with one of these steps and this errno. It depends on the numbers of the
    /// descriptors.
    Depends([SpawnStep; 4], c_int),
}

/// The steps that place a descriptor of the child.
const PLACING: [SpawnStep; 4] = [
    SpawnStep::Descriptor,
    SpawnStep::Open,
    SpawnStep::OomScore,
    SpawnStep::Namespace,
];

/// The expected outcome if `call` fails with `fault`, in a spawn that waits or in one that is in flight.
pub fn outcome(call: &Call, fault: Fault, in_flight: bool) -> Outcome {
    let errno = fault.errno();
    let once = matches!(fault, Fault::Once { .. });
    let fails = |step| Outcome::Fails([step; 4], errno);
    let with = |step, errno| Outcome::Fails([step; 4], errno);
    if !call.in_child {
        return in_parent(call, fault);
    }
    match call.nr {
        // A spawn in flight cannot be retried, because its caller does not wait. The next spawn uses the other way.
        CLOSE_RANGE if matches!(errno, libc::ENOSYS | libc::EPERM | libc::EINVAL) && !in_flight => Outcome::Started,
        CLOSE_RANGE if call.args[2] != 0 => fails(SpawnStep::Unshare),
        CLOSE_RANGE => fails(SpawnStep::CloseDescriptors),
        libc::SYS_execve if errno == libc::ETXTBSY && once => Outcome::Started,
        libc::SYS_execve => fails(SpawnStep::Exec),
        // This call tries to become the old user again. It must fail.
        libc::SYS_setresuid if call.args[0] as u32 == u32::MAX => Outcome::Started,
        libc::SYS_setresuid => fails(SpawnStep::Uid),
        libc::SYS_getuid | libc::SYS_geteuid => with(SpawnStep::Uid, libc::EPERM),
        libc::SYS_setresgid => fails(SpawnStep::Gid),
        libc::SYS_getgid | libc::SYS_getegid => with(SpawnStep::Gid, libc::EPERM),
        libc::SYS_setgroups => fails(SpawnStep::Groups),
        libc::SYS_getgroups => with(SpawnStep::Groups, libc::EPERM),
        libc::SYS_getppid => with(SpawnStep::ParentDeathSignal, libc::ESRCH),
        libc::SYS_openat if call.subject() == "/proc/self/oom_score_adj" => fails(SpawnStep::OomScore),
        libc::SYS_openat => fails(SpawnStep::Open),
        libc::SYS_write => fails(SpawnStep::OomScore),
        libc::SYS_dup3 => Outcome::Fails(PLACING, errno),
        libc::SYS_fcntl if call.args[1] == libc::F_SETFL as u64 => fails(SpawnStep::Open),
        libc::SYS_fcntl => Outcome::Fails(PLACING, errno),
        libc::SYS_ioctl if call.args[1] == libc::TIOCSCTTY => fails(SpawnStep::ControllingTerminal),
        libc::SYS_ioctl | libc::SYS_getpgid => fails(SpawnStep::Foreground),
        libc::SYS_prctl => fails(step_of_prctl(call.args[0] as c_int)),
        libc::SYS_capset => fails(SpawnStep::Capabilities),
        libc::SYS_setsid => fails(SpawnStep::Session),
        libc::SYS_setpgid => fails(SpawnStep::ProcessGroup),
        libc::SYS_setpriority => fails(SpawnStep::Nice),
        libc::SYS_sched_setscheduler => fails(SpawnStep::Scheduling),
        libc::SYS_ioprio_set => fails(SpawnStep::IoPriority),
        libc::SYS_sched_setaffinity => fails(SpawnStep::Affinity),
        libc::SYS_prlimit64 => fails(SpawnStep::Limit),
        libc::SYS_unshare | libc::SYS_setns => fails(SpawnStep::Namespace),
        libc::SYS_mount => fails(SpawnStep::Mount),
        libc::SYS_umask => fails(SpawnStep::Umask),
        libc::SYS_chroot => fails(SpawnStep::Chroot),
        libc::SYS_rt_sigaction => fails(SpawnStep::SignalDisposition),
        libc::SYS_rt_sigprocmask | libc::SYS_getpid => fails(SpawnStep::SignalMask),
        libc::SYS_chdir => {
            let (directory, root) = (SpawnStep::CurrentDir, SpawnStep::Chroot);
            Outcome::Fails([directory, directory, directory, root], errno)
        }
        other => panic!("unexpected system call {other} in the child"),
    }
}

fn in_parent(call: &Call, fault: Fault) -> Outcome {
    let errno = fault.errno();
    let once = matches!(fault, Fault::Once { .. });
    let fails = |step| Outcome::Fails([step; 4], errno);
    match call.nr {
        libc::SYS_mmap | libc::SYS_mprotect => fails(SpawnStep::Prepare),
        libc::SYS_openat if call.subject() == "/proc/self/fd" || (errno == libc::EINTR && once) => Outcome::Started,
        libc::SYS_openat if call.subject() == "/proc/thread-self/ns/pid_for_children" => fails(SpawnStep::Namespace),
        libc::SYS_openat => fails(SpawnStep::Prepare),
        // The third call restores the namespace of later children, and is repeated.
        libc::SYS_setns if once && fault.at().nth() == 2 => Outcome::Started,
        libc::SYS_setns => fails(SpawnStep::Namespace),
        libc::SYS_pipe2 => fails(SpawnStep::Pipe),
        // The spawn works without slots. It needs no slot that it cannot create, fill or restore.
        libc::SYS_fcntl if matches!(call.args[2], 32 | 64) && once => Outcome::Started,
        libc::SYS_fcntl if matches!(call.args[2], 32 | 64) => Outcome::Depends(PLACING, errno),
        libc::SYS_fcntl => Outcome::Fails(PLACING, errno),
        libc::SYS_dup3 | CLOSE_RANGE => Outcome::Started,
        libc::SYS_clone3 if matches!(errno, libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG) => {
            Outcome::Started
        }
        libc::SYS_clone3 | libc::SYS_clone => {
            let (clone, namespace) = (SpawnStep::Clone, SpawnStep::Namespace);
            Outcome::Fails([clone, clone, clone, namespace], errno)
        }
        libc::SYS_capget => fails(SpawnStep::Capabilities),
        // A launcher needs its timer in the epoll. The timer triggers checks of a child that the epoll cannot watch.
        libc::SYS_epoll_ctl => Outcome::Depends([SpawnStep::Prepare; 4], errno),
        libc::SYS_epoll_create1 | libc::SYS_timerfd_create => fails(SpawnStep::Prepare),
        other => panic!("unexpected system call {other} in the parent"),
    }
}

fn step_of_prctl(operation: c_int) -> SpawnStep {
    match operation {
        libc::PR_SET_NO_NEW_PRIVS => SpawnStep::NoNewPrivileges,
        libc::PR_SET_PDEATHSIG => SpawnStep::ParentDeathSignal,
        libc::PR_CAPBSET_DROP | libc::PR_SET_KEEPCAPS | libc::PR_CAP_AMBIENT => SpawnStep::Capabilities,
        other => panic!("unexpected prctl {other} in the child"),
    }
}

/// Whether the error is transient, so that a later spawn may succeed.
pub fn is_transient(errno: c_int) -> bool {
    [
        libc::EAGAIN,
        libc::ENOMEM,
        libc::EMFILE,
        libc::ENFILE,
        libc::ETXTBSY,
        libc::EINTR,
        libc::ENOSPC,
    ]
    .contains(&errno)
}
