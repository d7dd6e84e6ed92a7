//! The version for any architecture: `syscall` is the C library's function. There is no `clone3`, because glibc and
//! musl do not export it, so every child is made by `clone`.

use std::ffi::{c_long, c_void};

use super::clone_args::{CloneArgs, Entry};

/// Makes one system call. Returns the kernel's result, which is `-errno` on failure.
///
/// The C library's function writes errno. A child that shares its parent's memory shares errno too, so this function
/// restores its value.
///
/// The parent calls this function (for its signal mask) before it makes any child. So the dynamic linker has resolved
/// all symbols before the child uses them.
///
/// # Safety
/// The arguments must be valid for the call: each pointer must be valid for what the call reads or writes.
pub(crate) unsafe fn syscall(nr: c_long, args: &[usize; 6]) -> isize {
    let [a, b, c, d, e, f] = *args;
    // SAFETY: the caller guarantees valid arguments. errno belongs to this thread, or to the parent's thread, which is
    // suspended while its child runs this code.
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

/// Always returns `-ENOSYS`: there is no portable way to call clone3(2) with a stack.
///
/// # Safety
/// The function is always safe to call. It is `unsafe` only to have the same signature as on the other architectures.
pub(crate) unsafe fn clone3(_: &CloneArgs, _: usize, _: Entry, _: *mut c_void) -> isize {
    -(libc::ENOSYS as isize)
}
