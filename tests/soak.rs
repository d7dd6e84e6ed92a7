//! Nothing grows: descriptors, memory and threads are the same after thousands of restarts.
//!
//! `cargo test` does a few thousand. `ci/soak` does many more, by `PIDHERD_SOAK_STARTS`.

mod common;
mod host;

use std::fs;
use std::time::Duration;

use common::{Isolation, SOON, wait_readable};
use host::{at_once, for_ever, ms, quiet_sh, sh, sleeper, term};
use pidherd::lifecycle::{Backoff, Policy, Scope, StateName, StopLadder};
use pidherd::{Command, Event, GroupSpec, Stdio, Supervisor, Target};

/// How far the resident memory may be from what it was: the allocator's moods, and no more, however
/// many the restarts.
const MOODS: u64 = 512 * 1024;

fn starts() -> u64 {
    let asked = std::env::var("PIDHERD_SOAK_STARTS").ok();
    asked.map_or(2_000, |number| number.parse().expect("a number of starts"))
}

/// What this process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident: u64,
}

impl Holdings {
    fn now() -> Holdings {
        let count = |path| fs::read_dir(path).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")).unwrap();
        Holdings {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            resident: 1024 * kib.parse::<u64>().unwrap(),
        }
    }

    fn assert_no_more_than(&self, before: &Holdings) {
        assert_eq!(
            (self.descriptors, self.threads),
            (before.descriptors, before.threads),
            "{self:?}, after {before:?}"
        );
        assert!(self.resident <= before.resident + MOODS, "{self:?}, after {before:?}");
    }
}

/// A supervisor that is asked for the same again and again.
struct Soaked(Supervisor);

impl Soaked {
    /// With a queue that has soon been used in its full length.
    fn new() -> Soaked {
        Soaked(Supervisor::builder().event_capacity(256).build().unwrap())
    }

    /// Dispatches until this holds of the supervisor and the number of starts seen; that number.
    fn until(&mut self, mut holds: impl FnMut(&Supervisor, u64) -> bool) -> u64 {
        let mut starts = 0;
        loop {
            while let Some(event) = self.0.next_event() {
                starts += u64::from(matches!(event, Event::Transition(step) if step.to == StateName::Starting));
            }
            while self.0.next_fd_change().is_some() {}
            if holds(&self.0, starts) {
                return starts;
            }
            assert!(wait_readable(&self.0, SOON), "it stands still");
            self.0.dispatch().unwrap();
        }
    }

    /// Whether all instances are in this state.
    fn are(supervisor: &Supervisor, state: StateName) -> bool {
        let status = |id| supervisor.status(id).expect("it is of the supervisor");
        supervisor.instances().all(|id| status(id).state.name() == state)
    }

    /// Starts everything, lets it start again so often, and stops it.
    fn round(&mut self, starts: u64) -> u64 {
        self.0.start(Target::All).unwrap();
        let seen = self.until(|_, seen| seen >= starts);
        self.0.stop(Target::All).unwrap();
        seen + self.until(|supervisor, _| Soaked::are(supervisor, StateName::Stopped))
    }
}

/// Runs rounds until there were starts enough, and compares after each what there is while everything
/// is at rest. The first rounds are for whatever is allocated once.
fn soak<R: FnMut() -> u64>(make: impl FnOnce() -> R) {
    let limit = Duration::from_secs(60 + starts() / 50);
    Isolation::new().limit(limit).run(|| {
        let mut round = make();
        round();
        round();
        let before = Holdings::now();
        let mut done = 0;
        while done < starts() {
            done += round();
            Holdings::now().assert_no_more_than(&before);
        }
        println!("{done} starts; before: {before:?}, after: {:?}", Holdings::now());
    });
}

#[test]
fn crashes_leave_nothing() {
    soak(|| {
        let mut soaked = Soaked::new();
        let policy = Policy {
            stop: StopLadder::kill(Scope::Process),
            ..for_ever()
        };
        let spec = GroupSpec::new("x", quiet_sh("exit 1")).instances(20).policy(policy);
        soaked.0.add(spec).unwrap();
        move || soaked.round(200)
    });
}

#[test]
fn failed_starts_leave_nothing() {
    soak(|| {
        let mut soaked = Soaked::new();
        let policy = Policy {
            start_retries: u32::MAX,
            backoff: Backoff::NONE,
            ..at_once()
        };
        let piped = |command: Command| command.stdout(Stdio::piped()).stdin(Stdio::piped());
        let missing = GroupSpec::new("missing", piped(Command::new("/no/such")));
        let nowhere = GroupSpec::new("nowhere", piped(sleeper().current_dir("/no/such")));
        for spec in [missing, nowhere] {
            soaked.0.add(spec.instances(5).policy(policy.clone())).unwrap();
        }
        move || soaked.round(200)
    });
}

/// A shell with a child in its group that does not mind SIGTERM.
fn family() -> Command {
    sh("(trap '' TERM; exec sleep 1000 >/dev/null) & trap 'exit 0' TERM; echo ready; read never").process_group(0)
}

#[test]
fn groups_that_come_and_go_leave_nothing() {
    soak(|| {
        let mut soaked = Soaked::new();
        let mut tracked = false;
        let grouped = Policy {
            stop: term(Scope::ProcessGroup, ms(1)),
            ..at_once()
        };
        move || {
            tracked = !tracked;
            soaked.0.track_fd_changes(tracked);
            let supervisor = &mut soaked.0;
            let spec = GroupSpec::new("x", family()).instances(3).policy(grouped.clone());
            let group = supervisor.add(spec.clone()).unwrap();
            supervisor.start(group).unwrap();
            for id in supervisor.group(group).unwrap().instances {
                drop(supervisor.take_pipes(id));
            }
            supervisor.scale(group, 5).unwrap();
            let other = GroupSpec::with("x", |n| family().arg(n.to_string()));
            supervisor
                .reload(group, other.instances(4).policy(grouped.clone()))
                .unwrap();
            supervisor.reload(group, spec).unwrap();
            supervisor.restart(group).unwrap();
            supervisor.remove(group).unwrap();
            let starts = soaked.until(|supervisor, _| supervisor.groups().count() == 0);
            // A round is worth more than its starts.
            starts * 20
        }
    });
}
