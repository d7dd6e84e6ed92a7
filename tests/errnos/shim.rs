//! Makes the n-th system call of a thread, or of its children before their execve, fail with an errno. Everything else
//! passes.
//!
//! This needs nothing in the library: it uses seccomp's user notifications (seccomp_unotify(2)). A seccomp filter
//! cannot count calls, and it cannot be removed. So the filter sends a notification for each call. Another thread
//! answers it: the call continues, or it returns an errno without being made.
//!
//! The filter asks only about calls from the code of this process: the test binary and its shared libraries. A program
//! that a child has executed has its code elsewhere (address space layout randomization), so it runs as fast as
//! without the filter, also when the answering thread has ended.
//!
//! It cannot hit what is no system call: the clock of the vDSO (vdso(7)), and page faults.

use std::cmp::Ordering;
use std::ffi::{CStr, c_int, c_long, c_void};
use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use crate::common::fork::in_fork;

/// A system call of the observed thread or of its child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub nr: c_long,
    pub args: [u64; 6],
    pub in_child: bool,
    /// Where the call was made, from the start of the code of the test binary.
    pub address: u64,
    /// The part of the scenario; empty if it has only one.
    pub phase: &'static str,
    /// The path that the call names, or the file behind its descriptor.
    subject: Subject,
}

/// A text of limited length. The answering thread must not allocate.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Subject {
    bytes: [u8; 96],
    length: usize,
}

impl Call {
    /// A call at this place, of which nothing else is known.
    pub fn at(place: Place) -> Call {
        Call {
            nr: place.nr,
            args: [0; 6],
            in_child: place.in_child,
            address: 0,
            phase: place.phase,
            subject: Subject {
                bytes: [0; 96],
                length: 0,
            },
        }
    }

    pub fn subject(&self) -> &str {
        std::str::from_utf8(&self.subject.bytes[..self.subject.length]).unwrap_or("?")
    }

    fn is_like(&self, other: &Call) -> bool {
        (self.nr, self.in_child, self.phase) == (other.nr, other.in_child, other.phase)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.in_child { "child" } else { "host" };
        write!(
            f,
            "{} of the {place}, in {:?}, with {:?} {:x?}",
            crate::manual::name(self.nr),
            self.phase,
            self.subject(),
            self.args
        )
    }
}

/// One of the calls of a run: the n-th with this number in a phase, in the parent or in its children. Parent and child
/// can run at the same time, so the order of all calls differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    phase: &'static str,
    nr: c_long,
    in_child: bool,
    nth: usize,
}

impl Place {
    /// The place of the call with this index in the list of all calls.
    pub fn of(seen: &[Call], index: usize) -> Place {
        let Call {
            nr, in_child, phase, ..
        } = seen[index];
        let nth = seen[..index].iter().filter(|call| call.is_like(&seen[index])).count();
        Place {
            phase,
            nr,
            in_child,
            nth,
        }
    }

    /// How the number of such calls compares with the number at this place.
    fn compare(self, seen: &[Call]) -> Ordering {
        let alike = seen.iter().filter(|call| self.is_for(call)).count();
        alike.cmp(&(self.nth + 1))
    }

    pub fn nr(self) -> c_long {
        self.nr
    }

    pub fn phase(self) -> &'static str {
        self.phase
    }

    /// The number of earlier calls of this kind.
    pub fn nth(self) -> usize {
        self.nth
    }

    fn is_for(self, call: &Call) -> bool {
        (call.nr, call.in_child, call.phase) == (self.nr, self.in_child, self.phase)
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
    /// The call at this place fails, and so do all later calls with the same number in the same process and phase.
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

    pub fn is_once(self) -> bool {
        matches!(self, Fault::Once { .. })
    }

    /// The same for another errno.
    pub fn with(self, errno: c_int) -> Fault {
        let at = self.at();
        match self {
            Fault::Once { .. } => Fault::Once { at, errno },
            Fault::ForGood { .. } => Fault::ForGood { at, errno },
        }
    }
}

/// The text with which a run is repeated.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            phase,
            nr,
            in_child,
            nth,
        } = self.at();
        let place = if in_child { "child" } else { "host" };
        let how = if self.is_once() { "once" } else { "for-good" };
        let (name, errno) = (crate::manual::name(nr), crate::manual::errno_name(self.errno()));
        write!(f, "{phase}/{place}/{name}/{nth}/{errno}/{how}")
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [phase, place, name, nth, errno, how] = parts[..] else {
            return Err(format!("{text:?} is not phase/place/call/nth/errno/how"));
        };
        let at = Place {
            phase: phase.to_owned().leak(),
            nr: crate::manual::number(name).ok_or(format!("unknown system call {name}"))?,
            in_child: place == "child",
            nth: nth.parse().map_err(|_| format!("{nth} is not a number"))?,
        };
        let errno = crate::manual::errno(errno).ok_or(format!("unknown errno {errno}"))?;
        Ok(match how {
            "once" => Fault::Once { at, errno },
            _ => Fault::ForGood { at, errno },
        })
    }
}

/// The largest number of calls that are recorded. The answering thread must not allocate, because the observed thread
/// may hold a lock of the allocator, so the list has its full size from the start.
const MOST: usize = 4096;

struct State {
    phase: Option<&'static str>,
    fault: Option<Fault>,
    seen: Vec<Call>,
    failed: Option<Call>,
}

/// The state that the observed thread and the answering thread share.
pub struct Shim {
    counts: fn(&Call) -> bool,
    /// The code of the test binary.
    own: Range<u64>,
    state: Mutex<State>,
}

impl Shim {
    /// Only calls for which `counts` returns `true` are counted and can fail.
    pub fn new(counts: fn(&Call) -> bool) -> Shim {
        let state = State {
            phase: None,
            fault: None,
            seen: Vec::with_capacity(MOST),
            failed: None,
        };
        Shim {
            counts,
            own: own_code(),
            state: Mutex::new(state),
        }
    }

    /// Runs `body` with this fault, and stores the calls that it made in `seen`.
    pub fn during<T>(&self, fault: Option<Fault>, seen: &mut Vec<Call>, body: impl FnOnce() -> T) -> T {
        seen.clear();
        seen.reserve(MOST);
        self.with(|state| state.seen.clear());
        self.arm(fault);
        let result = self.observed("", body);
        self.arm(None);
        self.with(|state| seen.extend_from_slice(&state.seen));
        result
    }

    /// Sets the fault.
    pub fn arm(&self, fault: Option<Fault>) {
        self.with(|state| state.fault = fault);
    }

    /// Counts the calls that `body` makes, and lets them fail.
    pub fn observed<T>(&self, phase: &'static str, body: impl FnOnce() -> T) -> T {
        self.with(|state| state.phase = Some(phase));
        let result = body();
        self.with(|state| state.phase = None);
        result
    }

    /// Ends an observation that a panic has left.
    pub fn stop(&self) {
        self.with(|state| (state.phase, state.fault) = (None, None));
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<Call> {
        let mut seen = Vec::with_capacity(MOST);
        self.with(|state| seen.extend_from_slice(&state.seen));
        seen
    }

    /// The first call that has failed.
    pub fn failed(&self) -> Option<Call> {
        self.with(|state| state.failed)
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers notifications until no process with the filter is left.
    pub fn answer(&self, listener: &OwnedFd, asking: u32) {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => assert_eq!(other, Ok(1)),
            }
            if !fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            let mut notice = MaybeUninit::<libc::seccomp_notif>::zeroed();
            // SAFETY: the request fills a zeroed structure of the right type.
            let notice = unsafe {
                if libc::ioctl(
                    listener.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_RECV,
                    notice.as_mut_ptr(),
                ) != 0
                {
                    continue;
                }
                notice.assume_init()
            };
            let errno = self.errno_for(&notice, asking);
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

    fn errno_for(&self, notice: &libc::seccomp_notif, asking: u32) -> c_int {
        self.with(|state| {
            let Some(phase) = state.phase else { return 0 };
            let call = Call {
                nr: c_long::from(notice.data.nr),
                args: notice.data.args,
                in_child: notice.pid != asking,
                address: notice.data.instruction_pointer.wrapping_sub(self.own.start),
                phase,
                subject: subject(notice),
            };
            if !(self.counts)(&call) || state.seen.len() == MOST {
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
            if !fails {
                return 0;
            }
            state.failed.get_or_insert(call);
            if call.nr == libc::SYS_close && !call.in_child {
                // The kernel closes the descriptor before it returns an error (close(2)). This thread has the same
                // descriptors.
                // SAFETY: the observed thread gives up the descriptor.
                unsafe { libc::close(call.args[0] as c_int) };
            }
            fault.errno()
        })
    }
}

/// The path that the call names, or the file behind its descriptor; empty if it has neither.
fn subject(notice: &libc::seccomp_notif) -> Subject {
    let mut subject = Subject {
        bytes: [0; 96],
        length: 0,
    };
    let nr = c_long::from(notice.data.nr);
    if let Some(index) = path_of(nr) {
        subject.length = read_text(notice.pid, notice.data.args[index], &mut subject.bytes);
    } else if is_about_descriptor(nr) {
        let mut link = [0; 64];
        let number = notice.data.args[if nr == libc::SYS_epoll_ctl { 2 } else { 0 }];
        let mut rest = &mut link[..63];
        use std::io::Write;
        let _short = write!(rest, "/proc/{}/fd/{number}", notice.pid);
        // SAFETY: the path ends with NUL, and the buffer has the given length.
        let length = unsafe {
            libc::readlink(
                link.as_ptr().cast(),
                subject.bytes.as_mut_ptr().cast(),
                subject.bytes.len(),
            )
        };
        subject.length = usize::try_from(length).unwrap_or(0);
    }
    subject
}

/// The argument of the call that is a path.
fn path_of(nr: c_long) -> Option<usize> {
    match nr {
        libc::SYS_execve
        | libc::SYS_chdir
        | libc::SYS_chroot
        | libc::SYS_unlink
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_readlink
        | libc::SYS_statfs
        | libc::SYS_open => Some(0),
        libc::SYS_openat
        | libc::SYS_mkdirat
        | libc::SYS_unlinkat
        | libc::SYS_readlinkat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_faccessat
        | libc::SYS_mount => Some(1),
        _ => None,
    }
}

fn is_about_descriptor(nr: c_long) -> bool {
    [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_fstatfs,
        libc::SYS_lseek,
        libc::SYS_fcntl,
        libc::SYS_ioctl,
        libc::SYS_epoll_ctl,
        libc::SYS_recvmsg,
        libc::SYS_fchmod,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_getdents64,
        libc::SYS_flock,
        libc::SYS_dup3,
        libc::SYS_setns,
    ]
    .contains(&nr)
}

/// Copies a text from the memory of a process. Returns its length without the NUL.
fn read_text(pid: u32, address: u64, buffer: &mut [u8; 96]) -> usize {
    // The text may end shortly before memory that cannot be read.
    const PAGE: usize = 4096;
    let to_boundary = PAGE - address as usize % PAGE;
    let length = buffer.len().min(to_boundary);
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast::<c_void>(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address as usize),
        iov_len: length,
    };
    // SAFETY: the kernel writes to the buffer alone, which has the given length.
    let read = unsafe { libc::process_vm_readv(pid as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    let read = usize::try_from(read).unwrap_or(0);
    match CStr::from_bytes_until_nul(&buffer[..read]) {
        Ok(text) => text.to_bytes().len(),
        Err(_) => read,
    }
}

/// The addresses of the code of the test binary.
fn own_code() -> Range<u64> {
    let here = own_code as fn() -> Range<u64> as usize as u64;
    let found = code().into_iter().find(|range| range.contains(&here));
    found.expect("the code of this function")
}

/// The addresses of the code of this process, without the vDSO.
fn code() -> Vec<Range<u64>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let code = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        if !rights.contains('x') || !line.contains('/') {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        Some(number(start)..number(end))
    });
    code.collect()
}

/// Installs the filter for the calling thread and its later children, and returns the descriptor that receives the
/// notifications.
///
/// If the kernel does not tell where a call was made, the filter asks about every call, also of executed programs.
pub fn install() -> OwnedFd {
    let code = if tells_addresses() { code() } else { Vec::new() };
    let mut filter = program(&code, libc::SECCOMP_RET_USER_NOTIF);
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

/// Whether the kernel tells a filter where a call was made. User-mode Linux does not.
pub fn tells_addresses() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let mut filter = program(&code(), libc::SECCOMP_RET_ERRNO | libc::EXDEV as u32);
        in_fork(|| {
            let program = libc::sock_fprog {
                len: u16::try_from(filter.len()).unwrap(),
                filter: filter.as_mut_ptr(),
            };
            // SAFETY: the program is valid and has the given length. The calls take numbers otherwise, and the copy of
            // the process ends at once, because all its calls fail then.
            unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
                libc::_exit(i32::from(libc::syscall(libc::SYS_getuid) != -1));
            }
        })
    })
}

/// A filter with this action for each call from these addresses, or for every call if there are none. futex(2), which
/// the shim itself needs, and the end of a process pass.
fn program(code: &[Range<u64>], action: u32) -> Vec<libc::sock_filter> {
    /// The places in `seccomp_data`, for a little-endian machine.
    const NUMBER: u32 = 0;
    const LOW: u32 = 8;
    const HIGH: u32 = 12;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let load = |place| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place);
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let ret = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let mut filter = vec![
        load(NUMBER),
        step(equal, 1, 0, libc::SYS_futex as u32),
        step(equal, 0, 1, libc::SYS_exit_group as u32),
        ret(libc::SECCOMP_RET_ALLOW),
    ];
    if code.is_empty() {
        filter.push(ret(action));
    }
    for range in code {
        // A range that crosses a multiple of 4 GiB is two ranges.
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(((start >> 32) + 1) << 32);
            let last = end - 1;
            filter.extend([
                load(HIGH),
                step(equal, 0, 4, (start >> 32) as u32),
                load(LOW),
                step(at_least, 0, 2, start as u32),
                step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, last as u32),
                ret(action),
            ]);
            start = end;
        }
    }
    filter.push(ret(libc::SECCOMP_RET_ALLOW));
    filter
}
