//! The text of a message, taken apart: no system call, no allocation, no way to fail as a whole.

use std::iter::FusedIterator;
use std::str;
use std::time::Duration;

/// How many bytes of a status are passed on.
pub const STATUS_MAX: usize = 512;

/// One thing that a process says about itself (sd_notify(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// `READY=1`: the start, or a reload, is complete.
    Ready,
    /// `RELOADING=1`: it reads its configuration again, and will say [`Notice::Ready`] after that.
    Reloading,
    /// `STOPPING=1`: it has begun to end.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: what is under way takes this long from now on, if no deadline is
    /// later anyway. Never zero; up to the longest time in microseconds that a `u64` holds, so the host sets a bound.
    ExtendTimeout(Duration),
    /// `WATCHDOG=1`: it is alive.
    Watchdog,
    /// `WATCHDOG=trigger`: it has found itself to have failed, and asks to be treated as if it had
    /// not reported in time.
    WatchdogTrigger,
    /// `WATCHDOG_USEC=`: from now on it reports at least this often. Never zero: a watchdog can't be
    /// turned off by the watched.
    WatchdogEvery(Duration),
    /// `STATUS=`: what it does, for people. A single line without control characters, at most
    /// [`STATUS_MAX`] bytes, cut after a whole character; may be empty.
    Status(&'a str),
    /// `MAINPID=`: it asks that another process be supervised in its place. This is told so that it
    /// can be reported; the number is not, for nothing good could be done with it.
    MainPidRefused,
}

/// A part of a message that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Garbage {
    /// The message has no text.
    #[error("an empty message")]
    Empty,
    /// There is a NUL in it (one at the very end is let pass), so all of it is discarded.
    #[error("a message with a NUL byte")]
    Nul,
    /// A line is not UTF-8.
    #[error("a line that is not UTF-8")]
    NotUtf8,
    /// A line has no `=`, or nothing before it.
    #[error("a line that is no KEY=VALUE")]
    NotAnAssignment,
    /// The key is known, the value is none for it: not a number, out of range, with control
    /// characters.
    #[error("a value that its key cannot have")]
    Value,
}

/// Takes a message apart, line by line. Lines with unknown keys are passed over, as are those that
/// need nothing done: `BARRIER`, `ERRNO`, `BUSERROR`, `FDSTORE` and others.
///
/// ```
/// use pidherd::notify::{Garbage, Notice, parse};
///
/// let mut notices = parse(b"READY=1\nX_COLOUR=red\nSTATUS=Serving.\nWATCHDOG_USEC=soon\n");
/// assert_eq!(notices.next(), Some(Ok(Notice::Ready)));
/// assert_eq!(notices.next(), Some(Ok(Notice::Status("Serving."))));
/// assert_eq!(notices.next(), Some(Err(Garbage::Value)));
/// assert_eq!(notices.next(), None);
/// ```
pub fn parse(message: &[u8]) -> Notices<'_> {
    let text = message.strip_suffix(b"\0").unwrap_or(message);
    let (rest, refused) = match text {
        [] => (text, Some(Garbage::Empty)),
        _ if text.contains(&0) => (&[][..], Some(Garbage::Nul)),
        _ => (text, None),
    };
    Notices { rest, refused }
}

/// What a message says, in its order; see [`parse`].
#[derive(Clone, Debug)]
#[must_use = "iterators are lazy"]
pub struct Notices<'a> {
    rest: &'a [u8],
    refused: Option<Garbage>,
}

impl<'a> Iterator for Notices<'a> {
    type Item = Result<Notice<'a>, Garbage>;

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

/// What a line says; nothing, if it is empty or its key unknown.
fn meaning(line: &[u8]) -> Result<Option<Notice<'_>>, Garbage> {
    if line.is_empty() {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| Garbage::NotUtf8)?;
    let (key, value) = match line.split_once('=') {
        Some((key, value)) if !key.is_empty() => (key, value),
        _ => return Err(Garbage::NotAnAssignment),
    };
    let notice = match (key, value) {
        ("READY", "1") => Notice::Ready,
        ("RELOADING", "1") => Notice::Reloading,
        ("STOPPING", "1") => Notice::Stopping,
        ("WATCHDOG", "1") => Notice::Watchdog,
        ("WATCHDOG", "trigger") => Notice::WatchdogTrigger,
        ("EXTEND_TIMEOUT_USEC", _) => Notice::ExtendTimeout(time(value)?),
        ("WATCHDOG_USEC", _) => Notice::WatchdogEvery(time(value)?),
        ("STATUS", _) => Notice::Status(status(value)?),
        ("MAINPID", _) => Notice::MainPidRefused,
        ("READY" | "RELOADING" | "STOPPING" | "WATCHDOG", _) => return Err(Garbage::Value),
        _ => return Ok(None),
    };
    Ok(Some(notice))
}

/// Microseconds in decimal digits. Zero is no time, and the greatest number is systemd's "infinity":
/// neither is a deadline.
fn time(value: &str) -> Result<Duration, Garbage> {
    // Rust's own parser would take a plus sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(0 | u64::MAX) | Err(_) => Err(Garbage::Value),
        Ok(micros) if digits => Ok(Duration::from_micros(micros)),
        Ok(_) => Err(Garbage::Value),
    }
}

/// The same the other way: a time as `WATCHDOG_USEC` has it, rounded down; `None` for one that is never over, as
/// sd_watchdog_enabled(3) has it. Zero would be no watchdog, so the shortest is one microsecond.
pub(crate) fn watchdog_usec(time: Duration) -> Option<u64> {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    (micros != u64::MAX).then_some(micros.max(1))
}

/// The text may end up on a terminal, which must not take orders from it.
fn status(value: &str) -> Result<&str, Garbage> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Garbage::Value);
    }
    let end = (0..=value.len().min(STATUS_MAX)).rfind(|&end| value.is_char_boundary(end));
    Ok(end.and_then(|end| value.get(..end)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Vec<Result<Notice<'_>, Garbage>> {
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
            ("STATUS=", Notice::Status("")),
            ("STATUS=a=b\tß", Notice::Status("a=b\tß")),
            ("MAINPID=1", Notice::MainPidRefused),
            ("MAINPID=x", Notice::MainPidRefused),
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
            Err(Garbage::NotAnAssignment),
            Ok(Notice::Ready),
            Ok(Notice::Ready),
        ];
        assert_eq!(notices, expected);
    }

    #[test]
    fn what_needs_nothing_done_is_passed_over() {
        for message in [
            "BARRIER=1",
            "ERRNO=2",
            "BUSERROR=x",
            "FDSTORE=1\nFDNAME=a",
            "FDSTOREREMOVE=1",
            "NOTIFYACCESS=all",
            "MONOTONIC_USEC=1",
            "ready=1",
            " READY=1",
            "X=",
            "\n\n",
        ] {
            assert_eq!(all(message.as_bytes()), [], "{message}");
        }
    }

    #[test]
    fn garbage_is_told_from_notices() {
        for (message, garbage) in [
            (&b""[..], Garbage::Empty),
            (b"\0", Garbage::Empty),
            (b"READY=1\0\0", Garbage::Nul),
            (b"READY=1\0STOPPING=1", Garbage::Nul),
            (b"\0READY=1", Garbage::Nul),
            (b"STATUS=\xff", Garbage::NotUtf8),
            (b"\xc3=1", Garbage::NotUtf8),
            (b"READY", Garbage::NotAnAssignment),
            (b"=1", Garbage::NotAnAssignment),
            (b"READY=", Garbage::Value),
            (b"READY=0", Garbage::Value),
            (b"READY=1 ", Garbage::Value),
            (b"STOPPING=yes", Garbage::Value),
            (b"RELOADING=11", Garbage::Value),
            (b"WATCHDOG=2", Garbage::Value),
            (b"WATCHDOG_USEC=", Garbage::Value),
            (b"WATCHDOG_USEC=0", Garbage::Value),
            (b"WATCHDOG_USEC=-1", Garbage::Value),
            (b"WATCHDOG_USEC=+1", Garbage::Value),
            (b"WATCHDOG_USEC=0x1", Garbage::Value),
            (b"WATCHDOG_USEC=1 ", Garbage::Value),
            (b"WATCHDOG_USEC=18446744073709551615", Garbage::Value),
            (b"WATCHDOG_USEC=18446744073709551616", Garbage::Value),
            (b"EXTEND_TIMEOUT_USEC=1e3", Garbage::Value),
            (b"STATUS=\x1b[2J", Garbage::Value),
            (b"STATUS=\x7f", Garbage::Value),
            ("STATUS=\u{9b}2J".as_bytes(), Garbage::Value),
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
}
