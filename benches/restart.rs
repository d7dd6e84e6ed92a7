//! What a restart costs in flight, compared with a spawn that waits for its execve.
//!
//! ```text
//! cargo bench --bench restart               4,000 restarts of each kind
//! cargo bench --bench restart -- 20000      as many as this
//! cargo bench --bench restart -- 20000 32   only those in flight, to count their system calls
//! ```
//!
//! One instance exits as soon as it is started, and is restarted at once: grace zero, no crash budget. A cycle is the
//! time from one start to the next. The two kinds take turns in one process, a few cycles at a time, so that the load
//! of the machine has the same effect on both. The host waits for the one descriptor, dispatches and fetches events, as
//! most hosts do.

#[path = "common/ratios.rs"]
mod ratios;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use pidherd::lifecycle::{Policy, Restart, Scope, Startup, StateName, StopLadder};
use pidherd::time::Instant;
use pidherd::{Command, Event, GroupId, GroupSpec, Supervisor};
use rustix::event::{PollFd, PollFlags, poll};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const RESTARTS: usize = 4_000;

/// How many cycles one kind runs before the other has its turn.
const BLOCK: usize = 20;

/// The cycles at the beginning of a block that are not counted.
const WARM_UP: usize = 2;

/// The maximum of spawns in flight: each spawn waits for its execve, or none does. The last kind stores its state in a
/// file.
const KINDS: [(usize, bool); 3] = [(0, false), (32, false), (32, true)];

fn main() -> Result<()> {
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench");
    let timed = env::args().any(|arg| arg == "--bench");
    let asked = args.next().map(|arg| arg.parse()).transpose()?;
    let only: Option<usize> = args.next().map(|arg| arg.parse()).transpose()?;
    let restarts = if timed { asked.unwrap_or(RESTARTS) } else { BLOCK };
    let kinds = KINDS
        .iter()
        .filter(|&&(most, is_stored)| only.is_none_or(|only| only == most && !is_stored));
    let contenders = kinds.map(|&(most, is_stored)| Contender::new(most, is_stored));
    let mut contenders: Vec<Contender> = contenders.collect::<Result<_>>()?;
    println!("state file in {}", env::temp_dir().display());
    for _ in 0..restarts.div_ceil(BLOCK) {
        for contender in &mut contenders {
            contender.run()?;
        }
    }
    // Only the contender with a state file has one; the file stays open.
    let _ = fs::remove_file(state_file());
    println!("{restarts} restarts of /bin/false; times of a cycle in us\n");
    println!("{:>10} {:>10} {:>10} {:>10}", "in flight", "10 %", "median", "90 %");
    for contender in &mut contenders {
        contender.cycles.sort();
        let [low, median, high] = [10, 50, 90].map(|part| micros(share(&contender.cycles, part)));
        let stored = if contender.is_stored { " stored" } else { "" };
        println!("{:>10} {low:>10.1} {median:>10.1} {high:>10.1}{stored}", contender.most);
    }
    if let [waiting, in_flight, stored] = contenders.as_slice() {
        compare("in flight / waiting", in_flight, waiting);
        compare("stored / in flight", stored, in_flight);
    }
    Ok(())
}

fn state_file() -> PathBuf {
    env::temp_dir().join(format!("pidherd-bench-{}", std::process::id()))
}

/// Prints how long the cycles of one kind take compared with those of the other.
fn compare(name: &str, ours: &Contender, theirs: &Contender) {
    let ratio = micros(share(&ours.cycles, 50)) / micros(share(&theirs.cycles, 50));
    let pairs = ours.blocks.iter().zip(&theirs.blocks);
    let mut ratios: Vec<f64> = pairs.map(|(&ours, &theirs)| micros(ours) / micros(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "{name}: {ratio:.3}; median of {} pairs of blocks: {median:.3}",
        ratios.len()
    );
    ratios::record(&format!("restart: {name}"), median);
}

fn share(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() * hundredths / 100).min(sorted.len() - 1)]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// One kind of spawns, and what was measured.
struct Contender {
    most: usize,
    is_stored: bool,
    supervisor: Supervisor,
    group: GroupId,
    cycles: Vec<Duration>,
    /// The median of each block.
    blocks: Vec<Duration>,
}

impl Contender {
    fn new(most: usize, is_stored: bool) -> Result<Contender> {
        let mut builder = Supervisor::builder().spawns_in_flight(most);
        if is_stored {
            builder = builder.state_file(state_file());
        }
        let mut supervisor = builder.build()?;
        let policy = Policy::new()
            .startup(Startup::Grace(Duration::ZERO))
            .restart(Restart::Always)
            .crash_budget(None)
            .stop(StopLadder::kill(Scope::Process));
        let command = Command::new("/bin/false").env_clear();
        let group = supervisor.add(GroupSpec::new("false", command).policy(policy))?;
        Ok(Contender {
            most,
            is_stored,
            supervisor,
            group,
            cycles: Vec::new(),
            blocks: Vec::new(),
        })
    }

    /// Runs one block of cycles.
    fn run(&mut self) -> Result<()> {
        self.supervisor.start(self.group)?;
        let mut starts = Vec::with_capacity(2 * BLOCK);
        while starts.len() <= WARM_UP + BLOCK {
            self.turn(&mut starts)?;
        }
        self.supervisor.stop(self.group)?;
        let id = self.supervisor.group(self.group).ok_or("no group")?.instances[0];
        while self.supervisor.status(id).ok_or("no status")?.state.name() != StateName::Stopped {
            self.turn(&mut Vec::new())?;
        }
        let counted = starts.windows(2).skip(WARM_UP).take(BLOCK);
        let mut cycles: Vec<Duration> = counted.map(|pair| pair[1].saturating_duration_since(pair[0])).collect();
        self.cycles.extend_from_slice(&cycles);
        cycles.sort();
        self.blocks.push(share(&cycles, 50));
        Ok(())
    }

    /// Waits, dispatches and fetches events.
    fn turn(&mut self, starts: &mut Vec<Instant>) -> Result<()> {
        match poll(&mut [PollFd::new(&self.supervisor, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => drop(result?),
        }
        self.supervisor.dispatch()?;
        while let Some(event) = self.supervisor.next_event() {
            match event {
                Event::Transition(step) if step.to == StateName::Starting => starts.push(step.at),
                _ => {}
            }
        }
        Ok(())
    }
}
