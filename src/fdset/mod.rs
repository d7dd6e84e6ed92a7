//! Everything the library waits for, as one set of raw descriptors.
//!
//! A library that waits by itself takes the loop away from its host; one that starts threads takes
//! more. This one only says which descriptors matter. A host uses the set in one of two ways:
//!
//! 1. **One descriptor.** The set is an epoll itself and implements [`AsFd`]: the host watches that
//!    one. (Epolls nest, at most five deep; this one holds no other.)
//! 2. **Each descriptor.** The host registers every [`Entry`] with an epoll, poll or io_uring of its
//!    own, and follows the changes with [`FdSet::track_changes`].
//!
//! What could go wrong lies between a readiness that the kernel has reported and the call that
//! handles it: meanwhile the descriptor may have been closed and its number given to another. So:
//!
//! - An entry's name is a [`Token`], checked by generation, not a number that the kernel uses again.
//! - A registration belongs to the open file description, not to the number, so it outlives a close
//!   if a copy exists anywhere, and can then not be removed any more. The set takes a descriptor out
//!   of its epoll before it closes it: that is why [`FdSet::remove`] asks for the descriptor itself.
//! - A host that keeps registrations of its own has the same duty. To it a removed descriptor is
//!   handed over open ([`Change::Removed`]): its number cannot come back before the host let go.
//!
//! Readiness is level-triggered: a registration that comes late, and an event that was not handled,
//! lose nothing. Keying by number alone was rejected for the reason above; callbacks, because they
//! turn the host's loop inside out. Nothing in this module blocks. epoll(7), Linux 2.6.27.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bitflags::bitflags;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::owner::Owner;
use crate::sys::descriptors::above_standard;
use table::Table;

mod table;

/// How many events one [`FdSet::ready`] can take: they pass through 3 KiB of stack.
const BATCH: usize = 256;

/// The room that [`FdSet::ready`] makes in a vector that has none.
const DEFAULT_ROOM: usize = 64;

/// The name of one entry of one [`FdSet`], never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    slot: u32,
    /// Counts the entries that the slot has held; the first is 1.
    generation: u32,
}

impl Token {
    /// The token as a number, to ride in `epoll_event.data` or an io_uring's `user_data`.
    ///
    /// It is never below 2^32: a host may use those numbers for its own descriptors in the same loop.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The entry's place: unique among the entries that there are, and small.
    pub(crate) const fn index(self) -> usize {
        self.slot as usize
    }

    /// The token that this number says. Of a number that was none, it is a token that no set knows,
    /// which every call refuses.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Token {
        Token {
            slot: raw as u32,
            generation: (raw >> 32) as u32,
        }
    }
}

bitflags! {
    /// What an entry waits for. Errors and hangups are always reported besides (epoll_ctl(2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Interest: u32 {
        /// `EPOLLIN`: something to read; of a pidfd: the process has exited.
        const READ = libc::EPOLLIN as u32;
        /// `EPOLLOUT`: room to write.
        const WRITE = libc::EPOLLOUT as u32;
        /// `EPOLLPRI`: something exceptional; of a cgroup's `cgroup.events`: it has changed.
        const PRIORITY = libc::EPOLLPRI as u32;
    }
}

/// One descriptor that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its number, open at least until the entry is removed.
    pub fd: RawFd,
    /// What to wait for.
    pub interest: Interest,
    /// Its name in the set.
    pub token: Token,
}

/// What a host that has registrations of its own must follow.
#[derive(Debug)]
pub enum Change {
    /// Register this, level-triggered.
    Added(Entry),
    /// Take `fd` out of the loop, then drop it: until then it is open, so its number is not used
    /// again. Whether it is still readable is of no concern.
    Removed {
        /// The entry's name, which the set has already forgotten.
        token: Token,
        /// The descriptor, the very number of the entry.
        fd: OwnedFd,
    },
}

impl Change {
    /// The entry's name.
    #[must_use]
    pub const fn token(&self) -> Token {
        match self {
            Change::Added(entry) => entry.token,
            Change::Removed { token, .. } => *token,
        }
    }
}

/// The set has no entry of this name with this descriptor, or was made in another process. Nothing was changed, and the
/// descriptor is in here, still open.
#[derive(Debug, thiserror::Error)]
#[error("{token:?} does not stand for descriptor {} in a set of this process", .fd.as_raw_fd())]
pub struct StaleToken {
    token: Token,
    fd: OwnedFd,
}

impl StaleToken {
    /// The name that was not known.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// The descriptor that was handed in.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// A set of descriptors to wait for, and an epoll that waits for all of them.
///
/// It belongs to the process that made it. A copy that fork(2) made shares the epoll with the original, so it can neither
/// change it nor ask it; dropping the copy changes nothing.
///
/// ```
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
/// use pidherd::fdset::{FdSet, Interest};
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, writer) = UnixStream::pair()?;
/// let mut set = FdSet::new()?;
/// let token = set.add(reader.as_fd(), Interest::READ)?;
///
/// let mut ready = Vec::with_capacity(16);
/// set.ready(&mut ready)?;
/// assert!(ready.is_empty());
///
/// drop(writer); // End of file is something to read.
/// set.ready(&mut ready)?;
/// assert_eq!(ready, [token]);
///
/// set.remove(token, reader.into()).expect("the token is of this set");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FdSet {
    owner: Owner,
    epoll: OwnedFd,
    table: Table,
    /// What the host has not seen yet; `None` if it doesn't want to know.
    changes: Option<VecDeque<Change>>,
}

impl FdSet {
    /// An empty set: a close-on-exec epoll, no change log.
    ///
    /// # Errors
    /// What epoll_create1(2) says: EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<FdSet> {
        Ok(FdSet {
            owner: Owner::this_process(),
            epoll: above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?,
            table: Table::new(),
            changes: None,
        })
    }

    /// Adds a descriptor. Its owner keeps it open until it is removed.
    ///
    /// # Errors
    /// What epoll_ctl(2) says: EPERM for what cannot be waited for (a plain file), ENOSPC above
    /// `/proc/sys/fs/epoll/max_user_watches`, ENOMEM, ELOOP. EEXIST also if the set has an entry of the
    /// same number: its descriptor must then have been closed without being removed. After an
    /// error the set is as it was. [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made.
    pub fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Token> {
        self.owner.check()?;
        if self.token_of(fd.as_raw_fd()).is_some() {
            return Err(Errno::EXIST.into());
        }
        // Room first, then the kernel, then the books: nothing after the kernel's yes can fail.
        self.reserve(1);
        let token = self.table.next_token();
        let flags = epoll::EventFlags::from_bits_retain(interest.bits());
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.to_raw()), flags)?;
        let entry = self.table.insert(fd.as_raw_fd(), interest);
        if let Some(changes) = &mut self.changes {
            changes.push_back(Change::Added(entry));
        }
        Ok(entry.token)
    }

    /// Removes an entry and closes its descriptor: first out of the epoll, then closed. With a change
    /// log it is not closed but put into the log.
    ///
    /// # Errors
    /// [`StaleToken`] with the descriptor inside, if `token` is not the name of an entry with this
    /// descriptor's number; and in a copy that fork(2) made, whatever the token.
    pub fn remove(&mut self, token: Token, fd: OwnedFd) -> Result<(), StaleToken> {
        if !self.owner.is_here() || self.get(token).is_none_or(|entry| entry.fd != fd.as_raw_fd()) {
            return Err(StaleToken { token, fd });
        }
        // ENOENT: the caller had closed the descriptor that was registered, and this one only has
        // its number. Then there is nothing to take out, and the entry goes all the same.
        let _absent = epoll::delete(&self.epoll, &fd);
        self.table.remove(token);
        if let Some(changes) = &mut self.changes {
            changes.push_back(Change::Removed { token, fd });
        }
        Ok(())
    }

    /// The name of the entry with this descriptor number. O(1).
    #[must_use]
    pub fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.table.token_of(fd)
    }

    /// The entry of this name, unless it was removed. O(1).
    #[must_use]
    pub fn get(&self, token: Token) -> Option<Entry> {
        self.table.get(token)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.table.iter()
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a log of changes for a host that has registrations of its own, or stops keeping it.
    ///
    /// Turning it on logs every present entry as [`Change::Added`], so a host can be built from the log
    /// alone. Turning it off drops the log, and so closes the descriptors in it. Otherwise nothing
    /// happens. The host must take the changes, best after every call that may bring some: a log
    /// that is not read keeps removed descriptors open.
    ///
    /// ```
    /// use pidherd::fdset::{Change, FdSet};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut set = FdSet::new()?;
    /// set.track_changes(true);
    /// while let Some(change) = set.next_change() {
    ///     match change {
    ///         Change::Added(entry) => { /* register entry.fd, with entry.token.to_raw() as data */ }
    ///         Change::Removed { fd, .. } => { /* deregister it */ drop(fd) }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn track_changes(&mut self, on: bool) {
        if on == self.changes.is_some() {
            return;
        }
        self.changes = on.then(|| self.iter().map(Change::Added).collect());
        self.reserve(0);
    }

    /// Takes the oldest change that the host has not seen yet.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.as_mut()?.pop_front()
    }

    /// Makes room for this many more entries: adding them, removing any, and adding again allocate
    /// nothing, as long as no more changes wait in the log than two for each entry there is room for.
    pub fn reserve(&mut self, additional: usize) {
        self.table.reserve(additional);
        if let Some(changes) = &mut self.changes {
            let most = 2 * (self.table.len() + additional);
            changes.reserve(most.saturating_sub(changes.len()));
        }
    }

    /// Asks the epoll what is ready, and fills `tokens` with the names, nothing else left in it: as
    /// many as it has capacity for (64 if it has none), 256 at the most. Never blocks.
    ///
    /// What does not fit is there at the next call: entries come in turns. A name may be stale by the
    /// time it is used, if what was done for another removed it; [`FdSet::get`] tells.
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made; else what epoll_wait(2) says, where
    /// there is no error that a caller could bring about.
    pub fn ready(&self, tokens: &mut Vec<Token>) -> io::Result<()> {
        self.owner.check()?;
        tokens.clear();
        if tokens.capacity() == 0 {
            tokens.reserve(DEFAULT_ROOM);
        }
        let room = tokens.capacity().min(BATCH);
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let events = events.get_mut(..room).unwrap_or_default();
        // A look without a wait can hardly be interrupted by a signal; where it is, it is repeated.
        let (events, _) = loop {
            match epoll::wait(&self.epoll, &mut *events, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                looked => break looked?,
            }
        };
        let reported = events.iter().map(|event| Token::from_raw(event.data.u64()));
        // A token that the set doesn't know is of a descriptor closed behind its back.
        tokens.extend(reported.filter(|&token| self.get(token).is_some()));
        Ok(())
    }
}

impl AsFd for FdSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests;
