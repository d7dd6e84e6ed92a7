//! What starts programs: the memory that children use until their exec, the slots for their descriptors, and what is
//! known of the kernel.
//!
//! A spawn is either synchronous ([`Spawner::spawn`]) or in flight ([`Spawner::begin`]); see
//! [`flight`](crate::sys::spawn::flight) for what that means for the memory that parent and child share.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{Errno, retry_on_intr};

use super::error::{SpawnError, Step, Subject};
use super::memory;
use super::plan::{self, FdTable, Inherited, Staging};
use super::program::{Compiled, Program};
use super::slots::Slots;
use crate::child::{Child, Pipes};
use crate::errno::SetupError;
use crate::exit::Pid;
use crate::pidfd::PidFd;
use crate::poll::is_ready;
use crate::procfs;
use crate::sys::nr::CGROUP2_SUPER_MAGIC;
use crate::sys::process::{KeepDumpable, core_dump_ends_sharers, has_close_range};
use crate::sys::spawn::clone::{CloneRequest, Cloned, Method, clone_child};
use crate::sys::spawn::flight::Flight;
use crate::sys::spawn::script::Script;

/// Starts [`Program`]s. Each thread that spawns has its own.
///
/// It keeps six descriptors: `/dev/null`, and five reserved numbers between 32 and 63 through
/// which pipes and passed descriptors get into a child when the host has many descriptors open; up to sixteen more
/// while several children with pipes are in flight. If it cannot have
/// them, a spawn works all the same, at the cost of fork's copy of the descriptor table.
#[derive(Debug)]
pub struct Spawner {
    slots: Slots,
    #[expect(clippy::vec_box, reason = "a spawn in flight is moved often, and a launch is large")]
    idle: Vec<Box<Launch>>,
    /// How many idle ones are kept.
    kept: usize,
    pub(super) method: Method,
    close_range: bool,
    /// Whether the kernel is known to start no child in a cgroup (CLONE_INTO_CGROUP): the child then enters
    /// it itself, before anything else.
    enters_cgroups: bool,
    /// Whether the core dump of a child in flight would end the host.
    forbids_dumps: bool,
    /// The script of a launch that is not used.
    nothing: Arc<Script>,
    #[cfg(test)]
    pub(super) last_table: Option<FdTable>,
}

/// How many times a child waits a millisecond for a program that is being written (ETXTBSY), while the host waits.
const PAUSES: u32 = 1;

/// The same while the host goes on.
const PAUSES_IN_FLIGHT: u32 = 16;

/// How many launches are kept for later spawns. More than these are in flight for a moment only, and each is nine pages.
const KEPT: usize = 64;

/// All that one child uses before its program runs, in the parent's memory and descriptor table.
#[derive(Debug)]
struct Launch {
    flight: Flight,
    staging: Staging,
    program: Option<Program>,
    /// The cgroup that the child enters itself.
    entered: Option<PathBuf>,
    /// While a child changes its ids.
    dumpable: Option<KeepDumpable>,
}

/// A child that exists, and of which it is not known yet whether its program runs: [`Spawner::begin`] made it, and
/// [`Spawner::finish`] tells.
///
/// Dropping it sends SIGKILL, waits for at most a second, and reaps, like dropping a [`Child`]. If the child hangs in the
/// kernel and survives that, the memory that it uses is leaked.
#[derive(Debug)]
pub struct Spawning {
    child: Child,
    launch: Box<Launch>,
}

/// How far a spawn in flight has come.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnProgress {
    /// The child has not called execve yet, or execve takes its time.
    InFlight(Spawning),
    /// The program runs, or has run.
    Running(Child),
    /// A step of the child failed. The child was reaped, and nothing is left of it.
    Failed(SpawnError),
    /// The child was killed before its program could run. It can be waited for like any child.
    Killed(Child),
}

/// Why no child was made.
enum Refusal {
    Clone(SpawnError),
    /// The kernel, or a filter, makes no child in a cgroup: it has to enter the cgroup itself.
    IntoCgroup,
}

impl Spawner {
    /// Maps the stack for a child and reserves descriptors.
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
            slots: Slots::new().map_err(|error| SetupError::new("open", "/dev/null", &error))?,
            idle: vec![Box::new(
                Launch::new().map_err(|error| SetupError::new("map", "a stack for the child", &error))?,
            )],
            method: Method::Clone3,
            close_range: has_close_range(),
            kept: KEPT,
            enters_cgroups: false,
            forbids_dumps: core_dump_ends_sharers(),
            nothing: Arc::default(),
            #[cfg(test)]
            last_table: None,
        })
    }

    /// Starts the program. When this returns, it has been executed, or nothing is left of it: no child, no
    /// zombie, no descriptor.
    ///
    /// Blocks until the child has called execve: microseconds as a rule, but a file on a dead network
    /// file system blocks it for as long as that hangs, uninterruptibly; and for a millisecond if the
    /// program is being written (ETXTBSY), which another thread's fork can look like. [`Spawner::begin`] does not wait.
    /// A child that is killed
    /// before it could call execve counts as started; its pidfd tells.
    ///
    /// Allocates nothing, unless it fails or the program has more descriptors than any before. The calling thread is the
    /// parent as far as [`Command::parent_death_signal`](super::Command::parent_death_signal) goes.
    ///
    /// # Errors
    /// The step that failed, and its errno.
    pub fn spawn(&mut self, program: &Program) -> Result<Child, SpawnError> {
        self.spawn_in(program, None)
    }

    /// The same, in this cgroup instead of the one that the command names, if it names one.
    ///
    /// # Errors
    /// As [`spawn`](Spawner::spawn).
    pub fn spawn_in(&mut self, program: &Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, SpawnError> {
        let mut launch = self.launch(program)?;
        let child = self.launch_and_wait(&mut launch, program, cgroup);
        self.take_back(launch);
        child
    }

    /// Starts the program and returns as soon as the process exists. Whether its program runs, or which step failed, is
    /// told by [`Spawner::finish`]: a failure makes the pidfd readable, since the child ends; a success is only seen by
    /// asking. Does not wait for the child, however long its execve takes.
    ///
    /// Until then the child uses descriptors of the host: one that the command inherits must stay open and what it is.
    /// The signal mask and everything else of the calling thread can change.
    ///
    /// It waits like [`Spawner::spawn`] where nothing else works; the first [`Spawner::finish`] then tells the outcome:
    ///
    /// - Without clone3(2): before Linux 5.3, behind filters that refuse it, on architectures other than x86_64.
    /// - For a command with [`oom_score_adj`](super::Command::oom_score_adj), which the kernel would give to the host as
    ///   well. A child of vfork(2) is exempt.
    /// - In a cgroup that has a limit of memory (`memory.max`), or lies below one that has. If that cgroup is out of memory
    ///   before the program runs, the kernel kills the child and everything that shares its memory, which is the host. A
    ///   child of vfork(2) is exempt. A limit that is set while the child is in flight is not noticed.
    ///
    /// While a child that changes its ids is in flight, the process is not dumpable (PR_SET_DUMPABLE in prctl(2)): it dumps
    /// no core, only root can trace it, and most of its `/proc/self` belongs to root. Before Linux 5.16 the same is true
    /// while any child is in flight, since a core dump of the child would end the host.
    ///
    /// # Errors
    /// As [`spawn`](Spawner::spawn), for what fails in the host: pipes, descriptors, clone3. What fails in the child is
    /// told by [`Spawner::finish`].
    pub fn begin(&mut self, program: &Program) -> Result<Spawning, SpawnError> {
        self.begin_in(program, None)
    }

    /// The same, in this cgroup instead of the one that the command names, if it names one.
    ///
    /// # Errors
    /// As [`begin`](Spawner::begin).
    pub fn begin_in(&mut self, program: &Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawning, SpawnError> {
        let mut launch = self.launch(program)?;
        launch.program = Some(program.clone());
        let waits = program.0.waits_for_exec || cgroup.or(program.0.cgroup()).is_some_and(memory::is_limited);
        let child = if waits {
            self.launch_and_wait(&mut launch, program, cgroup)
        } else {
            self.launch_in_flight(&mut launch, program, cgroup)
        };
        match child {
            Ok(child) => Ok(Spawning { child, launch }),
            Err(error) => {
                self.take_back(launch);
                Err(error)
            }
        }
    }

    /// How far a spawn in flight has come. Does not block.
    ///
    /// In a copy of the process that fork(2) made, the answer is [`SpawnProgress::Failed`] with `ECHILD`
    /// ([`Step::Watch`]), and the child is left alone.
    pub fn finish(&mut self, mut spawning: Spawning) -> SpawnProgress {
        let Spawning { child, launch } = &mut spawning;
        let Some(program) = launch.program.as_ref().filter(|_| !child.is_here()) else {
            return self.finish_here(spawning);
        };
        SpawnProgress::Failed(program.parent_error(Step::Watch, libc::ECHILD))
    }

    fn finish_here(&mut self, mut spawning: Spawning) -> SpawnProgress {
        let Spawning { child, launch } = &mut spawning;
        if launch.flight.is_in_use() && has_ended(child) {
            launch.flight.child_has_ended();
        }
        if launch.flight.has_unshared() {
            launch.staging.clear(&mut self.slots);
        }
        if launch.flight.is_in_use() {
            return SpawnProgress::InFlight(spawning);
        }
        if let (Some((label, errno)), Some(program)) = (launch.flight.failure(), &launch.program) {
            // It has no memory any more, and may take a moment to close its files.
            return match child.try_wait() {
                Ok(None) => SpawnProgress::InFlight(spawning),
                Ok(Some(_)) | Err(_) => {
                    let error = launch.error(program, label, errno);
                    self.learn(&error);
                    self.take_back(spawning.launch);
                    SpawnProgress::Failed(error)
                }
            };
        }
        let was_killed = was_killed(child, launch.flight.has_reached_exec());
        self.take_back(spawning.launch);
        if was_killed {
            SpawnProgress::Killed(spawning.child)
        } else {
            SpawnProgress::Running(spawning.child)
        }
    }

    /// Makes room for this many spawns in flight at once, so that none of them allocates.
    ///
    /// # Errors
    /// Of mmap(2): each takes nine pages of address space.
    pub fn reserve(&mut self, in_flight: usize) -> io::Result<()> {
        self.kept = self.kept.max(in_flight);
        while self.idle.len() < in_flight {
            self.idle.push(Box::new(Launch::new()?));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn slot_numbers(&self) -> Vec<std::os::fd::RawFd> {
        self.slots.numbers()
    }

    fn launch(&mut self, program: &Program) -> Result<Box<Launch>, SpawnError> {
        match self.idle.pop() {
            Some(launch) => Ok(launch),
            None => Launch::new().map(Box::new).map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
                let subject = Subject::Setup("map", "a stack for the child");
                program.0.parent_error(Step::Prepare, errno, Some(subject))
            }),
        }
    }

    /// A launch is over: its child has let go of the memory, or was not made. One that a child still uses is forgotten.
    fn take_back(&mut self, mut launch: Box<Launch>) {
        launch.staging.clear(&mut self.slots);
        if launch.flight.is_in_use() || self.idle.len() >= self.kept {
            return;
        }
        launch.flight.clear(&self.nothing);
        launch.program = None;
        launch.dumpable = None;
        self.idle.push(launch);
    }

    /// Spawns, and waits until the program runs or nothing is left of the child.
    fn launch_and_wait(
        &mut self,
        launch: &mut Launch,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Child, SpawnError> {
        loop {
            let error = match self.attempt(launch, program, cgroup, false)? {
                Ok((pidfd, pipes)) => match launch.flight.failure() {
                    None => return Ok(Child::new(pidfd, pipes)),
                    Some((label, errno)) => {
                        // It is exiting: this waits for the last bit of that. An error can only mean that it is gone.
                        let _ = pidfd.wait_and_reap();
                        launch.error(program, label, errno)
                    }
                },
                Err(Refusal::IntoCgroup) => continue,
                Err(Refusal::Clone(error)) => error,
            };
            if !self.learn(&error) {
                return Err(error);
            }
        }
    }

    fn launch_in_flight(
        &mut self,
        launch: &mut Launch,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Child, SpawnError> {
        loop {
            if self.method == Method::Clone {
                return self.launch_and_wait(launch, program, cgroup);
            }
            match self.attempt(launch, program, cgroup, true)? {
                Ok((pidfd, pipes)) => return Ok(Child::new(pidfd, pipes)),
                Err(Refusal::IntoCgroup) => {}
                Err(Refusal::Clone(error)) => return Err(error),
            }
        }
    }

    /// Whether an error says that the kernel, or a filter, has no close_range(2) after all; then another way is taken
    /// from now on.
    fn learn(&mut self, error: &SpawnError) -> bool {
        let refused = matches!(error.errno(), libc::ENOSYS | libc::EPERM | libc::EINVAL);
        let concerned = matches!(error.step(), Step::Unshare | Step::CloseDescriptors);
        let learned = self.close_range && refused && concerned;
        self.close_range &= !learned;
        learned
    }

    /// One try. If there is a child afterwards, it may still use the staging.
    fn attempt(
        &mut self,
        launch: &mut Launch,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
        in_flight: bool,
    ) -> Result<Result<(PidFd, Pipes), Refusal>, SpawnError> {
        let cgroup = cgroup.or(program.0.cgroup());
        let inherited = Inherited::new(&program.0, &self.slots)?;
        launch.entered = None;
        if let Some(directory) = cgroup.filter(|_| self.enters_cgroups) {
            launch.staging.entrance = Some(open_entrance(&program.0, directory)?);
            launch.entered = Some(path_of(directory));
        }
        let born_in = cgroup.filter(|_| !self.enters_cgroups);
        let prepared = self.prepare(launch, &program.0, inherited);
        let made = prepared.map(|(table, pipes)| {
            let pidfd = self.clone_child(launch, &program.0, table, born_in, in_flight)?;
            Ok((pidfd, pipes))
        });
        launch.staging.leave_streams();
        if launch.flight.has_unshared() {
            launch.staging.clear(&mut self.slots);
        }
        if !launch.flight.is_in_use() {
            launch.dumpable = None;
        }
        made
    }

    /// Pipes, and the steps that bring descriptors into the child.
    fn prepare(
        &mut self,
        launch: &mut Launch,
        program: &Compiled,
        inherited: Inherited,
    ) -> Result<(FdTable, Pipes), SpawnError> {
        let pipes = plan::open_pipes(program, &mut launch.staging)?;
        let busy = || program.parent_error(Step::Prepare, libc::EBUSY, None);
        let Launch { flight, staging, .. } = launch;
        let prelude = flight.prelude().ok_or_else(busy)?;
        let table = plan::plan(program, prelude, inherited, staging, &mut self.slots, self.close_range)?;
        Ok((table, pipes))
    }

    /// Makes the child in the best way that the kernel allows, and remembers which that was.
    fn clone_child(
        &mut self,
        launch: &mut Launch,
        program: &Compiled,
        table: FdTable,
        cgroup: Option<BorrowedFd<'_>>,
        in_flight: bool,
    ) -> Result<PidFd, Refusal> {
        #[cfg(test)]
        {
            self.last_table = Some(table);
        }
        let forbids = in_flight && self.forbids_dumps;
        launch.dumpable = (program.changes_ids || forbids).then(|| KeepDumpable::new(forbids));
        let mut method = self.method;
        loop {
            if cgroup.is_some() && method == Method::Clone {
                self.enters_cgroups = true;
                return Err(Refusal::IntoCgroup);
            }
            let request = CloneRequest {
                method,
                share_descriptors: table == FdTable::Unshared,
                cgroup,
                in_flight,
                pauses: if in_flight && method != Method::Clone {
                    PAUSES_IN_FLIGHT
                } else {
                    PAUSES
                },
            };
            let errno = match clone_child(&mut launch.flight, &request) {
                Ok(Cloned { pid, pidfd }) => {
                    self.method = method;
                    match Pid::new(pid) {
                        Some(pid) => return Ok(PidFd::new(pidfd, pid)),
                        None => libc::ECHILD,
                    }
                }
                Err(errno) => match method.after(errno) {
                    Some(other) => {
                        method = other;
                        continue;
                    }
                    None => errno,
                },
            };
            let error = program.parent_error(clone_step(cgroup.is_some(), errno), errno, None);
            let error = match cgroup.filter(|_| error.step() == Step::Cgroup) {
                Some(directory) => error.about_path(path_of(directory)),
                None => error,
            };
            return Err(Refusal::Clone(error));
        }
    }
}

impl Launch {
    fn new() -> io::Result<Launch> {
        Ok(Launch {
            flight: Flight::new()?,
            staging: Staging::new(),
            program: None,
            entered: None,
            dumpable: None,
        })
    }
}

impl Drop for Launch {
    /// A child that has survived the drop of its spawn may have other ids, or get them: this memory, which it shares,
    /// must not become readable for their owner.
    fn drop(&mut self) {
        if let Some(dumpable) = self.dumpable.take_if(|_| self.flight.is_in_use()) {
            dumpable.for_good();
        }
    }
}

impl Launch {
    /// The error of a step that failed in the child.
    fn error(&self, program: &Program, label: usize, errno: i32) -> SpawnError {
        let error = program.0.failed(label, errno, self.flight.inquiry());
        match self.entered.as_ref().filter(|_| error.step() == Step::Cgroup) {
            Some(path) => error.about_path(path.clone()),
            None => error,
        }
    }
}

impl Spawning {
    /// The PID of the child, for display.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// The pidfd of the child. It becomes readable when the child has ended, also because a step failed, and not when
    /// its program begins to run.
    #[must_use]
    pub fn pidfd(&self) -> &PidFd {
        self.child.pidfd()
    }

    /// Whether [`Spawner::finish`] has something to tell. Makes no system call; a failed step can take a moment longer.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.launch.flight.is_in_use()
    }

    /// Makes it look as if the kernel had not zeroed its word.
    #[cfg(test)]
    pub(crate) fn pretend_in_flight(&mut self) {
        self.launch.flight.pretend_in_use();
    }

    /// Whether the child has ended. Then [`Spawner::finish`] has something to tell, unless a tracer holds it.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(&self.child)
    }

    /// What dropping it does, with another bound for the wait.
    pub(crate) fn end_until(self, until: Instant) {
        self.child.end_until(until);
    }
}

fn has_ended(child: &Child) -> bool {
    is_ready(child.pidfd(), PollFlags::IN).unwrap_or(false)
}

/// Whether a child that called no step in vain has ended before its program ran. The kernel keeps for a zombie whether
/// it has ever executed a program.
fn was_killed(child: &Child, has_reached_exec: bool) -> bool {
    if !has_reached_exec {
        return true;
    }
    let ended = child.pidfd().peek();
    let by_signal = matches!(ended, Ok(Some(record)) if record.exit.signal().is_some());
    by_signal && procfs::has_never_executed(child.pid())
}

/// The file of a cgroup that lets processes in.
fn open_entrance(program: &Compiled, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, SpawnError> {
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

/// The path of an open directory, for a message.
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
