//! All output of the taskmaster: answers on standard output, the log on standard error, and events in a file. The
//! demonstration writes its log to standard output.
//!
//! At a terminal the prompt is the last row. Each line erases it first, and the loop draws it again when no more lines
//! wait. If the log goes to the same terminal, it takes the same way, so that the order is kept. A view such as `top`
//! covers the screen. Lines are then held back, and written when the view ends.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::config::{Level, Supervisord};
use crate::files;
use crate::handing;
use crate::output::{LossNotice, Output};
use crate::own_log::OwnLog;
use crate::report::{self, Report, Row};
use crate::term::{self, LEAVE_VIEW};

/// The three channels and the destination of each one.
#[derive(Debug)]
pub struct Console {
    out: Sink,
    log: Sink,
    events: Option<Sink>,
    /// The log file of the configuration.
    own_log: Option<OwnLog>,
    /// The least level of the lines in the log.
    level: Level,
    /// Whether the log goes to standard output, in colours if that is a terminal.
    staged: bool,
    colours: bool,
    log_colours: bool,
    /// The width of the column of names in the log.
    width: usize,
    /// Whether a line editor may run: standard input and standard output are the same terminal.
    edits: bool,
    /// Whether the log goes to standard output, because both are the same terminal.
    joined: bool,
    /// The number of columns and rows of the terminal.
    size: Option<(usize, usize)>,
    /// The prompt that is on the screen: its bytes.
    prompt: Option<String>,
    /// Whether the last row is an incomplete line of a program.
    is_torn: bool,
    /// The lines that wait for the end of a view.
    held: Option<Held>,
}

/// The lines of the log that a view holds back.
#[derive(Debug, Default)]
struct Held {
    lines: VecDeque<String>,
    lost: u64,
}

/// The number of lines that a view holds back.
const MOST_HELD: usize = 1000;

/// A kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Answers, on standard output.
    Out,
    /// The log, on standard error.
    Log,
    /// Transitions, in the event file.
    Events,
}

impl Channel {
    /// All channels, in the order of their numbers.
    pub const ALL: [Channel; 3] = [Channel::Out, Channel::Log, Channel::Events];

    fn name(self) -> &'static str {
        match self {
            Channel::Out => "standard output",
            Channel::Log => "standard error",
            Channel::Events => "the event file",
        }
    }
}

/// An output, and its file if it has a name.
#[derive(Debug)]
struct Sink {
    output: Output,
    path: Option<PathBuf>,
}

impl Console {
    /// Opens the event file if there is one. For a FIFO, waits until it has a reader.
    ///
    /// # Errors
    /// One line: the event file cannot be opened for appending, or no descriptor is free.
    pub fn new(events: Option<&Path>, staged: bool) -> Result<Console, String> {
        let (out, log) = (io::stdout(), io::stderr());
        let notice = |channel| notice(channel, staged);
        let stream =
            |fd, channel| Sink::stream(fd, notice(channel)).map_err(|error: io::Error| cannot_write(channel, error));
        Ok(Console::of(
            stream(out.as_fd(), Channel::Out)?,
            stream(log.as_fd(), Channel::Log)?,
            events.map(Sink::events).transpose()?,
            staged,
        ))
    }

    fn of(mut out: Sink, log: Sink, events: Option<Sink>, staged: bool) -> Console {
        let edits = may_edit();
        let joined = edits && is_same_terminal(io::stdout().as_fd(), io::stderr().as_fd());
        if joined {
            out.output.set_notice(LossNotice::InPlace);
        }
        Console {
            out,
            log,
            events,
            own_log: None,
            level: Level::default(),
            staged,
            colours: wants_colour() && io::stdout().is_terminal(),
            log_colours: wants_colour() && io::stderr().is_terminal(),
            width: 0,
            edits,
            joined,
            size: term::size(),
            prompt: None,
            is_torn: false,
            held: None,
        }
    }

    /// The files and the waiting lines, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        let sink = |sink: &Sink| {
            let path = sink.path.as_deref().map(handing::path);
            json!({ "output": sink.output.hand_over(), "path": path })
        };
        json!({ "out": sink(&self.out), "log": sink(&self.log), "events": self.events.as_ref().map(sink) })
    }

    /// Continues with what the program before this one has handed over.
    pub fn take_over(left: &Value, staged: bool) -> Option<Console> {
        let sink = |left: &Value, channel| {
            Some(Sink {
                output: Output::take_over(&left["output"], notice(channel, staged))?,
                path: handing::to_path(&left["path"]),
            })
        };
        let events = match &left["events"] {
            Value::Null => None,
            events => Some(sink(events, Channel::Events)?),
        };
        let (out, log) = (sink(&left["out"], Channel::Out)?, sink(&left["log"], Channel::Log)?);
        Some(Console::of(out, log, events, staged))
    }

    /// Whether a line editor may run.
    pub fn edits(&self) -> bool {
        self.edits
    }

    /// The number of columns and rows of the terminal. `None` if they are not known.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.size
    }

    /// Whether standard output gets colours.
    pub fn has_colours(&self) -> bool {
        self.colours
    }

    /// Reads the size of the terminal again.
    pub fn measure(&mut self) {
        self.size = term::size();
        self.erase_prompt();
    }

    /// Draws the prompt, unless it is on the screen already. `cursor` is the column of the cursor. While lines wait,
    /// the prompt is not drawn.
    pub fn draw_prompt(&mut self, prompt: &str, line: &str, cursor: usize) {
        if self.held.is_some() || self.out.output.is_waiting() {
            return;
        }
        let prompt = report::bold(prompt, self.colours && !prompt.is_empty());
        let right = if cursor > 0 {
            format!("\x1b[{cursor}C")
        } else {
            String::new()
        };
        let bytes = format!("\r\x1b[K{prompt}{line}\r{right}");
        if self.prompt.as_ref() == Some(&bytes) {
            return;
        }
        self.end_row();
        self.out.output.bare(&bytes);
        self.prompt = Some(bytes);
    }

    /// Erases the prompt.
    pub fn erase_prompt(&mut self) {
        if self.prompt.take().is_some() {
            self.out.output.bare("\r\x1b[K");
        }
    }

    /// Clears the screen.
    pub fn clear_screen(&mut self) {
        self.prompt = None;
        self.out.output.bare("\x1b[H\x1b[2J");
    }

    /// Writes what a program has written. It may end in the middle of a line.
    pub fn pass_on(&mut self, text: &str) {
        if !text.is_empty() {
            self.erase_prompt();
            self.out.output.bare(text);
            self.is_torn = !text.ends_with('\n');
        }
    }

    /// Ends an incomplete line of a program.
    pub fn end_row(&mut self) {
        if std::mem::take(&mut self.is_torn) {
            self.out.output.bare("\n");
        }
    }

    /// Begins a view that covers the screen.
    pub fn begin_view(&mut self) {
        self.erase_prompt();
        self.held = Some(Held::default());
        self.out.output.bare("\x1b[?1049h\x1b[?25l\x1b[2J");
    }

    /// Shows the rows of a view. While an earlier picture waits for the terminal, there is no new one.
    pub fn show_view(&mut self, rows: &[String]) {
        if self.held.is_none() || self.out.output.is_waiting() {
            return;
        }
        let mut picture = String::from("\x1b[H");
        for (number, row) in rows.iter().enumerate() {
            let end = if number == 0 { "" } else { "\r\n" };
            // The row is erased first, because after a full row the erasure would take its last character.
            picture.push_str(&format!("{end}\x1b[K{row}"));
        }
        picture.push_str("\x1b[J");
        self.out.output.bare(&picture);
    }

    /// The last lines that the view holds back.
    pub fn held_lines(&self, most: usize) -> Vec<String> {
        let lines = self.held.iter().flat_map(|held| &held.lines);
        let mut last: Vec<String> = lines.rev().take(most).cloned().collect();
        last.reverse();
        last
    }

    /// Ends the view, and writes the lines that it has held back.
    pub fn end_view(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.out.output.bare(LEAVE_VIEW);
        if held.lost > 0 {
            self.put(&format!("taskmaster: {} earlier lines are not shown", held.lost), false);
        }
        held.lines.iter().for_each(|line| self.put(line, false));
    }

    /// Opens the log file of the configuration, and applies its level.
    pub fn log_to(&mut self, own: &Supervisord) {
        self.level = own.loglevel;
        self.own_log = own.log.as_ref().map(OwnLog::open);
        self.check_own_log();
    }

    /// The log file of the configuration.
    pub fn own_log(&mut self) -> Option<&mut OwnLog> {
        self.own_log.as_mut()
    }

    /// Sets the least level of the lines in the log.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Sets the width of the column of names in the log.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// Writes a transition to the event file and to the log.
    pub fn report(&mut self, report: &Report) {
        if let Some(events) = &mut self.events {
            events.output.line(&report.json());
        }
        let colours = if self.staged { self.colours } else { self.log_colours };
        let level = report.level();
        let columns = self.size.map(|(columns, _)| columns).filter(|_| self.edits);
        let text = report.text(self.width, columns, colours);
        self.log_line(level, &text, || report.text(0, None, false));
    }

    /// Writes a line to the log.
    pub fn note(&mut self, line: &str) {
        self.log_line(Level::Info, &format!("taskmaster: {line}"), || line.to_owned());
    }

    /// Writes a line to the log about something that went wrong.
    pub fn warn(&mut self, line: &str) {
        self.log_line(Level::Warn, &format!("taskmaster: {line}"), || line.to_owned());
    }

    /// Writes the answer to a command.
    pub fn answer(&mut self, answer: &Result<String, String>) {
        match answer {
            Ok(line) => self.say(&format!("ok: {line}")),
            Err(line) => self.say(&format!("error: {line}")),
        }
    }

    /// Writes a table as the answer to a command.
    pub fn table(&mut self, rows: &[Row]) {
        let columns = self.size.map(|(columns, _)| columns);
        for line in report::table(rows, columns, self.colours) {
            self.say(&line);
        }
    }

    /// Writes a line without changes.
    pub fn say(&mut self, line: &str) {
        self.put(line, true);
    }

    /// Writes a line to standard output, above the prompt. An answer is never dropped.
    fn put(&mut self, line: &str, is_answer: bool) {
        if let Some(held) = &mut self.held {
            if held.lines.len() == MOST_HELD {
                held.lines.pop_front();
                held.lost += 1;
            }
            held.lines.push_back(line.to_owned());
            return;
        }
        let before = match (self.prompt.take(), std::mem::take(&mut self.is_torn)) {
            (Some(_), _) => "\r\x1b[K",
            (None, true) => "\n",
            (None, false) => "",
        };
        let line = format!("{before}{line}");
        if is_answer {
            self.out.output.answer(&line);
        } else {
            self.out.output.line(&line);
        }
    }

    /// Writes a line in bold.
    pub fn announce(&mut self, line: &str) {
        self.say(&report::bold(line, self.colours));
    }

    /// Whether another answer fits.
    pub fn has_room(&self) -> bool {
        self.out.output.has_room()
    }

    /// Whether lines wait in this channel.
    pub fn is_waiting(&self, channel: Channel) -> bool {
        self.sink(channel).is_some_and(|sink| sink.output.is_waiting())
    }

    /// Writes the waiting lines of a channel that has room again.
    pub fn flush(&mut self, channel: Channel) {
        if let Some(sink) = self.sink_mut(channel) {
            sink.output.flush();
        }
    }

    /// Handles a channel that the loop cannot watch.
    pub fn fail(&mut self, channel: Channel, error: Errno) {
        if let Some(sink) = self.sink_mut(channel) {
            sink.output.fail(error);
        }
    }

    /// The descriptor of this channel. `None` if there is no event file.
    pub fn fd(&self, channel: Channel) -> Option<BorrowedFd<'_>> {
        self.sink(channel).map(|sink| sink.output.as_fd())
    }

    /// Writes problems with the other channels to the log.
    pub fn check(&mut self) {
        for channel in [Channel::Out, Channel::Events] {
            let report = self.sink_mut(channel).and_then(|sink| sink.output.take_report());
            if let Some(report) = report {
                self.warn(&format!("{} {report}", channel.name()));
            }
        }
    }

    /// Discards the waiting lines at the end. The log gets a line about the losses of the other channels.
    pub fn abandon(&mut self) {
        for channel in [Channel::Out, Channel::Events] {
            let report = self.sink_mut(channel).and_then(|sink| sink.output.abandon());
            if let Some(report) = report {
                self.warn(&format!("{} {report}", channel.name()));
            }
        }
    }

    /// Reopens each output after its file was renamed or removed. Returns a line for each reopened file, and for each
    /// file that cannot be reopened and stays in use.
    pub fn reopen(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(own_log) = &mut self.own_log {
            if own_log.reopen() {
                lines.push(format!("the log file was reopened as {}", own_log.path().display()));
            }
        }
        self.check_own_log();
        for channel in Channel::ALL {
            let reopened = self.sink_mut(channel).map(|sink| sink.reopen(channel));
            match reopened {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(path))) => lines.push(format!("{} was reopened as {}", channel.name(), path.display())),
                Some(Err(error)) => lines.push(error),
            }
        }
        lines
    }

    fn sink(&self, channel: Channel) -> Option<&Sink> {
        match channel {
            Channel::Out => Some(&self.out),
            Channel::Log => Some(&self.log),
            Channel::Events => self.events.as_ref(),
        }
    }

    fn sink_mut(&mut self, channel: Channel) -> Option<&mut Sink> {
        match channel {
            Channel::Out => Some(&mut self.out),
            Channel::Log => Some(&mut self.log),
            Channel::Events => self.events.as_mut(),
        }
    }

    /// Writes a line to the log: `line` to the stream, and `plain` to the file.
    fn log_line(&mut self, level: Level, line: &str, plain: impl Fn() -> String) {
        if level < self.level {
            return;
        }
        if let Some(own_log) = &mut self.own_log {
            own_log.line(level, &plain());
            self.check_own_log();
        }
        if self.own_log.as_ref().is_some_and(OwnLog::is_silent) {
            return;
        }
        self.stream_line(line);
    }

    /// Reports problems with the log file on the stream.
    fn check_own_log(&mut self) {
        let troubles = self.own_log.as_mut().map(OwnLog::take_troubles);
        for trouble in troubles.unwrap_or_default() {
            self.stream_line(&format!("taskmaster: {trouble}"));
        }
    }

    fn stream_line(&mut self, line: &str) {
        if self.staged || self.joined {
            self.put(line, false);
        } else {
            self.log.output.line(line);
        }
    }
}

impl Sink {
    fn events(path: &Path) -> Result<Sink, String> {
        let failed = |error| format!("cannot write events to {}: {}", path.display(), files::reason(error));
        let file = files::append(path).map_err(failed)?;
        Ok(Sink {
            output: Output::new(file.as_fd(), LossNotice::Report).map_err(failed)?,
            // The path is made absolute, because the working directory may change.
            path: std::path::absolute(path).ok(),
        })
    }

    /// A standard stream. The path of a regular file is read now, because the kernel returns the new path after a
    /// rename.
    fn stream(fd: BorrowedFd<'_>, notice: LossNotice) -> io::Result<Sink> {
        Ok(Sink {
            output: Output::new(fd, notice)?,
            path: files::path_of(fd),
        })
    }

    /// Reopens the file, unless its path still leads to the same file. Returns the path if it was reopened.
    fn reopen(&mut self, channel: Channel) -> Result<Option<&Path>, String> {
        let Some(path) = self
            .path
            .as_deref()
            .filter(|path| !files::is_still(self.output.as_fd(), path))
        else {
            return Ok(None);
        };
        let file = files::append_at_once(path).and_then(|file| {
            match channel {
                // Programs that write to the taskmaster's own streams get the new file too.
                Channel::Out => rustix::stdio::dup2_stdout(&file)?,
                Channel::Log => rustix::stdio::dup2_stderr(&file)?,
                Channel::Events => {}
            }
            self.output.replace(file.as_fd())
        });
        match file {
            Ok(()) => Ok(Some(path)),
            Err(error) => Err(format!(
                "cannot open {} for {}: {}",
                path.display(),
                channel.name(),
                files::reason(error)
            )),
        }
    }
}

/// Where the loss of lines of a channel is reported.
fn notice(channel: Channel, staged: bool) -> LossNotice {
    match channel {
        Channel::Log => LossNotice::InPlace,
        Channel::Out if staged => LossNotice::InPlace,
        Channel::Out | Channel::Events => LossNotice::Report,
    }
}

/// Whether standard input and standard output are one terminal, which understands the sequences of the editor.
fn may_edit() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    !is_dumb && is_same_terminal(io::stdin().as_fd(), io::stdout().as_fd())
}

fn is_same_terminal(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_rdev);
    one.is_terminal() && other.is_terminal() && device(one).is_ok_and(|one| device(other) == Ok(one))
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn cannot_write(channel: Channel, error: io::Error) -> String {
    format!("cannot write to {}: {}", channel.name(), files::reason(error))
}
