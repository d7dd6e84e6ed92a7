//! Helpers that the unit tests of several modules share.

/// Numbers that look random and are the same in every run (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for every seed but 0.
    pub(crate) fn new(seed: u64) -> Random {
        assert_ne!(seed, 0, "xorshift stays at 0 for ever");
        Random(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of a xorshift are its worst.
        (self.0 >> 16) % bound
    }
}

/// Calls `check` with every sequence of `length` numbers below `choices`.
pub(crate) fn every_sequence(choices: usize, length: u32, mut check: impl FnMut(&[usize])) {
    let mut sequence = vec![0; length as usize];
    for mut number in 0..choices.pow(length) {
        for place in &mut sequence {
            *place = number % choices;
            number /= choices;
        }
        check(&sequence);
    }
}
