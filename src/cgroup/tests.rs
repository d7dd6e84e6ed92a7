//! Tests of private behaviour: kernels without `cgroup.kill`, and a number that was given to another process.

mod plain;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, inotify};

use super::dir::identity;
use super::members::{List, Sent, signal_listed};
use super::{Cgroup, CgroupDir, tree};
use crate::exit::Pid;
use crate::signal::Signal;
use crate::testing::common::cgroups::{FORKING_CHAINS, members, run_in, sleepers};
use crate::testing::common::refuse::refusing;
use crate::testing::common::{self, TestCgroup, isolated, test_cgroup, wait_gone, wait_readable, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// A directory on a kernel that has no `cgroup.kill`.
fn without_kill_file() -> Option<(TestCgroup, CgroupDir)> {
    let cgroup = test_cgroup()?;
    let fd = tree::open_path(CWD, cgroup.path()).unwrap();
    let identity = identity(&fd).unwrap();
    let dir = CgroupDir::new(fd, cgroup.path().into(), identity, c"cgroup.no-such-file");
    Some((cgroup, dir))
}

/// Calls `check` with a directory that has these files, as a cgroup has.
pub(super) fn with_files<T>(files: &[(&str, &str)], check: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    let directory = common::tempdir();
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
    check(File::open(directory.path()).unwrap().as_fd())
}

fn wait_empty(leaf: &Cgroup) {
    wait_until("the cgroup is empty", LIMIT, || !leaf.is_populated().unwrap());
}

#[test]
fn one_by_one_reaches_the_whole_tree() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let leaf = dir.leaf("leaf").unwrap();
        let script = r#"
            mkdir -p "$0/a/b"
            trap "" TERM
            setsid sh -c 'echo $$ >"$0/a/b/cgroup.procs"; exec sleep 1000' "$0" &
            (setsid sleep 1000 &)
            exec sleep 1000"#;
        let mut child = run_in(&leaf.path(), script);
        let there = sleepers(&leaf.path(), 3);
        leaf.kill().unwrap();
        wait_empty(&leaf);
        for pid in there {
            assert!(wait_gone(pid, LIMIT));
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!leaf.is_frozen().unwrap());
        leaf.kill().unwrap();
        leaf.remove().unwrap();
        leaf.kill().unwrap();
    });
}

#[test]
fn one_by_one_ends_a_tree_that_forks_all_the_time() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        for _ in 0..10 {
            let leaf = dir.leaf("leaf").unwrap();
            let mut child = run_in(&leaf.path(), FORKING_CHAINS);
            let sleeper = sleepers(&leaf.path(), 1);
            let first = members(&leaf.path());
            wait_until("others have taken their places", LIMIT, || {
                members(&leaf.path()).intersection(&first).eq(&sleeper)
            });
            leaf.kill().unwrap();
            wait_empty(&leaf);
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            leaf.remove().unwrap();
        }
    });
}

#[test]
fn what_was_left_is_killed_one_by_one_too() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let mut child = run_in(&dir.leaf("leaf").unwrap().path(), "exec sleep 1000");
        sleepers(&dir.path().join("leaf"), 1);
        let leaf = dir.leaf("leaf").unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        wait_empty(&leaf);
        leaf.remove().unwrap();
    });
}

#[test]
fn it_is_frozen_meanwhile() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).unwrap();
        let file = leaf.path().join("cgroup.freeze");
        inotify::add_watch(&watch, file, inotify::WatchFlags::MODIFY).unwrap();
        leaf.kill().unwrap();
        assert!(wait_readable(&watch, Duration::ZERO));
        child.wait().unwrap();
        wait_empty(&leaf);
        leaf.remove().unwrap();
    });
}

/// The supervisor needs this to send no signal twice.
#[test]
fn which_processes_a_signal_has_reached_is_known() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        let [there, elsewhere] = [child.id(), std::process::id()].map(|pid| Pid::new(pid).unwrap());
        for (pid, expected) in [(there, true), (elsewhere, false)] {
            let (reached, sent) = leaf.signal_with(Signal::CONT, pid);
            sent.unwrap();
            assert_eq!(reached, expected);
        }
        leaf.kill().unwrap();
        child.wait().unwrap();
        wait_empty(&leaf);
        let (reached, sent) = leaf.signal_with(Signal::CONT, there);
        assert!(!reached && sent.is_ok());
        leaf.remove().unwrap();
    });
}

/// Only `cgroup.kill` could kill such a process.
#[test]
fn a_user_that_may_not_signal_a_process_gets_an_error_at_once() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        if !common::root_or_skip("it becomes another user") {
            return;
        }
        let leaf = dir.leaf("leaf").unwrap();
        let mut roots = [(); 2].map(|()| run_in(&leaf.path(), "exec sleep 1000"));
        sleepers(&leaf.path(), 2);
        assert!(common::fork::in_fork(|| {
            common::fork::drop_privileges();
            let error = leaf.kill().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }));
        for child in &mut roots {
            assert!(child.try_wait().unwrap().is_none());
        }
        leaf.kill().unwrap();
        for child in &mut roots {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        wait_empty(&leaf);
        leaf.remove().unwrap();
    });
}

/// A process in a cgroup that was already frozen is killed, and the cgroup stays frozen.
#[test]
fn a_freeze_that_was_there_stays() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let leaf = dir.leaf("leaf").unwrap();
        let mut child = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        fs::write(leaf.path().join("cgroup.freeze"), "1").unwrap();
        leaf.kill().unwrap();
        child.wait().unwrap();
        wait_empty(&leaf);
        assert!(leaf.is_frozen().unwrap());
        leaf.clear().unwrap();
        assert!(!leaf.is_frozen().unwrap());
        leaf.remove().unwrap();
    });
}

/// The number belonged to a member when the list was read, and belongs to an unrelated process when it is used.
#[test]
fn a_recycled_number_is_not_signalled() {
    isolated(|| {
        let Some((_cgroup, dir)) = without_kill_file() else {
            return;
        };
        let leaf = dir.leaf("leaf").unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut member = run_in(&leaf.path(), "exec sleep 1000");
        sleepers(&leaf.path(), 1);
        let (mut list, _) = List::of(leaf.fd()).unwrap().unwrap();
        let mut sent = Sent::default();
        let listed = [stranger.id(), member.id(), u32::MAX, i32::MAX as u32];
        signal_listed(&mut list, listed, Signal::KILL, &mut sent).unwrap();
        assert_eq!(sent.reached.into_iter().collect::<Vec<_>>(), [member.id()]);
        assert!(sent.refused.is_none());
        assert_eq!(member.wait().unwrap().signal(), Some(9));
        let raw = rustix::process::Pid::from_raw(stranger.id() as i32).unwrap();
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).unwrap();
        assert!(!wait_readable(&pidfd, Duration::ZERO));
        // The first fatal signal is the one that counts.
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::TERM).unwrap();
        assert_eq!(stranger.wait().unwrap().signal(), Some(15));
        wait_empty(&leaf);
        leaf.remove().unwrap();
    });
}

/// The result is the same on a kernel without CLONE_INTO_CGROUP, or behind a filter.
#[test]
fn without_clone3_a_child_enters_its_cgroup_itself() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let dir = CgroupDir::open(cgroup.path()).unwrap();
        for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG] {
            let leaf = dir.make("leaf").unwrap();
            refusing(libc::SYS_clone3, errno, || {
                let mut spawner = crate::Spawner::new().unwrap();
                let script = "(setsid sleep 1000 &) ; exec sleep 1000";
                let command = crate::Command::new("/bin/sh").args(["-c", script]);
                let program = command.compile().unwrap();
                for _ in 0..2 {
                    spawner.spawn_in(&program, Some(leaf.fd())).unwrap().detach();
                }
                sleepers(&leaf.path(), 4);
                let error = spawner.spawn_in(&program, Some(File::open("/tmp").unwrap().as_fd()));
                let error = error.unwrap_err();
                assert_eq!((error.step(), error.errno()), (crate::SpawnStep::Cgroup, libc::EBADF));
            });
            leaf.kill().unwrap();
            wait_empty(&leaf);
            leaf.remove().unwrap();
            while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
        }
        let removed = dir.make("removed").unwrap();
        removed.remove().unwrap();
        refusing(libc::SYS_clone3, libc::ENOSYS, || {
            let mut spawner = crate::Spawner::new().unwrap();
            let program = crate::Command::new("/bin/true").compile().unwrap();
            let error = spawner.spawn_in(&program, Some(removed.fd())).unwrap_err();
            assert_eq!(error.step(), crate::SpawnStep::Cgroup, "{error}");
        });
    });
}

#[test]
fn a_directory_and_a_leaf_have_one_descriptor_each() {
    let directory = CgroupDir::pretended(1);
    assert_eq!(directory.as_raw_fd(), directory.as_fd().as_raw_fd());
    let place = common::tempdir();
    let leaf = CgroupDir::plain(place.path()).make("leaf").unwrap();
    assert_eq!(leaf.as_raw_fd(), leaf.fd().as_raw_fd());
}
