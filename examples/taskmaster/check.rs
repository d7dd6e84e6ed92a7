//! `--check`: reads a configuration as a start does, and prints what would run. It starts nothing, and changes nothing
//! outside of this process.

use crate::config::{Config, Program};
use crate::herd::{Herd, Terms};
use crate::names;
use crate::report::padded;
use crate::spec::Shared;

/// The lines about a valid configuration.
///
/// # Errors
/// One line: the library refuses a program, or the kernel refuses what a supervisor needs.
pub fn describe(config: &Config) -> Result<Vec<String>, String> {
    let terms = Terms {
        shared: Shared {
            open_files: None,
            collects: true,
        },
        adopts_orphans: false,
    };
    // A herd that starts nothing reveals what the library refuses.
    drop(Herd::new(config, terms)?);
    let mut rows = Vec::new();
    for group in &config.groups {
        for program in &group.programs {
            rows.extend((0..program.numprocs).filter_map(|number| row(&group.name, program, number)));
        }
    }
    let programs: usize = config.groups.iter().map(|group| group.programs.len()).sum();
    let summary = format!(
        "the configuration is valid: {}, {}, {}",
        count(config.groups.len(), "group"),
        count(programs, "program"),
        if rows.len() == 1 {
            "1 process".to_owned()
        } else {
            format!("{} processes", rows.len())
        },
    );
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let line =
        |(name, start, command): &(String, &str, String)| format!("{}  {start:<6}  {command}", padded(name, width));
    Ok(rows.iter().map(line).chain([summary]).collect())
}

/// The name of a process, how it starts, and its command line with the user.
fn row(group: &str, program: &Program, number: u32) -> Option<(String, &'static str, String)> {
    let instance = program.instance(number).ok()?;
    let start = if program.autostart { "auto" } else { "manual" };
    let words: Vec<String> = instance.argv.iter().map(|word| quoted(word)).collect();
    let user = program
        .user
        .as_ref()
        .map_or(String::new(), |user| format!("  (as {})", user.name));
    let name = names::shown(group, &instance.name);
    Some((name, start, words.join(" ") + &user))
}

/// A word of a command. Quotes show where a word with blanks begins and ends.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+=:,@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("{word:?}")
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
