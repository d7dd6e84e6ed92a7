//! Whose limit of memory was reached, when the kernel has killed a process.
//!
//! The kernel counts two things, each in the cgroup where it happens and in those above it. `oom` in `memory.events` of
//! the cgroup with the limit: the limit was reached, and nothing more could be reclaimed. `oom_kill` in `memory.events`
//! of the cgroup of a process: the process was killed, for whatever limit. `memory.events.local` (Linux 5.2) has the
//! counts without those of the cgroups below.
//!
//! Both counts rise before the process gets its SIGKILL, so they are complete when it is reaped. The cgroup of a run is
//! new, and begins with zeros. The cgroups above it have counted before, so their counts at the beginning of the run
//! are kept.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use super::tree;
use super::usage::{event_count, number_after};
use crate::codec::stored;

/// Whose limit of memory was reached when the kernel killed a process.
///
/// If more than one was reached during the run, the first one in the order of the variants is named, and of several
/// ancestors the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum OomLimit {
    /// The limit of the run's own cgroup, or of a cgroup that the run has made below it.
    Own,
    /// The limit of a cgroup above that of the run.
    Ancestor {
        /// How far it is above the run's own cgroup: 1 is the directory of the group.
        levels: u32,
    },
    /// No limit: the memory of the machine, or of the NUMA nodes that the run may use, was used up.
    Machine,
    /// It is not known. The cgroups above cannot be seen up to the root (cgroup_namespaces(7)), or were not read at the
    /// beginning of the run, because another host has started it.
    Unknown,
}

impl fmt::Display for OomLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OomLimit::Own => f.write_str("the limit of its own cgroup"),
            OomLimit::Ancestor { levels: 1 } => f.write_str("the limit of the cgroup above"),
            OomLimit::Ancestor { levels } => write!(f, "the limit of the cgroup {levels} levels above"),
            OomLimit::Machine => f.write_str("the machine"),
            OomLimit::Unknown => f.write_str("an unknown limit"),
        }
    }
}

stored!(enum OomLimit { 0 = Own, 1 = Ancestor { levels }, 2 = Machine, 3 = Unknown });

/// How often the limits of memory above a run were reached until some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Above {
    /// The counts of the cgroups, the nearest first. The root has none.
    counts: Vec<u64>,
    /// Whether these are all cgroups up to the root. In a cgroup namespace the highest ones cannot be seen.
    complete: bool,
}

impl Above {
    /// The counts of this cgroup and those above it.
    pub(super) fn of(directory: BorrowedFd<'_>) -> Above {
        let mut counts = Vec::new();
        let mut above;
        let mut here = directory;
        while let Some(count) = event_count(here, c"memory.events.local", "oom") {
            counts.push(count);
            above = match tree::open(here, c"..") {
                Ok(above) => above,
                Err(_) => {
                    return Above {
                        counts,
                        complete: false,
                    };
                }
            };
            here = above.as_fd();
        }
        // Above the highest visible cgroup is a directory of another file system.
        let complete = tree::has(here, c"cgroup.controllers");
        Above { counts, complete }
    }
}

impl OomLimit {
    /// Reads the counts of the cgroup of a run, and then those `above` it if the kernel has killed a process.
    pub(super) fn of(
        cgroup: BorrowedFd<'_>,
        before: Option<&Above>,
        above: impl FnOnce() -> Above,
    ) -> Option<OomLimit> {
        let events = tree::read(cgroup, c"memory.events").ok()?;
        let kills = number_after(&events, "oom_kill")?;
        let own = number_after(&events, "oom").unwrap_or_default();
        OomLimit::judge(kills, own, || Some((before?.clone(), above())))
    }

    /// `kills` are the processes of the run that were killed, `own` is how often its own limit was reached, and `above`
    /// are the counts above the run, at its beginning and now.
    fn judge(kills: u64, own: u64, above: impl FnOnce() -> Option<(Above, Above)>) -> Option<OomLimit> {
        if kills == 0 {
            return None;
        }
        if own > 0 {
            return Some(OomLimit::Own);
        }
        let Some((before, now)) = above().filter(|(before, now)| before.counts.len() == now.counts.len()) else {
            return Some(OomLimit::Unknown);
        };
        let mut levels = (1..).zip(before.counts.iter().zip(&now.counts));
        let reached = levels.find(|(_, (before, now))| now > before);
        Some(match reached {
            Some((levels, _)) => OomLimit::Ancestor { levels },
            None if before.complete && now.complete => OomLimit::Machine,
            None => OomLimit::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(counts: &[u64], complete: bool) -> Above {
        Above {
            counts: counts.to_vec(),
            complete,
        }
    }

    #[test]
    fn the_limit_is_the_nearest_one_that_was_reached() {
        let judge = |kills, own, before: &[u64], now: &[u64], complete| {
            OomLimit::judge(kills, own, || Some((above(before, complete), above(now, complete))))
        };
        assert_eq!(judge(0, 0, &[1], &[2], true), None, "the kernel killed others");
        assert_eq!(
            judge(0, 5, &[1], &[1], true),
            None,
            "it was reached, and nothing was killed"
        );
        assert_eq!(judge(1, 1, &[1, 1], &[2, 2], true), Some(OomLimit::Own));
        let ancestor = |levels| Some(OomLimit::Ancestor { levels });
        assert_eq!(judge(1, 0, &[7, 1], &[8, 1], true), ancestor(1));
        assert_eq!(judge(2, 0, &[7, 1], &[7, 2], false), ancestor(2));
        assert_eq!(judge(1, 0, &[7, 1], &[8, 2], true), ancestor(1));
        assert_eq!(judge(1, 0, &[7, 1], &[7, 1], true), Some(OomLimit::Machine));
        assert_eq!(judge(1, 0, &[7, 1], &[7, 1], false), Some(OomLimit::Unknown));
        // A controller was enabled or disabled above meanwhile.
        assert_eq!(judge(1, 0, &[7], &[7, 1], true), Some(OomLimit::Unknown));
        assert_eq!(OomLimit::judge(1, 0, || None), Some(OomLimit::Unknown));
        assert_eq!(OomLimit::judge(1, 1, || None), Some(OomLimit::Own));
    }
}
