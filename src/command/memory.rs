//! Whether a cgroup has a limit of memory (cgroup v2).
//!
//! When a cgroup is out of memory, the kernel kills a process in it, together with every process that shares its
//! memory. A child in flight shares the memory of the host. It is already in its cgroup while execve copies the
//! arguments, which count there, so a small limit would kill the host. The kernel does not kill a child of vfork(2)
//! (since Linux 4.9), and its execve fails instead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{Errno, read, retry_on_intr};

use crate::sys::nr::CGROUP2_SUPER_MAGIC;

/// The largest number of levels that are checked.
const DEEPEST: usize = 64;

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

const READING: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// Whether this cgroup, or one above it, has a limit of memory. `true` also if a limit cannot be read.
pub(super) fn is_limited(cgroup: BorrowedFd<'_>) -> bool {
    let mut above: Option<OwnedFd> = None;
    for _ in 0..DEEPEST {
        let here = above.as_ref().map_or(cgroup, |above| above.as_fd());
        match has_limit(here) {
            Ok(false) => {}
            Ok(true) | Err(_) => return true,
        }
        let Ok(parent) = openat(here, c"..", PATH, Mode::empty()) else {
            return true;
        };
        if fstatfs(&parent).is_ok_and(|place| place.f_type != CGROUP2_SUPER_MAGIC) {
            return false;
        }
        above = Some(parent);
    }
    true
}

/// Whether this cgroup has a limit of its own. The file does not exist where the controller is not enabled, and in the
/// root cgroup.
fn has_limit(cgroup: BorrowedFd<'_>) -> Result<bool, Errno> {
    let file = match retry_on_intr(|| openat(cgroup, c"memory.max", READING, Mode::empty())) {
        Err(Errno::NOENT) => return Ok(false),
        file => file?,
    };
    let mut text = [0; 8];
    let length = retry_on_intr(|| read(&file, &mut text))?;
    Ok(text.get(..length) != Some(b"max\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// The search upwards ends at the first directory outside of cgroup v2, so any other directory stands for the
    /// highest cgroup.
    #[test]
    fn a_number_is_a_limit() {
        let place = std::env::temp_dir().join(format!("pidherd-memory-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let directory = File::open(&place).unwrap();
        let limited = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(place.join("memory.max"), text).unwrap();
            }
            is_limited(directory.as_fd())
        };
        let answers = [
            None,
            Some("max\n"),
            Some("65536\n"),
            Some("9223372036854771712\n"),
            Some(""),
        ]
        .map(limited);
        let file = is_limited(File::open(place.join("memory.max")).unwrap().as_fd());
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!((answers, file), ([false, false, true, true, true], true));
    }
}
