//! Whether the kernel has killed the process of a run for lack of memory, and which limit was reached.
//!
//! The kernel counts two things, each in the cgroup where it happens and in those above it. `oom` in `memory.events` of
//! the cgroup with the limit: the limit was reached, and nothing more could be reclaimed. `oom_kill` in `memory.events`
//! of the cgroup of a process: the process was killed, for whatever limit. `memory.events.local` (Linux 5.2) has the
//! counts without those of the cgroups below.
//!
//! Both counts rise before the process gets its SIGKILL, so they are complete when it is reaped. The cgroup of a run is
//! new, and begins with zeros. The cgroups above it have counted before, so their counts at the beginning of the run
//! are kept.
//!
//! The kernel does not tell which process it has killed. It was the run's own one if the cgroup never had a second
//! thread (`pids.peak`), or if the kernel has killed the whole cgroup (`oom_group_kill`, `memory.oom.group`). Otherwise
//! it may have been another one. The kernel log names the process, but it is not read: the log can be overwritten, it
//! may need a privilege, and it has the PIDs of another namespace.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use super::tree;
use super::usage::{event_count, number_after, number_in};
use crate::codec::stored;
use crate::names::{machine_names, shown_by_name};

/// The limit of memory that was reached when the kernel killed a process.
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
    /// beginning of the run, because another host has started it. Or the limits of several cgroups were reached during
    /// the run, and the kernel does not tell for which of them it has killed.
    Unknown,
}

impl OomLimit {
    /// The name of the kind of limit, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::cgroup::OomLimit::Ancestor { levels: 2 }.as_str(), "ancestor");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::cgroup::{OomLimit, OomLimitName};
    ///
    /// assert_eq!(OomLimit::Machine.name(), OomLimitName::Machine);
    /// assert_eq!("machine".parse(), Ok(OomLimitName::Machine));
    /// ```
    #[must_use]
    pub const fn name(&self) -> OomLimitName {
        match self {
            OomLimit::Own => OomLimitName::Own,
            OomLimit::Ancestor { .. } => OomLimitName::Ancestor,
            OomLimit::Machine => OomLimitName::Machine,
            OomLimit::Unknown => OomLimitName::Unknown,
        }
    }
}

/// The kinds of an [`OomLimit`]. Their texts are those of [`OomLimit::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OomLimitName {
    /// See [`OomLimit::Own`].
    Own,
    /// See [`OomLimit::Ancestor`].
    Ancestor,
    /// See [`OomLimit::Machine`].
    Machine,
    /// See [`OomLimit::Unknown`].
    Unknown,
}

machine_names! { OomLimitName, "limit of memory",
    Own = "own"
    Ancestor = "ancestor"
    Machine = "machine"
    Unknown = "unknown"
}

shown_by_name! { OomLimitName }

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

/// What the kernel has counted about its kills in the cgroup of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// The processes that the kernel has killed.
    kills: u64,
    /// How often the limit of the cgroup, or of one below it, was reached.
    own: u64,
    /// Whether the kernel has killed all processes of the cgroup together.
    whole: bool,
    /// Whether the cgroup has never had more than one thread.
    single: bool,
}

impl Counts {
    fn of(cgroup: BorrowedFd<'_>) -> Option<Counts> {
        let events = tree::read(cgroup, c"memory.events").ok()?;
        let kills = number_after(&events, "oom_kill").filter(|&kills| kills > 0)?;
        let own = number_after(&events, "oom").unwrap_or_default();
        let local = tree::read(cgroup, c"memory.events.local").unwrap_or_default();
        let whole = match number_after(&local, "oom_group_kill") {
            Some(count) => count > 0,
            // Before Linux 5.17. A limit in a cgroup below kills that one only.
            None => {
                let is_group = number_in(cgroup, c"memory.oom.group") == Some(1);
                is_group && (own == 0 || number_after(&local, "oom") > Some(0))
            }
        };
        Some(Counts {
            kills,
            own,
            whole,
            single: number_in(cgroup, c"pids.peak") == Some(1),
        })
    }
}

/// What is known when SIGKILL has ended the process of a run, and the kernel has killed a process of the run for lack
/// of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OomKill {
    pub(crate) limit: OomLimit,
    /// Whether the kernel has killed the run's own process. Otherwise it may have killed another one instead.
    pub(crate) is_certain: bool,
}

stored!(struct OomKill { limit, is_certain });

impl OomKill {
    /// Reads the counts of the cgroup of a run, and then those `above` it if the kernel has killed a process.
    pub(super) fn of(cgroup: BorrowedFd<'_>, before: Option<&Above>, above: impl FnOnce() -> Above) -> Option<OomKill> {
        let counts = Counts::of(cgroup)?;
        Some(OomKill {
            limit: OomLimit::judge(&counts, || Some((before?.clone(), above()))),
            is_certain: counts.whole || counts.single,
        })
    }
}

impl OomLimit {
    /// `above` are the counts above the run, at its beginning and now.
    fn judge(counts: &Counts, above: impl FnOnce() -> Option<(Above, Above)>) -> OomLimit {
        // The own limit kills a process of the run each time. The run is over when the whole cgroup is killed.
        if counts.own > 0 && (counts.kills == 1 || counts.whole) {
            return OomLimit::Own;
        }
        let Some((before, now)) = above().filter(|(before, now)| before.counts.len() == now.counts.len()) else {
            return OomLimit::Unknown;
        };
        let levels = (1..).zip(before.counts.iter().zip(&now.counts));
        let mut reached = levels.filter(|(_, (before, now))| now > before);
        match (reached.next(), reached.next()) {
            (None, _) if counts.own > 0 => OomLimit::Own,
            (None, _) if before.complete && now.complete => OomLimit::Machine,
            (Some((levels, _)), None) if counts.own == 0 => OomLimit::Ancestor { levels },
            _ => OomLimit::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_files;
    use super::*;

    fn above(counts: &[u64], complete: bool) -> Above {
        Above {
            counts: counts.to_vec(),
            complete,
        }
    }

    fn counts(kills: u64, own: u64) -> Counts {
        Counts {
            kills,
            own,
            ..Counts::default()
        }
    }

    fn judge(counts: Counts, before: &[u64], now: &[u64], complete: bool) -> OomLimit {
        OomLimit::judge(&counts, || Some((above(before, complete), above(now, complete))))
    }

    #[test]
    fn the_limit_is_the_only_one_that_was_reached() {
        assert_eq!(judge(counts(1, 1), &[1], &[1], true), OomLimit::Own);
        let ancestor = |levels| OomLimit::Ancestor { levels };
        assert_eq!(judge(counts(1, 0), &[7, 1], &[8, 1], true), ancestor(1));
        assert_eq!(judge(counts(2, 0), &[7, 1], &[7, 2], false), ancestor(2));
        assert_eq!(judge(counts(1, 0), &[7, 1], &[7, 1], true), OomLimit::Machine);
        assert_eq!(judge(counts(1, 0), &[7, 1], &[7, 1], false), OomLimit::Unknown);
        // The root was visible at one of the two times.
        let half = |complete: [bool; 2]| {
            let [before, now] = complete.map(|complete| above(&[7, 1], complete));
            OomLimit::judge(&counts(1, 0), || Some((before, now)))
        };
        assert_eq!([[true, false], [false, true]].map(half), [OomLimit::Unknown; 2]);
        // A controller was enabled or disabled above meanwhile.
        assert_eq!(judge(counts(1, 0), &[7], &[7, 1], true), OomLimit::Unknown);
        assert_eq!(OomLimit::judge(&counts(1, 0), || None), OomLimit::Unknown);
        assert_eq!(OomLimit::judge(&counts(1, 1), || None), OomLimit::Own);
    }

    #[test]
    fn of_several_limits_that_were_reached_none_is_guessed() {
        // The own limit accounts for the only kill, so another group has reached the limit above.
        assert_eq!(judge(counts(1, 1), &[1, 1], &[2, 2], true), OomLimit::Own);
        let whole = Counts {
            whole: true,
            ..counts(4, 1)
        };
        assert_eq!(judge(whole, &[1, 1], &[2, 1], true), OomLimit::Own);
        assert_eq!(judge(counts(2, 1), &[1, 1], &[1, 1], true), OomLimit::Own);
        // The limit above may account for one of the kills.
        assert_eq!(judge(counts(2, 1), &[1, 1], &[2, 1], true), OomLimit::Unknown);
        assert_eq!(OomLimit::judge(&counts(2, 2), || None), OomLimit::Unknown);
        assert_eq!(judge(counts(1, 0), &[7, 1], &[8, 2], true), OomLimit::Unknown);
    }

    #[test]
    fn a_kill_is_read_from_the_files_of_the_cgroup() {
        let read = |events: &str, local: &str, group: &str, peak: &str| {
            let files = [
                ("memory.events", events),
                ("memory.events.local", local),
                ("memory.oom.group", group),
                ("pids.peak", peak),
            ];
            let counts = with_files(&files, Counts::of)?;
            Some((counts.kills, counts.own, counts.whole, counts.single))
        };
        assert_eq!(read("oom 1\noom_kill 0\n", "", "0", "1"), None);
        let local = |count| format!("oom 1\noom_group_kill {count}\n");
        assert_eq!(
            read("oom 2\noom_kill 1\n", &local(0), "1", "1"),
            Some((1, 2, false, true))
        );
        assert_eq!(
            read("oom 2\noom_kill 3\n", &local(1), "0", "2"),
            Some((3, 2, true, false))
        );
        // Before Linux 5.17.
        for (own, local, group, whole) in [
            (0, 0, "1", true),
            (1, 0, "1", false),
            (1, 1, "1", true),
            (0, 0, "0", false),
        ] {
            let events = format!("oom {own}\noom_kill 1\n");
            let local = format!("oom {local}\n");
            assert_eq!(read(&events, &local, group, "2"), Some((1, own, whole, false)));
        }
    }

    #[test]
    fn the_only_process_and_a_whole_cgroup_are_certainly_killed() {
        let kill = |local: &str, peak: &str| {
            let files = [
                ("memory.events", "oom 1\noom_kill 1\n"),
                ("memory.events.local", local),
                ("pids.peak", peak),
            ];
            with_files(&files, |cgroup| OomKill::of(cgroup, None, || unreachable!()))
        };
        for (local, peak, is_certain) in [("", "1", true), ("oom_group_kill 1\n", "2", true), ("", "2", false)] {
            let limit = OomLimit::Own;
            assert_eq!(kill(local, peak), Some(OomKill { limit, is_certain }));
        }
    }

    #[test]
    fn the_counts_above_end_where_no_cgroup_is() {
        let files = [("memory.events.local", "oom 7\n")];
        assert_eq!(with_files(&files, Above::of), above(&[7], false));
        let root = [("cgroup.controllers", "")];
        assert_eq!(with_files(&root, Above::of), above(&[], true));
    }

    #[test]
    fn a_limit_is_shown_by_its_distance() {
        let texts = [1, 2].map(|levels| OomLimit::Ancestor { levels }.to_string());
        assert_eq!(
            texts,
            [
                "the limit of the cgroup above",
                "the limit of the cgroup 2 levels above"
            ]
        );
        assert_eq!(OomLimit::Ancestor { levels: 2 }.as_str(), "ancestor");
    }
}
