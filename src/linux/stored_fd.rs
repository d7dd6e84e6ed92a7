//! A stored descriptor, and its image.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;

use crate::codec::stored;
use crate::fdset::Token;
use crate::notify::Store;
use crate::sys::descriptors::{above_standard, is_same_open_file};

/// The stores of all instances that have any, by slot.
pub(crate) type Stores = HashMap<u32, Store<StoredFd>>;

/// A stored descriptor.
#[derive(Debug)]
pub(crate) struct StoredFd {
    pub(super) fd: OwnedFd,
    /// Its device and inode. Two descriptors of one open file have the same.
    file: (u64, u64),
    /// Its entry in the set, if it is watched.
    pub(super) token: Option<Token>,
}

/// A stored descriptor in an image.
pub(crate) struct StoredImage {
    pub(crate) slot: u32,
    pub(crate) name: Arc<str>,
    pub(crate) fd: RawFd,
    pub(crate) is_watched: bool,
}

stored!(struct StoredImage { slot, name, fd, is_watched });

impl StoredFd {
    pub(super) fn new(fd: OwnedFd) -> Result<StoredFd, Errno> {
        let fd = above_standard(fd)?;
        let found = fstat(&fd)?;
        Ok(StoredFd {
            file: (found.st_dev, found.st_ino),
            fd,
            token: None,
        })
    }

    /// Whether both refer to one open file. If the kernel cannot tell, they count as different.
    pub(super) fn is_same(&self, other: &StoredFd) -> bool {
        self.file == other.file && is_same_open_file(self.fd.as_fd(), other.fd.as_fd()).unwrap_or(false)
    }
}
