//! What starts programs: a stack for the child, the slots for its descriptors, and the memory of what
//! the kernel can do.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{Errno, retry_on_intr};

use super::error::{SpawnError, Step, Subject};
use super::plan::{self, Path};
use super::program::Program;
use super::slots::Slots;
use crate::child::Child;
use crate::errno::SetupError;
use crate::exit::Pid;
use crate::pidfd::PidFd;
use crate::sys::clone::{Birth, Born, Method, give_birth};
use crate::sys::nr::CGROUP2_SUPER_MAGIC;
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
    /// Whether the kernel is known to start nobody in a cgroup (CLONE_INTO_CGROUP): the child then enters
    /// it itself, before anything else.
    enters_cgroups: bool,
    #[cfg(test)]
    pub(super) last_path: Option<Path>,
}

/// How long a program that is being written (ETXTBSY) is waited for before the one other try. Another thread's
/// fork may hold it open for writing until its own exec: a matter of microseconds. What takes longer is a
/// shortage.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// One attempt that came to nothing: a step of the child (by its label), or the making of the child.
enum Failure {
    Child {
        label: usize,
        errno: i32,
    },
    Clone {
        errno: i32,
    },
    /// Nobody is born in a cgroup on this kernel, or behind this filter.
    IntoCgroup,
}

impl Spawner {
    /// Maps the child's stack and reserves descriptors.
    ///
    /// # Errors
    /// A [`SetupError`]: the stack can't be mapped (ENOMEM), or `/dev/null` can't be opened (EMFILE, ENFILE; ENOENT
    /// where there is no `/dev`).
    pub fn new() -> io::Result<Spawner> {
        Ok(Spawner::set_up()?)
    }

    /// The same with the error as it is.
    pub(super) fn set_up() -> Result<Spawner, SetupError> {
        Ok(Spawner {
            stack: Stack::new().map_err(|error| SetupError::new("map", "a stack for the child", &error))?,
            slots: Slots::new().map_err(|error| SetupError::new("open", "/dev/null", &error))?,
            method: Method::Clone3,
            close_range: has_close_range(),
            enters_cgroups: false,
            #[cfg(test)]
            last_path: None,
        })
    }

    /// Starts the program. When this returns, it has been executed, or nothing is left of it: no child, no
    /// zombie, no descriptor.
    ///
    /// Blocks until the child has called execve: microseconds as a rule, but a file on a dead network
    /// file system blocks it for as long as that hangs, uninterruptibly; and for a millisecond if the
    /// program is being written (ETXTBSY), which another thread's fork can look like. A child that is killed
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
        let own = program.cgroup.clone();
        let cgroup = cgroup.or(own.as_ref().map(|directory| directory.as_fd()));
        let mut was_busy = false;
        loop {
            let error = match self.attempt(program, cgroup)? {
                Ok(child) => return Ok(child),
                Err(Failure::IntoCgroup) => {
                    self.enters_cgroups = true;
                    continue;
                }
                Err(Failure::Child { label, errno }) => program.error(label, errno),
                Err(Failure::Clone { errno }) => {
                    let in_cgroup = cgroup.is_some() && !self.enters_cgroups;
                    program.parent_error(clone_step(in_cgroup, errno), errno, None)
                }
            };
            let error = match cgroup.filter(|_| error.step() == Step::Cgroup) {
                Some(directory) => error.about_path(path_of(directory)),
                None => error,
            };
            let refused = matches!(error.errno(), libc::ENOSYS | libc::EPERM | libc::EINVAL);
            if self.close_range && refused && matches!(error.step(), Step::Unshare | Step::CloseDescriptors) {
                self.close_range = false;
            } else if error.step() == Step::Exec && error.errno() == libc::ETXTBSY && !was_busy {
                std::thread::sleep(BUSY_PAUSE);
                was_busy = true;
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
    fn attempt(
        &mut self,
        program: &mut Program,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Result<Child, Failure>, SpawnError> {
        let inherited = plan::Inherited::new(program, &self.slots)?;
        let entrance = match cgroup.filter(|_| self.enters_cgroups) {
            Some(directory) => Some(open_entrance(program, directory)?),
            None => None,
        };
        let born_in = cgroup.filter(|_| entrance.is_none());
        let ends = plan::open_pipes(program)?;
        let entrance = entrance.as_ref().map(|procs| procs.as_fd());
        let planned = plan::plan(program, &inherited, &ends, &mut self.slots, self.close_range, entrance);
        let born = planned.map(|path| self.give_birth(program, path, born_in));
        self.slots.empty();
        program.moved.clear();
        let plan::Ends { child, parent } = ends;
        drop(child);
        Ok(born?.map(|pidfd| Child::new(pidfd, parent)))
    }

    /// Makes the child in the best way that the kernel lets us, and remembers which that was.
    fn give_birth(&mut self, program: &Program, path: Path, cgroup: Option<BorrowedFd<'_>>) -> Result<PidFd, Failure> {
        #[cfg(test)]
        {
            self.last_path = Some(path);
        }
        let _dumpable = program.changes_ids.then(KeepDumpable::new);
        let mut method = self.method;
        loop {
            if cgroup.is_some() && method == Method::Clone {
                return Err(Failure::IntoCgroup);
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
                Err(errno) => method = method.after(errno).ok_or(Failure::Clone { errno })?,
            }
        }
    }
}

/// The file of a cgroup that lets processes in.
fn open_entrance(program: &Program, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, SpawnError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let entrance = match fstatfs(cgroup) {
        Ok(place) if place.f_type == CGROUP2_SUPER_MAGIC => {
            retry_on_intr(|| openat(cgroup, c"cgroup.procs", flags, Mode::empty()))
        }
        // What clone3 says of it.
        Ok(_) => Err(Errno::BADF),
        Err(errno) => Err(errno),
    };
    entrance.map_err(|errno| {
        let subject = Subject::Path(path_of(cgroup));
        program.parent_error(Step::Cgroup, errno.raw_os_error(), Some(subject))
    })
}

/// What to call an open directory in a message.
fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    let link = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    std::fs::read_link(&link).unwrap_or(link)
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
