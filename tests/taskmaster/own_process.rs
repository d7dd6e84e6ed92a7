//! Tests of `[supervisord]` and `[include]`: settings of the taskmaster itself and of all programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, getrlimit};

use crate::common::wait_until;
use crate::driver::{Dir, PATIENCE, Taskmaster, aloud, binary, fifo, refused, run_to_end};

/// A program that writes the output of `script` to the taskmaster's standard output, and stays.
fn probe(script: &str) -> String {
    format!(
        "[program:probe]\ncommand=sh -c \"{script}; exec sleep 1000\"\nstartsecs=0\n\
         stdout_logfile=/dev/stdout\nstderr_logfile=/dev/stdout\n"
    )
}

fn is_root(what: &str) -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        aloud(&format!("{what}: needs root"));
    }
    is_root
}

/// The uid and the gid of a user of this machine.
fn ids(name: &str) -> (String, String) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let start = format!("{name}:");
    let line = passwd.lines().find(|line| line.starts_with(&start)).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].to_owned(), fields[3].to_owned())
}

#[test]
fn the_taskmaster_and_its_programs_run_as_the_user_of_the_file() {
    if !is_root("[supervisord] user") {
        return;
    }
    let (uid, gid) = ids("nobody");
    for place in [
        "[supervisord]\nuser=nobody\n",
        "[DEFAULT]\nuser=nobody\n[supervisord]\n",
    ] {
        let script = "echo $(id -u) $(id -G); grep -E '^(Uid|Groups):' /proc/$PPID/status | tr '\\\\t' ' '";
        let mut herd = Taskmaster::start(&format!("{place}{}", probe(script)));
        assert_eq!(herd.answer(), format!("{uid} {gid}"));
        assert_eq!(herd.answer(), format!("Uid: {uid} {uid} {uid} {uid}"));
        assert_eq!(herd.answer().trim_end(), format!("Groups: {gid}"));
        herd.shut_down();
    }
}

#[test]
fn no_program_gets_back_to_a_user_that_was_left() {
    if !is_root("[supervisord] user") {
        return;
    }
    let text = "[supervisord]\nuser=nobody\n[program:up]\ncommand=sleep 1000\nuser=root\nstartretries=0\n";
    let mut herd = Taskmaster::start(text);
    let cause = herd.reached("up:up", "BACKOFF").cause;
    assert!(cause.contains("EPERM") || cause.contains("not permitted"), "{cause}");
    herd.reached("up:up", "FATAL");
    herd.shut_down();
}

#[test]
fn only_root_becomes_another_user() {
    use std::os::unix::process::CommandExt;
    if !is_root("to start as another user") {
        return;
    }
    let dir = Dir::new();
    let config = dir.file("herd.conf", &format!("[supervisord]\nuser=root\n{}", probe("id")));
    let output = Command::new(binary()).arg(&config).uid(65_534).output();
    match output {
        Err(error) => aloud(&format!("another user may not run the example: {error}")),
        Ok(output) => {
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(
                errors.contains("[supervisord] user") && errors.contains("only root"),
                "{errors}"
            );
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn umask_directory_and_environment_reach_every_program() {
    let mut herd = Taskmaster::start(&format!(
        "[supervisord]\numask=0137\ndirectory=/usr\nenvironment=SHADE=\"dark, or so\",A=\"of all\"\n{}environment=A=own\n",
        probe("umask; pwd; echo $SHADE $A %(ENV_SHADE)s")
    ));
    assert_eq!(herd.answer(), "0137");
    assert_eq!(herd.answer(), "/usr");
    assert_eq!(herd.answer(), "dark, or so own dark, or so");
    // A reload finds the file, although its name was relative to another directory.
    assert!(herd.ask("reload").ends_with("0 changed, 1 unchanged"));
    herd.shut_down();
}

#[test]
fn a_relative_file_is_found_again_from_another_directory() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        &format!("[supervisord]\ndirectory=/\n{}", probe("echo %(here)s")),
    );
    fifo(&dir, "events");
    let expected = dir.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut command = Command::new(binary());
    command.args(["--events", "events", "./herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    assert_eq!(herd.answer(), expected);
    assert!(herd.ask("reload").ends_with("0 changed, 1 unchanged"));
    herd.shut_down();
}

#[test]
fn a_program_has_its_own_umask_and_directory_before_those_of_all() {
    let mut herd = Taskmaster::start(&format!(
        "[supervisord]\numask=077\ndirectory=/usr\n{}umask=022\ndirectory=/etc\n",
        probe("umask; pwd")
    ));
    assert_eq!((herd.answer().as_str(), herd.answer().as_str()), ("0022", "/etc"));
    herd.shut_down();
}

#[test]
fn in_the_foreground_umask_and_directory_have_no_effect() {
    let mut herd = Taskmaster::start(&format!(
        "[supervisord]\nnodaemon=true\numask=077\ndirectory=/usr\n{}",
        probe("umask; pwd")
    ));
    herd.complaint("[supervisord] umask: without effect, as in supervisord");
    herd.complaint("[supervisord] directory: without effect, as in supervisord");
    let umask = Command::new("sh").args(["-c", "umask"]).output().unwrap().stdout;
    assert_eq!(herd.answer(), String::from_utf8(umask).unwrap().trim());
    assert_ne!(herd.answer(), "/usr");
    herd.shut_down();
}

#[test]
fn limits_are_at_least_what_the_file_says() {
    for (key, letter, resource) in [("minfds", "n", Resource::Nofile), ("minprocs", "u", Resource::Nproc)] {
        let hard = getrlimit(resource).maximum.unwrap_or(100_000);
        for (soft, least, expected) in [(hard - 9, hard - 4, hard - 4), (hard - 9, hard - 20, hard - 9)] {
            let dir = Dir::new();
            let script = format!("exec bash -c 'ulimit -S -{letter}; exec sleep 1000'");
            dir.file(
                "herd.conf",
                &format!("[supervisord]\n{key}={least}\n{}", probe(&script)),
            );
            fifo(&dir, "events");
            let mut command = Command::new("bash");
            let script = format!("ulimit -S -{letter} {soft}; exec \"$0\" --events events herd.conf");
            command.args(["-c", &script]).arg(binary());
            let mut herd = Taskmaster::run(dir, command);
            assert_eq!(herd.answer(), expected.to_string(), "{key}={least}");
            herd.shut_down();
        }
    }
}

#[test]
fn a_limit_that_cannot_be_raised_is_refused() {
    use std::os::unix::process::CommandExt;
    if !is_root("to start as another user") {
        return;
    }
    let dir = Dir::new();
    for key in ["minfds", "minprocs"] {
        let config = dir.file("herd.conf", &format!("[supervisord]\n{key}=99999999\n{}", probe("id")));
        match Command::new(binary()).arg(&config).uid(65_534).output() {
            Err(error) => aloud(&format!("another user may not run the example: {error}")),
            Ok(output) => {
                let errors = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(2), "{errors}");
                assert!(errors.contains(key) && errors.contains("not permitted"), "{errors}");
            }
        }
    }
}

#[test]
fn a_reload_refuses_changes_that_need_a_restart() {
    let mut herd = Taskmaster::start(&format!("[supervisord]\numask=027\n{}", probe("echo up")));
    let pid = herd.reached("probe:probe", "RUNNING").pid.unwrap();
    assert_eq!(herd.answer(), "up");
    for line in ["umask=022", "umask=027\nuser=nobody", "umask=027\ndirectory=/", ""] {
        let text = format!("[supervisord]\n{line}\n{}", probe("echo other"));
        fs::write(herd.dir.path("herd.conf"), text).unwrap();
        let answer = herd.ask("reload");
        assert!(
            answer.contains("nothing is changed") && answer.contains("a restart"),
            "{line}: {answer}"
        );
    }
    assert!(herd.ask("status probe").contains(&format!(" pid {pid},")));
    let text = format!("[supervisord]\numask=027\nenvironment=A=1\n{}", probe("echo up"));
    fs::write(herd.dir.path("herd.conf"), text).unwrap();
    assert!(herd.ask("reload").contains("1 changed"));
    herd.shut_down();
}

#[test]
fn the_pid_file_exists_while_the_taskmaster_runs() {
    let mut herd = Taskmaster::start(&format!(
        "[supervisord]\npidfile=%(here)s/herd.pid\n{}",
        probe("echo up")
    ));
    assert_eq!(herd.answer(), "up");
    let file = herd.dir.path("herd.pid");
    let pid = herd.pid().as_raw_nonzero().get();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{pid}\n"));
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0));
    assert!(!file.exists());
    assert!(refused("[supervisord]\npidfile=/no/such/directory/pid\n").contains("[supervisord] pidfile="));
}

#[test]
fn included_files_are_a_part_of_the_file() {
    let dir = Dir::new();
    for name in ["conf.d", "other"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    fs::create_dir(dir.path("conf.d/dir.conf")).unwrap();
    dir.file("conf.d/10-a.conf", &probe("echo %(here)s $A $B"));
    dir.file(
        "conf.d/20-b.conf",
        "[program:probe]\nenvironment=B=included\n[include]\nfiles=more.conf\n",
    );
    dir.file("conf.d/.hidden.conf", "[program:hidden]\ncommand=sleep 1000\n");
    dir.file("conf.d/text.txt", "junk\n");
    dir.file("other/x.conf", "[supervisord]\nenvironment=A=from-x\n");
    dir.file(
        "herd.conf",
        "[supervisord]\n[include]\nfiles=conf.d/*.conf\n  %(here)s/other/[wx].conf missing/*.conf\n",
    );
    fifo(&dir, "events");
    let here = dir.path("conf.d").to_str().unwrap().to_owned();
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    herd.complaint("conf.d/dir.conf is a directory, ignored");
    herd.complaint("[include]: no file matches \"missing/*.conf\"");
    herd.complaint("[include]: ignored in an included file");
    assert_eq!(herd.answer(), format!("{here} from-x included"));
    assert_eq!(herd.status(1).len(), 1);
    assert_eq!(herd.ask("status probe").split_whitespace().next(), Some("probe"));
    fs::write(
        herd.dir.path("conf.d/30-c.conf"),
        "[program:late]\ncommand=sleep 1000\nstartsecs=0\n",
    )
    .unwrap();
    assert!(herd.ask("reload").starts_with("ok: reload: 1 added"));
    herd.reached("late:late", "RUNNING");
    fs::write(
        herd.dir.path("conf.d/30-c.conf"),
        "[program:late]\ncommand=sleep 1000\nstartsecs=x\n",
    )
    .unwrap();
    let answer = herd.ask("reload");
    assert!(
        answer.contains("conf.d/30-c.conf: [program:late] startsecs=\"x\""),
        "{answer}"
    );
    herd.shut_down();
}

#[test]
fn an_invalid_included_file_is_refused() {
    let dir = Dir::new();
    for (name, bytes) in [
        ("lines", &b"[program:a]\njunk\n"[..]),
        ("binary", b"[program:a]\ncommand=\xff\n"),
    ] {
        fs::write(dir.path(name), bytes).unwrap();
    }
    fifo(&dir, "fifo");
    for (files, word) in [
        ("lines", "lines: line 2: "),
        ("binary", "binary is not UTF-8"),
        ("fifo", "fifo: it is a FIFO"),
        ("%(ENV_NO_SUCH)s", "the environment has no NO_SUCH"),
    ] {
        let text = format!("[program:a]\ncommand=true\n[include]\nfiles={files}\n");
        let config = dir.file("herd.conf", &text);
        let ended = run_to_end(&[config.as_os_str()]);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(word), "{word} in {}", ended.err);
    }
    assert!(refused("[include]\n").contains("[include]: files=... is missing"));
}

/// The names of the files in a directory.
fn listed(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn automatic_logs_are_in_their_directory() {
    let dir = Dir::new();
    let logs = dir.path("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("probe-stdout---mine-old.log"), "old\n").unwrap();
    fs::write(logs.join("probe-stdout---theirs-old.log"), "old\n").unwrap();
    fs::write(logs.join("web.log"), "old\n").unwrap();
    let config = |more: &str| {
        let probe =
            "[program:probe]\ncommand=sh -c \"echo to stdout; echo to stderr >&2; exec sleep 1000\"\nstartsecs=0\n";
        format!("[supervisord]\nchildlogdir=%(here)s/logs\nidentifier=mine\n{more}\n{probe}")
    };
    dir.file("herd.conf", &config(""));
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("probe:probe", "RUNNING");
    // Two of the four files are the probe's.
    wait_until("the program has written to both streams", PATIENCE, || {
        let texts = listed(&logs)
            .into_iter()
            .map(|file| fs::read_to_string(logs.join(file)).unwrap_or_default());
        texts.filter(|text| text.starts_with("to ")).count() == 2
    });
    assert_eq!(herd.ask("restart probe"), "ok: restart probe: accepted");
    herd.reached("probe:probe", "STOPPING");
    herd.reached("probe:probe", "RUNNING");
    assert!(herd.ask("reload").ends_with("1 unchanged"));
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0));
    let names = listed(&logs);
    assert_eq!(names.len(), 4, "{names:?}");
    for (name, text) in [
        ("probe-stderr---mine-", "to stderr\n"),
        ("probe-stdout---mine-", "to stdout\n"),
    ] {
        let file = names.iter().find(|file| file.starts_with(name)).unwrap();
        assert_eq!(
            fs::metadata(logs.join(file)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let log = fs::read_to_string(logs.join(file)).unwrap();
        assert!(log.starts_with(text) && log.len() <= 2 * text.len(), "{log}");
    }
    let dir = std::mem::replace(&mut herd.dir, Dir::new());
    drop(herd);
    dir.file("herd.conf", &config("nocleanup=true"));
    fifo_anew(&dir);
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("probe:probe", "RUNNING");
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0));
    assert_eq!(listed(&logs).len(), 6, "{:?}", listed(&logs));
}

fn fifo_anew(dir: &Dir) {
    fs::remove_file(dir.path("events")).unwrap();
    fifo(dir, "events");
}
