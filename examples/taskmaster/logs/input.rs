//! The pipes to the standard inputs of programs.
//!
//! A message of the remote interface is written at once or not at all. An event for a listener may be larger than the
//! pipe, so the rest of it waits here until the pipe has room. At most one event waits for each listener.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::fcntl_getpipe_size;

/// The number of bytes that a pipe takes at once or not at all (PIPE_BUF, pipe(7)).
const SURE_TO_FIT: usize = 4096;

/// A pipe to a standard input.
#[derive(Debug)]
pub struct Input {
    pipe: OwnedFd,
    /// What is not written yet.
    pub pending: Vec<u8>,
    /// Its number in the epoll while something is pending.
    pub token: Option<u64>,
}

impl Input {
    /// A pipe that never blocks. `pending` is what the program before this one has left.
    pub fn new(pipe: OwnedFd, pending: Vec<u8>) -> Input {
        Input {
            pipe,
            pending,
            token: None,
        }
    }

    /// Writes all or nothing.
    ///
    /// # Errors
    /// The process has closed the pipe (`BrokenPipe`), or the pipe lacks room (`WouldBlock`).
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let full = || io::Error::new(io::ErrorKind::WouldBlock, "its standard input has no room");
        if !self.pending.is_empty() {
            return Err(full());
        }
        let room = fcntl_getpipe_size(&self.pipe)?;
        let room = room.saturating_sub(ioctl_fionread(&self.pipe)?.try_into().unwrap_or(usize::MAX));
        // A pipe is written in pages (pipe(7)), so half of it is sure to have room.
        if bytes.len() > SURE_TO_FIT && bytes.len() > room / 2 {
            return Err(full());
        }
        match rustix::io::write(&self.pipe, bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(full()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// The process has closed the pipe. What was pending is dropped.
    pub fn flush(&mut self) -> Result<(), Errno> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.pipe, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => {
                    self.pending = Vec::new();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
