//! A child that was started here, by a descriptor instead of a number.
//!
//! A PID is free for somebody else as soon as its process has been reaped; a pidfd stays that of its process
//! for ever. It becomes readable when the process ends, so any epoll can wait for it. Whatever is
//! done to a process in this library is done through its pidfd.
//!
//! To look ([`PidFd::peek`]) and to take ([`PidFd::reap`]) are two things: a supervisor looks, reports, and
//! takes when it is done with the process group whose leader the zombie keeps reserved.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::signal::Signal;
use crate::sys::process;
use crate::sys::wait::{self, Wait};

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

    /// Sends `signal` to the process (pidfd_send_signal(2)). It can't reach a stranger.
    ///
    /// # Errors
    /// `ESRCH` if it was reaped already (a zombie takes signals and ignores them), `EPERM` if it
    /// belongs to somebody else by now.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        process::send_signal(self.as_fd(), signal.as_raw(), false)
    }

    /// Sends `signal` to the process group that this process leads, or with `None` asks whether there
    /// is anybody in it (Linux 6.9). Reaches the group even when the leader has been reaped.
    ///
    /// # Errors
    /// `ESRCH` if the group is empty, or the process led none; `EPERM` if none of it may be
    /// signalled; `EINVAL` on kernels before 6.9.
    pub fn signal_group(&self, signal: Option<Signal>) -> io::Result<()> {
        process::send_signal(self.as_fd(), signal.map_or(0, Signal::as_raw), true)
    }

    /// Whether it is alive or a zombie, so that its number is nobody else's.
    pub(crate) fn is_unreaped(&self) -> bool {
        let asked = process::send_signal(self.as_fd(), 0, false);
        !matches!(asked, Err(error) if error.raw_os_error() == Some(libc::ESRCH))
    }

    /// How the process ended, or `None` while it lives. It stays a zombie, and can be asked again.
    ///
    /// After it was reaped, here or by somebody else, the answer comes from what the kernel remembers
    /// (Linux 6.15), or is [`Exit::Unknown`]. Does not block.
    ///
    /// # Errors
    /// None that a valid pidfd would meet.
    pub fn peek(&self) -> io::Result<Option<ExitRecord>> {
        let ended = self.wait(Wait::Peek)?;
        Ok(ended.map(|end| self.record(end)))
    }

    /// Takes the exit status, after which the process is gone and its number free; `None` while it lives.
    ///
    /// Reaping twice is harmless: the second time the exit is that which the kernel remembers (Linux
    /// 6.15) or [`Exit::Unknown`], and the usage is zero. Does not block.
    ///
    /// # Errors
    /// None that a valid pidfd would meet.
    pub fn reap(&self) -> io::Result<Option<ExitRecord>> {
        let ended = self.wait(Wait::Reap)?;
        Ok(ended.map(|end| self.record(end)))
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
        let ended = self.wait(Wait::Block)?;
        Ok(self.record(ended.unwrap_or((Exit::Unknown, Usage::default()))))
    }

    /// Whether the process ends within `timeout`. A signal that interrupts the wait ends it early.
    pub(crate) fn ends_within(&self, timeout: Timespec) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timeout))? > 0)
    }

    fn wait(&self, how: Wait) -> io::Result<Option<(Exit, Usage)>> {
        match wait::wait(self.as_fd(), how) {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.ended_elsewhere(how),
            result => result,
        }
    }

    /// Not our child (any more): alive as long as its pidfd isn't readable.
    fn ended_elsewhere(&self, how: Wait) -> io::Result<Option<(Exit, Usage)>> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let timeout = (how != Wait::Block).then_some(&at_once);
        loop {
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some((wait::remembered_exit(self.as_fd()), Usage::default()))),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn record(&self, (exit, usage): (Exit, Usage)) -> ExitRecord {
        ExitRecord {
            pid: self.pid,
            exit,
            usage,
        }
    }
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
