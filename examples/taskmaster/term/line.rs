//! The line that is being typed, and the cursor in it.
//!
//! The cursor moves by what a reader sees as one character (grapheme clusters), and a row is measured in cells of the
//! terminal. A line that is longer than the row is shown in part, around the cursor. So the prompt never takes more
//! than one row, and one sequence erases it, whatever was typed.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::control::LONGEST_LINE;

/// The least room for a line, in cells: a wide character between two marks.
const LEAST_ROOM: usize = 4;

/// A text with a cursor. The cursor is a position in bytes, at the boundary of a character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    text: String,
    cursor: usize,
}

/// The part of a line that is visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visible {
    /// The text, at most as wide as the room for it.
    pub text: String,
    /// The number of cells before the cursor.
    pub cursor: usize,
}

impl Line {
    /// A line with the cursor at its end.
    pub fn new(text: String) -> Line {
        let cursor = text.len();
        Line { text, cursor }
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text before the cursor.
    pub fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// Inserts a text at the cursor, unless the line becomes longer than a command may be.
    pub fn insert(&mut self, text: &str) {
        if self.text.len() + text.len() <= LONGEST_LINE {
            self.text.insert_str(self.cursor, text);
            self.cursor += text.len();
        }
    }

    /// Replaces what is between `start` and the cursor.
    pub fn replace_before(&mut self, start: usize, text: &str) {
        if self.before().is_char_boundary(start) {
            self.text.replace_range(start..self.cursor, "");
            self.cursor = start;
            self.insert(text);
        }
    }

    /// Moves the cursor one character to the left.
    pub fn left(&mut self) {
        self.cursor -= self.before().graphemes(true).next_back().map_or(0, str::len);
    }

    /// Moves the cursor one character to the right.
    pub fn right(&mut self) {
        self.cursor += self.after().graphemes(true).next().map_or(0, str::len);
    }

    /// Moves the cursor to the beginning.
    pub fn home(&mut self) {
        self.cursor = 0;
    }

    /// Moves the cursor to the end.
    pub fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Moves the cursor to the beginning of a word.
    pub fn word_left(&mut self) {
        self.cursor = self.word_start(char::is_alphanumeric);
    }

    /// Moves the cursor to the end of a word.
    pub fn word_right(&mut self) {
        self.cursor = self.word_end();
    }

    /// Deletes the character before the cursor.
    pub fn backspace(&mut self) {
        let end = self.cursor;
        self.left();
        self.cut(self.cursor, end);
    }

    /// Deletes the character at the cursor.
    pub fn delete(&mut self) {
        let next = self.after().graphemes(true).next().map_or(0, str::len);
        self.cut(self.cursor, self.cursor + next);
    }

    /// Deletes everything after the cursor. Returns it.
    pub fn kill_right(&mut self) -> String {
        self.cut(self.cursor, self.text.len())
    }

    /// Deletes everything before the cursor. Returns it.
    pub fn kill_left(&mut self) -> String {
        self.cut(0, self.cursor)
    }

    /// Deletes the word before the cursor, up to a blank. Returns it.
    pub fn kill_word(&mut self) -> String {
        self.cut(self.word_start(|char| !char.is_whitespace()), self.cursor)
    }

    /// Deletes the word before the cursor, up to any character that is not a letter or a digit. Returns it.
    pub fn kill_word_left(&mut self) -> String {
        self.cut(self.word_start(char::is_alphanumeric), self.cursor)
    }

    /// Deletes the word after the cursor. Returns it.
    pub fn kill_word_right(&mut self) -> String {
        self.cut(self.cursor, self.word_end())
    }

    /// Exchanges the two characters around the cursor. At the end, the last two.
    pub fn transpose(&mut self) {
        if self.after().is_empty() {
            self.left();
        }
        let Some(left) = self.before().graphemes(true).next_back().map(str::to_owned) else {
            self.end();
            return;
        };
        let start = self.cursor - left.len();
        self.cut(start, self.cursor);
        self.right();
        self.insert(&left);
    }

    /// The part of the line that fits into `room` cells, with the cursor in it. A `<` or a `>` stands for what is
    /// left out.
    pub fn visible(&self, room: usize) -> Visible {
        let room = room.max(LEAST_ROOM);
        let characters: Vec<&str> = self.text.graphemes(true).collect();
        let at_cursor = self.before().graphemes(true).count();
        let mut before = self.before().width();
        if self.text.width() < room {
            return Visible {
                text: self.text.clone(),
                cursor: before,
            };
        }
        // The cell after the end is for the cursor.
        let cursor_cells = characters.get(at_cursor).map_or(1, |character| character.width());
        let has_more = at_cursor + 1 < characters.len();
        let mut first = 0;
        while first < at_cursor && usize::from(first > 0) + before + cursor_cells + usize::from(has_more) > room {
            before -= characters.get(first).map_or(0, |character| character.width());
            first += 1;
        }
        let mut text = if first > 0 { "<".to_owned() } else { String::new() };
        let cursor = text.len() + before;
        let mut rest = characters.iter().skip(first).peekable();
        while let Some(character) = rest.next() {
            let mark = usize::from(rest.peek().is_some());
            if text.width() + character.width() + mark > room {
                text.push('>');
                break;
            }
            text.push_str(character);
        }
        Visible { text, cursor }
    }

    fn word_start(&self, is_part: impl Fn(char) -> bool) -> usize {
        let before = self.before();
        let word = before.trim_end_matches(|char| !is_part(char));
        word.trim_end_matches(is_part).len()
    }

    fn word_end(&self) -> usize {
        let after = self.after();
        let word = after.trim_start_matches(|char: char| !char.is_alphanumeric());
        let rest = word.trim_start_matches(char::is_alphanumeric);
        self.text.len() - rest.len()
    }

    fn cut(&mut self, start: usize, end: usize) -> String {
        self.cursor = start;
        self.text.drain(start..end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, left: usize) -> Line {
        let mut line = Line::new(text.to_owned());
        (0..left).for_each(|_| line.left());
        line
    }

    fn shown(line: &Line) -> String {
        format!("{}|{}", line.before(), line.after())
    }

    #[test]
    fn the_cursor_moves_by_visible_characters() {
        // An e with a combining accent, a letter of double width, and an emoji of several code points.
        let text = "ae\u{301}\u{754c}\u{1f468}\u{200d}\u{1f469}b";
        let mut line = Line::new(text.to_owned());
        let mut steps = 0;
        while !line.before().is_empty() {
            line.left();
            steps += 1;
        }
        assert_eq!(steps, 5);
        line.right();
        line.right();
        assert_eq!(line.before(), "ae\u{301}");
        line.backspace();
        assert_eq!(line.before(), "a");
        line.delete();
        assert_eq!(line.text(), "a\u{1f468}\u{200d}\u{1f469}b");
    }

    #[test]
    fn words_are_moved_over_and_deleted() {
        let mut line = at("stop web:web_0", 0);
        line.word_left();
        assert_eq!(shown(&line), "stop web:web_|0");
        line.word_left();
        line.word_left();
        assert_eq!(shown(&line), "stop |web:web_0");
        line.word_right();
        assert_eq!(shown(&line), "stop web|:web_0");
        assert_eq!(line.kill_word_right(), ":web");
        assert_eq!(shown(&line), "stop web|_0");
        line.end();
        assert_eq!(line.kill_word(), "web_0");
        assert_eq!(line.kill_word_left(), "stop ");
        assert_eq!(shown(&line), "|");
        assert_eq!(
            (line.kill_word(), line.kill_left(), line.kill_right()),
            Default::default()
        );
        let mut line = at("stop web", 3);
        assert_eq!(line.kill_left(), "stop ");
        assert_eq!(shown(&line), "|web");
    }

    #[test]
    fn characters_are_exchanged() {
        for (left, wanted) in [(0, "sotp|"), (1, "sotp|"), (2, "spo|t"), (4, "sopt|")] {
            let mut line = at("sopt", left);
            line.transpose();
            assert_eq!(shown(&line), wanted, "{left}");
        }
    }

    #[test]
    fn a_long_line_is_shown_around_the_cursor() {
        let text = "0123456789";
        let visible = |left, room| {
            let visible = at(text, left).visible(room);
            assert!(visible.text.width() <= room && visible.cursor < room, "{visible:?}");
            (visible.text, visible.cursor)
        };
        assert_eq!(visible(0, 11), (text.to_owned(), 10));
        assert_eq!(visible(0, 8), ("<456789".to_owned(), 7));
        assert_eq!(visible(10, 8), ("0123456>".to_owned(), 0));
        for room in 4..12 {
            for left in 0..=10 {
                let (shown, cursor) = visible(left, room);
                let wanted = text.chars().nth(10 - left);
                assert!(
                    wanted.is_none() || shown.chars().nth(cursor) == wanted,
                    "the cursor is at {wanted:?} in {shown:?} of {room}, {cursor}"
                );
            }
        }
        let wide = Line::new("\u{754c}".repeat(20));
        for room in 4..45 {
            let visible = wide.visible(room);
            assert!(
                visible.text.width() <= room && visible.cursor < room,
                "{visible:?} in {room}"
            );
        }
    }

    #[test]
    fn no_line_is_longer_than_a_command_may_be() {
        let mut line = Line::default();
        line.insert(&"x".repeat(LONGEST_LINE));
        line.insert("y");
        assert_eq!(line.text().len(), LONGEST_LINE);
    }
}
