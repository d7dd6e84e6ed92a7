//! A child that was started by a [`Command`](crate::Command), and the parent's ends of its pipes.
//!
//! The standard library's `Child` leaves a zombie behind when it is dropped. This one leaves nothing:
//! forgetting a child ends it. To keep it, take the pidfd out.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::exit::{ExitRecord, Pid};
use crate::owner::Owner;
use crate::pidfd::PidFd;
use crate::signal::Signal;
use crate::sys::guarded::{Abandon, Guarded};

/// How long dropping a child waits for it to be gone after SIGKILL. That is a matter of microseconds,
/// but for a process that hangs in the kernel.
pub(crate) const DROP_WAIT: Duration = Duration::from_secs(1);

/// Stands for a wait without a bound, which no time of the clock says.
const VERY_LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// A running (or ended, and not yet reaped) child.
///
/// Dropping it sends SIGKILL (to the process, not to what it started), waits for at most a second, and reaps; [`Child::into_pidfd`],
/// [`Child::into_parts`] and [`Child::detach`] opt out of that.
///
/// It belongs to the process that started it. In a copy that fork(2) made, calls that wait or signal fail with
/// [`OtherProcess`](crate::OtherProcess) inside, and dropping it closes the copy's descriptors and does nothing else.
#[derive(Debug)]
pub struct Child {
    /// The writing end of the pipe that is the child's standard input, if that was piped. As all
    /// four: close-on-exec, blocking.
    pub stdin: Option<OwnedFd>,
    /// The reading end of the pipe that is its standard output.
    pub stdout: Option<OwnedFd>,
    /// The reading end of the pipe that is its standard error.
    pub stderr: Option<OwnedFd>,
    /// The reading end of the pipe that was passed with [`Command::fd`](crate::Command::fd).
    pub extra: Option<OwnedFd>,
    process: Guarded<Process>,
}

/// The process, and how it ended if it was reaped here.
#[derive(Debug)]
struct Process {
    owner: Owner,
    pidfd: PidFd,
    record: Option<ExitRecord>,
}

/// The parent's ends of a child's pipes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Pipes {
    /// To be written: its standard input.
    pub stdin: Option<OwnedFd>,
    /// To be read: its standard output.
    pub stdout: Option<OwnedFd>,
    /// To be read: its standard error.
    pub stderr: Option<OwnedFd>,
    /// To be read: its further pipe.
    pub extra: Option<OwnedFd>,
}

impl Child {
    pub(crate) fn new(pidfd: PidFd, pipes: Pipes) -> Child {
        let Pipes {
            stdin,
            stdout,
            stderr,
            extra,
        } = pipes;
        Child {
            stdin,
            stdout,
            stderr,
            extra,
            process: Guarded::new(Process {
                owner: Owner::this_process(),
                pidfd,
                record: None,
            }),
        }
    }

    /// Its number, for showing.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pidfd.pid()
    }

    /// Its pidfd, readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> &PidFd {
        &self.process.pidfd
    }

    /// Takes the pidfd out and closes the pipes. The child lives on and is the caller's to reap.
    #[must_use]
    pub fn into_pidfd(self) -> PidFd {
        self.process.into_inner().pidfd
    }

    /// Takes the pidfd and the pipes out. The child lives on and is the caller's to reap.
    #[must_use]
    pub fn into_parts(self) -> (PidFd, Pipes) {
        let Child {
            stdin,
            stdout,
            stderr,
            extra,
            process,
            ..
        } = self;
        (
            process.into_inner().pidfd,
            Pipes {
                stdin,
                stdout,
                stderr,
                extra,
            },
        )
    }

    /// Lets the child go on by itself. When it ends it stays a zombie until this process ends too, or
    /// waits for any child.
    pub fn detach(self) {
        drop(self.into_pidfd());
    }

    /// What dropping it does, with another bound for the wait: several children together take no longer than one. Its
    /// pidfd is left, for one that does not end in time.
    pub(crate) fn end_until(self, until: Instant) -> PidFd {
        let process = self.process.into_inner();
        process.end_until(until);
        process.pidfd
    }

    /// Whether this is the process that started it, and not a copy of that.
    pub(crate) fn is_here(&self) -> bool {
        self.process.owner.is_here()
    }

    /// Reaps the child if it has ended; `None` while it lives. After that, the same record again.
    /// Does not block.
    ///
    /// # Errors
    /// As [`PidFd::reap`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitRecord>> {
        self.process.owner.check()?;
        if self.process.record.is_none() {
            self.process.record = self.process.pidfd.reap()?;
        }
        Ok(self.process.record)
    }

    /// Closes the child's standard input, if it is a pipe still held here, waits for its end and reaps
    /// it. Blocks for as long as it lives.
    ///
    /// # Errors
    /// As [`PidFd::reap`].
    pub fn wait(&mut self) -> io::Result<ExitRecord> {
        self.process.owner.check()?;
        self.stdin = None;
        let record = match self.process.record {
            Some(record) => record,
            None => self.process.pidfd.wait_and_reap()?,
        };
        self.process.record = Some(record);
        Ok(record)
    }

    /// Waits for the child's end, but no longer than this, and reaps it; `None` if it lives on, or has ended and a tracer
    /// (ptrace(2)) holds it. Blocks; signal handlers that run meanwhile make it neither shorter nor longer. The child's
    /// standard input stays open.
    ///
    /// # Errors
    /// As [`PidFd::reap`], and what poll(2) says.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitRecord>> {
        self.process.owner.check()?;
        if self.process.record.is_none() {
            let now = Instant::now();
            let until = now.checked_add(limit).unwrap_or(now + VERY_LONG);
            self.process.record = self.process.pidfd.reap_until(until)?;
        }
        Ok(self.process.record)
    }

    /// Sends SIGKILL, unless the child was already reaped. The caller must still wait for the child.
    ///
    /// # Errors
    /// `EPERM` if it belongs to another user by now.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.owner.check()?;
        match self.process.pidfd.signal(Signal::KILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}

impl Process {
    /// SIGKILL, a bounded wait, reap. Nothing can be done about errors: where the signal may not be sent, or
    /// the process hangs in the kernel, it stays.
    fn end_until(&self, until: Instant) {
        if !self.owner.is_here() {
            return;
        }
        if self.record.is_some() || matches!(self.pidfd.reap(), Ok(Some(_))) {
            return;
        }
        if self.pidfd.signal(Signal::KILL).is_err() {
            return;
        }
        let _stays = self.pidfd.reap_until(until);
    }
}

impl Abandon for Process {
    fn abandon(self) {
        self.end_until(Instant::now() + DROP_WAIT);
    }
}
