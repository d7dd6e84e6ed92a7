//! Lines that go out without ever holding up the loop.
//!
//! The reader of the output may be slow, stopped with Ctrl-S, or gone. A supervisor that waits for its log supervises
//! nothing, so a line is written only as far as there is room, and waits in a bounded queue until then.
//!
//! Two kinds of lines differ in what happens at the bound. An answer is asked for, so the queue takes it, and the loop
//! takes no further command until there is room ([`Output::has_room`]). A line of the log or an event comes unasked; it
//! is dropped at the bound and counted. What a failed write takes away is counted too. No error is final: a FIFO may
//! get another reader and a full disk may get room, so each new line is another try.
//!
//! No loss is silent: [`LossNotice`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::files::{self, Kind};

/// How many bytes of lines that come unasked may wait for a reader.
const MOST_UNASKED: usize = 1 << 20;
/// How many bytes of answers may wait for a reader before no further command is taken.
const MOST_ANSWERS: usize = 16 << 20;
/// What a pipe has room for when poll(2) answers that it has room (PIPE_BUF, pipe(7)).
const SURE_TO_FIT: usize = 4096;

/// A file, pipe, socket or terminal to write lines to.
#[derive(Debug)]
pub struct Output {
    fd: OwnedFd,
    way: Way,
    notice: LossNotice,
    /// What is being written. A part of it may be out already.
    current: Current,
    queue: VecDeque<Entry>,
    /// The bytes of all lines that wait.
    bytes: usize,
    /// Whether the last line that was written lacks its end.
    torn: bool,
    health: Health,
    /// How many lines were lost since the last report.
    lost: u64,
    /// Whether the bound was reached since the last report.
    overflowed: bool,
}

/// Where the number of lost lines is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossNotice {
    /// In a line in their place.
    InPlace,
    /// In the log, which gets it from [`Output::take_report`].
    Report,
}

/// How to write without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A write never waits: the file is regular, or O_NONBLOCK is set.
    Write,
    /// A socket has a flag for it.
    Send,
    /// A look whether there is room, and then a write of what fits for sure. Another process may take the room in
    /// between, so this is for descriptors that allow nothing better.
    Look,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// So many lines are missing here.
    Gap(u64),
}

#[derive(Debug, Default)]
struct Current {
    bytes: Vec<u8>,
    written: usize,
    /// How many lines are lost if it is not written.
    lines: u64,
    /// How much of it counts in [`Output::bytes`].
    counted: usize,
    /// Whether it begins with the missing end of the line before it.
    mends: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// The last write failed.
    Failing {
        error: Errno,
        reported: bool,
    },
}

impl Output {
    /// Writes to what is open as `fd`.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new(fd: BorrowedFd<'_>, notice: LossNotice) -> io::Result<Output> {
        let (fd, way) = match files::non_blocking(fd, OFlags::WRONLY) {
            Ok(fd) => (fd, Way::Write),
            Err(_) => {
                let way = match files::kind(fd) {
                    Kind::Regular => Way::Write,
                    Kind::Socket => Way::Send,
                    Kind::Other => Way::Look,
                };
                (fd.try_clone_to_owned()?, way)
            }
        };
        Ok(Output {
            fd,
            way,
            notice,
            current: Current::default(),
            queue: VecDeque::new(),
            bytes: 0,
            torn: false,
            health: Health::Well,
            lost: 0,
            overflowed: false,
        })
    }

    /// Writes `text` and a newline, with a single write(2) where that is possible; drops it at the bound.
    pub fn line(&mut self, text: &str) {
        if self.bytes + text.len() <= MOST_UNASKED {
            return self.push(text);
        }
        match self.queue.back_mut() {
            Some(Entry::Gap(lines)) => *lines += 1,
            _ => {
                self.overflowed = true;
                self.queue.push_back(Entry::Gap(1));
            }
        }
    }

    /// The same for a line that was asked for: it is never dropped for lack of room.
    pub fn answer(&mut self, text: &str) {
        self.push(text);
    }

    /// Whether more answers should be asked for. They should be also while nothing can be written, since a reader that
    /// is gone must not keep commands waiting.
    pub fn has_room(&self) -> bool {
        self.is_failing() || self.bytes < MOST_ANSWERS
    }

    /// Writes what waits, as far as there is room.
    pub fn flush(&mut self) {
        while self.has_current() {
            match self.write_current() {
                Ok(()) => self.health = Health::Well,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // There is a reader, which is slow.
                    self.health = Health::Well;
                    return;
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Whether something waits for room: then the loop calls [`Output::flush`] when there is some.
    pub fn is_waiting(&self) -> bool {
        let has_some = !self.queue.is_empty() || !self.current.bytes.is_empty();
        has_some && !self.is_failing()
    }

    /// What has changed since the last call, as the rest of a sentence about this place.
    pub fn take_report(&mut self) -> Option<String> {
        if let Health::Failing { error, reported: false } = self.health {
            self.health = Health::Failing { error, reported: true };
            let reason = files::reason(error);
            return Some(format!("cannot be written: {reason}; until it can, lines are lost"));
        }
        if self.is_failing() || self.notice == LossNotice::InPlace {
            return None;
        }
        if std::mem::take(&mut self.overflowed) {
            return Some("is not read: from now on lines are lost".to_owned());
        }
        match std::mem::take(&mut self.lost) {
            0 => None,
            lost => Some(format!("is written again: {} lost", count(lost))),
        }
    }

    /// Gives up what waits, at the end; what was lost, as the rest of a sentence.
    pub fn abandon(&mut self) -> Option<String> {
        self.discard();
        let gaps = self.queue.drain(..).map(|entry| entry.lines());
        let lost = gaps.sum::<u64>() + std::mem::take(&mut self.lost);
        (lost > 0).then(|| format!("was not read to the end: {} lost", count(lost)))
    }

    /// Nothing can be written at present, for this reason: what waits is lost.
    pub fn fail(&mut self, error: Errno) {
        self.discard();
        let reported = matches!(self.health, Health::Failing { error: before, reported: true } if before == error);
        self.health = Health::Failing { error, reported };
    }

    /// Writes to another file from now on. A line that was begun is not finished there.
    ///
    /// # Errors
    /// No descriptor is free; all goes on as before.
    pub fn replace(&mut self, with: BorrowedFd<'_>) -> io::Result<()> {
        let Output { fd, way, .. } = Output::new(with, self.notice)?;
        (self.fd, self.way) = (fd, way);
        if self.current.written > 0 {
            let current = std::mem::take(&mut self.current);
            self.bytes -= current.counted;
            self.queue.push_front(Entry::Gap(current.lines));
        }
        self.torn = false;
        self.health = Health::Well;
        self.flush();
        Ok(())
    }

    fn push(&mut self, text: &str) {
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        self.bytes += line.len();
        self.queue.push_back(Entry::Line(line));
        self.flush();
    }

    fn is_failing(&self) -> bool {
        self.health != Health::Well
    }

    /// Makes sure that there is something to write, if there is anything.
    fn has_current(&mut self) -> bool {
        while self.current.bytes.is_empty() {
            let Some(entry) = self.queue.pop_front() else {
                return false;
            };
            let lines = entry.lines();
            self.current = match entry {
                Entry::Gap(_) if self.notice == LossNotice::Report => {
                    self.lost += lines;
                    continue;
                }
                Entry::Gap(_) => Current {
                    bytes: format!("taskmaster: {} lost here\n", count(lines)).into_bytes(),
                    lines,
                    ..Current::default()
                },
                Entry::Line(bytes) => Current {
                    counted: bytes.len(),
                    bytes,
                    lines,
                    ..Current::default()
                },
            };
            if std::mem::take(&mut self.torn) {
                self.current.bytes.insert(0, b'\n');
                self.current.mends = true;
            }
        }
        true
    }

    /// Writes what there is room for.
    fn write_current(&mut self) -> Result<(), Errno> {
        let Current { bytes, written, .. } = &self.current;
        let rest = bytes.get(*written..).unwrap_or_default();
        self.current.written += match self.way {
            Way::Write => rustix::io::write(&self.fd, rest)?,
            Way::Send => rustix::net::send(&self.fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
            Way::Look if has_room(self.fd.as_fd()) => {
                rustix::io::write(&self.fd, rest.get(..SURE_TO_FIT).unwrap_or(rest))?
            }
            Way::Look => return Err(Errno::AGAIN),
        };
        if self.current.written >= self.current.bytes.len() {
            self.bytes -= self.current.counted;
            self.current = Current::default();
        }
        Ok(())
    }

    /// Turns everything that waits into a single gap.
    fn discard(&mut self) {
        let current = std::mem::take(&mut self.current);
        self.torn |= current.written > 0 || current.mends;
        let lost = current.lines + self.queue.drain(..).map(|entry| entry.lines()).sum::<u64>();
        self.bytes = 0;
        if lost > 0 {
            self.queue.push_back(Entry::Gap(lost));
        }
    }
}

impl Entry {
    /// How many lines it stands for.
    fn lines(&self) -> u64 {
        match self {
            Entry::Line(_) => 1,
            Entry::Gap(lines) => *lines,
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A broken pipe counts as room: the write then fails and the error is the reason.
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

fn count(lines: u64) -> String {
    match lines {
        1 => "1 line is".to_owned(),
        lines => format!("{lines} lines are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn pipe() -> (File, Output) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (reader.into(), Output::new(writer.as_fd(), LossNotice::Report).unwrap())
    }

    /// Reads until nothing waits any more, and then to the end.
    fn read_all(mut from: File, mut output: Output) -> String {
        let mut text = Vec::new();
        let mut chunk = [0; 1 << 16];
        while output.is_waiting() {
            let read = from.read(&mut chunk).unwrap();
            text.extend_from_slice(&chunk[..read]);
            output.flush();
        }
        drop(output);
        from.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (reader, mut output) = pipe();
        output.line("one");
        output.answer("");
        output.line("two");
        assert!(!output.is_waiting());
        assert_eq!(read_all(reader, output), "one\n\ntwo\n");
    }

    #[test]
    fn unasked_lines_are_dropped_at_the_bound_and_counted() {
        let (reader, mut output) = pipe();
        let line = "x".repeat(9_999);
        (0..200).for_each(|_| output.line(&line));
        assert!(output.take_report().unwrap().starts_with("is not read"));
        assert_eq!(output.take_report(), None);
        let dropped = output.queue.back().unwrap().lines();
        assert!(output.is_waiting() && dropped > 50, "{dropped}");
        let mut chunk = [0; 1 << 16];
        while output.is_waiting() {
            let _read = (&reader).read(&mut chunk).unwrap();
            output.flush();
        }
        let report = format!("is written again: {dropped} lines are lost");
        assert_eq!((output.take_report(), output.take_report()), (Some(report), None));
        output.line("after");
        assert!(read_all(reader, output).ends_with("\nafter\n"));
    }

    #[test]
    fn answers_are_never_dropped_for_lack_of_room() {
        let (reader, mut output) = pipe();
        let line = "x".repeat(99_999);
        let mut asked = 0;
        while output.has_room() {
            output.answer(&line);
            asked += 1;
        }
        assert!(asked > MOST_ANSWERS / 100_000);
        output.answer(&line);
        let text = read_all(reader, output);
        assert_eq!(text.lines().filter(|read| **read == line).count(), asked + 1);
    }

    #[test]
    fn a_gap_is_counted_in_its_place() {
        let (reader, mut output) = pipe();
        output.notice = LossNotice::InPlace;
        let line = "x".repeat(9_999);
        (0..150).for_each(|_| output.line(&line));
        output.answer("after");
        let dropped = output.queue.iter().map(Entry::lines).find(|&lines| lines > 1).unwrap();
        let text = read_all(reader, output);
        let lines: Vec<&str> = text.lines().skip_while(|read| *read == line).collect();
        assert_eq!(lines, [&*format!("taskmaster: {dropped} lines are lost here"), "after"]);
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_comes_next() {
        for notice in [LossNotice::Report, LossNotice::InPlace] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            let mut output = Output::new(writer.as_fd(), notice).unwrap();
            drop(reader);
            output.line("one");
            assert!(output.take_report().unwrap().contains("Broken pipe"));
            output.line("two");
            assert_eq!((output.take_report(), output.is_waiting()), (None, false));
            let reader: File = files::non_blocking(writer.as_fd(), OFlags::RDONLY).unwrap().into();
            drop(writer);
            output.line("three");
            let (here, elsewhere) = match notice {
                LossNotice::InPlace => ("taskmaster: 2 lines are lost here\n", None),
                LossNotice::Report => ("", Some("is written again: 2 lines are lost".to_owned())),
            };
            assert_eq!(output.take_report(), elsewhere);
            assert_eq!(read_all(reader, output), format!("{here}three\n"));
        }
    }

    #[test]
    fn a_socket_that_is_full_is_not_waited_for() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut output = Output::new(ours.as_fd(), LossNotice::Report).unwrap();
        assert_eq!(output.way, Way::Send);
        let line = "x".repeat(99_999);
        (0..5).for_each(|_| output.line(&line));
        assert!(output.is_waiting());
        drop(ours);
        let theirs = File::from(OwnedFd::from(theirs));
        assert_eq!(
            read_all(theirs, output).lines().filter(|read| **read == line).count(),
            5
        );
    }

    #[test]
    fn a_full_disk_is_reported_once() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut output = Output::new(full.as_fd(), LossNotice::Report).unwrap();
        output.line("one");
        output.line("two");
        assert!(output.take_report().unwrap().contains("No space"));
        output.line("three");
        assert_eq!((output.take_report(), output.is_waiting()), (None, false));
        assert!(output.abandon().unwrap().contains("3 lines are lost"));
        assert_eq!(output.abandon(), None);
    }
}
