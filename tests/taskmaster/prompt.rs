//! The prompt at a terminal: what a user types and sees, on the screen of a terminal emulator.

use std::fs;

use rustix::process::Signal;

use crate::common::{processes, wait_until};
use crate::driver::{Dir, HERD, PATIENCE};
use crate::screen::{DOWN, LEFT, PROMPT, Screen, Setup, UP};
use crate::terminal::{CTRL_C, CTRL_D, CTRL_Z, is_stopped, signal, with_each_shell};

/// Ten programs that end at once and are restarted at once.
const STORM: &str = "\
[program:storm]
command=true
process_name=%(program_name)s_%(process_num)d
numprocs=10
startsecs=0
autorestart=true
[program:api]
command=sleep 1000
startsecs=0
";

/// A herd that has started, at a prompt.
fn herd() -> Screen {
    let mut screen = Screen::start(HERD);
    is_up(&mut screen);
    screen
}

fn is_up(screen: &mut Screen) {
    screen.until("four processes are RUNNING", |screen| {
        let is_up = |row: &&String| row.contains("-> RUNNING");
        screen.rows().iter().filter(is_up).count() == 4
    });
    screen.prompts("");
}

/// A row of the log, whole: the time, the name, both states, and a cause.
fn is_whole(row: &str) -> bool {
    let words: Vec<&str> = row.split_whitespace().collect();
    let state = |word: &str| word.len() >= 5 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    match words.as_slice() {
        [at, name, from, "->", to, ..] => {
            at.parse::<f64>().is_ok()
                && (name.starts_with("storm:storm_") || *name == "api")
                && state(from)
                && state(to)
        }
        _ => false,
    }
}

#[test]
fn typing_during_a_storm_of_events_stays_legible() {
    let mut screen = Screen::start(STORM);
    // No row ever mixes the prompt with an event. The last rows may be incomplete at the end of a read.
    screen.always(|rows| {
        let used = rows.iter().rposition(|row| !row.is_empty()).unwrap_or(0);
        for (number, row) in rows.iter().enumerate() {
            let torn = row.contains("->") && (row.contains(PROMPT.trim_end()) || number + 1 < used && !is_whole(row));
            assert!(!torn, "a row is torn: {row:?} in\n{}", rows.join("\n"));
        }
    });
    let line = "status api";
    for (end, char) in line.char_indices() {
        let events = |screen: &Screen| screen.raw.matches("->").count();
        let before = events(&screen);
        screen.until("the storm goes on", |screen| events(screen) > before + 20);
        screen.types(&char.to_string());
        screen.prompts(&line[..=end]);
    }
    screen.types("\n");
    screen.until("the command is answered", |screen| {
        screen.raw.contains("api   \x1b[32mRUNNING")
    });
    screen.until("the line is kept above the answer", |screen| {
        let plain = screen.raw.replace("\x1b[1m", "").replace("\x1b[0m", "");
        plain.contains(&format!("{PROMPT}{line}\r\n"))
    });
    screen.shut_down();
}

#[test]
fn lines_are_edited_and_kept_in_the_history_file() {
    let mut screen = herd();
    screen.types(&format!("staus{LEFT}"));
    screen.types(&format!("{LEFT}t idle"));
    screen.types("\x05\x17\x17status idle");
    screen.prompts("status idle");
    screen.types("\n");
    screen.shows("idle   STOPPED    not started");
    screen.enters("version");
    let history = fs::read_to_string(screen.dir.path("history")).unwrap();
    assert_eq!(history, "status idle\nversion\n");
    screen.types(&format!("x{UP}{UP}"));
    screen.prompts("status idle");
    screen.types(&format!("{DOWN}{DOWN}"));
    screen.prompts("x");
    screen.types("\x12stat");
    screen.shows("(search \"stat\") status idle");
    screen.types("\x07");
    screen.prompts("x");
    let dir = std::mem::replace(&mut screen.dir, Dir::new());
    screen.shut_down();
    // The next taskmaster goes on with the history.
    let mut screen = Screen::in_dir(
        dir,
        &Setup {
            config: HERD,
            ..Setup::default()
        },
    );
    is_up(&mut screen);
    screen.types(&format!("{UP}{UP}{UP}"));
    screen.prompts("status idle");
    screen.shut_down();
}

#[test]
fn commands_and_names_are_completed() {
    let mut screen = herd();
    screen.types("stat\t");
    screen.prompts("status ");
    screen.types("id\t");
    screen.prompts("status idle ");
    screen.types("\x15stop we\t");
    screen.prompts("stop web");
    screen.types("\t");
    screen.shows("web        web:*      web:web_0  web:web_1  web:web_2");
    screen.prompts("stop web");
    screen.types(":w\t1\t");
    screen.prompts("stop web:web_1 ");
    screen.types("\x15signal HU\tap\t");
    screen.prompts("signal HUP api ");
    screen.types("\x15xyz\t\t");
    screen.prompts("xyz");
    // A small terminal shows as many names as fit above the line. The line is cut when the new size is known.
    let long = "a line that is longer than the small terminal";
    screen.types(&format!("\x15{long}"));
    screen.prompts(long);
    screen.resizes(30, 6);
    screen.until("the line is cut", |screen| {
        screen.cursor().0.starts_with("taskmaster> <")
    });
    screen.types("\x15stop \t\t");
    screen.shows("... 8 names in all");
    screen.prompts("stop ");
    screen.types("\x15help\n");
    screen.shows("    group (group or group:*)");
    screen.shut_down();
}

#[test]
fn states_have_colours_unless_no_color_is_set() {
    let mut screen = herd();
    screen.types("status\n");
    screen.until("the table has colours", |screen| {
        screen.raw.contains("\x1b[32mRUNNING \x1b[0m   pid") && screen.raw.contains("\x1b[90mSTOPPED \x1b[0m")
    });
    screen.shut_down();
    let mut screen = Screen::with(&Setup {
        config: HERD,
        variables: &[("NO_COLOR", "1")],
        ..Setup::default()
    });
    is_up(&mut screen);
    screen.enters("status");
    let colours = screen.raw.split("\x1b[").skip(1).filter(|rest| {
        let end = rest.find(|char: char| char.is_ascii_alphabetic());
        end.is_some_and(|end| rest[end..].starts_with('m'))
    });
    assert_eq!(colours.count(), 0, "{:?}", screen.raw);
    screen.shut_down();
}

#[test]
fn a_narrow_terminal_gets_columns_that_fit() {
    let mut screen = Screen::with(&Setup {
        config: HERD,
        columns: 40,
        ..Setup::default()
    });
    is_up(&mut screen);
    screen.shows("web:web_2  -> RUNNING");
    screen.enters("status");
    screen.until("a long row is cut", |screen| {
        let is_cut = |row: &String| {
            row.starts_with("web:web_0   RUNNING    pid") && row.ends_with('\u{2026}') && row.chars().count() == 40
        };
        screen.rows().iter().any(is_cut)
    });
    let long = "start api api api api api api api api api api";
    screen.types(long);
    let shown = |screen: &Screen| screen.cursor();
    screen.until("the end of the line is visible", |screen| {
        let (row, column) = shown(screen);
        row.starts_with("taskmaster> <") && row.ends_with(" api") && row.len() == column && column < 40
    });
    screen.types("\x01");
    screen.until("the beginning of the line is visible", |screen| {
        let (row, column) = shown(screen);
        row.starts_with("taskmaster> start api") && row.ends_with('>') && row.len() == 40 && column == 12
    });
    // The terminal becomes wider, and then too narrow for the prompt.
    screen.resizes(100, 24);
    screen.until("the whole line is visible", |screen| {
        shown(screen).0 == format!("{PROMPT}{long}")
    });
    screen.resizes(14, 24);
    screen.until("there is room for the line alone", |screen| {
        let (row, _) = shown(screen);
        row.starts_with("start api") && row.ends_with('>') && row.len() == 14
    });
    screen.shut_down();
}

#[test]
fn ctrl_c_discards_the_line_and_on_an_empty_line_stops_all_programs() {
    let mut screen = herd();
    screen.types("stop web");
    screen.prompts("stop web");
    screen.types(CTRL_C);
    screen.prompts("");
    screen.shows("taskmaster> stop web^C");
    screen.enters("version");
    screen.types(CTRL_C);
    assert_eq!(screen.ended(), Some(0));
    assert!(screen.raw.contains("SIGINT: shutting down"));
    // Keys that come together are handled in their order.
    let mut screen = herd();
    screen.types(&format!("version\nstop a{CTRL_C}"));
    screen.shows("taskmaster> stop a^C");
    screen.prompts("");
    screen.types(&format!("x{CTRL_C}"));
    screen.shows("taskmaster> x^C");
    screen.types(CTRL_C);
    assert_eq!(screen.ended(), Some(0));
}

#[test]
fn a_signal_from_another_process_does_not_discard_the_line() {
    let mut screen = herd();
    screen.types("stop web");
    screen.prompts("stop web");
    signal(screen.pid(), Signal::INT);
    assert_eq!(screen.ended(), Some(0));
    assert!(screen.raw.contains("SIGINT: shutting down"));
}

#[test]
fn the_end_of_input_restores_the_terminal_and_stops_no_program() {
    for typed in [CTRL_D, "quit\n", "exit\n"] {
        let mut screen = herd();
        assert!(!screen.is_restored());
        screen.types(typed);
        screen.shows("standard input has ended; the programs run until Ctrl-C or SIGTERM");
        wait_until("the modes are restored", PATIENCE, || screen.is_restored());
        // Nothing takes what is typed now.
        screen.types("stop web\n");
        signal(screen.pid(), Signal::TERM);
        assert_eq!(screen.ended(), Some(0));
        assert!(!screen.raw.contains("ok: stop"), "{}", screen.raw);
    }
}

#[test]
fn a_killed_program_does_not_disturb_the_prompt() {
    let mut screen = herd();
    screen.types("signal KILL web:web_0");
    screen.prompts("signal KILL web:web_0");
    screen.types("\n");
    screen.shows("web:web_0  RUNNING  -> EXITED    killed by SIGKILL");
    screen.prompts("");
    screen.types("sca");
    screen.prompts("sca");
    screen.shut_down();
}

#[test]
fn ctrl_z_stops_the_taskmaster_with_the_terminal_as_it_was() {
    with_each_shell(HERD, |mut terminal| {
        terminal.types("\"$T\" herd.conf\n");
        terminal.reaches("web:web_2", "RUNNING");
        terminal.shows(PROMPT);
        let taskmaster = terminal.taskmaster();
        assert!(!terminal.has_line_mode());
        terminal.types("stat");
        terminal.shows("stat");
        terminal.types(CTRL_Z);
        is_stopped(taskmaster, true);
        terminal.is_the_shells();
        assert!(terminal.has_line_mode(), "the shell gets the terminal as it was");
        terminal.types("echo $((40 + 2))\n");
        terminal.shows("42");
        terminal.types("fg\n");
        terminal.shows(&format!("{PROMPT}stat"));
        assert!(!terminal.has_line_mode());
        terminal.types("us api\n");
        // It may be starting still.
        terminal.shows("uptime ");
        // SIGSTOP leaves no time to restore anything. SIGCONT takes the terminal again.
        signal(taskmaster, Signal::STOP);
        terminal.shows("Stopped");
        terminal.is_the_shells();
        terminal.types("fg\n");
        terminal.shows(PROMPT);
        terminal.types(CTRL_C);
        terminal.reaches("api", "STOPPED");
        terminal.is_the_shells();
        terminal.types("echo ended with $?\n");
        terminal.shows("ended with 0");
        assert!(terminal.has_line_mode());
        terminal.close();
    });
}

#[test]
fn ctrl_z_without_a_shell_changes_nothing() {
    let mut screen = herd();
    screen.types("statu");
    screen.prompts("statu");
    screen.types(CTRL_Z);
    screen.types("s id");
    screen.prompts("status id");
    assert!(!screen.is_restored());
    screen.shut_down();
}

#[test]
fn the_line_outlives_a_reexec() {
    let mut screen = herd();
    screen.enters("version");
    screen.types("statu");
    screen.prompts("statu");
    signal(screen.pid(), Signal::USR1);
    screen.shows("taskmaster: reexec: 0 added, 0 removed, 3 kept");
    screen.prompts("statu");
    screen.types("s api\n");
    screen.shows("api   RUNNING    pid ");
    screen.prompts("");
    screen.types(&format!("{UP}{UP}"));
    screen.prompts("version");
    screen.types("\x15reexec\n");
    screen.shows("ok: reexec: 0 added, 0 removed, 3 kept");
    screen.prompts("");
    // A hand-over that fails takes the terminal back.
    fs::write(screen.dir.path("herd.conf"), "[program:x]\n").unwrap();
    screen.types("reexec\nversi");
    screen.shows("error: nothing is changed");
    screen.prompts("versi");
    screen.shut_down();
}

#[test]
fn a_terminal_without_sequences_gets_plain_lines() {
    let mut screen = Screen::with(&Setup {
        config: HERD,
        variables: &[("TERM", "dumb"), ("NO_COLOR", "1")],
        ..Setup::default()
    });
    screen.until("web_2 is RUNNING", |screen| {
        screen.raw.contains("web:web_2  STARTING -> RUNNING\r\n")
    });
    assert!(screen.is_restored());
    screen.types("top\nstop idle\n");
    screen.shows("ok: stop idle: already down");
    screen.shows("NAME       STATE");
    assert!(!screen.raw.contains('\x1b'), "{:?}", screen.raw);
    screen.types("shutdown\n");
    assert_eq!(screen.ended(), Some(0));
}

#[test]
fn a_log_that_goes_elsewhere_leaves_the_prompt_alone() {
    with_each_shell(HERD, |mut terminal| {
        terminal.types("\"$T\" herd.conf 2>log\n");
        terminal.shows(PROMPT);
        let log = terminal.dir.path("log");
        crate::common::wait_for_content(&log, PATIENCE, |log| log.contains("web:web_2  STARTING -> RUNNING"));
        let taskmaster = terminal.taskmaster();
        terminal.types("status idle\n");
        let shown = terminal.shows("idle   STOPPED    not started");
        assert!(!shown.contains("->"), "{shown:?}");
        terminal.types(CTRL_C);
        terminal.is_the_shells();
        assert_eq!(processes::state(taskmaster), None);
        terminal.close();
    });
}
