//! The sender of a message, and how its owner is found, for example an instance.

use std::path::Path;

use crate::exit::Pid;
use crate::procfs;

/// The sender of a message, as the kernel names it (`SCM_CREDENTIALS`, unix(7)).
///
/// The host provides a function that maps a process or a cgroup to its owner. The owner can be of any type:
/// ```
/// use pidherd::notify::{Buffer, NotifySocket, Received};
///
/// # fn main() -> std::io::Result<()> {
/// # let mut socket = NotifySocket::new()?;
/// # let instances = [(std::process::id(), "web/0", "/herd/web-0")];
/// # let mut buffer = Buffer::new();
/// let received = socket.receive(&mut buffer, |sender| {
///     let by_pid = sender.find_by_pid(|pid| {
///         let owner = instances.iter().find(|instance| instance.0 == pid.as_raw());
///         owner.map(|instance| instance.1)
///     });
///     by_pid.or_else(|| sender.find_by_cgroup(|path| {
///         let owner = instances.iter().find(|instance| path.starts_with(instance.2));
///         owner.map(|instance| instance.1)
///     }))
/// })?;
/// # assert!(matches!(received, Received::Nothing));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process id in the supervisor's own PID namespace.
    pub pid: Pid,
    /// The user id in the supervisor's own user namespace.
    pub uid: u32,
    /// The group id in the supervisor's own user namespace.
    pub gid: u32,
}

impl Credentials {
    /// Calls `owner_of` for the sender, its parent, and so on upwards, until there is a result: at most 64 generations,
    /// read from /proc. For the sender itself no file is read.
    ///
    /// `owner_of` must have results only for processes that have not been reaped. Otherwise another process that was
    /// given such a number would be taken for its predecessor. The [module](super) describes the remaining races.
    pub fn find_by_pid<T>(&self, owner_of: impl FnMut(Pid) -> Option<T>) -> Option<T> {
        procfs::lineage(self.pid).find_map(owner_of)
    }

    /// Calls `owner_of` with the sender's cgroup: its path in the unified hierarchy, relative to the root of this
    /// process's cgroup namespace, as in /proc/PID/cgroup (cgroups(7)). This also finds a process that is no descendant
    /// any more, such as a daemon. `None` without a call if the sender has ended.
    ///
    /// Allocates the path. [`Path::starts_with`] compares whole names, so it shows whether the path is a certain cgroup
    /// or one below it.
    pub fn find_by_cgroup<T>(&self, owner_of: impl FnOnce(&Path) -> Option<T>) -> Option<T> {
        owner_of(&procfs::cgroup(self.pid)?)
    }
}
