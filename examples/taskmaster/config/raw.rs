//! What a file has: values, each with the place where it stands, and the sections that hold them.

use std::sync::Arc;

/// Where a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file, if it is an included one.
    pub file: Option<String>,
    /// The directory of the file, for `%(here)s`.
    pub here: String,
}

/// A value as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The text behind the `=`; continuation lines are joined by newlines.
    pub text: String,
    /// Where it stands.
    pub source: Arc<Source>,
}

/// A key, in lower case as supervisord sees it, and its value.
pub type Entry = (String, Raw);

/// One `[section]`, with its keys in the file's order.
#[derive(Debug, Default)]
pub struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// Where it stands first.
    pub source: Arc<Source>,
    /// The keys of the section itself.
    pub entries: Vec<Entry>,
    /// The keys of `[DEFAULT]`.
    pub defaults: Arc<Vec<Entry>>,
}

impl Section {
    /// The value of `key`: the last one if the key is there more than once, and else that of `[DEFAULT]`.
    pub fn get(&self, key: &str) -> Option<&Raw> {
        let entries = self.defaults.iter().chain(&self.entries);
        let found = entries.rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }
}
