//! Tests of the destinations of output that are not ordinary files.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::driver::{Dir, Taskmaster, binary, refused};

/// The configuration of a program that prints one line on each of its streams.
fn program(name: &str, keys: &str) -> String {
    format!(
        "[program:{name}]\ncommand=sh -c \"echo {name} out; echo {name} err >&2; exec sleep 1000\"\nstartsecs=0\n{keys}\n"
    )
}

#[test]
fn a_stream_may_be_sent_to_the_other_one() {
    let mut herd = Taskmaster::start(&program("a", "stdout_logfile=NONE\nstderr_logfile=/dev/stdout"));
    assert_eq!(herd.answer(), "a err");
    herd.reached("a:a", "RUNNING");
    herd.shut_down();
    let mut herd = Taskmaster::start(&program("a", "stdout_logfile=/dev/stderr\nstderr_logfile=/dev/stdout"));
    assert_eq!(herd.answer(), "a err");
    herd.complaint("a out");
    herd.shut_down();
}

#[test]
fn every_spelling_means_the_taskmasters_own_stream() {
    for spelling in [
        "/dev/stdout",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "//dev/../dev/./stdout",
        "%(here)s/link",
    ] {
        let dir = Dir::new();
        std::os::unix::fs::symlink("/dev/stdout", dir.path("link")).unwrap();
        dir.file("herd.conf", &program("a", &format!("stderr_logfile={spelling}")));
        crate::driver::fifo(&dir, "events");
        let mut command = Command::new(binary());
        command.args(["--events", "events", "herd.conf"]);
        let mut herd = Taskmaster::run(dir, command);
        assert_eq!(herd.answer(), "a err", "{spelling}");
        assert!(herd.ask("reload").ends_with("1 unchanged"), "{spelling}");
        herd.shut_down();
    }
}

/// Runs `config` with `stdout` as standard output, and reads two lines from `reader`.
fn two_lines(config: &str, stdout: OwnedFd, reader: impl std::io::Read) -> Vec<String> {
    let dir = Dir::new();
    let config = dir.file("herd.conf", config);
    let mut command = Command::new(binary());
    command.arg(config).current_dir(dir.path(""));
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let lines = BufReader::new(reader).lines().take(2).map(Result::unwrap);
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    lines
}

#[test]
fn a_stream_may_be_a_socket() {
    let config = program("a", "stdout_logfile=/dev/stdout\nstderr_logfile=/dev/stdout");
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(crate::driver::PATIENCE)).unwrap();
    assert_eq!(two_lines(&config, theirs.into(), ours), ["a err", "a out"]);
}

#[test]
fn a_stream_may_be_a_file_that_only_another_user_may_open() {
    if !rustix::process::getuid().is_root() {
        return crate::driver::aloud("the test of another user's stream needs root");
    }
    let config = format!(
        "[supervisord]\nuser=nobody\n{}",
        program("a", "stderr_logfile=/proc/self/fd/1")
    );
    let config = format!("{config}stdout_logfile=/dev/stdout\n");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(two_lines(&config, writer, File::from(reader)), ["a err", "a out"]);
}

#[test]
fn syslog_is_not_a_file() {
    for line in [
        "stdout_logfile=syslog",
        "stderr_logfile=SYSLOG",
        "stdout_syslog=true",
        "stderr_syslog=1",
    ] {
        let errors = refused(&program("a", line));
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains("can't be done with syslog"), "{errors}");
    }
    assert!(!fs::exists("syslog").unwrap());
}
