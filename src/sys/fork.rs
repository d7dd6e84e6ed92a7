//! A number for this process that a copy made by fork(2) does not share.
//!
//! The pid does not suffice: a process that is PID 1 and unshares its PID namespace can have a child with the same pid,
//! and the kernel reuses pids. So the number is in a page of its own, which the kernel zeroes in the copy
//! (`MADV_WIPEONFORK`, Linux 4.14). Reading it takes no system call. Where such a page cannot be had, the pid is used.

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The page, once it is mapped. [`ABSENT`] if it could not be mapped.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Stands for a page that could not be mapped.
static ABSENT: AtomicU64 = AtomicU64::new(0);

/// The highest number of this process and of the processes that it was copied from. A copy takes the next number.
static LAST: AtomicU64 = AtomicU64::new(0);

/// This bit is set if the number is a pid.
const IS_PID: u64 = 1 << 63;

/// The number of this process. No process that it was copied from has the same number.
pub(crate) fn process_number() -> u64 {
    let page = PAGE.load(Ordering::Acquire);
    let page = if page.is_null() { first_page() } else { page };
    if ptr::eq(page, &raw const ABSENT) {
        return IS_PID | u64::from(std::process::id());
    }
    // SAFETY: the page is mapped and never unmapped. It contains zeros, or what this function wrote.
    let number = unsafe { &*page };
    match number.load(Ordering::Acquire) {
        0 => {
            let next = LAST.fetch_add(1, Ordering::AcqRel) + 1;
            // Another thread may have stored a number meanwhile.
            let stored = number.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire);
            stored.map_or_else(|other| other, |_| next)
        }
        number => number,
    }
}

/// Maps the page, unless another thread is faster. A lock was rejected: in a copy that is made meanwhile, it would stay
/// locked for ever.
fn first_page() -> *mut AtomicU64 {
    let page = map().unwrap_or_else(|| (&raw const ABSENT).cast_mut());
    match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        Err(other) => {
            unmap(page);
            other
        }
    }
}

fn map() -> Option<*mut AtomicU64> {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: the kernel chooses a free address for the anonymous mapping, and rounds the length up to a page.
    let page = unsafe { libc::mmap(ptr::null_mut(), size_of::<AtomicU64>(), access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    let page = page.cast::<AtomicU64>();
    // SAFETY: the range is the new mapping, and no code uses it yet.
    match unsafe { libc::madvise(page.cast(), size_of::<AtomicU64>(), libc::MADV_WIPEONFORK) } {
        0 => Some(page),
        _ => {
            unmap(page);
            None
        }
    }
}

fn unmap(page: *mut AtomicU64) {
    if ptr::eq(page, &raw const ABSENT) {
        return;
    }
    // SAFETY: the range is a whole mapping that `map` made, and no code uses it.
    unsafe { libc::munmap(page.cast::<c_void>(), size_of::<AtomicU64>()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::common::fork::in_fork;
    use crate::testing::common::refuse::refuse;

    #[test]
    fn every_thread_sees_the_same_number() {
        let number = process_number();
        assert_eq!(number & IS_PID, 0, "this kernel empties a page in a copy");
        let other = std::thread::spawn(process_number).join().unwrap();
        assert_eq!((process_number(), other), (number, number));
    }

    #[test]
    fn a_copy_has_a_number_of_its_own() {
        let number = process_number();
        // SAFETY: the copy makes only the calls below, and none of them takes a lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let is_new = process_number() == number + 1 && process_number() == number + 1;
            // SAFETY: the call ends the copy and runs no code of this program.
            unsafe { libc::_exit(i32::from(!is_new)) };
        }
        let mut status = -1;
        // SAFETY: the status is a local, and the process is a child of this one.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!((status, process_number()), (0, number));
    }

    #[test]
    fn without_a_page_that_the_kernel_empties_the_number_is_the_pid() {
        assert!(in_fork(|| {
            refuse(libc::SYS_madvise, libc::EINVAL);
            PAGE.store(ptr::null_mut(), Ordering::Release);
            let pid = u64::from(std::process::id());
            for _ in 0..2 {
                assert_eq!(process_number(), (1 << 63) + pid, "it is no number of a page");
            }
        }));
    }

    #[test]
    fn a_page_that_is_not_needed_is_unmapped() {
        // In a copy, because another thread could map something at that address.
        assert!(in_fork(|| {
            let page = map().unwrap();
            unmap(page);
            // SAFETY: the kernel checks the address.
            let synchronized = unsafe { libc::msync(page.cast(), size_of::<AtomicU64>(), libc::MS_ASYNC) };
            assert_eq!(
                (synchronized, std::io::Error::last_os_error().raw_os_error()),
                (-1, Some(libc::ENOMEM))
            );
        }));
    }
}
