//! Measures the cost of a fleet: thousands of sleeping children are started, all of them live at the same
//! time, and all are stopped again.
//!
//! ```text
//! cargo bench --bench fleet               5,000 children, three times
//! cargo bench --bench fleet -- 15000      needs a limit of at least 15,200 descriptors
//! cargo bench --bench fleet -- --svg FILE several sizes, up to 15,000, and a picture of the cost of a start
//! ```
//!
//! Each living child keeps a pidfd open. A spawn that copies the descriptor table copies all of these pidfds,
//! so each child makes the next spawns more expensive. This benchmark measures that effect.
//!
//! A [`Supervisor`] does more than spawn: it keeps a state, a history and deadlines for each instance, reports every
//! transition, and reaps. The benchmark therefore also measures pidherd's [`Spawner`] alone, which waits for each
//! execve, and its [`Launcher`], which does not. The last columns tell how long one spawn holds the thread: the median,
//! and the 99th percentile. *bare clone3 in flight* makes the system calls of a launcher without its code.
//!
//! *processkit* runs in a process of its own (benches/processkit), because it needs a newer Rust than pidherd:
//! `bash ci/ratios fleet` builds it. Without it its row has no numbers.
//!
//! Only one contender runs at a time. The contenders take turns, and the table shows the median of the runs.

#[cfg(target_arch = "x86_64")]
#[path = "fleet/bare.rs"]
mod bare;
#[cfg(target_arch = "x86_64")]
#[expect(dead_code, reason = "one case is enough here")]
#[path = "spawn/case.rs"]
mod case;
#[path = "common/chart.rs"]
mod chart;
#[cfg(target_arch = "x86_64")]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
#[path = "spawn/contender.rs"]
mod contender;
#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "fleet/processkit.rs"]
mod processkit;
#[path = "spawn/program.rs"]
mod program;
#[path = "common/ratios.rs"]
mod ratios;
#[path = "fleet/times.rs"]
mod times;

use std::io;
use std::time::{Duration, Instant};

use descriptors::{ROOM, raise_limit};
use pidherd::lifecycle::StateName;
use pidherd::{Child, Command, Event, GroupSpec, Launcher, Restart, Signal, Spawner, Supervisor};
use program::Program;
use rustix::event::{PollFd, PollFlags, poll};
use times::{IN_FLIGHT, Result, Times};

/// A contender's name in the table, and the function that starts and stops this many children of a program.
type Contender = (&'static str, fn(&Program, usize) -> Result<Times>);

const CONTENDERS: &[Contender] = &[
    ("pidherd, Supervisor", supervisor),
    ("pidherd, Spawner", spawner),
    ("pidherd, Launcher", launcher),
    #[cfg(target_arch = "x86_64")]
    ("bare clone3 in flight", bare::in_flight),
    ("std (no pidfds)", std_process),
    ("tokio", tokio_process),
    ("async-process", async_process),
    ("processkit", processkit::processkit),
];

const FLEET: usize = 5_000;
const RUNS: usize = 3;

/// The sizes of the picture.
const SIZES: &[usize] = &[10, 100, 1_000, 5_000, 15_000];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let timed = std::env::args().any(|arg| arg == "--bench");
    if let [option, file] = &args[..] {
        if option == "--svg" {
            return draw(file.as_ref(), timed);
        }
    }
    let asked = args.first().map(|arg| arg.parse()).transpose()?;
    let (fleet, runs) = if timed { (asked.unwrap_or(FLEET), RUNS) } else { (20, 1) };
    measure(fleet, runs).map(drop)
}

/// Measures all sizes, and draws the cost of a start.
fn draw(file: &std::path::Path, timed: bool) -> Result<()> {
    let sizes = if timed { SIZES } else { &SIZES[..1] };
    let mut series: Vec<(String, Vec<Option<f64>>)> = CONTENDERS
        .iter()
        .map(|&(name, _)| (name.to_owned(), Vec::new()))
        .collect();
    for &fleet in sizes {
        for ((_, values), start) in series.iter_mut().zip(measure(fleet, RUNS)?) {
            values.push(start.map(|seconds| seconds / fleet as f64 * 1e6));
        }
    }
    let chart = chart::Chart {
        title: "Start of a process, microseconds each, by the number of living children".to_owned(),
        categories: sizes.iter().map(usize::to_string).collect(),
        series,
    };
    Ok(chart.write(file)?)
}

/// Measures and prints all contenders. Returns how long each took to start all children, in seconds.
fn measure(fleet: usize, runs: usize) -> Result<Vec<Option<f64>>> {
    let limit = raise_limit();
    if limit < fleet as u64 + ROOM {
        println!("{fleet} sleepers: n/a: the limit is {limit} descriptors");
        return Ok(Vec::new());
    }
    let program = Program::sleeper();
    println!("{fleet} sleepers ({}); medians of {runs}\n", program.describe());
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "start, s", "starts/s", "stop, s", "stops/s", "held, us", "99th, us"
    );
    let mut times: Vec<Vec<_>> = CONTENDERS.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        for ((_, run), times) in CONTENDERS.iter().zip(&mut times) {
            times.push(run(&program, fleet).map_err(|error| error.to_string()));
        }
    }
    let rows = CONTENDERS.iter().zip(times);
    let starts: Vec<_> = rows.map(|((name, _), times)| print_row(name, fleet, times)).collect();
    record(fleet, &starts);
    Ok(starts)
}

/// Records how long a supervisor takes for all starts, compared with each of the others.
fn record(fleet: usize, starts: &[Option<f64>]) {
    let Some(Some(ours)) = starts.first() else { return };
    for ((name, _), theirs) in CONTENDERS.iter().zip(starts).skip(1) {
        if let Some(theirs) = theirs {
            ratios::record(&format!("fleet: start of {fleet}, Supervisor / {name}"), ours / theirs);
        }
    }
}

/// Prints the row of a contender, and returns the time of all starts in seconds.
fn print_row(name: &str, fleet: usize, times: Vec<std::result::Result<Times, String>>) -> Option<f64> {
    let times: Vec<Times> = match times.into_iter().collect() {
        Ok(times) => times,
        Err(error) => {
            println!("{name:<22} n/a: {error}");
            return None;
        }
    };
    let median = |pick: &dyn Fn(&Times) -> Duration| {
        let mut seconds: Vec<f64> = times.iter().map(|times| pick(times).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let (start, stop) = (median(&|times| times.start), median(&|times| times.stop));
    let rate = |seconds: f64| fleet as f64 / seconds;
    let held = |hundredths: usize| {
        if times.iter().any(|times| times.held.is_empty()) {
            return String::new();
        }
        let seconds = median(&|times| {
            let mut held = times.held.clone();
            held.sort_unstable();
            held[held.len() * hundredths / 100]
        });
        format!("{:.1}", seconds * 1e6)
    };
    println!(
        "{name:<22} {start:>9.3} {:>9.0} {stop:>9.3} {:>9.0} {:>9} {:>9}",
        rate(start),
        rate(stop),
        held(50),
        held(99)
    );
    Some(start)
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
    let start = began.elapsed();
    let began = Instant::now();
    supervisor.stop(group)?;
    wait_until_all_are(&mut supervisor, StateName::Stopped, fleet)?;
    Ok(Times {
        start,
        stop: began.elapsed(),
        ..Times::default()
    })
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

fn compile(program: &Program) -> Result<pidherd::Program> {
    let command = Command::new(program.path()).args(program.args()).env_clear();
    Ok(command.compile()?)
}

/// Starts the children with a spawner alone, and keeps one [`Child`] for each.
fn spawner(program: &Program, fleet: usize) -> Result<Times> {
    let mut spawner = Spawner::new()?;
    let compiled = compile(program)?;
    let (mut children, mut held) = (Vec::with_capacity(fleet), Vec::with_capacity(fleet));
    let began = Instant::now();
    for _ in 0..fleet {
        let now = Instant::now();
        children.push(spawner.spawn(&compiled)?);
        held.push(now.elapsed());
    }
    let start = began.elapsed();
    let stop = stop(children)?;
    Ok(Times { start, stop, held })
}

/// The same with a launcher, and a poll loop as an event loop has one.
fn launcher(program: &Program, fleet: usize) -> Result<Times> {
    let mut launcher = Launcher::new()?;
    let compiled = compile(program)?;
    let (mut children, mut held) = (Vec::with_capacity(fleet), Vec::with_capacity(fleet));
    let began = Instant::now();
    while children.len() < fleet {
        while launcher.in_flight() < IN_FLIGHT && held.len() < fleet {
            let now = Instant::now();
            launcher.begin(&compiled)?;
            held.push(now.elapsed());
        }
        match poll(&mut [PollFd::new(&launcher, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => drop(result?),
        }
        while let Some((_, child)) = launcher.finish() {
            children.push(child?);
        }
    }
    let start = began.elapsed();
    let stop = stop(children)?;
    Ok(Times { start, stop, held })
}

/// Stops the children, and returns how long that took.
fn stop(mut children: Vec<Child>) -> Result<Duration> {
    let began = Instant::now();
    for child in &children {
        child.pidfd().signal(Signal::TERM)?;
    }
    for child in &mut children {
        child.wait()?;
    }
    drop(children);
    Ok(began.elapsed())
}

/// The standard library keeps no descriptor for a child, so a spawn copies a small table. The caller has no
/// descriptor to wait for.
fn std_process(program: &Program, fleet: usize) -> Result<Times> {
    let mut command = std::process::Command::new(program.path());
    command.args(program.args()).env_clear();
    let began = Instant::now();
    let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
    let mut children = children?;
    let start = began.elapsed();
    let began = Instant::now();
    for child in &mut children {
        child.kill()?;
    }
    for child in &mut children {
        child.wait()?;
    }
    Ok(Times {
        start,
        stop: began.elapsed(),
        ..Times::default()
    })
}

fn tokio_process(program: &Program, fleet: usize) -> Result<Times> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut command = tokio::process::Command::new(program.path());
    command.args(program.args()).env_clear().kill_on_drop(true);
    runtime.block_on(async {
        let began = Instant::now();
        let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
        let mut children = children?;
        let start = began.elapsed();
        let began = Instant::now();
        for child in &mut children {
            child.start_kill()?;
        }
        for child in &mut children {
            child.wait().await?;
        }
        drop(children);
        Ok(Times {
            start,
            stop: began.elapsed(),
            ..Times::default()
        })
    })
}

fn async_process(program: &Program, fleet: usize) -> Result<Times> {
    let mut command = async_process::Command::new(program.path());
    command.args(program.args()).env_clear().kill_on_drop(true);
    let began = Instant::now();
    let children: io::Result<Vec<_>> = (0..fleet).map(|_| command.spawn()).collect();
    let mut children = children?;
    let start = began.elapsed();
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
    Ok(Times {
        start,
        stop: began.elapsed(),
        ..Times::default()
    })
}
