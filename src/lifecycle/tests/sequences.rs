//! Every order of inputs up to a depth, truths and lies, now and when the deadline has come.
//!
//! Orders that lead to the same lifecycle at the same time go on as one, so the depth is one that
//! matters: whatever can be reached in so many steps has been there, and met every input.

use std::collections::HashSet;
use std::time::Duration;

use super::super::restart::Counters;
use super::super::{
    Backoff, CrashBudget, Failure, Input, Lifecycle, Policy, Restart, Rung, Scope, Startup, State, StateName,
    StopLadder, Wanted,
};
use super::reach::{Spawn, comes_down, comes_up};
use super::watched::{Truth, Watched};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const DEPTH: usize = 8;

/// One place that can be reached, and the last step of a shortest way to it.
#[derive(Clone)]
struct Place {
    it: Watched,
    now: Instant,
    came: Option<(usize, Input)>,
}

/// What tells places apart.
type Key = (State, Wanted, Counters, u64, Truth, Instant);

impl Place {
    fn key(&self) -> Key {
        let Lifecycle {
            state,
            wanted,
            counters,
            runs,
        } = self.it.life.clone();
        (state, wanted, counters, runs, self.it.truth, self.now)
    }

    /// Every input now; what depends on the time also at the deadline, or much later without one.
    fn steps(&self) -> Vec<(Instant, Input)> {
        let failed = |permanent| Input::SpawnFailed { errno: 2, permanent };
        let later = match self.it.life.deadline() {
            Some(at) => at.max(self.now),
            None => self.now.saturating_add(SECOND * 100),
        };
        let now = [
            Input::Start,
            Input::Stop,
            Input::Restart,
            Input::Kill,
            Input::Spawned(self.it.pid()),
            failed(false),
            failed(true),
            Input::Exited(Exit::Code(0)),
            Input::Exited(Exit::Code(1)),
            Input::ExitedLeaving(Exit::Code(1)),
            Input::Empty,
            Input::Ready,
            Input::Failed(Failure::Watchdog),
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

/// Goes everywhere, and tells which states are never rested in.
fn explore(policy: &Policy) -> Vec<StateName> {
    let start = Place {
        it: Watched::new(policy, 0),
        now: Instant::from_nanos(1),
        came: None,
    };
    let mut known = HashSet::from([start.key()]);
    let mut places = vec![start];
    let mut fresh = 0..1;
    for _ in 0..DEPTH {
        for from in fresh.clone() {
            for (now, input) in places[from].steps() {
                let place = go(&places, from, now, input, policy);
                if known.insert(place.key()) {
                    places.push(place);
                }
            }
        }
        fresh = fresh.end..places.len();
    }
    for at in 0..places.len() {
        let _way = Way { places: &places, at };
        let Place { it, now, .. } = &places[at];
        comes_down(it.clone(), policy, *now, Spawn::Succeeds);
        comes_down(it.clone(), policy, *now, Spawn::Fails);
        comes_up(it.clone(), policy, *now);
    }
    let is_reached = |name| places.iter().any(|place| place.it.life.state().name() == name);
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

fn go(places: &[Place], from: usize, now: Instant, input: Input, policy: &Policy) -> Place {
    let _way = Way { places, at: from };
    let mut it = places[from].it.clone();
    it.handle(policy, input, now);
    Place {
        it,
        now,
        came: Some((from, input)),
    }
}

/// Tells the way to a place if it turns out to be a bad one.
struct Way<'a> {
    places: &'a [Place],
    at: usize,
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut way = Vec::new();
            let mut at = self.at;
            while let Some((from, input)) = self.places[at].came {
                way.push(format!("{:?} at {:?}", input, self.places[at].now));
                at = from;
            }
            way.reverse();
            eprintln!("after {way:#?}");
        }
    }
}

fn group_ladder() -> StopLadder {
    let rung = |signal, scope, wait| Rung { signal, scope, wait };
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
fn everything_holds_under_the_default_policy() {
    assert_eq!(explore(&Policy::default()), []);
}

#[test]
fn everything_holds_with_groups_and_delays() {
    let policy = Policy {
        restart: Restart::Always,
        start_retries: 1,
        restart_delay: Backoff::Fixed(SECOND),
        crash_budget: budget(1),
        cool_off: Some(SECOND),
        stop: group_ladder(),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Exited]);
}

#[test]
fn everything_holds_with_readiness() {
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
fn everything_holds_when_nothing_takes_any_time() {
    let policy = Policy {
        startup: Startup::Grace(Duration::ZERO),
        restart: Restart::Always,
        backoff: Backoff::NONE,
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
fn everything_holds_when_everything_takes_for_ever() {
    let policy = Policy {
        startup: Startup::Grace(Duration::MAX),
        restart: Restart::Never,
        start_retries: u32::MAX,
        backoff: Backoff::Fixed(Duration::MAX),
        restart_delay: Backoff::Fixed(Duration::MAX),
        stable_after: Duration::MAX,
        cool_off: Some(Duration::MAX),
        stop: StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::MAX),
        ..Policy::default()
    };
    assert_eq!(explore(&policy), [StateName::Fatal]);
}
