//! The descriptors that instances have stored for their next runs.
//!
//! A descriptor that is watched is an entry of the set without events of its own: epoll reports EPOLLHUP and EPOLLERR
//! all the same. It is removed at the first report, so it makes the set readable once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::core::Linux;
use super::failures::errno_of;
use super::image::NotTaken;
use super::inherited::Descriptors;
use super::stored_fd::{StoredFd, StoredImage};
use crate::command::{Listening, Program, SpawnError, SpawnStep};
use crate::engine::event::{ProcessNotice, RefusalReason, RemovalReason};
use crate::engine::kernel::{Happening, Report, Sender};
use crate::fdset::{Interest, Token};
use crate::notify::{Datagram, Entry, Refusal, Request, Store};
use crate::poll::is_ready;
use crate::sys::datagram::Passed;
use crate::sys::descriptors::do_not_linger;

/// What a message asks of the store of its sender's instance.
pub(super) struct Delivery {
    sender: Sender,
    request: Request,
    descriptors: Passed,
    /// Whether the message came with descriptors.
    had_any: bool,
    /// Whether the kernel has discarded some of them.
    has_lost: bool,
}

impl Delivery {
    /// The request of a message; `None` if it has none.
    pub(super) fn of(message: &mut Datagram<'_, Sender>) -> Option<Delivery> {
        Some(Delivery {
            sender: message.owner,
            request: Request::of(message.lines())?,
            descriptors: message.take_passed(),
            had_any: message.had_descriptors(),
            has_lost: message.has_lost_descriptors(),
        })
    }
}

/// The outcome of a message for the notices: how many were stored, and how many were refused for each reason.
#[derive(Default)]
struct Outcome {
    stored: u32,
    refused: Vec<(RefusalReason, u32)>,
}

impl Outcome {
    fn refuse(&mut self, reason: RefusalReason, count: u32) {
        match self.refused.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, number)) => *number += count,
            None => self.refused.push((reason, count)),
        }
    }

    fn notices(self, name: Arc<str>) -> impl Iterator<Item = ProcessNotice> {
        let count = self.stored;
        let stored = (count > 0).then_some(ProcessNotice::DescriptorsStored { name, count });
        let refused = self.refused.into_iter();
        let refused = refused.map(|(reason, count)| ProcessNotice::DescriptorsRefused { count, reason });
        stored.into_iter().chain(refused)
    }
}

impl Linux {
    /// Does what a message asks for with descriptors, and queues the notices about it. The descriptors that are not
    /// stored are closed.
    pub(super) fn store_descriptors(&mut self, delivery: Delivery) {
        let Delivery {
            sender,
            request,
            mut descriptors,
            had_any,
            has_lost,
        } = delivery;
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        let refused = |reason| ProcessNotice::DescriptorsRefused { count, reason };
        let mut notices = Vec::new();
        match request {
            Request::Invalid => notices.push(refused(RefusalReason::Name)),
            Request::Remove { name } => {
                let removed = self.remove_descriptors(sender.id.index(), &name);
                notices.push(ProcessNotice::DescriptorsRemoved {
                    name,
                    count: removed,
                    reason: RemovalReason::Requested,
                });
            }
            Request::Store { .. } if !had_any => {}
            Request::Store { .. } if sender.most_stored == 0 => notices.push(refused(RefusalReason::NoStore)),
            Request::Store { .. } if has_lost => notices.push(refused(RefusalReason::Lost)),
            Request::Store { name, is_polled } => {
                let mut outcome = Outcome::default();
                for fd in descriptors.take() {
                    match self.store_one(sender, &name, fd, is_polled) {
                        Ok(()) => outcome.stored += 1,
                        Err(reason) => outcome.refuse(reason, 1),
                    }
                }
                notices.extend(outcome.notices(name));
            }
        }
        let reports = notices.into_iter().map(|notice| (sender.id, Report::Notice(notice)));
        self.reports.extend(reports);
    }

    fn store_one(
        &mut self,
        sender: Sender,
        name: &Arc<str>,
        fd: OwnedFd,
        is_polled: bool,
    ) -> Result<(), RefusalReason> {
        let failed = |errno: Errno| RefusalReason::Errno(errno.raw_os_error());
        let slot = sender.id.index();
        let mut new = StoredFd::new(fd).map_err(failed)?;
        let store = self.stores.get(&slot);
        match store.map(|store| store.check(sender.most_stored, |old| old.is_same(&new))) {
            Some(Err(Refusal::Full)) => {
                self.close_stored(new);
                return Err(RefusalReason::Full);
            }
            // The stored one keeps the file open, with its options.
            Some(Err(Refusal::Duplicate)) => return Err(RefusalReason::Duplicate),
            Some(Ok(())) | None => {}
        }
        let watched = match is_polled {
            true => self.watch_stored(&mut new, slot),
            false => Ok(()),
        };
        if let Err(error) = watched {
            self.close_stored(new);
            return Err(RefusalReason::Errno(errno_of(&error)));
        }
        self.stores.entry(slot).or_default().push(Arc::clone(name), new);
        Ok(())
    }

    /// Watches a descriptor. One that epoll does not support stays unwatched.
    fn watch_stored(&mut self, stored: &mut StoredFd, slot: u32) -> io::Result<()> {
        match self.fds.add(stored.fd.as_fd(), Interest::empty()) {
            Ok(token) => {
                self.set_slot(token, slot);
                stored.token = Some(token);
                Ok(())
            }
            // EBADF is the error for a descriptor that was opened with O_PATH.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBADF)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn remove_descriptors(&mut self, slot: u32, name: &str) -> u32 {
        let removed = self.stores.get_mut(&slot).map(|store| store.remove(name));
        let removed = removed.unwrap_or_default();
        let count = u32::try_from(removed.len()).unwrap_or(u32::MAX);
        removed.into_iter().for_each(|entry| self.close_stored(entry.fd));
        self.drop_empty_store(slot);
        count
    }

    fn close_stored(&mut self, stored: StoredFd) {
        let StoredFd { fd, token, .. } = stored;
        do_not_linger(fd.as_fd());
        match token {
            // A refusal means that the entry is already gone. Dropping the descriptor closes it.
            Some(token) => drop(self.fds.remove(token, fd)),
            None => drop(fd),
        }
    }

    fn drop_empty_store(&mut self, slot: u32) {
        if self.stores.get(&slot).is_some_and(Store::is_empty) {
            self.stores.remove(&slot);
        }
    }

    /// Closes all descriptors of an instance.
    pub(super) fn close_store(&mut self, slot: u32) {
        let entries = self.stores.remove(&slot).map(Store::into_entries);
        entries
            .unwrap_or_default()
            .into_iter()
            .for_each(|entry| self.close_stored(entry.fd));
    }

    /// Closes all stored descriptors.
    pub(super) fn close_stores(&mut self) {
        let slots: Vec<_> = self.stores.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.close_store(slot));
    }

    /// The stored descriptor of the set's entry with this token.
    pub(super) fn stored(&self, slot: u32, token: Token) -> Option<BorrowedFd<'_>> {
        let mut entries = self.stores.get(&slot)?.iter();
        let found = entries.find(|entry| entry.fd.token == Some(token))?;
        Some(found.fd.fd.as_fd())
    }

    /// Removes the descriptor of a ready entry, if its other side is really gone.
    pub(super) fn remove_if_hung_up(&mut self, slot: u32, token: Token) -> io::Result<Option<Happening>> {
        let Some(fd) = self.stored(slot, token) else {
            return Ok(None);
        };
        // With no requested event, only an error or a hangup counts as ready.
        if !is_ready(fd, PollFlags::empty())? {
            return Ok(None);
        }
        let store = self.stores.get_mut(&slot);
        let Some(Entry { name, fd }) = store.and_then(|store| store.take_first(|stored| stored.token == Some(token)))
        else {
            return Ok(None);
        };
        self.close_stored(fd);
        self.drop_empty_store(slot);
        Ok(Some(Happening::HungUp { slot, name }))
    }

    /// The program with the stored descriptors of an instance; `None` if there are none.
    pub(super) fn with_stored(&mut self, slot: u32, program: &Program) -> Result<Option<Program>, SpawnError> {
        let failed = |error| program.parent_error(SpawnStep::Descriptor, errno_of(&error));
        let listening = self.listening(slot, program).map_err(failed)?;
        program.listening_too(&listening)
    }

    /// Copies of an instance's descriptors, for a spawn. Those beyond the number that its program can get are closed.
    fn listening(&mut self, slot: u32, program: &Program) -> io::Result<Vec<Listening>> {
        let Some(store) = self.stores.get_mut(&slot) else {
            return Ok(Vec::new());
        };
        let surplus = store.split_off(program.most_stored().into());
        surplus.into_iter().for_each(|entry| self.close_stored(entry.fd));
        self.drop_empty_store(slot);
        let Some(store) = self.stores.get(&slot) else {
            return Ok(Vec::new());
        };
        let copy = |entry: &Entry<StoredFd>| {
            Ok(Listening {
                name: Arc::clone(&entry.name),
                fd: Arc::new(entry.fd.fd.try_clone()?),
            })
        };
        store.iter().map(copy).collect()
    }

    // Hand-over.

    pub(super) fn stored_images(&self) -> Vec<StoredImage> {
        let mut images = Vec::new();
        for (&slot, store) in &self.stores {
            images.extend(store.iter().map(|entry| StoredImage {
                slot,
                name: Arc::clone(&entry.name),
                fd: entry.fd.fd.as_raw_fd(),
                is_watched: entry.fd.token.is_some(),
            }));
        }
        images
    }

    /// Checks a stored descriptor of an image: it is there, and the set waits for it if it is watched.
    pub(super) fn check_stored(&self, stored: &StoredImage, fds: &Descriptors) -> Result<(), NotTaken> {
        if fds.get(stored.fd).is_none() {
            return Err(NotTaken::Descriptor(stored.fd));
        }
        match self.fds.token_of(stored.fd).is_some() == stored.is_watched {
            true => Ok(()),
            false => Err(NotTaken::Damaged),
        }
    }

    /// Continues with the stored descriptors of an image, which were checked.
    pub(super) fn take_stored(&mut self, images: &[StoredImage], fds: &mut Descriptors) {
        for StoredImage { slot, name, fd, .. } in images {
            let token = self.fds.token_of(*fd);
            // An open descriptor can be inspected.
            let Some(Ok(mut stored)) = fds.take(*fd).map(StoredFd::new) else {
                continue;
            };
            stored.token = token;
            if let Some(token) = token {
                self.set_slot(token, *slot);
            }
            self.stores.entry(*slot).or_default().push(Arc::clone(name), stored);
        }
    }

    /// All stored descriptors, which are not watched any more.
    pub(super) fn give_stored_back(&mut self) -> impl Iterator<Item = OwnedFd> + use<> {
        let stores = std::mem::take(&mut self.stores).into_values();
        stores.flat_map(Store::into_entries).map(|entry| entry.fd.fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Spawner;
    use crate::engine::arena::Arena;
    use crate::engine::ids::InstanceId;
    use crate::notify::NotifyAccess;
    use crate::sys::descriptors::is_same_open_file;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{skipped, tempdir};
    use crate::timerfd::Clock;
    use rustix::fs::{Mode, OFlags, open};
    use std::fs::File;
    use std::io::{PipeReader, Read, Write, pipe};

    const SLOT: u32 = 0;

    fn linux() -> Linux {
        Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap()
    }

    fn sender() -> Sender {
        Sender {
            id: Arena::<InstanceId, ()>::new(0).insert(()),
            access: NotifyAccess::All,
            most_stored: 3,
        }
    }

    /// Stores a descriptor, and watches it.
    fn store(linux: &mut Linux, name: &str, fd: impl Into<OwnedFd>) -> Result<(), RefusalReason> {
        linux.store_one(sender(), &name.into(), fd.into(), true)
    }

    /// Stores the end of a pipe. Returns the other end.
    fn store_pipe(linux: &mut Linux, name: &str) -> PipeReader {
        let (reader, writer) = pipe().unwrap();
        store(linux, name, writer).unwrap();
        reader
    }

    fn is_closed(mut reader: PipeReader) -> bool {
        reader.read(&mut [0]).unwrap() == 0
    }

    #[test]
    fn a_store_lasts_until_its_last_descriptor_is_removed() {
        let mut linux = linux();
        let one = store_pipe(&mut linux, "one");
        let others = [store_pipe(&mut linux, "other"), store_pipe(&mut linux, "other")];
        assert_eq!(linux.remove_descriptors(SLOT, "other"), 2);
        assert!(others.into_iter().all(is_closed));
        assert!(linux.stores.contains_key(&SLOT));
        assert_eq!(linux.remove_descriptors(SLOT, "one"), 1);
        assert!(is_closed(one));
        assert!(linux.stores.is_empty());
    }

    #[test]
    fn all_stores_are_closed_together() {
        let mut linux = linux();
        let one = store_pipe(&mut linux, "one");
        linux.close_stores();
        assert!(linux.stores.is_empty() && is_closed(one));
    }

    #[test]
    fn a_descriptor_that_is_given_back_is_open_and_in_no_store() {
        let mut linux = linux();
        let readers = ["one", "other"].map(|name| store_pipe(&mut linux, name));
        let given: Vec<_> = linux.give_stored_back().map(File::from).collect();
        assert!(linux.stores.is_empty());
        for mut file in given {
            file.write_all(b"x").unwrap();
        }
        for mut reader in readers {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x");
        }
    }

    #[test]
    fn what_epoll_does_not_support_is_stored_and_not_watched() {
        let mut linux = linux();
        let path = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        store(&mut linux, "path", path).unwrap();
        store(&mut linux, "file", File::open("/proc/self/exe").unwrap()).unwrap();
        let (_reader, writer) = pipe().unwrap();
        let refused = refusing(libc::SYS_epoll_ctl, libc::ENOSPC, || store(&mut linux, "pipe", writer));
        assert_eq!(refused, Err(RefusalReason::Errno(libc::ENOSPC)));
        let images = linux.stored_images();
        let names: Vec<_> = images.iter().map(|image| (&*image.name, image.is_watched)).collect();
        assert_eq!(names, [("path", false), ("file", false)]);
    }

    #[test]
    fn two_descriptors_are_the_same_if_they_share_an_open_file() {
        let mut linux = linux();
        let directory = tempdir();
        let path = directory.join("file");
        let file = File::create(&path).unwrap();
        store(&mut linux, "one", file.try_clone().unwrap()).unwrap();
        store(&mut linux, "opened again", File::open(&path).unwrap()).unwrap();
        if is_same_open_file(file.as_fd(), file.as_fd()).is_none() {
            return skipped("a descriptor of the same open file is not recognized: it needs Linux 6.10 or CONFIG_KCMP");
        }
        let again = store(&mut linux, "copy", file);
        assert!(matches!(again, Err(RefusalReason::Duplicate)), "{again:?}");
    }

    #[test]
    fn a_request_to_store_without_descriptors_is_none() {
        let mut linux = linux();
        let request = || Request::Store {
            name: "one".into(),
            is_polled: true,
        };
        for (had_any, notices) in [(false, 0), (true, 1)] {
            linux.reports.clear();
            linux.store_descriptors(Delivery {
                sender: Sender {
                    most_stored: 0,
                    ..sender()
                },
                request: request(),
                descriptors: Passed::default(),
                had_any,
                has_lost: false,
            });
            assert_eq!(linux.reports.len(), notices);
        }
    }

    #[test]
    fn a_stored_descriptor_of_an_image_is_there_and_is_watched_as_the_image_says() {
        let mut linux = linux();
        let (_reader, writer) = pipe().unwrap();
        let fd = OwnedFd::from(writer);
        let image = |is_watched| StoredImage {
            slot: SLOT,
            name: "one".into(),
            fd: fd.as_raw_fd(),
            is_watched,
        };
        let damaged = [image(true), image(false)];
        let none = linux.check_stored(&damaged[1], &Descriptors::default());
        assert!(matches!(none, Err(NotTaken::Descriptor(number)) if number == fd.as_raw_fd()));
        let mut left = Descriptors::left(vec![fd]);
        let check =
            |linux: &Linux, left: &Descriptors| damaged.each_ref().map(|image| linux.check_stored(image, left).is_ok());
        assert_eq!(check(&linux, &left), [false, true]);
        let fd = left.take(damaged[0].fd).unwrap();
        linux.fds.add(fd.as_fd(), Interest::empty()).unwrap();
        let left = Descriptors::left(vec![fd]);
        assert_eq!(check(&linux, &left), [true, false]);
    }
}
