//! The loop: one bare epoll for the supervisor, the signals, the commands, and the room for lines that are read slowly.
//!
//! The herd is one descriptor in it, the supervisor's. With nothing to do there is no turn at all.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pidherd::SignalFd;
use rustix::io::Errno;

use crate::config;
use crate::console::{Channel, Console};
use crate::control::{Command, HELP, Line, Lines};
use crate::demo::Tour;
use crate::herd::{Herd, News, Verb};
use crate::input::{Input, Taken};
use crate::poller::{Poller, Source};
use crate::signals::{self, Meaning};

/// How long the readers may take for the last lines without taking any.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long commands are carried out before the other sources have their turn: one `status` may be of thousands.
const SLICE: Duration = Duration::from_millis(5);

/// Everything at work.
#[derive(Debug)]
pub struct App {
    poller: Poller,
    herd: Herd,
    signals: SignalFd,
    console: Console,
    input: Input,
    lines: Lines,
    /// Commands that were read and not yet carried out.
    commands: VecDeque<Line>,
    /// Where the configuration is read from again; `None` in the demonstration.
    config: Option<PathBuf>,
    tour: Option<Tour>,
}

impl App {
    /// Puts everything together. Nothing is started.
    ///
    /// # Errors
    /// The kernel refuses a descriptor, or to watch one.
    pub fn new(
        herd: Herd,
        signals: SignalFd,
        console: Console,
        config: Option<PathBuf>,
        tour: Option<Tour>,
    ) -> io::Result<App> {
        let mut poller = Poller::new()?;
        poller.watch(Source::Herd, herd.as_fd(), true)?;
        poller.watch(Source::Signals, signals.as_fd(), true)?;
        if let Some(tour) = &tour {
            poller.watch(Source::Tour, tour.as_fd(), true)?;
        }
        Ok(App {
            poller,
            herd,
            signals,
            console,
            input: Input::new()?,
            lines: Lines::default(),
            commands: VecDeque::new(),
            config,
            tour,
        })
    }

    /// Starts what is to be started, and goes on until everything is down. Whether all went well.
    ///
    /// # Errors
    /// The kernel refuses something that a loop can't do without.
    pub fn run(mut self) -> io::Result<bool> {
        self.console.set_width(self.herd.widest_name());
        self.herd.autostart();
        loop {
            self.herd.start_some();
            self.tell_news();
            self.obey_some()?;
            if self.herd.is_over() {
                break;
            }
            self.watch_for_room();
            self.watch_for_commands();
            self.turn()?;
        }
        if self.tour.is_some() {
            self.console.announce("That is all.");
        }
        self.finish()?;
        Ok(self.herd.went_well())
    }

    /// Waits until something is ready, and serves it all.
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.poller.wait(self.longest_wait())?;
        self.input.look(Instant::now());
        for source in ready {
            match source {
                Source::Herd => self.herd.dispatch()?,
                Source::Signals => self.read_signals()?,
                Source::Input => self.read_commands()?,
                Source::Tour => self.take_tour()?,
                Source::Room(channel) => self.console.flush(channel),
            }
        }
        if self.input.is_plain() {
            self.read_commands()?;
        }
        Ok(())
    }

    /// How long the next turn may wait; `None` for as long as nothing happens.
    fn longest_wait(&self) -> Option<Duration> {
        let has_commands = !self.commands.is_empty() && self.console.has_room();
        let reads_on = self.input.is_plain() && self.takes_commands();
        if self.herd.is_starting() || has_commands || reads_on {
            return Some(Duration::ZERO);
        }
        let look_at = self.input.look_at()?;
        Some(look_at.saturating_duration_since(Instant::now()))
    }

    /// Whether more commands are to be read. While the answers are not read they are not: the commands then wait
    /// where they are, and the memory stays bounded without losing a line.
    fn takes_commands(&self) -> bool {
        self.commands.is_empty() && self.console.has_room()
    }

    fn tell_news(&mut self) {
        while let Some(news) = self.herd.next_news() {
            match news {
                News::Report(report) => self.console.report(&report),
                News::Note(line) => self.console.note(&line),
            }
        }
        self.console.check();
    }

    /// Asks epoll for the room that lines wait for, and only then.
    fn watch_for_room(&mut self) {
        for channel in Channel::ALL {
            let waits = self.console.is_waiting(channel);
            let Some(fd) = self.console.fd(channel) else { continue };
            if let Err(error) = self.poller.watch(Source::Room(channel), fd, waits) {
                self.console.fail(channel, error);
            }
        }
    }

    /// Asks epoll for commands, if they can be answered.
    fn watch_for_commands(&mut self) {
        let wanted = self.input.is_watched() && self.takes_commands();
        match self.poller.watch(Source::Input, self.input.as_fd(), wanted) {
            Ok(()) => {}
            Err(Errno::PERM) => self.input.set_plain(),
            // A lack of memory is no reason to end the supervision.
            Err(_) => self.input.put_off(),
        }
    }

    fn read_signals(&mut self) -> io::Result<()> {
        let own_pid = std::process::id();
        while let Some(info) = self.signals.read()? {
            // A write without a reader brings SIGPIPE, and a write beyond the limit of a file's size SIGXFSZ. That write
            // has failed, and its error is reported.
            if info.sender.is_some_and(|sender| sender.as_raw() == own_pid) {
                continue;
            }
            match signals::meaning(info.signal) {
                Meaning::Reload => self.reload_and_reopen(),
                Meaning::Reopen => self.reopen(),
                Meaning::Continued => self.input.resume(),
                Meaning::Note => self.console.note(&format!("{}: nothing is done about it", info.signal)),
                Meaning::Shutdown if self.herd.is_closing() => {
                    self.console
                        .note(&format!("{} again: killing what is left", info.signal));
                    self.herd.kill_all();
                }
                Meaning::Shutdown => {
                    self.console.note(&format!("{}: shutting down", info.signal));
                    self.herd.shut_down();
                }
            }
        }
        Ok(())
    }

    /// SIGHUP means both: scripts that rotate logs send it, and so does an administrator who changed the configuration.
    fn reload_and_reopen(&mut self) {
        let lines = self.open_anew();
        lines.iter().for_each(|line| self.console.note(line));
        let answer = self.reload().map(|line| format!("reload: {line}"));
        self.console.note(&answer.unwrap_or_else(|line| line));
    }

    fn reopen(&mut self) {
        let lines = self.open_anew();
        if lines.is_empty() {
            self.console
                .note("nothing that the taskmaster writes was renamed; a program opens its log files when it starts");
        }
        lines.iter().for_each(|line| self.console.note(line));
    }

    fn open_anew(&mut self) -> Vec<String> {
        // What epoll watches is about to be closed.
        for channel in Channel::ALL {
            if let Some(fd) = self.console.fd(channel) {
                let _not_watched = self.poller.watch(Source::Room(channel), fd, false);
            }
        }
        self.console.reopen()
    }

    fn read_commands(&mut self) -> io::Result<()> {
        if !self.takes_commands() {
            return Ok(());
        }
        let commands = &mut self.commands;
        match self.input.take() {
            Taken::Nothing => {}
            Taken::Bytes(bytes) => self.lines.feed(&bytes, |line| commands.push_back(line)),
            Taken::End => {
                commands.extend(self.lines.finish());
                self.poller.watch(Source::Input, self.input.as_fd(), false)?;
                if self.input.is_terminal() {
                    self.console
                        .note("the end of the commands, but not of the programs: Ctrl-C or SIGTERM stops them");
                }
            }
        }
        Ok(())
    }

    /// Carries out some of the commands that were read, as long as there is room for answers.
    fn obey_some(&mut self) -> io::Result<()> {
        let end = Instant::now() + SLICE;
        while self.console.has_room() {
            let Some(line) = self.commands.pop_front() else { break };
            if line != Ok(String::new()) {
                self.take_over()?;
            }
            self.obey_line(line);
            if Instant::now() >= end {
                break;
            }
        }
        Ok(())
    }

    /// A command that is typed at a terminal ends the tour.
    fn take_over(&mut self) -> io::Result<()> {
        if let Some(tour) = self.tour.as_mut().filter(|_| self.input.is_terminal()) {
            if tour.cancel()? {
                self.console
                    .announce("The tour is over, it is all yours now: try help; shutdown ends it.");
            }
        }
        Ok(())
    }

    fn take_tour(&mut self) -> io::Result<()> {
        let Some(step) = self.tour.as_mut().map(Tour::next_step).transpose()?.flatten() else {
            return Ok(());
        };
        if !self.herd.is_closing() {
            self.console.announce(&format!("> {}    ({})", step.types, step.says));
            self.obey_line(Ok(step.types.to_owned()));
        }
        Ok(())
    }

    fn obey_line(&mut self, line: Line) {
        match line.and_then(|line| Command::parse(&line)) {
            Ok(Some(command)) => self.obey(command),
            Ok(None) => {}
            Err(error) => self.console.answer(&Err(error)),
        }
        self.tell_news();
    }

    fn obey(&mut self, command: Command) {
        let answer = match command {
            Command::Status(name) => match self.herd.status(name.as_deref()) {
                Ok(rows) if rows.is_empty() => Ok("status: there is nothing".to_owned()),
                Ok(rows) => return self.console.table(&rows),
                Err(error) => Err(error),
            },
            Command::Start(name) => self.herd.apply(Verb::Start, &name),
            Command::Stop(name) => self.herd.apply(Verb::Stop, &name),
            Command::Restart(name) => self.herd.apply(Verb::Restart, &name),
            Command::Signal(signal, name) => self.herd.apply(Verb::Signal(signal), &name),
            Command::Scale(group, count) => self.herd.scale(&group, count),
            Command::Reload => self.reload().map(|line| format!("reload: {line}")),
            Command::Shutdown if self.herd.is_closing() => Ok("shutdown: under way".to_owned()),
            Command::Shutdown => {
                self.herd.shut_down();
                Ok("shutdown: begun".to_owned())
            }
            Command::Help => return HELP.iter().for_each(|line| self.console.say(line)),
        };
        self.console.set_width(self.herd.widest_name());
        self.console.answer(&answer);
    }

    /// Reads the configuration again. With a mistake in it, everything goes on as it was.
    fn reload(&mut self) -> Result<String, String> {
        let path = self
            .config
            .as_deref()
            .ok_or("there is no configuration file to read again")?;
        let config = config::load_again(path).map_err(|problems| {
            let (first, others) = problems
                .split_first()
                .map_or(("", 0), |(first, rest)| (first.as_str(), rest.len()));
            problems.iter().for_each(|problem| self.console.note(problem));
            let others = if others == 0 {
                String::new()
            } else {
                format!(" (and {others} more)")
            };
            format!("nothing is changed: {first}{others}")
        })?;
        config.notes.iter().for_each(|note| self.console.note(note));
        self.herd.reload(&config)
    }

    /// Gives the readers time to take what waits. Another signal to end takes it away.
    fn finish(&mut self) -> io::Result<()> {
        self.poller.watch(Source::Herd, self.herd.as_fd(), false)?;
        self.poller.watch(Source::Input, self.input.as_fd(), false)?;
        if let Some(tour) = &self.tour {
            self.poller.watch(Source::Tour, tour.as_fd(), false)?;
        }
        let mut until = Instant::now() + PATIENCE;
        while Channel::ALL.into_iter().any(|channel| self.console.is_waiting(channel)) {
            self.watch_for_room();
            let left = until.saturating_duration_since(Instant::now());
            let ready = self.poller.wait(Some(left))?;
            if left.is_zero() || ready.contains(&Source::Signals) && self.is_told_to_end()? {
                break;
            }
            for source in ready {
                if let Source::Room(channel) = source {
                    self.console.flush(channel);
                    until = Instant::now() + PATIENCE;
                }
            }
        }
        self.console.abandon();
        Ok(())
    }

    fn is_told_to_end(&self) -> io::Result<bool> {
        let mut told = false;
        while let Some(info) = self.signals.read()? {
            told |= signals::meaning(info.signal) == Meaning::Shutdown;
        }
        Ok(told)
    }
}
