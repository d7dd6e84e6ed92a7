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
    /// ```
    /// # use pidherd::{Command, CommandError, Spawner};
    /// // Everything that can be checked without a process is checked here.
    /// let wrong = Command::new("true").umask(0o7777).compile();
    /// assert!(matches!(wrong, Err(CommandError::Umask { mask: 0o7777 })));
    ///
    /// let program = Command::new("true").compile()?;
    /// let mut spawner = Spawner::new()?;
    /// assert!(spawner.spawn(&program)?.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::{Command, SpawnStep};
    /// let mut child = Command::new("true").spawn()?;
    /// assert!(child.wait()?.exit.success());
    ///
    /// let error = Command::new("true").current_dir("/no/such").spawn().map(drop).expect_err("it is missing");
    /// assert_eq!(error.step(), SpawnStep::CurrentDir);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
