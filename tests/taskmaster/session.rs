//! The session in the README: what a user at a terminal sees of the demonstration.
//!
//! The test types the commands of the session, and compares the screen with the README. `PIDHERD_UPDATE_SESSION=1`
//! writes what it has seen into the README.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::path::Path;

use crate::screen::{PROMPT, Screen, Setup};

const README: &str = "examples/taskmaster/README.md";
const BEGIN: &str = "<!-- The session begins: tests/taskmaster/session.rs writes it. -->\n```text\n";
const END: &str = "```\n<!-- The session ends. -->";

const COLUMNS: u16 = 88;

/// What happened at the terminal: the lines, and a picture of `top`.
fn session() -> (Vec<String>, Vec<String>) {
    let mut screen = Screen::with(&Setup {
        columns: COLUMNS,
        rows: 20,
        variables: &[("NO_COLOR", "1")],
        ..Setup::default()
    });
    let reached = |name: &'static str, state: &'static str, times: usize| {
        move |screen: &Screen| {
            let is_it = |line: &&str| line.contains(name) && line.contains(&format!("-> {state}"));
            screen.raw.lines().filter(is_it).count() >= times
        }
    };
    screen.until("doomed has failed", reached("doomed", "FATAL", 1));
    screen.enters("status");
    screen.enters("stauts");
    screen.enters("signal KILL web:web_1");
    screen.until("web_1 is restarted", reached("web:web_1", "RUNNING", 2));
    screen.enters("scale web 5");
    screen.until("web_4 is up", reached("web:web_4", "RUNNING", 1));
    screen.enters("pid web");
    screen.enters("stop stubborn");
    screen.until("stubborn is stopped", reached("stubborn", "STOPPED", 1));
    screen.types("top\n");
    screen.until("the view covers the screen", |screen| {
        screen.is_covered() && screen.rows()[19] == "q ends the view"
    });
    let top = screen.rows();
    screen.types("q");
    screen.prompts("");
    screen.enters("reexec");
    screen.shows("ok: reexec: ");
    screen.enters("status web");
    screen.types("shutdown\n");
    assert_eq!(screen.ended(), Some(0), "{}", screen.raw);
    let number = |number| NonZeroU16::new(number).unwrap();
    let mut whole = vt100::Parser::new(number(500), number(COLUMNS), 0);
    whole.process(screen.raw.as_bytes());
    let contents = whole.screen().contents();
    let lines = contents.lines().map(|line| line.trim_end().to_owned()).collect();
    (lines, top.iter().map(|row| row.trim_end().to_owned()).collect())
}

/// A line without its numbers, and without the widths that depend on them.
fn masked(line: &str) -> String {
    let mut masked = String::new();
    for char in line.chars() {
        let char = if char.is_ascii_digit() { '#' } else { char };
        let repeats = (char == '#' || char == ' ') && masked.ends_with(char);
        if !repeats {
            masked.push(char);
        }
    }
    // A run that has just begun may not have a time yet.
    masked.trim().replace("KiB", "MiB")
}

#[test]
fn the_session_in_the_readme_is_what_a_terminal_shows() {
    let (lines, top) = session();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(README);
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has the session");
    let (shown, after) = rest.split_once(END).expect("the session ends");
    if std::env::var_os("PIDHERD_UPDATE_SESSION").is_some_and(|value| value == "1") {
        let mut text = String::new();
        for line in &lines {
            text.push_str(&format!("{line}\n"));
            if line == &format!("{PROMPT}top") {
                let last = top.iter().rposition(|row| !row.is_empty()).unwrap_or(0);
                top[..=last].iter().for_each(|row| text.push_str(&format!("{row}\n")));
            }
        }
        std::fs::write(&path, format!("{before}{BEGIN}{text}{END}{after}")).unwrap();
        return;
    }
    // The processes are independent of each other, so the order of the lines varies. What flaky does meanwhile, and
    // the states in the tables, vary too.
    let is_steady = |line: &&str| !line.contains("flaky") && !line.contains("processes:");
    let seen: BTreeSet<String> = lines.iter().chain(&top).map(|line| masked(line)).collect();
    let missing: Vec<&str> = shown
        .lines()
        .filter(is_steady)
        .filter(|line| !seen.contains(&masked(line)))
        .collect();
    assert!(
        missing.is_empty(),
        "the README shows lines that the terminal does not:\n{}\nIt shows:\n{}",
        missing.join("\n"),
        lines.join("\n")
    );
}
