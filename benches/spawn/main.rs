//! Measures the cost of a spawn: the time from the start of the call until the program has ended and is
//! reaped.
//!
//! ```text
//! cargo bench --bench spawn                                     a few minutes
//! cargo bench --bench spawn -- --rounds 2000 plain              longer; only cases with "plain" in the name
//! cargo bench --bench spawn -- --only pidherd --only limit      only these contenders
//! cargo bench --bench spawn -- --svg FILE plain                 and a picture of the first case
//! ```
//!
//! All contenders take turns in one process, in an order that is shuffled for each round. So other work on
//! the machine affects all of them alike. The environments (open descriptors, resident memory) take turns
//! too, in blocks.
//!
//! Each timed spawn follows an untimed one of the same contender, for two reasons. A host spawns repeatedly,
//! so its caches are warm. And a contender that copies a table of 15,000 files evicts much of the cache,
//! which would slow down the next contender.
//!
//! The medians are compared; the lower quartile is printed beside them. On a busy machine both measure mostly
//! the other work, unless the benchmark has a higher priority: `chrt --fifo 1 cargo bench ...`.
//!
//! The contender *limit* makes the same system calls as the library, in parent and child, from a bare loop.
//! The difference between the two is the cost of the library's own code.
//!
//! The benchmark prints targets and verdicts. It never fails because something is slow.

mod case;
#[path = "../common/chart.rs"]
mod chart;
mod contender;
mod contenders;
#[path = "../common/descriptors.rs"]
mod descriptors;
mod environment;
mod limit;
mod options;
mod program;
#[path = "../common/ratios.rs"]
mod ratios;
mod report;

use std::time::Instant;

use contenders::Line;
use environment::{Environment, Memory};
use options::Options;
use report::{Report, Samples};

/// A fork with 1 GiB of memory takes a hundred times as long as any other spawn. So a forking contender takes
/// part in only one of this many rounds.
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
    let report = Report::new(&samples, &lines, &environments);
    report.print();
    if let Some(file) = &options.svg {
        if let Err(error) = report.chart().write(file.as_ref()) {
            eprintln!("cannot write {file}: {error}");
        }
    }
}

/// Runs one block of rounds in each environment.
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

/// Runs each contender once.
fn run_round(environment: &Environment, number: usize, line: &mut Line, samples: &mut Samples) {
    line.shuffle();
    for contender in &mut line.contenders {
        let slow = contender.forks() && environment.memory > 0;
        if slow && number % FORKS_EVERY != 0 {
            continue;
        }
        if !slow {
            // The untimed spawn refills the caches that the contender before has evicted.
            contender.run();
        }
        let began = Instant::now();
        contender.run();
        let took = began.elapsed();
        samples.add(line.case, environment, contender.name(), took);
    }
}
