//! The protocol of event listeners: what a listener writes to its standard output.
//!
//! A listener writes `READY\n`, gets an event, and answers `RESULT N\n` and N bytes: `OK`, or anything else to reject
//! the event. A listener that writes anything else has violated the protocol, and gets no more events until it is
//! started again. The memory for a listener is bounded by the length of a line.

/// The state of a listener, with supervisord's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not yet asked for an event.
    #[default]
    Acknowledged,
    /// It waits for an event.
    Ready,
    /// It has an event.
    Busy,
    /// It has violated the protocol.
    Unknown,
}

/// What a listener has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It waits for an event.
    Ready,
    /// It has processed the event.
    Accepted,
    /// It has not processed the event.
    Rejected,
    /// It has violated the protocol.
    Violated(String),
}

const READY: &[u8] = b"READY\n";
const RESULT: &str = "RESULT ";
/// The longest line with a result, in bytes.
const LONGEST_LINE: usize = 64;
/// The result that accepts an event.
const OK: &[u8] = b"OK";

/// What was read from a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// The state.
    pub stage: Stage,
    /// The part of a line that was read.
    pub line: Vec<u8>,
    /// The number of bytes of the result that are missing, and whether it is `OK` so far.
    pub result: Option<(u64, bool)>,
}

impl Protocol {
    /// Takes what the listener has written.
    pub fn feed(&mut self, mut data: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        while !data.is_empty() {
            let next = match (self.stage, self.result) {
                (Stage::Unknown, _) => return said,
                (Stage::Ready, _) => Some(violated("it wrote without an event to answer", data)),
                (Stage::Acknowledged, _) => self.ready(&mut data),
                (Stage::Busy, None) => self.result_line(&mut data),
                (Stage::Busy, Some(_)) => self.result(&mut data),
            };
            let Some(next) = next else { continue };
            self.stage = match next {
                Said::Ready => Stage::Ready,
                Said::Accepted | Said::Rejected => Stage::Acknowledged,
                Said::Violated(_) => Stage::Unknown,
            };
            said.push(next);
        }
        said
    }

    fn ready(&mut self, data: &mut &[u8]) -> Option<Said> {
        let missing = READY.len() - self.line.len();
        let (part, rest) = data.split_at(missing.min(data.len()));
        self.line.extend_from_slice(part);
        *data = rest;
        if !READY.starts_with(&self.line) {
            return Some(violated("expected READY", &std::mem::take(&mut self.line)));
        }
        (self.line.len() == READY.len()).then(|| {
            self.line.clear();
            Said::Ready
        })
    }

    fn result_line(&mut self, data: &mut &[u8]) -> Option<Said> {
        let end = data.iter().position(|&byte| byte == b'\n');
        let length = end.map_or(data.len(), |end| end + 1);
        if self.line.len() + length > LONGEST_LINE {
            return Some(violated("expected RESULT and a number", data));
        }
        let (part, rest) = data.split_at(length);
        self.line.extend_from_slice(part);
        *data = rest;
        end?;
        let line = std::mem::take(&mut self.line);
        let number = std::str::from_utf8(&line).ok();
        let number = number.and_then(|line| line.strip_prefix(RESULT)?.trim().parse().ok());
        match number {
            Some(0) => Some(Said::Rejected),
            Some(number) => {
                self.result = Some((number, number == OK.len() as u64));
                None
            }
            None => Some(violated("expected RESULT and a number", &line)),
        }
    }

    fn result(&mut self, data: &mut &[u8]) -> Option<Said> {
        let (missing, is_ok) = self.result.take()?;
        let length = usize::try_from(missing).unwrap_or(usize::MAX).min(data.len());
        let (part, rest) = data.split_at(length);
        *data = rest;
        let missing_after = missing - length as u64;
        // Only a result of the length of OK can still be it.
        let place = OK.len().saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX));
        let is_ok = is_ok && OK.get(place..).is_some_and(|rest| rest.starts_with(part));
        if missing_after > 0 {
            self.result = Some((missing_after, is_ok));
            return None;
        }
        Some(if is_ok { Said::Accepted } else { Said::Rejected })
    }
}

/// The number of bytes of an unexpected text that a message repeats.
const LONGEST_QUOTE: usize = 40;

fn violated(expected: &str, data: &[u8]) -> Said {
    let quote = data.get(..LONGEST_QUOTE).unwrap_or(data);
    Said::Violated(format!("{expected}, got {:?}", String::from_utf8_lossy(quote)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener that gets an event as soon as it waits for one.
    fn all(parts: &[&[u8]]) -> Vec<Said> {
        let mut protocol = Protocol::default();
        let mut all = Vec::new();
        for part in parts {
            for said in protocol.feed(part) {
                if said == Said::Ready {
                    protocol.stage = Stage::Busy;
                }
                all.push(said);
            }
        }
        all
    }

    #[test]
    fn an_event_is_accepted_or_rejected() {
        let accepted = [Said::Ready, Said::Accepted];
        assert_eq!(all(&[b"READY\n", b"RESULT 2\nOK"]), accepted);
        let bytes: Vec<&[u8]> = b"READY\nRESULT 2\nOK".chunks(1).collect();
        assert_eq!(all(&bytes), accepted);
        for result in [&b"RESULT 4\nFAIL"[..], b"RESULT 2\nKO", b"RESULT 0\n", b"RESULT 3\nOKO"] {
            assert_eq!(all(&[b"READY\n", result]), [Said::Ready, Said::Rejected], "{result:?}");
        }
        let twice = [Said::Ready, Said::Accepted, Said::Ready];
        assert_eq!(all(&[b"READY\n", b"RESULT 2\nOKREADY\n"]), twice);
    }

    #[test]
    fn garbage_is_a_violation_and_takes_no_memory() {
        let flood = vec![b'x'; 1 << 20];
        for parts in [
            &[&b"hello\n"[..]][..],
            &[b"READY\n", b"RESULT two\nOK"],
            &[b"READY\n", b"RESULT -1\n"],
            &[b"READY\n", &flood],
            &[b"\xff"],
        ] {
            let mut protocol = Protocol::default();
            let mut last = None;
            for part in parts {
                last = protocol.feed(part).pop();
                if last == Some(Said::Ready) {
                    protocol.stage = Stage::Busy;
                }
            }
            assert!(matches!(last, Some(Said::Violated(_))), "{last:?}");
            assert_eq!((protocol.feed(b"READY\n"), protocol.stage), (vec![], Stage::Unknown));
            assert!(protocol.line.capacity() < 1000);
        }
        let mut waiting = Protocol {
            stage: Stage::Ready,
            ..Protocol::default()
        };
        assert!(matches!(waiting.feed(b"READY\n")[..], [Said::Violated(_)]));
    }
}
