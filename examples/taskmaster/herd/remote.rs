//! The herd for remote calls: processes by name, their state as data, and groups that are added and removed one by one.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pidherd::exit::Exit;
use pidherd::lifecycle::{Failure, State, StateName};
use pidherd::{GroupId, InstanceId, Signal};

use super::model::{Herd, Member, Verb, empty_groups, with_priorities};
use super::reload::Changes;
use crate::config::{self, Channel, Config, Group};

/// What a name means, by supervisord's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// One process.
    Process(InstanceId),
    /// All processes of a group, in start order.
    Group(Vec<InstanceId>),
}

/// A process as data.
#[derive(Clone, Debug)]
pub struct Info {
    /// The group of the process.
    pub group: String,
    /// Its name in the group.
    pub name: String,
    /// Its state.
    pub state: StateName,
    /// When the last run began, in seconds since 1970. 0 if there was none.
    pub start: i64,
    /// When the last run ended, in seconds since 1970. 0 if none has ended.
    pub stop: i64,
    /// What `status` tells.
    pub description: String,
    /// Why it is in BACKOFF or FATAL. Otherwise empty.
    pub spawnerr: String,
    /// The last exit code; -1 after a signal.
    pub exitstatus: i64,
    /// The PID. 0 if there is no process.
    pub pid: u32,
    /// The log of standard output and of standard error.
    pub logs: [Option<PathBuf>; 2],
}

/// How far a start or a stop has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Waiting,
    /// It is done.
    Done,
    /// The program was not executed, because of this errno.
    NotExecuted(i32),
    /// The process has ended before it was RUNNING.
    Ended,
    /// The process was stopped before it was RUNNING.
    Stopped,
    /// The process survives SIGKILL.
    Unkillable,
    /// The process is no longer in the configuration.
    Gone,
}

/// Why a group cannot be added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such group.
    Unknown,
    /// The group is there already.
    Present,
    /// A process of the group is up.
    Running,
    /// Another program requires it.
    Required(String),
    /// It requires a program that is not there.
    Requires(String),
}

/// The groups that differ between the file and the herd.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// In the file alone.
    pub added: Vec<String>,
    /// In both, with other settings.
    pub changed: Vec<String>,
    /// In the herd alone.
    pub removed: Vec<String>,
}

impl Herd {
    /// What `group:process`, `group:*` or a single word names. `None` if there is nothing of this name.
    pub fn find(&self, text: &str) -> Option<Named> {
        let (group, process) = match text.split_once(':') {
            None => (text, Some(text)),
            Some((group, "" | "*")) => (group, None),
            Some((group, process)) => (group, Some(process)),
        };
        let Some(process) = process else {
            return self.group_ids(group).map(Named::Group);
        };
        let is_it = |member: &Member, number| member.program.group == group && member.name(number) == process;
        let places = self.places();
        let place = places
            .iter()
            .find(|place| is_it(&self.members[place.member], place.number))?;
        Some(Named::Process(place.id))
    }

    /// All processes of a group. `None` if there is no such group.
    pub fn group_ids(&self, group: &str) -> Option<Vec<InstanceId>> {
        let places = self.places();
        let of_it = places
            .iter()
            .filter(|place| self.members[place.member].program.group == group);
        let ids: Vec<InstanceId> = of_it.map(|place| place.id).collect();
        (!ids.is_empty() || self.empty.iter().any(|known| known == group)).then_some(ids)
    }

    /// All processes, in start order.
    pub fn all_ids(&self) -> Vec<InstanceId> {
        self.places().iter().map(|place| place.id).collect()
    }

    /// A process as data. `None` if it is gone.
    pub fn info(&self, id: InstanceId) -> Option<Info> {
        let status = self.supervisor.status(id)?;
        let member = self.members.iter().find(|member| member.id == status.group)?;
        let description = self.detail(&status, &member.program);
        let seconds = |time: Option<SystemTime>| {
            let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            since.map_or(0, |since| since.as_secs().try_into().unwrap_or(0))
        };
        let log = |channel| member.program.log(status.name.number, channel);
        Some(Info {
            group: member.program.group.clone(),
            name: member.name(status.name.number).to_owned(),
            state: status.state.name(),
            start: seconds(status.started_at),
            stop: seconds(status.ended_at),
            spawnerr: match status.state {
                State::Backoff { .. } | State::Fatal { .. } => description.clone(),
                _ => String::new(),
            },
            description,
            exitstatus: match status.last_exit.as_ref().map(|record| record.exit) {
                Some(Exit::Code(code)) => code.into(),
                Some(_) => -1,
                None => 0,
            },
            pid: status.pid.map_or(0, |pid| pid.as_raw()),
            logs: [log(Channel::Out), log(Channel::Err)],
        })
    }

    /// Asks one process to start, to stop or to take a signal.
    ///
    /// # Errors
    /// One line: nothing has changed.
    pub fn ask(&mut self, id: InstanceId, verb: Verb) -> Result<(), String> {
        let name = self.name_of(id).ok_or("the process is gone")?;
        self.start_rest();
        let group = self.supervisor.status(id).map(|status| status.group);
        let member = self.members.iter().find(|member| Some(member.id) == group);
        if matches!(verb, Verb::Start | Verb::Restart) && !member.is_some_and(Member::may_start) {
            return Err(format!("{name} is still being stopped for good"));
        }
        let answer = match verb {
            Verb::Start => self.supervisor.start(id),
            Verb::Stop => self.supervisor.stop(id),
            Verb::Restart => self.supervisor.restart(id),
            Verb::Signal(signal) => self.supervisor.signal(id, signal),
        };
        self.collect();
        answer.map(drop).map_err(|error| self.plainly(&error, &name))
    }

    /// Why the program of a process certainly cannot be executed: it does not exist (ENOENT), or is not executable
    /// (EACCES). supervisord checks this before a start on request.
    pub fn cannot_execute(&self, id: InstanceId) -> Option<i32> {
        let status = self.supervisor.status(id)?;
        let member = self.members.iter().find(|member| member.id == status.group)?;
        let instance = member.program.instance(status.name.number).ok()?;
        let name = Path::new(instance.argv.first()?);
        if name.components().count() > 1 || name.is_absolute() {
            let directory = instance.directory.unwrap_or_default();
            return not_executable(&directory.join(name));
        }
        let own = std::env::var_os("PATH");
        let others = instance.environment.iter().filter(|(key, _)| key == "PATH");
        let paths = others.map(|(_, path)| path.into()).chain(own);
        let directories: Vec<PathBuf> = paths
            .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
            .collect();
        let mut found = directories
            .iter()
            .map(|directory| not_executable(&directory.join(name)));
        let first = found.next()?;
        // One that can be executed is enough. EACCES has the larger number, and tells more.
        found.fold(first, |before, next| {
            before.zip(next).map(|(before, next)| before.max(next))
        })
    }

    /// How far the start of a process has come.
    pub fn start_progress(&self, id: InstanceId) -> Progress {
        let Some(status) = self.supervisor.status(id) else {
            return Progress::Gone;
        };
        match status.state {
            State::Running { .. } => Progress::Done,
            // It has ended as a process that was RUNNING.
            State::Exited { .. } => Progress::Done,
            State::Backoff { failure, .. } | State::Fatal { failure, .. } => match failure {
                Failure::Spawn { errno, .. } => Progress::NotExecuted(errno),
                _ if status.failed_starts == 0 => Progress::Done,
                _ => Progress::Ended,
            },
            State::Stopped if status.pending.is_none() => Progress::Stopped,
            State::Stopped
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Stopping(_)
            | State::CleaningUp { .. } => Progress::Waiting,
            // A state of a later version of the library.
            _ => Progress::Waiting,
        }
    }

    /// How far the stop of a process has come.
    pub fn stop_progress(&self, id: InstanceId) -> Progress {
        let Some(status) = self.supervisor.status(id) else {
            return Progress::Done;
        };
        match status.state {
            State::Stopped | State::Exited { .. } | State::Fatal { .. } => Progress::Done,
            _ if self.unkillable.contains(&id) => Progress::Unkillable,
            _ => Progress::Waiting,
        }
    }

    /// Sends a signal to one process.
    ///
    /// # Errors
    /// One line: the signal was not sent.
    pub fn ask_signal(&mut self, id: InstanceId, signal: Signal) -> Result<(), String> {
        self.ask(id, Verb::Signal(signal))
    }

    /// The identifier of the configuration.
    pub fn identifier(&self) -> &str {
        &self.own.automatic.identifier
    }

    /// Empties a log.
    ///
    /// # Errors
    /// The file cannot be removed or created.
    pub fn clear_log(&mut self, path: &Path) -> io::Result<()> {
        self.logs.clear(path)
    }

    /// The logs that were written since the last call.
    pub fn take_written(&mut self) -> BTreeSet<PathBuf> {
        self.logs.take_written()
    }

    /// Writes to the standard input of a process.
    ///
    /// # Errors
    /// It has no pipe there, it has closed it, or the pipe has no room for all of it.
    pub fn send_input(&mut self, id: InstanceId, bytes: &[u8]) -> io::Result<()> {
        self.logs.send(id, bytes)
    }

    /// The configuration that was read last.
    pub fn staged(&self) -> &Config {
        &self.staged
    }

    /// Takes a new configuration for later, and compares it with the herd.
    ///
    /// # Errors
    /// One line: the herd cannot go on with it.
    pub fn stage(&mut self, config: Config) -> Result<Differences, String> {
        self.check(&config)?;
        self.start_rest();
        let mut differences = Differences::default();
        let active = self.active_groups();
        for group in &config.groups {
            if !active.contains(&group.name) {
                differences.added.push(group.name.clone());
            } else if self.differs(group) {
                differences.changed.push(group.name.clone());
            }
        }
        let is_staged = |name: &String| config.groups.iter().any(|group| group.name == *name);
        differences.removed = active.into_iter().filter(|name| !is_staged(name)).collect();
        self.staged = config;
        Ok(differences)
    }

    /// Adds a group of the configuration that was read last, and starts its programs with `autostart`.
    ///
    /// # Errors
    /// The group is unknown or present.
    pub fn add_group(&mut self, name: &str) -> Result<(), Refused> {
        let staged = self.staged.clone();
        if !staged.groups.iter().any(|group| group.name == name) {
            return Err(Refused::Unknown);
        }
        if self.active_groups().iter().any(|active| active == name) {
            return Err(Refused::Present);
        }
        let programs = || {
            let all = with_priorities(&staged);
            all.filter(|(_, program)| program.group == name)
        };
        for (_, program) in programs() {
            let is_of_it = |name: &String| programs().any(|(_, other)| config::means(name, &other));
            if let Some(missing) = self.missing_requirement(&program).filter(|name| !is_of_it(name)) {
                return Err(Refused::Requires(missing));
            }
        }
        let groups = self.group_names();
        let mut changes = Changes::default();
        for (priority, program) in programs() {
            self.introduce(priority, program, &mut changes);
        }
        self.put_in_order();
        let empty = empty_groups(&staged);
        self.empty.extend(empty.into_iter().filter(|empty| empty == name));
        self.sort_as(&staged);
        self.update_pools(&groups);
        Ok(())
    }

    /// Removes a group without a living process.
    ///
    /// # Errors
    /// The group is unknown, or a process is up.
    pub fn remove_group(&mut self, name: &str) -> Result<(), Refused> {
        if self.active_groups().iter().all(|active| active != name) {
            return Err(Refused::Unknown);
        }
        let ids = self.group_ids(name).unwrap_or_default();
        if ids.into_iter().any(|id| self.stop_progress(id) != Progress::Done) {
            return Err(Refused::Running);
        }
        let is_of_it = |member: &Member| member.program.group == name && !member.leaving;
        let members = self.members.iter().filter(|member| is_of_it(member));
        let gone: Vec<GroupId> = members.map(|member| member.id).collect();
        if let Some(requiring) = self.requiring(&gone) {
            return Err(Refused::Required(requiring));
        }
        let groups = self.group_names();
        self.empty.retain(|empty| empty != name);
        let members = self.members.iter_mut();
        members
            .filter(|member| is_of_it(member))
            .for_each(|member| member.leaving = true);
        self.remove_all(&gone);
        self.update_pools(&groups);
        Ok(())
    }

    /// The names of the groups that are not being removed.
    pub(super) fn active_groups(&self) -> Vec<String> {
        let staying = self.members.iter().filter(|member| !member.leaving);
        let mut names: Vec<String> = staying.map(|member| member.program.group.clone()).collect();
        names.extend(self.empty.iter().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// Whether a group of the herd differs from its description in the file.
    fn differs(&self, group: &Group) -> bool {
        let programs: Vec<_> = group.programs.iter().filter(|program| program.numprocs > 0).collect();
        let is_of_it =
            |index: &usize| self.members[*index].program.group == group.name && !self.members[*index].leaving;
        let members: Vec<usize> = (0..self.members.len()).filter(is_of_it).collect();
        if members.len() != programs.len() {
            return true;
        }
        programs.into_iter().any(|program| {
            let found = members.iter().find(|&&index| self.members[index].is_same_as(program));
            found.is_none_or(|&index| !self.is_unchanged(index, (group.priority, program.priority), program))
        })
    }
}

/// Why a file cannot be executed.
fn not_executable(path: &Path) -> Option<i32> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(libc::ENOENT),
        // The spawn itself has a more precise error.
        Err(_) => None,
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => None,
        Ok(_) => Some(libc::EACCES),
    }
}
