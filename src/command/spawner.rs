//! The spawner. It owns the memory that children use until their exec, and the slots for their descriptors, and it
//! records which features the kernel lacks.
//!
//! A spawn is either synchronous ([`Spawner::spawn`]) or in flight ([`Spawner::begin`]); see
//! [`flight`](crate::sys::spawn::flight) for what that means for the memory that parent and child share.

use std::io;
use std::mem::forget;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;

use super::entrance::{open_entrance, path_of};
use super::error::{SpawnError, SpawnStep, Subject};
use super::flight::{Begun, Flown, InFlight, Launch, SpawnProgress, Spawning, has_ended, reap_failed};
use super::memory;
use super::namespace::PidNamespace;
use super::plan::{self, Closing, FdTable, Inherited};
use super::program::{Compiled, Program};
use super::slots::Slots;
use crate::child::{Child, DROP_WAIT, Pipes};
use crate::errno::SetupError;
use crate::exit::Pid;
use crate::lost;
use crate::pidfd::PidFd;
use crate::poll::wait_for;
use crate::signal::Signal;
use crate::sys::guarded::Guarded;
use crate::sys::mapping::BirthCell;
use crate::sys::namespace::ChildrenElsewhere;
use crate::sys::process::{KeepDumpable, core_dump_ends_sharers, has_close_range};
use crate::sys::spawn::clone::{CloneRequest, Cloned, Method, can_close_range_on_exec, clone_child, execute_here};
use crate::sys::spawn::script::Script;

/// Starts [`Program`]s. Each thread that spawns has its own.
///
/// It keeps six descriptors: `/dev/null`, and five reserved numbers between 32 and 63. Through these, pipes and passed
/// descriptors get to a child if the host has many open descriptors. It uses up to sixteen more while several children
/// with pipes are in flight. If these numbers are not free, spawns still work, but each copies the whole descriptor
/// table, as fork does.
///
/// ```
/// let program = pidherd::Command::new("true").compile()?;
/// let mut spawner = pidherd::Spawner::new()?;
/// assert!(spawner.spawn(&program)?.wait()?.exit.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Spawner {
    slots: Slots,
    #[expect(clippy::vec_box, reason = "a spawn in flight is moved often, and a launch is large")]
    idle: Vec<Box<Launch>>,
    /// The number of idle launches that are kept.
    kept: usize,
    pub(super) method: Method,
    close_range: bool,
    /// Whether the kernel is known to lack CLONE_INTO_CGROUP. The first step of the child is then to enter its cgroup
    /// itself.
    enters_cgroups: bool,
    /// Whether the host is known to lack the privilege to bind a child that may gain privileges.
    binds_unprivileged: bool,
    /// Whether the core dump of a child in flight would end the host.
    forbids_dumps: bool,
    /// The script of a launch that is not used.
    nothing: Arc<Script>,
    /// The place for the PID of the next children.
    birth: Option<BirthCell>,
    #[cfg(test)]
    pub(super) last_table: Option<FdTable>,
}

/// The maximum number of pauses of a millisecond in which a child waits for a program that is being written (ETXTBSY),
/// while the host waits for the child.
const PAUSES: u32 = 1;

/// The same for a child in flight, which the host does not wait for.
const PAUSES_IN_FLIGHT: u32 = 16;

/// The number of launches that are kept for later spawns. A launch takes nine pages. More spawns than this are in
/// flight only for a short time.
const KEPT: usize = 64;

/// The reason why no child was made.
enum Refusal {
    Clone(SpawnError),
    /// The kernel or a filter does not allow CLONE_INTO_CGROUP: the child must enter the cgroup itself.
    IntoCgroup,
}

impl Spawner {
    /// Maps the stack for a child and reserves descriptors.
    ///
    /// ```
    /// # use pidherd::{Command, Spawner};
    /// let mut spawner = Spawner::new()?;
    /// let program = Command::new("true").compile()?;
    /// for _ in 0..3 {
    ///     assert!(spawner.spawn(&program)?.wait()?.exit.success());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`SetupError`]: the stack cannot be mapped (ENOMEM), or `/dev/null` cannot be opened (EMFILE, ENFILE; ENOENT
    /// without `/dev`).
    pub fn new() -> io::Result<Spawner> {
        Ok(Spawner::set_up()?)
    }

    /// Like `new`, with the unconverted error.
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
            binds_unprivileged: false,
            forbids_dumps: core_dump_ends_sharers(),
            nothing: Arc::default(),
            birth: None,
            #[cfg(test)]
            last_table: None,
        })
    }

    /// Starts the program. When the call returns, the program has been executed, or nothing remains of the child: no
    /// zombie and no descriptor.
    ///
    /// Blocks until the child has called execve. This usually takes microseconds. A file on a dead network file system
    /// blocks it uninterruptibly for as long as that hangs. A program that is being written (ETXTBSY; a fork in another
    /// thread can have the same effect) blocks it for a millisecond. [`Spawner::begin`] does not wait. A child that is
    /// killed before it could call execve counts as started; its pidfd shows the end.
    ///
    /// Allocates nothing, unless it fails, has more than one pipe beside the standard streams, or has more descriptors than
    /// any program before. The calling thread is
    /// the parent for [`Command::parent_death_signal`](super::Command::parent_death_signal).
    ///
    /// ```
    /// # use pidherd::{Command, Spawner, SpawnStep};
    /// let mut spawner = Spawner::new()?;
    /// let missing = Command::new("/no/such/program").compile()?;
    /// let error = spawner.spawn(&missing).map(drop).expect_err("there is no such program");
    /// assert_eq!(error.step(), SpawnStep::Exec);
    /// println!("{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The step that failed, and its errno.
    pub fn spawn(&mut self, program: &Program) -> Result<Child, SpawnError> {
        self.spawn_in(program, None)
    }

    /// Sets the place where the kernel writes the PIDs of the next children before they run. Without clone3 it writes
    /// none.
    pub(crate) fn set_birth(&mut self, birth: Option<BirthCell>) {
        self.birth = birth;
    }

    /// Like [`spawn`](Spawner::spawn), in this cgroup instead of the one in the command.
    ///
    /// ```
    /// # use pidherd::{Command, Spawner};
    /// use std::fs::File;
    /// use std::os::fd::AsFd;
    ///
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    /// # let own = std::path::Path::new("/sys/fs/cgroup").join(own);
    /// let mut spawner = Spawner::new()?;
    /// let program = Command::new("true").compile()?;
    /// // `own` is the directory of the host's own cgroup.
    /// if let Ok(directory) = File::open(&own) {
    ///     match spawner.spawn_in(&program, Some(directory.as_fd())) {
    ///         Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///         // It is not delegated to the host.
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// // Without a cgroup, it is the same as a spawn.
    /// assert!(spawner.spawn_in(&program, None)?.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Spawner::spawn).
    pub fn spawn_in(&mut self, program: &Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, SpawnError> {
        let mut launch = self.launch(program)?;
        let child = self.launch_and_wait(&mut launch, program, cgroup);
        self.take_back(launch);
        child
    }

    /// Starts the program and returns as soon as the process exists. [`Spawner::finish`] then shows whether the program
    /// runs, or which step failed. A failure makes the pidfd readable, since the child ends. A success makes no
    /// descriptor readable, so the host must call it. Does not wait for the child, however long its execve takes.
    ///
    /// Until then the child uses descriptors of the host, so a descriptor that the command inherits must stay open and
    /// unchanged. The signal mask and all other state of the calling thread can change.
    ///
    /// In some cases it must wait like [`Spawner::spawn`]. The first [`Spawner::finish`] then returns the outcome:
    ///
    /// - Without clone3(2): behind filters that refuse it, and on architectures other than x86_64.
    /// - For a command with [`oom_score_adj`](super::Command::oom_score_adj). The kernel would apply the value to the
    ///   host too, except for a child of vfork(2).
    /// - In a cgroup that has a limit of memory (`memory.max`), or is below such a cgroup. If that cgroup is out of
    ///   memory before the program runs, the kernel kills the child and every process that shares its memory, so also
    ///   the host. A child of vfork(2) is exempt. A limit that is set while the child is in flight is not noticed.
    ///
    /// While a child that changes its ids is in flight, the process is not dumpable (PR_SET_DUMPABLE in prctl(2)): it
    /// dumps no core, only root can trace it, and most of its `/proc/self` belongs to root. Before Linux 5.16 the same
    /// is true while any child is in flight, since a core dump of the child would end the host.
    ///
    /// ```
    /// # use pidherd::{Command, SpawnProgress, Spawner};
    /// let mut spawner = Spawner::new()?;
    /// let mut spawning = spawner.begin(&Command::new("true").compile()?)?;
    /// println!("process {} exists", spawning.pid());
    /// let mut child = loop {
    ///     match spawner.finish(spawning) {
    ///         // A host does something else meanwhile.
    ///         SpawnProgress::InFlight(still) => spawning = still,
    ///         SpawnProgress::Running(child) => break child,
    ///         other => panic!("{other:?}"),
    ///     }
    /// };
    /// assert!(child.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Spawner::spawn), for failures in the host: pipes, descriptors, clone3. [`Spawner::finish`] returns
    /// the failures in the child.
    pub fn begin(&mut self, program: &Program) -> Result<Spawning, SpawnError> {
        self.begin_in(program, None)
    }

    /// Like [`begin`](Spawner::begin), in this cgroup instead of the one in the command.
    ///
    /// ```
    /// # use pidherd::{Command, SpawnProgress, Spawner};
    /// let mut spawner = Spawner::new()?;
    /// let program = Command::new("true").compile()?;
    /// // With a descriptor of a cgroup's directory in place of None, the process begins in that cgroup.
    /// let mut spawning = spawner.begin_in(&program, None)?;
    /// while let SpawnProgress::InFlight(still) = spawner.finish(spawning) {
    ///     spawning = still;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin`](Spawner::begin).
    pub fn begin_in(&mut self, program: &Program, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawning, SpawnError> {
        let mut launch = self.launch(program)?;
        launch.program = Some(program.clone());
        let waits = program.0.waits_for_exec || cgroup.or(program.0.cgroup()).is_some_and(memory::is_limited);
        match self.launch_child(&mut launch, program, cgroup, !waits) {
            Ok(child) => {
                if launch.waited && launch.flight.failure().is_some() {
                    // It is exiting. An error only means that the outcome is told a little later.
                    let _later = wait_for(child.pidfd(), PollFlags::IN, None);
                }
                Ok(Spawning(Guarded::new(Begun { child, launch })))
            }
            Err(error) => {
                self.take_back(launch);
                Err(error)
            }
        }
    }

    /// Returns the progress of a spawn in flight. Does not block.
    ///
    /// In a copy of the process that fork(2) made, the result is [`SpawnProgress::Failed`] with `ECHILD`
    /// ([`SpawnStep::Watch`]), and nothing is done to the child.
    ///
    /// ```
    /// # use pidherd::{Command, SpawnProgress, SpawnStep, Spawner};
    /// let mut spawner = Spawner::new()?;
    /// let mut spawning = spawner.begin(&Command::new("/no/such/program").compile()?)?;
    /// let error = loop {
    ///     match spawner.finish(spawning) {
    ///         SpawnProgress::InFlight(still) => spawning = still,
    ///         SpawnProgress::Failed(error) => break error,
    ///         other => panic!("{other:?}"),
    ///     }
    /// };
    /// assert_eq!(error.step(), SpawnStep::Exec);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(&mut self, spawning: Spawning) -> SpawnProgress {
        let Begun { child, launch } = spawning.0.into_inner();
        if let Some(program) = launch.program.as_ref().filter(|_| !child.is_here()) {
            return SpawnProgress::Failed(program.parent_error(SpawnStep::Watch, libc::ECHILD));
        }
        match self.look(InFlight(launch), child.pidfd()) {
            Flown::Not(InFlight(launch)) => SpawnProgress::InFlight(Spawning(Guarded::new(Begun { child, launch }))),
            Flown::Executed { .. } => SpawnProgress::Running(child),
            Flown::Failed(error) => {
                // The child was reaped, so its guard must not kill it.
                child.detach();
                SpawnProgress::Failed(error)
            }
            Flown::Killed => SpawnProgress::Killed(child),
        }
    }

    /// Like `finish`, for a caller that owns the pidfd of the child. If a step failed, the child is reaped.
    pub(crate) fn look(&mut self, in_flight: InFlight, pidfd: &PidFd) -> Flown {
        let InFlight(mut launch) = in_flight;
        if launch.flight.is_in_use() && has_ended(pidfd) {
            launch.flight.child_has_ended();
        }
        if launch.flight.has_unshared() {
            launch.staging.clear(&mut self.slots);
        }
        if launch.flight.is_in_use() {
            return Flown::Not(InFlight(launch));
        }
        if let (Some((label, errno)), Some(program)) = (launch.flight.failure(), &launch.program) {
            // The child has released the shared memory, but can still be closing its files.
            return match pidfd.reap() {
                Ok(None) => Flown::Not(InFlight(launch)),
                Ok(Some(_)) | Err(_) => {
                    let error = launch.error(program, label, errno);
                    self.learn(&error);
                    self.take_back(launch);
                    Flown::Failed(error)
                }
            };
        }
        let flown = launch.landed(pidfd);
        self.take_back(launch);
        flown
    }

    /// Takes back the resources of a child that was killed. If the child has not ended yet, they are kept until it has
    /// released them, and a later spawn reaps it. The pidfd is duplicated in that case alone, because there may be no free
    /// descriptor.
    pub(crate) fn abandon(&mut self, in_flight: InFlight, pidfd: &PidFd) {
        let InFlight(mut launch) = in_flight;
        if launch.flight.is_in_use() && has_ended(pidfd) {
            launch.flight.child_has_ended();
        }
        if !launch.flight.is_in_use() {
            self.take_back(launch);
            return lost::keep_copy_if_unreaped(pidfd);
        }
        match pidfd.try_clone() {
            Ok(pidfd) => launch.keep_for(pidfd),
            // The end of the child cannot be observed. Leaking the memory is safe.
            Err(_) => forget(launch),
        }
    }

    /// Allocates for this many spawns in flight at once, so that none of them allocates.
    ///
    /// ```
    /// # use pidherd::{Command, Spawner};
    /// let mut spawner = Spawner::new()?;
    /// spawner.reserve(8)?;
    /// let program = Command::new("true").compile()?;
    /// // None of these allocates.
    /// let flights: Result<Vec<_>, _> = (0..8).map(|_| spawner.begin(&program)).collect();
    /// assert_eq!(flights?.len(), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of mmap(2): each spawn takes nine pages of address space.
    pub fn reserve(&mut self, in_flight: usize) -> io::Result<()> {
        self.reserve_beside(in_flight, 0)
    }

    /// The same, if this many of them are in flight now.
    pub(crate) fn reserve_beside(&mut self, in_flight: usize, present: usize) -> io::Result<()> {
        self.kept = self.kept.max(in_flight);
        self.idle.reserve(in_flight.saturating_sub(self.idle.len()));
        while self.idle.len() + present < in_flight {
            self.idle.push(Box::new(Launch::new()?));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn idle_launches(&self) -> usize {
        self.idle.len()
    }

    #[cfg(test)]
    pub(super) fn slot_numbers(&self) -> Vec<std::os::fd::RawFd> {
        self.slots.numbers()
    }

    fn launch(&mut self, program: &Program) -> Result<Box<Launch>, SpawnError> {
        lost::free();
        match self.idle.pop() {
            Some(launch) => Ok(launch),
            None => Launch::new().map(Box::new).map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
                let subject = Subject::Setup("map", "a stack for the child");
                program.0.parent_error(SpawnStep::Prepare, errno, Some(subject))
            }),
        }
    }

    /// Takes back the resources of a launch after its child has released the memory, or if no child was made. If a
    /// child still uses the memory, it is leaked.
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
        let child = self.launch_child(launch, program, cgroup, false)?;
        match launch.failure(program) {
            None => Ok(child),
            Some(error) => {
                reap_failed(child);
                Err(error)
            }
        }
    }

    /// Spawns again until nothing is learned from the attempt. In flight it waits only where clone3 is refused,
    /// otherwise until the program runs or a step of the child has failed. A failed child is not reaped.
    fn launch_child(
        &mut self,
        launch: &mut Launch,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
        in_flight: bool,
    ) -> Result<Child, SpawnError> {
        loop {
            let in_flight = in_flight && self.method != Method::Clone;
            match self.attempt(launch, program, cgroup, in_flight)? {
                Ok(child) => {
                    let failure = if launch.waited { launch.failure(program) } else { None };
                    match failure {
                        Some(error) if self.learn(&error) => reap_failed(child),
                        _ => return Ok(child),
                    }
                }
                Err(Refusal::IntoCgroup) => {}
                Err(Refusal::Clone(error)) => return Err(error),
            }
        }
    }

    /// Whether an error means that the kernel or a filter refuses close_range(2). From then on descriptors are closed
    /// one by one.
    fn learn(&mut self, error: &SpawnError) -> bool {
        let refused = matches!(error.errno(), libc::ENOSYS | libc::EPERM | libc::EINVAL);
        let concerned = matches!(error.step(), SpawnStep::Unshare | SpawnStep::CloseDescriptors);
        let learned = self.close_range && refused && concerned;
        self.close_range &= !learned;
        learned
    }

    /// Makes one attempt. If a child exists afterwards, it can still use the staging.
    fn attempt(
        &mut self,
        launch: &mut Launch,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
        in_flight: bool,
    ) -> Result<Result<Child, Refusal>, SpawnError> {
        let cgroup = cgroup.or(program.0.cgroup());
        let inherited = Inherited::new(&program.0, &self.slots)?;
        launch.entered = None;
        launch.began = Instant::now();
        launch.signalled = false;
        if let Some(directory) = cgroup.filter(|_| self.enters_cgroups) {
            launch.staging.entrance = Some(open_entrance(&program.0, directory)?);
            launch.entered = Some(path_of(directory));
        }
        let born_in = cgroup.filter(|_| !self.enters_cgroups);
        let prepared = self.prepare(launch, &program.0, inherited);
        let made = prepared.map(|(table, pipes)| {
            let pidfd = self.clone_child(launch, &program.0, table, born_in, in_flight)?;
            Ok(Child::new(pidfd, pipes))
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

    /// Makes the pipes, and the steps that pass descriptors to the child.
    fn prepare(
        &mut self,
        launch: &mut Launch,
        program: &Compiled,
        inherited: Inherited,
    ) -> Result<(FdTable, Pipes), SpawnError> {
        let pipes = plan::open_pipes(program, &mut launch.staging)?;
        let busy = || program.parent_error(SpawnStep::Prepare, libc::EBUSY, None);
        let Launch { flight, staging, .. } = launch;
        let prelude = flight.prelude().ok_or_else(busy)?;
        let closing = if self.close_range {
            Closing::Range
        } else {
            Closing::Each
        };
        let table = plan::plan(program, prelude, inherited, staging, &mut self.slots, closing)?;
        Ok((table, pipes))
    }

    /// Makes the child with the best method that the kernel allows, and records that method.
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
        // Only clone3 with everything binds a child, also where it has been refused for something else.
        let mut method = if program.is_bound { Method::Clone3 } else { self.method };
        let mut elsewhere = enter_pid_namespace(program).map_err(Refusal::Clone)?;
        let mut is_unprivileged = self.binds_unprivileged;
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
                bound: program.is_bound.then_some(is_unprivileged),
                birth: self.birth.as_ref(),
                new_pid_namespace: matches!(program.pid_namespace, PidNamespace::New(_)),
                pauses: if in_flight && method != Method::Clone {
                    PAUSES_IN_FLIGHT
                } else {
                    PAUSES
                },
            };
            let errno = match clone_child(&mut launch.flight, &request) {
                Ok(Cloned { pid, pidfd }) => {
                    if program.is_bound {
                        self.binds_unprivileged = is_unprivileged;
                    } else {
                        self.method = method;
                    }
                    launch.waited = !in_flight || method == Method::Clone;
                    match Pid::new(pid) {
                        Some(pid) => return leave_pid_namespace(program, elsewhere.take(), PidFd::new(pidfd, pid)),
                        None => libc::ECHILD,
                    }
                }
                Err(libc::EPERM) if program.is_bound && !is_unprivileged && !program.may_gain_privileges => {
                    is_unprivileged = true;
                    continue;
                }
                Err(errno) if program.is_bound => errno,
                Err(errno) => match method.after(errno) {
                    Some(other) => {
                        method = other;
                        continue;
                    }
                    None => errno,
                },
            };
            return Err(Refusal::Clone(clone_error(program, cgroup, errno)));
        }
    }
}

/// Makes the next child of this thread begin in the PID namespace that the program names.
fn enter_pid_namespace(program: &Compiled) -> Result<Option<ChildrenElsewhere>, SpawnError> {
    let PidNamespace::Given(namespace, label) = &program.pid_namespace else {
        return Ok(None);
    };
    let entered = ChildrenElsewhere::enter(namespace.as_fd());
    entered.map(Some).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        program.error(*label, errno)
    })
}

/// Ends that. The child of a spawn that fails nevertheless is killed.
fn leave_pid_namespace(
    program: &Compiled,
    elsewhere: Option<ChildrenElsewhere>,
    pidfd: PidFd,
) -> Result<PidFd, Refusal> {
    let (Some(elsewhere), PidNamespace::Given(_, label)) = (elsewhere, &program.pid_namespace) else {
        return Ok(pidfd);
    };
    match elsewhere.leave() {
        Ok(()) => Ok(pidfd),
        Err(error) => {
            // An error means that the child has ended by itself.
            let _ended = pidfd.signal(Signal::KILL);
            pidfd.end_until(Instant::now() + DROP_WAIT);
            lost::keep_unreaped(pidfd);
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Err(Refusal::Clone(program.error(*label, errno)))
        }
    }
}

fn clone_error(program: &Compiled, cgroup: Option<BorrowedFd<'_>>, errno: i32) -> SpawnError {
    if let Some(label) = program.pid_namespace.label_of(errno) {
        return program.error(label, errno);
    }
    // A bound child needs a privilege, and a cgroup needs none that the kernel reports as EPERM.
    let is_refused_bond = program.is_bound && errno == libc::EPERM;
    let step = clone_step(cgroup.is_some() && !is_refused_bond, errno);
    let error = program.parent_error(step, errno, None);
    match cgroup.filter(|_| error.step() == SpawnStep::Cgroup) {
        Some(directory) => error.about_path(path_of(directory)),
        None => error,
    }
}

impl Spawner {
    /// Replaces this process by the program. Returns only if that fails.
    pub(super) fn execute(&mut self, program: &Program) -> SpawnError {
        let mut launch = match self.launch(program) {
            Ok(launch) => launch,
            Err(error) => return error,
        };
        let failed = self.try_to_execute(&mut launch, program);
        self.take_back(launch);
        match failed {
            Ok(error) | Err(error) => error,
        }
    }

    fn try_to_execute(&mut self, launch: &mut Launch, program: &Program) -> Result<SpawnError, SpawnError> {
        let inherited = Inherited::new(&program.0, &self.slots)?;
        if let Some(directory) = program.0.cgroup() {
            launch.staging.entrance = Some(open_entrance(&program.0, directory)?);
            launch.entered = Some(path_of(directory));
        }
        let closing = if can_close_range_on_exec() {
            Closing::OnExec
        } else {
            Closing::EachOnExec
        };
        let Launch { flight, staging, .. } = launch;
        let Some(prelude) = flight.prelude() else {
            return Err(program.parent_error(SpawnStep::Prepare, libc::EBUSY));
        };
        plan::plan(&program.0, prelude, inherited, staging, &mut self.slots, closing)?;
        let (label, errno) = execute_here(flight, PAUSES_IN_FLIGHT);
        Ok(launch.error(program, label, errno))
    }
}

/// The step to report if the child could not be made: the cgroup, unless the errno is that of a shortage.
fn clone_step(in_cgroup: bool, errno: i32) -> SpawnStep {
    match (in_cgroup, errno) {
        (false, _) | (true, libc::EAGAIN | libc::ENOMEM) => SpawnStep::Clone,
        (true, _) => SpawnStep::Cgroup,
    }
}

#[cfg(test)]
mod tests;
