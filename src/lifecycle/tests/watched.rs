//! A lifecycle that is checked at every step, against what is true of all of them.
//!
//! It keeps its own account of what is alive, made only from what was told and what was asked for.
//! An input that this account rules out is a lie: the table must see through it by itself.

use super::super::{
    Action, Input, Left, Lifecycle, Policy, Reaction, Reply, State, StateName, Stopping, Transition, Wanted,
};
use crate::exit::Pid;
use crate::signal::Signal;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) life: Lifecycle,
    pub(super) truth: Truth,
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Truth {
    /// A spawn was asked for and is not answered.
    pub(super) unborn: bool,
    /// The process is alive.
    pub(super) leader: bool,
    /// It has ended, and somebody looks for others of its scope.
    pub(super) others: bool,
    /// SIGKILL was sent, as the ladder's end.
    pub(super) killed: bool,
    /// So many looks ago.
    pub(super) looks: u8,
    /// It was reported as unkillable.
    pub(super) reported: bool,
    /// Nothing more will be done about it by itself.
    pub(super) given_up: bool,
}

impl Truth {
    /// Whether a process may be alive that is not to be doubled.
    pub(super) fn is_alive(self) -> bool {
        self.unborn || self.leader || self.others
    }

    fn rules_out(self, input: Input) -> bool {
        match input {
            Input::Spawned(_) => !self.unborn,
            // Exec may fail in a process that is known already.
            Input::SpawnFailed { .. } => !self.unborn && !self.leader,
            Input::Exited(_) | Input::ExitedLeaving(_) | Input::Ready | Input::Alive | Input::Failed(_) => !self.leader,
            Input::Extend(_) => !self.leader && !self.others,
            Input::Empty => !self.others,
            Input::Start | Input::Stop | Input::Restart | Input::Kill | Input::Timeout => false,
        }
    }
}

/// One step, for the checks.
struct Step<'a> {
    before: &'a Lifecycle,
    input: Input,
    now: Instant,
    reaction: &'a Reaction,
    after: &'a Lifecycle,
}

impl Watched {
    pub(super) fn new(policy: &Policy, seed: u64) -> Watched {
        Watched {
            life: Lifecycle::new(policy, seed),
            truth: Truth::default(),
        }
    }

    /// The pid of the spawn that is under way, or was last.
    pub(super) fn pid(&self) -> Pid {
        Pid::new(u32::try_from(self.life.runs()).unwrap().max(1)).unwrap()
    }

    /// Takes an input in and checks the step.
    pub(super) fn handle(&mut self, policy: &Policy, input: Input, now: Instant) -> Reaction {
        let before = self.life.clone();
        let reaction = self.life.handle(policy, input, now);
        let step = Step {
            before: &before,
            input,
            now,
            reaction: &reaction,
            after: &self.life,
        };
        step.chains();
        step.changes_nothing_unless_it_says_so();
        step.obeys();
        step.spawns_when_it_says_so();
        step.is_in_time();
        if self.truth.rules_out(input) {
            assert_eq!(reaction.reply, Reply::Ignored, "{input:?} is impossible in {before:?}");
        }
        let was_alive = self.truth.is_alive();
        self.keep_account(policy, input, &reaction);
        self.is_consistent(now);
        let ends = reaction.transitions().filter(|step| step.ends_run()).count();
        let is_over = !self.truth.is_alive() || reaction.action == Some(Action::Spawn);
        assert_eq!(ends, usize::from(was_alive && is_over), "{input:?} in {before:?}");
        reaction
    }

    fn keep_account(&mut self, policy: &Policy, input: Input, reaction: &Reaction) {
        let truth = &mut self.truth;
        if reaction.reply != Reply::Ignored {
            match input {
                Input::Spawned(_) => (truth.unborn, truth.leader) = (false, true),
                Input::SpawnFailed { .. } => (truth.unborn, truth.leader) = (false, false),
                Input::Exited(_) | Input::ExitedLeaving(_) => truth.leader = false,
                Input::Empty => truth.others = false,
                Input::Start | Input::Stop | Input::Restart | Input::Kill => (),
                Input::Ready | Input::Alive | Input::Extend(_) | Input::Failed(_) | Input::Timeout => (),
            }
        }
        let stopping = match self.life.state {
            State::Stopping(stopping) => Some(stopping),
            _ => None,
        };
        truth.others = matches!(
            stopping,
            Some(Stopping {
                left: Left::Others { .. },
                ..
            })
        );
        if stopping.is_none() {
            (truth.killed, truth.looks, truth.reported) = (false, 0, false);
        }
        match reaction.action {
            None => (),
            Some(Action::Spawn) => {
                assert!(!truth.is_alive(), "a second incarnation beside {truth:?}");
                truth.unborn = true;
            }
            Some(Action::Signal { signal, scope }) => {
                let Stopping { rung, .. } = stopping.expect("only what is being stopped gets a signal");
                if rung == Stopping::SIGKILL {
                    let again = match input {
                        Input::Kill => truth.given_up,
                        Input::Timeout => truth.others && truth.looks >= 15,
                        _ => false,
                    };
                    assert!(
                        !truth.killed || again,
                        "SIGKILL goes once, and again if that was in vain"
                    );
                    truth.reported &= input != Input::Kill;
                    // Whoever asks is no reason to put off what comes by itself.
                    truth.looks *= u8::from(input == Input::Kill);
                    assert_eq!((signal, scope), (Signal::KILL, policy.stop.kill));
                    truth.killed = true;
                }
            }
            Some(Action::Look { .. }) => {
                assert!(truth.others, "looks for others, and the process itself is alive");
                truth.looks = truth.looks.saturating_add(u8::from(truth.killed));
                assert!(truth.looks <= 32, "SIGKILL has been in vain for too long");
            }
            Some(Action::ReportUnkillable) => {
                assert!(truth.killed && !truth.reported, "reported once, after SIGKILL");
                truth.reported = true;
            }
        }
        truth.given_up = stopping.is_some_and(|stopping| stopping.until == Instant::NEVER);
    }

    fn is_consistent(&self, now: Instant) {
        let Watched { life, truth } = self;
        let alive = matches!(
            life.state,
            State::Starting { pid: Some(_), .. }
                | State::Running { .. }
                | State::Stopping(Stopping { left: Left::Leader, .. })
        );
        let unborn = matches!(life.state, State::Starting { pid: None, .. });
        assert_eq!((unborn, alive), (truth.unborn, truth.leader), "{life:?}");
        assert_eq!(life.state.pid(), (alive || truth.others).then(|| self.pid()));
        assert!(life.state.since().is_none_or(|since| since <= now));
        let zero = (life.failed_starts(), life.restarts()) == (0, 0);
        match life.state {
            State::Stopped => assert!(life.wanted == Wanted::Down && zero, "{life:?}"),
            State::Starting { pid: None, until, .. } => assert_eq!(until, Instant::NEVER),
            State::Starting { pid: Some(_), .. } | State::Running { .. } | State::Backoff { .. } => {
                assert_eq!(life.wanted, Wanted::Up);
            }
            State::Stopping(stopping) => {
                assert_eq!(stopping.rung == Stopping::SIGKILL, truth.killed);
                assert!(!truth.reported || stopping.until == Instant::NEVER);
            }
            State::Exited { .. } | State::Fatal { .. } => (),
        }
    }
}

impl Step<'_> {
    /// The transitions lead from the state before to the state after, without a gap.
    fn chains(&self) {
        let mut at = self.before.state.name();
        for Transition { from, to, .. } in self.reaction.transitions() {
            assert_eq!(from, at);
            assert_ne!(from, to, "a step leads somewhere");
            at = to;
        }
        assert_eq!(at, self.after.state.name());
    }

    fn changes_nothing_unless_it_says_so(&self) {
        let Step {
            before,
            input,
            reaction,
            after,
            ..
        } = self;
        if reaction.reply == Reply::Accepted {
            return;
        }
        assert_eq!(reaction.action, None);
        assert_eq!(reaction.transitions().count(), 0);
        assert_eq!((after.runs, &after.counters), (before.runs, &before.counters));
        assert_eq!(after.deadline(), before.deadline());
        match (reaction.reply, after.state) {
            // A start forgives what it is stopped for.
            (Reply::Queued, State::Stopping(stopping)) => {
                let mut forgiven = before.state;
                if let State::Stopping(before) = &mut forgiven {
                    before.failed = None;
                }
                assert_eq!(State::Stopping(stopping), forgiven);
            }
            _ => assert_eq!(after.state, before.state),
        }
        // Only at rest does it come to nothing what is wanted.
        let at_rest = matches!(
            after.state.name(),
            StateName::Stopped | StateName::Exited | StateName::Fatal
        );
        let stays_down = reaction.reply == Reply::Already && at_rest && matches!(input, Input::Stop | Input::Kill);
        if reaction.reply != Reply::Queued && !stays_down {
            assert_eq!(after.wanted, before.wanted, "{input:?} in {before:?}");
        }
    }

    /// No wish is lost or ignored.
    fn obeys(&self) {
        let wanted = match self.input {
            Input::Start | Input::Restart => Wanted::Up,
            Input::Stop | Input::Kill => Wanted::Down,
            _ => return,
        };
        assert_ne!(self.reaction.reply, Reply::Ignored);
        assert_eq!(self.after.wanted, wanted);
    }

    /// A spawn is asked for exactly when Starting is entered, which is the last step, and counted.
    fn spawns_when_it_says_so(&self) {
        let mut steps: Vec<Transition> = self.reaction.transitions().collect();
        let spawns = steps.pop().is_some_and(|step| step.to == StateName::Starting);
        assert!(steps.iter().all(|step| step.to != StateName::Starting));
        assert_eq!(self.reaction.action == Some(Action::Spawn), spawns);
        assert_eq!(self.after.runs - self.before.runs, u64::from(spawns));
    }

    /// A timeout does something exactly when one is due, and so much that it cannot go on for ever
    /// at the same instant.
    fn is_in_time(&self) {
        if self.input != Input::Timeout {
            return;
        }
        let due = self.before.deadline().is_some_and(|at| at <= self.now);
        let reply = if due { Reply::Accepted } else { Reply::Ignored };
        assert_eq!(self.reaction.reply, reply);
        if due {
            assert!(
                self.goes_on(),
                "{:?} at {:?} leads to {:?}",
                self.before,
                self.now,
                self.after
            );
        }
    }

    fn goes_on(&self) -> bool {
        let later = self.after.deadline().is_none_or(|at| at > self.now);
        if let (State::Stopping(before), State::Stopping(after)) = (self.before.state, self.after.state) {
            let climbs = after.rung > before.rung;
            let gives_up = self.reaction.action == Some(Action::ReportUnkillable);
            return climbs || gives_up || later;
        }
        // By a policy that was exchanged for a more patient one, it is not time yet.
        let waits = matches!(self.after.state, State::Starting { .. } | State::Running { .. }) && later;
        waits || self.before.state.name() != self.after.state.name()
    }
}
