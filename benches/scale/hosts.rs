//! The hosts. Each starts its children, prints a line, and then runs as many cycles as each line of its input says. For
//! each cycle it prints one line with the times in ns.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use pidherd::lifecycle::{Policy, Scope, Startup, StateName, StopLadder};
use pidherd::supervisor::TransitionEvent;
use pidherd::{Command, Event, GroupId, GroupSpec, Restart, Supervisor};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::descriptors::raise_limit;
use super::program::Program;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is measured in each cycle.
pub const MEASURES: [&str; 3] = ["start", "death to event", "death to replacement"];

type Times = [Duration; MEASURES.len()];

pub const NAMES: &[&str] = &["pidherd", "pidherd, in flight", "tokio", "async-process"];

/// The default of [`pidherd::supervisor::Builder::spawns_in_flight`].
const IN_FLIGHT: usize = 32;

/// Runs the host with this name until the end of the input.
pub fn run(name: &str, children: usize) -> Result<()> {
    raise_limit();
    let program = Program::sleeper();
    let mut host: Box<dyn Host> = match name {
        "pidherd" => Box::new(Pidherd::new(&program, children, 0)?),
        "pidherd, in flight" => Box::new(Pidherd::new(&program, children, IN_FLIGHT)?),
        "tokio" => Box::new(Tokio::new(&program, children)?),
        "async-process" => Box::new(AsyncProcess::new(&program, children)?),
        _ => return Err(format!("there is no contender {name}").into()),
    };
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let cycles: usize = line?.trim().parse()?;
        for _ in 0..cycles {
            let times = host.cycle()?.map(|time| time.as_nanos().to_string());
            writeln!(output, "{}", times.join(" "))?;
        }
    }
    Ok(())
}

trait Host {
    /// Starts a child, kills it, replaces it, and stops the next one.
    fn cycle(&mut self) -> Result<Times>;
}

fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no PID")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// All children are instances of one supervisor: one group sleeps, and two instances run the cycles.
struct Pidherd {
    supervisor: Supervisor,
    /// Started and killed. It is not restarted, so the news of its end does not wait for a spawn.
    mortal: GroupId,
    /// Killed and restarted.
    replaced: GroupId,
}

impl Pidherd {
    fn new(program: &Program, children: usize, in_flight: usize) -> Result<Pidherd> {
        let mut supervisor = Supervisor::builder().spawns_in_flight(in_flight).build()?;
        let command = Command::new(program.path()).args(program.args()).env_clear();
        let policy = Policy::new()
            .startup(Startup::Grace(Duration::ZERO))
            .crash_budget(None)
            .stop(StopLadder::kill(Scope::Process));
        let group = |name, restart| GroupSpec::new(name, command.clone()).policy(policy.clone().restart(restart));
        let sleeping = group("sleeping", Restart::Never).instances(u32::try_from(children)?);
        let sleeping = supervisor.add(sleeping)?;
        let mut host = Pidherd {
            mortal: supervisor.add(group("mortal", Restart::Never))?,
            replaced: supervisor.add(group("replaced", Restart::Always))?,
            supervisor,
        };
        host.supervisor.start(sleeping)?;
        for _ in 0..children {
            host.wait_for(|step| step.to == StateName::Running)?;
        }
        Ok(host)
    }

    /// Waits, dispatches and fetches events, until there is such a transition.
    fn wait_for(&mut self, is_wanted: impl Fn(&TransitionEvent) -> bool) -> Result<TransitionEvent> {
        loop {
            while let Some(event) = self.supervisor.next_event() {
                match event {
                    Event::Transition(step) if is_wanted(&step) => return Ok(step),
                    _ => {}
                }
            }
            match poll(&mut [PollFd::new(&self.supervisor, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => drop(result?),
            }
            self.supervisor.dispatch()?;
        }
    }
}

impl Host for Pidherd {
    fn cycle(&mut self) -> Result<Times> {
        let began = Instant::now();
        self.supervisor.start(self.mortal)?;
        let running = self.wait_for(|step| step.to == StateName::Running)?;
        let start = began.elapsed();
        let began = Instant::now();
        kill(running.pid.ok_or("no PID")?.as_raw())?;
        self.wait_for(|step| step.from == StateName::Running)?;
        let news = began.elapsed();

        self.supervisor.start(self.replaced)?;
        let running = self.wait_for(|step| step.to == StateName::Running)?;
        let began = Instant::now();
        kill(running.pid.ok_or("no PID")?.as_raw())?;
        self.wait_for(|step| step.to == StateName::Running)?;
        let replacement = began.elapsed();
        self.supervisor.stop(self.replaced)?;
        self.wait_for(|step| step.to == StateName::Stopped)?;
        Ok([start, news, replacement])
    }
}

/// One task for each child on the runtime's only thread. A spawn returns when the child was executed.
struct Tokio {
    runtime: tokio::runtime::Runtime,
    /// Dropped with the host: the runtime drops the tasks, and they kill the children.
    _tasks: Vec<tokio::task::JoinHandle<()>>,
    command: tokio::process::Command,
}

impl Tokio {
    fn new(program: &Program, children: usize) -> Result<Tokio> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut command = tokio::process::Command::new(program.path());
        command.args(program.args()).env_clear().kill_on_drop(true);
        let mut tasks = Vec::new();
        let entered = runtime.enter();
        for _ in 0..children {
            let mut child = command.spawn()?;
            let wait = async move { drop(child.wait().await) };
            tasks.push(runtime.spawn(wait));
        }
        drop(entered);
        // The tasks are polled once, so that each waits.
        runtime.block_on(tokio::task::yield_now());
        Ok(Tokio {
            runtime,
            _tasks: tasks,
            command,
        })
    }
}

impl Host for Tokio {
    fn cycle(&mut self) -> Result<Times> {
        let Tokio { runtime, command, .. } = self;
        runtime.block_on(async {
            let began = Instant::now();
            let mut child = command.spawn()?;
            let start = began.elapsed();
            let began = Instant::now();
            kill(child.id().ok_or("no PID")?)?;
            child.wait().await?;
            let news = began.elapsed();
            let mut child = command.spawn()?;
            let replacement = began.elapsed();
            child.kill().await?;
            Ok([start, news, replacement])
        })
    }
}

/// The crate waits for its children in a thread of its own, or for their pidfds.
struct AsyncProcess {
    /// Killed on drop.
    _sleeping: Vec<async_process::Child>,
    command: async_process::Command,
}

impl AsyncProcess {
    fn new(program: &Program, children: usize) -> Result<AsyncProcess> {
        let mut command = async_process::Command::new(program.path());
        command.args(program.args()).env_clear().kill_on_drop(true);
        let sleeping: std::io::Result<Vec<_>> = (0..children).map(|_| command.spawn()).collect();
        Ok(AsyncProcess {
            _sleeping: sleeping?,
            command,
        })
    }
}

impl Host for AsyncProcess {
    fn cycle(&mut self) -> Result<Times> {
        let began = Instant::now();
        let mut child = self.command.spawn()?;
        let start = began.elapsed();
        let began = Instant::now();
        kill(child.id())?;
        async_io::block_on(child.status())?;
        let news = began.elapsed();
        let mut child = self.command.spawn()?;
        let replacement = began.elapsed();
        child.kill()?;
        async_io::block_on(child.status())?;
        Ok([start, news, replacement])
    }
}
