//! The settings, their values, and a command with a combination of them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pidherd::signal::{Signal, SignalSet};
use pidherd::{Capabilities, Command, IoPriority, Namespace, OpenFile, Pipe, Resource, Scheduling, Stdio};

use crate::host::{Host, Terminal};
use crate::pairs::{Combination, Parameter, Space};

/// All settings. The value "none" leaves a setting unchanged.
pub const SPACE: Space = Space {
    parameters: PARAMETERS,
    excluded: |first, second| {
        matches!(
            (first, second),
            (("stdout", "stderr"), ("stderr", "stdout"))
                | (("session", "new" | "terminal" | "foreground"), ("group", "another"))
                | (
                    ("bounding", "some"),
                    ("inheritable", "the host's") | ("ambient", "with SETUID")
                )
                | (("bounding", "empty"), ("inheritable" | "ambient", "some"))
                | (
                    ("bounding", "empty"),
                    ("inheritable", "the host's") | ("ambient", "with SETUID")
                )
        )
    },
    // Moving a process into a cgroup is slow, because the kernel waits for an RCU grace period.
    slow: ("cgroup", "own"),
};

const PARAMETERS: &[Parameter] = &[
    (
        "started by",
        &["its command", "a spawner", "a spawner again", "a spawner in flight"],
    ),
    ("program", &["absolute", "in PATH", "relative"]),
    ("arg0", &["none", "other"]),
    ("args", &["none", "three"]),
    ("environment", &["none", "changed", "only", "empty"]),
    ("stdin", &["none", "null", "piped", "file", "given", "given high"]),
    (
        "stdout",
        &["none", "null", "piped", "append", "truncate", "given high", "stderr"],
    ),
    ("stderr", &["none", "null", "piped", "append", "stdout", "given"]),
    (
        "passed",
        &[
            "none",
            "one",
            "pipe",
            "pipes",
            "inherited",
            "many",
            "high",
            "own number",
            "swapped",
        ],
    ),
    ("listen", &["none", "one", "two"]),
    ("session", &["none", "new", "the host's", "terminal", "foreground"]),
    ("group", &["none", "own", "another"]),
    ("uid", &["none", "12345", "0", "nobody"]),
    ("gid", &["none", "23456"]),
    ("groups", &["none", "empty", "three", "added"]),
    ("no_new_privs", &["none", "yes", "no"]),
    ("bounding", &["none", "some", "empty"]),
    ("inheritable", &["none", "some", "the host's"]),
    ("ambient", &["none", "some", "with SETUID"]),
    ("signal mask", &["none", "some", "all"]),
    ("ignored signals", &["none", "some", "all"]),
    ("umask", &["none", "027", "777"]),
    ("nice", &["none", "7", "-3"]),
    ("scheduling", &["none", "batch", "idle"]),
    ("I/O priority", &["none", "best effort", "idle"]),
    ("affinity", &["none", "first", "last"]),
    ("namespaces", &["none", "new", "given"]),
    ("oom score", &["none", "321", "1000"]),
    ("limits", &["none", "few files", "all"]),
    ("chroot", &["none", "yes"]),
    ("directory", &["none", "absolute", "relative"]),
    ("parent's death", &["none", "USR1", "KILL"]),
    ("cgroup", &["none", "own"]),
];

/// Panics: the table contains a value that the code does not handle.
pub fn unknown(value: &str) -> ! {
    panic!("the code does not handle the value: {value:?}")
}

pub fn capabilities(value: &str) -> Capabilities {
    match value {
        "none" | "empty" => Capabilities::empty(),
        "some" => Capabilities::NET_BIND_SERVICE | Capabilities::KILL,
        "the host's" => Capabilities::KILL | Capabilities::NET_RAW,
        "with SETUID" => Capabilities::SETUID | Capabilities::CHOWN,
        other => unknown(other),
    }
}

pub fn signals(value: &str) -> SignalSet {
    match value {
        "none" => SignalSet::EMPTY,
        "some" => SignalSet::EMPTY.with(Signal::TERM).with(Signal::PIPE),
        "all" => SignalSet::ALL,
        other => unknown(other),
    }
}

/// The limits to set, with their name in /proc, the soft and the hard value. No value exceeds the host's hard
/// limit.
pub fn limits(value: &str, host: &Host) -> Vec<(Resource, &'static str, u64, u64)> {
    let all = [
        (Resource::OpenFiles, "Max open files", 40, 64),
        (Resource::Cpu, "Max cpu time", 100, 200),
        (Resource::FileSize, "Max file size", 1 << 30, 1 << 31),
        (Resource::Data, "Max data size", 1 << 24, 1 << 25),
        (Resource::Stack, "Max stack size", 1 << 20, 1 << 23),
        (Resource::Core, "Max core file size", 0, Resource::UNLIMITED),
        (Resource::Processes, "Max processes", 5000, 6000),
        (Resource::LockedMemory, "Max locked memory", 4096, 65536),
        (Resource::AddressSpace, "Max address space", 1 << 28, 1 << 33),
        (Resource::PendingSignals, "Max pending signals", 100, 200),
        (Resource::MessageQueues, "Max msgqueue size", 4096, 8192),
        (Resource::Nice, "Max nice priority", 25, 30),
        (Resource::RealtimePriority, "Max realtime priority", 7, 9),
        (Resource::RealtimeTime, "Max realtime timeout", 1_000_000, 2_000_000),
    ];
    let taken = match value {
        "none" => 0,
        "few files" => 1,
        "all" => all.len(),
        other => unknown(other),
    };
    let below = |(resource, name, soft, hard): (Resource, &'static str, u64, u64)| {
        let most = host.hard_limit(name);
        (resource, name, soft.min(most), hard.min(most))
    };
    all.into_iter().take(taken).map(below).collect()
}

/// The program's name in the command.
pub fn program(combination: &Combination, host: &Host) -> String {
    match combination.get("program") {
        "absolute" => format!("{}/probe", base(combination, host)),
        "in PATH" => "probe".to_owned(),
        "relative" => "./probe".to_owned(),
        other => unknown(other),
    }
}

/// The value of PATH with which the program is found.
pub fn search_path(combination: &Combination, host: &Host) -> String {
    format!("/no/such:{}/", base(combination, host))
}

/// The host's directory as a path in the child.
pub fn base<'a>(combination: &Combination, host: &'a Host) -> &'a str {
    match combination.get("chroot") {
        "none" => host.directory(),
        _ => "",
    }
}

/// A command with all settings of the combination.
pub fn command(combination: &Combination, host: &Host, terminal: &Terminal) -> Command {
    let get = |name| combination.get(name);
    let mut command = image(Command::new(program(combination, host)), combination, host);
    command = streams(command, combination, host);
    command = passed(command, get("passed"), host);
    command = identity(command, combination);
    command = places(command, combination, host);
    command = scheduling(command, combination, host);
    command = session(command, combination, host, terminal);
    for n in 0..match get("listen") {
        "none" => 0,
        "one" => 1,
        "two" => 2,
        other => unknown(other),
    } {
        command = command.listen_fd(Arc::clone(&host.sockets[n]));
    }
    command = match get("parent's death") {
        "none" => command,
        "USR1" => command.parent_death_signal(Signal::USR1),
        "KILL" => command.parent_death_signal(Signal::KILL),
        other => unknown(other),
    };
    match get("cgroup") {
        "none" => command,
        _ => command.cgroup(Arc::clone(&host.cgroup().directory)),
    }
}

fn image(mut command: Command, combination: &Combination, host: &Host) -> Command {
    command = match combination.get("environment") {
        "none" => command,
        "changed" => command
            .env("PIDHERD_A", "1")
            .env("PIDHERD_A", "2=3")
            .env_remove("PATH")
            .env("PIDHERD_EMPTY", ""),
        "only" => command
            .env("LOST", "x")
            .env_clear()
            .envs([("B", "x"), ("LISTEN_PID", "1")]),
        "empty" => command.env_clear(),
        other => unknown(other),
    };
    if combination.get("program") == "in PATH" {
        command = command.env("PATH", search_path(combination, host));
    }
    if combination.get("arg0") != "none" {
        command = command.arg0("other");
    }
    match combination.get("args") {
        "none" => command,
        _ => command.arg("a b").args(["", "ä"]),
    }
}

fn streams(command: Command, combination: &Combination, host: &Host) -> Command {
    let stream = |name| match combination.get(name) {
        "none" => None,
        "null" => Some(Stdio::null()),
        "piped" => Some(Stdio::piped()),
        "file" => Some(Stdio::read(&host.file)),
        "append" => Some(OpenFile::append(&host.file).mode(0o600).into()),
        "truncate" => Some(Stdio::truncate(&host.file)),
        "stdout" => Some(Stdio::stdout()),
        "stderr" => Some(Stdio::stderr()),
        "given" => Some(Arc::clone(&host.low).into()),
        "given high" => Some(Arc::clone(&host.high).into()),
        other => unknown(other),
    };
    let command = stream("stdin").into_iter().fold(command, Command::stdin);
    let command = stream("stdout").into_iter().fold(command, Command::stdout);
    stream("stderr").into_iter().fold(command, Command::stderr)
}

/// Sets the passed descriptors. The numbers 3 and 4 are left free for sockets, and [`Terminal::TARGET`] for
/// the terminal.
fn passed(command: Command, value: &str, host: &Host) -> Command {
    let same = |fd: &Arc<OwnedFd>| Arc::clone(fd);
    match value {
        "none" => command,
        "one" => command.fd(5, same(&host.high)),
        "pipe" => command.fd(9, Stdio::piped()),
        "pipes" => command
            .fd(10, Pipe::new().nonblocking(true))
            .fd(6, Stdio::piped())
            .fd(9, Pipe::new().to_child()),
        "inherited" => command.fd(host.leaked.as_raw_fd(), Stdio::inherit()),
        "many" => command
            .fd(10, Stdio::append(&host.file))
            .fd(5, same(&host.high))
            .fd(6, same(&host.low))
            .fd(7, Stdio::null())
            .fd(8, Stdio::stdout())
            .fd(12, same(&host.high)),
        "high" => command.fd(70, same(&host.low)),
        "own number" => command.fd(host.low.as_raw_fd(), same(&host.low)),
        "swapped" => command
            .fd(host.low.as_raw_fd(), same(&host.other_low))
            .fd(host.other_low.as_raw_fd(), same(&host.low)),
        other => unknown(other),
    }
}

fn identity(mut command: Command, combination: &Combination) -> Command {
    command = match combination.get("uid") {
        "none" => command,
        "nobody" => command.user("nobody"),
        number => command.uid(number.parse().unwrap()),
    };
    command = match combination.get("gid") {
        "none" => command,
        number => command.gid(number.parse().unwrap()),
    };
    command = match combination.get("groups") {
        "none" => command,
        "empty" => command.groups(&[]),
        "added" => command.add_groups(&[23456, 8]),
        _ => command.groups(&[23456, 8, 7]),
    };
    command = match combination.get("no_new_privs") {
        "none" => command,
        value => command.no_new_privileges(value == "yes"),
    };
    command = match combination.get("bounding") {
        "none" => command,
        value => command.bounding_capabilities(capabilities(value)),
    };
    command
        .inheritable_capabilities(capabilities(combination.get("inheritable")))
        .ambient_capabilities(capabilities(combination.get("ambient")))
}

fn places(mut command: Command, combination: &Combination, host: &Host) -> Command {
    if combination.get("chroot") != "none" {
        command = command.chroot(host.directory());
    }
    match combination.get("directory") {
        "none" => command,
        "relative" => command.current_dir("inside"),
        _ => command.current_dir(format!("{}/inside", base(combination, host))),
    }
}

fn scheduling(mut command: Command, combination: &Combination, host: &Host) -> Command {
    let number = |name| Some(combination.get(name)).filter(|&value| value != "none");
    if let Some(mask) = number("umask") {
        command = command.umask(u32::from_str_radix(mask, 8).unwrap());
    }
    if let Some(nice) = number("nice") {
        command = command.nice(nice.parse().unwrap());
    }
    command = match combination.get("scheduling") {
        "none" => command,
        "batch" => command.scheduling(Scheduling::Batch),
        _ => command.scheduling(Scheduling::Idle),
    };
    command = match combination.get("I/O priority") {
        "none" => command,
        "idle" => command.io_priority(IoPriority::Idle),
        _ => command.io_priority(IoPriority::BestEffort(6)),
    };
    for kind in [Namespace::Pid, Namespace::Network, Namespace::Uts] {
        command = match combination.get("namespaces") {
            "none" => command,
            "new" if kind == Namespace::Pid => command,
            "new" => command.unshare(kind),
            _ => command.setns(kind, Host::namespace(kind)),
        };
    }
    if let Some(score) = number("oom score") {
        command = command.oom_score_adj(score.parse().unwrap());
    }
    if let Some(which) = number("affinity") {
        command = command.cpu_affinity(&[host.cpu(which)]);
    }
    for (resource, _, soft, hard) in limits(combination.get("limits"), host) {
        command = command.limit(resource, soft, hard);
    }
    command
        .signal_mask(signals(combination.get("signal mask")))
        .ignored_signals(signals(combination.get("ignored signals")))
}

fn session(mut command: Command, combination: &Combination, host: &Host, terminal: &Terminal) -> Command {
    command = match combination.get("group") {
        "none" => command,
        "own" => command.process_group(0),
        "another" => command.process_group(host.other_group()),
        other => unknown(other),
    };
    let on_terminal = |command: Command| command.fd(Terminal::TARGET, Arc::clone(&terminal.slave));
    match combination.get("session") {
        "none" => command,
        "new" => command.setsid(true),
        "the host's" => command.setsid(false),
        "terminal" => on_terminal(command).controlling_terminal(Terminal::TARGET),
        "foreground" => on_terminal(command)
            .controlling_terminal(Terminal::TARGET)
            .foreground(Terminal::TARGET),
        other => unknown(other),
    }
}
