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
const MOST_SLOTS: usize = 20;

#[derive(Debug)]
pub(super) struct Slots {
    /// `/dev/null`, above all slots if possible.
    null: OwnedFd,
    /// `/dev/null` at a low number. It is never anything else, because a child in flight may copy it at any time.
    low_null: Option<OwnedFd>,
    free: Vec<OwnedFd>,
    /// How many there are, those in use included.
    made: usize,
    /// The numbers of those in use, counted from [`SLOTS_FROM`].
    in_use: u32,
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
        let low_null = low(&null);
        let mut slots = Slots {
            null,
            low_null,
            free: Vec::with_capacity(MOST_SLOTS),
            made: 0,
            in_use: 0,
        };
        while slots.made < SLOTS && slots.reserve_another() {}
        Ok(slots)
    }

    /// `/dev/null` at any number.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// `/dev/null` at a low number, if there is a low number left for it.
    pub(super) fn low_null(&self) -> Option<RawFd> {
        self.low_null.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// A slot with a copy of `source`, close-on-exec. `None` if all slots are in use, and no more can be had.
    pub(super) fn fill(&mut self, source: BorrowedFd<'_>) -> Option<OwnedFd> {
        if self.free.is_empty() && self.made < MOST_SLOTS {
            self.reserve_another();
        }
        let mut slot = self.free.pop()?;
        match dup3(source, &mut slot, DupFlags::CLOEXEC) {
            Ok(()) => {
                self.in_use |= bit(slot.as_raw_fd());
                Some(slot)
            }
            Err(_) => {
                self.give_back(slot);
                None
            }
        }
    }

    /// Puts `/dev/null` back into a slot. One where that isn't possible (the host lowered its limit
    /// of descriptors below it) is given up and closed: it must not keep a pipe open. So is one more than are kept.
    pub(super) fn give_back(&mut self, mut slot: OwnedFd) {
        self.in_use &= !bit(slot.as_raw_fd());
        let is_kept = self.free.len() < SLOTS && dup3(&self.null, &mut slot, DupFlags::CLOEXEC).is_ok();
        if is_kept {
            self.free.push(slot);
        } else {
            self.made = self.made.saturating_sub(1);
        }
    }

    fn reserve_another(&mut self) -> bool {
        let slot = low(&self.null);
        self.made += usize::from(slot.is_some());
        let reserved = slot.is_some();
        self.free.extend(slot);
        reserved
    }

    /// Whether this is a number of the spawner's own, which nothing of the host has.
    pub(super) fn owns(&self, number: RawFd) -> bool {
        let own = self.free.iter().chain(&self.low_null).chain([&self.null]);
        self.in_use & bit(number) != 0 || own.map(AsRawFd::as_raw_fd).any(|own| own == number)
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        self.low_null.iter().chain(&self.free).map(AsRawFd::as_raw_fd).collect()
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
