//! What a crash storm in one group does to the deadlines of another.
//!
//! ```text
//! cargo bench --bench storm               storms of 1, 50, 1,000 and 5,000 instances
//! cargo bench --bench storm -- 200        one of this size
//! ```
//!
//! In the storm every instance exits as soon as it is started, and is restarted at once: grace zero, no crash budget.
//! Beside it a quiet group of one instance has a short grace. That instance is restarted many times. The lateness is
//! the time between the end of its grace and the moment at which the host sees it `Running`. The time of each
//! `dispatch` is measured too; the longest should be the slice and one spawn. The host waits for the one descriptor,
//! dispatches and fetches events, as most hosts do.

#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "spawn/program.rs"]
mod program;

use std::time::Duration;

use descriptors::{ROOM, raise_limit};
use pidherd::lifecycle::{Policy, Restart, Scope, Startup, StateName, StopLadder};
use pidherd::time::Instant;
use pidherd::{Command, Event, GroupSpec, Supervisor};
use program::Program;
use rustix::event::{PollFd, PollFlags, poll};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const STORMS: [u32; 4] = [1, 50, 1_000, 5_000];

/// The grace of the quiet instance. It is not a multiple of the slice.
const GRACE: Duration = Duration::from_millis(23);

/// How many deadlines are measured in each storm.
const DEADLINES: usize = 100;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let timed = std::env::args().any(|arg| arg == "--bench");
    let asked = args.next().map(|arg| arg.parse()).transpose()?;
    let storms = match (timed, asked) {
        (false, _) => vec![2],
        (true, Some(instances)) => vec![instances],
        (true, None) => STORMS.to_vec(),
    };
    let deadlines = if timed { DEADLINES } else { 3 };
    let limit = raise_limit();
    println!("lateness of {deadlines} deadlines beside a storm, in ms; times of a dispatch, in ms\n");
    println!(
        "{:>9} {:>10} {:>10} {:>10} {:>10} {:>12} {:>12} {:>12}",
        "instances", "median", "99 %", "worst", "starts/s", "dispatch", "worst", "worst spawn"
    );
    for instances in storms {
        if limit < u64::from(instances) + ROOM {
            println!("{instances:>9} n/a: the limit is {limit} descriptors");
            continue;
        }
        print_row(instances, &mut measure(instances, deadlines)?);
    }
    Ok(())
}

/// What was measured in one storm.
#[derive(Default)]
struct Measured {
    lateness: Vec<Duration>,
    dispatches: Vec<Duration>,
    /// The longest time between two starts that follow each other in one dispatch.
    longest_spawn: Duration,
    starts: u64,
    took: Duration,
}

fn print_row(instances: u32, measured: &mut Measured) {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    measured.lateness.sort();
    measured.dispatches.sort();
    let share = |times: &[Duration], part: f64| {
        let place = (times.len() as f64 * part) as usize;
        times
            .get(place.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    let lateness = |part| ms(share(&measured.lateness, part));
    let dispatch = |part| ms(share(&measured.dispatches, part));
    println!(
        "{instances:>9} {:>10.2} {:>10.2} {:>10.2} {:>10.0} {:>12.2} {:>12.2} {:>12.2}",
        lateness(0.5),
        lateness(0.99),
        lateness(1.0),
        measured.starts as f64 / measured.took.as_secs_f64(),
        dispatch(0.5),
        dispatch(1.0),
        ms(measured.longest_spawn),
    );
}

fn measure(instances: u32, deadlines: usize) -> Result<Measured> {
    let mut supervisor = Supervisor::new()?;
    let sleeper = Program::sleeper();
    let storm = supervisor.add(storm(instances))?;
    let quiet = supervisor.add(quiet(&sleeper))?;
    let id = supervisor.group(quiet).ok_or("no quiet group")?.instances[0];
    supervisor.start(storm)?;
    let mut before = Measured::default();
    while before.starts < 2 * u64::from(instances) {
        turn(&mut supervisor, &mut before)?;
    }
    let mut measured = Measured::default();
    let began = supervisor.now();
    for _ in 0..deadlines {
        supervisor.restart(quiet)?;
        let deadline = loop {
            turn(&mut supervisor, &mut measured)?;
            let state = supervisor.status(id).ok_or("no status")?.state;
            if let (StateName::Starting, Some(deadline)) = (state.name(), state.deadline()) {
                break deadline;
            }
        };
        while supervisor.status(id).ok_or("no status")?.state.name() != StateName::Running {
            turn(&mut supervisor, &mut measured)?;
        }
        measured
            .lateness
            .push(supervisor.now().saturating_duration_since(deadline));
    }
    measured.took = supervisor.now().saturating_duration_since(began);
    Ok(measured)
}

/// Instances that exit at once.
fn storm(instances: u32) -> GroupSpec {
    let policy = Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Always)
        .crash_budget(None)
        .stop(StopLadder::kill(Scope::Process));
    let command = Command::new("/bin/false").env_clear();
    GroupSpec::new("storm", command).instances(instances).policy(policy)
}

/// One instance that stays until it is stopped.
fn quiet(sleeper: &Program) -> GroupSpec {
    let command = Command::new(sleeper.path()).args(sleeper.args()).env_clear();
    let policy = Policy::new()
        .startup(Startup::Grace(GRACE))
        .stop(StopLadder::kill(Scope::Process));
    GroupSpec::new("quiet", command).policy(policy)
}

/// Waits, dispatches and fetches events.
fn turn(supervisor: &mut Supervisor, measured: &mut Measured) -> Result<()> {
    match poll(&mut [PollFd::new(&*supervisor, PollFlags::IN)], None) {
        Err(rustix::io::Errno::INTR) => return Ok(()),
        result => drop(result?),
    }
    let began = supervisor.now();
    supervisor.dispatch()?;
    measured
        .dispatches
        .push(supervisor.now().saturating_duration_since(began));
    let mut last: Option<Instant> = None;
    while let Some(event) = supervisor.next_event() {
        match event {
            Event::Transition(step) if step.to == StateName::Starting => {
                measured.starts += 1;
                let spawn = last.map_or(Duration::ZERO, |last| step.at.saturating_duration_since(last));
                measured.longest_spawn = measured.longest_spawn.max(spawn);
                last = Some(step.at);
            }
            _ => {}
        }
    }
    Ok(())
}
