//! signalfd(2) and the thread's signal mask: what rustix does not wrap.
//!
//! The system calls are made by number and not through the C library's functions: glibc's `pthread_sigmask` removes its
//! own signals (32 and 33) from every set, so it could not restore the exact mask.

use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long};

use crate::signal::{Signal, SignalSet};

/// The size of one record. Every read of a signalfd returns a multiple of it.
const RECORD: usize = mem::size_of::<libc::signalfd_siginfo>();

/// A new signalfd for `set`: CLOEXEC, non-blocking (Linux 2.6.27).
pub(crate) fn create(set: SignalSet) -> io::Result<OwnedFd> {
    let mask = KernelSet::new(set);
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the kernel reads `KernelSet::SIZE` bytes at the pointer, the size of the live local `mask`. With -1 the
    // call makes a new descriptor and changes no other.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, ptr::from_ref(&mask.0), KernelSet::SIZE, flags) };
    let fd = RawFd::try_from(checked(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and no other code knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the first pending record; `None` if no signal is pending.
pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<Option<libc::signalfd_siginfo>> {
    let mut bytes = [0u8; RECORD];
    match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut bytes)) {
        Ok(RECORD) => {}
        Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    // SAFETY: both types have the same size, which the compiler checks. The bytes are initialized. The structure has
    // integers and padding only, so every bit pattern is valid.
    Ok(Some(unsafe {
        mem::transmute::<[u8; RECORD], libc::signalfd_siginfo>(bytes)
    }))
}

/// Adds `set` to the mask of the calling thread. Returns the previous mask.
pub(crate) fn block(set: SignalSet) -> io::Result<SignalSet> {
    change_mask(libc::SIG_BLOCK, set)
}

/// Makes `set` the mask of the calling thread. Returns the previous mask.
pub(crate) fn set_mask(set: SignalSet) -> io::Result<SignalSet> {
    change_mask(libc::SIG_SETMASK, set)
}

/// Whether this signal is pending for the calling thread or its process (sigpending(2)).
pub(crate) fn is_pending(signal: Signal) -> bool {
    let mut set = KernelSet::new(SignalSet::EMPTY);
    // SAFETY: the kernel writes `KernelSet::SIZE` bytes to a live local of that size.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigpending, ptr::from_mut(&mut set.0), KernelSet::SIZE) };
    done == 0 && set.get().contains(signal)
}

/// Removes this signal from those that are pending for the calling thread, which must block it (sigtimedwait(2)).
/// Without one that is pending, nothing happens.
pub(crate) fn discard_pending(signal: Signal) {
    let set = KernelSet::new(SignalSet::EMPTY.with(signal));
    let no_time = [0 as c_long; 2];
    // SAFETY: the kernel reads a set of `KernelSet::SIZE` bytes and a `struct timespec` of two words, both live locals.
    // It writes no siginfo to a null pointer.
    let _taken = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            ptr::from_ref(&set.0),
            ptr::null::<u8>(),
            no_time.as_ptr(),
            KernelSet::SIZE,
        )
    };
}

fn change_mask(how: c_int, set: SignalSet) -> io::Result<SignalSet> {
    let new = KernelSet::new(set);
    let mut old = KernelSet::new(SignalSet::EMPTY);
    // SAFETY: the kernel reads `KernelSet::SIZE` bytes of `new` and writes as many to `old`. Both are live locals of
    // that size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            ptr::from_ref(&new.0),
            ptr::from_mut(&mut old.0),
            KernelSet::SIZE,
        )
    };
    checked(done).map(|_| old.get())
}

/// The kernel's `sigset_t`: 64 bits in machine words, with the lowest signals in the first word. That is a `u64`, but
/// on a 32-bit big-endian machine its two halves are swapped.
struct KernelSet(u64);

impl KernelSet {
    const SIZE: usize = mem::size_of::<u64>();
    const SWAPPED: bool = cfg!(all(target_pointer_width = "32", target_endian = "big"));

    const fn new(set: SignalSet) -> KernelSet {
        KernelSet(if KernelSet::SWAPPED {
            set.bits().rotate_left(32)
        } else {
            set.bits()
        })
    }

    const fn get(&self) -> SignalSet {
        SignalSet::from_bits(if KernelSet::SWAPPED {
            self.0.rotate_left(32)
        } else {
            self.0
        })
    }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Sends `signal` to the calling thread only, so that it does not reach other tests of the process.
#[cfg(test)]
pub(crate) fn raise(signal: crate::signal::Signal) {
    // SAFETY: raise(3) takes a number only.
    let result = unsafe { libc::raise(signal.as_raw()) };
    assert_eq!(result, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::common::refuse::{answering, refusing};

    #[test]
    fn a_refusal_is_an_error_with_its_errno() {
        let set = SignalSet::EMPTY.with(Signal::USR1);
        let made = refusing(libc::SYS_signalfd4, libc::EMFILE, || create(set));
        assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        // The end of a thread needs the call too, under a sanitizer for example.
        answering(libc::SYS_rt_sigprocmask, [Some(libc::EPERM); 2], || {
            for changed in [block(set), set_mask(set)] {
                assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EPERM));
            }
        });
    }
}
