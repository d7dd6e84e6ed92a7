//! Tests of what is read from files and written to them, in plain directories with the files of a cgroup. Thus they
//! need no controller.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup::oom::{OomKill, OomLimit};
use crate::cgroup::{Cgroup, CgroupDir, CgroupError, CgroupUsage, Limits, tree};
use crate::signal::Signal;
use crate::testing::common::fork::{drop_privileges, in_fork};
use crate::testing::common::{TempDir, isolated, root_or_skip, tempdir};

/// A leaf with these files, in a directory of its own.
fn leaf(files: &[(&str, &str)]) -> (TempDir, Cgroup) {
    let directory = tempdir();
    let leaf = CgroupDir::plain(directory.path()).make("leaf").unwrap();
    for (name, content) in files {
        fs::write(leaf.path().join(name), content).unwrap();
    }
    (directory, leaf)
}

fn content(cgroup: &Cgroup, file: &str) -> String {
    fs::read_to_string(cgroup.path().join(file)).unwrap()
}

#[test]
fn a_cgroup_is_frozen_and_thawed_by_its_file() {
    let (_directory, leaf) = leaf(&[("cgroup.freeze", "0")]);
    leaf.freeze().unwrap();
    assert!(leaf.is_frozen().unwrap());
    leaf.thaw().unwrap();
    assert!(!leaf.is_frozen().unwrap());
    // A kernel before 5.2, and a cgroup that was removed.
    fs::remove_file(leaf.path().join("cgroup.freeze")).unwrap();
    assert_eq!(leaf.freeze().unwrap_err().kind(), io::ErrorKind::Unsupported);
    fs::remove_dir(leaf.path()).unwrap();
    leaf.freeze().unwrap();
}

#[test]
fn limits_are_written_unless_one_is_out_of_range() {
    let (_directory, leaf) = leaf(&[("memory.max", ""), ("pids.max", "")]);
    let refused = leaf.set_limits(&Limits::new().memory_max(1 << 20).cpu_weight(0));
    assert!(matches!(refused, Err(CgroupError::OutOfRange { .. })));
    assert_eq!(content(&leaf, "memory.max"), "");
    leaf.set_limits(&Limits::new().memory_max(1 << 20).pids_max(7)).unwrap();
    assert_eq!(content(&leaf, "memory.max"), "1048576\n");
    assert_eq!(content(&leaf, "pids.max"), "7\n");
}

#[test]
fn the_usage_is_read_from_the_files() {
    let (_directory, leaf) = leaf(&[
        ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n"),
        ("memory.current", "1\n"),
        ("memory.peak", "2\n"),
        ("memory.swap.current", "3\n"),
        ("memory.events", "oom 9\noom_kill 4\n"),
        ("pids.current", "5\n"),
        ("pids.peak", "6\n"),
        ("pids.events", "max 7\n"),
        // More than the kernel returns at a time.
        ("io.stat", &"8:0 rbytes=1 wbytes=2 rios=9\n".repeat(1_000)),
    ]);
    let all = CgroupUsage {
        cpu: Some(Duration::from_micros(30)),
        cpu_user: Some(Duration::from_micros(20)),
        cpu_system: Some(Duration::from_micros(10)),
        memory_current: Some(1),
        memory_peak: Some(2),
        memory_swap_current: Some(3),
        oom_kills: Some(4),
        pids_current: Some(5),
        pids_peak: Some(6),
        pids_refused: Some(7),
        io_read: Some(1_000),
        io_written: Some(2_000),
    };
    assert_eq!(leaf.usage(), all);
    for file in fs::read_dir(leaf.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert_eq!(leaf.usage(), CgroupUsage::default());
}

#[test]
fn a_kill_for_lack_of_memory_is_known_with_the_limit_above() {
    let (directory, leaf) = leaf(&[("memory.events", "oom 0\noom_kill 0\n")]);
    let above = |count| fs::write(directory.join("memory.events.local"), format!("oom {count}\n")).unwrap();
    above(7);
    let before = leaf.above().unwrap();
    assert_eq!(leaf.out_of_memory(Some(&before)), None);
    above(8);
    fs::write(leaf.path().join("memory.events"), "oom 0\noom_kill 1\n").unwrap();
    let kill = |limit| {
        Some(OomKill {
            limit,
            is_certain: false,
        })
    };
    let ancestor = OomLimit::Ancestor { levels: 1 };
    assert_eq!(leaf.out_of_memory(Some(&before)), kill(ancestor));
    assert_eq!(leaf.out_of_memory(None), kill(OomLimit::Unknown));
    fs::remove_file(leaf.path().join("memory.events")).unwrap();
    assert!(leaf.above().is_none());
}

#[test]
fn a_cgroup_is_as_frozen_after_a_kill_one_by_one_as_before() {
    for state in ["0", "1"] {
        let (_directory, leaf) = leaf(&[("cgroup.freeze", state), ("cgroup.procs", "")]);
        leaf.kill().unwrap();
        assert_eq!(content(&leaf, "cgroup.freeze"), state);
    }
}

/// As with kill(2).
#[test]
fn a_refused_signal_is_an_error_only_if_no_process_was_reached() {
    isolated(|| {
        if !root_or_skip("it becomes another user") {
            return;
        }
        let (_directory, leaf) = leaf(&[]);
        let list = leaf.path().join("cgroup.procs");
        let parent = std::process::id();
        for (with_own, expected) in [(true, Ok(1)), (false, Err(Some(libc::EPERM)))] {
            assert!(in_fork(|| {
                let own = std::process::id();
                let listed = if with_own { own } else { parent };
                fs::write(&list, format!("{parent}\n{listed}\n")).unwrap();
                drop_privileges();
                let sent = leaf.signal(Signal::WINCH);
                assert_eq!(sent.map_err(|error| error.raw_os_error()), expected);
            }));
        }
        fs::write(&list, format!("{parent}\n")).unwrap();
        assert_eq!(leaf.signal(Signal::WINCH).unwrap(), 1);
    });
}

#[test]
fn the_controllers_that_limits_need_are_enabled() {
    let limits = || Limits::new().pids_max(7);
    for (delegated, enabled, limits, result, written) in [
        ("cpu pids", "", limits(), Ok(()), "+pids"),
        ("cpu pids", "", limits().cpu_weight(7), Ok(()), "+cpu +pids"),
        ("cpu pids", "cpu", limits().cpu_weight(7), Ok(()), "+pids"),
        ("cpu pids", "pids cpu\n", limits(), Ok(()), "pids cpu\n"),
        ("cpu pids", "cpu\n", Limits::new(), Ok(()), "cpu\n"),
        // The kernel counts processes, too, where memory is limited.
        ("memory pids", "memory", Limits::new().memory_max(7), Ok(()), "+pidsy"),
    ] {
        let directory = tempdir();
        let file = directory.join("cgroup.subtree_control");
        fs::write(directory.join("cgroup.controllers"), delegated).unwrap();
        fs::write(&file, enabled).unwrap();
        let done = CgroupDir::plain(directory.path()).enable_controllers(&limits);
        assert_eq!(done, result, "{written}");
        assert_eq!(fs::read_to_string(&file).unwrap(), written);
    }
}

#[test]
fn a_controller_that_is_delegated_and_refused_is_told_apart_from_one_that_is_not_delegated() {
    let directory = tempdir();
    let enable = |delegated: &str| {
        fs::write(directory.join("cgroup.controllers"), delegated).unwrap();
        CgroupDir::plain(directory.path()).enable_controllers(&Limits::new().pids_max(7))
    };
    let (path, controller) = (directory.path().to_owned(), "pids".to_owned());
    assert_eq!(
        enable("cpu pids"),
        Err(CgroupError::CannotEnable {
            path: path.clone(),
            controller: controller.clone(),
            errno: libc::ENOENT,
        })
    );
    assert_eq!(enable("cpu"), Err(CgroupError::NoController { path, controller }));
}

#[test]
fn a_leaf_that_is_there_is_opened_as_it_is() {
    let directory = tempdir();
    fs::create_dir(directory.join("leaf")).unwrap();
    fs::write(directory.join("file"), "").unwrap();
    let dir = CgroupDir::plain(directory.path());
    let there = dir.existing("leaf").unwrap().unwrap();
    assert_eq!(there.path(), directory.join("leaf"));
    assert!(dir.existing("other").unwrap().is_none());
    let error = dir.existing("file").unwrap_err();
    assert!(matches!(error, CgroupError::NotADirectory { .. }), "{error}");
}

#[test]
fn a_name_is_checked_without_a_directory() {
    CgroupDir::check_name("web-0").unwrap();
    for name in ["", "a/b", "memory.max"] {
        let error = CgroupDir::check_name(name).unwrap_err();
        assert!(matches!(error, CgroupError::Name { .. }), "{error}");
    }
}

#[test]
fn a_cleared_cgroup_has_no_controllers_for_others_and_is_thawed() {
    let (_directory, leaf) = leaf(&[
        ("cgroup.events", "populated 0\nfrozen 1\n"),
        ("cgroup.subtree_control", "cpu pids\n"),
        ("cgroup.freeze", "1"),
    ]);
    leaf.clear().unwrap();
    assert_eq!(content(&leaf, "cgroup.subtree_control").trim(), "-cpu -pids");
    assert_eq!(content(&leaf, "cgroup.freeze"), "0");
}

#[test]
fn a_cgroup_is_opened_neither_through_a_link_nor_for_a_child() {
    let (directory, leaf) = leaf(&[("cgroup.events", "populated 0\n")]);
    symlink(leaf.path(), directory.join("link")).unwrap();
    let above = leaf.dir().as_fd();
    for name in [c"link", c"leaf/cgroup.events"] {
        let refused = tree::open(above, name);
        assert!(matches!(refused, Err(Errno::NOTDIR | Errno::LOOP)), "{refused:?}");
    }
    for fd in [tree::open(above, c"leaf").unwrap(), leaf.events().unwrap()] {
        assert_eq!(fcntl_getfd(&fd).unwrap(), FdFlags::CLOEXEC);
    }
}

/// A limit of memory is lowered without a wait for its reclaim.
#[test]
fn a_limit_is_written_without_a_wait() {
    // Isolated, because a pipe without a reader would be waited for.
    isolated(|| {
        let (_directory, leaf) = leaf(&[]);
        mkfifoat(CWD, leaf.path().join("memory.max"), Mode::RUSR | Mode::WUSR).unwrap();
        let refused = leaf.set_limits(&Limits::new().memory_max(1)).unwrap_err();
        assert_eq!(refused.errno(), libc::ENXIO);
    });
}

#[test]
fn a_value_that_is_written_in_part_is_an_error() {
    isolated(|| {
        let (_directory, leaf) = leaf(&[("memory.max", ""), ("pids.max", "")]);
        let before = getrlimit(Resource::Fsize);
        let current = Some(4);
        setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
        let whole = leaf.set_limits(&Limits::new().pids_max(777));
        let in_part = leaf.set_limits(&Limits::new().memory_max(1 << 20));
        setrlimit(Resource::Fsize, before).unwrap();
        whole.unwrap();
        assert_eq!(in_part.unwrap_err().errno(), libc::EFBIG);
    });
}
