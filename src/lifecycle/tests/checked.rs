//! A lifecycle that is checked at every step against the rules that hold for all steps.
//!
//! It keeps a model of the processes that are alive, made only from the accepted inputs and the requested
//! actions. An input that the model rules out is impossible, and the table must ignore it.

use super::super::{
    Action, Cause, Input, Joint, Lifecycle, Part, Phase, Policy, Reaction, Remaining, Reply, State, StateName,
    Stopping, Transition, Wanted,
};
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) life: Lifecycle,
    pub(super) model: Model,
}

/// The processes that exist according to the inputs and actions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Model {
    /// A spawn was requested, and its result is pending.
    pub(super) spawn_pending: bool,
    /// The process is alive.
    pub(super) leader: bool,
    /// The process is alive and has not executed its program.
    pub(super) in_flight: bool,
    /// The process has exited, and the table checks for other processes of its scope.
    pub(super) others: bool,
    /// SIGKILL was sent at the end of the ladder.
    pub(super) killed: bool,
    /// The number of checks for other processes since SIGKILL.
    pub(super) looks: u8,
    /// The process was reported as unkillable.
    pub(super) reported: bool,
    /// The table has no further deadline for the stop.
    pub(super) given_up: bool,
    /// The part of the run that was spawned last.
    part: Option<Part>,
    /// The command before the present run has succeeded.
    prepared: bool,
    /// A command of the ladder runs.
    pub(super) command: bool,
}

impl Model {
    /// Whether a process may be alive, so that no other may be spawned.
    pub(super) fn is_alive(self) -> bool {
        self.spawn_pending || self.leader || self.others || self.command
    }

    fn rules_out(self, input: Input) -> bool {
        match input {
            Input::Spawned(_) | Input::Cloned(_) => !self.spawn_pending,
            // The command after a run is not withdrawn.
            Input::SpawnWithdrawn => !self.spawn_pending || self.part == Some(Part::After),
            Input::Executed => !self.in_flight,
            Input::Adopted(_) => self.is_alive(),
            Input::Released => !self.leader || self.in_flight || self.part != Some(Part::Program),
            // A spawn may also fail in exec, after the process is known.
            Input::SpawnFailed { .. } => !self.spawn_pending && !self.leader,
            Input::Exited(_) | Input::ExitedLeaving(_) | Input::EndedBefore => !self.leader,
            Input::Ready | Input::NotReady | Input::Alive | Input::PolicyChanged | Input::Failed(_) => !self.leader,
            Input::Extend(_) => !self.leader && !self.others,
            Input::Empty => !self.others,
            Input::StopCommandEnded { .. } | Input::StopCommandUnkillable => !self.command,
            Input::Start | Input::Stop | Input::Restart | Input::Kill | Input::Timeout => false,
            Input::StopWithSiblings | Input::StartWithSiblings => false,
        }
    }
}

impl Model {
    /// Whether a run that ends with this input leaves something to clean up: a program was executed, or may have been.
    fn leaves_something(self, before: &Lifecycle, input: Input) -> bool {
        match input {
            Input::Released => false,
            // Of a process that ran, it is news that comes too late.
            Input::SpawnFailed { .. } => self.prepared || before.state.name() == StateName::Running,
            Input::SpawnWithdrawn | Input::StopWithSiblings => self.prepared,
            Input::StopCommandEnded { .. } => match before.state {
                State::Stopping(Stopping {
                    remaining: Remaining::Command { executed: false, .. },
                    ..
                }) => self.prepared,
                _ => true,
            },
            _ => true,
        }
    }
}

impl Model {
    /// An input was accepted.
    fn takes(&mut self, input: Input) {
        match input {
            Input::Spawned(_) => (self.spawn_pending, self.leader) = (false, true),
            Input::Cloned(_) => (self.spawn_pending, self.leader, self.in_flight) = (false, true, true),
            Input::SpawnWithdrawn => self.spawn_pending = false,
            Input::StopWithSiblings if self.part == Some(Part::After) => (),
            Input::StopWithSiblings => self.spawn_pending = false,
            Input::StartWithSiblings => (),
            Input::Executed => self.in_flight = false,
            Input::Adopted(_) => (self.leader, self.part, self.prepared) = (true, Some(Part::Program), false),
            Input::Released => self.leader = false,
            Input::SpawnFailed { .. } => (self.spawn_pending, self.leader) = (false, false),
            Input::Exited(_) | Input::ExitedLeaving(_) => self.leader = false,
            // The command of the first rung is not begun then.
            Input::EndedBefore => self.command = false,
            Input::StopCommandEnded { .. } => self.command = false,
            Input::NotReady | Input::StopCommandUnkillable => (),
            Input::Empty => self.others = false,
            // The command after a run is skipped if it was not spawned yet.
            Input::Kill if self.part == Some(Part::After) => self.spawn_pending = false,
            Input::Start | Input::Stop | Input::Restart | Input::Kill => (),
            Input::Ready | Input::Alive | Input::PolicyChanged | Input::Extend(_) => (),
            Input::Failed(_) | Input::Timeout => (),
        }
    }

    /// A spawn was requested.
    fn spawns(&mut self, action: Action, input: Input, prepared: bool) {
        assert!(!self.is_alive(), "a second process was spawned beside {self:?}");
        let succeeded = matches!(input, Input::Exited(Exit::Code(0)) | Input::Empty);
        self.prepared = match action {
            Action::SpawnAfter => self.prepared,
            Action::Spawn => self.part == Some(Part::Before) && succeeded && prepared,
            _ => false,
        };
        self.spawn_pending = true;
        self.part = Some(match action {
            Action::SpawnBefore => Part::Before,
            Action::SpawnAfter => Part::After,
            _ => Part::Program,
        });
    }
}

/// The data of one step, for the checks.
struct Step<'a> {
    before: &'a Lifecycle,
    input: Input,
    now: Instant,
    reaction: &'a Reaction,
    after: &'a Lifecycle,
}

impl Checked {
    pub(super) fn new(policy: &Policy, seed: u64) -> Checked {
        Checked {
            life: Lifecycle::new(policy, seed),
            model: Model::default(),
        }
    }

    /// The pid of the pending spawn, or of the last one.
    pub(super) fn pid(&self) -> Pid {
        Pid::new(u32::try_from(self.life.runs()).unwrap().max(1)).unwrap()
    }

    /// The pid of a process that begins the next run.
    pub(super) fn next_pid(&self) -> Pid {
        Pid::new(u32::try_from(self.life.runs()).unwrap() + 1).unwrap()
    }

    /// Handles an input and checks the step.
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
        step.assert_continuous();
        step.assert_only_accepted_inputs_change_state();
        step.assert_command_is_remembered();
        step.assert_spawn_enters_starting();
        step.assert_timeout_makes_progress();
        step.assert_only_an_end_is_judged();
        if self.model.rules_out(input) {
            assert_eq!(
                reaction.reply,
                Reply::Ignored,
                "{input:?} is impossible in {before:?} and must be ignored"
            );
        }
        let model = self.model;
        self.update_model(policy, input, &reaction);
        self.assert_consistent(now);
        self.assert_takes_part_or_not();
        let ends = reaction.transitions().filter(|step| step.ends_run()).count();
        let was_in_run = model.is_alive() && model.part != Some(Part::After);
        let begins = self.life.runs > before.runs;
        let is_over = !self.model.is_alive() || begins || reaction.action == Some(Action::SpawnAfter);
        assert_eq!(ends, usize::from(was_in_run && is_over), "{input:?} in {before:?}");
        assert_eq!(reaction.end.is_some(), ends > 0, "{input:?} in {before:?}");
        if ends > 0 {
            let cleans_up = policy.after_run.is_some() && model.leaves_something(&before, input);
            let action = reaction.action == Some(Action::SpawnAfter);
            assert_eq!(action, cleans_up, "{input:?} in {before:?}");
        }
        if begins && !matches!(input, Input::Adopted(_)) {
            let with_command = policy.before_run.is_some();
            let action = if with_command {
                Action::SpawnBefore
            } else {
                Action::Spawn
            };
            assert_eq!(reaction.action, Some(action), "{input:?} in {before:?}");
        } else if reaction.action == Some(Action::Spawn) {
            let succeeded = self.model.prepared || policy.before_run.is_none();
            assert!(model.part == Some(Part::Before) && succeeded, "{input:?} in {before:?}");
        }
        reaction
    }

    fn update_model(&mut self, policy: &Policy, input: Input, reaction: &Reaction) {
        let model = &mut self.model;
        if reaction.reply != Reply::Ignored {
            model.takes(input);
        }
        // The news of the execution means nothing to a process that is being stopped, or is ready.
        model.in_flight &= model.leader
            && matches!(
                self.life.state,
                State::Preparing { .. } | State::Starting { .. } | State::CleaningUp { .. }
            );
        let stopping = match self.life.state {
            State::Stopping(stopping) => Some(stopping),
            _ => None,
        };
        model.others = matches!(
            stopping,
            Some(Stopping {
                remaining: Remaining::Others { .. },
                ..
            })
        );
        if stopping.is_none() {
            (model.killed, model.looks, model.reported) = (false, 0, false);
        }
        match reaction.action {
            None => (),
            Some(action @ (Action::Spawn | Action::SpawnBefore | Action::SpawnAfter)) => {
                model.spawns(action, input, self.life.prepared);
            }
            Some(Action::RunStopCommand { .. }) => {
                assert!(!model.command, "a second command runs beside the first one");
                model.command = true;
            }
            Some(Action::Signal { signal, scope }) => {
                let Stopping { rung, .. } = stopping.expect("a signal was sent outside of a stop");
                if rung == Stopping::SIGKILL {
                    let again = match input {
                        Input::Kill => model.given_up,
                        Input::Timeout => model.others && model.looks >= 15,
                        _ => false,
                    };
                    assert!(!model.killed || again, "SIGKILL was sent again too early");
                    model.reported &= input != Input::Kill;
                    // A kill command must not delay the repetition of SIGKILL.
                    model.looks *= u8::from(input == Input::Kill);
                    assert_eq!((signal, scope), (Signal::KILL, policy.stop.kill));
                    model.killed = true;
                }
            }
            Some(Action::Look { .. }) => {
                assert!(
                    model.others,
                    "a check for other processes while the process itself is alive"
                );
                model.looks = model.looks.saturating_add(u8::from(model.killed));
                assert!(model.looks <= 32, "SIGKILL was not repeated in time");
            }
            Some(Action::ReportUnkillable) => {
                assert!(model.killed && !model.reported, "reported without SIGKILL, or twice");
                model.reported = true;
            }
        }
        model.given_up = stopping.is_some_and(|stopping| stopping.until == Instant::NEVER);
    }

    /// A part in a joint restart agrees with the state. The siblings are told at once.
    fn assert_takes_part_or_not(&mut self) {
        assert!(self.life.is_joint_possible(), "{:?}", self.life);
        let tells = self.life.joint() == Joint::Tells;
        self.life.note_told();
        assert!(self.life.is_joint_possible(), "{:?}", self.life);
        let is_over = matches!(self.life.state, State::Exited { .. } | State::Fatal { .. });
        assert!(!tells || self.life.is_joint() != is_over);
    }

    fn assert_consistent(&self, now: Instant) {
        let Checked { life, model } = self;
        let alive = matches!(
            life.state,
            State::Preparing { pid: Some(_), .. }
                | State::CleaningUp { pid: Some(_), .. }
                | State::Starting { pid: Some(_), .. }
                | State::Running { .. }
                | State::Stopping(Stopping {
                    remaining: Remaining::Leader,
                    ..
                })
        );
        let spawn_pending = matches!(
            life.state,
            State::Starting { pid: None, .. }
                | State::Preparing { pid: None, .. }
                | State::CleaningUp { pid: None, .. }
        );
        assert_eq!((spawn_pending, alive), (model.spawn_pending, model.leader), "{life:?}");
        assert_eq!(life.state.pid(), (alive || model.others).then(|| self.pid()));
        let has_command = matches!(life.state, State::Stopping(stopping) if stopping.has_command);
        assert_eq!(has_command, model.command, "{life:?}");
        assert!(life.state.since().is_none_or(|since| since <= now));
        let zero = (life.failed_starts(), life.restarts()) == (0, 0);
        match life.state {
            State::Stopped => assert!(life.wanted == Wanted::Down && zero, "{life:?}"),
            State::Starting { pid: None, until, .. }
            | State::Preparing { pid: None, until, .. }
            | State::CleaningUp { pid: None, until, .. } => assert_eq!(until, Instant::NEVER),
            State::Starting {
                pid: Some(_), executed, ..
            }
            | State::Preparing {
                pid: Some(_), executed, ..
            }
            | State::CleaningUp {
                pid: Some(_), executed, ..
            } if executed.is_some() == model.in_flight => {
                panic!("executed is {executed:?}: {life:?}");
            }
            State::Preparing { pid: Some(_), .. }
            | State::Starting { pid: Some(_), .. }
            | State::Running { .. }
            | State::Backoff { .. } => {
                assert_eq!(life.wanted, Wanted::Up);
            }
            State::Stopping(stopping) => {
                assert_eq!(stopping.rung == Stopping::SIGKILL, model.killed);
                assert!(!model.reported || stopping.until == Instant::NEVER);
            }
            State::Exited { .. } | State::Fatal { .. } | State::CleaningUp { .. } => (),
        }
    }
}

impl Step<'_> {
    /// The transitions lead from the state before to the state after, without a gap.
    fn assert_continuous(&self) {
        let mut at = self.before.state.name();
        for Transition { from, to, .. } in self.reaction.transitions() {
            assert_eq!(from, at);
            assert_ne!(from, to, "a transition must change the state");
            at = to;
        }
        assert_eq!(at, self.after.state.name());
    }

    fn assert_only_accepted_inputs_change_state(&self) {
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
            // A start clears the failure that caused the stop.
            (Reply::Queued, State::Stopping(stopping)) => {
                let mut cleared = before.state;
                if let State::Stopping(before) = &mut cleared {
                    match &mut before.phase {
                        Phase::After(ended) => ended.failed = None,
                        _ => before.failed = None,
                    }
                }
                assert_eq!(State::Stopping(stopping), cleared);
            }
            (Reply::Queued, State::CleaningUp { .. }) => {
                let mut cleared = before.state;
                if let State::CleaningUp { ended, .. } = &mut cleared {
                    ended.failed = None;
                }
                assert_eq!(after.state, cleared);
            }
            // SIGKILL was sent already; that the host asked for it decides how the end is judged.
            (Reply::Already, State::Stopping(stopping)) if *input == Input::Kill => {
                let mut requested = before.state;
                if let State::Stopping(before) = &mut requested {
                    before.prospect = stopping.prospect;
                }
                assert_eq!(State::Stopping(stopping), requested);
            }
            _ => assert_eq!(after.state, before.state),
        }
        // Without a process, a stop or a kill changes only what is wanted.
        let at_rest = matches!(
            after.state.name(),
            StateName::Stopped | StateName::Exited | StateName::Fatal
        );
        let stays_down = reaction.reply == Reply::Already && at_rest && matches!(input, Input::Stop | Input::Kill);
        if reaction.reply != Reply::Queued && !stays_down {
            assert_eq!(after.wanted, before.wanted, "{input:?} in {before:?}");
        }
    }

    /// Every command is remembered.
    fn assert_command_is_remembered(&self) {
        let wanted = match self.input {
            Input::Start | Input::Restart => Wanted::Up,
            Input::Stop | Input::Kill => Wanted::Down,
            _ => return,
        };
        assert_ne!(self.reaction.reply, Reply::Ignored);
        assert_eq!(self.after.wanted, wanted);
    }

    /// A step requests a spawn exactly if its last transition enters the state of what is spawned, and counts the runs that
    /// begin.
    fn assert_spawn_enters_starting(&self) {
        let mut steps: Vec<Transition> = self.reaction.transitions().collect();
        if let (Input::Adopted(_), Reply::Accepted) = (self.input, self.reaction.reply) {
            let names: Vec<StateName> = steps.iter().map(|step| step.to).collect();
            assert_eq!(names, [StateName::Starting, StateName::Running]);
            assert_eq!((self.reaction.action, self.after.runs), (None, self.before.runs + 1));
            return;
        }
        let begins = steps.iter().filter(|step| step.begins_run()).count() as u64;
        let spawned = |step: Transition| match step.to {
            StateName::Preparing => Some(Action::SpawnBefore),
            StateName::Starting => Some(Action::Spawn),
            StateName::CleaningUp => Some(Action::SpawnAfter),
            _ => None,
        };
        let last = steps.pop().and_then(spawned);
        assert!(steps.iter().all(|&step| spawned(step).is_none()));
        let action = self.reaction.action.filter(|action| action.spawns());
        assert_eq!(action, last);
        assert_eq!(self.after.runs - self.before.runs, begins);
    }

    /// A budget that the siblings share is looked at only for an input that can end a run.
    fn assert_only_an_end_is_judged(&self) {
        let is_judged = |step: Transition| matches!(step.cause, Cause::Restart | Cause::CrashBudgetUsedUp);
        let is_judged = self.reaction.transitions().any(is_judged);
        assert!(
            !is_judged || self.input.may_end_run(),
            "{:?} in {:?}",
            self.input,
            self.before
        );
    }

    /// A timeout is accepted exactly if a deadline has passed. It must make progress, so that it cannot repeat
    /// for ever at the same instant.
    fn assert_timeout_makes_progress(&self) {
        if self.input != Input::Timeout {
            return;
        }
        let due = self.before.deadline().is_some_and(|at| at <= self.now);
        let reply = if due { Reply::Accepted } else { Reply::Ignored };
        assert_eq!(self.reaction.reply, reply);
        if due {
            assert!(
                self.makes_progress(),
                "no progress: {:?} at {:?} leads to {:?}",
                self.before,
                self.now,
                self.after
            );
        }
    }

    fn makes_progress(&self) -> bool {
        let later = self.after.deadline().is_none_or(|at| at > self.now);
        if let (State::Stopping(before), State::Stopping(after)) = (self.before.state, self.after.state) {
            let next_rung = after.rung > before.rung;
            let gives_up = self.reaction.action == Some(Action::ReportUnkillable);
            return next_rung || gives_up || later;
        }
        // A watchdog that a new policy does not have is dropped, and the run may have timed out as well.
        if let (State::Running { until: before, .. }, State::Running { until: after, .. }) =
            (self.before.state, self.after.state)
        {
            return later || (before <= self.now && after > self.now);
        }
        // A new policy with a longer time may have replaced the old one, so the deadline moves.
        let waits = matches!(
            self.after.state,
            State::Starting { .. } | State::Running { .. } | State::Backoff { .. }
        ) && later;
        waits || std::mem::discriminant(&self.before.state) != std::mem::discriminant(&self.after.state)
    }
}
