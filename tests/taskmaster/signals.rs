//! Tests of the signals: the taskmaster handles every signal that can be caught and has a fatal default action.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pidherd::signal;
use rustix::process::Signal;

use crate::common::{self, processes, root_or_skip, skipped, wait_gone, wait_until};
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo, refused};

const HERD: &str = "[program:a]\ncommand=sleep 1000\nstartsecs=0\n";

/// Starts a taskmaster with default dispositions. The parent of the test may ignore some signals.
fn herd(config: &str) -> Taskmaster {
    let dir = Dir::new();
    dir.file("herd.conf", config);
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    Taskmaster::run(dir, command)
}

fn raw(signal: signal::Signal) -> Signal {
    // SAFETY: the number is that of a signal, and the value is only used to send it.
    unsafe { Signal::from_raw_unchecked(signal.as_raw()) }
}

#[test]
fn every_fatal_signal_that_can_be_caught_is_survived_or_stops_everything_gracefully() {
    let mut herd = herd(HERD);
    herd.reached("a:a", "RUNNING");
    let pid = herd.pid_of("a:a");
    let (mut noted, mut graceful) = (0, Vec::new());
    for signal in signal::Signal::all().filter(|signal| signal.is_fatal()) {
        match signal {
            signal::Signal::KILL => continue,
            // The C library reserves these two signals.
            signal if [32, 33].contains(&signal.as_raw()) => continue,
            signal::Signal::TERM | signal::Signal::INT | signal::Signal::QUIT => {
                graceful.push(signal);
                continue;
            }
            signal::Signal::HUP => {
                herd.signal(raw(signal));
                herd.complaint("reload: 0 added, 0 removed, 0 changed, 1 unchanged");
            }
            signal::Signal::USR1 => {
                herd.signal(raw(signal));
                herd.complaint("reexec: 0 added, 0 removed, 1 kept");
            }
            signal::Signal::USR2 => {
                herd.signal(raw(signal));
                herd.complaint("no output file was renamed");
            }
            signal => {
                herd.signal(raw(signal));
                herd.complaint(&format!("{signal}: ignored"));
                noted += 1;
            }
        }
    }
    assert_eq!((noted, graceful.len()), (47, 3));
    assert!(herd.ask("status a").contains(&format!("pid {pid},")));
    herd.shut_down();
    for signal in graceful {
        let mut herd = self::herd(HERD);
        herd.reached("a:a", "RUNNING");
        herd.signal(raw(signal));
        herd.complaint(&format!("{signal}: shutting down"));
        let stopped = herd.reached("a:a", "STOPPED");
        assert_eq!(stopped.exit, serde_json::json!({"signal": "SIGTERM", "core": false}));
        assert_eq!(herd.ended().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_program_starts_with_default_signal_dispositions() {
    let status = "sh -c \"grep ^Sig /proc/self/status > %(here)s/signals; exec sleep 1000\"";
    let mut herd = herd(&format!("[program:a]\ncommand={status}\nstartsecs=0\n"));
    herd.reached("a:a", "RUNNING");
    let path = herd.dir.path("signals");
    let text = common::wait_for_content(&path, PATIENCE, |text| text.contains("SigCgt"));
    for set in ["SigPnd", "SigBlk", "SigIgn"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
    }
    herd.shut_down();
}

#[test]
fn a_signal_after_the_shutdown_does_not_change_the_exit_status() {
    // The reader of standard output is slow, so the taskmaster waits for it at its end.
    let dir = Dir::new();
    dir.file("herd.conf", HERD);
    fifo(&dir, "events");
    fifo(&dir, "slow");
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<> slow; exec \"$0\" --events events herd.conf > slow"]);
    command.arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    herd.write("help\n".repeat(1000).as_bytes());
    herd.say("shutdown");
    herd.reached("a:a", "STOPPED");
    for signal in [Signal::USR1, Signal::HUP, Signal::TERM] {
        herd.signal(signal);
    }
    herd.complaint("standard output was not read to the end: ");
    assert_eq!(herd.ended().code(), Some(0));
}

/// A program that leaves an orphan, which ends after a moment.
const ORPHAN: &str = "[program:a]\n\
    command=sh -c \"(sh -c 'echo $$ > %(here)s/orphan; exec sleep 0.1' &); exec sleep 1000\"\n\
    startsecs=0\n";

#[test]
fn a_subreaper_reaps_orphans() {
    let dir = Dir::new();
    dir.file("herd.conf", ORPHAN);
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let adopt = || Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?);
    // SAFETY: between fork and exec the hook makes only system calls.
    unsafe { command.pre_exec(adopt) };
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    let path = herd.dir.path("orphan");
    let orphan = common::wait_for_content(&path, PATIENCE, |text| text.ends_with('\n'));
    let orphan: u32 = orphan.trim().parse().unwrap();
    assert!(wait_gone(orphan, PATIENCE));
    wait_until("the orphan is reaped", PATIENCE, || processes::state(orphan).is_none());
    // The taskmaster reaps its own children as before.
    herd.ask("signal KILL a");
    herd.reached("a:a", "EXITED");
    herd.reached("a:a", "RUNNING");
    fs::write(herd.dir.path("herd.conf"), ORPHAN.replace("startsecs=0", "startsecs=1")).unwrap();
    assert!(herd.ask("reload").contains("1 changed"));
    herd.shut_down_among_orphans();
}

#[test]
fn the_first_process_of_a_namespace_reaps_orphans() {
    if !root_or_skip("it makes a PID namespace") {
        return;
    }
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "--"];
    let probe = Command::new("unshare").args(unshare).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return skipped("unshare makes no PID namespace");
    }
    let dir = Dir::new();
    // PIDs are relative to the namespace, so a program in the namespace waits until the orphan is gone.
    let watch = "[program:watch]\n\
        command=sh -c \"until read orphan < orphan; do sleep 0.05; done 2>&-;\
        while [ -e /proc/$orphan ]; do sleep 0.05; done; echo reaped; exec sleep 1000\"\n\
        stdout_logfile=/dev/stdout\nstartsecs=0\n";
    dir.file("herd.conf", &format!("{ORPHAN}{watch}"));
    fifo(&dir, "events");
    let mut command = Command::new("unshare");
    command.args(unshare).arg(binary());
    command.args(["--events", "events", "herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    assert_eq!(herd.answer(), "reaped");
    herd.say("shutdown");
    assert_eq!(herd.ended_among_orphans().code(), Some(0), "{}", herd.transcript());
}

#[test]
fn a_bound_program_does_not_outlive_a_killed_taskmaster() {
    let program = "command=sleep 1000\nstartsecs=0\n";
    let mut herd = Taskmaster::start(&format!("[program:a]\n{program}lifetime=bound-or-signal\n"));
    let pid = herd.reached("a:a", "RUNNING").pid.unwrap();
    herd.signal(Signal::KILL);
    assert!(wait_gone(pid, PATIENCE), "it lives on");
    assert_eq!(herd.ended_among_orphans().code(), None);
    let bound = format!("[program:a]\n{program}lifetime=bound\n");
    if common::kernel_since(7, 1) && !cfg!(pidherd_portable) {
        let mut herd = Taskmaster::start(&bound);
        let pid = herd.reached("a:a", "RUNNING").pid.unwrap();
        herd.signal(Signal::KILL);
        assert!(wait_gone(pid, PATIENCE), "it lives on");
        assert_eq!(herd.ended_among_orphans().code(), None);
    } else {
        let errors = refused(&bound);
        assert!(
            errors.contains("lifetime") && errors.contains("cannot bind a child"),
            "{errors}"
        );
    }
}
