//! Tests of the commands on standard input and of their answers.

use rustix::process::Signal;

use crate::driver::{HERD, Taskmaster, fifo};

/// A herd of which all but `idle` are running.
fn herd() -> Taskmaster {
    let mut herd = Taskmaster::start(HERD);
    for process in ["api:api", "web:web_0", "web:web_1", "web:web_2"] {
        herd.reached(process, "RUNNING");
    }
    herd
}

#[test]
fn status_shows_name_state_and_detail() {
    let mut herd = herd();
    let lines = herd.status(5);
    let columns: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<(&str, &str)> = columns.iter().map(|words| (words[0], words[1])).collect();
    assert_eq!(
        names,
        [
            ("api", "RUNNING"),
            ("idle", "STOPPED"),
            ("web:web_0", "RUNNING"),
            ("web:web_1", "RUNNING"),
            ("web:web_2", "RUNNING")
        ]
    );
    let pid = herd.pid_of("api:api").to_string();
    assert_eq!(columns[0][2..], ["pid", &format!("{pid},"), "uptime", "0:00:00"]);
    assert_eq!(columns[1][2..], ["not", "started"]);
    assert!(herd.ask("status api").starts_with("api   RUNNING "));
    herd.say("status web:*");
    assert!((0..3).all(|_| herd.answer().starts_with("web:web_")));
    herd.shut_down();
}

#[test]
fn a_bad_command_gets_one_line_and_changes_nothing() {
    let mut herd = herd();
    for (line, answer) in [
        ("dance", "error: unknown command \"dance\", try help"),
        ("stauts", "error: unknown command \"stauts\"; did you mean \"status\"?"),
        ("start", "error: usage: start NAME..."),
        ("start missing", "error: there is no process \"missing\""),
        ("stop missing:*", "error: there is no group \"missing\""),
        ("status missing", "error: there is no process \"missing\""),
        (
            "restart wbe",
            "error: there is no process \"wbe\"; did you mean \"web\"?",
        ),
        ("stop aip", "error: there is no process \"aip\"; did you mean \"api\"?"),
        ("signal NOPE api", "error: there is no signal \"NOPE\""),
        ("signal HUP missing", "error: there is no process \"missing\""),
        ("signal HUP idle", "error: idle is not running"),
        ("scale missing 3", "error: there is no group \"missing\""),
        ("scale web none", "error: \"none\" is not a number of instances"),
        (
            "scale api 2",
            "error: api can't be scaled: its process_name has no %(process_num)d in it",
        ),
    ] {
        assert_eq!(herd.ask(line), answer, "{line}");
    }
    assert_eq!(herd.events.len(), 8, "{}", herd.transcript());
    herd.shut_down();
}

#[test]
fn a_process_is_started_stopped_and_restarted() {
    let mut herd = herd();
    assert_eq!(herd.ask("start idle"), "ok: start idle: accepted");
    let first = herd.reached("idle:idle", "RUNNING").pid;
    assert_eq!(herd.ask("start idle"), "ok: start idle: already up");
    assert_eq!(herd.ask("restart idle:idle"), "ok: restart idle:idle: accepted");
    herd.reached("idle:idle", "STOPPING");
    let second = herd.reached("idle:idle", "RUNNING").pid;
    assert_ne!(first, second);
    assert_eq!(herd.ask("stop idle"), "ok: stop idle: accepted");
    herd.reached("idle:idle", "STOPPED");
    assert_eq!(herd.ask("stop idle"), "ok: stop idle: already down");
    assert_eq!(herd.ask("status idle"), "idle   STOPPED    killed by SIGTERM");
    assert_eq!(herd.ask("restart idle"), "ok: restart idle: accepted");
    herd.reached("idle:idle", "RUNNING");
    herd.shut_down();
}

#[test]
fn a_command_for_a_group_or_all_applies_to_each_process() {
    let mut herd = herd();
    assert_eq!(herd.ask("stop web:web_1"), "ok: stop web:web_1: accepted");
    herd.reached("web:web_1", "STOPPED");
    assert_eq!(herd.ask("stop web:*"), "ok: stop web:*: 2 accepted, 1 already down");
    herd.reached("web:web_0", "STOPPED");
    herd.reached("web:web_2", "STOPPED");
    assert_eq!(herd.ask("start all"), "ok: start all: 4 accepted, 1 already up");
    herd.reached("idle:idle", "RUNNING");
    assert_eq!(herd.ask("stop all"), "ok: stop all: 5 accepted");
    herd.reached("api:api", "STOPPED");
    herd.shut_down();
}

#[test]
fn a_start_during_a_stop_is_remembered() {
    let mut herd = Taskmaster::start(
        "[program:slow]\ncommand=sh -c \"trap 'read x < leave; exit 0' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
         stderr_logfile=/dev/stderr\nstartsecs=0\nkillasgroup=true\n",
    );
    let leave = fifo(&herd.dir, "leave");
    herd.complaint("ready");
    assert_eq!(herd.ask("stop slow"), "ok: stop slow: accepted");
    herd.reached("slow:slow", "STOPPING");
    assert_eq!(herd.ask("start slow"), "ok: start slow: queued");
    std::fs::write(leave, "now\n").unwrap();
    let again = herd.reached("slow:slow", "STARTING");
    assert_eq!((again.from.as_str(), again.run), ("STOPPING", 2));
    assert!(!herd.states("slow:slow").contains(&"STOPPED".to_owned()));
    herd.ask("signal KILL slow");
    herd.shut_down_among_orphans();
}

#[test]
fn a_signal_reaches_only_its_targets() {
    let mut herd = herd();
    assert_eq!(
        herd.ask("signal USR1 web:web_0"),
        "ok: signal SIGUSR1 web:web_0: accepted"
    );
    let ended = herd.reached("web:web_0", "EXITED");
    assert_eq!(ended.exit, serde_json::json!({"signal": "SIGUSR1", "core": false}));
    herd.reached("web:web_0", "RUNNING");
    assert_eq!(herd.ask("signal 0 api"), "error: there is no signal \"0\"");
    assert_eq!(
        herd.ask("signal sigcont all"),
        "ok: signal SIGCONT all: 4 accepted, 1 not running"
    );
    herd.shut_down();
}

#[test]
fn scaling_keeps_the_pids_of_the_remaining_instances() {
    let mut herd = herd();
    let pids: Vec<u32> = (0..3).map(|number| herd.pid_of(&format!("web:web_{number}"))).collect();
    assert_eq!(herd.ask("scale web 5"), "ok: scale web: from 3 to 5");
    herd.reached("web:web_3", "RUNNING");
    herd.reached("web:web_4", "RUNNING");
    assert_eq!(herd.ask("scale web:* 2"), "ok: scale web:*: from 5 to 2");
    for gone in ["web:web_4", "web:web_3", "web:web_2"] {
        herd.reached(gone, "STOPPED");
    }
    assert_eq!(herd.ask("status web:web_2"), "error: there is no process \"web:web_2\"");
    herd.say("status web:*");
    for pid in &pids[..2] {
        assert!(herd.answer().contains(&format!("pid {pid},")));
    }
    // A program without processes stays, and can be scaled up again.
    assert_eq!(herd.ask("scale web 0"), "ok: scale web: from 2 to 0");
    for gone in ["web:web_1", "web:web_0"] {
        herd.reached(gone, "STOPPED");
    }
    assert_eq!(herd.ask("status web:*"), "error: there is no group \"web\"");
    let reloaded = "ok: reload: 0 added, 0 removed, 0 changed, 3 unchanged";
    assert_eq!(herd.ask("reload"), reloaded);
    assert_eq!(herd.ask("scale web 1"), "ok: scale web: from 0 to 1");
    herd.reached("web:web_0", "RUNNING");
    herd.shut_down();
}

#[test]
fn an_instance_that_is_being_removed_keeps_its_name() {
    let mut herd = Taskmaster::start(
        "[program:web]\ncommand=sh -c \"trap '' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
         process_name=w%(process_num)d\nnumprocs=2\nstderr_logfile=/dev/stderr\nstartsecs=0\nstopwaitsecs=1000\n\
         killasgroup=true\n",
    );
    (0..2).for_each(|_| drop(herd.complaint("ready")));
    assert_eq!(herd.ask("scale web 1"), "ok: scale web: from 2 to 1");
    herd.reached("web:w1", "STOPPING");
    for verb in ["start", "restart"] {
        assert_eq!(
            herd.ask(&format!("{verb} web:w1")),
            "error: web:w1 is being stopped for good: its program was scaled down"
        );
    }
    assert_eq!(herd.ask("start web:*"), "ok: start web:*: already up");
    assert_eq!(herd.ask("signal KILL web:w1"), "ok: signal SIGKILL web:w1: accepted");
    herd.reached("web:w1", "STOPPED");
    assert_eq!(herd.ask("start web:w1"), "error: there is no process \"web:w1\"");
    assert_eq!(herd.ask("signal KILL web:w0"), "ok: signal SIGKILL web:w0: accepted");
    herd.reached("web:w0", "EXITED");
    // Before the trap is set, SIGTERM would end the next run.
    herd.complaint("ready");
    herd.say("shutdown");
    herd.reached("web:w0", "STOPPING");
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended().code(), Some(1));
}

#[test]
fn a_group_may_contain_several_programs() {
    let mut herd = Taskmaster::start(
        "[group:g]\nprograms=a,b,b2\n[program:b2]\ncommand=sleep 1000\nautostart=false\n[program:a]\ncommand=sleep 1000\nstartsecs=0\n\
         [program:b]\ncommand=sleep 1000\nprocess_name=b%(process_num)d\nnumprocs=2\nstartsecs=0\n",
    );
    for process in ["g:a", "g:b0", "g:b1"] {
        herd.reached(process, "RUNNING");
    }
    assert_eq!(
        herd.ask("status a"),
        "error: there is no process \"a\", but there is \"g:a\""
    );
    assert_eq!(
        herd.ask("scale g 3"),
        "error: the group \"g\" has several programs: scale one of them by its name"
    );
    assert_eq!(herd.ask("scale b 3"), "error: there is a process \"g:b2\" already");
    assert_eq!(herd.ask("scale b 1"), "ok: scale b: from 2 to 1");
    herd.reached("g:b1", "STOPPED");
    assert_eq!(herd.ask("stop g:*"), "ok: stop g:*: 2 accepted, 1 already down");
    herd.reached("g:a", "STOPPED");
    herd.shut_down();
}

#[test]
fn help_names_every_command() {
    let mut herd = herd();
    herd.say("help");
    herd.say("status idle");
    let mut text = String::new();
    loop {
        let line = herd.answer();
        if line.starts_with("idle ") {
            break;
        }
        text.push_str(&line);
    }
    for command in [
        "status", "start", "stop", "restart", "signal", "scale", "pid", "top", "tail", "maintail", "fg", "clear",
        "avail", "reread", "update", "add", "remove", "reload", "reexec", "shutdown", "quit", "exit", "version",
        "help",
    ] {
        assert!(text.contains(command), "{command}");
    }
    assert!(herd.ask("help stop").starts_with("stop NAME...: stop processes"));
    herd.shut_down();
}
