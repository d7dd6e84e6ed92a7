//! What one process costs a host with many others: its start, the time from its death to the news of it, and the time
//! from its death to its replacement. Each is measured beside 10 and beside 15,000 living children.
//!
//! ```text
//! cargo bench --bench scale                       a few minutes; needs a limit of at least 15,200 descriptors
//! cargo bench --bench scale -- 5000               beside 10 and beside 5,000 living children
//! cargo bench --bench scale -- 15000 pidherd      only the contenders with this in their name
//! ```
//!
//! Each contender with each number of children is a host of its own, a process that this benchmark starts. The two hosts
//! of a contender live at the same time and take turns, a few cycles at a time, so that the load of the machine has the
//! same effect on both. The contenders follow each other, because a machine may have only 32,768 PIDs.
//!
//! A cycle has these steps. A child is started: until the host knows that it was executed. It is killed: until the host
//! knows of its end. It is replaced: from the kill until the host knows that the next child was executed. Then the
//! next child is stopped, which is not measured.
//!
//! *pidherd* waits for each execve, as the others do. *pidherd, in flight* does not, which is the default: the spawn
//! returns earlier, and the host is told of the execve by a look after 1 ms.
//!
//! Every child is watched: a supervisor watches each of its instances, and with tokio and async-process one task waits
//! for each child.

#[path = "../common/descriptors.rs"]
mod descriptors;
mod hosts;
#[path = "../spawn/program.rs"]
mod program;
#[path = "../common/ratios.rs"]
mod ratios;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, mem};

use descriptors::{ROOM, raise_limit};
use hosts::{MEASURES, Result};

const MANY: usize = 15_000;
const FEW: usize = 10;

/// How many times all hosts have their turn.
const TURNS: usize = 40;

/// How many cycles are measured in one turn. One more precedes them.
const CYCLES: usize = 10;

/// The first argument of a host.
const HOST: &str = "--host";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [HOST, contender, children] = &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return hosts::run(contender, children.parse()?);
    }
    let timed = env::args().any(|arg| arg == "--bench");
    let many = match args.first() {
        Some(many) => many.parse()?,
        None if timed => MANY,
        None => 2 * FEW,
    };
    let turns = if timed { TURNS } else { 1 };
    let limit = raise_limit();
    if limit < many as u64 + ROOM {
        println!("{many} children: n/a: the limit is {limit} descriptors");
        return Ok(());
    }
    let wanted = |name: &&&str| args.get(1).is_none_or(|part| name.contains(part.as_str()));
    let mut measured = Vec::new();
    for name in hosts::NAMES.iter().filter(wanted) {
        let mut hosts = [Host::start(name, FEW)?, Host::start(name, many)?];
        for turn in 0..turns {
            // In the other order every second time.
            for number in [turn % 2, 1 - turn % 2] {
                hosts[number].turn()?;
            }
        }
        measured.extend(hosts.map(Host::end));
    }
    print(&measured, turns);
    Ok(())
}

/// Prints a table for each measure.
fn print(hosts: &[Measured], turns: usize) {
    println!(
        "medians of {} cycles in us, beside this many living children\n",
        turns * CYCLES
    );
    for (measure, title) in MEASURES.iter().enumerate() {
        let [few, many] = [&hosts[0], &hosts[1]].map(|host| host.children.to_string());
        println!("{title:<24} {few:>10} {many:>10} {:>10}", "ratio");
        for pair in hosts.chunks(2) {
            let [few, many] = pair else { continue };
            let (small, large) = (few.median(measure), many.median(measure));
            println!("{:<24} {small:>10.1} {large:>10.1} {:>10.2}", few.name, large / small);
            // The growth of the others is no regression of this crate.
            if few.name.starts_with("pidherd") {
                ratios::record(
                    &format!("scale: {}: {title}, {}/{}", few.name, many.children, few.children),
                    large / small,
                );
            }
        }
        println!();
    }
}

/// A host in a process of its own, and what it measured.
struct Host {
    name: &'static str,
    children: usize,
    process: Child,
    /// Its end ends the host.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The times of all cycles in ns, for each measure.
    times: [Vec<u64>; MEASURES.len()],
}

impl Host {
    /// Starts a host, and waits until its children live.
    fn start(name: &'static str, children: usize) -> Result<Host> {
        let mut process = Command::new(env::current_exe()?)
            .args([HOST, name, &children.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut host = Host {
            name,
            children,
            process,
            requests,
            answers,
            times: Default::default(),
        };
        host.line()?;
        Ok(host)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(format!("the host {} with {} children has ended", self.name, self.children).into()),
            _ => Ok(line),
        }
    }

    /// Lets the host run some cycles. The first is not counted.
    fn turn(&mut self) -> Result<()> {
        let requests = self.requests.as_mut().ok_or("no pipe")?;
        requests.write_all(format!("{}\n", 1 + CYCLES).as_bytes())?;
        for cycle in 0..=CYCLES {
            let line = self.line()?;
            for (times, time) in self.times.iter_mut().zip(line.split_whitespace()) {
                if cycle > 0 {
                    times.push(time.parse()?);
                }
            }
        }
        Ok(())
    }

    /// Ends the host and its children.
    fn end(mut self) -> Measured {
        Measured {
            name: self.name,
            children: self.children,
            times: mem::take(&mut self.times),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.requests.take());
        // The host kills its children before it ends.
        let _ = self.process.wait();
    }
}

/// What a host measured.
struct Measured {
    name: &'static str,
    children: usize,
    /// The times of all cycles in ns, for each measure.
    times: [Vec<u64>; MEASURES.len()],
}

impl Measured {
    /// The median in microseconds.
    fn median(&self, measure: usize) -> f64 {
        let mut times = self.times[measure].clone();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(f64::NAN, |&time| time as f64 / 1e3)
    }
}
