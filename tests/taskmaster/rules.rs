//! The keys about restarts, ends by time, stops, and the commands around a run.

use std::fs;

use crate::common::test_cgroup;
use crate::driver::{Taskmaster, refused};

fn program(name: &str, script: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=sh -c \"{script}\"\nstderr_logfile=/dev/stderr\nstartsecs=0\n{more}")
}

#[test]
fn some_exits_are_never_followed_by_a_restart_and_some_always() {
    let config = [
        program("never", "exit 78", "autorestart=true\nprevent_restart=78\n"),
        program(
            "again",
            "read go < go; exit 75",
            "autorestart=false\nforce_restart=75\n",
        ),
        program(
            "killed",
            "kill -TERM $$; sleep 1000",
            "autorestart=unexpected\nexpected_signals=TERM\n",
        ),
        program(
            "early",
            "exit 78",
            "startsecs=100\nprevent_restart=1,78\nstartretries=50\n",
        ),
    ];
    let mut herd = Taskmaster::start_with_fifos(&config.concat(), &["go"]);
    let go = herd.dir.path("go");
    assert_eq!(herd.reached("never:never", "EXITED").run, 1);
    let killed = herd.reached("killed:killed", "EXITED");
    assert_eq!(
        (killed.run, killed.cause.as_str()),
        (1, "killed by SIGTERM, as expected")
    );
    let early = herd
        .events
        .iter()
        .rfind(|event| event.process == "early:early")
        .cloned();
    let early = early.unwrap_or_else(|| herd.reached("early:early", "FATAL"));
    assert_eq!(early.run, 1, "{early:?}");
    herd.reached("again:again", "RUNNING");
    fs::write(go, "now\n").unwrap();
    assert_eq!(herd.reached("again:again", "RUNNING").run, 2);
    herd.shut_down();
}

#[test]
fn the_crash_budget_and_the_delays_are_those_of_the_file() {
    let config = program(
        "a",
        "exit 3",
        "autorestart=true\ncrash_budget=2/100\nrestart_delay=exponential 0.2 0.3\njitter=0\n",
    );
    let mut herd = Taskmaster::start(&config);
    let fatal = herd.reached("a:a", "FATAL");
    assert_eq!((fatal.run, fatal.cause.as_str()), (3, "crashed too often"));
    let starts: Vec<f64> = herd
        .events
        .iter()
        .filter(|event| event.to == "STARTING")
        .map(|event| event.t)
        .collect();
    assert_eq!(starts.len(), 3, "{}", herd.transcript());
    assert!(
        starts[1] - starts[0] > 0.19 && starts[2] - starts[1] > 0.29,
        "{starts:?}"
    );
    herd.shut_down();
}

#[test]
fn a_run_ends_when_its_time_is_over() {
    let trap = "trap 'echo asked >&2' QUIT; while :; do sleep 0.05; done";
    let config = program(
        "a",
        trap,
        "runsecs=0.3\nstopsteps=QUIT 0.2, TERM 10\nautorestart=true\n",
    );
    let mut herd = Taskmaster::start(&config);
    let spawned = herd.reached("a:a", "STARTING");
    let stopping = herd.reached("a:a", "STOPPING");
    assert!(stopping.t - spawned.t > 0.29, "{stopping:?}");
    herd.complaint("asked");
    assert_eq!(herd.reached("a:a", "RUNNING").run, 2);
    herd.shut_down();
}

#[test]
fn a_command_stops_the_program_before_any_signal_does() {
    let trap = "trap 'echo signalled >>told; exit 1' TERM; trap 'echo drained >>told; exit 0' USR1; echo up >&2; \
        while :; do sleep 0.05; done";
    let more = "stop_command=sh -c \"echo asks $PIDHERD_INSTANCE $MARK >>told; \
        test ! -e broken && kill -USR1 $MAINPID\"\nstop_secs=20\nstopsteps=command 20, TERM 20\nenvironment=MARK=mine\n";
    let mut herd = Taskmaster::start(&program("a", trap, more));
    let told = herd.dir.path("told");
    herd.complaint("up");
    assert!(herd.ask("stop a").starts_with("ok: "));
    herd.complaint("a: stop_command has begun, pid ");
    herd.complaint("a: stop_command: succeeded");
    herd.reached("a:a", "STOPPED");
    assert_eq!(fs::read_to_string(&told).unwrap(), "asks 0 mine\ndrained\n");
    // After a command that fails, the signal follows at once.
    fs::write(herd.dir.path("broken"), "").unwrap();
    fs::remove_file(&told).unwrap();
    assert!(herd.ask("start a").starts_with("ok: "));
    herd.complaint("up");
    assert!(herd.ask("stop a").starts_with("ok: "));
    herd.complaint("a: stop_command: exited with code 1");
    herd.reached("a:a", "STOPPED");
    assert_eq!(fs::read_to_string(&told).unwrap(), "asks 0 mine\nsignalled\n");
    herd.shut_down();
}

#[test]
fn commands_run_before_and_after_each_run() {
    let more = "before_command=sh -c \"echo before $PIDHERD_INSTANCE $MARK >&2; test ! -e broken\"\nbefore_secs=20\n\
        after_command=sh -c \"echo after $SERVICE_RESULT $EXIT_STATUS >&2\"\nenvironment=MARK=mine\nstartretries=0\n";
    let mut herd = Taskmaster::start(&program("a", "exec sleep 1000", more));
    herd.complaint("before 0 mine");
    herd.reached("a:a", "RUNNING");
    assert!(herd.ask("stop a").starts_with("ok: "));
    herd.complaint("after success TERM");
    herd.reached("a:a", "STOPPED");
    fs::write(herd.dir.path("broken"), "").unwrap();
    assert!(herd.ask("start a").starts_with("ok: "));
    herd.reached("a:a", "FATAL");
    herd.complaint("after exit-code 1");
    herd.shut_down();
}

#[test]
fn a_restart_takes_down_as_many_processes_as_the_file_allows() {
    let more = "process_name=a_%(process_num)d\nnumprocs=4\nrolling=1\n";
    let mut herd = Taskmaster::start(&program("a", "exec sleep 1000", more));
    for number in 0..4 {
        herd.reached(&format!("a:a_{number}"), "RUNNING");
    }
    let before = herd.events.len();
    let answer = herd.ask("restart a:*");
    assert!(answer.starts_with("ok: restart a:*: "), "{answer}");
    herd.complaint("a: all processes were restarted");
    for number in 0..4 {
        herd.reached(&format!("a:a_{number}"), "RUNNING");
    }
    let mut down: i32 = 0;
    for event in &herd.events[before..] {
        match event.to.as_str() {
            "STOPPING" => down += 1,
            "RUNNING" => down -= 1,
            _ => {}
        }
        assert!(down <= 1, "{}", herd.transcript());
    }
    herd.shut_down();
}

#[test]
fn a_hung_process_gets_the_signal_of_the_watchdog() {
    let script = "trap 'echo aborted >&2; exit 1' ABRT; systemd-notify --ready; while :; do sleep 0.05; done";
    let notify = std::process::Command::new("systemd-notify").arg("--version").output();
    if !notify.is_ok_and(|output| output.status.success()) {
        return crate::common::skipped("there is no systemd-notify");
    }
    let more = "readiness=notify\nwatchdogsecs=0.5\nwatchdog_stopsignal=ABRT\nautorestart=false\n";
    let mut herd = Taskmaster::start(&program("a", script, more));
    assert_eq!(herd.reached("a:a", "STOPPING").cause, "watchdog missed");
    herd.complaint("aborted");
    herd.reached("a:a", "EXITED");
    herd.shut_down();
}

#[test]
fn limits_are_files_of_the_cgroup() {
    let Some(cgroup) = test_cgroup() else { return };
    let path = cgroup.path().display();
    // This file needs no controller.
    let config = program(
        "a",
        "exec sleep 1000",
        &format!("cgroup={path}\ncgroup.max.depth=3\nnice=5\n"),
    );
    let mut herd = Taskmaster::start(&config);
    herd.reached("a:a", "RUNNING");
    let file = cgroup.path().join("a-0/cgroup.max.depth");
    let pid = herd.pid_of("a:a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "3\n");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(
        stat.rsplit(") ").next().unwrap().split(' ').nth(16),
        Some("5"),
        "{stat}"
    );
    // A reload changes the living process.
    let changed = fs::read_to_string(herd.dir.path("herd.conf"))
        .unwrap()
        .replace("depth=3", "depth=4");
    fs::write(herd.dir.path("herd.conf"), changed).unwrap();
    assert!(herd.ask("reload").contains("1 changed"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "4\n");
    assert_eq!(herd.pid_of("a:a"), pid);
    herd.shut_down();
    for (key, word) in [
        ("cgroup.no-such-file=1", "no-such-file"),
        ("pids.max=0", "pids.max"),
        ("memory.max=lots", "number of bytes"),
    ] {
        let errors = refused(&program("a", "exec sleep 1000", &format!("cgroup={path}\n{key}\n")));
        assert!(errors.contains(word), "{key}: {errors}");
    }
}
