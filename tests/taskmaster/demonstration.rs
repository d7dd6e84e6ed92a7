//! Tests of the demonstration.

use std::time::{Duration, Instant};

use crate::common::patience;
use crate::driver::{Dir, Taskmaster};

#[test]
fn the_demonstration_shows_each_step_and_ends_by_itself() {
    let mut tour = Taskmaster::spawn(Dir::new(), &[]);
    tour.close_stdin();
    let began = Instant::now();
    assert_eq!(tour.ended().code(), Some(0), "{}", tour.transcript());
    let took = began.elapsed();
    assert!((10..16).contains(&took.as_secs()), "{took:?}");
    assert!(tour.err.is_empty(), "{}", tour.transcript());
    let states = |process: &str| tour.states(process).join(" ");
    assert_eq!(states("api:api"), "STARTING RUNNING STOPPING STOPPED");
    assert_eq!(
        states("web:web_1"),
        "STARTING RUNNING EXITED STARTING RUNNING STOPPING STOPPED"
    );
    assert_eq!(states("web:web_4"), "STARTING RUNNING STOPPING STOPPED");
    assert_eq!(
        states("doomed:doomed"),
        "STARTING BACKOFF STARTING BACKOFF STARTING BACKOFF FATAL"
    );
    assert!(states("flaky:flaky").starts_with("STARTING RUNNING EXITED STARTING RUNNING EXITED STARTING"));
    let stubborn = tour
        .events
        .iter()
        .rfind(|event| event.process == "stubborn:stubborn")
        .unwrap();
    assert_eq!(stubborn.exit, serde_json::json!({"signal": "SIGKILL", "core": false}));
    let shown = tour.out.join("\n");
    assert!(
        shown.contains("stubborn   STOPPING -> STOPPED   killed by SIGKILL"),
        "{shown}"
    );
    assert!(!shown.contains('\x1b'), "no colours outside of a terminal");
}

#[test]
fn the_demonstration_accepts_commands() {
    let mut tour = Taskmaster::spawn(Dir::new(), &[]);
    tour.reached("api:api", "RUNNING");
    tour.say("reload");
    let refusal = "error: there is no configuration file to read again";
    while tour.answer() != refusal {}
    let began = Instant::now();
    tour.say("shutdown");
    assert_eq!(tour.ended().code(), Some(0), "{}", tour.transcript());
    assert!(
        began.elapsed() < Duration::from_secs(8) * patience(),
        "stubborn is killed after two seconds"
    );
}
