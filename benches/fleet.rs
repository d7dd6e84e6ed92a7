//! What a fleet costs: thousands of sleepers started, all alive at once, and stopped again.
//!
//! ```text
//! cargo bench --bench fleet               5,000 of them, three times
//! cargo bench --bench fleet -- 15000      takes a limit of 15,200 descriptors
//! ```
//!
//! Here the cost of a spawn meets its own consequence: each child that lives keeps a pidfd, and whatever copies
//! the descriptor table copies all of them. A supervisor does more than spawn: pidherd's [`Supervisor`] keeps a
//! state, a history and deadlines for each, tells every transition, and reaps. Its [`Spawner`] alone stands beside it.
//! Each contender has the machine for itself for one run; they take turns, and the median counts.

#[path = "spawn/program.rs"]
mod program;

use std::io;
use std::time::{Duration, Instant};

use pidherd::lifecycle::StateName;
use pidherd::{Child, Command, Event, GroupSpec, Restart, Signal, Spawner, Supervisor};
use program::Program;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long starting all took, and stopping all.
type Times = (Duration, Duration);

/// A way to keep a fleet: how it is called, and what it does with a program so many times.
type Contender = (&'static str, fn(&Program, usize) -> Result<Times>);

const CONTENDERS: [Contender; 5] = [
    ("pidherd, Supervisor", supervisor),
    ("pidherd, Spawner", spawner),
    ("std (no pidfds)", std_process),
    ("tokio", tokio_process),
    ("async-process", async_process),
];

const FLEET: usize = 5_000;
const RUNS: usize = 3;

/// Descriptors beside the fleet's.
const ROOM: u64 = 200;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let timed = std::env::args().any(|arg| arg == "--bench");
    let asked = args.next().map(|arg| arg.parse()).transpose()?;
    let (fleet, runs) = if timed { (asked.unwrap_or(FLEET), RUNS) } else { (20, 1) };
    let limit = raise_limit();
    if limit < fleet as u64 + ROOM {
        println!("{fleet} sleepers: n/a: the limit is {limit} descriptors");
        return Ok(());
    }
    let program = Program::sleeper();
    println!("{fleet} sleepers ({}); medians of {runs}\n", program.describe());
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>10}",
        "", "start, s", "starts/s", "stop, s", "stops/s"
    );
    let mut times = vec![Vec::new(); CONTENDERS.len()];
    for _ in 0..runs {
        for ((_, run), times) in CONTENDERS.iter().zip(&mut times) {
            times.push(run(&program, fleet).map_err(|error| error.to_string()));
        }
    }
    for ((name, _), times) in CONTENDERS.iter().zip(times) {
        print_row(name, fleet, times);
    }
    Ok(())
}

fn print_row(name: &str, fleet: usize, times: Vec<std::result::Result<Times, String>>) {
    let times: Vec<Times> = match times.into_iter().collect() {
        Ok(times) => times,
        Err(error) => return println!("{name:<20} n/a: {error}"),
    };
    let median = |pick: fn(&Times) -> Duration| {
        let mut seconds: Vec<f64> = times.iter().map(|times| pick(times).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let (start, stop) = (median(|times| times.0), median(|times| times.1));
    let rate = |seconds: f64| fleet as f64 / seconds;
    println!(
        "{name:<20} {start:>10.3} {:>10.0} {stop:>10.3} {:>10.0}",
        rate(start),
        rate(stop)
    );
}

/// The soft limit, after it was made equal to the hard one.
fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Refused or not, what counts is what it is then.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// One group, started and stopped as a host does it: commands, events, one descriptor to wait for.
fn supervisor(program: &Program, fleet: usize) -> Result<Times> {
    let mut supervisor = Supervisor::new()?;
    let command = Command::new(program.path()).args(program.args()).env_clear();
    let spec = GroupSpec::new("sleeper", command)
        .instances(u32::try_from(fleet)?)
        .grace(Duration::ZERO)
        .restart(Restart::Never);
    let group = supervisor.add(spec)?;
    let began = Instant::now();
    supervisor.start(group)?;
    until_all_are(&mut supervisor, StateName::Running, fleet)?;
    let started = began.elapsed();
    let began = Instant::now();
    supervisor.stop(group)?;
    until_all_are(&mut supervisor, StateName::Stopped, fleet)?;
    Ok((started, began.elapsed()))
}

fn until_all_are(supervisor: &mut Supervisor, state: StateName, fleet: usize) -> Result<()> {
    let mut there = 0;
    loop {
        while let Some(event) = supervisor.next_event() {
            match event {
                Event::Transition(transition) if transition.to == state => there += 1,
                Event::Transition(transition) if transition.error.is_some() => {
                    return Err(format!("{:?}", transition.error).into());
                }
                _ => {}
            }
        }
        if there == fleet {
            return Ok(());
        }
        match poll(&mut [PollFd::new(supervisor.fds(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => drop(result?),
        }
        supervisor.dispatch()?;
    }
}

/// The bare minimum: a spawner, and a child each.
fn spawner(program: &Program, fleet: usize) -> Result<Times> {
    let mut spawner = Spawner::new()?;
    let mut compiled = Command::new(program.path())
        .args(program.args())
        .env_clear()
        .compile()?;
    let began = Instant::now();
    let children: std::result::Result<Vec<Child>, _> = (0..fleet).map(|_| spawner.spawn(&mut compiled)).collect();
    let mut children = children?;
    let started = began.elapsed();
    let began = Instant::now();
    for child in &children {
        child.pidfd().signal(Signal::TERM)?;
    }
    for child in &mut children {
        child.wait()?;
    }
    drop(children);
    Ok((started, began.elapsed()))
}

/// Without a descriptor for each child there is no table to copy, and nothing to wait for either.
fn std_process(program: &Program, fleet: usize) -> Result<Times> {
    let mut command = std::process::Command::new(program.path());
    command.args(program.args()).env_clear();
    let began = Instant::now();
    let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
    let mut children = children?;
    let started = began.elapsed();
    let began = Instant::now();
    for child in &mut children {
        child.kill()?;
    }
    for child in &mut children {
        child.wait()?;
    }
    Ok((started, began.elapsed()))
}

fn tokio_process(program: &Program, fleet: usize) -> Result<Times> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut command = tokio::process::Command::new(program.path());
    command.args(program.args()).env_clear().kill_on_drop(true);
    runtime.block_on(async {
        let began = Instant::now();
        let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
        let mut children = children?;
        let started = began.elapsed();
        let began = Instant::now();
        for child in &mut children {
            child.start_kill()?;
        }
        for child in &mut children {
            child.wait().await?;
        }
        drop(children);
        Ok((started, began.elapsed()))
    })
}

fn async_process(program: &Program, fleet: usize) -> Result<Times> {
    let mut command = async_process::Command::new(program.path());
    command.args(program.args()).env_clear().kill_on_drop(true);
    let began = Instant::now();
    let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
    let mut children = children?;
    let started = began.elapsed();
    let began = Instant::now();
    for child in &mut children {
        child.kill()?;
    }
    async_io::block_on(async {
        for child in &mut children {
            child.status().await?;
        }
        io::Result::Ok(())
    })?;
    drop(children);
    Ok((started, began.elapsed()))
}
