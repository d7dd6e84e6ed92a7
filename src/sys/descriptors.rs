//! The numbers of descriptors.
//!
//! The kernel gives a new descriptor the lowest free number. In a host that has closed a standard stream, that number
//! is 0, 1 or 2. The output of the host would then go to an epoll or a socket of the library, and a child would inherit
//! the descriptor. So every descriptor that the library keeps has a higher number.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt;

use super::arch;
use super::nr::{F_DUPFD_QUERY, KCMP_FILE};

/// The first number that does not belong to a standard stream.
pub(crate) const FIRST: RawFd = 3;

/// Moves a new descriptor away from the numbers of the standard streams. The copy is close-on-exec.
///
/// # Errors
/// EMFILE: no higher number is free. The descriptor is then closed.
pub(crate) fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST {
        return Ok(fd);
    }
    fcntl_dupfd_cloexec(&fd, FIRST)
}

/// Like `above_standard`, but the descriptor keeps its number if no higher one is free.
pub(crate) fn above_standard_if_possible(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= FIRST {
        return fd;
    }
    fcntl_dupfd_cloexec(&fd, FIRST).unwrap_or(fd)
}

/// The flags of the descriptor with this number (F_GETFD); `None` if it is not open.
pub(crate) fn flags_of(number: RawFd) -> Option<c_int> {
    fcntl(number, libc::F_GETFD)
}

/// The same for a standard stream of the host; `None` if it is closed or only [`Occupied`].
pub(crate) fn flags_of_stream(number: RawFd) -> Option<c_int> {
    let flags = flags_of(number)?;
    let is_close_on_exec = flags & libc::FD_CLOEXEC != 0;
    let is_path = || fcntl(number, libc::F_GETFL).is_some_and(|status| status & libc::O_PATH != 0);
    (!is_close_on_exec || !is_path()).then_some(flags)
}

/// Descriptors that occupy the numbers of closed standard streams. Otherwise the kernel could give these numbers to a
/// pidfd, or to a file that another thread opens.
///
/// They are opened with O_PATH, so nothing can be read from them or written to them. Another spawn at the same time
/// recognizes them by this flag, because no host has such a standard stream.
pub(crate) type Occupied = [Option<OwnedFd>; FIRST as usize];

/// Occupies the free ones of the numbers 0, 1 and 2.
pub(crate) fn occupy_standard() -> Occupied {
    let mut occupied = Occupied::default();
    // In most hosts none of them is free. This is cheaper than an open.
    if (0..FIRST).all(|number| flags_of(number).is_some()) {
        return occupied;
    }
    for place in &mut occupied {
        match open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(lowest) if lowest.as_raw_fd() < FIRST => *place = Some(lowest),
            // None of them is free, or the limit of descriptors prevents every open.
            Ok(_) | Err(_) => break,
        }
    }
    occupied
}

fn fcntl(number: RawFd, operation: c_int) -> Option<c_int> {
    // SAFETY: the arguments are numbers only, and the operations used here change nothing.
    let result = unsafe { arch::syscall(libc::SYS_fcntl, &[number as usize, operation as usize, 0, 0, 0, 0]) };
    c_int::try_from(result).ok().filter(|&result| result >= 0)
}

/// Closes a descriptor that another process has sent. A socket with the option SO_LINGER (socket(7)) would make close(2)
/// wait until its data is sent, so the option is switched off first. Other processes with the socket see that too.
pub(crate) fn close_at_once(fd: OwnedFd) {
    do_not_linger(fd.as_fd());
}

/// Lets a later close(2) of a socket not wait. Does nothing to another descriptor.
pub(crate) fn do_not_linger(fd: BorrowedFd<'_>) {
    if let Ok(Some(_)) = sockopt::socket_linger(fd) {
        // Without success, close(2) waits.
        let _waits = sockopt::set_socket_linger(fd, None);
    }
}

/// Whether two descriptors refer to the same open file: one is a copy of the other, by dup(2), fork(2) or a message.
/// `None` if neither fcntl(2) nor kcmp(2) can tell: before Linux 6.10, kcmp is a part of the kernel's configuration.
pub(crate) fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Option<bool> {
    let (one, other) = (one.as_raw_fd() as usize, other.as_raw_fd() as usize);
    // SAFETY: the arguments are numbers only, and the operation changes nothing.
    let asked = unsafe { arch::syscall(libc::SYS_fcntl, &[one, F_DUPFD_QUERY as usize, other, 0, 0, 0]) };
    if let Ok(answer @ 0..) = c_int::try_from(asked) {
        return Some(answer == 1);
    }
    let own = std::process::id() as usize;
    // SAFETY: as above.
    let compared = unsafe { arch::syscall(libc::SYS_kcmp, &[own, own, KCMP_FILE, one, other, 0]) };
    c_int::try_from(compared)
        .ok()
        .filter(|&order| order >= 0)
        .map(|order| order == 0)
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

    #[test]
    fn a_copy_is_the_same_open_file_and_another_open_is_not() {
        let open = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (one, other) = (open(), open());
        let copy = one.try_clone().unwrap();
        let is_same = is_same_open_file(one.as_fd(), copy.as_fd());
        if is_same.is_none() {
            eprintln!("SKIPPED: a_copy_is_the_same_open_file_and_another_open_is_not needs Linux 6.10 or CONFIG_KCMP");
            return;
        }
        assert_eq!(is_same, Some(true));
        assert_eq!(is_same_open_file(one.as_fd(), other.as_fd()), Some(false));
    }
}
