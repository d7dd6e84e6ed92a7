//! System calls that neither the library nor rustix has, each in a safe function.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pidherd::{Signal, SignalSet};

/// Whether SIGPIPE was ignored when init was started. The standard library ignores it before `main`, so this is read
/// before that.
static IGNORED_PIPE: AtomicBool = AtomicBool::new(false);
/// The parent at that time.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// The C library calls the functions of this section before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = remember;

extern "C" fn remember() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set; the pointer is to a local of the type that sigaction(2) writes, zeroed in case it fails.
    let action = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    IGNORED_PIPE.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    PARENT.store(parent(), Ordering::Relaxed);
}

/// The signals that were ignored when init was started. The two that the C library keeps to itself are left
/// out: sigaction(3) refuses them, so that no program can have asked for that.
pub fn ignored_at_start() -> io::Result<SignalSet> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let of_the_c_library = 1 << (32 - 1) | 1 << (33 - 1);
    let ignored = SignalSet::from_bits(bits.ok_or(io::ErrorKind::InvalidData)? & !of_the_c_library);
    let has_pipe = IGNORED_PIPE.load(Ordering::Relaxed);
    Ok(if has_pipe {
        ignored
    } else {
        ignored.without(Signal::PIPE)
    })
}

/// Gives a signal its default action.
pub fn reset_disposition(signal: Signal) -> io::Result<()> {
    // SAFETY: no handler is installed.
    let before = unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
    if before == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Asks for a signal when the parent ends (PR_SET_PDEATHSIG(2const)). If it has ended already, the signal comes at
/// once.
pub fn signal_at_parents_end(signal: Signal) -> io::Result<()> {
    // SAFETY: it takes a number.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.as_raw() as libc::c_ulong) })?;
    if parent() == PARENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    send(own_pid(), signal)
}

/// Sends a signal as kill(2) does: to a process, to the group -n, to the own group for 0, to all for -1.
pub fn send(to: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: it takes numbers.
    checked(unsafe { libc::kill(to, signal.as_raw()) }).map(drop)
}

/// Sends a signal to the process that a pidfd stands for.
pub fn send_by_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (pidfd, signal) = (pidfd.as_raw_fd(), signal.as_raw());
    // SAFETY: numbers, and no siginfo.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd,
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked(sent as i32).map(drop)
}

/// Whether a process group has a member.
pub fn group_exists(group: i32) -> bool {
    // SAFETY: it takes numbers; 0 is no signal.
    let probed = checked(unsafe { libc::kill(-group, 0) });
    !probed.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

pub fn own_pid() -> i32 {
    // SAFETY: it takes nothing.
    unsafe { libc::getpid() }
}

/// The process group of init; 0 if it is of an outer PID namespace, in which case rustix's may not be called.
pub fn own_group() -> i32 {
    // SAFETY: it takes nothing.
    unsafe { libc::getpgrp() }
}

fn parent() -> i32 {
    // SAFETY: it takes nothing.
    unsafe { libc::getppid() }
}

/// The foreground process group of a terminal, 0 if it is of an outer PID namespace; `None` if this is not the
/// controlling terminal of init.
pub fn foreground(terminal: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: the descriptor is open.
    checked(unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }).ok()
}

/// Makes a process group the foreground one of a terminal. SIGTTOU must be blocked.
pub fn set_foreground(terminal: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    checked(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group) }).map(drop)
}

/// The descriptors that init was started with, the standard streams left out. All that a Rust program opens itself is
/// close-on-exec, so the others are inherited.
pub fn inherited_descriptors() -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number: Option<i32> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|&number| number > 2));
    }
    // SAFETY: it takes numbers.
    numbers.retain(|&number| unsafe { libc::fcntl(number, libc::F_GETFD) } & libc::FD_CLOEXEC == 0);
    Ok(numbers)
}

/// Closes descriptors that init was started with.
pub fn close(inherited: Vec<i32>) {
    for number in inherited {
        // SAFETY: the number was inherited, so no value of this program owns it.
        unsafe { libc::close(number) };
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
