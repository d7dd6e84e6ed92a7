//! The keys about what the end of one process means for the others of its program.

use std::fs;

use crate::driver::{Taskmaster, refused};

/// Two processes that end with exit code 1 when their FIFO is written.
fn processes(more: &str) -> String {
    format!(
        "[program:a]\ncommand=sh -c \"read go < go%(process_num)d; exit 1\"\nprocess_name=a%(process_num)d\nnumprocs=2\n\
         startsecs=0\n{more}"
    )
}

fn started(more: &str) -> Taskmaster {
    let mut herd = Taskmaster::start_with_fifos(&processes(more), &["go0", "go1"]);
    for name in ["a:a0", "a:a1"] {
        herd.reached(name, "RUNNING");
    }
    herd
}

fn end(herd: &Taskmaster, number: u32) {
    fs::write(herd.dir.path(&format!("go{number}")), "now\n").unwrap();
}

#[test]
fn one_for_all_restarts_the_others() {
    let mut herd = started("autorestart=true\nstrategy=one_for_all\n");
    end(&herd, 1);
    let stopping = herd.reached("a:a0", "STOPPING");
    assert_eq!(stopping.cause, "a sibling has ended");
    for name in ["a:a0", "a:a1"] {
        assert_eq!(herd.reached(name, "RUNNING").run, 2);
    }
    herd.shut_down();
}

#[test]
fn rest_for_one_leaves_those_with_a_lower_number() {
    let mut herd = started("autorestart=true\nstrategy=rest_for_one\n");
    end(&herd, 1);
    assert_eq!(herd.reached("a:a1", "RUNNING").run, 2);
    end(&herd, 0);
    herd.reached("a:a1", "STOPPING");
    assert_eq!(herd.reached("a:a0", "RUNNING").run, 2);
    herd.shut_down();
}

#[test]
fn the_first_end_stops_the_others_and_is_reported() {
    let mut herd = started("autorestart=false\nautoshutdown=any\n");
    end(&herd, 0);
    herd.reached("a:a1", "STOPPED");
    herd.complaint("is stopped, since a:a0 has ended");
    herd.shut_down();
}

#[test]
fn the_last_end_is_reported() {
    let mut herd = started("autorestart=false\nautoshutdown=all\n");
    end(&herd, 0);
    herd.reached("a:a0", "EXITED");
    end(&herd, 1);
    herd.complaint("all processes have ended");
    herd.shut_down();
}

#[test]
fn all_processes_share_a_crash_budget() {
    let mut herd = started("autorestart=true\nshared_crash_budget=1/100\n");
    end(&herd, 0);
    assert_eq!(herd.reached("a:a0", "RUNNING").run, 2);
    end(&herd, 1);
    assert_eq!(herd.reached("a:a1", "FATAL").cause, "crashed too often");
    herd.shut_down();
}

#[test]
fn wrong_values_are_refused() {
    for (line, complaint) in [
        ("strategy=all", "expected one_for_one, one_for_all or rest_for_one"),
        ("autoshutdown=yes", "expected never, any or all"),
        ("shared_crash_budget=5", "expected MAX/SECONDS or none"),
    ] {
        let said = refused(&processes(line));
        assert!(said.contains(complaint), "{said}");
    }
}
