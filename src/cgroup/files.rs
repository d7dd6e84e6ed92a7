//! Files that the host sets in a cgroup, and the usage that the kernel counts in a cgroup.
//!
//! The kernel checks the values, so this module does not. An empty value is written as an empty line, because a write
//! of zero bytes does nothing. Files that are actions and not limits are refused: they would kill, freeze or move the
//! process that is to be started, or prevent its start.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str;
use std::time::Duration;

use rustix::io::Errno;

use super::error::CgroupError;
use super::tree;

use crate::codec::stored;

/// The controllers of version 2. The names of their files begin with these (cgroups(7)).
const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuset",
    "dmem",
    "hugetlb",
    "io",
    "memory",
    "misc",
    "perf_event",
    "pids",
    "rdma",
];

/// Files of every cgroup that are actions, and the reason why each is refused.
const ACTIONS: &[(&[u8], &str)] = &[
    (b"cgroup.procs", "it moves processes"),
    (b"cgroup.threads", "it moves threads"),
    (b"cgroup.kill", "it kills what is there"),
    (b"cgroup.freeze", "a program in a frozen cgroup does not start"),
    (b"cgroup.type", "a threaded cgroup can hold no process"),
    (
        b"cgroup.subtree_control",
        "a cgroup with controllers for its children can hold no process",
    ),
];

/// A directory and its path.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub fd: BorrowedFd<'a>,
    pub path: &'a Path,
}

/// A file of a cgroup, and the value to write into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupFile {
    pub(crate) name: OsString,
    pub(crate) value: Vec<u8>,
}

impl CgroupFile {
    /// Checks whether a file can have this name and may be written. It does not check whether the file exists.
    pub(crate) fn check(&self) -> Result<(), CgroupError> {
        self.checked_name().map(drop)
    }

    fn checked_name(&self) -> Result<CString, CgroupError> {
        let bytes = self.name.as_bytes();
        let action = ACTIONS.iter().find(|(action, _)| *action == bytes);
        let why = match (bytes, action) {
            (_, Some((_, why))) => why,
            (b"" | b"." | b"..", _) => "it names no file",
            _ if bytes.contains(&b'/') => "it contains a slash",
            _ if bytes.contains(&0) => "it contains a NUL byte",
            _ => return CString::new(bytes).map_err(|_| self.refused("it contains a NUL byte")),
        };
        Err(self.refused(why))
    }

    fn refused(&self, why: &'static str) -> CgroupError {
        CgroupError::FileName {
            name: self.name.clone(),
            why,
        }
    }

    /// Writes the value into the file of a cgroup in this directory.
    pub(super) fn write(&self, cgroup: Place<'_>, directory: Place<'_>) -> Result<(), CgroupError> {
        let name = self.checked_name()?;
        let mut line = self.value.clone();
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        tree::write(cgroup.fd, &name, &line).map_err(|errno| match errno {
            Errno::NOENT => self.missing(cgroup, directory),
            errno => CgroupError::File {
                path: cgroup.path.join(&self.name),
                value: String::from_utf8_lossy(&self.value).into_owned(),
                errno: errno.raw_os_error(),
            },
        })
    }

    /// The reason why a cgroup has no such file.
    fn missing(&self, cgroup: Place<'_>, directory: Place<'_>) -> CgroupError {
        let controller = self.controller().filter(|controller| {
            let enabled = tree::read(directory.fd, c"cgroup.subtree_control").unwrap_or_default();
            !enabled
                .split(u8::is_ascii_whitespace)
                .any(|name| name == controller.as_bytes())
        });
        match controller {
            Some(controller) => CgroupError::NoController {
                path: directory.path.to_owned(),
                controller: controller.to_owned(),
            },
            None => CgroupError::NoFile {
                path: cgroup.path.join(&self.name),
            },
        }
    }

    /// The controller that the file belongs to, if the part before the first dot names a known one.
    fn controller(&self) -> Option<&'static str> {
        let before = self.name.as_bytes().split(|&byte| byte == b'.').next()?;
        CONTROLLERS
            .iter()
            .copied()
            .find(|controller| controller.as_bytes() == before)
    }
}

/// The resources that the processes of a cgroup have used together, including the processes that have ended
/// ([`Cgroup::usage`](super::Cgroup::usage)). A field is `None` where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupUsage {
    /// CPU time, from `cpu.stat`. It is available in every cgroup, even without the cpu controller.
    pub cpu: Option<Duration>,
    /// The part of the CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// The part of the CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// The largest amount of memory in use at one time, in bytes, including file caches: `memory.peak` of the memory
    /// controller (Linux 5.19).
    pub memory_peak: Option<u64>,
    /// The largest number of processes and threads at one time: `pids.peak` of the pids controller (Linux 6.1).
    pub pids_peak: Option<u64>,
}

impl CgroupUsage {
    pub(super) fn of(cgroup: BorrowedFd<'_>) -> CgroupUsage {
        let cpu = tree::read(cgroup, c"cpu.stat").unwrap_or_default();
        let time = |key| number_after(&cpu, key).map(Duration::from_micros);
        CgroupUsage {
            cpu: time("usage_usec"),
            cpu_user: time("user_usec"),
            cpu_system: time("system_usec"),
            memory_peak: number_in(cgroup, c"memory.peak"),
            pids_peak: number_in(cgroup, c"pids.peak"),
        }
    }
}

fn number_in(cgroup: BorrowedFd<'_>, file: &CStr) -> Option<u64> {
    let content = tree::read(cgroup, file).ok()?;
    str::from_utf8(&content).ok()?.trim().parse().ok()
}

/// The number after a key in a file of lines with a key and a number each.
fn number_after(content: &[u8], key: &str) -> Option<u64> {
    let text = str::from_utf8(content).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

stored!(struct CgroupUsage { cpu, cpu_user, cpu_system, memory_peak, pids_peak });

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, value: &str) -> CgroupFile {
        CgroupFile {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_file_that_is_an_action_is_refused_by_name() {
        for (name, _) in ACTIONS {
            let refused = file(str::from_utf8(name).unwrap(), "1").check().unwrap_err();
            assert!(matches!(refused, CgroupError::FileName { .. }), "{refused}");
        }
        for name in ["", ".", "..", "../memory.max", "a/b", "memory\0max"] {
            let refused = file(name, "1").check().unwrap_err();
            assert_eq!(refused.errno(), libc::EINVAL, "{refused}");
        }
        for name in ["memory.max", "cgroup.max.depth", "io.bfq.weight", "of.a.later.kernel"] {
            file(name, "").check().unwrap();
        }
    }

    #[test]
    fn the_controller_is_the_name_before_the_first_dot() {
        for (name, controller) in [
            ("memory.swap.max", Some("memory")),
            ("cpuset.cpus", Some("cpuset")),
            ("cpu.max", Some("cpu")),
            ("cgroup.max.depth", None),
            ("memory", Some("memory")),
            ("mem.max", None),
        ] {
            assert_eq!(file(name, "").controller(), controller, "{name}");
        }
    }

    #[test]
    fn a_number_is_found_by_the_whole_key() {
        let content = b"nr_usage_usec 3\nusage_usec 12\nuser_usec x\nsystem_usec\n";
        assert_eq!(number_after(content, "usage_usec"), Some(12));
        for key in ["usec", "user_usec", "system_usec", "usage", ""] {
            assert_eq!(number_after(content, key), None, "{key}");
        }
    }
}
