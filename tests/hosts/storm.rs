//! A crash storm: its groups, the count of its runs, and its end.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pidherd::lifecycle::{Delay, Policy, Restart, Scope, Startup, StopLadder};
use pidherd::{Command, GroupSpec, Signal, SignalFd, SignalSet, Supervisor};
use rustix::pipe::pipe;

use super::common::{self, Isolation, SOON, TestCgroup, wait_readable};

/// How many instances are restarted at once.
pub const INSTANCES: u32 = 50;

/// The signal that ends a host.
const END: SignalSet = SignalSet::EMPTY.with(Signal::TERM);

/// The largest number of descriptors that a host of this many instances may have open. An instance has at most four: a
/// pidfd, and a readiness pipe, two pipes, or its cgroup and the cgroup's events. A descriptor that a restart replaces
/// stays open until the host has followed the change, and a host may have copies, so each counts twice.
const MOST_DESCRIPTORS: usize = 2 * 4 * INSTANCES as usize + 50;

/// How long a storm lasts.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Until this many runs.
    Runs(usize),
    /// Until this time has passed.
    Time(Duration),
}

impl Length {
    /// A bounded number of runs, or the time that `PIDHERD_STORM_SECONDS` sets.
    pub fn of_a_test() -> Length {
        match std::env::var("PIDHERD_STORM_SECONDS") {
            Ok(seconds) => Length::Time(Duration::from_secs(seconds.parse().expect("a number of seconds"))),
            Err(_) => Length::Runs(600),
        }
    }

    fn limit(self) -> Duration {
        common::LIMIT
            + match self {
                Length::Runs(_) => Duration::ZERO,
                Length::Time(time) => time,
            }
    }
}

/// A pipe into which each run of an instance writes a byte.
#[derive(Clone)]
pub struct Tally(Arc<OwnedFd>);

impl Tally {
    /// A shell script that writes one byte to its standard output, which is counted.
    pub fn sh(&self, script: &str) -> Command {
        self.count(Command::new("/bin/sh").arg("-c").arg(script))
    }

    /// A command that writes one byte to its standard output.
    pub fn count(&self, command: Command) -> Command {
        command.stdout(Arc::clone(&self.0))
    }
}

/// A policy that restarts at once and without a bound, after a failed start and after a run.
pub fn churning(startup: Startup) -> Policy {
    Policy::new()
        .startup(startup)
        .restart(Restart::Always)
        .start_retries(u32::MAX)
        .backoff(Delay::NONE)
        .crash_budget(None)
        .stop(StopLadder::kill(Scope::Process))
}

/// Ready as soon as exec has succeeded.
pub const AT_ONCE: Startup = Startup::Grace(Duration::ZERO);

/// Ready when the process has written to its readiness descriptor.
pub const NOTIFY: Startup = Startup::Notify {
    timeout: Duration::from_secs(1000),
};

/// The groups of a storm.
pub struct Storm {
    pub groups: Vec<GroupSpec>,
    /// The parent of the instances' cgroups.
    pub cgroup: Option<TestCgroup>,
}

impl From<Vec<GroupSpec>> for Storm {
    fn from(groups: Vec<GroupSpec>) -> Storm {
        Storm { groups, cgroup: None }
    }
}

/// Runs a host in a storm of these groups, in a process of its own, and ends it by SIGTERM. The host must not fail,
/// must never have more descriptors open than its instances need, and must leave nothing behind.
pub fn weather<S: Into<Storm>>(
    host: impl FnOnce(Supervisor) -> Result<(), Box<dyn std::error::Error>>,
    storm: impl FnOnce(&Tally, u32) -> S,
) {
    let length = Length::of_a_test();
    Isolation::new().limit(length.limit()).blocked(END).run(|| {
        let (reader, writer) = pipe().unwrap();
        let tally = Tally(Arc::new(writer));
        let watch = thread::spawn(move || watch(&reader, length));
        let signals = SignalFd::new(END).unwrap();
        let mut supervisor = Supervisor::builder().signals(signals).build().unwrap();
        let Storm { groups, cgroup } = storm(&tally, INSTANCES).into();
        for group in groups {
            let group = supervisor.add(group).unwrap();
            supervisor.start(group).unwrap();
        }
        let ended = host(supervisor);
        drop(tally);
        let seen = watch.join().unwrap();
        println!("{seen:?}");
        assert!(ended.is_ok(), "{ended:?}, after {seen:?}");
        assert!(seen.descriptors <= MOST_DESCRIPTORS, "{seen:?}");
        if let Some(cgroup) = cgroup {
            let below = fs::read_dir(cgroup.path()).unwrap().flatten();
            let left: Vec<_> = below.filter(|entry| entry.path().is_dir()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

/// What another thread observed of a host.
#[derive(Debug)]
#[allow(dead_code, reason = "shown when a test fails")]
struct Seen {
    runs: usize,
    /// The largest number of descriptors that were open at one time.
    descriptors: usize,
}

/// Counts the runs until the storm ends, ends the host, and reads until no process has the pipe open.
fn watch(reader: &OwnedFd, length: Length) -> Seen {
    let began = Instant::now();
    let mut seen = Seen {
        runs: 0,
        descriptors: 0,
    };
    let mut told = false;
    loop {
        assert!(wait_readable(reader.as_fd(), SOON), "the host stands still: {seen:?}");
        match rustix::io::read(reader, &mut [0; 64]).unwrap() {
            0 => return seen,
            read => seen.runs += read,
        }
        seen.descriptors = seen.descriptors.max(open_descriptors());
        let is_over = match length {
            Length::Runs(runs) => seen.runs >= runs,
            Length::Time(time) => began.elapsed() >= time,
        };
        if is_over && !told {
            told = true;
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        }
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
