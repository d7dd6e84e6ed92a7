//! The keys of a terminal: bytes become keys, and keys become what the editor does.
//!
//! A key may be a sequence of several bytes, and a read may end in the middle of one. So the bytes of an incomplete
//! key wait for the next read, and are handed over to the next program.

use std::collections::VecDeque;

use serde_json::{Value, json};
use terminput::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::handing;

/// The longest sequence of a key, in bytes. Longer ones are discarded.
const LONGEST: usize = 64;

const ESCAPE: u8 = 0x1b;

/// What a key does. The names of the keys are those of Emacs and readline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Inserts this character.
    Char(char),
    /// One character to the left: Left, Ctrl-B.
    Left,
    /// One character to the right: Right, Ctrl-F.
    Right,
    /// One word to the left: Ctrl-Left, Alt-B.
    WordLeft,
    /// One word to the right: Ctrl-Right, Alt-F.
    WordRight,
    /// To the beginning: Home, Ctrl-A.
    Home,
    /// To the end: End, Ctrl-E.
    End,
    /// The previous line of the history: Up, Ctrl-P.
    Up,
    /// The next line of the history: Down, Ctrl-N.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// Deletes the character before the cursor: Backspace, Ctrl-H.
    Backspace,
    /// Deletes the character at the cursor.
    Delete,
    /// Deletes the character at the cursor. In an empty line, the end of the input: Ctrl-D.
    EndOfInput,
    /// Deletes to the end: Ctrl-K.
    KillRight,
    /// Deletes to the beginning: Ctrl-U.
    KillLeft,
    /// Deletes the word before the cursor, up to a blank: Ctrl-W.
    KillWord,
    /// Deletes the word before the cursor: Alt-Backspace.
    KillWordLeft,
    /// Deletes the word after the cursor: Alt-D.
    KillWordRight,
    /// Inserts what was deleted last: Ctrl-Y.
    Yank,
    /// Exchanges two characters: Ctrl-T.
    Transpose,
    /// Completes the word.
    Tab,
    /// Enters the line: Enter, Ctrl-J, Ctrl-M.
    Enter,
    /// Searches the history backwards: Ctrl-R.
    Search,
    /// Ends a search: Ctrl-G, Escape.
    Cancel,
    /// Clears the screen: Ctrl-L.
    ClearScreen,
}

/// The keys that were typed and not handled yet.
#[derive(Debug, Default)]
pub struct Keys {
    unread: VecDeque<u8>,
    /// The bytes of an incomplete key.
    begun: Vec<u8>,
}

impl Keys {
    /// Adds bytes from the terminal.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
    }

    /// Whether bytes wait to be handled. Those of an incomplete key do not count.
    pub fn is_waiting(&self) -> bool {
        !self.unread.is_empty()
    }

    /// All bytes, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        let bytes: Vec<u8> = self.begun.iter().chain(&self.unread).copied().collect();
        json!(handing::bytes(&bytes))
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(left: &Value) -> Option<Keys> {
        Some(Keys {
            unread: handing::to_bytes(left)?.into(),
            begun: Vec::new(),
        })
    }

    /// The next key. `None` if no complete key is there.
    pub fn next(&mut self) -> Option<Key> {
        while let Some(byte) = self.unread.pop_front() {
            self.begun.push(byte);
            if self.begun == [ESCAPE] {
                // The key Escape and the beginning of a sequence are the same byte. The next byte decides.
                continue;
            }
            if is_mouse(&self.begun) {
                self.begun.clear();
                continue;
            }
            match Event::parse_from(&self.begun) {
                Ok(None) if self.begun.len() < LONGEST => continue,
                Ok(Some(Event::Key(event))) => {
                    self.begun.clear();
                    if let Some(key) = meaning(event) {
                        return Some(key);
                    }
                }
                // A sequence without a meaning here, or bytes that are no text.
                Ok(_) | Err(_) => self.begun.clear(),
            }
        }
        None
    }
}

/// Whether the bytes are a complete report of the mouse with decimal numbers: `ESC [ < 0 ; 1 ; 1 M`, or without `<`. No
/// key begins like this. The parser computes with the numbers without a check.
fn is_mouse(bytes: &[u8]) -> bool {
    let escapes = bytes.iter().take_while(|&&byte| byte == ESCAPE).count();
    matches!(
        bytes.get(escapes..),
        Some([b'[', b'<', .., b'M' | b'm'] | [b'[', b'0'..=b'9', .., b'M'])
    )
}

fn meaning(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let alt = event.modifiers.contains(KeyModifiers::ALT);
    let ctrl = event.modifiers.contains(KeyModifiers::CTRL);
    let key = match event.code {
        KeyCode::Char(char) if ctrl && !alt => return control(char),
        KeyCode::Char(char) if alt => return alternate(char),
        KeyCode::Char(char) if !char.is_control() => Key::Char(char),
        KeyCode::Left if alt || ctrl => Key::WordLeft,
        KeyCode::Right if alt || ctrl => Key::WordRight,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Backspace if alt => Key::KillWordLeft,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Tab => Key::Tab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Cancel,
        _ => return None,
    };
    Some(key)
}

fn control(char: char) -> Option<Key> {
    Some(match char {
        'a' => Key::Home,
        'b' => Key::Left,
        'd' => Key::EndOfInput,
        'e' => Key::End,
        'f' => Key::Right,
        'g' => Key::Cancel,
        'h' => Key::Backspace,
        'j' | 'm' => Key::Enter,
        'k' => Key::KillRight,
        'l' => Key::ClearScreen,
        'n' => Key::Down,
        'p' => Key::Up,
        'r' => Key::Search,
        't' => Key::Transpose,
        'u' => Key::KillLeft,
        'w' => Key::KillWord,
        'y' => Key::Yank,
        _ => return None,
    })
}

fn alternate(char: char) -> Option<Key> {
    Some(match char {
        'b' | 'B' => Key::WordLeft,
        'f' | 'F' => Key::WordRight,
        'd' | 'D' => Key::KillWordRight,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pieces: &[&[u8]]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut all = Vec::new();
        for piece in pieces {
            keys.feed(piece);
            all.extend(std::iter::from_fn(|| keys.next()));
        }
        all
    }

    #[test]
    fn keys_may_come_in_any_pieces() {
        let all = b"a\xc3\xa9\x1b[A\x1bOB\x1b[1;5C\x1b[3~\x1bb\x7f\x1b\x7f\n\r\t\x04";
        let wanted = [
            Key::Char('a'),
            Key::Char('\u{e9}'),
            Key::Up,
            Key::Down,
            Key::WordRight,
            Key::Delete,
            Key::WordLeft,
            Key::Backspace,
            Key::KillWordLeft,
            Key::Enter,
            Key::Enter,
            Key::Tab,
            Key::EndOfInput,
        ];
        assert_eq!(keys(&[all]), wanted);
        let pieces: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(keys(&pieces), wanted);
    }

    #[test]
    fn bytes_without_a_meaning_are_discarded() {
        assert_eq!(keys(&[b"\xff\xfea"]).last(), Some(&Key::Char('a')));
        assert_eq!(keys(&[b"\x00\x1b[999~\x1b[Za"]).last(), Some(&Key::Char('a')));
        let endless = [b"\x1b[".as_slice(), &[b'1'; 1000], b"\x04"].concat();
        let mut typed = Keys::default();
        typed.feed(&endless);
        while typed.next().is_some() {}
        assert!(typed.begun.len() <= LONGEST && !typed.is_waiting());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let length = random.usize(1..12);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            if random.bool() {
                bytes.splice(0..0, *b"\x1b[");
            }
            let text: &[u8] = b"0123456789;:<?OMm~u\x1b[A";
            bytes.extend(std::iter::repeat_with(|| text[random.usize(..text.len())]).take(6));
            keys(&[&bytes]);
        }
    }

    #[test]
    fn a_part_of_a_key_is_handed_over() {
        let mut typed = Keys::default();
        typed.feed(b"\x1b[");
        assert_eq!(typed.next(), None);
        typed.feed(b"1;5");
        let mut next = Keys::take_over(&typed.hand_over()).unwrap();
        next.feed(b"Dx");
        assert_eq!([next.next(), next.next()], [Some(Key::WordLeft), Some(Key::Char('x'))]);
    }
}
