//! Reads the keys of a section and collects the mistakes.

use std::path::PathBuf;
use std::sync::Arc;

use pidherd::cgroup::{CgroupDir, CgroupError};

use super::expand::Scope;
use super::problem::{Findings, Problem};
use super::raw::{Raw, Section};
use super::values;

/// The keys of one section.
pub struct Keys<'a> {
    /// The section that is read.
    pub section: &'a Section,
    /// The names that the values may use.
    pub scope: &'a Scope,
    findings: &'a mut Findings,
}

impl<'a> Keys<'a> {
    /// Checks the names of the keys against `known`, and the values for forbidden characters.
    pub fn new(section: &'a Section, scope: &'a Scope, known: &[&str], findings: &'a mut Findings) -> Keys<'a> {
        let mut keys = Keys {
            section,
            scope,
            findings,
        };
        for (key, value) in &section.entries {
            // The names of cgroup files are keys of each section that may have a cgroup.
            let is_file = known.contains(&"cgroup") && values::is_cgroup_file(key);
            if !known.contains(&key.as_str()) && !is_file {
                keys.note(key, "unknown key, ignored");
            } else if value.text.contains('\0') {
                let problem = Problem::of_value(&section.name, key, value, "must not contain a NUL byte");
                keys.findings.problems.push(problem);
            }
        }
        keys
    }

    /// The name of the section, which follows the colon.
    pub fn title(&mut self, name: &str) -> String {
        values::name(name).unwrap_or_else(|message| {
            self.findings.problems.push(Problem::in_section(self.section, message));
            name.to_owned()
        })
    }

    /// Parses the expanded value. Returns `None` if the key is missing or its value is wrong. A wrong value is
    /// recorded.
    pub fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.raw(key)?;
        let parsed = self.scope.expand(value).and_then(|expanded| parse(&expanded));
        parsed.map_err(|message| self.complain(key, &message)).ok()
    }

    /// Whether the section has this key.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Records a mistake in a value that is valid by itself or that cannot be supported.
    pub fn complain(&mut self, key: &str, message: &str) {
        let nothing = Raw::default();
        let value = self.raw(key).unwrap_or(&nothing);
        let problem = Problem::of_value(&self.section.name, key, value, message);
        self.findings.problems.push(problem);
    }

    /// Records a mistake in a value that no message may contain.
    pub fn complain_of_secret(&mut self, key: &str, message: &str) {
        let problem = Problem::in_section(self.section, format!("{key}: {message}"));
        self.findings.problems.push(problem);
    }

    /// Records a mistake in the section as a whole.
    pub fn fail(&mut self, message: &str) {
        self.findings.problems.push(Problem::in_section(self.section, message));
    }

    /// Records a note about a key.
    pub fn note(&mut self, key: &str, line: &str) {
        let line = format!("[{}] {key}: {line}", self.section.name);
        self.findings.notes.push(line);
    }

    /// Opens this directory, once for all sections that name it.
    ///
    /// # Errors
    /// The directory cannot hold cgroups.
    pub fn open_cgroup(&mut self, path: PathBuf) -> Result<CgroupDir, CgroupError> {
        let opened = self.findings.cgroups.entry(path);
        opened.or_insert_with_key(|path| CgroupDir::open(path)).clone()
    }

    /// The value before the expansion.
    pub fn raw(&self, key: &str) -> Option<&'a Raw> {
        self.section.get(key)
    }

    /// The value before the expansion, or `default`.
    pub fn raw_or(&self, key: &str, default: &str) -> Raw {
        let default = || Raw {
            text: default.to_owned(),
            source: Arc::clone(&self.section.source),
        };
        self.raw(key).cloned().unwrap_or_else(default)
    }

    /// The value before the expansion of a key that must exist.
    pub fn raw_required(&mut self, key: &str) -> Raw {
        if !self.has(key) {
            let problem = Problem::in_section(self.section, format!("{key}=... is missing"));
            self.findings.problems.push(problem);
        }
        self.raw_or(key, "")
    }
}
