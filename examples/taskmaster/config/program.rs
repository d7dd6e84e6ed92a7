//! One `[program:x]`: its settings, and a recipe for each of its instances.
//!
//! What may differ from one instance to the next (through `%(process_num)d`) is kept as the text of
//! the file and expanded when an instance is asked for: `scale` may ask for more of them than the
//! file does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pidherd::signal::Signal;

use super::automatic::Automatic;
use super::beyond::{self, Beyond};
use super::expand::{Scope, Value};
use super::keys::Keys;
use super::problem::{Findings, Problem};
use super::raw::{Raw, Section};
use super::streams::{self, Destination, Stream};
use super::users::User;
use super::values::AutoRestart;
use super::world::World;
use super::{environment, values};

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
    "serverurl",
    "stdout_syslog",
    "stderr_syslog",
    "stdout_logfile_maxbytes",
    "stdout_logfile_backups",
    "stdout_capture_maxbytes",
    "stdout_events_enabled",
    "stderr_logfile_maxbytes",
    "stderr_logfile_backups",
    "stderr_capture_maxbytes",
    "stderr_events_enabled",
];

/// The ends of those keys of an output that have no effect, and why.
const IDLE: &[(&str, &str)] = &[
    ("logfile_maxbytes", "ignored, a log is not rotated"),
    ("logfile_backups", "ignored, a log is not rotated"),
    ("capture_maxbytes", "ignored, there are no event listeners"),
    ("events_enabled", "ignored, there are no event listeners"),
];

/// One program. The fields are named after the keys, and mean what supervisord says they mean.
#[derive(Clone, Debug)]
pub struct Program {
    /// The part behind the colon of its section.
    pub name: String,
    /// The group that its processes belong to.
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
    /// The user that it runs as, if not the taskmaster's.
    pub user: Option<User>,
    /// Its umask, if not the taskmaster's.
    pub umask: Option<u32>,
    /// Whether its standard error goes where its standard output goes.
    pub redirect_stderr: bool,
    /// What it finds as `SUPERVISOR_SERVER_URL`, if that is not the taskmaster's own.
    pub serverurl: Option<String>,
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
    /// What is added to the taskmaster's environment: the variables of all programs, then its own ones.
    pub environment: Vec<(String, String)>,
    /// Where it runs, if not in the taskmaster's directory.
    pub directory: Option<PathBuf>,
    /// Where its standard output goes.
    pub stdout: Log,
    /// Where its standard error goes, unless `redirect_stderr` says otherwise.
    pub stderr: Log,
}

/// Where a program's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nowhere: the taskmaster's own output belongs to the process that drives it.
    Discard,
    /// To one of the taskmaster's own streams.
    Own(Stream),
    /// To the end of this file, which only its owner may read.
    Automatic(PathBuf),
    /// To the end of this file.
    File(PathBuf),
}

/// What all programs of a configuration have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The surroundings.
    pub world: Arc<World>,
    /// The names that every section may use.
    pub scope: Scope,
    /// The environment of all programs.
    pub environment: Arc<Vec<(String, String)>>,
    /// Where automatic logs are.
    pub automatic: Arc<Automatic>,
}

/// The values that are expanded for each instance, as the file has them.
#[derive(Clone, Debug)]
struct Recipe {
    section: String,
    group: String,
    common: Common,
    scope: Scope,
    first: i64,
    process_name: Raw,
    command: Raw,
    environment: Raw,
    directory: Option<Raw>,
    stdout: Raw,
    stderr: Raw,
}

impl Program {
    /// Reads `[program:name]` for `group`; what is wrong with it ends up in `findings`.
    pub fn read(
        section: &Section,
        name: &str,
        group: &str,
        common: &Common,
        findings: &mut Findings,
    ) -> Option<Program> {
        let mut scope = common.scope.clone();
        scope.set("program_name", Value::Text(name.to_owned()));
        scope.set("group_name", Value::Text(group.to_owned()));
        let before = findings.problems.len();
        let mut keys = Keys::new(section, &scope, &[KEYS, beyond::KEYS].concat(), findings);
        let name = keys.title(name);
        let redirect_stderr = keys.optional("redirect_stderr", values::boolean).unwrap_or(false);
        check_outputs(&mut keys, redirect_stderr);
        let numprocs = keys.optional("numprocs", values::instances).unwrap_or(1);
        let recipe = Recipe::read(&mut keys, group, common, redirect_stderr);
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
            startretries: keys
                .optional("startretries", values::count_from_zero)
                .unwrap_or(START_RETRIES),
            exitcodes: keys
                .optional("exitcodes", values::exit_codes)
                .unwrap_or_else(|| vec![0]),
            stopsignal: keys.optional("stopsignal", values::signal).unwrap_or(Signal::TERM),
            stopwaitsecs: keys.optional("stopwaitsecs", values::seconds).unwrap_or(STOP_WAIT),
            stopasgroup,
            killasgroup: keys
                .optional("killasgroup", |text| kill_as_group(text, stopasgroup))
                .unwrap_or(stopasgroup),
            user: keys.optional("user", |text| common.world.accounts.find(text)),
            umask: keys.optional("umask", values::umask),
            redirect_stderr,
            serverurl: keys.optional("serverurl", |text| Ok(server(text))).flatten(),
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
        self.recipe.process_name.text.contains("%(process_num)")
    }

    /// Whether an output of it is an automatic log.
    pub fn has_automatic_logs(&self) -> bool {
        let is_automatic = |log: &Log| matches!(log, Log::Automatic(_));
        self.instance(0)
            .is_ok_and(|instance| is_automatic(&instance.stdout) || is_automatic(&instance.stderr))
    }

    /// Something is wrong with the program as a whole.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::in_named_section(&self.recipe.section, &self.recipe.command.source, message)
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

/// A URL, or none if it is up to the taskmaster, which has no server.
fn server(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.eq_ignore_ascii_case("auto")).then(|| text.to_owned())
}

/// The keys of both outputs that can't be obeyed, or have no effect.
fn check_outputs(keys: &mut Keys<'_>, redirect_stderr: bool) {
    for output in ["stdout", "stderr"] {
        let is_redirected = output == "stderr" && redirect_stderr;
        let syslog = format!("{output}_syslog");
        if keys.optional(&syslog, values::boolean) == Some(true) && !is_redirected {
            keys.complain(&syslog, streams::NO_SYSLOG);
        }
        let logfile = format!("{output}_logfile");
        if is_redirected && keys.has(&logfile) {
            keys.note(&logfile, "ignored, redirect_stderr is true");
        }
        for (end, why) in IDLE {
            let key = format!("{output}_{end}");
            // Where nothing is asked for, nothing is missing.
            let asks = |raw: &Raw| !matches!(raw.text.to_lowercase().as_str(), "0" | "false" | "no" | "off");
            if keys.raw(&key).is_some_and(asks) {
                keys.note(&key, why);
            }
        }
    }
}

impl Recipe {
    fn read(keys: &mut Keys<'_>, group: &str, common: &Common, redirect_stderr: bool) -> Recipe {
        let default = if common.automatic.by_default { "AUTO" } else { "NONE" };
        let log = |key| keys.raw_or(key, default);
        Recipe {
            section: keys.section.name.clone(),
            group: group.to_owned(),
            common: common.clone(),
            scope: keys.scope.clone(),
            stdout: log("stdout_logfile"),
            stderr: if redirect_stderr {
                Raw::default()
            } else {
                log("stderr_logfile")
            },
            first: keys.optional("numprocs_start", values::first_instance).unwrap_or(0),
            process_name: keys.raw_or("process_name", "%(program_name)s"),
            command: keys.raw_required("command"),
            environment: keys.raw_or("environment", ""),
            directory: keys.raw("directory").cloned(),
        }
    }

    fn scope_of(&self, index: u32, numprocs: u32) -> Scope {
        let mut scope = self.scope.clone();
        scope.set("process_num", Value::Number(self.first.saturating_add(index.into())));
        scope.set("numprocs", Value::Number(numprocs.into()));
        scope
    }

    fn name(&self, scope: &Scope) -> Result<String, Problem> {
        self.value(scope, "process_name", &self.process_name, values::name)
    }

    fn instance(&self, mut scope: Scope) -> Result<Instance, Problem> {
        let name = self.name(&scope)?;
        let own = scope
            .expand(&self.environment)
            .map_err(|message| values::discreet(&message))
            .and_then(|expanded| environment::parse(&expanded))
            .map_err(|message| self.problem("environment", &self.environment, &message))?;
        for (key, value) in &own {
            scope.set(format!("ENV_{key}"), Value::Text(value.clone()));
        }
        let of_all = self.common.environment.iter().cloned();
        let of_all = of_all.filter(|(key, _)| own.iter().all(|(other, _)| other != key));
        let environment = of_all.chain(own.iter().cloned()).collect();
        let at_home = |text: &str| self.common.world.at_home(text);
        let directory = self.directory.as_ref();
        let directory = directory.map(|raw| self.value(&scope, "directory", raw, at_home));
        Ok(Instance {
            argv: self.value(&scope, "command", &self.command, values::command)?,
            directory: directory.transpose()?.map(PathBuf::from),
            stdout: self.log(&scope, "stdout", &self.stdout, &name)?,
            stderr: self.log(&scope, "stderr", &self.stderr, &name)?,
            name,
            environment,
        })
    }

    fn log(&self, scope: &Scope, channel: &'static str, raw: &Raw, process: &str) -> Result<Log, Problem> {
        let at_home = |text: &str| self.common.world.at_home(text);
        let destination = scope
            .expand_twice(raw)
            .and_then(|text| Destination::parse(&text, at_home))
            .map_err(|message| self.problem(&format!("{channel}_logfile"), raw, &message))?;
        Ok(match destination {
            Destination::Discard => Log::Discard,
            Destination::Own(stream) => Log::Own(stream),
            Destination::File(path) => Log::File(path),
            Destination::Automatic => Log::Automatic(self.common.automatic.path(&self.group, process, channel)),
        })
    }

    fn value<T>(
        &self,
        scope: &Scope,
        key: &str,
        raw: &Raw,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let expanded = scope.expand(raw).and_then(|expanded| parse(&expanded));
        expanded.map_err(|message| self.problem(key, raw, &message))
    }

    fn problem(&self, key: &str, value: &Raw, message: &str) -> Problem {
        Problem::of_value(&self.section, key, value, message)
    }
}
