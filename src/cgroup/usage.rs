//! The resources that the kernel counts in a cgroup.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::str;
use std::time::Duration;

use super::tree;
use crate::codec::stored;

/// The resources that the processes of a cgroup have used together, including the processes that have ended
/// ([`Cgroup::usage`](super::Cgroup::usage), [`Supervisor::usage`](crate::Supervisor::usage)). A field is `None` where
/// the kernel does not count it: its controller is not enabled for the cgroup, or the kernel is older than the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CgroupUsage {
    /// CPU time, from `cpu.stat`. It is available in every cgroup, even without the cpu controller.
    pub cpu: Option<Duration>,
    /// The part of the CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// The part of the CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// The memory in use now, in bytes, including file caches: `memory.current` of the memory controller. After the end
    /// of a run it is what the file caches still hold.
    pub memory_current: Option<u64>,
    /// The largest amount of memory in use at one time, in bytes, including file caches: `memory.peak` of the memory
    /// controller (Linux 5.19).
    pub memory_peak: Option<u64>,
    /// The swap in use now, in bytes: `memory.swap.current` of the memory controller, where the kernel has swap.
    pub memory_swap_current: Option<u64>,
    /// How many processes of the cgroup, and of those below it, the kernel has killed because memory was short:
    /// `oom_kill` in `memory.events` of the memory controller. The run's own process may not be among them. With
    /// `memory.oom.group` the kernel may count a process twice (seen on Linux 6.1).
    pub oom_kills: Option<u64>,
    /// The number of processes and threads now: `pids.current` of the pids controller.
    pub pids_current: Option<u64>,
    /// The largest number of processes and threads at one time: `pids.peak` of the pids controller (Linux 6.1).
    pub pids_peak: Option<u64>,
    /// How many forks have failed because a limit of the number of processes was reached: `max` in `pids.events` of the
    /// pids controller. Since Linux 6.11 these are forks that the limit of this cgroup, or of one below it, has
    /// refused. An older kernel counts the forks of this cgroup's own processes that this limit, or one above, has
    /// refused.
    pub pids_refused: Option<u64>,
    /// The bytes that were read from block devices: the sum of `rbytes` in `io.stat` of the io controller. Reads from
    /// the file cache are not among them.
    pub io_read: Option<u64>,
    /// The bytes that were written to block devices: the sum of `wbytes` in `io.stat` of the io controller. Data that
    /// is still in the file cache is not among them.
    pub io_written: Option<u64>,
}

impl CgroupUsage {
    pub(super) fn of(cgroup: BorrowedFd<'_>) -> CgroupUsage {
        let cpu = tree::read(cgroup, c"cpu.stat").unwrap_or_default();
        let time = |key| number_after(&cpu, key).map(Duration::from_micros);
        let mut usage = CgroupUsage {
            cpu: time("usage_usec"),
            cpu_user: time("user_usec"),
            cpu_system: time("system_usec"),
            // Without their controllers, none of the other files exists.
            memory_current: number_in(cgroup, c"memory.current"),
            pids_current: number_in(cgroup, c"pids.current"),
            ..CgroupUsage::default()
        };
        if usage.memory_current.is_some() {
            usage.memory_peak = number_in(cgroup, c"memory.peak");
            usage.memory_swap_current = number_in(cgroup, c"memory.swap.current");
            usage.oom_kills = event_count(cgroup, c"memory.events", "oom_kill");
        }
        if usage.pids_current.is_some() {
            usage.pids_peak = number_in(cgroup, c"pids.peak");
            usage.pids_refused = event_count(cgroup, c"pids.events", "max");
        }
        if let Ok(io) = tree::read_whole(cgroup, c"io.stat") {
            usage.io_read = Some(sum_of(&io, "rbytes="));
            usage.io_written = Some(sum_of(&io, "wbytes="));
        }
        usage
    }
}

/// The number of a key in a file with a line for each key; `None` if the file or the key does not exist.
pub(super) fn event_count(cgroup: BorrowedFd<'_>, file: &CStr, key: &str) -> Option<u64> {
    number_after(&tree::read(cgroup, file).ok()?, key)
}

/// The number that a file consists of; `None` if the file does not exist or has another content.
pub(super) fn number_in(cgroup: BorrowedFd<'_>, file: &CStr) -> Option<u64> {
    let content = tree::read(cgroup, file).ok()?;
    str::from_utf8(&content).ok()?.trim().parse().ok()
}

/// The number after a key in a file of lines with a key and a number each.
pub(super) fn number_after(content: &[u8], key: &str) -> Option<u64> {
    let text = str::from_utf8(content).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The sum of the numbers after this text, over the lines of all devices.
fn sum_of(content: &[u8], text: &str) -> u64 {
    let content = String::from_utf8_lossy(content);
    let words = content.split_ascii_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(text)?.parse::<u64>().ok());
    numbers.fold(0, u64::saturating_add)
}

stored!(struct CgroupUsage {
    cpu,
    cpu_user,
    cpu_system,
    memory_current,
    memory_peak,
    memory_swap_current,
    oom_kills,
    pids_current,
    pids_peak,
    pids_refused,
    io_read,
    io_written,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_the_whole_key() {
        let content = b"nr_usage_usec 3\nusage_usec 12\nuser_usec x\nsystem_usec\n";
        assert_eq!(number_after(content, "usage_usec"), Some(12));
        for key in ["usec", "user_usec", "system_usec", "usage", ""] {
            assert_eq!(number_after(content, key), None, "{key}");
        }
    }

    #[test]
    fn the_devices_are_added_up() {
        let content = b"8:0 rbytes=5 wbytes=7 rios=1\n7:0 \n8:16 rbytes=10 wbytes=x dbytes=3\n";
        assert_eq!((sum_of(content, "rbytes="), sum_of(content, "wbytes=")), (15, 7));
        assert_eq!(sum_of(b"", "rbytes="), 0);
    }
}
