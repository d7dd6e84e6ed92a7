//! Tries every order of inputs up to a depth: possible and impossible inputs, at once and at the deadline.
//!
//! Orders that lead to the same lifecycle at the same time are continued only once. This keeps the number of
//! nodes small, so the depth can be large enough: every node that can be reached in [`DEPTH`] steps is
//! visited and gets every input.

use std::collections::HashSet;
use std::time::Duration;

use super::super::restart::Counters;
use super::super::{
    AutoShutdown, CrashBudget, Delay, Failure, Input, Joint, Lifecycle, Policy, Restart, Rung, Scope, Startup, State,
    StateName, StopLadder, Strategy, Wanted,
};
use super::checked::{Checked, Model};
use super::reach::{Spawn, assert_start_succeeds, assert_stop_succeeds};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const DEPTH: usize = 8;

/// A lifecycle that can be reached, and the last step of a shortest path to checked.
#[derive(Clone)]
struct Node {
    checked: Checked,
    now: Instant,
    parent: Option<(usize, Input)>,
}

/// The data by which two nodes differ.
type Key = (State, Wanted, Counters, u64, (bool, Joint), Model, Instant);

impl Node {
    fn key(&self) -> Key {
        let Lifecycle {
            state,
            wanted,
            counters,
            runs,
            prepared,
            joint,
        } = self.checked.life.clone();
        let rest = (prepared, joint);
        (state, wanted, counters, runs, rest, self.checked.model, self.now)
    }

    /// Every input at the present time. The inputs that depend on the time are also tried at the deadline, or
    /// much later if there is none.
    fn steps(&self) -> Vec<(Instant, Input)> {
        let failed = |permanent| Input::SpawnFailed { errno: 2, permanent };
        let later = match self.checked.life.deadline() {
            Some(at) => at.max(self.now),
            None => self.now.saturating_add(SECOND * 100),
        };
        let now = [
            Input::Start,
            Input::Stop,
            Input::Restart,
            Input::Kill,
            Input::Spawned(self.checked.pid()),
            Input::Cloned(self.checked.pid()),
            Input::Executed,
            Input::SpawnWithdrawn,
            Input::Adopted(self.checked.next_pid()),
            Input::Released,
            failed(false),
            failed(true),
            Input::Exited(Exit::Code(0)),
            Input::Exited(Exit::Code(1)),
            Input::ExitedLeaving(Exit::Code(1)),
            Input::Empty,
            Input::Ready,
            Input::NotReady,
            Input::EndedBefore,
            Input::Failed(Failure::Watchdog),
            Input::Failed(Failure::TimedOut),
            Input::PolicyChanged,
            Input::StopWithSiblings,
            Input::StartWithSiblings,
            Input::Timeout,
        ];
        let then = [
            Input::Timeout,
            Input::Exited(Exit::Code(0)),
            Input::Exited(Exit::Code(1)),
            Input::Stop,
        ];
        let now = now.map(|input| (self.now, input));
        now.into_iter().chain(then.map(|input| (later, input))).collect()
    }
}

/// Visits every reachable node, checks it, and returns the states that no node has.
fn explore(policy: &Policy) -> Vec<StateName> {
    let start = Node {
        checked: Checked::new(policy, 0),
        now: Instant::from_nanos(1),
        parent: None,
    };
    let mut known = HashSet::from([start.key()]);
    let mut nodes = vec![start];
    let mut new = 0..1;
    for _ in 0..DEPTH {
        for from in new.clone() {
            for (now, input) in nodes[from].steps() {
                let node = step(&nodes, from, now, input, policy);
                if known.insert(node.key()) {
                    nodes.push(node);
                }
            }
        }
        new = new.end..nodes.len();
    }
    for at in 0..nodes.len() {
        let _print_path = PrintPath { nodes: &nodes, at };
        let Node { checked, now, .. } = &nodes[at];
        for spawn in [Spawn::Succeeds, Spawn::Fails, Spawn::Hangs] {
            assert_stop_succeeds(checked.clone(), policy, *now, spawn);
        }
        assert_start_succeeds(checked.clone(), policy, *now);
    }
    let is_reached = |name| nodes.iter().any(|node| node.checked.life.state().name() == name);
    ALL.into_iter().filter(|name| !is_reached(*name)).collect()
}

const ALL: [StateName; 7] = [
    StateName::Stopped,
    StateName::Starting,
    StateName::Running,
    StateName::Stopping,
    StateName::Exited,
    StateName::Backoff,
    StateName::Fatal,
];

fn step(nodes: &[Node], from: usize, now: Instant, input: Input, policy: &Policy) -> Node {
    let _print_path = PrintPath { nodes, at: from };
    let mut checked = nodes[from].checked.clone();
    checked.handle(policy, input, now);
    Node {
        checked,
        now,
        parent: Some((from, input)),
    }
}

/// Prints the path to a node if a check fails there.
struct PrintPath<'a> {
    nodes: &'a [Node],
    at: usize,
}

impl Drop for PrintPath<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut path = Vec::new();
            let mut at = self.at;
            while let Some((from, input)) = self.nodes[at].parent {
                path.push(format!("{:?} at {:?}", input, self.nodes[at].now));
                at = from;
            }
            path.reverse();
            eprintln!("after {path:#?}");
        }
    }
}

fn group_ladder() -> StopLadder {
    let rung = Rung::new;
    StopLadder {
        rungs: vec![
            rung(Signal::TERM, Scope::Process, SECOND),
            rung(Signal::INT, Scope::ProcessGroup, Duration::ZERO),
        ],
        ..StopLadder::kill(Scope::ProcessGroup)
    }
}

fn budget(max: u16) -> Option<CrashBudget> {
    Some(CrashBudget { max, window: SECOND })
}

#[test]
fn all_rules_hold_under_the_default_policy() {
    assert_eq!(explore(&Policy::default()), []);
}

#[test]
fn all_rules_hold_with_process_groups_and_delays() {
    let policy = Policy {
        restart: Restart::Always,
        start_retries: 1,
        restart_delay: Delay::Fixed(SECOND),
        crash_budget: budget(1),
        cool_off: Some(SECOND),
        stop: group_ladder(),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Exited]);
}

#[test]
fn all_rules_hold_in_restarts_with_siblings() {
    let policy = Policy {
        restart: Restart::Always,
        strategy: Strategy::OneForAll,
        auto_shutdown: AutoShutdown::AnyEnd,
        start_retries: 1,
        after_run: Some(SECOND),
        crash_budget: budget(1),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Exited]);
}

#[test]
fn all_rules_hold_with_readiness() {
    let policy = Policy {
        startup: Startup::Notify { timeout: SECOND },
        restart: Restart::Always,
        start_retries: 0,
        retry_permanent: false,
        stop: group_ladder(),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Exited]);
}

#[test]
fn all_rules_hold_when_all_times_are_zero() {
    let policy = Policy {
        startup: Startup::Grace(Duration::ZERO),
        restart: Restart::Always,
        backoff: Delay::NONE,
        crash_budget: None,
        stable_after: Duration::ZERO,
        cool_off: Some(Duration::ZERO),
        stop: StopLadder {
            patience: Duration::ZERO,
            ..StopLadder::kill(Scope::ProcessGroup)
        },
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Exited]);
}

#[test]
fn all_rules_hold_when_all_times_are_infinite() {
    let policy = Policy {
        startup: Startup::Grace(Duration::MAX),
        restart: Restart::Never,
        start_retries: u32::MAX,
        backoff: Delay::Fixed(Duration::MAX),
        restart_delay: Delay::Fixed(Duration::MAX),
        stable_after: Duration::MAX,
        cool_off: Some(Duration::MAX),
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::MAX),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Fatal]);
}
