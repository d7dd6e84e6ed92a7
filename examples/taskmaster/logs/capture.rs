//! Finds what a program writes between supervisord's tokens, which is an event and no part of the log.

/// What begins a capture.
const BEGIN: &[u8] = b"<!--XSUPERVISOR:BEGIN-->";
/// What ends a capture.
const END: &[u8] = b"<!--XSUPERVISOR:END-->";

/// A piece of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A part of the log.
    Plain(&'a [u8]),
    /// A part of what is captured.
    Captured(&'a [u8]),
    /// All that was captured between two tokens.
    Complete(&'a [u8]),
}

/// The state of one output. Its size is bounded by that of a token and by the size of what is captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Whether the last token was the one that begins a capture.
    pub is_on: bool,
    /// The end of the output if a token may have begun there.
    pub tail: Vec<u8>,
    /// What was captured so far.
    pub held: Vec<u8>,
}

impl Capture {
    /// Takes the next part of the output. Of a capture, the last `most` bytes are kept.
    pub fn feed(&mut self, data: &[u8], most: usize, mut take: impl FnMut(Piece<'_>)) {
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(data);
        let mut rest = joined.as_slice();
        loop {
            let token = if self.is_on { END } else { BEGIN };
            let found = find(rest, token);
            let open = found.unwrap_or_else(|| rest.len() - beginning(rest, token));
            let (piece, others) = rest.split_at(open);
            self.put(piece, most, &mut take);
            if found.is_none() {
                self.tail = others.to_vec();
                return;
            }
            if self.is_on {
                take(Piece::Complete(&self.held));
                self.held.clear();
            }
            self.is_on = !self.is_on;
            rest = &others[token.len()..];
        }
    }

    /// Takes the end of the output. What was captured without its end is dropped, as in supervisord.
    pub fn finish(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.is_on && !self.tail.is_empty() {
            take(Piece::Plain(&self.tail));
        }
        *self = Capture::default();
    }

    fn put(&mut self, piece: &[u8], most: usize, take: &mut impl FnMut(Piece<'_>)) {
        if piece.is_empty() {
            return;
        }
        if !self.is_on {
            return take(Piece::Plain(piece));
        }
        take(Piece::Captured(piece));
        self.held.extend_from_slice(piece);
        let excess = self.held.len().saturating_sub(most);
        self.held.drain(..excess);
    }
}

/// The place of the first token.
fn find(data: &[u8], token: &[u8]) -> Option<usize> {
    data.windows(token.len()).position(|window| window == token)
}

/// The number of bytes at the end that may be the beginning of a token.
fn beginning(data: &[u8], token: &[u8]) -> usize {
    let longest = data.len().min(token.len() - 1);
    (1..=longest)
        .rev()
        .find(|&length| data.ends_with(&token[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"a<!--XSUPERVISOR:BEGIN-->one<b>two<!--XSUPERVISOR:END-->b<!--XSUPERVISOR:BEGIN-->\
        <!--XSUPERVISOR:END--><!--X<";

    /// The log, what is captured, and each capture.
    fn fed(parts: &[&[u8]], most: usize) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
        let (mut plain, mut captured, mut complete) = (Vec::new(), Vec::new(), Vec::new());
        let mut capture = Capture::default();
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Plain(piece) => plain.extend_from_slice(piece),
            Piece::Captured(piece) => captured.extend_from_slice(piece),
            Piece::Complete(piece) => complete.push(piece.to_vec()),
        };
        parts.iter().for_each(|part| capture.feed(part, most, &mut take));
        capture.finish(&mut take);
        (plain, captured, complete)
    }

    #[test]
    fn tokens_are_found_wherever_the_output_is_cut() {
        let expected = (
            b"ab<!--X<".to_vec(),
            b"one<b>two".to_vec(),
            vec![b"one<b>two".to_vec(), Vec::new()],
        );
        assert_eq!(fed(&[TEXT], 100), expected);
        for cut in 0..TEXT.len() {
            let (first, second) = TEXT.split_at(cut);
            assert_eq!(fed(&[first, second], 100), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = TEXT.chunks(1).collect();
        assert_eq!(fed(&bytes, 100), expected);
    }

    #[test]
    fn a_capture_is_bounded_and_one_without_an_end_is_dropped() {
        assert_eq!(fed(&[TEXT], 5).2[0], b"b>two");
        let (plain, captured, complete) = fed(&[b"x<!--XSUPERVISOR:BEGIN-->lost"], 100);
        assert_eq!((plain.as_slice(), captured.as_slice()), (&b"x"[..], &b"lost"[..]));
        assert!(complete.is_empty());
    }
}
