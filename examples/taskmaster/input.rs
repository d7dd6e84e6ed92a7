//! Reads standard input without waiting, and without being stopped by the terminal.
//!
//! The kernel stops a background process that reads its terminal with SIGTTIN. While that signal is blocked, the read
//! fails with EIO and takes no input, so the foreground shell gets the input. The kernel checks this in the read
//! itself, so there is no race between a check and a read.
//!
//! No event reports that a job has come to the foreground. SIGCONT is sent to a stopped job, and by some shells
//! (bash) to no other job. So refused input is checked again at growing intervals while it is present. A background
//! job without pending input makes no system call.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::files;
use crate::handing;

/// The first delay before refused input is checked again. Each further delay is twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The longest delay. A job notices at the latest after this time that it has come to the foreground.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The size of one read, in bytes.
const CHUNK: usize = 4096;

/// Standard input.
#[derive(Debug)]
pub struct Input {
    fd: OwnedFd,
    state: State,
    /// The next delay before a check.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Epoll watches it.
    Open,
    /// It is always ready, because it is a regular file or similar. Epoll refuses such a file.
    Plain,
    /// It has input that only a foreground process may read, or epoll cannot watch it at present.
    PutOff {
        /// The time of the next check.
        look_at: Instant,
    },
    /// It is at its end or closed.
    Ended,
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The bytes that were read.
    Bytes(Vec<u8>),
    /// No input is present.
    Nothing,
    /// The input has ended.
    End,
}

impl Input {
    /// Takes the standard input of this process.
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

    /// The descriptor, for the program that takes the place of this one. Unread input stays in the kernel.
    pub fn hand_over(&self) -> Value {
        json!({ "fd": self.fd.as_raw_fd(), "ended": self.state == State::Ended })
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(left: &Value) -> Option<Input> {
        let state = if left["ended"].as_bool()? {
            State::Ended
        } else {
            State::Open
        };
        Some(Input {
            fd: handing::fd(&left["fd"])?,
            state,
            wait: FIRST_LOOK,
        })
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.fd.is_terminal()
    }

    /// Whether epoll must watch it.
    pub fn is_watched(&self) -> bool {
        self.state == State::Open
    }

    /// Whether a read never waits.
    pub fn is_plain(&self) -> bool {
        self.state == State::Plain
    }

    /// Records that epoll refuses to watch it.
    pub fn set_plain(&mut self) {
        self.state = State::Plain;
    }

    /// The time of the next [check](Input::look). `None` if no check is needed.
    pub fn look_at(&self) -> Option<Instant> {
        match self.state {
            State::PutOff { look_at } => Some(look_at),
            State::Open | State::Plain | State::Ended => None,
        }
    }

    /// Checks again whether the process is in the foreground, if the check is due.
    pub fn look(&mut self, now: Instant) {
        if self.look_at().is_some_and(|look_at| look_at <= now) {
            self.resume();
        }
    }

    /// Handles SIGCONT: the process may be in the foreground now.
    pub fn resume(&mut self) {
        if let State::PutOff { .. } = self.state {
            self.state = State::Open;
            if !is_ready(self.fd.as_fd()) {
                self.wait = FIRST_LOOK;
            }
        }
    }

    /// Records that epoll cannot watch it at present, so that it is checked later.
    pub fn put_off(&mut self) {
        let look_at = Instant::now() + self.wait;
        self.state = State::PutOff { look_at };
        self.wait = (self.wait * 2).min(LAST_LOOK);
    }

    /// Reads no more.
    pub fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether it is a terminal that belongs to another job at present.
    pub fn is_put_off(&self) -> bool {
        matches!(self.state, State::PutOff { .. })
    }

    /// Reads the available input.
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
            // A terminal that is gone counts as an input that has ended.
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

/// Whether this is the process's controlling terminal and still exists. If the foreground process group belongs to
/// another PID namespace, it has no number here, and the call fails with EOPNOTSUPP.
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
    fn a_read_does_not_wait_for_input_that_another_process_took() {
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
    fn a_second_description_does_not_change_the_flags_of_the_first() {
        let (reader, writer) = pipe().unwrap();
        let second = files::non_blocking(reader.as_fd(), OFlags::RDONLY).unwrap();
        assert_eq!(rustix::io::read(&second, &mut [0; 1]), Err(Errno::AGAIN));
        assert!(!rustix::fs::fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        drop((reader, writer));
    }
}
