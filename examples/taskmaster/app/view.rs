//! What a user watches until Ctrl-C: `top`, `tail -f` and `fg`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use pidherd::InstanceId;

use super::model::App;
use super::typing::SIZE;
use super::watch::{Follow, Open};
use crate::config::Channel;
use crate::http::Tail;
use crate::term::Key;
use crate::top::{self, Top};

/// The number of bytes of a log that one turn shows.
const CHUNK: usize = 64 << 10;

impl App {
    /// Shows the table of all runs: live at a terminal, and once elsewhere.
    pub(super) fn begin_top(&mut self) -> Result<(), String> {
        if self.is_interactive() {
            self.console.begin_view();
            self.view.set(Open::Top(Top::default())).map_err(no_timer)?;
            self.show_top();
            return Ok(());
        }
        let (herd, console) = (&self.herd, &self.console);
        let columns = console.size().map(|(columns, _)| columns);
        let lines = top::table(&herd.runs(), |run| herd.usage(run), columns, console.has_colours());
        lines.iter().for_each(|line| self.console.say(line));
        Ok(())
    }

    /// Shows what is added to a log, until Ctrl-C. With a process, typed lines go to it.
    pub(super) fn begin_follow(&mut self, path: &Path, process: Option<InstanceId>) -> Result<(), String> {
        if !self.is_interactive() {
            return Err("only a terminal can follow a log, because Ctrl-C ends it".to_owned());
        }
        let cannot_read = |error| format!("cannot read {}: {}", path.display(), crate::files::reason(error));
        drop(crate::files::read_at_once(path).map_err(cannot_read)?);
        let tail = Tail::open(path).map_err(cannot_read)?;
        let process = process.and_then(|id| Some((id, self.herd.info(id)?.pid)));
        let follow = Follow {
            tail,
            process,
            has_more: true,
        };
        self.view.set(Open::Follow(follow)).map_err(no_timer)?;
        self.console.say("==> Press Ctrl-C to exit <==");
        self.follow(&BTreeSet::new());
        Ok(())
    }

    /// Ends the view.
    pub(super) fn close_view(&mut self) {
        match std::mem::replace(&mut self.view.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Top(_) => self.console.end_view(),
            Open::Follow(follow) if follow.process.is_some() => self.console.say("Exiting foreground"),
            Open::Follow(_) => self.console.end_row(),
        }
        // An armed timer without a view does no harm.
        let _armed = self.view.arm();
    }

    /// Renews the view.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        if self.view.acknowledge()? {
            self.view.arm()?;
            if let Open::Follow(follow) = &mut self.view.open {
                follow.has_more = true;
            }
            self.show_top();
        }
        Ok(())
    }

    /// Draws the next picture of `top`.
    pub(super) fn show_top(&mut self) {
        let Open::Top(top) = &mut self.view.open else { return };
        let (herd, console) = (&self.herd, &self.console);
        let size = console.size().unwrap_or(SIZE);
        let log = |most| console.held_lines(most);
        let rows = top.picture(&herd.runs(), |run| herd.usage(run), log, size, console.has_colours());
        self.console.show_view(&rows);
    }

    /// Handles a key for a view.
    pub(super) fn press_in_view(&mut self) {
        let Some(key) = self.term.as_mut().and_then(|term| term.editor.next_key()) else {
            return;
        };
        if matches!(key, Key::Char('q' | 'Q') | Key::EndOfInput) {
            return self.close_view();
        }
        let Open::Top(top) = &mut self.view.open else {
            if key == Key::Enter {
                self.console.pass_on("\n");
            }
            return;
        };
        match key {
            Key::Up | Key::Char('k') => top.scroll(-1),
            Key::Down | Key::Char('j') => top.scroll(1),
            Key::PageUp => top.turn_page(-1),
            Key::PageDown | Key::Char(' ') => top.turn_page(1),
            Key::Home => top.scroll(isize::MIN),
            Key::End => top.scroll(isize::MAX),
            _ => return,
        }
        self.show_top();
    }

    /// Shows what was added to the log that is followed. `written` has the logs that this turn has written.
    pub(super) fn follow(&mut self, written: &BTreeSet<PathBuf>) {
        let Open::Follow(follow) = &mut self.view.open else {
            return;
        };
        follow.has_more |= written.contains(follow.tail.path());
        if !follow.has_more || !self.console.has_room() {
            return;
        }
        let process = follow.process;
        match follow.tail.more(CHUNK) {
            Ok(bytes) if !bytes.is_empty() => return self.console.pass_on(&String::from_utf8_lossy(&bytes)),
            Ok(_) => follow.has_more = false,
            Err(error) => {
                let line = format!("error: cannot read {}: {error}", follow.tail.path().display());
                self.console.say(&line);
                return self.close_view();
            }
        }
        if let Some((id, pid)) = process {
            if self.herd.info(id).is_none_or(|info| info.pid != pid) {
                self.console.say("Process got killed");
                self.close_view();
            }
        }
    }

    /// Sends a typed line to the process in the foreground.
    pub(super) fn send_to_process(&mut self, line: &str) {
        let Open::Follow(Follow {
            process: Some((id, _)), ..
        }) = self.view.open
        else {
            return;
        };
        self.console.say(line);
        if let Err(error) = self.herd.send_input(id, format!("{line}\n").as_bytes()) {
            let reason = match error.kind() {
                io::ErrorKind::BrokenPipe => "its standard input is not a pipe (stdin=pipe) or is closed".to_owned(),
                _ => crate::files::reason(error),
            };
            self.console.say(&format!("error: {reason}"));
            self.close_view();
        }
    }

    /// `fg`: shows the output of a running process, and sends it what is typed.
    pub(super) fn begin_foreground(&mut self, name: &str) -> Result<(), String> {
        let id = self.herd.chosen_one(name)?;
        if self.herd.info(id).is_none_or(|info| info.pid == 0) {
            return Err(format!("{name} is not running"));
        }
        let path = self.herd.log_of(id, Channel::Out)?;
        self.begin_follow(&path, Some(id))
    }
}

fn no_timer(error: io::Error) -> String {
    format!("cannot arm a timer: {}", crate::files::reason(error))
}
