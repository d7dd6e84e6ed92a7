//! A small world in virtual time: one lifecycle, and a program that behaves as described.
//!
//! Time jumps from one thing that is due to the next. What happened is told as lines of text, with
//! seconds since the beginning, so that a test reads like the story it checks.

use std::time::Duration;

use super::super::{Action, Input, Policy, Reply, Restart, Scope, StateName};
use super::watched::Watched;
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn always() -> Policy {
    Policy {
        restart: Restart::Always,
        ..Policy::default()
    }
}

/// What each process of a world does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// The spawn fails with this errno; for good, or not.
    pub(super) missing: Option<(i32, bool)>,
    /// It ends by itself, this long after it was spawned.
    pub(super) ends: Option<(Duration, Exit)>,
    /// It says that it is ready.
    pub(super) ready: Option<Duration>,
    /// It ends this long after any signal but SIGKILL; `None`: it is deaf.
    pub(super) obeys: Option<(Duration, Exit)>,
    /// It does not even die of SIGKILL.
    pub(super) stuck: bool,
    /// It leaves others in its process group, which die of SIGKILL alone.
    pub(super) others: bool,
}

pub(super) const SLEEP: Program = Program {
    missing: None,
    ends: None,
    ready: None,
    obeys: Some((
        Duration::ZERO,
        Exit::Signal {
            signal: Signal::TERM,
            core: false,
        },
    )),
    stuck: false,
    others: false,
};

impl Program {
    pub(super) fn ends(after: Duration, code: u8) -> Program {
        Program {
            ends: Some((after, Exit::Code(code))),
            ..SLEEP
        }
    }

    pub(super) fn deaf() -> Program {
        Program { obeys: None, ..SLEEP }
    }

    /// It may not be executed.
    pub(super) fn refused() -> Program {
        Program {
            missing: Some((libc::EACCES, true)),
            ..SLEEP
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Process {
    ends: Option<(Instant, Exit)>,
    ready: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) life: Watched,
    pub(super) program: Program,
    /// Which is seen first, of a deadline and an end at the same instant.
    pub(super) deadline_first: bool,
    now: Instant,
    process: Option<Process>,
    others: bool,
    /// Every state that was entered.
    pub(super) been: Vec<StateName>,
    told: Vec<String>,
}

/// Not zero, so that nothing works by accident.
const BEGINNING: Instant = Instant::from_nanos(77_000_000_000);

impl World {
    pub(super) fn new(policy: Policy, program: Program) -> World {
        policy.validate().unwrap();
        World {
            life: Watched::new(&policy, 0),
            policy,
            program,
            deadline_first: true,
            now: BEGINNING,
            process: None,
            others: false,
            been: Vec::new(),
            told: Vec::new(),
        }
    }

    /// One that has been asked to start.
    pub(super) fn started(policy: Policy, program: Program) -> World {
        let mut world = World::new(policy, program);
        assert_eq!(world.ask(Input::Start), Reply::Accepted);
        world
    }

    /// What has happened since this was asked last.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// What happens from here on, up to so many seconds after the beginning.
    pub(super) fn story(&mut self, seconds: f64) -> Vec<String> {
        self.told();
        self.until(seconds);
        self.told()
    }

    /// What is answered to a wish, and what happens at once.
    pub(super) fn answer(&mut self, input: Input) -> (Reply, Vec<String>) {
        self.told();
        (self.ask(input), self.told())
    }

    pub(super) fn state(&self) -> StateName {
        self.life.life.state().name()
    }

    pub(super) fn ask(&mut self, input: Input) -> Reply {
        let reaction = self.life.handle(&self.policy, input, self.now);
        for step in reaction.transitions() {
            self.been.push(step.to);
            self.tell(format!("{}, {}", step.to, step.cause));
        }
        if let Some(action) = reaction.action {
            self.carry_out(action);
        }
        reaction.reply
    }

    /// It is dead, and nobody has been told yet.
    pub(super) fn process_is_gone(&mut self) {
        assert!(self.process.take().is_some());
    }

    /// Lets time pass up to so many seconds after the beginning.
    pub(super) fn until(&mut self, seconds: f64) {
        let end = BEGINNING.saturating_add(Duration::from_secs_f64(seconds));
        let mut events = 0;
        while let Some((at, input)) = self.next().filter(|(at, _)| *at <= end) {
            events += 1;
            assert!(events < 10_000, "no end of it: {:?}", self.life);
            self.now = self.now.max(at);
            match input {
                Input::Exited(_) => self.process = None,
                Input::Ready => self.process.iter_mut().for_each(|process| process.ready = None),
                _ => (),
            }
            self.ask(input);
        }
        self.now = end;
    }

    fn next(&self) -> Option<(Instant, Input)> {
        let deadline = self.life.life.deadline().map(|at| (at, Input::Timeout));
        let ready = self.process.and_then(|process| process.ready);
        let ends = self.process.and_then(|process| process.ends);
        let events = [
            ready.map(|at| (at, Input::Ready)),
            ends.map(|(at, exit)| (at, Input::Exited(exit))),
        ];
        let due = events.into_iter().flatten().min_by_key(|(at, _)| *at);
        match (deadline, due) {
            (Some(deadline), Some(due)) if deadline.0 < due.0 => Some(deadline),
            (Some(deadline), Some(due)) if deadline.0 == due.0 && self.deadline_first => Some(deadline),
            (deadline, due) => due.or(deadline),
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn => self.spawn(),
            Action::Signal { signal, scope } => {
                self.tell(format!("{signal} to {scope:?}"));
                self.signal(signal, scope);
            }
            Action::Look { .. } if self.others => (),
            Action::Look { .. } => {
                self.ask(Input::Empty);
            }
            Action::ReportUnkillable => self.tell("unkillable".into()),
        }
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none() && !self.others, "a second incarnation");
        if let Some((errno, permanent)) = self.program.missing {
            self.ask(Input::SpawnFailed { errno, permanent });
            return;
        }
        self.process = Some(Process {
            ends: self
                .program
                .ends
                .map(|(after, exit)| (self.now.saturating_add(after), exit)),
            ready: self.program.ready.map(|after| self.now.saturating_add(after)),
        });
        self.ask(Input::Spawned(self.life.pid()));
    }

    fn signal(&mut self, signal: Signal, scope: Scope) {
        let dies = match signal {
            Signal::KILL if self.program.stuck => None,
            Signal::KILL => Some((Duration::ZERO, Exit::Signal { signal, core: false })),
            _ => self.program.obeys,
        };
        let Some((after, exit)) = dies else { return };
        let at = self.now.saturating_add(after);
        match &mut self.process {
            Some(process) => {
                process.ends = process.ends.filter(|(ends, _)| *ends <= at).or(Some((at, exit)));
                self.others = self.program.others && !(scope == Scope::ProcessGroup && signal == Signal::KILL);
            }
            None if scope == Scope::ProcessGroup && signal == Signal::KILL => self.others = false,
            None => (),
        }
    }

    fn tell(&mut self, what: String) {
        let seconds = self.now.saturating_duration_since(BEGINNING).as_secs_f64();
        self.told.push(format!("{seconds} {what}"));
    }
}
