//! Everything that the taskmaster writes: answers on standard output, the log on standard error, events in their file.
//! The demonstration is made to be looked at, so its log is on standard output.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::files;
use crate::output::{LossNotice, Output};
use crate::report::{self, Report, Row};

/// The three channels, each with where its lines go.
#[derive(Debug)]
pub struct Console {
    out: Sink,
    log: Sink,
    events: Option<Sink>,
    /// The log goes to `out`, and is painted if that is a terminal.
    staged: bool,
    colours: bool,
    log_colours: bool,
    /// How much room names get in the log.
    width: usize,
}

/// A kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Out,
    /// Standard error.
    Log,
    /// The event file.
    Events,
}

impl Channel {
    /// All three.
    pub const ALL: [Channel; 3] = [Channel::Out, Channel::Log, Channel::Events];

    fn name(self) -> &'static str {
        match self {
            Channel::Out => "standard output",
            Channel::Log => "standard error",
            Channel::Events => "the event file",
        }
    }
}

/// An output, and the file behind it if it has a name.
#[derive(Debug)]
struct Sink {
    output: Output,
    path: Option<PathBuf>,
}

impl Console {
    /// Opens the event file, if there is to be one. A FIFO is waited for until it has a reader.
    ///
    /// # Errors
    /// One line: the event file can't be opened for appending, or no descriptor is free.
    pub fn new(events: Option<&Path>, staged: bool) -> Result<Console, String> {
        let (out, log) = (io::stdout(), io::stderr());
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let notice = if staged {
            LossNotice::InPlace
        } else {
            LossNotice::Report
        };
        Ok(Console {
            events: events.map(Sink::events).transpose()?,
            out: Sink::stream(out.as_fd(), notice).map_err(|error| cannot_write(Channel::Out, error))?,
            log: Sink::stream(log.as_fd(), LossNotice::InPlace).map_err(|error| cannot_write(Channel::Log, error))?,
            staged,
            colours: wants_colour && out.is_terminal(),
            log_colours: wants_colour && log.is_terminal(),
            width: 0,
        })
    }

    /// Makes room for names of this width in the log.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// Writes a transition to the event file and to the log.
    pub fn report(&mut self, report: &Report) {
        if let Some(events) = &mut self.events {
            events.output.line(&report.json());
        }
        let colours = if self.staged { self.colours } else { self.log_colours };
        let text = report.text(self.width, colours);
        self.log_line(&text);
    }

    /// Puts a line into the log.
    pub fn note(&mut self, line: &str) {
        self.log_line(&format!("taskmaster: {line}"));
    }

    /// Answers a command.
    pub fn answer(&mut self, answer: &Result<String, String>) {
        match answer {
            Ok(line) => self.say(&format!("ok: {line}")),
            Err(line) => self.say(&format!("error: {line}")),
        }
    }

    /// Answers with a table.
    pub fn table(&mut self, rows: &[Row]) {
        for line in report::table(rows, self.colours) {
            self.say(&line);
        }
    }

    /// Answers with text as it is.
    pub fn say(&mut self, line: &str) {
        self.out.output.answer(line);
    }

    /// The same in bold.
    pub fn announce(&mut self, line: &str) {
        self.say(&report::bold(line, self.colours));
    }

    /// Whether another command can be answered.
    pub fn has_room(&self) -> bool {
        self.out.output.has_room()
    }

    /// Whether lines wait for room in this sink.
    pub fn is_waiting(&self, channel: Channel) -> bool {
        self.sink(channel).is_some_and(|sink| sink.output.is_waiting())
    }

    /// There is room on this channel again.
    pub fn flush(&mut self, channel: Channel) {
        if let Some(sink) = self.sink_mut(channel) {
            sink.output.flush();
        }
    }

    /// The loop cannot wait for room in this sink.
    pub fn fail(&mut self, channel: Channel, error: Errno) {
        if let Some(sink) = self.sink_mut(channel) {
            sink.output.fail(error);
        }
    }

    /// The descriptor of this sink.
    pub fn fd(&self, channel: Channel) -> Option<BorrowedFd<'_>> {
        self.sink(channel).map(|sink| sink.output.as_fd())
    }

    /// Puts what went wrong with the other channels into the log.
    pub fn check(&mut self) {
        for channel in [Channel::Out, Channel::Events] {
            let report = self.sink_mut(channel).and_then(|sink| sink.output.take_report());
            if let Some(report) = report {
                self.note(&format!("{} {report}", channel.name()));
            }
        }
    }

    /// Gives up what waits, at the end. The log gets a line about what the other channels have lost.
    pub fn abandon(&mut self) {
        for channel in [Channel::Out, Channel::Events] {
            let report = self.sink_mut(channel).and_then(|sink| sink.output.abandon());
            if let Some(report) = report {
                self.note(&format!("{} {report}", channel.name()));
            }
        }
    }

    /// Opens anew what was renamed or removed; a line about each file that was, and about each that cannot be opened
    /// and is written on as it is.
    pub fn reopen(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for channel in Channel::ALL {
            let reopened = self.sink_mut(channel).map(|sink| sink.reopen(channel));
            match reopened {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(path))) => lines.push(format!("{} is {} from now on", channel.name(), path.display())),
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

    fn log_line(&mut self, line: &str) {
        if self.staged {
            self.out.output.line(line);
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
            // The working directory may change, and the file stays where it is.
            path: std::path::absolute(path).ok(),
        })
    }

    /// A standard stream. If it is a regular file, its path is found out now: after a rename the kernel answers with the
    /// new one.
    fn stream(fd: BorrowedFd<'_>, notice: LossNotice) -> io::Result<Sink> {
        Ok(Sink {
            output: Output::new(fd, notice)?,
            path: files::path_of(fd),
        })
    }

    /// Opens the file anew, unless its name still means the same file. Returns the path then.
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
                // Programs that write to the taskmaster's own streams follow.
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

fn cannot_write(channel: Channel, error: io::Error) -> String {
    format!("cannot write to {}: {}", channel.name(), files::reason(error))
}
