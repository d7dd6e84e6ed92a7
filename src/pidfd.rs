//! A child of this process, identified by a descriptor instead of a number.
//!
//! A PID can be given to another process as soon as its process has been reaped. A pidfd always refers to the same
//! process. It becomes readable when the process ends, so any epoll can wait for it. The library signals and reaps its
//! processes through pidfds.
//!
//! [`PidFd::peek`] reads the exit status and [`PidFd::reap`] also reaps. They are separate because the zombie of a
//! leader keeps the number of its process group reserved, so a host can signal the group before it reaps the leader.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use crate::errno::Reason;
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::poll::{is_ready, wait_for};
use crate::procfs;
use crate::signal::Signal;
use crate::sys::descriptors::above_standard;
use crate::sys::mapping::ExitCell;
use crate::sys::process;
use crate::sys::wait::{self, Remembered, Wait};

/// The longest wait for a status that will soon be available, because another thread or the kernel is reaping the
/// process. This usually takes microseconds.
pub(crate) const STATUS_WAIT: Duration = Duration::from_millis(20);

/// The limit of [`PidFd::wait_and_reap`] for the status of a process that has ended and is not a child of this one. Its
/// parent may never reap it.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// The shortest and the longest pause between two attempts to get the status of a process that has ended.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(128));

/// A pidfd (pidfd_open(2)) together with the number that its process had when it started.
///
/// It is readable (`EPOLLIN`) after the process has ended, and stays readable. Dropping the pidfd neither ends nor
/// reaps the process; see [`Child`](crate::Child) for that.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    pub(crate) fn new(fd: OwnedFd, pid: Pid) -> PidFd {
        PidFd { fd, pid }
    }

    /// A pidfd of any process, by its number (pidfd_open(2), Linux 5.3). It need not be a child.
    ///
    /// From then on the pidfd refers to this process only. Before, the number may have been given to another process:
    /// check after this call, for example by the start time in `/proc`, that it is the process that you mean.
    ///
    /// The exit status of a process that is not a child is known when its own parent has reaped it (Linux 6.15), and is
    /// [`Exit::Unknown`] on older kernels.
    ///
    /// ```
    /// use pidherd::PidFd;
    ///
    /// let own = PidFd::open(std::process::id())?;
    /// assert_eq!(own.pid().as_raw(), std::process::id());
    /// assert_eq!(own.peek()?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ESRCH`: no process has that number, and 0 and numbers above `i32::MAX` belong to none. `EINVAL` or `ENOENT`:
    /// the number is that of a thread that is not the first of its process. `ENOSYS` or `EPERM`: the kernel or a filter
    /// has no such call. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open(number: u32) -> io::Result<PidFd> {
        let raw = i32::try_from(number).ok().and_then(RawPid::from_raw);
        let (Some(raw), Some(pid)) = (raw, Pid::new(number)) else {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        };
        let fd = above_standard(pidfd_open(raw, PidfdFlags::empty())?)?;
        Ok(PidFd::new(fd, pid))
    }

    /// The number of the process, for display. It is free for other processes after the process was reaped.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends `signal` to the process (pidfd_send_signal(2)). It cannot reach another process.
    ///
    /// Where that call is refused (`ENOSYS`, `EPERM`), for example by the filter of a container, the library uses
    /// kill(2). It does so only if the process is a child of this one that has not been reaped: then the number cannot
    /// belong to another process.
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// child.pidfd().signal(Signal::TERM)?;
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::TERM));
    /// // Its number may belong to another process now. The pidfd does not reach that one.
    /// assert!(child.pidfd().signal(Signal::TERM).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ESRCH` if the process was already reaped (a signal to a zombie succeeds and has no effect). `EPERM` if the
    /// process has become another user, and the caller may not signal it.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match process::send_signal(self.as_fd(), signal.as_raw(), false) {
            Err(error) if is_refusal(&error) && self.is_own_child() => {
                process::signal_by_number(self.pid, signal.as_raw())
            }
            sent => sent,
        }
    }

    /// Sends `signal` to the process group that this process leads, or with `None` checks whether the group has any
    /// process (Linux 6.9). It reaches the group even after the leader has been reaped.
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// let mut child = Command::new("sh").args(["-c", "sleep 1000 & wait"]).process_group(0).spawn()?;
    /// match child.pidfd().signal_group(Some(Signal::KILL)) {
    ///     Ok(()) => assert_eq!(child.wait()?.exit.signal(), Some(Signal::KILL)),
    ///     // Before Linux 6.9.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # let group = rustix::process::Pid::from_raw(child.pid().as_raw() as i32).ok_or("no number")?;
    /// # rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ESRCH` if the group is empty, or the process led no group; `EPERM` if the caller may not signal any member;
    /// `EINVAL` on kernels before 6.9.
    pub fn signal_group(&self, signal: Option<Signal>) -> io::Result<()> {
        process::send_signal(self.as_fd(), signal.map_or(0, Signal::as_raw), true)
    }

    /// Whether the process is alive or a zombie, so that no other process has its number.
    pub(crate) fn is_unreaped(&self) -> bool {
        match process::send_signal(self.as_fd(), 0, false) {
            Ok(()) => true,
            // Only ESRCH says anything about the process, and one that was reaped is no child: a filter refuses the call,
            // for example.
            Err(_) => self.is_own_child(),
        }
    }

    /// Whether the process has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        !is_ready(self, PollFlags::IN).unwrap_or(false)
    }

    /// Whether the kernel kills the process when the last copy of this pidfd is closed (CLONE_PIDFD_AUTOKILL, Linux
    /// 7.1), and reaps it.
    pub(crate) fn is_bound(&self) -> bool {
        // The kernel keeps the property in the flag with the value of O_TRUNC.
        fcntl_getfl(self).is_ok_and(|flags| flags.contains(OFlags::TRUNC))
    }

    /// Whether the process is a child of this process that has not been reaped.
    fn is_own_child(&self) -> bool {
        wait::wait(self.as_fd(), Wait::Peek).is_ok()
    }

    /// The exit status of the process; `None` while it is alive. The process stays a zombie, and the call can be
    /// repeated.
    ///
    /// After the process was reaped, here or elsewhere, the status comes from the kernel's record (Linux 6.15), or is
    /// [`Exit::Unknown`]. Does not block, except for up to 20 ms if the process has ended and its status will soon be
    /// available.
    ///
    /// The result can be `None` although the pidfd is readable: while a tracer (ptrace(2)) holds the ended process,
    /// and, if the process is not a child of this one, until its parent has reaped it. Then repeat the call later.
    ///
    /// ```
    /// # use pidherd::{Command, Exit};
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.pidfd().peek()?, None);
    /// child.kill()?;
    /// let record = child.wait()?;
    /// // It was reaped, and from Linux 6.15 on its end is known all the same.
    /// let later = child.pidfd().peek()?.ok_or("it has ended")?;
    /// assert!(later.exit == record.exit || later.exit == Exit::Unknown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None for a valid pidfd.
    pub fn peek(&self) -> io::Result<Option<ExitRecord>> {
        self.look_and_wait(Wait::Peek)
    }

    /// Returns the exit status and reaps the process, so that its number becomes free. `None` while it is alive.
    ///
    /// Reaping again is harmless: the exit then comes from the kernel's record (Linux 6.15) or is [`Exit::Unknown`],
    /// and the usage is zero. The rules of [`peek`](PidFd::peek) about blocking, and about `None` for a readable pidfd,
    /// apply.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let pidfd = Command::new("sh").args(["-c", "exit 3"]).spawn()?.into_pidfd();
    /// let record = loop {
    ///     poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
    ///     if let Some(record) = pidfd.reap()? {
    ///         break record;
    ///     }
    /// };
    /// assert_eq!(record.exit.code(), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None for a valid pidfd.
    pub fn reap(&self) -> io::Result<Option<ExitRecord>> {
        self.look_and_wait(Wait::Reap)
    }

    /// Makes another descriptor of the same process.
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// let copy = child.pidfd().try_clone()?;
    /// // A thread that stops the process, while this one waits for it.
    /// let stopper = std::thread::spawn(move || copy.signal(Signal::TERM));
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::TERM));
    /// # stopper.join().map_err(|_| "the thread panicked")??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `EMFILE`: the host has the maximum number of descriptors.
    pub fn try_clone(&self) -> io::Result<PidFd> {
        Ok(PidFd::new(self.fd.try_clone()?, self.pid))
    }

    /// Waits for the end of the process and reaps it. Blocks without a limit.
    pub(crate) fn wait_and_reap(&self) -> io::Result<ExitRecord> {
        if let Ok(Some((exit, usage))) = wait::wait(self.as_fd(), Wait::Block) {
            return Ok(self.record((exit, Some(usage))));
        }
        // ECHILD: it was reaped already, or it is the child of another process.
        wait_for(self, PollFlags::IN, None)?;
        let ended = self.reap_until(Instant::now() + STATUS_LIMIT)?;
        Ok(ended.unwrap_or_else(|| self.unknown()))
    }

    /// Waits for the end of the process, at most until `until`, and reaps it. Blocks.
    ///
    /// A readable pidfd can still lack its status. Then the status is requested again at growing intervals.
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

    /// Waits for the end of the process, at most until `until`, and reaps it if it is a child. Blocks.
    pub(crate) fn end_until(&self, until: Instant) {
        // After an error the process may have ended, so it is looked at.
        if matches!(wait_for(self, PollFlags::IN, Some(until)), Ok(false)) {
            return;
        }
        match self.look(Wait::Reap) {
            // A tracer holds it.
            Ok(Look::Held | Look::Alive) => drop(self.reap_until(until)),
            // It has ended, and the zombie of another parent is not waited for.
            Ok(Look::Ended(_) | Look::Unreaped) | Err(_) => {}
        }
    }

    /// Requests the status once, and waits briefly if it will soon be available.
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

    /// Waits until the process has been reaped or the time has passed. A pidfd reports the reaping as a hangup (Linux
    /// 6.9).
    fn pause_until(&self, until: Instant) -> io::Result<()> {
        wait_for(self, PollFlags::empty(), Some(until)).map(drop)
    }

    /// Requests the status once, without a wait.
    pub(crate) fn look(&self, how: Wait) -> io::Result<Look> {
        self.look_into(how, None)
    }

    /// The same. The kernel stores the status in the cell as well, if there is one.
    pub(crate) fn look_into(&self, how: Wait, cell: Option<&ExitCell>) -> io::Result<Look> {
        let waited = wait::wait_into(self.as_fd(), how, cell);
        if !matches!(waited, Ok(Some(_))) && !is_ready(self, PollFlags::IN)? {
            return Ok(Look::Alive);
        }
        // The process can end between the two calls.
        let waited = match waited {
            Ok(None) => wait::wait_into(self.as_fd(), how, cell),
            waited => waited,
        };
        match waited {
            Ok(Some((exit, usage))) => Ok(Look::Ended(self.record((exit, Some(usage))))),
            Ok(None) => Ok(Look::Held),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(self.remembered()),
            Err(error) => Err(error),
        }
    }

    /// The status of a process that has ended and is not, or no longer, a child of this process.
    fn remembered(&self) -> Look {
        let exit = match wait::remembered_exit(self.as_fd()) {
            Remembered::Exit(exit) => exit,
            Remembered::NotYet => return Look::Unreaped,
            Remembered::Nothing => Exit::Unknown,
        };
        Look::Ended(self.record((exit, None)))
    }

    /// The record for an ended process with an unknown status.
    pub(crate) fn unknown(&self) -> ExitRecord {
        self.record((Exit::Unknown, None))
    }

    fn record(&self, (exit, usage): (Exit, Option<Usage>)) -> ExitRecord {
        ExitRecord {
            pid: self.pid,
            exit,
            usage,
        }
    }
}

/// Whether the kernel or a filter refuses this operation to the calling process, independent of the target.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// The result of one request for the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The process has not ended.
    Alive,
    /// The process has ended and is a child of this process, and its status is not available yet: a tracer holds it.
    Held,
    /// The process has ended and is not, or no longer, a child of this process. Its status is not available before it
    /// has been reaped elsewhere. For a child that another thread or the kernel itself reaps, this takes microseconds.
    Unreaped,
    /// The process has ended with this status.
    Ended(ExitRecord),
}

impl PidFd {
    /// The number of the process that a pidfd refers to.
    ///
    /// # Errors
    /// As for the conversion of an [`OwnedFd`].
    pub(crate) fn number_of(fd: &OwnedFd) -> io::Result<Pid> {
        process_of(fd)
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

/// Takes over a pidfd that was made elsewhere: inherited, or received over a socket (SCM_RIGHTS). It becomes
/// close-on-exec. `/proc` must be mounted.
///
/// ```
/// use pidherd::{Command, PidFd};
/// use std::os::fd::OwnedFd;
///
/// let child = Command::new("true").spawn()?;
/// let raw = OwnedFd::from(child.into_pidfd());
/// let pidfd = PidFd::try_from(raw)?;
/// # while pidfd.reap()?.is_none() {}
/// assert!(PidFd::try_from(OwnedFd::from(std::fs::File::open("/dev/null")?)).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<OwnedFd> for PidFd {
    type Error = NotAPidFd;

    fn try_from(fd: OwnedFd) -> Result<PidFd, NotAPidFd> {
        match process_of(&fd).and_then(|pid| Ok(fcntl_setfd(&fd, FdFlags::CLOEXEC).map(|()| pid)?)) {
            Ok(pid) => Ok(PidFd::new(fd, pid)),
            Err(reason) => Err(NotAPidFd { fd, reason }),
        }
    }
}

/// The process that a pidfd refers to.
fn process_of(fd: &OwnedFd) -> io::Result<Pid> {
    let failed = |errno| Err(io::Error::from_raw_os_error(errno));
    if !procfs::self_::is_pidfd(fd)? {
        return failed(libc::EBADF);
    }
    // The flag PIDFD_THREAD of pidfd_open(2) has the value of O_EXCL.
    if fcntl_getfl(fd)?.contains(OFlags::EXCL) {
        return failed(libc::EINVAL);
    }
    match wait::number_of(fd.as_fd()) {
        Ok(number) => Pid::new(number).map_or_else(|| failed(libc::EREMOTE), Ok),
        // Before Linux 6.13. Since then, the process was reaped, or it has no number in this PID namespace.
        Err(_) => procfs::self_::process_of_pidfd(fd),
    }
}

/// A descriptor that is no pidfd of a process that can be watched.
#[derive(Debug, thiserror::Error)]
#[error("descriptor {} cannot be used as the pidfd of a process: {}", .fd.as_raw_fd(), Reason(.reason))]
pub struct NotAPidFd {
    fd: OwnedFd,
    reason: io::Error,
}

impl NotAPidFd {
    /// The reason: `EBADF` for a descriptor of another kind, `EINVAL` for a pidfd of a thread (PIDFD_THREAD), `ESRCH`
    /// for a process that has been reaped, `EREMOTE` for one that has no number in this PID namespace, or the errno
    /// with which `/proc/self/fd` could not be read.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.reason.raw_os_error().unwrap_or(libc::EIO)
    }

    /// The descriptor, unchanged.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.fd
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{SOON, kernel_since, processes, wait_until};

    /// A shell that has a child, and reaps it when its own input ends.
    fn parent() -> (Child, PidFd) {
        let mut parent = Command::new("/bin/sh")
            .args(["-c", "sleep 1000 >/dev/null & echo $!; read go; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = parent.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let pidfd = PidFd::open(line.trim().parse().unwrap()).unwrap();
        (parent, pidfd)
    }

    /// The same after the end of the child. The shell is stopped, because it may reap its children at any time.
    fn zombie() -> (Child, PidFd) {
        let (parent, pidfd) = parent();
        let number = parent.id();
        PidFd::open(number).unwrap().signal(Signal::STOP).unwrap();
        wait_until("the shell is stopped", SOON, || processes::state(number) == Some('T'));
        pidfd.signal(Signal::KILL).unwrap();
        wait_for(&pidfd, PollFlags::IN, None).unwrap();
        (parent, pidfd)
    }

    fn reap(mut parent: Child) {
        drop(parent.stdin.take());
        PidFd::open(parent.id()).unwrap().signal(Signal::CONT).unwrap();
        parent.wait().unwrap();
    }

    /// The wait would last for an hour.
    #[test]
    fn the_zombie_of_another_parent_is_not_waited_for() {
        let (parent, pidfd) = parent();
        pidfd.signal(Signal::KILL).unwrap();
        pidfd.end_until(Instant::now() + Duration::from_secs(3_600));
        assert!(!pidfd.is_alive());
        reap(parent);
    }

    #[test]
    fn a_signal_that_fails_for_another_reason_than_a_refusal_is_not_sent_by_number() {
        let mut child = crate::Command::new("sleep").arg("1000").spawn().unwrap();
        for (errno, is_sent) in [(libc::EINVAL, false), (libc::EPERM, true)] {
            let pidfd = child.pidfd();
            let sent = refusing(libc::SYS_pidfd_send_signal, errno, || pidfd.signal(Signal::KILL));
            assert_eq!(sent.map_err(|error| error.raw_os_error()).is_ok(), is_sent, "{errno}");
            if !is_sent {
                assert_eq!(child.try_wait().unwrap(), None);
            }
        }
        assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
    }

    #[test]
    fn a_status_that_cannot_be_asked_for_is_an_error_and_no_unknown_status() {
        let mut child = crate::Command::new("true").spawn().unwrap();
        assert!(wait_for(child.pidfd(), PollFlags::IN, None).unwrap());
        let looked = refusing(libc::SYS_waitid, libc::EPERM, || child.pidfd().look(Wait::Reap));
        assert_eq!(looked.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(child.wait().unwrap().exit.success());
    }

    #[test]
    fn the_status_of_an_ended_process_is_waited_for_until_its_parent_has_reaped_it() {
        let (parent, pidfd) = zombie();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let thread = std::fs::read_link("/proc/thread-self").unwrap();
                let number = thread.file_name().unwrap().to_str().unwrap();
                sender.send(number.parse::<u32>().unwrap()).unwrap();
                pidfd.wait_and_reap().unwrap()
            });
            let thread = receiver.recv().unwrap();
            wait_until("it waits or has returned", SOON, || {
                waiter.is_finished() || processes::state(thread) == Some('S')
            });
            // Before Linux 6.13, the kernel remembers nothing, so there is nothing to wait for.
            assert!(!waiter.is_finished() || !kernel_since(6, 13));
            reap(parent);
            let exit = waiter.join().unwrap().exit;
            let known = exit.signal() == Some(Signal::KILL);
            assert!(known || (exit == Exit::Unknown && !kernel_since(6, 15)), "{exit}");
        });
    }

    /// The lower limit of the time can be tested: a wait never returns early.
    #[test]
    fn a_status_that_may_soon_be_available_is_waited_for_briefly() {
        let (parent, pidfd) = zombie();
        let begin = Instant::now();
        let peeked = pidfd.peek().unwrap().map(|record| record.exit);
        if kernel_since(6, 13) {
            assert_eq!(peeked, None);
            assert!(begin.elapsed() >= STATUS_WAIT);
        } else {
            assert_eq!(peeked, Some(Exit::Unknown));
        }
        reap(parent);
    }

    #[test]
    fn only_a_child_is_signalled_by_its_number() {
        let (parent, theirs) = parent();
        let ours = PidFd::open(parent.id()).unwrap();
        for errno in [libc::EPERM, libc::ENOSYS] {
            refusing(libc::SYS_pidfd_send_signal, errno, || {
                let error = theirs.signal(Signal::KILL).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno));
                assert_eq!((theirs.is_unreaped(), ours.is_unreaped()), (false, true));
                ours.signal(Signal::CONT).unwrap();
            });
        }
        assert!(theirs.is_alive() && theirs.is_unreaped());
        theirs.signal(Signal::KILL).unwrap();
        reap(parent);
        assert_eq!((theirs.is_unreaped(), ours.is_unreaped()), (false, false));
        assert_eq!(ours.signal(Signal::CONT).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
