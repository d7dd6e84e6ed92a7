//! Tests every setting of a command in combination with every other one.
//!
//! The test starts a child with one combination of settings, reads its state from /proc, and compares each
//! fact with the one that a model predicts. The combinations contain every pair of values of any two
//! settings; the test checks that too.

#[path = "../common/mod.rs"]
mod common;
mod host;
mod model;
mod observe;
mod pairs;
mod settings;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use common::{Isolation, elf, root_or_skip};
use fastrand::Rng;
use host::{Host, Terminal, change_this_thread};
use model::Model;
use observe::Facts;
use pairs::Combination;
use pidherd::{Child, CommandError, Program, SpawnError, SpawnProgress, Spawner};
use settings::{SPACE, command};

/// The least number of combinations. It is larger than the pairs need.
const COMBINATIONS: usize = 640;
const SEED: u64 = 1;

#[test]
fn a_child_has_all_the_settings_of_its_command() {
    if !elf::runs_or_skip() || !root_or_skip("changes ids, capabilities and the root directory") {
        return;
    }
    Isolation::new().limit(Duration::from_secs(180)).run(|| {
        let before = std::env::current_dir().unwrap();
        let host = Host::new();
        // A thread has its own mask and its own capabilities, so the changes end with the thread.
        let outcome = thread::scope(|scope| scope.spawn(|| try_all(&host)).join());
        drop(host);
        std::env::set_current_dir(before).unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn try_all(host: &Host) {
    change_this_thread();
    let rows = SPACE.combinations(COMBINATIONS, &mut Rng::with_seed(SEED));
    let mut spawner = Spawner::new().unwrap();
    let mut covered = BTreeSet::new();
    let mut failures = Vec::new();
    let mut left_out = 0;
    for row in &rows {
        if !host.can(row) {
            left_out += 1;
            continue;
        }
        match try_one(row, host, &mut spawner) {
            Ok(()) => covered.extend(row.pairs()),
            Err(difference) => failures.push(format!("with\n{row}{difference}")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} combinations fail; the first is:\n{}",
        failures.len(),
        rows.len(),
        failures[0]
    );
    let possible: BTreeSet<_> = SPACE.pairs().filter(|pair| !SPACE.excludes(*pair)).collect();
    if left_out == 0 {
        assert_eq!(covered, possible);
    }
    println!(
        "{} combinations of {} settings, {} pairs of values, {left_out} left out",
        rows.len(),
        SPACE.parameters.len(),
        covered.len(),
    );
}

/// Starts a child with this combination and compares it with the model. Returns the differences as an error.
fn try_one(row: &Combination, host: &Host, spawner: &mut Spawner) -> Result<(), String> {
    let terminal = Terminal::new();
    let before = observe::thread();
    let child = start(row, host, &terminal, spawner).map_err(|error| error.to_string())?;
    let expected = Model::facts(row, host, &terminal, &child);
    let mut seen = observe::child(child.pid().as_raw());
    // Without the setting, the kernel derives it from others.
    if row.get("I/O priority") != "none" {
        seen.insert("I/O priority".into(), observe::io_priority(child.pid().as_raw()));
    }
    if row.get("namespaces") != "none" {
        seen.insert(
            "network namespace".into(),
            observe::network_namespace(&child.pid().to_string()),
        );
    }
    drop(child);
    let mut different = differences(&expected, &seen);
    let after = observe::thread();
    if after != before {
        different.push_str(&format!(
            "the spawn changed the host:\n{}",
            differences(&before, &after)
        ));
    }
    // SAFETY: prctl(2) takes only numbers here.
    if unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } != 1 {
        different.push_str("the spawn changed the host's dumpable flag\n");
    }
    if different.is_empty() { Ok(()) } else { Err(different) }
}

fn start(row: &Combination, host: &Host, terminal: &Terminal, spawner: &mut Spawner) -> Result<Child, SpawnError> {
    let command = command(row, host, terminal);
    match row.get("started by") {
        "its command" => command.spawn(),
        how => {
            let program = command.compile().expect("the command is invalid");
            if how == "a spawner again" {
                drop(spawner.spawn(&program)?);
                // A terminal hangs up when its session ends, so the second child needs a new one.
                if matches!(row.get("session"), "terminal" | "foreground") {
                    return self::command(row, host, terminal).spawn();
                }
            }
            if how == "a spawner in flight" {
                return in_flight(spawner, &program);
            }
            spawner.spawn(&program)
        }
    }
}

/// Begins a spawn, and asks until it is over.
fn in_flight(spawner: &mut Spawner, program: &Program) -> Result<Child, SpawnError> {
    let mut progress = SpawnProgress::InFlight(spawner.begin(program)?);
    loop {
        progress = match progress {
            SpawnProgress::InFlight(spawning) => {
                std::thread::yield_now();
                spawner.finish(spawning)
            }
            SpawnProgress::Running(child) | SpawnProgress::Killed(child) => return Ok(child),
            SpawnProgress::Failed(error) => return Err(error),
            other => panic!("{other:?}"),
        };
    }
}

fn differences(expected: &Facts, seen: &Facts) -> String {
    let names: BTreeSet<&String> = expected.keys().chain(seen.keys()).collect();
    let different = names.into_iter().filter(|&name| expected.get(name) != seen.get(name));
    different
        .map(|name| format!("{name} is {:?}, should be {:?}\n", seen.get(name), expected.get(name)))
        .collect()
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    if !elf::runs_or_skip() || !root_or_skip("changes ids, capabilities and the root directory") {
        return;
    }
    Isolation::new().run(|| {
        let before = std::env::current_dir().unwrap();
        let host = Host::new();
        let group = host.other_group();
        let mut random = Rng::with_seed(SEED);
        let excluded: Vec<_> = SPACE.pairs().filter(|pair| SPACE.excludes(*pair)).collect();
        assert_eq!(excluded.len(), 10);
        for pair in excluded {
            let mut rows = std::iter::repeat_with(|| SPACE.with(pair, &mut random));
            let row = rows.find(|row| host.can(row)).unwrap();
            let error = command(&row, &host, &Terminal::new()).compile().unwrap_err();
            let sessions = SPACE.parameters[pair.0.0].0 == "session";
            if error == CommandError::StreamCycle {
                assert_eq!((row.get("stdout"), row.get("stderr")), ("stderr", "stdout"), "{row}");
            } else if sessions {
                assert_eq!(error, CommandError::SessionInGroup { group }, "{row}");
            } else {
                let beyond = matches!(error, CommandError::BeyondBounding { .. });
                assert!(beyond, "{error:?}: {row}");
            }
        }
        drop(host);
        std::env::set_current_dir(before).unwrap();
    });
}
