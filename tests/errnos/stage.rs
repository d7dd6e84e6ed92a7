//! What a scenario runs on: a supervisor, the shim, and the errors that the library reports.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pidherd::cgroup::CgroupError;
use pidherd::lifecycle::StateName;
use pidherd::supervisor::{ProcessNotice, RefusalReason};
use pidherd::{Command, Event, GroupId, GroupSpec, InstanceId, SetupError, SpawnError, Supervisor, Target};

use crate::common::wait::patience;
use crate::common::wait_readable;
use crate::host::{at_once, ms, term};
use crate::manual::text;
use crate::shim::Shim;

/// An error that the library has reported.
#[derive(Clone, Debug)]
pub struct Told {
    pub text: String,
    /// The errno in the error, if it has one.
    pub errno: Option<i32>,
}

pub type Tried<T = ()> = Result<T, Told>;

const DOWN: &str = "the supervisor is down";

/// The time for one step of a scenario. A step that takes longer hangs.
const STEP: Duration = Duration::from_secs(15);

/// The ground of a run.
pub struct Stage {
    pub shim: &'static Shim,
    pub supervisor: Option<Supervisor>,
    pub directory: PathBuf,
    /// A cgroup for this run. `None` if this machine has none.
    pub cgroup: Option<PathBuf>,
    /// The errors so far.
    pub told: Vec<Told>,
    /// The events so far.
    pub story: Vec<String>,
    /// Whether nothing is injected any more.
    pub is_healing: bool,
    /// Whether this run finds out the calls.
    pub is_recording: bool,
    /// What the program must know that goes on after an execve.
    pub request: String,
}

impl Stage {
    /// Makes a call of the library that may fail.
    pub fn call<T, E: Error + 'static>(
        &mut self,
        phase: &'static str,
        body: impl FnOnce(&mut Supervisor) -> Result<T, E>,
    ) -> Tried<T> {
        let supervisor = self.supervisor.as_mut().expect("a supervisor");
        let result = match self.is_healing {
            true => body(supervisor),
            false => self.shim.observed(phase, || body(supervisor)),
        };
        self.tell(phase, result)
    }

    /// Makes a call of the library that needs no supervisor.
    pub fn alone<T, E: Error + 'static>(
        &mut self,
        phase: &'static str,
        body: impl FnOnce() -> Result<T, E>,
    ) -> Tried<T> {
        let result = self.shim.observed(phase, body);
        self.tell(phase, result)
    }

    /// Makes a call of the library that returns no error.
    pub fn quiet<T>(&mut self, phase: &'static str, body: impl FnOnce(&mut Option<Supervisor>) -> T) -> T {
        self.shim.observed(phase, || body(&mut self.supervisor))
    }

    fn tell<T, E: Error + 'static>(&mut self, phase: &str, result: Result<T, E>) -> Tried<T> {
        result.map_err(|error| self.fail(phase, &error))
    }

    /// Notes an error, and ends the injection.
    pub fn fail(&mut self, phase: &str, error: &(dyn Error + 'static)) -> Told {
        self.note(&format!("{phase}: {}", full(error)), errno_of(error))
    }

    pub fn note(&mut self, text: &str, errno: Option<i32>) -> Told {
        self.shim.arm(None);
        let text = text.to_owned();
        let told = Told { text, errno };
        self.told.push(told.clone());
        told
    }

    /// Turns until this holds. An error that an event reports ends the scenario.
    pub fn until(&mut self, phase: &'static str, mut holds: impl FnMut(&Stage) -> bool) -> Tried {
        let end = Instant::now() + STEP * patience();
        loop {
            let before = self.told.len();
            self.take_events(phase);
            if let Some(told) = self.told.get(before) {
                return Err(told.clone());
            }
            if holds(self) {
                return Ok(());
            }
            assert!(Instant::now() < end, "it hangs in {phase:?}: {:#?}", self.story);
            let supervisor = self.supervisor.as_ref().expect("a supervisor");
            if wait_readable(supervisor, ms(5)) {
                self.call(phase, Supervisor::dispatch)?;
            }
        }
    }

    fn take_events(&mut self, phase: &'static str) {
        let Some(supervisor) = self.supervisor.as_mut() else {
            return;
        };
        let mut events = Vec::new();
        let mut fetch = || {
            while let Some(event) = supervisor.next_event() {
                events.push(event);
            }
        };
        match self.is_healing {
            true => fetch(),
            false => self.shim.observed(phase, fetch),
        }
        for event in events {
            self.story.push(format!("{event:?}"));
            if let Some((error, errno)) = error_of(&event) {
                self.note(&format!("{phase}: {error}"), errno);
            }
        }
    }

    /// Leaves for the next program what it must know.
    pub fn write_request(&self, path: &Path) {
        std::fs::write(path, &self.request).unwrap();
    }

    pub fn until_state(&mut self, phase: &'static str, id: InstanceId, state: StateName) -> Tried {
        self.until(phase, |stage| stage.state(id) == Some(state))
    }

    pub fn state(&self, id: InstanceId) -> Option<StateName> {
        Some(self.supervisor.as_ref()?.status(id)?.state.name())
    }

    pub fn pid(&self, id: InstanceId) -> Option<u32> {
        Some(self.supervisor.as_ref()?.status(id)?.pid?.as_raw())
    }

    pub fn runs(&self, id: InstanceId) -> u64 {
        let status = self.supervisor.as_ref().and_then(|supervisor| supervisor.status(id));
        status.map_or(0, |status| status.runs)
    }

    /// Adds a group. Returns it and its first instance.
    pub fn add(&mut self, phase: &'static str, spec: GroupSpec) -> Tried<(GroupId, InstanceId)> {
        let group = self.call(phase, |supervisor| supervisor.add(spec))?;
        let instances = self.supervisor.as_ref().and_then(|supervisor| supervisor.group(group));
        Ok((group, instances.expect("a group").instances[0]))
    }

    /// Shows that the supervisor works: starts a process, stops it, shuts down, and drops the supervisor. Nothing is
    /// injected any more.
    pub fn heal(&mut self) {
        self.shim.stop();
        self.is_healing = true;
        let Some(supervisor) = self.supervisor.as_mut() else {
            return;
        };
        match supervisor.add(healthy()) {
            Ok(group) => {
                let id = supervisor.group(group).unwrap().instances[0];
                supervisor.start(id).unwrap();
                self.past_errors("a healthy process runs", |stage| {
                    stage.state(id) == Some(StateName::Running)
                });
                self.supervisor.as_mut().unwrap().stop(id).unwrap();
                self.past_errors("a healthy process stops", |stage| {
                    stage.state(id) == Some(StateName::Stopped)
                });
                self.supervisor.as_mut().unwrap().shutdown().unwrap();
            }
            Err(pidherd::Error::ShuttingDown) => {}
            Err(error) => panic!("a healthy group: {error}"),
        }
        self.past_errors(DOWN, |stage| stage.supervisor.as_ref().unwrap().is_down());
        self.supervisor = None;
    }

    /// Turns until this holds. Errors of what was injected before may still be reported.
    fn past_errors(&mut self, phase: &'static str, mut holds: impl FnMut(&Stage) -> bool) {
        let end = Instant::now() + STEP * patience();
        while self.until(phase, &mut holds).is_err() {
            // A signal that the kernel has refused is sent again only if the host asks for it.
            if phase == DOWN {
                self.supervisor.as_mut().unwrap().kill(Target::All).unwrap();
            }
            assert!(Instant::now() < end, "it hangs in {phase:?}: {:#?}", self.story);
        }
    }
}

/// A group that needs nothing special.
fn healthy() -> GroupSpec {
    let command = Command::new("/bin/sleep").arg("1000");
    GroupSpec::new("healthy", command)
        .policy(at_once())
        .stop(term(pidherd::lifecycle::Scope::Process, ms(10_000)))
}

/// The error that an event reports.
fn error_of(event: &Event) -> Option<(String, Option<i32>)> {
    let of_spawn = |error: &SpawnError| (full(error), Some(error.errno()));
    match event {
        Event::Transition(step) => step.error.as_ref().map(of_spawn),
        Event::CommandFailed { failure, error, .. } => {
            Some(error.as_ref().map_or_else(|| (format!("{failure:?}"), None), of_spawn))
        }
        Event::SignalFailed { signal, errno, .. } => Some((format!("{signal}: {}", text(*errno)), Some(*errno))),
        Event::LimitFailed { file, errno, .. } => Some((format!("{file}: {}", text(*errno)), Some(*errno))),
        Event::Notice {
            notice: ProcessNotice::DescriptorsRefused { reason, .. },
            ..
        } => Some(match reason {
            RefusalReason::Errno(errno) => (text(*errno), Some(*errno)),
            other => (format!("{other:?}"), None),
        }),
        Event::Unkillable { name, .. } => Some((format!("{name} is unkillable"), None)),
        _ => None,
    }
}

/// The errno in an error or in its sources.
fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        let inner = io
            .and_then(|io| io.get_ref())
            .map(|inner| inner as &(dyn Error + 'static));
        let errno = [
            io.and_then(io::Error::raw_os_error),
            error.downcast_ref::<SpawnError>().map(SpawnError::errno),
            error.downcast_ref::<SetupError>().map(SetupError::errno),
            error.downcast_ref::<CgroupError>().map(CgroupError::errno),
        ];
        if let Some(errno) = errno.into_iter().flatten().next() {
            return Some(errno);
        }
        next = inner.or_else(|| error.source());
    }
    None
}

/// The text of an error and of its sources, as far as they are no part of it.
fn full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}
