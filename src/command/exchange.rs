//! A whole run of a command in one call: feed its input, collect its output, and stop it if it takes too long.
//!
//! One loop around poll(2) serves all pipes and the pidfd, so no size of input or output can block it for ever. Threads
//! were rejected: a library that starts threads decides about signals and memory of its host. So were reads in turns,
//! stream by stream: a program that fills the other stream would wait for ever.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::builder::Command;
use super::stdio::Stdio;
use crate::child::{Child, KILL_WAIT, StillAlive};
use crate::exit::ExitRecord;
use crate::poll::{wait_for, wait_for_any};
use crate::signal::{Signal, SignalSet};
use crate::signalfd::MaskGuard;
use crate::sys::process::signal_group_by_number;
use crate::sys::signalfd::{discard_pending, is_pending};

/// The size of one read, in bytes: what a pipe usually holds.
const PORTION: usize = 65_536;

/// The pause before the next look at a process that has ended and is held by a tracer (ptrace(2)).
const HELD_PAUSE: Duration = Duration::from_millis(10);

/// How many portions are read of what an ended process has left in a pipe. This is more than a pipe of an unprivileged
/// process can hold (`/proc/sys/fs/pipe-max-size`). Without a limit, another process that has the pipe could write for
/// ever.
const LEFT_PORTIONS: usize = 17;

/// One run of a [`Command`] from its start to its end, with its input and its output. [`Command::exchange`] makes it.
///
/// - *Input*: the bytes of [`input`](Exchange::input). Without any, the standard input is that of the command, and
///   `/dev/null` if the command sets none. A program that does not read all of its input is no error.
/// - *Output*: the standard streams that the command pipes or does not set. A stream that the command sets to something
///   else goes there, and is empty in the result. Other pipes of the command are closed at once.
/// - *Limits*: of time and of bytes. There is none by default.
///
/// ```
/// use pidherd::{Command, Signal};
/// use std::time::Duration;
///
/// let output = Command::new("tr").args(["a-z", "A-Z"]).exchange().input("quiet").run()?;
/// assert_eq!((output.stdout.as_slice(), output.success()), (&b"QUIET"[..], true));
///
/// let output = Command::new("sleep")
///     .arg("1000")
///     .exchange()
///     .time_limit(Duration::from_millis(10))
///     .stop(Signal::TERM, Duration::from_secs(5))
///     .run()?;
/// assert!(output.timed_out && !output.forced);
/// assert_eq!(output.record.exit.signal(), Some(Signal::TERM));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "the command is started by `run`"]
pub struct Exchange<'a> {
    command: &'a Command,
    input: Option<Vec<u8>>,
    time_limit: Option<Duration>,
    output_limit: usize,
    stop_when_full: bool,
    linger: Option<Duration>,
    signal: Signal,
    patience: Duration,
}

/// The result of an [`Exchange`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// The exit status, and the resources that the process used.
    pub record: ExitRecord,
    /// The bytes of the standard output, as far as they were collected.
    pub stdout: Vec<u8>,
    /// The bytes of the standard error, as far as they were collected.
    pub stderr: Vec<u8>,
    /// Whether bytes of the standard output beyond the limit were dropped.
    pub stdout_truncated: bool,
    /// Whether bytes of the standard error beyond the limit were dropped.
    pub stderr_truncated: bool,
    /// Whether the process was stopped because the time limit had passed.
    pub timed_out: bool,
    /// Whether SIGKILL was sent because the process did not end in time after the first signal.
    pub forced: bool,
    /// Whether a stream was not read to its end, because another process still had it open.
    pub left_open: bool,
    /// The number of bytes of the input that were written to the pipe. The process may have read fewer.
    pub input_written: usize,
}

impl Output {
    /// Whether the process exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.record.exit.success()
    }

    /// Whether bytes of either stream beyond the limit were dropped.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.stdout_truncated || self.stderr_truncated
    }
}

impl TryFrom<Output> for std::process::Output {
    type Error = crate::exit::UnknownExit;

    fn try_from(output: Output) -> Result<std::process::Output, crate::exit::UnknownExit> {
        Ok(std::process::Output {
            status: output.record.exit.try_into()?,
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

impl Command {
    /// A run of the command from its start to its end, with its input, its output, and limits.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let sort = Command::new("sort");
    /// let output = sort.exchange().input("b\na\n").run()?;
    /// assert_eq!(output.stdout, b"a\nb\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exchange(&self) -> Exchange<'_> {
        Exchange {
            command: self,
            input: None,
            time_limit: None,
            output_limit: usize::MAX,
            stop_when_full: false,
            linger: None,
            signal: Signal::TERM,
            patience: Duration::from_secs(5),
        }
    }

    /// Starts the command, collects its standard streams, and waits for its end; an [`Exchange`] without limits. Blocks
    /// until the process has ended and no process has its streams open.
    ///
    /// ```
    /// use pidherd::Command;
    ///
    /// let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output()?;
    /// assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    /// assert_eq!(output.record.exit.code(), Some(3));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Exchange::run`].
    pub fn output(&self) -> io::Result<Output> {
        self.exchange().run()
    }

    /// Starts the command and waits for its end. Blocks as long as the process is alive. The host's ends of its pipes,
    /// if it has any, are closed at once.
    ///
    /// ```
    /// use pidherd::Command;
    ///
    /// assert!(Command::new("true").status()?.exit.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// With a [`SpawnError`](crate::SpawnError) inside if the command cannot be started; otherwise as
    /// [`PidFd::reap`](crate::PidFd::reap).
    pub fn status(&self) -> io::Result<ExitRecord> {
        let mut child = self.spawn()?;
        child.close_pipes();
        child.wait()
    }
}

impl Exchange<'_> {
    /// Sets the bytes for the standard input. The pipe is closed after them, so the process reads the end of the file.
    /// They replace the standard input that the command sets.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let output = Command::new("head").args(["-c", "2"]).exchange().input("longer").run()?;
    /// assert_eq!(output.stdout, b"lo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Sets how long the process may run, from the moment at which its program was executed. Then it is stopped. If it
    /// has ended by itself and another process has a stream open, the stream is not read any longer than this.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use std::time::Duration;
    ///
    /// let output = Command::new("sleep").arg("1000").exchange().time_limit(Duration::from_millis(1)).run()?;
    /// assert!(output.timed_out);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets how many bytes of each stream are collected. What follows is read and dropped, so that the process is not
    /// blocked; see also [`stop_when_full`](Exchange::stop_when_full).
    ///
    /// ```
    /// # use pidherd::Command;
    /// let output = Command::new("printf").arg("0123456789").exchange().output_limit(4).run()?;
    /// assert_eq!((output.stdout.as_slice(), output.stdout_truncated), (&b"0123"[..], true));
    /// assert!(output.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Whether the process is stopped when it writes more than the limit to a stream. The default is false. A program
    /// that writes without end then needs a time limit.
    ///
    /// ```
    /// # use pidherd::Command;
    /// // It would write for ever.
    /// let output = Command::new("yes").exchange().output_limit(4).stop_when_full(true).run()?;
    /// assert_eq!(output.stdout, b"y\ny\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_when_full(mut self, yes: bool) -> Self {
        self.stop_when_full = yes;
        self
    }

    /// Sets how long the streams are read after the process has ended, if another process still has them open: a daemon
    /// that it has started, for example. The default is until they are closed, or until the time limit.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use std::time::Duration;
    ///
    /// // The shell ends, and what it has started keeps its output open.
    /// let start = Command::new("sh").args(["-c", "echo started; sleep 1000 & echo $! >&2"]);
    /// let output = start.exchange().linger(Duration::ZERO).run()?;
    /// assert!(output.left_open && output.stdout == b"started\n");
    /// # let daemon: i32 = String::from_utf8(output.stderr)?.trim().parse()?;
    /// # let daemon = rustix::process::Pid::from_raw(daemon).ok_or("no number")?;
    /// # rustix::process::kill_process(daemon, rustix::process::Signal::KILL)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = Some(time);
        self
    }

    /// Sets how a process is stopped: by this signal, and by SIGKILL if it has not ended after this time. The default is
    /// SIGTERM and 5 seconds. The signals go to the process group if the command makes the process its leader
    /// ([`Command::leads_process_group`]), and to the process alone otherwise.
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// use std::time::Duration;
    ///
    /// let output = Command::new("sleep")
    ///     .arg("1000")
    ///     .exchange()
    ///     .time_limit(Duration::from_millis(1))
    ///     .stop(Signal::INT, Duration::from_secs(10))
    ///     .run()?;
    /// assert_eq!((output.record.exit.signal(), output.forced), (Some(Signal::INT), false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop(mut self, signal: Signal, patience: Duration) -> Self {
        self.signal = signal;
        self.patience = patience;
        self
    }

    /// Starts the command and blocks until the process has ended and its streams are closed, or a limit is reached.
    ///
    /// An execve on a dead file system can block longer than the limit, as in [`Command::spawn`].
    ///
    /// # Errors
    /// With a [`SpawnError`](crate::SpawnError) inside if the command cannot be started. `TimedOut` with a
    /// [`StillAlive`] inside if the process has not ended 10 seconds after SIGKILL, because it hangs in the kernel.
    /// `EPERM` if the process has become another user, and this process may not signal it. Otherwise those of poll(2),
    /// read(2) and write(2). The process is then ended as by dropping a [`Child`].
    pub fn run(self) -> io::Result<Output> {
        let mut talk = self.begin()?;
        let record = talk.run()?;
        Ok(talk.into_output(record))
    }

    fn begin(&self) -> io::Result<Talk<'_>> {
        let mut command = self.command.clone();
        let [stdin, stdout, stderr] = &mut command.stdio;
        if self.input.is_some() {
            *stdin = Stdio::piped();
        }
        stdin.or(Stdio::null);
        stdout.or(Stdio::piped);
        stderr.or(Stdio::piped);
        let mut child = command.spawn()?;
        let bytes = self.input.as_deref().unwrap_or_default();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        child.close_pipes();
        Ok(Talk {
            leads_group: command.leads_process_group(),
            began: Instant::now(),
            ended: None,
            phase: Phase::Running,
            timed_out: false,
            input: Input::new(pipes.0, bytes)?,
            outputs: [
                Stream::new(pipes.1, self.output_limit)?,
                Stream::new(pipes.2, self.output_limit)?,
            ],
            exchange: self,
            child,
        })
    }
}

/// How far a run has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The process got the first signal, and has until then to end.
    Asked(Instant),
    /// The process got SIGKILL.
    Killed(Instant),
}

/// A run in progress.
struct Talk<'a> {
    exchange: &'a Exchange<'a>,
    child: Child,
    leads_group: bool,
    began: Instant,
    /// The record of the process, and the time at which it was found ended.
    ended: Option<(ExitRecord, Instant)>,
    phase: Phase,
    timed_out: bool,
    input: Input<'a>,
    outputs: [Stream; 2],
}

impl Talk<'_> {
    fn run(&mut self) -> io::Result<ExitRecord> {
        loop {
            let is_read = self.outputs.iter().all(|stream| stream.fd.is_none());
            match self.ended {
                Some((record, _)) if is_read => return Ok(record),
                // It was stopped: only what is in the pipes belongs to it.
                Some((record, _)) if self.phase != Phase::Running => {
                    self.read_what_is_left()?;
                    return Ok(record);
                }
                Some(_) | None => {}
            }
            let until = self.until();
            let is_served = self.wait(until)?;
            // A stream that is filled faster than it is read is always readable, and must not hide that the time is over.
            let is_over = until.is_some_and(|until| until.saturating_duration_since(Instant::now()).is_zero());
            if is_served && !is_over {
                self.overflow()?;
            } else if let Some((record, _)) = self.ended {
                self.read_what_is_left()?;
                return Ok(record);
            } else {
                self.next_phase()?;
            }
        }
    }

    /// The time of the next change of the phase, or of the end of the reading.
    fn until(&self) -> Option<Instant> {
        let after = |begin: Instant, time: Option<Duration>| time.and_then(|time| begin.checked_add(time));
        match (self.phase, self.ended) {
            (Phase::Asked(until) | Phase::Killed(until), _) => Some(until),
            (Phase::Running, None) => after(self.began, self.exchange.time_limit),
            (Phase::Running, Some((_, ended))) => {
                let limit = after(self.began, self.exchange.time_limit);
                let linger = after(ended, self.exchange.linger);
                limit.into_iter().chain(linger).min()
            }
        }
    }

    /// Waits for any of the descriptors and serves those that are ready. Returns whether any was.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<bool> {
        let [stdout, stderr] = &self.outputs;
        let (input, pidfd) = (self.input.fd.as_ref(), self.child.pidfd());
        let watched = [
            input.map(|fd| PollFd::new(fd, PollFlags::OUT)),
            stdout.fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
            stderr.fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.ended.is_none().then(|| PollFd::new(pidfd, PollFlags::IN)),
        ];
        let [input, stdout, stderr, process] = match wait_for_any(watched, until)? {
            Some(ready) => ready,
            None => return Ok(false),
        };
        if input {
            self.input.write()?;
        }
        let [first, second] = &mut self.outputs;
        if stdout {
            first.read()?;
        }
        if stderr {
            second.read()?;
        }
        if process {
            self.end()?;
        }
        Ok(true)
    }

    /// Reaps the process. What is left of the group of a process that was stopped gets SIGKILL before.
    fn end(&mut self) -> io::Result<()> {
        if self.phase != Phase::Running && self.leads_group {
            // The group may be empty.
            let _rest = self.send(Signal::KILL);
        }
        self.ended = self.child.try_wait()?.map(|record| (record, Instant::now()));
        if self.ended.is_none() {
            // A tracer holds the process. Its pidfd stays readable, so a pause replaces the poll.
            wait_for(
                self.child.pidfd(),
                PollFlags::empty(),
                Some(Instant::now() + HELD_PAUSE),
            )?;
        }
        Ok(())
    }

    /// Stops the process if it has written too much.
    fn overflow(&mut self) -> io::Result<()> {
        let is_full = self.outputs.iter().any(|stream| stream.truncated);
        if is_full && self.exchange.stop_when_full && self.phase == Phase::Running && self.ended.is_none() {
            self.ask()?;
        }
        Ok(())
    }

    fn next_phase(&mut self) -> io::Result<()> {
        match self.phase {
            Phase::Running => {
                self.timed_out = true;
                self.ask()
            }
            Phase::Asked(_) => self.kill(),
            Phase::Killed(_) => Err(StillAlive::error(self.child.pid())),
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        if self.exchange.signal == Signal::KILL {
            return self.kill();
        }
        for signal in self.exchange.signal.with_continue() {
            self.send(signal)?;
        }
        let now = Instant::now();
        let until = now.checked_add(self.exchange.patience);
        self.phase = Phase::Asked(until.unwrap_or(now + crate::child::VERY_LONG));
        Ok(())
    }

    fn kill(&mut self) -> io::Result<()> {
        self.send(Signal::KILL)?;
        self.phase = Phase::Killed(Instant::now() + KILL_WAIT);
        Ok(())
    }

    /// Sends a signal to the process, or to its group. The process is not reaped.
    fn send(&self, signal: Signal) -> io::Result<()> {
        let pidfd = self.child.pidfd();
        if self.leads_group {
            let sent = match pidfd.signal_group(Some(signal)) {
                // Before Linux 6.9, and behind a filter. The number belongs to the process until it is reaped.
                Err(error) if is_refusal(&error) && pidfd.is_unreaped() => {
                    signal_group_by_number(pidfd.pid(), signal.as_raw())
                }
                sent => sent,
            };
            if sent.is_ok() {
                return Ok(());
            }
        }
        match pidfd.signal(signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent,
        }
    }

    fn read_what_is_left(&mut self) -> io::Result<()> {
        for stream in &mut self.outputs {
            for _ in 0..LEFT_PORTIONS {
                if !stream.read()? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn into_output(self, record: ExitRecord) -> Output {
        let [stdout, stderr] = self.outputs;
        Output {
            record,
            left_open: stdout.fd.is_some() || stderr.fd.is_some(),
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            timed_out: self.timed_out,
            forced: matches!(self.phase, Phase::Killed(_)),
            input_written: self.input.written,
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

/// The input, and the pipe to the process.
struct Input<'a> {
    fd: Option<OwnedFd>,
    bytes: &'a [u8],
    written: usize,
}

impl<'a> Input<'a> {
    fn new(fd: Option<OwnedFd>, bytes: &'a [u8]) -> io::Result<Input<'a>> {
        let fd = fd.filter(|_| !bytes.is_empty());
        fd.as_ref().map_or(Ok(()), set_nonblocking)?;
        Ok(Input { fd, bytes, written: 0 })
    }

    /// Writes as much as the pipe takes at once, and closes the pipe after the last byte, or if the process has closed
    /// it.
    fn write(&mut self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let rest = self.bytes.get(self.written..).unwrap_or_default();
        match write_without_signal(fd, rest) {
            Ok(count) => {
                self.written += count;
                if self.written >= self.bytes.len() {
                    self.fd = None;
                }
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(Errno::PIPE) => {
                self.fd = None;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// write(2) that raises no SIGPIPE, also in a host that does not ignore it.
fn write_without_signal(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    let guard = MaskGuard::block(SignalSet::EMPTY.with(Signal::PIPE));
    // One that is pending already belongs to the host.
    let is_hosts = is_pending(Signal::PIPE);
    let written = retry_on_intr(|| write(fd, bytes));
    if written == Err(Errno::PIPE) && guard.is_ok() && !is_hosts {
        discard_pending(Signal::PIPE);
    }
    written
}

/// One stream of the process.
struct Stream {
    /// `None` at the end of the stream.
    fd: Option<OwnedFd>,
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Stream {
    fn new(fd: Option<OwnedFd>, limit: usize) -> io::Result<Stream> {
        fd.as_ref().map_or(Ok(()), set_nonblocking)?;
        Ok(Stream {
            fd,
            bytes: Vec::new(),
            limit,
            truncated: false,
        })
    }

    /// Reads one portion. Returns whether there was any.
    fn read(&mut self) -> io::Result<bool> {
        let Some(fd) = &self.fd else { return Ok(false) };
        let mut portion = [0; PORTION];
        let length = match retry_on_intr(|| read(fd, &mut portion)) {
            Ok(0) => {
                self.fd = None;
                return Ok(false);
            }
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let fits = length.min(self.limit.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(portion.get(..fits).unwrap_or_default());
        self.truncated |= fits < length;
        Ok(true)
    }
}

/// Only this end of the pipe: the other one is another open file description.
fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd.as_fd(), fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests;
