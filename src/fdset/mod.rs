//! The descriptors that the library waits for, as one set.
//!
//! A library that waits by itself takes the loop away from its host, and a library that starts threads interferes even
//! more. This library only provides the descriptors. A host uses the set in one of two ways:
//!
//! 1. **One descriptor.** The set is an epoll itself and implements [`AsFd`]: the host watches that one. (Epolls nest,
//!    at most five deep; this one holds no other.) A loop that has to own it gets a copy: [`FdSet::try_clone_fd`].
//! 2. **Each descriptor.** The host registers every [`Entry`] with an epoll, poll or io_uring of its own, and follows
//!    the changes with [`FdSet::track_changes`].
//!
//! Errors can happen between a readiness that the kernel has reported and the call that handles it: meanwhile the
//! descriptor can be closed and its number given to another. Therefore:
//!
//! - An entry's name is a [`Token`], checked by generation. It is not a number that the kernel uses again.
//! - A registration belongs to the open file description, not to the number. It outlives a close if a copy of the
//!   descriptor exists, and can then not be removed any more. So the set takes a descriptor out of its epoll before it
//!   closes the descriptor: [`FdSet::remove`] takes the descriptor itself for this reason.
//! - A host with registrations of its own has the same duty. It gets a removed descriptor open ([`Change::Removed`]):
//!   the number is not used again before the host closes the descriptor.
//!
//! Readiness is level-triggered: nothing is lost by a late registration or by an event that was not handled. A host may
//! register edge-triggered all the same ([`supervisor`](crate::supervisor#edge-triggered-hosts)). Entries identified by their number alone were rejected for the reason above. Callbacks were rejected because the host would
//! no longer control its own loop. No call of this module blocks. See epoll(7), Linux 2.6.27.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::owner::Owner;
use crate::sys::descriptors::{FIRST, above_standard};
use table::Table;

mod entry;
mod image;
mod table;

pub use entry::{Entry, Interest, Token};
pub(crate) use image::SetImage;
#[cfg(test)]
pub(crate) use image::SlotImage;

/// The largest number of events of one [`FdSet::ready`]. They use 3 KiB of stack.
const BATCH: usize = 256;

/// The capacity that [`FdSet::ready`] gives a vector without one.
const DEFAULT_ROOM: usize = 64;

/// A change that a host with registrations of its own must follow.
///
/// The log is exact: a `Removed` follows only on an `Added` that the host has taken, and the entry of an `Added` is in the
/// set when it is taken. An entry that was removed before the host has taken its `Added` is in the log neither way.
#[derive(Debug)]
pub enum Change {
    /// Register this entry. Its descriptor is open at least until its `Removed` is taken from the log and dropped.
    Added(Entry),
    /// Take `fd` out of the loop, then drop it. Until then it is open, so its number is not used again. It does not
    /// matter whether it is still readable.
    Removed {
        /// The token of the entry, which is no longer in the set.
        token: Token,
        /// The descriptor with the number of the entry.
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
/// error holds the descriptor, still open.
#[derive(Debug, thiserror::Error)]
#[error("the set has no entry {token:?} for descriptor {}: it was removed, or the set belongs to another process", .fd.as_raw_fd())]
pub struct StaleToken {
    token: Token,
    fd: OwnedFd,
}

impl StaleToken {
    /// The unknown name.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// The descriptor that the caller passed in.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// A set of descriptors to wait for, and an epoll that waits for all of them.
///
/// The set belongs to the process that made it. A copy that fork(2) made shares the epoll with the original, so it can
/// neither change it nor query it; dropping the copy changes nothing.
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
    /// The changes that the host has not taken yet; `None` if the host does not track them.
    changes: Option<VecDeque<Change>>,
}

impl FdSet {
    /// Makes an empty set: a close-on-exec epoll, no change log.
    ///
    /// ```
    /// # use pidherd::FdSet;
    /// let set = FdSet::new()?;
    /// assert!(set.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of epoll_create1(2): EMFILE, ENFILE, ENOMEM.
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
    /// ```
    /// # use pidherd::{Command, FdSet, fdset::Interest};
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let child = Command::new("true").spawn()?;
    /// let mut set = FdSet::new()?;
    /// let token = set.add(child.pidfd().as_fd(), Interest::READ)?;
    /// // The set is readable when the process has ended.
    /// poll(&mut [PollFd::new(&set, PollFlags::IN)], None)?;
    /// set.remove(token, child.pidfd().try_clone()?.into()).expect_err("this is another descriptor");
    /// # child.pidfd().reap()?;
    /// # set.remove(token, child.into_pidfd().into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EPERM for a descriptor that epoll does not support (a plain file), ENOSPC above
    /// `/proc/sys/fs/epoll/max_user_watches`, ENOMEM, ELOOP. EEXIST also if the set has an entry with the same number:
    /// its descriptor was then closed without being removed. After an error the set is unchanged.
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made.
    pub fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Token> {
        self.owner.check()?;
        if self.token_of(fd.as_raw_fd()).is_some() {
            return Err(Errno::EXIST.into());
        }
        // Memory first, then the kernel, then the table: after the kernel has accepted, nothing can fail.
        self.reserve(1);
        let token = self.table.next_token();
        let flags = epoll::EventFlags::from_bits_retain(interest.bits());
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.to_raw()), flags)?;
        let entry = self.table.insert(fd.as_raw_fd(), interest);
        if let Some(changes) = &mut self.changes {
            changes.push_back(Change::Added(entry));
            self.table.set_news(entry.token, true);
        }
        Ok(entry.token)
    }

    /// Removes an entry: takes its descriptor out of the epoll, then closes it. With a change log from which the host
    /// has taken the addition of the entry, the descriptor goes into the log instead of being closed.
    ///
    /// ```
    /// # use pidherd::{FdSet, fdset::Interest};
    /// use std::os::fd::{AsFd, OwnedFd};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, _writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// set.remove(token, OwnedFd::from(reader))?;
    /// assert!(set.get(token).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StaleToken`] with the descriptor inside, if `token` is not the name of an entry with this descriptor's number;
    /// and in a copy that fork(2) made, for every token.
    pub fn remove(&mut self, token: Token, fd: OwnedFd) -> Result<(), StaleToken> {
        if !self.owner.is_here() || self.get(token).is_none_or(|entry| entry.fd != fd.as_raw_fd()) {
            return Err(StaleToken { token, fd });
        }
        // ENOENT: the caller had closed the registered descriptor, and this one only has its number. Then the epoll has
        // nothing to take out, and the entry is removed nevertheless.
        let _absent = epoll::delete(&self.epoll, &fd);
        let is_news = self.table.set_news(token, false);
        self.table.remove(token);
        // The host has not registered what is still news. It is closed here, and `next_change` skips its addition.
        if let Some(changes) = self.changes.as_mut().filter(|_| !is_news) {
            changes.push_back(Change::Removed { token, fd });
        }
        Ok(())
    }

    /// Removes an entry with a descriptor that stays open. Returns false, and does nothing, if the host tracks changes: it
    /// may have registered the descriptor elsewhere, and only the close after its news removes it there.
    pub(crate) fn release(&mut self, token: Token, fd: BorrowedFd<'_>) -> bool {
        if self.changes.is_some() || !self.owner.is_here() {
            return false;
        }
        if self.get(token).is_none_or(|entry| entry.fd != fd.as_raw_fd()) {
            return false;
        }
        let _absent = epoll::delete(&self.epoll, fd);
        self.table.remove(token);
        true
    }

    /// The name of the entry with this descriptor number. O(1).
    ///
    /// ```
    /// # use pidherd::{FdSet, fdset::Interest};
    /// use std::os::fd::{AsFd, AsRawFd};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, _writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// // For a loop that reports numbers.
    /// assert_eq!(set.token_of(reader.as_raw_fd()), Some(token));
    /// # set.remove(token, reader.into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.table.token_of(fd)
    }

    /// The entry of this name, unless it was removed. O(1).
    ///
    /// ```
    /// # use pidherd::{FdSet, fdset::Interest};
    /// use std::os::fd::{AsFd, AsRawFd};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, _writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// let entry = set.get(token).ok_or("it was removed")?;
    /// assert_eq!((entry.fd, entry.interest), (reader.as_raw_fd(), Interest::READ));
    /// # set.remove(token, reader.into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get(&self, token: Token) -> Option<Entry> {
        self.table.get(token)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.table.iter()
    }

    /// The number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the set has no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a log of changes for a host that has registrations of its own, or stops keeping it.
    ///
    /// Turning it on logs every present entry as [`Change::Added`], so a host can be built from the log alone. Turning
    /// it off drops the log, and closes the descriptors in it. A call without a change of the setting does nothing. The
    /// host should take the changes before every wait: the log keeps removed descriptors open.
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
        let present: VecDeque<Entry> = self.iter().collect();
        for entry in &present {
            self.table.set_news(entry.token, on);
        }
        self.changes = on.then(|| present.into_iter().map(Change::Added).collect());
        self.reserve(0);
    }

    /// Takes the oldest change from the log.
    ///
    /// ```
    /// # use pidherd::fdset::{Change, FdSet, Interest};
    /// use std::os::fd::{AsFd, OwnedFd};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, _writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// set.track_changes(true);
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// assert!(matches!(set.next_change(), Some(Change::Added(entry)) if entry.token == token));
    /// set.remove(token, OwnedFd::from(reader))?;
    /// // The host takes the descriptor out of its loop before it drops the change.
    /// assert!(matches!(set.next_change(), Some(Change::Removed { token: removed, .. }) if removed == token));
    /// assert!(set.next_change().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_change(&mut self) -> Option<Change> {
        loop {
            let change = self.changes.as_mut()?.pop_front()?;
            let is_stale = matches!(&change, Change::Added(entry) if !self.table.set_news(entry.token, false));
            if !is_stale {
                return Some(change);
            }
        }
    }

    /// Reserves memory for this many more entries. Up to that number, adding and removing entries does not allocate, as
    /// long as the log holds at most two changes for each reserved entry.
    ///
    /// ```
    /// # use pidherd::{FdSet, fdset::Interest};
    /// use std::os::fd::AsFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, _writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// set.reserve(1_000);
    /// // This and 999 more allocate nothing.
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// # set.remove(token, reader.into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&mut self, additional: usize) {
        self.table.reserve(additional);
        if let Some(changes) = &mut self.changes {
            let most = 2 * (self.table.len() + additional);
            changes.reserve(most.saturating_sub(changes.len()));
        }
    }

    /// Makes another descriptor of the set's epoll, for a loop that needs to own what it waits for. Close-on-exec.
    ///
    /// Both descriptors refer to the same epoll (dup(2)), with these consequences:
    ///
    /// - The copy is readable whenever the set is. It reports nothing by itself: the entries belong to the set.
    /// - A loop keeps its registration of the epoll until every descriptor of it is closed. So take the copy out of the
    ///   loop before it is dropped while the set lives on. A type that deregisters on drop does so (tokio's `AsyncFd`,
    ///   async-io's `Async`, calloop's `Generic`).
    /// - The copy may outlive the set, but means nothing then: it may be readable for a descriptor that lives on.
    ///
    /// ```
    /// # use pidherd::FdSet;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let set = FdSet::new()?;
    /// let owned = set.try_clone_fd()?;
    /// // Nothing is ready.
    /// assert_eq!(poll(&mut [PollFd::new(&owned, PollFlags::IN)], Some(&Default::default()))?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// EMFILE. [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.owner.check()?;
        Ok(fcntl_dupfd_cloexec(&self.epoll, FIRST)?)
    }

    /// Fills `tokens` with the names of the entries that are ready, after clearing it: as many as its capacity (64 if
    /// it has none), at most 256. Never blocks.
    ///
    /// The next call returns further entries, so that each ready entry is returned in turn. A name can be stale when it
    /// is used, if the work for another entry has removed it; [`FdSet::get`] checks that.
    ///
    /// ```
    /// # use pidherd::{FdSet, fdset::Interest};
    /// use std::io::Write;
    /// use std::os::fd::AsFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (reader, mut writer) = UnixStream::pair()?;
    /// let mut set = FdSet::new()?;
    /// let token = set.add(reader.as_fd(), Interest::READ)?;
    /// writer.write_all(b"x")?;
    /// let mut tokens = Vec::with_capacity(16);
    /// set.ready(&mut tokens)?;
    /// assert_eq!(tokens, [token]);
    /// # set.remove(token, reader.into())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made; otherwise the errors of
    /// epoll_wait(2). No caller can cause one.
    pub fn ready(&self, tokens: &mut Vec<Token>) -> io::Result<()> {
        self.owner.check()?;
        tokens.clear();
        if tokens.capacity() == 0 {
            tokens.reserve(DEFAULT_ROOM);
        }
        let room = tokens.capacity().min(BATCH);
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let events = events.get_mut(..room).unwrap_or_default();
        // A call without a wait is rarely interrupted by a signal; if it is, it is repeated.
        let (events, _) = loop {
            match epoll::wait(&self.epoll, &mut *events, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                looked => break looked?,
            }
        };
        let reported = events.iter().map(|event| Token::from_raw(event.data.u64()));
        // An unknown token belongs to a descriptor that was closed without being removed from the set.
        tokens.extend(reported.filter(|&token| self.get(token).is_some()));
        Ok(())
    }

    // Hand-over.

    pub(crate) fn image(&self) -> SetImage {
        SetImage {
            epoll: self.epoll.as_raw_fd(),
            slots: self.table.image(),
        }
    }

    /// The set of an image with its epoll, which is given back if the image contradicts itself.
    ///
    /// The kernel keeps the data of each registration, and the image has the same tokens, because both are of one set.
    /// That each descriptor still is the registered one must be checked: see [`FdSet::waits_for`].
    pub(crate) fn inherited(image: &SetImage, epoll: OwnedFd) -> Result<FdSet, OwnedFd> {
        let is_its_own = |fd| fd == image.epoll;
        match Table::of(&image.slots).filter(|_| !image.numbers().any(is_its_own)) {
            Some(table) => Ok(FdSet {
                owner: Owner::this_process(),
                epoll,
                table,
                changes: None,
            }),
            None => Err(epoll),
        }
    }

    /// Whether the epoll waits for this very descriptor; see [`waits_for`].
    pub(crate) fn waits_for(&self, fd: BorrowedFd<'_>) -> bool {
        waits_for(self.epoll.as_fd(), fd)
    }

    /// Takes a descriptor out of the epoll, and leaves its entry in the table. For the end of the set: see
    /// [`FdSet::into_epoll`].
    pub(crate) fn leave(&self, fd: BorrowedFd<'_>) {
        let _absent = epoll::delete(&self.epoll, fd);
    }

    /// The epoll of the set, with its registrations.
    pub(crate) fn into_epoll(self) -> OwnedFd {
        self.epoll
    }
}

/// Whether an epoll waits for this very descriptor: the same open file with the same number that was once added.
///
/// A registration belongs to an open file and a number. So if the kernel refuses another one for this descriptor
/// (EEXIST), it is the registered descriptor. This is the cheapest question about a descriptor: it does not look at
/// the process of a pidfd.
pub(crate) fn waits_for(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> bool {
    let data = epoll::EventData::new_u64(0);
    match epoll::add(epoll, fd, data, epoll::EventFlags::empty()) {
        Err(Errno::EXIST) => true,
        Err(_) => false,
        Ok(()) => {
            let _absent = epoll::delete(epoll, fd);
            false
        }
    }
}

/// Takes a descriptor out of an epoll, and closes it.
pub(crate) fn end(epoll: BorrowedFd<'_>, fd: OwnedFd) {
    let _absent = epoll::delete(epoll, fd);
}

impl AsFd for FdSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for FdSet {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
