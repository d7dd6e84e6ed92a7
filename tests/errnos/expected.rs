//! The table of what is expected when a call fails: a class for each call, with the reason.
//!
//! Every run must also leave nothing behind and go on afterwards (`campaign.rs`). This table adds whether the failure
//! is reported.

use std::ffi::c_long;

use crate::manual;
use crate::shim::{Call, Fault};
use crate::stage::Told;

/// What is expected of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A typed error with the errno is returned, or an event reports it.
    Told,
    /// The library does without the call, and reports no error.
    Recovered,
    /// Either of the two, for a reason that the errno or the moment decides.
    Either,
}

use Class::{Either, Recovered, Told as Reported};

/// Whether faults are injected into a call. What is left out, and why:
pub fn counts(call: &Call) -> bool {
    const ONE_WORD: u64 = 8;
    const STACK: u64 = 32 * 1024;
    match call.nr {
        // They do not return.
        libc::SYS_exit | libc::SYS_exit_group | libc::SYS_rt_sigreturn | libc::SYS_restart_syscall => false,
        // The allocator's own memory: without it, Rust ends the process. The library's own mappings are the stack of a
        // child, a file, and one word (src/sys/fork.rs).
        libc::SYS_brk | libc::SYS_mremap => false,
        libc::SYS_mmap => {
            call.args[3] & libc::MAP_STACK as u64 != 0 || call.args[4] as i32 >= 0 || call.args[1] == ONE_WORD
        }
        libc::SYS_mprotect => call.args[1] == STACK,
        libc::SYS_madvise => call.args[2] == libc::MADV_WIPEONFORK as u64,
        // It fails for wrong addresses alone, and the memory would really stay.
        libc::SYS_munmap => false,
        // They are always successful. What the child reads back is a check, which can fail.
        libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid
        | libc::SYS_uname
        | libc::SYS_umask
        | libc::SYS_sched_yield
        | libc::SYS_sigaltstack => call.in_child,
        // They fail for wrong addresses and a wrong operation alone. The host's mask would really stay.
        libc::SYS_rt_sigprocmask | libc::SYS_rt_sigaction => call.in_child,
        libc::SYS_prctl => {
            let about_dumpable = [libc::PR_SET_DUMPABLE, libc::PR_GET_DUMPABLE];
            call.in_child || !about_dumpable.contains(&(call.args[0] as i32))
        }
        // They fail for a number that is not open alone. (The standard library calls it before each close, and ends the
        // process if it fails.)
        libc::SYS_fcntl => ![libc::F_GETFD, libc::F_SETFD].contains(&(call.args[1] as i32)),
        // The seed of the standard library's maps.
        libc::SYS_getrandom => false,
        // The child's descriptor would really stay open. A file of procfs has nothing to write back, and the standard
        // library panics if a directory cannot be closed.
        libc::SYS_close => !call.in_child && !call.subject().starts_with("/proc"),
        _ => true,
    }
}

/// Whether a fault cannot happen, or would never end.
pub fn is_left_out(nr: c_long, fault: Fault) -> bool {
    // The library, the standard library and the C library repeat an interrupted call. No signal interrupts each of them.
    let is_endless = !fault.is_once() && fault.errno() == libc::EINTR;
    // The library owns the descriptor. The standard library ends a process in which that is not so.
    let is_foreign = nr == libc::SYS_close && fault.errno() == libc::EBADF;
    is_endless || is_foreign
}

/// Whether the library waits for seconds after the fault: until it looks again, or until a stop ladder ends. A sample has
/// no such fault.
pub fn is_slow(fault: Fault) -> bool {
    const PHASES: &[&str] = &["the group stops", "the cgroup stops", "ended", "again", "clean up"];
    let at = fault.at();
    let calls = [libc::SYS_pidfd_send_signal, libc::SYS_waitid, libc::SYS_flock];
    calls.contains(&at.nr()) || !fault.is_once() && PHASES.contains(&at.phase())
}

/// The phases in which nothing can be reported: a drop returns no error, and no later call repeats it.
const DROPS: &[&str] = &["drop", "drop alive", "drop socket", "drop entry"];

/// A row of the table: these calls, under this condition, have this class for this reason.
struct Row {
    calls: &'static [c_long],
    when: fn(&Call) -> bool,
    class: Class,
    why: &'static str,
}

const fn row(calls: &'static [c_long], class: Class, why: &'static str) -> Row {
    row_if(|_| true, calls, class, why)
}

const fn row_if(when: fn(&Call) -> bool, calls: &'static [c_long], class: Class, why: &'static str) -> Row {
    Row {
        calls,
        when,
        class,
        why,
    }
}

/// The calls of the host. The first row that applies counts. A call without a row is a failure of the test.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(&[libc::SYS_close], Recovered, "the descriptor is closed whatever the errno (close(2))"),
    row(&[libc::SYS_madvise], Recovered, "copies of the process are found out by getpid(2)"),
    row(&[libc::SYS_close_range, libc::SYS_dup3], Recovered, "the slots of a spawn are an optimisation"),
    row(
        &[
            libc::SYS_epoll_create1, libc::SYS_timerfd_create, libc::SYS_signalfd4, libc::SYS_eventfd2,
            libc::SYS_pipe2, libc::SYS_capget, libc::SYS_chmod, libc::SYS_fchmod,
            libc::SYS_fallocate, libc::SYS_ftruncate, libc::SYS_execve,
        ],
        Reported,
        "nothing can stand in for it",
    ),
    row(&[libc::SYS_memfd_create], Either, "EINVAL: it is made again without a flag of Linux 6.3"),
    row_if(|call| call.subject() == "/dev/null", &[libc::SYS_openat], Reported, "a child's closed streams need it"),
    row_if(|call| call.phase == "recover", &[libc::SYS_bind], Either, "another address if it cannot be bound any more"),
    row(&[libc::SYS_bind], Reported, "nothing can stand in for it"),
    row(&[libc::SYS_mprotect], Either, "memory for later spawns is reserved; a spawn that lacks it reports that"),
    row(&[libc::SYS_mmap], Either, "the stack and the state file are needed, the word of src/sys/fork.rs is not"),
    row(&[libc::SYS_clone3, libc::SYS_clone], Either, "clone stands in for a clone3 that is unknown or filtered"),
    row(&[libc::SYS_getgroups, libc::SYS_uname, libc::SYS_sched_getaffinity], Either, "a default stands in for it"),
    row(&[libc::SYS_epoll_ctl], Either, "an entry that cannot be removed goes with its descriptor"),
    row(&[libc::SYS_epoll_wait, libc::SYS_epoll_pwait], Either, "the next turn asks again after an interruption"),
    row(&[libc::SYS_timerfd_settime], Either, "an error while events are fetched shows again at the next call"),
    row(
        &[libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_kcmp],
        Either,
        "an older kernel lacks the operation, or the descriptor is one that can be missing",
    ),
    row(
        &[libc::SYS_read, libc::SYS_pread64, libc::SYS_recvmsg],
        Either,
        "EAGAIN and EINTR mean that nothing is there; facts about a process can be unknown",
    ),
    row(&[libc::SYS_write, libc::SYS_pwrite64], Either, "a full eventfd is readable; a limit must be written"),
    row(&[libc::SYS_waitid], Either, "what cannot be known now is looked at again"),
    row(&[libc::SYS_pidfd_send_signal, libc::SYS_kill], Either, "ESRCH means that the process has ended"),
    row(&[libc::SYS_getpgid], Either, "the leader may have left its group, which is signalled anyway"),
    row(&[libc::SYS_pidfd_open], Either, "the process can have ended; an orphan waits for a free descriptor"),
    row(&[libc::SYS_poll, libc::SYS_ppoll], Either, "the state is read anyway"),
    row(&[libc::SYS_flock], Either, "it is tried again for a second"),
    row(&[libc::SYS_unlink], Either, "a stale socket is removed before the bind, which then reports"),
    row_if(
        |call| call.subject().starts_with("/proc"),
        &[libc::SYS_openat, libc::SYS_open, libc::SYS_statx, libc::SYS_fstat, libc::SYS_readlink, libc::SYS_lseek],
        Either,
        "a fact about a process that cannot be read is unknown",
    ),
    row(
        &[
            libc::SYS_openat, libc::SYS_open, libc::SYS_statx, libc::SYS_newfstatat, libc::SYS_fstat,
            libc::SYS_fstatfs, libc::SYS_statfs, libc::SYS_lseek, libc::SYS_getdents64, libc::SYS_readlink,
            libc::SYS_readlinkat, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_access, libc::SYS_faccessat,
        ],
        Either,
        "the kernel lacks the file, it is gone, or the look is repeated",
    ),
    row(
        &[libc::SYS_socket, libc::SYS_connect, libc::SYS_sendto, libc::SYS_setsockopt, libc::SYS_getsockopt],
        Either,
        "an option that the kernel lacks; sockets of the C library for the names of users",
    ),
    row(&[libc::SYS_prctl, libc::SYS_prlimit64, libc::SYS_getsockname], Either, "it is a check"),
];

/// The class of a call, and the reason.
pub fn class(call: &Call) -> (Class, &'static str) {
    if DROPS.contains(&call.phase) {
        return (Recovered, "a drop reports nothing");
    }
    if call.in_child {
        return (Either, "calls.rs has the outcome and the step for each call of a child");
    }
    let row = TABLE
        .iter()
        .find(|row| row.calls.contains(&call.nr) && (row.when)(call));
    row.map_or((Reported, "it has no row"), |row| (row.class, row.why))
}

/// The texts that name the reason in other words than those of the errno.
const IN_OTHER_WORDS: &[&str] = &[
    // Of cgroups: ENOENT, ENOTDIR, EEXIST, EAGAIN, EOPNOTSUPP (cgroups(7)).
    "there is no cgroup",
    "it is not a directory",
    "it exists already",
    "cgroup.max.descendants or cgroup.max.depth does not allow it",
    "unsupported",
    "is no directory of cgroup v2",
    "is not in cgroup v2",
    // Of the state file: ELOOP for a link, EAGAIN for a lock.
    "is not a regular file that only this user can write",
    "is in use",
    "another process uses",
    // Processes that cannot be proved to be those of the state: they are returned.
    "unproven",
    // Of a hand-over: a descriptor that cannot be looked at.
    "descriptor",
    "does not name a handed-over state",
    "state of a supervisor",
    // The C library reports a file that it cannot read as an unknown name.
    "there is no user",
    "there is no group",
    // What is read back in the child differs.
    "Operation not permitted",
    "No such process",
    // Of events.
    "is unkillable",
    "NotReady",
    "Lost",
    "another signalfd of this process reads SIGCHLD",
    "/proc is not mounted",
];

/// What is expected of a run.
pub struct Expected {
    class: Class,
    why: &'static str,
    /// Whether the errno says what is not true here: that there is nothing to do.
    pub is_lie: bool,
    /// Whether a process, a zombie or a cgroup may stay.
    pub may_leave: bool,
}

pub fn expected(call: &Call, fault: Fault) -> Expected {
    let errno = fault.errno();
    let (class, why) = class(call);
    // The errno says that there is nothing to do, which is a lie here.
    let is_lie = match call.nr {
        // EINVAL comes from a kernel that does not know pidfds here (before Linux 5.4).
        libc::SYS_waitid => [libc::ECHILD, libc::ESRCH, libc::EAGAIN, libc::EINVAL].contains(&errno),
        libc::SYS_pidfd_send_signal | libc::SYS_pidfd_open | libc::SYS_kill => errno == libc::ESRCH,
        libc::SYS_unlinkat | libc::SYS_newfstatat | libc::SYS_openat | libc::SYS_open => errno == libc::ENOENT,
        // ENODEV comes from a file of a cgroup that was removed.
        libc::SYS_read | libc::SYS_write => errno == libc::ENODEV,
        libc::SYS_mkdirat => errno == libc::EEXIST,
        libc::SYS_bind => errno == libc::EADDRINUSE,
        _ => false,
    };
    // A drop does not repeat a signal that is refused: the process may be another user's.
    let is_refusal = call.nr == libc::SYS_pidfd_send_signal;
    let is_drop = DROPS.contains(&call.phase) && (is_refusal || !fault.is_once());
    // The error says that the cgroup is still there.
    let is_probe = call.subject().contains("probe");
    Expected {
        class,
        why,
        is_lie,
        may_leave: is_lie || is_drop || is_probe,
    }
}

impl Expected {
    /// The problem, if the run did not go as expected.
    pub fn judge(&self, call: &Call, fault: Fault, told: &[Told]) -> Option<String> {
        let repeated = fault.errno() == libc::EINTR || fault.errno() == libc::EAGAIN;
        let what = match (self.class, told) {
            (Recovered | Either, []) => return None,
            (Reported, []) if repeated => return None,
            (Reported, []) => "no error was reported".to_owned(),
            (Recovered, [told, ..]) => format!("an error was reported: {}", told.text),
            (Reported | Either, _) if told.iter().any(|told| names(told, fault)) => return None,
            // The status of a process that is said to be gone is unknown.
            (Reported | Either, _) if self.is_lie => return None,
            (Reported | Either, [told, ..]) => format!("the error is another one: {}", told.text),
        };
        let class = self.class;
        Some(format!("{what}; expected {class:?}, because {}: {call:?}", self.why))
    }
}

fn names(told: &Told, fault: Fault) -> bool {
    told.errno == Some(fault.errno())
        || told.text.contains(&manual::text(fault.errno()))
        || IN_OTHER_WORDS.iter().any(|words| told.text.contains(words))
}
