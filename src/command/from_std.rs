//! A command of the standard library as one of this crate.

use std::process;

use super::builder::Command;

/// Takes over what the standard library lets others see of its command: the program, the arguments, the variables that
/// are set and removed, and the working directory.
///
/// It does *not* show the rest, which keeps its default here and must be set again: the standard streams, `env_clear`,
/// and all of [`CommandExt`](std::os::unix::process::CommandExt) (`arg0`, `uid`, `gid`, `groups`, `process_group`,
/// `pre_exec`).
///
/// ```
/// use pidherd::{Command, Stdio};
///
/// let mut builder = std::process::Command::new("sh");
/// builder.args(["-c", r#"test "$COLOR" = red && test "$PWD" = /"#]).env("COLOR", "red").current_dir("/");
/// let command = Command::from(&builder).stdin(Stdio::null());
/// assert!(command.spawn()?.wait()?.exit.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<&process::Command> for Command {
    fn from(builder: &process::Command) -> Command {
        let mut command = Command::new(builder.get_program()).args(builder.get_args());
        for (key, value) in builder.get_envs() {
            command = match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        match builder.get_current_dir() {
            Some(directory) => command.current_dir(directory),
            None => command,
        }
    }
}
