//! Tests of `reexec`: another program of the taskmaster goes on with the processes, and none of them notices.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{self, processes, root_or_skip, skipped, wait_gone, wait_until};
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo};

const HERD: &str = "\
[program:api]
command=sleep 1000
startsecs=0
[program:web]
command=sleep 1000
process_name=%(program_name)s_%(process_num)d
numprocs=2
startsecs=0
[program:doomed]
command=/no/such/program
startretries=0
[program:idle]
command=sleep 1000
autostart=false
startsecs=0
";

/// Starts a taskmaster in `dir` by a shell command, with default dispositions of signals.
fn by_shell(dir: Dir, script: &str) -> Taskmaster {
    fifo(&dir, "events");
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Taskmaster::run(dir, command)
}

/// Makes another file with the taskmaster's program. `cp` writes it, so that no child of another test has it open for
/// writing.
fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(binary()).arg(to).status().unwrap().success());
}

/// The status without the uptimes.
fn status(herd: &mut Taskmaster, lines: usize) -> Vec<String> {
    let cut = |line: String| line.split(", uptime").next().unwrap_or_default().to_owned();
    herd.status(lines).into_iter().map(cut).collect()
}

/// The same when no process is starting any more.
fn settled(herd: &mut Taskmaster, lines: usize) -> Vec<String> {
    loop {
        let now = status(herd, lines);
        if !now.iter().any(|line| line.contains("STARTING")) {
            return now;
        }
    }
}

fn change(herd: &Taskmaster, config: &str) {
    fs::write(herd.dir.path("herd.conf"), config).unwrap();
}

#[test]
fn processes_states_and_numbers_of_runs_are_kept() {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("web:web_1", "RUNNING");
    herd.reached("doomed:doomed", "FATAL");
    herd.reached("api:api", "RUNNING");
    herd.ask("signal KILL api");
    herd.reached("api:api", "EXITED");
    assert_eq!(herd.reached("api:api", "RUNNING").run, 2);
    herd.ask("scale web 3");
    herd.reached("web:web_2", "RUNNING");
    herd.ask("stop web:web_0");
    herd.reached("web:web_0", "STOPPED");
    let before = status(&mut herd, 6);
    let began = herd.events.last().unwrap().t;
    for _ in 0..3 {
        assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 4 kept");
        assert_eq!(status(&mut herd, 6), before);
    }
    // The events go on in the same file, with the same time and the next runs.
    assert_eq!(herd.ask("restart api"), "ok: restart api: accepted");
    assert!(herd.reached("api:api", "STOPPING").t >= began);
    assert_eq!(herd.reached("api:api", "RUNNING").run, 3);
    assert_eq!(herd.ask("start idle"), "ok: start idle: accepted");
    herd.reached("idle:idle", "RUNNING");
    assert_eq!(herd.ask("scale web 1"), "ok: scale web: from 3 to 1");
    herd.reached("web:web_2", "STOPPED");
    assert!(
        !herd.err.iter().any(|line| line.contains("taskmaster: ")),
        "{}",
        herd.transcript()
    );
    herd.shut_down();
}

#[test]
fn a_signal_does_the_same() {
    let mut herd = Taskmaster::start("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    let pid = herd.reached("a:a", "RUNNING").pid.unwrap();
    for _ in 0..2 {
        herd.signal(Signal::USR1);
        herd.complaint("taskmaster: reexec: 0 added, 0 removed, 1 kept");
    }
    assert!(herd.ask("status a").contains(&format!("pid {pid},")));
    herd.shut_down();
}

#[test]
fn the_program_that_is_on_disk_then_goes_on() {
    for script in [
        "exec ./bin/tm --events events herd.conf",
        "PATH=bin:$PATH; exec tm --events=events ./herd.conf",
        "exec \"$PWD/bin/tm\" --events events -- herd.conf",
    ] {
        let dir = Dir::new();
        // The paths on the command line are relative to the directory of the start.
        let place = "[supervisord]\ndirectory=/\n";
        dir.file(
            "herd.conf",
            &format!("{place}[program:a]\ncommand=sleep 1000\nstartsecs=0\n"),
        );
        fs::create_dir(dir.path("bin")).unwrap();
        let (program, next) = (dir.path("bin/tm"), dir.path("bin/next"));
        copy_program(&program);
        let mut herd = by_shell(dir, script);
        let pid = herd.reached("a:a", "RUNNING").pid.unwrap();
        for _ in 0..2 {
            copy_program(&next);
            fs::rename(&next, &program).unwrap();
            let running = || fs::metadata(format!("/proc/{}/exe", herd.pid())).unwrap().ino();
            let installed = fs::metadata(&program).unwrap().ino();
            assert_ne!(running(), installed);
            assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 1 kept", "{script}");
            let running = fs::metadata(format!("/proc/{}/exe", herd.pid())).unwrap().ino();
            assert_eq!(running, installed, "{script}");
        }
        assert!(herd.ask("status a").contains(&format!("pid {pid},")));
        assert_eq!(
            herd.ask("reload"),
            "ok: reload: 0 added, 0 removed, 0 changed, 1 unchanged"
        );
        herd.shut_down();
    }
}

#[test]
fn without_a_program_or_a_configuration_the_old_one_goes_on() {
    let dir = Dir::new();
    dir.file("herd.conf", HERD);
    let program = dir.path("tm");
    copy_program(&program);
    let mut herd = by_shell(dir, "exec ./tm --events events herd.conf");
    herd.reached("web:web_1", "RUNNING");
    herd.reached("doomed:doomed", "FATAL");
    let before = settled(&mut herd, 5);
    let refused = |herd: &mut Taskmaster, word: &str| {
        let answer = herd.ask("reexec");
        assert!(answer.starts_with("error: ") && answer.contains(word), "{answer}");
        herd.signal(Signal::USR1);
        let note = herd.complaint("taskmaster: reexec: ");
        assert!(note.contains(word), "{note}");
        assert_eq!(status(herd, 5), before);
    };
    for (config, word) in [
        ("[program:api]\n", "nothing is changed: herd.conf: "),
        (
            "[supervisord]\numask=077\n[program:api]\ncommand=sleep 1000\n",
            "requires a restart",
        ),
        (
            "[program:api]\ncommand=sleep 1000\ncgroup=/no/such/directory\n",
            "nothing is changed",
        ),
    ] {
        change(&herd, config);
        refused(&mut herd, word);
    }
    fs::remove_file(herd.dir.path("herd.conf")).unwrap();
    refused(&mut herd, "cannot read");
    change(&herd, HERD);
    let away = herd.dir.path("away");
    fs::rename(&program, &away).unwrap();
    refused(&mut herd, "execve: No such file or directory");
    fs::write(&program, "no program\n").unwrap();
    refused(&mut herd, "execve: Permission denied");
    fs::rename(&away, &program).unwrap();
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 4 kept");
    assert_eq!(status(&mut herd, 5), before);
    herd.shut_down();
}

#[test]
fn the_configuration_that_is_on_disk_then_applies() {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("api:api", "RUNNING");
    herd.reached("doomed:doomed", "FATAL");
    let web = herd.reached("web:web_1", "RUNNING").pid;
    let web = (herd.pid_of("web:web_0"), web.unwrap());
    let config = "\
        [program:fresh]\ncommand=sleep 1000\nstartsecs=0\n\
        [program:web]\ncommand=sleep 2000\nprocess_name=%(program_name)s_%(process_num)d\nnumprocs=3\nstartsecs=0\n\
        [program:later]\ncommand=sleep 1000\nautostart=false\n\
        [program:idle]\ncommand=sleep 1000\nstartsecs=0\n";
    change(&herd, config);
    assert_eq!(herd.ask("reexec"), "ok: reexec: 2 added, 2 removed, 2 kept");
    let stopped = herd.reached("api:api", "STOPPED");
    assert_eq!(stopped.exit, serde_json::json!({"signal": "SIGTERM", "core": false}));
    for process in ["fresh:fresh", "web:web_2", "idle:idle"] {
        herd.reached(process, "RUNNING");
    }
    let lines = status(&mut herd, 6);
    let names: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["fresh", "idle", "later", "web:web_0", "web:web_1", "web:web_2"]);
    assert!(lines[2].ends_with("not started"), "{lines:?}");
    assert!(lines[3].ends_with(&format!("pid {}", web.0)) && lines[4].ends_with(&format!("pid {}", web.1)));
    // The new command applies at the next start.
    let command = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command(web.0), b"sleep\x001000\x00");
    herd.ask("restart web:web_0");
    herd.reached("web:web_0", "STOPPING");
    herd.reached("web:web_0", "RUNNING");
    assert_eq!(command(herd.pid_of("web:web_0")), b"sleep\x002000\x00");
    herd.shut_down();
}

#[test]
fn a_program_that_is_being_removed_keeps_its_name_until_it_is_gone() {
    let stubborn = "[program:s]\ncommand=sh -c \"trap '' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
        stderr_logfile=/dev/stderr\nstartsecs=0\nstopwaitsecs=1000\nkillasgroup=true\n";
    let other = "[program:o]\ncommand=sleep 1000\nstartsecs=0\n";
    let mut herd = Taskmaster::start(&format!("{stubborn}{other}"));
    herd.complaint("ready");
    herd.reached("o:o", "RUNNING");
    herd.reached("s:s", "RUNNING");
    let pid = herd.pid_of("s:s");
    change(&herd, other);
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 1 removed, 1 kept");
    herd.reached("s:s", "STOPPING");
    assert!(herd.ask("status s").contains(&format!("pid {pid},")));
    assert_eq!(
        herd.ask("start s"),
        "error: the program is no longer in the configuration"
    );
    // It comes back while its old process is still there, and waits for the end of it.
    change(&herd, &format!("{stubborn}{other}"));
    assert_eq!(herd.ask("reexec"), "ok: reexec: 1 added, 0 removed, 1 kept");
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 2 kept");
    let lines = status(&mut herd, 3);
    assert!(
        lines[1].starts_with("s") && lines[1].ends_with("not started"),
        "{lines:?}"
    );
    assert!(
        lines[2].contains("STOPPING") && lines[2].ends_with(&format!("pid {pid}")),
        "{lines:?}"
    );
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    herd.reached("s:s", "STOPPED");
    assert_eq!(herd.reached("s:s", "RUNNING").run, 1);
    herd.complaint("ready");
    herd.ask("signal KILL s");
    herd.reached("s:s", "EXITED");
    herd.complaint("ready");
    herd.say("shutdown");
    herd.reached("s:s", "STOPPING");
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended_among_orphans().code(), Some(1));
}

#[test]
fn no_command_and_no_answer_is_lost() {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("doomed:doomed", "FATAL");
    // The answers fill the pipe, and the rest of them and of the commands is handed over, with a half line at the end.
    let help = "help\n".repeat(500);
    let lines = format!("{help}reexec\nstatus idle\n{help}reexec\nstatus id");
    herd.read_later(lines.as_bytes());
    let mut help = vec![herd.answer()];
    while !help.last().unwrap().starts_with("A NAME") {
        help.push(herd.answer());
    }
    for _ in 1..500 {
        help.iter().for_each(|line| assert_eq!(herd.answer(), *line));
    }
    assert_eq!(herd.answer(), "ok: reexec: 0 added, 0 removed, 4 kept");
    assert!(herd.answer().starts_with("idle"));
    for _ in 0..500 {
        help.iter().for_each(|line| assert_eq!(herd.answer(), *line));
    }
    assert_eq!(herd.answer(), "ok: reexec: 0 added, 0 removed, 4 kept");
    assert!(herd.ask("le").starts_with("idle"));
    herd.shut_down();
}

#[test]
fn a_standard_input_that_has_ended_stays_so() {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("doomed:doomed", "FATAL");
    herd.write(b"reexec\nstatus idle");
    herd.close_stdin();
    assert_eq!(herd.answer(), "ok: reexec: 0 added, 0 removed, 4 kept");
    assert!(herd.answer().starts_with("idle"), "the last line needs no newline");
    herd.signal(Signal::USR1);
    herd.complaint("4 kept");
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended().code(), Some(0));
}

#[test]
fn what_applies_to_the_process_and_to_later_programs_stays() {
    let dir = Dir::new();
    let limits = "sh -c \"ulimit -n >> %(here)s/limits; exec sleep 1000\"";
    dir.file(
        "herd.conf",
        &format!(
            "[supervisord]\npidfile=%(here)s/pid\nchildlogdir=%(here)s\numask=027\n\
             [program:a]\ncommand={limits}\nstartsecs=0\n\
             [program:b]\ncommand=sh -c \"echo talk; exec sleep 1000\"\nstartsecs=0\nstdout_logfile=AUTO\n"
        ),
    );
    let logs = |herd: &Taskmaster| {
        let names = fs::read_dir(herd.dir.path("."))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut logs: Vec<_> = names
            .filter(|path| path.to_string_lossy().contains("b-stdout---"))
            .collect();
        logs.sort();
        logs
    };
    copy_program(&dir.path("tm"));
    let mut herd = by_shell(dir, "ulimit -Sn 200; exec ./tm --events events herd.conf");
    herd.reached("a:a", "RUNNING");
    herd.reached("b:b", "RUNNING");
    let log = logs(&herd);
    assert_eq!(log.len(), 1);
    common::wait_for_content(&log[0], PATIENCE, |text| text == "talk\n");
    let written = fs::read_to_string(herd.dir.path("pid")).unwrap();
    assert_eq!(written.trim(), herd.pid().as_raw_nonzero().to_string());
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 2 kept");
    assert_eq!(fs::read_to_string(herd.dir.path("pid")).unwrap(), written);
    herd.ask("restart all");
    for process in ["a:a", "b:b"] {
        herd.reached(process, "STOPPING");
        herd.reached(process, "RUNNING");
    }
    common::wait_for_content(&herd.dir.path("limits"), PATIENCE, |text| text == "200\n200\n");
    common::wait_for_content(&log[0], PATIENCE, |text| text == "talk\ntalk\n");
    assert_eq!(logs(&herd), log);
    let environment = fs::read(format!("/proc/{}/environ", herd.pid_of("a:a"))).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("HAND_OVER"));
    let pid_file = herd.dir.path("pid");
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0));
    assert!(!pid_file.exists());
}

#[test]
fn a_renamed_event_file_is_written_until_it_is_reopened() {
    let dir = Dir::new();
    let config = dir.file("herd.conf", HERD);
    let (events, old) = (dir.path("events.jsonl"), dir.path("old.jsonl"));
    let mut command = Command::new(binary());
    command.arg("--events").arg(&events).arg(config);
    let mut herd = Taskmaster::run(dir, command);
    herd.complaint("web:web_1");
    common::wait_for_content(&events, PATIENCE, |text| text.contains("FATAL"));
    fs::rename(&events, &old).unwrap();
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 4 kept");
    herd.ask("start idle");
    common::wait_for_content(&old, PATIENCE, |text| text.contains("idle:idle"));
    assert!(!events.exists());
    herd.signal(Signal::USR2);
    herd.complaint("the event file was reopened as");
    herd.shut_down();
}

#[test]
fn a_shutdown_is_not_interrupted() {
    let mut herd = Taskmaster::start(
        "[program:s]\ncommand=sh -c \"trap '' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
         stderr_logfile=/dev/stderr\nstartsecs=0\nstopwaitsecs=1000\nkillasgroup=true\n",
    );
    herd.complaint("ready");
    assert_eq!(herd.ask("shutdown"), "ok: shutdown: started");
    assert_eq!(herd.ask("reexec"), "error: shutting down: no other program takes over");
    herd.signal(Signal::USR1);
    herd.complaint("reexec: shutting down");
    herd.ask("signal KILL s");
    assert_eq!(herd.ended_among_orphans().code(), Some(0));
}

#[test]
fn a_subreaper_goes_on_to_reap_orphans() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        "[program:a]\nstartsecs=0\n\
         command=sh -c \"(sh -c 'echo $$ > %(here)s/orphan; read x < %(here)s/leave' &); exec sleep 1000\"\n",
    );
    fifo(&dir, "events");
    let leave = fifo(&dir, "leave");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let adopt = || Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?);
    // SAFETY: between fork and exec the hook makes only system calls.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, adopt) };
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    let orphan = common::wait_for_content(&herd.dir.path("orphan"), PATIENCE, |text| text.ends_with('\n'));
    let orphan: u32 = orphan.trim().parse().unwrap();
    assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 1 kept");
    fs::write(leave, "now\n").unwrap();
    assert!(wait_gone(orphan, PATIENCE));
    wait_until("the orphan is reaped", PATIENCE, || processes::state(orphan).is_none());
    assert!(!herd.err.iter().any(|line| line.contains("not adopted")));
    herd.shut_down_among_orphans();
}

#[test]
fn the_demonstration_goes_on_too() {
    let mut tour = Taskmaster::spawn(Dir::new(), &[]);
    tour.reached("api:api", "RUNNING");
    let pid = tour.pid_of("api:api");
    tour.say("reexec");
    while tour.answer() != "ok: reexec: 0 added, 0 removed, 5 kept" {}
    tour.say("status api");
    while !tour.answer().contains(&format!("pid {pid},")) {}
    // A step of the tour.
    while !tour.answer().starts_with("> status") {}
    tour.say("shutdown");
    assert_eq!(tour.ended().code(), Some(0), "{}", tour.transcript());
}

#[test]
fn memory_files_may_be_restricted() {
    const SETTING: &str = "/proc/sys/vm/memfd_noexec";
    if !root_or_skip("it makes a PID namespace") {
        return;
    }
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "--", "sh", "-c"];
    // The setting is that of the namespace.
    let probe = Command::new("unshare")
        .args(unshare)
        .arg(format!("echo 2 > {SETTING}"))
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return skipped("the setting vm.memfd_noexec cannot be changed in a PID namespace");
    }
    for setting in [1, 2] {
        let dir = Dir::new();
        dir.file("herd.conf", "[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
        fifo(&dir, "events");
        let mut command = Command::new("unshare");
        command.args(unshare);
        command.arg(format!(
            "echo {setting} > {SETTING}; exec \"$0\" --events events herd.conf"
        ));
        command.arg(binary());
        let mut herd = Taskmaster::run(dir, command);
        let pid = herd.reached("a:a", "RUNNING").pid.unwrap();
        assert_eq!(herd.ask("reexec"), "ok: reexec: 0 added, 0 removed, 1 kept");
        assert!(herd.ask("status a").contains(&format!("pid {pid},")));
        herd.shut_down_among_orphans();
    }
}

#[test]
fn a_taskmaster_that_was_killed_is_continued_by_the_next_one() {
    if cfg!(pidherd_portable) {
        return skipped("without clone3 a birth is not stored by the kernel");
    }
    let dir = Dir::new();
    let config = dir.file("herd.conf", HERD);
    let state = dir.path("state");
    fifo(&dir, "events");
    let command = |events: &Path| {
        let mut command = Command::new(binary());
        command
            .arg("--events")
            .arg(events)
            .arg("--state")
            .arg(&state)
            .arg(&config);
        command
    };
    let first = command(&dir.path("events"));
    let mut herd = Taskmaster::run(dir, first);
    herd.reached("web:web_1", "RUNNING");
    herd.reached("api:api", "RUNNING");
    herd.ask("restart api");
    herd.reached("api:api", "STOPPING");
    herd.reached("api:api", "RUNNING");
    let pids = ["api:api", "web:web_0", "web:web_1"].map(|name| herd.pid_of(name));
    herd.signal(Signal::KILL);
    assert!(!herd.ended_among_orphans().success());
    let second = Dir::new();
    fifo(&second, "events");
    let next = command(&second.path("events"));
    let mut next = Taskmaster::run(second, next);
    next.complaint("4 of 4 programs were found again");
    let lines = status(&mut next, 5);
    for pid in pids {
        assert!(
            lines.iter().any(|line| line.contains(&pid.to_string())),
            "{pid}: {lines:?}"
        );
    }
    next.ask("restart web:*");
    next.reached("web:web_0", "RUNNING");
    next.shut_down_among_orphans();
}
