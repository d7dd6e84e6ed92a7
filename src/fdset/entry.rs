//! One entry of a set: a descriptor, the events to wait for, and the name.

use std::os::fd::RawFd;

use bitflags::bitflags;

/// The name of one entry of one [`FdSet`](super::FdSet). A name is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(super) slot: u32,
    /// Counts the entries that the slot has held; the first is 1.
    pub(super) generation: u32,
}

impl Token {
    /// The token as a number, for `epoll_event.data` or an io_uring's `user_data`.
    ///
    /// It is at least 2^32: a host can use smaller numbers for its own descriptors in the same loop.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The index of the entry's slot: small, and unique among the present entries.
    pub(crate) const fn index(self) -> usize {
        self.slot as usize
    }

    /// The token for a number from [`Token::to_raw`]. Any other number gives a token of no entry, and every call
    /// refuses it.
    ///
    /// ```
    /// # use pidherd::fdset::{FdSet, Interest, Token};
    /// # use std::os::fd::AsFd;
    /// # let (reader, _writer) = std::os::unix::net::UnixStream::pair()?;
    /// # let mut set = FdSet::new()?;
    /// # let token = set.add(reader.as_fd(), Interest::READ)?;
    /// // The data of an event of epoll or io_uring.
    /// let user_data: u64 = token.to_raw();
    /// assert_eq!(Token::from_raw(user_data), token);
    /// // A number of the host's own is no token of the set.
    /// assert!(set.get(Token::from_raw(7)).is_none());
    /// # set.remove(token, reader.into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn from_raw(raw: u64) -> Token {
        Token {
            slot: raw as u32,
            generation: (raw >> 32) as u32,
        }
    }
}

bitflags! {
    /// The events that an entry waits for. Errors and hangups are always reported too (epoll_ctl(2)).
    ///
    /// The bits are those of epoll and poll, so they need no translation there. Crates with a type of their own need one
    /// line:
    ///
    /// | crate | the flags of an `interest` |
    /// |---|---|
    /// | rustix, epoll | `EventFlags::from_bits_retain(interest.bits())` |
    /// | rustix, poll | `PollFlags::from_bits_retain(interest.bits() as u16)` |
    /// | io-uring | `PollAdd::new(fd, interest.bits())` |
    /// | mio, tokio | `if interest.is_priority() { Interest::PRIORITY } else { Interest::READABLE }` |
    /// | polling | `Event::new(key, interest.is_readable(), interest.is_writable()).with_priority()` |
    ///
    /// The entries of a supervisor have either `READ` or `PRIORITY` (for the cgroups of runs).
    /// No entry has `WRITE`.
    /// ```
    /// use pidherd::fdset::Interest;
    /// use rustix::event::{PollFlags, epoll::EventFlags};
    ///
    /// let interest = Interest::READ;
    /// assert!(interest.is_readable() && !interest.is_writable() && !interest.is_priority());
    /// assert_eq!(EventFlags::from_bits_retain(interest.bits()), EventFlags::IN);
    /// assert_eq!(PollFlags::from_bits_retain(interest.bits() as u16), PollFlags::IN);
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Interest: u32 {
        /// `EPOLLIN`: the descriptor can be read; of a pidfd: the process has ended.
        const READ = libc::EPOLLIN as u32;
        /// `EPOLLOUT`: the descriptor can be written.
        const WRITE = libc::EPOLLOUT as u32;
        /// `EPOLLPRI`: an exceptional condition; of a cgroup's `cgroup.events`: the file has changed.
        const PRIORITY = libc::EPOLLPRI as u32;
    }
}

impl Interest {
    /// Whether [`Interest::READ`] is set.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.contains(Interest::READ)
    }

    /// Whether [`Interest::WRITE`] is set.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.contains(Interest::WRITE)
    }

    /// Whether [`Interest::PRIORITY`] is set.
    #[must_use]
    pub const fn is_priority(self) -> bool {
        self.contains(Interest::PRIORITY)
    }
}

/// One descriptor of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Entry {
    /// The descriptor's number. It is open at least until the entry is removed.
    pub fd: RawFd,
    /// The events to wait for.
    pub interest: Interest,
    /// The entry's name in the set.
    pub token: Token,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interest_has_no_flag_but_its_own() {
        let all = [Interest::READ, Interest::WRITE, Interest::PRIORITY];
        let flags = all.map(|interest| [interest.is_readable(), interest.is_writable(), interest.is_priority()]);
        assert_eq!(
            flags,
            [[true, false, false], [false, true, false], [false, false, true]]
        );
    }
}
