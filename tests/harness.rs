//! The harness catches what it is there to catch: each fault planted once, in a process whose
//! failure is asserted.

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

/// Plants a fault in an isolated process; the oracle must say just this about it.
fn planted(expected: &str, fault: impl FnOnce()) {
    let failure = outcome(fault).expect_err("the fault was not found");
    let found: Vec<&str> = failure
        .output
        .lines()
        .filter_map(|line| line.strip_prefix(FOUND))
        .collect();
    assert_eq!(found.len(), 1, "one fault, one finding: {failure}");
    assert!(
        found[0].starts_with(expected),
        "{expected:?} is not what was found: {failure}"
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
fn a_descendant_that_is_nobodys_child_is_found() {
    planted("a descendant is left: pid ", || {
        let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    });
}

#[test]
fn whatever_a_test_leaves_is_killed_by_the_harness() {
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
fn a_descriptor_is_found() {
    planted("descriptor ", || mem::forget(FdSet::new()));
}

#[test]
fn a_registration_is_found() {
    // The epoll and the pipe are there before and after; what one has of the other is not.
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
fn a_mask_is_found() {
    planted("SigBlk was ", || {
        mem::forget(MaskGuard::block(SignalSet::EMPTY.with(Signal::USR1)))
    });
}

#[test]
fn a_disposition_is_found() {
    planted("SigIgn was ", || {
        // SAFETY: ignoring a signal installs no function of ours.
        unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    });
}

#[test]
fn a_umask_is_found() {
    planted("Umask was ", || {
        rustix::process::umask(Mode::from_raw_mode(0o123));
    });
}

#[test]
fn a_thread_is_found() {
    planted("Threads was ", || drop(thread::spawn(thread::park)));
}

#[test]
fn a_cleared_dumpable_flag_is_found() {
    planted("dumpable was ", || {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    });
}

#[test]
fn a_working_directory_is_found() {
    planted("cwd was ", || std::env::set_current_dir("/proc").unwrap());
}

#[test]
fn a_limit_is_found() {
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
fn a_cgroup_is_found() {
    if !common::root_or_skip("makes a cgroup") {
        return;
    }
    let left = outcome(|| mem::forget(common::test_cgroup()));
    let Err(failure) = left else { return };
    let found = failure.output.lines().filter_map(|line| line.strip_prefix(FOUND));
    let path = found
        .filter_map(|found| found.strip_prefix("a cgroup is left: "))
        .next();
    let path = Path::new(path.expect("the finding"));
    assert!(!path.exists(), "the harness removes what it has found");
}

#[test]
fn a_hang_is_ended_by_the_watchdog_which_says_what_hung() {
    let outcome = Isolation::new().limit(Duration::from_millis(500)).outcome(|| {
        drop(sleeper().spawn());
        loop {
            thread::park();
        }
    });
    let failure = outcome.expect_err("it can't have ended");
    assert!(
        failure
            .how
            .starts_with("the watchdog killed it, still running after 500ms"),
        "{failure}"
    );
    assert!(failure.how.contains("sleep 1000"), "{failure}");
    assert!(failure.how.contains("a_hang_is_ended"), "{failure}");
}

#[test]
fn a_failed_assertion_is_a_failure_with_its_words() {
    let failure = outcome(|| panic!("these very words")).expect_err("it panicked");
    assert!(failure.output.contains("these very words"), "{failure}");
    assert!(failure.how.contains("exit status: 101"), "{failure}");
}

#[test]
fn a_test_that_leaves_early_is_a_failure() {
    let failure = outcome(|| std::process::exit(0)).expect_err("it never came to its end");
    assert!(failure.how.contains("never came to the end"), "{failure}");
}

#[test]
fn what_is_skipped_is_said() {
    let output = outcome(|| common::skipped("nothing; such a line gets through")).unwrap();
    let said: Vec<&str> = common::skips(&output).collect();
    assert_eq!(
        said,
        ["SKIPPED: what_is_skipped_is_said: nothing; such a line gets through"]
    );
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
fn a_file_is_waited_for_without_sleeping() {
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
