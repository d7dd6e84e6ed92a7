//! An init for a container: runs one command, passes signals on to it, reaps orphans, and ends as the command ends:
//! with its code, with 128 + n if signal n ended it, with 127 if there is no such program, with 126 if it cannot be
//! executed. 125 is the status of an error of init itself. `init --help` lists the options.
//!
//! The command runs as if init were not there. It has the signal mask, the ignored signals, the descriptors and the
//! working directory that init was started with. At a terminal it takes part in the job control of the shell: see
//! `init/job.rs`. When the command ends, what it leaves behind is ended too: see `init/rest.rs`.
#[path = "init/job.rs"]
mod job;
#[path = "init/options.rs"]
mod options;
#[path = "init/rest.rs"]
mod rest;
#[path = "init/sys.rs"]
mod sys;

use std::error::Error;
use std::fmt::Display;
use std::io::{Write, stderr, stdout};
use std::mem;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pidherd::lifecycle::{Restart, Startup};
use pidherd::supervisor::TransitionEvent;
use pidherd::{Command, Event, Exit, GroupId, GroupSpec, MaskGuard, Policy, Signal, SignalFd};
use pidherd::{SpawnError, SpawnStep, StateName, Stdio, Supervisor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use job::{Job, Receiver};
use options::{Options, Request};

/// The status of an error of init itself, of a program that cannot be executed, and of one that is not found.
const OWN_ERROR: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long processes may take to end by SIGKILL. A process that hangs in the kernel is left to it.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often SIGKILL is sent again: it misses a process that is being born.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// What a service manager tells init in its environment. The library keeps it from a command unless asked.
const FOR_THE_COMMAND: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES"];

fn main() -> ExitCode {
    ExitCode::from(match options::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(options)) => run(options).unwrap_or_else(|error| complain(&error)),
        Ok(Request::Show(text)) => match stdout().write_all(text.as_bytes()) {
            Ok(()) => 0,
            Err(error) => complain(&format_args!("cannot write to standard output: {error}")),
        },
        Err(error) => complain(&format_args!("{error}; {}", options::USAGE)),
    })
}

/// Writes a message to standard error, which may be full or closed: then the status alone tells.
fn complain(message: &dyn Display) -> u8 {
    let _unwritable = writeln!(stderr(), "init: {message}");
    OWN_ERROR
}

fn run(options: Options) -> Result<u8, Box<dyn Error>> {
    let mut init = Init::start(options)?;
    let status = init.serve()?;
    init.job.command_has_ended();
    init.end_the_rest()?;
    Ok(status)
}

/// The fields are dropped in this order: first what may still run, then the terminal is given back.
struct Init {
    supervisor: Supervisor,
    group: GroupId,
    job: Job,
    /// Descriptors for the command, until it has them.
    inherited: Vec<i32>,
    /// How long what remains has between SIGTERM and SIGKILL.
    patience: Duration,
}

impl Init {
    /// Starts the command. That it cannot be started is found out by [`Init::serve`].
    fn start(options: Options) -> Result<Init, Box<dyn Error>> {
        let inherited = sys::inherited_descriptors()?;
        let ignored = sys::ignored_at_start()?;
        // A parent that ignores SIGCHLD: the kernel would reap the command, and its status would be lost.
        sys::reset_disposition(Signal::CHLD)?;
        let mut job = Job::new(options.whole_group);
        let forwarded = job.forwarded();
        let mask = MaskGuard::block(forwarded.with(Signal::CHLD).with(Signal::TTIN).with(Signal::TTOU))?;
        let mut command = job.arrange(Command::new(&options.program).args(&options.arguments));
        command = command.signal_mask(mask.before()).ignored_signals(ignored);
        // The mask stays until the end: a signal that comes late must not end init with another status.
        mem::forget(mask);
        command = with_descriptors(command, &inherited);
        if let Some(signal) = options.parent_death_signal {
            sys::signal_at_parents_end(signal)?;
            command = command.parent_death_signal(signal);
        }
        let signals = SignalFd::new(forwarded)?;
        let mut supervisor = Supervisor::builder().signals(signals).adopt_orphans(true).build()?;
        let group = supervisor.add(GroupSpec::new("main", command).policy(once()))?;
        supervisor.start(group)?;
        Ok(Init {
            supervisor,
            group,
            job,
            inherited,
            patience: options.patience,
        })
    }

    /// Passes signals on until the command has ended; the status to end with.
    fn serve(&mut self) -> Result<u8, Box<dyn Error>> {
        loop {
            while let Some(event) = self.supervisor.next_event() {
                match event {
                    Event::Signal(info) => match self.job.receiver(&info) {
                        Receiver::Command => drop(self.supervisor.signal(self.group, info.signal)?),
                        Receiver::Group => self.job.signal_group(info.signal),
                        Receiver::None => {}
                    },
                    Event::Transition(step) => {
                        if let Some(status) = status_of(&step) {
                            return Ok(status);
                        }
                        self.follow_start(&step);
                    }
                    _ => {}
                }
            }
            self.job.follow();
            self.turn(None)?;
        }
    }

    /// From the time that the command runs nothing is busy because of init: no directory, and no descriptor that was
    /// meant for the command.
    fn follow_start(&mut self, step: &TransitionEvent) {
        if let Some(pid) = step.pid {
            self.job.command_is(pid);
        }
        if step.to == StateName::Running {
            let _stays = std::env::set_current_dir("/");
            sys::close(mem::take(&mut self.inherited));
        }
    }

    /// Ends what the command has left behind, and reaps it. Signals that come meanwhile go to all of it.
    fn end_the_rest(&mut self) -> Result<(), Box<dyn Error>> {
        if !rest::is_there() {
            return Ok(());
        }
        // A stopped process must go on to end.
        rest::signal(&[Signal::TERM, Signal::CONT]);
        let until = Instant::now().checked_add(self.patience);
        while rest::is_there() && until.is_none_or(|until| Instant::now() < until) {
            self.turn(until)?;
            while let Some(event) = self.supervisor.next_event() {
                if let Event::Signal(info) = event {
                    rest::signal(&[info.signal]);
                }
            }
        }
        let until = Instant::now() + KILL_PATIENCE;
        while rest::is_there() && Instant::now() < until {
            rest::signal(&[Signal::KILL]);
            self.turn(Some(Instant::now() + KILL_INTERVAL))?;
        }
        Ok(())
    }

    /// Waits until there is something to do, or until then, and does it.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), Box<dyn Error>> {
        let limit = || -> Option<Timespec> { until?.saturating_duration_since(Instant::now()).try_into().ok() };
        retry_on_intr(|| poll(&mut [PollFd::new(&self.supervisor, PollFlags::IN)], limit().as_ref()))?;
        self.supervisor.dispatch()?;
        Ok(())
    }
}

/// A command that is run once, and counts as running as soon as exec has succeeded.
fn once() -> Policy {
    Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Never)
        .start_retries(0)
}

/// The command gets the descriptors that init was started with. Sockets of a service manager get the variables that go
/// with them if they were meant for init.
fn with_descriptors(mut command: Command, inherited: &[i32]) -> Command {
    let variable = |name| std::env::var(name).ok();
    let is_for_init = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<i32>().ok());
    let sockets = 3..3 + count
        .filter(|count| is_for_init && (0..1024).contains(count))
        .unwrap_or(0);
    let are_open = sockets.clone().all(|number| inherited.contains(&number));
    for &number in inherited {
        command = if are_open && sockets.contains(&number) {
            command.listen_fd(Stdio::inherit())
        } else {
            command.fd(number, Stdio::inherit())
        };
    }
    for name in FOR_THE_COMMAND {
        if let Some(value) = std::env::var_os(name) {
            command = command.env(name, value);
        }
    }
    command
}

/// What to end with, once the command has ended or could not be started.
fn status_of(step: &TransitionEvent) -> Option<u8> {
    if let Some(error) = &step.error {
        complain(error);
        return Some(status_of_failure(error));
    }
    match step.exit?.exit {
        Exit::Code(code) => Some(code),
        Exit::Signal { signal, .. } => Some(128 + signal.as_raw() as u8),
        _ => Some(complain(&"the status of the command is unknown")),
    }
}

/// As POSIX has it for shells. These errors of execve mean that there is no such program.
fn status_of_failure(error: &SpawnError) -> u8 {
    match (error.step(), error.errno()) {
        (SpawnStep::Exec, libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => NOT_FOUND,
        (SpawnStep::Exec, _) => CANNOT_EXECUTE,
        _ => OWN_ERROR,
    }
}
