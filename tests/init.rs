//! The init example as a container has it: PID 1 of a PID namespace.

mod common;
#[path = "common/example.rs"]
mod example;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{SOON, isolated, processes, root_or_skip, skipped, tempdir, wait_gone};
use pidherd::{Signal, SignalSet};

/// How many namespaces there are at a time: most of their life is waiting for the kernel.
const AT_A_TIME: usize = 12;

/// Runs a test with the example's binary, where namespaces can be made.
fn in_namespaces(body: impl FnOnce(&Path)) {
    if std::env::var_os(common::MARKER).is_none() {
        // Built outside, where the watchdog does not count the time.
        example::binary("init");
    }
    isolated(|| {
        if !root_or_skip("it makes PID namespaces") {
            return;
        }
        let probe = namespace(Path::new("true")).stderr(Stdio::piped()).output();
        match probe {
            Ok(probe) if probe.status.success() => body(example::binary("init")),
            Ok(probe) => skipped(&format!("unshare: {}", String::from_utf8_lossy(&probe.stderr))),
            Err(error) => skipped(&format!("unshare of util-linux: {error}")),
        }
    });
}

/// A command line that runs a program as PID 1; what it ends with is what comes out.
fn namespace(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(program)
        .stdin(Stdio::null());
    command
}

fn sh(init: &Path, script: &str) -> Command {
    let mut command = namespace(init);
    command.args(["/bin/sh", "-c", script]);
    command
}

/// Runs a script below init for each item, many at a time, and compares what init ends with.
fn expect_codes(init: &Path, cases: &[(String, i32)]) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((script, expected)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let status = sh(init, script).status().unwrap();
            assert_eq!(status.code(), Some(*expected), "{script}");
        }
    };
    thread::scope(|scope| {
        (0..AT_A_TIME).for_each(|_| drop(scope.spawn(work)));
    });
}

#[test]
fn it_ends_with_each_of_the_256_codes() {
    in_namespaces(|init| {
        let cases: Vec<_> = (0..256).map(|code| (format!("exit {code}"), code)).collect();
        expect_codes(init, &cases);
    });
}

#[test]
fn it_ends_with_128_and_the_number_of_each_fatal_signal() {
    in_namespaces(|init| {
        let fatal = Signal::all().filter(|signal| signal.is_fatal()).map(Signal::as_raw);
        let cases: Vec<_> = fatal.map(|n| (format!("ulimit -c 0; kill -{n} $$"), 128 + n)).collect();
        assert_eq!(cases.len(), 56);
        expect_codes(init, &cases);
    });
}

#[test]
fn a_thousand_orphans_are_reaped_while_it_runs() {
    in_namespaces(|init| {
        let directory = tempdir();
        let count = directory.join("count");
        // Every orphan leaves a mark, so all have been there; and none is left as a zombie.
        let script = format!(
            "exec 9>>{}
             n=0; while [ $n -lt 1000 ]; do (printf x >&9 &); n=$((n+1)); done
             try=0
             while set -- /proc/[0-9]*; [ $# -gt 2 ]; do
                 try=$((try+1)); [ $try -lt 2000 ] || exit 1
                 sleep 0.01
             done
             exit 7",
            count.display()
        );
        let output = sh(init, &script).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", said(&output));
        assert_eq!(fs::read_to_string(count).unwrap().len(), 1_000);
    });
}

#[test]
fn every_signal_that_is_to_be_forwarded_arrives() {
    in_namespaces(|init| {
        let numbers: Vec<String> = SignalSet::FORWARDABLE
            .iter()
            .map(|signal| signal.as_raw().to_string())
            .collect();
        assert_eq!(numbers.len(), 49);
        // The shell sends each to init, and waits until it comes back: the kernel takes a pending CONT back
        // when a TSTP comes after it. It starts nothing meanwhile: dash drops signals that come while it does.
        let script = format!(
            "for n in {all}; do trap \"echo $n; last=$n\" $n; done
             for n in {all}; do kill -$n 1; while [ \"$last\" != $n ]; do :; done; done
             exit 42",
            all = numbers.join(" ")
        );
        let output = sh(init, &script).output().unwrap();
        assert_eq!(output.status.code(), Some(42), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), numbers);
    });
}

#[test]
fn what_it_does_not_forward_ends_neither() {
    in_namespaces(|init| {
        // From within the namespace a signal that PID 1 does not care for is no signal.
        let script = "trap 'exit 1' ABRT SEGV TTIN TTOU PIPE CHLD; for n in ABRT SEGV TTIN TTOU PIPE CHLD KILL STOP; \
                      do kill -$n 1; done; kill -TERM 1; while :; do :; done";
        let status = sh(init, script).status().unwrap();
        assert_eq!(status.code(), Some(128 + libc::SIGTERM));
    });
}

#[test]
fn a_stop_from_outside_is_the_commands_to_answer() {
    in_namespaces(|init| {
        let script = "trap 'echo stopping; exit 9' TERM; echo ready; while :; do :; done";
        let mut unshare = sh(init, script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(unshare.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        let one = rustix::process::Pid::from_raw(only_child(&unshare) as i32).unwrap();
        rustix::process::kill_process(one, rustix::process::Signal::TERM).unwrap();
        assert_eq!(lines.next().as_deref(), Some("stopping"));
        assert!(wait_gone(unshare.id(), SOON));
        assert_eq!(unshare.wait().unwrap().code(), Some(9));
    });
}

#[test]
fn what_cannot_be_run_is_said() {
    in_namespaces(|init| {
        let run = |arguments: &[&str]| namespace(init).args(arguments).output().unwrap();
        for (arguments, code, words) in [
            (
                &["/no/such/program"][..],
                127,
                "init: cannot start \"/no/such/program\"",
            ),
            (&["no-such-program"], 127, "No such file or directory"),
            (&["/etc"], 126, "Permission denied"),
            (&[], 125, "usage: init COMMAND"),
        ] {
            let output = run(arguments);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains(words) && text.lines().count() == 1, "{text}");
        }
    });
}

#[test]
fn outside_of_a_container_it_is_a_subreaper() {
    let init = example::binary("init");
    isolated(|| {
        // The shell's parent is init; the orphan waits until that is its own, too.
        let script = "one=$PPID; mkfifo $0; \
                      (sh -c 'while read -r _ _ _ parent _ </proc/$$/stat && [ $parent != '$one' ]; do :; done; echo got >$0' $0 &); \
                      read line <$0; [ $line = got ] && exit 3";
        let directory = tempdir();
        let mut init = Command::new(init);
        init.args(["/bin/sh", "-c", script]).arg(directory.join("fifo"));
        assert_eq!(init.status().unwrap().code(), Some(3));
    });
}

fn only_child(child: &Child) -> u32 {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    match fs::read_to_string(path) {
        Ok(list) => list.trim().parse().unwrap(),
        Err(_) => processes::all()
            .into_iter()
            .find(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                status.lines().any(|line| line == format!("PPid:\t{}", child.id()))
            })
            .unwrap(),
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
