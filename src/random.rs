//! The crate's generator of pseudo-random numbers: splitmix64, after Steele, Lea and Flood (2014).
//!
//! The lifecycle needs it for jitter, the unit tests and the simulation for their sequences. It was chosen
//! because its state is one number, every seed is valid, and neighbouring seeds give unrelated sequences. It is
//! not suitable for secrets.

use crate::codec::{Damaged, Reader, Stored, Writer};

/// The increment of the state between two numbers: 2^64 divided by the golden ratio.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of pseudo-random numbers. Equal seeds give equal sequences.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence for a seed.
    pub(crate) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number; every value is equally likely.
    pub(crate) const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(INCREMENT);
        mix(self.0)
    }

    /// A number below `bound`. The modulo makes small numbers slightly more likely, which tests can ignore.
    #[cfg(test)]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

/// Maps a number to an unrelated one. Different numbers give different results.
pub(crate) const fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Stored for Random {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Random, Damaged> {
        u64::get(from).map(Random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_splitmix64() {
        let mut random = Random::new(0);
        let numbers = [(); 3].map(|()| random.next_u64());
        assert_eq!(
            numbers,
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }
}
