//! The errors of spawns for which a cgroup could not be made, or with a child that cannot be watched.

use std::io;

use crate::cgroup::CgroupError;
use crate::command::error::Subject;
use crate::command::{Program, SpawnError, SpawnStep};

/// The error of a child that could not be added to the set.
pub(super) fn watch_failed(program: &Program, error: &io::Error) -> SpawnError {
    SpawnError::new(program.name().to_owned(), SpawnStep::Watch, errno_of(error), None)
}

/// The errno of an error, which has one if it comes from the kernel.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The error of a cgroup that could not be made for a run.
pub(super) fn cgroup_failed(program: &Program, error: &CgroupError) -> SpawnError {
    let subject = error.path().map(|path| Subject::Path(path.to_owned()));
    // What is left of an earlier run is still there. The kernel has no errno for that.
    let errno = Some(error.errno()).filter(|&errno| errno != 0).unwrap_or(libc::EBUSY);
    SpawnError::new(program.name().to_owned(), SpawnStep::Cgroup, errno, subject)
}
