//! The changes of the descriptors that a supervisor waits for.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::fdset::{Interest, Token};

/// A change that a host with a registration for each descriptor must follow
/// ([`Supervisor::next_fd_change`](crate::Supervisor::next_fd_change)).
///
/// The log is exact. An `Added` is in the set when it is taken, and its `Removed` follows when the descriptor leaves the
/// set. A descriptor that came and went between two looks of the host is not in the log. So a registration never fails
/// for a descriptor that is gone, and a deregistration never for one that was not registered.
#[derive(Debug)]
pub enum FdChange<'a> {
    /// Register this descriptor. It is open until its `Removed` is taken from the log and dropped. A loop that keeps a
    /// number (mio, io_uring, tokio's `AsyncFd`) needs no copy of it. One that owns what it waits for (async-io, calloop)
    /// takes a copy, [`BorrowedFd::try_clone_to_owned`], and drops it at `Removed`.
    Added {
        /// The descriptor.
        fd: BorrowedFd<'a>,
        /// The events to wait for.
        interest: Interest,
        /// The name for [`Supervisor::process_token`](crate::Supervisor::process_token).
        token: Token,
    },
    /// Take this descriptor out of the loop, then drop it. Its number is not used again before that.
    Removed {
        /// The name that the descriptor had.
        token: Token,
        /// The descriptor, with the same number as when it was added.
        fd: OwnedFd,
    },
}

impl FdChange<'_> {
    /// The name of the descriptor in the set.
    #[must_use]
    pub const fn token(&self) -> Token {
        match self {
            FdChange::Added { token, .. } | FdChange::Removed { token, .. } => *token,
        }
    }
}
