//! The small example hosts, run as a new user would run them.

mod common;
#[path = "common/example.rs"]
mod example;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{SOON, isolated, processes, tempdir, wait_for_content, wait_gone, wait_until};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, Signal, kill_process};

/// It starts its three, survives being stopped for a while by a terminal, and stops all when told to.
fn hosts(name: &'static str) {
    // Built outside as well, where the watchdog does not count the time.
    let binary = example::binary(name);
    isolated(|| {
        let mut host = Command::new(binary).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut until = |what: &str, times| {
            let seen = lines.by_ref().filter(|line| line.contains(what)).take(times).count();
            assert_eq!(seen, times, "{what}");
        };
        until("STARTING -> RUNNING", 3);
        // A wait that SIGCONT interrupts fails, though nothing has happened.
        let signal = |signal| kill_process(Pid::from_child(&host), signal).unwrap();
        signal(Signal::STOP);
        let pid = host.id();
        wait_until("it is stopped", SOON, || processes::state(pid) == Some('T'));
        signal(Signal::CONT);
        until("EXITED -> STARTING", 1);
        signal(Signal::TERM);
        until("-> STOPPED", 3);
        assert!(wait_gone(host.id(), SOON));
        assert!(host.wait().unwrap().success());
    });
}

/// Nothing reads its standard output any more: it supervises on.
fn hosts_without_a_reader(name: &'static str) {
    let binary = example::binary(name);
    isolated(|| {
        let mut host = Command::new(binary).stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(host.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        drop(reader);
        let workers = || processes::children_of(host.id());
        wait_until("the workers run", SOON, || workers().len() == 3);
        // Their ends and starts are what it would write of.
        for pid in workers() {
            // It may have ended by itself.
            let _killed = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
            wait_until("another one runs", SOON, || {
                workers().len() == 3 && !workers().contains(&pid)
            });
        }
        kill_process(Pid::from_child(&host), Signal::TERM).unwrap();
        assert!(wait_gone(host.id(), SOON));
        assert!(host.wait().unwrap().success());
    });
}

#[test]
fn epoll_without_a_reader() {
    hosts_without_a_reader("epoll");
}

#[test]
fn tokio_without_a_reader() {
    hosts_without_a_reader("tokio");
}

#[test]
fn epoll() {
    hosts("epoll");
}

#[test]
fn tokio() {
    hosts("tokio");
}

/// It runs no more than it may at a time, tells how each has ended, and takes lines as they come.
#[test]
fn launcher() {
    let binary = example::binary("launcher");
    isolated(|| {
        let place = tempdir();
        let (log, gate) = (place.join("log"), place.join("gate"));
        rustix::fs::mknodat(CWD, &gate, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let mut host = Command::new(binary)
            .arg("2")
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = host.stdin.take().unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
        input.write_all(b"exit 3\n").unwrap();
        assert_eq!(lines.next().unwrap(), "exited with code 3: exit 3");
        for _ in 0..6 {
            input
                .write_all(b"echo + >>log; read go <gate; echo - >>log; kill -KILL $$\n")
                .unwrap();
        }
        input.write_all(b"/no/such; exit 4").unwrap();
        drop(input);
        wait_for_content(&log, SOON, |text| text == "+\n+\n");
        let mut gate = File::options().read(true).write(true).open(&gate).unwrap();
        gate.write_all(b"\n\n\n\n\n\n").unwrap();
        let mut ends: Vec<String> = lines.map(|line| line.split(": ").next().unwrap().to_owned()).collect();
        ends.sort_unstable();
        assert_eq!(ends[0], "exited with code 4");
        assert_eq!(ends.len(), 7);
        assert!(ends[1..].iter().all(|end| end == "killed by SIGKILL"), "{ends:?}");
        assert!(host.wait().unwrap().success());
        let mut depth = 0;
        for step in fs::read_to_string(&log).unwrap().lines() {
            depth += if step == "+" { 1 } else { -1 };
            assert!((0..=2).contains(&depth));
        }
    });
}
