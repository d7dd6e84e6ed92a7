//! Writes lines without blocking the loop.
//!
//! The reader of an output may be slow, stopped with Ctrl-S, or gone. A taskmaster that waits for its log cannot
//! supervise. So a line is written only as far as there is room, and the rest waits in a bounded queue.
//!
//! Two kinds of lines differ at the bound of the queue. An answer is always queued, and the loop reads no further
//! command until there is room ([`Output::has_room`]). A line of the log or an event is dropped at the bound and
//! counted. Lines that a failed write loses are counted too. No error is permanent: a FIFO may get another reader,
//! and a full disk may get room. So each new line causes another attempt.
//!
//! Every loss is reported: see [`LossNotice`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde_json::{Value, json};

use crate::files::{self, Kind};
use crate::handing;

/// The number of bytes of log lines and events that may wait for a reader.
const MOST_UNASKED: usize = 1 << 20;
/// The number of bytes of answers that may wait for a reader before the loop stops reading commands.
const MOST_ANSWERS: usize = 16 << 20;
/// The room that a pipe has when poll(2) reports it as writable, in bytes (PIPE_BUF, pipe(7)).
const SURE_TO_FIT: usize = 4096;

/// A file, pipe, socket or terminal for lines.
#[derive(Debug)]
pub struct Output {
    fd: OwnedFd,
    way: Way,
    notice: LossNotice,
    /// The text that is being written. A part of it may be written already.
    current: Current,
    queue: VecDeque<Entry>,
    /// The size of all waiting lines.
    bytes: usize,
    /// Whether the last written line is incomplete.
    torn: bool,
    health: Health,
    /// The number of lines that were lost since the last report.
    lost: u64,
    /// Whether the bound was reached since the last report.
    overflowed: bool,
}

/// The place where the number of lost lines is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossNotice {
    /// In the output itself, as a line in place of the lost lines.
    InPlace,
    /// In the log, which gets the report from [`Output::take_report`].
    Report,
}

/// The method of writing without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// write(2). It never waits, because the file is regular or O_NONBLOCK is set.
    Write,
    /// send(2) with the flag MSG_DONTWAIT, for a socket.
    Send,
    /// poll(2), and then a write of at most the guaranteed room. Another process may use up the room between the two
    /// calls, so this method is only for descriptors without a better one.
    Look,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Bytes that are not a line, such as a prompt.
    Bare(Vec<u8>),
    /// The number of lines that are missing at this place.
    Gap(u64),
}

#[derive(Debug, Default)]
struct Current {
    bytes: Vec<u8>,
    written: usize,
    /// The number of lines that are lost if this text is not written.
    lines: u64,
    /// The part of its size that counts in [`Output::bytes`].
    counted: usize,
    /// Whether it begins with the missing newline of the previous line.
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
    /// Creates an output for the file that is open as `fd`.
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

    /// Changes the place where lost lines are reported.
    pub fn set_notice(&mut self, notice: LossNotice) {
        self.notice = notice;
    }

    /// The file and the waiting lines, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        let Current {
            bytes,
            written,
            lines,
            counted,
            mends,
        } = &self.current;
        let entry = |entry: &Entry| match entry {
            Entry::Line(bytes) => handing::bytes(bytes),
            Entry::Bare(bytes) => json!({ "bare": handing::bytes(bytes) }),
            Entry::Gap(lines) => json!(lines),
        };
        let failing = match self.health {
            Health::Well => Value::Null,
            Health::Failing { error, reported } => json!([error.raw_os_error(), reported]),
        };
        json!({
            "fd": self.fd.as_raw_fd(),
            "way": match self.way {
                Way::Write => "write",
                Way::Send => "send",
                Way::Look => "look",
            },
            "current": [handing::bytes(bytes), written, lines, counted, mends],
            "queue": self.queue.iter().map(entry).collect::<Vec<_>>(),
            "torn": self.torn,
            "failing": failing,
            "lost": self.lost,
            "overflowed": self.overflowed,
        })
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(left: &Value, notice: LossNotice) -> Option<Output> {
        let current = &left["current"];
        let current = Current {
            bytes: handing::to_bytes(&current[0])?,
            written: handing::to_number(&current[1])?,
            lines: current[2].as_u64()?,
            counted: handing::to_number(&current[3])?,
            mends: current[4].as_bool()?,
        };
        let entry = |entry: &Value| match (entry.as_u64(), entry.get("bare")) {
            (Some(lines), _) => Some(Entry::Gap(lines)),
            (None, Some(bare)) => handing::to_bytes(bare).map(Entry::Bare),
            (None, None) => handing::to_bytes(entry).map(Entry::Line),
        };
        let queue = VecDeque::from(handing::to_list(&left["queue"], entry)?);
        let waiting = queue.iter().map(|entry| match entry {
            Entry::Line(bytes) | Entry::Bare(bytes) => bytes.len(),
            Entry::Gap(_) => 0,
        });
        Some(Output {
            fd: handing::fd(&left["fd"])?,
            way: match left["way"].as_str()? {
                "write" => Way::Write,
                "send" => Way::Send,
                _ => Way::Look,
            },
            notice,
            bytes: current.counted + waiting.sum::<usize>(),
            current,
            queue,
            torn: left["torn"].as_bool()?,
            health: match left["failing"][0].as_i64().and_then(|errno| i32::try_from(errno).ok()) {
                None => Health::Well,
                Some(errno) => Health::Failing {
                    error: Errno::from_raw_os_error(errno),
                    reported: left["failing"][1].as_bool()?,
                },
            },
            lost: left["lost"].as_u64()?,
            overflowed: left["overflowed"].as_bool()?,
        })
    }

    /// Writes `text` and a newline, with a single write(2) if possible. Drops the line at the bound.
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

    /// Writes `text` and a newline as an answer, which is never dropped at the bound.
    pub fn answer(&mut self, text: &str) {
        self.push(text);
    }

    /// Writes `text` as it is. It is lost if a write fails, and counts as no line.
    pub fn bare(&mut self, text: &str) {
        self.bytes += text.len();
        self.queue.push_back(Entry::Bare(text.as_bytes().to_vec()));
        self.flush();
    }

    /// Whether there is room for more answers. The result is also true while writes fail, because commands must not
    /// wait for a reader that is gone.
    pub fn has_room(&self) -> bool {
        self.is_failing() || self.bytes < MOST_ANSWERS
    }

    /// Writes the waiting lines as far as there is room.
    pub fn flush(&mut self) {
        while self.has_current() {
            match self.write_current() {
                Ok(()) => self.health = Health::Well,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // The reader exists but is slow.
                    self.health = Health::Well;
                    return;
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Whether lines wait for room. The loop then calls [`Output::flush`] when the descriptor is writable.
    pub fn is_waiting(&self) -> bool {
        let has_some = !self.queue.is_empty() || !self.current.bytes.is_empty();
        has_some && !self.is_failing()
    }

    /// The changes since the last call, as the second half of a sentence about this output.
    pub fn take_report(&mut self) -> Option<String> {
        if let Health::Failing { error, reported: false } = self.health {
            self.health = Health::Failing { error, reported: true };
            let reason = files::reason(error);
            return Some(format!(
                "cannot be written: {reason}; lines are lost until a write succeeds"
            ));
        }
        if self.is_failing() || self.notice == LossNotice::InPlace {
            return None;
        }
        if std::mem::take(&mut self.overflowed) {
            return Some("is not read: lines are lost".to_owned());
        }
        match std::mem::take(&mut self.lost) {
            0 => None,
            lost => Some(format!("is written again: {} lost", count(lost))),
        }
    }

    /// Discards the waiting lines at the end. Returns the loss, as the second half of a sentence.
    pub fn abandon(&mut self) -> Option<String> {
        self.discard();
        let gaps = self.queue.drain(..).map(|entry| entry.lines());
        let lost = gaps.sum::<u64>() + std::mem::take(&mut self.lost);
        (lost > 0).then(|| format!("was not read to the end: {} lost", count(lost)))
    }

    /// Records that writes fail for this reason. The waiting lines are lost.
    pub fn fail(&mut self, error: Errno) {
        self.discard();
        let reported = matches!(self.health, Health::Failing { error: before, reported: true } if before == error);
        self.health = Health::Failing { error, reported };
    }

    /// Continues with another file. The rest of an incomplete line is not written to it.
    ///
    /// # Errors
    /// No descriptor is free. The output stays as it was.
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

    /// Takes the next text from the queue if necessary. Returns whether there is a text to write.
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
                Entry::Line(bytes) | Entry::Bare(bytes) => Current {
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

    /// Writes as much of the current text as there is room for.
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

    /// Replaces all waiting lines with a single gap.
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
    /// The number of lines in this entry.
    fn lines(&self) -> u64 {
        match self {
            Entry::Line(_) => 1,
            Entry::Bare(_) => 0,
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
    // A broken pipe counts as room. The write then fails and returns the reason.
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

    /// Reads until no line waits any more, and then to the end of the file.
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
    fn a_returning_reader_gets_the_next_lines() {
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
    fn a_full_socket_does_not_block() {
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
    fn waiting_lines_are_handed_over_in_the_middle_of_one() {
        let (reader, mut output) = pipe();
        let line = "\u{e9}".repeat(40_000);
        (0..40).for_each(|_| output.line(&line));
        output.bare("");
        assert!(output.current.written > 0 && output.queue.iter().any(|entry| matches!(entry, Entry::Gap(_))));
        let left = output.hand_over().to_string();
        rustix::io::fcntl_setfd(&output, rustix::io::FdFlags::empty()).unwrap();
        let mut next = Output::take_over(&serde_json::from_str(&left).unwrap(), LossNotice::Report).unwrap();
        assert_eq!(next.hand_over().to_string(), left);
        assert_eq!(next.bytes, output.bytes);
        // The descriptor now belongs to `next`.
        let _owned_by_next = std::os::fd::IntoRawFd::into_raw_fd(output.fd);
        next.answer("after");
        let text = read_all(reader, next);
        assert!(text.lines().rev().skip(1).all(|read| read == line));
        assert_eq!(text.lines().last(), Some("after"));
    }

    #[test]
    fn bytes_that_are_no_line_are_written_as_they_are() {
        let (reader, mut output) = pipe();
        output.bare("prompt: ");
        output.answer("line");
        output.bare("prompt: ");
        assert_eq!(read_all(reader, output), "prompt: line\nprompt: ");
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
