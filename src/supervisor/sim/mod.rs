//! The supervisor in a simulated world: the very same driver and lifecycles over a kernel that is
//! made up, in virtual time.
//!
//! A test against the real kernel meets what happens to happen. Here everything happens: a process
//! ends between any two calls, a spawn fails with any errno, a signal is refused, readiness is
//! handled late, twice, in any order or not at all, a clock jumps by days, a pid is used again at
//! once; while a host asks for anything in any state. A year takes a millisecond, and whatever
//! fails can be repeated from its seed.
//!
//! An *episode* is a host, a world and some hundred *steps* that chance draws, each followed by every
//! oracle (`oracle.rs`, `kernel_log.rs`, `stream.rs`). Then the world becomes kind, and what was
//! promised must come true (`ending.rs`). The oracles hold the driver against the log of the kernel
//! and against a model of what the host asked for (`model.rs`); none of them repeats how the driver
//! decides, so none can be wrong in the same way.
//!
//! Rejected: random calls of the real supervisor (what it meets can be neither chosen nor repeated),
//! and recorded scenarios alone (they hold what somebody thought of; those that were found worth
//! keeping are in `found.rs`).
//!
//! ```text
//! PIDHERD_SIM_SEED=0x1234 cargo test --lib sim      repeats one episode
//! bash ci/sim 100000000                             runs long
//! ```

mod act;
mod campaign;
mod chance;
mod climate;
mod ending;
mod found;
mod host;
mod kernel_log;
mod model;
mod oracle;
mod process;
mod recipe;
mod sabotage;
mod stream;
mod tally;
mod world;

use campaign::Episode;

/// How many steps the normal run takes, in all.
const STEPS: u64 = 1_000_000;

/// The seed of the episodes that are the same in every run.
const FIXED: u64 = 0x7069_6468_6572_6400;

fn from_environment(key: &str) -> Option<u64> {
    let text = std::env::var(key).ok()?;
    let text = text.replace('_', "");
    let number = match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{key} is no number: {text}")))
}

fn run(seed: u64, steps: u64) {
    println!("the simulation's seed is {seed:#x}");
    match campaign::run_everywhere(seed, steps) {
        Ok(tally) => {
            println!("{tally}");
            assert_eq!(tally.missing(), [""; 0], "not met in {} steps", tally.steps);
        }
        Err(failure) => {
            let episode = Episode {
                seed: failure.seed,
                meddler: None,
            };
            panic!("{}", episode.report(&failure));
        }
    }
}

#[test]
fn every_promise_is_kept_whatever_happens() {
    if let Some(seed) = from_environment("PIDHERD_SIM_SEED") {
        let episode = Episode { seed, meddler: None };
        match episode.run() {
            Ok(tally) => println!("{tally}"),
            Err(failure) => panic!("{}", episode.report(&failure)),
        }
        return;
    }
    run(FIXED, STEPS * 9 / 10);
}

#[test]
fn every_promise_is_kept_in_a_run_that_nobody_has_seen() {
    use std::hash::{BuildHasher, RandomState};
    let fresh = RandomState::new().hash_one(std::process::id());
    // A new seed finds new things, and not when somebody waits for other tests.
    match from_environment("PIDHERD_SIM_STEPS") {
        Some(steps) => run(fresh, steps),
        None => eprintln!("SKIPPED: a seed that nobody has seen: PIDHERD_SIM_STEPS says how far to go (ci/sim)"),
    }
}
