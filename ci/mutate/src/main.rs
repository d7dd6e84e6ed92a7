//! Compiles all mutants that cargo-mutants lists into one build of the tests, chooses one after another with a variable
//! of the environment, and runs the tests that reach it.
//!
//! `pidherd-mutate [OPTIONS] -- ARGUMENTS`, in the project's folder. The arguments select mutants, and are those of
//! `cargo mutants --list`.
//!
//! - `--work FOLDER`: where the copy of the project, the builds and the results are.
//! - `--test NAME`: a test binary that runs besides the unit tests. It may be repeated.
//! - `--features NAMES`: features of the project.
//! - `--jobs N`: how many mutants are tried at the same time, by default 2.
//! - `--first PATH`: the mutants in files below this path are tried first, with all tests. It may be repeated.
//! - `--shard K/N`: only each N-th mutant, beginning with number K, from 0.
//! - `--quick`: tests that take longer than half a second are left out. Without it they run for the mutants that all
//!   others let pass.
//! - `--shared`: leaves out the mutants that need a build of their own. Without it they are tried after all others.
//! - `--allowed FILE`: leaves out the mutants that a line of the file allows: `REASON | REGULAR EXPRESSION`.
//! - `--build-only`: builds the mutants, and finds the tests that reach them.
//!
//! In the work folder, `results` has a line of JSON for each mutant, and a second run continues there: it tries neither
//! those in unchanged functions that were caught, nor those that have survived the same tests. `survivors` lists the
//! mutants that no test notices, `single` those that need a build of their own, and `unviable` those that do not
//! compile. The exit status is 1 if a mutant has survived.

mod allowed;
mod list;
mod plan;
mod reach;
mod render;
mod sandbox;
mod single;
mod source;
mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use allowed::Allowed;
use list::Mutant;
use plan::Plan;
use reach::Test;
use sandbox::Sandbox;
use single::Singles;
use tree::{Binary, Tree};
use trial::{Outcome, Trials};

struct Options {
    work: PathBuf,
    tests: Vec<String>,
    features: String,
    jobs: usize,
    shard: (usize, usize),
    shared: bool,
    build_only: bool,
    first: Vec<String>,
    quick: bool,
    allowed: Option<PathBuf>,
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pidherd-mutate: {error}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        work: PathBuf::from("target/mutants"),
        tests: vec!["--lib".to_owned()],
        features: String::new(),
        jobs: 2,
        shard: (0, 1),
        shared: false,
        build_only: false,
        first: Vec::new(),
        quick: false,
        allowed: None,
        arguments: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let (name, mut given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = || {
            given
                .take()
                .or_else(|| arguments.next())
                .ok_or(format!("{name} needs a value"))
        };
        match name {
            "--work" => options.work = value()?.into(),
            "--test" => options.tests.extend(["--test".to_owned(), value()?]),
            "--features" => options.features = value()?,
            "--jobs" => options.jobs = value()?.parse().map_err(|_| "--jobs needs a number")?,
            "--shard" => {
                let text = value()?;
                let parts = text
                    .split_once('/')
                    .and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
                options.shard = parts
                    .filter(|(k, n)| k < n)
                    .ok_or("--shard needs two numbers, as in 0/4")?;
            }
            "--first" => options.first.push(value()?),
            "--allowed" => options.allowed = Some(value()?.into()),
            "--quick" => options.quick = true,
            "--shared" => options.shared = true,
            "--build-only" => options.build_only = true,
            "--" => options.arguments = arguments.by_ref().collect(),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

/// Returns whether no mutant survives.
fn run(options: &Options) -> Result<bool, String> {
    let from = std::env::current_dir().map_err(|error| error.to_string())?;
    let work = from.join(&options.work);
    let tree = Tree {
        to: work.join("tree"),
        target: work.join("target"),
        tests: options.tests.clone(),
        features: options.features.clone(),
        from,
    };
    fs::create_dir_all(&tree.to).map_err(|error| format!("{}: {error}", tree.to.display()))?;
    let allowed = options.allowed.as_deref().map(Allowed::read).transpose()?;
    let allowed = allowed.unwrap_or_default();
    let mutants = list::mutants(&tree.from, &options.arguments, &allowed)?;
    tree.copy()?;
    let mut plan = Plan::new(&tree, &mutants, work.join("left_out"))?;
    let binaries = plan.build()?;
    let (single, mut unviable) = (plan.left_out(true), plan.left_out(false));
    let write = |name: &str, numbers: &BTreeSet<u32>| {
        let mutants = mutants.iter().filter(|mutant| numbers.contains(&mutant.number));
        write_names(&work.join(name), mutants)
    };
    write("single", &single)?;
    write("unviable", &unviable)?;

    let sandbox = Sandbox {
        tree: tree.to.clone(),
        temporary: work.join("tmp"),
    };
    fs::create_dir_all(&sandbox.temporary).map_err(|error| error.to_string())?;
    let tests = reach::tests(&sandbox, &binaries, &work.join("reached"), mutants.len(), options.jobs)?;
    eprintln!("{} tests pass without a mutant", tests.len());
    if options.build_only {
        return Ok(true);
    }
    let in_shard = |mutant: &&Mutant| mutant.number as usize % options.shard.1 == options.shard.0;
    let compiles = |mutant: &&Mutant| !unviable.contains(&mutant.number);
    let chosen: Vec<&Mutant> = mutants.iter().filter(in_shard).filter(compiles).collect();
    let (alone, together): (Vec<&Mutant>, Vec<&Mutant>) =
        chosen.into_iter().partition(|mutant| single.contains(&mutant.number));
    let mut outcomes = try_together(options, &sandbox, &binaries, &tests, &work, together)?;
    let singles = Singles {
        plan: &plan,
        sandbox: &sandbox,
        binaries: &binaries,
        tests: &tests,
        results: work.join("results"),
        slow: !options.quick,
    };
    for mutant in alone.into_iter().filter(|_| !options.shared) {
        eprintln!("alone: {}", mutant.name);
        match singles.outcome(mutant)? {
            Some(outcome) => {
                outcomes.insert(mutant.number, outcome);
            }
            None => {
                unviable.insert(mutant.number);
            }
        }
    }
    write("unviable", &unviable)?;
    let survivors = report(&mutants, &outcomes);
    let waiting = single
        .iter()
        .filter(|number| !outcomes.contains_key(number) && !unviable.contains(number));
    println!(
        "{:>6} need a build of their own\n{:>6} do not compile",
        waiting.count(),
        unviable.len()
    );
    write("survivors", &survivors)?;
    Ok(survivors.is_empty())
}

/// Tries mutants that are in the build, those that are wanted first before the others.
fn try_together(
    options: &Options,
    sandbox: &Sandbox,
    binaries: &[Binary],
    tests: &[Test],
    work: &Path,
    mut mutants: Vec<&Mutant>,
) -> Result<BTreeMap<u32, Outcome>, String> {
    let rank = |mutant: &Mutant| {
        let mut first = options.first.iter();
        first
            .position(|first| mutant.file.starts_with(first))
            .unwrap_or(usize::MAX)
    };
    mutants.sort_by_key(|mutant| rank(mutant));
    let trials = Trials::new(sandbox, binaries, tests, work.join("results"), trial::digest(binaries));
    let mut outcomes = BTreeMap::new();
    for group in mutants.chunk_by(|one, other| rank(one) == rank(other)) {
        outcomes.extend(trials.run(group, options.jobs, !options.quick)?);
    }
    Ok(outcomes)
}

/// Prints how many mutants have which outcome, and the survivors, which are returned.
fn report(mutants: &[Mutant], outcomes: &BTreeMap<u32, Outcome>) -> BTreeSet<u32> {
    for outcome in Outcome::ALL {
        let count = outcomes.values().filter(|known| **known == outcome).count();
        println!("{count:>6} {}", outcome.name());
    }
    let survives = |mutant: &&Mutant| {
        let outcome = outcomes.get(&mutant.number);
        matches!(outcome, Some(Outcome::Suspect | Outcome::Survived | Outcome::Unreached))
    };
    let survivors = mutants.iter().filter(survives);
    survivors
        .inspect(|mutant| println!("survived: {}", mutant.name))
        .map(|mutant| mutant.number)
        .collect()
}

fn write_names<'a>(path: &Path, mutants: impl Iterator<Item = &'a Mutant>) -> Result<(), String> {
    let text: String = mutants.map(|mutant| format!("{}\n", mutant.name)).collect();
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A number that changes with the value.
fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
