//! The cases that the table tells apart: shapes of states, inputs with their times, and classes of
//! policies. [`matrix`](super::matrix) writes all of them down and [`graph`](super::graph) draws
//! them, from the same runs, so that neither can show what the table does not do.
//!
//! Nothing here knows what matters where. Every shape meets every input under every combination
//! of policy choices; what makes no difference is merged afterwards, by comparing outcomes. So a
//! policy that begins to matter somewhere shows up there by itself.

use std::time::Duration;

use super::restart::Counters;
use super::{
    Backoff, Cause, CrashBudget, Failed, Failure, Input, Left, Lifecycle, Policy, Reaction, Restart, Rung, Scope,
    Startup, State, StopLadder, Stopping, Wanted,
};
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// The time at which inputs come in, unless they are about a deadline.
pub(super) const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const PID: Pid = Pid::new(7).unwrap();

/// The choices that make a class of policies. Those that decide whether others matter come first.
pub(super) const CHOICES: [&[&str]; 10] = [
    &["process", "group"],
    &["grace", "no grace", "notify"],
    &["always", "unexpected", "never"],
    &["retries", "no retries"],
    &["any failure", "passing ones"],
    &["shortages count", "shortages don't"],
    &["budget", "no budget"],
    &["no delay", "delay"],
    &["no cool-off", "cool-off"],
    &["rungs", "no rungs"],
];

/// A policy for each combination of choices, the last choice changing fastest.
pub(super) fn policies() -> Vec<Policy> {
    let mut classes = vec![vec![]];
    for words in CHOICES {
        classes = classes
            .iter()
            .flat_map(|class| (0..words.len()).map(|choice| [&class[..], &[choice]].concat()))
            .collect();
    }
    classes.iter().map(|class| policy(class)).collect()
}

fn policy(class: &[usize]) -> Policy {
    let &[
        scope,
        startup,
        restart,
        retries,
        permanent,
        shortages,
        budget,
        delay,
        cool_off,
        rungs,
    ] = class
    else {
        panic!("a choice without a meaning");
    };
    Policy {
        startup: [
            Startup::Grace(SECOND),
            Startup::Grace(Duration::ZERO),
            Startup::Notify { timeout: SECOND },
        ][startup],
        restart: [Restart::Always, Restart::OnUnexpected, Restart::Never][restart],
        start_retries: [3, 1][retries],
        retry_permanent: permanent == 0,
        count_shortages: shortages == 0,
        crash_budget: Some(CrashBudget {
            max: [10, 1][budget],
            window: SECOND * 10,
        }),
        restart_delay: [Backoff::NONE, Backoff::Fixed(SECOND * 7)][delay],
        cool_off: [None, Some(SECOND * 90)][cool_off],
        stop: ladder([Scope::Process, Scope::ProcessGroup][scope], rungs == 0),
        watchdog: Some(SECOND * 20),
        ..Policy::default()
    }
}

fn ladder(scope: Scope, has_rungs: bool) -> StopLadder {
    let rung = |signal, seconds| Rung {
        signal,
        scope,
        wait: SECOND * seconds,
    };
    let rungs = if has_rungs {
        vec![rung(Signal::TERM, 10), rung(Signal::INT, 5)]
    } else {
        vec![]
    };
    StopLadder {
        rungs,
        kill: scope,
        patience: SECOND * 3,
    }
}

/// One state to try everything on.
pub(super) struct Shape {
    pub(super) words: &'static str,
    /// The shape it differs from in little, if there is one: the matrix shows the difference.
    pub(super) like: Option<&'static str>,
    pub(super) life: Lifecycle,
}

/// Every shape of every state that the table tells apart.
pub(super) fn shapes() -> Vec<Shape> {
    let mut all = resting();
    all.extend(going_up());
    all.extend(going_down());
    all.extend(others_left());
    all
}

/// All have failed to start once and have crashed once before, so that it shows what is forgotten.
fn shape(words: &'static str, state: State, wanted: Wanted) -> Shape {
    let policy = Policy::default();
    let mut counters = Counters::new(&policy, 0);
    counters.start_failed(&policy, false);
    counters.crashed(&policy, NOW);
    let life = Lifecycle {
        state,
        wanted,
        counters,
        runs: 1,
    };
    Shape {
        words,
        like: None,
        life,
    }
}

impl Shape {
    fn like(self, words: &'static str) -> Shape {
        Shape {
            like: Some(words),
            ..self
        }
    }
}

fn resting() -> Vec<Shape> {
    let failure = Failure::Ended(Exit::Code(1));
    let exited = State::Exited {
        exit: Exit::Code(1),
        expected: false,
    };
    let backoff = State::Backoff {
        until: later(SECOND),
        failure,
    };
    let fatal = |until| State::Fatal { until, failure };
    vec![
        shape("STOPPED", State::Stopped, Wanted::Down),
        shape("EXITED, and left so by the policy", exited, Wanted::Up),
        shape("BACKOFF", backoff, Wanted::Up),
        shape("FATAL, for ever", fatal(Instant::NEVER), Wanted::Up),
        shape("FATAL, with a cool-off", fatal(later(SECOND)), Wanted::Up),
    ]
}

fn going_up() -> Vec<Shape> {
    let unborn = State::Starting {
        pid: None,
        since: NOW,
        until: Instant::NEVER,
    };
    let starting = |since, until| State::Starting {
        pid: Some(PID),
        since,
        until,
    };
    let running = |uptime| State::Running {
        pid: PID,
        since: earlier(uptime),
        until: Instant::NEVER,
    };
    let watched = State::Running {
        pid: PID,
        since: earlier(SECOND),
        until: later(SECOND),
    };
    let late = starting(earlier(SECOND * 2), earlier(SECOND));
    vec![
        shape("STARTING, not spawned yet", unborn, Wanted::Up),
        shape("STARTING, not spawned yet, not wanted any more", unborn, Wanted::Down),
        shape("STARTING, alive", starting(NOW, later(SECOND)), Wanted::Up),
        shape("STARTING, alive, its time over and not yet noticed", late, Wanted::Up).like("STARTING, alive"),
        shape("RUNNING", running(SECOND), Wanted::Up),
        shape("RUNNING, for less than a second", running(SECOND / 2), Wanted::Up).like("RUNNING"),
        shape("RUNNING, long enough to be stable", running(SECOND * 60), Wanted::Up).like("RUNNING"),
        shape("RUNNING, watched", watched, Wanted::Up).like("RUNNING"),
    ]
}

const FIRST: Stopping = Stopping {
    pid: PID,
    since: NOW,
    failed: None,
    rung: 0,
    until: later(Duration::from_secs(10)),
    left: Left::Leader,
};
const KILLED: Stopping = Stopping {
    rung: Stopping::SIGKILL,
    ..FIRST
};
const FAILED_TO_START: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::StartTimeout,
        ran: false,
    }),
    ..FIRST
};
const FAILED_LATER: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::Watchdog,
        ran: true,
    }),
    ..FIRST
};
/// With others left; SIGKILL was sent to them.
const ENDED: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::Ended(Exit::Code(0)),
        ran: true,
    }),
    ..KILLED
};

fn going_down() -> Vec<Shape> {
    let middle = Stopping { rung: 1, ..FIRST };
    let reported = Stopping {
        until: Instant::NEVER,
        ..KILLED
    };
    let base = "STOPPING";
    let shape = |words, stopping, wanted| shape(words, State::Stopping(stopping), wanted);
    vec![
        shape(base, FIRST, Wanted::Down),
        shape("STOPPING, second rung", middle, Wanted::Down).like(base),
        shape("STOPPING, SIGKILL sent", KILLED, Wanted::Down).like(base),
        shape("STOPPING, reported as unkillable", reported, Wanted::Down).like("STOPPING, SIGKILL sent"),
        shape("STOPPING, wanted again", FIRST, Wanted::Up).like(base),
        shape("STOPPING, SIGKILL sent, wanted again", KILLED, Wanted::Up).like("STOPPING, wanted again"),
        shape("STOPPING, since its start failed", FAILED_TO_START, Wanted::Up).like(base),
        shape("STOPPING, since it failed while running", FAILED_LATER, Wanted::Up).like(base),
        shape(
            "STOPPING, since it failed, not wanted any more",
            FAILED_LATER,
            Wanted::Down,
        )
        .like(base),
    ]
}

fn others_left() -> Vec<Shape> {
    let left = Left::Others {
        exit: Exit::Code(0),
        look_at: later(Duration::from_millis(1)),
        looks: 1,
    };
    let long_left = Left::Others {
        exit: Exit::Code(0),
        look_at: later(Duration::from_millis(256)),
        looks: 24,
    };
    let base = "STOPPING, others left";
    let state = |stopping| State::Stopping(Stopping { left, ..stopping });
    let still_there = State::Stopping(Stopping {
        left: long_left,
        ..KILLED
    });
    let shape = |words, stopping, wanted| shape(words, state(stopping), wanted);
    vec![
        shape(base, FIRST, Wanted::Down),
        shape("STOPPING, others left, SIGKILL sent", KILLED, Wanted::Down).like(base),
        self::shape(
            "STOPPING, others left, SIGKILL sent and in vain",
            still_there,
            Wanted::Down,
        )
        .like("STOPPING, others left, SIGKILL sent"),
        shape("STOPPING, others left, wanted again", FIRST, Wanted::Up).like(base),
        shape("STOPPING, others left when it ended by itself", ENDED, Wanted::Up).like(base),
        shape(
            "STOPPING, others left, since its start failed",
            FAILED_TO_START,
            Wanted::Up,
        )
        .like(base),
        shape(
            "STOPPING, others left, since it failed while running",
            FAILED_LATER,
            Wanted::Up,
        )
        .like(base),
    ]
}

/// An input, and the moment it comes in.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    pub(super) words: &'static str,
    /// Tells those of the same words apart.
    pub(super) kind: &'static str,
    pub(super) input: Input,
    pub(super) at: Instant,
}

impl Shape {
    /// Every input; Timeout at each moment that means something in this state.
    pub(super) fn asks(&self) -> Vec<Ask> {
        let exited = |code| Input::Exited(Exit::Code(code));
        let spawn_failed = |permanent| Input::SpawnFailed { errno: 2, permanent };
        let mut asks: Vec<Ask> = [
            ("start", "", Input::Start),
            ("stop", "", Input::Stop),
            ("restart", "", Input::Restart),
            ("kill", "", Input::Kill),
            ("spawned", "", Input::Spawned(PID)),
            ("spawn failed", "passing", spawn_failed(false)),
            ("spawn failed", "permanent", spawn_failed(true)),
            ("exited", "expected", exited(0)),
            ("exited", "unexpected", exited(1)),
            ("exited", "leaving others", Input::ExitedLeaving(Exit::Code(1))),
            ("empty", "", Input::Empty),
            ("ready", "", Input::Ready),
            ("alive", "", Input::Alive),
            ("extend", "", Input::Extend(SECOND * 30)),
            ("failed", "", Input::Failed(Failure::Watchdog)),
        ]
        .map(|(words, kind, input)| Ask {
            words,
            kind,
            input,
            at: NOW,
        })
        .into();
        asks.extend(self.timeouts());
        asks
    }

    fn timeouts(&self) -> Vec<Ask> {
        let moments = match *self.life.state() {
            State::Stopping(Stopping {
                until,
                left: Left::Others { look_at, .. },
                ..
            }) => vec![("early", NOW), ("next look", look_at), ("next rung", until)],
            _ => match self.life.deadline() {
                Some(at) if at > NOW => vec![("early", NOW), ("due", at)],
                _ => vec![("due", NOW)],
            },
        };
        let timeout = |(kind, at)| Ask {
            words: "timeout",
            kind,
            input: Input::Timeout,
            at,
        };
        moments.into_iter().map(timeout).collect()
    }

    /// What comes of it.
    pub(super) fn meet(&self, ask: Ask, policy: &Policy) -> (Reaction, Lifecycle) {
        let mut life = self.life.clone();
        let reaction = life.handle(policy, ask.input, ask.at);
        (reaction, life)
    }
}

/// A cause in words that are the same everywhere.
pub(super) fn because(cause: Cause) -> String {
    match cause {
        // Its words are the C library's.
        Cause::Failed(Failure::Spawn { .. }) => "not spawned".into(),
        Cause::Failed(Failure::Ended(_)) | Cause::Ended { expected: false, .. } => "ended".into(),
        Cause::Ended { expected: true, .. } => "ended as expected".into(),
        cause => cause.to_string(),
    }
}

const fn later(by: Duration) -> Instant {
    Instant::from_nanos(NOW.as_nanos() + by.as_nanos() as u64)
}

const fn earlier(by: Duration) -> Instant {
    Instant::from_nanos(NOW.as_nanos() - by.as_nanos() as u64)
}
