//! From a description to a running process.

use super::builder::Command;
use super::error::{CommandError, SpawnError, SpawnStep, Subject};
use super::program::Program;
use super::spawner::Spawner;
use crate::child::Child;

impl Command {
    /// Checks the command as far as possible without starting a process, looks up the user, takes the host's
    /// environment, and translates the command to the system calls of a child.
    ///
    /// Blocks during a look-up in the user database, if one is needed.
    ///
    /// # Errors
    /// The fault of the command.
    pub fn compile(&self) -> Result<Program, CommandError> {
        Program::new(self)
    }

    /// Compiles and starts the command with a temporary [`Spawner`]. A host that starts several processes keeps the
    /// program and the spawner instead.
    ///
    /// Blocks as [`Spawner::spawn`] does.
    ///
    /// # Errors
    /// As [`Command::compile`] and [`Spawner::spawn`].
    pub fn spawn(&self) -> Result<Child, SpawnError> {
        let refused = |error| SpawnError::refused(self.program.clone(), error);
        let program = self.compile().map_err(refused)?;
        let mut spawner = Spawner::set_up().map_err(|error| {
            let (operation, object) = error.subject();
            let subject = Subject::Setup(operation, object);
            SpawnError::new(self.program.clone(), SpawnStep::Prepare, error.errno(), Some(subject))
        })?;
        spawner.spawn(&program)
    }
}
