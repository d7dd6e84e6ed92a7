//! waitid(2) as a raw system call. Only the raw call returns the resource usage: the C library's function has no such
//! argument, and rustix returns neither the usage nor the pid.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::arch;
use super::mapping::ExitCell;
use crate::exit::{Exit, Pid, Usage};
use crate::signal::Signal;

/// Whether a wait reaps, and whether it blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Finds out whether the process has ended, and leaves it a zombie.
    Peek,
    /// Reaps the process if it has ended.
    Reap,
    /// Blocks until the process has ended, and reaps it.
    Block,
}

/// `None` if the process is alive. ECHILD: it is not a child, or it was already reaped.
pub(crate) fn wait(pidfd: BorrowedFd<'_>, how: Wait) -> io::Result<Option<(Exit, Usage)>> {
    wait_into(pidfd, how, None)
}

/// The same. The kernel stores the status in the cell as well, if there is one.
pub(crate) fn wait_into(
    pidfd: BorrowedFd<'_>,
    how: Wait,
    cell: Option<&ExitCell>,
) -> io::Result<Option<(Exit, Usage)>> {
    let options = libc::WEXITED
        | match how {
            Wait::Peek => libc::WNOHANG | libc::WNOWAIT,
            Wait::Reap => libc::WNOHANG,
            Wait::Block => 0,
        };
    let ended = waitid(libc::P_PIDFD, pidfd.as_raw_fd() as usize, options, cell)?;
    Ok(ended.map(|ended| (ended.exit, ended.usage)))
}

/// A child that is a zombie; `None` if there is none. The child is not reaped, so the next call returns the same one.
pub(crate) fn ended_child() -> io::Result<Option<Pid>> {
    match waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT, None) {
        Ok(ended) => Ok(ended.and_then(|ended| Pid::new(ended.pid))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The result of waitid for a child that has ended.
struct Ended {
    pid: u32,
    exit: Exit,
    usage: Usage,
}

fn waitid(kind: libc::idtype_t, id: usize, options: c_int, cell: Option<&ExitCell>) -> io::Result<Option<Ended>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let to = cell.map_or(info.as_mut_ptr(), ExitCell::address);
    let args = [
        kind as usize,
        id,
        to as usize,
        options as usize,
        usage.as_mut_ptr() as usize,
        0,
    ];
    loop {
        // SAFETY: the pointers refer to locals of the types that waitid(2) writes, or to the cell of that size.
        let result = unsafe { arch::syscall(libc::SYS_waitid, &args) };
        match result.wrapping_neg() as c_int {
            libc::EINTR => {}
            errno @ 1.. => return Err(io::Error::from_raw_os_error(errno)),
            _ => break,
        }
    }
    if let Some(cell) = cell {
        // SAFETY: the cell has the size of the local. What it contains was zeroed, or written by the kernel.
        unsafe { std::ptr::copy_nonoverlapping(cell.address(), info.as_mut_ptr(), 1) };
    }
    // SAFETY: both were zeroed and then filled by the kernel, and every bit pattern is valid. The accessors read fields
    // that waitid sets, or that are still zero.
    let (info, usage, pid, status) = unsafe {
        let info = info.assume_init();
        (info, usage.assume_init(), info.si_pid(), info.si_status())
    };
    let ended = u32::try_from(pid).ok().filter(|&pid| pid != 0);
    Ok(ended.map(|pid| Ended {
        pid,
        exit: exit_of(info.si_code, status),
        usage: usage_of(&usage),
    }))
}

/// The process and the status in a cell; `None` if the kernel has stored none there.
pub(crate) fn exit_of_cell(cell: &ExitCell) -> Option<(Pid, Exit)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the cell has the size of the local, and every bit pattern is valid for the fields that are read.
    let (code, pid, status) = unsafe {
        std::ptr::copy_nonoverlapping(cell.address(), info.as_mut_ptr(), 1);
        let info = info.assume_init();
        (info.si_code, info.si_pid(), info.si_status())
    };
    let pid = Pid::new(u32::try_from(pid).ok()?)?;
    Some((pid, exit_of(code, status)))
}

fn exit_of(code: c_int, status: c_int) -> Exit {
    match code {
        libc::CLD_EXITED => Exit::Code(status as u8),
        libc::CLD_KILLED => killed_by(status, false),
        libc::CLD_DUMPED => killed_by(status, true),
        _ => Exit::Unknown,
    }
}

fn killed_by(signal: c_int, core: bool) -> Exit {
    Signal::from_raw(signal).map_or(Exit::Unknown, |signal| Exit::Signal { signal, core })
}

fn usage_of(raw: &libc::rusage) -> Usage {
    // The kernel reports the resident set in KiB.
    Usage {
        user: duration_of(raw.ru_utime),
        system: duration_of(raw.ru_stime),
        max_rss: u64::try_from(raw.ru_maxrss).unwrap_or(0).saturating_mul(1024),
        major_faults: u64::try_from(raw.ru_majflt).unwrap_or(0),
        minor_faults: u64::try_from(raw.ru_minflt).unwrap_or(0),
    }
}

fn duration_of(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The information that the kernel keeps about a process that this process cannot wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// The exit status of the process.
    Exit(Exit),
    /// None yet: the process has not been reaped. The kernel keeps its status once it is reaped.
    NotYet,
    /// None, now and later: the kernel is too old.
    Nothing,
}

/// The exit status of a process that was reaped by other means than its pidfd. The kernel keeps it as long as a pidfd
/// of the process is open (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). Linux 6.13 and 6.14 have the request
/// without the status: before the process is reaped the result is [`Remembered::NotYet`], and afterwards the request
/// fails with `ESRCH`.
pub(crate) fn remembered_exit(pidfd: BorrowedFd<'_>) -> Remembered {
    let Ok(info) = pidfd_info(pidfd, u64::from(libc::PIDFD_INFO_EXIT)) else {
        return Remembered::Nothing;
    };
    if info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return Remembered::NotYet;
    }
    let status = info.exit_code;
    Remembered::Exit(if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status) as u8)
    } else {
        killed_by(libc::WTERMSIG(status), libc::WCOREDUMP(status))
    })
}

/// The number of the process of a pidfd in this PID namespace (PIDFD_GET_INFO, Linux 6.13).
///
/// # Errors
/// ESRCH: the process was reaped, or has no number here. ENOTTY or EINVAL before Linux 6.13.
pub(crate) fn number_of(pidfd: BorrowedFd<'_>) -> io::Result<u32> {
    // The kernel sets this field without a request too.
    Ok(pidfd_info(pidfd, u64::from(libc::PIDFD_INFO_PID))?.pid)
}

fn pidfd_info(pidfd: BorrowedFd<'_>, mask: u64) -> io::Result<libc::pidfd_info> {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    // SAFETY: plain integers, for which zero is valid.
    let mut info = unsafe {
        (*info.as_mut_ptr()).mask = mask;
        info.assume_init()
    };
    let args = [
        pidfd.as_raw_fd() as usize,
        libc::PIDFD_GET_INFO as usize,
        (&raw mut info) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the request carries the structure's size, and the structure is a local.
    let result = unsafe { arch::syscall(libc::SYS_ioctl, &args) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(result.wrapping_neg() as c_int));
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;
    use crate::pidfd::PidFd;
    use crate::testing::common::kernel_since;
    use crate::testing::common::refuse::{refusing, refusing_once};

    #[test]
    fn each_kind_of_end_is_told_apart() {
        let killed = |core| Exit::Signal {
            signal: Signal::ABRT,
            core,
        };
        for (code, status, expected) in [
            (libc::CLD_EXITED, 3, Exit::Code(3)),
            (libc::CLD_KILLED, libc::SIGABRT, killed(false)),
            (libc::CLD_DUMPED, libc::SIGABRT, killed(true)),
            (libc::CLD_STOPPED, libc::SIGSTOP, Exit::Unknown),
            (0, 0, Exit::Unknown),
        ] {
            assert_eq!(exit_of(code, status), expected, "{code}");
        }
    }

    #[test]
    fn a_process_that_was_not_reaped_has_no_remembered_end() {
        let own = PidFd::open(std::process::id()).unwrap();
        let expected = if kernel_since(6, 13) {
            Remembered::NotYet
        } else {
            Remembered::Nothing
        };
        assert_eq!(remembered_exit(own.as_fd()), expected);
    }

    #[test]
    fn a_refused_look_for_children_is_an_error_and_no_children_are_none() {
        let look = |errno| refusing(libc::SYS_waitid, errno, ended_child).map_err(|error| error.raw_os_error());
        assert_eq!(look(libc::ECHILD), Ok(None));
        assert_eq!(look(libc::EPERM), Err(Some(libc::EPERM)));
    }

    #[test]
    fn an_interrupted_wait_is_repeated() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        let ended = refusing_once(libc::SYS_waitid, libc::EINTR, || wait(pidfd.as_fd(), Wait::Block));
        assert_eq!(ended.unwrap().map(|(exit, _)| exit), Some(Exit::Code(3)));
        // It was reaped.
        assert!(child.try_wait().is_err());
    }
}
