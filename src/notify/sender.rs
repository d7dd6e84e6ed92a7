//! The sender of a message, and how its owner is found, for example an instance.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::codec::stored;
use crate::exit::Pid;
use crate::procfs;
use crate::sys::datagram::SenderProcess;
use crate::sys::process::send_signal;

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
#[non_exhaustive]
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
    ///
    /// ```
    /// # use pidherd::notify::{Buffer, NotifySocket, Received};
    /// # use std::os::linux::net::SocketAddrExt;
    /// # use std::os::unix::ffi::OsStrExt;
    /// # use std::os::unix::net::{SocketAddr, UnixDatagram};
    /// # let mut socket = NotifySocket::new()?;
    /// # let name = socket.address().as_bytes().strip_prefix(b"@").ok_or("it is abstract")?;
    /// # UnixDatagram::unbound()?.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name)?)?;
    /// let running = [(std::process::id(), "web")];
    /// let owner_of = |pid: pidherd::Pid| {
    ///     running.iter().find(|(number, _)| *number == pid.as_raw()).map(|(_, name)| *name)
    /// };
    /// let mut buffer = Buffer::new();
    /// let received = socket.receive(&mut buffer, |sender| sender.find_by_pid(owner_of))?;
    /// assert!(matches!(received, Received::Message(message) if message.owner == "web"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find_by_pid<T>(&self, owner_of: impl FnMut(Pid) -> Option<T>) -> Option<T> {
        procfs::lineage(self.pid).find_map(owner_of)
    }

    /// Calls `owner_of` with the sender's cgroup: its path in the unified hierarchy, relative to the root of this
    /// process's cgroup namespace, as in /proc/PID/cgroup (cgroups(7)). This also finds a process that is no descendant
    /// any more, such as a daemon. `None` without a call if the sender has ended.
    ///
    /// Allocates the path. [`Path::starts_with`] compares whole names, so it shows whether the path is a certain cgroup
    /// or one below it.
    ///
    /// ```
    /// # use pidherd::notify::{Buffer, NotifySocket, Received};
    /// # use std::os::linux::net::SocketAddrExt;
    /// # use std::os::unix::ffi::OsStrExt;
    /// # use std::os::unix::net::{SocketAddr, UnixDatagram};
    /// # let mut socket = NotifySocket::new()?;
    /// # let name = socket.address().as_bytes().strip_prefix(b"@").ok_or("it is abstract")?;
    /// # UnixDatagram::unbound()?.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name)?)?;
    /// let mut buffer = Buffer::new();
    /// let received = socket.receive(&mut buffer, |sender| {
    ///     sender.find_by_cgroup(|path| path.starts_with("/my-service/web-0").then_some("web"))
    /// })?;
    /// // The sender is in another cgroup.
    /// assert!(matches!(received, Received::Ignored));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find_by_cgroup<T>(&self, owner_of: impl FnOnce(&Path) -> Option<T>) -> Option<T> {
        owner_of(&procfs::cgroup(self.pid)?)
    }
}

/// The processes with messages that count for an instance (`NotifyAccess=` in systemd.service(5)).
///
/// A message of another process is dropped and counted
/// ([`Counts::unknown_senders`](super::Counts::unknown_senders)). A [barrier](super::Notice::Barrier) works for every
/// sender.
///
/// ```
/// use pidherd::notify::NotifyAccess;
/// use pidherd::{Command, GroupSpec};
///
/// let web = GroupSpec::new("web", Command::new("/usr/bin/web"))
///     .notify_socket(true)
///     .notify_access(NotifyAccess::Main);
/// assert_eq!(NotifyAccess::default(), NotifyAccess::All);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum NotifyAccess {
    /// No process: every message is dropped.
    None,
    /// The main process of the run, which the supervisor has started.
    Main,
    /// The main process, its children, their children and so on. A process whose parent has ended is no descendant any
    /// more.
    Descendants,
    /// The default: the descendants, and every process in the [cgroup](crate::GroupSpec::cgroup) of the run, such as a
    /// daemon. Without a cgroup it is the same as [`NotifyAccess::Descendants`].
    #[default]
    All,
}

/// Whether the process of a sender still has its number; `None` if the kernel does not tell.
pub(crate) fn has_number(process: &SenderProcess) -> Option<bool> {
    match process {
        SenderProcess::Unknown => None,
        SenderProcess::Gone => Some(false),
        SenderProcess::Pidfd(pidfd) => Some(!is_reaped(pidfd.as_fd())),
    }
}

/// Whether a sender can be the main process with the same number. Another parent than the supervisor may have reaped the
/// main process, and its end was not handled yet. Then another process may have got its number.
///
/// If one of the two was reaped and the other one was not, they are two processes. If both were reaped, the message may be
/// the last one of the main process. The sender is asked after the main process: one that has its number after the main
/// process was reaped is another one.
pub(crate) fn may_be_main(main_is_reaped: impl Fn() -> bool, has_number: impl FnOnce() -> Option<bool>) -> bool {
    let was_reaped = main_is_reaped();
    match has_number() {
        None => true,
        Some(true) => !was_reaped,
        // The two may be one process that was reaped in between.
        Some(false) => was_reaped || main_is_reaped(),
    }
}

/// Whether the process of a pidfd was reaped. If the kernel does not tell, it was not.
pub(crate) fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    let probe = send_signal(pidfd, 0, false);
    probe.err().and_then(|error| error.raw_os_error()) == Some(libc::ESRCH)
}

stored!(enum NotifyAccess { 0 = None, 1 = Main, 2 = Descendants, 3 = All });

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::may_be_main;

    #[test]
    fn a_sender_with_the_number_of_a_reaped_main_process_is_another_process() {
        assert!(!may_be_main(|| true, || Some(true)));
        assert!(!may_be_main(|| false, || Some(false)));
        assert!(may_be_main(|| false, || Some(true)));
        // The last message of the main process.
        assert!(may_be_main(|| true, || Some(false)));
        // The kernel does not tell.
        assert!(may_be_main(|| true, || None));
        assert!(may_be_main(|| false, || None));
    }

    #[test]
    fn a_main_process_that_is_reaped_during_the_look_may_be_the_sender() {
        let is_reaped = Cell::new(false);
        let reap = || {
            is_reaped.set(true);
            Some(false)
        };
        assert!(may_be_main(|| is_reaped.get(), reap));
    }
}
