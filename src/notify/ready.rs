//! Readiness by a descriptor, as s6 has it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::owner::Owner;
use crate::sys::descriptors::above_standard;

/// How much is read in one call.
const PORTION: usize = 4096;

/// The end of a pipe from which a child's readiness is read.
///
/// The child has the other end, at a number that it was told, and writes a newline to it when it is
/// ready; it may write other things before. Then it closes it. If it goes away instead, there is the
/// end of file, provided that no other process has the writing end: the parent must close its own.
///
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
    heard: Readiness,
}

/// What a child has let know about its readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// Nothing yet.
    Waiting,
    /// It wrote a newline.
    Ready,
    /// It closed its end without one, or ended.
    Closed,
}

impl ReadyFd {
    /// A pipe: the reading end, and the writing end for the child. Both are close-on-exec; only the
    /// reading end is non-blocking.
    ///
    /// # Errors
    /// EMFILE, ENFILE: the process, or the system, has as many descriptors as it may.
    pub fn pipe() -> io::Result<(ReadyFd, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok((ReadyFd::new(above_standard(reader)?)?, above_standard(writer)?))
    }

    /// The reading end of a pipe (or of a socket pair) that the host has made. It is made
    /// non-blocking, and so is any copy of it.
    ///
    /// # Errors
    /// What fcntl(2) says; there is no error that a caller could bring about.
    pub fn new(fd: OwnedFd) -> io::Result<ReadyFd> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(ReadyFd {
            owner: Owner::this_process(),
            fd,
            heard: Readiness::Waiting,
        })
    }

    /// Reads what is there, at most 4 KiB of it, looks for a newline, and forgets the rest. Never
    /// blocks.
    ///
    /// Once the answer was [`Readiness::Ready`] or [`Readiness::Closed`] it remains that, and nothing
    /// more is read. Until then the descriptor stays readable as long as there is more.
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made, which would take what the original
    /// waits for; else what read(2) says, and of a pipe there is no error that a child could bring about.
    pub fn read(&mut self) -> io::Result<Readiness> {
        Ok(self.read_portion()?.unwrap_or(Readiness::Waiting))
    }

    /// The same; `None` if what was read meant nothing, and there may be more.
    pub(crate) fn read_portion(&mut self) -> io::Result<Option<Readiness>> {
        self.owner.check()?;
        if self.heard == Readiness::Waiting {
            let mut portion = [0; PORTION];
            self.heard = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut portion)) {
                Ok(0) => Readiness::Closed,
                Ok(length) if portion.iter().take(length).any(|&byte| byte == b'\n') => Readiness::Ready,
                Ok(_) => return Ok(None),
                Err(Errno::AGAIN) => Readiness::Waiting,
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(Some(self.heard))
    }
}

impl AsFd for ReadyFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<ReadyFd> for OwnedFd {
    fn from(ready: ReadyFd) -> OwnedFd {
        ready.fd
    }
}
