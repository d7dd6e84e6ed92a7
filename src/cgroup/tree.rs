//! The files of one cgroup, and a walk through the cgroups below it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use crate::sys::descriptors::above_standard;

/// The most that the kernel returns of a small file at a time.
const PAGE: usize = 4096;

pub(super) const FREEZE: &CStr = c"cgroup.freeze";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory by a path of the host. Symbolic links are followed.
pub(super) fn open_path(at: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    above_standard(retry_on_intr(|| openat(at, path, DIRECTORY, Mode::empty()))?)
}

/// Opens a directory in another.
pub(super) fn open(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    above_standard(retry_on_intr(|| openat(at, name, flags, Mode::empty()))?)
}

/// Opens a file of a cgroup for reading.
pub(super) fn open_file(cgroup: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    above_standard(retry_on_intr(|| openat(cgroup, name, flags, Mode::empty()))?)
}

/// The content of a small file of a cgroup.
pub(super) fn read(cgroup: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    let file = open_file(cgroup, name)?;
    let mut content = vec![0; PAGE];
    let length = retry_on_intr(|| rustix::io::read(&file, &mut content[..]))?;
    content.truncate(length);
    Ok(content)
}

/// The content of a file of any length.
pub(super) fn read_whole(cgroup: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    let file = open_file(cgroup, name)?;
    let mut content = Vec::new();
    let mut part = vec![0; PAGE];
    loop {
        match retry_on_intr(|| rustix::io::read(&file, &mut part[..]))? {
            0 => return Ok(content),
            length => content.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
}

/// Writes to a file of a cgroup. The kernel accepts the whole content or nothing.
pub(super) fn write(cgroup: BorrowedFd<'_>, name: &CStr, content: &[u8]) -> Result<(), Errno> {
    write_with(cgroup, name, content, OFlags::empty())
}

/// Does the same without work that the kernel can put off, such as the reclaim of memory.
pub(super) fn write_at_once(cgroup: BorrowedFd<'_>, name: &CStr, content: &[u8]) -> Result<(), Errno> {
    write_with(cgroup, name, content, OFlags::NONBLOCK)
}

fn write_with(cgroup: BorrowedFd<'_>, name: &CStr, content: &[u8], flags: OFlags) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | flags;
    let file = retry_on_intr(|| openat(cgroup, name, flags, Mode::empty()))?;
    match retry_on_intr(|| rustix::io::write(&file, content))? {
        written if written == content.len() => Ok(()),
        // The kernel accepts at most a page.
        _ => Err(Errno::FBIG),
    }
}

/// Whether the directory has this file.
pub(super) fn has(cgroup: BorrowedFd<'_>, name: &CStr) -> bool {
    statat(cgroup, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Whether a list of controllers has this one.
pub(super) fn lists(content: &[u8], controller: &str) -> bool {
    content
        .split(u8::is_ascii_whitespace)
        .any(|name| name == controller.as_bytes())
}

/// Makes a cgroup in another.
pub(super) fn make(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    retry_on_intr(|| mkdirat(parent, name, Mode::from_raw_mode(0o755)))
}

/// Removes a cgroup in another.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    retry_on_intr(|| unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Whether a `cgroup.events` with this content reports a populated cgroup.
pub(super) fn is_populated(content: &[u8]) -> io::Result<bool> {
    let mut lines = content.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"populated "));
    match value {
        Some(value) => Ok(value != b"0"),
        None => {
            let error = "not the cgroup.events of a cgroup";
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}

/// Whether this cgroup or one above it has a `cgroup.freeze` of 1.
///
/// The `frozen` of `cgroup.events` is not used: if processes end while their tree is being thawed, it stays 1, although
/// processes in the cgroup run (seen on Linux 6.18).
pub(super) fn is_frozen(cgroup: BorrowedFd<'_>) -> io::Result<bool> {
    let mut above;
    let mut here = cgroup;
    loop {
        match read(here, FREEZE) {
            Ok(content) if content.starts_with(b"0") => {}
            Ok(_) => return Ok(true),
            // The root cgroup cannot be frozen, and the directory above its mount point is no cgroup.
            Err(Errno::NOENT | Errno::NODEV) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        above = open(here, c"..")?;
        here = above.as_fd();
    }
}

/// Freezes a cgroup, or thaws it. Does nothing before Linux 5.2, or if the cgroup was removed.
pub(super) fn freeze(cgroup: BorrowedFd<'_>, frozen: bool) -> io::Result<()> {
    match write(cgroup, FREEZE, if frozen { b"1" } else { b"0" }) {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Disables all controllers that are enabled for child cgroups. There must be no child cgroup.
pub(super) fn disable_controllers(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    const FILE: &CStr = c"cgroup.subtree_control";
    let enabled = match read(cgroup, FILE) {
        Ok(enabled) => enabled,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut request = Vec::new();
    for controller in enabled.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty()) {
        request.extend_from_slice(b"-");
        request.extend_from_slice(controller);
        request.push(b' ');
    }
    if request.is_empty() {
        return Ok(());
    }
    Ok(write(cgroup, FILE, &request)?)
}

/// Removes every cgroup below this one. `EBUSY` if a process is alive in one of them.
pub(super) fn remove_below(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let leave = |parent: BorrowedFd<'_>, name: &CStr| match remove(parent, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    };
    walk(cgroup, |_| Ok(()), leave)
}

/// Calls `enter` with the cgroup and each one below it, from the top down, and `leave` with each one below it, from the
/// bottom up, as a name in its parent. Cgroups that are removed meanwhile are skipped.
///
/// The walk returns to a parent through `..`, and keeps one directory open at a time: the program in the cgroup
/// determines the depth, and must not be able to exhaust the descriptors or the stack of the host. Cgroups cannot be
/// moved in this file system, so `..` is the parent. Each directory is listed once, so the walk ends even if new
/// cgroups are made meanwhile.
pub(super) fn walk(
    cgroup: BorrowedFd<'_>,
    mut enter: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<()>,
) -> io::Result<()> {
    let mut here = match open(cgroup, c".") {
        // Removed.
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    enter(here.as_fd())?;
    let mut levels = vec![Level::of(here.as_fd(), CString::default())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            here = match open(here.as_fd(), &name) {
                Err(Errno::NOENT) => continue,
                opened => opened?,
            };
            enter(here.as_fd())?;
            levels.push(Level::of(here.as_fd(), name)?);
        } else if let Some(done) = levels.pop().filter(|_| !levels.is_empty()) {
            here = open(here.as_fd(), c"..")?;
            leave(here.as_fd(), &done.name)?;
        }
    }
    Ok(())
}

/// A cgroup on the path from the top to the current cgroup.
struct Level {
    name: CString,
    /// The child cgroups that have not been entered.
    below: Vec<CString>,
}

impl Level {
    fn of(cgroup: BorrowedFd<'_>, name: CString) -> io::Result<Level> {
        let mut below = Vec::new();
        let mut listing = match Dir::read_from(cgroup) {
            Err(Errno::NOENT) => return Ok(Level { name, below }),
            opened => opened?,
        };
        while let Some(entry) = listing.read() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                below.push(name.to_owned());
            }
        }
        Ok(Level { name, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_line_counts() {
        assert!(is_populated(b"populated 1\nfrozen 0\n").unwrap());
        assert!(!is_populated(b"xpopulated 1\npopulated 0\nfrozen 1\n").unwrap());
        for broken in [&b""[..], b"populated", b"populated1", b"frozen 1\n"] {
            let error = is_populated(broken).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
