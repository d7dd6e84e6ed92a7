//! Calls about processes that rustix has not, or not with these flags.

use std::ffi::{CStr, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use super::{arch, nr};
use crate::exit::Pid;

/// pidfd_send_signal(2); signal 0 only asks whether it could be sent.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: c_int, group: bool) -> io::Result<()> {
    let flags = if group { libc::PIDFD_SIGNAL_PROCESS_GROUP } else { 0 };
    let args = [pidfd.as_raw_fd() as usize, signal as usize, 0, flags as usize, 0, 0];
    // SAFETY: numbers only; a null siginfo means what kill(2) would send.
    check(unsafe { arch::syscall(libc::SYS_pidfd_send_signal, &args) }).map(drop)
}

/// Signals the process with this number (kill(2)). The caller knows that no other process has it.
pub(crate) fn signal_by_number(pid: Pid, signal: c_int) -> io::Result<()> {
    kill(pid.as_raw() as isize, signal)
}

/// Signals the process group of this number (kill(2)).
pub(crate) fn signal_group_by_number(group: Pid, signal: c_int) -> io::Result<()> {
    // 1 would mean every process; no child has that number.
    if group.as_raw() <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    kill((group.as_raw() as isize).wrapping_neg(), signal)
}

/// The number of the process group of a process (getpgid(2)); 0 for a group that lies outside our PID namespace.
pub(crate) fn process_group(pid: Pid) -> io::Result<u32> {
    let args = [pid.as_raw() as usize, 0, 0, 0, 0, 0];
    // SAFETY: numbers only.
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
    // SAFETY: numbers only.
    check(unsafe { arch::syscall(libc::SYS_kill, &args) }).map(drop)
}

/// The result of a raw call as Rust has it.
fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg() as c_int))
}

/// Whether close_range(2) is there, and no filter forbids it. Asked with a range that can hold no
/// descriptor, so nothing is closed.
pub(crate) fn has_close_range() -> bool {
    let none = u32::MAX as usize;
    // SAFETY: closes nothing: no descriptor has that number.
    unsafe { arch::syscall(nr::CLOSE_RANGE, &[none, none, 0, 0, 0, 0]) == 0 }
}

/// Whether a capability exists and is in this thread's bounding set.
pub(crate) fn is_in_bounding_set(capability: usize) -> bool {
    // SAFETY: numbers only.
    unsafe {
        arch::syscall(
            libc::SYS_prctl,
            &[libc::PR_CAPBSET_READ as usize, capability, 0, 0, 0, 0],
        ) == 1
    }
}

/// The effective user id of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: takes nothing, can't fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub(crate) fn effective_gid() -> u32 {
    // SAFETY: takes nothing, can't fail.
    unsafe { libc::getegid() }
}

/// How many spawns of other ids are under way in this process, and what its dumpable flag was before
/// the first of them.
static DUMPABLE: Mutex<(u32, usize)> = Mutex::new((0, 0));

/// Keeps the process's dumpable flag (prctl(2)) as it was.
///
/// A `set*id` in a child that shares our memory clears the flag of that memory, which is ours too. It
/// is saved before the clone and restored by the parent when the child has its own memory: the child
/// restoring it would open our memory to its new user. The flag belongs to the process and not to a
/// thread, and with two threads at it the second would save what the first one's child had cleared;
/// hence the one static of the crate. The lock is not held while a child is made.
#[derive(Debug)]
pub(crate) struct KeepDumpable(());

impl KeepDumpable {
    /// With `forbids`, the flag is also cleared for that time.
    pub(crate) fn new(forbids: bool) -> KeepDumpable {
        let mut state = DUMPABLE.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut state = DUMPABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, saved) = &mut *state;
        *count = count.saturating_sub(1);
        // While another child may be about to change its ids, it shares this memory: to restore the flag would open
        // the memory to the user that the child becomes.
        if *count == 0 && dumpable() != *saved {
            set_dumpable(*saved);
        }
    }
}

fn set_dumpable(flag: usize) {
    // SAFETY: numbers only. The kernel refuses 2 ("root only"), which then was and is there.
    unsafe { arch::syscall(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, flag, 0, 0, 0, 0]) };
}

/// Whether the core dump of a process ends all others that share its memory, which was so before Linux 5.16.
pub(crate) fn core_dump_ends_sharers() -> bool {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname(2) fills a local of the right type, and all zeros is a valid value of it.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    let release = names.release.map(|byte| byte as u8);
    let release = CStr::from_bytes_until_nul(&release)
        .ok()
        .and_then(|text| text.to_str().ok());
    release.and_then(version).is_some_and(|version| version < (5, 16))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn dumpable() -> usize {
    // SAFETY: numbers only; can't fail.
    let flag = unsafe { arch::syscall(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]) };
    usize::try_from(flag).unwrap_or(0)
}

/// The highest descriptor number that a close one by one has to reach: the highest that is open, as
/// /proc tells, with some room for what other threads open meanwhile; without /proc, the limit.
///
/// Not the limit alone: where it is a thousand million, as in some containers, that would take
/// minutes. Not the list alone: it is old by the time it is used.
pub(crate) fn highest_descriptor() -> u32 {
    const ROOM: u32 = 1024;
    let listed = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .max()
    });
    let limit = u32::try_from(
        rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(0),
    )
    .unwrap_or(u32::MAX);
    match listed {
        Some(highest) => highest.saturating_add(ROOM).max(limit.min(64 * 1024)),
        None => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_compared_by_its_version() {
        for (release, expected) in [
            ("5.10.46", Some((5, 10))),
            ("5.16.0-rc1", Some((5, 16))),
            ("6.1.0-18-amd64", Some((6, 1))),
            ("7.2", Some((7, 2))),
            ("5.9-rc2+", Some((5, 9))),
            ("", None),
            ("mine", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
