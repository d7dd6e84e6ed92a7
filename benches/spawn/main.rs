//! What a spawn costs: from the decision to start a program to the end of the program, reaped.
//!
//! ```text
//! cargo bench --bench spawn                                     a few minutes
//! cargo bench --bench spawn -- --rounds 2000 plain              longer, and only cases with "plain" in their name
//! cargo bench --bench spawn -- --only pidherd --only limit      only these contenders
//! ```
//!
//! All contenders take turns in one process, in an order that is shuffled for each round, so that whatever else the
//! machine does hits all of them alike. The environments (open descriptors, resident memory) take turns too, in
//! blocks. Each timed spawn follows an untimed one of the same contender: that is how a host spawns, and
//! nobody pays for the 15,000 files that the one before it walked through the caches.
//!
//! What is compared are medians; the lower quartile stands beside them. On a machine that is busy with something
//! else, both tell more of that than of spawning, unless the benchmark goes first: `chrt --fifo 1 cargo bench ...`.
//!
//! *The limit* makes the same system calls as the library, in parent and child, from a bare loop: what
//! is left above it is what the library costs.
//!
//! Nothing here fails because something is slow: it prints targets and verdicts.

mod contenders;
mod environment;
mod limit;
mod options;
mod program;
mod report;

use std::time::Instant;

use contenders::Line;
use environment::{Environment, Memory};
use options::Options;
use report::{Report, Samples};

/// What is asked of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Plain,
    UmaskAndDirectory,
    TwoPipes,
    Ids,
}

impl Case {
    const ALL: [Case; 4] = [Case::Plain, Case::UmaskAndDirectory, Case::TwoPipes, Case::Ids];

    fn name(self) -> &'static str {
        match self {
            Case::Plain => "plain",
            Case::UmaskAndDirectory => "umask+cwd",
            Case::TwoPipes => "two-pipes",
            Case::Ids => "uid+gid",
        }
    }
}

/// The settings of the cases.
const UMASK: u32 = 0o027;
const DIRECTORY: &str = "/";
const UID: u32 = 65_534;
const GID: u32 = 65_534;

/// Contenders that fork a gigabyte take part in one round of this many: they need a hundred times as long.
const FORKS_EVERY: usize = 16;

fn main() {
    let options = Options::from_args();
    let program = program::Program::nothing();
    println!("child: {}; pid {}", program.describe(), std::process::id());
    let mut lines: Vec<Line> = options.cases().map(|case| Line::new(case, program.path())).collect();
    for line in &mut lines {
        line.contenders.retain(|contender| options.wants(contender.name()));
        for (name, reason) in &line.unable {
            println!("{} {}: n/a: {reason}", line.case.name(), name.as_str());
        }
    }
    let environments = Environment::all(&options);
    let mut samples = Samples::default();
    let began = Instant::now();
    for block in 0..options.blocks {
        let mut order: Vec<&Environment> = environments.iter().collect();
        if block % 2 == 1 {
            order.reverse();
        }
        run_block(&options, block, &order, &mut lines, &mut samples);
    }
    println!("{} rounds in {:.0} s", options.rounds(), began.elapsed().as_secs_f64());
    Report::new(&samples, &lines, &environments).print();
}

/// All environments once.
fn run_block(options: &Options, block: usize, order: &[&Environment], lines: &mut [Line], samples: &mut Samples) {
    let mut memory: Option<Memory> = None;
    for &environment in order {
        if memory.as_ref().is_none_or(|memory| memory.size != environment.memory) {
            drop(memory.take());
            memory = Some(Memory::new(environment.memory));
        }
        let open = environment.fill_descriptors();
        for round in 0..options.rounds_a_block {
            let number = block * options.rounds_a_block + round;
            for line in lines.iter_mut() {
                run_round(environment, number, line, samples);
            }
        }
        drop(open);
    }
}

/// Each contender once.
fn run_round(environment: &Environment, number: usize, line: &mut Line, samples: &mut Samples) {
    line.shuffle();
    for contender in &mut line.contenders {
        let slow = contender.forks() && environment.memory > 0;
        if slow && number % FORKS_EVERY != 0 {
            continue;
        }
        if !slow {
            // Untimed, so that nobody pays for what the one before it did to caches and page tables.
            contender.run();
        }
        let began = Instant::now();
        contender.run();
        let took = began.elapsed();
        samples.add(line.case, environment, contender.name(), took);
    }
}
