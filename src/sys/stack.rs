//! The stack of a child between clone and exec: its own mapping with a guard page below it, so that an
//! overrun kills the child instead of scribbling over the parent.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

/// Enough for the child's loop in a debug build, many times over.
const USABLE: usize = 32 * 1024;

/// One mapping, used by one child at a time.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<c_void>,
    guard: usize,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread has a tie to it.
unsafe impl Send for Stack {}

impl Stack {
    pub(crate) fn new() -> io::Result<Stack> {
        let guard = page_size();
        let size = USABLE.next_multiple_of(guard);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), guard + size, libc::PROT_NONE, flags, -1, 0) };
        let base = match NonNull::new(base) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let stack = Stack { base, guard, size };
        // SAFETY: the range lies within the mapping just made, and nobody uses it yet.
        match unsafe { libc::mprotect(stack.bottom(), size, libc::PROT_READ | libc::PROT_WRITE) } {
            0 => Ok(stack),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The lowest usable address.
    pub(crate) fn bottom(&self) -> *mut c_void {
        self.base.as_ptr().wrapping_byte_add(self.guard)
    }

    /// How many bytes are usable, from [`Stack::bottom`] up.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The first address above it: where a stack that grows down begins.
    pub(crate) fn top(&self) -> *mut c_void {
        self.bottom().wrapping_byte_add(self.size)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the very mapping that `new` made; no child runs on it, since a spawn returns only
        // when its child has left it. It can't fail for a whole mapping.
        unsafe { libc::munmap(self.base.as_ptr(), self.guard + self.size) };
    }
}

/// sysconf(3) can't fail for this name; 64 KiB is the largest page there is.
fn page_size() -> usize {
    // SAFETY: takes a number, reads the auxiliary vector.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_guard_page_below() {
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
            .expect("the page below is mapped");
        assert!(guard.contains(" ---p "), "{guard}");
        assert_eq!(stack.top() as usize - bottom, stack.size());
    }

    #[test]
    fn its_memory_is_given_back() {
        // What is given back is taken again.
        let places = (0..1000).map(|_| Stack::new().unwrap().bottom() as usize);
        let different: std::collections::BTreeSet<usize> = places.collect();
        assert!(different.len() < 500, "{} of 1000", different.len());
    }
}
