//! Reserved low descriptor numbers, through which descriptors with high numbers are passed to a child.
//!
//! The first step of a child drops every descriptor from [`UNSHARE_FROM`] up, and copies the descriptors below. So each
//! descriptor for the child must be below that number at that moment, and not at a number where another one is placed.
//! Each slot is a descriptor of `/dev/null` below that number. The parent copies a source over a slot, makes the child,
//! and puts `/dev/null` back as soon as the child has a descriptor table of its own. Otherwise the end of a pipe would
//! stay open in the host. Several children can use slots at the same time, each its own.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

use crate::sys::descriptors::above_standard;

/// The first descriptor number that is not copied for a child with [`FdTable::Unshared`](super::plan::FdTable). The
/// kernel copies descriptor tables in multiples of this number.
pub(super) const UNSHARE_FROM: RawFd = 64;

/// The lowest number of a slot. Descriptor numbers of children (targets) are lower.
pub(super) const SLOTS_FROM: RawFd = 32;

/// The number of slots that a spawner keeps: three standard streams and one more descriptor, for one child. So six
/// spawners fit into one process.
const SLOTS: usize = 4;

/// The largest number of slots that a spawner uses at a time, for several children in flight or for one with many
/// descriptors.
pub(super) const MOST_SLOTS: usize = 20;

#[derive(Debug)]
pub(super) struct Slots {
    /// A descriptor of `/dev/null`, above all slots if possible.
    null: OwnedFd,
    /// A descriptor of `/dev/null` at a low number. A child in flight can copy it at any time, so it is never replaced,
    /// and it outlives the spawner if a child needs it.
    low_null: Option<Arc<OwnedFd>>,
    free: Vec<OwnedFd>,
    /// A bit for each slot in use: bit 0 stands for the number [`SLOTS_FROM`].
    in_use: Arc<AtomicU32>,
}

/// A slot with a copy of a source. Dropping it closes its descriptor, and the spawner can reserve another slot with the
/// same number. A spawn in flight can be dropped without its spawner, and by another thread.
#[derive(Debug)]
pub(super) struct Slot {
    // This field is dropped first, so the descriptor is closed before the mark is removed.
    fd: OwnedFd,
    mark: Mark,
}

/// Marks the number of a slot as in use, until it is dropped.
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
    /// Reserves as many slots as possible. There are none if the host has used all low numbers, or if the limit of
    /// descriptors is too low.
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

    /// A descriptor of `/dev/null`, at any number.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// A descriptor of `/dev/null` at a low number; `None` if no low number was free.
    pub(super) fn low_null(&self) -> Option<&Arc<OwnedFd>> {
        self.low_null.as_ref()
    }

    /// A slot with a copy of `source`, which is close-on-exec. `None` if all slots are in use and no other number is
    /// free.
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

    /// Puts `/dev/null` back into a slot. The slot is closed instead if that is impossible (the host lowered its limit
    /// of descriptors below the number), because it must not keep a pipe open. It is also closed if enough slots are
    /// kept, or if it belongs to another spawner.
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

    /// The number of slots, including those in use.
    fn made(&self) -> usize {
        self.free.len() + self.in_use.load(Ordering::Relaxed).count_ones() as usize
    }

    fn reserve_another(&mut self) -> bool {
        let slot = low(&self.null);
        let reserved = slot.is_some();
        self.free.extend(slot);
        reserved
    }

    /// Whether the descriptor with this number belongs to the spawner and not to the host.
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

/// The bit of a slot's number in a mask; 0 for the number of no slot.
fn bit(number: RawFd) -> u32 {
    let place = u32::try_from(number - SLOTS_FROM).ok();
    place.and_then(|place| 1u32.checked_shl(place)).unwrap_or(0)
}

/// A new descriptor of `/dev/null` at a number for a slot; `None` if no such number is free.
fn low(null: &OwnedFd) -> Option<OwnedFd> {
    let slot = fcntl_dupfd_cloexec(null, SLOTS_FROM).ok()?;
    (slot.as_raw_fd() < UNSHARE_FROM).then_some(slot)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::iter::from_fn;

    use super::*;
    use crate::testing::common::isolated;

    #[test]
    fn slots_are_reserved_when_none_is_free_up_to_a_limit_and_are_free_after_their_drop() {
        isolated(|| {
            let source = File::open("/dev/null").unwrap();
            let mut slots = Slots::new().unwrap();
            let before = slots.numbers().len();
            let alone = slots.fill(source.as_fd()).unwrap();
            let number = alone.as_raw_fd();
            drop(alone);
            assert!(!slots.owns(number) && slots.numbers().len() == before - 1);
            for _ in 0..2 {
                let filled: Vec<Slot> = from_fn(|| slots.fill(source.as_fd())).collect();
                assert_eq!(filled.len(), MOST_SLOTS);
                let numbers: Vec<RawFd> = filled.iter().map(AsRawFd::as_raw_fd).collect();
                assert!(numbers.iter().all(|&number| slots.owns(number)), "{numbers:?}");
                drop(filled);
                assert!(!numbers.iter().any(|&number| slots.owns(number)), "{numbers:?}");
            }
        });
    }

    #[test]
    fn a_number_that_a_child_drops_is_no_slot() {
        isolated(|| {
            let source = File::open("/dev/null").unwrap();
            let first_dropped = fcntl_dupfd_cloexec(&source, UNSHARE_FROM).unwrap();
            assert_eq!(first_dropped.as_raw_fd(), UNSHARE_FROM);
            let mut slots = Slots::new().unwrap();
            let low = || fcntl_dupfd_cloexec(&source, SLOTS_FROM).unwrap();
            let taken: Vec<OwnedFd> = from_fn(|| Some(low()).filter(|fd| fd.as_raw_fd() < UNSHARE_FROM)).collect();
            drop(first_dropped);
            let filled: Vec<Slot> = from_fn(|| slots.fill(source.as_fd())).collect();
            assert_eq!(filled.len(), SLOTS);
            drop(taken);
        });
    }
}
