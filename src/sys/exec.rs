//! A program in the place of this one: execve(2), and the descriptors that it leaves open.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};

use super::descriptors::flags_of;

/// Replaces this program. Returns only if that fails, with the reason. The signal mask and the pending signals stay;
/// the standard library's `exec` would clear the mask, and a pending signal would then end the process.
pub(crate) fn exec(path: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the path and all texts end with NUL, and both lists with a null pointer; they outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Clears or sets close-on-exec of a descriptor that the caller keeps open.
pub(crate) fn set_close_on_exec(number: RawFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlags::CLOEXEC } else { FdFlags::empty() };
    // SAFETY: the caller keeps the descriptor open, and the borrowed value ends with this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    Ok(fcntl_setfd(fd, flags)?)
}

/// Takes the descriptor with this number, which the program before this one has left open for it; `None` if it is not
/// open, or is close-on-exec and so was opened by this program. It is close-on-exec from now on.
///
/// The number comes from that program, so no code of this program owns it. A wrong number can only be that of a
/// descriptor without close-on-exec: one that was inherited.
pub(crate) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    if flags_of(number)? & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and by the above no value of this program owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match set_close_on_exec(fd.as_raw_fd(), true) {
        Ok(()) => Some(fd),
        Err(_) => None,
    }
}
