//! Tests of the test harness itself. Each fault that the harness must detect is planted in a process of its
//! own, and the test asserts that the process fails.

mod common;

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::oracle::FOUND;
use common::{Failure, Isolation, SOON, isolated, processes};
use pidherd::fdset::{FdSet, Interest};
use pidherd::signal::{Signal, SignalSet};
use pidherd::signalfd::{MaskGuard, SignalFd};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

fn outcome(body: impl FnOnce()) -> Result<String, Failure> {
    Isolation::new().outcome(body)
}

/// Plants a fault in an isolated process. The oracle must report exactly one finding that starts with
/// `expected`.
fn planted(expected: &str, fault: impl FnOnce()) {
    let failure = outcome(fault).expect_err("the oracle did not find the fault");
    let found: Vec<&str> = failure
        .output
        .lines()
        .filter_map(|line| line.strip_prefix(FOUND))
        .collect();
    assert_eq!(found.len(), 1, "one fault must give one finding: {failure}");
    assert!(
        found[0].starts_with(expected),
        "the finding does not start with {expected:?}: {failure}"
    );
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command
        .arg("1000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_clean_test_passes() {
    isolated(|| {
        let _mask = MaskGuard::block(SignalSet::ALL).unwrap();
        let mut child = sleeper().spawn().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        thread::spawn(|| drop(FdSet::new())).join().unwrap();
    });
}

#[test]
fn a_zombie_is_found() {
    planted("a zombie is left: pid ", || {
        let pid = Command::new("true").spawn().unwrap().id();
        assert!(common::wait_gone(pid, SOON));
    });
}

#[test]
fn a_living_child_is_found() {
    planted("a child is left: pid ", || drop(sleeper().spawn()));
}

#[test]
fn an_orphaned_descendant_is_found() {
    planted("a descendant is left: pid ", || {
        let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    });
}

#[test]
fn the_harness_kills_every_process_that_a_test_leaves() {
    let failure = outcome(|| {
        println!("\nleft behind: {}", sleeper().spawn().unwrap().id());
    });
    let output = failure.expect_err("a child is left").output;
    let pid = output
        .lines()
        .find_map(|line| line.strip_prefix("left behind: "))
        .unwrap();
    assert!(matches!(processes::state(pid.parse().unwrap()), None | Some('Z')));
}

#[test]
fn an_open_descriptor_is_found() {
    planted("descriptor ", || mem::forget(FdSet::new()));
}

#[test]
fn an_epoll_registration_is_found() {
    // The epoll instance and the pipe are open before and after. Only the registration is new.
    isolated(|| {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let mut set = FdSet::new().unwrap();
        let oracle = common::Oracle::begin();
        set.add(reader.as_fd(), Interest::READ).unwrap();
        let findings = oracle.findings();
        assert!(findings.len() == 1 && findings[0].contains("tfd:"), "{findings:?}");
    });
}

#[test]
fn a_changed_signal_mask_is_found() {
    planted("SigBlk was ", || {
        mem::forget(MaskGuard::block(SignalSet::EMPTY.with(Signal::USR1)))
    });
}

#[test]
fn a_changed_disposition_is_found() {
    planted("SigIgn was ", || {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    });
}

#[test]
fn a_changed_umask_is_found() {
    planted("Umask was ", || {
        rustix::process::umask(Mode::from_raw_mode(0o123));
    });
}

#[test]
fn a_running_thread_is_found() {
    planted("Threads was ", || drop(thread::spawn(thread::park)));
}

#[test]
fn a_cleared_dumpable_flag_is_found() {
    planted("dumpable was ", || {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    });
}

#[test]
fn a_changed_working_directory_is_found() {
    planted("cwd was ", || std::env::set_current_dir("/proc").unwrap());
}

#[test]
fn a_changed_limit_is_found() {
    planted("limit Max core file size", || {
        let limits = rustix::process::getrlimit(Resource::Core);
        let other = Rlimit {
            current: Some(if limits.current == Some(0) { 1 } else { 0 }),
            ..limits
        };
        rustix::process::setrlimit(Resource::Core, other).unwrap();
    });
}

#[test]
fn a_leftover_cgroup_is_found() {
    let left = outcome(|| mem::forget(common::test_cgroup()));
    let Err(failure) = left else { return };
    let found = failure.output.lines().filter_map(|line| line.strip_prefix(FOUND));
    let path = found
        .filter_map(|found| found.strip_prefix("a cgroup is left: "))
        .next();
    let path = Path::new(path.expect("the finding"));
    assert!(!path.exists(), "the harness did not remove the cgroup");
}

#[test]
fn the_watchdog_ends_a_hanging_test_and_reports_its_processes() {
    let limit = Duration::from_millis(500);
    let outcome = Isolation::new().limit(limit).outcome(|| {
        drop(sleeper().spawn());
        loop {
            thread::park();
        }
    });
    let failure = outcome.expect_err("a hanging test did not fail");
    let limit = limit * common::patience();
    let report = format!("the watchdog killed the test, which still ran after {limit:?}");
    assert!(failure.how.starts_with(&report), "{failure}");
    assert!(failure.how.contains("sleep 1000"), "{failure}");
    assert!(failure.how.contains("the_watchdog_ends"), "{failure}");
}

#[test]
fn a_failed_assertion_is_reported_with_its_message() {
    let failure = outcome(|| panic!("the message")).expect_err("a panicking test did not fail");
    assert!(failure.output.contains("the message"), "{failure}");
    assert!(failure.how.contains("exit status: 101"), "{failure}");
}

#[test]
fn a_test_that_exits_before_its_end_fails() {
    let failure = outcome(|| std::process::exit(0)).expect_err("a test that exited early did not fail");
    assert!(failure.how.contains("ended before the end of the test"), "{failure}");
}

#[test]
fn a_skipped_test_is_reported() {
    let output = outcome(|| common::skipped("only an example")).unwrap();
    let said: Vec<&str> = common::skips(&output).collect();
    assert_eq!(said, ["SKIPPED: a_skipped_test_is_reported: only an example"]);
}

#[test]
fn signals_can_be_blocked_in_all_threads() {
    let set = SignalSet::EMPTY.with(Signal::TERM);
    Isolation::new().blocked(set).run(|| {
        let signals = SignalFd::new(set).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        assert!(common::wait_readable(&signals, SOON));
        assert_eq!(signals.read().unwrap().map(|info| info.signal), Some(Signal::TERM));
    });
}

#[test]
fn wait_for_content_returns_after_the_file_is_complete() {
    isolated(|| {
        let directory = common::tempdir();
        let path = directory.join("file");
        let written = path.clone();
        let writer = thread::spawn(move || -> io::Result<()> {
            std::fs::write(&written, "one\n")?;
            std::fs::write(&written, "one\ntwo\n")
        });
        assert_eq!(
            common::wait_for_content(&path, SOON, |text| text.contains("two")),
            "one\ntwo\n"
        );
        writer.join().unwrap().unwrap();
        let place = directory.path().to_owned();
        drop(directory);
        assert!(!place.exists());
    });
}
