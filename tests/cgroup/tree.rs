//! Signals reach all processes of a tree, and no other process.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use pidherd::cgroup::Cgroup;
use pidherd::signal::Signal;

use crate::common::cgroups::{FORKING_CHAINS, members, run_in, sleepers};
use crate::common::{isolated, processes, wait_gone, wait_until};
use crate::{LIMIT, delegated, wait_empty, with_descriptors};

fn pids(leaf: &Cgroup) -> Vec<u32> {
    leaf.processes().unwrap().into_iter().map(|pid| pid.as_raw()).collect()
}

fn bystander() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// The signal that ended a child. A child dies of the first fatal signal, so no other fatal signal was sent before.
fn ended_by(child: &mut Child) -> Option<i32> {
    child.wait().unwrap().signal()
}

#[test]
fn kill_reaches_double_forked_grandchildren_in_sessions_of_their_own() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        // The process that was started ends, and the remaining ones ignore all signals that can be ignored.
        let deaf = r#"trap "" TERM HUP INT; sleep 1000 & exec sleep 1000"#;
        let script = format!("(setsid sh -c '{deaf}' &) ; setsid sh -c '{deaf}' & exit 3");
        let mut child = run_in(&leaf.path(), &script);
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let there = sleepers(&leaf.path(), 4);
        assert_eq!(pids(&leaf), there.iter().copied().collect::<Vec<_>>());
        let events = leaf.events().unwrap();

        assert_eq!(leaf.signal(Signal::TERM).unwrap(), 4);
        assert!(leaf.is_populated().unwrap());
        leaf.kill().unwrap();
        wait_empty(&leaf, &events);
        for pid in there {
            assert!(wait_gone(pid, LIMIT));
        }
        leaf.remove().unwrap();
    });
}

#[test]
fn kill_reaches_cgroups_that_the_program_made() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let script = r#"
            mkdir -p "$0/a/b" "$0/c"
            for sub in a a/b c; do
                sh -c 'echo $$ >"$0/cgroup.procs"; exec sleep 1000' "$0/$sub" &
            done
            exec sleep 1000"#;
        let mut child = run_in(&leaf.path(), script);
        let there = sleepers(&leaf.path(), 4);
        assert_eq!(pids(&leaf), there.iter().copied().collect::<Vec<_>>());
        assert_eq!(members(&leaf.path().join("a/b")).len(), 1);
        leaf.kill().unwrap();
        wait_empty(&leaf, leaf.events().unwrap());
        assert_eq!(ended_by(&mut child), Some(9));
        leaf.remove().unwrap();
        assert!(!leaf.path().exists());
    });
}

#[test]
fn kill_ends_a_tree_that_forks_all_the_time() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        for _ in 0..10 {
            let leaf = dir.leaf("leaf").unwrap();
            let mut child = run_in(&leaf.path(), FORKING_CHAINS);
            let sleeper = sleepers(&leaf.path(), 1);
            let first = members(&leaf.path());
            wait_until("others have taken their places", LIMIT, || {
                members(&leaf.path()).intersection(&first).eq(&sleeper)
            });
            leaf.kill().unwrap();
            wait_empty(&leaf, leaf.events().unwrap());
            assert_eq!(ended_by(&mut child), Some(9));
            leaf.remove().unwrap();
        }
    });
}

#[test]
fn a_signal_reaches_all_and_no_stranger() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let (leaf, beside) = (dir.leaf("leaf").unwrap(), dir.leaf("beside").unwrap());
        let script = r#"
            mkdir "$0/sub"
            setsid sleep 1000 &
            sh -c 'echo $$ >"$0/sub/cgroup.procs"; exec sleep 1000' "$0" &
            exec sleep 1000"#;
        let mut outside = bystander();
        let mut neighbour = run_in(&beside.path(), "exec sleep 1000");
        let mut child = run_in(&leaf.path(), script);
        let there = sleepers(&leaf.path(), 3);
        sleepers(&beside.path(), 1);

        assert_eq!(leaf.signal(Signal::USR1).unwrap(), 3);
        wait_empty(&leaf, leaf.events().unwrap());
        assert_eq!(ended_by(&mut child), Some(Signal::USR1.as_raw()));
        for pid in there {
            assert!(wait_gone(pid, LIMIT));
        }
        outside.kill().unwrap();
        assert_eq!(ended_by(&mut outside), Some(9));
        assert_eq!(beside.signal(Signal::KILL).unwrap(), 1);
        assert_eq!(ended_by(&mut neighbour), Some(9));
        wait_empty(&beside, beside.events().unwrap());
        assert_eq!(leaf.signal(Signal::TERM).unwrap(), 0);
        leaf.remove().unwrap();
        beside.remove().unwrap();
    });
}

#[test]
fn a_real_time_signal_arrives() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        let signal: Signal = "RTMIN+3".parse().unwrap();
        assert_eq!(leaf.signal(signal).unwrap(), 1);
        assert_eq!(ended_by(&mut child), Some(37));
        wait_empty(&leaf, leaf.events().unwrap());
        leaf.remove().unwrap();
    });
}

#[test]
fn zombies_do_not_count_as_processes() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        child.kill().unwrap();
        assert!(wait_gone(child.id(), LIMIT));
        wait_empty(&leaf, leaf.events().unwrap());
        assert_eq!(processes::state(child.id()), Some('Z'));
        assert_eq!(pids(&leaf), [0_u32; 0]);
        assert_eq!(leaf.signal(Signal::TERM).unwrap(), 0);
        child.wait().unwrap();
        leaf.remove().unwrap();
    });
}

/// `cgroup.procs` of a threaded cgroup cannot be read: its processes are listed where the domain begins.
#[test]
fn processes_in_threaded_cgroups_are_reached() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let script = r#"
            mkdir "$0/threads" && echo threaded >"$0/threads/cgroup.type"
            echo $$ >"$0/threads/cgroup.threads"
            exec sleep 1000"#;
        let mut child = run_in(&leaf.path(), script);
        sleepers(&leaf.path(), 1);
        let threads = fs::read_to_string(leaf.path().join("threads/cgroup.threads")).unwrap();
        assert_eq!(threads, format!("{}\n", child.id()));
        assert_eq!(pids(&leaf), [child.id()]);
        assert_eq!(leaf.signal(Signal::USR2).unwrap(), 1);
        assert_eq!(ended_by(&mut child), Some(Signal::USR2.as_raw()));
        wait_empty(&leaf, leaf.events().unwrap());
        leaf.remove().unwrap();
    });
}

#[test]
fn many_are_reached_with_few_descriptors() {
    isolated(|| {
        const MANY: usize = 150;
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let script = format!("for _ in $(seq {}); do sleep 1000 & done; exec sleep 1000", MANY - 1);
        let mut child = run_in(&leaf.path(), &script);
        sleepers(&leaf.path(), MANY);
        // One for the directory, one for the list, and two to hold processes by.
        with_descriptors(4, || assert_eq!(leaf.signal(Signal::CONT).unwrap(), MANY as u32));
        assert_eq!(leaf.signal(Signal::TERM).unwrap(), MANY as u32);
        assert_eq!(ended_by(&mut child), Some(15));
        wait_empty(&leaf, leaf.events().unwrap());
        leaf.remove().unwrap();
    });
}
