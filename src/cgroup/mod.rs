//! Control of a whole tree of processes by one handle: a cgroup for each instance.
//!
//! A process leaves its process group when it calls `setsid`, and its parent when it is forked twice. It does not leave
//! its cgroup (cgroups(7), version 2): a process that is started in a cgroup stays in it with all its descendants, and
//! the kernel reports when the last of them has ended. So only this scope certainly contains all processes of an
//! instance.
//!
//! The module uses three files of the kernel. `cgroup.kill` (Linux 5.14) kills all processes of the subtree, including
//! those that are forked meanwhile. `cgroup.events` shows whether a process is alive there, and an epoll reports its
//! changes. `cgroup.procs` lists the processes, for all other signals. The files are opened relative to directory
//! descriptors and never by paths, because another file system can be mounted over a path between two calls.
//!
//! A number from `cgroup.procs` can belong to another process when it is used. So first a pidfd of that number is
//! opened, and then the list is read once more. A signal through the pidfd reaches the process of the pidfd or no
//! process. A process that it reaches has had its number since the pidfd was opened, so it is the process in the list.
//! Where a filter refuses such signals, kill(2) is called right after the pidfd has shown that the process has not
//! ended.
//!
//! The host chooses the directory ([`CgroupDir`]). It is *delegated*: an administrator or a service manager has made
//! it, and does not change it from then on. Choosing a directory automatically, or moving the host to another cgroup,
//! was rejected, because another program may manage the cgroups of the machine. The host writes limits for all
//! instances together to the files of the directory. A supervisor makes a new cgroup for each run, so limits for each
//! run are a part of the group's description ([`GroupSpec::limits`](crate::GroupSpec::limits)). The supervisor writes
//! them before the program starts, and enables the controllers that they need in the `cgroup.subtree_control` of the
//! directory. It changes no cgroup above the directory. Processes are not moved into a cgroup by their numbers, because
//! a process that is forked before the move would stay outside. A child is created in its cgroup (CLONE_INTO_CGROUP,
//! Linux 5.7), or enters it before its program runs.
//!
//! No call of this module blocks, except while another process holds the kernel's cgroup lock. A killed process takes
//! some time to end, so [`Cgroup::kill`] returns before its processes have ended.
//!
//! ```no_run
//! use pidherd::cgroup::{Cgroup, CgroupDir};
//! use pidherd::fdset::{FdSet, Interest};
//! use std::os::fd::AsFd;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = CgroupDir::open("/sys/fs/cgroup/my-service")?;
//! let leaf = dir.leaf("web-0")?;
//! // ... start something in leaf.fd() ...
//! let mut set = FdSet::new()?;
//! let events = leaf.events()?;
//! let token = set.add(events.as_fd(), Interest::PRIORITY)?;
//! leaf.kill()?;
//! // ... when the set says that `token` is ready:
//! if !Cgroup::acknowledge(&events)? {
//!     set.remove(token, events)?;
//!     leaf.remove()?;
//! }
//! # Ok(())
//! # }
//! ```

pub(crate) use changes::changes;
pub use dir::CgroupDir;
pub use error::CgroupError;
pub(crate) use files::CgroupFile;
pub use leaf::Cgroup;
pub use limits::{IoMax, Limits};
pub(crate) use oom::{Above, OomKill};
pub use oom::{OomLimit, OomLimitName};
pub use usage::CgroupUsage;

mod changes;
mod dir;
mod error;
mod files;
mod leaf;
mod limits;
mod members;
mod name;
mod oom;
mod open;
#[cfg(test)]
mod tests;
mod tree;
mod usage;
