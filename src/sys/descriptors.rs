//! The numbers of descriptors.
//!
//! The kernel gives a new descriptor the lowest free number. In a host that has closed a standard stream that
//! is 0, 1 or 2: what the host then prints would go into an epoll or a socket of the library, and a child
//! would inherit it. So every descriptor that the library keeps has a number above these.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::arch;

/// The first number that is not a standard stream's.
pub(crate) const FIRST: RawFd = 3;

/// Moves a new descriptor away from the numbers of the standard streams. The copy is close-on-exec.
///
/// # Errors
/// EMFILE: there is no other number for it. It is closed then.
pub(crate) fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST {
        return Ok(fd);
    }
    fcntl_dupfd_cloexec(&fd, FIRST)
}

/// The flags of the descriptor of this number (F_GETFD), or `None` if it is not open.
pub(crate) fn flags_of(number: RawFd) -> Option<c_int> {
    let args = [number as usize, libc::F_GETFD as usize, 0, 0, 0, 0];
    // SAFETY: numbers only; it changes nothing.
    let flags = unsafe { arch::syscall(libc::SYS_fcntl, &args) };
    c_int::try_from(flags).ok().filter(|&flags| flags >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_an_open_number() {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let number = fd.as_raw_fd();
        assert_eq!(flags_of(number), Some(libc::FD_CLOEXEC));
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(flags_of(number), Some(0));
        assert_eq!(
            above_standard(fd).unwrap().as_raw_fd(),
            number,
            "it is high enough already"
        );
        assert_eq!(flags_of(-1), None);
        assert_eq!(flags_of(RawFd::MAX), None);
    }
}
