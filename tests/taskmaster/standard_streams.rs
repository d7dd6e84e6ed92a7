//! Tests of standard input, output and error in all forms that a parent may provide.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Command;

use rustix::process::Signal;

use crate::common::wait_for_content;
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo};

const HERD: &str =
    "[program:a]\ncommand=sleep 1000\nstartsecs=0\n[program:b]\ncommand=sleep 1000\nautostart=false\nstartsecs=0\n";

fn herd() -> Taskmaster {
    let mut herd = Taskmaster::start(HERD);
    herd.reached("a:a", "RUNNING");
    herd
}

/// Starts a herd under `sh -c`. The script arranges the streams of "$0" --events events herd.conf.
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
fn each_invalid_line_gets_one_answer() {
    let mut herd = herd();
    herd.write(&[b'x'; 1 << 20]);
    herd.write(b"\nsta\xfftus\nstatus a\0\nstatus b\n");
    assert_eq!(herd.answer(), "error: a command must not be longer than 4096 bytes");
    assert_eq!(herd.answer(), "error: a command must be UTF-8");
    assert_eq!(
        herd.answer(),
        "error: there is no process \"a\\0\"; did you mean \"a\"?"
    );
    assert_eq!(herd.answer(), "b   STOPPED    not started");
    herd.shut_down();
}

#[test]
fn the_end_of_input_stops_no_program() {
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
            // Its execution may not have been seen yet.
            let status = herd.answer();
            assert!(status.starts_with("a   RUNNING ") || status.starts_with("a   STARTING "));
            herd.reached("b:b", "RUNNING");
        }
        herd.signal(Signal::TERM);
        assert_eq!(herd.ended().code(), Some(0), "{input}");
    }
}

#[test]
fn output_may_be_closed_or_lead_nowhere() {
    for output in [">&- 2>&-", "> /dev/full 2> /dev/full", "| true", "2>&1 | true"] {
        // Some of these scripts create a pipeline, so the end comes from the input and not from a signal.
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
fn a_stalled_reader_does_not_stop_the_supervision() {
    // This FIFO has no reader. The shell only holds it open.
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
    // The output is far larger than a pipe and than the queue for a reader.
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
fn answers_that_are_read_late_are_all_there() {
    let program = |number| format!("[program:p{number:02}]\ncommand=true\nautostart=false\n");
    let mut herd = Taskmaster::start(&(0..100).map(program).collect::<String>());
    herd.read_later("status\n".repeat(600).as_bytes());
    let lines: Vec<String> = (0..60_000).map(|_| herd.answer()).collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line, &format!("p{:02}   STOPPED    not started", index % 100));
    }
    herd.shut_down();
}

#[test]
fn commands_wait_while_the_answers_are_not_read() {
    let name = |number| format!("{}{number:03}", "p".repeat(200));
    let program = |number| format!("[program:{}]\ncommand=true\nautostart=false\n", name(number));
    let mut herd = Taskmaster::start(&(0..500).map(program).collect::<String>());
    // The output is far larger than the queue for a reader: each answer has 110,000 bytes.
    herd.read_later("status\n".repeat(800).as_bytes());
    let memory = herd.memory();
    assert!(memory < 64 << 20, "{memory} bytes");
    for index in 0..10_000 {
        assert_eq!(herd.answer(), format!("{}   STOPPED    not started", name(index % 500)));
    }
    herd.signal(Signal::TERM);
    herd.complaint("shutting down");
    assert_eq!(herd.ended().code(), Some(0));
    assert_eq!(herd.out.len() % 500, 0, "the last answer is whole");
}

#[test]
fn standard_error_is_written_on_when_another_reader_comes() {
    let dir = Dir::new();
    dir.file("herd.conf", HERD);
    fifo(&dir, "events");
    let log = fifo(&dir, "log");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" --events events herd.conf 2> log"])
        .arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    let mut reader = BufReader::new(File::open(&log).unwrap());
    for state in ["STARTING", "RUNNING"] {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("-> {state}")), "{line}");
    }
    drop(reader);
    herd.reached("a:a", "RUNNING");
    for _ in 0..3 {
        herd.ask("restart a");
        herd.reached("a:a", "RUNNING");
        // The answer follows the log line about the last step.
        herd.ask("status a");
        let reader = BufReader::new(File::open(&log).unwrap());
        herd.ask("restart a");
        let lines: Vec<String> = reader.lines().take(4).map(Result::unwrap).collect();
        assert_eq!(lines[0], "taskmaster: 3 lines are lost here");
        assert!(
            lines[1].contains("RUNNING  -> STOPPING") && lines[3].contains("STARTING -> RUNNING"),
            "{lines:?}"
        );
        herd.reached("a:a", "RUNNING");
    }
    herd.shut_down();
}

#[test]
fn renamed_logs_are_opened_anew() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        &format!(
            "{HERD}[program:c]\ncommand=sh -c \"echo c\"\nautostart=false\nstdout_logfile=/dev/stdout\nstartsecs=0\n"
        ),
    );
    fifo(&dir, "events");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" --events events herd.conf > out 2> log"])
        .arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    let path = |name: &str| herd.dir.path(name);
    let (out, log) = (path("out"), path("log"));
    fs::rename(&out, path("out.1")).unwrap();
    fs::rename(&log, path("log.1")).unwrap();
    herd.signal(Signal::USR2);
    wait_for_content(&log, PATIENCE, |text| text.contains("standard error was reopened as "));
    herd.say("status a");
    herd.say("start c");
    herd.reached("c:c", "EXITED");
    let text = wait_for_content(&out, PATIENCE, |text| text.lines().count() >= 3);
    assert!(text.starts_with("a   RUNNING "), "{text}");
    assert!(
        text.contains("ok: start c: accepted\n") && text.contains("c\n"),
        "{text}"
    );
    assert!(!fs::read_to_string(herd.dir.path("log.1")).unwrap().contains("c  "));
    herd.shut_down();
}

#[test]
fn a_refusal_has_its_exit_status_though_nothing_can_be_written() {
    let dir = Dir::new();
    dir.file("bad.conf", "[program:a]\n");
    for (arguments, code) in [("bad.conf", 2), ("--nope", 2), ("--help", 1)] {
        for output in [">/dev/full 2>&1", ">&- 2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"] {
            if output.contains("PIPESTATUS") && arguments == "--help" {
                continue;
            }
            let script = format!("\"$0\" {arguments} {output}");
            let mut command = Command::new("bash");
            let ended = command
                .args(["-c", &script])
                .arg(binary())
                .current_dir(dir.path(""))
                .status();
            let expected = if output == ">&- 2>&-" && code == 1 { 0 } else { code };
            assert_eq!(ended.unwrap().code(), Some(expected), "{arguments} {output}");
        }
    }
}

#[test]
fn programs_do_not_use_the_input_and_output_of_the_taskmaster() {
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
