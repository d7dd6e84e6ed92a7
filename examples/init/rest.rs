//! The processes that remain when the command has ended: descendants of it, which init has adopted. They get SIGTERM,
//! time, and SIGKILL; this module finds them and signals them.
//!
//! PID 1 sends signals to all of its namespace. A subreaper finds its descendants in /proc: by the lists of children,
//! so that the work does not grow with the machine's other processes, or by the parents of all processes where the
//! kernel has no such lists. Neither is exact while processes are born and end, so a descendant can be missed: SIGKILL
//! is sent until none is left.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use pidherd::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::sys;

/// Whether there is a descendant. If there is, there is a child.
pub fn is_there() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !waitid(WaitId::All, look).is_err_and(|errno| errno == Errno::CHILD)
}

/// Sends signals to all descendants. Errors are of processes that have ended meanwhile, or of another user.
pub fn signal(signals: &[Signal]) {
    if sys::own_pid() == 1 {
        for &signal in signals {
            let _sent = sys::send(-1, signal);
        }
        return;
    }
    for (pid, born) in descendants() {
        // The number may have been given to another process, but not after the pidfd is open.
        let pidfd = Pid::from_raw(pid).and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok());
        if let Some(pidfd) = pidfd.filter(|_| stat(pid).is_some_and(|(_, again)| again == born)) {
            for &signal in signals {
                let _sent = sys::send_by_pidfd(pidfd.as_fd(), signal);
            }
        }
    }
}

/// The descendants of init, and when each was born.
fn descendants() -> Vec<(i32, u64)> {
    let has_lists = Path::new("/proc/thread-self/children").exists();
    let mut all = if has_lists { HashMap::new() } else { all_by_parent() };
    let mut found = Vec::new();
    let mut parents = vec![sys::own_pid()];
    while let Some(parent) = parents.pop() {
        let children = if has_lists {
            children(parent)
        } else {
            all.remove(&parent).unwrap_or_default()
        };
        found.extend(children.iter().filter_map(|&child| Some((child, stat(child)?.1))));
        parents.extend(children);
    }
    found
}

/// The children of a process, by the lists that its threads have (Linux 3.5, CONFIG_PROC_CHILDREN).
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let numbers = |list: String| {
        list.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect::<Vec<_>>()
    };
    lists.flat_map(numbers).collect()
}

/// All processes by their parents.
fn all_by_parent() -> HashMap<i32, Vec<i32>> {
    let mut all: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, (parent, _))) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            all.entry(parent).or_default().push(pid);
        }
    }
    all
}

/// The parent and the start time of a process: fields 4 and 22 of proc_pid_stat(5). The name before them may have
/// spaces and parentheses in it.
fn stat(pid: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let born = fields.nth(17)?.parse().ok()?;
    Some((parent, born))
}
