//! Reserved low descriptor numbers, through which descriptors with high numbers get into a child.
//!
//! A child's first step throws away every number from [`UNSHARE_FROM`] up, and copies what is below.
//! So whatever it is to have must be below at that moment, and not where something else is to be put.
//! Each slot is a descriptor of `/dev/null` in between. The parent copies a source over it, makes the
//! child, and puts `/dev/null` back as soon as the child has a descriptor table of its own; else the end of a pipe
//! would stay open in the host. Several children can be in between at the same time, each with slots of its own.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

use crate::sys::descriptors::above_standard;

/// The first descriptor number that a child on the short path doesn't get a copy of. The kernel copies
/// descriptor tables in multiples of this.
pub(super) const UNSHARE_FROM: RawFd = 64;

/// Where slots begin: targets are below.
pub(super) const SLOTS_FROM: RawFd = 32;

/// How many are kept: three standard streams and one more descriptor, for one child. Six spawners fit into one process.
const SLOTS: usize = 4;

/// The most that a spawner uses at a time, for several children in flight or one with many descriptors.
pub(super) const MOST_SLOTS: usize = 20;

#[derive(Debug)]
pub(super) struct Slots {
    /// `/dev/null`, above all slots if possible.
    null: OwnedFd,
    /// `/dev/null` at a low number. A child in flight may copy it at any time, so it is never anything else, and it
    /// outlives the spawner if a child needs it.
    low_null: Option<Arc<OwnedFd>>,
    free: Vec<OwnedFd>,
    /// The numbers of those in use, counted from [`SLOTS_FROM`].
    in_use: Arc<AtomicU32>,
}

/// A slot with a copy of a source. Dropping it closes it, and the spawner can reserve another one in its place: a spawn
/// in flight can be dropped without its spawner, and by another thread.
#[derive(Debug)]
pub(super) struct Slot {
    // Closed before its mark is removed.
    fd: OwnedFd,
    mark: Mark,
}

/// The mark of a slot's number among those in use.
#[derive(Debug)]
struct Mark {
    in_use: Arc<AtomicU32>,
    bit: u32,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.in_use.fetch_and(!self.bit, Ordering::Relaxed);
    }
}

impl AsRawFd for Slot {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Slots {
    /// Reserves what it can: none at all where the host has used up the low numbers, or may not have
    /// that many descriptors.
    pub(super) fn new() -> io::Result<Slots> {
        let opened = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/null")?);
        let null = match fcntl_dupfd_cloexec(&opened, UNSHARE_FROM) {
            Ok(null) => null,
            Err(_) => above_standard(opened)?,
        };
        let low_null = low(&null).map(Arc::new);
        let mut slots = Slots {
            null,
            low_null,
            free: Vec::with_capacity(MOST_SLOTS),
            in_use: Arc::default(),
        };
        while slots.free.len() < SLOTS && slots.reserve_another() {}
        Ok(slots)
    }

    /// `/dev/null` at any number.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// `/dev/null` at a low number, if there is a low number left for it.
    pub(super) fn low_null(&self) -> Option<&Arc<OwnedFd>> {
        self.low_null.as_ref()
    }

    /// A slot with a copy of `source`, close-on-exec. `None` if all slots are in use, and no more can be had.
    pub(super) fn fill(&mut self, source: BorrowedFd<'_>) -> Option<Slot> {
        if self.free.is_empty() && self.made() < MOST_SLOTS {
            self.reserve_another();
        }
        let mut fd = self.free.pop()?;
        let filled = dup3(source, &mut fd, DupFlags::CLOEXEC);
        let slot = self.mark(fd);
        match filled {
            Ok(()) => Some(slot),
            Err(_) => {
                self.give_back(slot);
                None
            }
        }
    }

    fn mark(&self, fd: OwnedFd) -> Slot {
        let bit = bit(fd.as_raw_fd());
        self.in_use.fetch_or(bit, Ordering::Relaxed);
        let in_use = Arc::clone(&self.in_use);
        Slot {
            fd,
            mark: Mark { in_use, bit },
        }
    }

    /// Puts `/dev/null` back into a slot. One where that isn't possible (the host lowered its limit
    /// of descriptors below it) is given up and closed: it must not keep a pipe open. So is one more than are kept, and
    /// one of another spawner.
    pub(super) fn give_back(&mut self, slot: Slot) {
        let is_own = Arc::ptr_eq(&slot.mark.in_use, &self.in_use);
        let Slot { mut fd, mark } = slot;
        let is_kept = is_own && self.free.len() < SLOTS && dup3(&self.null, &mut fd, DupFlags::CLOEXEC).is_ok();
        if is_kept {
            self.free.push(fd);
        } else {
            drop(fd);
        }
        drop(mark);
    }

    /// How many there are, those in use included.
    fn made(&self) -> usize {
        self.free.len() + self.in_use.load(Ordering::Relaxed).count_ones() as usize
    }

    fn reserve_another(&mut self) -> bool {
        let slot = low(&self.null);
        let reserved = slot.is_some();
        self.free.extend(slot);
        reserved
    }

    /// Whether this is a number of the spawner's own, which nothing of the host has.
    pub(super) fn owns(&self, number: RawFd) -> bool {
        let low_null = self.low_null.as_deref();
        let own = self.free.iter().chain(low_null).chain([&self.null]);
        let is_filled = self.in_use.load(Ordering::Relaxed) & bit(number) != 0;
        is_filled || own.map(AsRawFd::as_raw_fd).any(|own| own == number)
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        let low_null = self.low_null.as_deref();
        low_null.into_iter().chain(&self.free).map(AsRawFd::as_raw_fd).collect()
    }
}

/// The bit of a slot's number in a mask; none for another number.
fn bit(number: RawFd) -> u32 {
    let place = u32::try_from(number - SLOTS_FROM).ok();
    place.and_then(|place| 1u32.checked_shl(place)).unwrap_or(0)
}

/// Another descriptor of `/dev/null`, at a number for a slot.
fn low(null: &OwnedFd) -> Option<OwnedFd> {
    let slot = fcntl_dupfd_cloexec(null, SLOTS_FROM).ok()?;
    (slot.as_raw_fd() < UNSHARE_FROM).then_some(slot)
}
