//! The keys that supervisord does not have. README.md has a table of them and an example of each.
//!
//! `rules` has the restarts, delays, ends by time and stops, `limits` the limits of a cgroup, `around` the commands
//! before and after each run, and `parts` the parsers of single values. The order of programs is checked in
//! `config::order`, because it concerns several programs.
//!
//! With `cgroup`, a process is STOPPED when its whole cgroup is empty. `stopasgroup` still decides which processes
//! get `stopsignal`. The remaining processes of the cgroup get SIGKILL after `stopwaitsecs`.
//!
//! The directory is opened when the configuration is read, so a bad directory is a mistake in the configuration.
//! Otherwise the mistake would appear only when a process has to be killed.

use std::time::Duration;

use pidherd::cgroup::{CgroupDir, Limits};
use pidherd::{Command, CommandError, Lifetime};

use super::keys::Keys;
use super::values::{self, AutoRestart, MOST_INSTANCES};
use crate::names;

mod around;
mod limits;
mod parts;
mod rules;

pub use around::Around;
pub use rules::Rules;

/// The default of `readysecs`.
const READY_SECONDS: Duration = Duration::from_secs(60);

/// The keys of this file. [`Program`](super::Program) keeps a list of its own keys in the same way.
const KEYS: &[&str] = &[
    "readiness",
    "readysecs",
    "watchdogsecs",
    "stdin",
    "no_new_privs",
    "nice",
    "oom_score_adj",
    "cgroup",
    "lifetime",
    "after",
    "requires",
];

/// All keys that supervisord does not have, except the names of cgroup files.
pub fn keys() -> Vec<&'static str> {
    [KEYS, rules::KEYS, around::KEYS].concat()
}

/// The settings of a program that supervisord does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The condition for RUNNING.
    pub readiness: Readiness,
    /// The time limit for readiness, or of a job.
    pub readysecs: Duration,
    /// The longest silence of a running process. `None` means no limit.
    pub watchdogsecs: Option<Duration>,
    /// Whether standard input is a pipe.
    pub has_input: bool,
    /// Whether the process cannot gain privileges from the programs that it executes.
    pub no_new_privs: bool,
    /// The nice value. `None` means the taskmaster's.
    pub nice: Option<i32>,
    /// The `oom_score_adj`. `None` means the taskmaster's.
    pub oom_score_adj: Option<i32>,
    /// The directory for the cgroups of its processes. `None` if it has no cgroups.
    pub cgroup: Option<CgroupDir>,
    /// The limits of each cgroup.
    pub limits: Limits,
    /// What becomes of the process when the taskmaster is killed.
    pub lifetime: Lifetime,
    /// The programs that it comes after.
    pub order: Order,
    /// The rules of restarts and stops.
    pub rules: Rules,
    /// The command before each run.
    pub before: Option<Around>,
    /// The command after each run.
    pub after: Option<Around>,
}

/// The programs that a program comes after, as the file names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The start waits until these are running or stay down.
    pub after: Vec<String>,
    /// The start waits until these are running.
    pub requires: Vec<String>,
}

impl Order {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.after.is_empty() && self.requires.is_empty()
    }

    /// Each reference with its key.
    pub fn references(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let after = self.after.iter().map(|name| ("after", name));
        after.chain(self.requires.iter().map(|name| ("requires", name)))
    }
}

/// The condition under which a program counts as running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The process has lived for `startsecs`.
    Grace,
    /// The process has sent READY=1 to the notify socket.
    Notify,
    /// The process has written a newline to this descriptor.
    Fd(i32),
    /// The process is a job, and is done when it has ended as expected.
    Completes,
}

impl Beyond {
    /// Reads these keys for the program `name` in `group`.
    pub fn read(keys: &mut Keys<'_>, group: &str, name: &str) -> Beyond {
        let readiness = keys.optional("readiness", readiness);
        // A mistake in `readiness` is reported once and not again for `watchdogsecs`.
        let may_watch = matches!(readiness, Some(Readiness::Notify)) || readiness.is_none() && keys.has("readiness");
        let [before, after] = around::read(keys);
        let beyond = Beyond {
            readiness: readiness.unwrap_or(Readiness::Grace),
            readysecs: keys
                .optional("readysecs", parts::some_seconds)
                .unwrap_or(match readiness {
                    Some(Readiness::Completes) => Duration::MAX,
                    _ => READY_SECONDS,
                }),
            watchdogsecs: keys
                .optional("watchdogsecs", |text| watchdog(text, may_watch))
                .unwrap_or_default(),
            has_input: keys.optional("stdin", input).unwrap_or(false),
            no_new_privs: keys.optional("no_new_privs", values::boolean).unwrap_or(false),
            nice: keys.optional("nice", parts::nice),
            oom_score_adj: keys.optional("oom_score_adj", parts::oom_score_adj),
            cgroup: cgroup(keys, &names::shown(group, name)),
            limits: limits::read(keys),
            lifetime: keys.optional("lifetime", lifetime).unwrap_or_default(),
            order: Order {
                after: keys.optional("after", parts::references).unwrap_or_default(),
                requires: keys.optional("requires", parts::references).unwrap_or_default(),
            },
            rules: Rules::read(keys),
            before,
            after,
        };
        if beyond.readiness == Readiness::Grace && keys.has("readysecs") {
            keys.note("readysecs", "has no effect with readiness=grace");
        }
        if beyond.readiness == Readiness::Completes {
            check_job(keys);
        }
        beyond
    }
}

/// The permitted numbers of a readiness descriptor: above the standard streams and within the usual limits.
const READY_FDS: std::ops::RangeInclusive<i32> = 3..=255;

/// Parses `grace`, `notify` or `fd:N`.
fn readiness(text: &str) -> Result<Readiness, String> {
    match (text, text.strip_prefix("fd:").map(str::parse)) {
        ("grace", _) => Ok(Readiness::Grace),
        ("notify", _) => Ok(Readiness::Notify),
        ("completes", _) => Ok(Readiness::Completes),
        (_, Some(Ok(number))) if READY_FDS.contains(&number) => Ok(Readiness::Fd(number)),
        (_, Some(_)) => Err(format!(
            "expected a descriptor from {} to {}",
            READY_FDS.start(),
            READY_FDS.end()
        )),
        (_, None) => Err("expected grace, notify, fd:N or completes".to_owned()),
    }
}

/// A job ends when it is done.
fn check_job(keys: &mut Keys<'_>) {
    if keys.optional("autorestart", values::autorestart) == Some(AutoRestart::Always) {
        keys.complain(
            "autorestart",
            "a job (readiness=completes) that is always restarted is never done",
        );
    }
    if keys.has("startsecs") {
        keys.note("startsecs", "has no effect with readiness=completes");
    }
}

fn watchdog(text: &str, may_watch: bool) -> Result<Option<Duration>, String> {
    match parts::seconds(text)? {
        Duration::ZERO => Ok(None),
        time if may_watch => Ok(Some(time)),
        _ => Err("a watchdog needs readiness=notify".to_owned()),
    }
}

fn cgroup(keys: &mut Keys<'_>, shown: &str) -> Option<CgroupDir> {
    let path = keys.optional("cgroup", values::absolute)?;
    let longest = format!("{shown}-{MOST_INSTANCES}");
    let opened = CgroupDir::check_name(longest).and_then(|()| keys.open_cgroup(path));
    opened.map_err(|error| keys.complain("cgroup", &error.to_string())).ok()
}

/// Parses `null` or `pipe`.
fn input(text: &str) -> Result<bool, String> {
    match text {
        "null" => Ok(false),
        "pipe" => Ok(true),
        _ => Err("expected null or pipe".to_owned()),
    }
}

/// Parses a lifetime. One that the kernel cannot give is a mistake.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    let lifetime = match text {
        "detached" => Lifetime::Detached,
        "bound" => Lifetime::Bound,
        "bound-or-signal" => Lifetime::BoundOrSignal,
        _ => return Err("expected detached, bound or bound-or-signal".to_owned()),
    };
    match Command::new("/").lifetime(lifetime).compile() {
        Err(error @ CommandError::CannotBind { .. }) => Err(error.to_string()),
        Ok(_) | Err(_) => Ok(lifetime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_grace_notify_or_a_descriptor() {
        assert_eq!(readiness("grace"), Ok(Readiness::Grace));
        assert_eq!(readiness("notify"), Ok(Readiness::Notify));
        assert_eq!(readiness("completes"), Ok(Readiness::Completes));
        assert_eq!(readiness("fd:3"), Ok(Readiness::Fd(3)));
        assert_eq!(readiness("fd:255"), Ok(Readiness::Fd(255)));
        for text in [
            "",
            "Notify",
            "fd",
            "fd:",
            "fd:2",
            "fd:-1",
            "fd:256",
            "fd:x",
            "fd:99999999999",
            "3",
        ] {
            assert!(readiness(text).is_err(), "{text}");
        }
        assert!(readiness("fd:1").unwrap_err().contains("from 3 to 255"));
    }

    #[test]
    fn a_lifetime_is_one_that_the_kernel_can_give() {
        assert_eq!(lifetime("detached"), Ok(Lifetime::Detached));
        assert_eq!(lifetime("bound-or-signal"), Ok(Lifetime::BoundOrSignal));
        assert!(lifetime("for ever").unwrap_err().starts_with("expected "));
        match lifetime("bound") {
            Ok(bound) => assert_eq!(bound, Lifetime::Bound),
            Err(error) => assert!(
                error.starts_with("the kernel cannot bind a child to its host (Linux 7.1 can): "),
                "{error}"
            ),
        }
    }
}
