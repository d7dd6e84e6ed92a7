//! Standard input, read without ever waiting and without ever being stopped.
//!
//! A process in the background of its terminal that reads from it is stopped by SIGTTIN. With that signal blocked the
//! read fails with EIO instead, and takes nothing: the shell in the foreground gets what was typed. The kernel decides
//! this at the read itself, so there is no moment between a look and a read in which the answer may change.
//!
//! No event tells that a job has come to the foreground: SIGCONT comes for a job that was stopped, and from some shells
//! (bash) for no other. So input that was refused is looked at again after a while, at growing intervals, and only as
//! long as it is there. A background job without pending input makes no system call.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::files;

/// The first wait before input that was refused is looked at again; each further wait is twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The longest of these waits: how late a job notices that it has come to the foreground, at worst.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// How much is read in one go.
const CHUNK: usize = 4096;

/// Standard input.
#[derive(Debug)]
pub struct Input {
    fd: OwnedFd,
    state: State,
    /// The next wait before another look.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be waited for by epoll.
    Open,
    /// Always ready: a regular file or the like, which epoll refuses.
    Plain,
    /// There is input, and it is for the process in the foreground; or it cannot be watched.
    PutOff {
        /// When to look again.
        look_at: Instant,
    },
    /// At its end, or gone.
    Ended,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing at present.
    Nothing,
    /// Nothing any more.
    End,
}

impl Input {
    /// The standard input of this process.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> io::Result<Input> {
        let stdin = io::stdin();
        let fd = match files::non_blocking(stdin.as_fd(), OFlags::RDONLY) {
            Ok(fd) => fd,
            Err(_) => stdin.as_fd().try_clone_to_owned()?,
        };
        Ok(Input {
            fd,
            state: State::Open,
            wait: FIRST_LOOK,
        })
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.fd.is_terminal()
    }

    /// Whether epoll is to watch it, as far as it is concerned.
    pub fn is_watched(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it can be read without waiting.
    pub fn is_plain(&self) -> bool {
        self.state == State::Plain
    }

    /// Epoll refuses to watch it.
    pub fn set_plain(&mut self) {
        self.state = State::Plain;
    }

    /// When it has to be [looked at](Input::look) again, if at all.
    pub fn look_at(&self) -> Option<Instant> {
        match self.state {
            State::PutOff { look_at } => Some(look_at),
            State::Open | State::Plain | State::Ended => None,
        }
    }

    /// Looks again whether the process is in the foreground, if that is due.
    pub fn look(&mut self, now: Instant) {
        if self.look_at().is_some_and(|look_at| look_at <= now) {
            self.resume();
        }
    }

    /// The process was continued, perhaps in the foreground.
    pub fn resume(&mut self) {
        if let State::PutOff { .. } = self.state {
            self.state = State::Open;
            if !is_ready(self.fd.as_fd()) {
                self.wait = FIRST_LOOK;
            }
        }
    }

    /// Epoll cannot watch it at present: it is to be looked at again after a while.
    pub fn put_off(&mut self) {
        let look_at = Instant::now() + self.wait;
        self.state = State::PutOff { look_at };
        self.wait = (self.wait * 2).min(LAST_LOOK);
    }

    /// Reads what is there.
    pub fn take(&mut self) -> Taken {
        match self.state {
            State::Open if is_ready(self.fd.as_fd()) => {}
            State::Plain => {}
            State::Open | State::PutOff { .. } | State::Ended => return Taken::Nothing,
        }
        let mut chunk = vec![0; CHUNK];
        match rustix::io::read(&self.fd, &mut chunk) {
            Err(Errno::INTR | Errno::AGAIN) => Taken::Nothing,
            Err(Errno::IO) if is_controlling(self.fd.as_fd()) => {
                self.put_off();
                Taken::Nothing
            }
            Ok(read @ 1..) => {
                self.wait = FIRST_LOOK;
                chunk.truncate(read);
                Taken::Bytes(chunk)
            }
            // A terminal that is gone counts as one that has ended.
            Ok(0) | Err(_) => {
                self.state = State::Ended;
                Taken::End
            }
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

/// Whether this is the process's controlling terminal, and is still there. A foreground process group of another PID
/// namespace has no number here, which is answered by EOPNOTSUPP.
fn is_controlling(fd: BorrowedFd<'_>) -> bool {
    matches!(rustix::termios::tcgetpgrp(fd), Ok(_) | Err(Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    fn input(fd: OwnedFd) -> Input {
        Input {
            fd,
            state: State::Open,
            wait: FIRST_LOOK,
        }
    }

    #[test]
    fn what_another_process_has_taken_is_not_waited_for() {
        let (reader, writer) = pipe().unwrap();
        let mut input = input(reader);
        assert_eq!(input.take(), Taken::Nothing, "a blocking descriptor");
        rustix::io::write(&writer, b"one\n").unwrap();
        assert_eq!(input.take(), Taken::Bytes(b"one\n".to_vec()));
        drop(writer);
        assert_eq!(input.take(), Taken::End);
        assert!(!input.is_watched());
        assert_eq!(input.take(), Taken::Nothing);
    }

    #[test]
    fn a_second_description_leaves_the_flags_of_the_first_alone() {
        let (reader, writer) = pipe().unwrap();
        let second = files::non_blocking(reader.as_fd(), OFlags::RDONLY).unwrap();
        assert_eq!(rustix::io::read(&second, &mut [0; 1]), Err(Errno::AGAIN));
        assert!(!rustix::fs::fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        drop((reader, writer));
    }
}
