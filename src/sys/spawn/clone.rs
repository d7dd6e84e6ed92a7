//! Makes a child by one clone that shares memory with the parent. The parent either waits until the child has called
//! execve or has ended (as after vfork(2), but the child has its own stack), or continues at once; see
//! [`flight`](super::flight).
//!
//! fork was rejected: its cost grows with the memory of the parent. posix_spawn was rejected: it copies the parent's
//! descriptor table, does not report which step failed, and lacks most settings.

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::child;
use super::flight::{Flight, Lent};
use super::parent::Parent;
use crate::sys::arch::{self, CloneArgs};
use crate::sys::descriptors::above_standard_if_possible;
use crate::sys::mapping::BirthCell;
use crate::sys::nr;

/// Signal handlers of the parent become default actions in the child (Linux 5.5). libc's constant is a c_int, which is
/// too small for the value, so it is 0 there.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// The child starts in the cgroup with the given directory (Linux 5.7). The libc crate lacks it on some targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The methods to make a child, the best one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// clone3(2) with all flags.
    Clone3,
    /// clone3(2) without CLONE_CLEAR_SIGHAND, for Linux before 5.5 and for gVisor. The child resets every handler
    /// itself, and all its signals are blocked until then.
    Clone3KeepingHandlers,
    /// clone(2) through the C library's function: for architectures without assembly in this crate, and where clone3 is
    /// refused (before Linux 5.3, and by older filters of containers).
    Clone,
}

impl Method {
    /// The next method to try after this one failed with `errno`. `None` if `errno` cannot mean that the kernel lacks
    /// this method or that a filter refuses it.
    pub(crate) fn after(self, errno: c_int) -> Option<Method> {
        match (self, errno) {
            (Method::Clone3, libc::EINVAL) => Some(Method::Clone3KeepingHandlers),
            (Method::Clone, _) => None,
            (_, libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG) => Some(Method::Clone),
            _ => None,
        }
    }
}

/// The parameters of a child to be made.
#[derive(Debug)]
pub(crate) struct CloneRequest<'a> {
    pub method: Method,
    /// Whether the child starts with the parent's descriptor table. Its first step then unshares the low end of the
    /// table.
    pub share_descriptors: bool,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether to return as soon as the child exists, instead of waiting until the child has called execve or has
    /// ended. This needs clone3(2).
    pub in_flight: bool,
    /// Bind the child to its pidfd, so that it ends with the host. With `true` the child cannot gain privileges, which
    /// a host without CAP_SYS_ADMIN needs. Only [`Method::Clone3`] can do that.
    pub bound: Option<bool>,
    /// Whether the child is process 1 of a new PID namespace.
    pub new_pid_namespace: bool,
    /// The maximum number of pauses of a millisecond in which the child waits for a program that is being written.
    pub pauses: u32,
    /// The place where the kernel writes the PID before the child runs. Only clone3(2) can do that beside the pidfd.
    pub birth: Option<&'a BirthCell>,
}

/// A child that was made.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Makes a child, which runs the prelude of this flight and then its script.
///
/// With [`CloneRequest::in_flight`] the call returns as soon as the child exists. Otherwise it returns when the child
/// has called execve or has ended. [`Flight::failure`] is then the failed step, if any. A child with a failed step has
/// ended or is about to end.
///
/// # Errors
/// The errno of the refused clone; EBUSY if a child uses the flight.
pub(crate) fn clone_child(flight: &mut Flight, request: &CloneRequest<'_>) -> Result<Cloned, c_int> {
    if flight.is_in_use() {
        return Err(libc::EBUSY);
    }
    let in_flight = request.in_flight && request.method != Method::Clone;
    let lent = flight.prepare(in_flight, request.share_descriptors, request.pauses);
    let mut pidfd: c_int = -1;
    let mask = block_signals();
    let pid = match request.method {
        Method::Clone => clone(&lent, request, &mut pidfd),
        Method::Clone3 | Method::Clone3KeepingHandlers => clone3(&lent, request, &mut pidfd),
    };
    restore_signals(mask);
    let errno = pid.wrapping_neg() as c_int;
    let (Ok(pid @ 1..), true) = (u32::try_from(pid), pidfd >= 0) else {
        // A child without a pidfd is impossible (Linux 5.2). If it existed, it could still use the memory, so the
        // memory is not taken back.
        if pid.is_negative() {
            flight.take_back();
        }
        return Err(errno.max(1));
    };
    // SAFETY: the kernel has just made this descriptor for this call, and no other code knows its number.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pidfd = match request.bound {
        Some(_) => fcntl_dupfd_cloexec(&pidfd, UNCOPIED).unwrap_or(pidfd),
        None => above_standard_if_possible(pidfd),
    };
    Ok(Cloned { pid, pidfd })
}

/// Runs the prelude of this flight and then its script in the calling thread, which the program then replaces with its
/// whole process. Returns only if a step has failed: its label and its errno. The steps before it have taken effect.
pub(crate) fn execute_here(flight: &mut Flight, pauses: u32) -> (usize, c_int) {
    if flight.is_in_use() {
        return (0, libc::EBUSY);
    }
    let lent = flight.prepare(false, false, pauses);
    let mask = block_signals();
    // SAFETY: no child uses the record, the steps, or what they point to, and they live until the program is executed.
    // The steps change the state of this process and none of its memory except the record.
    let failed = unsafe {
        (*lent.run).parent = Parent::of_this_process();
        child::perform_all(lent.run)
    };
    restore_signals(mask);
    failed
}

/// Whether the kernel can make a range of descriptors close-on-exec (Linux 5.11).
pub(crate) fn can_close_range_on_exec() -> bool {
    let last = u32::MAX as usize;
    // SAFETY: the call takes numbers, and no descriptor has this one.
    unsafe {
        arch::syscall(
            nr::CLOSE_RANGE,
            &[last, last, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0, 0],
        ) == 0
    }
}

/// The child is never a zombie (Linux 7.1).
const CLONE_AUTOREAP: u64 = 0x4_0000_0000;
/// The child begins with no_new_privs (Linux 7.1).
const CLONE_NNP: u64 = 0x8_0000_0000;
/// The child is killed when the last descriptor of its pidfd is closed (Linux 7.1).
const CLONE_PIDFD_AUTOKILL: u64 = 0x10_0000_0000;

/// The first number that no child has in a descriptor table of its own before its execve. The pidfd of a bound child
/// has such a number: a copy in a child with a hanging execve would keep the bound child alive.
const UNCOPIED: c_int = 64;

/// Whether the kernel can bind a child to its pidfd. Makes no child: the kernel checks the flags before it looks for
/// the cgroup, which does not exist.
///
/// # Errors
/// EINVAL before Linux 7.1. ENOSYS or EPERM where a filter refuses clone3(2), ENOSYS in a build without it.
pub(crate) fn can_bind() -> Result<(), c_int> {
    let mut pidfd: c_int = 0;
    let mut word = [0_u64; 2];
    let args = CloneArgs {
        flags: BOUND | CLONE_NNP | CLONE_INTO_CGROUP,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        stack: word.as_mut_ptr().expose_provenance() as u64,
        stack_size: size_of_val(&word) as u64,
        cgroup: c_int::MAX as u64,
        ..CloneArgs::default()
    };
    // SAFETY: no descriptor has that number, so the call fails, and no child runs on the stack. `pidfd` is a local.
    let result = unsafe { arch::clone3(&args, CloneArgs::SIZE_CGROUP, child::enter, std::ptr::null_mut()) };
    match result.wrapping_neg() as c_int {
        libc::EBADF => Ok(()),
        errno => Err(errno),
    }
}

/// The flags of a bound child.
const BOUND: u64 = libc::CLONE_PIDFD as u64 | libc::CLONE_VM as u64 | CLONE_AUTOREAP | CLONE_PIDFD_AUTOKILL;

const FLAGS: c_int = libc::CLONE_PIDFD | libc::CLONE_VM;

fn clone3(lent: &Lent, request: &CloneRequest<'_>, pidfd: *mut c_int) -> isize {
    let mut args = CloneArgs {
        flags: FLAGS as u64,
        pidfd: pidfd.expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: lent.stack_bottom.expose_provenance() as u64,
        stack_size: lent.stack_size as u64,
        ..CloneArgs::default()
    };
    let mut size = CloneArgs::SIZE_FIRST;
    if request.in_flight {
        args.flags |= libc::CLONE_CHILD_CLEARTID as u64;
        args.child_tid = lent.in_use.expose_provenance() as u64;
    } else {
        args.flags |= libc::CLONE_VFORK as u64;
    }
    if request.method == Method::Clone3 {
        args.flags |= CLONE_CLEAR_SIGHAND;
    }
    if request.share_descriptors {
        args.flags |= libc::CLONE_FILES as u64;
    }
    if request.new_pid_namespace {
        args.flags |= libc::CLONE_NEWPID as u64;
    }
    if let Some(is_unprivileged) = request.bound {
        args.flags |= BOUND;
        args.flags |= if is_unprivileged { CLONE_NNP } else { 0 };
        args.exit_signal = 0;
    }
    if let Some(birth) = request.birth {
        args.flags |= libc::CLONE_PARENT_SETTID as u64;
        args.parent_tid = birth.address().expose_provenance() as u64;
    }
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
        size = CloneArgs::SIZE_CGROUP;
    }
    // SAFETY: the flight owns the stack, the record, the steps and everything that they point to. No other child uses
    // them, and the flight neither frees nor changes them before the child has released the memory. With CLONE_VFORK
    // the child has released it when this call returns. Otherwise the kernel zeroes the flight's word at that moment.
    // The kernel writes `pidfd`, a local of the caller, and the cell, which the request keeps mapped, before this call
    // returns.
    unsafe { arch::clone3(&args, size, child::enter, lent.run.cast()) }
}

/// The same through the C library's clone(3), which returns the pidfd through the `parent_tid` argument.
fn clone(lent: &Lent, request: &CloneRequest<'_>, pidfd: *mut c_int) -> isize {
    extern "C" fn enter(run: *mut c_void) -> c_int {
        // SAFETY: this is the pointer that was passed to clone below, and it is valid as described there.
        unsafe { child::enter(run) }
    }
    let shared = if request.share_descriptors {
        libc::CLONE_FILES
    } else {
        0
    };
    let namespace = if request.new_pid_namespace {
        libc::CLONE_NEWPID
    } else {
        0
    };
    let flags = FLAGS | libc::CLONE_VFORK | shared | namespace | libc::SIGCHLD;
    // SAFETY: as for clone3 with CLONE_VFORK. The wrapper writes this thread's errno, which is restored here.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let pid = libc::clone(enter, lent.stack_top, flags, lent.run.cast(), pidfd);
        let failure = *errno;
        *errno = before;
        if pid.is_negative() {
            -(failure as isize)
        } else {
            pid as isize
        }
    }
}

/// Blocks every signal of this thread, including the C library's own. Returns the previous mask.
///
/// A stop signal that reached the child before execve would also stop the parent, which waits for the child. A signal
/// handler in the child would run on the parent's memory.
fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    set_mask(&raw const all, &raw mut before);
    before
}

fn restore_signals(mask: u64) {
    set_mask(&raw const mask, std::ptr::null_mut());
}

fn set_mask(new: *const u64, old: *mut u64) {
    const NR: c_long = libc::SYS_rt_sigprocmask;
    let args = [
        libc::SIG_SETMASK as usize,
        new as usize,
        old as usize,
        size_of::<u64>(),
        0,
        0,
    ];
    // SAFETY: each pointer refers to eight bytes of the callers above, or `old` is null, and the old mask is not
    // written. With these arguments the call cannot fail.
    unsafe { arch::syscall(NR, &args) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, IntoRawFd};
    use std::sync::Arc;

    use rustix::event::PollFlags;

    use super::super::script::{Image, Script, Then};
    use super::*;
    use crate::poll::wait_for;
    use crate::signal::SignalSet;
    use crate::sys::descriptors::flags_of;
    use crate::sys::spawn::tests::VFORK;
    use crate::sys::wait::{Wait, wait};
    use crate::testing::common::fork::in_fork;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{cgroup_root, kernel_since, root_or_skip};

    /// A flight with all steps of a child, up to an execve that fails.
    fn flight() -> Flight {
        let mut script = Script::default();
        script.dispositions(1, SignalSet::EMPTY);
        let image = Image {
            candidates: &[(7, c"/no/such".to_owned())],
            argv: &[],
            env: &[],
            pid_key: Some(c"PID="),
        };
        script.execute(2, SignalSet::EMPTY, SignalSet::EMPTY, &image);
        let mut flight = Flight::new().unwrap();
        flight.prelude().unwrap().begin(&Arc::new(script), 0);
        flight
    }

    #[test]
    fn a_refused_clone_does_not_change_errno() {
        refusing(libc::SYS_clone, libc::EAGAIN, || {
            let mut flight = flight();
            // SAFETY: errno belongs to this thread.
            unsafe { *libc::__errno_location() = 4242 };
            assert_eq!(clone_child(&mut flight, &VFORK).unwrap_err(), libc::EAGAIN);
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, 4242);
        });
    }

    #[test]
    fn the_child_uses_a_small_part_of_its_stack() {
        for method in [Method::Clone3, Method::Clone] {
            let mut flight = flight();
            let lent = flight.prepare(false, true, 0);
            let (bottom, size) = (lent.stack_bottom.cast::<u8>(), lent.stack_size);
            // SAFETY: the range is the whole stack, and no child uses it.
            unsafe { bottom.write_bytes(0xa5, size) };
            let request = CloneRequest { method, ..VFORK };
            let cloned = match clone_child(&mut flight, &request) {
                Err(libc::ENOSYS) if cfg!(pidherd_portable) => continue,
                cloned => cloned.unwrap(),
            };
            assert_eq!(flight.failure(), Some((7, libc::ENOENT)));
            wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
            // SAFETY: the range was initialized above, and the child has ended.
            let bytes = unsafe { std::slice::from_raw_parts(bottom, size) };
            let untouched = bytes.iter().take_while(|&&byte| byte == 0xa5).count();
            assert!(untouched > size / 2, "{untouched} of {size} bytes untouched");
            assert!(untouched < size, "it ran on this stack");
        }
    }

    #[test]
    fn a_child_in_flight_releases_its_memory_when_it_ends() {
        let mut flight = flight();
        let request = CloneRequest {
            method: Method::Clone3,
            in_flight: true,
            ..VFORK
        };
        for _ in 0..100 {
            let cloned = match clone_child(&mut flight, &request) {
                Err(libc::ENOSYS) if cfg!(pidherd_portable) => return,
                cloned => cloned.unwrap(),
            };
            wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
            assert!(!flight.is_in_use());
            assert_eq!(flight.failure(), Some((7, libc::ENOENT)));
        }
    }

    #[test]
    fn a_flight_serves_one_child_at_a_time() {
        let mut flight = flight();
        flight.prepare(true, true, 0);
        assert!(flight.prelude().is_none());
        assert_eq!(clone_child(&mut flight, &VFORK).unwrap_err(), libc::EBUSY);
        flight.take_back();
        assert!(clone_child(&mut flight, &VFORK).is_ok());
    }

    /// The methods that this build has.
    fn methods() -> impl Iterator<Item = Method> {
        [Method::Clone3, Method::Clone3KeepingHandlers, Method::Clone]
            .into_iter()
            .filter(|&method| method == Method::Clone || !cfg!(pidherd_portable))
    }

    #[test]
    fn each_refusal_that_may_concern_the_method_leads_to_the_next_one() {
        use Method::{Clone, Clone3, Clone3KeepingHandlers as Keeping};
        for (errno, after) in [
            (libc::EINVAL, [Some(Keeping), Some(Clone), None]),
            (libc::ENOSYS, [Some(Clone), Some(Clone), None]),
            (libc::EPERM, [Some(Clone), Some(Clone), None]),
            (libc::E2BIG, [Some(Clone), Some(Clone), None]),
            (libc::EAGAIN, [None; 3]),
            (libc::ENOMEM, [None; 3]),
        ] {
            assert_eq!(
                [Clone3, Keeping, Clone].map(|method| method.after(errno)),
                after,
                "{errno}"
            );
        }
    }

    #[test]
    fn a_refused_clone_leaves_the_flight_free() {
        if cfg!(pidherd_portable) {
            return;
        }
        let mut flight = flight();
        let request = CloneRequest {
            method: Method::Clone3,
            in_flight: true,
            ..VFORK
        };
        let refused = refusing(libc::SYS_clone3, libc::EAGAIN, || {
            clone_child(&mut flight, &request).map(drop)
        });
        assert_eq!((refused, flight.is_in_use()), (Err(libc::EAGAIN), false));
        let cloned = clone_child(&mut flight, &VFORK).unwrap();
        wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
    }

    /// A child that closes the descriptor with this number, and looks whether it is process 1.
    fn closing(number: c_int) -> Flight {
        let mut script = Script::default();
        script.call(1, libc::SYS_close, &[number as usize]);
        script.push(2, libc::SYS_getpid, [0; 6], Then::Equal(1));
        let mut flight = Flight::new().unwrap();
        flight.prelude().unwrap().begin(&Arc::new(script), 0);
        flight
    }

    #[test]
    fn the_child_shares_the_table_and_gets_a_namespace_only_if_that_is_requested() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let is_root = root_or_skip("a PID namespace");
        for method in methods() {
            for (share_descriptors, new_pid_namespace) in [(false, false), (true, false), (false, true), (true, true)] {
                if new_pid_namespace && !is_root {
                    continue;
                }
                let number = fcntl_dupfd_cloexec(&null, 900).unwrap().into_raw_fd();
                let mut flight = closing(number);
                let request = CloneRequest {
                    method,
                    share_descriptors,
                    new_pid_namespace,
                    ..VFORK
                };
                let cloned = clone_child(&mut flight, &request).unwrap();
                wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
                let failed = if new_pid_namespace {
                    (0, libc::ENOENT)
                } else {
                    (2, libc::EPERM)
                };
                assert_eq!(flight.failure(), Some(failed), "{request:?}");
                assert_eq!(flags_of(number).is_none(), share_descriptors, "{request:?}");
                if !share_descriptors {
                    // SAFETY: the number belongs to a descriptor that this test has given up.
                    unsafe { libc::close(number) };
                }
            }
        }
    }

    /// The line of a process's status in proc(5) with this key.
    fn status(process: &str, key: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        status.lines().find(|line| line.starts_with(key)).unwrap().to_owned()
    }

    #[test]
    fn only_the_first_method_clears_the_handlers_before_the_child_runs() {
        let handlers = status("self", "SigCgt:");
        assert!(!handlers.ends_with(" 0") && handlers.contains(|letter| ('1'..='9').contains(&letter)));
        for method in methods().filter(|&method| method != Method::Clone) {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let mut script = Script::default();
            let byte = script.hold(&[0]);
            script.call(1, libc::SYS_read, &[reader.as_raw_fd() as usize, byte, 1]);
            let mut flight = Flight::new().unwrap();
            flight.prelude().unwrap().begin(&Arc::new(script), 0);
            let request = CloneRequest {
                method,
                in_flight: true,
                ..VFORK
            };
            let cloned = clone_child(&mut flight, &request).unwrap();
            let inherited = status(&cloned.pid.to_string(), "SigCgt:") == handlers;
            rustix::io::write(&writer, b"x").unwrap();
            wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
            assert_eq!(inherited, method == Method::Clone3KeepingHandlers);
        }
    }

    #[test]
    fn a_range_of_descriptors_is_marked_where_the_question_says_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(&null, 900).unwrap();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        let number = fd.as_raw_fd();
        // SAFETY: the call takes numbers, and changes a descriptor of this test.
        let result = unsafe { libc::syscall(nr::CLOSE_RANGE, number, number, libc::CLOSE_RANGE_CLOEXEC) };
        assert_eq!(flags_of(number) == Some(libc::FD_CLOEXEC), result == 0);
        assert_eq!(can_close_range_on_exec(), result == 0);
        for errno in [libc::EINVAL, libc::ENOSYS, libc::EPERM] {
            assert!(!refusing(nr::CLOSE_RANGE, errno, can_close_range_on_exec), "{errno}");
        }
    }

    /// What clone3 tells about a bound child.
    fn binding() -> Result<(), c_int> {
        match kernel_since(7, 1) {
            _ if cfg!(pidherd_portable) => Err(libc::ENOSYS),
            true => Ok(()),
            false => Err(libc::EINVAL),
        }
    }

    #[test]
    fn the_question_about_binding_makes_no_child() {
        assert_eq!(can_bind(), binding());
        // Not even if standard input is the directory of a cgroup.
        assert!(in_fork(|| {
            if let Some(root) = cgroup_root() {
                let root = std::fs::File::open(root).unwrap();
                // SAFETY: this copy of the process does not use its standard input.
                assert_eq!(unsafe { libc::dup2(root.as_raw_fd(), 0) }, 0);
            }
            assert_eq!(can_bind(), binding());
        }));
        for errno in [libc::ENOSYS, libc::EPERM] {
            let asked = refusing(libc::SYS_clone3, errno, can_bind);
            assert!(asked == Err(errno) || cfg!(pidherd_portable));
        }
    }

    #[test]
    fn a_kernel_that_cannot_bind_a_child_makes_none() {
        for is_unprivileged in [false, true] {
            if !is_unprivileged && !root_or_skip("a child that may gain privileges") {
                continue;
            }
            let mut flight = flight();
            let request = CloneRequest {
                method: Method::Clone3,
                bound: Some(is_unprivileged),
                ..VFORK
            };
            let made = clone_child(&mut flight, &request);
            assert_eq!(made.as_ref().map(drop).map_err(|&errno| errno), binding());
            if let Ok(cloned) = made {
                wait_for(&cloned.pidfd, PollFlags::IN, None).unwrap();
                assert_eq!(flight.failure(), Some((7, libc::ENOENT)));
            }
        }
    }
}
