//! The limit of open descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors that a benchmark needs in addition to one for each child.
pub const ROOM: u64 = 200;

/// Raises the soft limit of open descriptors to the hard limit, and returns the soft limit.
pub fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // The kernel may refuse the new limit. The limit in force is read below in any case.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
