//! Resources do not grow: descriptors, memory and threads are the same after thousands of restarts.
//!
//! `cargo test` makes a few thousand starts. `PIDHERD_SOAK_STARTS` sets another number; `ci/soak` uses it for
//! longer runs.

mod common;
mod host;

use std::time::Duration;

use common::resources::Resources;
use common::{Isolation, SOON, wait_readable};
use host::{at_once, builder, for_ever, ms, quiet_sh, sh, sleeper, term};
use pidherd::lifecycle::{Delay, Scope, StateName, StopLadder};
use pidherd::{Command, Event, GroupSpec, Stdio, Supervisor, Target};

/// How much more resident memory is accepted, in bytes. The allocator's use varies a little, but not with the
/// number of restarts.
const TOLERANCE: u64 = 512 * 1024;

fn starts() -> u64 {
    let asked = std::env::var("PIDHERD_SOAK_STARTS").ok();
    asked.map_or(2_000, |number| number.parse().expect("a number of starts"))
}

/// A supervisor that gets the same commands again and again.
struct Soaked(Supervisor);

impl Soaked {
    /// Creates the supervisor with a small event queue, so that the warm-up rounds fill the queue once.
    fn new() -> Soaked {
        Soaked(builder().event_capacity(256).build().unwrap())
    }

    /// Dispatches until `holds`, which gets the supervisor and the number of starts so far. Returns the
    /// number of starts.
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
            assert!(wait_readable(&self.0, SOON), "no event within the time limit");
            self.0.dispatch().unwrap();
        }
    }

    /// Whether all instances are in this state.
    fn are(supervisor: &Supervisor, state: StateName) -> bool {
        let status = |id| supervisor.status(id).expect("the instance is unknown");
        supervisor.instances().all(|id| status(id).state.name() == state)
    }

    /// Starts all instances, waits for this many starts (with restarts), and stops all instances.
    fn round(&mut self, starts: u64) -> u64 {
        self.0.start(Target::All).unwrap();
        let seen = self.until(|_, seen| seen >= starts);
        self.0.stop(Target::All).unwrap();
        seen + self.until(|supervisor, _| Soaked::are(supervisor, StateName::Stopped))
    }
}

/// Runs rounds until there were enough starts. After each round, when all instances are stopped, it compares
/// the resources with those before. The first two rounds are not compared: they allocate what is allocated
/// once.
fn soak<R: FnMut() -> u64>(make: impl FnOnce() -> R) {
    let limit = Duration::from_secs(60 + starts() / 50);
    Isolation::new().limit(limit).run(|| {
        let mut round = make();
        round();
        round();
        let before = Resources::now();
        let mut done = 0;
        while done < starts() {
            done += round();
            Resources::now().assert_no_more_than(&before, TOLERANCE);
        }
        println!("{done} starts; before: {before:?}, after: {:?}", Resources::now());
    });
}

#[test]
fn crashes_leave_no_resources() {
    soak(|| {
        let mut soaked = Soaked::new();
        let policy = for_ever().stop(StopLadder::kill(Scope::Process));
        let spec = GroupSpec::new("x", quiet_sh("exit 1")).instances(20).policy(policy);
        soaked.0.add(spec).unwrap();
        move || soaked.round(200)
    });
}

#[test]
fn failed_starts_leave_no_resources() {
    soak(|| {
        let mut soaked = Soaked::new();
        let policy = at_once().start_retries(u32::MAX).backoff(Delay::NONE);
        let piped = |command: Command| command.stdout(Stdio::piped()).stdin(Stdio::piped());
        let missing = GroupSpec::new("missing", piped(Command::new("/no/such")));
        let nowhere = GroupSpec::new("nowhere", piped(sleeper().current_dir("/no/such")));
        for spec in [missing, nowhere] {
            soaked.0.add(spec.instances(5).policy(policy.clone())).unwrap();
        }
        move || soaked.round(200)
    });
}

/// A shell with a child in its process group that ignores SIGTERM.
fn family() -> Command {
    sh("(trap '' TERM; exec sleep 1000 >/dev/null) & trap 'exit 0' TERM; echo ready; read never").process_group(0)
}

#[test]
fn added_and_removed_groups_leave_no_resources() {
    soak(|| {
        let mut soaked = Soaked::new();
        let mut tracked = false;
        let grouped = at_once().stop(term(Scope::ProcessGroup, ms(1)));
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
            // A round does far more work than its few starts, so it counts as more of them.
            starts * 20
        }
    });
}
