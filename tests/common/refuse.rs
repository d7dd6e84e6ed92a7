//! A helper for tests: the kernel refuses a system call, through a seccomp filter of the calling thread.

use std::ffi::{c_int, c_long, c_ulong};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Makes the system call `nr` fail with `errno` in this thread and in its children, for good. With an errno of 0, the
/// call does nothing and reports success.
pub fn refuse(nr: c_long, errno: c_int) {
    assert_eq!(filter(nr, libc::SECCOMP_RET_ERRNO | errno as u32, 0), 0);
}

/// Installs a filter with this action for the system call `nr`. Returns what seccomp(2) returns.
fn filter(nr: c_long, action: u32, flags: c_ulong) -> c_long {
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
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid and has the given length. The kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    }
}

/// Runs `body` in a new thread, in which `nr` fails with `errno`.
pub fn refusing<T: Send>(nr: c_long, errno: c_int, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(nr, errno);
            body()
        });
        thread.join().unwrap()
    })
}

/// Runs `body` in a new thread, in which the first call of `nr` fails with `errno`, and each further one is made. The
/// children of that thread must end in `body`.
pub fn refusing_once<T: Send>(nr: c_long, errno: c_int, body: impl FnOnce() -> T + Send) -> T {
    answering(nr, [Some(errno)], body)
}

/// Runs `body` in a new thread, in which the calls of `nr` have these answers in turn: each one fails with the errno, or
/// is made if there is none. (The kernel asks another thread about each call: seccomp_unotify(2).) The children of that
/// thread must end in `body`.
pub fn answering<T: Send>(
    nr: c_long,
    answers: impl IntoIterator<Item = Option<c_int>>,
    body: impl FnOnce() -> T + Send,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let listener = filter(nr, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
            let listener = RawFd::try_from(listener).ok().filter(|&number| number >= 0);
            // SAFETY: the kernel has just made this descriptor, and no other code knows its number.
            sender.send(unsafe { OwnedFd::from_raw_fd(listener.unwrap()) }).unwrap();
            body()
        });
        let listener = receiver.recv().unwrap();
        let mut answers = answers.into_iter();
        while let Some(id) = next_call(&listener) {
            answer(&listener, id, answers.next().flatten());
        }
        thread.join().unwrap()
    })
}

/// The next call that a filter asks about; `None` when no thread with the filter is left.
fn next_call(listener: &OwnedFd) -> Option<u64> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            polled => assert_eq!(polled, Ok(1)),
        }
        if !fds[0].revents().contains(PollFlags::IN) {
            return None;
        }
        let mut call = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the request fills a zeroed structure of the right type, for which all zeros are valid.
        let (result, call) = unsafe {
            let number = listener.as_raw_fd();
            let result = libc::ioctl(number, libc::SECCOMP_IOCTL_NOTIF_RECV, call.as_mut_ptr());
            (result, call.assume_init())
        };
        // It fails if the thread has ended meanwhile.
        if result == 0 {
            return Some(call.id);
        }
    }
}

/// Lets a call fail with this errno, or be made.
fn answer(listener: &OwnedFd, id: u64, errno: Option<c_int>) {
    let flags = match errno {
        None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Some(_) => 0,
    };
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno.unwrap_or(0),
        flags,
    };
    // SAFETY: the structure is a local of the right type. Without the thread, the kernel returns an error.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}

/// From now on, a change of ids in this thread and its children keeps all capabilities (SECBIT_NO_SETUID_FIXUP). This
/// needs CAP_SETPCAP.
pub fn keep_capabilities_across_ids() {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: prctl(2) takes only numbers here.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP) }, 0);
}

/// From now on, no process of this thread may ask to keep its capabilities when its ids change
/// (SECBIT_KEEP_CAPS_LOCKED). This needs CAP_SETPCAP.
pub fn lock_keep_capabilities() {
    const KEEP_CAPS_LOCKED: libc::c_ulong = 1 << 5;
    // SAFETY: prctl(2) takes only numbers here.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, KEEP_CAPS_LOCKED) }, 0);
}
