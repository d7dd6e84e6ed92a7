//! Removes the escape sequences of terminals from output (`strip_ansi`).
//!
//! A sequence may be split between two reads, so the position in it is kept. The sequences are those of ECMA-48: ESC
//! and one character, `ESC [` up to a final character (colours and movements), and `ESC ]` up to BEL or `ESC \`
//! (titles and links).

/// The position in a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strip {
    /// In ordinary text.
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After `ESC [`.
    Control,
    /// After `ESC ]`.
    String,
    /// After ESC in a string.
    StringEscape,
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

impl Strip {
    /// Removes the sequences from `bytes` in place.
    pub fn strip(&mut self, bytes: &mut Vec<u8>) {
        if *self == Strip::Text && !bytes.contains(&ESC) {
            return;
        }
        bytes.retain(|&byte| self.keeps(byte));
    }

    fn keeps(&mut self, byte: u8) -> bool {
        let (next, keeps) = match (*self, byte) {
            (Strip::Text, ESC) => (Strip::Escape, false),
            (Strip::Text, _) => (Strip::Text, true),
            (Strip::Escape, b'[') => (Strip::Control, false),
            (Strip::Escape, b']') => (Strip::String, false),
            (Strip::Escape, ESC) => (Strip::Escape, false),
            // ESC and intermediate characters, such as `ESC ( B`, which chooses a character set.
            (Strip::Escape, 0x20..=0x2f) => (Strip::Escape, false),
            (Strip::Escape, _) => (Strip::Text, false),
            (Strip::Control, 0x20..=0x3f) => (Strip::Control, false),
            (Strip::Control, ESC) => (Strip::Escape, false),
            // A newline within a sequence ends it: the sequence was incomplete.
            (Strip::Control, b'\n') => (Strip::Text, true),
            (Strip::Control, _) => (Strip::Text, false),
            (Strip::String, BEL) => (Strip::Text, false),
            (Strip::String, ESC) => (Strip::StringEscape, false),
            (Strip::String, b'\n') => (Strip::Text, true),
            (Strip::String, _) => (Strip::String, false),
            (Strip::StringEscape, _) => (Strip::Text, false),
        };
        *self = next;
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(pieces: &[&str]) -> String {
        let mut strip = Strip::default();
        let mut whole = Vec::new();
        for piece in pieces {
            let mut bytes = piece.as_bytes().to_vec();
            strip.strip(&mut bytes);
            whole.extend(bytes);
        }
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn sequences_are_removed_wherever_they_are_split() {
        let text = "a\x1b[1;31mred\x1b[0m \x1b]0;title\x07b\x1b]8;;x\x1b\\c\x1b(B\x1bMd\x1b[2K\u{e9}\n";
        assert_eq!(stripped(&[text]), "ared bcd\u{e9}\n");
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(stripped(&pieces), "ared bcd\u{e9}\n");
    }

    #[test]
    fn an_incomplete_sequence_removes_no_other_line() {
        assert_eq!(stripped(&["a\x1b[31\nb\x1b]0;t\nc"]), "a\nb\nc");
        assert_eq!(stripped(&["plain"]), "plain");
    }
}
