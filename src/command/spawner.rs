//! What starts programs: a stack for the child, the slots for its descriptors, and the memory of what
//! the kernel can do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::error::{SpawnError, Step};
use super::plan::{self, Path};
use super::program::Program;
use super::slots::Slots;
use crate::child::Child;
use crate::exit::Pid;
use crate::pidfd::PidFd;
use crate::sys::clone::{Birth, Born, Method, give_birth};
use crate::sys::process::{KeepDumpable, has_close_range};
use crate::sys::stack::Stack;

/// Starts [`Program`]s, one at a time. Each thread that spawns has its own.
///
/// It keeps five descriptors: `/dev/null`, and four reserved numbers between 32 and 63 through
/// which pipes and passed descriptors get into a child when the host has many descriptors open. Where it can't have
/// them, spawning works all the same, at the cost of fork's copy of the descriptor table.
#[derive(Debug)]
pub struct Spawner {
    stack: Stack,
    slots: Slots,
    pub(super) method: Method,
    close_range: bool,
    #[cfg(test)]
    pub(super) last_path: Option<Path>,
}

/// How often a program that is being written (ETXTBSY) is tried, and how long after the first time.
/// Another thread's fork may hold it open for writing until its own exec: a matter of microseconds.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// One attempt that came to nothing: a step of the child (by its label), or the making of the child.
enum Failure {
    Child { label: usize, errno: i32 },
    Clone { errno: i32 },
}

impl Spawner {
    /// Maps the child's stack and reserves descriptors.
    ///
    /// # Errors
    /// Of mmap(2), or of opening `/dev/null`.
    pub fn new() -> io::Result<Spawner> {
        Ok(Spawner {
            stack: Stack::new()?,
            slots: Slots::new()?,
            method: Method::Clone3,
            close_range: has_close_range(),
            #[cfg(test)]
            last_path: None,
        })
    }

    /// Starts the program. When this returns, it has been executed, or nothing is left of it: no child, no
    /// zombie, no descriptor.
    ///
    /// Blocks until the child has called execve: microseconds as a rule, but a file on a dead network
    /// file system blocks it for as long as that hangs, uninterruptibly. A child that is killed
    /// before it could call execve counts as started; its pidfd tells.
    ///
    /// Allocates nothing, unless it fails. The calling thread is the parent as far as
    /// [`Command::parent_death_signal`](super::Command::parent_death_signal) goes.
    ///
    /// # Errors
    /// The step that failed, and its errno.
    pub fn spawn(&mut self, program: &mut Program) -> Result<Child, SpawnError> {
        self.spawn_in(program, None)
    }

    /// The same, in this cgroup instead of the one that the command names, if it names one.
    ///
    /// # Errors
    /// As [`spawn`](Spawner::spawn).
    pub fn spawn_in(&mut self, program: &mut Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, SpawnError> {
        let mut busy = 0;
        loop {
            let error = match self.attempt(program, cgroup) {
                Ok(child) => return Ok(child),
                Err(error) => error,
            };
            let refused = matches!(error.errno(), libc::ENOSYS | libc::EPERM | libc::EINVAL);
            if self.close_range && refused && matches!(error.step(), Step::Unshare | Step::CloseDescriptors) {
                self.close_range = false;
            } else if error.step() == Step::Exec && error.errno() == libc::ETXTBSY && busy < BUSY_TRIES {
                std::thread::sleep(BUSY_PAUSE * 2u32.pow(busy));
                busy += 1;
            } else {
                return Err(error);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn slot_numbers(&self) -> Vec<std::os::fd::RawFd> {
        self.slots.numbers()
    }

    /// One try, after which the slots are empty again and nothing but the child is left of it.
    fn attempt(&mut self, program: &mut Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, SpawnError> {
        let ends = plan::open_pipes(program)?;
        let planned = plan::plan(program, &ends, &mut self.slots, self.close_range);
        let born = planned.map(|path| self.give_birth(program, path, cgroup));
        self.slots.empty();
        program.moved.clear();
        let plan::Ends { child, parent } = ends;
        drop(child);
        match born? {
            Ok(pidfd) => Ok(Child::new(pidfd, parent)),
            Err(Failure::Child { label, errno }) => Err(program.error(label, errno)),
            Err(Failure::Clone { errno }) => {
                let in_cgroup = cgroup.is_some() || program.cgroup.is_some();
                Err(program.parent_error(clone_step(in_cgroup, errno), errno))
            }
        }
    }

    /// Makes the child in the best way that the kernel lets us, and remembers which that was.
    fn give_birth(&mut self, program: &Program, path: Path, cgroup: Option<BorrowedFd<'_>>) -> Result<PidFd, Failure> {
        #[cfg(test)]
        {
            self.last_path = Some(path);
        }
        let _dumpable = program.changes_ids.then(KeepDumpable::new);
        let cgroup = cgroup.or(program.cgroup.as_ref().map(|directory| directory.as_fd()));
        let mut method = self.method;
        loop {
            if cgroup.is_some() && method == Method::Clone {
                return Err(Failure::Clone { errno: libc::ENOSYS });
            }
            let birth = Birth {
                method,
                share_descriptors: path == Path::Short,
                cgroup,
                steps: [program.prelude.steps(), program.body.steps()],
            };
            match give_birth(&mut self.stack, &birth) {
                Ok(born) => {
                    self.method = method;
                    return outcome(born);
                }
                Err(errno) => match method.after(errno) {
                    Some(next) if cgroup.is_none() || next != Method::Clone => method = next,
                    Some(_) | None => return Err(Failure::Clone { errno }),
                },
            }
        }
    }
}

/// What was refused when the child could not be made. A shortage is a shortage, with a cgroup or without.
fn clone_step(in_cgroup: bool, errno: i32) -> Step {
    match (in_cgroup, errno) {
        (false, _) | (true, libc::EAGAIN | libc::ENOMEM) => Step::Clone,
        (true, _) => Step::Cgroup,
    }
}

/// A child that runs its program; or why not, after it was reaped.
fn outcome(born: Born) -> Result<PidFd, Failure> {
    let Some(pid) = Pid::new(born.pid) else {
        return Err(Failure::Clone { errno: libc::ECHILD });
    };
    let pidfd = PidFd::new(born.pidfd, pid);
    match born.failure {
        None => Ok(pidfd),
        Some((label, errno)) => {
            // It is exiting: this waits for the last bit of that. An error can only mean that it is gone.
            let _ = pidfd.wait_and_reap();
            Err(Failure::Child { label, errno })
        }
    }
}
