//! The terminal in the main loop: keys become commands, and the prompt is below all output.

use std::io;

use pidherd::Signal;

use super::model::App;
use crate::complete::{self, Names};
use crate::report::{self, in_columns};
use crate::signals;
use crate::term::{PROMPT, Term, Typed};

/// The size of a terminal that does not know it, in columns and rows.
pub(super) const SIZE: (usize, usize) = (80, 24);

impl App {
    /// Takes the terminal for the editor, if this is the foreground job.
    pub(super) fn take_terminal(&mut self) {
        if self.input.is_ended() {
            return;
        }
        if let Some(term) = &mut self.term {
            if term.activate() {
                self.console.measure();
            }
        }
    }

    /// Returns the terminal as it was, without prompt and view.
    pub(super) fn return_terminal(&mut self) {
        self.close_view();
        self.console.erase_prompt();
        if let Some(term) = &mut self.term {
            term.release();
        }
    }

    /// Records that another job has the terminal.
    pub(super) fn lose_terminal(&mut self) {
        if let Some(term) = &mut self.term {
            term.lose();
        }
        self.console.erase_prompt();
    }

    /// Passes bytes of the terminal to the editor. Returns whether the editor has the terminal.
    pub(super) fn type_in(&mut self, bytes: &[u8]) -> bool {
        // A read that succeeds shows that this is the foreground job.
        if !self.is_interactive() {
            self.take_terminal();
        }
        match &mut self.term {
            Some(term) if term.is_active() => {
                term.editor.feed(bytes);
                true
            }
            _ => false,
        }
    }

    /// Whether the line editor has the terminal.
    pub(super) fn is_interactive(&self) -> bool {
        self.term.as_ref().is_some_and(Term::is_active)
    }

    /// Whether keys were typed that are not handled yet.
    pub(super) fn has_keys(&self) -> bool {
        self.term
            .as_ref()
            .is_some_and(|term| term.is_active() && term.editor.is_waiting())
    }

    /// Handles keys until one of them completes a command.
    pub(super) fn take_keys(&mut self) -> io::Result<()> {
        while self.commands.is_empty() && self.console.has_room() && self.has_keys() {
            if self.view.takes_keys() {
                self.press_in_view();
                continue;
            }
            let Some(typed) = self.term.as_mut().and_then(|term| term.editor.next()) else {
                break;
            };
            match typed {
                Typed::Line(line) if self.view.takes_lines() => self.send_to_process(&line),
                Typed::Line(line) => {
                    let prompt = report::bold(PROMPT, self.console.has_colours());
                    self.console.say(&format!("{prompt}{line}"));
                    self.commands.push_back(Ok(line));
                }
                Typed::End if self.view.is_open() => self.close_view(),
                Typed::End => self.end_input()?,
                Typed::Complete { again } => self.complete(again),
                Typed::ClearScreen => self.console.clear_screen(),
            }
        }
        let trouble = self.term.as_mut().and_then(|term| term.editor.take_trouble());
        if let Some(trouble) = trouble {
            self.console.warn(&trouble);
        }
        Ok(())
    }

    /// Draws the prompt below the output, if the editor has the terminal.
    pub(super) fn show_prompt(&mut self) {
        if !self.is_interactive() || self.view.takes_keys() {
            return;
        }
        let Some(term) = &self.term else { return };
        // A process in the foreground gets the line, and has its own prompt.
        let prompt = if self.view.is_open() { "" } else { PROMPT };
        let columns = self.console.size().unwrap_or(SIZE).0;
        let (prompt, line) = term.editor.row(prompt, columns);
        if self.view.is_open() && term.editor.is_empty() {
            return self.console.erase_prompt();
        }
        let before = unicode_width::UnicodeWidthStr::width(prompt.as_str());
        self.console.draw_prompt(&prompt, &line.text, before + line.cursor);
    }

    /// Handles Ctrl-C. Returns whether the signal is done with. Otherwise it stops all programs.
    ///
    /// # Errors
    /// The kernel refuses a call that the loop needs.
    pub(super) fn interrupt(&mut self, signal: Signal) -> io::Result<bool> {
        if signal != Signal::INT || !self.is_interactive() {
            return Ok(false);
        }
        // What was typed before the key may still be unread.
        self.read_commands()?;
        while self.has_keys() && self.console.has_room() {
            self.take_keys()?;
            self.obey_some()?;
        }
        if self.herd.is_closing() {
            return Ok(false);
        }
        if self.view.is_open() {
            self.close_view();
            return Ok(true);
        }
        let Some(term) = self.term.as_mut().filter(|term| !term.editor.is_empty()) else {
            return Ok(false);
        };
        let line = term.editor.discard();
        let prompt = report::bold(PROMPT, self.console.has_colours());
        self.console.say(&format!("{prompt}{line}^C"));
        Ok(true)
    }

    /// Stops the taskmaster with the terminal as it was, until SIGCONT.
    pub(super) fn suspend(&mut self) {
        let covered = self.view.covers_the_screen();
        if covered {
            self.console.end_view();
        }
        self.console.erase_prompt();
        if let Some(term) = &mut self.term {
            term.release();
        }
        signals::stop_until_continued();
        self.take_terminal();
        if covered {
            self.console.begin_view();
            self.show_top();
        }
    }

    fn complete(&mut self, again: bool) {
        let (columns, rows) = self.console.size().unwrap_or(SIZE);
        let herd = &self.herd;
        let Some(term) = &mut self.term else { return };
        let completion = complete::complete(term.editor.before(), || Names {
            all: herd.known_names(),
            groups: herd.known_groups(),
        });
        if let Some(candidates) = term.editor.complete(completion, again) {
            let lines = in_columns(&candidates, columns.saturating_sub(1));
            // The list leaves room for the line that is typed.
            let most = rows.saturating_sub(3).max(1);
            lines.iter().take(most).for_each(|line| self.console.say(line));
            if lines.len() > most {
                self.console.say(&format!("... {} names in all", candidates.len()));
            }
        }
    }
}
