//! A process without a free descriptor.

use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows no descriptor more than there are now, until it is dropped.
pub struct NoDescriptors(Rlimit);

impl NoDescriptors {
    pub fn left() -> NoDescriptors {
        let before = getrlimit(Resource::Nofile);
        // The lowest free number is the next one.
        let used = rustix::io::dup(std::io::stdin()).unwrap().as_raw_fd() as u64;
        let current = Some(used);
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        NoDescriptors(before)
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}
