//! The seam between the supervisor's decisions and the kernel.
//!
//! The driver above is written against [`Kernel`], with static dispatch, so that the very same code
//! runs against a simulated kernel in virtual time. [`Linux`] is the real one. It keeps the set of
//! descriptors and the timer; all it decides is how a thing is done, never whether.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid as RawPid, Signal as RawSignal, kill_process_group};

use crate::child::Pipes;
use crate::command::{Program, SpawnError, Spawner, Step};
use crate::exit::{ExitRecord, Pid};
use crate::fdset::{FdSet, Interest, Token};
use crate::lifecycle::Scope;
use crate::pidfd::PidFd;
use crate::proc;
use crate::signal::Signal;
use crate::signalfd::{SignalFd, SignalInfo};
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
    fn spawn(&mut self, program: &mut Program, owner: u32) -> Result<(Self::Process, Pipes), SpawnError>;
    fn pid(&self, process: &Self::Process) -> Pid;

    /// Reaps the process if it has ended and stops watching it; `None` if it is alive. With `hold`
    /// its process group stays within reach afterwards.
    fn collect(&mut self, process: &mut Self::Process, hold: bool) -> io::Result<Option<ExitRecord>>;

    /// Makes room for this many processes more.
    fn reserve(&mut self, additional: usize);

    /// Sends one signal. That nobody is there any more is not an error.
    fn signal(&mut self, process: &Self::Process, signal: Signal, scope: Scope) -> io::Result<()>;

    /// Whether nothing of this scope is alive.
    fn is_empty(&mut self, process: &Self::Process, scope: Scope, looks: u8) -> io::Result<bool>;

    /// Lets go of a process. One that has not been collected is killed, and waited for until
    /// `patience` has passed.
    fn release(&mut self, process: Self::Process, patience: Duration);

    /// Wakes the host up at this time; in the past means at once.
    fn arm(&mut self, at: Option<Instant>) -> io::Result<()>;
}

/// The real kernel.
pub(super) struct Linux {
    pub(super) fds: FdSet,
    spawner: Spawner,
    clock: Clock,
    timer: TimerFd,
    timer_token: Token,
    signals: Option<(SignalFd, Token)>,
    /// The slot of the instance each entry of the set belongs to, by the entry's place.
    owners: Vec<u32>,
}

/// A child, and how far it has been taken apart.
pub(super) struct Watched {
    pidfd: PidFd,
    watch: Watch,
}

enum Watch {
    /// Alive, as far as anyone has looked; in the set.
    Alive(Token),
    /// Reaped; to be taken out of the set.
    Reaped(Token),
    /// Reaped and out of the set; another descriptor of it is kept to reach its group.
    Group,
    /// The same for kernels before 6.9: a zombie that keeps its number, and so its group's.
    Zombie,
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whose descriptor became ready.
pub(super) enum Source {
    Timer,
    Signals,
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
            fds,
            spawner,
            clock,
            timer,
            timer_token,
            signals,
            owners: Vec::new(),
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
            _ => self.owners.get(token.index()).copied().map(Source::Process),
        }
    }

    /// Remembers whose a descriptor is, by its place in the set.
    fn own(&mut self, token: Token, owner: u32) {
        if self.owners.len() <= token.index() {
            self.owners.resize(token.index() + 1, owner);
        }
        self.owners[token.index()] = owner;
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

    pub(super) fn timer_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub(super) fn signal_fd(&self) -> Option<BorrowedFd<'_>> {
        self.signals.as_ref().map(|(signals, _)| signals.as_fd())
    }

    /// Takes a process that has ended out of the set, and keeps another descriptor of it.
    fn keep_group(&mut self, process: &mut Watched, token: Token) -> io::Result<Option<ExitRecord>> {
        // Since 6.9 a pidfd reaches the group for as long as it has members. Before, only the
        // number does, and only an unreaped leader keeps that from being given to a stranger.
        let by_pidfd = !is_errno(&process.pidfd.signal_group(None), Errno::INVAL);
        let record = if by_pidfd {
            process.pidfd.reap()?
        } else {
            process.pidfd.peek()?
        };
        if record.is_none() {
            return Ok(None);
        }
        let kept = match process.pidfd.try_clone() {
            Ok(kept) => kept,
            Err(error) => {
                // No descriptor is left to wait with: nothing that can't be watched is left alive.
                let _gone = self.signal(process, Signal::KILL, Scope::ProcessGroup);
                process.watch = Watch::Reaped(token);
                return if process.pidfd.reap()?.is_some() {
                    Ok(record)
                } else {
                    Err(error)
                };
            }
        };
        let watched = std::mem::replace(&mut process.pidfd, kept);
        process.watch = if by_pidfd { Watch::Group } else { Watch::Zombie };
        self.forget(token, watched);
        Ok(record)
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

    fn spawn(&mut self, program: &mut Program, owner: u32) -> Result<(Watched, Pipes), SpawnError> {
        let (pidfd, pipes) = self.spawner.spawn(program)?.into_parts();
        match self.fds.add(pidfd.as_fd(), Interest::READ) {
            Ok(token) => {
                self.own(token, owner);
                Ok((
                    Watched {
                        pidfd,
                        watch: Watch::Alive(token),
                    },
                    pipes,
                ))
            }
            Err(error) => {
                let _gone = pidfd.signal(Signal::KILL);
                wait_for_end(&pidfd, LAST_PATIENCE);
                let errno = error.raw_os_error().unwrap_or_default();
                Err(SpawnError::new(program.name().to_owned(), Step::Watch, errno, None))
            }
        }
    }

    fn pid(&self, process: &Watched) -> Pid {
        process.pidfd.pid()
    }

    fn collect(&mut self, process: &mut Watched, hold: bool) -> io::Result<Option<ExitRecord>> {
        match process.watch {
            Watch::Alive(token) if hold => self.keep_group(process, token),
            Watch::Alive(token) => {
                let record = process.pidfd.reap()?;
                if record.is_some() {
                    process.watch = Watch::Reaped(token);
                }
                Ok(record)
            }
            Watch::Reaped(_) | Watch::Group | Watch::Zombie => Ok(None),
        }
    }

    fn signal(&mut self, process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
        deliver(process, signal, scope)
    }

    fn reserve(&mut self, additional: usize) {
        self.fds.reserve(additional);
        self.owners.reserve(additional);
    }

    fn is_empty(&mut self, process: &Watched, scope: Scope, looks: u8) -> io::Result<bool> {
        match (&process.watch, scope) {
            (Watch::Alive(_), _) => Ok(false),
            (Watch::Reaped(_), _) | (Watch::Group | Watch::Zombie, Scope::Process) => Ok(true),
            (Watch::Group, Scope::ProcessGroup | Scope::Cgroup) => {
                let probe = process.pidfd.signal_group(None);
                // A zombie that its parent doesn't reap answers too. Reading all of /proc to tell is
                // for those few groups that stay.
                Ok(is_errno(&probe, Errno::SRCH) || (looks >= CAREFUL_LOOK && !group_lives(process)?))
            }
            (Watch::Zombie, Scope::ProcessGroup | Scope::Cgroup) => Ok(!group_lives(process)?),
        }
    }

    fn release(&mut self, process: Watched, patience: Duration) {
        let Watched { pidfd, watch } = process;
        match watch {
            Watch::Alive(token) => {
                let _gone = pidfd.signal(Signal::KILL);
                wait_for_end(&pidfd, patience);
                self.forget(token, pidfd);
            }
            Watch::Reaped(token) => self.forget(token, pidfd),
            Watch::Group => {}
            // It has ended, so this takes no time; and nothing can be done about an error.
            Watch::Zombie => drop(pidfd.reap()),
        }
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        self.timer.arm(at)
    }
}

/// From this look on, members of a group are looked at one by one.
const CAREFUL_LOOK: u8 = 6;

/// How long a process that had to be killed on the spot may take to die of it.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Sends one signal. ESRCH, nobody there any more, is what a signal is for.
fn deliver(process: &Watched, signal: Signal, scope: Scope) -> io::Result<()> {
    let sent = match scope {
        Scope::Process => process.pidfd.signal(signal),
        Scope::ProcessGroup | Scope::Cgroup => match deliver_to_group(process, signal) {
            // The leader may have left its group, and has to be told all the same.
            sent if signal == Signal::KILL || is_errno(&sent, Errno::SRCH) => process.pidfd.signal(signal).or(sent),
            sent => sent,
        },
    };
    if is_errno(&sent, Errno::SRCH) { Ok(()) } else { sent }
}

fn deliver_to_group(process: &Watched, signal: Signal) -> io::Result<()> {
    let sent = process.pidfd.signal_group(Some(signal));
    match process.watch {
        // Before 6.9, by number: it is this group's as long as its leader has not been reaped.
        Watch::Alive(_) | Watch::Zombie if is_errno(&sent, Errno::INVAL) => {
            let group = raw_group(process).ok_or(Errno::SRCH)?;
            let signal = RawSignal::from_named_raw(signal.as_raw()).ok_or(Errno::INVAL)?;
            Ok(kill_process_group(group, signal)?)
        }
        Watch::Alive(_) | Watch::Zombie | Watch::Reaped(_) | Watch::Group => sent,
    }
}

fn group_lives(process: &Watched) -> io::Result<bool> {
    proc::group_lives(process.pidfd.pid())
}

fn raw_group(process: &Watched) -> Option<RawPid> {
    RawPid::from_raw(i32::try_from(process.pidfd.pid().as_raw()).ok()?)
}

/// Waits until the process has ended, or `patience` has passed, and reaps it.
fn wait_for_end(pidfd: &PidFd, patience: Duration) {
    let until = Clock::Monotonic.now().saturating_add(patience);
    loop {
        let left = until.saturating_duration_since(Clock::Monotonic.now());
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        if poll(&mut fds, Timespec::try_from(left).ok().as_ref()) != Err(Errno::INTR) {
            break;
        }
    }
    drop(pidfd.reap());
}

fn is_errno<T>(result: &io::Result<T>, errno: Errno) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(errno.raw_os_error()))
}
