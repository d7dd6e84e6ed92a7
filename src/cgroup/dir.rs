//! The directory for the cgroups of instances, as a value.

use std::ffi::CStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;

/// A directory of the cgroup v2 hierarchy that has been delegated to the host. Each instance can have a cgroup of its
/// own in it.
///
/// A clone shares the descriptor. Two values are equal if they refer to the same directory, even if they were opened by
/// different paths.
///
/// ```no_run
/// use pidherd::cgroup::CgroupDir;
/// use pidherd::{Command, GroupSpec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = CgroupDir::open("/sys/fs/cgroup/my-host")?;
/// let web = GroupSpec::new("web", Command::new("/usr/bin/web")).cgroup(directory);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CgroupDir {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) fd: OwnedFd,
    /// The path as it was given, for messages.
    path: PathBuf,
    identity: Identity,
    /// The name of `cgroup.kill`. Tests name a file that does not exist.
    pub(super) kill_file: &'static CStr,
}

/// The device and the inode of a directory.
pub(super) type Identity = (u64, u64);

/// The number of a device that does not exist: that of directories for simulations.
const SIMULATED: u64 = u64::MAX;

impl CgroupDir {
    pub(super) fn new(fd: OwnedFd, path: PathBuf, identity: Identity, kill_file: &'static CStr) -> CgroupDir {
        let inner = Arc::new(Inner {
            fd,
            path,
            identity,
            kill_file,
        });
        CgroupDir { inner }
    }

    /// A directory for tests that differs from others only by its number. Nothing is read or written in it.
    #[cfg(test)]
    pub(crate) fn pretended(number: u64) -> CgroupDir {
        let inner = Inner {
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            path: PathBuf::from(format!("/pretended/{number}")),
            identity: (SIMULATED, number),
            kill_file: c"cgroup.kill",
        };
        CgroupDir { inner: Arc::new(inner) }
    }

    /// A plain directory in place of one for cgroups. What is in it is no cgroup, and does not change by itself.
    #[cfg(test)]
    pub(crate) fn plain(path: &Path) -> CgroupDir {
        let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
        let identity = identity(&fd).unwrap();
        CgroupDir::new(fd, path.to_owned(), identity, c"cgroup.kill")
    }

    /// A directory for simulations. Nothing is read or written in it.
    #[cfg(all(feature = "sim", not(test)))]
    pub(crate) fn simulated(number: u64) -> std::io::Result<CgroupDir> {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null")?);
        let path = PathBuf::from(format!("/simulated/{number}"));
        Ok(CgroupDir::new(fd, path, (SIMULATED, number), c"cgroup.kill"))
    }

    /// Whether the directory exists in simulations alone.
    pub(super) fn is_simulated(&self) -> bool {
        self.inner.identity.0 == SIMULATED
    }

    /// The path as it was given, or the path from /proc if a descriptor was given. For display.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl AsRawFd for CgroupDir {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl PartialEq for CgroupDir {
    fn eq(&self, other: &CgroupDir) -> bool {
        self.inner.identity == other.inner.identity
    }
}

impl Eq for CgroupDir {}

impl Hash for CgroupDir {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.identity.hash(state);
    }
}

impl fmt::Debug for CgroupDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CgroupDir").field(&self.inner.path).finish()
    }
}

pub(super) fn identity(fd: &OwnedFd) -> Result<Identity, Errno> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
