//! What every test checks when it ends: nothing is left, and the process is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{MARKER, places, processes, wait};

/// What each line begins with that tells of a finding.
pub const FOUND: &str = "the oracle found: ";

/// How long what ends on its own time may take: a thread after its join, a process after its kill.
const SETTLE: Duration = Duration::from_secs(2);

/// The lines of /proc/thread-self/status that must not change.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
    "Threads",
];

/// The process as it was when the test began.
#[derive(Debug)]
#[must_use = "the checks are made by `end`"]
pub struct Oracle {
    before: BTreeMap<String, String>,
}

impl Oracle {
    pub fn begin() -> Oracle {
        Oracle { before: snapshot() }
    }

    /// Panics with all that is not as it should be.
    pub fn end(self) {
        let findings = self.findings();
        assert!(findings.is_empty(), "{FOUND}{}", findings.join(&format!("\n{FOUND}")));
    }

    /// All that is not as it should be, a line each.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = children_left();
        findings.extend(marked_left());
        findings.extend(
            places::cgroups_left(std::process::id())
                .iter()
                .map(|path| format!("a cgroup is left: {}", path.display())),
        );
        findings.extend(self.changes());
        findings
    }

    /// A thread that was joined is still listed for a moment: so look until nothing has changed.
    fn changes(&self) -> Vec<String> {
        let end = Instant::now() + SETTLE;
        loop {
            let changes = differences(&self.before, &snapshot());
            let only_threads = changes.iter().all(|change| change.starts_with("Threads"));
            if changes.is_empty() || !only_threads || Instant::now() > end {
                return changes;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Any child, alive or dead: at the end the kernel must know of none.
fn children_left() -> Vec<String> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::All, options).is_err_and(|errno| errno == Errno::CHILD) {
        return Vec::new();
    }
    let mut findings: Vec<String> = processes::children()
        .into_iter()
        .map(|pid| match processes::state(pid) {
            Some('Z') => format!("a zombie is left: {}", processes::describe(pid)),
            _ => format!("a child is left: {}", processes::describe(pid)),
        })
        .collect();
    if findings.is_empty() {
        findings.push("a child is left that /proc does not show".to_owned());
    }
    findings
}

/// Processes of this test that are nobody's child any more. They may be about to end: whoever was
/// killed as a stranger's child is waited for by nobody here.
fn marked_left() -> Vec<String> {
    let Ok(marker) = env::var(MARKER) else {
        return Vec::new();
    };
    let children = processes::children();
    let orphans = processes::marked(&marker)
        .into_iter()
        .filter(|pid| !children.contains(pid));
    orphans
        .filter(|&pid| !wait::wait_gone(pid, SETTLE))
        .map(|pid| format!("a descendant is left: {}", processes::describe(pid)))
        .collect()
}

/// Everything about this process that a test must leave alone, by name.
fn snapshot() -> BTreeMap<String, String> {
    let mut facts = status_facts();
    facts.extend(descriptor_facts());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    for line in read("/proc/self/limits").lines().skip(1) {
        let (name, value) = line.split_at(line.len().min(26));
        facts.insert(format!("limit {}", name.trim_end()), value.to_owned());
    }
    let cwd = env::current_dir().map(|path| path.display().to_string());
    facts.insert("cwd".into(), cwd.unwrap_or_default());
    facts.insert("oom_score_adj".into(), read("/proc/self/oom_score_adj"));
    facts.insert("dumpable".into(), format!("{:?}", rustix::process::dumpable_behavior()));
    facts.insert("subreaper".into(), format!("{:?}", rustix::process::child_subreaper()));
    facts.insert(
        "nice".into(),
        format!("{:?}", rustix::process::getpriority_process(None)),
    );
    // SAFETY: these only tell. (Not rustix's: zero, for one outside of the PID namespace, is none to it.)
    let (session, group) = unsafe { (libc::getsid(0), libc::getpgrp()) };
    facts.insert("session".into(), session.to_string());
    facts.insert("process group".into(), group.to_string());
    facts
}

fn status_facts() -> BTreeMap<String, String> {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    let watched = fields.filter(|(name, _)| STATUS.contains(name));
    watched
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// What each descriptor stands for, and what each epoll has registered.
fn descriptor_facts() -> BTreeMap<String, String> {
    let own_listing = format!("/proc/{}/fd", std::process::id());
    let mut facts = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let number = entry.file_name().to_string_lossy().into_owned();
        if target.as_os_str() == own_listing.as_str() {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let registered: BTreeSet<&str> = info.lines().filter(|line| line.starts_with("tfd:")).collect();
        facts.insert(
            format!("descriptor {number}"),
            format!("{} {registered:?}", target.display()),
        );
    }
    facts
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|&name| before.get(name) != after.get(name));
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("{value:?}"));
    changed
        .map(|name| format!("{name} was {}, is {}", shown(before.get(name)), shown(after.get(name))))
        .collect()
}
