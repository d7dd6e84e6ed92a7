//! A file that is mapped into memory, shared with every process that maps it later. What is stored there outlives this
//! process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The bytes of a file from its start on. The file must not become shorter: access beyond its end raises SIGBUS.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only accessed by copies and by atomic loads and stores, and stays mapped as long as the value
// exists.
unsafe impl Send for Mapping {}
// SAFETY: as above. `Mapping::write` is called by the one owner of the range (see there).
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of a file that is at least as long.
    pub(crate) fn new(file: BorrowedFd<'_>, length: usize) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: the kernel chooses a free address.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Ok(Mapping { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address of a range, if it is inside.
    fn range(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| self.start.as_ptr().wrapping_add(offset))
    }

    /// Copies the bytes to this place. Nothing happens if they do not fit into the mapping.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.range(offset, bytes.len()) {
            // SAFETY: the range is inside the mapping, and no reference to mapped memory exists.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        }
    }

    /// Copies the bytes from this place. Beyond the end they are zero.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        if let Some(place) = self.range(offset, bytes.len()) {
            // SAFETY: as in `write`.
            unsafe { ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        }
    }

    /// Stores a number at a place that is a multiple of eight, after everything that was written before.
    pub(crate) fn store(&self, offset: usize, number: u64) {
        if let Some(place) = self.range(offset, 8).filter(|_| offset % 8 == 0) {
            // SAFETY: the place is inside the mapping and aligned, because a mapping begins at a page.
            let place = unsafe { AtomicU64::from_ptr(place.cast()) };
            place.store(number.to_le(), Ordering::Release);
        }
    }

    pub(crate) fn load(&self, offset: usize) -> u64 {
        let Some(place) = self.range(offset, 8).filter(|_| offset % 8 == 0) else {
            return 0;
        };
        // SAFETY: as in `store`.
        u64::from_le(unsafe { AtomicU64::from_ptr(place.cast()) }.load(Ordering::Acquire))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is a whole mapping of this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The place of a PID that the kernel writes before a new child runs (CLONE_PARENT_SETTID). However this process ends,
/// the child exists only if its PID is there.
#[derive(Clone, Debug)]
pub(crate) struct BirthCell {
    mapping: Arc<Mapping>,
    offset: usize,
}

impl BirthCell {
    /// The cell at this place, a multiple of four.
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize) -> Option<BirthCell> {
        mapping.range(offset, 4).filter(|_| offset % 4 == 0)?;
        let mapping = Arc::clone(mapping);
        Some(BirthCell { mapping, offset })
    }

    /// The address for the kernel. The memory is mapped as long as this value exists.
    pub(crate) fn address(&self) -> *mut u32 {
        self.mapping.start.as_ptr().wrapping_add(self.offset).cast()
    }

    pub(crate) fn store(&self, pid: u32) {
        // SAFETY: the place is inside the mapping and aligned.
        unsafe { AtomicU32::from_ptr(self.address()) }.store(pid, Ordering::Release);
    }

    pub(crate) fn load(&self) -> u32 {
        // SAFETY: as in `store`.
        unsafe { AtomicU32::from_ptr(self.address()) }.load(Ordering::Acquire)
    }
}

/// The place of what waitid(2) tells about a child that it reaps. A host that is killed right after the call
/// has left the status there.
#[derive(Clone, Debug)]
pub(crate) struct ExitCell {
    mapping: Arc<Mapping>,
    offset: usize,
}

impl ExitCell {
    pub(crate) const SIZE: usize = size_of::<libc::siginfo_t>();

    /// The cell at this place, a multiple of eight.
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize) -> Option<ExitCell> {
        mapping.range(offset, ExitCell::SIZE).filter(|_| offset % 8 == 0)?;
        let mapping = Arc::clone(mapping);
        Some(ExitCell { mapping, offset })
    }

    pub(crate) fn address(&self) -> *mut libc::siginfo_t {
        self.mapping.start.as_ptr().wrapping_add(self.offset).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::common::fork::in_fork;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::fd::AsFd;

    #[test]
    fn a_dropped_mapping_is_unmapped() {
        let file = std::fs::File::from(memfd_create("a test", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(4096).unwrap();
        // In a copy, because another thread could map something at that address.
        assert!(in_fork(|| {
            let start = {
                let mapping = Mapping::new(file.as_fd(), 4096).unwrap();
                mapping.start.as_ptr()
            };
            // SAFETY: the kernel checks the address.
            let synchronized = unsafe { libc::msync(start.cast(), 4096, libc::MS_ASYNC) };
            assert_eq!(
                (synchronized, io::Error::last_os_error().raw_os_error()),
                (-1, Some(libc::ENOMEM))
            );
        }));
    }

    #[test]
    fn what_is_stored_is_there_for_another_mapping_and_nothing_is_written_outside() {
        let file = std::fs::File::from(memfd_create("a test", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(4096).unwrap();
        let (one, other) = (
            Arc::new(Mapping::new(file.as_fd(), 4096).unwrap()),
            Mapping::new(file.as_fd(), 4096).unwrap(),
        );
        one.write(8, b"text");
        one.store(16, 7);
        one.write(4094, b"too long");
        one.store(17, 9);
        one.store(4096, 9);
        let mut text = [0; 4];
        other.read(8, &mut text);
        assert_eq!((&text, other.load(16), other.load(4088)), (b"text", 7, 0));
        let cell = BirthCell::new(&one, 4092).unwrap();
        cell.store(5);
        assert_eq!((cell.load(), other.load(4088) >> 32), (5, 5));
        assert!(BirthCell::new(&one, 4096).is_none() && BirthCell::new(&one, 2).is_none());
        assert!(ExitCell::new(&one, 4096 - 64).is_none());
    }
}
