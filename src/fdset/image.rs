//! A set as data, for a program that inherits its epoll with all registrations (execve(2)).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::io::Errno;

use super::FdSet;
use super::table::Table;
use crate::codec::stored;
use crate::owner::Owner;

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
}

impl FdSet {
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

    /// Whether the epoll waits for this very descriptor: the same open file with the same number that was once added.
    ///
    /// A registration belongs to an open file and a number. So if the kernel refuses another one for this descriptor
    /// (EEXIST), it is the registered descriptor. This is the cheapest question about a descriptor: it does not look at
    /// the process of a pidfd.
    pub(crate) fn waits_for(&self, fd: BorrowedFd<'_>) -> bool {
        let data = epoll::EventData::new_u64(0);
        match epoll::add(&self.epoll, fd, data, epoll::EventFlags::empty()) {
            Err(Errno::EXIST) => true,
            Err(_) => false,
            Ok(()) => {
                let _absent = epoll::delete(&self.epoll, fd);
                false
            }
        }
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
