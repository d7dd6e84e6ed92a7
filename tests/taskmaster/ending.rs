//! Tests of the ways to shut down: the command, the signals, and the exit status.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::patience;
use crate::driver::{Dir, Taskmaster, binary};

const POLITE: &str = "[program:a]\ncommand=sleep 1000\nstartsecs=0\n";
/// A program that reports when it ignores SIGTERM.
const DEAF: &str = "[program:deaf]\ncommand=sh -c \"trap '' TERM; echo no ears >&2; while :; do sleep 0.1; done\"\n\
                    stderr_logfile=/dev/stderr\nstopwaitsecs=1000\nkillasgroup=true\nstartsecs=0\n";

#[test]
fn the_command_stops_everything_and_ends_with_0() {
    let mut herd = Taskmaster::start(POLITE);
    herd.reached("a:a", "RUNNING");
    assert_eq!(herd.ask("shutdown"), "ok: shutdown: started");
    herd.reached("a:a", "STOPPED");
    assert_eq!(herd.ended().code(), Some(0));
}

#[test]
fn term_and_int_stop_everything_gracefully() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut herd = Taskmaster::start(POLITE);
        herd.reached("a:a", "RUNNING");
        herd.signal(signal);
        let stopped = herd.reached("a:a", "STOPPED");
        assert_eq!(stopped.exit, serde_json::json!({"signal": "SIGTERM", "core": false}));
        assert_eq!(herd.ended().code(), Some(0));
    }
}

#[test]
fn a_second_signal_kills_at_once_and_the_exit_status_says_so() {
    let mut herd = Taskmaster::start(DEAF);
    herd.complaint("no ears");
    herd.signal(Signal::TERM);
    herd.reached("deaf:deaf", "STOPPING");
    let began = Instant::now();
    herd.signal(Signal::INT);
    let stopped = herd.reached("deaf:deaf", "STOPPED");
    assert_eq!(stopped.exit, serde_json::json!({"signal": "SIGKILL", "core": false}));
    assert_eq!(herd.ended().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(5) * patience());
}

#[test]
fn a_second_shutdown_does_not_shorten_the_stops() {
    let mut herd = Taskmaster::start(DEAF);
    herd.complaint("no ears");
    assert_eq!(herd.ask("shutdown"), "ok: shutdown: started");
    assert_eq!(herd.ask("shutdown"), "ok: shutdown: already in progress");
    for line in ["start deaf", "restart all", "scale deaf 1"] {
        assert_eq!(herd.ask(line), "error: shutting down: no start is accepted");
    }
    assert_eq!(herd.ask("reload"), "error: shutting down: no reload is accepted");
    assert!(herd.ask("status").starts_with("deaf   STOPPING   pid "));
    assert_eq!(herd.ask("signal KILL deaf"), "ok: signal SIGKILL deaf: accepted");
    herd.reached("deaf:deaf", "STOPPED");
    herd.ended_among_orphans();
}

#[test]
fn a_process_that_ignores_the_stop_signal_is_killed_after_its_time_limit() {
    let mut herd = Taskmaster::start(&DEAF.replace("1000", "1"));
    herd.complaint("no ears");
    herd.say("shutdown");
    let asked = herd.reached("deaf:deaf", "STOPPING");
    let stopped = herd.reached("deaf:deaf", "STOPPED");
    assert_eq!(stopped.exit, serde_json::json!({"signal": "SIGKILL", "core": false}));
    let waited = stopped.t - asked.t;
    // The difference of two numbers with milliseconds is not exact.
    assert!((0.999..3.0).contains(&waited), "{waited}");
    assert_eq!(
        herd.ended().code(),
        Some(0),
        "a kill after stopwaitsecs is a clean shutdown"
    );
}

#[test]
fn the_highest_priority_number_stops_first() {
    let mut herd = Taskmaster::start(
        "[program:base]\ncommand=sleep 1000\npriority=1\nstartsecs=0\n\
         [program:top]\ncommand=sleep 1000\nstartsecs=0\n\
         [program:middle]\ncommand=sleep 1000\npriority=5\nstartsecs=0\n",
    );
    for process in ["base:base", "top:top", "middle:middle"] {
        herd.reached(process, "RUNNING");
    }
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0));
    let order = |state: &str| -> Vec<String> {
        let events = herd.events.iter().filter(|event| event.to == state);
        events
            .map(|event| event.process.split(':').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(order("STARTING"), ["base", "middle", "top"]);
    assert_eq!(order("STOPPING"), ["top", "middle", "base"]);
    assert_eq!(order("STOPPED"), ["top", "middle", "base"]);
}

#[test]
fn a_herd_that_is_being_started_accepts_commands() {
    let dir = Dir::new();
    let program = |number| format!("[program:p{number}]\ncommand=sleep 1000\nstartsecs=0\n");
    let config = dir.file("herd.conf", &(0..100).map(program).collect::<String>());
    let lines = dir.file("lines", "shutdown\n");
    let output = Command::new(binary())
        .arg(config)
        .stdin(File::open(lines).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8(output.stderr).unwrap();
    let started = log.lines().filter(|line| line.contains("-> STARTING")).count();
    assert!((1..100).contains(&started), "{log}");
}

#[test]
fn a_herd_that_is_down_already_ends_at_once() {
    Taskmaster::start("[program:a]\ncommand=sleep 1000\nautostart=false\n").shut_down();
    let mut empty = Taskmaster::start("[supervisord]\n");
    assert_eq!(empty.ask("status"), "ok: status: no processes");
    empty.shut_down();
}

#[test]
fn a_process_in_backoff_is_stopped_at_once() {
    let mut herd = Taskmaster::start("[program:a]\ncommand=/no/such/program\nstartretries=1000\n");
    herd.reached("a:a", "BACKOFF");
    herd.signal(Signal::TERM);
    herd.reached("a:a", "STOPPED");
    assert_eq!(herd.ended().code(), Some(0));
}
