//! Generated inputs for the parsers. No input makes a parser panic, and every result has the properties that hold for
//! any input. An ordinary run always has the same inputs; `ci/fuzz` runs ten million others for each parser.
//!
//! The parser of the configuration has its own in `config`. `wire` has what comes from clients and listeners, `typed` what comes from a terminal and
//! from the output of programs.

mod typed;
mod wire;

use std::env;

use fastrand::Rng;

/// The number of inputs of an ordinary run.
const INPUTS: u64 = 100_000;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Prints how an input can be made again, if the test fails at it.
struct AtInput {
    seed: u64,
    number: u64,
}

impl Drop for AtInput {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let AtInput { seed, number } = self;
            eprintln!("this repeats the input: PIDHERD_FUZZ_SEED={seed} PIDHERD_FUZZ_ONLY={number}");
        }
    }
}

/// Calls `check` once for each input, with the random numbers of the input.
pub fn for_each_input(mut check: impl FnMut(&mut Rng)) {
    let seed = number("PIDHERD_FUZZ_SEED").unwrap_or(0);
    let all = number("PIDHERD_FUZZ_INPUTS").unwrap_or(INPUTS);
    let numbers = match number("PIDHERD_FUZZ_ONLY") {
        Some(only) => only..only + 1,
        None => 0..all,
    };
    for number in numbers {
        let _at = AtInput { seed, number };
        check(&mut Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
}

pub fn pick<'a, T: ?Sized>(rng: &mut Rng, choices: &[&'a T]) -> &'a T {
    choices[rng.usize(..choices.len())]
}

/// Damages bytes in a few places.
pub fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..4) {
        let place = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, rng.u8(..)),
            2 => bytes.insert(place, b"\n\r\t =:;%\"'\\<>&[](){},\0\x1b"[rng.usize(..23)]),
            3 if place < bytes.len() => {
                bytes.remove(place);
            }
            4 if place < bytes.len() => bytes[place] ^= 1 << rng.u8(..8),
            _ => {
                let from = rng.usize(..=place);
                let part: Vec<u8> = bytes[from..place.min(from + 64)].to_vec();
                bytes.splice(place..place, part);
            }
        }
    }
}

/// Calls `take` with the bytes in random pieces.
pub fn in_pieces(mut bytes: &[u8], rng: &mut Rng, mut take: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let longest = if rng.bool() { 3 } else { 40 };
        let (piece, rest) = bytes.split_at(rng.usize(1..=longest).min(bytes.len()));
        take(piece);
        bytes = rest;
    }
}
