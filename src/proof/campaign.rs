//! Runs of many episodes, and the report of one that fails.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::chance::{Chance, mix};
use super::host::{Broken, Host};
use super::tally::Tally;
use super::world::World;

/// A function that interferes with a host before each step, to check that an oracle notices it.
pub(super) type Meddler<'a> = &'a dyn Fn(&mut Host, u64);

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) seed: u64,
    /// The step in which the failure was found; `None` for the ending.
    pub(super) step: Option<u64>,
    pub(super) broken: Broken,
}

/// The largest number of steps to spend on shortening a failing episode.
const SHORTENING: u64 = 400_000;

/// The largest number of lines of a trace to print.
const LINES: usize = 60;

/// One episode.
pub(super) struct Episode<'a> {
    pub(super) seed: u64,
    pub(super) meddler: Option<Meddler<'a>>,
}

impl Episode<'_> {
    /// The number of steps before the ending.
    fn length(&self) -> u64 {
        20 + mix(self.seed, 1) % 400
    }

    pub(super) fn run(&self) -> Result<Tally, Failure> {
        let all: Vec<u64> = (0..self.length()).collect();
        self.run_only(&all, None)
    }

    /// Runs these steps and the ending.
    fn run_only(&self, steps: &[u64], trace: Option<&Rc<RefCell<Vec<String>>>>) -> Result<Tally, Failure> {
        let at = Cell::new(None);
        let run = || {
            let world = World::new(mix(self.seed, 2));
            let events = Chance::new(mix(self.seed, 3)).pick(&[0, 1, 4, 64, 4_096, 4_096]);
            let mut host = Host::new(world, events, trace.cloned());
            for &step in steps {
                at.set(Some(step));
                if let Some(meddle) = self.meddler {
                    meddle(&mut host, step);
                }
                host.random_step(self.seed, step)?;
            }
            at.set(None);
            host.tally.episodes += 1;
            host.end(&mut Chance::new(mix(self.seed, 4)))
        };
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        });
        result.map_err(|broken| Failure {
            seed: self.seed,
            step: at.get(),
            broken,
        })
    }

    /// The shortest list of steps that is found to fail in the same way. Parts are left out while the episode still
    /// fails.
    fn shorten(&self, failure: &Failure) -> Vec<u64> {
        let last = failure.step.unwrap_or(self.length() - 1);
        let mut steps: Vec<u64> = (0..=last).collect();
        let mut budget = SHORTENING;
        let mut part = steps.len().div_ceil(2);
        while part > 0 && budget > 0 {
            let mut from = 0;
            while from < steps.len() && budget > 0 {
                let mut fewer = steps.clone();
                fewer.drain(from..steps.len().min(from + part));
                budget = budget.saturating_sub(fewer.len() as u64 + 1);
                match self.run_only(&fewer, None) {
                    Err(other) if kind(&other.broken) == kind(&failure.broken) => steps = fewer,
                    Ok(_) | Err(_) => from += part,
                }
            }
            part /= 2;
        }
        steps
    }

    /// The text that describes a failure.
    pub(super) fn report(&self, failure: &Failure) -> String {
        let mut text = format!("\n{failure}\n");
        let trace = |steps: &[u64]| {
            let lines = Rc::new(RefCell::new(Vec::new()));
            let broken = self.run_only(steps, Some(&lines)).err();
            let lines = lines.borrow();
            let from = lines.len().saturating_sub(LINES);
            let end = broken.map_or_else(String::new, |failure| failure.broken);
            format!("{}\n  {end}\n", lines[from..].join("\n"))
        };
        let all: Vec<u64> = (0..self.length()).collect();
        let _ = write!(text, "The last that happened:\n{}", trace(&all));
        if !failure.broken.starts_with("a panic") {
            let steps = self.shorten(failure);
            let _ = write!(text, "The same in {} steps:\n{}", steps.len(), trace(&steps));
        }
        text
    }
}

/// The kind of a failure: its text without names and numbers.
fn kind(broken: &str) -> String {
    broken.chars().filter(|c| c.is_alphabetic()).take(20).collect()
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = self.step.map_or("at its end".into(), |step| format!("in step {step}"));
        write!(
            f,
            "Episode {:#x} breaks a promise {step}: {}\nPIDHERD_SIM_SEED={:#x} repeats it.",
            self.seed, self.broken, self.seed
        )
    }
}

/// Runs episodes, each with a seed made of this one, until this many steps are done.
pub(super) fn run(seed: u64, steps: u64) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut printed = 0;
    for number in 0.. {
        if tally.steps >= steps {
            break;
        }
        let episode = Episode {
            seed: mix(seed, number),
            meddler: None,
        };
        tally.add(&episode.run()?);
        if tally.steps / PROGRESS > printed {
            printed = tally.steps / PROGRESS;
            println!("{seed:#x}: {} steps", tally.steps);
        }
    }
    Ok(tally)
}

/// The number of steps between two progress lines of a long run.
const PROGRESS: u64 = 10_000_000;

/// Does the same on every processor, if the run is long enough.
pub(super) fn run_everywhere(seed: u64, steps: u64) -> Result<Tally, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    if steps < PROGRESS || processors == 1 {
        return run(seed, steps);
    }
    let share = steps.div_ceil(processors);
    let results: Vec<_> = std::thread::scope(|scope| {
        let each = |number: u64| scope.spawn(move || run(mix(seed, !number), share));
        let threads: Vec<_> = (0..processors).map(each).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut tally = Tally::default();
    for result in results {
        tally.add(&result?);
    }
    Ok(tally)
}
