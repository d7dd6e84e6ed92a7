//! The commands before and after each run of a program, and the one that stops it.

use std::time::Duration;

use super::super::keys::Keys;
use super::super::values;
use super::parts;

/// The keys of this part.
pub const KEYS: &[&str] = &[
    "before_command",
    "before_secs",
    "after_command",
    "after_secs",
    "stop_command",
    "stop_secs",
];

/// The default of `before_secs`, `after_secs` and `stop_secs`.
const LIMIT: Duration = Duration::from_secs(60);

/// A command before or after each run, or for its stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The time that it has.
    pub limit: Duration,
}

/// Reads the command before each run and the one after it.
pub fn read(keys: &mut Keys<'_>) -> [Option<Around>; 2] {
    ["before", "after"].map(|part| read_one(keys, part))
}

/// Reads the command of a part.
pub fn read_one(keys: &mut Keys<'_>, part: &str) -> Option<Around> {
    let (command, secs) = (format!("{part}_command"), format!("{part}_secs"));
    let argv = keys.optional(&command, values::command);
    let limit = keys.optional(&secs, parts::some_seconds);
    if limit.is_some() && !keys.has(&command) {
        keys.complain(&secs, &format!("needs {command}"));
    }
    argv.map(|argv| Around {
        argv,
        limit: limit.unwrap_or(LIMIT),
    })
}
