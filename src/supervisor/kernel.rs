//! The seam between the supervisor's decisions and the kernel.
//!
//! The driver above is written against [`Kernel`], with static dispatch, so that the very same code
//! runs against a simulated kernel in virtual time. [`Linux`] is the real one. It keeps the set of
//! descriptors and the timer; all it decides is how a thing is done, never whether.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::leaves::{Leaf, Leaves, Place};
use super::orphans::Orphans;
use crate::cgroup::{CgroupError, CgroupUsage};
use crate::child::{Child, Pipes};
use crate::command::error::Subject;
use crate::command::{Program, SpawnError, Spawner, Step};
use crate::deadlines::Deadlines;
use crate::exit::{ExitRecord, Pid};
use crate::fdset::{FdSet, Interest, Token};
use crate::lifecycle::Scope;
use crate::notify::{Counts, NotifySocket, Readiness, ReadyFd};
use crate::owner::Owner;
use crate::pidfd::{Look, PidFd};
use crate::procfs;
use crate::signal::Signal;
use crate::signalfd::{SignalFd, SignalInfo};
use crate::sys::process::{number_is_taken, signal_group_by_number};
use crate::sys::wait::Wait;
use crate::time::Instant;
use crate::timerfd::{Clock, TimerFd};

/// What the driver needs of the world.
pub(super) trait Kernel {
    /// A child that is being watched.
    type Process;

    /// How much is done in one go: 64 spawns take some eight milliseconds.
    const SLICE: u32 = 64;

    fn now(&self) -> Instant;
    fn wall(&self) -> SystemTime;

    /// Spawns for the instance in slot `owner`, and watches; on an error nothing is left of it.
    fn spawn(&mut self, program: &Program, place: &Place, owner: u32) -> Result<(Self::Process, Pipes), SpawnError>;
    fn pid(&self, process: &Self::Process) -> Pid;

    /// Looks what a ready descriptor of a process means. If the process has ended it is reaped; with
    /// `hold` the others of its scope stay within reach afterwards. Where its status is not to be had yet, it is looked
    /// at again later ([`Kernel::look_again`]), and no descriptor of it stays readable meanwhile.
    fn collect(&mut self, process: &mut Self::Process, hold: bool) -> io::Result<Seen>;

    /// Whether the process itself has ended, collected or not.
    fn has_ended(&self, process: &Self::Process) -> bool;

    /// Makes room for this many processes more.
    fn reserve(&mut self, additional: usize);

    /// Sends one signal. That nobody is there any more is not an error.
    fn signal(&mut self, process: &Self::Process, signal: Signal, scope: Scope) -> io::Result<()>;

    /// Whether nothing of this scope is alive.
    fn is_empty(&mut self, process: &Self::Process, scope: Scope, looks: u8) -> io::Result<bool>;

    /// What was used in the cgroup that a process was started in, if it was started in one of its own.
    fn usage(&self, process: &Self::Process) -> Option<CgroupUsage>;

    /// Lets go of a process. One that has not been collected is killed, and waited for until
    /// `patience` has passed.
    fn release(&mut self, process: Self::Process, patience: Duration);

    /// The end: cleans up what is left of those that were released, waiting no longer than until then.
    fn close(&mut self, until: Instant);

    /// When there is something to look at again that no descriptor tells of, if there is.
    fn look_at(&self) -> Option<Instant>;

    /// Does what was put off until now. The answer is the slot of an instance whose process is to be collected, if there
    /// is one that is due; each is named once, and again when another look was in vain.
    fn look_again(&mut self, now: Instant) -> Option<u32>;

    /// Wakes the host up at this time; in the past means at once.
    fn arm(&mut self, at: Option<Instant>) -> io::Result<()>;

    /// Whether the processes are the calling process's own.
    fn is_ours(&self) -> bool;
}

/// What a ready descriptor of a process means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing (any more).
    Nothing,
    /// The process has ended.
    Ended(ExitRecord),
    /// Nothing of its cgroup is alive.
    Empty,
    /// It says something that means nothing, and may have said more.
    Noise,
    /// It says that it is ready.
    Ready,
    /// It will never say so.
    NotReady,
}

/// The real kernel.
pub(super) struct Linux {
    pub(super) owner: Owner,
    pub(super) fds: FdSet,
    spawner: Spawner,
    clock: Clock,
    timer: TimerFd,
    timer_token: Token,
    signals: Option<(SignalFd, Token)>,
    /// The slot of the instance each entry of the set belongs to, by the entry's place.
    owners: Vec<u32>,
    leaves: Leaves,
    /// When a process is to be looked at again that has ended and has no status yet, by the slot of its instance.
    looks: Deadlines,
    notify: Option<(NotifySocket, Token)>,
    pub(super) orphans: Option<Orphans>,
}

/// A child, and how far it has been taken apart.
pub(super) struct Watched {
    pidfd: PidFd,
    watch: Watch,
    leaf: Option<Leaf>,
    /// Where it says that it is ready, until it has.
    ready: Option<(ReadyFd, Token)>,
    owner: u32,
}

enum Watch {
    /// Alive, as far as anyone has looked; in the set.
    Alive(Token),
    /// It has ended, and its status is not to be had yet. Another descriptor of it is kept, out of the set, since a pidfd
    /// stays readable; it has been looked at so many times in vain.
    Late(u32),
    /// Reaped; to be taken out of the set.
    Reaped(Token),
    /// Reaped and out of the set; another descriptor of it is kept, to reach its group.
    Group,
    /// The same for kernels before 6.9: a zombie that keeps its number, and so its group's.
    Zombie,
}

impl Watched {
    /// The descriptor of the set's entry with this token, if it is one of this process.
    pub(super) fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        match self.watch {
            Watch::Alive(own) | Watch::Reaped(own) if own == token => Some(self.pidfd.as_fd()),
            _ => match &self.ready {
                Some((ready, own)) if *own == token => Some(ready.as_fd()),
                _ => self.leaf.as_ref()?.events_fd(token),
            },
        }
    }

    /// Whether this process lives in its cgroup or below.
    pub(super) fn houses(&self, pid: Pid) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| leaf.houses(pid))
    }

    /// Its number, as long as that is kept for it.
    pub(super) fn unreaped(&self) -> Option<Pid> {
        matches!(self.watch, Watch::Alive(_) | Watch::Late(_) | Watch::Zombie).then(|| self.pidfd.pid())
    }
}

/// Whose descriptor became ready.
pub(super) enum Source {
    Timer,
    Signals,
    Notify,
    Orphans,
    /// The process of the instance in this slot.
    Process(u32),
}

impl Linux {
    pub(super) fn new(clock: Clock, spawner: Spawner, signals: Option<SignalFd>) -> io::Result<Linux> {
        let mut fds = FdSet::new()?;
        let timer = TimerFd::new(clock)?;
        let timer_token = fds.add(timer.as_fd(), Interest::READ)?;
        let signals = match signals {
            Some(signals) => {
                let token = fds.add(signals.as_fd(), Interest::READ)?;
                Some((signals, token))
            }
            None => None,
        };
        Ok(Linux {
            owner: Owner::this_process(),
            fds,
            spawner,
            clock,
            timer,
            timer_token,
            signals,
            owners: Vec::new(),
            leaves: Leaves::default(),
            looks: Deadlines::new(),
            notify: None,
            orphans: None,
        })
    }

    /// What the set's entry with this token stands for; `None` for a token that is out of date.
    pub(super) fn source(&self, token: Token) -> Option<Source> {
        self.fds.get(token)?;
        if token == self.timer_token {
            return Some(Source::Timer);
        }
        match &self.signals {
            Some((_, signals)) if *signals == token => Some(Source::Signals),
            _ if self.notify.as_ref().is_some_and(|(_, notify)| *notify == token) => Some(Source::Notify),
            _ if self.orphans.as_ref().is_some_and(|orphans| orphans.fd(token).is_some()) => Some(Source::Orphans),
            _ => self.owners.get(token.index()).copied().map(Source::Process),
        }
    }

    /// Remembers whose a descriptor is, by its place in the set.
    fn own(&mut self, token: Token, owner: u32) {
        if self.owners.len() <= token.index() {
            self.owners.resize(token.index() + 1, owner);
        }
        if let Some(slot) = self.owners.get_mut(token.index()) {
            *slot = owner;
        }
    }

    pub(super) fn acknowledge_timer(&mut self) -> io::Result<bool> {
        self.timer.acknowledge()
    }

    pub(super) fn read_signal(&mut self) -> io::Result<Option<SignalInfo>> {
        match &self.signals {
            Some((signals, _)) => signals.read(),
            None => Ok(None),
        }
    }

    pub(super) fn adopt_orphans(&mut self) -> io::Result<()> {
        self.orphans = Some(Orphans::new(&mut self.fds)?);
        Ok(())
    }

    /// Makes the notify socket, if there is none, at this path or an address of the kernel's choice.
    pub(super) fn listen(&mut self, path: Option<&Path>) -> io::Result<()> {
        if self.notify.is_none() {
            let socket = path.map_or_else(NotifySocket::new, NotifySocket::bind)?;
            let token = self.fds.add(socket.as_fd(), Interest::READ)?;
            self.notify = Some((socket, token));
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> Option<&NotifySocket> {
        self.notify.as_ref().map(|(socket, _)| socket)
    }

    /// The notify socket, and the cgroups of those that may send to it.
    pub(super) fn socket_and_leaves(&mut self) -> Option<(&mut NotifySocket, &Leaves)> {
        let (socket, _) = self.notify.as_mut()?;
        Some((socket, &self.leaves))
    }

    pub(super) fn notify_counts(&self) -> Option<Counts> {
        self.notify.as_ref().map(|(socket, _)| socket.counts())
    }

    pub(super) fn notify_fd(&self) -> Option<BorrowedFd<'_>> {
        self.notify.as_ref().map(|(socket, _)| socket.as_fd())
    }

    pub(super) fn timer_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub(super) fn signal_fd(&self) -> Option<BorrowedFd<'_>> {
        self.signals.as_ref().map(|(signals, _)| signals.as_fd())
    }

    /// Puts a new child into the set; on an error nothing is left of it.
    fn watch(&mut self, child: Child, program: &Program) -> Result<(PidFd, Token, Pipes), SpawnError> {
        let (pidfd, pipes) = child.into_parts();
        match self.fds.add(pidfd.as_fd(), Interest::READ) {
            Ok(token) => Ok((pidfd, token, pipes)),
            Err(error) => {
                let _gone = pidfd.signal(Signal::KILL);
                wait_for_end(&pidfd, LAST_PATIENCE);
                Err(unwatched(program, &error))
            }
        }
    }

    fn watch_readiness(&mut self, pipe: OwnedFd) -> io::Result<(ReadyFd, Token)> {
        let ready = ReadyFd::new(pipe)?;
        let token = self.fds.add(ready.as_fd(), Interest::READ)?;
        Ok((ready, token))
    }

    fn abandon(&mut self, token: Token, pidfd: PidFd) {
        let _gone = pidfd.signal(Signal::KILL);
        wait_for_end(&pidfd, LAST_PATIENCE);
        self.forget(token, pidfd);
    }

    /// What a process says about its readiness. It is asked before its end is looked for: who says it and
    /// ends has said it.
    fn hear_readiness(&mut self, process: &mut Watched) -> io::Result<Seen> {
        let Some((mut ready, token)) = process.ready.take() else {
            return Ok(Seen::Nothing);
        };
        let said = ready.read_portion();
        match said {
            Ok(Some(Readiness::Ready | Readiness::Closed)) => drop(self.fds.remove(token, OwnedFd::from(ready))),
            Ok(Some(Readiness::Waiting) | None) | Err(_) => process.ready = Some((ready, token)),
        }
        Ok(match said? {
            None => Seen::Noise,
            Some(Readiness::Waiting) => Seen::Nothing,
            Some(Readiness::Ready) => Seen::Ready,
            // Who is ending closes everything: that it ends will be told by how it ended.
            Some(Readiness::Closed) if procfs::is_ending(process.pidfd.pid()) => Seen::Nothing,
            Some(Readiness::Closed) => Seen::NotReady,
        })
    }

    /// A process that is being stopped has ended: reaps it, and keeps others of its scope within reach.
    fn keep_others(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        let record = self.keep_group(process)?;
        if let (Some(_), Some(leaf)) = (record, &mut process.leaf) {
            // Without a descriptor to tell, looking from time to time does.
            if let Ok(token) = leaf.watch(&mut self.fds) {
                self.own(token, process.owner);
            }
        }
        Ok(record)
    }

    /// Takes a process that has ended out of the set, and keeps another descriptor of it.
    fn keep_group(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        // Since 6.9 a pidfd reaches the group for as long as it has members. Before, and where a filter refuses that, only
        // the number does, and only an unreaped leader keeps that from being given to another process.
        let asked = process.pidfd.signal_group(None);
        let by_pidfd = asked.is_ok() || is_errno(&asked, Errno::SRCH);
        let Some(record) = self.look(process, if by_pidfd { Wait::Reap } else { Wait::Peek })? else {
            return Ok(None);
        };
        if let Err(error) = self.take_out(process) {
            let Watch::Alive(token) = process.watch else {
                return Err(error);
            };
            // No descriptor is left to wait with: nothing that can't be watched is left alive.
            let _gone = self.signal(process, Signal::KILL, Scope::ProcessGroup);
            process.watch = Watch::Reaped(token);
            return if process.pidfd.reap()?.is_some() {
                Ok(Some(record))
            } else {
                Err(error)
            };
        }
        process.watch = if by_pidfd { Watch::Group } else { Watch::Zombie };
        Ok(Some(record))
    }

    /// Looks whether a process has ended. One whose status is not to be had yet is taken out of the set, where its
    /// descriptor would stay readable, and looked at again when some time has passed.
    fn look(&mut self, process: &mut Watched, how: Wait) -> io::Result<Option<ExitRecord>> {
        let looked = process.pidfd.look(how);
        if let Ok(Look::Ended(record)) = looked {
            return Ok(Some(record));
        }
        let before = match process.watch {
            Watch::Late(looks) => Some(looks),
            Watch::Alive(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => None,
        };
        let looks = match (before, &looked) {
            // Not a child of this process, and its parent does not reap it.
            (Some(MOST_LOOKS..), Ok(Look::Unreaped)) => return Ok(Some(process.pidfd.unknown())),
            (Some(looks), _) => looks.saturating_add(1),
            (None, Ok(Look::Held | Look::Unreaped)) if self.take_out(process).is_ok() => 0,
            // It is alive; or no descriptor is free, and the one in the set has to stay.
            (None, _) => return looked.map(|_| None),
        };
        process.watch = Watch::Late(looks);
        looked.map(|_| None)
    }

    /// After a process was collected, or was to be: one that can't be yet is looked at again.
    fn set_look(&mut self, process: &Watched) {
        match process.watch {
            Watch::Late(looks) => {
                let wait = LOOK_FIRST.saturating_mul(1 << looks.min(LOOKS_GROW));
                self.looks.set(process.owner, self.clock.now().saturating_add(wait));
            }
            Watch::Alive(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => self.looks.clear(process.owner),
        }
    }

    /// What there is to see of a process: what it says, then its end, then the end of its cgroup.
    fn see(&mut self, process: &mut Watched, hold: bool) -> io::Result<Seen> {
        let said = self.hear_readiness(process)?;
        if said != Seen::Nothing {
            return Ok(said);
        }
        match (&process.watch, &process.leaf) {
            (Watch::Alive(_) | Watch::Late(_), _) => {
                let record = if hold {
                    self.keep_others(process)?
                } else {
                    self.reap(process)?
                };
                Ok(record.map_or(Seen::Nothing, Seen::Ended))
            }
            (Watch::Group | Watch::Zombie, Some(leaf)) if leaf.changed()? => Ok(Seen::Empty),
            (Watch::Reaped(_) | Watch::Group | Watch::Zombie, _) => Ok(Seen::Nothing),
        }
    }

    /// Reaps a process that has ended, and keeps nothing of it within reach.
    fn reap(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        let record = self.look(process, Wait::Reap)?;
        if record.is_some() {
            process.watch = match process.watch {
                Watch::Alive(token) | Watch::Reaped(token) => Watch::Reaped(token),
                Watch::Late(_) | Watch::Group | Watch::Zombie => Watch::Group,
            };
        }
        Ok(record)
    }

    /// Exchanges the descriptor of a process that is in the set for another one that is not.
    fn take_out(&mut self, process: &mut Watched) -> io::Result<()> {
        if let Watch::Alive(token) = process.watch {
            let kept = process.pidfd.try_clone()?;
            let watched = std::mem::replace(&mut process.pidfd, kept);
            self.forget(token, watched);
        }
        Ok(())
    }

    /// What is left in the cgroup of a run that is over dies, and the cgroup is removed.
    fn bury(&mut self, leaf: Option<Leaf>) {
        if let Some(leaf) = leaf {
            let now = self.clock.now();
            self.leaves.bury(leaf, &mut self.fds, now);
        }
    }

    fn forget(&mut self, token: Token, pidfd: PidFd) {
        // A refusal would mean that the entry is gone already; dropping the descriptor closes it.
        drop(self.fds.remove(token, OwnedFd::from(pidfd)));
    }
}

impl Kernel for Linux {
    type Process = Watched;

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn spawn(&mut self, program: &Program, place: &Place, owner: u32) -> Result<(Watched, Pipes), SpawnError> {
        let now = self.clock.now();
        let mut make = |home| self.leaves.make(home, &place.files, now);
        let leaf = match place.home.as_deref().map(&mut make).transpose() {
            Ok(leaf) => leaf,
            Err(error) => return Err(homeless(program, &error)),
        };
        let spawned = self.spawner.spawn_in(program, leaf.as_ref().map(Leaf::fd));
        let watched = spawned.and_then(|child| self.watch(child, program));
        let watched = watched.and_then(|(pidfd, token, mut pipes)| {
            let ready = place.ready_fd.then(|| pipes.extra.take()).flatten();
            let ready = ready.map(|pipe| self.watch_readiness(pipe)).transpose();
            match ready {
                Ok(ready) => Ok((pidfd, token, ready, pipes)),
                Err(error) => {
                    self.abandon(token, pidfd);
                    Err(unwatched(program, &error))
                }
            }
        });
        match watched {
            Ok((pidfd, token, ready, pipes)) => {
                self.own(token, owner);
                if let Some((_, token)) = &ready {
                    self.own(*token, owner);
                }
                if let Some(leaf) = &leaf {
                    self.leaves.move_in(leaf, owner);
                }
                let watch = Watch::Alive(token);
                Ok((
                    Watched {
                        pidfd,
                        watch,
                        leaf,
                        ready,
                        owner,
                    },
                    pipes,
                ))
            }
            Err(error) => {
                self.bury(leaf);
                Err(error)
            }
        }
    }

    fn pid(&self, process: &Watched) -> Pid {
        process.pidfd.pid()
    }

    fn collect(&mut self, process: &mut Watched, hold: bool) -> io::Result<Seen> {
        let seen = self.see(process, hold);
        self.set_look(process);
        seen
    }

    fn has_ended(&self, process: &Watched) -> bool {
        match process.watch {
            Watch::Alive(_) | Watch::Late(_) => matches!(process.pidfd.look(Wait::Peek), Ok(Look::Ended(_))),
            Watch::Reaped(_) | Watch::Group | Watch::Zombie => true,
        }
    }

    fn signal(&mut self, process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
        match (scope, &process.leaf) {
            (Scope::Cgroup, Some(leaf)) => deliver_to_leaf(process, leaf, signal),
            (Scope::Process | Scope::ProcessGroup | Scope::Cgroup, _) => deliver(process, signal, scope),
        }
    }

    fn reserve(&mut self, additional: usize) {
        self.fds.reserve(additional);
        // By place in the set, where not only processes have theirs.
        let places = self.fds.len() + additional;
        self.owners.reserve(places.saturating_sub(self.owners.len()));
    }

    fn is_empty(&mut self, process: &Watched, scope: Scope, looks: u8) -> io::Result<bool> {
        match (&process.watch, scope) {
            // Also where it has moved itself to another cgroup.
            (Watch::Alive(_) | Watch::Late(_), _) => Ok(false),
            (Watch::Reaped(_) | Watch::Group | Watch::Zombie, Scope::Cgroup) if process.leaf.is_some() => {
                process.leaf.as_ref().map_or(Ok(true), Leaf::is_empty)
            }
            (Watch::Reaped(_), _) | (Watch::Group | Watch::Zombie, Scope::Process) => Ok(true),
            (Watch::Group, Scope::ProcessGroup | Scope::Cgroup) => {
                let probe = process.pidfd.signal_group(None);
                // A zombie that its parent doesn't reap answers too. Reading all of /proc to tell is
                // for those few groups that stay.
                Ok(is_errno(&probe, Errno::SRCH) || (looks >= CAREFUL_LOOK && !group_lives(process)?))
            }
            (Watch::Zombie, Scope::ProcessGroup | Scope::Cgroup) => {
                Ok(!keeps_number(process) || !group_lives(process)?)
            }
        }
    }

    fn usage(&self, process: &Watched) -> Option<CgroupUsage> {
        process.leaf.as_ref().map(Leaf::usage)
    }

    fn release(&mut self, process: Watched, patience: Duration) {
        let Watched {
            pidfd,
            watch,
            leaf,
            ready,
            owner,
        } = process;
        self.looks.clear(owner);
        if let Some(leaf) = &leaf {
            self.leaves.move_out(leaf, owner);
        }
        if let Some((ready, token)) = ready {
            drop(self.fds.remove(token, OwnedFd::from(ready)));
        }
        match watch {
            Watch::Alive(token) => {
                let _gone = pidfd.signal(Signal::KILL);
                wait_for_end(&pidfd, patience);
                self.forget(token, pidfd);
            }
            // It has ended: the wait is for the tracer.
            Watch::Late(_) => wait_for_end(&pidfd, patience),
            Watch::Reaped(token) => self.forget(token, pidfd),
            Watch::Group => {}
            // It has ended, so this takes no time; and nothing can be done about an error.
            Watch::Zombie => drop(pidfd.reap()),
        }
        self.bury(leaf);
    }

    fn close(&mut self, until: Instant) {
        let clock = self.clock;
        self.leaves.close(|| until.saturating_duration_since(clock.now()));
    }

    fn look_at(&self) -> Option<Instant> {
        let orphans = self.orphans.as_ref().and_then(Orphans::look_at);
        let looks = [self.looks.earliest(), self.leaves.sweep_at(), orphans];
        looks.into_iter().flatten().min()
    }

    fn look_again(&mut self, now: Instant) -> Option<u32> {
        self.leaves.sweep(now);
        if let Some(orphans) = &mut self.orphans {
            orphans.look_again(now);
        }
        self.looks.pop_due(now)
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        self.timer.arm(at)
    }

    fn is_ours(&self) -> bool {
        self.owner.is_here()
    }
}

/// When a process is looked at again that has ended and whose status is not to be had: the first wait, and how often it
/// doubles.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOKS_GROW: u32 = 7;

/// How many looks a process gets that is not a child of this one: ten seconds.
const MOST_LOOKS: u32 = 84;

/// From this look on, members of a group are looked at one by one.
const CAREFUL_LOOK: u8 = 6;

/// How long a process that had to be killed on the spot may take to die of it.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Sends one signal. ESRCH, nothing is there any more, is what a signal is for.
fn deliver(process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
    let sent = match scope {
        Scope::Process => process.pidfd.signal(signal),
        Scope::ProcessGroup | Scope::Cgroup => match deliver_to_group(process, signal) {
            // The leader may have left its group, and is of the scope all the same.
            sent if signal == Signal::KILL || is_errno(&sent, Errno::SRCH) || has_left_group(process) => {
                process.pidfd.signal(signal).or(sent)
            }
            sent => sent,
        },
    };
    if is_errno(&sent, Errno::SRCH) { Ok(()) } else { sent }
}

/// Sends one signal to all of a cgroup, and to the process wherever it is: it may have moved itself to another one. It gets
/// no signal twice but SIGKILL.
fn deliver_to_leaf(process: &Watched, leaf: &Leaf, signal: Signal) -> io::Result<()> {
    let (reached, sent) = leaf.signal(signal, process.pidfd.pid());
    match process.watch {
        Watch::Alive(_) | Watch::Late(_) if !reached => deliver(process, signal, Scope::Process).and(sent),
        Watch::Alive(_) | Watch::Late(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => sent,
    }
}

/// Whether a process that leads a group from its start has gone over to another one (setpgid(2)). Of one that was reaped
/// the number may be another's, and to signal it is in vain.
fn has_left_group(process: &Watched) -> bool {
    let raw = i32::try_from(process.pidfd.pid().as_raw())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    raw.is_some_and(|pid| rustix::process::getpgid(Some(pid)).is_ok_and(|group| group != pid))
}

fn deliver_to_group(process: &Watched, signal: Signal) -> io::Result<()> {
    let sent = process.pidfd.signal_group(Some(signal));
    match process.watch {
        // By number before 6.9, and where a filter refuses it.
        Watch::Alive(_) | Watch::Late(_) | Watch::Zombie if is_refused(&sent) => {
            if keeps_number(process) {
                signal_group_by_number(process.pidfd.pid(), signal.as_raw())
            } else {
                Err(Errno::SRCH.into())
            }
        }
        Watch::Alive(_) | Watch::Late(_) | Watch::Zombie | Watch::Reaped(_) | Watch::Group => sent,
    }
}

/// Whether a number still means this process and its group. It does while the process is unreaped; and
/// if somebody else has reaped it (a host that ignores SIGCHLD, or waits for any child), while nobody
/// has the number: what lives of the group keeps it from being given to another process.
fn keeps_number(process: &Watched) -> bool {
    process.pidfd.is_unreaped() || !number_is_taken(process.pidfd.pid())
}

/// A child could not be added to the set.
fn unwatched(program: &Program, error: &io::Error) -> SpawnError {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    SpawnError::new(program.name().to_owned(), Step::Watch, errno, None)
}

/// The cgroup that a program was to be started in could not be made.
fn homeless(program: &Program, error: &CgroupError) -> SpawnError {
    let subject = error.path().map(|path| Subject::Path(path.to_owned()));
    // What is left of an earlier run has not gone: there is no errno for that.
    let errno = Some(error.errno()).filter(|&errno| errno != 0).unwrap_or(libc::EBUSY);
    SpawnError::new(program.name().to_owned(), Step::Cgroup, errno, subject)
}

fn group_lives(process: &Watched) -> io::Result<bool> {
    procfs::group_lives(process.pidfd.pid())
}

/// Waits until the process has ended, or `patience` has passed, and reaps it. One that does not end stays.
fn wait_for_end(pidfd: &PidFd, patience: Duration) {
    drop(pidfd.reap_until(std::time::Instant::now() + patience));
}

/// Whether the kernel, or a filter, does not know or allow a call; nothing is said about the process concerned.
fn is_refused<T>(result: &io::Result<T>) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::PERM]
        .iter()
        .any(|&errno| is_errno(result, errno))
}

fn is_errno<T>(result: &io::Result<T>, errno: Errno) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(errno.raw_os_error()))
}
