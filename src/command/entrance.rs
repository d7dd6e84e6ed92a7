//! The file through which a process enters a cgroup by itself, where the kernel cannot make it there.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{Errno, retry_on_intr};

use super::error::{SpawnError, SpawnStep, Subject};
use super::program::Compiled;
use crate::sys::nr::CGROUP2_SUPER_MAGIC;

/// Opens the file of a cgroup through which a process enters it.
pub(super) fn open_entrance(program: &Compiled, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, SpawnError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let entrance = match fstatfs(cgroup) {
        Ok(place) if place.f_type == CGROUP2_SUPER_MAGIC => {
            retry_on_intr(|| openat(cgroup, c"cgroup.procs", flags, Mode::empty()))
        }
        // clone3 fails with the same errno.
        Ok(_) => Err(Errno::BADF),
        Err(errno) => Err(errno),
    };
    entrance.map_err(|errno| {
        let subject = Subject::Path(path_of(cgroup));
        program.parent_error(SpawnStep::Cgroup, errno.raw_os_error(), Some(subject))
    })
}

/// The path of an open directory, for a message.
pub(super) fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    let link = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    std::fs::read_link(&link).unwrap_or(link)
}
