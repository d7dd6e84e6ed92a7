//! Standard input, output and error in every shape that a parent may leave them in.

use std::process::Command;

use rustix::process::Signal;

use crate::driver::{Dir, Taskmaster, binary, fifo};

const HERD: &str =
    "[program:a]\ncommand=sleep 1000\nstartsecs=0\n[program:b]\ncommand=sleep 1000\nautostart=false\nstartsecs=0\n";

fn herd() -> Taskmaster {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("a:a", "RUNNING");
    herd
}

/// A herd under `sh -c`, which arranges the streams of "$0" --events events herd.conf.
fn arranged(script: &str) -> Taskmaster {
    let dir = Dir::new();
    dir.file("herd.conf", HERD);
    dir.file("lines", "start b\nstatus a");
    fifo(&dir, "events");
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    herd
}

#[test]
fn lines_come_in_any_pieces() {
    let mut herd = herd();
    herd.write(b"sta");
    herd.write(b"rt b");
    herd.write(b"\r\n\r\n  \nstop b\nstart");
    assert_eq!(herd.answer(), "ok: start b: accepted");
    assert_eq!(herd.answer(), "ok: stop b: accepted");
    herd.write(b" b\n");
    assert_eq!(herd.answer().split(": ").next(), Some("ok"));
    herd.shut_down();
}

#[test]
fn what_is_no_line_is_answered_by_one() {
    let mut herd = herd();
    herd.write(&[b'x'; 1 << 20]);
    herd.write(b"\nsta\xfftus\nstatus a\0\nstatus b\n");
    assert_eq!(herd.answer(), "error: a line of more than 4096 bytes is no command");
    assert_eq!(herd.answer(), "error: a line that is not UTF-8 is no command");
    assert_eq!(herd.answer(), "error: there is no process \"a\\0\"");
    assert_eq!(herd.answer(), "b   STOPPED    not started");
    herd.shut_down();
}

#[test]
fn the_end_of_input_stops_nothing() {
    let mut herd = herd();
    herd.write(b"start b");
    herd.close_stdin();
    assert_eq!(herd.answer(), "ok: start b: accepted");
    herd.reached("b:b", "RUNNING");
    herd.signal(Signal::HUP);
    herd.complaint("reload: 0 added");
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended().code(), Some(0));
}

#[test]
fn input_may_be_a_file_or_nothing_at_all() {
    for (input, answers) in [("< lines", true), ("< /dev/null", false), ("<&-", false)] {
        let mut herd = arranged(&format!("exec \"$0\" --events events herd.conf {input}"));
        if answers {
            assert_eq!(herd.answer(), "ok: start b: accepted");
            assert!(herd.answer().starts_with("a   RUNNING "));
            herd.reached("b:b", "RUNNING");
        }
        herd.signal(Signal::TERM);
        assert_eq!(herd.ended().code(), Some(0), "{input}");
    }
}

#[test]
fn output_may_be_closed_or_lead_nowhere() {
    for output in [">&- 2>&-", "> /dev/full 2> /dev/full", "| true", "2>&1 | true"] {
        // Some of these make a pipeline, so it is told to end by its input, not by a signal.
        let mut herd = arranged(&format!("\"$0\" --events events herd.conf {output}"));
        for _ in 0..3 {
            herd.say("status");
            herd.say("restart a");
            herd.reached("a:a", "STOPPING");
            herd.reached("a:a", "RUNNING");
        }
        herd.say("shutdown");
        herd.reached("a:a", "STOPPED");
        herd.ended();
    }
}

#[test]
fn a_reader_that_sleeps_does_not_stop_the_supervision() {
    // Nobody reads this FIFO but for the shell that holds it open.
    let dir = Dir::new();
    dir.file("herd.conf", HERD);
    fifo(&dir, "events");
    fifo(&dir, "unread");
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "exec 3<> unread; exec \"$0\" --events events herd.conf > unread 2> unread",
        ])
        .arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    // Far more than a pipe holds, and than is kept for a reader.
    for _ in 0..100 {
        herd.write("help\n".repeat(100).as_bytes());
    }
    herd.say("restart a");
    herd.reached("a:a", "STOPPING");
    herd.reached("a:a", "RUNNING");
    herd.signal(Signal::TERM);
    assert_eq!(herd.ended().code(), Some(0));
}

#[test]
fn programs_neither_read_our_input_nor_write_our_output() {
    let mut herd = Taskmaster::start(
        "[program:loud]\ncommand=sh -c \"cat; echo loud; echo loud >&2; exit 4\"\nstartsecs=0\nautorestart=false\n\
         [program:passed]\ncommand=sh -c \"echo passed; echo over >&2\"\nstartsecs=0\n\
         stdout_logfile=/dev/stdout\nstderr_logfile=/dev/stderr\n",
    );
    herd.reached("loud:loud", "EXITED");
    assert_eq!(herd.answer(), "passed");
    herd.complaint("over");
    assert!(
        herd.ask("status loud")
            .starts_with("loud   EXITED     exited with code 4, not expected")
    );
    assert!(!herd.transcript().contains("loud\n  out: loud"));
    herd.shut_down();
}
