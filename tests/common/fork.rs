//! Runs code in a copy of the test's process, which fork(2) creates.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body` in a copy of this process and waits for its end. Returns whether the body ended without a panic.
///
/// The copy ends with `_exit`, so it drops only the values that the body drops.
#[must_use = "the result is whether the body ended without a panic"]
pub fn in_fork(body: impl FnOnce()) -> bool {
    // SAFETY: the copy has only this thread. It uses the allocator, which the C library prepares for use in the copy,
    // and standard error, to which no other thread of a test writes. It uses no other lock.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let went_well = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: the call ends the copy and runs no code of this program.
        unsafe { libc::_exit(i32::from(!went_well)) };
    }
    let mut status = 0;
    // SAFETY: the status is a local variable, and the child is this process's own.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status == 0
}

/// Makes a copy of this process that only waits, and returns its PID. It has executed no program since fork(2). The
/// caller kills and reaps it.
pub fn waiting_copy() -> u32 {
    // SAFETY: the copy only calls pause(2), which takes no arguments, and never returns.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        loop {
            // SAFETY: as above.
            unsafe { libc::pause() };
        }
    }
    pid.unsigned_abs()
}

/// Gives up all privileges of root for good. Only a copy of the test's process may call this.
pub fn drop_privileges() {
    const UNPRIVILEGED: libc::uid_t = 65_534;
    // SAFETY: the call takes only numbers.
    assert_eq!(unsafe { libc::setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) }, 0);
}
