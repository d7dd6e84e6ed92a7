//! The results of reading a configuration besides its data: problems, which are fatal, and notes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pidherd::cgroup::{CgroupDir, CgroupError};

use super::raw::{Raw, Section, Source};

/// The directories that were opened or failed to open. Each is tried once for all programs that name it.
pub type Opened = BTreeMap<PathBuf, Result<CgroupDir, CgroupError>>;

/// A mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the file. `None` for the main file.
    pub file: Option<String>,
    place: String,
    message: String,
}

/// Keys with secret values. No message repeats such a value, because it may contain a password.
const SECRET: [&str; 2] = ["environment", "serverurl"];

impl Problem {
    /// A problem with a whole file.
    pub fn in_file(source: &Source, message: impl Into<String>) -> Problem {
        Problem {
            file: source.file.clone(),
            place: String::new(),
            message: message.into(),
        }
    }

    /// A problem with an included file that cannot be read. The message names the file.
    pub fn of_file(message: impl Into<String>) -> Problem {
        Problem::in_file(&Source::default(), message)
    }

    /// A problem with a line that is not in the INI format.
    pub fn at_line(source: &Source, line: usize, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("line {line}: "),
            ..Problem::in_file(source, message)
        }
    }

    /// A problem with a whole section.
    pub fn in_section(section: &Section, message: impl Into<String>) -> Problem {
        Problem::in_named_section(&section.name, &section.source, message)
    }

    /// A problem with a section of which only the name is known.
    pub fn in_named_section(name: &str, source: &Source, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("[{name}]: "),
            ..Problem::in_file(source, message)
        }
    }

    /// A problem with a value.
    pub fn of_value(section: &str, key: &str, value: &Raw, message: impl Into<String>) -> Problem {
        let place = match SECRET.contains(&key) {
            true => format!("[{section}] {key}: "),
            false => format!("[{section}] {key}={:?}: ", value.text),
        };
        Problem {
            place,
            ..Problem::in_file(&value.source, message)
        }
    }
}

/// One line. A part of a value in the message may have several lines, so control characters are escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for symbol in self.place.chars().chain(self.message.chars()) {
            match symbol.is_control() {
                true => write!(f, "{}", symbol.escape_default())?,
                false => write!(f, "{symbol}")?,
            }
        }
        Ok(())
    }
}

/// The problems and notes that were found so far.
#[derive(Default)]
pub struct Findings {
    /// The problems. Each one prevents the start.
    pub problems: Vec<Problem>,
    /// The notes, one line each.
    pub notes: Vec<String>,
    /// The directories for cgroups.
    pub cgroups: Opened,
}

impl Findings {
    /// Adds a note, unless it was added before.
    pub fn note(&mut self, line: String) {
        if !self.notes.contains(&line) {
            self.notes.push(line);
        }
    }

    /// Adds a problem, unless it was added before.
    pub fn problem(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
