//! Signals: every one that can be caught and would end the taskmaster by default is taken.

use std::process::Command;

use pidherd::signal;
use rustix::process::Signal;

use crate::common;
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo};

const HERD: &str = "[program:a]\ncommand=sleep 1000\nstartsecs=0\n";

/// A taskmaster, started with every signal as by default: what runs the tests may ignore some.
fn herd(config: &str) -> Taskmaster {
    let dir = Dir::new();
    dir.file("herd.conf", config);
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    Taskmaster::run(dir, command)
}

fn raw(signal: signal::Signal) -> Signal {
    // SAFETY: the number is that of a signal, and it is only sent.
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
            // The C library keeps these two for itself.
            signal if [32, 33].contains(&signal.as_raw()) => continue,
            signal::Signal::TERM | signal::Signal::INT | signal::Signal::QUIT => {
                graceful.push(signal);
                continue;
            }
            signal::Signal::HUP => {
                herd.signal(raw(signal));
                herd.complaint("reload: 0 added, 0 removed, 0 changed, 1 unchanged");
            }
            signal::Signal::USR2 => {
                herd.signal(raw(signal));
                herd.complaint("nothing that the taskmaster writes was renamed");
            }
            signal => {
                herd.signal(raw(signal));
                herd.complaint(&format!("{signal}: nothing is done about it"));
                noted += 1;
            }
        }
    }
    assert_eq!((noted, graceful.len()), (48, 3));
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
fn a_programs_signals_are_as_by_default() {
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
fn a_signal_that_comes_when_everything_is_down_does_not_change_the_exit_status() {
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
