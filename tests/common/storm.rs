//! A storm of signals, all of which a handler takes.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The interval between two signals. It is shorter than a spawn.
const SIGNALS_EVERY: Duration = Duration::from_micros(80);

static OWNER: AtomicI32 = AtomicI32::new(0);
static HANDLED: AtomicU64 = AtomicU64::new(0);
static STRAYED: AtomicU64 = AtomicU64::new(0);

/// Sends SIGUSR1 to the process. Any of its threads takes it.
pub fn signal_until(done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        // SAFETY: kill(2) takes only numbers, and the signal has a handler.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
        thread::sleep(SIGNALS_EVERY);
    }
}

/// Counts in which process the handler ran. A raw system call leaves errno unchanged.
extern "C" fn count(_: c_int) {
    // SAFETY: getpid(2) has no arguments and cannot fail.
    let here = unsafe { libc::syscall(libc::SYS_getpid) } as i32;
    let counter = if here == OWNER.load(Ordering::Relaxed) {
        &HANDLED
    } else {
        &STRAYED
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

fn handle_signals() -> [(c_int, libc::sigaction); 2] {
    // SAFETY: getpid(2) has no arguments.
    OWNER.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    [libc::SIGALRM, libc::SIGUSR1].map(|signal| {
        // SAFETY: zeroed structures are valid. The handler only adds to atomic variables.
        unsafe {
            let (mut new, mut old): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            new.sa_sigaction = count as extern "C" fn(c_int) as usize;
            new.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(signal, &raw const new, &raw mut old), 0);
            (signal, old)
        }
    })
}

/// Restores the dispositions. A signal may still be pending for another thread, and the original action would
/// end the process. Ignoring the signal first discards it.
fn restore_handlers(before: &[(c_int, libc::sigaction)]) {
    for (signal, action) in before {
        // SAFETY: the first call ignores the signal, and the second restores the disposition that was in force.
        unsafe {
            libc::signal(*signal, libc::SIG_IGN);
            assert_eq!(libc::sigaction(*signal, action, std::ptr::null_mut()), 0);
        }
    }
}

/// An interval timer of the process that sends SIGALRM, and handlers for it and for SIGUSR1.
pub struct Storm {
    before: [(c_int, libc::sigaction); 2],
}

impl Storm {
    pub fn begin() -> Storm {
        let before = handle_signals();
        Storm::every(SIGNALS_EVERY);
        Storm { before }
    }

    /// Ends it, and restores the handlers. How many signals were handled in this process, and how many in a child.
    pub fn end(self) -> (u64, u64) {
        Storm::every(Duration::ZERO);
        restore_handlers(&self.before);
        (HANDLED.load(Ordering::Relaxed), STRAYED.load(Ordering::Relaxed))
    }

    fn every(interval: Duration) {
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: interval.subsec_micros().into(),
        };
        let timer = libc::itimerval {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: the structure is valid, and the old value is not requested.
        let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
        assert_eq!(result, 0);
    }
}
