//! The herd: the programs of the configuration, as groups of the library, found by name.
//!
//! A group of the configuration may contain several programs. A group of the library contains instances of one
//! command. So the herd has one [`Member`] for each program, and it resolves each NAME to members. A whole member is
//! addressed as a group, so that instances which `scale` adds later are included.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pidherd::lifecycle::{Cause, Failure, StateName};
use pidherd::supervisor::{Builder, Name, Outcome, SpecError, StopReason, TransitionEvent};
use pidherd::{Error, Event, GroupId, InstanceId, Supervisor, Target};

use crate::config::{Config, Program};
use crate::report::Report;
use crate::{files, names, spec};

mod closing;
mod events;
mod handed;
mod logged;
mod model;
mod order;
mod pools;
mod reload;
mod remote;
mod select;
mod status;
mod tally;
mod typed;

pub use handed::Keeping;
use model::{Closing, MOST_EVENTS, Member, empty_groups, free_alias, is_adopt_error, logs, socket, with_priorities};
pub use model::{Herd, News, Terms, Verb};
use pools::Events;
pub use remote::{Info, Named, Progress, Refused};
use tally::Tally;
pub use typed::Run;

/// The number of programs that one turn of the loop starts.
const STARTS: usize = 8;

impl Herd {
    /// Adds the programs of `config` without starting them.
    ///
    /// # Errors
    /// One line: the kernel refuses what a supervisor needs, or the library refuses a program.
    pub fn new(config: &Config, terms: Terms) -> Result<Herd, String> {
        let mut notes = VecDeque::new();
        let supervisor = supervisor(terms.adopts_orphans, &mut notes);
        let supervisor = supervisor.map_err(|error| format!("cannot supervise: {}", files::reason(error)))?;
        let began = supervisor.now();
        let mut herd = Herd {
            supervisor,
            shared: terms.shared,
            events: Events::default(),
            logs: logs()?,
            members: Vec::new(),
            began,
            news: notes,
            to_start: VecDeque::new(),
            unkillable: HashSet::new(),
            shortages: HashMap::new(),
            dropped: 0,
            closing: Closing::default(),
            own: config.supervisord.clone(),
            empty: empty_groups(config),
            staged: config.clone(),
        };
        for (priority, program) in with_priorities(config) {
            herd.add(priority, program)?;
        }
        herd.make_pools();
        Ok(herd)
    }

    /// Puts every program with `autostart` into the queue of programs to start.
    fn autostart(&mut self) {
        let autostarted = self.members.iter().filter(|member| member.program.autostart);
        self.to_start.extend(autostarted.map(|member| member.id));
    }

    /// Whether programs still wait to be started.
    pub fn is_starting(&self) -> bool {
        !self.to_start.is_empty()
    }

    /// Starts the next few waiting programs. Starting a thousand programs at once would delay signals and commands.
    pub fn start_some(&mut self) {
        for _ in 0..STARTS {
            let Some(id) = self.to_start.pop_front() else { return };
            let started = self.supervisor.start(id);
            self.take_in(started.map(drop), &self.called(id));
        }
    }

    /// Starts all waiting programs, because the next command refers to the complete herd.
    fn start_rest(&mut self) {
        while self.is_starting() {
            self.start_some();
        }
    }

    /// Applies `verb` to the processes that `text` names, and returns the outcome in one line.
    ///
    /// # Errors
    /// One line: the command changed nothing.
    pub fn apply(&mut self, verb: Verb, text: &str) -> Result<String, String> {
        let mut places = self.select(text)?;
        self.start_rest();
        if matches!(verb, Verb::Start | Verb::Restart) {
            self.check_startable(&places)?;
            places.retain(|place| self.members[place.member].may_start());
        }
        let mut targets = match (verb, places.as_slice()) {
            // For a single process the supervisor returns a more precise error.
            (Verb::Signal(_), [one]) => vec![Target::Instance(one.id)],
            _ => self.targets(&places),
        };
        if matches!(verb, Verb::Stop) {
            targets.reverse();
        }
        let mut tally = Tally::default();
        let mut refusal = None;
        for target in targets {
            let answer = match verb {
                Verb::Start => self.supervisor.start(target),
                Verb::Stop => self.supervisor.stop(target),
                Verb::Restart => self.restart(target),
                Verb::Signal(signal) => self.supervisor.signal(target, signal),
            };
            self.collect();
            match answer {
                Ok(outcome) => tally.add(outcome),
                Err(error) => refusal = Some(self.plainly(&error, text)),
            }
        }
        match refusal {
            Some(refusal) if tally.total() == 0 => Err(refusal),
            _ => tally.line(verb, text),
        }
    }

    /// Restarts a process, or all of a program: at once, or a few at a time if the program is configured so.
    fn restart(&mut self, target: Target) -> Result<Outcome, Error> {
        let rolling = match target {
            Target::Group(id) => self
                .members
                .iter()
                .find(|member| member.id == id)
                .and_then(|member| Some((id, member.program.beyond.rules.rolling?))),
            _ => None,
        };
        match rolling {
            Some((id, rolling)) => self.supervisor.rolling_restart(id, rolling),
            None => self.supervisor.restart(target),
        }
    }

    /// Changes the number of instances of a program, and returns the old and the new number in one line.
    ///
    /// # Errors
    /// One line: the command changed nothing.
    pub fn scale(&mut self, text: &str, count: u32) -> Result<String, String> {
        let index = self.scalable(text)?;
        self.start_rest();
        let member = &self.members[index];
        if count > 1 && !member.program.can_scale() {
            let name = &member.program.name;
            return Err(format!(
                "{name} can't be scaled: its process_name has no %(process_num)d in it"
            ));
        }
        let last = count.saturating_sub(1);
        member.program.instance(last).map_err(|problem| problem.to_string())?;
        self.check_new_names(index, count)?;
        let before = self.supervisor.group(member.id).map_or(0, |group| group.target);
        let id = member.id;
        self.members[index].name_all(count);
        let scaled = self.supervisor.scale(id, count);
        self.collect();
        scaled.map_err(|error| self.plainly(&error, text))?;
        Ok(format!("scale {text}: from {before} to {count}"))
    }

    /// Runs the supervisor's pending work.
    ///
    /// # Errors
    /// The kernel refuses a call that the event loop needs. The taskmaster cannot continue.
    pub fn dispatch(&mut self) -> io::Result<()> {
        let progress = self.supervisor.dispatch();
        self.collect();
        self.advance_closing();
        progress.map(drop).map_err(io::Error::other)
    }

    /// Removes and returns the oldest entry for the log.
    pub fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// The width of the longest name, in characters.
    pub fn widest_name(&self) -> usize {
        let width = |member: &Member| {
            let shown = member
                .names
                .iter()
                .map(|name| names::shown(&member.program.group, name).chars().count());
            shown.max().unwrap_or(0)
        };
        self.members.iter().map(width).max().unwrap_or(0)
    }

    fn add(&mut self, priority: (i32, i32), program: Arc<Program>) -> Result<usize, String> {
        let alias = free_alias(&program, |alias| {
            self.members.iter().all(|member| member.alias != *alias)
        });
        let socket = socket(&program)?;
        let spec = spec::group(&program, &alias, program.numprocs, self.shared);
        let spec = self.wanted_places(&program).of(spec);
        let id = self
            .supervisor
            .add(spec)
            .map_err(|error| format!("[program:{}]: {}", program.name, of_program(&error, &program)))?;
        let mut member = Member {
            id,
            alias,
            program,
            priority,
            names: Vec::new(),
            leaving: false,
            after: None,
            socket,
        };
        member.name_all(member.program.numprocs);
        self.members.push(member);
        Ok(self.members.len() - 1)
    }

    /// Collects the events of a call to the supervisor about `text`. An error of the call becomes a note.
    fn take_in(&mut self, result: Result<(), Error>, text: &str) {
        self.collect();
        if let Err(error) = result {
            let line = self.plainly(&error, text);
            self.note(line);
        }
    }

    fn collect(&mut self) {
        while let Some(event) = self.supervisor.next_event() {
            self.interpret(event);
        }
        let dropped = self.supervisor.dropped_events();
        if dropped > self.dropped {
            self.note(format!(
                "{} events were lost, because the event queue was full",
                dropped - self.dropped
            ));
            self.dropped = dropped;
        }
    }

    fn interpret(&mut self, event: Event) {
        match event {
            Event::Transition(step) => {
                self.collect_output(&step);
                self.emit_transition(&step);
                self.report(&step);
            }
            Event::Unkillable {
                instance, name, pid, ..
            } => {
                self.unkillable.insert(instance);
                let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
                self.note(format!("{}{pid} survives SIGKILL", self.shown(instance, &name)));
            }
            Event::SignalFailed {
                instance,
                name,
                signal,
                errno,
                ..
            } => {
                let reason = files::reason(io::Error::from_raw_os_error(errno));
                self.note(format!(
                    "{signal} can't be sent to {}: {reason}",
                    self.shown(instance, &name)
                ));
            }
            Event::GroupRemoved { group, .. } => self.forget(group),
            other => self.remark(&other),
        }
    }

    /// Notes an event that changes no state.
    fn remark(&mut self, event: &Event) {
        let line = match event {
            Event::StartWaits {
                instance,
                name,
                awaited,
                ..
            } => format!("{} waits for {}", self.shown(*instance, name), self.called(*awaited)),
            Event::StartWithdrawn {
                instance, name, cause, ..
            } => format!("{} is not started: {cause}", self.shown(*instance, name)),
            Event::LimitFailed {
                instance,
                name,
                file,
                errno,
                ..
            } => {
                let reason = files::reason(io::Error::from_raw_os_error(*errno));
                format!(
                    "{}: the new {file} has no effect on this run: {reason}",
                    self.shown(*instance, name)
                )
            }
            Event::CommandFailed {
                instance,
                name,
                failure,
                error,
                ..
            } => {
                let reason = error.as_ref().map_or_else(|| failure.to_string(), ToString::to_string);
                format!("{}: after_command failed: {reason}", self.shown(*instance, name))
            }
            Event::GroupStops {
                instance,
                group,
                name,
                reason,
            } => match reason {
                StopReason::AllEnd => format!("{}: all processes have ended", self.called(*group)),
                _ => format!(
                    "{}: is stopped, since {} has ended",
                    self.called(*group),
                    self.shown(*instance, name)
                ),
            },
            Event::StopCommandStarted {
                instance, name, pid, ..
            } => format!("{}: stop_command has begun, pid {pid}", self.shown(*instance, name)),
            Event::StopCommandEnded {
                instance,
                name,
                end,
                error,
                ..
            } => {
                let result = error.as_ref().map_or_else(|| end.to_string(), ToString::to_string);
                format!("{}: stop_command: {result}", self.shown(*instance, name))
            }
            Event::Rolled { group, failed, .. } => match failed.and_then(|failed| self.name_of(failed)) {
                None => format!("{}: all processes were restarted", self.called(*group)),
                Some(failed) => format!("{}: the restart has ended at {failed}", self.called(*group)),
            },
            _ => return,
        };
        self.note(line);
    }

    fn report(&mut self, step: &TransitionEvent) {
        // A process that survived SIGKILL may still end later.
        self.unkillable.remove(&step.instance);
        self.count_shortage(step);
        let Some(member) = self.members.iter().find(|member| member.id == step.group) else {
            return;
        };
        let cause = step
            .error
            .as_ref()
            .map_or_else(|| step.cause.to_string(), ToString::to_string);
        self.news.push_back(News::Report(Report {
            at: step.at.saturating_duration_since(self.began),
            group: member.program.group.clone(),
            process: member.name(step.name.number).to_owned(),
            from: step.from,
            to: step.to,
            pid: step.pid.map(|pid| pid.as_raw()),
            cause,
            run: step.run,
            exit: step.exit.map(|record| record.exit),
        }));
    }

    /// Begins to collect the output of a new run, or takes the rest of one that has ended.
    fn collect_output(&mut self, step: &TransitionEvent) {
        if step.exit.is_some() {
            self.logs.drain(step.instance);
            self.hear();
        }
        if step.to == StateName::Starting {
            self.begin_output(step.instance, step.group, step.name.number);
        }
        for note in self.logs.take_notes() {
            self.note(note);
        }
    }

    fn begin_output(&mut self, instance: InstanceId, group: GroupId, number: u32) {
        let Some(pipes) = self.supervisor.take_pipes(instance) else {
            return;
        };
        let member = self.members.iter().find(|member| member.id == group);
        let program = member.map(|member| Arc::clone(&member.program));
        self.logs
            .begin(instance, pipes, |channel| program.as_ref()?.sink(number, channel));
    }

    fn count_shortage(&mut self, step: &TransitionEvent) {
        match (step.to, step.cause) {
            (StateName::Backoff, Cause::Failed(Failure::Spawn { permanent: false, .. })) => {
                *self.shortages.entry(step.instance).or_default() += 1;
            }
            (StateName::Backoff, _) | (StateName::Starting, Cause::DelayOver) | (_, Cause::Failed(_)) => {}
            _ => drop(self.shortages.remove(&step.instance)),
        }
    }

    /// The name of an instance as a user types it. For an instance that is gone, the library's name.
    fn shown(&self, id: InstanceId, name: &Name) -> String {
        self.name_of(id).unwrap_or_else(|| name.to_string())
    }

    /// The name of the program that belongs to a group of the library.
    fn called(&self, id: GroupId) -> String {
        let member = self.members.iter().find(|member| member.id == id);
        member.map_or_else(|| "a program".to_owned(), |member| member.program.name.clone())
    }

    /// The name of an instance as a user types it. `None` if the instance is gone.
    pub(super) fn name_of(&self, id: InstanceId) -> Option<String> {
        let status = self.supervisor.status(id)?;
        let member = self.members.iter().find(|member| member.id == status.group)?;
        Some(names::shown(&member.program.group, member.name(status.name.number)))
    }

    /// Translates the library's error into the terms of the configuration. `text` is the name in the command.
    fn plainly(&self, error: &Error, text: &str) -> String {
        let name = |id: InstanceId| self.name_of(id).unwrap_or_else(|| text.to_owned());
        match error {
            Error::NotAlive(id) => format!("{} is not running", name(*id)),
            Error::UnknownInstance(_) | Error::UnknownGroup(_) => format!("{text} is gone"),
            Error::Leaving(_) => format!("{text} is no longer in the configuration"),
            Error::LeavingInstance(id) => {
                format!("{} is being stopped for good: its program was scaled down", name(*id))
            }
            Error::Rolling(_) => format!("{text} is being restarted a few instances at a time"),
            Error::Required { by, .. } => format!("{text} cannot be removed: {} requires it", self.called(*by)),
            Error::Signal {
                instance,
                signal,
                source,
            } => format!(
                "{signal} can't be sent to {}: {}",
                name(*instance),
                files::reason(source)
            ),
            Error::Spec(_) => {
                let program = self.members.iter().map(|member| &member.program);
                match program.into_iter().find(|program| program.name == text) {
                    Some(program) => format!("{text}: {}", of_program(error, program)),
                    None => format!("{text}: {error}"),
                }
            }
            other => other.to_string(),
        }
    }

    fn note(&mut self, line: String) {
        self.news.push_back(News::Note(line));
    }

    /// Removes a member after its group is gone. A program that waited for the same name may start now.
    fn forget(&mut self, gone: GroupId) {
        self.members.retain(|member| member.id != gone);
        let known = &self.supervisor;
        self.events.forget(|instance| known.status(instance).is_some());
        let waiting = self.members.iter_mut().filter(|member| member.after == Some(gone));
        let free: Vec<(GroupId, bool)> = waiting
            .map(|member| {
                member.after = None;
                (member.id, member.program.autostart)
            })
            .collect();
        for (id, autostart) in free {
            if autostart && !self.is_closing() {
                self.to_start.push_back(id);
            }
        }
    }
}

impl AsFd for Herd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }
}

/// Creates a supervisor. It adopts orphans if that is wanted and possible.
fn supervisor(adopts_orphans: bool, notes: &mut VecDeque<News>) -> io::Result<Supervisor> {
    let builder = || Supervisor::builder().event_capacity(MOST_EVENTS);
    if !adopts_orphans {
        return builder().build();
    }
    match Builder::adopt_orphans(builder(), true).build() {
        Err(error) if is_adopt_error(&error) => {
            notes.push_back(News::Note(format!("orphans are not adopted: {error}")));
            builder().build()
        }
        other => other,
    }
}

/// Describes what is wrong with a program, with the name of the process concerned.
fn of_program(error: &Error, program: &Program) -> String {
    let (number, text) = match error {
        Error::Spec(SpecError::Command { number, error }) => (*number, error.to_string()),
        other => return other.to_string(),
    };
    match program.process_name(number) {
        Ok(name) => format!("{name}: {text}"),
        Err(_) => text,
    }
}
