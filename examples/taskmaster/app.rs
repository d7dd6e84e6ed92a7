//! The loop: one bare epoll, in which the herd, the signals, the commands and whoever reads slowly
//! live side by side.
//!
//! The herd is one descriptor in it, the supervisor's. Level-triggered readiness does the rest:
//! nothing that is left for the next turn is lost, and with nothing to do there is no turn at all.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use pidherd::{Signal, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::config;
use crate::console::{Console, Place};
use crate::control::{Command, HELP, Line, Lines};
use crate::demo::Tour;
use crate::herd::{Herd, News, Verb};

/// Who is ready, as the number that rides in an epoll event.
const HERD: u64 = 0;
const SIGNALS: u64 = 1;
const STDIN: u64 = 2;
const TOUR: u64 = 3;
/// The console's places are numbered from here.
const PLACES: u64 = 4;

/// How much of standard input is read in one go.
const CHUNK: usize = 4096;

/// Everything at work.
#[derive(Debug)]
pub struct App {
    epoll: OwnedFd,
    herd: Herd,
    signals: SignalFd,
    console: Console,
    stdin: Stdin,
    lines: Lines,
    /// Where the configuration is read from again; `None` in the demonstration.
    config: Option<PathBuf>,
    tour: Option<Tour>,
    /// Which of the console's places epoll watches for room.
    watched: [bool; Place::ALL.len()],
}

/// How standard input is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdin {
    /// By epoll.
    Watched,
    /// Not at all: a plain file and /dev/null are always ready, and epoll refuses them.
    Plain,
    /// It has ended.
    Ended,
}

impl App {
    /// Puts everything into one epoll.
    ///
    /// # Errors
    /// The kernel refuses one of the descriptors.
    pub fn new(
        herd: Herd,
        signals: SignalFd,
        console: Console,
        config: Option<PathBuf>,
        tour: Option<Tour>,
    ) -> io::Result<App> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, herd.as_fd(), HERD, epoll::EventFlags::IN)?;
        watch(&epoll, signals.as_fd(), SIGNALS, epoll::EventFlags::IN)?;
        if let Some(tour) = &tour {
            watch(&epoll, tour.as_fd(), TOUR, epoll::EventFlags::IN)?;
        }
        let stdin = match watch(&epoll, io::stdin().as_fd(), STDIN, epoll::EventFlags::IN) {
            Ok(()) => Stdin::Watched,
            Err(Errno::PERM) => Stdin::Plain,
            Err(error) => return Err(error.into()),
        };
        let watched = [false; Place::ALL.len()];
        Ok(App {
            epoll,
            herd,
            signals,
            console,
            stdin,
            lines: Lines::default(),
            config,
            tour,
            watched,
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
            if self.herd.is_over() {
                break;
            }
            self.watch_for_room()?;
            self.turn()?;
        }
        if self.tour.is_some() {
            self.console.announce("That is all.");
        }
        self.console.finish();
        Ok(self.herd.went_well())
    }

    /// Waits until somebody is ready, and serves them all.
    fn turn(&mut self) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; 16];
        let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let limit = (self.stdin == Stdin::Plain || self.herd.is_starting()).then_some(&no_time);
        let (ready, _) = match epoll::wait(&self.epoll, &mut events, limit) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in &*ready {
            self.serve(event.data.u64())?;
        }
        if self.stdin == Stdin::Plain {
            self.read_commands()?;
        }
        Ok(())
    }

    fn serve(&mut self, who: u64) -> io::Result<()> {
        match who {
            HERD => self.herd.dispatch()?,
            SIGNALS => self.read_signals()?,
            STDIN => self.read_commands()?,
            TOUR => self.take_tour()?,
            place => {
                let place = place
                    .checked_sub(PLACES)
                    .and_then(|index| Place::ALL.get(index as usize));
                place.into_iter().for_each(|&place| self.console.flush(place));
            }
        }
        Ok(())
    }

    fn tell_news(&mut self) {
        while let Some(news) = self.herd.next_news() {
            match news {
                News::Report(report) => self.console.report(&report),
                News::Note(line) => self.console.note(&line),
            }
        }
        self.console.check_events();
    }

    /// Asks epoll for the room that lines wait for, and only then.
    fn watch_for_room(&mut self) -> io::Result<()> {
        for (index, place) in Place::ALL.into_iter().enumerate() {
            let wanted = self.console.is_waiting(place);
            let Some(fd) = self.console.fd(place).filter(|_| wanted != self.watched[index]) else {
                continue;
            };
            if wanted {
                watch(&self.epoll, fd, PLACES + index as u64, epoll::EventFlags::OUT)?;
            } else {
                epoll::delete(&self.epoll, fd)?;
            }
            self.watched[index] = wanted;
        }
        Ok(())
    }

    fn read_signals(&mut self) -> io::Result<()> {
        while let Some(info) = self.signals.read()? {
            match info.signal {
                Signal::HUP => {
                    let answer = self.reload().map(|line| format!("reload: {line}"));
                    self.console.note(&answer.unwrap_or_else(|line| line));
                }
                signal if self.herd.is_closing() => {
                    self.console.note(&format!("{signal} again: killing what is left"));
                    self.herd.kill_all();
                }
                signal => {
                    self.console.note(&format!("{signal}: shutting down"));
                    self.herd.shut_down();
                }
            }
        }
        Ok(())
    }

    fn read_commands(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        let mut seen: Vec<Line> = Vec::new();
        match rustix::io::read(io::stdin(), &mut chunk) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(read @ 1..) => self.lines.feed(&chunk[..read], |line| seen.push(line)),
            // The end, or a terminal that is gone: neither is a reason to stop anything.
            Ok(0) | Err(_) => {
                if self.stdin == Stdin::Watched {
                    epoll::delete(&self.epoll, io::stdin())?;
                }
                self.stdin = Stdin::Ended;
                seen.extend(self.lines.finish());
                if io::IsTerminal::is_terminal(&io::stdin()) {
                    self.console
                        .note("the end of the commands, but not of the programs: Ctrl-C or SIGTERM stops them");
                }
            }
        }
        for line in seen {
            if line != Ok(String::new()) {
                self.take_over()?;
            }
            self.obey_line(line);
        }
        Ok(())
    }

    /// Who types at a terminal has seen enough of the tour.
    fn take_over(&mut self) -> io::Result<()> {
        if let Some(tour) = self.tour.as_mut().filter(|_| io::IsTerminal::is_terminal(&io::stdin())) {
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

    /// Reads the configuration again; with a broken one, all goes on as it was.
    fn reload(&mut self) -> Result<String, String> {
        let path = self
            .config
            .as_deref()
            .ok_or("there is no configuration file to read again")?;
        let config = config::load(path).map_err(|problems| {
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
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, who: u64, what: epoll::EventFlags) -> Result<(), Errno> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(who), what)
}
