//! Every way to end, and whether the record of it is exact: 256 codes and every fatal signal, expected and
//! not, with a core dump and without.

mod common;
mod host;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};

use common::{isolated, skipped, tempdir};
use host::{Host, at_once};
use pidherd::lifecycle::{Cause, ExitSet, State, StateName};
use pidherd::supervisor::End;
use pidherd::{Command, Exit, GroupSpec, InstanceId, Signal};

/// Those signals that processes bring upon themselves.
const FAULTS: &[Signal] = &[
    Signal::ILL,
    Signal::TRAP,
    Signal::ABRT,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::PIPE,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::SYS,
];

/// Runs each script once below a supervisor, and checks all that is told of its end.
fn each_ends(cases: &[(String, Exit)], directory: &Path, expected: bool) {
    let mut host = Host::new();
    for number in 0..cases.len() {
        fs::create_dir_all(directory.join(number.to_string())).unwrap();
    }
    let (scripts, place): (Vec<String>, PathBuf) =
        (cases.iter().map(|case| case.0.clone()).collect(), directory.into());
    let command = move |number: u32| {
        let script = &scripts[number as usize];
        // Each in a place of its own: of two core dumps at a time in one place one fails.
        let place = place.join(number.to_string());
        Command::new("/bin/sh").args(["-c", script]).current_dir(place)
    };
    let policy = at_once().expected(if expected { everything() } else { ExitSet::EMPTY });
    let count = cases.len().try_into().unwrap();
    let (group, ids) = host.add(GroupSpec::with("x", command).instances(count).policy(policy));
    host.start_these(group);
    host.until("all have ended", |host| {
        ids.iter().all(|&id| host.state(id) == StateName::Exited)
    });
    for ((script, exit), &id) in cases.iter().zip(&ids) {
        check(&host, id, *exit, expected, script);
    }
    host.shut_down();
}

fn everything() -> ExitSet {
    let codes = (0..=u8::MAX).fold(ExitSet::EMPTY, ExitSet::code);
    Signal::all().fold(codes, ExitSet::signal)
}

fn check(host: &Host, id: InstanceId, exit: Exit, expected: bool, script: &str) {
    let last = *host.steps(id).last().unwrap();
    assert_eq!(
        (last.from, last.to),
        (StateName::Running, StateName::Exited),
        "{script}"
    );
    assert_eq!(last.cause, Cause::Ended { exit, expected }, "{script}");
    let record = last.exit.unwrap();
    assert_eq!((record.exit, Some(record.pid)), (exit, last.pid), "{script}");
    assert!(record.usage.unwrap().max_rss > 0, "{script}");

    let status = host.status(id);
    assert_eq!(status.state, State::Exited { exit, expected }, "{script}");
    assert_eq!(status.last_exit, Some(record), "{script}");

    let runs: Vec<_> = host.supervisor.runs(id).collect();
    assert_eq!(runs.len(), 1, "{script}");
    assert_eq!((runs[0].number, runs[0].pid), (1, last.pid), "{script}");
    assert_eq!((runs[0].exit, &runs[0].end), (Some(record), &end_of(exit)), "{script}");
}

fn end_of(exit: Exit) -> End {
    match exit {
        Exit::Code(code) => End::Exited(code),
        Exit::Signal { signal, core } if core || FAULTS.contains(&signal) => End::Crashed { signal, core },
        Exit::Signal { signal, .. } => End::KilledFromOutside(signal),
        other => panic!("{other}"),
    }
}

fn codes(expected: bool) {
    isolated(|| {
        let cases: Vec<_> = (0..=u8::MAX)
            .map(|code| (format!("exit {code}"), Exit::Code(code)))
            .collect();
        each_ends(&cases, tempdir().path(), expected);
    });
}

#[test]
fn each_of_the_256_codes_expected() {
    codes(true);
}

#[test]
fn each_of_the_256_codes_unexpected() {
    codes(false);
}

/// A shell that dies of this signal, with a core dump where that is possible, or without one.
fn dies(signal: Signal, core: bool) -> String {
    let limit = if core { "unlimited" } else { "0" };
    format!("ulimit -c {limit}; kill -{} $$", signal.as_raw())
}

/// Which signals leave a core dump here, as the standard library sees it. 32 and 33 do not, and the C
/// library has its own children ignore them.
fn dumping(directory: &Path) -> BTreeMap<Signal, bool> {
    let fatal = Signal::all().filter(|signal| signal.is_fatal());
    let dumps = fatal.map(|signal| {
        if matches!(signal.as_raw(), 32 | 33) {
            return (signal, false);
        }
        let mut shell = StdCommand::new("/bin/sh");
        shell.args(["-c", &dies(signal, true)]).current_dir(directory);
        let status = shell.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()));
        (signal, status.core_dumped())
    });
    dumps.collect()
}

#[test]
fn every_fatal_signal_without_a_core() {
    isolated(|| {
        let directory = tempdir();
        let fatal = Signal::all().filter(|signal| signal.is_fatal());
        let end = |signal| Exit::Signal { signal, core: false };
        let cases: Vec<_> = fatal.map(|signal| (dies(signal, false), end(signal))).collect();
        assert_eq!(cases.len(), 56);
        each_ends(&cases, directory.path(), true);
        each_ends(&cases, directory.path(), false);
    });
}

#[test]
fn every_fatal_signal_with_a_core() {
    isolated(|| {
        let directory = tempdir();
        let dumping = dumping(directory.path());
        if !dumping.values().any(|&core| core) {
            return skipped("no core dumps here: see the hard limit and /proc/sys/kernel/core_pattern");
        }
        for signal in [Signal::SEGV, Signal::ABRT, Signal::QUIT] {
            assert!(dumping[&signal], "signal(7)");
        }
        let end = |(&signal, &core)| (dies(signal, true), Exit::Signal { signal, core });
        let cases: Vec<_> = dumping.iter().map(end).collect();
        each_ends(&cases, directory.path(), true);
        each_ends(&cases, directory.path(), false);
    });
}
