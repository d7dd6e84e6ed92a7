//! The keys that supervisord does not have: when a program counts as running, when it counts as hung,
//! how to get hold of everything that it starts, and what it may not become.
//!
//! ```text
//! readiness=grace      it is RUNNING when it has lived for startsecs, as with supervisord (the default)
//! readiness=notify     when it sends READY=1 to NOTIFY_SOCKET, as systemd's services do: systemd-notify --ready
//! readiness=fd:3       when it writes a newline to this descriptor, as s6's services do
//! readysecs=60         how long that may take; then it is stopped, and the start has failed
//! watchdogsecs=0       how long it may be silent, once RUNNING, before it counts as hung and crashed;
//!                      0 for any time. It needs readiness=notify, and finds its time in WATCHDOG_USEC
//! no_new_privs=false   whether set-user-id programs and file capabilities have no effect for it (sudo, ping);
//!                      with false it is as with supervisord, which does not set this for any user
//! cgroup=DIR           a directory of cgroup v2 that is left to this taskmaster alone: each process gets a
//!                      cgroup in it, and whatever is in that is killed at the end, double fork or not
//! ```
//!
//! With `cgroup`, a process is STOPPED when its whole cgroup is empty. `stopasgroup` decides all the same
//! which processes get `stopsignal`; what has escaped both gets SIGKILL after `stopwaitsecs`.
//!
//! A directory is opened when the configuration is read, and so what is wrong with it is a mistake of
//! the configuration. Later it would not show before something has to be killed.

use std::time::Duration;

use pidherd::cgroup::CgroupDir;

use super::keys::Keys;
use super::values::{self, MOST_INSTANCES};
use crate::names;

/// How long a program may take to say that it is ready.
const READY_SECONDS: Duration = Duration::from_secs(60);

/// These keys, as [`Program`](super::Program) knows its own ones.
pub const KEYS: &[&str] = &["readiness", "readysecs", "watchdogsecs", "no_new_privs", "cgroup"];

/// What a program can have beyond what supervisord knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// When it counts as running.
    pub readiness: Readiness,
    /// How long it may take to say so.
    pub readysecs: Duration,
    /// How long it may be silent.
    pub watchdogsecs: Option<Duration>,
    /// Whether it can get no privileges from the programs that it runs.
    pub no_new_privs: bool,
    /// Where its processes get their cgroups.
    pub cgroup: Option<CgroupDir>,
}

/// When a program counts as running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// When it has lived for `startsecs`.
    Grace,
    /// When it says so to the notify socket.
    Notify,
    /// When it writes a newline to this descriptor.
    Fd(i32),
}

impl Beyond {
    /// Reads the keys of the program `name` in `group`.
    pub fn read(keys: &mut Keys<'_>, group: &str, name: &str) -> Beyond {
        let readiness = keys.optional("readiness", readiness);
        // A mistake in readiness is told by itself.
        let may_watch = matches!(readiness, Some(Readiness::Notify)) || readiness.is_none() && keys.has("readiness");
        let beyond = Beyond {
            readiness: readiness.unwrap_or(Readiness::Grace),
            readysecs: keys.optional("readysecs", ready_seconds).unwrap_or(READY_SECONDS),
            watchdogsecs: keys
                .optional("watchdogsecs", |text| watchdog(text, may_watch))
                .unwrap_or_default(),
            no_new_privs: keys.optional("no_new_privs", values::boolean).unwrap_or(false),
            cgroup: cgroup(keys, &names::shown(group, name)),
        };
        if beyond.readiness == Readiness::Grace && keys.has("readysecs") {
            keys.note("readysecs", "means nothing without readiness=notify or readiness=fd:N");
        }
        beyond
    }
}

/// The numbers a readiness descriptor may have: none of the standard streams, and within the usual limits.
const READY_FDS: std::ops::RangeInclusive<i32> = 3..=255;

/// `grace`, `notify` or `fd:N`.
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

/// These keys are not supervisord's, so a negative time is a mistake.
fn seconds(text: &str) -> Result<Duration, String> {
    values::count(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// With no time at all, no program could ever be ready.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_be_ready() {
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
}
