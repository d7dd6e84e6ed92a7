//! Files that the host sets in a cgroup.
//!
//! The kernel checks the values, so this module does not. An empty value is written as an empty line, because a write
//! of zero bytes does nothing. Files that are actions and not limits are refused: they would kill, freeze or move the
//! process that is to be started, or prevent its start.

use std::ffi::{CString, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::error::CgroupError;
use super::tree;

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

    /// Writes the value into the file of a cgroup in this directory. A lower limit of memory is in force from the next
    /// allocation on: the call does not wait until memory is reclaimed (since Linux 6.16; an older kernel waits).
    pub(super) fn write(&self, cgroup: Place<'_>, directory: Place<'_>) -> Result<(), CgroupError> {
        let name = self.checked_name()?;
        let mut line = self.value.clone();
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        tree::write_at_once(cgroup.fd, &name, &line).map_err(|errno| match errno {
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
            !tree::lists(&enabled, controller)
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
    pub(super) fn controller(&self) -> Option<&'static str> {
        let before = self.name.as_bytes().split(|&byte| byte == b'.').next()?;
        CONTROLLERS
            .iter()
            .copied()
            .find(|controller| controller.as_bytes() == before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_files;
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
            let refused = file(std::str::from_utf8(name).unwrap(), "1").check().unwrap_err();
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
    fn a_file_is_missing_because_of_its_controller_or_by_itself() {
        for (enabled, file_is_missing) in [("cpu pids\n", false), ("cpu memory\n", true)] {
            let missing = with_files(&[("cgroup.subtree_control", enabled)], |fd| {
                let path = Path::new("/cgroup");
                file("memory.max", "1")
                    .write(Place { fd, path }, Place { fd, path })
                    .unwrap_err()
            });
            let named = match &missing {
                CgroupError::NoFile { path } => file_is_missing && path == Path::new("/cgroup/memory.max"),
                CgroupError::NoController { controller, .. } => !file_is_missing && controller == "memory",
                _ => false,
            };
            assert!(named, "{missing}");
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
}
