//! Making a child: one clone that shares memory with the parent, which waits until the child has
//! called execve or exit (vfork(2)'s bargain, on a stack of the child's own).
//!
//! Never fork: its cost is that of the parent's memory. Never posix_spawn: it copies the parent's
//! descriptor table, can't say which step failed, and has no place for most settings.

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::arch::{self, CloneArgs};
use super::child::{self, Part, Run};
use super::script::Step;
use super::stack::Stack;

/// Handlers of the parent become default actions in the child (Linux 5.5). libc has it as a c_int, in
/// which it doesn't fit: its value there is 0.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// The child begins its life in the cgroup whose directory is given (Linux 5.7). Likewise.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A way to make a child, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// clone3(2) with everything.
    Clone3,
    /// clone3(2) without CLONE_CLEAR_SIGHAND (before Linux 5.5, and gVisor for long). The child
    /// resets every handler itself, and runs with all signals blocked until it has.
    Clone3KeepingHandlers,
    /// clone(2), by the C library's function: for architectures without assembly here, and where
    /// clone3 is refused (before Linux 5.3, and by older container filters).
    Clone,
}

impl Method {
    /// What to try when the kernel refused this one with `errno`, if `errno` can mean that it doesn't
    /// know it or that a filter is in the way.
    pub(crate) fn after(self, errno: c_int) -> Option<Method> {
        match (self, errno) {
            (Method::Clone3, libc::EINVAL) => Some(Method::Clone3KeepingHandlers),
            (Method::Clone, _) => None,
            (_, libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG) => Some(Method::Clone),
            _ => None,
        }
    }
}

/// What to make.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub method: Method,
    /// Share the parent's descriptor table, for the child's first step to unshare the low end of it.
    pub share_descriptors: bool,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The steps of this spawn, and then those of the command.
    pub steps: [&'a [Step]; 2],
}

/// A child that called execve, or that came to nothing.
#[derive(Debug)]
pub(crate) struct Born {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The label and errno of the step that failed. The child is then dead or about to be.
    pub failure: Option<(usize, c_int)>,
}

/// Makes a child and lets it run its steps. Returns when it has called execve, or has died.
///
/// # Errors
/// The errno with which the kernel refused to make one.
pub(crate) fn give_birth(stack: &mut Stack, birth: &Birth<'_>) -> Result<Born, c_int> {
    let mut run = Run {
        parts: birth.steps.map(part),
        // SAFETY: takes nothing, changes nothing.
        parent: unsafe { arch::syscall(libc::SYS_getpid, &[0; 6]) },
        failed_label: 0,
        failed_errno: 0,
    };
    let mut pidfd: c_int = -1;
    let mask = block_signals();
    let pid = match birth.method {
        Method::Clone => clone(stack, birth, &mut run, &mut pidfd),
        Method::Clone3 | Method::Clone3KeepingHandlers => clone3(stack, birth, &mut run, &mut pidfd),
    };
    restore_signals(mask);
    let errno = pid.wrapping_neg() as c_int;
    let (Ok(pid @ 1..), true) = (u32::try_from(pid), pidfd >= 0) else {
        return Err(errno.max(1));
    };
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let failure = (run.failed_errno != 0).then_some((run.failed_label, run.failed_errno));
    Ok(Born { pid, pidfd, failure })
}

fn part(steps: &[Step]) -> Part {
    let range = steps.as_ptr_range();
    Part {
        first: range.start,
        end: range.end,
    }
}

const FLAGS: c_int = libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_VFORK;

fn clone3(stack: &mut Stack, birth: &Birth<'_>, run: *mut Run, pidfd: *mut c_int) -> isize {
    let mut args = CloneArgs {
        flags: FLAGS as u64,
        pidfd: pidfd.expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.bottom().expose_provenance() as u64,
        stack_size: stack.size() as u64,
        ..CloneArgs::default()
    };
    let mut size = CloneArgs::SIZE_FIRST;
    if birth.method == Method::Clone3 {
        args.flags |= CLONE_CLEAR_SIGHAND;
    }
    if birth.share_descriptors {
        args.flags |= libc::CLONE_FILES as u64;
    }
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
        size = CloneArgs::SIZE_CGROUP;
    }
    // SAFETY: the stack is ours alone (`&mut`) and unused; `pidfd` and `run` are locals of the caller,
    // which is suspended by CLONE_VFORK until the child has left this memory; the steps are borrowed
    // for as long.
    unsafe { arch::clone3(&args, size, child::enter, run.cast()) }
}

/// The same by the C library's clone(3), which passes the pidfd through the `parent_tid` argument.
fn clone(stack: &mut Stack, birth: &Birth<'_>, run: *mut Run, pidfd: *mut c_int) -> isize {
    extern "C" fn enter(run: *mut c_void) -> c_int {
        // SAFETY: the pointer that was passed to clone below, still valid as described there.
        unsafe { child::enter(run) }
    }
    let shared = if birth.share_descriptors { libc::CLONE_FILES } else { 0 };
    let flags = FLAGS | shared | libc::SIGCHLD;
    // SAFETY: as for clone3: an unused stack of our own, given by its top, and results and steps that
    // outlive the child's use of them. The wrapper writes this thread's errno; it is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let pid = libc::clone(enter, stack.top(), flags, run.cast(), pidfd);
        let failure = *errno;
        *errno = before;
        if pid < 0 { -(failure as isize) } else { pid as isize }
    }
}

/// Blocks every signal of this thread, the C library's own included; the mask before.
///
/// A stop signal that reached the child before execve would stop the parent with it; a handler that
/// ran in the child would run on the parent's memory.
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
    // SAFETY: both pointers are to eight bytes of the callers above, or null, which means "don't tell".
    // With these arguments the call can't fail.
    unsafe { arch::syscall(NR, &args) };
}

#[cfg(test)]
mod tests {
    use super::super::refuse::refusing;
    use super::super::script::{Image, Script};
    use super::*;
    use crate::signal::SignalSet;
    use std::os::fd::AsFd;

    /// A full life of the child, up to an execve that fails.
    fn script() -> Script {
        let mut script = Script::default();
        script.dispositions(1, SignalSet::EMPTY);
        let image = Image {
            candidates: &[(7, c"/no/such".to_owned())],
            argv: &[],
            env: &[],
            pid_key: Some(c"PID="),
        };
        script.execute(2, SignalSet::EMPTY, SignalSet::EMPTY, &image);
        script
    }

    #[test]
    fn a_refusal_leaves_errno_alone() {
        refusing(libc::SYS_clone, libc::EAGAIN, || {
            let mut stack = Stack::new().unwrap();
            let birth = Birth {
                method: Method::Clone,
                share_descriptors: false,
                cgroup: None,
                steps: [&[], &[]],
            };
            // SAFETY: this thread's own errno.
            unsafe { *libc::__errno_location() = 4242 };
            assert_eq!(give_birth(&mut stack, &birth).unwrap_err(), libc::EAGAIN);
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, 4242);
        });
    }

    #[test]
    fn the_child_uses_a_small_part_of_its_stack() {
        for method in [Method::Clone3, Method::Clone] {
            let mut stack = Stack::new().unwrap();
            let (bottom, size) = (stack.bottom().cast::<u8>(), stack.size());
            // SAFETY: the whole stack, which nobody uses.
            unsafe { bottom.write_bytes(0xa5, size) };
            let script = script();
            let steps = [script.steps(), &[]];
            let birth = Birth {
                method,
                share_descriptors: false,
                cgroup: None,
                steps,
            };
            let born = match give_birth(&mut stack, &birth) {
                Err(libc::ENOSYS) if cfg!(pidherd_portable) => continue,
                born => born.unwrap(),
            };
            assert_eq!(born.failure, Some((7, libc::ENOENT)));
            super::super::wait::wait(born.pidfd.as_fd(), super::super::wait::Wait::Block).unwrap();
            // SAFETY: initialized above, and the child is gone.
            let bytes = unsafe { std::slice::from_raw_parts(bottom, size) };
            let untouched = bytes.iter().take_while(|&&byte| byte == 0xa5).count();
            assert!(untouched > size / 2, "{untouched} of {size} bytes untouched");
            assert!(untouched < size, "it ran on this stack");
        }
    }
}
