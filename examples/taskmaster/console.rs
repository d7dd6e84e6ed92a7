//! Everything that is said: answers on standard output, the log on standard error, events in their
//! file. The demonstration has an audience in front of it, so there the log is on standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Stderr, Stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::output::Output;
use crate::report::{self, Report, Row};

/// How long the last lines may take at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The places that lines go to.
#[derive(Debug)]
pub struct Console {
    out: Output<Stdout>,
    log: Output<Stderr>,
    events: Option<Output<File>>,
    /// The log goes to `out`, and is painted if that is a terminal.
    staged: bool,
    colours: bool,
    log_colours: bool,
    /// How much room names get in the log.
    width: usize,
}

/// Which of the places: what a loop that waits for room has to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Out,
    /// Standard error.
    Log,
    /// The event file.
    Events,
}

impl Place {
    /// All three.
    pub const ALL: [Place; 3] = [Place::Out, Place::Log, Place::Events];
}

impl Console {
    /// Opens the event file, if there is to be one. If it is a FIFO, that waits for its reader.
    ///
    /// # Errors
    /// It can't be opened for appending.
    pub fn new(events: Option<&Path>, staged: bool) -> io::Result<Console> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path).map(Output::new);
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Console {
            events: events.map(open).transpose()?,
            out: Output::new(io::stdout()),
            log: Output::new(io::stderr()),
            staged,
            colours: wants_colour && io::stdout().is_terminal(),
            log_colours: wants_colour && io::stderr().is_terminal(),
            width: 0,
        })
    }

    /// Makes room for names of this width in the log.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// Tells of a transition.
    pub fn report(&mut self, report: &Report) {
        if let Some(events) = &mut self.events {
            events.line(&report.json());
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
            Ok(line) => self.out.line(&format!("ok: {line}")),
            Err(line) => self.out.line(&format!("error: {line}")),
        }
    }

    /// Answers with a table.
    pub fn table(&mut self, rows: &[Row]) {
        for line in report::table(rows, self.colours) {
            self.out.line(&line);
        }
    }

    /// Answers with text as it is.
    pub fn say(&mut self, line: &str) {
        self.out.line(line);
    }

    /// The same in bold.
    pub fn announce(&mut self, line: &str) {
        self.out.line(&report::bold(line, self.colours));
    }

    /// Whether lines wait for room in this place.
    pub fn is_waiting(&self, place: Place) -> bool {
        match place {
            Place::Out => self.out.is_waiting(),
            Place::Log => self.log.is_waiting(),
            Place::Events => self.events.as_ref().is_some_and(Output::is_waiting),
        }
    }

    /// There is room in this place again.
    pub fn flush(&mut self, place: Place) {
        match place {
            Place::Out => self.out.flush(),
            Place::Log => self.log.flush(),
            Place::Events => self.events.iter_mut().for_each(Output::flush),
        }
    }

    /// The descriptor of this place.
    pub fn fd(&self, place: Place) -> Option<BorrowedFd<'_>> {
        match place {
            Place::Out => Some(self.out.as_fd()),
            Place::Log => Some(self.log.as_fd()),
            Place::Events => self.events.as_ref().map(AsFd::as_fd),
        }
    }

    /// Puts what went wrong with the event file into the log.
    pub fn check_events(&mut self) {
        if let Some(trouble) = self.events.as_mut().and_then(Output::take_trouble) {
            self.note(&format!("the event file {trouble}"));
        }
    }

    /// Gives the readers a last chance to take what waits.
    pub fn finish(&mut self) {
        for place in Place::ALL {
            while self.is_waiting(place) && self.fd(place).is_some_and(gets_room) {
                self.flush(place);
            }
        }
    }

    fn log_line(&mut self, line: &str) {
        if self.staged {
            self.out.line(line)
        } else {
            self.log.line(line)
        }
    }
}

fn gets_room(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    Timespec::try_from(PATIENCE).is_ok_and(|patience| matches!(poll(&mut fds, Some(&patience)), Ok(1..)))
}
