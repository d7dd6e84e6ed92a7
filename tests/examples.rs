//! The small hosts, as somebody runs them who has just copied them.

mod common;
#[path = "common/example.rs"]
mod example;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{SOON, isolated, processes, wait_gone, wait_until};
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
