//! The places that a test uses (directories, cgroups), and the rights that it needs there.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::cgroups;
use super::wait::wait_until;

/// The prefix of a line that explains why a test did nothing.
pub const SKIPPED: &str = "SKIPPED: ";

/// Whether this process is root and has CAP_SYS_ADMIN. (A container may leave root hardly any capabilities.)
/// If not, reports on standard error what is not tested. Usage: `if !root_or_skip("...") { return; }`.
#[must_use]
pub fn root_or_skip(why: &str) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(0);
    let root = rustix::process::geteuid().is_root() && capabilities >> CAP_SYS_ADMIN & 1 == 1;
    if !root {
        skipped(&format!("needs root and CAP_SYS_ADMIN: {why}"));
    }
    root
}

/// Reports on standard error, where the harness does not capture it, that something is not tested, and why.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ignored = writeln!(io::stderr(), "{SKIPPED}{name}: {why}");
}

/// Whether the kernel is of this version or later.
pub fn kernel_since(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    // The minor number may be the last one, as in `7.2-rc1`.
    let numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Creates a new directory below the system's temporary directory.
pub fn tempdir() -> TempDir {
    loop {
        let path = env::temp_dir().join(format!("pidherd-test-{}-{}", process::id(), new_count()));
        match fs::create_dir(&path) {
            Ok(()) => return TempDir(path),
            // A test with the same PID was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// A directory that is removed with its content on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The mount point of cgroup v2. `None` if it is not mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    places
        .into_iter()
        .find(|place| cgroups::is_mounted(place) && place.join("cgroup.controllers").exists())
}

/// Creates a new, empty cgroup. If it cannot be created or used, reports that as skipped and returns `None`.
pub fn test_cgroup() -> Option<TestCgroup> {
    let Some(root) = cgroup_root() else {
        skipped("needs cgroup v2, which is not mounted");
        return None;
    };
    let path = root.join(format!("{}{}", cgroups_of(process::id()), new_count()));
    let lacking = match fs::create_dir(&path) {
        Ok(()) => cgroups::lacking(&path),
        Err(error) => Some(error.to_string()),
    };
    let Some(lacking) = lacking else {
        return Some(TestCgroup(path));
    };
    skipped(&format!("needs cgroups, but in {}: {lacking}", path.display()));
    let _never_made = fs::remove_dir(&path);
    None
}

/// A cgroup that is emptied with `cgroup.kill` and removed on drop.
#[derive(Debug)]
pub struct TestCgroup(PathBuf);

impl TestCgroup {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the cgroup, or one below it, contains a process.
    pub fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _gone_or_too_old = fs::write(self.0.join("cgroup.kill"), "1");
        if !std::thread::panicking() {
            wait_until("the test's cgroup is empty", Duration::from_secs(5), || {
                !self.is_populated()
            });
        }
        remove_tree(&self.0);
    }
}

/// The test cgroups with names that [begin](cgroups_of) so.
pub fn cgroups_left(prefix: &str) -> Vec<PathBuf> {
    let Some(root) = cgroup_root() else { return Vec::new() };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|entry| entry.path()).collect()
}

/// Removes them. They must contain no process.
pub fn remove_cgroups(prefix: &str) {
    cgroups_left(prefix).iter().for_each(|path| remove_tree(path));
}

/// How the names of the test cgroups of a living process begin. A killed one may have left its own, and its number may
/// be in use again, also in another PID namespace, so the name has the time of its start too.
pub fn cgroups_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Field 22 (proc_pid_stat(5)). The second one is in parentheses, and may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let started = fields.split_whitespace().nth(19).unwrap_or_default();
    format!("pidherd-test-{pid}-{started}-")
}

/// Removes a cgroup and all cgroups below it, bottom up. The files in a cgroup cannot be removed; they go
/// with the directory.
fn remove_tree(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .for_each(|path| remove_tree(&path));
    if let Err(error) = fs::remove_dir(path) {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

fn new_count() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
