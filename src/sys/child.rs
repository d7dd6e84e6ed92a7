//! What runs between clone and exec: a loop over steps that were compiled in the parent.
//!
//! The child shares the parent's memory, and the thread that made it waits until it has called
//! execve or exit. So nothing here allocates, locks, panics, unwinds, calls into the C library
//! (wrappers write the parent's errno) or returns. Indexing and arithmetic that could panic are
//! written with pointers and wrapping operations for that reason. Decisions belong to the parent: a
//! step says what to call and what to make of the result, and the child does just that.

use std::ffi::{c_int, c_void};

use super::arch::syscall;
use super::script::{Step, Then};

/// What the parent hands to the child, and what it gets back.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Run {
    /// Two lists of steps, run one after the other: that of this spawn, then that of the command.
    pub parts: [Part; 2],
    /// Who the parent is, to be compared with getppid(2).
    pub parent: isize,
    /// Where the failed step's label and errno go; an errno of 0 says that nothing failed.
    pub failed_label: usize,
    pub failed_errno: c_int,
}

/// The steps in `[first, end)`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Part {
    pub first: *const Step,
    pub end: *const Step,
}

/// An execve that failed in a way that lets the search go on.
struct Tried {
    label: usize,
    errno: c_int,
}

/// The child's whole life before its program.
///
/// # Safety
/// `run` must be valid for reads and writes, and its steps and all that they point to valid, until
/// the child is gone. Runs on a stack of its own, with every signal blocked.
pub(crate) unsafe extern "C" fn enter(run: *mut c_void) -> ! {
    let run = run.cast::<Run>();
    let mut tried = Tried {
        label: 0,
        errno: libc::ENOENT,
    };
    // SAFETY: as promised by the caller; `part` and `step` stay within the lists.
    unsafe {
        let mut part = (&raw const (*run).parts).cast::<Part>();
        let parts_end = part.wrapping_add(2);
        while part != parts_end {
            let mut step = (*part).first;
            while step != (*part).end {
                let errno = perform(&*step, run, &mut tried);
                if errno != 0 {
                    fail(run, (*step).label, errno);
                }
                step = step.wrapping_add(1);
            }
            part = part.wrapping_add(1);
        }
        fail(run, tried.label, tried.errno)
    }
}

/// Calls what the step says; 0 if that was as it should be, else the errno.
unsafe fn perform(step: &Step, run: *mut Run, tried: &mut Tried) -> c_int {
    // SAFETY: the script's constructors put valid arguments into every step, and `run` is valid.
    unsafe {
        let result = syscall(step.nr, &step.args);
        let errno = if result < 0 { result.wrapping_neg() as c_int } else { 0 };
        match step.then {
            Then::Succeed => errno,
            Then::Place(target) if errno == 0 => place(result as usize, target),
            Then::Number(address) if errno == 0 => {
                std::ptr::with_exposed_provenance_mut::<c_int>(address).write_unaligned(result as c_int);
                0
            }
            Then::Decimal(address) if errno == 0 => {
                decimal(std::ptr::with_exposed_provenance_mut(address), result as usize);
                0
            }
            Then::Place(_) | Then::Number(_) | Then::Decimal(_) => errno,
            Then::Equal(wanted) if result == wanted => 0,
            Then::Parent if result == (*run).parent => 0,
            Then::Parent => libc::ESRCH,
            Then::Refuse if errno != 0 => 0,
            Then::Equal(_) | Then::Refuse => libc::EPERM,
            Then::UpTo(end) => close_up_to(step, end),
            Then::Search => search(step.label, errno, tried),
        }
    }
}

/// Moves a freshly opened descriptor to the number where the program expects it.
unsafe fn place(from: usize, target: usize) -> c_int {
    // SAFETY: these calls take numbers only; both descriptors are the child's own.
    let result = unsafe {
        if from == target {
            syscall(libc::SYS_fcntl, &[target, libc::F_SETFD as usize, 0, 0, 0, 0])
        } else {
            let result = syscall(libc::SYS_dup3, &[from, target, 0, 0, 0, 0]);
            syscall(libc::SYS_close, &[from, 0, 0, 0, 0, 0]);
            result
        }
    };
    if result < 0 { result.wrapping_neg() as c_int } else { 0 }
}

/// Repeats a step that closes one descriptor for every number up to `end`.
unsafe fn close_up_to(step: &Step, end: usize) -> c_int {
    let [mut number, ..] = step.args;
    while number < end {
        number = number.wrapping_add(1);
        // SAFETY: close(2) of a number in the child's own table; that most are not open is expected.
        unsafe { syscall(step.nr, &[number, 0, 0, 0, 0, 0]) };
    }
    0
}

/// Whether the next candidate of the PATH is worth a try. A program that exists but may not be run is
/// the better explanation at the end than one that doesn't exist.
fn search(label: usize, errno: c_int, tried: &mut Tried) -> c_int {
    match errno {
        libc::EACCES => *tried = Tried { label, errno },
        libc::ENOENT | libc::ENOTDIR if tried.errno != libc::EACCES => *tried = Tried { label, errno },
        libc::ENOENT | libc::ENOTDIR => {}
        _ => return errno,
    }
    0
}

/// Writes `number` and a NUL to `to`, which has room for the ten digits of any pid.
unsafe fn decimal(to: *mut u8, mut number: usize) {
    let mut length: usize = 1;
    let mut rest = number / 10;
    while rest != 0 {
        rest /= 10;
        length = length.wrapping_add(1);
    }
    // SAFETY: a pid has at most ten digits, and the script holds eleven bytes for it.
    unsafe {
        to.wrapping_add(length).write(0);
        while length != 0 {
            length = length.wrapping_sub(1);
            to.wrapping_add(length).write(b'0'.wrapping_add((number % 10) as u8));
            number /= 10;
        }
    }
}

/// Leaves word and ends the child.
unsafe fn fail(run: *mut Run, label: usize, errno: c_int) -> ! {
    // SAFETY: `run` is valid; exit_group takes a number and does not return.
    unsafe {
        (*run).failed_label = label;
        (*run).failed_errno = errno;
        loop {
            syscall(libc::SYS_exit_group, &[127, 0, 0, 0, 0, 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0usize, 7, 10, 4_194_304, 2_147_483_647] {
            let mut buffer = [b'x'; 11];
            // SAFETY: eleven bytes, as asked.
            unsafe { decimal(buffer.as_mut_ptr(), number) };
            let text = std::ffi::CStr::from_bytes_until_nul(&buffer).unwrap();
            assert_eq!(text.to_str().unwrap(), number.to_string());
        }
    }

    #[test]
    fn a_forbidden_program_is_reported_rather_than_a_missing_one() {
        let mut tried = Tried {
            label: 0,
            errno: libc::ENOENT,
        };
        for (label, errno) in [
            (1, libc::ENOENT),
            (2, libc::EACCES),
            (3, libc::ENOTDIR),
            (4, libc::ENOENT),
        ] {
            assert_eq!(search(label, errno, &mut tried), 0);
        }
        assert_eq!((tried.label, tried.errno), (2, libc::EACCES));
        assert_eq!(search(5, libc::ENOEXEC, &mut tried), libc::ENOEXEC);
    }
}
