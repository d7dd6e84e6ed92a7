//! For tests: a kernel that refuses a system call, made by a seccomp filter of the calling thread.

use std::ffi::{c_int, c_long};

/// From now on, `nr` gives `errno` in this thread and its children; with an errno of 0 it says that all
/// went well and does nothing.
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
    // SAFETY: a valid program of the length said, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}

/// Runs `body` in a thread of its own, where `nr` gives `errno`.
pub(crate) fn refusing<T: Send>(nr: c_long, errno: c_int, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(nr, errno);
            body()
        });
        thread.join().unwrap()
    })
}

/// From now on, changes of ids take no capabilities from this thread and its children
/// (SECBIT_NO_SETUID_FIXUP); needs CAP_SETPCAP.
pub(crate) fn keep_capabilities_across_ids() {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP) }, 0);
}
