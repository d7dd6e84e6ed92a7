//! A child that was started here, by a descriptor instead of a number.
//!
//! A PID can be given to another process as soon as its process has been reaped; a pidfd always refers to the same
//! process. It becomes readable when the process ends, so any epoll can wait for it. Everything that this library does to a
//! process is done through its pidfd.
//!
//! To look ([`PidFd::peek`]) and to reap ([`PidFd::reap`]) are two things: a supervisor looks, reports, and reaps when it
//! is done with the process group, since the zombie of the leader keeps the number of the group reserved.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::poll::{is_ready, wait_for};
use crate::signal::Signal;
use crate::sys::process;
use crate::sys::wait::{self, Remembered, Wait};

/// How long a look waits for a status that the kernel is just about to have: the process has been reaped by another
/// thread, or by the kernel, and that takes microseconds.
const STATUS_WAIT: Duration = Duration::from_millis(20);

/// How long a wait without a bound goes on for the status of a process that has ended and is not this one's child. Its
/// own parent may never reap it.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// The first and the longest pause between two looks at a process that has ended, and whose status is not to be had.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(128));

/// A pidfd (pidfd_open(2)) together with the number its process had when it started.
///
/// Readable (`EPOLLIN`) as soon as the process ended, and from then on: level-triggered, so it is
/// never too late to wait for it. Dropping it neither ends nor reaps the process; see
/// [`Child`](crate::Child) for that.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    pub(crate) fn new(fd: OwnedFd, pid: Pid) -> PidFd {
        PidFd { fd, pid }
    }

    /// The number of the process, for showing. It is free for others once the process was reaped.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends `signal` to the process (pidfd_send_signal(2)). It can't reach another process.
    ///
    /// Where that call is refused (`ENOSYS`, `EPERM`), as by the filter of a container, kill(2) does the same, provided that
    /// the process is a child of this one that has not been reaped: then its number is not given again.
    ///
    /// # Errors
    /// `ESRCH` if it was reaped already (a zombie takes signals and ignores them), `EPERM` if it
    /// belongs to another user by now.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match process::send_signal(self.as_fd(), signal.as_raw(), false) {
            Err(error) if is_refusal(&error) && self.is_own_child() => {
                process::signal_by_number(self.pid, signal.as_raw())
            }
            sent => sent,
        }
    }

    /// Sends `signal` to the process group that this process leads, or with `None` asks whether there
    /// is any process in it (Linux 6.9). Reaches the group even when the leader has been reaped.
    ///
    /// # Errors
    /// `ESRCH` if the group is empty, or the process led none; `EPERM` if none of it may be
    /// signalled; `EINVAL` on kernels before 6.9.
    pub fn signal_group(&self, signal: Option<Signal>) -> io::Result<()> {
        process::send_signal(self.as_fd(), signal.map_or(0, Signal::as_raw), true)
    }

    /// Whether it is alive or a zombie, so that no other process has its number.
    pub(crate) fn is_unreaped(&self) -> bool {
        match process::send_signal(self.as_fd(), 0, false) {
            Ok(()) => true,
            Err(error) if is_refusal(&error) => self.is_own_child(),
            Err(_) => false,
        }
    }

    /// Whether it is a child of this process that has not been reaped.
    fn is_own_child(&self) -> bool {
        wait::wait(self.as_fd(), Wait::Peek).is_ok()
    }

    /// How the process ended, or `None` while it lives. It stays a zombie, and can be asked again.
    ///
    /// After it was reaped, here or elsewhere, the answer comes from what the kernel remembers
    /// (Linux 6.15), or is [`Exit::Unknown`]. Does not block, but for up to 20 ms where the process has ended and the
    /// kernel is just about to have its status.
    ///
    /// The pidfd may be readable and the answer `None`: while a tracer (ptrace(2)) holds the process that has ended, and,
    /// where the process is not a child of this one, until its parent has reaped it. Look again after a while then.
    ///
    /// # Errors
    /// None that a valid pidfd would meet.
    pub fn peek(&self) -> io::Result<Option<ExitRecord>> {
        self.look_and_wait(Wait::Peek)
    }

    /// Takes the exit status, after which the process is gone and its number free; `None` while it lives.
    ///
    /// Reaping twice is harmless: the second time the exit is that which the kernel remembers (Linux
    /// 6.15) or [`Exit::Unknown`], and the usage is zero. When it blocks, and when the answer is `None` though the pidfd
    /// is readable, is the same as for [`peek`](PidFd::peek).
    ///
    /// # Errors
    /// None that a valid pidfd would meet.
    pub fn reap(&self) -> io::Result<Option<ExitRecord>> {
        self.look_and_wait(Wait::Reap)
    }

    /// Another descriptor of the same process.
    ///
    /// # Errors
    /// `EMFILE`: the host has as many descriptors as it may.
    pub fn try_clone(&self) -> io::Result<PidFd> {
        Ok(PidFd::new(self.fd.try_clone()?, self.pid))
    }

    /// Waits for the end of the process and reaps it. Blocks, for as long as it takes.
    pub(crate) fn wait_and_reap(&self) -> io::Result<ExitRecord> {
        match wait::wait(self.as_fd(), Wait::Block) {
            Ok(Some(end)) => return Ok(self.record(end)),
            Err(error) if error.raw_os_error() != Some(libc::ECHILD) => return Err(error),
            Ok(None) | Err(_) => {}
        }
        wait_for(self, PollFlags::IN, None)?;
        let ended = self.reap_until(Instant::now() + STATUS_LIMIT)?;
        Ok(ended.unwrap_or_else(|| self.unknown()))
    }

    /// Waits for the end of the process, no longer than `until`, and reaps it. Blocks.
    ///
    /// That the pidfd is readable is no answer yet: where the status is not to be had, looks follow each other at
    /// intervals that grow.
    pub(crate) fn reap_until(&self, until: Instant) -> io::Result<Option<ExitRecord>> {
        let (mut pause, longest) = PAUSES;
        loop {
            match self.look(Wait::Reap)? {
                Look::Ended(record) => return Ok(Some(record)),
                Look::Alive => {
                    if !wait_for(self, PollFlags::IN, Some(until))? {
                        return Ok(None);
                    }
                }
                Look::Held | Look::Unreaped => {
                    let now = Instant::now();
                    if now >= until {
                        return Ok(None);
                    }
                    self.pause_until((now + pause).min(until))?;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    /// Looks, and waits a moment where the kernel is just about to have the status.
    fn look_and_wait(&self, how: Wait) -> io::Result<Option<ExitRecord>> {
        match self.look(how)? {
            Look::Ended(record) => Ok(Some(record)),
            Look::Alive | Look::Held => Ok(None),
            Look::Unreaped => {
                self.pause_until(Instant::now() + STATUS_WAIT)?;
                Ok(match self.look(how)? {
                    Look::Ended(record) => Some(record),
                    Look::Alive | Look::Held | Look::Unreaped => None,
                })
            }
        }
    }

    /// Waits until the process has been reaped, which a pidfd tells by a hangup (Linux 6.9), or until then.
    fn pause_until(&self, until: Instant) -> io::Result<()> {
        wait_for(self, PollFlags::empty(), Some(until)).map(drop)
    }

    /// One look, which never waits.
    pub(crate) fn look(&self, how: Wait) -> io::Result<Look> {
        let waited = wait::wait(self.as_fd(), how);
        if !matches!(waited, Ok(Some(_))) && !is_ready(self, PollFlags::IN)? {
            return Ok(Look::Alive);
        }
        // It may have ended between the two calls.
        let waited = match waited {
            Ok(None) => wait::wait(self.as_fd(), how),
            waited => waited,
        };
        match waited {
            Ok(Some(end)) => Ok(Look::Ended(self.record(end))),
            Ok(None) => Ok(Look::Held),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(self.remembered()),
            Err(error) => Err(error),
        }
    }

    /// The same of a process that has ended and is not our child, or not any more.
    fn remembered(&self) -> Look {
        let exit = match wait::remembered_exit(self.as_fd()) {
            Remembered::Exit(exit) => exit,
            Remembered::NotYet => return Look::Unreaped,
            Remembered::Nothing => Exit::Unknown,
        };
        Look::Ended(self.record((exit, Usage::default())))
    }

    /// What is said of a process that has ended in a way that cannot be found out.
    pub(crate) fn unknown(&self) -> ExitRecord {
        self.record((Exit::Unknown, Usage::default()))
    }

    fn record(&self, (exit, usage): (Exit, Usage)) -> ExitRecord {
        ExitRecord {
            pid: self.pid,
            exit,
            usage,
        }
    }
}

/// Whether the kernel, or a filter, does not let this process do it; nothing is said about the process concerned.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// What a look at a process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has not ended.
    Alive,
    /// It has ended and is a child of this process, and its status is not to be had yet: a tracer holds it.
    Held,
    /// It has ended and is not a child of this process, or not any more, and its status is not to be had before it has
    /// been reaped elsewhere. For a child that another thread or the kernel itself reaps, that is a matter of
    /// microseconds.
    Unreaped,
    /// It has ended like this.
    Ended(ExitRecord),
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.fd
    }
}
