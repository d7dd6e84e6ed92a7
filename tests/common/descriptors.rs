//! The test's own descriptors: a process without a free one, and what /proc tells about them.

use std::os::fd::AsRawFd;

use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior};
use rustix::process::{getrlimit, set_dumpable_behavior, setrlimit};

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

/// Lets a test look at its own /proc/self/fdinfo. While a spawn is in flight the process is not dumpable, and before
/// Linux 5.14 only root can read these files then.
pub fn readable<T>(look: impl FnOnce() -> T) -> T {
    let before = dumpable_behavior().unwrap();
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    let seen = look();
    if before == DumpableBehavior::NotDumpable {
        set_dumpable_behavior(before).unwrap();
    }
    seen
}
