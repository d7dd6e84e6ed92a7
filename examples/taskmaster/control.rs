//! The command line on standard input: bytes become lines. The module `command` has the syntax of a line.
//!
//! The peer may be another program. So a line may arrive in pieces, several lines may arrive at once, and a line may
//! end in CRLF, contain no valid text, or never end. The memory use never exceeds one [`LONGEST_LINE`], and each bad
//! line gets a one-line answer.

use serde_json::{Value, json};

use crate::handing;

/// The length of the longest command, in bytes.
pub const LONGEST_LINE: usize = 4096;

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// Whether the current line is too long, so that the rest of it is discarded.
    skipping: bool,
}

/// A line, or the error that stands for it.
pub type Line = Result<String, String>;

/// Lines that were not carried out, for the program that takes the place of this one.
pub fn hand_over<'a>(lines: impl Iterator<Item = &'a Line>) -> Value {
    let line = |line: &Line| match line {
        Ok(line) => json!({ "line": line }),
        Err(error) => json!({ "error": error }),
    };
    lines.map(line).collect::<Vec<_>>().into()
}

/// The reverse of [`hand_over`].
pub fn take_over(left: &Value) -> Option<Vec<Line>> {
    handing::to_list(left, |line| match &line["line"] {
        Value::String(line) => Some(Ok(line.clone())),
        _ => Some(Err(handing::to_text(&line["error"])?)),
    })
}

impl Lines {
    /// The incomplete line, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        json!({ "pending": handing::bytes(&self.pending), "skipping": self.skipping })
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(left: &Value) -> Option<Lines> {
        Some(Lines {
            pending: handing::to_bytes(&left["pending"])?,
            skipping: left["skipping"].as_bool()?,
        })
    }

    /// Adds bytes, and passes each complete line to `each`.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Line)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.take_in(line);
            each(self.complete());
            rest = after.get(1..).unwrap_or_default();
        }
        self.take_in(rest);
    }

    /// The last line, if the stream ended without a newline.
    pub fn finish(&mut self) -> Option<Line> {
        (self.skipping || !self.pending.is_empty()).then(|| self.complete())
    }

    fn take_in(&mut self, bytes: &[u8]) {
        self.skipping |= self.pending.len() + bytes.len() > LONGEST_LINE;
        if self.skipping {
            self.pending.clear();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn complete(&mut self) -> Line {
        let line = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.skipping) {
            return Err(format!("a command must not be longer than {LONGEST_LINE} bytes"));
        }
        String::from_utf8(line).map_err(|_| "a command must be UTF-8".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| seen.push(line));
        }
        seen.extend(lines.finish());
        seen
    }

    #[test]
    fn lines_come_in_any_pieces() {
        let whole = [
            Ok("one".to_owned()),
            Ok("two\r".to_owned()),
            Ok(String::new()),
            Ok("three".to_owned()),
        ];
        assert_eq!(lines(&[b"one\ntwo\r\n\nthree"]), whole);
        assert_eq!(lines(&[b"o", b"ne\ntwo", b"\r", b"\n\n", b"", b"three\n"]), whole);
        assert_eq!(lines(&[]), []);
    }

    #[test]
    fn an_endless_line_uses_bounded_memory() {
        let mut reader = Lines::default();
        for _ in 0..1000 {
            reader.feed(&[b'x'; 1000], |_| unreachable!());
            assert!(reader.pending.capacity() <= 2 * LONGEST_LINE);
        }
        let mut seen = Vec::new();
        reader.feed(b"x\nstatus\n", |line| seen.push(line));
        assert!(seen[0].as_ref().unwrap_err().contains("4096"));
        assert_eq!(seen[1], Ok("status".to_owned()));
        let longest = [b'x'; LONGEST_LINE];
        assert!(lines(&[&longest, b"\n"])[0].is_ok());
        assert!(lines(&[&longest, b"x"])[0].is_err());
    }

    #[test]
    fn lines_and_a_part_of_one_are_handed_over() {
        let mut reader = Lines::default();
        reader.feed(b"stat\xc3", |_| unreachable!());
        let mut next = Lines::take_over(&reader.hand_over()).unwrap();
        let mut seen = Vec::new();
        next.feed(b"\xa9\n\xff\n", |line| seen.push(line));
        assert_eq!(seen[0], Ok("stat\u{e9}".to_owned()));
        assert_eq!(take_over(&hand_over(seen.iter())), Some(seen));
    }

    #[test]
    fn bytes_that_are_not_text_are_one_bad_line() {
        let seen = lines(&[b"stat\xffus\nstatus\n"]);
        assert!(seen[0].is_err());
        assert_eq!(seen[1], Ok("status".to_owned()));
    }
}
