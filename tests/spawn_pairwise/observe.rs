//! Reads the state of a process from /proc, as facts by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::common::{SOON, elf, wait_until};

pub type Facts = BTreeMap<String, String>;

/// The lines of proc_pid_status(5) that are compared literally.
const STATUS: &[&str] = &[
    "Umask",
    "PPid",
    "Uid",
    "Gid",
    "Groups",
    "Threads",
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
    "Cpus_allowed_list",
];

/// The indexes of fields in proc_pid_stat(5), counted from the first one after the name.
const STAT: &[(&str, usize)] = &[
    ("group", 2),
    ("session", 3),
    ("terminal", 4),
    ("foreground", 5),
    ("nice", 16),
    ("policy", 38),
];

/// All facts about the calling process that its children may inherit.
pub fn host() -> Facts {
    facts("/proc/self")
}

/// The facts about the calling thread and its process that a spawn must not change.
pub fn thread() -> Facts {
    let mut facts = status("/proc/thread-self");
    facts.extend(
        descriptors("/proc/self")
            .into_iter()
            .map(|(number, what)| (format!("descriptor {number}"), what)),
    );
    facts
}

/// All facts about a child that runs [`elf::WAITING`], read once the program runs.
pub fn child(pid: u32) -> Facts {
    let death_signal = wait_for_report(pid);
    let mut facts = facts(&format!("/proc/{pid}"));
    facts.insert("parent's death".into(), death_signal.to_string());
    // A value that equals the child's pid differs for each child, so it is replaced by a word.
    for (name, _) in STAT {
        let value = facts.get_mut(*name).unwrap();
        if *value == pid.to_string() {
            "self".clone_into(value);
        }
    }
    facts
}

/// Whether the network namespace of a process is that of the host.
pub fn network_namespace(pid: &str) -> String {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    let is_new = of(pid) != of("self");
    (if is_new { "a new one" } else { "the host's" }).to_owned()
}

/// The I/O priority of a process (ioprio_get(2)).
pub fn io_priority(pid: u32) -> String {
    const IOPRIO_WHO_PROCESS: u32 = 1;
    // SAFETY: the call takes only numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid) }.to_string()
}

/// Waits until the program runs, which it reports in its own memory, and returns its parent-death signal. The wait pauses
/// between two looks. Otherwise a child with the lowest priority gets no time on a machine with one processor.
fn wait_for_report(pid: u32) -> u32 {
    let mut death_signal = None;
    wait_until(&format!("the program of {pid} reports that it runs"), SOON, || {
        // The parent continues as soon as the child has left the old memory, possibly before the child has the new
        // memory. An open file keeps the memory of the time of its opening, so each read opens the file again.
        let memory = File::open(format!("/proc/{pid}/mem")).expect("cannot open the child's memory");
        let mut report = [0; 8];
        // The new memory is empty at first; then the read fails with EIO.
        let _not_yet = memory.read_exact_at(&mut report, elf::REPORT);
        let [running, signal] = [0, 4].map(|at| u32::from_ne_bytes(report[at..at + 4].try_into().unwrap()));
        death_signal = (running == 1).then_some(signal);
        death_signal.is_some()
    });
    death_signal.unwrap()
}

fn facts(directory: &str) -> Facts {
    let read = |name: &str| fs::read_to_string(format!("{directory}/{name}")).unwrap();
    let link = |name: &str| fs::read_link(format!("{directory}/{name}")).unwrap();
    let mut facts = status(directory);
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    facts.extend(STAT.iter().map(|&(name, at)| (name.into(), fields[at].into())));
    for line in read("limits").lines().skip(1) {
        let (name, values) = line.split_at(26);
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        facts.insert(format!("limit {}", name.trim()), values.join(" "));
    }
    for name in ["cwd", "root", "exe"] {
        facts.insert(name.into(), link(name).display().to_string());
    }
    for name in ["oom_score_adj", "cgroup"] {
        facts.insert(name.into(), read(name).trim().into());
    }
    facts.insert("argv".into(), read("cmdline"));
    facts.insert("environment".into(), sorted(read("environ").split_terminator('\0')));
    for (number, what) in descriptors(directory) {
        facts.insert(format!("descriptor {number}"), what);
    }
    facts
}

fn status(directory: &str) -> Facts {
    let text = fs::read_to_string(format!("{directory}/status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let watched = lines.filter(|(name, _)| STATUS.contains(name));
    watched
        .map(|(name, value)| (name.into(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// The entries of an environment in sorted order, because their order does not matter.
pub fn sorted<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    let mut entries: Vec<&str> = entries.collect();
    entries.sort_unstable();
    format!("{entries:?}")
}

/// Every open descriptor, with its file and its flags in octal, except the one that lists the directory.
pub fn descriptors(directory: &str) -> BTreeMap<u32, String> {
    let list = fs::read_dir(format!("{directory}/fd")).unwrap();
    let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let seen = names.filter_map(|name| {
        let target = fs::read_link(format!("{directory}/fd/{name}")).ok()?;
        let info = fs::read_to_string(format!("{directory}/fdinfo/{name}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some((
            name.parse().unwrap(),
            described(&target.display().to_string(), flags.trim()),
        ))
    });
    seen.collect()
}

/// The text by which [`descriptors`] describes a descriptor.
pub fn described(target: &str, flags: &str) -> String {
    format!("{target} {}", flags.trim_start_matches('0'))
}
