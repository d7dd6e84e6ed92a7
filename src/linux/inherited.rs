//! The descriptors that this program has got from the one before (execve(2)).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::exec::take_all_inherited;

/// The descriptors by number. Each is present until it is taken.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// Sorted.
    numbers: Vec<RawFd>,
    /// In the order of the numbers.
    fds: Vec<Option<OwnedFd>>,
}

impl Descriptors {
    /// Takes the descriptors with these numbers, which are sorted and each there once. If one is not open, or was
    /// opened by this program, its number is the error, and none was changed.
    pub(crate) fn receive(numbers: Vec<RawFd>) -> Result<Descriptors, RawFd> {
        let fds = take_all_inherited(&numbers)?.into_iter().map(Some).collect();
        Ok(Descriptors { numbers, fds })
    }

    /// These descriptors, as if the program before this one had left them.
    #[cfg(test)]
    pub(crate) fn left(mut fds: Vec<OwnedFd>) -> Descriptors {
        fds.sort_by_key(AsRawFd::as_raw_fd);
        Descriptors {
            numbers: fds.iter().map(AsRawFd::as_raw_fd).collect(),
            fds: fds.into_iter().map(Some).collect(),
        }
    }

    /// The number of descriptors that are present.
    pub(crate) fn len(&self) -> usize {
        self.fds.iter().flatten().count()
    }

    fn place(&self, number: RawFd) -> Option<usize> {
        self.numbers.binary_search(&number).ok()
    }

    pub(crate) fn get(&self, number: RawFd) -> Option<&OwnedFd> {
        self.fds.get(self.place(number)?)?.as_ref()
    }

    pub(crate) fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        let place = self.place(number)?;
        self.fds.get_mut(place)?.take()
    }

    /// Puts a descriptor back that was taken. Another one is closed.
    pub(crate) fn give_back(&mut self, fd: OwnedFd) {
        let place = self.place(fd.as_raw_fd());
        if let Some(place) = place.and_then(|place| self.fds.get_mut(place)) {
            *place = Some(fd);
        }
    }

    /// Takes all that are present.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = OwnedFd> + '_ {
        self.fds.iter_mut().filter_map(Option::take)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_descriptor_is_present_until_it_is_taken_and_again_when_it_is_given_back() {
        let open = || OwnedFd::from(File::open("/dev/null").unwrap());
        let opened = [open(), open(), open()];
        let [first, second, third] = opened.each_ref().map(AsRawFd::as_raw_fd);
        let mut fds = Descriptors::left(opened.into());
        assert_eq!(fds.len(), 3);
        let taken = fds.take(second).unwrap();
        assert_eq!(taken.as_raw_fd(), second);
        assert!(fds.get(second).is_none() && fds.take(second).is_none());
        assert_eq!(fds.len(), 2);
        fds.give_back(taken);
        assert_eq!(fds.get(second).map(AsRawFd::as_raw_fd), Some(second));
        assert_eq!(fds.len(), 3);
        // One that was never there.
        fds.give_back(open());
        drop(fds.take(first));
        let mut left: Vec<_> = fds.drain().map(|fd| fd.as_raw_fd()).collect();
        left.sort_unstable();
        let mut expected = [second, third];
        expected.sort_unstable();
        assert_eq!((left, fds.len()), (expected.to_vec(), 0));
    }
}
