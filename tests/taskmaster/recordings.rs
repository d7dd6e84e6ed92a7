//! Compares the taskmaster with recordings of supervisord: the same configuration and the same events at the same
//! times give each process the same sequence of states.
//!
//! The recordings are described in `tests/fixtures/supervisord/README.md`. The four replays run at the same time. The
//! timelines are in real time, and the longest takes sixteen seconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::patience;
use crate::driver::{Dir, Event, Taskmaster, aloud};

#[test]
fn every_process_goes_through_the_states_that_supervisord_recorded() {
    if patience() > 1 {
        return aloud("this machine is too slow for the times in the recordings (PIDHERD_TEST_PATIENCE is above 1)");
    }
    let names = ["01-starting", "02-exits", "03-stops", "04-groups"];
    thread::scope(|scope| {
        let all = names.map(|name| (name, scope.spawn(move || compare(name))));
        let failed: Vec<&str> = all
            .into_iter()
            .filter_map(|(name, run)| run.join().err().map(|_| name))
            .collect();
        assert!(failed.is_empty(), "not as recorded: {failed:?}");
    });
}

/// The states of each process, in order.
type Sequences = BTreeMap<String, Vec<String>>;

fn compare(name: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/supervisord");
    let recorded = recording(&fixtures.join(format!("{name}.jsonl")));
    let (ours, transcript) = replay(&fixtures.join(format!("{name}.conf")));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        recorded.keys().collect::<Vec<_>>(),
        "{transcript}"
    );
    for (process, theirs) in &recorded {
        let ours = &ours[process];
        assert!(
            alike(ours, theirs),
            "{process} of {name}:\n  here        {ours:?}\n  supervisord {theirs:?}\n{transcript}"
        );
    }
}

/// Whether two sequences are equal. In a crash loop, one of them may be ahead by at most one round (exit, start,
/// run).
fn alike(ours: &[String], theirs: &[String]) -> bool {
    const ROUND: usize = 3;
    let (short, long) = if ours.len() < theirs.len() {
        (ours, theirs)
    } else {
        (theirs, ours)
    };
    let ahead = long.len() - short.len();
    let goes_on_as_before = (short.len()..long.len()).all(|index| index > ROUND && long[index] == long[index - ROUND]);
    long.starts_with(short) && ahead <= ROUND && goes_on_as_before
}

fn recording(path: &Path) -> Sequences {
    let mut sequences = Sequences::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        append(&mut sequences, text("process"), text("from"), text("to"));
    }
    sequences
}

/// Appends a transition to the process's sequence. Its first state must be the last one of the sequence.
fn append(sequences: &mut Sequences, process: String, from: String, to: String) {
    let states = sequences.entry(process).or_insert_with(|| vec![from.clone()]);
    assert_eq!(states.last(), Some(&from), "a step from where it was not");
    states.push(to);
}

/// A step of a timeline.
enum Step {
    Say(String),
    Kill(Signal, String),
}

/// Runs the configuration through its own timeline.
fn replay(path: &Path) -> (Sequences, String) {
    let text = fs::read_to_string(path).unwrap();
    let (steps, end) = timeline(&text);
    let dir = Dir::new();
    let config: PathBuf = dir.file("herd.conf", &text);
    let began = Instant::now();
    let mut herd = Taskmaster::spawn(dir, &[config.as_os_str()]);
    for (at, step) in steps {
        herd.listen_until(began + at);
        match step {
            Step::Say(line) => herd.say(&line),
            Step::Kill(signal, process) => {
                let pid = Pid::from_raw(herd.pid_of(&process).try_into().unwrap()).unwrap();
                kill_process(pid, signal).unwrap();
            }
        }
    }
    herd.listen_until(began + end);
    let seen = herd.events.len();
    herd.say("shutdown");
    // A stopped shell leaves its `sleep` behind, under supervisord too.
    assert_eq!(herd.ended_among_orphans().code(), Some(0), "{}", herd.transcript());
    let mut sequences = Sequences::new();
    for Event { process, from, to, .. } in herd.events.iter().take(seen).cloned() {
        append(&mut sequences, process, from, to);
    }
    (sequences, herd.transcript())
}

/// The steps in the `[x-timeline]` of a configuration, sorted by time, and the time of the end.
fn timeline(text: &str) -> (Vec<(Duration, Step)>, Duration) {
    let (_, section) = text.split_once("[x-timeline]").unwrap();
    let mut steps = Vec::new();
    let mut end = Duration::ZERO;
    for (key, value) in section.lines().filter_map(|line| line.split_once('=')) {
        if key == "end" {
            end = Duration::from_secs_f64(value.parse().unwrap());
        } else {
            steps.push((Duration::from_secs_f64(key.parse().unwrap()), step(value)));
        }
    }
    steps.sort_by_key(|&(at, _)| at);
    (steps, end)
}

fn step(text: &str) -> Step {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["startgroup", group] => Step::Say(format!("start {group}:*")),
        ["stopgroup", group] => Step::Say(format!("stop {group}:*")),
        [verb @ ("start" | "stop"), name] => Step::Say(format!("{verb} {name}")),
        ["pkill", "KILL", name] => Step::Kill(Signal::KILL, full(name)),
        ["pkill", "TERM", name] => Step::Kill(Signal::TERM, full(name)),
        _ => panic!("unknown step {text:?}"),
    }
}

/// The process's name in the event file.
fn full(name: &str) -> String {
    if name.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:{name}")
    }
}

#[test]
fn the_comparison_can_fail() {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let run = words("STOPPED STARTING RUNNING EXITED STARTING RUNNING EXITED STARTING RUNNING");
    assert!(alike(&run, &run));
    assert!(alike(&run, &run[..6]), "one round ahead");
    assert!(alike(&run[..8], &run));
    assert!(!alike(&run, &run[..5]), "more than a round");
    assert!(!alike(
        &words("STOPPED STARTING RUNNING"),
        &words("STOPPED STARTING BACKOFF")
    ));
    assert!(
        !alike(
            &words("STOPPED STARTING RUNNING EXITED"),
            &words("STOPPED STARTING RUNNING")
        ),
        "no loop"
    );
}
