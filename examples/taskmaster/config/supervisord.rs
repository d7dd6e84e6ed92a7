//! `[supervisord]`: the settings of the taskmaster's own process and of all programs.
//!
//! ```text
//! user                              the taskmaster becomes this user for good before it starts a program
//! umask, directory                  the taskmaster's own, which programs inherit. supervisord applies them when it
//!                                   becomes a daemon, so with nodaemon=true they have no effect in both
//! environment                       variables for each program, which its own variables override, and %(ENV_X)s in
//!                                   all other sections
//! minfds, minprocs                  the least limits of open files and processes; below them the start is refused
//! childlogdir, identifier,          the directory and the names of AUTO logs, and whether earlier logs are kept
//!     nocleanup
//! pidfile                           written at the start, removed at the end; no default
//! strip_ansi                        whether escape sequences are removed from the logs of the programs
//! nodaemon                          ignored: the taskmaster always stays in the foreground
//! logfile, logfile_maxbytes,        a file for the taskmaster's own log, with rotation; no default. The log is on
//!     logfile_backups, silent       standard error too, unless `silent` is true
//! loglevel                          the least level of the lines in the log: critical, error, warn, info, debug
//! profile_options                   ignored, with a note
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::automatic::Automatic;
use super::expand::Scope;
use super::keys::Keys;
use super::logging::{Level, OwnLogSettings, Rotation};
use super::problem::Findings;
use super::raw::Section;
use super::servers::Server;
use super::streams::Destination;
use super::users::User;
use super::world::World;
use super::{environment, values};

/// The keys of the section.
const KEYS: &[&str] = &[
    "user",
    "umask",
    "directory",
    "environment",
    "minfds",
    "minprocs",
    "childlogdir",
    "identifier",
    "nocleanup",
    "pidfile",
    "strip_ansi",
    "nodaemon",
    "silent",
    "logfile",
    "logfile_maxbytes",
    "logfile_backups",
    "loglevel",
    "profile_options",
];

/// supervisord's default for `identifier`.
const IDENTIFIER: &str = "supervisor";

/// The settings in the section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisord {
    /// The user that the taskmaster becomes. `None` means no change.
    pub user: Option<User>,
    /// The taskmaster's umask. `None` means no change.
    pub umask: Option<u32>,
    /// The taskmaster's working directory. `None` means no change.
    pub directory: Option<PathBuf>,
    /// The least limit of open files.
    pub minfds: Option<u64>,
    /// The least limit of processes.
    pub minprocs: Option<u64>,
    /// The file for the taskmaster's PID.
    pub pidfile: Option<PathBuf>,
    /// The variables in each program's environment.
    pub environment: Arc<Vec<(String, String)>>,
    /// The directory and the names of automatic logs.
    pub automatic: Arc<Automatic>,
    /// The servers for supervisorctl, which have sections of their own.
    pub servers: Vec<Server>,
    /// The taskmaster's own log file.
    pub log: Option<OwnLogSettings>,
    /// The least level of the lines in its log.
    pub loglevel: Level,
    /// Whether escape sequences are removed from the programs' logs.
    pub strip_ansi: bool,
}

impl Supervisord {
    /// Reads the section. An empty section gives the defaults.
    pub fn read(section: &Section, world: &World, scope: &Scope, findings: &mut Findings) -> Supervisord {
        let mut keys = Keys::new(section, scope, KEYS, findings);
        if section.get("profile_options").is_some() {
            keys.note("profile_options", "ignored, the taskmaster has no profiler");
        }
        let existing = |text: &str| existing_directory(&world.at_home(text)?);
        let nodaemon = keys.optional("nodaemon", values::boolean);
        if nodaemon == Some(false) {
            keys.note("nodaemon", "the taskmaster stays in the foreground");
        }
        let mut read = Supervisord {
            user: keys.optional("user", |text| world.accounts.find(text)),
            umask: keys.optional("umask", values::umask),
            directory: keys.optional("directory", existing),
            minfds: keys.optional("minfds", values::limit),
            minprocs: keys.optional("minprocs", values::limit),
            pidfile: keys.optional("pidfile", |text| pidfile(&world.at_home(text)?, world)),
            environment: Arc::new(variables(&mut keys)),
            automatic: Arc::new(automatic(&mut keys, world, existing)),
            servers: Vec::new(),
            log: own_log(&mut keys, world),
            loglevel: keys.optional("loglevel", Level::parse).unwrap_or_default(),
            strip_ansi: keys.optional("strip_ansi", values::boolean).unwrap_or(false),
        };
        if nodaemon == Some(true) {
            let without_effect = "without effect, as in supervisord: it applies only to a daemon, and nodaemon=true";
            if read.umask.take().is_some() {
                keys.note("umask", without_effect);
            }
            if read.directory.take().is_some() {
                keys.note("directory", without_effect);
            }
        }
        read
    }

    /// Checks whether a taskmaster that was started as `self` can continue as `new`. The environment and the
    /// automatic logs affect only programs, so they may change at any time.
    ///
    /// # Errors
    /// One line: a key that only a restart can change.
    pub fn check_reload(&self, new: &Supervisord) -> Result<(), String> {
        let changed = [
            ("user", self.user != new.user),
            ("umask", self.umask != new.umask),
            ("directory", self.directory != new.directory),
            ("minfds", self.minfds != new.minfds),
            ("minprocs", self.minprocs != new.minprocs),
            ("pidfile", self.pidfile != new.pidfile),
            ("logfile", self.log != new.log),
            ("loglevel", self.loglevel != new.loglevel),
        ];
        match changed.into_iter().find(|(_, changed)| *changed) {
            None if self.servers != new.servers => Err(
                "nothing is changed: a [unix_http_server] or [inet_http_server] has changed, which requires a restart \
                 of the taskmaster"
                    .to_owned(),
            ),
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "nothing is changed: [supervisord] {key} has changed, which requires a restart of the taskmaster"
            )),
        }
    }
}

/// Reads `environment`. No message contains a part of its value.
fn variables(keys: &mut Keys<'_>) -> Vec<(String, String)> {
    let Some(raw) = keys.raw("environment") else {
        return Vec::new();
    };
    let expanded = keys
        .scope
        .expand_twice(raw)
        .map_err(|message| values::discreet(&message));
    match expanded.and_then(|text| environment::parse(&text)) {
        Ok(variables) => variables,
        Err(message) => {
            keys.complain("environment", &message);
            Vec::new()
        }
    }
}

fn automatic(keys: &mut Keys<'_>, world: &World, existing: impl Fn(&str) -> Result<PathBuf, String>) -> Automatic {
    let identifier = |text: &str| match text {
        "" => Err("expected a name".to_owned()),
        _ if text.contains(['/', '\0']) => Err("a name must not contain a slash".to_owned()),
        _ => Ok(text.to_owned()),
    };
    let directory = keys.optional("childlogdir", existing);
    Automatic {
        by_default: directory.is_some(),
        directory: world.absolute(&directory.unwrap_or_else(std::env::temp_dir)),
        identifier: keys
            .optional("identifier", identifier)
            .unwrap_or_else(|| IDENTIFIER.to_owned()),
        nocleanup: keys.optional("nocleanup", values::boolean).unwrap_or(false),
    }
}

/// Reads `logfile` and its rotation.
fn own_log(keys: &mut Keys<'_>, world: &World) -> Option<OwnLogSettings> {
    let default = Rotation::default();
    let rotation = Rotation {
        maxbytes: keys
            .optional("logfile_maxbytes", values::bytes)
            .unwrap_or(default.maxbytes),
        backups: keys
            .optional("logfile_backups", values::count_from_zero)
            .unwrap_or(default.backups),
    };
    let silent = keys.optional("silent", values::boolean).unwrap_or(false);
    match keys.optional("logfile", |text| log_path(text, world))? {
        Some(path) => Some(OwnLogSettings { path, rotation, silent }),
        None => {
            keys.note("logfile", "the log is on standard error");
            None
        }
    }
}

/// The path of the log file. `None` for a standard stream.
fn log_path(text: &str, world: &World) -> Result<Option<PathBuf>, String> {
    match Destination::parse(text, |text| world.at_home(text))? {
        Destination::Own(_) | Destination::Discard | Destination::Automatic => Ok(None),
        Destination::File(path) => pidfile(&path.to_string_lossy(), world).map(Some),
    }
}

fn existing_directory(text: &str) -> Result<PathBuf, String> {
    match Path::new(text) {
        path if path.is_dir() => Ok(path.to_owned()),
        _ => Err("there is no such directory".to_owned()),
    }
}

/// Checks that the directory of the pid file exists.
fn pidfile(text: &str, world: &World) -> Result<PathBuf, String> {
    let path = world.absolute(Path::new(text));
    match path.parent() {
        Some(parent) if parent.is_dir() && path.file_name().is_some() => Ok(path),
        _ => Err("its directory does not exist".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, problems};
    use super::*;

    fn read(text: &str) -> Supervisord {
        config(&format!("[supervisord]\n{text}")).supervisord
    }

    #[test]
    fn every_key_is_parsed() {
        let own = read(
            "user=ann\numask=027\ndirectory=/\nminfds=2000\nminprocs=300\nchildlogdir=/tmp\nidentifier=%(ENV_COLOUR)s\n\
             nocleanup=true\npidfile=/tmp/herd.pid\nsilent=true\nstrip_ansi=false\n",
        );
        assert_eq!(own.user.as_ref().map(|user| user.uid), Some(1000));
        assert_eq!(
            (own.umask, own.directory.as_deref()),
            (Some(0o027), Some(Path::new("/")))
        );
        assert_eq!((own.minfds, own.minprocs), (Some(2000), Some(300)));
        assert_eq!(own.pidfile, Some("/tmp/herd.pid".into()));
        let automatic = Automatic {
            directory: "/tmp".into(),
            identifier: "green".to_owned(),
            by_default: true,
            nocleanup: true,
        };
        assert_eq!(*own.automatic, automatic);
        assert_eq!(problems("[supervisord]\nenvironment=B=\"100%%\"").len(), 1);
        let own = read("environment=A=\"%(here)s\",B=\"100%%%%\"");
        let variables = [("A", "/etc/herd"), ("B", "100%")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(*own.environment, variables);
        let silent = read("");
        assert_eq!(silent.automatic.identifier, "supervisor");
        assert_eq!((silent.user, silent.umask, silent.minfds), (None, None, None));
        assert!(!silent.automatic.by_default);
    }

    #[test]
    fn unsupported_values_are_refused() {
        for (line, word) in [
            ("user=no-such-user", "no such user"),
            ("umask=9", "octal"),
            ("directory=/no/such", "no such directory"),
            ("childlogdir=/etc/passwd", "no such directory"),
            ("pidfile=/no/such/pid", "does not exist"),
            ("minfds=many", "whole number"),
            ("minprocs=", "whole number"),
            ("strip_ansi=x", "true or false"),
            ("nodaemon=perhaps", "true or false"),
            ("nocleanup=2", "true or false"),
            ("loglevel=loud", "critical, error"),
            ("logfile=/no/such/log", "does not exist"),
            ("logfile=syslog", "syslog"),
            ("logfile_maxbytes=big", "bytes"),
            ("identifier=a/b", "slash"),
            ("environment=A", "variable 1"),
            ("silent=x", "true or false"),
        ] {
            let found = problems(&format!("[supervisord]\n{line}\n"));
            let place = format!("[supervisord] {}", line.split('=').next().unwrap());
            assert!(
                found.len() == 1 && found[0].starts_with(&place) && found[0].contains(word),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn a_supervisord_in_the_foreground_applies_neither_umask_nor_directory() {
        let config = config("[supervisord]\nnodaemon=true\numask=077\ndirectory=/\n");
        assert_eq!((config.supervisord.umask, config.supervisord.directory), (None, None));
        assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
        assert_eq!(read("umask=077\nnodaemon=false").umask, Some(0o077));
    }

    #[test]
    fn variables_of_a_program_override_those_of_all_programs() {
        let text = "[supervisord]\nenvironment=SHADE=dark,COLOUR=red\n[program:a]\n\
                    command=paint %(ENV_COLOUR)s %(ENV_SHADE)s\nenvironment=SHADE=light\n";
        let instance = config(text).groups[0].programs[0].instance(0).unwrap();
        assert_eq!(instance.argv, ["paint", "red", "light"]);
        let mut variables = instance.environment;
        variables.sort();
        let expected = [("COLOUR", "red"), ("SHADE", "light")];
        assert_eq!(
            variables,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_reload_may_change_only_settings_of_programs() {
        let before = read("user=ann\nenvironment=A=1\n");
        assert_eq!(before.check_reload(&read("user=ann\nchildlogdir=/tmp\n")), Ok(()));
        for text in ["", "user=ann\numask=022\n", "user=ann\nminfds=5000\n"] {
            assert!(
                before.check_reload(&read(text)).unwrap_err().contains("restart"),
                "{text}"
            );
        }
    }
}
