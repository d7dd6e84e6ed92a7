//! Measures the cost of a fleet: thousands of sleeping children are started, all of them live at the same
//! time, and all are stopped again.
//!
//! ```text
//! cargo bench --bench fleet               5,000 children, three times
//! cargo bench --bench fleet -- 15000      needs a limit of at least 15,200 descriptors
//! ```
//!
//! Each living child keeps a pidfd open. A spawn that copies the descriptor table copies all of these pidfds,
//! so each child makes the next spawns more expensive. This benchmark measures that effect.
//!
//! A [`Supervisor`] does more than spawn: it keeps a state, a history and deadlines for each instance,
//! reports every transition, and reaps. The benchmark therefore also measures pidherd's [`Spawner`] alone.
//!
//! Only one contender runs at a time. The contenders take turns, and the table shows the median of the runs.

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

/// The time to start all children, and the time to stop all of them.
type Times = (Duration, Duration);

/// A contender's name in the table, and the function that starts and stops this many children of a program.
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

/// The number of descriptors that the benchmark needs in addition to one for each child.
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

/// Raises the soft limit of open descriptors to the hard limit, and returns the soft limit.
fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // The kernel may refuse the new limit. The limit in force is read below in any case.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Starts and stops one group in the way of a host: with commands, events, and one descriptor to wait for.
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
    wait_until_all_are(&mut supervisor, StateName::Running, fleet)?;
    let started = began.elapsed();
    let began = Instant::now();
    supervisor.stop(group)?;
    wait_until_all_are(&mut supervisor, StateName::Stopped, fleet)?;
    Ok((started, began.elapsed()))
}

fn wait_until_all_are(supervisor: &mut Supervisor, state: StateName, fleet: usize) -> Result<()> {
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

/// Starts the children with a spawner alone, and keeps one [`Child`] for each.
fn spawner(program: &Program, fleet: usize) -> Result<Times> {
    let mut spawner = Spawner::new()?;
    let compiled = Command::new(program.path())
        .args(program.args())
        .env_clear()
        .compile()?;
    let began = Instant::now();
    let children: std::result::Result<Vec<Child>, _> = (0..fleet).map(|_| spawner.spawn(&compiled)).collect();
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

/// The standard library keeps no descriptor for a child, so a spawn copies a small table. The caller has no
/// descriptor to wait for.
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
