//! Makes the n-th system call of a thread fail, with seccomp's user notifications (seccomp_unotify(2)).
//!
//! A seccomp filter cannot count calls, and it cannot be removed. So the filter of one thread, and of its
//! children, sends a notification for every call in the list. Another thread answers each notification: the
//! call continues, or it fails with an errno.

use std::cmp::Ordering;
use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

/// A system call of the observed thread or of its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub nr: c_long,
    pub args: [u64; 6],
    pub in_child: bool,
    /// The path that an openat(2) opens.
    pub path: Known,
}

impl Call {
    fn is_like(&self, other: &Call) -> bool {
        (self.nr, self.in_child) == (other.nr, other.in_child)
    }
}

/// The paths that the tests distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Null,
    OwnDescriptors,
    OomScore,
    PidForChildren,
    Other,
}

/// One of the calls of a run: the n-th with this number in the parent, or in its children. Parent and child can run at
/// the same time, so the order of all calls differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    nr: c_long,
    in_child: bool,
    nth: usize,
}

impl Place {
    /// The place of the call with this index in the list of all calls.
    pub fn of(seen: &[Call], index: usize) -> Place {
        let Call { nr, in_child, .. } = seen[index];
        let nth = seen[..index].iter().filter(|call| call.is_like(&seen[index])).count();
        Place { nr, in_child, nth }
    }

    /// How the number of such calls compares with the number at this place.
    fn compare(self, seen: &[Call]) -> Ordering {
        let alike = seen.iter().filter(|call| self.is_for(call)).count();
        alike.cmp(&(self.nth + 1))
    }

    /// The number of earlier calls of this kind.
    pub fn nth(self) -> usize {
        self.nth
    }

    fn is_for(self, call: &Call) -> bool {
        (call.nr, call.in_child) == (self.nr, self.in_child)
    }

    /// Whether the call at this place was made.
    pub fn was_reached(self, seen: &[Call]) -> bool {
        self.compare(seen).is_ge()
    }
}

/// The fault to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call at this place fails once.
    Once { at: Place, errno: c_int },
    /// The call at this place fails, and so do all later calls with the same number in the same process.
    ForGood { at: Place, errno: c_int },
}

impl Fault {
    pub fn at(self) -> Place {
        let (Fault::Once { at, .. } | Fault::ForGood { at, .. }) = self;
        at
    }

    pub fn errno(self) -> c_int {
        let (Fault::Once { errno, .. } | Fault::ForGood { errno, .. }) = self;
        errno
    }
}

/// The largest number of calls that are recorded; a spawn makes fewer. The answering thread must not
/// allocate, because the observed thread may hold a lock of the allocator, so the list has its full size from
/// the start.
const MOST: usize = 2048;

struct State {
    armed: bool,
    fault: Option<Fault>,
    seen: Vec<Call>,
}

/// The state that the observed thread and the answering thread share.
pub struct Notifier {
    counts: fn(&Call) -> bool,
    state: Mutex<State>,
}

impl Notifier {
    /// Only calls for which `counts` returns `true` are counted and can fail.
    pub fn new(counts: fn(&Call) -> bool) -> Notifier {
        let state = State {
            armed: false,
            fault: None,
            seen: Vec::with_capacity(MOST),
        };
        Notifier {
            counts,
            state: Mutex::new(state),
        }
    }

    /// Runs `body` with this fault, and stores the calls that it made in `seen`.
    pub fn during<T>(&self, fault: Option<Fault>, seen: &mut Vec<Call>, body: impl FnOnce() -> T) -> T {
        seen.clear();
        seen.reserve(MOST);
        self.set(true, fault, |calls| calls.clear());
        let result = body();
        self.set(false, None, |calls| seen.extend_from_slice(calls));
        result
    }

    fn set(&self, armed: bool, fault: Option<Fault>, with_calls: impl FnOnce(&mut Vec<Call>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.armed = armed;
        state.fault = fault;
        with_calls(&mut state.seen);
    }

    /// Answers notifications until no process with the filter is left.
    pub fn answer(&self, listener: &OwnedFd, asking: u32) {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            if !fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            let mut notice = MaybeUninit::<libc::seccomp_notif>::zeroed();
            // SAFETY: the request fills a zeroed structure of the right type. The process that made the call
            // waits in the kernel for the answer and shares this memory, so its path can be read.
            let (notice, call) = unsafe {
                if libc::ioctl(
                    listener.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_RECV,
                    notice.as_mut_ptr(),
                ) != 0
                {
                    continue;
                }
                let notice = notice.assume_init();
                (notice, call(&notice, asking))
            };
            let errno = self.errno_for(call);
            let mut answer = libc::seccomp_notif_resp {
                id: notice.id,
                val: 0,
                error: -errno,
                flags: 0,
            };
            if errno == 0 {
                answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            }
            // SAFETY: this answers the notification just received. The process may be gone by now; then the
            // kernel returns an error.
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        }
    }

    fn errno_for(&self, call: Call) -> c_int {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.armed || !(self.counts)(&call) || state.seen.len() == MOST {
            return 0;
        }
        state.seen.push(call);
        let Some(fault) = state.fault.filter(|fault| fault.at().is_for(&call)) else {
            return 0;
        };
        let fails = match (fault, fault.at().compare(&state.seen)) {
            (_, Ordering::Equal) | (Fault::ForGood { .. }, Ordering::Greater) => true,
            (Fault::Once { .. }, Ordering::Greater) | (_, Ordering::Less) => false,
        };
        if fails { fault.errno() } else { 0 }
    }
}

/// # Safety
/// The process must be waiting for the answer. If it opens a file, it must share this process's memory.
unsafe fn call(notice: &libc::seccomp_notif, asking: u32) -> Call {
    let nr = c_long::from(notice.data.nr);
    let args = notice.data.args;
    let shares_memory = notice.pid == asking || nr == libc::SYS_openat;
    let path = if nr == libc::SYS_openat && shares_memory {
        // SAFETY: the caller guarantees that the path is valid until the call is answered.
        match unsafe { CStr::from_ptr(std::ptr::with_exposed_provenance(args[1] as usize)) }.to_bytes() {
            b"/dev/null" => Known::Null,
            b"/proc/self/fd" => Known::OwnDescriptors,
            b"/proc/self/oom_score_adj" => Known::OomScore,
            b"/proc/thread-self/ns/pid_for_children" => Known::PidForChildren,
            _ => Known::Other,
        }
    } else {
        Known::Other
    };
    Call {
        nr,
        args,
        in_child: notice.pid != asking,
        path,
    }
}

/// Installs the filter for the calling thread and its later children, and returns the descriptor that
/// receives the notifications.
pub fn install(numbers: &[c_long]) -> OwnedFd {
    let step = |code: u32, jt: usize, jf: usize, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: u8::try_from(jt).unwrap(),
        jf: u8::try_from(jf).unwrap(),
        k,
    };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, &nr) in numbers.iter().enumerate() {
        let to_end = numbers.len() - index;
        let nr = u32::try_from(nr).unwrap();
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_end, 0, nr));
    }
    let ret = libc::BPF_RET | libc::BPF_K;
    filter.push(step(ret, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(ret, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid and has the given length. The kernel copies it. The result is a new
    // descriptor.
    unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let fd = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        );
        assert!(fd >= 0, "seccomp: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(c_int::try_from(fd).unwrap())
    }
}
