//! A child that was started by a [`Command`](crate::Command), and the parent's ends of its pipes.
//!
//! The standard library's `Child` leaves a process or a zombie when it is dropped. Dropping this one ends and reaps the
//! child. To let the child continue, take its pidfd out ([`Child::into_pidfd`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::exit::{ExitRecord, Pid};
use crate::lost;
use crate::owner::Owner;
use crate::pidfd::PidFd;
use crate::signal::Signal;
use crate::sys::guarded::{Abandon, Guarded};

/// The longest wait for the end of a child after SIGKILL, when it is dropped. The end usually takes microseconds,
/// unless the process hangs in the kernel.
pub(crate) const DROP_WAIT: Duration = Duration::from_secs(1);

/// The longest wait for the end of a child after SIGKILL, in a call that stops it.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(10);

/// A practically unlimited wait, a hundred years, for a limit that exceeds the range of the clock.
pub(crate) const VERY_LONG: Duration = Duration::from_secs(3_153_600_000);

/// A child that is alive, or that has ended and was not reaped.
///
/// Dropping it sends SIGKILL to the process, waits for its end for at most a second, and reaps it. A process that ends
/// later, because it hangs in the kernel or the signal was refused, is reaped by a later spawn of this host; its pidfd
/// stays open until then. Processes that the child has started get no signal. [`Child::into_pidfd`],
/// [`Child::into_parts`] and [`Child::detach`] let the child continue.
///
/// It belongs to the process that started it. In a copy that fork(2) made, calls that wait or signal fail with
/// [`OtherProcess`](crate::OtherProcess) inside, and dropping it closes the copy's descriptors and does nothing else.
#[derive(Debug)]
pub struct Child {
    /// The write end of the pipe to the child's standard input, if it is piped. Like all of them, it is close-on-exec,
    /// and blocking unless the command says otherwise ([`Pipe::nonblocking`](crate::Pipe::nonblocking)).
    pub stdin: Option<OwnedFd>,
    /// The read end of the pipe from the child's standard output, if it is piped.
    pub stdout: Option<OwnedFd>,
    /// The read end of the pipe from the child's standard error, if it is piped.
    pub stderr: Option<OwnedFd>,
    /// The host's end of the pipe that was passed last with [`Command::fd`](crate::Command::fd), if any. All pipes are
    /// available by their numbers: [`Child::take_pipe`].
    pub extra: Option<OwnedFd>,
    others: Others,
    process: Guarded<Process>,
}

/// The process, and its exit record if it was reaped here.
#[derive(Debug)]
struct Process {
    owner: Owner,
    pidfd: PidFd,
    record: Option<ExitRecord>,
}

/// The result of [`Child::stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// The exit status, and the resources that the child used.
    pub record: ExitRecord,
    /// Whether SIGKILL was sent: the child did not end in time after the first signal.
    pub forced: bool,
}

/// A process has not ended although it got SIGKILL. It is inside the [`io::Error`] of the call, under the kind
/// `TimedOut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process {pid} has not ended in {} s after SIGKILL", KILL_WAIT.as_secs())]
pub struct StillAlive {
    /// The process.
    pub pid: Pid,
}

impl StillAlive {
    pub(crate) fn error(pid: Pid) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, StillAlive { pid })
    }
}

/// The parent's ends of a child's pipes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Pipes {
    /// The write end of the pipe to the child's standard input, if it is piped.
    pub stdin: Option<OwnedFd>,
    /// The read end of the pipe from the child's standard output, if it is piped.
    pub stdout: Option<OwnedFd>,
    /// The read end of the pipe from the child's standard error, if it is piped.
    pub stderr: Option<OwnedFd>,
    /// The host's end of the pipe that was passed last with [`Command::fd`](crate::Command::fd), if any. All pipes are
    /// available by their numbers: [`Pipes::take`].
    pub extra: Option<OwnedFd>,
    others: Others,
}

/// The numbers of the pipes that are not standard streams, and all but one of them.
#[derive(Debug, Default)]
struct Others {
    /// The number of `extra` in the child.
    extra: Option<RawFd>,
    /// The other pipes with their numbers.
    pipes: Vec<(RawFd, OwnedFd)>,
}

impl Others {
    fn take(&mut self, target: RawFd, extra: &mut Option<OwnedFd>) -> Option<OwnedFd> {
        if self.extra == Some(target) {
            return extra.take();
        }
        let index = self.pipes.iter().position(|(number, _)| *number == target)?;
        Some(self.pipes.swap_remove(index).1)
    }

    fn get<'a>(&'a self, target: RawFd, extra: &'a Option<OwnedFd>) -> Option<&'a OwnedFd> {
        if self.extra == Some(target) {
            return extra.as_ref();
        }
        let mut all = self.pipes.iter();
        all.find(|(number, _)| *number == target).map(|(_, end)| end)
    }
}

impl Pipes {
    pub(crate) const fn none() -> Pipes {
        Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
            extra: None,
            others: Others {
                extra: None,
                pipes: Vec::new(),
            },
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        let Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
            extra: None,
            others: Others { extra: None, pipes },
        } = self
        else {
            return false;
        };
        pipes.is_empty()
    }

    /// Takes the host's end of the pipe that is descriptor `target` of the child: 0 to 2 for the standard streams.
    /// `None` if that is no pipe, or was taken before.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// use std::io::Read;
    ///
    /// let command = Command::new("sh").args(["-c", "echo out; echo five >&5"]);
    /// let child = command.stdout(Stdio::piped()).fd(5, Stdio::piped()).spawn()?;
    /// let (pidfd, mut pipes) = child.into_parts();
    /// for (number, line) in [(1, "out\n"), (5, "five\n")] {
    ///     let mut text = String::new();
    ///     std::fs::File::from(pipes.take(number).ok_or("no pipe")?).read_to_string(&mut text)?;
    ///     assert_eq!(text, line);
    /// }
    /// # while pidfd.reap()?.is_none() {}
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take(&mut self, target: RawFd) -> Option<OwnedFd> {
        match target {
            0 => self.stdin.take(),
            1 => self.stdout.take(),
            2 => self.stderr.take(),
            _ => self.others.take(target, &mut self.extra),
        }
    }

    /// The numbers of the pipes in the child that were not taken, in ascending order.
    #[must_use]
    pub fn targets(&self) -> Vec<RawFd> {
        let streams = [&self.stdin, &self.stdout, &self.stderr];
        let streams = (0..)
            .zip(streams)
            .filter_map(|(number, end)| end.as_ref().map(|_| number));
        let extra = self.others.extra.filter(|_| self.extra.is_some());
        let others = self.others.pipes.iter().map(|(number, _)| *number);
        let mut targets: Vec<RawFd> = streams.chain(extra).chain(others).collect();
        targets.sort_unstable();
        targets
    }

    pub(crate) fn set_extra(&mut self, target: RawFd, end: OwnedFd) {
        self.others.extra = Some(target);
        self.extra = Some(end);
    }

    pub(crate) fn add(&mut self, target: RawFd, end: OwnedFd) {
        self.others.pipes.push((target, end));
    }

    /// The number of [`Pipes::extra`] in the child.
    pub(crate) fn extra_target(&self) -> Option<RawFd> {
        self.others.extra
    }

    /// The pipes beside the standard streams and [`Pipes::extra`], with their numbers in the child.
    pub(crate) fn others(&self) -> &[(RawFd, OwnedFd)] {
        &self.others.pipes
    }
}

impl Child {
    pub(crate) fn new(pidfd: PidFd, pipes: Pipes) -> Child {
        let Pipes {
            stdin,
            stdout,
            stderr,
            extra,
            others,
        } = pipes;
        Child {
            stdin,
            stdout,
            stderr,
            extra,
            others,
            process: Guarded::new(Process {
                owner: Owner::this_process(),
                pidfd,
                record: None,
            }),
        }
    }

    /// The PID of the child, for display.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pidfd.pid()
    }

    /// The pidfd of the child. It becomes readable when the child has ended.
    #[must_use]
    pub fn pidfd(&self) -> &PidFd {
        &self.process.pidfd
    }

    /// Takes the host's end of the pipe that is descriptor `target` of the child: 0 to 2 for the standard streams, or a
    /// number of [`Command::fd`](crate::Command::fd). `None` if that is no pipe, or was taken before.
    ///
    /// ```
    /// use pidherd::{Command, Stdio};
    /// use std::fs::File;
    /// use std::io::Read;
    ///
    /// let command = Command::new("sh").args(["-c", "echo three >&3; echo four >&4"]);
    /// let mut child = command.fd(3, Stdio::piped()).fd(4, Stdio::piped()).spawn()?;
    /// for (number, word) in [(4, "four\n"), (3, "three\n")] {
    ///     let mut text = String::new();
    ///     File::from(child.take_pipe(number).ok_or("no pipe")?).read_to_string(&mut text)?;
    ///     assert_eq!(text, word);
    /// }
    /// assert!(child.take_pipe(3).is_none());
    /// # child.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_pipe(&mut self, target: RawFd) -> Option<OwnedFd> {
        match target {
            0 => self.stdin.take(),
            1 => self.stdout.take(),
            2 => self.stderr.take(),
            _ => self.others.take(target, &mut self.extra),
        }
    }

    /// The host's end of the same pipe, which stays in the child.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let mut child = Command::new("sh").args(["-c", "echo done >&3"]).fd(3, Stdio::piped()).spawn()?;
    /// let pipe = child.pipe(3).ok_or("no pipe")?;
    /// poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None)?;
    /// // There is something to read, and the pipe is still the child's.
    /// assert!(child.take_pipe(3).is_some());
    /// # child.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn pipe(&self, target: RawFd) -> Option<BorrowedFd<'_>> {
        let end = match target {
            0 => self.stdin.as_ref(),
            1 => self.stdout.as_ref(),
            2 => self.stderr.as_ref(),
            _ => self.others.get(target, &self.extra),
        };
        end.map(AsFd::as_fd)
    }

    /// Takes the pidfd out, and closes the pipes. The child continues, and the caller must reap it.
    #[must_use]
    pub fn into_pidfd(self) -> PidFd {
        self.process.into_inner().pidfd
    }

    /// Takes the pidfd and the pipes out. The child continues, and the caller must reap it.
    #[must_use]
    pub fn into_parts(self) -> (PidFd, Pipes) {
        let Child {
            stdin,
            stdout,
            stderr,
            extra,
            others,
            process,
        } = self;
        (
            process.into_inner().pidfd,
            Pipes {
                stdin,
                stdout,
                stderr,
                extra,
                others,
            },
        )
    }

    /// Lets the child continue without supervision. When it ends, it stays a zombie until this process ends or waits
    /// for any child.
    ///
    /// ```
    /// # use pidherd::{Command, PidFd, Signal};
    /// let child = Command::new("sleep").arg("1000").spawn()?;
    /// let number = child.pid().as_raw();
    /// child.detach();
    /// // It lives on. This process still is its parent, and can find it again by its number.
    /// let found = PidFd::open(number)?;
    /// assert_eq!(found.peek()?, None);
    /// # found.signal(Signal::KILL)?;
    /// # while found.reap()?.is_none() {
    /// #     rustix::event::poll(&mut [rustix::event::PollFd::new(&found, rustix::event::PollFlags::IN)], None)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(self) {
        drop(self.into_pidfd());
    }

    /// Does the same as dropping it, with another limit for the wait, so that the drop of several children takes no
    /// longer than that of one. Returns the pidfd, for a child that does not end in time.
    pub(crate) fn end_until(self, until: Instant) -> PidFd {
        let process = self.process.into_inner();
        process.end_until(until);
        process.pidfd
    }

    /// Whether the calling process started the child, and is not a copy of the process that did.
    pub(crate) fn is_here(&self) -> bool {
        self.process.owner.is_here()
    }

    /// Reaps the child if it has ended; `None` while it is alive. Later calls return the same record. Does not block.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// assert!(child.try_wait()?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Closes [`Child::stdin`], waits for the end of the child and reaps it. Blocks as long as the child is alive.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let mut child = Command::new("false").spawn()?;
    /// assert_eq!(child.wait()?.exit.code(), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Waits for the end of the child for at most this time, and reaps it. `None` if the child is still alive, or has
    /// ended and a tracer (ptrace(2)) holds it. Blocks. Signal handlers that run meanwhile do not change the time.
    /// [`Child::stdin`] stays open.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use std::time::Duration;
    ///
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// assert!(child.wait_timeout(Duration::from_millis(1))?.is_none());
    /// child.kill()?;
    /// assert!(child.wait_timeout(Duration::from_secs(10))?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`PidFd::reap`], and those of poll(2).
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitRecord>> {
        self.process.owner.check()?;
        if self.process.record.is_none() {
            let now = Instant::now();
            let until = now.checked_add(limit).unwrap_or(now + VERY_LONG);
            self.process.record = self.process.pidfd.reap_until(until)?;
        }
        Ok(self.process.record)
    }

    /// Stops the child and reaps it: sends `signal`, waits for `patience`, sends SIGKILL if the child has not ended by
    /// then, and waits again. SIGCONT goes with the signal, so that a stopped process acts on it. Only the process
    /// itself gets the signals. Blocks for at most `patience` and 10 seconds. A child that has ended before gets no
    /// signal. [`Child::stdin`] stays open.
    ///
    /// With [`Signal::KILL`], or a patience of zero, SIGKILL follows at once.
    ///
    /// ```
    /// use pidherd::{Command, Signal};
    /// use std::time::Duration;
    ///
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// let stopped = child.stop(Signal::TERM, Duration::from_secs(5))?;
    /// assert_eq!((stopped.record.exit.signal(), stopped.forced), (Some(Signal::TERM), false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `TimedOut` with a [`StillAlive`] inside if the child has not ended 10 seconds after SIGKILL: it hangs in the
    /// kernel, or a tracer (ptrace(2)) holds it. It can be waited for later. `EPERM` if the child has become another
    /// user, and this process may not signal it. Otherwise as [`PidFd::reap`].
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> io::Result<Stopped> {
        let ended = |record| Stopped { record, forced: false };
        if let Some(record) = self.try_wait()? {
            return Ok(ended(record));
        }
        if signal != Signal::KILL {
            for signal in signal.with_continue() {
                self.send(signal)?;
            }
            if let Some(record) = self.wait_timeout(patience)? {
                return Ok(ended(record));
            }
        }
        self.kill()?;
        match self.wait_timeout(KILL_WAIT)? {
            Some(record) => Ok(Stopped { record, forced: true }),
            None => Err(StillAlive::error(self.pid())),
        }
    }

    /// Closes the host's ends of all pipes.
    pub(crate) fn close_pipes(&mut self) {
        (self.stdin, self.stdout, self.stderr, self.extra) = (None, None, None, None);
        self.others = Others::default();
    }

    /// Sends SIGKILL, unless the child was already reaped. The caller must still wait for the child (or drop it).
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// child.kill()?;
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::KILL));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `EPERM` if the child has become another user, and this process may not signal it.
    pub fn kill(&mut self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    /// Sends a signal, unless the child was already reaped.
    fn send(&self, signal: Signal) -> io::Result<()> {
        self.process.owner.check()?;
        match self.process.pidfd.signal(signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}

impl Process {
    /// Sends SIGKILL, waits until this time, and reaps. If the signal may not be sent, or the process hangs in the
    /// kernel, the process remains: errors have no remedy here.
    fn end_until(&self, until: Instant) {
        if !self.owner.is_here() || self.record.is_some() {
            return;
        }
        // Without the permission, it may have ended nevertheless. A process that has not ended by then remains.
        let sent = self.pidfd.signal(Signal::KILL);
        self.pidfd.end_until(sent.map_or_else(|_| Instant::now(), |()| until));
    }
}

impl Abandon for Process {
    fn abandon(self) {
        self.end_until(Instant::now() + DROP_WAIT);
        if self.record.is_none() {
            lost::keep_unreaped(self.pidfd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::command::Lifetime;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{SOON, isolated, skipped, wait_readable, wait_until};

    #[test]
    fn a_refused_signal_is_an_error_and_a_reaped_child_needs_none() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let refused = refusing(libc::SYS_pidfd_send_signal, libc::EPERM, || {
            refusing(libc::SYS_kill, libc::EPERM, || child.kill())
        });
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        child.kill().unwrap();
    }

    /// Where the signal is refused for good, for example for a child that has become another user.
    #[test]
    fn a_child_that_cannot_be_killed_on_drop_is_reaped_after_its_end() {
        isolated(|| {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            let pidfd = child.pidfd().try_clone().unwrap();
            refusing(libc::SYS_pidfd_send_signal, libc::EPERM, || {
                refusing(libc::SYS_kill, libc::EPERM, || drop(child));
            });
            assert!(pidfd.is_alive());
            pidfd.signal(Signal::KILL).unwrap();
            wait_until("a later spawn reaps it", SOON, || {
                Command::new("true").spawn().unwrap().wait().unwrap();
                !pidfd.is_unreaped()
            });
        });
    }

    #[test]
    fn a_bound_child_that_cannot_be_killed_on_drop_ends_with_its_pidfd() {
        isolated(|| {
            let command = Command::new("sleep").arg("1000").lifetime(Lifetime::Bound);
            let child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return skipped(&format!("no child can be bound: {error}")),
            };
            assert!(child.pidfd().is_bound());
            assert!(!PidFd::open(child.pid().as_raw()).unwrap().is_bound());
            let other = PidFd::open(child.pid().as_raw()).unwrap();
            refusing(libc::SYS_pidfd_send_signal, libc::EPERM, || {
                refusing(libc::SYS_kill, libc::EPERM, || drop(child));
            });
            assert!(wait_readable(&other, SOON));
        });
    }

    #[test]
    fn pipes_are_empty_only_without_any_end_and_any_number() {
        let end = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut any = [const { Pipes::none() }; 6];
        assert!(any.iter().all(Pipes::is_empty));
        any[0].stdin = Some(end());
        any[1].stdout = Some(end());
        any[2].stderr = Some(end());
        any[3].extra = Some(end());
        any[4].add(7, end());
        // The host has taken the end, and its number is still known.
        any[5].set_extra(8, end());
        any[5].extra = None;
        assert!(!any.iter().any(Pipes::is_empty));
        assert_eq!((any[5].extra_target(), any[4].extra_target()), (Some(8), None));
        let others: Vec<_> = any[4].others().iter().map(|(number, _)| *number).collect();
        assert_eq!(others, [7]);
    }
}
