//! Calls about processes that rustix lacks, or lacks with these flags.

use std::ffi::{CStr, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{arch, nr};
use crate::exit::Pid;

/// pidfd_send_signal(2). Signal 0 only checks whether a signal could be sent.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: c_int, group: bool) -> io::Result<()> {
    let flags = if group { libc::PIDFD_SIGNAL_PROCESS_GROUP } else { 0 };
    let args = [pidfd.as_raw_fd() as usize, signal as usize, 0, flags as usize, 0, 0];
    // SAFETY: the arguments are numbers and a null siginfo, for which the kernel fills in the same data as for kill(2).
    check(unsafe { arch::syscall(libc::SYS_pidfd_send_signal, &args) }).map(drop)
}

/// Signals the process with this number (kill(2)). The caller guarantees that no other process has this number.
pub(crate) fn signal_by_number(pid: Pid, signal: c_int) -> io::Result<()> {
    kill(pid.as_raw() as isize, signal)
}

/// Signals the process group with this number (kill(2)).
pub(crate) fn signal_group_by_number(group: Pid, signal: c_int) -> io::Result<()> {
    // -1 would mean every process. No child has the number 1.
    if group.as_raw() <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    kill((group.as_raw() as isize).wrapping_neg(), signal)
}

/// The number of the process group of a process (getpgid(2)); 0 for a group outside of this PID namespace.
pub(crate) fn process_group(pid: Pid) -> io::Result<u32> {
    let args = [pid.as_raw() as usize, 0, 0, 0, 0, 0];
    // SAFETY: the arguments are numbers only.
    let group = check(unsafe { arch::syscall(libc::SYS_getpgid, &args) })?;
    Ok(u32::try_from(group).unwrap_or(0))
}

/// Whether a process has this number.
pub(crate) fn number_is_taken(number: Pid) -> bool {
    let asked = kill(number.as_raw() as isize, 0);
    !matches!(asked, Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}

fn kill(target: isize, signal: c_int) -> io::Result<()> {
    let args = [target as usize, signal as usize, 0, 0, 0, 0];
    // SAFETY: the arguments are numbers only.
    check(unsafe { arch::syscall(libc::SYS_kill, &args) }).map(drop)
}

/// Converts the result of a raw system call.
fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg() as c_int))
}

/// Whether close_range(2) exists and no filter refuses it. The check uses a range without possible descriptors, so it
/// closes nothing.
pub(crate) fn has_close_range() -> bool {
    let none = u32::MAX as usize;
    // SAFETY: the call closes nothing, because no descriptor has that number.
    unsafe { arch::syscall(nr::CLOSE_RANGE, &[none, none, 0, 0, 0, 0]) == 0 }
}

/// Whether a capability exists and is in this thread's bounding set.
pub(crate) fn is_in_bounding_set(capability: usize) -> bool {
    // SAFETY: the arguments are numbers only.
    unsafe {
        arch::syscall(
            libc::SYS_prctl,
            &[libc::PR_CAPBSET_READ as usize, capability, 0, 0, 0, 0],
        ) == 1
    }
}

/// The effective user id of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub(crate) fn effective_gid() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::getegid() }
}

/// The number of present [`KeepDumpable`] values in this process, and the dumpable flag before the first of them.
static DUMPABLE: Mutex<(u32, usize)> = Mutex::new((0, 0));

/// Preserves the dumpable flag of this process (prctl(2)).
///
/// The flag belongs to the memory, so a `set*id` in a child that shares this memory clears it for this process too. It
/// is saved before the clone, and the parent restores it when the child has its own memory. If the child restored it,
/// its new user could read the memory of this process. The state is static, because the flag belongs to the process and
/// not to a thread: a second thread would otherwise save the flag after the child of the first thread had cleared it.
/// The lock is not held while a child is made.
#[derive(Debug)]
pub(crate) struct KeepDumpable(());

impl KeepDumpable {
    /// With `forbids`, the flag is also cleared as long as this value exists.
    pub(crate) fn new(forbids: bool) -> KeepDumpable {
        let mut state = lock_dumpable();
        let (count, saved) = &mut *state;
        if *count == 0 {
            *saved = dumpable();
        }
        *count += 1;
        if forbids {
            set_dumpable(0);
        }
        KeepDumpable(())
    }
}

impl Drop for KeepDumpable {
    fn drop(&mut self) {
        let mut state = lock_dumpable();
        let (count, saved) = &mut *state;
        *count = count.saturating_sub(1);
        // Another child that shares this memory may still change its ids. If the flag were restored now, the new user
        // of that child could read the memory.
        if *count == 0 && dumpable() != *saved {
            set_dumpable(*saved);
        }
    }
}

fn set_dumpable(flag: usize) {
    // SAFETY: the arguments are numbers only. The kernel refuses to set 2 ("root only"); the flag is then not changed.
    unsafe { arch::syscall(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, flag, 0, 0, 0, 0]) };
}

/// Whether the core dump of a process ends all other processes that share its memory, as before Linux 5.16.
pub(crate) fn core_dump_ends_sharers() -> bool {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname(2) fills a local of the right type, for which all zeros are valid.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    let release = names.release.map(|byte| byte as u8);
    let release = CStr::from_bytes_until_nul(&release)
        .ok()
        .and_then(|text| text.to_str().ok());
    release.is_some_and(is_before_5_16)
}

fn is_before_5_16(release: &str) -> bool {
    version(release).is_some_and(|version| version < (5, 16))
}

/// The first two numbers of the release of a kernel.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Locks the state without a change of this thread's errno. If another thread has the lock, the standard library waits
/// by futex(2), which may write `EAGAIN` to errno.
fn lock_dumpable() -> MutexGuard<'static, (u32, usize)> {
    // SAFETY: the location of this thread's own errno is valid for as long as the thread runs.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let state = DUMPABLE.lock().unwrap_or_else(PoisonError::into_inner);
        *errno = before;
        state
    }
}

fn dumpable() -> usize {
    // SAFETY: the arguments are numbers only.
    let flag = unsafe { arch::syscall(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]) };
    usize::try_from(flag).unwrap_or(0)
}

/// The last number for a loop that closes descriptors one by one: the highest open descriptor in /proc, plus room for
/// descriptors that other threads open meanwhile, and at least the limit (RLIMIT_NOFILE) up to 65536. Without /proc it
/// is the limit.
///
/// The limit alone was rejected: it is a thousand million in some containers, and the loop would take minutes. The list
/// alone was rejected: it can be outdated when it is used.
pub(crate) fn highest_descriptor() -> u32 {
    const ROOM: u32 = 1024;
    const MANY: u32 = 65_536;
    let listed = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .max()
    });
    let limit = soft_limit(libc::RLIMIT_NOFILE as usize).map_or(MANY, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
    match listed {
        Some(highest) => highest.saturating_add(ROOM).max(limit.min(MANY)),
        None => limit,
    }
}

/// The soft limit of a resource (prlimit(2)), `u64::MAX` if there is none.
///
/// # Errors
/// A filter refuses the call. (rustix's getrlimit panics then.)
pub(crate) fn soft_limit(resource: usize) -> io::Result<u64> {
    // The soft and the hard limit.
    let mut limits = [0_u64; 2];
    let args = [0, resource, 0, limits.as_mut_ptr() as usize, 0, 0];
    // SAFETY: the kernel writes two limits to this address, and none if the call fails.
    check(unsafe { arch::syscall(libc::SYS_prlimit64, &args) })?;
    Ok(limits[0])
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;
    use crate::testing::common::fork::in_fork;
    use crate::testing::common::kernel_since;
    use crate::testing::common::refuse::refusing;

    #[test]
    fn a_kernel_is_compared_by_its_version() {
        for (release, expected, is_older) in [
            ("5.10.46", Some((5, 10)), true),
            ("5.15.0-100-generic", Some((5, 15)), true),
            ("5.16.0-rc1", Some((5, 16)), false),
            ("6.1.0-18-amd64", Some((6, 1)), false),
            ("7.2", Some((7, 2)), false),
            ("5.9-rc2+", Some((5, 9)), true),
            ("", None, false),
            ("mine", None, false),
        ] {
            assert_eq!(version(release), expected, "{release}");
            assert_eq!(is_before_5_16(release), is_older, "{release}");
        }
        assert_eq!(core_dump_ends_sharers(), !kernel_since(5, 16));
    }

    #[test]
    fn the_group_and_the_ids_are_those_of_the_process() {
        assert!(in_fork(|| {
            let own = Pid::new(std::process::id()).unwrap();
            rustix::process::setsid().unwrap();
            assert_eq!(process_group(own).unwrap(), own.as_raw());
            let beyond = Pid::new(1 << 30).unwrap();
            assert_eq!(process_group(beyond).unwrap_err().raw_os_error(), Some(libc::ESRCH));
            // SAFETY: the calls take numbers, and change the ids of this copy of the process.
            let (is_changed, ids) = unsafe {
                let is_changed = libc::setresgid(5, 6, 7) == 0 && libc::setresuid(8, 9, 10) == 0;
                (is_changed, [libc::geteuid(), libc::getegid()])
            };
            assert_eq!([effective_uid(), effective_gid()], ids);
            assert!(!is_changed || ids == [9, 6]);
        }));
    }

    #[test]
    fn close_range_is_there_unless_it_is_refused() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let number = rustix::io::fcntl_dupfd_cloexec(&null, 900).unwrap().into_raw_fd();
        // SAFETY: the number belongs to a descriptor that this test has given up.
        let closed = unsafe { libc::syscall(nr::CLOSE_RANGE, number, number, 0) } == 0;
        if !closed {
            // SAFETY: as above.
            unsafe { libc::close(number) };
        }
        assert_eq!(has_close_range(), closed);
        for errno in [libc::ENOSYS, libc::EPERM] {
            assert!(!refusing(nr::CLOSE_RANGE, errno, has_close_range), "{errno}");
        }
    }

    #[test]
    fn a_number_is_taken_while_a_process_has_it() {
        let own = Pid::new(std::process::id()).unwrap();
        // The kernel gives out no numbers above 4,194,304.
        let beyond = Pid::new(1 << 30).unwrap();
        assert_eq!([own, beyond].map(number_is_taken), [true, false]);
    }

    #[test]
    fn threads_that_wait_for_the_dumpable_flag_keep_their_errno() {
        const ERRNO: c_int = 4242;
        let contend = || {
            // SAFETY: this thread's own errno.
            let errno = unsafe { &mut *libc::__errno_location() };
            *errno = ERRNO;
            for _ in 0..50_000 {
                drop(KeepDumpable::new(false));
                assert_eq!(*errno, ERRNO);
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(contend))));
    }
}
