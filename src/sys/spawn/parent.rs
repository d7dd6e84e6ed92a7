//! The thread that makes a child, as the child recognizes it: to ask for a parent-death signal is in vain when the
//! thread has ended already.
//!
//! getppid(2) tells only of the process, and to a child in another PID namespace it tells nothing: its answer there is
//! 0, whether the parent lives or not. What tells exactly is a word of the thread's memory, which the child shares. The
//! C library has the kernel zero it when the thread ends (set_tid_address(2)), so as to notice that itself, and the
//! kernel does that before it makes orphans of the thread's children and sends their signals. So a child that has asked
//! for its signal and then finds the thread's id in the word gets the signal.

use std::ffi::c_int;

use crate::sys::arch::syscall;

/// The parent of a child.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Parent {
    /// The pid, to be compared with getppid(2).
    process: isize,
    /// The thread's id, and the address of the word that holds it as long as the thread lives; 0 if that is not known.
    thread: isize,
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
        // SAFETY: both take nothing and change nothing.
        let (process, thread) = unsafe { (syscall(libc::SYS_getpid, &[0; 6]), syscall(libc::SYS_gettid, &[0; 6])) };
        Parent {
            process,
            thread,
            word: word_of(thread),
        }
    }

    /// Called in the child, with the result of getppid(2): 0, or ESRCH if the parent is gone.
    ///
    /// # Safety
    /// None needed; unsafe as everything that runs in the child.
    pub(super) unsafe fn check(&self, getppid: isize) -> c_int {
        let is_in_another_namespace = getppid == 0;
        if getppid != self.process && !is_in_another_namespace {
            return libc::ESRCH;
        }
        if self.word == 0 {
            return 0;
        }
        let no_time = [0isize; 2];
        // The kernel compares the word, which may lie in memory that is gone with the thread, and waits for no time.
        let args = [
            self.word,
            (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize,
            self.thread as usize,
            (&raw const no_time) as usize,
            0,
            0,
        ];
        // SAFETY: an address that the kernel checks, and a `struct timespec` of two words on this stack.
        let errno = unsafe { syscall(libc::SYS_futex, &args) }.wrapping_neg() as c_int;
        match errno {
            libc::EAGAIN | libc::EFAULT => libc::ESRCH,
            _ => 0,
        }
    }
}

/// The address of the word that the kernel zeroes when this thread ends (PR_GET_TID_ADDRESS, which kernels without
/// CONFIG_CHECKPOINT_RESTORE lack), if the thread's id is in it: glibc has it there, musl has another word.
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
    // SAFETY: the kernel writes one pointer to a local of that size.
    let result = unsafe { syscall(libc::SYS_prctl, &args) };
    if result != 0 || address == 0 {
        return 0;
    }
    // SAFETY: the address is the one that the thread's C library has given to the kernel, to be written to at the end of
    // this thread, which is alive.
    let word = unsafe { std::ptr::with_exposed_provenance::<c_int>(address).read_volatile() };
    if word as isize == thread { address } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `check` says here.
    fn check(parent: Parent, getppid: isize) -> c_int {
        // SAFETY: it makes one system call.
        unsafe { parent.check(getppid) }
    }

    #[test]
    fn a_thread_is_there_until_it_has_ended() {
        let ended = std::thread::spawn(Parent::current).join().unwrap();
        let own = Parent::current();
        assert_eq!(check(own, own.process), 0);
        assert_eq!(check(own, 0), 0, "as in another namespace");
        assert_eq!(check(own, 1), libc::ESRCH, "as an orphan");
        assert_eq!(check(own, -(libc::ENOSYS as isize)), libc::ESRCH);
        if own.word == 0 {
            eprintln!("SKIPPED: a_thread_is_there_until_it_has_ended needs glibc and CONFIG_CHECKPOINT_RESTORE");
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
