//! The time without supervision while a host replaces itself.
//!
//! ```text
//! cargo bench --bench hand_over                  1,000 and 15,000 instances in one group, 1,000 in groups of one
//! cargo bench --bench hand_over -- 200           200 instances in one group
//! cargo bench --bench hand_over -- 200 50        the same in 50 groups
//! ```
//!
//! The gap is the time from the end of the last `dispatch` of a program to the beginning of the first one of the next
//! program. It has four parts. "store" is the time of a hand-over to a program that does not exist, just before: the
//! state is stored, and execve(2) fails. "execve" is the rest of the time up to the first line of `main`; the kernel
//! closes the descriptors of the old program in it, and the dynamic linker and the runtime start. "receive" is
//! `HandOver::receive`, and "take_over" is `Builder::take_over` with the descriptions of the groups.
//!
//! With `PIDHERD_BENCH_CPU=1` in the environment, all times are CPU times of the host's thread. They say less about a
//! host, and they compare two versions of the library on a busy machine.
//!
//! A process of its own is the host of each row. It hands over to itself again and again, and no instance ends.

#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "spawn/program.rs"]
mod program;
#[path = "common/ratios.rs"]
mod ratios;

use std::env;
use std::process;
use std::time::Duration;

use descriptors::{ROOM, raise_limit};
use pidherd::lifecycle::{Policy, Scope, Startup, StateName, StopLadder};
use pidherd::supervisor::{HandOver, Undescribed};
use pidherd::{Command, GroupSpec, Supervisor};
use program::Program;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Instances, and groups.
const ROWS: [(u32, u32); 3] = [(1_000, 1), (1_000, 1_000), (15_000, 1)];

/// How many hand-overs are measured.
const ROUNDS: usize = 31;

/// The parts of the gap, and the gap.
const PARTS: [&str; 5] = ["gap", "store", "execve", "receive", "take_over"];

/// The first argument of a host.
const HOST: &str = "--host";

/// The time in ns.
fn now() -> u64 {
    let clock = match env::var_os("PIDHERD_BENCH_CPU") {
        Some(_) => ClockId::ThreadCPUTime,
        None => ClockId::Monotonic,
    };
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn main() -> Result<()> {
    let began = now();
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench");
    let first = args.next();
    if first.as_deref() == Some(HOST) {
        return Host::read(args)?.run(began);
    }
    let timed = env::args().any(|arg| arg == "--bench");
    let second = args.next().map(|arg| arg.parse()).transpose()?;
    let rows = match first.filter(|_| timed) {
        _ if !timed => vec![(2, 1)],
        Some(instances) => vec![(instances.parse()?, second.unwrap_or(1))],
        None => ROWS.to_vec(),
    };
    let rounds = if timed { ROUNDS } else { 3 };
    let limit = raise_limit();
    println!("{rounds} hand-overs in each row, median and worst in ms\n");
    print!("{:>9} {:>7}", "instances", "groups");
    PARTS.iter().for_each(|part| print!(" {part:>17}"));
    println!();
    let sleeper = Program::sleeper();
    for (instances, groups) in rows {
        if limit < u64::from(instances) + ROOM {
            println!("{instances:>9} {groups:>7} n/a: the limit is {limit} descriptors");
            continue;
        }
        let mut host = process::Command::new(env::current_exe()?);
        host.args([
            HOST,
            &instances.to_string(),
            &groups.to_string(),
            &rounds.to_string(),
            "",
            "",
        ]);
        let status = host.arg(sleeper.path()).args(sleeper.args()).status()?;
        if !status.success() {
            return Err(format!("the host failed: {status}").into());
        }
    }
    Ok(())
}

/// One program of a host, as its arguments describe it.
struct Host {
    instances: u32,
    groups: u32,
    rounds: usize,
    /// The end of the last dispatch before, and the time to store the state, in ns.
    before: Option<(u64, u64)>,
    /// What was measured up to now: all parts of each hand-over, in ns.
    measured: Vec<u64>,
    command: Vec<String>,
}

impl Host {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Host> {
        let mut next = || args.next().ok_or("an argument is missing");
        let numbers = |text: String| -> Result<Vec<u64>> {
            let words = text.split(',').filter(|word| !word.is_empty());
            Ok(words.map(str::parse).collect::<std::result::Result<_, _>>()?)
        };
        Ok(Host {
            instances: next()?.parse()?,
            groups: next()?.parse()?,
            rounds: next()?.parse()?,
            before: numbers(next()?)?.chunks_exact(2).next().map(|pair| (pair[0], pair[1])),
            measured: numbers(next()?)?,
            command: args.collect(),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let before = self.before.map(|(at, store)| list(&[at, store]));
        let mut arguments = vec![
            HOST.to_owned(),
            self.instances.to_string(),
            self.groups.to_string(),
            self.rounds.to_string(),
            before.unwrap_or_default(),
            list(&self.measured),
        ];
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    fn specs(&self) -> Vec<GroupSpec> {
        let policy = Policy::new()
            .startup(Startup::Grace(Duration::ZERO))
            .stop(StopLadder::kill(Scope::Process));
        let command = Command::new(&self.command[0]).args(&self.command[1..]).env_clear();
        let spec = |group| {
            let spec = GroupSpec::new(&format!("group-{group}"), command.clone());
            spec.instances(self.instances / self.groups).policy(policy.clone())
        };
        (0..self.groups).map(spec).collect()
    }

    fn run(mut self, began: u64) -> Result<()> {
        let received = HandOver::receive()?;
        let after_receive = now();
        let mut supervisor = match received {
            None => self.start()?,
            Some(handed_over) => {
                Supervisor::builder()
                    .take_over(handed_over, self.specs(), Undescribed::Stop)
                    .map_err(|refused| refused.to_string())?
                    .supervisor
            }
        };
        let after_take_over = now();
        supervisor.dispatch()?;
        if let Some((before, store)) = self.before {
            let (received, taken) = (after_receive, after_take_over);
            let execve = (began - before).saturating_sub(store);
            self.measured
                .extend([taken - before, store, execve, received - began, taken - received]);
        }
        while supervisor.next_event().is_some() {}
        let running = supervisor.instances().filter_map(|id| supervisor.status(id));
        let running = running.filter(|status| status.state.name() == StateName::Running && status.runs == 1);
        if running.count() != self.instances as usize {
            return Err("an instance was lost".into());
        }
        if self.measured.len() == self.rounds * PARTS.len() {
            self.print();
            return Ok(());
        }
        let before = now();
        drop(supervisor.hand_over("/no/such/program", self.arguments()));
        let store = now() - before;
        supervisor.dispatch()?;
        self.before = Some((now(), store));
        let program = env::current_exe()?;
        Err(supervisor.hand_over(program, self.arguments()).into())
    }

    /// Starts all instances, and waits until they run.
    fn start(&self) -> Result<Supervisor> {
        let mut supervisor = Supervisor::new()?;
        for spec in self.specs() {
            let group = supervisor.add(spec)?;
            supervisor.start(group)?;
        }
        let is_up = |supervisor: &Supervisor| {
            let mut all = supervisor.instances().filter_map(|id| supervisor.status(id));
            all.all(|status| status.state.name() == StateName::Running)
        };
        while !is_up(&supervisor) {
            match poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => drop(result?),
            }
            supervisor.dispatch()?;
            while supervisor.next_event().is_some() {}
        }
        Ok(supervisor)
    }

    fn print(&self) {
        print!("{:>9} {:>7}", self.instances, self.groups);
        let mut medians = Vec::new();
        for part in 0..PARTS.len() {
            let times = self.measured.iter().skip(part).step_by(PARTS.len());
            let mut times: Vec<f64> = times.map(|&nanos| nanos as f64 / 1e6).collect();
            times.sort_by(f64::total_cmp);
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            print!(" {:>17}", format!("{median:.2} / {worst:.2}"));
            medians.push(median);
        }
        println!();
        if let [gap, _, execve, ..] = medians[..] {
            let row = format!("hand_over: {} in {} groups", self.instances, self.groups);
            ratios::record(&format!("{row}, gap / execve"), gap / execve);
        }
    }
}
