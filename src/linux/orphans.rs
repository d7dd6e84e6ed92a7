//! Orphans: descendants that outlive their parents. They become children of this process if it is the init of its PID
//! namespace or a subreaper (PR_SET_CHILD_SUBREAPER(2const)). No other code waits for them, so the supervisor must.
//!
//! `waitpid(-1)` would reap them, and would also take the exit status that a [`std::process::Child`] waits for in
//! another part of the program, or that another supervisor waits for. The kernel does not record whether a child was
//! started here or was adopted. So adopting is an explicit mode with one rule: **a child of which this process holds a
//! pidfd is left to the holder; every other child that has ended is an orphan.** Every process that this library starts
//! has a pidfd before its first instruction, in every supervisor and thread. The children of tokio and others have one
//! too. For children without one, such as those of the standard library, [`KnownChildren`] opens one.
//!
//! An orphan is found in these steps, each of which makes the next one safe:
//!
//! 1. SIGCHLD arrives at a signalfd and causes a look. A thousand ends may cause one signal, so the mode needs SIGCHLD
//!    for itself.
//! 2. `waitid(P_ALL, WNOWAIT)` finds out whether there is any zombie. It returns the same zombie until that is reaped,
//!    so it cannot list the others.
//! 3. The candidates are the children listed in /proc, and that zombie, without the supervisor's own processes.
//!    `waitid(P_PID, WNOWAIT)` finds out which of them have ended.
//! 4. A pidfd of each is opened. From now on no number can refer to another process, even if another thread reaps its
//!    own child now.
//! 5. The pidfds that this process holds are listed from /proc. Their processes are left alone.
//! 6. `waitid(P_PIDFD)` reaps the rest. A process that was reaped meanwhile had another waiter, and is not reported.
//!
//! A look that fails, because no descriptor or memory is free, is repeated at growing intervals by the supervisor's
//! timer.
//!
//! Limits. A child that is left alone and then forgotten (its pidfd is closed without a wait) is reaped at the next
//! look. That look comes with the next SIGCHLD or with [`Supervisor::reap_orphans`](crate::Supervisor::reap_orphans).
//! The same applies to a child that the kernel's list leaves out, which happens while another thread reaps. A child
//! that was cloned with another signal than SIGCHLD is not found until it becomes an orphan. A second reader of
//! SIGCHLD, or a thread that does not block it, is refused when the mode begins. One that appears later is not
//! detected, and takes signals away.

use std::collections::{HashSet, VecDeque};
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

use crate::codec::stored;
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

/// How many orphans are reaped in one go. The same number of descriptors is open for a moment.
const BATCH: usize = 64;

/// How many descriptors are needed to list the descriptors of this process.
const ROOM: usize = 2;

/// The wait after a look that failed, and the longest wait. The wait doubles when looks fail in a row.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Options for a look that does not reap.
const PEEK: WaitIdOptions = WaitIdOptions::EXITED
    .union(WaitIdOptions::NOHANG)
    .union(WaitIdOptions::NOWAIT);

/// The reason why a supervisor cannot adopt orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// A thread does not block SIGCHLD, and would take it from the supervisor. Block it with a
    /// [`MaskGuard`](crate::MaskGuard) before the first thread is started.
    #[error("cannot adopt orphans: SIGCHLD is not blocked in every thread")]
    NotBlocked,
    /// SIGCHLD is ignored in this process, usually because its parent ignored it before execve. The kernel then reaps
    /// all children by itself, and their statuses are lost.
    #[error("cannot adopt orphans: SIGCHLD is ignored, so the kernel keeps no status of a child")]
    Ignored,
    /// Another signalfd of this process reads SIGCHLD: that of
    /// [`Builder::signals`](crate::supervisor::Builder::signals), that of another supervisor with this mode, or one of
    /// the host. Each signal is read once, so one of the readers would miss it.
    #[error("cannot adopt orphans: another signalfd of this process reads SIGCHLD")]
    Taken,
    /// /proc is not mounted, or belongs to another PID namespace, so the children of this process cannot be listed.
    #[error("cannot adopt orphans: /proc is not mounted, or belongs to another PID namespace")]
    NoProc,
}

/// How many orphans were reaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OrphanCounts {
    /// The number of reaped orphans since the supervisor was built.
    pub reaped: u64,
    /// How often a look was given up because no descriptor or memory was free. Nothing is lost: a child that has ended
    /// stays a zombie until the next look. The next look is made after 10 ms, and after up to 4 s when looks fail in a
    /// row.
    pub postponed: u64,
}

/// The host's own children that are not treated as orphans although no pidfd is held of them, such as those of the
/// standard library. It can be cloned and sent to the threads that start children.
///
/// ```no_run
/// use pidherd::{MaskGuard, Signal, SignalSet, Supervisor};
/// use std::process::Command;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::CHLD))?;
/// let mut supervisor = Supervisor::builder().adopt_orphans(true).build()?;
///
/// let known_children = supervisor.known_children().expect("it adopts").clone();
/// let mut child = known_children.spawn(Command::new("sh").args(["-c", "exit 7"]))?;
/// supervisor.dispatch()?;
/// assert_eq!(child.wait()?.code(), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KnownChildren(Arc<Shared>);

struct Shared {
    owner: Owner,
    state: Mutex<State>,
    /// An eventfd. A write to it causes one more look.
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    /// Pidfds of the host's children. It is enough that they are open.
    children: Vec<PidFd>,
    holds: usize,
    /// Whether a look was put off because of a pause.
    missed: bool,
}

/// While a guard of this type exists, no orphan is reaped. It covers the time between the start of a child and
/// [`KnownChildren::register`]. Dropping it ends the pause.
#[must_use = "dropping it lets orphans be reaped again"]
pub struct ReapPause<'a>(&'a KnownChildren);

impl KnownChildren {
    /// Spawns a child and registers it. If no pidfd of the child can be opened, the child is killed.
    ///
    /// ```
    /// # use pidherd::{MaskGuard, Signal, SignalSet, Supervisor};
    /// # use std::process::Command;
    /// # let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::CHLD))?;
    /// let mut supervisor = Supervisor::builder().adopt_orphans(true).build()?;
    /// let known_children = supervisor.known_children().ok_or("it adopts")?.clone();
    /// let mut child = known_children.spawn(Command::new("sh").args(["-c", "exit 7"]))?;
    /// supervisor.dispatch()?;
    /// // The supervisor has left the status to the host.
    /// assert_eq!(child.wait()?.code(), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Command::spawn`] and of [`KnownChildren::register`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.0.owner.check()?;
        let _hold = self.pause();
        let mut child = command.spawn()?;
        match self.register(child.id()) {
            Ok(()) => Ok(child),
            Err(error) => {
                // Both can only fail for a child that was reaped.
                let _gone = (child.kill(), child.wait());
                Err(error)
            }
        }
    }

    /// Registers a child, so that it is not treated as an orphan. The child must not have been reaped yet. It is
    /// forgotten when it has been reaped.
    ///
    /// The child may end and be reaped before it is registered. To prevent that, start and register it under one
    /// [`KnownChildren::pause`], or in the supervisor's thread with no call of the supervisor in between.
    ///
    /// ```
    /// # use pidherd::{MaskGuard, Signal, SignalSet, Supervisor};
    /// # use std::process::Command;
    /// # let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::CHLD))?;
    /// let mut supervisor = Supervisor::builder().adopt_orphans(true).build()?;
    /// let known_children = supervisor.known_children().ok_or("it adopts")?.clone();
    /// let mut child = {
    ///     let _pause = known_children.pause();
    ///     let child = Command::new("sh").args(["-c", "exit 7"]).spawn()?;
    ///     known_children.register(child.id())?;
    ///     child
    /// };
    /// supervisor.dispatch()?;
    /// assert_eq!(child.wait()?.code(), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// ECHILD: the process is not a child of this process, or was reaped. EMFILE, ENFILE, ENOMEM: no pidfd can
    /// be opened. [`OtherProcess`](crate::OtherProcess) inside: the calling process is a copy that fork(2) made.
    pub fn register(&self, pid: u32) -> io::Result<()> {
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

    /// Puts off all reaping of orphans while the guard exists. It blocks while another thread registers a child.
    pub fn pause(&self) -> ReapPause<'_> {
        // A copy that fork(2) made reaps nothing, and another thread may have held the lock at the time of the fork.
        if self.0.owner.is_here() {
            self.lock().holds += 1;
        }
        ReapPause(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // The write can only fail if the counter is full, and then the eventfd is readable already.
        let _rung = retry_on_intr(|| rustix::io::write(&self.0.bell, &1u64.to_ne_bytes()));
    }
}

impl Drop for ReapPause<'_> {
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

impl fmt::Debug for KnownChildren {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownChildren").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReapPause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReapPause").finish_non_exhaustive()
    }
}

/// The resources of the mode.
pub(crate) struct Orphans {
    signals: SignalFd,
    signals_token: Token,
    bell_token: Token,
    pub(crate) known_children: KnownChildren,
    pub(crate) counts: OrphanCounts,
    /// Reaped orphans that were not reported yet.
    reaped: VecDeque<ExitRecord>,
    /// The time of the next look after one that failed.
    again: Option<Instant>,
    /// The wait after the next look that fails.
    wait: Duration,
}

impl Orphans {
    pub(crate) fn new(fds: &mut FdSet) -> io::Result<Orphans> {
        check()?;
        let signals = SignalFd::new(SignalSet::EMPTY.with(Signal::CHLD))?;
        // The eventfd is readable from the start, because there may be orphans from before.
        let bell = above_standard(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        let orphans = Orphans {
            signals_token: fds.add(signals.as_fd(), Interest::READ)?,
            bell_token: fds.add(bell.as_fd(), Interest::READ)?,
            signals,
            known_children: KnownChildren(Arc::new(Shared {
                owner: Owner::this_process(),
                state: Mutex::default(),
                bell,
            })),
            counts: OrphanCounts::default(),
            reaped: VecDeque::new(),
            again: None,
            wait: FIRST_WAIT,
        };
        if process::id() != 1 {
            set_child_subreaper(Some(getpid()))?;
        }
        Ok(orphans)
    }

    /// Adds the descriptors to another set.
    pub(super) fn join(&mut self, fds: &mut FdSet) -> io::Result<()> {
        self.signals_token = fds.add(self.signals.as_fd(), Interest::READ)?;
        self.bell_token = fds.add(self.known_children.0.bell.as_fd(), Interest::READ)?;
        Ok(())
    }

    /// An entry of the set at which orphans are looked for.
    pub(crate) fn entry(&self) -> Token {
        self.bell_token
    }

    /// The descriptor of the set's entry with this token, if it is one of these.
    pub(crate) fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        if token == self.signals_token {
            return Some(self.signals.as_fd());
        }
        (token == self.bell_token).then(|| self.known_children.0.bell.as_fd())
    }

    /// The records that were not reported yet.
    pub(crate) const fn reaped(&self) -> &VecDeque<ExitRecord> {
        &self.reaped
    }

    /// Continues the counters and the records of another supervisor.
    pub(crate) fn restore(&mut self, counts: OrphanCounts, reaped: VecDeque<ExitRecord>) {
        self.counts = counts;
        self.reaped = reaped;
    }

    /// The time of a repeated look; `None` if none is needed.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.again
    }

    /// Causes a look if a repeated look is due.
    pub(crate) fn look_again(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.known_children.ring();
        }
    }

    /// Records whether a look failed, and sets the time of the next one if it did.
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

    /// Reads the signalfd and the eventfd. This comes before the look, so that a later end causes another look.
    fn acknowledge(&self) -> io::Result<()> {
        while self.signals.read()?.is_some() {}
        match retry_on_intr(|| rustix::io::read(&self.known_children.0.bell, &mut [0; 8])) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Orphans {
    /// The next reaped orphan. If none is left of the last batch, another batch is looked for. `own` are the pids of
    /// this supervisor's unreaped processes, and `fds` is its set.
    pub(crate) fn next(
        &mut self,
        own: impl Iterator<Item = Pid>,
        fds: &FdSet,
        now: Instant,
    ) -> io::Result<Option<ExitRecord>> {
        if let Some(record) = self.take() {
            return Ok(Some(record));
        }
        self.acknowledge()?;
        let known = self.known_children.clone();
        let mut state = known.lock();
        if state.holds > 0 {
            state.missed = true;
            return Ok(None);
        }
        state.children.retain(is_child);
        let looked = look(own, fds);
        drop(state);
        self.looked(looked.is_err(), now);
        let Ok((reaped, more)) = looked else {
            return Ok(None);
        };
        self.reaped.extend(reaped);
        let first = self.take();
        // The entry stays readable until a look has found that nothing is left.
        if more || !self.reaped.is_empty() {
            self.known_children.ring();
        }
        Ok(first)
    }

    /// Takes an orphan from the last batch.
    fn take(&mut self) -> Option<ExitRecord> {
        let record = self.reaped.pop_front()?;
        self.counts.reaped += 1;
        Some(record)
    }
}

/// Reaps one batch of orphans. The flag is true if there may be more.
fn look(own: impl Iterator<Item = Pid>, fds: &FdSet) -> io::Result<(Vec<ExitRecord>, bool)> {
    let Some(named) = ended_child()? else {
        return Ok((Vec::new(), false));
    };
    let mut known: HashSet<Pid> = own.collect();
    let children = self_::children()?.into_iter().chain([named]);
    let mut left = children.filter(|&pid| known.insert(pid));
    let mut held = HashSet::new();
    loop {
        let (mut ended, mut more) = open_ended(left.by_ref().filter(|pid| !held.contains(pid)))?;
        if ended.is_empty() {
            return Ok((Vec::new(), more));
        }
        let holders = match held_by_others(&ended, fds) {
            Ok(holders) => holders,
            // At least as many children have ended as descriptors are free.
            Err(_) => {
                ended.truncate(ended.len().saturating_sub(ROOM).max(1));
                more = true;
                held_by_others(&ended, fds)?
            }
        };
        held.extend(holders);
        let orphans = ended.iter().filter(|pidfd| !held.contains(&pidfd.pid()));
        let reaped: Vec<ExitRecord> = orphans.filter_map(reap).collect();
        if !reaped.is_empty() {
            return Ok((reaped, more));
        }
    }
}

/// The processes of which this process holds a pidfd, except for these pidfds and those in the set.
fn held_by_others(ended: &[PidFd], fds: &FdSet) -> io::Result<Vec<Pid>> {
    self_::held_by_pidfd(|fd| fds.token_of(fd).is_some() || ended.iter().any(|own| own.as_fd().as_raw_fd() == fd))
}

/// Checks whether the mode can work in this process.
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

/// Opens pidfds of the first few children that have ended. The flag is true if some are left over.
fn open_ended(children: impl Iterator<Item = Pid>) -> io::Result<(Vec<PidFd>, bool)> {
    let mut ended = Vec::new();
    for pid in children {
        if !raw(pid).is_some_and(has_ended) {
            continue;
        }
        match open(pid) {
            Ok(pidfd) => ended.extend(Some(pidfd).filter(is_child)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if ended.is_empty() => return Err(error),
            // No descriptor is free for more.
            Err(_) => return Ok((ended, true)),
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

/// Reaps an orphan that has ended; `None` if other code has reaped it.
fn reap(pidfd: &PidFd) -> Option<ExitRecord> {
    let (exit, usage) = wait(pidfd.as_fd(), Wait::Reap).ok().flatten()?;
    Some(ExitRecord {
        pid: pidfd.pid(),
        exit,
        usage: Some(usage),
    })
}

/// Whether the process is an unreaped child of this process.
fn is_child(pidfd: &PidFd) -> bool {
    wait(pidfd.as_fd(), Wait::Peek).is_ok()
}

/// Whether the child with this pid is a zombie. A process that is no child is not.
fn has_ended(pid: RawPid) -> bool {
    matches!(retry_on_intr(|| waitid(WaitId::Pid(pid), PEEK)), Ok(Some(_)))
}

fn raw(pid: Pid) -> Option<RawPid> {
    RawPid::from_raw(i32::try_from(pid.as_raw()).ok()?)
}

stored!(struct OrphanCounts { reaped, postponed });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::common::descriptors::NoDescriptors;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{SOON, isolated, wait_gone};

    fn known_children() -> KnownChildren {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        KnownChildren(Arc::new(Shared {
            owner: Owner::this_process(),
            state: Mutex::default(),
            bell,
        }))
    }

    /// The mode without the checks of the process, and the set that it is in.
    fn orphans() -> (Orphans, FdSet) {
        let mut fds = FdSet::new().unwrap();
        let signals = SignalFd::new(SignalSet::EMPTY.with(Signal::CHLD)).unwrap();
        let known_children = known_children();
        let orphans = Orphans {
            signals_token: fds.add(signals.as_fd(), Interest::READ).unwrap(),
            bell_token: fds.add(known_children.0.bell.as_fd(), Interest::READ).unwrap(),
            signals,
            known_children,
            counts: OrphanCounts::default(),
            reaped: VecDeque::new(),
            again: None,
            wait: FIRST_WAIT,
        };
        (orphans, fds)
    }

    fn is_readable(fds: &mut FdSet, token: Token) -> bool {
        let mut ready = Vec::new();
        fds.ready(&mut ready).unwrap();
        ready.contains(&token)
    }

    fn pid_of(child: &Child) -> Pid {
        Pid::new(child.id()).unwrap()
    }

    fn zombie() -> Child {
        let child = Command::new("true").spawn().unwrap();
        assert!(wait_gone(child.id(), SOON));
        child
    }

    #[test]
    fn a_child_that_is_gone_is_none_and_other_errors_of_its_registration_are_returned() {
        let register = |errno| {
            refusing(libc::SYS_pidfd_open, errno, || {
                known_children().register(process::id()).unwrap_err().raw_os_error()
            })
        };
        for (errno, expected) in [
            (libc::ESRCH, libc::ECHILD),
            (libc::EMFILE, libc::EMFILE),
            (libc::ENOMEM, libc::ENOMEM),
        ] {
            assert_eq!(register(errno), Some(expected));
        }
    }

    #[test]
    fn looks_that_fail_are_repeated_at_intervals_that_double_up_to_a_limit() {
        let (mut orphans, _fds) = orphans();
        let after = |orphans: &Orphans| orphans.look_at().map(|at| at.saturating_duration_since(Instant::ZERO));
        for millis in [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 4_000, 4_000] {
            orphans.looked(true, Instant::ZERO);
            assert_eq!(after(&orphans), Some(Duration::from_millis(millis)));
        }
        assert_eq!(orphans.counts.postponed, 11);
        orphans.looked(false, Instant::ZERO);
        assert_eq!(after(&orphans), None);
        orphans.looked(true, Instant::ZERO);
        assert_eq!(after(&orphans), Some(FIRST_WAIT));
    }

    #[test]
    fn the_set_is_readable_until_no_orphan_is_left() {
        isolated(|| {
            let (mut orphans, mut fds) = orphans();
            let bell = orphans.bell_token;
            let zombies = [zombie(), zombie()];
            let mut left: HashSet<Pid> = zombies.iter().map(pid_of).collect();
            while !left.is_empty() {
                let next = orphans.next(std::iter::empty(), &fds, Instant::ZERO).unwrap();
                assert!(left.remove(&next.unwrap().pid));
                assert!(is_readable(&mut fds, bell));
            }
            assert_eq!(orphans.next(std::iter::empty(), &fds, Instant::ZERO).unwrap(), None);
            assert!(!is_readable(&mut fds, bell));
        });
    }

    #[test]
    fn pidfds_are_opened_only_of_children_that_have_ended() {
        isolated(|| {
            let mut living = Command::new("sleep").arg("1000").spawn().unwrap();
            let mut zombie = zombie();
            let children = [&living, &zombie].map(pid_of);
            let (ended, more) = open_ended(children.into_iter()).unwrap();
            let ended: Vec<Pid> = ended.iter().map(PidFd::pid).collect();
            assert_eq!((ended, more), (vec![pid_of(&zombie)], false));
            zombie.wait().unwrap();
            living.kill().unwrap();
            living.wait().unwrap();
        });
    }
    /// Leaves this many descriptors free.
    fn descriptors_left(number: usize) -> NoDescriptors {
        let free: Vec<_> = (0..number)
            .map(|_| rustix::io::dup(std::io::stdin()).unwrap())
            .collect();
        let none = NoDescriptors::left();
        drop(free);
        none
    }

    #[test]
    fn a_look_that_can_open_no_pidfd_fails_unless_the_child_is_gone() {
        isolated(|| {
            let mut zombie = zombie();
            let open = |errno| {
                refusing(libc::SYS_pidfd_open, errno, || {
                    open_ended([pid_of(&zombie)].into_iter())
                })
            };
            let (ended, more) = open(libc::ESRCH).unwrap();
            assert!(ended.is_empty() && !more);
            for errno in [libc::EMFILE, libc::ENOMEM] {
                assert_eq!(open(errno).unwrap_err().raw_os_error(), Some(errno));
            }
            zombie.wait().unwrap();
        });
    }

    /// Besides the pidfd, two are needed to see which others this process has.
    #[test]
    fn all_orphans_are_reaped_with_three_free_descriptors() {
        isolated(|| {
            let _another = open(Pid::new(process::id()).unwrap()).unwrap();
            for free in [3, 4, 5] {
                let (mut orphans, fds) = orphans();
                let zombies: Vec<Child> = (0..6).map(|_| zombie()).collect();
                let few = descriptors_left(free);
                let mut reaped = 0;
                while let Some(record) = orphans.next(std::iter::empty(), &fds, Instant::ZERO).unwrap() {
                    assert!(zombies.iter().any(|zombie| pid_of(zombie) == record.pid));
                    reaped += 1;
                }
                drop(few);
                assert_eq!((reaped, orphans.counts.postponed), (6, 0), "{free}");
            }
        });
    }

    #[test]
    fn with_two_free_descriptors_a_look_is_postponed() {
        isolated(|| {
            let _another = open(Pid::new(process::id()).unwrap()).unwrap();
            let (mut orphans, fds) = orphans();
            let mut zombies = [zombie(), zombie(), zombie()];
            let few = descriptors_left(2);
            assert_eq!(orphans.next(std::iter::empty(), &fds, Instant::ZERO).unwrap(), None);
            drop(few);
            assert_eq!((orphans.counts.reaped, orphans.counts.postponed), (0, 1));
            for zombie in &mut zombies {
                zombie.wait().unwrap();
            }
        });
    }
}
