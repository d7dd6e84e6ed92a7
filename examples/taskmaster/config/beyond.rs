//! The keys that supervisord does not have: readiness, watchdogs, cgroups, privileges and the lifetime.
//!
//! ```text
//! readiness=grace      the program is RUNNING after startsecs, as in supervisord (the default)
//! readiness=notify     the program is RUNNING when it sends READY=1 to NOTIFY_SOCKET (systemd-notify --ready)
//! readiness=fd:3       the program is RUNNING when it writes a newline to this descriptor, as s6's services do
//! readysecs=60         the time limit for readiness; after it the process is stopped, and the start has failed
//! watchdogsecs=0       the longest silence of a RUNNING process before it counts as hung and crashed;
//!                      0 means no limit. The key needs readiness=notify, and the program gets WATCHDOG_USEC
//! stdin=null           standard input is /dev/null, or with `pipe` a pipe that sendProcessStdin of the remote
//!                      interface writes to (supervisorctl fg)
//! no_new_privs=false   whether set-user-id programs and file capabilities have no effect (sudo, ping);
//!                      false is supervisord's behaviour, because it sets no_new_privs for no user
//! cgroup=DIR           a cgroup v2 directory for this taskmaster alone: each process gets a cgroup in it,
//!                      and every process in that cgroup is killed at the end, also after a double fork
//! lifetime=detached    what becomes of the process when SIGKILL ends the taskmaster: it lives on (the default),
//!                      or with `bound` the kernel kills it (Linux 7.1; a mistake on an older kernel), or with
//!                      `bound-or-signal` an older kernel does so unless the program changes its own ids
//! ```
//!
//! With `cgroup`, a process is STOPPED when its whole cgroup is empty. `stopasgroup` still decides which processes
//! get `stopsignal`. The remaining processes of the cgroup get SIGKILL after `stopwaitsecs`.
//!
//! The directory is opened when the configuration is read, so a bad directory is a mistake in the configuration.
//! Otherwise the mistake would appear only when a process has to be killed.

use std::time::Duration;

use pidherd::cgroup::CgroupDir;
use pidherd::{Command, CommandError, Lifetime};

use super::keys::Keys;
use super::values::{self, MOST_INSTANCES};
use crate::names;

/// The default of `readysecs`.
const READY_SECONDS: Duration = Duration::from_secs(60);

/// These keys. [`Program`](super::Program) keeps a list of its own keys in the same way.
pub const KEYS: &[&str] = &[
    "readiness",
    "readysecs",
    "watchdogsecs",
    "stdin",
    "no_new_privs",
    "cgroup",
    "lifetime",
];

/// The settings of a program that supervisord does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The condition for RUNNING.
    pub readiness: Readiness,
    /// The time limit for readiness.
    pub readysecs: Duration,
    /// The longest silence of a running process. `None` means no limit.
    pub watchdogsecs: Option<Duration>,
    /// Whether standard input is a pipe.
    pub has_input: bool,
    /// Whether the process cannot gain privileges from the programs that it executes.
    pub no_new_privs: bool,
    /// The directory for the cgroups of its processes. `None` if it has no cgroups.
    pub cgroup: Option<CgroupDir>,
    /// What becomes of the process when the taskmaster is killed.
    pub lifetime: Lifetime,
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
}

impl Beyond {
    /// Reads these keys for the program `name` in `group`.
    pub fn read(keys: &mut Keys<'_>, group: &str, name: &str) -> Beyond {
        let readiness = keys.optional("readiness", readiness);
        // A mistake in `readiness` is reported once and not again for `watchdogsecs`.
        let may_watch = matches!(readiness, Some(Readiness::Notify)) || readiness.is_none() && keys.has("readiness");
        let beyond = Beyond {
            readiness: readiness.unwrap_or(Readiness::Grace),
            readysecs: keys.optional("readysecs", ready_seconds).unwrap_or(READY_SECONDS),
            watchdogsecs: keys
                .optional("watchdogsecs", |text| watchdog(text, may_watch))
                .unwrap_or_default(),
            has_input: keys.optional("stdin", input).unwrap_or(false),
            no_new_privs: keys.optional("no_new_privs", values::boolean).unwrap_or(false),
            cgroup: cgroup(keys, &names::shown(group, name)),
            lifetime: keys.optional("lifetime", lifetime).unwrap_or_default(),
        };
        if beyond.readiness == Readiness::Grace && keys.has("readysecs") {
            keys.note("readysecs", "has no effect without readiness=notify or readiness=fd:N");
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
        (_, Some(Ok(number))) if READY_FDS.contains(&number) => Ok(Readiness::Fd(number)),
        (_, Some(_)) => Err(format!(
            "expected a descriptor from {} to {}",
            READY_FDS.start(),
            READY_FDS.end()
        )),
        (_, None) => Err("expected grace, notify or fd:N".to_owned()),
    }
}

/// Parses a time. A negative time is a mistake, because supervisord's rule does not apply to these keys.
fn seconds(text: &str) -> Result<Duration, String> {
    values::count(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Parses `readysecs`. With 0 no program could become ready.
fn ready_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be at least 1".to_owned()),
        time => Ok(time),
    }
}

fn watchdog(text: &str, may_watch: bool) -> Result<Option<Duration>, String> {
    match seconds(text)? {
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
