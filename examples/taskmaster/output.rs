//! Lines that go out without ever holding up the loop.
//!
//! Whoever reads our output may be slow, stopped with Ctrl-S, or gone. A supervisor that waits for
//! its log supervises nothing, so a line is written only when poll(2) says that there is room, and
//! waits in a bounded queue until then. Making the descriptor non-blocking instead would do so for
//! everybody who shares it, the shell that started us included.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

/// How much may wait for a reader; what comes after it is dropped, and counted.
const MOST_WAITING: usize = 1 << 20;
/// What a pipe has room for when poll says that it has room (PIPE_BUF, pipe(7)).
const SURE_TO_FIT: usize = 4096;

/// A place to write lines to.
#[derive(Debug)]
pub struct Output<F> {
    fd: F,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Whether a write may have to wait for a reader: not so with files.
    may_block: bool,
    /// Whether a part of the first line that waits is written.
    begun: bool,
    /// Whether an error cut off the line before.
    torn: bool,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    New(Errno),
    Told(Errno),
}

impl<F: AsFd> Output<F> {
    /// Writes to `fd`.
    pub fn new(fd: F) -> Output<F> {
        let kind = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let may_block = kind != Ok(FileType::RegularFile);
        Output {
            fd,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            may_block,
            begun: false,
            torn: false,
            trouble: Trouble::None,
        }
    }

    /// Writes `text` and a newline, with a single write(2) if that is possible at all.
    pub fn line(&mut self, text: &str) {
        if matches!(self.trouble, Trouble::New(Errno::PIPE) | Trouble::Told(Errno::PIPE)) {
            return;
        }
        if self.bytes + text.len() > MOST_WAITING {
            self.dropped += 1;
            return;
        }
        let mut line = Vec::with_capacity(text.len() + 2);
        if std::mem::take(&mut self.torn) {
            line.push(b'\n');
        }
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        self.bytes += line.len();
        self.waiting.push_back(line);
        self.flush();
    }

    /// Writes what waits, as far as there is room.
    pub fn flush(&mut self) {
        while let Some(line) = self.waiting.front_mut() {
            if self.may_block && !has_room(self.fd.as_fd()) {
                return;
            }
            let most = if self.may_block {
                line.len().min(SURE_TO_FIT)
            } else {
                line.len()
            };
            match rustix::io::write(&self.fd, &line[..most]) {
                Ok(written) => {
                    line.drain(..written);
                    self.begun = !line.is_empty();
                    self.bytes -= written;
                    self.trouble = Trouble::None;
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.give_up(error),
            }
            if !self.begun {
                self.waiting.pop_front();
            }
        }
    }

    /// Whether something waits for room: then the loop shall call [`Output::flush`] when there is some.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What went wrong since the last call, as half a sentence; the same trouble is told once.
    pub fn take_trouble(&mut self) -> Option<String> {
        if let Trouble::New(error) = self.trouble {
            self.trouble = Trouble::Told(error);
            return Some(format!("cannot be written: {error}"));
        }
        match std::mem::take(&mut self.dropped) {
            0 => None,
            dropped => Some(format!("is not read: {dropped} lines are lost")),
        }
    }

    /// Nobody will ever read this, or the disk is full: either way, keeping it would help nobody.
    fn give_up(&mut self, error: Errno) {
        self.waiting.clear();
        self.bytes = 0;
        self.torn |= std::mem::take(&mut self.begun);
        if self.trouble != Trouble::Told(error) {
            self.trouble = Trouble::New(error);
        }
    }
}

impl<F: AsFd> AsFd for Output<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A broken pipe counts as room, too: the write then says what is wrong.
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn pipe() -> (File, File) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (reader.into(), writer.into())
    }

    fn read_all(mut from: impl Read) -> String {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (reader, writer) = pipe();
        let mut output = Output::new(writer);
        output.line("one");
        output.line("");
        output.line("two");
        assert!(!output.is_waiting());
        drop(output);
        assert_eq!(read_all(reader), "one\n\ntwo\n");
    }

    #[test]
    fn a_reader_that_sleeps_holds_up_nobody_and_misses_little() {
        let (mut reader, writer) = pipe();
        let mut output = Output::new(writer);
        let line = "x".repeat(9_999);
        for _ in 0..200 {
            output.line(&line);
        }
        assert!(output.is_waiting());
        assert!(output.take_trouble().unwrap().contains("lines are lost"));
        assert_eq!(output.take_trouble(), None);
        let mut seen = Vec::new();
        let mut chunk = [0; 1 << 16];
        while output.is_waiting() {
            let read = reader.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..read]);
            output.flush();
        }
        drop(output);
        seen.extend(read_all(reader).bytes());
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.lines().count() >= MOST_WAITING / 10_000);
        assert!(seen.lines().all(|seen| seen == line));
    }

    #[test]
    fn a_reader_that_left_is_told_once_and_costs_nothing() {
        let (reader, writer) = pipe();
        drop(reader);
        let mut output = Output::new(writer);
        output.line("one");
        assert!(output.take_trouble().unwrap().contains("Broken pipe"));
        output.line("two");
        assert_eq!((output.take_trouble(), output.is_waiting()), (None, false));
    }

    #[test]
    fn a_full_disk_is_told_once() {
        let mut output = Output::new(File::options().write(true).open("/dev/full").unwrap());
        output.line("one");
        output.line("two");
        assert!(output.take_trouble().unwrap().contains("No space"));
        output.line("three");
        assert_eq!((output.take_trouble(), output.is_waiting()), (None, false));
    }
}
