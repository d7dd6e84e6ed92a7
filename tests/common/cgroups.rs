//! Processes in a cgroup, for tests that are not about how they got there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait::wait_until;

/// Starts a shell that moves itself into the cgroup and then becomes the shell that runs `script`, in
/// which `$0` is the cgroup's directory.
pub fn run_in(cgroup: &Path, script: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec /bin/sh -c "$1" "$0""#])
        .arg(cgroup)
        .arg(script)
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// Waits until so many processes run `sleep` in the cgroup and those below it, and says who they are. (A
/// shell that is about to become one is in a cgroup before it has come to what the test wants.)
pub fn sleepers(cgroup: &Path, count: usize) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    wait_until("the sleepers are there", Duration::from_secs(10), || {
        found = members(cgroup).into_iter().filter(|&pid| sleeps(pid)).collect();
        found.len() == count
    });
    found
}

/// Everybody in a cgroup and those below it, as `cgroup.procs` says.
pub fn members(cgroup: &Path) -> BTreeSet<u32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut members: BTreeSet<u32> = list.lines().filter_map(|line| line.parse().ok()).collect();
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for path in below.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        members.extend(self::members(&path));
    }
    members
}

fn sleeps(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
}

/// A script of eight chains of processes, each of which starts the next one and ends: whoever kills
/// them by their numbers is always late.
pub const FORKING_CHAINS: &str = r#"
    export CHAIN='/bin/sh -c "$CHAIN" &'
    for _ in 1 2 3 4 5 6 7 8; do /bin/sh -c "$CHAIN" & done
    exec sleep 1000
"#;
