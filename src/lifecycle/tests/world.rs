//! A simulated world in virtual time: one lifecycle, and a program with a given behaviour.
//!
//! Time jumps from one event to the next. Each event is logged as a line of text, with the seconds since the
//! beginning, so a test compares the log with the expected lines.

use std::time::Duration;

use super::super::{Action, Input, Policy, Reply, Restart, Scope, StateName};
use super::checked::Checked;
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

/// The behaviour of each process in a world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// The spawn fails with this errno, which is permanent or not.
    pub(super) spawn_error: Option<(i32, bool)>,
    /// The process exits by itself, this long after its spawn.
    pub(super) ends: Option<(Duration, Exit)>,
    /// The process reports readiness, this long after its spawn.
    pub(super) ready: Option<Duration>,
    /// The process exits this long after any signal except SIGKILL. With `None` it ignores them.
    pub(super) on_signal: Option<(Duration, Exit)>,
    /// The process survives even SIGKILL.
    pub(super) survives_sigkill: bool,
    /// The process leaves other processes in its process group, which only SIGKILL ends.
    pub(super) leaves_others: bool,
}

pub(super) const SLEEP: Program = Program {
    spawn_error: None,
    ends: None,
    ready: None,
    on_signal: Some((
        Duration::ZERO,
        Exit::Signal {
            signal: Signal::TERM,
            core: false,
        },
    )),
    survives_sigkill: false,
    leaves_others: false,
};

impl Program {
    pub(super) fn ends(after: Duration, code: u8) -> Program {
        Program {
            ends: Some((after, Exit::Code(code))),
            ..SLEEP
        }
    }

    pub(super) fn ignores_signals() -> Program {
        Program {
            on_signal: None,
            ..SLEEP
        }
    }

    /// A program that this user may not execute.
    pub(super) fn not_executable() -> Program {
        Program {
            spawn_error: Some((libc::EACCES, true)),
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
    pub(super) checked: Checked,
    pub(super) program: Program,
    /// Which event comes first if a deadline and an exit are at the same instant.
    pub(super) deadline_first: bool,
    now: Instant,
    process: Option<Process>,
    others: bool,
    /// Every state that was entered.
    pub(super) states: Vec<StateName>,
    log: Vec<String>,
}

/// The time at the beginning. It is not zero, because a zero could hide a mistake.
const BEGINNING: Instant = Instant::from_nanos(77_000_000_000);

impl World {
    pub(super) fn new(policy: Policy, program: Program) -> World {
        policy.validate().unwrap();
        World {
            checked: Checked::new(&policy, 0),
            policy,
            program,
            deadline_first: true,
            now: BEGINNING,
            process: None,
            others: false,
            states: Vec::new(),
            log: Vec::new(),
        }
    }

    /// A world in which the process was started.
    pub(super) fn started(policy: Policy, program: Program) -> World {
        let mut world = World::new(policy, program);
        assert_eq!(world.send(Input::Start), Reply::Accepted);
        world
    }

    /// Returns the log since the last call.
    pub(super) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Runs until this many seconds after the beginning, and returns the log of that time.
    pub(super) fn log_until(&mut self, seconds: f64) -> Vec<String> {
        self.take_log();
        self.run_until(seconds);
        self.take_log()
    }

    /// Sends an input, and returns the reply and the log of what happened at once.
    pub(super) fn send_and_log(&mut self, input: Input) -> (Reply, Vec<String>) {
        self.take_log();
        (self.send(input), self.take_log())
    }

    pub(super) fn state(&self) -> StateName {
        self.checked.life.state().name()
    }

    pub(super) fn send(&mut self, input: Input) -> Reply {
        let reaction = self.checked.handle(&self.policy, input, self.now);
        for step in reaction.transitions() {
            self.states.push(step.to);
            self.append(format!("{}, {}", step.to, step.cause));
        }
        if let Some(action) = reaction.action {
            self.carry_out(action);
        }
        reaction.reply
    }

    /// Removes the process. The lifecycle does not know it yet.
    pub(super) fn remove_process(&mut self) {
        assert!(self.process.take().is_some());
    }

    /// Runs until this many seconds after the beginning.
    pub(super) fn run_until(&mut self, seconds: f64) {
        let end = BEGINNING.saturating_add(Duration::from_secs_f64(seconds));
        let mut events = 0;
        while let Some((at, input)) = self.next().filter(|(at, _)| *at <= end) {
            events += 1;
            assert!(events < 10_000, "too many events: {:?}", self.checked);
            self.now = self.now.max(at);
            match input {
                Input::Exited(_) => self.process = None,
                Input::Ready => self.process.iter_mut().for_each(|process| process.ready = None),
                _ => (),
            }
            self.send(input);
        }
        self.now = end;
    }

    fn next(&self) -> Option<(Instant, Input)> {
        let deadline = self.checked.life.deadline().map(|at| (at, Input::Timeout));
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
            Action::SpawnBefore | Action::SpawnAfter | Action::RunStopCommand { .. } => {
                panic!("no command belongs to these runs")
            }
            Action::Signal { signal, scope } => {
                self.append(format!("{signal} to {scope:?}"));
                self.signal(signal, scope);
            }
            Action::Look { .. } if self.others => (),
            Action::Look { .. } => {
                self.send(Input::Empty);
            }
            Action::ReportUnkillable => self.append("unkillable".into()),
        }
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none() && !self.others, "a second process was spawned");
        if let Some((errno, permanent)) = self.program.spawn_error {
            self.send(Input::SpawnFailed { errno, permanent });
            return;
        }
        self.process = Some(Process {
            ends: self
                .program
                .ends
                .map(|(after, exit)| (self.now.saturating_add(after), exit)),
            ready: self.program.ready.map(|after| self.now.saturating_add(after)),
        });
        self.send(Input::Spawned(self.checked.pid()));
    }

    fn signal(&mut self, signal: Signal, scope: Scope) {
        let dies = match signal {
            Signal::KILL if self.program.survives_sigkill => None,
            Signal::KILL => Some((Duration::ZERO, Exit::Signal { signal, core: false })),
            _ => self.program.on_signal,
        };
        let Some((after, exit)) = dies else { return };
        let at = self.now.saturating_add(after);
        match &mut self.process {
            Some(process) => {
                process.ends = process.ends.filter(|(ends, _)| *ends <= at).or(Some((at, exit)));
                self.others = self.program.leaves_others && !(scope == Scope::ProcessGroup && signal == Signal::KILL);
            }
            None if scope == Scope::ProcessGroup && signal == Signal::KILL => self.others = false,
            None => (),
        }
    }

    fn append(&mut self, what: String) {
        let seconds = self.now.saturating_duration_since(BEGINNING).as_secs_f64();
        self.log.push(format!("{seconds} {what}"));
    }
}
