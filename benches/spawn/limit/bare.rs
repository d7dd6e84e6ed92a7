//! The limit for x86_64.

use std::ffi::c_int;
use std::path::Path;

use super::raw::{CloneArgs, Run, Stack, call, clone3};
use super::steps::{INPUT, OUTPUT, Steps};
use crate::case::Case;
use crate::contender::{Contender, Name, give_up, must};

/// The child copies only the descriptors below this number.
const UNSHARE_FROM: usize = 64;
const SLOTS_FROM: usize = 32;

/// The limit for one case.
pub struct Limit {
    case: Case,
    steps: Steps,
    stack: Stack,
    /// `/dev/null`.
    null: usize,
    /// Two copies of `/dev/null` at numbers that the child copies. They are never closed.
    slots: [usize; 2],
}

impl Limit {
    pub fn new(case: Case, path: &Path) -> Result<Limit, String> {
        let flags = (libc::O_RDWR | libc::O_CLOEXEC) as usize;
        let null = call(libc::SYS_open, [c"/dev/null".as_ptr() as usize, flags, 0, 0, 0]);
        let low = || {
            call(
                libc::SYS_fcntl,
                [null, libc::F_DUPFD_CLOEXEC as usize, SLOTS_FROM, 0, 0],
            )
        };
        let slots = [low(), low()];
        if slots.iter().any(|&slot| slot >= UNSHARE_FROM) {
            return Err("no low descriptor number is free".to_owned());
        }
        Ok(Limit {
            case,
            steps: Steps::new(case, path)?,
            stack: Stack::new(),
            null,
            slots,
        })
    }

    /// Makes one pipe for standard input and one for standard output. Returns the parent's ends and the
    /// child's.
    fn pipes(&mut self) -> ([usize; 2], [usize; 2]) {
        let (input, output) = (pipe(), pipe());
        ([input[1], output[0]], [input[0], output[1]])
    }

    /// Copies each end with a high number into a slot. Returns for each end whether that was needed.
    fn place(&mut self, child: [usize; 2]) -> [bool; 2] {
        let high = child.map(|end| end >= UNSHARE_FROM);
        for (((end, slot), high), step) in child.into_iter().zip(self.slots).zip(high).zip([INPUT, OUTPUT]) {
            if high {
                call(libc::SYS_dup3, [end, slot, libc::O_CLOEXEC as usize, 0, 0]);
            }
            self.steps.set_source(step, if high { slot } else { end });
        }
        high
    }

    fn spawn(&mut self) -> usize {
        let dumpable = (self.case == Case::Ids).then(dumpable);
        call(libc::SYS_getpid, [0; 5]);
        let pidfd = self.clone();
        if let Some(before) = dumpable {
            if self::dumpable() != before {
                call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, before, 0, 0, 0]);
            }
        }
        pidfd
    }

    fn clone(&mut self) -> usize {
        const CLEAR_SIGHAND: u64 = 1 << 32;
        let flags = libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let mut run = Run::new(self.steps.list());
        let mut pidfd: c_int = -1;
        let args = CloneArgs {
            flags: flags as u64 | CLEAR_SIGHAND,
            pidfd: (&raw mut pidfd).expose_provenance() as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: libc::SIGCHLD as u64,
            stack: self.stack.bottom() as u64,
            stack_size: Stack::SIZE as u64,
            tls: 0,
        };
        let (all, mut before) = (u64::MAX, 0u64);
        let set = libc::SIG_SETMASK as usize;
        let (all, old) = ((&raw const all) as usize, (&raw mut before) as usize);
        call(libc::SYS_rt_sigprocmask, [set, all, old, 8, 0]);
        let pid = clone3(&args, &mut self.stack, &mut run);
        call(libc::SYS_rt_sigprocmask, [set, old, 0, 8, 0]);
        if pid < 0 || run.failed != 0 {
            give_up(Name::Limit, &format!("clone3: {pid}; the child: {}", run.failed));
        }
        pidfd as usize
    }
}

impl Contender for Limit {
    fn name(&self) -> Name {
        Name::Limit
    }

    fn run(&mut self) {
        if self.case != Case::TwoPipes {
            call(libc::SYS_capget, self.steps.capget());
            let pidfd = self.spawn();
            reap(pidfd);
            close(pidfd);
            return;
        }
        let ([input, output], child) = self.pipes();
        call(libc::SYS_capget, self.steps.capget());
        let high = self.place(child);
        let pidfd = self.spawn();
        for (slot, _) in self.slots.into_iter().zip(high).filter(|&(_, high)| high) {
            call(libc::SYS_dup3, [self.null, slot, libc::O_CLOEXEC as usize, 0, 0]);
        }
        child.into_iter().for_each(close);
        close(input);
        reap(pidfd);
        close(output);
        close(pidfd);
    }
}

fn pipe() -> [usize; 2] {
    let mut ends: [c_int; 2] = [-1; 2];
    let ends_at = (&raw mut ends) as usize;
    call(libc::SYS_pipe2, [ends_at, libc::O_CLOEXEC as usize, 0, 0, 0]);
    ends.map(|end| must(Name::Limit, usize::try_from(end)))
}

fn dumpable() -> usize {
    call(libc::SYS_prctl, [libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0])
}

/// Reaps the child with its status and resource usage, as the library does.
fn reap(pidfd: usize) {
    let (mut info, mut usage) = ([0u64; 16], [0u64; 18]);
    let (info_at, usage_at) = ((&raw mut info) as usize, (&raw mut usage) as usize);
    let options = libc::WEXITED as usize;
    call(
        libc::SYS_waitid,
        [libc::P_PIDFD as usize, pidfd, info_at, options, usage_at],
    );
    let [_, _, _, status, ..] = info;
    if status as u32 != 0 {
        give_up(Name::Limit, &format!("the child ended with {status:#x}"));
    }
}

fn close(fd: usize) {
    call(libc::SYS_close, [fd, 0, 0, 0, 0]);
}
