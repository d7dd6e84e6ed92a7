//! A program in the place of the host, with all settings of a command.
//!
//! The host runs the steps of a child itself. Descriptors that the program does not get become close-on-exec instead of
//! being closed, so that other values of the host keep theirs if a step fails.

use super::builder::Command;
use super::error::{CommandError, SpawnError, SpawnStep, Subject};
use super::lifetime::Lifetime;
use super::spawner::Spawner;
use super::stdio::Kind;

impl Command {
    /// Replaces the host's process by the program (execve(2)), with all settings of the command. Returns only if that
    /// fails. The PID, the parent and the children stay.
    ///
    /// If a step fails, those before it have taken effect: the standard streams, the ids of the calling thread, signal
    /// handlers and others may have changed. The caller should report the error and exit. Descriptors that the program
    /// would not have are still open, but close-on-exec.
    ///
    /// Nothing of the host is dropped: buffers of files are not flushed, and the children of a
    /// [`Supervisor`](crate::Supervisor) become those of the program.
    ///
    /// Differences to a spawn:
    /// - [`Stdio::piped`](crate::Stdio::piped) and [`Command::lifetime`] are refused
    ///   ([`CommandError::Needs`]): nothing could hold the other end. A PID namespace is refused too: a process never
    ///   changes its own.
    /// - A process with other threads cannot enter a given mount namespace (`EINVAL` at [`SpawnStep::Namespace`]).
    /// - No new session is the default, also for another user: a process that leads its process group cannot have one
    ///   (`EPERM` at [`SpawnStep::Session`]).
    /// - [`Command::parent_death_signal`] concerns the parent of the host.
    ///
    /// ```no_run
    /// use pidherd::{Command, Resource};
    ///
    /// // A wrapper program, as chpst(8) and setpriv(1) are.
    /// let error = Command::new("/usr/bin/web").user("www-data").limit(Resource::OpenFiles, 4096, 4096).exec();
    /// eprintln!("{error}");
    /// std::process::exit(127);
    /// ```
    #[must_use = "it returns only if the program could not be executed"]
    pub fn exec(&self) -> SpawnError {
        let refused = |error| SpawnError::refused(self.program.clone(), error);
        if let Err(error) = self.check_exec() {
            return refused(error);
        }
        let mut command = self.clone();
        if command.settings.controlling_terminal.is_none() {
            command.setsid.get_or_insert(false);
        }
        let program = match command.compile() {
            Ok(program) => program,
            Err(error) => return refused(error),
        };
        match Spawner::set_up() {
            Ok(mut spawner) => spawner.execute(&program),
            Err(error) => {
                let (operation, object) = error.subject();
                let subject = Subject::Setup(operation, object);
                SpawnError::new(self.program.clone(), SpawnStep::Prepare, error.errno(), Some(subject))
            }
        }
    }

    /// Rejects what only a child can have.
    fn check_exec(&self) -> Result<(), CommandError> {
        let mut all = self.stdio.iter().chain(self.passed.iter().map(|passed| &passed.stdio));
        if all.any(|stdio| matches!(stdio.0, Kind::Piped(_))) {
            return Err(CommandError::Needs {
                what: "a pipe",
                needs: "a host that keeps the other end",
            });
        }
        if self.namespaces.has_pid() {
            return Err(CommandError::Needs {
                what: "a PID namespace",
                needs: "a child: a process never changes its own",
            });
        }
        if self.settings.lifetime != Lifetime::Detached {
            return Err(CommandError::Needs {
                what: "a bound lifetime",
                needs: "a host to be bound to",
            });
        }
        Ok(())
    }
}
