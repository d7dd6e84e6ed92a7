//! The cases that the table distinguishes: state shapes, timed inputs, and classes of policies.
//!
//! [`matrix`](super::matrix) writes all of them to a text file, and [`graph`](super::graph) draws them. Both
//! run the table on the same cases, so neither can show something that the table does not do.
//!
//! The cases contain no knowledge about what matters where. Every shape gets every input under every
//! combination of policy choices. Afterwards, combinations with equal outcomes are merged. So if a policy
//! starts to matter in some case, the text shows it without any change here.

use std::time::Duration;

use super::super::restart::Counters;
use super::super::{
    Cause, CommandFailure, CrashBudget, Delay, Ended, Failed, Failure, Input, Joint, Lifecycle, Phase, Policy,
    Prospect, Reaction, Remaining, Restart, RunEnd, RunTimeout, Rung, Scope, Startup, State, StopLadder, Stopping,
    Wanted,
};
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// The time of all inputs that do not depend on a deadline.
pub(super) const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const PID: Pid = Pid::new(7).unwrap();

/// The choices that make a class of policies. The first choice decides whether remaining processes matter.
pub(super) const CHOICES: [&[&str]; 11] = [
    &["process", "group"],
    &["grace", "no grace", "notify"],
    &["always", "unexpected", "never"],
    &["early end", "early failure"],
    &["retries", "no retries"],
    &["any failure", "transient ones"],
    &["shortages count", "shortages don't"],
    &["budget", "no budget"],
    &["no delay", "delay"],
    &["no cool-off", "cool-off"],
    &["rungs", "no rungs"],
];

/// One policy for each combination of choices. The last choice changes fastest.
pub(super) fn policies() -> Vec<Policy> {
    let mut classes = vec![vec![]];
    for options in CHOICES {
        classes = classes
            .iter()
            .flat_map(|class| (0..options.len()).map(|choice| [&class[..], &[choice]].concat()))
            .collect();
    }
    classes.iter().map(|class| policy(class)).collect()
}

fn policy(class: &[usize]) -> Policy {
    let &[
        scope,
        startup,
        restart,
        early,
        retries,
        permanent,
        shortages,
        budget,
        delay,
        cool_off,
        rungs,
    ] = class
    else {
        panic!("CHOICES and the policy's fields differ");
    };
    Policy {
        startup: [
            Startup::Grace(SECOND),
            Startup::Grace(Duration::ZERO),
            Startup::Notify { timeout: SECOND },
        ][startup],
        restart: [Restart::Always, Restart::OnUnexpected, Restart::Never][restart],
        early_exit_fails: early == 1,
        start_retries: [3, 1][retries],
        retry_permanent: permanent == 0,
        count_shortages: shortages == 0,
        crash_budget: Some(CrashBudget {
            max: [10, 1][budget],
            window: SECOND * 10,
        }),
        restart_delay: [Delay::NONE, Delay::Fixed(SECOND * 7)][delay],
        cool_off: [None, Some(SECOND * 90)][cool_off],
        stop: ladder([Scope::Process, Scope::ProcessGroup][scope], rungs == 0),
        watchdog: Some(SECOND * 20),
        watchdog_stop: None,
        run_timeout: Some(RunTimeout {
            after: SECOND * 31,
            extra: Duration::ZERO,
        }),
        ..Policy::default()
    }
}

fn ladder(scope: Scope, has_rungs: bool) -> StopLadder {
    let rung = |signal, seconds| Rung::new(signal, scope, SECOND * seconds);
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

/// A state to which every input is applied.
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// A similar shape, if there is one. Then the matrix shows only the differences to that shape.
    pub(super) like: Option<&'static str>,
    /// Whether the policies have commands before and after each run.
    pub(super) has_commands: bool,
    pub(super) life: Lifecycle,
}

/// Every state shape that the table distinguishes: those of runs without commands, and the same and more with them.
pub(super) fn shapes() -> Vec<Shape> {
    let mut all = resting();
    all.extend(going_up());
    all.extend(going_down());
    all.extend(others_left());
    all.extend(with_stop_command());
    let same = |shape: &Shape| Shape {
        name: format!("{}, with commands", shape.name).leak(),
        like: Some(shape.name),
        has_commands: true,
        life: shape.life.clone(),
    };
    let with_commands: Vec<_> = all.iter().map(same).collect();
    all.extend(with_commands);
    all.extend(preparing());
    all.extend(cleaning_up());
    all
}

/// The limits of the commands before and after a run.
pub(super) const BEFORE: Duration = Duration::from_secs(40);
pub(super) const AFTER: Duration = Duration::from_secs(50);

/// The same policies with commands before and after each run.
pub(super) fn with_commands(policies: &[Policy]) -> Vec<Policy> {
    let with = |policy: &Policy| Policy {
        before_run: Some(BEFORE),
        after_run: Some(AFTER),
        ..policy.clone()
    };
    policies.iter().map(with).collect()
}

/// Creates a shape with one failed start and one crash in its counters, so that a reset of the counters is
/// visible.
fn shape(name: &'static str, state: State, wanted: Wanted) -> Shape {
    let policy = Policy::default();
    let mut counters = Counters::new(0);
    counters.start_failed(&policy, false);
    counters.crashed(&policy, 0, Duration::ZERO, NOW);
    let life = Lifecycle {
        state,
        wanted,
        counters,
        runs: 1,
        prepared: false,
        joint: Joint::None,
    };
    let (like, has_commands) = (None, false);
    Shape {
        name,
        like,
        has_commands,
        life,
    }
}

impl Shape {
    fn like(self, name: &'static str) -> Shape {
        Shape {
            like: Some(name),
            ..self
        }
    }
}

impl Shape {
    fn jointly(mut self, joint: Joint) -> Shape {
        self.life.joint = joint;
        self
    }

    fn with_commands(mut self) -> Shape {
        self.has_commands = true;
        self
    }

    /// The command before the run has succeeded.
    fn prepared(mut self) -> Shape {
        self.life.prepared = true;
        self.with_commands()
    }
}

fn preparing() -> Vec<Shape> {
    let state = |pid: Option<Pid>, executed: Option<Instant>| State::Preparing {
        pid,
        executed,
        since: NOW,
        until: pid.map_or(Instant::NEVER, |_| later(SECOND)),
    };
    let shape = |name, state, wanted| self::shape(name, state, wanted).with_commands();
    let stopping = |name, stopping, wanted| shape(name, State::Stopping(stopping), wanted);
    let before = Stopping {
        phase: Phase::Before,
        ..FIRST
    };
    let timed_out = Stopping {
        failed: Some(Failed {
            failure: Failure::Before(CommandFailure::TimedOut),
            ran: false,
        }),
        ..before
    };
    let left = Stopping {
        phase: Phase::LeftByBefore,
        remaining: Remaining::Others {
            exit: Exit::Code(0),
            look_at: later(Duration::from_millis(1)),
            looks: 1,
        },
        ..KILLED
    };
    let starting = |pid| State::Starting {
        pid,
        executed: None,
        since: NOW,
        until: Instant::NEVER,
    };
    vec![
        shape("PREPARING, spawn pending", state(None, None), Wanted::Up),
        shape(
            "PREPARING, spawn pending, stop requested",
            state(None, None),
            Wanted::Down,
        ),
        shape("PREPARING, in flight", state(Some(PID), None), Wanted::Up),
        shape("PREPARING", state(Some(PID), Some(NOW)), Wanted::Up).like("PREPARING, in flight"),
        stopping("PREPARING, others left", left, Wanted::Up),
        stopping("PREPARING, others left, stop requested", left, Wanted::Down).like("PREPARING, others left"),
        stopping("STOPPING, command before the run", before, Wanted::Down).like("STOPPING, with commands"),
        stopping("STOPPING, command before the run timed out", timed_out, Wanted::Up)
            .like("STOPPING, after a failed start, with commands"),
        self::shape("STARTING, spawn pending, prepared", starting(None), Wanted::Up)
            .prepared()
            .like("STARTING, spawn pending, with commands"),
        self::shape(
            "STARTING, spawn pending, stop requested, prepared",
            starting(None),
            Wanted::Down,
        )
        .prepared()
        .like("STARTING, spawn pending, stop requested, with commands"),
        self::shape("STARTING, in flight, prepared", starting(Some(PID)), Wanted::Up)
            .prepared()
            .like("STARTING, in flight, with commands"),
    ]
}

fn cleaning_up() -> Vec<Shape> {
    let ended = Ended {
        end: RunEnd::Exited(1),
        exit: Exit::Code(1),
        failed: Some(Failed {
            failure: Failure::Ended(Exit::Code(1)),
            ran: true,
        }),
        uptime: SECOND,
        executed: true,
    };
    let early = Ended {
        failed: Some(Failed {
            failure: Failure::Ended(Exit::Code(0)),
            ran: false,
        }),
        exit: Exit::Code(0),
        end: RunEnd::Exited(0),
        ..ended
    };
    let requested = Ended { failed: None, ..ended };
    let state = |pid: Option<Pid>, executed: Option<Instant>, ended| State::CleaningUp {
        pid,
        executed,
        since: NOW,
        until: pid.map_or(Instant::NEVER, |_| later(SECOND)),
        ended,
    };
    let stopping = State::Stopping(Stopping {
        phase: Phase::After(ended),
        failed: Some(Failed {
            failure: Failure::TimedOut,
            ran: false,
        }),
        ..FIRST
    });
    let shape = |name, state, wanted| self::shape(name, state, wanted).with_commands();
    let base = "CLEANING_UP, in flight";
    vec![
        shape("CLEANING_UP, spawn pending", state(None, None, ended), Wanted::Up),
        shape(base, state(Some(PID), None, ended), Wanted::Up),
        shape("CLEANING_UP", state(Some(PID), Some(NOW), ended), Wanted::Up).like(base),
        shape(
            "CLEANING_UP, after an exit within the grace",
            state(Some(PID), Some(NOW), early),
            Wanted::Up,
        )
        .like(base),
        shape(
            "CLEANING_UP, start queued",
            state(Some(PID), Some(NOW), requested),
            Wanted::Up,
        )
        .like(base),
        shape(
            "CLEANING_UP, stop requested",
            state(Some(PID), Some(NOW), requested),
            Wanted::Down,
        )
        .like(base),
        shape("CLEANING_UP, timed out", stopping, Wanted::Up),
        shape(
            "CLEANING_UP, with siblings",
            state(Some(PID), Some(NOW), requested),
            Wanted::Up,
        )
        .like("CLEANING_UP, start queued")
        .jointly(Joint::Waits),
    ]
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
    let ready = State::Backoff {
        until: Instant::NEVER,
        failure: Failure::Sibling,
    };
    let fatal = |until| State::Fatal { until, failure };
    vec![
        shape("STOPPED", State::Stopped, Wanted::Down),
        shape("EXITED, not restarted by the policy", exited, Wanted::Up),
        shape("BACKOFF", backoff, Wanted::Up),
        shape("BACKOFF, siblings to be told", backoff, Wanted::Up)
            .like("BACKOFF")
            .jointly(Joint::Tells),
        shape("BACKOFF, with siblings", backoff, Wanted::Up)
            .like("BACKOFF")
            .jointly(Joint::Waits),
        shape("BACKOFF, ready for a start with siblings", ready, Wanted::Up)
            .like("BACKOFF")
            .jointly(Joint::Ready),
        shape("FATAL, without a cool-off", fatal(Instant::NEVER), Wanted::Up),
        shape("FATAL, with a cool-off", fatal(later(SECOND)), Wanted::Up),
    ]
}

fn going_up() -> Vec<Shape> {
    let pending = State::Starting {
        pid: None,
        executed: None,
        since: NOW,
        until: Instant::NEVER,
    };
    let in_flight = |until| State::Starting {
        pid: Some(PID),
        executed: None,
        since: NOW,
        until,
    };
    let starting = |since, until| State::Starting {
        pid: Some(PID),
        executed: Some(since),
        since,
        until,
    };
    let running = |uptime| State::Running {
        pid: PID,
        since: earlier(uptime),
        until: Instant::NEVER,
        ends: Instant::NEVER,
    };
    let with_watchdog = State::Running {
        pid: PID,
        since: earlier(SECOND),
        until: later(SECOND),
        ends: Instant::NEVER,
    };
    let with_limit = State::Running {
        pid: PID,
        since: earlier(SECOND * 30),
        until: later(SECOND * 2),
        ends: later(SECOND),
    };
    let late = starting(earlier(SECOND * 2), earlier(SECOND));
    vec![
        shape("STARTING, spawn pending", pending, Wanted::Up),
        shape("STARTING, spawn pending, stop requested", pending, Wanted::Down),
        shape("STARTING, in flight", in_flight(Instant::NEVER), Wanted::Up),
        shape(
            "STARTING, in flight, with a timeout",
            in_flight(later(SECOND)),
            Wanted::Up,
        )
        .like("STARTING, in flight"),
        shape("STARTING, alive", starting(NOW, later(SECOND)), Wanted::Up),
        shape("STARTING, alive, deadline passed", late, Wanted::Up).like("STARTING, alive"),
        shape("RUNNING", running(SECOND), Wanted::Up),
        shape("RUNNING, brief", running(SECOND / 2), Wanted::Up).like("RUNNING"),
        shape("RUNNING, stable", running(SECOND * 60), Wanted::Up).like("RUNNING"),
        shape("RUNNING, with a watchdog", with_watchdog, Wanted::Up).like("RUNNING"),
        shape("RUNNING, with a limit", with_limit, Wanted::Up).like("RUNNING"),
    ]
}

const FIRST: Stopping = Stopping {
    pid: PID,
    since: NOW,
    failed: None,
    prospect: Prospect::Open,
    rung: 0,
    until: later(Duration::from_secs(10)),
    remaining: Remaining::Leader,
    phase: Phase::Program,
    has_command: false,
    awaits_command: false,
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
const TIMED_OUT: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::TimedOut,
        ran: true,
    }),
    ..FIRST
};
/// A process that exited by itself and left other processes, to which SIGKILL was sent.
const ENDED: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::Ended(Exit::Code(0)),
        ran: true,
    }),
    ..KILLED
};

/// The same within its grace.
const ENDED_EARLY: Stopping = Stopping {
    failed: Some(Failed {
        failure: Failure::Ended(Exit::Code(0)),
        ran: false,
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
    let shape = |name, stopping, wanted| shape(name, State::Stopping(stopping), wanted);
    vec![
        shape(base, FIRST, Wanted::Down),
        shape("STOPPING, second rung", middle, Wanted::Down).like(base),
        shape("STOPPING, SIGKILL sent", KILLED, Wanted::Down).like(base),
        shape("STOPPING, reported as unkillable", reported, Wanted::Down).like("STOPPING, SIGKILL sent"),
        shape("STOPPING, start queued", FIRST, Wanted::Up).like(base),
        shape("STOPPING, SIGKILL sent, start queued", KILLED, Wanted::Up).like("STOPPING, start queued"),
        shape("STOPPING, after a failed start", FAILED_TO_START, Wanted::Up).like(base),
        shape("STOPPING, after a failure while running", FAILED_LATER, Wanted::Up).like(base),
        shape("STOPPING, after a timeout of the run", TIMED_OUT, Wanted::Up).like(base),
        shape("STOPPING, after a failure, stop requested", FAILED_LATER, Wanted::Down).like(base),
    ]
}

/// The command of the first rung runs.
const COMMAND: Stopping = Stopping {
    until: Instant::NEVER,
    has_command: true,
    awaits_command: true,
    ..FIRST
};

fn with_stop_command() -> Vec<Shape> {
    let killed = Stopping {
        has_command: true,
        ..KILLED
    };
    // The ladder went on without a command that not even SIGKILL ends.
    let gone_on = Stopping {
        rung: 1,
        has_command: true,
        ..FIRST
    };
    let others = Remaining::Others {
        exit: Exit::Code(0),
        look_at: later(Duration::from_millis(1)),
        looks: 1,
    };
    let exit = Exit::Code(0);
    let alone = |executed| Stopping {
        remaining: Remaining::Command { exit, executed },
        ..COMMAND
    };
    let others_left = Stopping {
        remaining: others,
        ..COMMAND
    };
    let failed = Stopping {
        failed: FAILED_LATER.failed,
        ..COMMAND
    };
    let base = "STOPPING, a command runs";
    let shape = |name, stopping, wanted| shape(name, State::Stopping(stopping), wanted);
    vec![
        shape(base, COMMAND, Wanted::Down),
        shape("STOPPING, a command runs, start queued", COMMAND, Wanted::Up).like(base),
        shape("STOPPING, a command runs, after a failure", failed, Wanted::Up).like(base),
        shape("STOPPING, a command runs, SIGKILL sent", killed, Wanted::Down).like(base),
        shape(
            "STOPPING, a command runs, without being waited for",
            gone_on,
            Wanted::Down,
        )
        .like(base),
        shape("STOPPING, a command runs, others left", others_left, Wanted::Down).like(base),
        shape("STOPPING, only a command left", alone(true), Wanted::Down),
        shape("STOPPING, only a command left, start queued", alone(true), Wanted::Up)
            .like("STOPPING, only a command left"),
        shape(
            "STOPPING, only a command left, program not executed",
            alone(false),
            Wanted::Down,
        )
        .like("STOPPING, only a command left"),
    ]
}

fn others_left() -> Vec<Shape> {
    let remaining = Remaining::Others {
        exit: Exit::Code(0),
        look_at: later(Duration::from_millis(1)),
        looks: 1,
    };
    let long_left = Remaining::Others {
        exit: Exit::Code(0),
        look_at: later(Duration::from_millis(256)),
        looks: 24,
    };
    let base = "STOPPING, others left";
    let state = |stopping| State::Stopping(Stopping { remaining, ..stopping });
    let still_there = State::Stopping(Stopping {
        remaining: long_left,
        ..KILLED
    });
    let shape = |name, stopping, wanted| shape(name, state(stopping), wanted);
    vec![
        shape(base, FIRST, Wanted::Down),
        shape("STOPPING, others left, SIGKILL sent", KILLED, Wanted::Down).like(base),
        self::shape(
            "STOPPING, others left, SIGKILL sent without success",
            still_there,
            Wanted::Down,
        )
        .like("STOPPING, others left, SIGKILL sent"),
        shape("STOPPING, others left, start queued", FIRST, Wanted::Up).like(base),
        shape("STOPPING, others left, after an exit by itself", ENDED, Wanted::Up).like(base),
        shape(
            "STOPPING, others left, after an exit by itself within the grace",
            ENDED_EARLY,
            Wanted::Up,
        )
        .like("STOPPING, others left, after an exit by itself"),
        shape(
            "STOPPING, others left, after a failed start",
            FAILED_TO_START,
            Wanted::Up,
        )
        .like(base),
        shape(
            "STOPPING, others left, after a failure while running",
            FAILED_LATER,
            Wanted::Up,
        )
        .like(base),
    ]
}

/// An input and its time.
#[derive(Clone, Copy)]
pub(super) struct TimedInput {
    pub(super) name: &'static str,
    /// The kind distinguishes inputs of the same name.
    pub(super) kind: &'static str,
    pub(super) input: Input,
    pub(super) at: Instant,
}

impl Shape {
    /// Every input. A timeout comes at each moment that matters in this state.
    pub(super) fn inputs(&self) -> Vec<TimedInput> {
        let exited = |code| Input::Exited(Exit::Code(code));
        let spawn_failed = |permanent| Input::SpawnFailed { errno: 2, permanent };
        let command_ended = |succeeded| Input::StopCommandEnded { succeeded };
        let mut inputs: Vec<TimedInput> = [
            ("start", "", Input::Start),
            ("stop", "", Input::Stop),
            ("restart", "", Input::Restart),
            ("kill", "", Input::Kill),
            ("spawned", "", Input::Spawned(PID)),
            ("cloned", "", Input::Cloned(PID)),
            ("executed", "", Input::Executed),
            ("spawn withdrawn", "", Input::SpawnWithdrawn),
            ("adopted", "", Input::Adopted(PID)),
            ("released", "", Input::Released),
            ("spawn failed", "transient", spawn_failed(false)),
            ("spawn failed", "permanent", spawn_failed(true)),
            ("exited", "expected", exited(0)),
            ("exited", "unexpected", exited(1)),
            ("exited", "leaving others", Input::ExitedLeaving(Exit::Code(1))),
            ("empty", "", Input::Empty),
            ("ready", "", Input::Ready),
            ("not ready", "", Input::NotReady),
            ("ended before", "", Input::EndedBefore),
            ("alive", "", Input::Alive),
            ("policy changed", "", Input::PolicyChanged),
            ("extend", "", Input::Extend(SECOND * 30)),
            ("failed", "watchdog", Input::Failed(Failure::Watchdog)),
            ("failed", "unhealthy", Input::Failed(Failure::Unhealthy)),
            ("stop with siblings", "", Input::StopWithSiblings),
            ("start with siblings", "", Input::StartWithSiblings),
            ("stop command ended", "succeeded", command_ended(true)),
            ("stop command ended", "failed", command_ended(false)),
            ("stop command unkillable", "", Input::StopCommandUnkillable),
        ]
        .map(|(name, kind, input)| TimedInput {
            name,
            kind,
            input,
            at: NOW,
        })
        .into();
        inputs.extend(self.timeouts());
        inputs
    }

    fn timeouts(&self) -> Vec<TimedInput> {
        let moments = match *self.life.state() {
            State::Stopping(Stopping {
                until,
                remaining: Remaining::Others { look_at, .. },
                ..
            }) => vec![("early", NOW), ("next look", look_at), ("next rung", until)],
            _ => match self.life.deadline() {
                Some(at) if at > NOW => vec![("early", NOW), ("due", at)],
                _ => vec![("due", NOW)],
            },
        };
        let timeout = |(kind, at)| TimedInput {
            name: "timeout",
            kind,
            input: Input::Timeout,
            at,
        };
        let comes = |&(_, at): &(&str, Instant)| at != Instant::NEVER;
        moments.into_iter().filter(comes).map(timeout).collect()
    }

    /// Applies an input, and returns the reaction and the lifecycle after it.
    pub(super) fn apply(&self, timed: TimedInput, policy: &Policy) -> (Reaction, Lifecycle) {
        let mut life = self.life.clone();
        let reaction = life.handle(policy, timed.input, timed.at);
        (reaction, life)
    }
}

/// A cause as text that is the same on every machine.
pub(super) fn cause_text(cause: Cause) -> String {
    match cause {
        // The full text contains the errno's text, which comes from the C library.
        Cause::Failed(Failure::Spawn { .. }) => "not spawned".into(),
        Cause::Failed(Failure::Before(CommandFailure::Spawn { .. })) => "command not spawned".into(),
        Cause::Failed(Failure::Before(CommandFailure::Ended(_))) => "command failed".into(),
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
