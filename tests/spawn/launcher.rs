//! A launcher: when it wakes its host, and what its drop leaves.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pidherd::{Command, LaunchId, Launcher, Signal};

use crate::common::descriptors::readable;
use crate::common::tracer::Tracer;
use crate::common::{SOON, elf, isolated, patience, skipped, tempdir, wait_readable};
use crate::held::{Frozen, hanging};
use crate::helpers::sh;
use crate::in_flight::reaped_by_later_spawns;

fn is_readable(launcher: &Launcher) -> bool {
    wait_readable(launcher.as_fd(), Duration::ZERO)
}

/// Each of the programs runs at once and ends no earlier than it is killed, so only the timer tells of it.
#[test]
fn one_spawn_after_the_other_does_not_put_off_the_news() {
    if !elf::runs_or_skip() {
        return;
    }
    isolated(|| {
        let place = tempdir();
        elf::install(&place.join("waits"), elf::WAITING);
        let program = Command::new(place.join("waits")).compile().unwrap();
        let mut launcher = Launcher::new().unwrap();
        let began = Instant::now();
        let mut ids = Vec::new();
        // A machine with other work may let a single call last for milliseconds, so the time counts from its return.
        let mut first: Option<Instant> = None;
        while began.elapsed() < Duration::from_millis(20) {
            let is_due = first.is_some_and(|first| first.elapsed() > Duration::from_millis(5));
            ids.push(launcher.begin(&program).unwrap());
            first.get_or_insert_with(Instant::now);
            assert!(is_readable(&launcher) || !is_due, "the last of {} spawns", ids.len());
        }
        let mut children = Vec::new();
        while launcher.in_flight() > 0 {
            assert!(wait_readable(launcher.as_fd(), SOON));
            while let Some((id, child)) = launcher.finish() {
                ids.retain(|&other| other != id);
                children.push(child.unwrap());
            }
        }
        assert_eq!(ids, []);
        for child in &mut children {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
        }
    });
}

/// The time until the one timer of this process fires.
fn time_to_look() -> Duration {
    let timer = |entry: std::io::Result<fs::DirEntry>| {
        let info = fs::read_to_string(entry.unwrap().path()).ok()?;
        let (_, value) = info.split_once("it_value: (")?;
        let (seconds, nanos) = value.split_once(')')?.0.split_once(", ")?;
        Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
    };
    let timers: Vec<Duration> = readable(|| fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(timer).collect());
    assert_eq!(timers.len(), 1);
    timers[0]
}

/// A host that calls `finish` each time that it is awake is told as early as one that does not.
#[test]
fn looks_become_rarer_with_time_and_not_with_their_number() {
    isolated(|| {
        let place = tempdir();
        let Some((lease, path)) = hanging(&place) else { return };
        let mut launcher = Launcher::new().unwrap();
        let began = Instant::now();
        launcher.begin(&Command::new(path).compile().unwrap()).unwrap();
        for _ in 0..100 {
            assert!(launcher.finish().is_none());
            let (pause, age) = (time_to_look(), began.elapsed());
            assert!(pause <= Duration::from_millis(1) + age / 2, "{pause:?} after {age:?}");
        }
        lease.end();
        assert!(wait_readable(launcher.as_fd(), SOON));
    });
}

/// A tracer holds each of them when it has been killed.
#[test]
fn dropping_a_launcher_waits_for_all_together() {
    const CHILDREN: usize = 6;
    isolated(|| {
        let place = tempdir();
        let Some((lease, path)) = hanging(&place) else { return };
        let program = Command::new(path).compile().unwrap();
        let mut launcher = Launcher::new().unwrap();
        for _ in 0..CHILDREN {
            launcher.begin(&program).unwrap();
        }
        let pids = crate::common::processes::children();
        assert_eq!(pids.len(), CHILDREN);
        let tracers: Option<Vec<_>> = pids.iter().map(|&pid| Tracer::attach(pid)).collect();
        let Some(tracers) = tracers else {
            drop(launcher);
            return lease.end();
        };
        let began = Instant::now();
        drop(launcher);
        assert!(
            began.elapsed() < Duration::from_secs(4) * patience(),
            "{:?}",
            began.elapsed()
        );
        lease.end();
        drop(tracers);
        reaped_by_later_spawns();
    });
}

#[test]
fn a_host_sleeps_while_a_tracer_holds_a_child_that_failed() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mut launcher = Launcher::new().unwrap();
        let failed = launcher.begin(&frozen.hold(Command::new("/no/such"))).unwrap();
        let [pid] = crate::common::processes::children()[..] else {
            panic!("one child")
        };
        let Some(tracer) = Tracer::attach(pid) else {
            return skipped("no tracer");
        };
        frozen.thaw();
        let began = Instant::now();
        let mut wakeups = 0;
        while began.elapsed() < Duration::from_millis(400) {
            wait_readable(launcher.as_fd(), Duration::from_millis(400));
            wakeups += 1;
            assert!(launcher.finish().is_none());
        }
        assert!(wakeups < 60, "{wakeups} wakeups");
        drop(tracer);
        let (id, error): (LaunchId, _) = loop {
            assert!(wait_readable(launcher.as_fd(), SOON));
            if let Some((id, outcome)) = launcher.finish() {
                break (id, outcome.unwrap_err());
            }
        };
        assert_eq!((id, error.errno()), (failed, libc::ENOENT));
    });
}

/// The limits of the kernel for one process, or what is too small for more than a few spawns, are not reached by the
/// many that have been in flight.
#[test]
fn what_many_spawns_used_is_given_back() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mappings = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let program = frozen.hold(sh(""));
        let mut launcher = Launcher::new().unwrap();
        let before = mappings();
        for _ in 0..300 {
            launcher.begin(&program).unwrap();
        }
        assert!(mappings() > before + 300);
        frozen.thaw();
        while launcher.in_flight() > 0 {
            assert!(wait_readable(launcher.as_fd(), SOON));
            while let Some((_, child)) = launcher.finish() {
                assert!(child.unwrap().wait().unwrap().exit.success());
            }
        }
        assert!(mappings() < before + 200, "{} and {before}", mappings());
    });
}
