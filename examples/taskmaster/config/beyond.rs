//! The keys that supervisord does not have: when a program counts as running, when it counts as hung,
//! and how to get hold of everything that it starts.
//!
//! ```text
//! readiness=grace      it is RUNNING when it has lived for startsecs, as with supervisord (the default)
//! readiness=notify     when it says so to NOTIFY_SOCKET, as systemd's services do: systemd-notify --ready
//! readiness=fd:3       when it writes a newline to this descriptor, as s6's services do
//! readysecs=60         how long that may take; then it is stopped, and the start has failed
//! watchdogsecs=0       how long it may be silent, once RUNNING, before it counts as hung and crashed;
//!                      0 for any time. It needs readiness=notify, and finds its time in WATCHDOG_USEC
//! cgroup=DIR           a directory of cgroup v2 that is left to this taskmaster alone: each process gets a
//!                      cgroup in it, and whatever is in that is killed at the end, double fork or not
//! ```
//!
//! With `cgroup`, a process is STOPPED when its whole cgroup is empty. `stopsignal` goes to whom
//! `stopasgroup` says, all the same; what has escaped both sees SIGKILL after `stopwaitsecs`.
//!
//! A directory is opened when the configuration is read, and so what is wrong with it is a mistake of
//! the configuration: later nobody would hear of it before something has to be killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pidherd::cgroup::{CgroupDir, CgroupError};

use super::program::Keys;
use super::{MOST_INSTANCES, values};
use crate::names;

/// How long a program may take to say that it is ready.
const READY_SECONDS: Duration = Duration::from_secs(60);

/// These keys, as [`Program`](super::Program) knows its own ones.
pub const KEYS: &[&str] = &["readiness", "readysecs", "watchdogsecs", "cgroup"];

/// What a program can have beyond what supervisord knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// When it counts as running.
    pub readiness: Readiness,
    /// How long it may take to say so.
    pub readysecs: Duration,
    /// How long it may be silent.
    pub watchdogsecs: Option<Duration>,
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

/// Directories that were opened, or could not be: each is tried once, however many programs name it.
pub type Opened = BTreeMap<PathBuf, Result<CgroupDir, CgroupError>>;

impl Beyond {
    /// Reads the keys of the program `name` in `group`.
    pub fn read(keys: &mut Keys<'_>, group: &str, name: &str) -> Beyond {
        let readiness = keys.optional("readiness", values::readiness);
        // A mistake in readiness is told by itself.
        let may_watch = matches!(readiness, Some(Readiness::Notify)) || readiness.is_none() && keys.has("readiness");
        let beyond = Beyond {
            readiness: readiness.unwrap_or(Readiness::Grace),
            readysecs: keys.optional("readysecs", ready_seconds).unwrap_or(READY_SECONDS),
            watchdogsecs: keys
                .optional("watchdogsecs", |text| watchdog(text, may_watch))
                .unwrap_or_default(),
            cgroup: cgroup(keys, &names::shown(group, name)),
        };
        if beyond.readiness == Readiness::Grace && keys.has("readysecs") {
            keys.note("readysecs", "means nothing without readiness=notify or readiness=fd:N");
        }
        beyond
    }
}

/// With no time at all, nobody could ever be ready.
fn ready_seconds(text: &str) -> Result<Duration, String> {
    match values::seconds(text)? {
        Duration::ZERO => Err("must be at least 1".to_owned()),
        time => Ok(time),
    }
}

fn watchdog(text: &str, may_watch: bool) -> Result<Option<Duration>, String> {
    match values::seconds(text)? {
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
