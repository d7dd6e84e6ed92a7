//! Helpers that the unit tests of several modules share.

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
