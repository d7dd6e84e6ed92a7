//! Scripted deaths: many runs that end in all ways, one of them chosen at random each time, and the verdict of each.
//!
//! Each death knows its right verdict, because the test itself brings it about. What the kernel does not tell must be
//! told as unknown: a verdict that happens to be right is wrong if it was guessed.
//!
//! ```text
//! PIDHERD_TEST_DEATHS=1000 cargo test --test deaths -- --nocapture   another number of deaths than 70
//! PIDHERD_TEST_SEED=1234 cargo test --test deaths                    the same deaths again
//! bash ci/deaths                                                     1,000 on each of several kernels
//! ```

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod ground;
mod kinds;
mod run;
mod usage;

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use common::Isolation;
use ground::Ground;
use host::Host;

/// How many deaths there are. `PIDHERD_TEST_DEATHS` sets another number.
fn deaths() -> usize {
    env::var("PIDHERD_TEST_DEATHS").map_or(70, |text| text.parse().expect("a number of deaths"))
}

fn seed() -> u64 {
    env::var("PIDHERD_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"))
}

#[test]
fn every_scripted_death_has_its_verdict() {
    let limit = Duration::from_secs(60 + deaths() as u64);
    Isolation::new().limit(limit).run(|| {
        let seed = seed();
        println!("PIDHERD_TEST_SEED={seed} repeats these deaths");
        let mut random = fastrand::Rng::with_seed(seed);
        let ground = Ground::new();
        let mut host = Host::new();
        let mut counts = BTreeMap::new();
        let mut over = 0;
        while over < deaths() {
            let together = kinds::together(&ground, &mut random, deaths() - over);
            over += together.len();
            for death in &together {
                *counts.entry(death.kind).or_insert(0) += 1;
            }
            run::die(&mut host, &ground, together, &mut random);
        }
        for (kind, count) in &counts {
            println!("{count:5} {kind}");
        }
        println!("{over:5} deaths, each with the right verdict");
        host.shut_down();
        drop((host, ground));
    });
}
