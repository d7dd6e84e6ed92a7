//! Taskmaster: a replacement for supervisord, built on pidherd and an epoll loop.
//!
//! ```text
//! taskmaster [--events FILE] [--state FILE] [CONFIG]        without CONFIG: a demonstration
//! taskmaster --check [CONFIG]                               shows what would run, and starts nothing
//! ```
//!
//! It reads a configuration in supervisord's format and takes commands on standard input. It writes answers to
//! standard output, one line each (`ok: ...`, `error: ...`, or a table), and the log to standard error. At a terminal
//! it has a prompt with a line editor, a history and completion, and views such as `top`.
//!
//! Signals: SIGTERM, SIGINT and SIGQUIT stop all programs, and a second such signal kills them at once. SIGHUP reads
//! the configuration again and reopens the event file. SIGUSR2 reopens the event file. SIGUSR1 does the same as the
//! command `reexec`. The taskmaster logs and survives every other signal that can be caught. As a background job of a
//! terminal it reads no commands.
//!
//! `reexec` replaces the taskmaster by the program that is now at the path it was started from, with execve(2) and the
//! same arguments, for example after an upgrade. It keeps its PID. No process is stopped, and states, numbers of runs
//! and times go on. Lines that wait for a reader, and commands that were read and not carried out, are handed over too.
//! The new program reads the configuration: a program that is gone from it is stopped, a new one is started, another
//! `numprocs` is applied, and a changed command applies at the next start of each process. If the configuration has a
//! mistake or the program cannot be executed, the old one goes on.
//!
//! `--state` keeps the state in a file, best on a tmpfs such as /run. If the taskmaster is killed, the processes live on.
//! The next one with the same file goes on with them: states, numbers of runs and deadlines are kept, and the
//! configuration applies as after `reexec`. It touches no process that is not proven to be the same one.
//!
//! Exit status: 0 after a clean shutdown; 1 if a process survived SIGKILL or a second signal cut the stop short, or if
//! the program that took over cannot go on; 2 if the command line or the configuration has a mistake. With status 2, no
//! program was started. The status of `--check` is 0 for a valid configuration and 2 for a mistake.
//!
//! With `[unix_http_server]` or `[inet_http_server]` it serves supervisorctl. README.md has a table of all keys.
//!
//! The sections and keys have the same meaning as in supervisord, or the file is refused. Only settings without an
//! effect on programs are ignored, with a note. `config::supervisord` documents the settings of the taskmaster
//! itself. `config::beyond` documents the keys that supervisord lacks: readiness, watchdogs, privileges and cgroups.
//!
//! Good starting points: `app` is the loop, `command` has the commands, `term` the line editor, `logs` collects output,
//! `listeners` has the protocol of event listeners, `http` and `rpc` serve supervisorctl, `herd` contains the programs
//! that it runs, and `spec` translates a program of the configuration into the library's terms. The other modules know
//! nothing of processes.

mod app;
mod check;
mod command;
mod complete;
mod config;
mod console;
mod control;
mod demo;
mod fcgi;
mod files;
#[cfg(test)]
mod generated;
mod handing;
mod herd;
mod http;
mod input;
mod limits;
mod listeners;
mod logs;
mod names;
mod output;
mod own;
mod own_log;
mod poller;
mod report;
mod rpc;
mod serving;
mod signals;
mod spec;
mod suggest;
mod term;
mod top;
mod usage;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pidherd::supervisor::HandOver;
use pidherd::{MaskGuard, Signal, SignalFd};
use serde_json::Value;

use app::{App, Ending, Itself, Parts};
use config::{Config, World};
use console::Console;
use demo::{INVITATION, Tour, WELCOME};
use herd::{Herd, Terms};
use input::Input;
use own::PidFile;
use serving::Serving;
use spec::Shared;

const USAGE: &str = "usage: taskmaster [--events FILE] [--state FILE] [CONFIG]\n       \
                     taskmaster --check [CONFIG] | --help | --version";

const OPTIONS: &str = "\
Without CONFIG it runs a demonstration.

  -c, --configuration FILE  the same as CONFIG, as supervisord spells it
  --events FILE             append each transition to FILE, as one JSON object per line
  --state FILE              keep the state in FILE, and go on with the processes of a taskmaster that was killed
  --check                   show what would run, or the mistakes; exit with 0 or 2, and start nothing
  --version                 show the version
  --help                    show this text

Commands, one per line on standard input:
";

/// The exit status after a shutdown that was not clean.
const GIVEN_UP: u8 = 1;
/// The exit status after an error before any start.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    match Request::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(arguments)) => supervise(&arguments),
        Ok(Request::Check(config)) => check_only(config.as_deref()),
        Ok(Request::Help) => print(&help()),
        Ok(Request::Version) => print(&format!("taskmaster {}\n", env!("CARGO_PKG_VERSION"))),
        Err(error) => refuse(&[error, USAGE.to_owned()]),
    }
}

/// Checks a configuration. No program is started.
fn check_only(path: Option<&Path>) -> ExitCode {
    let config = match path {
        Some(path) => config::load(path),
        None => demonstration(),
    };
    let described = config.and_then(|config| {
        config.notes.iter().for_each(|note| complain(note));
        check::describe(&config).map_err(|error| vec![error])
    });
    match described {
        Ok(lines) => print(&(lines.join("\n") + "\n")),
        Err(errors) => refuse(&errors),
    }
}

fn supervise(arguments: &Arguments) -> ExitCode {
    let itself = Itself {
        program: handing::own_program(),
        arguments: std::env::args_os().skip(1).collect(),
        has_pid_file: false,
    };
    match HandOver::receive() {
        Ok(None) => conclude(start(arguments, itself.clone()), &itself),
        Ok(Some(handed_over)) => match take_over(arguments, itself.clone(), handed_over) {
            Ok(taken) => conclude(go_on(taken), &itself),
            Err(errors) => give_up(&errors),
        },
        Err(error) => give_up(&[error.to_string()]),
    }
}

/// Starts anew.
fn start(arguments: &Arguments, mut itself: Itself) -> Result<Ending, ExitCode> {
    let (config, mut console) = match read(arguments) {
        Ok(read) => read,
        Err(errors) => return Err(refuse(&errors)),
    };
    let mut notes = Vec::new();
    let pid_file = match own::take_on(&config, &mut notes) {
        Ok(pid_file) => pid_file,
        Err(error) => return Err(refuse(&[error])),
    };
    itself.has_pid_file = pid_file.is_written();
    console.log_to(&config.supervisord);
    notes.iter().for_each(|note| console.warn(note));
    match assemble(arguments, &config, console, itself) {
        Ok(app) => run(app),
        Err(error) => Err(refuse(&[error])),
    }
}

/// What a taskmaster has taken over from the one before it.
struct Taken {
    parts: Parts,
    pid_file: PidFile,
    left: Value,
    changes: String,
}

/// Takes the place of another taskmaster, with its processes.
fn take_over(arguments: &Arguments, mut itself: Itself, handed_over: HandOver) -> Result<Taken, Vec<String>> {
    let one = |error: String| vec![error];
    let unreadable = || one("the state of the taskmaster before this one cannot be read".to_owned());
    let left = handing::receive().ok_or_else(unreadable)?;
    // The path is that of the first program. Its file may have been replaced again since execve(2).
    itself.program = handing::to_path(&left["program"]);
    itself.has_pid_file = left["has_pid_file"] == true;
    World::set_started_in(handing::to_path(&left["started_in"]).ok_or_else(unreadable)?);
    config::take_over_log_names(&left["log_names"]);
    let config = match &arguments.config {
        Some(path) => config::load_again(path)?,
        None => demonstration()?,
    };
    let staged = arguments.config.is_none();
    let mut console = Console::take_over(&left["console"], staged).ok_or_else(unreadable)?;
    console.log_to(&config.supervisord);
    let input = Input::take_over(&left["input"]).ok_or_else(unreadable)?;
    config.notes.iter().for_each(|note| console.warn(note));
    let adopts_orphans = adopts_orphans();
    block_signals(adopts_orphans, console.edits()).map_err(one)?;
    let signals = read_signals(console.edits()).map_err(one)?;
    let tour = (!left["tour"].is_null())
        .then(|| Tour::take_over(&left["tour"]))
        .transpose();
    let tour = tour.map_err(|error| one(format!("cannot create a timer: {error}")))?;
    let serving = Serving::open(&config.supervisord.servers, &left["servers"]).unwrap_or_else(|error| {
        console.warn(&error);
        None
    });
    // The processes are taken over last, because an error after that would end them.
    let keeping = herd::Keeping {
        adopts_orphans,
        state: arguments.state(),
    };
    let (herd, changes) = Herd::take_over(&config, handed_over, &left["herd"], &keeping).map_err(one)?;
    Ok(Taken {
        pid_file: PidFile::take_over(&config.supervisord, itself.has_pid_file),
        parts: Parts {
            herd,
            signals,
            console,
            input,
            config: arguments.config.clone(),
            tour,
            itself,
            serving,
        },
        left,
        changes,
    })
}

fn go_on(taken: Taken) -> Result<Ending, ExitCode> {
    let _pid_file = taken.pid_file;
    match App::new(taken.parts) {
        Ok(mut app) => {
            app.resume(&taken.left, &taken.changes);
            run(app)
        }
        Err(error) => {
            complain(&format!("cannot continue: {error}"));
            Err(ExitCode::from(GIVEN_UP))
        }
    }
}

fn run(app: App) -> Result<Ending, ExitCode> {
    app.run().map_err(|error| {
        complain(&format!("cannot continue: {error}"));
        ExitCode::from(GIVEN_UP)
    })
}

/// Ends the process, or begins anew.
fn conclude(ended: Result<Ending, ExitCode>, itself: &Itself) -> ExitCode {
    match ended {
        Ok(Ending::Clean) => ExitCode::SUCCESS,
        Ok(Ending::GivenUp) => ExitCode::from(GIVEN_UP),
        Ok(Ending::Anew(open_files)) => {
            let error = own::begin_anew(itself.program.as_deref(), &itself.arguments, open_files);
            complain(&format!("cannot begin anew: {error}"));
            ExitCode::from(GIVEN_UP)
        }
        Err(code) => code,
    }
}

/// Reads and checks the configuration, and opens the event file.
fn read(arguments: &Arguments) -> Result<(Config, Console), Vec<String>> {
    let config = match &arguments.config {
        Some(path) => config::load(path)?,
        None => demonstration()?,
    };
    // The path is made absolute, because [supervisord] may change the directory and the file may be opened again.
    let events = arguments.events.as_deref().map(std::path::absolute);
    let events = events.and_then(Result::ok).or_else(|| arguments.events.clone());
    let console = Console::new(events.as_deref(), arguments.config.is_none());
    let mut console = console.map_err(|error| vec![error])?;
    console.set_level(config.supervisord.loglevel);
    config.notes.iter().for_each(|note| console.warn(note));
    Ok((config, console))
}

/// Assembles all parts. No program has been started when this returns.
fn assemble(arguments: &Arguments, config: &Config, mut console: Console, itself: Itself) -> Result<App, String> {
    let adopts_orphans = adopts_orphans();
    block_signals(adopts_orphans, console.edits())?;
    let serving = Serving::open(&config.supervisord.servers, &Value::Null)?;
    let terms = Terms {
        shared: Shared {
            open_files: limits::raise_open_files(config.supervisord.minfds)?,
            collects: arguments.state.is_none(),
        },
        adopts_orphans,
    };
    let herd = match arguments.state() {
        Some(state) => Herd::recover(config, terms, &state)?,
        None => {
            let mut herd = Herd::new(config, terms)?;
            herd.begin();
            herd
        }
    };
    let mut tour = None;
    if arguments.config.is_none() {
        WELCOME.iter().for_each(|line| console.say(line));
        if std::io::stdin().is_terminal() {
            console.say(INVITATION);
        }
        console.say("");
        tour = Some(Tour::new().map_err(|error| format!("cannot create a timer: {error}"))?);
    }
    let failed = |error: std::io::Error| format!("cannot start: {error}");
    let parts = Parts {
        herd,
        signals: read_signals(console.edits())?,
        console,
        input: Input::new().map_err(failed)?,
        config: arguments.config.clone(),
        tour,
        itself,
        serving,
    };
    App::new(parts).map_err(failed)
}

fn read_signals(edits: bool) -> Result<SignalFd, String> {
    SignalFd::new(signals::taken(edits)).map_err(|error| format!("cannot read signals: {error}"))
}

/// Blocks the signals, so that the loop reads them. Before this call a signal ends the taskmaster. That is harmless,
/// because no program has been started, and useful, because the taskmaster may wait for the other end of a FIFO.
fn block_signals(adopts_orphans: bool, edits: bool) -> Result<(), String> {
    let mut blocked = signals::blocked(edits);
    if adopts_orphans {
        blocked = blocked.with(Signal::CHLD);
    }
    let mask = MaskGuard::block(blocked).map_err(|error| format!("cannot block signals: {error}"))?;
    // The signals stay blocked until the process ends. A signal after the shutdown must not change the exit status.
    std::mem::forget(mask);
    Ok(())
}

/// Whether orphans become children of this process. This is true for PID 1 and for a subreaper.
fn adopts_orphans() -> bool {
    let is_subreaper = || matches!(rustix::process::child_subreaper(), Ok(Some(_)));
    std::process::id() == 1 || is_subreaper()
}

fn demonstration() -> Result<Config, Vec<String>> {
    let world = Arc::new(World::around(Path::new("demo.conf")));
    config::parse(demo::CONFIGURATION, &world).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Run(Arguments),
    Check(Option<PathBuf>),
    Help,
    Version,
}

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    events: Option<PathBuf>,
    state: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl Arguments {
    /// The path of the state file, in the directory where the first taskmaster was started.
    fn state(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|path| World::started_in().join(path))
    }

    fn set_config(&mut self, config: OsString) -> Result<(), String> {
        match self.config.replace(config.clone().into()) {
            None => Ok(()),
            Some(_) => Err(format!(
                "more than one configuration file: {:?}",
                config.to_string_lossy()
            )),
        }
    }
}

impl Request {
    /// Parses the command line.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Request, String> {
        let mut parsed = Arguments::default();
        let mut checks = false;
        let mut arguments = arguments.peekable();
        let mut options = true;
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            if !options || !text.starts_with('-') || text.len() == 1 {
                parsed.set_config(argument)?;
                continue;
            }
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (text.as_ref(), None),
            };
            let mut file = || {
                value
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or(format!("{name} needs a file"))
            };
            match name {
                "--events" => parsed.events = Some(file()?.into()),
                "--state" => parsed.state = Some(file()?.into()),
                "-c" | "--configuration" => {
                    let file = file()?;
                    parsed.set_config(file)?;
                }
                "--check" => {
                    checks = true;
                    value.map_or(Ok(()), |file| parsed.set_config(file))?;
                }
                _ if value.is_some() => return Err(unknown_option(&text)),
                "-h" | "--help" => return Ok(Request::Help),
                "-v" | "--version" => return Ok(Request::Version),
                // supervisord's option to stay in the foreground.
                "-n" | "--nodaemon" => {}
                "--" => options = false,
                _ => return Err(unknown_option(&text)),
            }
        }
        Ok(if checks {
            Request::Check(parsed.config)
        } else {
            Request::Run(parsed)
        })
    }
}

fn unknown_option(text: &str) -> String {
    const KNOWN: [&str; 7] = [
        "--events",
        "--state",
        "--configuration",
        "--check",
        "--help",
        "--version",
        "--nodaemon",
    ];
    let name = text.split('=').next().unwrap_or(text);
    let meant = suggest::did_you_mean(name, KNOWN.into_iter().map(str::to_owned));
    format!("unknown option {text:?}{meant}")
}

fn help() -> String {
    let mut text = format!("{USAGE}\n\n{OPTIONS}");
    command::overview()
        .iter()
        .for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(GIVEN_UP),
    }
}

/// The processes of the taskmaster before this one go on by themselves.
fn give_up(errors: &[String]) -> ExitCode {
    errors.iter().for_each(|error| complain(error));
    complain("cannot take over; the processes go on without a supervisor");
    ExitCode::from(GIVEN_UP)
}

fn refuse(errors: &[String]) -> ExitCode {
    errors.iter().for_each(|error| complain(error));
    ExitCode::from(REFUSED)
}

/// Writes a line to standard error. An error of the write is ignored, because it must not change the exit status.
fn complain(line: &str) {
    let _unread = writeln!(std::io::stderr(), "taskmaster: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Request, String> {
        Request::parse(arguments.iter().map(OsString::from))
    }

    fn arguments(events: Option<&str>, config: Option<&str>) -> Result<Request, String> {
        Ok(Request::Run(Arguments {
            state: None,
            events: events.map(PathBuf::from),
            config: config.map(PathBuf::from),
        }))
    }

    #[test]
    fn the_command_line() {
        assert_eq!(parse(&[]), arguments(None, None));
        assert_eq!(parse(&["a.conf"]), arguments(None, Some("a.conf")));
        for stored in [&["--state", "s"][..], &["--state=s"]] {
            let wanted = Arguments {
                state: Some("s".into()),
                ..Arguments::default()
            };
            assert_eq!(parse(stored), Ok(Request::Run(wanted)));
        }
        assert_eq!(parse(&["--state"]), Err("--state needs a file".to_owned()));
        assert_eq!(
            parse(&["--events", "e", "a.conf"]),
            arguments(Some("e"), Some("a.conf"))
        );
        assert_eq!(parse(&["a.conf", "--events=e"]), arguments(Some("e"), Some("a.conf")));
        assert_eq!(parse(&["-n", "-c", "a.conf"]), arguments(None, Some("a.conf")));
        assert_eq!(parse(&["--configuration=a.conf"]), arguments(None, Some("a.conf")));
        assert_eq!(parse(&["--", "--events"]), arguments(None, Some("--events")));
        assert_eq!(parse(&["a.conf", "--help"]), Ok(Request::Help));
        assert_eq!(parse(&["--version"]), Ok(Request::Version));
        for checked in [&["--check", "a.conf"][..], &["a.conf", "--check"], &["--check=a.conf"]] {
            assert_eq!(parse(checked), Ok(Request::Check(Some("a.conf".into()))));
        }
        assert_eq!(parse(&["--check"]), Ok(Request::Check(None)));
        let meant = "unknown option \"--chekc\"; did you mean \"--check\"?";
        assert_eq!(parse(&["--chekc"]), Err(meant.to_owned()));
        for wrong in [
            &["--events"][..],
            &["--nope"],
            &["-x"],
            &["a", "b"],
            &["-c", "a", "b"],
            &["--help=x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_demonstration_is_a_valid_configuration() {
        let config = demonstration().unwrap();
        assert_eq!(config.groups.len(), 5);
        assert_eq!(config.notes, Vec::<String>::new());
    }
}
