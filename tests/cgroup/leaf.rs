//! One leaf: its name, its takeover, its events, its removal.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use pidherd::cgroup::{Cgroup, CgroupDir, CgroupError};
use pidherd::fdset::{FdSet, Interest};
use rustix::io::Errno;

use crate::common::cgroups::{run_in, sleepers};
use crate::common::{isolated, wait_gone};
use crate::{LIMIT, delegated, wait_empty, wait_priority, with_descriptors};

fn is_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: Errno) -> bool {
    result.is_err_and(|error| Errno::from_io_error(&error) == Some(errno))
}

#[test]
fn a_name_that_cannot_be_changes_nothing() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "a\nb",
            "a\0b",
            "cgroup.procs",
            "cpu.x",
            &long,
        ] {
            let error = dir.leaf(name).unwrap_err();
            assert!(matches!(error, CgroupError::Name { .. }), "{name:?}: {error}");
        }
        let directories = fs::read_dir(cgroup.path()).unwrap().flatten();
        assert_eq!(directories.filter(|entry| entry.path().is_dir()).count(), 0);
        let longest = dir.leaf("x".repeat(255)).unwrap();
        assert_eq!(longest.name().len(), 255);
        longest.remove().unwrap();
    });
}

#[test]
fn a_leaf_outlives_its_handle() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("web-0").unwrap();
        assert_eq!(leaf.path(), cgroup.path().join("web-0"));
        assert_eq!(leaf.dir(), &dir);
        assert!(!leaf.is_populated().unwrap());
        drop(leaf);
        assert!(cgroup.path().join("web-0").is_dir());
        dir.leaf("web-0").unwrap().remove().unwrap();
        assert!(!cgroup.path().join("web-0").exists());
    });
}

#[test]
fn what_a_killed_supervisor_left_is_killed() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let left = dir.leaf("web-0").unwrap();
        let mut child = run_in(&left.path(), r#"mkdir "$0/sub"; setsid sleep 1000 & exec sleep 1000"#);
        let before = sleepers(&left.path(), 2);
        drop(left);

        let leaf = dir.leaf("web-0").unwrap();
        let events = leaf.events().unwrap();
        wait_empty(&leaf, &events);
        for pid in before {
            assert!(wait_gone(pid, LIMIT));
        }
        assert_eq!(child.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
        assert!(leaf.path().join("sub").is_dir(), "what lives is not tidied up");
        leaf.clear().unwrap();
        assert!(!leaf.path().join("sub").exists());
        leaf.remove().unwrap();
    });
}

#[test]
fn an_empty_leaf_is_cleared_when_it_is_taken_over_and_keeps_its_limits() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let path = cgroup.path().join("prepared");
        fs::create_dir_all(path.join("sub/deeper")).unwrap();
        fs::write(path.join("cgroup.max.depth"), "7").unwrap();
        fs::write(path.join("cgroup.freeze"), "1").unwrap();
        let leaf = dir.leaf("prepared").unwrap();
        assert!(!path.join("sub").exists());
        assert!(!leaf.is_frozen().unwrap());
        assert_eq!(fs::read_to_string(path.join("cgroup.max.depth")).unwrap(), "7\n");
        leaf.remove().unwrap();
    });
}

/// A child that is started in a frozen cgroup would keep its parent waiting.
#[test]
fn a_frozen_leaf_is_thawed_when_it_is_taken_over() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("frozen").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        fs::write(leaf.path().join("cgroup.freeze"), "1").unwrap();
        let leaf = dir.leaf("frozen").unwrap();
        wait_empty(&leaf, leaf.events().unwrap());
        child.wait().unwrap();
        assert!(!leaf.is_frozen().unwrap());
        leaf.remove().unwrap();
    });
}

#[test]
fn a_frozen_directory_is_seen_in_its_leaf() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        for (state, frozen) in [("1", true), ("0", false)] {
            fs::write(cgroup.path().join("cgroup.freeze"), state).unwrap();
            assert_eq!(leaf.is_frozen().unwrap(), frozen);
        }
        leaf.remove().unwrap();
    });
}

/// `cgroup.events` said so of a cgroup with others below it, in one of a dozen runs (Linux 6.18).
#[test]
fn a_flag_that_the_kernel_forgot_to_clear_is_not_believed() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        fs::create_dir_all(leaf.path().join("a/b")).unwrap();
        let mut forgotten = 0;
        for _ in 0..100 {
            let mut children = ["", "a/b"].map(|below| run_in(&leaf.path().join(below), "exec sleep 1000"));
            sleepers(&leaf.path(), 2);
            fs::write(leaf.path().join("cgroup.freeze"), "1").unwrap();
            assert!(leaf.is_frozen().unwrap());
            for child in &mut children {
                child.kill().unwrap();
            }
            fs::write(leaf.path().join("cgroup.freeze"), "0").unwrap();
            for child in &mut children {
                child.wait().unwrap();
            }
            assert!(!leaf.is_frozen().unwrap());
            let events = fs::read_to_string(leaf.path().join("cgroup.events")).unwrap();
            forgotten += usize::from(events.contains("frozen 1"));
        }
        println!("the kernel forgot {forgotten} of 100");
        leaf.remove().unwrap();
    });
}

#[test]
fn a_supervisor_does_not_kill_itself() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let path = cgroup.path().join("own");
        fs::create_dir_all(path.join("sub")).unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let home = crate::common::cgroup_root().unwrap().join(own).join("cgroup.procs");
        fs::write(path.join("sub/cgroup.procs"), "0").unwrap();
        let error = dir.leaf("own").unwrap_err();
        fs::write(home, "0").unwrap();
        assert_eq!(error, CgroupError::Own { path });
    });
}

#[test]
fn a_threaded_leaf_is_refused() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let path = cgroup.path().join("threaded");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.type"), "threaded").unwrap();
        assert_eq!(dir.leaf("threaded").unwrap_err(), CgroupError::Threaded { path });
        // The directory is the root of a threaded subtree by now.
        let path = cgroup.path().join("new");
        assert_eq!(
            dir.leaf("new").unwrap_err(),
            CgroupError::Threaded { path: path.clone() }
        );
        assert!(!path.exists());
    });
}

#[test]
fn the_set_tells_when_the_last_process_is_gone() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "setsid sleep 1000 & exec sleep 1000");
        let pids = sleepers(&leaf.path(), 2);
        let events = leaf.events().unwrap();
        let mut set = FdSet::new().unwrap();
        let token = set.add(events.as_fd(), Interest::PRIORITY).unwrap();
        let mut ready = Vec::new();
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, [], "nothing has changed yet");

        // One of two: no change.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(leaf.is_populated().unwrap());
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, []);

        leaf.kill().unwrap();
        assert!(wait_priority(&events, LIMIT));
        for _ in 0..2 {
            set.ready(&mut ready).unwrap();
            assert_eq!(ready, [token], "it stays so until it is read");
        }
        assert!(!Cgroup::acknowledge(&events).unwrap());
        assert!(!leaf.is_populated().unwrap());
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, []);
        for pid in pids {
            assert!(wait_gone(pid, LIMIT));
        }

        let mut next = run_in(&leaf.path(), "exec sleep 1000");
        // Before Linux 5.14 the kill froze the cgroup, and that it has been thawed may be told first.
        loop {
            assert!(wait_priority(&events, LIMIT), "the next run is told too");
            if Cgroup::acknowledge(&events).unwrap() {
                break;
            }
        }
        leaf.kill().unwrap();
        next.wait().unwrap();
        wait_empty(&leaf, &events);
        set.remove(token, events).unwrap();
        leaf.remove().unwrap();
    });
}

#[test]
fn two_watchers_both_see_a_change() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let (first, second) = (leaf.events().unwrap(), leaf.events().unwrap());
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        for events in [&first, &second] {
            assert!(wait_priority(events, LIMIT));
            assert!(Cgroup::acknowledge(events).unwrap());
        }
        leaf.kill().unwrap();
        for events in [&first, &second] {
            wait_empty(&leaf, events);
        }
        child.wait().unwrap();
        leaf.remove().unwrap();
    });
}

#[test]
fn what_is_not_its_events_is_not_believed() {
    isolated(|| {
        let other = fs::File::open("/proc/self/comm").unwrap();
        let error = Cgroup::acknowledge(other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn what_lives_is_not_removed_and_loses_nothing() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let script = r#"mkdir -p "$0/a/empty" "$0/b"; echo $$ >"$0/b/cgroup.procs"; exec sleep 1000"#;
        let mut child = run_in(&leaf.path(), script);
        sleepers(&leaf.path(), 1);
        assert!(is_errno(leaf.remove(), Errno::BUSY));
        assert!(is_errno(leaf.clear(), Errno::BUSY));
        assert!(leaf.path().join("a/empty").is_dir());
        leaf.kill().unwrap();
        wait_empty(&leaf, leaf.events().unwrap());
        // An unreaped zombie does not prevent the removal.
        leaf.remove().unwrap();
        assert!(!leaf.path().exists());
        child.wait().unwrap();
    });
}

#[test]
fn a_removed_leaf_is_an_empty_one() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let events = leaf.events().unwrap();
        leaf.remove().unwrap();
        leaf.remove().unwrap();
        assert!(!Cgroup::acknowledge(&events).unwrap());
        assert!(!leaf.is_populated().unwrap());
        assert!(!leaf.is_frozen().unwrap());
        assert_eq!(leaf.processes().unwrap(), []);
        assert_eq!(leaf.signal(pidherd::Signal::TERM).unwrap(), 0);
        leaf.kill().unwrap();
        leaf.clear().unwrap();
        assert!(is_errno(leaf.events(), Errno::NOENT));
    });
}

#[test]
fn a_namesake_is_not_removed() {
    isolated(|| {
        let Some((_cgroup, dir)) = delegated() else { return };
        let first = dir.leaf("leaf").unwrap();
        fs::remove_dir(first.path()).unwrap();
        let second = dir.leaf("leaf").unwrap();
        first.remove().unwrap();
        assert!(second.path().is_dir());
        second.remove().unwrap();
        assert!(!second.path().exists());
    });
}

#[test]
fn controllers_that_the_program_enabled_are_disabled() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let root = crate::common::cgroup_root().unwrap();
        let available = read(&cgroup.path().join("cgroup.controllers"));
        let Some(controller) = available.split_whitespace().next() else {
            return crate::common::skipped(&format!("needs a controller enabled in {root:?}"));
        };
        let enable = |path: &Path| fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
        enable(cgroup.path()).unwrap();
        let leaf = dir.leaf("leaf").unwrap();
        enable(&leaf.path()).unwrap();
        fs::create_dir(leaf.path().join("sub")).unwrap();
        leaf.clear().unwrap();
        assert_eq!(read(&leaf.path().join("cgroup.subtree_control")).trim(), "");
        leaf.remove().unwrap();
    });
}

/// How deep it nests is for the program to say, and it must not get out of reach by that.
#[test]
fn a_deep_nest_takes_no_more_descriptors_than_a_shallow_one() {
    isolated(|| {
        const DEPTH: usize = 300;
        let Some((_cgroup, dir)) = delegated() else { return };
        let leaf = dir.leaf("leaf").unwrap();
        let deepest = leaf.path().join("d/".repeat(DEPTH));
        fs::create_dir_all(&deepest).unwrap();
        let mut child = run_in(&deepest, "exec sleep 1000");
        sleepers(&deepest, 1);
        with_descriptors(4, || {
            assert_eq!(leaf.processes().unwrap().len(), 1);
            assert_eq!(leaf.signal(pidherd::Signal::KILL).unwrap(), 1);
        });
        child.wait().unwrap();
        wait_empty(&leaf, leaf.events().unwrap());
        with_descriptors(4, || leaf.remove().unwrap());
        assert!(!leaf.path().exists());
    });
}

#[test]
fn handles_may_go_to_other_threads() {
    fn sendable<T: Send + Sync>() {}
    sendable::<CgroupDir>();
    sendable::<Cgroup>();
    sendable::<CgroupError>();
}
