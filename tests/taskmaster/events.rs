//! The event file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Command;

use serde_json::{Value, json};

use crate::driver::{Dir, Event, Taskmaster, binary, fifo};

#[test]
fn one_object_a_line_for_each_transition() {
    let mut herd = Taskmaster::start(
        "[program:crash]\ncommand=sh -c \"exit 3\"\nstartsecs=1\nstartretries=1\n\
         [program:well]\ncommand=sh -c \"exit 0\"\nstartsecs=0\n\
         [program:missing]\ncommand=/no/such/program\nstartretries=0\n",
    );
    herd.reached("crash:crash", "FATAL");
    herd.reached("well:well", "EXITED");
    herd.reached("missing:missing", "FATAL");
    let of = |process: &str| -> Vec<Event> {
        herd.events
            .iter()
            .filter(|event| event.process == process)
            .cloned()
            .collect()
    };
    let crash = of("crash:crash");
    let steps: Vec<(&str, &str)> = crash
        .iter()
        .map(|event| (event.from.as_str(), event.to.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            ("STOPPED", "STARTING"),
            ("STARTING", "BACKOFF"),
            ("BACKOFF", "STARTING"),
            ("STARTING", "BACKOFF"),
            ("BACKOFF", "FATAL")
        ]
    );
    assert_eq!(crash.iter().map(|event| event.run).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
    assert_eq!(
        (&crash[1].exit, crash[1].cause.as_str()),
        (&json!({"code": 3}), "exited with code 3")
    );
    assert_eq!(crash[0].exit, Value::Null);
    assert!(crash[0].pid.is_some() && crash[1].pid == crash[0].pid && crash[2].pid != crash[0].pid);
    assert!(
        crash[2].t - crash[1].t > 0.99,
        "the delay before the first retry is a second"
    );
    let missing = of("missing:missing");
    assert_eq!((missing[1].to.as_str(), missing[1].pid), ("BACKOFF", None));
    assert!(
        missing[1].cause.contains("/no/such/program") && missing[1].cause.contains("ENOENT"),
        "{}",
        missing[1].cause
    );
    assert_eq!(
        of("well:well").last().map(|event| event.exit.clone()),
        Some(json!({"code": 0}))
    );
    herd.shut_down();
}

#[test]
fn a_file_is_appended_to() {
    let dir = Dir::new();
    let config = dir.file("herd.conf", "[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    let file = dir.file("log.jsonl", "{\"before\": true}\n");
    for _ in 0..2 {
        let mut command = Command::new(binary());
        command.arg("--events").arg(&file).arg(&config);
        let mut herd = Taskmaster::run(Dir::new(), command);
        herd.complaint("RUNNING");
        herd.shut_down();
    }
    let text = fs::read_to_string(&file).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "{\"before\": true}");
    let states: Vec<String> = rest.lines().map(|line| Event::parse(line).to).collect();
    assert_eq!(states, ["STARTING", "RUNNING", "STOPPING", "STOPPED"].repeat(2));
}

#[test]
fn a_reader_that_leaves_stops_nothing() {
    let dir = Dir::new();
    let config = dir.file("herd.conf", "[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    let read_once = fifo(&dir, "read-once");
    let mut command = Command::new(binary());
    command.arg("--events").arg(&read_once).arg(&config);
    let mut herd = Taskmaster::run(dir, command);
    let mut first = String::new();
    BufReader::new(File::open(read_once).unwrap())
        .read_line(&mut first)
        .unwrap();
    assert_eq!(Event::parse(first.trim_end()).to, "STARTING");
    assert_eq!(herd.ask("restart a"), "ok: restart a: accepted");
    herd.complaint("the event file cannot be written: Broken pipe");
    assert!(herd.ask("restart a").starts_with("ok: "));
    herd.shut_down();
}
