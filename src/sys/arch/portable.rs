//! Any architecture, by way of the C library: its `syscall` function, and no `clone3` (glibc and musl
//! export none), so that every child is made by `clone`.

use std::ffi::{c_long, c_void};

use super::{CloneArgs, Entry};

/// One system call; the result as the kernel gives it, `-errno` on failure.
///
/// The wrapper writes errno, and a child that shares its parent's memory shares that too: it is put
/// back to what it was. The parent calls this (for its signal mask) before it makes any child, so
/// the dynamic linker has nothing left to resolve in the child.
///
/// # Safety
/// The arguments must be what the call asks for: pointers valid for what it reads and writes.
pub(crate) unsafe fn syscall(nr: c_long, args: &[usize; 6]) -> isize {
    let [a, b, c, d, e, f] = *args;
    // SAFETY: the caller answers for the arguments; errno belongs to this thread (or to the parent
    // thread, which is suspended while its child runs here).
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let result = libc::syscall(nr, a, b, c, d, e, f);
        let failure = *errno;
        *errno = before;
        if result == -1 {
            -(failure as isize)
        } else {
            result as isize
        }
    }
}

/// Always `-ENOSYS`: there is no portable way to call clone3(2) with a stack.
///
/// # Safety
/// None needed; the signature is that of the other architectures.
pub(crate) unsafe fn clone3(_: &CloneArgs, _: usize, _: Entry, _: *mut c_void) -> isize {
    -(libc::ENOSYS as isize)
}
