//! Scheduling and I/O priority, and the groups and variables of a login, seen from inside the child.

use std::fs;

use pidherd::{Command, CommandError, IoPriority, Scheduling, SpawnStep};

use crate::common::{isolated, skipped};
use crate::helpers::{cat_status, output, root, sh, status};

/// The nice value, the static priority and the number of the policy, from proc_pid_stat(5).
fn scheduled(command: &Command) -> Option<[i32; 3]> {
    let command = command.clone().arg("/proc/self/stat");
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
            Some([16, 37, 38].map(|index: usize| fields[index].parse().unwrap()))
        }
        Err(error) => {
            let error = error.get_ref().unwrap().downcast_ref::<pidherd::SpawnError>().unwrap();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Scheduling, libc::EPERM));
            None
        }
    }
}

#[test]
fn the_policy_of_the_scheduler_is_as_set() {
    isolated(|| {
        let cat = || Command::new("/bin/cat");
        let own = scheduled(&cat());
        assert!(own.is_some());
        for (scheduling, expected) in [
            (Scheduling::Other, [4, 0, libc::SCHED_OTHER]),
            (Scheduling::Batch, [4, 0, libc::SCHED_BATCH]),
            (Scheduling::Idle, [4, 0, libc::SCHED_IDLE]),
            (Scheduling::Fifo(1), [4, 1, libc::SCHED_FIFO]),
            (Scheduling::RoundRobin(99), [4, 99, libc::SCHED_RR]),
        ] {
            match scheduled(&cat().nice(4).scheduling(scheduling)) {
                Some(seen) => assert_eq!(seen, expected, "{scheduling:?}"),
                None => skipped(&format!("the host may not set {scheduling:?}")),
            }
        }
        assert_eq!(scheduled(&cat()), own, "the host itself is unchanged");
        for priority in [0, 100, 255] {
            for scheduling in [Scheduling::Fifo(priority), Scheduling::RoundRobin(priority)] {
                let error = cat().scheduling(scheduling).compile().unwrap_err();
                let value = priority.into();
                assert_eq!(
                    error,
                    CommandError::OutOfRange {
                        what: "static priority",
                        value
                    }
                );
            }
        }
    });
}

#[test]
fn a_policy_without_the_privilege_for_it_is_an_error_of_its_step() {
    if !root("a_policy_without_the_privilege_for_it_is_an_error_of_its_step") {
        return;
    }
    isolated(|| {
        assert!(crate::common::fork::in_fork(|| {
            crate::common::fork::drop_privileges();
            let error = sh("").scheduling(Scheduling::Fifo(1)).spawn().unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Scheduling, libc::EPERM));
            assert!(
                error
                    .to_string()
                    .contains("set scheduling policy Fifo(1): Operation not permitted"),
                "{error}"
            );
            let error = sh("").io_priority(IoPriority::Realtime(0)).spawn().unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::IoPriority, libc::EPERM));
        }));
    });
}

#[test]
fn the_io_priority_is_as_set() {
    isolated(|| {
        let of = |command: Command| {
            let child = command.arg("1000").spawn().unwrap();
            // SAFETY: the call takes numbers only.
            unsafe { libc::syscall(libc::SYS_ioprio_get, 1, child.pid().as_raw()) }
        };
        let sleep = || Command::new("/bin/sleep");
        assert_eq!(of(sleep().io_priority(IoPriority::BestEffort(6))), 2 << 13 | 6);
        assert_eq!(of(sleep().io_priority(IoPriority::BestEffort(0)).nice(10)), 2 << 13);
        assert_eq!(of(sleep().io_priority(IoPriority::Idle)), 3 << 13);
        if root("the real-time class of the_io_priority_is_as_set") {
            assert_eq!(of(sleep().io_priority(IoPriority::Realtime(7))), 1 << 13 | 7);
        }
        // SAFETY: as above.
        let own = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
        assert!(matches!(own >> 13, 0 | 2), "the host's is unchanged");
        for priority in [IoPriority::BestEffort(8), IoPriority::Realtime(255)] {
            let error = sleep().io_priority(priority).compile().unwrap_err();
            assert!(
                matches!(
                    error,
                    CommandError::OutOfRange {
                        what: "level of the I/O priority",
                        ..
                    }
                ),
                "{error}"
            );
        }
    });
}

/// The gid of a group in group(5).
fn gid(name: &str) -> u32 {
    let text = fs::read_to_string("/etc/group").unwrap();
    let line = text.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn groups_are_set_by_name_and_added() {
    if !root("groups_are_set_by_name_and_added") {
        return;
    }
    isolated(|| {
        let groups = |command: Command| {
            let text = status(command, "Groups");
            let mut groups: Vec<u32> = text.split_whitespace().map(|group| group.parse().unwrap()).collect();
            groups.sort_unstable();
            groups
        };
        let sorted = |groups: &[u32]| {
            let mut groups = groups.to_vec();
            groups.sort_unstable();
            groups
        };
        let (daemon, mail) = (gid("daemon"), gid("mail"));
        let seen = groups(cat_status().uid(12345).group_names(["daemon", "mail"]));
        assert_eq!(seen, sorted(&[daemon, mail]));
        let seen = groups(
            cat_status()
                .uid(12345)
                .gid(4321)
                .add_groups(&[77])
                .add_group_names(["mail"]),
        );
        assert_eq!(seen, sorted(&[4321, 77, mail]));
        let own = groups(cat_status().user("nobody"));
        let added = groups(cat_status().user("nobody").add_group_names(["mail"]));
        assert_eq!(added, sorted(&[own.as_slice(), &[mail]].concat()));
        let own = groups(cat_status());
        assert_eq!(
            groups(cat_status().add_groups(&[7777])),
            sorted(&[own.as_slice(), &[7777]].concat())
        );
        let primary = cat_status().uid(12345).group("mail");
        assert_eq!(
            status(primary.clone(), "Gid"),
            [mail; 4].map(|gid| gid.to_string()).join(" ")
        );
        assert_eq!(groups(primary), [mail]);
        let error = cat_status().add_group_names(["no such group"]).compile().unwrap_err();
        assert_eq!(error.to_string(), r#"there is no group "no such group""#);
    });
}

#[test]
fn only_kept_variables_of_the_host_are_inherited() {
    isolated(|| {
        let env = || Command::new("/usr/bin/env");
        let keys = |command: Command| {
            let text = output(command);
            let mut keys: Vec<String> = text
                .lines()
                .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
                .collect();
            keys.sort();
            keys
        };
        assert!(keys(env()).len() > 2);
        assert_eq!(keys(env().env_keep(["PATH", "NO_SUCH_VARIABLE"])), ["PATH"]);
        assert_eq!(
            keys(env().env_keep(["PATH"]).env("A", "").current_dir("/")),
            ["A", "PATH", "PWD"]
        );
        assert_eq!(keys(env().env_keep([""; 0])), [""; 0]);
        assert_eq!(keys(env().env_clear().env_keep(["PATH"]).current_dir("/")), ["PATH"]);
        assert_eq!(keys(env().env_keep(["PATH"]).env_clear()), [""; 0]);
        for key in ["", "a=b", "nul\0"] {
            assert!(env().env_keep([key]).compile().is_err(), "{key:?}");
        }
        // The pasted command gives the same.
        let command = env().env_keep(["PATH", "NO_SUCH_VARIABLE"]).env("B", "x y");
        let pasted = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(command.to_string())
            .output()
            .unwrap();
        let sorted = |text: String| {
            text.lines()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(
            sorted(output(command)),
            sorted(String::from_utf8(pasted.stdout).unwrap())
        );
        // Equal but for the environment.
        assert!(env().differs_only_in_environment(&env().env_keep(["PATH"])));
    });
}
