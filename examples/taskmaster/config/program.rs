//! One `[program:x]`, `[fcgi-program:x]` or `[eventlistener:x]`: its settings, and a recipe for each of its instances.
//!
//! Values that may differ between instances (through `%(process_num)d`) are kept as text and expanded for each
//! instance. `scale` may create more instances than the file has.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pidherd::exit::Exit;
use pidherd::signal::Signal;

use super::automatic::Automatic;
use super::beyond::{self, Beyond};
use super::events::{self, PoolSettings};
use super::expand::{Scope, Value};
use super::fcgi::{self, FcgiSocket};
use super::keys::Keys;
use super::logging::{Channel, Log, Rotation, Sink, Target};
use super::problem::{Findings, Problem};
use super::raw::{Raw, Section};
use super::sections::Kind;
use super::streams::{self, Destination};
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

/// supervisord's default for the `priority` of event listeners: they are started first and stopped last.
const LISTENER_PRIORITY: i32 = -1;

/// The kind of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[program:x]`.
    Plain,
    /// `[fcgi-program:x]`.
    FastCgi(FcgiSocket),
    /// `[eventlistener:x]`.
    Listener(PoolSettings),
}

/// One program. The fields have the names and the meanings of supervisord's keys.
#[derive(Clone, Debug)]
pub struct Program {
    /// The kind of the program.
    pub role: Role,
    /// The name of the program, which follows the colon in the section's name.
    pub name: String,
    /// The group of its processes.
    pub group: String,
    /// The priority. A program with a lower number starts earlier and is stopped later.
    pub priority: i32,
    /// Whether the program starts without a command.
    pub autostart: bool,
    /// Whether the program is restarted after an exit.
    pub autorestart: AutoRestart,
    /// The uptime after which the process counts as running.
    pub startsecs: Duration,
    /// The number of retries after a failed start.
    pub startretries: u32,
    /// The expected exit codes.
    pub exitcodes: Vec<u8>,
    /// The signal that requests the stop.
    pub stopsignal: Signal,
    /// The time limit of a stop. After it the process is killed.
    pub stopwaitsecs: Duration,
    /// Whether `stopsignal` is sent to the whole process group.
    pub stopasgroup: bool,
    /// Whether SIGKILL is sent to the whole process group.
    pub killasgroup: bool,
    /// The user of the process. `None` means the taskmaster's user.
    pub user: Option<User>,
    /// The umask of the process. `None` means the taskmaster's umask.
    pub umask: Option<u32>,
    /// The rotation of the logs: of standard output, then of standard error.
    pub rotations: [Rotation; 2],
    /// What is read from the outputs besides logs: from standard output, then from standard error.
    pub heard: [Heard; 2],
    /// Whether standard error goes to the same place as standard output.
    pub redirect_stderr: bool,
    /// The value of `SUPERVISOR_SERVER_URL`. `None` if it is not set.
    pub serverurl: Option<String>,
    /// The number of instances.
    pub numprocs: u32,
    /// The keys that supervisord does not have.
    pub beyond: Beyond,
    recipe: Recipe,
}

/// What is read from an output besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The value of `capture_maxbytes`.
    pub capture: u64,
    /// The value of `events_enabled`.
    pub events: bool,
}

/// One instance, ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The name of the instance within the group.
    pub name: String,
    /// The program and its arguments. The list is never empty.
    pub argv: Vec<String>,
    /// The variables to add to the taskmaster's environment: first those of all programs, then those of this one.
    pub environment: Vec<(String, String)>,
    /// The working directory. `None` means the taskmaster's directory.
    pub directory: Option<PathBuf>,
    /// The destination of standard output.
    pub stdout: Log,
    /// The destination of standard error, unless `redirect_stderr` is set.
    pub stderr: Log,
}

/// The values that all programs of a configuration share.
#[derive(Clone, Debug)]
pub struct Common {
    /// The surroundings of the file.
    pub world: Arc<World>,
    /// The names that every section may use.
    pub scope: Scope,
    /// The environment of all programs.
    pub environment: Arc<Vec<(String, String)>>,
    /// The directory and the names of automatic logs.
    pub automatic: Arc<Automatic>,
    /// Whether escape sequences are removed from the logs.
    pub strip_ansi: bool,
    /// The address of the taskmaster's server.
    pub server_url: Option<String>,
    /// Whether the configuration has event listeners.
    pub has_listeners: bool,
}

/// The values that are expanded for each instance, before the expansion.
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
    /// Reads `[program:name]` for `group`. Mistakes are added to `findings`.
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
        let mut keys = Keys::new(section, &scope, &known_keys(section), findings);
        let name = keys.title(name);
        let redirect_stderr = keys.optional("redirect_stderr", values::boolean).unwrap_or(false);
        check_outputs(&mut keys, redirect_stderr);
        let user = keys.optional("user", |text| common.world.accounts.find(text));
        let role = role(&mut keys, common, user.as_ref());
        let numprocs = keys.optional("numprocs", values::instances).unwrap_or(1);
        let recipe = Recipe::read(&mut keys, group, common, redirect_stderr);
        let stopasgroup = keys.optional("stopasgroup", values::boolean).unwrap_or(false);
        let program = Program {
            beyond: Beyond::read(&mut keys, group, &name),
            name,
            group: group.to_owned(),
            priority: keys
                .optional("priority", values::priority)
                .unwrap_or(if matches!(role, Role::Listener(_)) {
                    LISTENER_PRIORITY
                } else {
                    PRIORITY
                }),
            role,
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
            user,
            heard: ["stdout", "stderr"].map(|output| heard(&mut keys, output)),
            umask: keys.optional("umask", values::umask),
            rotations: [rotation(&mut keys, "stdout"), rotation(&mut keys, "stderr")],
            redirect_stderr,
            serverurl: keys
                .optional("serverurl", |text| Ok(server(text)))
                .flatten()
                .or_else(|| common.server_url.clone()),
            numprocs,
            recipe,
        };
        if findings.problems.len() == before {
            findings.problems.extend(program.try_out());
            findings.notes.extend(program.idle_keys());
        }
        (findings.problems.len() == before).then_some(program)
    }

    /// The name of the instance with this index, counted from 0.
    ///
    /// # Errors
    /// The name cannot be expanded.
    pub fn process_name(&self, index: u32) -> Result<String, Problem> {
        self.recipe.name(&self.recipe.scope_of(index, self.numprocs))
    }

    /// The names of all instances in the file.
    pub fn names(&self) -> Vec<String> {
        (0..self.numprocs)
            .filter_map(|index| self.process_name(index).ok())
            .collect()
    }

    /// The settings of the instance with this index, counted from 0.
    ///
    /// # Errors
    /// The first value that cannot be expanded or parsed.
    pub fn instance(&self, index: u32) -> Result<Instance, Problem> {
        self.recipe.instance(self.recipe.scope_of(index, self.numprocs))
    }

    /// Whether each instance gets a name of its own, so that several instances are possible.
    pub fn can_scale(&self) -> bool {
        self.recipe.process_name.text.contains("%(process_num)")
    }

    /// What becomes of the output of the instance with this index. `None` if the taskmaster does not read it.
    pub fn sink(&self, index: u32, channel: Channel) -> Option<Sink> {
        let instance = self.instance(index).ok()?;
        let (log, at) = match channel {
            Channel::Out => (&instance.stdout, 0),
            Channel::Err if self.redirect_stderr => return None,
            Channel::Err => (&instance.stderr, 1),
        };
        let file = Target::of(log, self.rotations[at], self.recipe.common.strip_ansi);
        let sink = self.heard_sink(channel, file);
        (sink.file.is_some() || sink.is_heard()).then_some(sink)
    }

    /// Whether the taskmaster has to read an output, whatever its log is.
    pub fn is_heard(&self, channel: Channel) -> bool {
        self.heard_sink(channel, None).is_heard()
    }

    fn heard_sink(&self, channel: Channel, file: Option<Target>) -> Sink {
        let heard = self.heard[channel as usize];
        let protocol = matches!(self.role, Role::Listener(_)) && channel == Channel::Out;
        // In supervisord, the protocol of a listener is neither captured nor reported.
        let is_heard = !protocol && self.recipe.common.has_listeners;
        Sink {
            file,
            capture: if protocol { 0 } else { heard.capture },
            events: heard.events && is_heard,
            protocol,
        }
    }

    /// The log file of the instance with this index. `None` if the output goes to no file.
    pub fn log(&self, index: u32, channel: Channel) -> Option<PathBuf> {
        self.sink(index, channel)?.file.map(|target| target.path)
    }

    /// Whether `other` has the same logs.
    pub fn has_same_logs(&self, other: &Program) -> bool {
        let texts = |program: &Program| [program.recipe.stdout.text.clone(), program.recipe.stderr.text.clone()];
        let common = |program: &Program| {
            let common = &program.recipe.common;
            (Arc::clone(&common.automatic), common.strip_ansi)
        };
        let heard = |program: &Program| Channel::BOTH.map(|channel| program.heard_sink(channel, None));
        self.rotations == other.rotations
            && texts(self) == texts(other)
            && common(self) == common(other)
            && heard(self) == heard(other)
    }

    /// Whether one of its outputs is an automatic log.
    pub fn has_automatic_logs(&self) -> bool {
        let is_automatic = |log: &Log| matches!(log, Log::Automatic(_));
        self.instance(0)
            .is_ok_and(|instance| is_automatic(&instance.stdout) || is_automatic(&instance.stderr))
    }

    /// Whether an exit is expected.
    pub fn expects(&self, exit: Exit) -> bool {
        match exit {
            Exit::Code(code) => self.exitcodes.contains(&code),
            Exit::Signal { signal, .. } => self.beyond.rules.expected_signals.contains(&signal),
            _ => false,
        }
    }

    /// A problem with the program as a whole.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::in_named_section(&self.recipe.section, &self.recipe.command.source, message)
    }

    /// The first problem with the first or the last instance. It is reported now rather than at the start.
    fn try_out(&self) -> Option<Problem> {
        if self.numprocs > 1 && !self.can_scale() {
            let message = "must contain %(process_num)d when numprocs is larger than 1";
            return Some(self.recipe.problem("process_name", &self.recipe.process_name, message));
        }
        let last = self.numprocs.saturating_sub(1);
        [0, last].into_iter().find_map(|index| match self.instance(index) {
            Ok(instance) => self.check_heard(&instance),
            Err(problem) => Some(problem),
        })
    }

    /// An output that has to be read cannot be one of the taskmaster's own streams.
    fn check_heard(&self, instance: &Instance) -> Option<Problem> {
        let outputs = [(Channel::Out, &instance.stdout), (Channel::Err, &instance.stderr)];
        let is_both = |(channel, log): &&(Channel, &Log)| matches!(log, Log::Own(_)) && self.is_heard(*channel);
        let (channel, _) = outputs.iter().find(is_both)?;
        let raw = match channel {
            Channel::Out => &self.recipe.stdout,
            Channel::Err => &self.recipe.stderr,
        };
        let key = format!("{}_logfile", channel.name());
        let message = "the output is read for event listeners, so its log must be a file or NONE";
        Some(self.recipe.problem(&key, raw, message))
    }

    /// A note for each key about events that nothing gets.
    fn idle_keys(&self) -> Vec<String> {
        let note = |channel: Channel| {
            let is_idle = self.heard[channel as usize].events && !self.recipe.common.has_listeners;
            let (section, name) = (&self.recipe.section, channel.name());
            is_idle.then(|| format!("[{section}] {name}_events_enabled: ignored, there are no event listeners"))
        };
        Channel::BOTH.into_iter().filter_map(note).collect()
    }
}

/// The keys of a section of this kind.
fn known_keys(section: &Section) -> Vec<&'static str> {
    let own = match Kind::of(&section.name) {
        Kind::EventListener(_) => events::KEYS,
        Kind::FastCgi(_) => fcgi::KEYS,
        _ => &[],
    };
    [KEYS, own, &beyond::keys()].concat()
}

/// Reads the keys of the program's kind.
fn role(keys: &mut Keys<'_>, common: &Common, user: Option<&User>) -> Role {
    let role = match Kind::of(&keys.section.name) {
        Kind::EventListener(_) => PoolSettings::read(keys).map(Role::Listener),
        Kind::FastCgi(_) => FcgiSocket::read(keys, &common.world, user).map(Role::FastCgi),
        _ => return Role::Plain,
    };
    if keys.has("stdin") {
        keys.complain("stdin", "this kind of program has a standard input of its own");
    }
    // Without a role a mistake was recorded, and the program is not used.
    role.unwrap_or(Role::Plain)
}

/// Reads what is heard of an output besides its log.
fn heard(keys: &mut Keys<'_>, output: &str) -> Heard {
    Heard {
        capture: keys
            .optional(&format!("{output}_capture_maxbytes"), captured)
            .unwrap_or(0),
        events: keys
            .optional(&format!("{output}_events_enabled"), values::boolean)
            .unwrap_or(false),
    }
}

/// The largest `capture_maxbytes`. What is captured is kept in memory, and again in an event.
const MOST_CAPTURED: u64 = 64 << 20;

fn captured(text: &str) -> Result<u64, String> {
    match values::bytes(text)? {
        bytes @ 0..=MOST_CAPTURED => Ok(bytes),
        _ => Err("must be at most 64MB, because it is kept in memory".to_owned()),
    }
}

/// Parses `killasgroup`. It cannot be false if the stop signal goes to the whole group.
fn kill_as_group(text: &str, stopasgroup: bool) -> Result<bool, String> {
    match values::boolean(text) {
        Ok(false) if stopasgroup => Err("can't be false while stopasgroup is true".to_owned()),
        other => other,
    }
}

/// Reads the rotation of a log.
fn rotation(keys: &mut Keys<'_>, output: &str) -> Rotation {
    let default = Rotation::default();
    Rotation {
        maxbytes: keys
            .optional(&format!("{output}_logfile_maxbytes"), values::bytes)
            .unwrap_or(default.maxbytes),
        backups: keys
            .optional(&format!("{output}_logfile_backups"), values::count_from_zero)
            .unwrap_or(default.backups),
    }
}

/// Parses a URL. `None` means the taskmaster's own.
fn server(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.eq_ignore_ascii_case("auto")).then(|| text.to_owned())
}

/// Checks the keys of both outputs that are refused or have no effect.
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
