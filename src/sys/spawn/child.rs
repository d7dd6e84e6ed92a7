//! The code that runs between clone and exec: a loop over steps that were compiled in the parent.
//!
//! The child shares the parent's memory until it has called execve or has ended, and the parent may run meanwhile. So
//! this code does not allocate, lock, panic, unwind or return, and does not call the C library, because its wrappers
//! write the parent's errno. Indexing and arithmetic that could panic are replaced by pointers and wrapping operations.
//! The parent makes all decisions: a step contains a call and how to handle its result.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use super::interpreter::{Inquiry, inquire, is_about_files, may_execute};
use super::parent::Parent;
use super::script::{DECIMAL, LONGEST_PID_KEY, Own, Syscall, Then};
use crate::sys::arch::syscall;

/// The record that the parent and its child share. Both use it at the same time: the parent writes it only before the
/// clone, and reads only the atomic fields afterwards.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Run {
    /// Two lists of steps, which run one after the other: the steps of this spawn, then the steps of the command.
    pub parts: [Part; 2],
    /// The thread that makes the child, if the script needs it.
    pub parent: Parent,
    /// The environment for a child that needs its own pid in it ([`Own::Environment`]).
    pub environment: *const usize,
    /// The entry of that environment with the pid. The digits follow the key of `pid_key` bytes.
    pub pid_entry: [u8; LONGEST_PID_KEY + DECIMAL],
    /// The length of the key.
    pub pid_key: usize,
    /// The number that a step stored ([`Then::Number`]).
    pub number: c_int,
    /// The maximum number of pauses of a millisecond in which the child waits for a program that is being written
    /// (ETXTBSY).
    pub pauses: u32,
    /// Not zero while the child uses this memory: the kernel clears it when the child has called execve or has ended
    /// (CLONE_CHILD_CLEARTID).
    pub in_use: AtomicU32,
    /// The progress of the child: a constant of [`Stage`].
    pub stage: AtomicU32,
    /// The label of the failed step.
    pub failed_label: AtomicUsize,
    /// The errno of the failed step; 0 if no step failed.
    pub failed_errno: AtomicI32,
    /// The findings about an execve that failed. The parent reads them after the child has released the memory.
    pub inquiry: Inquiry,
}

/// The progress of a child, as increasing numbers.
pub(crate) struct Stage;

impl Stage {
    /// The child uses the parent's descriptor table.
    pub(crate) const SHARED: u32 = 0;
    /// The child has a descriptor table of its own.
    pub(crate) const UNSHARED: u32 = 1;
    /// The child has called execve at least once.
    pub(crate) const EXECUTES: u32 = 2;
}

/// The steps in `[first, end)`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Part {
    pub first: *const Syscall,
    pub end: *const Syscall,
}

impl Part {
    pub(crate) const EMPTY: Part = Part {
        first: std::ptr::null(),
        end: std::ptr::null(),
    };
}

/// The failed execve that explains best why no program was executed.
struct Tried {
    /// Null before the first failed execve.
    step: *const Syscall,
    errno: c_int,
}

/// The entry point of the child. It runs all steps and never returns: the last step is execve, and a failure ends the
/// child.
///
/// # Safety
/// `run` must be valid for reads and writes, and its steps and everything that they point to must be valid, until the
/// child has called execve or has ended. It must run on its own stack, with every signal blocked.
pub(crate) unsafe extern "C" fn enter(run: *mut c_void) -> ! {
    let run = run.cast::<Run>();
    // SAFETY: the caller guarantees a valid record.
    unsafe {
        let (label, errno) = perform_all(run);
        fail(run, label, errno)
    }
}

/// Runs all steps. Returns only if one of them has failed: its label and its errno.
///
/// # Safety
/// As for [`enter`], or in a process that no other code depends on any more.
pub(super) unsafe fn perform_all(run: *mut Run) -> (usize, c_int) {
    let mut tried = Tried {
        step: std::ptr::null(),
        errno: libc::ENOENT,
    };
    // SAFETY: the caller guarantees a valid record. `part` and `step` stay within the lists.
    unsafe {
        let mut part = (&raw const (*run).parts).cast::<Part>();
        let parts_end = part.wrapping_add(2);
        while part != parts_end {
            let mut step = (*part).first;
            while step != (*part).end {
                let errno = perform(&*step, run, &mut tried);
                if errno != 0 {
                    if matches!((*step).then, Then::Search) {
                        return inquire_into(run, Tried { step, errno });
                    }
                    return ((*step).label, errno);
                }
                step = step.wrapping_add(1);
            }
            part = part.wrapping_add(1);
        }
        if is_absence(tried.errno) {
            find_existing(run, &mut tried);
        }
        inquire_into(run, tried)
    }
}

/// Makes the system call of a step and handles its result. Returns 0 on success, otherwise the errno.
unsafe fn perform(step: &Syscall, run: *mut Run, tried: &mut Tried) -> c_int {
    // SAFETY: the script's constructors put valid arguments into every step, and `run` is valid.
    unsafe {
        let args = arguments(step, run);
        if matches!(step.then, Then::Search) {
            (*run).stage.store(Stage::EXECUTES, Ordering::Release);
        }
        let result = syscall(step.nr, &args);
        let errno = if result < 0 { result.wrapping_neg() as c_int } else { 0 };
        match step.then {
            Then::Succeed => errno,
            Then::Unshared if errno == 0 => {
                (*run).stage.store(Stage::UNSHARED, Ordering::Release);
                0
            }
            Then::Place(target) if errno == 0 => place(result as usize, target),
            Then::Number if errno == 0 => {
                (*run).number = result as c_int;
                0
            }
            Then::Decimal if errno == 0 => {
                let entry = (&raw mut (*run).pid_entry).cast::<u8>();
                decimal(entry.wrapping_add((*run).pid_key), result as usize);
                0
            }
            Then::Place(_) | Then::Number | Then::Decimal | Then::Unshared => errno,
            Then::Written if errno == 0 => must_be_written(&args),
            Then::Written => 0,
            Then::Equal(wanted) if result == wanted => 0,
            Then::Parent => (*run).parent.check(result),
            Then::Refuse if errno != 0 => 0,
            Then::Equal(_) | Then::Refuse => libc::EPERM,
            Then::UpTo(end) => close_up_to(step, end),
            Then::Search => {
                let errno = wait_while_busy(step.nr, &args, errno, (*run).pauses);
                search(step, errno, tried)
            }
        }
    }
}

/// The arguments of a step, including those that differ between spawns.
unsafe fn arguments(step: &Syscall, run: *const Run) -> [usize; 6] {
    let mut args = step.args;
    // SAFETY: `run` is valid, and the constructors use only indices below 6.
    unsafe {
        match step.own {
            Own::None => {}
            Own::Number(index) => args
                .as_mut_ptr()
                .wrapping_add(index)
                .write((&raw const (*run).number) as usize),
            Own::Environment => args.as_mut_ptr().wrapping_add(2).write((*run).environment as usize),
        }
    }
    args
}

/// Repeats an execve of a program that is being written, a millisecond after each attempt. A fork in another thread can
/// keep the file open for writing until its own exec, usually for microseconds.
unsafe fn wait_while_busy(nr: c_long, args: &[usize; 6], mut errno: c_int, mut pauses: u32) -> c_int {
    while errno == libc::ETXTBSY && pauses != 0 {
        pauses = pauses.wrapping_sub(1);
        let pause = [0isize, 1_000_000];
        // SAFETY: `pause` is a `struct timespec` on this stack: two words, seconds and nanoseconds. The execve has the
        // same arguments as the attempt before.
        unsafe {
            syscall(libc::SYS_nanosleep, &[(&raw const pause) as usize, 0, 0, 0, 0, 0]);
            errno = syscall(nr, args).wrapping_neg() as c_int;
        }
    }
    errno
}

/// Returns ENXIO for a FIFO that has no writer and no data. tee(2) distinguishes the cases and removes no data: it
/// returns 0 for a FIFO without a writer and without data, and EAGAIN for one that has a writer and no data yet.
unsafe fn must_be_written(args: &[usize; 6]) -> c_int {
    let [fifo, ..] = *args;
    let mut pipe: [c_int; 2] = [-1; 2];
    // SAFETY: pipe2 writes two ints to a local array of two. The other calls take numbers only.
    unsafe {
        let flags = libc::O_CLOEXEC as usize;
        let made = syscall(libc::SYS_pipe2, &[(&raw mut pipe) as usize, flags, 0, 0, 0, 0]);
        if made < 0 {
            return made.wrapping_neg() as c_int;
        }
        let [read, write] = (&raw const pipe).read_volatile();
        let flags = libc::SPLICE_F_NONBLOCK as usize;
        let copied = syscall(libc::SYS_tee, &[fifo, write as usize, 1, flags, 0, 0]);
        syscall(libc::SYS_close, &[read as usize, 0, 0, 0, 0, 0]);
        syscall(libc::SYS_close, &[write as usize, 0, 0, 0, 0, 0]);
        if copied == 0 { libc::ENXIO } else { 0 }
    }
}

/// Moves a newly opened descriptor to the number where the program expects it.
unsafe fn place(from: usize, target: usize) -> c_int {
    // SAFETY: these calls take numbers only, and change the child's own descriptor table.
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

/// Repeats a step that closes one descriptor, or sets its flags, for every number up to `end`.
unsafe fn close_up_to(step: &Syscall, end: usize) -> c_int {
    let [mut number, second, third, ..] = step.args;
    while number < end {
        number = number.wrapping_add(1);
        // SAFETY: close(2) or fcntl(2) of a number in the child's own descriptor table. Most numbers are not open,
        // which is expected.
        unsafe { syscall(step.nr, &[number, second, third, 0, 0, 0]) };
    }
    0
}

/// Decides whether the next candidate of the PATH is tried. Returns an errno to end the search, or 0 to continue.
///
/// Most errors concern one directory of the PATH. A dead network file system, a loop of symbolic links or a directory
/// without search permission must not hide a program in the next directory. Shells continue the search too. The search
/// ends if the program was found and cannot run, or if the system has a shortage. Then a program of the same name in
/// another directory would be the wrong one.
fn search(step: &Syscall, errno: c_int, tried: &mut Tried) -> c_int {
    match errno {
        libc::ENOEXEC | libc::ELIBBAD | libc::ETXTBSY | libc::E2BIG => return errno,
        libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::EINTR | libc::EFAULT => return errno,
        _ => {}
    }
    if tried.step.is_null() || weight(errno) > weight(tried.errno) {
        *tried = Tried { step, errno };
    }
    0
}

/// How well an error explains that no program was executed. A program that may not be executed has the highest weight,
/// a missing program the lowest.
fn weight(errno: c_int) -> u8 {
    match errno {
        libc::EACCES | libc::EPERM => 2,
        _ if is_absence(errno) => 0,
        _ => 1,
    }
}

fn is_absence(errno: c_int) -> bool {
    matches!(errno, libc::ENOENT | libc::ENOTDIR)
}

/// Looks for a candidate that exists although its execve failed: its interpreter is missing. A candidate other than the
/// recorded one is executed once more, for its errno.
unsafe fn find_existing(run: *const Run, tried: &mut Tried) {
    // SAFETY: as in `enter`. The first argument of an execve is the address of a path.
    unsafe {
        let mut part = (&raw const (*run).parts).cast::<Part>();
        let parts_end = part.wrapping_add(2);
        while part != parts_end {
            let mut step = (*part).first;
            while step != (*part).end {
                let [path, ..] = (*step).args;
                if matches!((*step).then, Then::Search) && may_execute(path) {
                    if step != tried.step {
                        let args = arguments(&*step, run);
                        let errno = syscall((*step).nr, &args).wrapping_neg() as c_int;
                        *tried = Tried { step, errno };
                    }
                    return;
                }
                step = step.wrapping_add(1);
            }
            part = part.wrapping_add(1);
        }
    }
}

/// Records the findings about the failed execve that explains best why no program was executed. Returns its label and
/// its errno.
unsafe fn inquire_into(run: *mut Run, tried: Tried) -> (usize, c_int) {
    // SAFETY: `run` is valid, and a step that is not null is one of its steps.
    unsafe {
        if tried.step.is_null() {
            return (0, tried.errno);
        }
        let [path, ..] = (*tried.step).args;
        if is_about_files(tried.errno) {
            inquire(path, tried.errno, &raw mut (*run).inquiry);
        }
        ((*tried.step).label, tried.errno)
    }
}

/// Writes `number` in decimal and a NUL to `to`, which must have room for eleven bytes: a pid has at most ten digits.
unsafe fn decimal(to: *mut u8, mut number: usize) {
    let mut length: usize = 1;
    let mut rest = number / 10;
    while rest != 0 {
        rest /= 10;
        length = length.wrapping_add(1);
    }
    // SAFETY: a pid has at most ten digits, and the record has eleven bytes for it.
    unsafe {
        to.wrapping_add(length).write(0);
        while length != 0 {
            length = length.wrapping_sub(1);
            to.wrapping_add(length).write(b'0'.wrapping_add((number % 10) as u8));
            number /= 10;
        }
    }
}

/// Records the failed step and ends the child.
unsafe fn fail(run: *mut Run, label: usize, errno: c_int) -> ! {
    // SAFETY: `run` is valid. exit_group takes a number and does not return.
    unsafe {
        (*run).failed_label.store(label, Ordering::Relaxed);
        (*run).failed_errno.store(errno, Ordering::Release);
        loop {
            // The parent reads the errno from the record. If it has called execve meanwhile, it reads the exit code.
            syscall(libc::SYS_exit_group, &[errno as usize & 0xff, 0, 0, 0, 0, 0]);
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
            // SAFETY: the buffer has eleven bytes, as required.
            unsafe { decimal(buffer.as_mut_ptr(), number) };
            let text = std::ffi::CStr::from_bytes_until_nul(&buffer).unwrap();
            assert_eq!(text.to_str().unwrap(), number.to_string());
        }
    }

    #[test]
    fn a_forbidden_program_is_reported_rather_than_a_missing_one() {
        assert_eq!(
            searched(&[
                libc::ENOENT,
                libc::ESTALE,
                libc::EACCES,
                libc::ENOTDIR,
                libc::ENOENT,
                libc::EIO
            ]),
            (3, libc::EACCES)
        );
        assert_eq!(searched(&[libc::ENOENT, libc::ENOTDIR]), (1, libc::ENOENT));
        assert_eq!(
            searched(&[libc::ENOENT, libc::EIO, libc::ELOOP, libc::ENOENT]),
            (2, libc::EIO)
        );
        assert_eq!(searched(&[libc::EIO, libc::ENOEXEC, libc::EACCES]), (2, libc::ENOEXEC));
    }

    /// The candidate and the errno that a search with these results reports.
    fn searched(errnos: &[c_int]) -> (usize, c_int) {
        let step = |label| Syscall {
            nr: libc::SYS_execve,
            args: [0; 6],
            own: Own::None,
            then: Then::Search,
            label,
        };
        let steps: Vec<Syscall> = (1..=errnos.len()).map(step).collect();
        let mut tried = Tried {
            step: std::ptr::null(),
            errno: libc::ENOENT,
        };
        for (step, &errno) in steps.iter().zip(errnos) {
            let end = search(step, errno, &mut tried);
            if end != 0 {
                return (step.label, end);
            }
        }
        // SAFETY: the pointer refers to an element of `steps`, which is still alive.
        (unsafe { (*tried.step).label }, tried.errno)
    }

    #[test]
    fn an_error_of_one_directory_does_not_end_the_search() {
        for errno in [
            libc::ENOENT,
            libc::ENOTDIR,
            libc::EACCES,
            libc::EPERM,
            libc::ELOOP,
            libc::ENAMETOOLONG,
            libc::EIO,
            libc::ESTALE,
            libc::ENODEV,
            libc::ENXIO,
            libc::ETIMEDOUT,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::ENOTCONN,
            libc::ECONNABORTED,
            libc::EREMOTEIO,
            libc::ENOKEY,
            libc::EUCLEAN,
            libc::EINVAL,
        ] {
            assert_eq!(searched(&[errno, libc::ENOEXEC]), (2, libc::ENOEXEC), "{errno}");
        }
        for errno in [
            libc::ENOEXEC,
            libc::ETXTBSY,
            libc::E2BIG,
            libc::ENOMEM,
            libc::EAGAIN,
            libc::EMFILE,
            libc::ENFILE,
            libc::ELIBBAD,
        ] {
            assert_eq!(searched(&[libc::ENOENT, errno, libc::EACCES]), (2, errno), "{errno}");
        }
    }
}
