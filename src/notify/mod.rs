//! Reports of a supervised process about itself: that it is ready, that it is still alive.
//!
//! A process that serves and a process that still reads its configuration look the same from outside. Two protocols
//! make the difference visible:
//!
//! 1. **A descriptor** ([`ReadyFd`], from s6): the child writes a newline to it when it is ready. It carries no other
//!    information, cannot be forged, and needs no library and no second process.
//! 2. **Messages** ([`NotifySocket`], systemd's sd_notify(3)): datagrams to the socket in the variable
//!    `NOTIFY_SOCKET`. They report readiness, the end of the process, watchdog signs, a longer start, and a line of
//!    status. Any process that finds the address can send messages.
//!
//! Therefore a message is accepted only from the right sender. The kernel names the sender (`SCM_CREDENTIALS`,
//! unix(7)). It must be the supervised process, a descendant of it, or a member of its cgroup; see [`Credentials`].
//! This has consequences:
//!
//! - A sender that is gone when its message is read has no ancestors any more, and is ignored, but for
//!   the supervised process itself. `systemd-notify` waits until its message was read; in scripts that
//!   send by other means, the shell's child may be too quick.
//! - A sender's number may have been given to another process by the time of the look. For that to
//!   do harm, the numbers must have gone all the way round while the message waited.
//! - A sender with CAP_SYS_ADMIN may name the pid of another process. `systemd-notify` does so as root, and names its
//!   parent.
//!
//! One socket serves all children. One for each, with an address that tells the instance, was rejected: it is one more
//! descriptor for every instance, and an address is no secret. So was
//! `SO_PASSPIDFD` (Linux 6.5), which would close the second gap by opening a descriptor for every
//! message, a stranger's too. `MAINPID=` is refused: what a child is, is known from its pidfd, and no
//! message can make the supervisor signal another process. Descriptors are not stored (`FDSTORE=1`); those
//! that come with a message are closed, which is also the answer that `BARRIER=1` waits for.
//!
//! Nothing in this module blocks. A message of a child causes no allocation, except for the path of the sender's
//! cgroup where the host asks for it.

mod notice;
mod ready;
mod sender;
mod socket;

pub(crate) use notice::watchdog_usec;
pub use notice::{Notice, Notices, ParseError, STATUS_MAX, parse};
pub use ready::{Readiness, ReadyFd};
pub use sender::Credentials;
pub use socket::{BadPath, Buffer, Counts, DATAGRAM_MAX, Datagram, NotifySocket, Received};
