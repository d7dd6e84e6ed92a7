//! Facts about other processes, read from /proc.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{MARKER, wait};

/// The indexes of fields in proc_pid_stat(5), counted from the first one after the name.
const STATE: usize = 0;
const PARENT: usize = 1;
const START_TIME: usize = 19;
const MEMORY_SIZE: usize = 20;
const ENVIRONMENT_END: usize = 48;

/// How many milliseconds to wait for a process that is in the middle of an execve(2).
const PATIENCE: u32 = 1000;

/// The PIDs of all processes.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Every process that carries this marker, except the calling one. Such a process is not older than the
/// caller.
pub fn marked(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    let born = |pid| stat_field(pid, START_TIME)?.parse::<u64>().ok();
    let since = born(own);
    let others = all().into_iter().filter(|&pid| pid != own && born(pid) >= since);
    others.filter(|&pid| carries(pid, marker)).collect()
}

/// The children of the calling process, including zombies.
pub fn children() -> Vec<u32> {
    children_of(std::process::id())
}

/// The children of a process, including zombies.
pub fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    all()
        .into_iter()
        .filter(|&pid| stat_field(pid, PARENT).as_ref() == Some(&parent))
        .collect()
}

/// The state letter of proc_pid_stat(5). `None` if there is no such process.
pub fn state(pid: u32) -> Option<char> {
    stat_field(pid, STATE)?.chars().next()
}

/// Whether the process has executed another program. Until then it has the name of the thread that made it, which every
/// user may read.
pub fn has_own_program(pid: u32) -> bool {
    let parent = stat_field(pid, PARENT).and_then(|parent| parent.parse().ok());
    let own = fs::read_to_string(path(pid, "comm")).ok();
    let is_named_otherwise = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok() != own;
    let threads = parent.and_then(|parent| fs::read_dir(path(parent, "task")).ok());
    threads.is_some_and(|threads| threads.flatten().all(is_named_otherwise))
}

/// Describes a process in one line.
pub fn describe(pid: u32) -> String {
    let command = fs::read(path(pid, "cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let name = fs::read_to_string(path(pid, "comm")).unwrap_or_default();
    let state = state(pid).unwrap_or('?');
    format!("pid {pid} ({}) in state {state}: {command}", name.trim_end())
}

/// Describes what each process of the test is doing, to find out why the test hangs.
pub fn report(marker: &str) -> String {
    let mut report = String::new();
    for pid in marked(marker) {
        let _infallible = writeln!(report, "{}", describe(pid));
        let threads = fs::read_dir(path(pid, "task")).into_iter().flatten().flatten();
        for thread in threads.map(|entry| entry.path()) {
            let read = |name| fs::read_to_string(thread.join(name)).unwrap_or_default();
            let (name, sleeps_in, call) = (read("comm"), read("wchan"), read("syscall"));
            let _infallible = writeln!(
                report,
                "  {} in {sleeps_in}, syscall {}",
                name.trim_end(),
                call.trim_end()
            );
        }
    }
    report
}

/// Kills every process that carries the marker, and returns their PIDs.
pub fn kill_marked(marker: &str) -> Vec<u32> {
    let mut killed = Vec::new();
    // A process that forks meanwhile leaves a new process behind, so the list is read again.
    while let Some(&pid) = marked(marker).first() {
        kill(pid, marker);
        if killed.contains(&pid) {
            break;
        }
        killed.push(pid);
    }
    killed
}

/// Kills a process that carries the marker. The marker is read after the pidfd is open: the PID may be reused
/// until then, but the pidfd keeps referring to the same process.
fn kill(pid: u32, marker: &str) {
    let Some(raw) = Pid::from_raw(pid as i32) else { return };
    if let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) {
        if carries(pid, marker) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            wait::wait_readable(&pidfd, Duration::from_secs(5));
        }
    }
}

/// Whether the environment of the process contains the marker. The answer is "no" for a process that is gone,
/// a zombie or another user's.
fn carries(pid: u32, marker: &str) -> bool {
    let wanted = format!("{MARKER}={marker}");
    for _ in 0..PATIENCE {
        match fs::read(path(pid, "environ")) {
            Ok(environment) if environment.is_empty() && is_in_exec(pid) => thread::sleep(Duration::from_millis(1)),
            Ok(environment) => {
                return environment
                    .split(|&byte| byte == 0)
                    .any(|entry| entry == wanted.as_bytes());
            }
            Err(_) => return false,
        }
    }
    false
}

/// Whether the process is in the middle of an execve(2): it has its new memory, but not its environment yet.
/// Until then the end of the environment is 0. Kernel threads and zombies have no memory at all.
fn is_in_exec(pid: u32) -> bool {
    let field = |n| stat_field(pid, n).unwrap_or_default();
    field(MEMORY_SIZE) != "0" && field(ENVIRONMENT_END) == "0"
}

/// The n-th field after the name. (The name itself may contain spaces and parentheses.)
fn stat_field(pid: u32, n: usize) -> Option<String> {
    let stat = fs::read_to_string(path(pid, "stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(n).map(str::to_owned)
}

fn path(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}
