//! Tests of the event file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::driver::{Dir, Event, Taskmaster, binary, fifo};

#[test]
fn each_transition_is_one_object_on_one_line() {
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
    assert_eq!(missing[1].to, "BACKOFF");
    // A process in flight has been seen when its execution fails.
    assert_eq!(missing[1].pid.is_some(), !cfg!(pidherd_portable));
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

const ONE: &str = "[program:a]\ncommand=sleep 1000\nstartsecs=0\n";

/// Starts a taskmaster in `dir` that writes its events to this file or FIFO.
fn with_events(dir: Dir, name: &str) -> Taskmaster {
    let config = dir.file("herd.conf", ONE);
    let mut command = Command::new(binary());
    command.arg("--events").arg(dir.path(name)).arg(&config);
    Taskmaster::run(dir, command)
}

/// The next event of a reader.
fn next(reader: &mut BufReader<File>) -> Event {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    Event::parse(line.trim_end())
}

#[test]
fn a_fifo_is_written_on_when_another_reader_comes() {
    let dir = Dir::new();
    let path = fifo(&dir, "fifo");
    let mut herd = with_events(dir, "fifo");
    let mut reader = BufReader::new(File::open(&path).unwrap());
    assert_eq!(next(&mut reader).to, "STARTING");
    herd.complaint("-> RUNNING");
    drop(reader);
    for _ in 0..3 {
        assert_eq!(herd.ask("restart a"), "ok: restart a: accepted");
        herd.complaint("the event file cannot be written: Broken pipe");
        herd.complaint("-> RUNNING");
        let mut reader = BufReader::new(File::open(&path).unwrap());
        assert!(herd.ask("restart a").starts_with("ok: "));
        herd.complaint("the event file is written again: 3 lines are lost");
        herd.complaint("-> RUNNING");
        // The first reader may have left events in the FIFO.
        let mut seen = Vec::new();
        while seen.len() < 3 || seen.last() != Some(&"RUNNING".to_owned()) {
            seen.push(next(&mut reader).to);
        }
        assert!(
            seen.ends_with(&["STOPPING", "STARTING", "RUNNING"].map(str::to_owned)),
            "{seen:?}"
        );
    }
    herd.shut_down();
}

#[test]
fn a_renamed_event_file_is_opened_anew_by_hup_and_by_usr2() {
    for signal in [Signal::HUP, Signal::USR2] {
        let dir = Dir::new();
        let path = dir.path("log.jsonl");
        let mut herd = with_events(dir, "log.jsonl");
        herd.complaint("-> RUNNING");
        let renamed = herd.dir.path("log.jsonl.1");
        fs::rename(&path, &renamed).unwrap();
        herd.ask("restart a");
        herd.complaint("-> RUNNING");
        herd.signal(signal);
        herd.complaint(&format!("the event file was reopened as {}", path.display()));
        herd.ask("restart a");
        herd.complaint("-> RUNNING");
        assert_eq!(
            states(&renamed),
            ["STARTING", "RUNNING", "STOPPING", "STARTING", "RUNNING"]
        );
        assert_eq!(states(&path), ["STOPPING", "STARTING", "RUNNING"]);
        // A file that was not renamed stays in use.
        herd.signal(signal);
        herd.ask("restart a");
        herd.complaint("-> RUNNING");
        assert_eq!(states(&path), ["STOPPING", "STARTING", "RUNNING"].repeat(2));
        herd.shut_down();
    }
}

#[test]
fn an_event_file_that_cannot_be_opened_anew_is_written_on() {
    let dir = Dir::new();
    let path = dir.path("log.jsonl");
    let mut herd = with_events(dir, "log.jsonl");
    herd.complaint("-> RUNNING");
    let renamed = herd.dir.path("log.jsonl.1");
    fs::rename(&path, &renamed).unwrap();
    fs::create_dir(&path).unwrap();
    herd.signal(Signal::USR2);
    let line = herd.complaint("cannot open ");
    assert!(
        line.ends_with("/log.jsonl for the event file: Is a directory"),
        "{line}"
    );
    herd.ask("restart a");
    herd.complaint("-> RUNNING");
    assert_eq!(states(&renamed).len(), 5);
    // A FIFO without a reader is opened at once, and gets lines as soon as a reader exists.
    fs::remove_dir(&path).unwrap();
    let path = fifo(&herd.dir, "log.jsonl");
    herd.signal(Signal::USR2);
    herd.complaint("the event file was reopened as ");
    let mut reader = BufReader::new(File::open(&path).unwrap());
    herd.ask("restart a");
    assert_eq!(next(&mut reader).to, "STOPPING");
    herd.shut_down();
}

/// The last state of each event in a file.
fn states(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| Event::parse(line).to).collect()
}

#[test]
fn events_that_are_not_read_are_counted() {
    let dir = Dir::new();
    let path = fifo(&dir, "fifo");
    let config = dir.file(
        "herd.conf",
        "[program:a]\ncommand=/no/such/program\nstartretries=1000\n",
    );
    let mut command = Command::new(binary());
    command.arg("--events").arg(&path).arg(&config);
    let mut herd = Taskmaster::run(dir, command);
    let reader = File::open(&path).unwrap();
    let mut starts = 0;
    while !herd.err.iter().any(|line| line.contains("the event file is not read")) {
        // A start during the last one would make no event.
        herd.ask("start a");
        herd.complaint("-> BACKOFF");
        starts += 1;
        assert!(starts < 10_000);
    }
    herd.ask("stop a");
    herd.complaint("-> STOPPED");
    // Each transition is an event and a line of the log. The log is read completely.
    let written = herd.err.iter().filter(|line| line.contains(" -> ")).count();
    // The reader starts late.
    let reader = std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).count());
    let line = herd.complaint("the event file is written again: ");
    let lost: usize = line.split(' ').find_map(|word| word.parse().ok()).unwrap();
    herd.shut_down();
    assert_eq!(reader.join().unwrap() + lost, written, "{line}");
}

#[test]
fn a_departed_reader_stops_no_program() {
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
