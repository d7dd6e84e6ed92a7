//! What a user watches at a terminal: `top`, `tail -f` and `fg`; and the commands for logs, PIDs and configurations.

use std::fs;

use rustix::process::Signal;

use crate::driver::Taskmaster;
use crate::screen::{DOWN, PAGE_DOWN, PROMPT, Screen, Setup};
use crate::terminal::{CTRL_C, CTRL_D, CTRL_Z, is_stopped, signal, with_each_shell};

const HERD: &str = "\
[program:api]
command=sleep 1000
startsecs=0
[program:web]
command=sleep 1000
process_name=%(program_name)s_%(process_num)02d
numprocs=30
startsecs=0
";

/// A program that repeats each line that it reads.
const ECHO: &str = "\
[program:echo]
command=sh -c \"echo ready; while read line; do echo heard $line; done\"
stdout_logfile=%(here)s/log
stdin=pipe
startsecs=0
";

fn covered(screen: &Screen) -> bool {
    screen.is_covered() && screen.rows()[0].starts_with("taskmaster: ")
}

#[test]
fn top_is_renewed_shows_events_scrolls_and_ends_with_q() {
    let mut screen = Screen::start(HERD);
    screen.until("all are RUNNING", |screen| screen.raw.matches("RUNNING").count() == 31);
    screen.types("top\n");
    screen.until("the view covers the screen", |screen| {
        covered(screen) && screen.rows()[0] == "taskmaster: 31 processes: 31 RUNNING"
    });
    screen.shows("NAME        STATE         PID    CPU%    MEMORY");
    screen.until("the memory of api is shown", |screen| {
        let is_row =
            |row: &String| row.starts_with("api         RUNNING") && (row.contains("KiB") || row.contains("MiB"));
        screen.rows().iter().any(is_row)
    });
    screen.shows("1 to 14 of 31, arrows scroll, q ends the view");
    screen.types(DOWN);
    screen.shows("2 to 15 of 31");
    screen.types(PAGE_DOWN);
    screen.types(PAGE_DOWN);
    screen.shows("18 to 31 of 31");
    // The timer renews the view: the uptime goes on without a key.
    screen.until("the uptime goes on", |screen| screen.rows()[3].contains("0:00:02"));
    // An event is shown below the table, and is in the log after the view.
    signal(screen.pid(), Signal::USR2);
    screen.until("the event is below the table", |screen| {
        let rows = screen.rows();
        covered(screen) && rows[18..].iter().any(|row| row.contains("no output file was renamed"))
    });
    screen.types("q");
    screen.until("the view is over", |screen| !screen.is_covered());
    screen.shows("taskmaster: no output file was renamed");
    screen.prompts("");
    // Other keys end it too, and a smaller terminal gets a smaller view.
    for key in [CTRL_C, CTRL_D] {
        screen.types("top\n");
        screen.until("the view covers the screen", covered);
        screen.types(key);
        screen.until("the view is over", |screen| !screen.is_covered());
        screen.prompts("");
    }
    screen.types("top\n");
    screen.until("the view covers the screen", covered);
    screen.resizes(44, 10);
    screen.until("the view has the new size", |screen| {
        let rows = screen.rows();
        rows.len() == 10 && rows[9].starts_with("1 to 6 of 31") && rows[2].ends_with("UPTIME")
            || rows[2].ends_with("MEMORY")
    });
    // The shutdown ends the view.
    signal(screen.pid(), Signal::TERM);
    assert_eq!(screen.ended(), Some(0));
}

#[test]
fn top_is_one_table_outside_of_a_terminal() {
    let mut herd = Taskmaster::start("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    herd.reached("a:a", "RUNNING");
    assert_eq!(
        herd.ask("top"),
        "NAME  STATE         PID    CPU%    MEMORY  CPU TIME            UPTIME  RESTARTS"
    );
    let row = herd.answer();
    let words: Vec<&str> = row.split_whitespace().collect();
    let pid = herd.pid_of("a:a").to_string();
    assert_eq!(words[..3], ["a", "RUNNING", &pid]);
    assert!(words.contains(&"KiB") || words.contains(&"MiB"), "{row:?}");
    assert_eq!(herd.ask("tail -f a"), "error: tail: a has no log of its stdout");
    herd.shut_down();
}

#[test]
fn the_processor_time_of_a_busy_run_is_shown() {
    let mut screen = Screen::start("[program:busy]\ncommand=sh -c \"while :; do :; done\"\nstartsecs=0\n");
    screen.shows("-> RUNNING");
    screen.types("top\n");
    screen.until("the load is shown", |screen| {
        let rows = screen.rows();
        let words: Vec<&str> = rows[3].split_whitespace().collect();
        covered(screen)
            && words
                .get(3)
                .is_some_and(|load| load.parse::<f64>().is_ok_and(|load| load > 5.0))
    });
    screen.types("q");
    screen.prompts("");
    screen.shut_down();
}

#[test]
fn ctrl_z_leaves_and_takes_up_a_view() {
    with_each_shell(HERD, |mut terminal| {
        terminal.types("\"$T\" herd.conf\n");
        terminal.shows(PROMPT);
        terminal.types("top\n");
        terminal.shows("\x1b[?1049h");
        let taskmaster = terminal.taskmaster();
        terminal.types(CTRL_Z);
        terminal.shows("\x1b[?1049l");
        is_stopped(taskmaster, true);
        terminal.is_the_shells();
        assert!(terminal.has_line_mode());
        terminal.types("fg\n");
        terminal.shows("\x1b[?1049h");
        terminal.types("q");
        terminal.shows("\x1b[?1049l");
        terminal.shows(PROMPT);
        terminal.types(CTRL_C);
        terminal.is_the_shells();
        terminal.close();
    });
}

#[test]
fn a_log_is_followed_until_ctrl_c() {
    let mut screen = Screen::start(ECHO);
    screen.shows("-> RUNNING");
    screen.types("tail -f echo\n");
    screen.shows("==> Press Ctrl-C to exit <==");
    screen.shows("ready");
    // Another process appends a line without its end, and an event does not tear it.
    let log = screen.dir.path("log");
    let append = |text: &str| {
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(&log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("half of a");
    screen.shows("half of a");
    signal(screen.pid(), Signal::USR2);
    screen.shows("taskmaster: no output file was renamed");
    append(" line\n");
    screen.until("both parts are rows", |screen| {
        let rows = screen.rows();
        let is = |text: &str| rows.iter().any(|row| row == text);
        is("half of a") && is(" line")
    });
    // Nothing that is typed here is a command.
    screen.types("stop echo\n");
    screen.types(CTRL_C);
    screen.prompts("");
    assert!(!screen.raw.contains("ok: stop"), "{}", screen.raw);
    screen.enters("tail -5 echo");
    screen.shows("line");
    screen.enters("clear echo");
    screen.shows("ok: echo: cleared");
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    screen.shut_down();
}

#[test]
fn a_process_in_the_foreground_gets_what_is_typed() {
    let mut screen = Screen::start(ECHO);
    screen.shows("-> RUNNING");
    screen.types("fg echo\n");
    screen.shows("==> Press Ctrl-C to exit <==");
    screen.types("good mornning");
    screen.until("the line is shown", |screen| screen.cursor().0 == "good mornning");
    screen.types("\x17morning\n");
    screen.shows("heard good morning");
    screen.types(CTRL_C);
    screen.shows("Exiting foreground");
    screen.prompts("");
    screen.enters("pid echo");
    screen.types("fg echo\n");
    screen.until("it is in the foreground again", |screen| {
        screen.raw.matches("==> Press Ctrl-C to exit <==").count() == 2
    });
    screen.types("once more\n");
    screen.shows("heard once more");
    screen.types(CTRL_D);
    screen.until("the view is over", |screen| {
        screen.raw.matches("Exiting foreground").count() == 2
    });
    screen.prompts("");
    // The end of the process ends the view.
    screen.types("fg echo\n");
    screen.until("it is in the foreground", |screen| {
        screen.raw.matches("==> Press Ctrl-C to exit <==").count() == 3
    });
    let pid = screen
        .raw
        .split("pid ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    signal(pid, Signal::KILL);
    screen.shows("Process got killed");
    screen.prompts("");
    screen.shut_down();
}

#[test]
fn a_process_without_a_pipe_takes_no_line() {
    let mut screen = Screen::with(&Setup {
        config: &ECHO
            .replace("stdin=pipe\n", "autorestart=false\n")
            .replace("echo ready; ", "exec sleep 1000; "),
        ..Setup::default()
    });
    screen.shows("-> RUNNING");
    screen.types("fg echo\nhello\n");
    screen.shows("error: its standard input is not a pipe (stdin=pipe) or is closed");
    screen.prompts("");
    screen.enters("stop echo");
    screen.shows("-> STOPPED");
    screen.enters("fg echo");
    screen.shows("error: fg: echo is not running");
    screen.shut_down();
}

#[test]
fn commands_take_several_names_and_groups_by_one_word() {
    let mut herd = Taskmaster::start(
        "[program:a]\ncommand=sleep 1000\nstartsecs=0\nstdout_logfile=%(here)s/log\n[program:web]\n\
         command=sleep 1000\nprocess_name=%(program_name)s_%(process_num)d\nnumprocs=2\nstartsecs=0\n",
    );
    for process in ["a:a", "web:web_0", "web:web_1"] {
        herd.reached(process, "RUNNING");
    }
    herd.say("status web a nope");
    for name in ["web:web_0 ", "web:web_1 ", "a "] {
        let row = herd.answer();
        assert!(row.starts_with(name), "{row:?}");
    }
    assert_eq!(herd.answer(), "error: there is no process \"nope\"");
    herd.say("pid a web");
    for process in ["a:a", "web:web_0", "web:web_1"] {
        let pid = herd.pid_of(process).to_string();
        assert_eq!(herd.answer(), pid);
    }
    let own = herd.pid().as_raw_nonzero().to_string();
    assert_eq!(herd.ask("pid"), own);
    assert_eq!(herd.ask("stop a web"), "ok: stop a: accepted");
    assert_eq!(herd.answer(), "ok: stop web: 2 accepted");
    for process in ["a:a", "web:web_0", "web:web_1"] {
        herd.reached(process, "STOPPED");
    }
    assert_eq!(herd.ask("pid a"), "0");
    assert_eq!(herd.ask("version"), env!("CARGO_PKG_VERSION"));
    fs::write(herd.dir.path("log"), "one\ntwo\n").unwrap();
    assert_eq!(herd.ask("tail -4 a"), "two");
    assert_eq!(
        herd.ask("tail web"),
        "error: tail: web names 2 processes: choose one of them"
    );
    assert_eq!(herd.ask("clear a web"), "ok: a: cleared");
    assert_eq!(herd.answer(), "ok: web:web_0: cleared");
    assert_eq!(herd.answer(), "ok: web:web_1: cleared");
    assert_eq!(
        herd.ask("maintail"),
        "error: maintail: there is no log file: [supervisord] has no logfile"
    );
    assert_eq!(
        herd.ask("tail -f a"),
        "error: tail: only a terminal can follow a log, because Ctrl-C ends it"
    );
    herd.say("quit");
    assert_eq!(
        herd.answer(),
        "ok: quit: no more commands are read; the programs run until SIGTERM"
    );
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended().code(), Some(0));
}

#[test]
fn the_configuration_is_read_and_applied_by_groups() {
    let program = |name: &str, word: u32| format!("[program:{name}]\ncommand=sleep {word}\nstartsecs=0\n");
    let mut herd = Taskmaster::start(&(program("a", 1000) + &program("b", 1000) + &program("c", 1000)));
    for process in ["a:a", "b:b", "c:c"] {
        herd.reached(process, "RUNNING");
    }
    assert_eq!(herd.ask("reread"), "ok: No config updates to processes");
    assert_eq!(herd.ask("update"), "ok: No config updates to processes");
    let c = herd.pid_of("c:c");
    let changed = program("a", 2000) + &program("b", 2000) + &program("d", 1000);
    fs::write(herd.dir.path("herd.conf"), changed).unwrap();
    assert_eq!(herd.ask("reread"), "ok: a: changed");
    assert_eq!(herd.answer(), "ok: b: changed");
    assert_eq!(herd.answer(), "ok: c: disappeared");
    assert_eq!(herd.answer(), "ok: d: available");
    assert_eq!(
        herd.ask("avail").split_whitespace().collect::<Vec<_>>(),
        ["a", "in", "use", "auto", "999:999"]
    );
    assert!(herd.answer().starts_with("b "));
    assert_eq!(
        herd.answer().split_whitespace().collect::<Vec<_>>(),
        ["d", "avail", "auto", "999:999"]
    );
    // One group is changed, and the others stay.
    assert_eq!(herd.ask("update a"), "ok: a: updated process group");
    herd.reached("a:a", "STOPPING");
    herd.reached("a:a", "RUNNING");
    assert!(herd.ask("status c").contains(&format!("pid {c},")));
    assert_eq!(
        herd.ask("update dd"),
        "error: update: no such group: dd; did you mean \"d\"?"
    );
    assert_eq!(herd.ask("add d"), "ok: d: added process group");
    herd.reached("d:d", "RUNNING");
    assert_eq!(herd.ask("add d"), "error: process group already active: d");
    assert_eq!(herd.ask("add x"), "error: no such process/group: x");
    assert_eq!(herd.ask("remove d"), "error: process/group still running: d");
    assert_eq!(herd.ask("stop d"), "ok: stop d: accepted");
    herd.reached("d:d", "STOPPED");
    assert_eq!(herd.ask("remove d"), "ok: d: removed process group");
    assert_eq!(herd.ask("update"), "ok: c: removed process group");
    assert_eq!(herd.answer(), "ok: b: updated process group");
    assert_eq!(herd.answer(), "ok: d: added process group");
    herd.reached("c:c", "STOPPED");
    herd.reached("d:d", "RUNNING");
    fs::write(herd.dir.path("herd.conf"), "[program:a]\n").unwrap();
    assert!(herd.ask("reread").starts_with("error: reread: nothing is changed: "));
    herd.shut_down();
}
