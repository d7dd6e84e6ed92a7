//! A helper for tests: the kernel refuses a system call, through a seccomp filter of the calling thread.

use std::ffi::{c_int, c_long};

/// Makes the system call `nr` fail with `errno` in this thread and in its children, for good. With an errno of 0, the
/// call does nothing and reports success.
pub(crate) fn refuse(nr: c_long, errno: c_int) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            u32::try_from(nr).unwrap(),
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid and has the given length. The kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}

/// Runs `body` in a new thread, in which `nr` fails with `errno`.
pub(crate) fn refusing<T: Send>(nr: c_long, errno: c_int, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(nr, errno);
            body()
        });
        thread.join().unwrap()
    })
}

/// From now on, a change of ids in this thread and its children keeps all capabilities (SECBIT_NO_SETUID_FIXUP). This
/// needs CAP_SETPCAP.
pub(crate) fn keep_capabilities_across_ids() {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: prctl(2) takes only numbers here.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP) }, 0);
}

/// From now on, no process of this thread may ask to keep its capabilities when its ids change
/// (SECBIT_KEEP_CAPS_LOCKED). This needs CAP_SETPCAP.
pub(crate) fn lock_keep_capabilities() {
    const KEEP_CAPS_LOCKED: libc::c_ulong = 1 << 5;
    // SAFETY: prctl(2) takes only numbers here.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, KEEP_CAPS_LOCKED) }, 0);
}
