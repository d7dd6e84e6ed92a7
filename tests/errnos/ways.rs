//! The ways to start a program.

use std::io;
use std::os::fd::AsFd;

use pidherd::{Child, Command, Launcher, Program, SetupError, SpawnError, SpawnProgress, SpawnStep, Spawner};

use crate::calls::is_transient;
use crate::common::{SOON, wait_readable, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The host waits for the execve.
    Waiting,
    /// The host repeatedly asks for the progress of the spawn.
    InFlight,
    /// The host waits for a launcher's descriptor.
    Launched,
}

/// The error of a spawn or of its preparation.
#[derive(Debug)]
pub struct Failure {
    pub step: SpawnStep,
    pub errno: i32,
    pub is_transient: bool,
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Failure {
        Failure {
            step: error.step(),
            errno: error.errno(),
            is_transient: error.is_transient(),
        }
    }
}

impl From<io::Error> for Failure {
    /// The error of a spawner or a launcher that could not be created.
    fn from(error: io::Error) -> Failure {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
        let errno = inner.expect("a SetupError").errno();
        Failure {
            step: SpawnStep::Prepare,
            errno,
            is_transient: is_transient(errno),
        }
    }
}

/// A spawner or launcher, which can start further programs.
pub enum Starter {
    Spawner(Spawner),
    Launcher(Launcher),
}

impl Way {
    /// Creates the spawner or launcher for this way, stores it, and starts a program.
    pub fn start(self, command: &Command, starter: &mut Option<Starter>) -> Result<Child, Failure> {
        let program = command.compile().expect("a good command");
        let made = match self {
            Way::Waiting | Way::InFlight => Starter::Spawner(Spawner::new()?),
            Way::Launched => Starter::Launcher(Launcher::new()?),
        };
        let starter = starter.insert(made);
        Ok(match starter {
            Starter::Spawner(spawner) if self == Way::Waiting => spawner.spawn(&program)?,
            Starter::Spawner(spawner) => in_flight(spawner, &program)?,
            Starter::Launcher(launcher) => launched(launcher, &program)?,
        })
    }
}

impl Starter {
    /// Starts a program in each of its ways, one after the other.
    pub fn start(&mut self, command: &Command, mut each: impl FnMut(Child)) {
        let program = command.compile().expect("a good command");
        match self {
            Starter::Spawner(spawner) => {
                each(spawner.spawn(&program).unwrap());
                each(in_flight(spawner, &program).unwrap());
            }
            Starter::Launcher(launcher) => {
                each(launched(launcher, &program).unwrap());
                each(launched(launcher, &program).unwrap());
            }
        }
    }
}

fn in_flight(spawner: &mut Spawner, program: &Program) -> Result<Child, SpawnError> {
    let mut progress = Some(SpawnProgress::InFlight(spawner.begin(program)?));
    wait_until("the spawn is over", SOON, || {
        if let Some(SpawnProgress::InFlight(spawning)) = progress.take() {
            progress = Some(spawner.finish(spawning));
        }
        !matches!(progress, Some(SpawnProgress::InFlight(_)))
    });
    match progress {
        Some(SpawnProgress::Running(child)) => Ok(child),
        Some(SpawnProgress::Failed(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn launched(launcher: &mut Launcher, program: &Program) -> Result<Child, SpawnError> {
    let id = launcher.begin(program)?;
    loop {
        assert!(wait_readable(launcher.as_fd(), SOON));
        if let Some((told, outcome)) = launcher.finish() {
            assert_eq!(told, id);
            assert!(launcher.finish().is_none());
            return outcome;
        }
    }
}
