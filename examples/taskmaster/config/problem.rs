//! What comes up while a configuration is read: problems, which stop everything, and notes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pidherd::cgroup::{CgroupDir, CgroupError};

use super::raw::{Raw, Section, Source};

/// Directories that were opened, or could not be: each is tried once, however many programs name it.
pub type Opened = BTreeMap<PathBuf, Result<CgroupDir, CgroupError>>;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, if it is an included one.
    pub file: Option<String>,
    place: String,
    message: String,
}

/// No message repeats the value of one of these keys, because passwords are kept in them.
const SECRET: [&str; 2] = ["environment", "serverurl"];

impl Problem {
    /// Something about a file as a whole.
    pub fn in_file(source: &Source, message: impl Into<String>) -> Problem {
        Problem {
            file: source.file.clone(),
            place: String::new(),
            message: message.into(),
        }
    }

    /// An included file that can't be read; the message names it.
    pub fn of_file(message: impl Into<String>) -> Problem {
        Problem::in_file(&Source::default(), message)
    }

    /// A line is no INI.
    pub fn at_line(source: &Source, line: usize, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("line {line}: "),
            ..Problem::in_file(source, message)
        }
    }

    /// Something about a section as a whole.
    pub fn in_section(section: &Section, message: impl Into<String>) -> Problem {
        Problem::in_named_section(&section.name, &section.source, message)
    }

    /// The same for a section of which only this is known.
    pub fn in_named_section(name: &str, source: &Source, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("[{name}]: "),
            ..Problem::in_file(source, message)
        }
    }

    /// Something about a value.
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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.message)
    }
}

/// What came up while reading: problems stop everything, notes are only told.
#[derive(Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is worth a line.
    pub notes: Vec<String>,
    /// The directories for cgroups.
    pub cgroups: Opened,
}

impl Findings {
    /// A note that is told once, however often it comes up.
    pub fn note(&mut self, line: String) {
        if !self.notes.contains(&line) {
            self.notes.push(line);
        }
    }

    /// The same for a problem.
    pub fn problem(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
