//! One `[program:x]`: its settings, and a recipe for each of its instances.
//!
//! What may differ from one instance to the next (through `%(process_num)d`) is kept as the text of
//! the file and expanded when an instance is asked for: `scale` may ask for more of them than the
//! file does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pidherd::cgroup::{CgroupDir, CgroupError};
use pidherd::signal::Signal;

use super::beyond::{self, Beyond};
use super::expand::{Scope, Value};
use super::ini::Section;
use super::users::User;
use super::{AutoRestart, Findings, Log, Problem, World, values};

/// supervisord's default for `priority`.
pub const PRIORITY: i32 = 999;
/// supervisord's default for `startsecs`.
const START_SECONDS: Duration = Duration::from_secs(1);
/// supervisord's default for `startretries`.
const START_RETRIES: u32 = 3;
/// supervisord's default for `stopwaitsecs`.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// The keys of supervisord that a program may have.
const KEYS: &[&str] = &[
    "command",
    "process_name",
    "numprocs",
    "numprocs_start",
    "autostart",
    "startsecs",
    "startretries",
    "autorestart",
    "exitcodes",
    "stopsignal",
    "stopwaitsecs",
    "stopasgroup",
    "killasgroup",
    "user",
    "directory",
    "umask",
    "environment",
    "stdout_logfile",
    "stderr_logfile",
    "redirect_stderr",
    "priority",
];

/// One program. The fields are named after the keys, and mean what supervisord says they mean.
#[derive(Clone, Debug)]
pub struct Program {
    /// The part behind the colon of its section.
    pub name: String,
    /// The group whose name its processes bear.
    pub group: String,
    /// Lower ones start first and are stopped last.
    pub priority: i32,
    /// Whether it is started when it appears.
    pub autostart: bool,
    /// Whether it is started again.
    pub autorestart: AutoRestart,
    /// How long it must stay up to count as running.
    pub startsecs: Duration,
    /// How often a failed start is tried again.
    pub startretries: u32,
    /// What it may end with.
    pub exitcodes: Vec<u8>,
    /// What asks it to stop.
    pub stopsignal: Signal,
    /// How long it may take to stop before it is killed.
    pub stopwaitsecs: Duration,
    /// Whether `stopsignal` goes to its whole process group.
    pub stopasgroup: bool,
    /// Whether SIGKILL does.
    pub killasgroup: bool,
    /// Whom it runs as, if not as the taskmaster's user.
    pub user: Option<User>,
    /// Its umask, if not the taskmaster's.
    pub umask: Option<u32>,
    /// Whether its standard error goes where its standard output goes.
    pub redirect_stderr: bool,
    /// How many instances there are.
    pub numprocs: u32,
    /// The keys that supervisord does not have.
    pub beyond: Beyond,
    recipe: Recipe,
}

/// One instance, ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name within the group.
    pub name: String,
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// What is added to the taskmaster's environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs, if not in the taskmaster's directory.
    pub directory: Option<PathBuf>,
    /// Where its standard output goes.
    pub stdout: Log,
    /// Where its standard error goes, unless `redirect_stderr` says otherwise.
    pub stderr: Log,
}

/// The values that are expanded for each instance, as the file has them.
#[derive(Clone, Debug)]
struct Recipe {
    section: String,
    world: Arc<World>,
    scope: Scope,
    first: u32,
    process_name: String,
    command: String,
    environment: String,
    directory: Option<String>,
    stdout: String,
    stderr: String,
}

impl Program {
    /// Reads `[program:name]`; what is wrong with it ends up in `findings`.
    pub fn read(
        section: &Section,
        name: &str,
        group: &str,
        world: &Arc<World>,
        outer: &Scope,
        findings: &mut Findings,
    ) -> Option<Program> {
        let mut scope = outer.clone();
        scope.set("program_name", Value::Text(name.to_owned()));
        scope.set("group_name", Value::Text(group.to_owned()));
        let before = findings.problems.len();
        let mut keys = Keys::new(section, &scope, &[KEYS, beyond::KEYS].concat(), findings);
        let name = keys.title(name);
        let numprocs = keys.optional("numprocs", values::instances).unwrap_or(1);
        let recipe = Recipe::read(&mut keys, world, numprocs);
        let stopasgroup = keys.optional("stopasgroup", values::boolean).unwrap_or(false);
        let program = Program {
            beyond: Beyond::read(&mut keys, group, &name),
            name,
            group: group.to_owned(),
            priority: keys.optional("priority", values::priority).unwrap_or(PRIORITY),
            autostart: keys.optional("autostart", values::boolean).unwrap_or(true),
            autorestart: keys
                .optional("autorestart", values::autorestart)
                .unwrap_or(AutoRestart::Unexpected),
            startsecs: keys.optional("startsecs", values::seconds).unwrap_or(START_SECONDS),
            startretries: keys.optional("startretries", values::count).unwrap_or(START_RETRIES),
            exitcodes: keys
                .optional("exitcodes", values::exit_codes)
                .unwrap_or_else(|| vec![0]),
            stopsignal: keys.optional("stopsignal", values::signal).unwrap_or(Signal::TERM),
            stopwaitsecs: keys.optional("stopwaitsecs", values::seconds).unwrap_or(STOP_WAIT),
            stopasgroup,
            killasgroup: keys
                .optional("killasgroup", |text| kill_as_group(text, stopasgroup))
                .unwrap_or(stopasgroup),
            user: keys.optional("user", |text| world.accounts.find(text)),
            umask: keys.optional("umask", values::umask),
            redirect_stderr: keys.optional("redirect_stderr", values::boolean).unwrap_or(false),
            numprocs,
            recipe,
        };
        if findings.problems.len() == before {
            findings.problems.extend(program.try_out());
        }
        (findings.problems.len() == before).then_some(program)
    }

    /// The name of the instance with this index, counted from 0.
    ///
    /// # Errors
    /// The name can't be expanded.
    pub fn process_name(&self, index: u32) -> Result<String, Problem> {
        self.recipe.name(&self.recipe.scope_of(index, self.numprocs))
    }

    /// The names of all instances that the file asks for.
    pub fn names(&self) -> Vec<String> {
        (0..self.numprocs)
            .filter_map(|index| self.process_name(index).ok())
            .collect()
    }

    /// Everything about the instance with this index, counted from 0.
    ///
    /// # Errors
    /// The first value that can't be expanded or understood.
    pub fn instance(&self, index: u32) -> Result<Instance, Problem> {
        self.recipe.instance(self.recipe.scope_of(index, self.numprocs))
    }

    /// Whether instances have names of their own, so that there may be more than one.
    pub fn can_scale(&self) -> bool {
        self.recipe.process_name.contains("%(process_num)")
    }

    /// What would go wrong with the first or the last instance: better known now than at the start.
    fn try_out(&self) -> Option<Problem> {
        if self.numprocs > 1 && !self.can_scale() {
            let message = "%(process_num)d must be in it when numprocs is larger than 1";
            return Some(self.recipe.problem("process_name", &self.recipe.process_name, message));
        }
        let last = self.numprocs.saturating_sub(1);
        [0, last].into_iter().find_map(|index| self.instance(index).err())
    }
}

/// `killasgroup`, which can't be switched off where the stop signal goes to the group anyway.
fn kill_as_group(text: &str, stopasgroup: bool) -> Result<bool, String> {
    match values::boolean(text) {
        Ok(false) if stopasgroup => Err("can't be false while stopasgroup is true".to_owned()),
        other => other,
    }
}

impl Recipe {
    fn read(keys: &mut Keys<'_>, world: &Arc<World>, numprocs: u32) -> Recipe {
        let first = |text: &str| {
            let first = values::count(text)?;
            first
                .checked_add(numprocs)
                .map(|_| first)
                .ok_or_else(|| "the numbers would become too large".to_owned())
        };
        Recipe {
            section: keys.section.name.clone(),
            world: Arc::clone(world),
            scope: keys.scope.clone(),
            first: keys.optional("numprocs_start", first).unwrap_or(0),
            process_name: keys.raw("process_name").unwrap_or("%(program_name)s").to_owned(),
            command: keys.raw_required("command").to_owned(),
            environment: keys.raw("environment").unwrap_or_default().to_owned(),
            directory: keys.raw("directory").map(str::to_owned),
            stdout: keys.raw_log("stdout_logfile"),
            stderr: keys.raw_log("stderr_logfile"),
        }
    }

    fn scope_of(&self, index: u32, numprocs: u32) -> Scope {
        let mut scope = self.scope.clone();
        scope.set("process_num", Value::Number(self.first.saturating_add(index)));
        scope.set("numprocs", Value::Number(numprocs));
        scope
    }

    fn name(&self, scope: &Scope) -> Result<String, Problem> {
        self.value(scope, "process_name", &self.process_name, values::name)
    }

    fn instance(&self, mut scope: Scope) -> Result<Instance, Problem> {
        let name = self.name(&scope)?;
        let environment = self.value(&scope, "environment", &self.environment, values::environment)?;
        for (key, value) in &environment {
            scope.set(format!("ENV_{key}"), Value::Text(value.clone()));
        }
        let path = |key, text: &str| self.value(&scope, key, text, |text| self.at_home(text));
        let stdout = path("stdout_logfile", &self.stdout)?;
        let stderr = path("stderr_logfile", &self.stderr)?;
        Ok(Instance {
            argv: self.value(&scope, "command", &self.command, values::words)?,
            directory: self
                .directory
                .as_deref()
                .map(|text| path("directory", text))
                .transpose()?
                .map(PathBuf::from),
            stdout: values::log(&stdout, &["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]),
            stderr: values::log(&stderr, &["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]),
            name,
            environment,
        })
    }

    fn value<T>(
        &self,
        scope: &Scope,
        key: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let expanded = scope.expand(text).and_then(|expanded| parse(&expanded));
        expanded.map_err(|message| self.problem(key, text, &message))
    }

    fn problem(&self, key: &str, value: &str, message: &str) -> Problem {
        Problem::of_value(&self.section, key, value, message)
    }

    /// `~` and `~name` at the front of a path replaced by that user's home.
    fn at_home(&self, path: &str) -> Result<String, String> {
        let Some(tilde) = path.strip_prefix('~') else {
            return Ok(path.to_owned());
        };
        let (name, rest) = tilde.split_at(tilde.find('/').unwrap_or(tilde.len()));
        let home = match name {
            "" => self.world.environment.get("HOME").map(String::as_str),
            name => self.world.accounts.home(name),
        };
        let home = home.ok_or_else(|| format!("nobody knows where ~{name} is"))?;
        Ok(format!("{home}{rest}"))
    }
}

/// The names that every section may use.
pub fn outer_scope(world: &World) -> Scope {
    let text = |text: &String| Value::Text(text.clone());
    let mut names: BTreeMap<String, Value> = world
        .environment
        .iter()
        .map(|(key, value)| (format!("ENV_{key}"), text(value)))
        .collect();
    names.insert("here".to_owned(), text(&world.here));
    names.insert("host_node_name".to_owned(), text(&world.host));
    Scope::around(names)
}

/// A section as the reader of one kind of section sees it: asks for keys, collects what is wrong.
pub struct Keys<'a> {
    section: &'a Section,
    scope: &'a Scope,
    findings: &'a mut Findings,
}

impl<'a> Keys<'a> {
    /// Looks at the keys as such: which ones are not `known`, and what no value may hold.
    pub fn new(section: &'a Section, scope: &'a Scope, known: &[&str], findings: &'a mut Findings) -> Keys<'a> {
        for (key, value) in &section.entries {
            if !known.contains(&key.as_str()) {
                findings
                    .notes
                    .push(format!("[{}] {key}: unknown key, ignored", section.name));
            } else if value.contains('\0') {
                findings.problems.push(Problem::of_value(
                    &section.name,
                    key,
                    value,
                    "there is a NUL byte in it",
                ));
            }
        }
        Keys {
            section,
            scope,
            findings,
        }
    }

    /// The section's own name, behind the colon.
    pub fn title(&mut self, name: &str) -> String {
        values::name(name).unwrap_or_else(|message| {
            self.findings
                .problems
                .push(Problem::in_section(&self.section.name, message));
            name.to_owned()
        })
    }

    /// What `parse` makes of the expanded value; `None` if it isn't there, or is wrong (which is noted).
    pub fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.section.get(key)?;
        match self.scope.expand(text).and_then(|expanded| parse(&expanded)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.findings
                    .problems
                    .push(Problem::of_value(&self.section.name, key, text, message));
                None
            }
        }
    }

    /// The same for a key that must be there.
    pub fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.raw_required(key);
        self.optional(key, parse)
    }

    /// Whether the section has this key.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Something is wrong with a value that looked well by itself.
    pub fn complain(&mut self, key: &str, message: &str) {
        let value = self.raw(key).unwrap_or_default();
        self.findings
            .problems
            .push(Problem::of_value(&self.section.name, key, value, message));
    }

    /// Something about a key is worth a line.
    pub fn note(&mut self, key: &str, line: &str) {
        self.findings
            .notes
            .push(format!("[{}] {key}: {line}", self.section.name));
    }

    /// This directory, opened once for all who name it.
    ///
    /// # Errors
    /// It can't hold cgroups.
    pub fn open_cgroup(&mut self, path: PathBuf) -> Result<CgroupDir, CgroupError> {
        let opened = self.findings.cgroups.entry(path);
        opened.or_insert_with_key(|path| CgroupDir::open(path)).clone()
    }

    fn raw(&self, key: &str) -> Option<&'a str> {
        self.section.get(key)
    }

    fn raw_required(&mut self, key: &str) -> &'a str {
        self.raw(key).unwrap_or_else(|| {
            self.findings
                .problems
                .push(Problem::in_section(&self.section.name, format!("{key}=... is missing")));
            ""
        })
    }

    fn raw_log(&mut self, key: &str) -> String {
        let value = self.raw(key).unwrap_or_default();
        if value.eq_ignore_ascii_case("auto") {
            self.note(key, "AUTO is not supported, the output is discarded");
        }
        value.to_owned()
    }
}
