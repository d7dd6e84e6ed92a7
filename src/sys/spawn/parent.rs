//! The thread that makes a child, in the form that the child can check. If that thread has already ended when the child
//! requests its parent-death signal, the signal never comes.
//!
//! getppid(2) identifies the process and not the thread, and in another PID namespace it always returns 0. A word in
//! the thread's memory, which the child shares, is exact. At the request of the C library (set_tid_address(2)), the
//! kernel zeroes this word when the thread ends. It does so before it reparents the thread's children and sends their
//! parent-death signals. So if a child has requested its signal, and then finds the thread's id in the word, it will
//! get the signal.

use std::ffi::c_int;

use crate::sys::arch::syscall;

/// The parent of a child.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Parent {
    /// The pid, to compare with getppid(2).
    process: isize,
    /// The id of the thread.
    thread: isize,
    /// The address of the word that contains the thread's id as long as the thread lives; 0 if it is not known.
    word: usize,
}

impl Parent {
    pub(super) const NONE: Parent = Parent {
        process: 0,
        thread: 0,
        word: 0,
    };

    /// The calling thread.
    pub(super) fn current() -> Parent {
        // SAFETY: both calls have no arguments and change nothing.
        let (process, thread) = unsafe { (syscall(libc::SYS_getpid, &[0; 6]), syscall(libc::SYS_gettid, &[0; 6])) };
        Parent {
            process,
            thread,
            word: word_of(thread),
        }
    }

    /// The parent of the calling process, for a program that takes the place of this one.
    pub(super) fn of_this_process() -> Parent {
        // SAFETY: the call has no arguments and changes nothing.
        let process = unsafe { syscall(libc::SYS_getppid, &[0; 6]) };
        Parent {
            process,
            ..Parent::NONE
        }
    }

    /// Called in the child with the result of getppid(2). Returns 0, or ESRCH if the parent has ended.
    ///
    /// # Safety
    /// The function is always safe to call. It is `unsafe` only because it runs in the child.
    pub(super) unsafe fn check(&self, getppid: isize) -> c_int {
        let is_in_another_namespace = getppid == 0;
        if getppid != self.process && !is_in_another_namespace {
            return libc::ESRCH;
        }
        if self.word == 0 {
            return 0;
        }
        let no_time = [0isize; 2];
        // The kernel compares the word, because it can be in memory that was unmapped with the thread. The timeout is
        // zero, so the call does not wait.
        let args = [
            self.word,
            (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize,
            self.thread as usize,
            (&raw const no_time) as usize,
            0,
            0,
        ];
        // SAFETY: the kernel checks the address, and `no_time` is a `struct timespec` of two words on this stack.
        let errno = unsafe { syscall(libc::SYS_futex, &args) }.wrapping_neg() as c_int;
        match errno {
            libc::EAGAIN | libc::EFAULT => libc::ESRCH,
            _ => 0,
        }
    }
}

/// The address of the word that the kernel zeroes when this thread ends (PR_GET_TID_ADDRESS, which needs
/// CONFIG_CHECKPOINT_RESTORE). 0 if the word does not contain the thread's id: it does with glibc, and does not with
/// musl.
fn word_of(thread: isize) -> usize {
    let mut address: usize = 0;
    let args = [
        libc::PR_GET_TID_ADDRESS as usize,
        (&raw mut address) as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes one pointer to a local of that size, and none if the call fails.
    unsafe { syscall(libc::SYS_prctl, &args) };
    if address == 0 {
        return 0;
    }
    // SAFETY: the C library has given this address to the kernel, which writes to it at the end of this thread. The
    // thread is alive, so the address is valid.
    let word = unsafe { std::ptr::with_exposed_provenance::<c_int>(address).read_volatile() };
    if word as isize == thread { address } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of `check` in this thread.
    fn check(parent: Parent, getppid: isize) -> c_int {
        // SAFETY: the function makes one system call.
        unsafe { parent.check(getppid) }
    }

    #[test]
    fn a_thread_counts_as_the_parent_until_it_has_ended() {
        let ended = std::thread::spawn(Parent::current).join().unwrap();
        let own = Parent::current();
        assert_eq!(check(own, own.process), 0);
        assert_eq!(check(own, 0), 0, "as in another namespace");
        assert_eq!(check(own, 1), libc::ESRCH, "as an orphan");
        assert_eq!(check(own, -(libc::ENOSYS as isize)), libc::ESRCH);
        let mut address: usize = 0;
        // SAFETY: the kernel writes one pointer to a local of that size.
        let is_told = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) } == 0;
        assert_eq!(own.word != 0, is_told && cfg!(target_env = "gnu"));
        if own.word == 0 {
            eprintln!(
                "SKIPPED: a_thread_counts_as_the_parent_until_it_has_ended needs glibc and CONFIG_CHECKPOINT_RESTORE"
            );
        } else {
            assert_eq!(check(ended, own.process), libc::ESRCH);
            assert_eq!(check(ended, 0), libc::ESRCH);
        }
        let unknown = Parent { word: 0, ..ended };
        assert_eq!(check(unknown, own.process), 0);
        let unmapped = Parent { word: 8, ..own };
        assert_eq!(check(unmapped, own.process), libc::ESRCH);
    }
}
