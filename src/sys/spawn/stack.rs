//! The stack of a child between clone and exec. It is a mapping of its own with a guard page below it: a stack overflow
//! kills the child and does not overwrite the parent's memory.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

/// The usable size in bytes. The child's loop needs only a small part of it, even in a debug build.
const USABLE: usize = 32_768;

/// A stack, used by one child at a time.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<c_void>,
    guard: usize,
    size: usize,
}

// SAFETY: this value alone owns the mapping, and the mapping is not bound to a thread.
unsafe impl Send for Stack {}

impl Stack {
    pub(crate) fn new() -> io::Result<Stack> {
        let guard = page_size();
        let size = USABLE.next_multiple_of(guard);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: the kernel chooses a free address for the anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), guard + size, libc::PROT_NONE, flags, -1, 0) };
        let base = match NonNull::new(base) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let stack = Stack { base, guard, size };
        // SAFETY: the range is inside the new mapping, and no code uses it yet.
        match unsafe { libc::mprotect(stack.bottom(), size, libc::PROT_READ | libc::PROT_WRITE) } {
            0 => Ok(stack),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The lowest usable address.
    pub(crate) fn bottom(&self) -> *mut c_void {
        self.base.as_ptr().wrapping_byte_add(self.guard)
    }

    /// The number of usable bytes, starting at [`Stack::bottom`].
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The first address above the stack, where a stack that grows down begins.
    pub(crate) fn top(&self) -> *mut c_void {
        self.bottom().wrapping_byte_add(self.size)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `new` made, so the call cannot fail. No child runs on it: a flight
        // drops its stack only when no child uses the flight.
        unsafe { libc::munmap(self.base.as_ptr(), self.guard + self.size) };
    }
}

/// The page size in bytes. sysconf(3) cannot fail for this name. If it did, the result would be 64 KiB, the largest
/// page size of the supported architectures.
fn page_size() -> usize {
    // SAFETY: the call takes a number and reads the auxiliary vector.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(65_536)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_a_guard_page_below() {
        let stack = Stack::new().unwrap();
        let bottom = stack.bottom() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let guard = maps
            .lines()
            .find(|line| {
                let (range, _) = line.split_once(' ').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let (from, to) = (
                    usize::from_str_radix(from, 16).unwrap(),
                    usize::from_str_radix(to, 16).unwrap(),
                );
                (from..to).contains(&(bottom - 1))
            })
            .expect("the page below the stack is not mapped");
        assert!(guard.contains(" ---p "), "{guard}");
        assert_eq!(stack.top() as usize - bottom, stack.size());
    }

    #[test]
    fn a_dropped_stack_is_unmapped() {
        // The kernel reuses the address of an unmapped stack.
        let places = (0..1000).map(|_| Stack::new().unwrap().bottom() as usize);
        let different: std::collections::BTreeSet<usize> = places.collect();
        assert!(
            different.len() < 500,
            "{} different addresses for 1000 stacks",
            different.len()
        );
    }
}
