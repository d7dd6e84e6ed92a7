//! The user at a terminal: a prompt, a line editor, a history and completion.
//!
//! The terminal is one more descriptor of the main loop. Its bytes become keys (the crate terminput decodes them), and
//! the editor keeps the line. Nothing here waits, so supervision goes on while a line is typed. A library such as
//! rustyline reads the terminal in a thread of its own and in a loop of its own: it would take input that belongs to
//! the shell when the taskmaster is in the background, and a second thread forbids what the hand-over does.
//!
//! The prompt is one row, the last one. Each line of output first erases it, and it is drawn again below when no more
//! output waits. `console` does both, because all output goes through it.

use serde_json::Value;

mod editor;
mod history;
mod keys;
mod line;
mod modes;

pub use editor::{Completion, Editor, Typed};
pub use keys::Key;
#[cfg(test)]
pub use keys::Keys;
pub use modes::{LEAVE_VIEW, size};

use history::History;
use modes::Modes;

/// The prompt.
pub const PROMPT: &str = "taskmaster> ";

/// The terminal of the user.
#[derive(Debug)]
pub struct Term {
    /// The line that is typed.
    pub editor: Editor,
    modes: Modes,
    is_active: bool,
}

impl Term {
    /// Prepares the terminal. Nothing is changed before [`Term::activate`].
    pub fn new() -> Term {
        modes::restore_at_panic();
        let history = History::open(history::path(|name| std::env::var_os(name)));
        Term {
            editor: Editor::new(history),
            modes: Modes::default(),
            is_active: false,
        }
    }

    /// What was typed, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        self.editor.hand_over()
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(&mut self, left: &Value) {
        self.editor.take_over(left);
    }

    /// Whether the editor has the terminal.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Takes the terminal, if this is the foreground job. Returns whether the editor has it.
    pub fn activate(&mut self) -> bool {
        self.is_active = self.modes.enter();
        self.is_active
    }

    /// Returns the terminal as it was.
    pub fn release(&mut self) {
        self.modes.leave();
        self.is_active = false;
    }

    /// Records that the terminal belongs to another job.
    pub fn lose(&mut self) {
        self.modes.forget();
        self.is_active = false;
    }
}
