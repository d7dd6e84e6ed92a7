//! Which instance the sender of a message belongs to.

use std::path::Path;

use crate::exit::Pid;
use crate::procfs;

/// The sender of a message, as the kernel names it (`SCM_CREDENTIALS`, unix(7)).
///
/// The two ways to find its owner, such as an instance, take a function that tells what the host knows:
///
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
    /// The process, by its number in the own PID namespace.
    pub pid: Pid,
    /// Its user id, as the own user namespace sees it.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Credentials {
    /// Asks for the sender, its parent, and so on upwards, until there is an answer: at most 64
    /// generations, read from /proc. The sender itself costs no look at /proc.
    ///
    /// `whose` must know only processes that have not been reaped, or it answers for other processes
    /// that have their numbers now. See the [module](super) for the races that remain.
    pub fn find_by_pid<T>(&self, whose: impl FnMut(Pid) -> Option<T>) -> Option<T> {
        procfs::lineage(self.pid).find_map(whose)
    }

    /// Asks for the sender's cgroup: its path in the unified hierarchy, seen from the root of the own
    /// cgroup namespace, as /proc/PID/cgroup has it (cgroups(7)). This also finds a process without a
    /// parent, such as a daemon. `None` without asking if the sender is gone.
    ///
    /// Allocates the path. [`Path::starts_with`] compares by whole names, and so tells whether it is a
    /// certain cgroup or one below it.
    pub fn find_by_cgroup<T>(&self, whose: impl FnOnce(&Path) -> Option<T>) -> Option<T> {
        whose(&procfs::cgroup(self.pid)?)
    }
}
