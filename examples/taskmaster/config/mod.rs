//! The configuration: a supervisord-style INI file turned into plain data, whole or not at all.
//!
//! Everything that can be wrong with the text is found before anything starts, and all of it in one
//! go: who mends a file wants to see every mistake at once. What can't be known from the text
//! (whether a program exists, whether a directory may be entered) is left to the moment of the
//! spawn: it may be different by then, and the library's error names the step and the path.
//!
//! The modules: `ini` knows lines, `values` single values, `expand` the `%(name)s`, `users`
//! accounts, `program` one `[program:x]`, `beyond` the keys that supervisord does not have; this one
//! puts groups together. Sections and keys that
//! are not known become notes, so that a file written for supervisord works as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod beyond;
mod expand;
mod ini;
mod program;
mod users;
mod values;

pub use self::beyond::Readiness;
pub use self::program::{Instance, Program};
pub use self::users::Accounts;

use crate::files::{self, Fifo};

/// More instances of one program than this are taken for a slip of the pen.
pub const MOST_INSTANCES: u32 = 100_000;

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The groups, in the order in which they are started.
    pub groups: Vec<Group>,
    /// What was ignored, one line each.
    pub notes: Vec<String>,
}

/// What is addressed as `group:*`: the programs of a `[group:x]`, or a program that is in none.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name, the part before the colon.
    pub name: String,
    /// Lower ones start first and are stopped last.
    pub priority: i32,
    /// Its programs, in the order in which they are started.
    pub programs: Vec<Arc<Program>>,
}

/// Whether a program that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRestart {
    /// Whatever it ended with.
    Always,
    /// Unless it ended with one of its `exitcodes`.
    Unexpected,
    /// Not at all.
    Never,
}

/// Where a program's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nowhere: a supervisor's own output belongs to whoever drives it.
    Discard,
    /// To the taskmaster's own stream, because the file asks for `/dev/stdout` or `/dev/stderr`.
    Inherit,
    /// To the end of this file.
    File(PathBuf),
}

/// What a file's meaning depends on besides its text.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The directory of the file, for `%(here)s`.
    pub here: String,
    /// The machine's name, for `%(host_node_name)s`.
    pub host: String,
    /// The environment, for `%(ENV_X)s`.
    pub environment: BTreeMap<String, String>,
    /// Who is who, for `user` and `~name`.
    pub accounts: Accounts,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    place: String,
    message: String,
}

impl Problem {
    fn at_line(line: usize, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("line {line}"),
            message: message.into(),
        }
    }

    fn in_section(section: &str, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("[{section}]"),
            message: message.into(),
        }
    }

    fn of_value(section: &str, key: &str, value: &str, message: impl Into<String>) -> Problem {
        Problem {
            place: format!("[{section}] {key}={value:?}"),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Reads and understands the file at `path`. A FIFO is waited for.
///
/// # Errors
/// Everything that is wrong, one line each, with the file's name.
pub fn load(path: &Path) -> Result<Config, Vec<String>> {
    load_from(path, Fifo::Waited)
}

/// The same without ever waiting, for a reload: a FIFO is refused.
///
/// # Errors
/// As [`load`].
pub fn load_again(path: &Path) -> Result<Config, Vec<String>> {
    load_from(path, Fifo::Refused)
}

fn load_from(path: &Path, fifo: Fifo) -> Result<Config, Vec<String>> {
    let shown = path.display();
    let bytes = files::read(path, fifo).map_err(|error| vec![error])?;
    let text = String::from_utf8(bytes).map_err(|_| vec![format!("{shown} is not UTF-8")])?;
    let problems = |problems: Vec<Problem>| problems.iter().map(|problem| format!("{shown}: {problem}")).collect();
    parse(&text, &Arc::new(World::around(path))).map_err(problems)
}

impl World {
    /// This process's surroundings, for a file at `path`.
    pub fn around(path: &Path) -> World {
        let directory = std::path::absolute(path)
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        World {
            here: directory.unwrap_or_default().to_string_lossy().into_owned(),
            host: host.trim_end().to_owned(),
            environment: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            accounts: Accounts::of_system(),
        }
    }
}

/// Understands `text`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, world: &Arc<World>) -> Result<Config, Vec<Problem>> {
    let sections = ini::sections(text)?;
    let mut draft = Draft::new(world, &sections);
    for section in &sections {
        if let Some(("group", name)) = section.name.split_once(':') {
            draft.group(section, name);
        }
    }
    for section in &sections {
        match section.name.split_once(':') {
            Some(("program", name)) => draft.program(section, name),
            Some(("group", _)) => {}
            _ => draft
                .findings
                .notes
                .push(format!("[{}]: unknown section, ignored", section.name)),
        }
    }
    draft.finish()
}

/// What came up while reading: problems stop everything, notes are only told.
#[derive(Default)]
pub struct Findings {
    problems: Vec<Problem>,
    notes: Vec<String>,
    cgroups: beyond::Opened,
}

/// A configuration in the making.
struct Draft<'a> {
    world: &'a Arc<World>,
    sections: &'a [ini::Section],
    /// What every section knows.
    scope: expand::Scope,
    groups: Vec<Group>,
    /// Which `[group:x]` has which program.
    members: BTreeMap<String, String>,
    findings: Findings,
}

impl<'a> Draft<'a> {
    fn new(world: &'a Arc<World>, sections: &'a [ini::Section]) -> Draft<'a> {
        Draft {
            world,
            sections,
            scope: program::outer_scope(world),
            groups: Vec::new(),
            members: BTreeMap::new(),
            findings: Findings::default(),
        }
    }

    fn group(&mut self, section: &ini::Section, name: &str) {
        let mut keys = program::Keys::new(section, &self.scope, &["programs", "priority"], &mut self.findings);
        let name = keys.title(name);
        let members = keys.required("programs", values::names).unwrap_or_default();
        let priority = keys.optional("priority", values::priority).unwrap_or(program::PRIORITY);
        for member in members {
            self.enlist(&section.name, &name, member);
        }
        self.groups.push(Group {
            name,
            priority,
            programs: Vec::new(),
        });
    }

    fn enlist(&mut self, section: &str, group: &str, member: String) {
        let mut complain = |message| {
            self.findings
                .problems
                .push(Problem::of_value(section, "programs", &member, message))
        };
        if !self
            .sections
            .iter()
            .any(|other| other.name.strip_prefix("program:").map(str::trim) == Some(&member))
        {
            complain(format!("there is no [program:{member}]"));
        } else if let Some(other) = self.members.get(&member) {
            complain(format!("this program is in [group:{other}] already"));
        } else {
            self.members.insert(member, group.to_owned());
        }
    }

    fn program(&mut self, section: &ini::Section, name: &str) {
        let own = name.trim();
        let group = self.members.get(own).map_or(own, String::as_str);
        let Some(program) = Program::read(section, own, group, self.world, &self.scope, &mut self.findings) else {
            return;
        };
        if let Some(group) = self.groups.iter_mut().find(|known| known.name == program.group) {
            if self.members.contains_key(own) {
                group.programs.push(Arc::new(program));
            } else {
                let message = format!("[group:{own}] has the same name but not this program");
                self.findings.problems.push(Problem::in_section(&section.name, message));
            }
        } else {
            self.groups.push(Group {
                name: program.group.clone(),
                priority: program.priority,
                programs: vec![Arc::new(program)],
            });
        }
    }

    fn finish(mut self) -> Result<Config, Vec<Problem>> {
        for group in &self.groups {
            self.findings.problems.extend(doubles(group));
        }
        if !self.findings.problems.is_empty() {
            return Err(self.findings.problems);
        }
        self.groups
            .sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        for group in &mut self.groups {
            group
                .programs
                .sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        }
        Ok(Config {
            groups: self.groups,
            notes: self.findings.notes,
        })
    }
}

/// Processes of one group that would have the same name.
fn doubles(group: &Group) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for program in &group.programs {
        let double = program.names().into_iter().find(|name| !seen.insert(name.clone()));
        if let Some(name) = double {
            let message = format!("two processes of the group {} would be called {name:?}", group.name);
            problems.push(Problem::in_section(&format!("program:{}", program.name), message));
        }
    }
    problems
}

#[cfg(test)]
mod tests;
