//! The main loop: one epoll for the supervisor, the signals, the commands, and outputs with waiting lines.
//!
//! The supervisor is one descriptor in this epoll. An idle taskmaster makes no system call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pidherd::SignalFd;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::command::Command;
use crate::config::{self, Config, World};
use crate::console::{Channel, Console};
use crate::control::{self, Line, Lines};
use crate::demo::Tour;
use crate::handing;
use crate::herd::{Herd, News};
use crate::input::{Input, Taken};
use crate::limits::OpenFiles;
use crate::poller::{Poller, Source};
use crate::rpc::{Remote, Wishes};
use crate::serving::Serving;
use crate::signals::{self, Meaning};
use crate::term::Term;

mod model;
mod obey;
mod typing;
mod view;
mod watch;

use model::Asker;
pub use model::{App, Itself};
use watch::View;

/// How long the shutdown waits for a reader that takes no line.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one turn carries out commands before the other sources are served. One `status` may cover thousands of
/// processes.
const SLICE: Duration = Duration::from_millis(5);

/// What the taskmaster consists of.
#[derive(Debug)]
pub struct Parts {
    /// The programs.
    pub herd: Herd,
    /// The signals.
    pub signals: SignalFd,
    /// All output.
    pub console: Console,
    /// Standard input.
    pub input: Input,
    /// The configuration file. `None` in the demonstration.
    pub config: Option<PathBuf>,
    /// The tour of the demonstration.
    pub tour: Option<Tour>,
    /// The taskmaster's own process.
    pub itself: Itself,
    /// The server for supervisorctl.
    pub serving: Option<Serving>,
}

/// How the taskmaster has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All programs were stopped.
    Clean,
    /// A stop was cut short, or a process survived SIGKILL.
    GivenUp,
    /// The taskmaster begins anew, with this limit of open files if it differs from its own.
    Anew(Option<OpenFiles>),
}

impl App {
    /// Assembles the parts. Nothing is started.
    ///
    /// # Errors
    /// The kernel refuses to create a descriptor or to watch it.
    pub fn new(parts: Parts) -> io::Result<App> {
        let Parts {
            herd,
            signals,
            console,
            input,
            config,
            tour,
            itself,
            serving,
        } = parts;
        let term = console.edits().then(Term::new);
        let view = View::new()?;
        let mut poller = Poller::new()?;
        poller.watch(Source::Ticks, view.timer(), true)?;
        poller.watch(Source::Herd, herd.as_fd(), true)?;
        poller.watch(Source::Logs, herd.logs_fd(), true)?;
        poller.watch(Source::Signals, signals.as_fd(), true)?;
        if let Some(serving) = &serving {
            poller.watch(Source::Serving, serving.as_fd(), true)?;
        }
        if let Some(tour) = &tour {
            poller.watch(Source::Tour, tour.as_fd(), true)?;
        }
        Ok(App {
            poller,
            herd,
            signals,
            console,
            input,
            lines: Lines::default(),
            commands: VecDeque::new(),
            config,
            tour,
            itself,
            serving,
            term,
            view,
            begins_anew: false,
        })
    }

    /// Goes on where the program before this one has stopped, and tells that `changes` were made.
    pub fn resume(&mut self, left: &Value, changes: &str) {
        self.lines = Lines::take_over(&left["lines"]).unwrap_or_default();
        self.commands = control::take_over(&left["commands"]).unwrap_or_default().into();
        self.console.set_width(self.herd.widest_name());
        if let Some(term) = &mut self.term {
            term.take_over(&left["term"]);
        }
        self.tell_news();
        let line = format!("reexec: {changes}");
        match left["asked_by"].as_str() {
            Some("command") => self.console.answer(&Ok(line)),
            _ => self.console.note(&line),
        }
    }

    /// Runs until all programs are down. Returns how it ended.
    ///
    /// # Errors
    /// The kernel refuses a call that the loop needs.
    pub fn run(mut self) -> io::Result<Ending> {
        self.console.set_width(self.herd.widest_name());
        self.take_terminal();
        loop {
            self.herd.start_some();
            self.tell_news();
            self.take_keys()?;
            self.obey_some()?;
            if self.herd.is_over() {
                break;
            }
            self.show_prompt();
            self.watch_for_room();
            self.watch_for_commands();
            self.turn()?;
        }
        self.return_terminal();
        if self.tour.is_some() {
            self.console.announce("All programs are stopped.");
        }
        self.finish()?;
        Ok(match (self.begins_anew, self.herd.went_well()) {
            (true, _) => Ending::Anew(self.herd.open_files()),
            (false, true) => Ending::Clean,
            (false, false) => Ending::GivenUp,
        })
    }

    /// Waits until a source is ready, and serves all ready sources.
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.poller.wait(self.longest_wait())?;
        self.input.look(Instant::now());
        for source in ready {
            match source {
                Source::Herd => self.herd.dispatch()?,
                Source::Logs => self.herd.collect_logs()?,
                Source::Signals => self.read_signals()?,
                Source::Input => self.read_commands()?,
                Source::Tour => self.take_tour()?,
                Source::Ticks => self.tick()?,
                Source::Serving => self.serve()?,
                Source::Room(channel) => self.console.flush(channel),
            }
        }
        if self.input.is_plain() {
            self.read_commands()?;
        }
        self.answer_calls();
        Ok(())
    }

    /// The longest wait of the next turn. `None` means no limit.
    fn longest_wait(&self) -> Option<Duration> {
        let has_commands = !self.commands.is_empty() && self.console.has_room();
        let reads_on = self.input.is_plain() && self.takes_commands();
        let has_keys = (self.has_keys() || self.view.has_more()) && self.console.has_room();
        if self.herd.is_starting() || has_commands || reads_on || has_keys {
            return Some(Duration::ZERO);
        }
        let served = self.serving.as_ref().and_then(Serving::deadline);
        let next = self.input.look_at().into_iter().chain(served).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Serves the connections that are ready.
    fn serve(&mut self) -> io::Result<()> {
        let mut wishes = Wishes::default();
        if let Some(serving) = &mut self.serving {
            serving.dispatch(&mut Remote {
                herd: &mut self.herd,
                config: self.config.as_deref(),
                own_log: self.console.own_log(),
                wishes: &mut wishes,
            })?;
        }
        self.fulfil(wishes);
        Ok(())
    }

    /// Answers the calls that waited for a process, and shows what was added to a log.
    fn answer_calls(&mut self) {
        let mut wishes = Wishes::default();
        let mut written = self.herd.take_written();
        if let Some(log) = self.console.own_log() {
            if log.take_written() {
                written.insert(log.path().to_owned());
            }
        }
        self.follow(&written);
        let Some(serving) = &mut self.serving else { return };
        let own_log = self.console.own_log();
        serving.expire(Instant::now());
        let mut remote = Remote {
            herd: &mut self.herd,
            config: self.config.as_deref(),
            own_log,
            wishes: &mut wishes,
        };
        serving.go_on(&mut remote, &written);
        self.fulfil(wishes);
    }

    fn fulfil(&mut self, wishes: Wishes) {
        if wishes.shutdown || wishes.restart {
            self.begins_anew = wishes.restart;
            let how = if wishes.restart { "restarting" } else { "shutting down" };
            self.console.note(&format!("a remote call: {how}"));
            self.herd.shut_down();
        }
    }

    /// Whether the loop reads more commands. It reads none while the answers are not read. The commands then wait in
    /// the input, so the memory stays bounded and no line is lost.
    fn takes_commands(&self) -> bool {
        self.commands.is_empty() && self.console.has_room() && !self.has_keys()
    }

    fn tell_news(&mut self) {
        while let Some(news) = self.herd.next_news() {
            match news {
                News::Report(report) => self.console.report(&report),
                News::Note(line) => self.console.warn(&line),
            }
        }
        self.console.check();
    }

    /// Watches the outputs that have waiting lines, and no others.
    fn watch_for_room(&mut self) {
        for channel in Channel::ALL {
            let waits = self.console.is_waiting(channel);
            let Some(fd) = self.console.fd(channel) else { continue };
            if let Err(error) = self.poller.watch(Source::Room(channel), fd, waits) {
                self.console.fail(channel, error);
            }
        }
    }

    /// Watches the input if the taskmaster can answer commands.
    fn watch_for_commands(&mut self) {
        let wanted = self.input.is_watched() && self.takes_commands();
        match self.poller.watch(Source::Input, self.input.as_fd(), wanted) {
            Ok(()) => {}
            Err(Errno::PERM) => self.input.set_plain(),
            // A lack of memory does not end the supervision.
            Err(_) => self.input.put_off(),
        }
    }

    fn read_signals(&mut self) -> io::Result<()> {
        let own_pid = std::process::id();
        while let Some(info) = self.signals.read()? {
            // A write without a reader raises SIGPIPE, and a write beyond the limit of the file size raises SIGXFSZ.
            // The write also fails, and its error is reported.
            if info.sender.is_some_and(|sender| sender.as_raw() == own_pid) {
                continue;
            }
            match signals::meaning(info.signal) {
                Meaning::Reload => self.reload_and_reopen(),
                Meaning::Reopen => self.reopen(),
                Meaning::Reexec => {
                    let error = self.reexec(Asker::Signal);
                    self.console.note(&format!("reexec: {error}"));
                }
                Meaning::Suspend => self.suspend(),
                Meaning::Continued => {
                    self.input.resume();
                    self.take_terminal();
                }
                Meaning::Resized => {
                    self.console.measure();
                    self.show_top();
                }
                Meaning::Shutdown if info.code == libc::SI_KERNEL && self.interrupt(info.signal)? => {}
                Meaning::Note => self.console.note(&format!("{}: ignored", info.signal)),
                Meaning::Shutdown if self.herd.is_closing() => {
                    self.console
                        .note(&format!("{} again: killing the remaining processes", info.signal));
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

    /// SIGHUP reloads and reopens, because scripts that rotate logs send it, and administrators send it after a
    /// change of the configuration.
    fn reload_and_reopen(&mut self) {
        let lines = self.open_anew();
        lines.iter().for_each(|line| self.console.note(line));
        let answer = self.reload().map(|line| format!("reload: {line}"));
        self.console.note(&answer.unwrap_or_else(|line| line));
    }

    fn reopen(&mut self) {
        let lines = self.open_anew();
        if lines.is_empty() {
            self.console.note("no output file was renamed");
        }
        lines.iter().for_each(|line| self.console.note(line));
    }

    fn open_anew(&mut self) -> Vec<String> {
        // A reopened file replaces the descriptor that epoll watches.
        for channel in Channel::ALL {
            if let Some(fd) = self.console.fd(channel) {
                let _not_watched = self.poller.watch(Source::Room(channel), fd, false);
            }
        }
        let mut lines = self.console.reopen();
        lines.extend(self.herd.reopen_logs());
        lines
    }

    fn read_commands(&mut self) -> io::Result<()> {
        if !self.takes_commands() {
            return Ok(());
        }
        match self.input.take() {
            // Another job has the terminal.
            Taken::Nothing if self.input.is_put_off() => self.lose_terminal(),
            Taken::Nothing => {}
            Taken::Bytes(bytes) => {
                if !self.type_in(&bytes) {
                    let commands = &mut self.commands;
                    self.lines.feed(&bytes, |line| commands.push_back(line));
                }
            }
            Taken::End => {
                self.commands.extend(self.lines.finish());
                self.end_input()?;
            }
        }
        Ok(())
    }

    /// Reads no more commands. The programs run on.
    fn end_input(&mut self) -> io::Result<()> {
        self.poller.watch(Source::Input, self.input.as_fd(), false)?;
        self.input.end();
        if self.input.is_terminal() {
            self.return_terminal();
            self.console
                .note("standard input has ended; the programs run until Ctrl-C or SIGTERM");
        }
        Ok(())
    }

    /// Carries out waiting commands while there is room for answers and the slice lasts.
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

    /// The first command that is typed at a terminal ends the tour.
    fn take_over(&mut self) -> io::Result<()> {
        if let Some(tour) = self.tour.as_mut().filter(|_| self.input.is_terminal()) {
            if tour.cancel()? {
                self.console
                    .announce("The tour has ended. Type commands: help lists them, and shutdown stops all programs.");
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

    /// Reads the configuration again. If it has a mistake, nothing changes.
    fn reload(&mut self) -> Result<String, String> {
        let config = self.read_again()?;
        config.notes.iter().for_each(|note| self.console.warn(note));
        self.herd.reload(&config)
    }

    fn read_again(&mut self) -> Result<Config, String> {
        let path = self
            .config
            .as_deref()
            .ok_or("there is no configuration file to read again")?;
        config::load_again(path).map_err(|problems| {
            let (first, others) = problems
                .split_first()
                .map_or(("", 0), |(first, rest)| (first.as_str(), rest.len()));
            problems.iter().for_each(|problem| self.console.warn(problem));
            let others = if others == 0 {
                String::new()
            } else {
                format!(" (and {others} more)")
            };
            format!("nothing is changed: {first}{others}")
        })
    }

    /// Hands everything over to the program that is now on disk. Returns only if that fails, with the reason in one
    /// line. Then everything goes on as before.
    fn reexec(&mut self, asker: Asker) -> String {
        if self.herd.is_closing() {
            return "shutting down: no other program takes over".to_owned();
        }
        let Some(program) = self.itself.program.clone() else {
            return "the path of the taskmaster's program is not known".to_owned();
        };
        // The new program reads it again. By then the old one cannot go on any more.
        let checked = match self.config {
            Some(_) => self.read_again().and_then(|config| self.herd.check(&config)),
            None => Ok(()),
        };
        if let Err(error) = checked {
            return error;
        }
        self.herd.settle();
        self.tell_news();
        self.return_terminal();
        let state = self.describe(asker, &program);
        let open = Channel::ALL.into_iter().filter_map(|channel| self.console.fd(channel));
        let open = open.chain([self.input.as_fd()]);
        if let Some(serving) = &mut self.serving {
            serving.keep_files(true);
        }
        let sockets = self.serving.iter().flat_map(Serving::open_fds);
        let error = self
            .herd
            .hand_over(&program, &self.itself.arguments, &state, open.chain(sockets));
        if let Some(serving) = &mut self.serving {
            serving.keep_files(false);
        }
        self.take_terminal();
        error
    }

    fn describe(&self, asker: Asker, program: &Path) -> Value {
        json!({
            "asked_by": match asker {
                Asker::Command => "command",
                Asker::Signal => "signal",
            },
            "program": handing::path(program),
            "started_in": handing::path(World::started_in()),
            "has_pid_file": self.itself.has_pid_file,
            "log_names": config::hand_over_log_names(),
            "herd": self.herd.describe(),
            "console": self.console.hand_over(),
            "input": self.input.hand_over(),
            "lines": self.lines.hand_over(),
            "commands": control::hand_over(self.commands.iter()),
            "servers": self.serving.as_ref().map(Serving::hand_over),
            "tour": self.tour.as_ref().map(Tour::hand_over),
            "term": self.term.as_ref().map(Term::hand_over),
        })
    }

    /// Gives the readers time to take the waiting lines. Another shutdown signal ends this wait.
    fn finish(&mut self) -> io::Result<()> {
        self.herd.finish_logs();
        self.tell_news();
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
