//! Reserved low descriptor numbers, through which descriptors with high numbers get into a child.
//!
//! A child's first step throws away every number from [`UNSHARE_FROM`] up, and copies what is below.
//! So whatever it is to have must be below at that moment, and not where something else is to be put.
//! Each slot is a descriptor of `/dev/null` in between; the parent copies a source over it, makes the
//! child, and puts `/dev/null` back, or the end of a pipe would stay open in the host.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

use crate::sys::descriptors::{FIRST, above_standard};

/// The first descriptor number that a child on the short path doesn't get a copy of. The kernel copies
/// descriptor tables in multiples of this.
pub(super) const UNSHARE_FROM: RawFd = 64;

/// Where slots begin: targets are below.
pub(super) const SLOTS_FROM: RawFd = 32;

/// Three standard streams, and one more. Eight spawners fit into one process.
const SLOTS: usize = 4;

/// Descriptors of `/dev/null` under numbers of standard streams that the host has closed.
pub(super) type Occupied = [Option<OwnedFd>; FIRST as usize];

#[derive(Debug)]
pub(super) struct Slots {
    /// `/dev/null`, above all slots if possible.
    null: OwnedFd,
    slots: Vec<OwnedFd>,
    /// How many are filled, from the first on.
    filled: usize,
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
        let mut slots = Vec::with_capacity(SLOTS);
        while slots.len() < SLOTS {
            match fcntl_dupfd_cloexec(&null, SLOTS_FROM) {
                Ok(slot) if slot.as_raw_fd() < UNSHARE_FROM => slots.push(slot),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(Slots { null, slots, filled: 0 })
    }

    /// `/dev/null` at any number.
    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// `/dev/null` at a low number: the last slot, if there is one that isn't filled.
    pub(super) fn low_null(&self) -> Option<RawFd> {
        self.slots.get(self.filled..)?.last().map(AsRawFd::as_raw_fd)
    }

    /// How many are not filled.
    pub(super) fn free(&self) -> usize {
        self.slots.len() - self.filled
    }

    /// Copies `source` into a free slot, close-on-exec; the slot's number.
    pub(super) fn fill(&mut self, source: BorrowedFd<'_>) -> Option<RawFd> {
        let slot = self.slots.get_mut(self.filled)?;
        dup3(source, slot, DupFlags::CLOEXEC).ok()?;
        self.filled += 1;
        Some(slot.as_raw_fd())
    }

    /// Whether this is a number of the spawner's own, which nothing of the host has.
    pub(super) fn owns(&self, number: RawFd) -> bool {
        let own = self.slots.iter().chain([&self.null]);
        own.map(AsRawFd::as_raw_fd).any(|own| own == number)
    }

    /// Takes those of the numbers 0, 1 and 2 that are free, so that no other descriptor of this spawn gets them.
    pub(super) fn occupy_standard(&self) -> Occupied {
        let mut occupied = Occupied::default();
        for place in &mut occupied {
            match fcntl_dupfd_cloexec(&self.null, 0) {
                Ok(lowest) if lowest.as_raw_fd() < FIRST => *place = Some(lowest),
                // None of them is free, or the limit keeps everything else from them too.
                Ok(_) | Err(_) => break,
            }
        }
        occupied
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        self.slots.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Puts `/dev/null` back into every slot. One where that isn't possible (the host lowered its limit
    /// of descriptors below it) is given up and closed: it must not keep a pipe open.
    pub(super) fn empty(&mut self) {
        while self.filled > 0 {
            self.filled -= 1;
            let restored = self
                .slots
                .get_mut(self.filled)
                .is_some_and(|slot| dup3(&self.null, slot, DupFlags::CLOEXEC).is_ok());
            if !restored && self.filled < self.slots.len() {
                drop(self.slots.swap_remove(self.filled));
            }
        }
    }
}
