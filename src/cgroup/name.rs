//! The names that a cgroup can have.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::CgroupError;

/// The kernel accepts longer names, but the C library cannot list them.
const LONGEST: usize = 255;

/// The part before the first dot in the names of the kernel's own files. Controllers that are not enabled, and those of
/// version 1, are included: a controller that is enabled later must not find its file's name taken.
const RESERVED: &[&[u8]] = &[
    b"cgroup",
    b"blkio",
    b"cpu",
    b"cpuacct",
    b"cpuset",
    b"devices",
    b"dmem",
    b"freezer",
    b"hugetlb",
    b"io",
    b"irq",
    b"memory",
    b"misc",
    b"net_cls",
    b"net_prio",
    b"perf_event",
    b"pids",
    b"rdma",
];

/// Converts the name for the kernel, if the name is possible.
pub(super) fn checked(name: &OsStr) -> Result<CString, CgroupError> {
    let refused = |why| CgroupError::Name {
        name: name.to_owned(),
        why,
    };
    match wrong_with(name.as_bytes()) {
        Some(why) => Err(refused(why)),
        None => CString::new(name.as_bytes()).map_err(|_| refused("it contains a NUL byte")),
    }
}

pub(super) fn as_os_str(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

fn wrong_with(name: &[u8]) -> Option<&'static str> {
    let before_dot = name
        .iter()
        .position(|&byte| byte == b'.')
        .and_then(|dot| name.get(..dot));
    match name {
        b"" => Some("it is empty"),
        b"." | b".." => Some("it stands for another directory"),
        _ if name.contains(&b'/') => Some("it contains a slash"),
        _ if name.contains(&b'\n') => Some("it contains a line feed"),
        _ if name.len() > LONGEST => Some("it is longer than 255 bytes"),
        _ if before_dot.is_some_and(|prefix| RESERVED.contains(&prefix)) => Some("the kernel has files of such names"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a/",
            "a\nb",
            "a\0b",
            "cgroup.procs",
            "cgroup.",
            "cpu.burner",
            "memory.max.old",
            "io.x",
            &long,
        ] {
            let error = checked(OsStr::new(name)).unwrap_err();
            assert!(
                matches!(&error, CgroupError::Name { name: refused, .. } if refused == name),
                "{name:?}"
            );
        }
    }

    #[test]
    fn names_that_are_taken() {
        let long = "x".repeat(255);
        for name in [
            "a", "web-0", "...", ".a", "a.b", "cgroup", "cpu", "cpus.1", "a b", "ä", &long,
        ] {
            assert_eq!(as_os_str(&checked(OsStr::new(name)).unwrap()), name);
        }
        assert!(checked(OsStr::from_bytes(b"\xff")).is_ok());
    }
}
