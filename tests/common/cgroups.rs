//! Processes in a cgroup, for tests that are not about how they got there; and whether there can be any.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::wait::wait_until;

/// What fstatfs(2) says of cgroup v2.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// clone3(2); libc's has a type in which it overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What this machine doesn't let its cgroups do that the tests need, if anything; found out in a new one,
/// and without the library. That one can be made is no proof: it may lie outside of what this process may move
/// others into.
pub fn lacking(cgroup: &Path) -> Option<String> {
    usable(cgroup).err().map(|(what, error)| format!("{what}: {error}"))
}

/// Whether this is cgroup v2, and not only called so.
pub fn is_mounted(place: &Path) -> bool {
    rustix::fs::statfs(place).is_ok_and(|kind| kind.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

fn usable(cgroup: &Path) -> Result<(), (&'static str, io::Error)> {
    let refused = |what| move |error| (what, error);
    let below = cgroup.join("probe");
    fs::create_dir(&below).map_err(refused("a cgroup below another"))?;
    let result = (|| {
        moved_into(&below).map_err(refused("moving a process there"))?;
        entered(&below).map_err(refused("a shell that moves itself there"))?;
        cloned_into(&below).map_err(refused("cloning a process into it"))
    })();
    fs::remove_dir(&below).map_err(refused("removing it again"))?;
    result
}

/// Moves a process there, freezes it, thaws it and ends it.
fn moved_into(cgroup: &Path) -> io::Result<()> {
    let mut sleeper = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    let moved = fs::write(cgroup.join("cgroup.procs"), sleeper.id().to_string())
        .and_then(|()| expected(members(cgroup).contains(&sleeper.id()), "it is not listed"))
        .and_then(|()| fs::write(cgroup.join("cgroup.freeze"), "1"))
        .and_then(|()| fs::write(cgroup.join("cgroup.freeze"), "0"));
    sleeper.kill()?;
    sleeper.wait()?;
    moved?;
    let events = || fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    let is_empty = within(Duration::from_secs(2), || events().contains("populated 0"));
    expected(is_empty, "it stays populated")
}

/// Whether [`run_in`] leads to what [`sleepers`] finds.
fn entered(cgroup: &Path) -> io::Result<()> {
    let mut shell = run_in(cgroup, "exec sleep 1000");
    let is_there = within(Duration::from_secs(2), || members(cgroup).into_iter().any(sleeps));
    let _already_gone = shell.kill();
    shell.wait()?;
    expected(is_there, "nobody who sleeps is listed there")?;
    let is_empty = || members(cgroup).is_empty();
    expected(within(Duration::from_secs(2), is_empty), "who has ended stays listed")
}

fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Whether a child that is born there lives long enough to end by itself.
fn cloned_into(cgroup: &Path) -> io::Result<()> {
    if cfg!(pidherd_portable) {
        return Ok(());
    }
    let directory = File::open(cgroup)?;
    // SAFETY: all of it are numbers, and zero is "nothing asked for".
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = directory.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM it is a fork, and the child does nothing but end.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, mem::size_of_val(&args)) };
    if pid == 0 {
        // SAFETY: it doesn't return.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the status is ours to write to, and the child ours to reap.
    if unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    expected(status == 0, &format!("its wait status is {status:#x}"))
}

fn expected(is_so: bool, otherwise: &str) -> io::Result<()> {
    if is_so {
        Ok(())
    } else {
        Err(io::Error::other(otherwise.to_owned()))
    }
}

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
