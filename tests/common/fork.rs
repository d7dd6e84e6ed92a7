//! A copy of the test's process, made by fork(2).

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body` in a copy of this process and waits for its end. Whether the body came to its end without a panic.
///
/// Nothing of the copy is dropped but what the body drops: it ends by `_exit`.
#[must_use = "it says whether the body went through"]
pub fn in_fork(body: impl FnOnce()) -> bool {
    // SAFETY: the copy has this thread alone. Of what other threads may have locked it uses the allocator, which the
    // C library makes fit for use in the copy, and the standard error, which no other thread of a test writes to.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let went_well = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: ends the copy and runs nothing of this program's.
        unsafe { libc::_exit(i32::from(!went_well)) };
    }
    let mut status = 0;
    // SAFETY: the status is a local, and the child is ours to reap.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status == 0
}

/// Gives up all that root may do, for good: for a copy of the test's process.
pub fn become_nobody() {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
}
