//! Programs that use up the memory of a cgroup, and the limits that they reach.

use std::fs;
use std::path::Path;

use pidherd::cgroup::{CgroupDir, Limits};

/// The limit of memory of the tests, in bytes.
pub const LIMIT: u64 = 24 << 20;

/// The argument of awk for a program that uses more and more memory, up to some hundred megabytes.
pub const EATING: &str = "BEGIN { x = \"0123456789abcdef\"; for (i = 0; i < 24; i++) x = x x }";

/// A shell command that uses more and more memory, up to some hundred megabytes.
pub const EATS: &str = "awk 'BEGIN { x = \"0123456789abcdef\"; for (i = 0; i < 24; i++) x = x x }'";

/// The limits, without swap where the kernel has it: a process would be moved there instead of being killed.
pub fn no_swap(dir: &CgroupDir, limits: Limits) -> Limits {
    dir.enable_controllers(&Limits::new().memory_max(LIMIT)).unwrap();
    let probe = dir.make("swap").unwrap();
    let has_swap = dir.path().join("swap/memory.swap.max").exists();
    probe.remove().unwrap();
    if has_swap { limits.memory_swap_max(0) } else { limits }
}

/// Limits the memory of a cgroup that the library does not make.
pub fn limit(path: &Path) {
    fs::write(path.join("memory.max"), LIMIT.to_string()).unwrap();
    let _where_swap_is = fs::write(path.join("memory.swap.max"), "0");
}

/// How many processes the kernel has killed in a cgroup for lack of memory.
pub fn kills(path: &Path) -> u64 {
    let events = fs::read_to_string(path.join("memory.events")).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.map_or(0, |count| count.parse().unwrap())
}
