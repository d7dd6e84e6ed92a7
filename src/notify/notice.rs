//! The parser of messages: no system call, no allocation. A bad line does not affect the other lines.

use std::iter::FusedIterator;
use std::str;
use std::time::Duration;

/// The longest status that is passed on, in bytes.
pub const STATUS_MAX: usize = 512;

/// The longest name of a kept descriptor, in bytes.
pub const DESCRIPTOR_NAME_MAX: usize = 255;

/// One report of a process about itself (sd_notify(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// `READY=1`: the start, or a reload, is complete.
    Ready,
    /// `RELOADING=1`: the process reads its configuration again, and sends [`Notice::Ready`] afterwards.
    Reloading,
    /// `STOPPING=1`: the process has begun to end.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: the current start or stop may take this long from now on; a later deadline stays. Never
    /// zero. The time can be as long as a `u64` of microseconds, so the host should limit it.
    ExtendTimeout(Duration),
    /// `WATCHDOG=1`: the process is alive.
    Watchdog,
    /// `WATCHDOG=trigger`: the process reports its own failure, and is treated as if it had missed its watchdog.
    WatchdogTrigger,
    /// `WATCHDOG_USEC=`: from now on the process reports at least this often. Never zero: the process cannot turn its
    /// watchdog off.
    WatchdogEvery(Duration),
    /// `ERRNO=`: the errno of a failure, which usually ends the process. Never zero.
    Errno(i32),
    /// `MONOTONIC_USEC=`: the time at which the process began to reload, on `CLOCK_MONOTONIC`. It comes with
    /// [`Notice::Reloading`].
    MonotonicTime(Duration),
    /// `STATUS=`: the current activity, for display. A single line without control characters, at most [`STATUS_MAX`]
    /// bytes, cut after a whole character; may be empty.
    Status(&'a str),
    /// `MAINPID=`: the process requests supervision of another process in its place. The request is reported and
    /// refused. The notice does not contain the number, because it has no correct use.
    MainPidRefused,
    /// `FDSTORE=1`: the descriptors that come with the message are to be kept for the next run.
    StoreDescriptors,
    /// `FDSTOREREMOVE=1`: the kept descriptors of a name are no longer needed.
    RemoveDescriptors,
    /// `FDNAME=`: the name for [`Notice::StoreDescriptors`] or [`Notice::RemoveDescriptors`]. It is printable ASCII
    /// without a colon, at most [`DESCRIPTOR_NAME_MAX`] bytes; may be empty.
    DescriptorName(&'a str),
    /// `FDPOLL=0`: the descriptors are kept even if the other side of them is gone.
    NoPoll,
    /// `BARRIER=1`: the sender waits until its descriptor is closed. See [`is_barrier`].
    Barrier,
}

/// The reason why a message, or a line of it, has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The message has no text.
    #[error("the notify message is empty")]
    Empty,
    /// The message contains a NUL, so all of it is discarded. A NUL at the very end is allowed.
    #[error("the notify message contains a NUL byte")]
    Nul,
    /// A line is not UTF-8.
    #[error("a line of the notify message is not UTF-8")]
    NotUtf8,
    /// A line has no `=`, or nothing before it.
    #[error("a line of the notify message does not have the form KEY=VALUE")]
    NotAnAssignment,
    /// The key is known, and the value is invalid: not a number, out of range, or with control characters.
    #[error("a value in the notify message is invalid for its key")]
    Value,
    /// The name of a descriptor is longer than [`DESCRIPTOR_NAME_MAX`] bytes, or has a colon or another character than
    /// printable ASCII.
    #[error("the name of a descriptor in the notify message is invalid")]
    DescriptorName,
}

/// Parses a message line by line. Lines with unknown keys are skipped. Lines that need no action are skipped too:
/// `BUSERROR`, `NOTIFYACCESS` and others.
/// ```
/// use pidherd::notify::{ParseError, Notice, parse};
///
/// let mut notices = parse(b"READY=1\nX_COLOUR=red\nSTATUS=Serving.\nWATCHDOG_USEC=soon\n");
/// assert_eq!(notices.next(), Some(Ok(Notice::Ready)));
/// assert_eq!(notices.next(), Some(Ok(Notice::Status("Serving."))));
/// assert_eq!(notices.next(), Some(Err(ParseError::Value)));
/// assert_eq!(notices.next(), None);
/// ```
pub fn parse(message: &[u8]) -> Notices<'_> {
    let text = message.strip_suffix(b"\0").unwrap_or(message);
    let (rest, refused) = match text {
        [] => (text, Some(ParseError::Empty)),
        _ if text.contains(&0) => (&[][..], Some(ParseError::Nul)),
        _ => (text, None),
    };
    Notices { rest, refused }
}

/// The notices of a message, in its order; see [`parse`].
#[derive(Clone, Debug)]
#[must_use = "iterators are lazy"]
pub struct Notices<'a> {
    rest: &'a [u8],
    refused: Option<ParseError>,
}

impl<'a> Iterator for Notices<'a> {
    type Item = Result<Notice<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(garbage) = self.refused.take() {
            return Some(Err(garbage));
        }
        while !self.rest.is_empty() {
            let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
            let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
            let line = self.rest.get(..end).unwrap_or_default();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if let Some(meaning) = meaning(line).transpose() {
                return Some(meaning);
            }
        }
        None
    }
}

impl FusedIterator for Notices<'_> {}

/// The notice of a line; `None` for an empty line or an unknown key.
fn meaning(line: &[u8]) -> Result<Option<Notice<'_>>, ParseError> {
    if line.is_empty() {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| ParseError::NotUtf8)?;
    let (key, value) = match line.split_once('=') {
        Some((key, value)) if !key.is_empty() => (key, value),
        _ => return Err(ParseError::NotAnAssignment),
    };
    let notice = match (key, value) {
        ("READY", "1") => Notice::Ready,
        ("RELOADING", "1") => Notice::Reloading,
        ("STOPPING", "1") => Notice::Stopping,
        ("WATCHDOG", "1") => Notice::Watchdog,
        ("WATCHDOG", "trigger") => Notice::WatchdogTrigger,
        ("EXTEND_TIMEOUT_USEC", _) => Notice::ExtendTimeout(time(value)?),
        ("WATCHDOG_USEC", _) => Notice::WatchdogEvery(time(value)?),
        ("MONOTONIC_USEC", _) => Notice::MonotonicTime(time(value)?),
        ("ERRNO", _) => Notice::Errno(errno(value)?),
        ("STATUS", _) => Notice::Status(status(value)?),
        ("MAINPID", _) => Notice::MainPidRefused,
        ("FDSTORE", "1") => Notice::StoreDescriptors,
        ("FDSTOREREMOVE", "1") => Notice::RemoveDescriptors,
        ("FDNAME", _) => Notice::DescriptorName(descriptor_name(value)?),
        ("FDPOLL", "0") => Notice::NoPoll,
        ("BARRIER", "1") => Notice::Barrier,
        ("READY" | "RELOADING" | "STOPPING" | "WATCHDOG", _) => return Err(ParseError::Value),
        _ => return Ok(None),
    };
    Ok(Some(notice))
}

/// Checks the name of a descriptor, by the rules of sd_pid_notify_with_fds(3). A colon separates the names in
/// `LISTEN_FDNAMES`.
fn descriptor_name(name: &str) -> Result<&str, ParseError> {
    is_descriptor_name(name)
        .then_some(name)
        .ok_or(ParseError::DescriptorName)
}

/// Whether a descriptor can have this name in `LISTEN_FDNAMES`.
pub(crate) fn is_descriptor_name(name: &str) -> bool {
    let is_valid = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b':';
    name.len() <= DESCRIPTOR_NAME_MAX && name.bytes().all(is_valid)
}

/// Whether a message is a barrier: it has a line `BARRIER=1`, and every other line is ignored.
///
/// ```
/// use pidherd::notify::is_barrier;
///
/// assert!(is_barrier(b"BARRIER=1"));
/// assert!(is_barrier(b"STATUS=Up.\nBARRIER=1\n"));
/// assert!(!is_barrier(b"BARRIER=0"));
/// ```
#[must_use]
pub fn is_barrier(message: &[u8]) -> bool {
    parse(message).any(|notice| notice == Ok(Notice::Barrier))
}

/// Whether a barrier has no other line.
pub(crate) fn is_pure_barrier(message: &[u8]) -> bool {
    let message = message.strip_suffix(b"\0").unwrap_or(message);
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    message.split(is_end).filter(|line| !line.is_empty()).eq([b"BARRIER=1"])
}

/// Parses microseconds in decimal digits. Zero and the largest number, systemd's "infinity", are refused: neither is a
/// deadline.
fn time(value: &str) -> Result<Duration, ParseError> {
    // Rust's own parser accepts a plus sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(0 | u64::MAX) | Err(_) => Err(ParseError::Value),
        Ok(micros) if digits => Ok(Duration::from_micros(micros)),
        Ok(_) => Err(ParseError::Value),
    }
}

/// Parses an errno in decimal digits: 1 to 4095, the largest that the kernel uses.
fn errno(value: &str) -> Result<i32, ParseError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value
        .parse()
        .ok()
        .filter(|number| digits && (1..=4_095).contains(number));
    number.ok_or(ParseError::Value)
}

/// Formats a time for `WATCHDOG_USEC`, rounded down; `None` for an endless time, as in sd_watchdog_enabled(3). Zero
/// would mean no watchdog, so the shortest is one microsecond.
pub(crate) fn watchdog_usec(time: Duration) -> Option<u64> {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    (micros != u64::MAX).then_some(micros.max(1))
}

/// A status can end up on a terminal, so control characters are refused.
fn status(value: &str) -> Result<&str, ParseError> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(ParseError::Value);
    }
    let end = (0..=value.len().min(STATUS_MAX)).rfind(|&end| value.is_char_boundary(end));
    Ok(end.and_then(|end| value.get(..end)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Vec<Result<Notice<'_>, ParseError>> {
        parse(message).collect()
    }

    #[test]
    fn every_notice_is_read() {
        let micros = |micros| Duration::from_micros(micros);
        for (line, notice) in [
            ("READY=1", Notice::Ready),
            ("RELOADING=1", Notice::Reloading),
            ("STOPPING=1", Notice::Stopping),
            ("WATCHDOG=1", Notice::Watchdog),
            ("WATCHDOG=trigger", Notice::WatchdogTrigger),
            ("EXTEND_TIMEOUT_USEC=1", Notice::ExtendTimeout(micros(1))),
            ("EXTEND_TIMEOUT_USEC=007", Notice::ExtendTimeout(micros(7))),
            ("WATCHDOG_USEC=20000000", Notice::WatchdogEvery(micros(20_000_000))),
            (
                "WATCHDOG_USEC=18446744073709551614",
                Notice::WatchdogEvery(micros(u64::MAX - 1)),
            ),
            ("ERRNO=2", Notice::Errno(2)),
            ("MONOTONIC_USEC=123", Notice::MonotonicTime(micros(123))),
            ("STATUS=", Notice::Status("")),
            ("STATUS=a=b\tß", Notice::Status("a=b\tß")),
            ("MAINPID=1", Notice::MainPidRefused),
            ("MAINPID=x", Notice::MainPidRefused),
            ("FDSTORE=1", Notice::StoreDescriptors),
            ("FDSTOREREMOVE=1", Notice::RemoveDescriptors),
            ("FDNAME=", Notice::DescriptorName("")),
            ("FDNAME=~ !=", Notice::DescriptorName("~ !=")),
            ("FDPOLL=0", Notice::NoPoll),
            ("BARRIER=1", Notice::Barrier),
        ] {
            for end in ["", "\n", "\0", "\n\0", "\r\n"] {
                let message = format!("{line}{end}");
                assert_eq!(all(message.as_bytes()), [Ok(notice)], "{message:?}");
            }
        }
    }

    #[test]
    fn several_come_in_their_order() {
        let notices = all(b"STOPPING=1\n\nSTATUS=x\nfoo\nREADY=1\nREADY=1");
        let expected = [
            Ok(Notice::Stopping),
            Ok(Notice::Status("x")),
            Err(ParseError::NotAnAssignment),
            Ok(Notice::Ready),
            Ok(Notice::Ready),
        ];
        assert_eq!(notices, expected);
    }

    #[test]
    fn what_needs_nothing_done_is_passed_over() {
        for message in [
            "BARRIER=0",
            "BUSERROR=x",
            "FDSTORE=0",
            "FDSTOREREMOVE=yes",
            "FDPOLL=1",
            "NOTIFYACCESS=all",
            "ready=1",
            " READY=1",
            "X=",
            "\n\n",
        ] {
            assert_eq!(all(message.as_bytes()), [], "{message}");
        }
    }

    #[test]
    fn garbage_is_counted_apart_from_notices() {
        for (message, garbage) in [
            (&b""[..], ParseError::Empty),
            (b"\0", ParseError::Empty),
            (b"READY=1\0\0", ParseError::Nul),
            (b"READY=1\0STOPPING=1", ParseError::Nul),
            (b"\0READY=1", ParseError::Nul),
            (b"STATUS=\xff", ParseError::NotUtf8),
            (b"\xc3=1", ParseError::NotUtf8),
            (b"READY", ParseError::NotAnAssignment),
            (b"=1", ParseError::NotAnAssignment),
            (b"READY=", ParseError::Value),
            (b"READY=0", ParseError::Value),
            (b"READY=1 ", ParseError::Value),
            (b"STOPPING=yes", ParseError::Value),
            (b"RELOADING=11", ParseError::Value),
            (b"WATCHDOG=2", ParseError::Value),
            (b"WATCHDOG_USEC=", ParseError::Value),
            (b"WATCHDOG_USEC=0", ParseError::Value),
            (b"WATCHDOG_USEC=-1", ParseError::Value),
            (b"WATCHDOG_USEC=+1", ParseError::Value),
            (b"WATCHDOG_USEC=0x1", ParseError::Value),
            (b"WATCHDOG_USEC=1 ", ParseError::Value),
            (b"WATCHDOG_USEC=18446744073709551615", ParseError::Value),
            (b"WATCHDOG_USEC=18446744073709551616", ParseError::Value),
            (b"EXTEND_TIMEOUT_USEC=1e3", ParseError::Value),
            (b"FDNAME=a:b", ParseError::DescriptorName),
            (b"FDNAME=\t", ParseError::DescriptorName),
            (b"FDNAME=\x7f", ParseError::DescriptorName),
            ("FDNAME=\u{e9}".as_bytes(), ParseError::DescriptorName),
            (b"STATUS=\x1b[2J", ParseError::Value),
            (b"STATUS=\x7f", ParseError::Value),
            ("STATUS=\u{9b}2J".as_bytes(), ParseError::Value),
        ] {
            assert_eq!(all(message), [Err(garbage)], "{message:?}");
        }
    }

    #[test]
    fn a_long_status_is_cut_after_a_whole_character() {
        for (text, length) in [
            ("x".repeat(STATUS_MAX), STATUS_MAX),
            ("x".repeat(STATUS_MAX + 1), STATUS_MAX),
            (format!("x{}", "ß".repeat(STATUS_MAX)), STATUS_MAX - 1),
            ("ß".repeat(STATUS_MAX), STATUS_MAX),
        ] {
            let message = format!("STATUS={text}\nREADY=1");
            let expected = [Ok(Notice::Status(&text[..length])), Ok(Notice::Ready)];
            assert_eq!(all(message.as_bytes()), expected);
        }
    }

    #[test]
    fn the_name_of_a_descriptor_has_at_most_255_bytes() {
        for (length, is_valid) in [(255, true), (256, false)] {
            let message = format!("FDNAME={}", "x".repeat(length));
            assert_eq!(all(message.as_bytes())[0].is_ok(), is_valid, "{length}");
        }
    }

    #[test]
    fn a_barrier_stands_alone() {
        for (message, expected) in [
            (&b"BARRIER=1"[..], (true, true)),
            (b"BARRIER=1\n\0", (true, true)),
            (b"\nBARRIER=1\r\n", (true, true)),
            (b"BARRIER=1\nX=", (true, false)),
            (b"BARRIER=1\nBARRIER=1", (true, false)),
            (b"READY=1\nBARRIER=1", (true, false)),
            (b"BARRIER=2", (false, false)),
            (b"BARRIER=1\0READY=1", (false, false)),
            (b"", (false, false)),
        ] {
            assert_eq!((is_barrier(message), is_pure_barrier(message)), expected, "{message:?}");
        }
    }
}
