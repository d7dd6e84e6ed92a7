//! Information in /proc about the calling process: its children, its pidfds, and how its threads handle a signal.
//!
//! All PIDs are those of /proc's own PID namespace, so they are useful only if this process is in the same namespace
//! ([`is_ours`]).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::process;

use super::stat::origin;
use crate::exit::Pid;
use crate::signal::Signal;

/// The end of the link in `/proc/self/fd` of a pidfd.
const PIDFD: &str = "[pidfd]";

/// Whether /proc is mounted, and belongs to the PID namespace of this process.
pub(crate) fn is_ours() -> bool {
    fs::read_link("/proc/self").is_ok_and(|name| name.as_os_str() == process::id().to_string().as_str())
}

/// All children of every thread, including zombies.
///
/// The list is not a snapshot (proc_pid_children(5)): if another thread reaps a child meanwhile, another child can be
/// missing from the list.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    match children_of_threads() {
        // A thread has ended, and its children were reparented; or the kernel has no such files.
        Err(error) if is_gone(&error) => children_by_parent(),
        listed => listed,
    }
}

/// Whether a descriptor is a pidfd.
///
/// # Errors
/// `/proc` is not mounted.
pub(crate) fn is_pidfd(fd: impl AsFd) -> io::Result<bool> {
    let kind = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))?;
    Ok(kind.to_string_lossy().ends_with(PIDFD))
}

/// The information about a descriptor (proc_pid_fdinfo(5)), which must be of this kind: the end of its link in
/// `/proc/self/fd`, for example `[timerfd]`.
///
/// # Errors
/// EBADF: the descriptor is of another kind. Otherwise `/proc` is not mounted.
pub(crate) fn info_of(fd: impl AsFd, kind: &str) -> io::Result<String> {
    let number = fd.as_fd().as_raw_fd();
    let link = fs::read_link(format!("/proc/self/fd/{number}"))?;
    if link.to_string_lossy().ends_with(kind) {
        fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
    } else {
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }
}

/// The process that a pidfd refers to, for a kernel that does not tell it (before Linux 6.13).
///
/// # Errors
/// EBADF: the descriptor is no pidfd. ESRCH: the process has been reaped. EREMOTE: it has no number in this PID
/// namespace, or `/proc` is of another one.
pub(crate) fn process_of_pidfd(fd: impl AsFd) -> io::Result<Pid> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let errno = match field(&info, "Pid:") {
        None => libc::EBADF,
        Some("-1") => libc::ESRCH,
        Some(number) => match pid_of(number) {
            Some(pid) if is_ours() => return Ok(pid),
            Some(_) | None => libc::EREMOTE,
        },
    };
    Err(io::Error::from_raw_os_error(errno))
}

fn children_of_threads() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(list.split_ascii_whitespace().filter_map(pid_of));
    }
    Ok(children)
}

/// The same for a kernel without CONFIG_PROC_CHILDREN. Reads the parent of every process.
fn children_by_parent() -> io::Result<Vec<Pid>> {
    let own = Pid::new(process::id());
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(pid_of);
        let is_child = |&pid: &Pid| origin(pid).is_some_and(|origin| origin.parent == own);
        children.extend(pid.filter(is_child));
    }
    Ok(children)
}

/// The processes that this process has a pidfd of and that have not been reaped. Descriptors for which `passed_over` is
/// true are skipped.
pub(crate) fn held_by_pidfd(passed_over: impl Fn(RawFd) -> bool) -> io::Result<Vec<Pid>> {
    let mut held = Vec::new();
    // For a process that was reaped, the kernel writes -1.
    each_descriptor(PIDFD, passed_over, |info| {
        held.extend(field(info, "Pid:").and_then(pid_of))
    })?;
    Ok(held)
}

/// Whether this process has a signalfd that reads `signal`.
pub(crate) fn has_signalfd_for(signal: Signal) -> io::Result<bool> {
    let mut found = false;
    each_descriptor(
        "[signalfd]",
        |_| false,
        |info| found |= has_bit(info, "sigmask:", signal),
    )?;
    Ok(found)
}

/// Whether every thread blocks `signal`.
pub(crate) fn is_blocked(signal: Signal) -> io::Result<bool> {
    for thread in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(thread?.path().join("status")) {
            Ok(status) if !has_bit(&status, "SigBlk:", signal) => return Ok(false),
            Err(error) if !is_gone(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(true)
}

/// Whether this process ignores `signal`.
pub(crate) fn is_ignored(signal: Signal) -> io::Result<bool> {
    Ok(has_bit(&fs::read_to_string("/proc/self/status")?, "SigIgn:", signal))
}

/// Calls `look` with the fdinfo of each descriptor of a kind. The end of its link in /proc/self/fd is the kind. The
/// link is read first, because reading the fdinfo of a large epoll takes longer than everything else.
fn each_descriptor(kind: &str, passed_over: impl Fn(RawFd) -> bool, mut look: impl FnMut(&str)) -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.parse().is_ok_and(&passed_over) {
            continue;
        }
        let link = match fs::read_link(entry.path()) {
            Err(error) if !is_gone(&error) => return Err(error),
            link => link.unwrap_or_default(),
        };
        if !link.to_string_lossy().ends_with(kind) {
            continue;
        }
        match fs::read_to_string(Path::new("/proc/self/fdinfo").join(name)) {
            Ok(info) => look(&info),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a read failed because the process, thread or descriptor no longer exists.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The rest of the line that begins with this name.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a signal is in a set that /proc shows in hexadecimal digits.
fn has_bit(text: &str, name: &str, signal: Signal) -> bool {
    let bits = field(text, name).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    bits.is_some_and(|bits| bits >> (signal.as_raw() - 1) & 1 == 1)
}

fn pid_of(digits: &str) -> Option<Pid> {
    Pid::new(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;
    use crate::signal::SignalSet;
    use crate::signalfd::{MaskGuard, SignalFd};

    #[test]
    fn children_are_found_in_either_way_dead_or_alive() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut zombie = Command::new("true").spawn().unwrap();
        let expected = [&sleeper, &zombie].map(|child| Pid::new(child.id()).unwrap());
        for list in [children, children_of_threads, children_by_parent] {
            // Threads and children of other tests may end while they are listed.
            let all_in = |found: Vec<Pid>| expected.iter().all(|pid| found.contains(pid));
            assert!((0..1000).any(|_| list().is_ok_and(all_in)));
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        zombie.wait().unwrap();
        let left = children().unwrap();
        assert!(expected.iter().all(|pid| !left.contains(pid)), "{left:?}");
    }

    #[test]
    fn a_held_process_is_known_until_it_is_reaped() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid::new(child.id()).unwrap();
        let held = || held_by_pidfd(|_| false).unwrap().contains(&pid);
        assert!(!held());
        let pidfd = pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(held());
        assert!(!held_by_pidfd(|fd| fd == pidfd.as_raw_fd()).unwrap().contains(&pid));
        child.wait().unwrap();
        assert!(!held());
    }

    #[test]
    fn signals_are_seen_where_they_are_read_and_ignored() {
        let rare = Signal::from_raw(60).unwrap();
        assert!(!has_signalfd_for(rare).unwrap());
        let signals = SignalFd::new(SignalSet::EMPTY.with(rare)).unwrap();
        assert!(has_signalfd_for(rare).unwrap());
        drop(signals);
        assert!(is_ignored(Signal::PIPE).unwrap(), "the Rust runtime ignores SIGPIPE");
        assert!(!is_ignored(rare).unwrap());
    }

    #[test]
    fn one_thread_that_blocks_a_signal_is_not_all_of_them() {
        let _guard = MaskGuard::block(SignalSet::EMPTY.with(Signal::WINCH)).unwrap();
        // The C library blocks all signals in a thread for the moment in which it starts another one.
        assert!((0..1000).any(|_| !is_blocked(Signal::WINCH).unwrap()));
    }

    #[test]
    fn the_fields_are_read_as_they_stand() {
        let status = "Name:\tx\nSigBlk:\t0000000000010000\nPid:\t7\nNSpid:\t8\n";
        assert!(has_bit(status, "SigBlk:", Signal::CHLD));
        assert!(!has_bit(status, "SigBlk:", Signal::CONT) && !has_bit(status, "SigIgn:", Signal::CHLD));
        assert_eq!(field(status, "Pid:").and_then(pid_of), Pid::new(7));
        assert_eq!(field("Pid:\t-1\n", "Pid:").and_then(pid_of), None);
    }

    #[test]
    fn proc_is_that_of_this_namespace() {
        assert!(is_ours());
    }
}
