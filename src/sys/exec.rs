//! A program in the place of this one: execve(2), and the descriptors that it leaves open.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};

use super::descriptors::flags_of;
use super::{arch, nr};

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

/// Sets close-on-exec of descriptors that the caller keeps open. The numbers are sorted.
///
/// A row of numbers without a gap takes one close_range(2) (CLOSE_RANGE_CLOEXEC, Linux 5.11).
pub(crate) fn set_close_on_exec_of_all(numbers: &[RawFd]) -> io::Result<()> {
    for row in numbers.chunk_by(|before, after| before.checked_add(1) == Some(*after)) {
        if let [first, .., last] = *row {
            let args = [
                first as usize,
                last as usize,
                libc::CLOSE_RANGE_CLOEXEC as usize,
                0,
                0,
                0,
            ];
            // SAFETY: with this flag, the call closes nothing. It changes a flag of the descriptors in the row alone.
            if unsafe { arch::syscall(nr::CLOSE_RANGE, &args) } == 0 {
                continue;
            }
        }
        row.iter().try_for_each(|&number| set_close_on_exec(number, true))?;
    }
    Ok(())
}

/// Takes the descriptor with this number, which the program before this one has left open for it; `None` if it is not
/// open, or is close-on-exec and so was opened by this program. It is close-on-exec from now on.
///
/// The number comes from that program, so no code of this program owns it. A wrong number can only be that of a
/// descriptor without close-on-exec: one that was inherited.
pub(crate) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    take_all_inherited(&[number]).ok()?.pop()
}

/// Takes the descriptors with these numbers, which are sorted and each there once, as [`take_inherited`] does. If one
/// cannot be taken, its number is the error, and none was changed.
pub(crate) fn take_all_inherited(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, RawFd> {
    let is_inherited = |number: RawFd| flags_of(number).is_some_and(|flags| flags & libc::FD_CLOEXEC == 0);
    if let Some(&number) = numbers.iter().find(|&&number| !is_inherited(number)) {
        return Err(number);
    }
    // All of them are open, so this cannot fail.
    let _set = set_close_on_exec_of_all(numbers);
    // SAFETY: the descriptors are open, and by the above no value of this program owns them.
    let own = |&number: &RawFd| unsafe { OwnedFd::from_raw_fd(number) };
    Ok(numbers.iter().map(own).collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;
    use crate::testing::common::refuse::refusing;

    fn opened() -> RawFd {
        std::fs::File::open("/dev/null").unwrap().into_raw_fd()
    }

    #[test]
    fn only_the_named_descriptors_are_taken_and_all_or_none() {
        let mut all: Vec<RawFd> = (0..6).map(|_| opened()).collect();
        all.sort_unstable();
        let (own, other) = (all[2], all[4]);
        for &number in all.iter().filter(|&&number| number != own) {
            set_close_on_exec(number, false).unwrap();
        }
        assert_eq!(take_all_inherited(&all).unwrap_err(), own, "it is close-on-exec");
        assert_eq!(flags_of(all[0]), Some(0), "nothing was changed");
        let named = [all[0], all[1], all[3], all[5]];
        let taken = take_all_inherited(&named).unwrap();
        assert_eq!(taken.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), named);
        assert!(named.iter().all(|&number| flags_of(number) == Some(libc::FD_CLOEXEC)));
        assert_eq!(flags_of(other), Some(0), "its neighbours were taken");
        assert!(take_inherited(named[0]).is_none(), "it is taken");
        // SAFETY: no value owns these two.
        drop(unsafe { [OwnedFd::from_raw_fd(own), OwnedFd::from_raw_fd(other)] });
    }

    #[test]
    fn without_a_call_for_a_row_each_of_its_descriptors_is_set() {
        // No other test has these numbers.
        let row = [900, 901];
        let file = std::fs::File::open("/dev/null").unwrap();
        for number in row {
            // SAFETY: the numbers are free, and both descriptors are open.
            assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
        }
        refusing(libc::SYS_close_range, libc::EINVAL, || set_close_on_exec_of_all(&row)).unwrap();
        assert!(row.iter().all(|&number| flags_of(number) == Some(libc::FD_CLOEXEC)));
        // SAFETY: no value owns them.
        drop(row.map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
    }
}
