//! Readiness by a descriptor, as in s6.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::owner::Owner;
use crate::sys::descriptors::above_standard;

/// The largest number of bytes that one call reads.
const PORTION: usize = 4096;

/// The end of a pipe from which a child's readiness is read.
///
/// The child has the other end, at a number that the host has configured. It writes a newline when it is ready; it can
/// write other bytes before. Then it closes the descriptor. If the child ends without a newline, the read returns the
/// end of the file, unless another process has the write end open. So the parent must close its own copy.
/// ```
/// use std::fs::File;
/// use std::io::Write;
/// use pidherd::notify::{Readiness, ReadyFd};
///
/// # fn main() -> std::io::Result<()> {
/// let (mut ready, childs_end) = ReadyFd::pipe()?;
/// assert_eq!(ready.read()?, Readiness::Waiting);
///
/// let mut child = File::from(childs_end);
/// child.write_all(b"half a line")?;
/// assert_eq!(ready.read()?, Readiness::Waiting);
/// child.write_all(b"\n")?;
/// assert_eq!(ready.read()?, Readiness::Ready);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReadyFd {
    owner: Owner,
    fd: OwnedFd,
    state: Readiness,
}

/// The state of a child's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// The child has sent no newline yet.
    Waiting,
    /// The child wrote a newline.
    Ready,
    /// The child closed its end without a newline, or ended.
    Closed,
}

impl ReadyFd {
    /// Makes a pipe: the read end, and the write end for the child. Both are close-on-exec. Only the read end is
    /// non-blocking.
    ///
    /// ```
    /// # use pidherd::Command;
    /// # use pidherd::notify::{Readiness, ReadyFd};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let (mut ready, write_end) = ReadyFd::pipe()?;
    /// let command = Command::new("sh").args(["-c", "echo >&3; exec sleep 1000"]).fd(3, write_end);
    /// let _child = command.spawn()?;
    /// // It holds the host's copy of the write end.
    /// drop(command);
    /// poll(&mut [PollFd::new(&ready, PollFlags::IN)], None)?;
    /// assert_eq!(ready.read()?, Readiness::Ready);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// EMFILE, ENFILE: the process, or the system, has the maximum number of descriptors.
    pub fn pipe() -> io::Result<(ReadyFd, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok((ReadyFd::new(above_standard(reader)?)?, above_standard(writer)?))
    }

    /// Takes the read end of a pipe (or of a socket pair) that the host has made. It becomes non-blocking, together
    /// with all copies of it.
    ///
    /// ```
    /// # use pidherd::notify::{Readiness, ReadyFd};
    /// use std::io::{Write, pipe};
    ///
    /// let (reader, mut writer) = pipe()?;
    /// let mut ready = ReadyFd::new(reader.into())?;
    /// writer.write_all(b"\n")?;
    /// assert_eq!(ready.read()?, Readiness::Ready);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of fcntl(2). No caller can cause one.
    pub fn new(fd: OwnedFd) -> io::Result<ReadyFd> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(ReadyFd::inherited(fd))
    }

    /// Continues with the descriptor of the program before this one (execve(2)), which has made it non-blocking.
    pub(crate) fn inherited(fd: OwnedFd) -> ReadyFd {
        ReadyFd {
            owner: Owner::this_process(),
            fd,
            state: Readiness::Waiting,
        }
    }

    /// Reads at most 4 KiB, searches for a newline, and discards the rest. Never blocks.
    ///
    /// After [`Readiness::Ready`] or [`Readiness::Closed`] the result stays the same, and nothing more is read. Until
    /// then the descriptor stays readable as long as there are more bytes.
    ///
    /// ```
    /// # use pidherd::notify::{Readiness, ReadyFd};
    /// let (mut ready, write_end) = ReadyFd::pipe()?;
    /// assert_eq!(ready.read()?, Readiness::Waiting);
    /// // The child has ended.
    /// drop(write_end);
    /// assert_eq!(ready.read()?, Readiness::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made, because it would take the bytes from
    /// the original. Otherwise the errors of read(2); a child cannot cause one on a pipe.
    pub fn read(&mut self) -> io::Result<Readiness> {
        Ok(self.read_portion()?.unwrap_or(Readiness::Waiting))
    }

    /// Like `read`; `None` if the bytes had no meaning, and there can be more.
    pub(crate) fn read_portion(&mut self) -> io::Result<Option<Readiness>> {
        self.owner.check()?;
        if self.state == Readiness::Waiting {
            let mut portion = [0; PORTION];
            self.state = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut portion)) {
                Ok(0) => Readiness::Closed,
                Ok(length) if portion.iter().take(length).any(|&byte| byte == b'\n') => Readiness::Ready,
                Ok(_) => return Ok(None),
                Err(Errno::AGAIN) => Readiness::Waiting,
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(Some(self.state))
    }
}

impl AsFd for ReadyFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for ReadyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<ReadyFd> for OwnedFd {
    fn from(ready: ReadyFd) -> OwnedFd {
        ready.fd
    }
}
