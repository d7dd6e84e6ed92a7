//! A signal handler that interrupts the calling thread a thousand times a second, without `SA_RESTART`.

use std::mem::MaybeUninit;
use std::ptr;

/// Interrupts the calling thread until it is dropped. The same thread must drop it. SIGALRM must be blocked in all
/// other threads (see `Isolation::blocked`).
#[derive(Debug)]
pub struct Interrupts(());

impl Interrupts {
    pub fn begin() -> Interrupts {
        // SAFETY: the handler is empty, and the structures live longer than the calls.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
            assert_eq!(libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()), 0);
        }
        mask(libc::SIG_UNBLOCK);
        every(1_000);
        Interrupts(())
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        every(0);
        // A pending signal is handled here, because no thread has blocked it before.
        mask(libc::SIG_BLOCK);
        // SAFETY: the call installs no handler.
        unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    }
}

extern "C" fn ignore(_: libc::c_int) {}

fn every(microseconds: libc::suseconds_t) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the structure is a local variable.
    assert_eq!(
        // SAFETY: the structure is valid, and the old value is not requested.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) },
        0
    );
}

fn mask(how: libc::c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before the other calls use it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGALRM);
        assert_eq!(libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut()), 0);
    }
}
