//! Orphans: descendants whose parents ended before them, and who become children of this process, because
//! it is init (PID 1 of its namespace) or a subreaper (PR_SET_CHILD_SUBREAPER(2const)). Nobody waits for
//! them, so somebody has to.
//!
//! `waitpid(-1)` would, and would take whatever else ends: the exit status that a
//! [`std::process::Child`] waits for in another part of the program, or another supervisor. The kernel
//! does not remember whether a child was born here or came by adoption. So it is an explicit mode, and its
//! rule is: **whoever a pidfd is held of in this process is waited for by the holder; every other child
//! that has ended is an orphan.** All that this library starts has a pidfd from before its first
//! instruction, whichever supervisor or thread started it; so have the children of tokio and others. For
//! those without, the standard library's among them, a host has one made by [`Spared`].
//!
//! How an orphan is found, by steps that each make the next one safe:
//!
//! 1. SIGCHLD, by a signalfd, says "look": a thousand ends may be one signal. That is why the mode wants
//!    SIGCHLD for itself.
//! 2. `waitid(P_ALL, WNOWAIT)` says whether there is any zombie at all. It names the same one again and
//!    again for as long as that is not reaped, so it can't be asked for the others.
//! 3. The list of children in /proc, and that zombie, without the supervisor's own; `waitid(P_PID, WNOWAIT)` says
//!    which of them have ended.
//! 4. A pidfd of each: from here on no number can come to mean somebody else, even if another thread
//!    reaps its own child now.
//! 5. The pidfds that this process holds, from /proc. Who is among them is left alone.
//! 6. `waitid(P_PIDFD)` reaps the rest. Who has been reaped meanwhile was somebody's, and is not told.
//!
//! A look that fails, since no descriptor is free or for want of memory, is repeated at growing intervals by the
//! supervisor's timer.
//!
//! Limits. A child that is left alone and then forgotten (its pidfd is closed without a wait) is reaped at the next
//! look, and that comes with the next SIGCHLD or [`Supervisor::reap_orphans`]. So is one that the
//! kernel's list left out, which happens while another thread reaps, unless it is the zombie that the kernel names.
//! Children cloned with another signal than SIGCHLD are not seen until they become orphans. A second
//! reader of SIGCHLD, or a thread that does not block it, is refused when the mode begins; one that comes
//! later is not noticed, and takes signals away.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{self, Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid as RawPid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper, waitid,
};

use super::driver::Driver;
use super::kernel::{Kernel, Linux};
use super::{Builder, Error, Event, Progress, Supervisor};
use crate::exit::{ExitRecord, Pid};
use crate::fdset::{FdSet, Interest, Token};
use crate::owner::Owner;
use crate::pidfd::PidFd;
use crate::procfs::self_;
use crate::signal::{Signal, SignalSet};
use crate::signalfd::SignalFd;
use crate::sys::descriptors::above_standard;
use crate::sys::wait::{Wait, ended_child, wait};
use crate::time::Instant;

/// How many orphans are reaped in one go. As many descriptors are open for a moment.
const BATCH: usize = 64;

/// How many descriptors it takes to look at what descriptors there are.
const ROOM: usize = 2;

/// How long after a look that failed the next one comes, and the longest that this grows to when looks fail one after the
/// other.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Looks without taking.
const PEEK: WaitIdOptions = WaitIdOptions::EXITED
    .union(WaitIdOptions::NOHANG)
    .union(WaitIdOptions::NOWAIT);

/// Why orphans cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// A thread does not block SIGCHLD, and would take it from the supervisor. Block it with a
    /// [`MaskGuard`](crate::MaskGuard) before any thread is started.
    #[error("SIGCHLD is not blocked in every thread")]
    NotBlocked,
    /// SIGCHLD is ignored in this process (by whoever started it, usually): the kernel then reaps all
    /// children unasked, and their statuses are lost.
    #[error("SIGCHLD is ignored, so that no child's status would be kept")]
    Ignored,
    /// A signalfd of this process reads SIGCHLD: that of [`Builder::signals`], another supervisor that
    /// adopts, or somebody else's. Each signal is read once, so one of them would miss it.
    #[error("another signalfd of this process reads SIGCHLD")]
    Taken,
    /// /proc is not mounted, or is that of another PID namespace: whose children are whose can't be told.
    #[error("/proc is not that of this PID namespace")]
    NoProc,
}

/// How many orphans there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrphanCounts {
    /// Reaped, ever.
    pub reaped: u64,
    /// How often a look was given up, because there were no more descriptors or no memory. Nothing is
    /// lost: a child that has ended stays a zombie until the next look, which comes by itself, after 10 ms at first and
    /// up to 4 s later when looks fail one after the other.
    pub postponed: u64,
}

/// The host's own children, to be left alone: those that no pidfd is held of, as of the standard
/// library's. It can be cloned and sent to the threads that have them.
///
/// ```no_run
/// use pidherd::{MaskGuard, Signal, SignalSet, Supervisor};
/// use std::process::Command;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::CHLD))?;
/// let mut supervisor = Supervisor::builder().adopt_orphans(true).build()?;
///
/// let spared = supervisor.spared().expect("it adopts").clone();
/// let mut child = spared.spawn(Command::new("sh").args(["-c", "exit 7"]))?;
/// supervisor.dispatch()?;
/// assert_eq!(child.wait()?.code(), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Spared(Arc<Shared>);

struct Shared {
    owner: Owner,
    state: Mutex<State>,
    /// An eventfd; rung for one more look.
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    /// Pidfds of the host's children. To be open is all they have to do.
    children: Vec<PidFd>,
    holds: usize,
    /// Whether a look was put off because of a hold.
    missed: bool,
}

/// While there is one, no orphan is reaped: for the time between a child's birth and
/// [`Spared::spare`]. Dropping it ends that.
#[must_use = "dropping it lets orphans be reaped again"]
pub struct Hold<'a>(&'a Spared);

impl Builder {
    /// Adopts orphans of the whole process tree below, and reaps them: for the init of a container, and
    /// for subreapers. Each is told as [`Event::Orphan`].
    ///
    /// It is for a process that knows all its parts: children of the host that the library did not start
    /// must be made known by [`Supervisor::spared`], unless a pidfd is held of them. SIGCHLD must be
    /// blocked in every thread and left to the supervisor. Unless this is PID 1, the process becomes a
    /// subreaper when the supervisor is built, and stays one when it is dropped (or else the orphans that
    /// are alive then would stay, and those to come would go elsewhere).
    ///
    /// With this [`Builder::build`] may fail with `InvalidInput` and an [`AdoptError`] inside.
    #[must_use]
    pub const fn adopt_orphans(mut self, yes: bool) -> Builder {
        self.adopt = yes;
        self
    }
}

impl Supervisor {
    /// The children that are not to be taken for orphans; `None` if there is no adopting.
    #[must_use]
    pub fn spared(&self) -> Option<&Spared> {
        self.driver.kernel.orphans.as_ref().map(|orphans| &orphans.spared)
    }

    /// How many orphans were reaped; `None` if there is no adopting.
    #[must_use]
    pub fn orphans(&self) -> Option<OrphanCounts> {
        self.driver.kernel.orphans.as_ref().map(|orphans| orphans.counts)
    }

    /// Looks for orphans that have ended, without being told by a SIGCHLD that there may be some: after
    /// descriptors have become free again, or pidfds were closed unused.
    ///
    /// # Errors
    /// [`Error::Io`] as for [`Supervisor::dispatch`].
    pub fn reap_orphans(&mut self) -> Result<Progress, Error> {
        self.call(|driver| Ok(driver.reap_orphans()?))
    }
}

impl Spared {
    /// Spawns a child that will be left alone. It is killed again if no pidfd of it can be had.
    ///
    /// # Errors
    /// Those of [`Command::spawn`] and of [`Spared::spare`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.0.owner.check()?;
        let _hold = self.hold();
        let mut child = command.spawn()?;
        match self.spare(child.id()) {
            Ok(()) => Ok(child),
            Err(error) => {
                // Both can only fail for one that is gone.
                let _gone = (child.kill(), child.wait());
                Err(error)
            }
        }
    }

    /// Leaves this child alone, which must not have been reaped yet. It is forgotten when it has been.
    ///
    /// Unless the call that makes the child and this one are made under one [`Spared::hold`], or in the
    /// thread of the supervisor with none of its calls in between, the child may end and be reaped
    /// before it is known.
    ///
    /// # Errors
    /// ECHILD: it is no child of this process, or no longer. EMFILE, ENFILE, ENOMEM: no pidfd can be had.
    /// [`OtherProcess`](crate::OtherProcess) inside: the calling process is a copy that fork(2) made.
    pub fn spare(&self, pid: u32) -> io::Result<()> {
        self.0.owner.check()?;
        match Pid::new(pid).map_or(Err(Errno::SRCH.into()), open) {
            Ok(pidfd) if is_child(&pidfd) => {
                self.lock().children.push(pidfd);
                Ok(())
            }
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            Ok(_) | Err(_) => Err(Errno::CHILD.into()),
        }
    }

    /// Puts off all reaping of orphans while the guard lives.
    pub fn hold(&self) -> Hold<'_> {
        // In a copy of the process nothing is reaped, and another thread may have held the lock when it was made.
        if self.0.owner.is_here() {
            self.lock().holds += 1;
        }
        Hold(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // Adding can only fail for a counter that is full, which has been rung loud enough.
        let _rung = retry_on_intr(|| rustix::io::write(&self.0.bell, &1u64.to_ne_bytes()));
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.0.0.owner.is_here() {
            return;
        }
        let mut state = self.0.lock();
        state.holds = state.holds.saturating_sub(1);
        if state.holds == 0 && std::mem::take(&mut state.missed) {
            self.0.ring();
        }
    }
}

impl fmt::Debug for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Hold<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// What adopting needs.
pub(super) struct Orphans {
    signals: SignalFd,
    signals_token: Token,
    bell_token: Token,
    spared: Spared,
    counts: OrphanCounts,
    /// When a look that failed is to be repeated.
    again: Option<Instant>,
    /// How long to wait after the next look that fails.
    wait: Duration,
}

impl Orphans {
    pub(super) fn new(fds: &mut FdSet) -> io::Result<Orphans> {
        check()?;
        let signals = SignalFd::new(SignalSet::EMPTY.with(Signal::CHLD))?;
        // Rung already: there may be orphans from before.
        let bell = above_standard(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        let orphans = Orphans {
            signals_token: fds.add(signals.as_fd(), Interest::READ)?,
            bell_token: fds.add(bell.as_fd(), Interest::READ)?,
            signals,
            spared: Spared(Arc::new(Shared {
                owner: Owner::this_process(),
                state: Mutex::default(),
                bell,
            })),
            counts: OrphanCounts::default(),
            again: None,
            wait: FIRST_WAIT,
        };
        if process::id() != 1 {
            set_child_subreaper(Some(getpid()))?;
        }
        Ok(orphans)
    }

    /// The descriptor of the set's entry with this token, if it is one of these.
    pub(super) fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        if token == self.signals_token {
            return Some(self.signals.as_fd());
        }
        (token == self.bell_token).then(|| self.spared.0.bell.as_fd())
    }

    /// When a look is to be repeated, if one is.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.again
    }

    /// Calls for a look, if one was to be repeated by now.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.spared.ring();
        }
    }

    /// Notes whether a look failed, and sets the next one if it did.
    fn looked(&mut self, failed: bool, now: Instant) {
        if failed {
            self.counts.postponed = self.counts.postponed.saturating_add(1);
            self.again = Some(now.saturating_add(self.wait));
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        } else {
            self.again = None;
            self.wait = FIRST_WAIT;
        }
    }

    /// Takes what calls for a look. It comes before the look: what happens later calls again.
    fn acknowledge(&self) -> io::Result<()> {
        while self.signals.read()?.is_some() {}
        match retry_on_intr(|| rustix::io::read(&self.spared.0.bell, &mut [0; 8])) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Driver<Linux> {
    /// Reaps orphans that have ended, a batch of them.
    pub(super) fn reap_orphans(&mut self) -> io::Result<Progress> {
        let Some(orphans) = &self.kernel.orphans else {
            return Ok(Progress::Nothing);
        };
        orphans.acknowledge()?;
        let spared = orphans.spared.clone();
        let mut state = spared.lock();
        if state.holds > 0 {
            state.missed = true;
            return Ok(Progress::Nothing);
        }
        state.children.retain(is_child);
        let looked = self.look();
        drop(state);
        let now = self.kernel.now();
        let Some(orphans) = &mut self.kernel.orphans else {
            return Ok(Progress::Nothing);
        };
        orphans.looked(looked.is_err(), now);
        let Ok((reaped, more)) = looked else {
            return Ok(Progress::Nothing);
        };
        orphans.counts.reaped += reaped.len() as u64;
        let progress = match (more, reaped.is_empty()) {
            (true, _) => {
                orphans.spared.ring();
                Progress::More
            }
            (false, true) => Progress::Nothing,
            (false, false) => Progress::Done,
        };
        reaped
            .into_iter()
            .for_each(|record| self.events.push(Event::Orphan(record)));
        Ok(progress)
    }

    /// One batch of orphans, reaped, and whether there may be more.
    fn look(&mut self) -> io::Result<(Vec<ExitRecord>, bool)> {
        let Some(named) = ended_child()? else {
            return Ok((Vec::new(), false));
        };
        let own: HashSet<Pid> = self.own_processes();
        let mut children = self_::children()?;
        if !children.contains(&named) {
            children.push(named);
        }
        let mut left = children.into_iter().filter(|pid| !own.contains(pid));
        let mut held = HashSet::new();
        loop {
            let (mut ended, mut more) = open_ended(left.by_ref().filter(|pid| !held.contains(pid)))?;
            if ended.is_empty() {
                return Ok((Vec::new(), more));
            }
            let holders = match self.held_by_others(&ended) {
                // As many have ended as there were descriptors, or nearly.
                Err(_) if ended.len() > 1 => {
                    ended.truncate(ended.len().saturating_sub(ROOM).max(1));
                    more = true;
                    self.held_by_others(&ended)?
                }
                found => found?,
            };
            held.extend(holders);
            let orphans = ended.iter().filter(|pidfd| !held.contains(&pidfd.pid()));
            let reaped: Vec<ExitRecord> = orphans.filter_map(reap).collect();
            if !reaped.is_empty() {
                return Ok((reaped, more));
            }
        }
    }

    /// Whom this process holds a pidfd of, besides these and those in the set.
    fn held_by_others(&self, ended: &[PidFd]) -> io::Result<Vec<Pid>> {
        self_::held_by_pidfd(|fd| {
            self.kernel.fds.token_of(fd).is_some() || ended.iter().any(|own| own.as_fd().as_raw_fd() == fd)
        })
    }

    /// The numbers of all processes of this supervisor that have not been reaped.
    fn own_processes(&mut self) -> HashSet<Pid> {
        let processes = self
            .instances
            .values_mut()
            .filter_map(|instance| instance.process.as_ref());
        processes.filter_map(|process| process.unreaped()).collect()
    }
}

/// Whether the mode can work here.
fn check() -> io::Result<()> {
    let wrong = if !self_::is_ours() {
        AdoptError::NoProc
    } else if self_::is_ignored(Signal::CHLD)? {
        AdoptError::Ignored
    } else if !self_::is_blocked(Signal::CHLD)? {
        AdoptError::NotBlocked
    } else if self_::has_signalfd_for(Signal::CHLD)? {
        AdoptError::Taken
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
}

/// Pidfds of those children that have ended, of the first few of them, and whether some are left over.
fn open_ended(children: impl Iterator<Item = Pid>) -> io::Result<(Vec<PidFd>, bool)> {
    let mut ended = Vec::new();
    for pid in children {
        if !raw(pid).is_some_and(has_ended) {
            continue;
        }
        match open(pid) {
            Ok(pidfd) => ended.extend(Some(pidfd).filter(is_child)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            // The last descriptors are needed to go on with the others.
            Err(_) if ended.len() > ROOM => {
                ended.truncate(ended.len() - ROOM);
                return Ok((ended, true));
            }
            Err(error) => return Err(error),
        }
        if ended.len() == BATCH {
            return Ok((ended, true));
        }
    }
    Ok((ended, false))
}

fn open(pid: Pid) -> io::Result<PidFd> {
    let fd = above_standard(pidfd_open(raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?)?;
    Ok(PidFd::new(fd, pid))
}

/// Reaps one that has ended; `None` if somebody else did so first.
fn reap(pidfd: &PidFd) -> Option<ExitRecord> {
    let (exit, usage) = wait(pidfd.as_fd(), Wait::Reap).ok().flatten()?;
    Some(ExitRecord {
        pid: pidfd.pid(),
        exit,
        usage,
    })
}

/// Whether it is a child of this process, which has not been reaped.
fn is_child(pidfd: &PidFd) -> bool {
    wait(pidfd.as_fd(), Wait::Peek).is_ok()
}

/// Whether the child with this number is a zombie. What is no child is none.
fn has_ended(pid: RawPid) -> bool {
    matches!(retry_on_intr(|| waitid(WaitId::Pid(pid), PEEK)), Ok(Some(_)))
}

fn raw(pid: Pid) -> Option<RawPid> {
    RawPid::from_raw(i32::try_from(pid.as_raw()).ok()?)
}
