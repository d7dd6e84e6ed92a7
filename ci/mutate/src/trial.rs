//! Runs the tests for one mutant after another.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::list::Mutant;
use crate::reach::Test;
use crate::sandbox::{End, Sandbox};
use crate::tree::Binary;

/// Tests that take longer run alone, and only for the mutants that all others let pass.
const SLOW: Duration = Duration::from_millis(500);
/// How many of the tests that caught mutants of the same file run first, and how long they may take together.
const FIRST: (usize, Duration) = (12, Duration::from_millis(1_500));

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A test failed.
    Caught,
    /// The tests did not end.
    Timeout,
    /// All tests passed, except for slow ones that have not run yet.
    Suspect,
    /// All tests passed.
    Survived,
    /// No test gets to the code.
    Unreached,
}

impl Outcome {
    pub const ALL: [Outcome; 5] = [
        Outcome::Caught,
        Outcome::Timeout,
        Outcome::Suspect,
        Outcome::Survived,
        Outcome::Unreached,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Caught => "caught",
            Outcome::Timeout => "timeout",
            Outcome::Suspect => "suspect",
            Outcome::Survived => "survived",
            Outcome::Unreached => "unreached",
        }
    }

    fn from_name(name: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

pub struct Trials<'a> {
    sandbox: &'a Sandbox,
    binaries: &'a [Binary],
    tests: &'a [Test],
    /// The tests that reach a mutant, as indices.
    reaching: HashMap<u32, Vec<usize>>,
    /// How many mutants of a file each test has caught.
    catches: Mutex<HashMap<&'a str, BTreeMap<usize, usize>>>,
    results: PathBuf,
    /// What tells the results from those of other builds.
    build: String,
}

impl<'a> Trials<'a> {
    pub fn new(
        sandbox: &'a Sandbox,
        binaries: &'a [Binary],
        tests: &'a [Test],
        results: PathBuf,
        build: String,
    ) -> Trials<'a> {
        let mut reaching: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, test) in tests.iter().enumerate() {
            for number in &test.reached {
                reaching.entry(*number).or_default().push(index);
            }
        }
        Trials {
            sandbox,
            binaries,
            tests,
            reaching,
            catches: Mutex::default(),
            results,
            build,
        }
    }

    /// Tries these mutants, except those with a result in the file, and returns all results: at first with the quick
    /// tests, and then those that passed them with the slow ones, if they are wanted.
    pub fn run(&self, mutants: &[&'a Mutant], jobs: usize, slow: bool) -> Result<BTreeMap<u32, Outcome>, String> {
        let known = known(&self.results, &self.build);
        let known = |mutant: &&Mutant| Some((mutant.number, *known.get(&mutant.key)?));
        let mut outcomes: BTreeMap<u32, Outcome> = mutants.iter().filter_map(known).collect();
        for slow in [false, true].into_iter().filter(|pass| slow || !pass) {
            let waits = |mutant: &&&Mutant| match outcomes.get(&mutant.number) {
                Some(outcome) => slow && *outcome == Outcome::Suspect,
                None => true,
            };
            let waiting: Vec<&Mutant> = mutants.iter().filter(waits).copied().collect();
            let tests = if slow { "slow" } else { "quick" };
            eprintln!("{} mutants are tried with the {tests} tests", waiting.len());
            outcomes.extend(self.try_all(&waiting, jobs, slow)?);
        }
        Ok(outcomes)
    }

    fn try_all(&self, mutants: &[&'a Mutant], jobs: usize, slow: bool) -> Result<BTreeMap<u32, Outcome>, String> {
        let file = OpenOptions::new().create(true).append(true).open(&self.results);
        let file = Mutex::new(file.map_err(|error| format!("{}: {error}", self.results.display()))?);
        let outcomes = Mutex::new(BTreeMap::new());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = Instant::now();
                let (outcome, by) = self.one(mutant, slow);
                let seconds = began.elapsed().as_secs_f64();
                let line = json!({
                    "name": mutant.name, "outcome": outcome.name(), "by": by, "seconds": seconds,
                    "key": mutant.key, "build": self.build,
                });
                let _ = writeln!(file.lock().unwrap_or_else(|error| error.into_inner()), "{line}");
                let mut outcomes = outcomes.lock().unwrap_or_else(|error| error.into_inner());
                outcomes.insert(mutant.number, outcome);
            }
        };
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        Ok(outcomes.into_inner().unwrap_or_else(|error| error.into_inner()))
    }

    fn one(&self, mutant: &'a Mutant, slow: bool) -> (Outcome, String) {
        let Some(reaching) = self.reaching.get(&mutant.number) else {
            return (Outcome::Unreached, String::new());
        };
        // Tests that failed, and then passed with the same mutant: a test can fail because of the machine's load.
        let mut doubtful = Vec::new();
        for mut phase in self.phases(&mutant.file, reaching, slow) {
            while !phase.is_empty() {
                let suspects = match self.run_tests(mutant, &phase) {
                    End::Passed => break,
                    End::Died | End::TimedOut => std::mem::take(&mut phase),
                    End::Failed(name) => match phase.iter().position(|(test, _)| self.tests[*test].name == name) {
                        Some(at) => vec![phase.remove(at)],
                        None => std::mem::take(&mut phase),
                    },
                };
                let label = self.label(suspects[0].0);
                match self.run_tests(mutant, &suspects) {
                    End::Passed => doubtful.push(label),
                    End::TimedOut => return (Outcome::Timeout, label),
                    End::Died => return (Outcome::Caught, format!("{label} died")),
                    End::Failed(_) => {
                        self.note_catch(mutant, suspects[0].0);
                        return (Outcome::Caught, label);
                    }
                }
            }
        }
        let outcome = if slow { Outcome::Survived } else { Outcome::Suspect };
        (outcome, doubtful.join(", "))
    }

    fn label(&self, test: usize) -> String {
        let test = &self.tests[test];
        format!("{} {}", self.binaries[test.binary].name, test.name)
    }

    fn note_catch(&self, mutant: &'a Mutant, test: usize) {
        let mut catches = self.catches.lock().unwrap_or_else(|error| error.into_inner());
        *catches.entry(&mutant.file).or_default().entry(test).or_default() += 1;
    }

    /// Runs tests of one binary, given with their binary, with the mutant.
    fn run_tests(&self, mutant: &Mutant, tests: &[(usize, usize)]) -> End {
        let names: Vec<&str> = tests.iter().map(|(test, _)| self.tests[*test].name.as_str()).collect();
        let takes: Duration = tests.iter().map(|(test, _)| self.tests[*test].takes).sum();
        let limit = Duration::from_secs(10) + 4 * takes;
        let variables = [("PIDHERD_MUTANT", mutant.number.to_string())];
        let Some((_, binary)) = tests.first() else {
            return End::Passed;
        };
        self.sandbox
            .run(&self.binaries[*binary].path, &names, &variables, limit)
    }

    /// The tests in the order in which they run, each with its binary. The quick ones: those first that probably fail,
    /// then the unit tests. Each slow one runs alone.
    fn phases(&self, file: &str, reaching: &[usize], slow: bool) -> Vec<Vec<(usize, usize)>> {
        let of_binary = |test: usize| (test, self.tests[test].binary);
        let takes = |tests: &[(usize, usize)]| tests.iter().map(|(test, _)| self.tests[*test].takes).sum::<Duration>();
        let wanted = reaching
            .iter()
            .copied()
            .filter(|test| (self.tests[*test].takes > SLOW) == slow);
        if slow {
            let mut phases: Vec<_> = wanted.map(|test| vec![of_binary(test)]).collect();
            phases.sort_by_key(|tests| (self.binaries[tests[0].1].name != "lib", takes(tests)));
            return phases;
        }
        let first = self.best(file, reaching);
        let rest = wanted.filter(|test| !first.contains(test)).collect();
        let mut phases = Vec::new();
        for group in [first.clone(), rest] {
            let mut binaries: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
            for test in group.into_iter().map(of_binary) {
                binaries.entry(test.1).or_default().push(test);
            }
            let mut group: Vec<_> = binaries.into_values().collect();
            group.sort_by_key(|tests| (self.binaries[tests[0].1].name != "lib", takes(tests)));
            phases.append(&mut group);
        }
        phases
    }

    /// The tests that caught most of the mutants of this file so far.
    fn best(&self, file: &str, reaching: &[usize]) -> Vec<usize> {
        let catches = self.catches.lock().unwrap_or_else(|error| error.into_inner());
        let Some(catches) = catches.get(file) else {
            return Vec::new();
        };
        let count = |test: &usize| catches.get(test).copied().unwrap_or_default();
        let mut best: Vec<usize> = reaching.iter().copied().filter(|test| count(test) > 0).collect();
        best.sort_by_key(|test| (usize::MAX - count(test), self.tests[*test].takes));
        let mut left = FIRST.1;
        best.retain(|test| {
            let rest = left.checked_sub(self.tests[*test].takes);
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        best.truncate(FIRST.0);
        best
    }
}

/// A name that changes with the binaries.
pub fn digest(binaries: &[Binary]) -> String {
    let digests: Vec<u64> = binaries.iter().map(|binary| binary.digest).collect();
    format!("{:x}", crate::digest(&digests))
}

/// The results that need no repetition: those of caught mutants, and those of this build.
pub fn known(results: &Path, build: &str) -> HashMap<String, Outcome> {
    let text = fs::read_to_string(results).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entry = |line: Value| {
        let outcome = Outcome::from_name(line["outcome"].as_str()?)?;
        let holds = matches!(outcome, Outcome::Caught | Outcome::Timeout) || line["build"] == build;
        holds.then_some((line["key"].as_str()?.to_owned(), outcome))
    };
    lines.filter_map(entry).collect()
}
