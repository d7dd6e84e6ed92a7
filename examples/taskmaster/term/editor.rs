//! The line editor: keys change the line, the history and a search in it. It neither reads nor writes the terminal.

use serde_json::{Value, json};

use super::history::History;
use super::keys::{Key, Keys};
use super::line::{Line, Visible};
use crate::handing;

/// The editor with all that was typed.
#[derive(Debug, Default)]
pub struct Editor {
    keys: Keys,
    line: Line,
    history: History,
    /// The number of the history's line that is shown. `None` for a new line.
    place: Option<usize>,
    /// The new line, while a line of the history is shown.
    draft: String,
    search: Option<Search>,
    /// What was deleted last.
    killed: String,
    /// Whether the last key was a Tab that could not complete.
    tabbed: bool,
    /// The error of the history's file, until it is taken.
    trouble: Option<String>,
}

/// A search in the history.
#[derive(Debug, Default)]
struct Search {
    text: String,
    /// The number of the line that was found.
    found: Option<usize>,
    /// The line before the search.
    before: Line,
}

/// What the keys ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line was entered.
    Line(String),
    /// The input has ended.
    End,
    /// The word before the cursor is to be completed. The second time in a row the candidates are to be listed.
    Complete {
        /// Whether it is the second time.
        again: bool,
    },
    /// The screen is to be cleared.
    ClearScreen,
}

/// The names that a word can become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The position of the word in the line, in bytes.
    pub start: usize,
    /// The names that begin with the word, in order.
    pub candidates: Vec<String>,
}

impl Editor {
    /// An editor with an empty line.
    pub fn new(history: History) -> Editor {
        Editor {
            history,
            ..Editor::default()
        }
    }

    /// All that was typed, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        json!({
            "keys": self.keys.hand_over(),
            "line": handing::bytes(self.line.text().as_bytes()),
            "cursor": self.line.before().len(),
            "history": self.history.hand_over(),
        })
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(&mut self, left: &Value) {
        if let Some(keys) = Keys::take_over(&left["keys"]) {
            self.keys = keys;
        }
        let text = handing::to_bytes(&left["line"]).and_then(|line| String::from_utf8(line).ok());
        if let Some(text) = text {
            let cursor = handing::to_number(&left["cursor"]).unwrap_or(text.len());
            self.line = Line::new(text);
            while self.line.before().len() > cursor {
                self.line.left();
            }
        }
        self.history.take_over(&left["history"]);
    }

    /// Adds bytes from the terminal.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.keys.feed(bytes);
    }

    /// Whether bytes wait to be handled.
    pub fn is_waiting(&self) -> bool {
        self.keys.is_waiting()
    }

    /// The next key, for a view that handles the keys itself.
    pub fn next_key(&mut self) -> Option<Key> {
        self.keys.next()
    }

    /// Whether nothing is typed.
    pub fn is_empty(&self) -> bool {
        self.line.text().is_empty() && self.search.is_none()
    }

    /// Discards the line. Returns it as it was shown.
    pub fn discard(&mut self) -> String {
        self.search = None;
        self.take_line()
    }

    /// The text before the cursor.
    pub fn before(&self) -> &str {
        self.line.before()
    }

    /// The error of the history's file since the last call.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Handles keys up to the next one that asks for something. `None` if no key is left.
    pub fn next(&mut self) -> Option<Typed> {
        while let Some(key) = self.keys.next() {
            let tabbed = std::mem::take(&mut self.tabbed);
            if key == Key::Tab && self.search.is_none() {
                self.tabbed = true;
                return Some(Typed::Complete { again: tabbed });
            }
            if let Some(typed) = self.press(key) {
                return Some(typed);
            }
        }
        None
    }

    /// Completes the word before the cursor as far as the candidates agree. Returns the candidates if they are to be
    /// listed.
    pub fn complete(&mut self, completion: Completion, again: bool) -> Option<Vec<String>> {
        let Completion { start, candidates } = completion;
        let word = self.line.before().get(start..).unwrap_or_default().to_owned();
        let common = common_beginning(&candidates);
        match candidates.as_slice() {
            [] => None,
            [one] => {
                self.line.replace_before(start, &format!("{one} "));
                self.tabbed = false;
                None
            }
            _ if common.len() > word.len() => {
                self.line.replace_before(start, &common);
                None
            }
            _ => again.then_some(candidates),
        }
    }

    /// The prompt and the line, in `room` cells.
    pub fn row(&self, prompt: &str, room: usize) -> (String, Visible) {
        let (prompt, line) = match &self.search {
            Some(search) => {
                let failed = search.found.is_none() && !search.text.is_empty();
                let kind = if failed { "failed search" } else { "search" };
                let prompt = format!("({kind} \"{}\") ", search.text);
                let found = search.found.and_then(|number| self.history.get(number));
                let mut line = Line::new(found.unwrap_or_default().to_owned());
                line.home();
                (prompt, line)
            }
            None => (prompt.to_owned(), self.line.clone()),
        };
        let width = unicode_width::UnicodeWidthStr::width(prompt.as_str());
        // A terminal that is too narrow for the prompt has none.
        let (prompt, width) = if width + 8 > room {
            (String::new(), 0)
        } else {
            (prompt, width)
        };
        let visible = line.visible(room.saturating_sub(width));
        (prompt, visible)
    }

    fn press(&mut self, key: Key) -> Option<Typed> {
        if self.search.is_some() && self.press_in_search(key) {
            return None;
        }
        match key {
            Key::Char(char) => self.line.insert(char.encode_utf8(&mut [0; 4])),
            Key::Left => self.line.left(),
            Key::Right => self.line.right(),
            Key::WordLeft => self.line.word_left(),
            Key::WordRight => self.line.word_right(),
            Key::Home => self.line.home(),
            Key::End => self.line.end(),
            Key::Up => self.browse(self.place.unwrap_or(self.history.len()).checked_sub(1)),
            Key::Down => self.browse(self.place.map(|place| place + 1)),
            Key::Backspace => self.line.backspace(),
            Key::Delete => self.line.delete(),
            Key::EndOfInput if self.line.text().is_empty() => return Some(Typed::End),
            Key::EndOfInput => self.line.delete(),
            Key::KillRight => self.killed = self.line.kill_right(),
            Key::KillLeft => self.killed = self.line.kill_left(),
            Key::KillWord => self.killed = self.line.kill_word(),
            Key::KillWordLeft => self.killed = self.line.kill_word_left(),
            Key::KillWordRight => self.killed = self.line.kill_word_right(),
            Key::Yank => self.line.insert(&self.killed.clone()),
            Key::Transpose => self.line.transpose(),
            Key::Enter => {
                let line = self.take_line();
                self.trouble = self.history.add(&line);
                return Some(Typed::Line(line));
            }
            Key::Search => {
                self.search = Some(Search {
                    before: self.line.clone(),
                    ..Search::default()
                });
            }
            Key::ClearScreen => return Some(Typed::ClearScreen),
            Key::PageUp | Key::PageDown | Key::Tab | Key::Cancel => {}
        }
        None
    }

    /// Handles a key during a search. Returns whether the key is done with. Any other key ends the search, and acts on
    /// the line that was found.
    fn press_in_search(&mut self, key: Key) -> bool {
        let Some(search) = &mut self.search else { return false };
        let last = self.history.len();
        match key {
            Key::Char(char) => {
                search.text.push(char);
                let from = search.found.map_or(last, |found| found + 1);
                search.found = self.history.find(&search.text, from);
            }
            Key::Backspace => {
                search.text.pop();
                search.found = Some(last).filter(|_| !search.text.is_empty());
                search.found = search.found.and_then(|last| self.history.find(&search.text, last));
            }
            Key::Search => {
                let next = search.found.and_then(|found| self.history.find(&search.text, found));
                search.found = next.or(search.found);
            }
            Key::Cancel => {
                self.line = std::mem::take(&mut search.before);
                self.search = None;
            }
            _ => {
                let found = search.found.and_then(|number| self.history.get(number));
                self.line = match found {
                    Some(line) => Line::new(line.to_owned()),
                    None => std::mem::take(&mut search.before),
                };
                self.search = None;
                return false;
            }
        }
        true
    }

    /// Shows another line of the history. The line after the last one is the new line.
    fn browse(&mut self, place: Option<usize>) {
        let Some(place) = place else { return };
        if self.place.is_none() {
            self.draft = self.line.text().to_owned();
        }
        let line = self.history.get(place).map(str::to_owned);
        self.place = line.is_some().then_some(place);
        self.line = Line::new(line.unwrap_or_else(|| std::mem::take(&mut self.draft)));
    }

    fn take_line(&mut self) -> String {
        self.place = None;
        self.draft.clear();
        std::mem::take(&mut self.line).text().to_owned()
    }
}

/// The longest beginning that all candidates share.
fn common_beginning(candidates: &[String]) -> String {
    let Some((first, rest)) = candidates.split_first() else {
        return String::new();
    };
    let shared = |length: usize, other: &String| {
        let pairs = first.char_indices().zip(other.chars());
        let differs = pairs.clone().find(|((_, a), b)| a != b).map(|((at, _), _)| at);
        length.min(differs.unwrap_or(first.len().min(other.len())))
    };
    let length = rest.iter().fold(first.len(), shared);
    first.get(..length).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: &str = "\x1b[A";
    const DOWN: &str = "\x1b[B";

    fn editor(lines: &[&str]) -> Editor {
        let mut history = History::open(None);
        lines.iter().for_each(|line| drop(history.add(line)));
        Editor::new(history)
    }

    /// Types all of it. Returns what was asked for.
    fn types(editor: &mut Editor, text: &str) -> Vec<Typed> {
        editor.feed(text.as_bytes());
        std::iter::from_fn(|| editor.next()).collect()
    }

    fn shown(editor: &Editor) -> String {
        let (prompt, visible) = editor.row("> ", 80);
        prompt + &visible.text
    }

    #[test]
    fn enter_returns_the_line_and_keeps_the_keys_after_it() {
        let mut editor = editor(&[]);
        editor.feed(b"sttus\x1b[D\x1b[D\x1b[Da\nstop\n");
        assert_eq!(editor.next(), Some(Typed::Line("status".to_owned())));
        assert!(editor.is_waiting() && editor.is_empty());
        assert_eq!(editor.next(), Some(Typed::Line("stop".to_owned())));
        assert_eq!(editor.next(), None);
    }

    #[test]
    fn the_end_of_input_needs_an_empty_line() {
        let mut editor = editor(&[]);
        assert_eq!(types(&mut editor, "ab\x1b[D\x04"), []);
        assert_eq!(shown(&editor), "> a");
        assert_eq!(types(&mut editor, "\x7f\x04"), [Typed::End]);
    }

    #[test]
    fn the_history_is_browsed_and_the_new_line_is_kept() {
        let mut editor = editor(&["one", "two"]);
        types(&mut editor, &format!("new{UP}"));
        assert_eq!(shown(&editor), "> two");
        types(&mut editor, &format!("{UP}{UP}{UP}"));
        assert_eq!(shown(&editor), "> one");
        types(&mut editor, &format!("{DOWN}{DOWN}"));
        assert_eq!(shown(&editor), "> new");
        types(&mut editor, DOWN);
        assert_eq!(shown(&editor), "> new");
        assert_eq!(
            types(&mut editor, &format!("{UP}!\n")),
            [Typed::Line("two!".to_owned())]
        );
        types(&mut editor, UP);
        assert_eq!(shown(&editor), "> two!");
    }

    #[test]
    fn the_history_is_searched() {
        let mut editor = editor(&["stop web", "status", "stop api", "status"]);
        types(&mut editor, "x\x12sto");
        assert_eq!(shown(&editor), "(search \"sto\") stop api");
        types(&mut editor, "\x12");
        assert_eq!(shown(&editor), "(search \"sto\") stop web");
        types(&mut editor, "\x7f\x7fx");
        assert_eq!(shown(&editor), "(failed search \"sx\") ");
        types(&mut editor, "\x07");
        assert_eq!(shown(&editor), "> x");
        assert_eq!(types(&mut editor, "\x12web\n"), [Typed::Line("stop web".to_owned())]);
        types(&mut editor, "\x12api\x05!");
        assert_eq!(shown(&editor), "> stop api!");
    }

    #[test]
    fn words_are_completed_as_far_as_the_candidates_agree() {
        let mut editor = editor(&[]);
        let completion = |start, names: &[&str]| Completion {
            start,
            candidates: names.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(types(&mut editor, "stop w\t"), [Typed::Complete { again: false }]);
        let two = ["web:web_0", "web:web_1"];
        assert_eq!(editor.complete(completion(5, &two), false), None);
        assert_eq!(shown(&editor), "> stop web:web_");
        assert_eq!(types(&mut editor, "\t"), [Typed::Complete { again: true }]);
        assert!(editor.complete(completion(5, &two), true).is_some());
        assert_eq!(types(&mut editor, "1\t"), [Typed::Complete { again: false }]);
        assert_eq!(editor.complete(completion(5, &two[1..]), false), None);
        assert_eq!(shown(&editor), "> stop web:web_1 ");
        assert_eq!(editor.complete(completion(15, &[]), true), None);
    }

    #[test]
    fn what_was_deleted_is_inserted_again() {
        let mut editor = editor(&[]);
        types(&mut editor, "stop web\x17restart \x19");
        assert_eq!(shown(&editor), "> stop restart web");
    }

    #[test]
    fn everything_typed_is_handed_over() {
        let mut old = editor(&["one"]);
        types(&mut old, "st\u{e9}tus\x1b[D\x1b[D\x1b[");
        let mut new = editor(&[]);
        new.take_over(&old.hand_over());
        types(&mut new, "D!");
        assert_eq!(shown(&new), "> st\u{e9}!tus");
        types(&mut new, UP);
        assert_eq!(shown(&new), "> one");
    }

    #[test]
    fn a_narrow_terminal_has_no_prompt() {
        let mut editor = editor(&[]);
        types(&mut editor, "status web");
        let (prompt, visible) = editor.row("taskmaster> ", 12);
        assert_eq!((prompt.as_str(), visible.text.as_str()), ("", "status web"));
        let (prompt, visible) = editor.row("taskmaster> ", 20);
        assert_eq!((prompt.as_str(), visible.cursor), ("taskmaster> ", 7));
    }
}
