//! The commands before and after a run: their programs, and what their environment tells them.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::error::SpecError;
use super::event::Name;
use super::run::{End, Run};
use crate::command::{Command, Program};
use crate::exit::{Exit, Pid};
use crate::lifecycle::{CommandFailure, Ended, ExitSet, Part, Policy, RunEnd, Scope};

/// The environment variable with the mark of the host's state file. It proves that a process belongs to that host.
pub(crate) const MARK: &str = "PIDHERD_STATE";

/// The variables with the name of the group and the number of the instance.
pub(super) const GROUP_VARIABLE: &str = "PIDHERD_GROUP";
pub(super) const INSTANCE_VARIABLE: &str = "PIDHERD_INSTANCE";

/// The variable with the number of the process that a stop command stops.
const MAIN_VARIABLE: &str = "MAINPID";

/// A command before or after each run of a group.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RunCommand {
    pub(crate) command: Command,
    pub(crate) limit: Duration,
}

/// The variables that the environment of such a command tells something with. Those of the host are about the host.
const VARIABLES: [&str; 6] = [
    GROUP_VARIABLE,
    INSTANCE_VARIABLE,
    "SERVICE_RESULT",
    "EXIT_CODE",
    "EXIT_STATUS",
    MAIN_VARIABLE,
];

impl RunCommand {
    /// The program, checked against the policy of the group.
    pub(crate) fn compile(&self, part: Part, policy: &Policy, mark: Option<&OsStr>) -> Result<Program, SpecError> {
        let needs_group = policy.has_scope(Scope::ProcessGroup);
        compile_command(&self.command, part, needs_group, mark)
    }
}

/// The program of a command around a run or of a stop. With `needs_group` it must lead a process group.
pub(super) fn compile_command(
    command: &Command,
    part: Part,
    needs_group: bool,
    mark: Option<&OsStr>,
) -> Result<Program, SpecError> {
    let mut command = command.clone().or_own_process_group();
    for variable in VARIABLES {
        command = command.env_remove(variable);
    }
    if let Some(mark) = mark {
        command = command.env(MARK, mark);
    }
    let program = command
        .compile()
        .map_err(|error| SpecError::RunCommand { part, error })?;
    if program.has_pipes() {
        return Err(SpecError::RunCommandPiped { part });
    }
    if needs_group && !command.leads_process_group() {
        return Err(SpecError::RunCommandNoProcessGroup { part });
    }
    Ok(program)
}

/// What a command before or after a run is told.
pub(super) struct Told<'a> {
    pub(super) name: &'a Name,
    /// The process that a stop command stops.
    pub(super) main: Option<Pid>,
    /// How the run has ended; `None` for a command before a run.
    pub(super) ended: Option<Ended>,
    /// The last run that is remembered.
    pub(super) last: Option<&'a Run>,
    pub(super) expected: &'a ExitSet,
}

impl Told<'_> {
    /// The entries of the environment.
    pub(super) fn entries(&self) -> Vec<CString> {
        let mut entries = vec![
            entry(GROUP_VARIABLE, &self.name.group),
            entry(INSTANCE_VARIABLE, &self.name.number.to_string()),
        ];
        entries.extend(self.main.map(|main| entry(MAIN_VARIABLE, &main.to_string())));
        if let Some(ended) = self.ended {
            entries.push(entry("SERVICE_RESULT", self.result(ended)));
            entries.extend(exit_entries(ended.exit));
        }
        entries.into_iter().flatten().collect()
    }

    /// The word of systemd.exec(5) for an end, or another one for an end that systemd does not know.
    fn result(&self, ended: Ended) -> &'static str {
        // Only the history knows whether memory was short.
        let is_oom = self.last.is_some_and(|run| matches!(run.end, End::OutOfMemory(_)));
        match ended.end {
            RunEnd::KilledFromOutside(_) if is_oom => "oom-kill",
            RunEnd::Exited(_) | RunEnd::KilledFromOutside(_) if self.expected.contains(ended.exit) => "success",
            RunEnd::Stopped | RunEnd::Released => "success",
            RunEnd::Exited(_) | RunEnd::BeforeFailed(CommandFailure::Ended(Exit::Code(_))) => "exit-code",
            RunEnd::Crashed { core: true, .. } => "core-dump",
            RunEnd::Crashed { core: false, .. } | RunEnd::KilledFromOutside(_) => "signal",
            RunEnd::BeforeFailed(CommandFailure::Ended(Exit::Signal { .. })) => "signal",
            RunEnd::StopTimeout | RunEnd::StartTimeout | RunEnd::TimedOut => "timeout",
            RunEnd::BeforeFailed(CommandFailure::TimedOut) => "timeout",
            RunEnd::NotReady => "protocol",
            RunEnd::Watchdog => "watchdog",
            RunEnd::Unhealthy => "unhealthy",
            RunEnd::NotSpawned | RunEnd::BeforeFailed(CommandFailure::Spawn { .. }) => "resources",
            RunEnd::Unknown | RunEnd::BeforeFailed(CommandFailure::Ended(Exit::Unknown)) => "unknown",
        }
    }
}

/// `EXIT_CODE` and `EXIT_STATUS`; nothing for an exit status that is not known.
fn exit_entries(exit: Exit) -> Vec<Option<CString>> {
    let (code, status) = match exit {
        Exit::Code(code) => ("exited", code.to_string()),
        Exit::Signal { signal, core } => {
            let name = signal.to_string();
            let name = name.strip_prefix("SIG").unwrap_or(&name).to_owned();
            (if core { "dumped" } else { "killed" }, name)
        }
        Exit::Unknown => return Vec::new(),
    };
    vec![entry("EXIT_CODE", code), entry("EXIT_STATUS", &status)]
}

/// An entry of an environment. `None` if the value contains a NUL, which no environment can.
fn entry(key: &str, value: &str) -> Option<CString> {
    let mut text = OsString::from(key);
    text.push("=");
    text.push(value);
    CString::new(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::cgroup::OomLimit;
    use crate::signal::Signal;

    fn told(end: RunEnd, exit: Exit) -> Vec<String> {
        told_after(end, exit, None)
    }

    /// What a command is told if the history has noted this about the run.
    fn told_after(end: RunEnd, exit: Exit, noted: Option<End>) -> Vec<String> {
        let last = noted.map(|end| Run {
            number: 1,
            pid: None,
            started_at: SystemTime::UNIX_EPOCH,
            ended_at: SystemTime::UNIX_EPOCH,
            lasted: Duration::ZERO,
            exit: None,
            cgroup: None,
            end,
        });
        let name = Name {
            group: "web".into(),
            number: 3,
        };
        let ended = Ended {
            end,
            exit,
            failed: None,
            uptime: Duration::ZERO,
            executed: true,
        };
        let told = Told {
            name: &name,
            main: None,
            ended: Some(ended),
            last: last.as_ref(),
            expected: &ExitSet::SUCCESS.code(3),
        };
        let entries = told.entries().into_iter();
        entries.map(|entry| entry.into_string().unwrap()).collect()
    }

    #[test]
    fn only_a_kill_from_outside_that_the_history_explains_is_a_lack_of_memory() {
        let killed = |noted| {
            let signal = Signal::KILL;
            told_after(
                RunEnd::KilledFromOutside(signal),
                Exit::Signal { signal, core: false },
                Some(noted),
            )
        };
        let is_oom = |entries: Vec<String>| entries.contains(&"SERVICE_RESULT=oom-kill".to_owned());
        assert!(is_oom(killed(End::OutOfMemory(OomLimit::Own))));
        assert!(!is_oom(killed(End::MaybeOutOfMemory(OomLimit::Own))));
        assert!(!is_oom(killed(End::KilledFromOutside(Signal::KILL))));
        let own_end = told_after(RunEnd::Exited(1), Exit::Code(1), Some(End::OutOfMemory(OomLimit::Own)));
        assert!(!is_oom(own_end));
    }

    #[test]
    fn the_command_after_a_run_is_told_how_it_has_ended() {
        let killed = |signal| Exit::Signal { signal, core: false };
        let dumped = Exit::Signal {
            signal: Signal::ABRT,
            core: true,
        };
        let crashed = RunEnd::Crashed {
            signal: Signal::ABRT,
            core: true,
        };
        let before = |failure| RunEnd::BeforeFailed(failure);
        for (end, exit, expected) in [
            (RunEnd::Exited(0), Exit::Code(0), "success exited 0"),
            (RunEnd::Exited(3), Exit::Code(3), "success exited 3"),
            (RunEnd::Exited(4), Exit::Code(4), "exit-code exited 4"),
            (crashed, dumped, "core-dump dumped ABRT"),
            (
                RunEnd::KilledFromOutside(Signal::USR1),
                killed(Signal::USR1),
                "signal killed USR1",
            ),
            (RunEnd::Stopped, killed(Signal::TERM), "success killed TERM"),
            (RunEnd::StopTimeout, killed(Signal::KILL), "timeout killed KILL"),
            (RunEnd::Watchdog, killed(Signal::KILL), "watchdog killed KILL"),
            (RunEnd::NotSpawned, Exit::Unknown, "resources"),
            (
                before(CommandFailure::Ended(Exit::Code(7))),
                Exit::Code(7),
                "exit-code exited 7",
            ),
            (
                before(CommandFailure::TimedOut),
                killed(Signal::TERM),
                "timeout killed TERM",
            ),
        ] {
            let entries = told(end, exit);
            assert_eq!(entries[..2], ["PIDHERD_GROUP=web", "PIDHERD_INSTANCE=3"]);
            let values: Vec<_> = entries[2..].iter().filter_map(|entry| entry.split_once('=')).collect();
            let keys: Vec<_> = values.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys, ["SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"][..keys.len()]);
            let values: Vec<_> = values.iter().map(|(_, value)| *value).collect();
            assert_eq!(values.join(" "), expected, "{end:?}");
        }
    }
}
