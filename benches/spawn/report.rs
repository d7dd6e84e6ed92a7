//! Prints the table of medians, and the ratios with their targets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::case::Case;
use super::chart::Chart;
use super::contender::Name;
use super::contenders::Line;
use super::environment::{Environment, FEW, GIB, MANY};
use super::ratios;

/// The measured times of all spawns.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<(Case, Environment, Name), Vec<Duration>>);

impl Samples {
    pub fn add(&mut self, case: Case, environment: &Environment, name: Name, took: Duration) {
        self.0.entry((case, *environment, name)).or_default().push(took);
    }

    fn cells(&self) -> BTreeMap<(Case, Environment, Name), Cell> {
        let cell = |samples: &Vec<Duration>| {
            let mut micros: Vec<f64> = samples.iter().map(|took| took.as_secs_f64() * 1e6).collect();
            micros.sort_by(f64::total_cmp);
            Cell {
                median: micros[micros.len() / 2],
                quartile: micros[micros.len() / 4],
                samples: micros.len(),
            }
        };
        self.0.iter().map(|(&key, samples)| (key, cell(samples))).collect()
    }
}

/// The summary of the times of one table cell, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Cell {
    median: f64,
    quartile: f64,
    samples: usize,
}

/// The report that is printed at the end.
pub struct Report<'a> {
    cells: BTreeMap<(Case, Environment, Name), Cell>,
    lines: &'a [Line],
    environments: &'a [Environment],
}

type Key = (Case, Environment, Name);

impl<'a> Report<'a> {
    pub fn new(samples: &Samples, lines: &'a [Line], environments: &'a [Environment]) -> Report<'a> {
        Report {
            cells: samples.cells(),
            lines,
            environments,
        }
    }

    pub fn print(&self) {
        self.print_table();
        self.print_ratios();
    }

    /// The first case: a bar for each contender in each environment.
    pub fn chart(&self) -> Chart {
        let case = self.lines.first().map(|line| line.case);
        let place =
            |environment: &Environment| format!("{} fds, {}", environment.descriptors, size(environment.memory));
        let values = |name| {
            let median = |environment: &Environment| Some(self.cells.get(&(case?, *environment, name))?.median);
            self.environments.iter().map(median).collect::<Vec<_>>()
        };
        let series = Name::ALL.iter().map(|&name| (name.as_str().to_owned(), values(name)));
        Chart {
            title: "A spawn until the process is reaped, microseconds, by open descriptors and memory of the host"
                .to_owned(),
            categories: self.environments.iter().map(place).collect(),
            series: series
                .filter(|(_, values)| values.iter().any(Option::is_some))
                .collect(),
        }
    }

    fn print_table(&self) {
        println!("\nSpawn to reaped, in microseconds: median (lower quartile)\n");
        print!("{:<10} {:>6} {:>6}", "case", "fds", "memory");
        for name in Name::ALL {
            print!(" {:>17}", name.as_str());
        }
        println!("  samples");
        for line in self.lines {
            for environment in self.environments {
                self.print_row(line.case, environment);
            }
        }
    }

    fn print_row(&self, case: Case, environment: &Environment) {
        let memory = size(environment.memory);
        print!("{:<10} {:>6} {memory:>6}", case.name(), environment.descriptors);
        let mut counts = (usize::MAX, 0);
        for name in Name::ALL {
            match self.cells.get(&(case, *environment, name)) {
                Some(cell) => {
                    print!(" {:>8.1} {:>8}", cell.median, format!("({:.1})", cell.quartile));
                    counts = (counts.0.min(cell.samples), counts.1.max(cell.samples));
                }
                None => print!(" {:>17}", "n/a"),
            }
        }
        match counts {
            (fewest, most) if fewest < most => println!("  {most}, forks {fewest}"),
            (_, most) => println!("  {most}"),
        }
    }

    fn print_ratios(&self) {
        println!("\nRatios of medians (of lower quartiles)\n");
        println!("{:<58} {:>16} {:>8}  verdict", "ratio", "measured", "at most");
        let mut missed = 0;
        for (what, above, below, target) in self.wanted() {
            let (Some(above), Some(below)) = (self.cells.get(&above), self.cells.get(&below)) else {
                println!("{what:<58} {:>16} {target:>8.2}  n/a", "");
                continue;
            };
            let ratio = above.median / below.median;
            let measured = format!("{ratio:.3} ({:.3})", above.quartile / below.quartile);
            let met = ratio <= target;
            missed += usize::from(!met);
            let verdict = if met { "met" } else { "MISSED" };
            println!("{what:<58} {measured:>16} {target:>8.2}  {verdict}");
            ratios::record(&format!("spawn: {what}"), ratio);
        }
        println!("\n{missed} missed");
    }

    /// The ratios to print: a description, the cell above the line, the cell below it, and the target (at
    /// most).
    fn wanted(&self) -> Vec<(String, Key, Key, f64)> {
        let mut all = Vec::new();
        for line in self.lines {
            let case = line.case;
            for &environment in self.environments {
                let what = format!("this / the limit, {}", describe(case, &environment));
                all.push((
                    what,
                    (case, environment, Name::This),
                    (case, environment, Name::Limit),
                    1.10,
                ));
            }
        }
        for line in self.lines {
            all.extend(self.grown(line.case));
        }
        let std = |case, environment, target| {
            let what = format!("this / std, {}", describe(case, &environment));
            (
                what,
                (case, environment, Name::This),
                (case, environment, Name::Std),
                target,
            )
        };
        let at = |memory, descriptors| Environment { memory, descriptors };
        all.push(std(Case::Plain, at(0, FEW), 1.00));
        all.push(std(Case::Plain, at(0, MANY), 0.15));
        all.push(std(Case::UmaskAndDirectory, at(GIB, FEW), 0.02));
        all
    }

    /// The ratios that show how the cost grows with descriptors and memory.
    fn grown(&self, case: Case) -> Vec<(String, Key, Key, f64)> {
        let this = |environment| (case, environment, Name::This);
        let mut all = Vec::new();
        for &environment in self.environments.iter().filter(|place| place.descriptors == MANY) {
            let few = Environment {
                descriptors: FEW,
                ..environment
            };
            let what = format!(
                "{MANY} / {FEW} descriptors, {}, {}",
                case.name(),
                size(environment.memory)
            );
            all.push((what, this(environment), this(few), 1.25));
        }
        for &environment in self.environments.iter().filter(|place| place.memory == GIB) {
            let empty = Environment {
                memory: 0,
                ..environment
            };
            let what = format!("1 GiB / 0, {}, {} descriptors", case.name(), environment.descriptors);
            all.push((what, this(environment), this(empty), 1.25));
        }
        all
    }
}

fn describe(case: Case, environment: &Environment) -> String {
    let Environment { memory, descriptors } = *environment;
    format!("{}, {descriptors} descriptors, {}", case.name(), size(memory))
}

fn size(memory: usize) -> &'static str {
    match memory {
        0 => "0",
        GIB => "1 GiB",
        _ => "1 MiB",
    }
}
