//! Information that only /proc has: whether a process group has a member that is not a zombie, whether a process has
//! executed a program or is ending, and its ancestors.
//!
//! A signal to a group also succeeds if the group has only zombies, so a signal does not show whether a member is
//! alive.
//!
//! /proc/PID/stat describes the first thread of a process, the leader. After the leader has ended, the state is `Z` and
//! the flags contain `PF_EXITING`, while other threads can still run. So these mean the end of the process only if it
//! has no other thread.
//!
//! All functions here take PIDs, so they describe the process that has the PID at the moment of the call. /proc must
//! belong to the PID namespace of this process, and must not be mounted with a `hidepid` that hides the processes
//! (proc(5)).

pub(crate) mod self_;
mod stat;

use std::ffi::{CStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::iter;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, retry_on_intr};

use crate::exit::Pid;
use crate::sys::process::process_group;
use stat::{Origin, STAT_ROOM, fields, number, origin};

/// The largest number of generations in [`lineage`], including the process itself.
const GENERATIONS: usize = 64;

/// A process of this group that is alive; `None` if there is none. The one that was found last is asked first (`last`).
/// Otherwise this lists all of /proc, so it is used only where no cheaper check exists.
///
/// The group of each process comes from getpgid(2). Only what belongs to this one is read: the stat of a process that
/// executes a program can be read only after that, and with thousands of processes one of them always does.
///
/// # Errors
/// /proc is not mounted or may not be read, or no descriptor or memory is free. A process that ends meanwhile is not an
/// error.
pub(crate) fn live_member(group: Pid, last: Option<Pid>) -> io::Result<Option<Pid>> {
    if let Some(last) = last {
        if is_live_member(last, group)? {
            return Ok(Some(last));
        }
    }
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::new) else {
            continue;
        };
        // A security module may refuse the question. Then the stat tells.
        let is_other = process_group(pid).is_ok_and(|of| of != group.as_raw());
        if !is_other && is_live_member(pid, group)? {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn is_live_member(pid: Pid, group: Pid) -> io::Result<bool> {
    match with_stat(pid, |stat| describes_live_member(stat, group)) {
        Err(error) if is_shortage(&error) => Err(error),
        answer => Ok(answer.unwrap_or(false)),
    }
}

/// Whether a read failed because no descriptor or memory was free.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether a process that has not been reaped has begun to end. A process closes its descriptors shortly before its
/// pidfd becomes readable. The end of one thread does not end the process, so all threads are checked if there are
/// several.
///
/// # Errors
/// It cannot be read: EMFILE, ENFILE, ENOMEM.
pub(crate) fn is_ending(pid: Pid) -> io::Result<bool> {
    // It gives its memory back before it closes its descriptors.
    if has_memory_of_its_own(pid) {
        return Ok(false);
    }
    let answer = with_stat(pid, |stat| {
        let one = is_exiting(stat);
        Ok(one && (has_one_thread(stat) || all_threads(pid, is_exiting)?))
    });
    let answer = answer.and_then(|answer| answer);
    match answer {
        Err(error) if is_gone(&error) => Ok(true),
        answer => answer,
    }
}

/// Whether the error says that the process or the thread does not exist any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Whether `holds` is true for the stat of each thread of the process.
fn all_threads(pid: Pid, holds: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read(thread?.path().join("stat")) {
            Ok(stat) if !holds(&stat) => return Ok(false),
            Err(error) if is_shortage(&error) => return Err(error),
            // A thread without this file has ended meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(true)
}

/// Whether no execve of a process has succeeded since the process was made. The process must not have been reaped.
/// False if it is not known.
pub(crate) fn has_never_executed(pid: Pid) -> bool {
    was_seen_unexecuted(pid).unwrap_or(false)
}

/// The same; `None` if a later look can succeed, because no descriptor or memory is free now.
pub(crate) fn was_seen_unexecuted(pid: Pid) -> Option<bool> {
    match with_stat(pid, was_never_executed) {
        Err(error) if is_shortage(&error) => None,
        answer => Some(answer.unwrap_or(false)),
    }
}

/// The same of a process that ends or has ended, and that has not been reaped; false for one that lives on.
pub(crate) fn ends_unexecuted(pid: Pid) -> bool {
    with_stat(pid, |stat| is_exiting(stat) && was_never_executed(stat)).unwrap_or(false)
}

/// The boot time in nanoseconds (CLOCK_BOOTTIME) when a process was made, rounded down to a [`TICK`]. `None`: the
/// process does not exist, or is not visible.
pub(crate) fn made_at(pid: Pid) -> Option<u64> {
    origin(pid).map(|origin| origin.started.saturating_mul(TICK))
}

/// The unit of times in /proc, in nanoseconds. The kernel uses it on all machines that Rust supports (USER_HZ).
pub(crate) const TICK: u64 = 10_000_000;

/// Whether the environment of a process contains this entry.
///
/// # Errors
/// EACCES: it may not be read.
pub(crate) fn has_in_environment(pid: Pid, entry: &[u8]) -> io::Result<bool> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    Ok(environment.split(|&byte| byte == 0).any(|own| own == entry))
}

/// Whether a process has mapped the file with this inode number and path.
pub(crate) fn has_mapped(pid: Pid, inode: u64, path: &Path) -> io::Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let inode = inode.to_string();
    let path = path.to_string_lossy();
    Ok(maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(4);
        fields.next() == Some(&*inode) && line.contains(&*path)
    }))
}

/// Whether a process has other memory than this one. A process that ends has none, and one that this process has made
/// with clone(2) has the same until it executes a program. False if it is not known, or if both have the same size.
///
/// This can be read at any time. A read of the stat waits on Linux 6.18 while execve(2) replaces the memory of the
/// process and closes its descriptors. If others keep the process from the processor meanwhile, the reader waits too.
pub(crate) fn has_memory_of_its_own(pid: Pid) -> bool {
    let size = |pid| with_file(pid, "statm", size_of).ok().flatten();
    let own = || Pid::new(std::process::id()).and_then(size);
    size(pid).is_some_and(|other| other != 0 && own().is_some_and(|own| own != other))
}

/// The size of the memory, in pages: the first field of /proc/PID/statm.
fn size_of(statm: &[u8]) -> Option<u64> {
    let size = statm.split(u8::is_ascii_whitespace).next()?;
    str::from_utf8(size).ok()?.parse().ok()
}

/// Applies `judge` to the stat of a process, at least up to its 22nd field.
fn with_stat<T>(pid: Pid, judge: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    with_file(pid, "stat", judge)
}

/// Applies `judge` to the beginning of a file of a process in /proc. Allocates nothing.
fn with_file<T>(pid: Pid, name: &str, judge: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut path = [0; 32];
    write!(&mut path[..], "/proc/{pid}/{name}")?;
    let path = CStr::from_bytes_until_nul(&path).map_err(io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = retry_on_intr(|| open(path, flags, Mode::empty()))?;
    let mut stat = [0; STAT_ROOM];
    let length = retry_on_intr(|| read(&file, &mut stat))?;
    Ok(judge(stat.get(..length).unwrap_or(&[])))
}

fn was_never_executed(stat: &[u8]) -> bool {
    const PF_FORKNOEXEC: u64 = 0x40;
    flags(stat) & PF_FORKNOEXEC != 0
}

/// Whether the thread with this stat has begun to end.
fn is_exiting(stat: &[u8]) -> bool {
    const PF_EXITING: u64 = 0x4;
    flags(stat) & PF_EXITING != 0
}

/// The flags of a thread (`PF_*` in the kernel's sched.h), from the ninth field of proc_pid_stat(5). 0 if the field is
/// missing.
fn flags(stat: &[u8]) -> u64 {
    number(stat, 6).unwrap_or(0)
}

/// Whether the process with this stat has at most one thread, ended or not (the 20th field). True if the field is
/// missing.
fn has_one_thread(stat: &[u8]) -> bool {
    number(stat, 17).is_none_or(|threads| threads <= 1)
}

/// The PID of the process that a thread belongs to; `None` if there is no such thread.
pub(crate) fn process_of_thread(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// The process itself, then its parent, and so on upwards: at most 64 processes. Each takes three system calls and no
/// allocation. The iterator ends earlier if the next ancestor is unknown.
///
/// For a process that has ended, only its own number is returned. A process can end during the iteration, and its
/// number can be given to another process. That process is younger than the child, so it is no ancestor, and the
/// iterator ends.
pub(crate) fn lineage(pid: Pid) -> impl Iterator<Item = Pid> {
    let ancestors = iter::once_with(move || ancestors(pid)).flatten();
    iter::once(pid).chain(ancestors).take(GENERATIONS)
}

fn ancestors(pid: Pid) -> impl Iterator<Item = Pid> {
    let parent = origin(pid).and_then(parent_of);
    iter::successors(parent, |&(_, own)| parent_of(own)).map(|(pid, _)| pid)
}

/// The parent of a process of this origin, and the parent's own origin.
fn parent_of(child: Origin) -> Option<(Pid, Origin)> {
    let pid = child.parent?;
    let own = origin(pid)?;
    (own.started <= child.started).then_some((pid, own))
}

/// The path of a process's cgroup in the unified hierarchy, relative to the root of this process's cgroup namespace
/// (cgroups(7)). `None` if the process has ended or there is no such hierarchy.
pub(crate) fn cgroup(pid: Pid) -> Option<PathBuf> {
    cgroup_of(&fs::read(format!("/proc/{pid}/cgroup")).ok()?)
}

fn cgroup_of(lines: &[u8]) -> Option<PathBuf> {
    let path = lines
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// Whether this line of /proc/PID/stat describes a member of the group that is alive.
fn describes_live_member(stat: &[u8], group: Pid) -> bool {
    let Some(state) = fields(stat).and_then(|mut fields| fields.next()) else {
        return false;
    };
    let leader_is_alive = !matches!(state, b"Z" | b"X" | b"x");
    number(stat, 2) == Some(group.as_raw().into()) && (leader_is_alive || !has_one_thread(stat))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, parent_id};
    use std::process::{Command, Stdio};

    use rustix::process::{WaitId, WaitIdOptions};

    use super::*;
    use crate::testing::common::refuse::refusing;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    #[test]
    fn reads_state_and_group_whatever_the_name() {
        let group = pid(77);
        for (stat, lives) in [
            (&b"5 (sleep) S 1 77 77 0 -1"[..], true),
            (b"5 (a) Z 1 77 (b) R 1 77 3", true),
            (b"5 (sleep) Z 1 77 77 0 -1", false),
            (b"5 (x) X 1 77 77", false),
            (b"5 (x) Z 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 99", false),
            (b"5 (x) Z 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 0 0 99", false),
            (b"5 (x) Z 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 2 0 99", true),
            (b"5 (x) Z 1 7 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 2 0 99", false),
            (b"5 (sleep) S 1 7 77", false),
            (b"5 (sleep) S 1", false),
            (b"nonsense", false),
            (b"", false),
        ] {
            assert_eq!(
                describes_live_member(stat, group),
                lives,
                "{}",
                String::from_utf8_lossy(stat)
            );
        }
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        let thread = thread.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let own = std::process::id();
        assert_eq!([process_of_thread(thread), process_of_thread(own)], [Some(own); 2]);
        assert_eq!(process_of_thread(u32::MAX), None);
    }

    #[test]
    fn a_thread_that_ends_does_not_end_its_process() {
        let (exiting, alone) = (
            b"5 (x) Z 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 99",
            b"5 (x) S 1 77 77 0 -1 64 0 0 0 0 1 2 3 4 20 0 1 0 99",
        );
        assert!(is_exiting(exiting) && has_one_thread(exiting));
        assert!(!is_exiting(alone) && has_one_thread(alone));
        assert!(!has_one_thread(b"5 (x) Z 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 2 0 99"));
        let own = pid(std::process::id());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_ending(own).unwrap()));
        });
        assert!(!all_threads(own, is_exiting).unwrap());
        assert!(all_threads(own, |stat| !stat.is_empty()).unwrap());
    }

    #[test]
    fn a_group_is_alive_while_a_member_is_alive() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .process_group(0)
            .spawn()
            .unwrap();
        let group = pid(child.id());
        let own = pid(std::process::id());
        // The one of another group, or that has ended, is no answer.
        for last in [None, Some(group), Some(own)] {
            assert_eq!(live_member(group, last).unwrap(), Some(group), "{last:?}");
        }
        refusing(libc::SYS_getpgid, libc::EPERM, || {
            assert_eq!(live_member(group, None).unwrap(), Some(group));
        });
        child.kill().unwrap();
        let number = rustix::process::Pid::from_raw(child.id() as i32);
        let looked = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(number.unwrap()), looked).unwrap();
        for last in [None, Some(group), Some(own)] {
            assert_eq!(live_member(group, last).unwrap(), None, "a zombie is not alive");
        }
        child.wait().unwrap();
        assert_eq!(live_member(group, Some(group)).unwrap(), None);
    }

    #[test]
    fn a_process_has_memory_of_its_own_until_it_ends() {
        assert!(!has_memory_of_its_own(pid(std::process::id())));
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let number = pid(child.id());
        // It answers, so it has executed its program.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert!(has_memory_of_its_own(number));
        child.kill().unwrap();
        let id = WaitId::Pid(rustix::process::Pid::from_raw(child.id() as i32).unwrap());
        rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(!has_memory_of_its_own(number));
        child.wait().unwrap();
        assert!(!has_memory_of_its_own(number));
        assert_eq!(
            [size_of(b"12 3"), size_of(b""), size_of(b"x 1")],
            [Some(12), None, None]
        );
    }

    #[test]
    fn a_lineage_begins_with_the_process_and_continues_with_its_ancestors() {
        let own = std::process::id();
        let parent = parent_id();
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
        let grandchild = line.trim().parse().unwrap();
        let found: Vec<u32> = lineage(pid(grandchild)).map(Pid::as_raw).take(4).collect();
        let group = rustix::process::Pid::from_child(&shell);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        shell.wait().unwrap();
        assert_eq!(found, [grandchild, shell.id(), own, parent]);
    }

    #[test]
    fn a_process_that_has_ended_has_no_known_ancestors() {
        let mut child = Command::new("true").spawn().unwrap();
        let gone = pid(child.id());
        child.wait().unwrap();
        assert_eq!(lineage(gone).collect::<Vec<_>>(), [gone]);
        assert_eq!(cgroup(gone), None);
    }

    #[test]
    fn a_number_given_to_a_younger_process_is_no_parent() {
        let own = pid(std::process::id());
        let started = origin(own).unwrap().started;
        let child = |started| Origin {
            parent: Some(own),
            started,
        };
        assert_eq!(parent_of(child(started)).map(|(pid, _)| pid), Some(own));
        assert_eq!(parent_of(child(started - 1)), None);
        assert_eq!(parent_of(Origin { parent: None, started }), None);
    }

    #[test]
    fn a_cgroup_is_that_of_the_unified_hierarchy() {
        let path = |lines: &str| cgroup_of(lines.as_bytes());
        assert_eq!(path("0::/a/b c\n"), Some("/a/b c".into()));
        assert_eq!(path("4:cpu:/x\n1:name=systemd:/y\n0::/z\n"), Some("/z".into()));
        assert_eq!(path("4:cpu:/x\n10::/y\n"), None);
        assert_eq!(path(""), None);
    }
}
