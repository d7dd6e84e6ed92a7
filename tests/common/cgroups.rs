//! Starts processes in a cgroup without the library, and checks whether this machine's cgroups can be used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::wait::{patience, wait_until};

/// The file system type that statfs(2) returns for cgroup v2.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// The flag of clone3(2). libc defines it with a type that is too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The first thing that the tests need and the cgroups of this machine do not allow. `None` if all is
/// allowed.
///
/// The check uses a new cgroup, and not the library. That a cgroup can be created proves too little: this
/// process may lack the right to move other processes into it.
pub fn lacking(cgroup: &Path) -> Option<String> {
    usable(cgroup).err().map(|(what, error)| format!("{what}: {error}"))
}

/// Whether cgroup v2 is mounted here. A directory of the same name may be something else.
pub fn is_mounted(place: &Path) -> bool {
    rustix::fs::statfs(place).is_ok_and(|kind| kind.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

fn usable(cgroup: &Path) -> Result<(), (&'static str, io::Error)> {
    let refused = |what| move |error| (what, error);
    let below = cgroup.join("probe");
    fs::create_dir(&below).map_err(refused("cannot create a cgroup below another"))?;
    let result = (|| {
        moved_into(&below).map_err(refused("cannot move a process into it"))?;
        entered(&below).map_err(refused("a shell cannot move itself into it"))?;
        cloned_into(&below).map_err(refused("cannot clone a process into it"))
    })();
    fs::remove_dir(&below).map_err(refused("cannot remove it"))?;
    result
}

/// Moves a process into the cgroup, freezes it, thaws it and kills it.
fn moved_into(cgroup: &Path) -> io::Result<()> {
    let mut sleeper = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    let moved = fs::write(cgroup.join("cgroup.procs"), sleeper.id().to_string())
        .and_then(|()| {
            expected(
                members(cgroup).contains(&sleeper.id()),
                "the process is not listed in cgroup.procs",
            )
        })
        .and_then(|()| fs::write(cgroup.join("cgroup.freeze"), "1"))
        .and_then(|()| fs::write(cgroup.join("cgroup.freeze"), "0"));
    sleeper.kill()?;
    sleeper.wait()?;
    moved?;
    let events = || fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    let is_empty = within(Duration::from_secs(2), || events().contains("populated 0"));
    expected(is_empty, "the cgroup stays populated after the process has ended")
}

/// Checks that [`sleepers`] finds a process that [`run_in`] has started.
fn entered(cgroup: &Path) -> io::Result<()> {
    let mut shell = run_in(cgroup, "exec sleep 1000");
    let is_there = within(Duration::from_secs(2), || members(cgroup).into_iter().any(sleeps));
    let _already_gone = shell.kill();
    shell.wait()?;
    expected(is_there, "no sleeping process is listed in cgroup.procs")?;
    let is_empty = || members(cgroup).is_empty();
    expected(
        within(Duration::from_secs(2), is_empty),
        "the ended process stays listed in cgroup.procs",
    )
}

fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit * patience();
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Checks that a child that is cloned into the cgroup runs until it exits by itself.
fn cloned_into(cgroup: &Path) -> io::Result<()> {
    if cfg!(pidherd_portable) {
        return Ok(());
    }
    let directory = File::open(cgroup)?;
    // SAFETY: all fields are numbers, and 0 requests nothing.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = directory.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM the call works like fork(2), and the child only exits.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, mem::size_of_val(&args)) };
    if pid == 0 {
        // SAFETY: _exit(2) does not return.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the status is a local variable, and the child is this process's own.
    if unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    expected(status == 0, &format!("the child's wait status is {status:#x}"))
}

fn expected(is_so: bool, otherwise: &str) -> io::Result<()> {
    if is_so {
        Ok(())
    } else {
        Err(io::Error::other(otherwise.to_owned()))
    }
}

/// Starts a shell that moves itself into the cgroup and then executes the shell that runs `script`. In the
/// script, `$0` is the cgroup's directory.
pub fn run_in(cgroup: &Path, script: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec /bin/sh -c "$1" "$0""#])
        .arg(cgroup)
        .arg(script)
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// Waits until exactly `count` processes in the cgroup and below run `sleep`, and returns their PIDs. (A
/// shell joins the cgroup before it executes `sleep`, so membership alone is not enough.)
pub fn sleepers(cgroup: &Path, count: usize) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    wait_until(
        "as many processes as expected run `sleep` in the cgroup",
        Duration::from_secs(10),
        || {
            found = members(cgroup).into_iter().filter(|&pid| sleeps(pid)).collect();
            found.len() == count
        },
    );
    found
}

/// All processes in a cgroup and in the cgroups below it, read from `cgroup.procs`.
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

/// A script of eight chains of processes. Each process of a chain starts the next one and ends, so a process
/// has always ended before it can be killed by its PID.
pub const FORKING_CHAINS: &str = r#"
    export CHAIN='/bin/sh -c "$CHAIN" &'
    for _ in 1 2 3 4 5 6 7 8; do /bin/sh -c "$CHAIN" & done
    exec sleep 1000
"#;
