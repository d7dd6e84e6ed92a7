//! The checks at the end of every test: nothing is left, and the process is in the same state as before.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{MARKER, places, processes, wait};

/// The prefix of each line that reports a finding.
pub const FOUND: &str = "the oracle found: ";

/// The time that a thread after its join, and a process after its kill, may take to disappear from /proc.
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

/// The state of the process at the start of the test.
#[derive(Debug)]
#[must_use = "only `end` makes the checks"]
pub struct Oracle {
    before: BTreeMap<String, String>,
    /// The names of facts that are not compared.
    may_change: BTreeSet<String>,
}

impl Oracle {
    pub fn begin() -> Oracle {
        Oracle {
            before: snapshot(),
            may_change: BTreeSet::new(),
        }
    }

    /// The same in a program that the test's process executed in the place of the one before. The descriptors and the
    /// pending signals that this program got from the other are for the test to use up.
    pub fn begin_after_exec() -> Oracle {
        let before = snapshot();
        let is_inherited = |name: &&String| {
            let number = name.strip_prefix("descriptor ").and_then(|number| number.parse().ok());
            number.is_some_and(|number: u32| number > 2)
        };
        let inherited = before.keys().filter(is_inherited).cloned();
        Oracle {
            may_change: inherited.chain(["ShdPnd".to_owned()]).collect(),
            before,
        }
    }

    /// Panics with all findings.
    pub fn end(self) {
        let findings = self.findings();
        assert!(findings.is_empty(), "{FOUND}{}", findings.join(&format!("\n{FOUND}")));
    }

    /// All findings, one on each line.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = children_left();
        findings.extend(marked_left());
        findings.extend(
            places::cgroups_left(&places::cgroups_of(std::process::id()))
                .iter()
                .map(|path| format!("a cgroup is left: {}", path.display())),
        );
        findings.extend(self.changes());
        findings
    }

    /// The findings about this process itself, without other processes and cgroups.
    pub fn own_findings(&self) -> Vec<String> {
        let mut findings = children_left();
        findings.extend(self.changes());
        findings
    }

    /// The differences to the state at the start. A joined thread stays in /proc for a moment, and until it is gone a
    /// signal to the process may wait for it. So differences in these two are read again until they disappear.
    fn changes(&self) -> Vec<String> {
        let end = Instant::now() + SETTLE * wait::patience();
        loop {
            let changes = differences(&self.before, &snapshot(), &self.may_change);
            let may_settle = |change: &String| change.starts_with("Threads") || change.starts_with("ShdPnd");
            if changes.is_empty() || !changes.iter().all(may_settle) || Instant::now() > end {
                return changes;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Reports every child, alive or zombie. At the end of a test the kernel must know no child of this process.
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
        findings.push("a child is left, but /proc does not show it".to_owned());
    }
    findings
}

/// Reports processes of this test that are no children of this process. Each process gets some time to end: no parent
/// in the test waits for an orphan that a test has killed.
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

/// All facts about this process that a test must not change, by name.
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
    // SAFETY: the calls only return numbers. (rustix's functions cannot return 0, which the kernel returns for a
    // session or a group outside of the PID namespace.)
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

/// The file behind each descriptor, and the registrations of each epoll instance.
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

fn differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    except: &BTreeSet<String>,
) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let names: BTreeSet<&String> = names.filter(|&name| !except.contains(name)).collect();
    let changed = names.into_iter().filter(|&name| before.get(name) != after.get(name));
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("{value:?}"));
    changed
        .map(|name| format!("{name} was {}, is {}", shown(before.get(name)), shown(after.get(name))))
        .collect()
}
