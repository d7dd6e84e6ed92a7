//! Reproducible chance: the same seed gives the same simulation.
//!
//! No state is carried from one step to the next. Each step has a seed of its own, made of the episode's seed and the
//! step's number. So a step does the same kind of thing when earlier steps are left out, and a failing episode can be
//! shortened by leaving steps out.

use std::time::Duration;

use crate::random::{self, Random};

/// A source of decisions.
pub(super) struct Chance(Random);

/// An event with the probability of one in this many; zero is never.
pub(super) type OneIn = u64;

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(Random::new(seed))
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub(super) fn happens(&mut self, one_in: OneIn) -> bool {
        one_in != 0 && self.below(one_in) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// One of these values; `None` if there are none.
    pub(super) fn find<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| self.pick(from))
    }

    /// A duration between nothing and minutes, with every magnitude equally likely.
    pub(super) fn time(&mut self) -> Duration {
        let magnitude = self.below(12) as u32;
        Duration::from_nanos(self.below(10u64.pow(magnitude)))
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Combines two seeds. Neighbouring numbers give unrelated results.
pub(super) const fn mix(seed: u64, number: u64) -> u64 {
    random::mix(seed ^ Random::new(number).next_u64())
}
