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
    use crate::testing::common::fork::in_fork;
    use crate::testing::common::refuse::refusing;

    fn close(number: RawFd) {
        // SAFETY: a copy of the process closes numbers that none of its code uses.
        unsafe { libc::close(number) };
    }

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

    #[test]
    fn open_files_are_compared_by_kcmp_before_linux_6_10() {
        let open = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (one, other) = (open(), open());
        let copy = one.try_clone().unwrap();
        let own = std::process::id();
        // SAFETY: the arguments are numbers only.
        let compared = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), one.as_raw_fd()) };
        if compared < 0 {
            eprintln!("SKIPPED: open_files_are_compared_by_kcmp_before_linux_6_10 needs CONFIG_KCMP");
            return;
        }
        let answers =
            || [(&one, &copy), (&one, &other), (&other, &one)].map(|(a, b)| is_same_open_file(a.as_fd(), b.as_fd()));
        refusing(libc::SYS_fcntl, libc::EINVAL, || {
            assert_eq!(answers(), [Some(true), Some(false), Some(false)]);
            assert_eq!(refusing(libc::SYS_kcmp, libc::ENOSYS, answers), [None; 3]);
        });
    }

    #[test]
    fn only_a_stream_that_is_close_on_exec_and_has_no_access_counts_as_closed() {
        for (flags, expected) in [
            (OFlags::empty(), Some(0)),
            (OFlags::CLOEXEC, Some(libc::FD_CLOEXEC)),
            (OFlags::PATH, Some(0)),
            (OFlags::PATH | OFlags::CLOEXEC, None),
        ] {
            let stream = open("/", flags, Mode::empty()).unwrap();
            assert_eq!(flags_of_stream(stream.as_raw_fd()), expected, "{flags:?}");
        }
        assert_eq!(flags_of_stream(RawFd::MAX), None);
    }

    #[test]
    fn the_numbers_of_closed_streams_are_occupied_and_no_others() {
        for closed in [&[][..], &[0], &[1], &[0, 2], &[0, 1, 2]] {
            assert!(in_fork(|| {
                // The next number is free too, so an open that is one too many would get it.
                closed.iter().copied().chain([FIRST]).for_each(close);
                let occupied = occupy_standard();
                let numbers: Vec<RawFd> = occupied.iter().flatten().map(AsRawFd::as_raw_fd).collect();
                assert_eq!(numbers, closed);
                for number in 0..FIRST {
                    assert_eq!(flags_of_stream(number).is_none(), closed.contains(&number));
                    assert!(flags_of(number).is_some());
                }
                assert_eq!(flags_of(FIRST), None);
            }));
        }
    }

    #[test]
    fn a_descriptor_leaves_the_number_of_a_closed_stream_if_another_is_free() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let fd = null();
        let number = fd.as_raw_fd();
        assert_eq!(above_standard_if_possible(fd).as_raw_fd(), number);
        assert!(in_fork(|| {
            close(0);
            let fd = null();
            assert_eq!(fd.as_raw_fd(), 0);
            let moved = above_standard_if_possible(fd);
            assert!(moved.as_raw_fd() >= FIRST);
            assert_eq!(flags_of(moved.as_raw_fd()), Some(libc::FD_CLOEXEC));
            assert_eq!(flags_of(0), None);

            let fd = null();
            assert_eq!(fd.as_raw_fd(), 0);
            let one = libc::rlimit {
                rlim_cur: 1,
                rlim_max: 1,
            };
            // SAFETY: the limits are a local, and concern the copy of the process alone.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const one) }, 0);
            assert_eq!(above_standard_if_possible(fd).as_raw_fd(), 0);
        }));
    }
}
