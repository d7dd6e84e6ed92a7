//! Reports of a supervised process about itself, for example that it is ready or still alive.
//!
//! From outside, a process that is ready and a process that still reads its configuration look the same. Two protocols
//! show the difference:
//!
//! 1. **A descriptor** ([`ReadyFd`], from s6): the child writes a newline to it when it is ready. It carries no other
//!    information, cannot be forged, and needs no library and no second process.
//! 2. **Messages** ([`NotifySocket`], systemd's sd_notify(3)): datagrams to the socket in the variable `NOTIFY_SOCKET`.
//!    They report readiness, the end of the process, watchdog keep-alives, a longer start, and a line of status. Any
//!    process that finds the address can send messages.
//!
//! Therefore a message is accepted only from the right sender. The kernel names the sender (`SCM_CREDENTIALS`,
//! unix(7)). It must be the supervised process, a descendant of it, or a member of its cgroup; see [`Credentials`].
//! This has consequences:
//!
//! - A sender that has ended when its message is read has no known ancestors, and is ignored, unless it is the
//!   supervised process itself. `systemd-notify` waits until its message was read. In scripts that send by other means,
//!   the child of the shell can end too early.
//! - Before Linux 6.5, the number of a sender can belong to another process when its message is read. This requires that
//!   all numbers were used once while the message was queued. Since Linux 6.5 the sender is known by its pidfd
//!   (`SO_PASSPIDFD`), which is opened with each message and closed again.
//! - A sender with CAP_SYS_ADMIN can give the pid of another process. `systemd-notify` as root gives that of its
//!   parent.
//!
//! One socket serves all children. A socket for each child, with an address that identifies the instance, was rejected:
//! it takes one more descriptor for every instance, and an address is no secret. `MAINPID=` is refused: the pidfd
//! identifies the child, and no message can make the supervisor signal another process.
//!
//! A message can carry descriptors. With `FDSTORE=1` they are kept for the next run; see
//! [`GroupSpec::descriptor_store`](crate::GroupSpec::descriptor_store). With `BARRIER=1` the one descriptor is closed
//! when every earlier message was handled, and the sender waits for that. All others are closed at once.
//!
//! No call of this module blocks. A message of a child causes no allocation, except for the path of the sender's cgroup
//! if the host requests it.

mod notice;
mod ready;
mod sender;
mod socket;
mod store;
#[cfg(test)]
mod tests;

pub use notice::{DESCRIPTOR_NAME_MAX, Notice, Notices, ParseError, STATUS_MAX, is_barrier, parse};
pub(crate) use notice::{is_descriptor_name, watchdog_usec};
pub use ready::{Readiness, ReadyFd};
pub use sender::{Credentials, NotifyAccess};
pub(crate) use sender::{has_number, is_reaped, may_be_main};
pub use socket::{BadPath, Buffer, Counts, DATAGRAM_MAX, Datagram, NotifySocket, Received};
pub(crate) use store::{Entry, MOST_STORED, Refusal, Request, Store};
