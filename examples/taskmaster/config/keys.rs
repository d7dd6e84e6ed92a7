//! A section as the reader of one kind of section sees it: asked for keys, it collects what is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use pidherd::cgroup::{CgroupDir, CgroupError};

use super::expand::Scope;
use super::problem::{Findings, Problem};
use super::raw::{Raw, Section};
use super::values;

/// The keys of one section.
pub struct Keys<'a> {
    /// The section.
    pub section: &'a Section,
    /// The names that its values may use.
    pub scope: &'a Scope,
    findings: &'a mut Findings,
}

impl<'a> Keys<'a> {
    /// Looks at the keys as such: which ones are not `known`, and what no value may hold.
    pub fn new(section: &'a Section, scope: &'a Scope, known: &[&str], findings: &'a mut Findings) -> Keys<'a> {
        let mut keys = Keys {
            section,
            scope,
            findings,
        };
        for (key, value) in &section.entries {
            if !known.contains(&key.as_str()) {
                keys.note(key, "unknown key, ignored");
            } else if value.text.contains('\0') {
                let problem = Problem::of_value(&section.name, key, value, "there is a NUL byte in it");
                keys.findings.problems.push(problem);
            }
        }
        keys
    }

    /// The section's own name, behind the colon.
    pub fn title(&mut self, name: &str) -> String {
        values::name(name).unwrap_or_else(|message| {
            self.findings.problems.push(Problem::in_section(self.section, message));
            name.to_owned()
        })
    }

    /// What `parse` makes of the expanded value; `None` if it is not there, or is wrong, which is noted.
    pub fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.raw(key)?;
        let parsed = self.scope.expand(value).and_then(|expanded| parse(&expanded));
        parsed.map_err(|message| self.complain(key, &message)).ok()
    }

    /// Whether the section has this key.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// A value that can't be obeyed, or that looked well by itself.
    pub fn complain(&mut self, key: &str, message: &str) {
        let nothing = Raw::default();
        let value = self.raw(key).unwrap_or(&nothing);
        let problem = Problem::of_value(&self.section.name, key, value, message);
        self.findings.problems.push(problem);
    }

    /// Something about a key is worth a line.
    pub fn note(&mut self, key: &str, line: &str) {
        let line = format!("[{}] {key}: {line}", self.section.name);
        self.findings.notes.push(line);
    }

    /// This directory, opened once for all sections that name it.
    ///
    /// # Errors
    /// It can't hold cgroups.
    pub fn open_cgroup(&mut self, path: PathBuf) -> Result<CgroupDir, CgroupError> {
        let opened = self.findings.cgroups.entry(path);
        opened.or_insert_with_key(|path| CgroupDir::open(path)).clone()
    }

    /// The value as the file has it.
    pub fn raw(&self, key: &str) -> Option<&'a Raw> {
        self.section.get(key)
    }

    /// The same, or this text in its place.
    pub fn raw_or(&self, key: &str, default: &str) -> Raw {
        let default = || Raw {
            text: default.to_owned(),
            source: Arc::clone(&self.section.source),
        };
        self.raw(key).cloned().unwrap_or_else(default)
    }

    /// The same for a key that must be there.
    pub fn raw_required(&mut self, key: &str) -> Raw {
        if !self.has(key) {
            let problem = Problem::in_section(self.section, format!("{key}=... is missing"));
            self.findings.problems.push(problem);
        }
        self.raw_or(key, "")
    }
}
