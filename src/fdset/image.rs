//! A set as data, for a program that inherits its epoll with all registrations (execve(2)).

use std::os::fd::RawFd;

use crate::codec::stored;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetImage {
    pub(crate) epoll: RawFd,
    /// By the slot of the token.
    pub(crate) slots: Vec<SlotImage>,
}

stored!(struct SetImage { epoll, slots });

/// One slot of a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlotImage {
    /// The generation of the entry, or of the next one.
    pub(crate) generation: u32,
    /// The number of the entry's descriptor, and its events as for epoll_ctl(2).
    pub(crate) entry: Option<(RawFd, u32)>,
}

stored!(struct SlotImage { generation, entry });

impl SetImage {
    /// The numbers of the descriptors in the set.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.slots.iter().filter_map(|slot| Some(slot.entry?.0))
    }

    /// Removes the entry of this number, as the set itself would.
    pub(crate) fn remove(&mut self, number: RawFd) {
        for slot in &mut self.slots {
            if slot.entry.is_some_and(|(fd, _)| fd == number) {
                slot.entry = None;
                slot.generation = slot.generation.saturating_add(1);
            }
        }
    }
}
