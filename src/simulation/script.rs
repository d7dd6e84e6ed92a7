//! What a simulated process does.

use std::borrow::Cow;
use std::time::Duration;

use super::error::ScriptError;
use super::span::Span;
use crate::cgroup::OomLimit;
use crate::command::SpawnStep;
use crate::names::{machine_names, shown_by_name};
use crate::signal::Signal;

/// What one process does, from its execution to its end.
///
/// A new script is the ideal process: it is executed after 300 µs, runs for ever, handles no signal, and ends at once
/// when a signal arrives that ends a process by default. Each setting adds to that; the same setting once more takes the
/// place of the first, except for ends, messages and forks, and for reactions to other signals. All times are counted from
/// the execution of the program. Of several ends the first one counts: a script with two ends has two independent risks.
///
/// Everything that a process does at one time happens in this order: it hangs, sends its messages, reports its readiness,
/// ends.
///
/// ```
/// use std::time::Duration;
/// use pidherd::Signal;
/// use pidherd::sim::{Fork, Script, Span};
///
/// let hour = Duration::from_secs(3_600);
/// let web = Script::new()
///     .ready(Duration::from_secs(3))
///     .pings(Duration::from_secs(10))
///     .hangs(Span::exponential(500 * hour))
///     .crashes(Span::exponential(100 * hour), Signal::SEGV)
///     .handles(Signal::TERM, Span::between(Duration::ZERO, Duration::from_secs(8)), 0)
///     .forks(Fork::new().ignores_signals());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub(super) refusal: Option<SpawnFailure>,
    pub(super) executes: Span,
    pub(super) ends: Vec<(Span, Ending)>,
    pub(super) reactions: Vec<(Signal, Reaction)>,
    pub(super) ready: Option<Span>,
    pub(super) closes: Option<Span>,
    pub(super) messages: Vec<(Span, Text)>,
    pub(super) pings: Option<Duration>,
    pub(super) hangs: Option<Span>,
    pub(super) dies: Span,
    pub(super) forks: Vec<Fork>,
}

/// A message to the notify socket.
pub(super) type Text = Cow<'static, str>;

/// How a process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exit(u8),
    Signal(Signal),
    /// The kernel kills it for lack of memory.
    OutOfMemory(OomLimit),
}

/// The effect of a signal that does not have its default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    Ignore,
    Exit(Span, u8),
    Reload(Span),
}

/// How long an execution takes unless the script tells it.
const EXECUTION: Duration = Duration::from_micros(300);

impl Script {
    /// A process that runs until a signal ends it.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new())?;
    /// simulation.start(web)?;
    /// simulation.advance(3_600 * second)?;
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.runs, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new() -> Script {
        Script {
            refusal: None,
            executes: Span::fixed(EXECUTION),
            ends: Vec::new(),
            reactions: Vec::new(),
            ready: None,
            closes: None,
            messages: Vec::new(),
            pings: None,
            hangs: None,
            dies: Span::fixed(Duration::ZERO),
            forks: Vec::new(),
        }
    }

    /// A process that cannot be spawned. The other settings have no effect.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::not_spawned(SpawnFailure::NotFound))?;
    /// simulation.start(web)?;
    /// simulation.advance(60 * second)?;
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.state.name(), StateName::Fatal);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn not_spawned(failure: SpawnFailure) -> Script {
        let mut script = Script::new();
        script.refusal = Some(failure);
        script
    }

    /// The process is executed this long after it was cloned; by default after 300 µs. It is [in
    /// flight](super::Builder::spawns_in_flight) until then. Less than a microsecond counts as a microsecond.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().executes(30 * second))?;
    /// simulation.start(web)?;
    /// // The grace of a second begins with the execution.
    /// simulation.advance(30 * second)?;
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.state.name(), StateName::Starting);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn executes(mut self, after: impl Into<Span>) -> Script {
        self.executes = after.into();
        self
    }

    /// The process exits after this time with this code.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().exits(5 * second, 3))?;
    /// simulation.start(web)?;
    /// simulation.advance(6 * second)?;
    /// let run = simulation.runs(instance).next().ok_or("no run has ended")?;
    /// assert_eq!(run.exit.and_then(|record| record.exit.code()), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn exits(mut self, after: impl Into<Span>, code: u8) -> Script {
        self.ends.push((after.into(), Ending::Exit(code)));
        self
    }

    /// The process is ended after this time by a signal that it raises itself, such as SIGSEGV. No core is dumped.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().crashes(5 * second, Signal::SEGV))?;
    /// simulation.start(web)?;
    /// simulation.advance(6 * second)?;
    /// let run = simulation.runs(instance).next().ok_or("no run has ended")?;
    /// assert_eq!(run.exit.and_then(|record| record.exit.signal()), Some(Signal::SEGV));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn crashes(mut self, after: impl Into<Span>, signal: Signal) -> Script {
        self.ends.push((after.into(), Ending::Signal(signal)));
        self
    }

    /// The kernel kills the process after this time because this limit of memory is reached. In a group without
    /// [cgroups](crate::GroupSpec::cgroup) that is an end by SIGKILL without a known reason.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// use pidherd::cgroup::OomLimit;
    ///
    /// let directory = simulation.cgroup_dir()?;
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).cgroup(directory))?;
    /// simulation.assign(web, Script::new().runs_out_of_memory(5 * second, OomLimit::Own))?;
    /// simulation.start(web)?;
    /// simulation.advance(6 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// let run = simulation.runs(instance).next().ok_or("no run has ended")?;
    /// println!("{}", run.end.as_str());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn runs_out_of_memory(mut self, after: impl Into<Span>, limit: OomLimit) -> Script {
        self.ends.push((after.into(), Ending::OutOfMemory(limit)));
        self
    }

    /// The process ignores this signal. A later setting for the same signal replaces it.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().ignores(Signal::TERM))?;
    /// simulation.start(web)?;
    /// simulation.advance(5 * second)?;
    /// simulation.stop(web)?;
    /// // SIGKILL comes after ten seconds.
    /// simulation.advance(9 * second)?;
    /// assert_eq!(simulation.living(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ignores(self, signal: Signal) -> Script {
        self.reacts(signal, Reaction::Ignore)
    }

    /// The process handles this signal: it exits with this code this long after the signal. A process that stops slowly
    /// takes some time here. A second signal does not make it later.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().handles(Signal::TERM, 3 * second, 0))?;
    /// simulation.start(web)?;
    /// simulation.advance(5 * second)?;
    /// simulation.stop(web)?;
    /// simulation.advance(4 * second)?;
    /// let run = simulation.runs(instance).next().ok_or("no run has ended")?;
    /// assert!(run.exit.is_some_and(|record| record.exit.success()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn handles(self, signal: Signal, takes: impl Into<Span>, code: u8) -> Script {
        self.reacts(signal, Reaction::Exit(takes.into(), code))
    }

    /// At this signal the process reads its configuration again: it sends `RELOADING=1` at once and `READY=1` after this
    /// time, as [`reload_program`](crate::supervisor::Supervise::reload_program) expects.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).notify_socket(true))?;
    /// simulation.assign(web, Script::new().reloads(Signal::HUP, 3 * second))?;
    /// simulation.start(web)?;
    /// simulation.advance(5 * second)?;
    /// simulation.reload_program(web, Signal::HUP, Some(10 * second))?;
    /// let is_reload = |event: &Event| matches!(event, Event::Reloaded { .. });
    /// assert!(simulation.run_until(4 * second, is_reload)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn reloads(self, signal: Signal, takes: impl Into<Span>) -> Script {
        self.reacts(signal, Reaction::Reload(takes.into()))
    }

    fn reacts(mut self, signal: Signal, reaction: Reaction) -> Script {
        self.reactions.retain(|(known, _)| *known != signal);
        self.reactions.push((signal, reaction));
        self
    }

    /// The process reports after this time that it is ready, in the way that its group expects: through the [readiness
    /// descriptor](crate::GroupSpec::ready_fd), or by `READY=1` to the [notify socket](crate::GroupSpec::notify_socket).
    /// In a group with neither, nothing happens. By default a process never reports it. The time is counted from the
    /// execution, and that of [`Startup::Notify`](crate::Startup::Notify) from the spawn, some hundred microseconds before.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let policy = Policy::new().startup(Startup::Notify { timeout: 30 * second });
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).policy(policy).ready_fd(3))?;
    /// simulation.assign(web, Script::new().ready(10 * second))?;
    /// simulation.start(web)?;
    /// let is_up = |event: &Event| matches!(event, Event::Transition(step) if step.to == StateName::Running);
    /// assert!(simulation.run_until(30 * second, is_up)?.is_some());
    /// assert_eq!(simulation.elapsed().as_secs(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ready(mut self, after: impl Into<Span>) -> Script {
        self.ready = Some(after.into());
        self
    }

    /// The process closes its readiness descriptor after this time. Without a report before, that is a failed start.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let policy = Policy::new().startup(Startup::Notify { timeout: 30 * second });
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).policy(policy).ready_fd(3))?;
    /// simulation.assign(web, Script::new().closes_readiness(second))?;
    /// simulation.start(web)?;
    /// simulation.advance(2 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.failed_starts, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn closes_readiness(mut self, after: impl Into<Span>) -> Script {
        self.closes = Some(after.into());
        self
    }

    /// The process sends this message to the notify socket after this time (sd_notify(3)), for example `STOPPING=1`. In a
    /// group without a socket nothing is sent.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).notify_socket(true))?;
    /// simulation.assign(web, Script::new().notifies(second, "STATUS=3 clients"))?;
    /// simulation.start(web)?;
    /// simulation.advance(2 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// let status = simulation.status(instance).ok_or("no status")?;
    /// assert_eq!(status.status_text.as_deref(), Some("3 clients"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn notifies(mut self, after: impl Into<Span>, message: impl Into<Cow<'static, str>>) -> Script {
        self.messages.push((after.into(), message.into()));
        self
    }

    /// The process sends `WATCHDOG=1` to the notify socket again and again, the first time after one period.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let web = GroupSpec::new("web", Command::new("web")).notify_socket(true);
    /// let web = simulation.add(web.policy(Policy::new().watchdog(10 * second)))?;
    /// simulation.assign(web, Script::new().pings(4 * second))?;
    /// simulation.start(web)?;
    /// simulation.advance(3_600 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.runs, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn pings(mut self, period: Duration) -> Script {
        self.pings = Some(period);
        self
    }

    /// The process hangs after this time: it sends nothing any more, does not end by itself, and the signals that it
    /// would handle have no effect. Signals with their default effect end it.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// let web = GroupSpec::new("web", Command::new("web")).notify_socket(true);
    /// let web = simulation.add(web.policy(Policy::new().watchdog(10 * second)))?;
    /// simulation.assign(web, Script::new().pings(4 * second).hangs(60 * second))?;
    /// simulation.start(web)?;
    /// simulation.advance(90 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// let run = simulation.runs(instance).next().ok_or("no run has ended")?;
    /// assert_eq!(run.end.as_str(), "watchdog");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hangs(mut self, after: impl Into<Span>) -> Script {
        self.hangs = Some(after.into());
        self
    }

    /// The process takes this long to die of SIGKILL; by default no time. A process that waits for a disk or a network
    /// file system does.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().dies(60 * second))?;
    /// simulation.start(web)?;
    /// simulation.advance(5 * second)?;
    /// simulation.kill(web)?;
    /// let is_report = |event: &Event| matches!(event, Event::Unkillable { .. });
    /// assert!(simulation.run_until(10 * second, is_report)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn dies(mut self, takes: impl Into<Span>) -> Script {
        self.dies = takes.into();
        self
    }

    /// The process starts another one as soon as it is executed. Further calls add further ones.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().exits(5 * second, 0).forks(Fork::new().leaves_group()))?;
    /// simulation.start(web)?;
    /// simulation.advance(6 * second)?;
    /// // The run is over, and nothing has reached what it has started.
    /// assert_eq!(simulation.strays(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn forks(mut self, fork: Fork) -> Script {
        self.forks.push(fork);
        self
    }

    pub(super) fn check(&self) -> Result<(), ScriptError> {
        for (span, ending) in &self.ends {
            span.check()?;
            match ending {
                Ending::Signal(signal) if !signal.is_fatal() => {
                    return Err(ScriptError::NotFatal(*signal));
                }
                Ending::Exit(_) | Ending::Signal(_) | Ending::OutOfMemory(_) => {}
            }
        }
        for (signal, reaction) in &self.reactions {
            if matches!(*signal, Signal::KILL | Signal::STOP) {
                return Err(ScriptError::Uncatchable(*signal));
            }
            match reaction {
                Reaction::Ignore => {}
                Reaction::Exit(span, _) | Reaction::Reload(span) => span.check()?,
            }
        }
        if self.pings == Some(Duration::ZERO) {
            return Err(ScriptError::NoPeriod);
        }
        let messages = self.messages.iter().map(|(span, _)| *span);
        let others = self.forks.iter().filter_map(|fork| fork.lives);
        let single = [self.executes, self.dies].into_iter().chain(self.hangs);
        let spans = single.chain(messages).chain(others);
        spans.chain(self.ready).chain(self.closes).try_for_each(Span::check)
    }
}

impl Default for Script {
    fn default() -> Script {
        Script::new()
    }
}

/// A process that a simulated process starts, and that may stay when its parent has ended.
///
/// By default it lives until a signal ends it, and stays in the process group of its parent. A stop reaches it with a
/// [scope](crate::Scope) beyond the process: the process group, or the cgroup of the run. SIGKILL always ends it; the
/// other signals that end a process do so unless it ignores them. In a group with [cgroups](crate::GroupSpec::cgroup) the
/// end of the run kills what is left. Otherwise it is a stray ([`Simulation::strays`](super::Simulation::strays)).
///
/// ```
/// use std::time::Duration;
/// use pidherd::sim::{Fork, Script};
///
/// // A daemon that has detached itself and lives for a minute.
/// let script = Script::new().forks(Fork::new().leaves_group().lives(Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    pub(super) lives: Option<Span>,
    pub(super) in_group: bool,
    pub(super) ignores: bool,
}

impl Fork {
    /// A process that lives until a signal ends it.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().forks(Fork::new()))?;
    /// simulation.start(web)?;
    /// simulation.advance(second)?;
    /// assert_eq!(simulation.living(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new() -> Fork {
        Fork {
            lives: None,
            in_group: true,
            ignores: false,
        }
    }

    /// It ends by itself this long after its start.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.assign(web, Script::new().forks(Fork::new().lives(5 * second)))?;
    /// simulation.start(web)?;
    /// simulation.advance(10 * second)?;
    /// assert_eq!(simulation.living(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lives(mut self, time: impl Into<Span>) -> Fork {
        self.lives = Some(time.into());
        self
    }

    /// It leaves the process group of its parent, as a daemon does (setsid(2)). Its cgroup it cannot leave.
    #[must_use]
    pub const fn leaves_group(mut self) -> Fork {
        self.in_group = false;
        self
    }

    /// It ignores all signals but SIGKILL.
    #[must_use]
    pub const fn ignores_signals(mut self) -> Fork {
        self.ignores = true;
        self
    }
}

impl Default for Fork {
    fn default() -> Fork {
        Fork::new()
    }
}

/// How a spawn fails.
///
/// ```
/// use pidherd::sim::{Behavior, Script, SpawnFailure};
///
/// // The program is missing when the third run begins, and there again for the fourth.
/// let behavior = Behavior::new(Script::new()).run(3, Script::not_spawned(SpawnFailure::NotFound));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpawnFailure {
    /// The program does not exist: ENOENT of execve(2). Trying again cannot help
    /// ([`Policy::retry_permanent`](crate::Policy)).
    NotFound,
    /// The program may not be executed: EACCES of execve(2).
    NotPermitted,
    /// The program is being written: ETXTBSY of execve(2).
    Busy,
    /// No further process is allowed: EAGAIN of clone(2).
    NoProcess,
    /// No memory is left: ENOMEM of clone(2).
    NoMemory,
    /// No descriptor is free: EMFILE of clone(2), which makes the pidfd.
    NoDescriptor,
}

machine_names! { SpawnFailure, "failure of a spawn",
    NotFound = "not-found"
    NotPermitted = "not-permitted"
    Busy = "busy"
    NoProcess = "no-process"
    NoMemory = "no-memory"
    NoDescriptor = "no-descriptor"
}

shown_by_name! { SpawnFailure }

impl SpawnFailure {
    /// The step that fails, and its errno.
    pub(super) const fn cause(self) -> (SpawnStep, i32) {
        match self {
            SpawnFailure::NotFound => (SpawnStep::Exec, libc::ENOENT),
            SpawnFailure::NotPermitted => (SpawnStep::Exec, libc::EACCES),
            SpawnFailure::Busy => (SpawnStep::Exec, libc::ETXTBSY),
            SpawnFailure::NoProcess => (SpawnStep::Clone, libc::EAGAIN),
            SpawnFailure::NoMemory => (SpawnStep::Clone, libc::ENOMEM),
            SpawnFailure::NoDescriptor => (SpawnStep::Clone, libc::EMFILE),
        }
    }

    /// The errno of a failure in the child, after the clone.
    pub(super) const fn in_child(self) -> Option<i32> {
        match self.cause() {
            (SpawnStep::Exec, errno) => Some(errno),
            _ => None,
        }
    }
}
