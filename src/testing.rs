//! Helpers that the unit tests of several modules share.

/// Those of the tests in tests/.
#[allow(unsafe_code, reason = "they make system calls")]
#[path = "../tests/common/mod.rs"]
pub(crate) mod common;

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

/// The number in this variable of the environment, in decimal or hexadecimal digits.
pub(crate) fn from_environment(key: &str) -> Option<u64> {
    let text = std::env::var(key).ok()?;
    let text = text.replace('_', "");
    let number = match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{key} is no number: {text}")))
}
