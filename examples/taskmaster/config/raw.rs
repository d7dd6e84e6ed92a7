//! The values of a file, each with its position, and the sections that contain them.

use std::sync::Arc;

/// The position of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The name of the file. `None` for the main file.
    pub file: Option<String>,
    /// The directory of the file, for `%(here)s`.
    pub here: String,
}

/// A value before the expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The text after the `=`. Newlines join the continuation lines.
    pub text: String,
    /// The file of the value.
    pub source: Arc<Source>,
}

/// A key in lower case, as in supervisord, and its value.
pub type Entry = (String, Raw);

/// A `[section]` with its keys in the file's order.
#[derive(Debug, Default)]
pub struct Section {
    /// The text between the brackets.
    pub name: String,
    /// The position of its first header.
    pub source: Arc<Source>,
    /// The keys of the section itself.
    pub entries: Vec<Entry>,
    /// The keys of `[DEFAULT]`.
    pub defaults: Arc<Vec<Entry>>,
}

impl Section {
    /// The value of `key`. The last one of repeated keys counts. A key that the section lacks comes from `[DEFAULT]`.
    pub fn get(&self, key: &str) -> Option<&Raw> {
        let entries = self.defaults.iter().chain(&self.entries);
        let found = entries.rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }
}
