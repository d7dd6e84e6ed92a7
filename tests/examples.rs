//! The small example hosts, run as a new user would run them.

mod common;
#[path = "common/example.rs"]
mod example;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{SOON, isolated, processes, skipped, tempdir, wait_for_content, wait_gone, wait_until};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, Signal, kill_process};

/// The hosts on one loop each. That on io_uring needs a kernel that allows it.
fn hosts() -> Vec<&'static str> {
    let mut hosts = vec![
        "async_io",
        "calloop",
        "epoll",
        "epoll_numbers",
        "mio",
        "mio_each",
        "poll",
        "polling",
        "tokio",
        "tokio_each",
    ];
    match io_uring::IoUring::new(8) {
        Ok(_) => hosts.push("io_uring"),
        Err(error) => skipped(&format!("the host on io_uring: {error}")),
    }
    hosts
}

/// Starts each host. Their binaries are built outside as well, where the watchdog does not count the time.
fn each_host(check: impl Fn(&str, &mut Child)) {
    let hosts: Vec<_> = hosts().into_iter().map(|name| (name, example::binary(name))).collect();
    isolated(|| {
        let start = |&(name, binary): &(&'static str, &Path)| {
            (name, Command::new(binary).stdout(Stdio::piped()).spawn().unwrap())
        };
        for (name, host) in &mut hosts.iter().map(start).collect::<Vec<_>>() {
            check(name, host);
            assert!(wait_gone(host.id(), SOON), "{name}");
            assert!(host.wait().unwrap().success(), "{name}");
        }
    });
}

#[test]
fn each_host_starts_its_three_survives_a_stop_by_a_terminal_and_stops_all() {
    each_host(|name, host| {
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut until = |what: &str, times| {
            let seen = lines.by_ref().filter(|line| line.contains(what)).take(times).count();
            assert_eq!(seen, times, "{name}: {what}");
        };
        until("STARTING -> RUNNING", 3);
        // A wait that SIGCONT interrupts fails, though nothing has happened.
        let signal = |signal| kill_process(Pid::from_child(host), signal).unwrap();
        signal(Signal::STOP);
        let pid = host.id();
        wait_until("it is stopped", SOON, || processes::state(pid) == Some('T'));
        signal(Signal::CONT);
        until("EXITED -> STARTING", 1);
        signal(Signal::TERM);
        until("-> STOPPED", 3);
    });
}

/// Nothing reads its standard output any more.
#[test]
fn each_host_supervises_on_without_a_reader() {
    each_host(|_, host| {
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
        kill_process(Pid::from_child(host), Signal::TERM).unwrap();
    });
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
