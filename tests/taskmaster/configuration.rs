//! The configuration and the command line: what is refused before anything starts, and that what is
//! accepted reaches the processes.

use std::ffi::OsStr;
use std::fs;

use crate::driver::{Dir, Taskmaster, aloud, refused, run_to_end};

#[test]
fn a_bad_value_names_section_key_and_value_and_starts_nothing() {
    for line in [
        "startsecs=soon",
        "stopsignal=SIGNOPE",
        "numprocs=0",
        "umask=9",
        "user=no-such-user",
        "exitcodes=256",
        "readiness=eventually",
        "readiness=fd:2",
        "readysecs=0",
        "watchdogsecs=5",
        "cgroup=relative",
    ] {
        let (key, value) = line.split_once('=').unwrap();
        let errors = refused(&format!("[program:web]\ncommand=true\n{line}\n"));
        assert_eq!(errors.lines().count(), 1, "{errors}");
        for part in ["herd.conf", "[program:web]", key, value] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let errors = refused("[program:web]\ncommand=\nstartsecs=x\n[group:g]\nprograms=nobody\n[program:db]\n");
    for part in [
        "[program:web] startsecs=\"x\"",
        "[group:g] programs=\"nobody\"",
        "[program:db]: command",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    let errors = refused("[program:healthy]\ncommand=true\n");
    assert!(
        errors.contains("[program:healthy]: this section is there twice"),
        "{errors}"
    );
    assert!(refused("[program:a]\ncommand\n").contains("line 4"));
}

#[test]
fn the_command_line_is_checked_first() {
    let dir = Dir::new();
    let config = dir.file("a.conf", "[program:a]\ncommand=sleep 1000\n");
    let binary = dir.path("binary.conf");
    fs::write(&binary, b"[program:a]\ncommand=\xff\n").unwrap();
    let (config, binary, nowhere) = (config.as_os_str(), binary.as_os_str(), dir.path("no/such"));
    let option = OsStr::new;
    for (arguments, word) in [
        (&[option("--frobnicate")][..], "frobnicate"),
        (&[option("--events")], "--events"),
        (&[config, config], "one configuration"),
        (&[nowhere.as_os_str()], "No such file"),
        (&[dir.path("").as_os_str()], "Is a directory"),
        (&[binary], "UTF-8"),
        (
            &[option("--events"), nowhere.as_os_str(), config],
            "cannot write events",
        ),
        (
            &[option("--events"), dir.path("").as_os_str(), config],
            "cannot write events",
        ),
    ] {
        let ended = run_to_end(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert!(
            ended.err.contains(word) && ended.out.is_empty(),
            "{arguments:?}: {}",
            ended.err
        );
    }
    let help = run_to_end(&[option("--help")]);
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(help.out.starts_with("usage: taskmaster [--events FILE] [CONFIG]\n"));
}

#[test]
fn what_is_unknown_is_noted_and_ignored() {
    let mut herd =
        Taskmaster::start("[supervisord]\nlogfile=x\n[program:a]\ncommand=sleep 1000\ncolour=red\nstartsecs=0\n");
    herd.complaint("[supervisord]: unknown section, ignored");
    herd.complaint("[program:a] colour: unknown key, ignored");
    herd.reached("a:a", "RUNNING");
    herd.shut_down();
}

#[test]
fn settings_reach_the_process() {
    let mut herd = Taskmaster::start(
        "[program:probe]\n\
         command=sh -c \"pwd; umask; echo $SUPERVISOR_PROCESS_NAME $SUPERVISOR_GROUP_NAME $A $B; echo wrong >&2; exit 7\"\n\
         process_name=%(program_name)s_%(process_num)02d\n\
         directory=/\numask=027\nenvironment=A=\"one, two\",B=%(process_num)d\n\
         stdout_logfile=%(here)s/%(program_name)s.%(process_num)d.log\nredirect_stderr=true\n\
         numprocs=2\nnumprocs_start=4\nstartsecs=0\nautorestart=unexpected\nexitcodes=0,7\n",
    );
    for number in [4, 5] {
        let ended = herd.reached(&format!("probe:probe_{number:02}"), "EXITED");
        assert_eq!(ended.cause, "exited with code 7, as expected");
        let log = fs::read_to_string(herd.dir.path(&format!("probe.{number}.log"))).unwrap();
        assert_eq!(
            log,
            format!("/\n0027\nprobe_{number:02} probe one, two {number}\nwrong\n")
        );
    }
    assert_eq!(
        herd.ask("restart probe:probe_04"),
        "ok: restart probe:probe_04: accepted"
    );
    herd.reached("probe:probe_04", "EXITED");
    let log = fs::read_to_string(herd.dir.path("probe.4.log")).unwrap();
    assert_eq!(log.lines().count(), 8, "logs are appended to");
    herd.shut_down();
}

#[test]
fn a_program_runs_as_its_user() {
    if !rustix::process::getuid().is_root() {
        return aloud("a program runs as its user: needs root");
    }
    let mut herd = Taskmaster::start(
        "[program:who]\ncommand=sh -c \"id -u; id -g; id -G\"\nuser=nobody\nstdout_logfile=%(here)s/who.log\nstartsecs=0\n",
    );
    herd.reached("who:who", "EXITED");
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let nobody: Vec<&str> = passwd
        .lines()
        .find(|line| line.starts_with("nobody:"))
        .unwrap()
        .split(':')
        .collect();
    let log = fs::read_to_string(herd.dir.path("who.log")).unwrap();
    assert_eq!(log, format!("{}\n{}\n{}\n", nobody[2], nobody[3], nobody[3]));
    herd.shut_down();
}

#[test]
fn what_is_missing_names_the_step_the_path_and_the_reason() {
    let mut herd = Taskmaster::start(
        "[program:place]\ncommand=true\ndirectory=/no/such/place\nstartretries=0\n\
         [program:log]\ncommand=true\nstdout_logfile=/no/such/log\nstartretries=0\n\
         [program:binary]\ncommand=/no/such/binary\nstartretries=0\n\
         [program:forbidden]\ncommand=/etc/passwd\nstartretries=0\n",
    );
    for (name, path, reason) in [
        ("place", "/no/such/place", "ENOENT"),
        ("log", "/no/such/log", "ENOENT"),
        ("binary", "/no/such/binary", "ENOENT"),
        ("forbidden", "/etc/passwd", "EACCES"),
    ] {
        let process = format!("{name}:{name}");
        let cause = herd.reached(&process, "BACKOFF").cause;
        assert!(cause.contains(path) && cause.contains(reason), "{cause}");
        herd.reached(&process, "FATAL");
        let line = herd.ask(&format!("status {name}"));
        assert!(
            line.contains("FATAL") && line.contains(path) && line.contains(reason),
            "{line}"
        );
    }
    herd.shut_down();
}

#[test]
fn stopping_as_a_group_reaches_the_children() {
    let mut herd = Taskmaster::start(
        "[program:family]\ncommand=sh -c \"sleep 1000 & echo ready >&2; wait\"\nstderr_logfile=/dev/stderr\nstopasgroup=true\nstartsecs=0\n",
    );
    herd.complaint("ready");
    assert_eq!(herd.ask("stop family"), "ok: stop family: accepted");
    herd.reached("family:family", "STOPPED");
    herd.shut_down();
}

#[test]
fn a_number_of_processes_with_a_sliding_window_of_names() {
    let mut herd = Taskmaster::start(
        "[program:many]\ncommand=sleep 1000\nprocess_name=%(group_name)s-%(process_num)03d\nnumprocs=100\nstartsecs=0\n",
    );
    for number in 0..100 {
        herd.reached(&format!("many:many-{number:03}"), "RUNNING");
    }
    assert_eq!(
        herd.status(100)
            .last()
            .map(|line| line.starts_with("many:many-099   RUNNING")),
        Some(true)
    );
    herd.shut_down();
}
