//! The herd for the commands of the console: names, logs, the resources of runs, and changes of single groups.

use std::time::Duration;

use pidherd::InstanceId;
use pidherd::lifecycle::StateName;

use super::model::{Herd, Member};
use crate::config::{Channel, Config, Group};
use crate::names;
use crate::suggest::did_you_mean;
use crate::usage::{self, Usage};

/// A process of the configuration, for `avail`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// Its name as a user types it.
    pub name: String,
    /// Whether its group is there.
    pub in_use: bool,
    /// Whether it starts without a command.
    pub autostart: bool,
    /// The priorities of the group and of the program.
    pub priorities: (i32, i32),
}

/// The present run of a process, for `top`.
#[derive(Clone, Debug)]
pub struct Run {
    /// The instance.
    pub id: InstanceId,
    /// Its name as a user types it.
    pub name: String,
    /// Its state.
    pub state: StateName,
    /// Its PID. `None` if it is down.
    pub pid: Option<u32>,
    /// How long it has been up. `None` if it is down.
    pub uptime: Option<Duration>,
    /// The number of runs before this one.
    pub restarts: u64,
}

impl Herd {
    /// All names of processes and groups, in order.
    pub fn known_names(&self) -> Vec<String> {
        let places = self.places();
        let pairs = places.iter().map(|place| {
            let member = &self.members[place.member];
            (member.program.group.as_str(), member.name(place.number))
        });
        names::known(pairs, &self.empty)
    }

    /// The names of all groups that are there or in the configuration that was read last, in order.
    pub fn known_groups(&self) -> Vec<String> {
        let mut names = self.active_groups();
        names.extend(self.staged.groups.iter().map(|group| group.name.clone()));
        names.sort();
        names.dedup();
        names
    }

    /// The processes that `text` names, in start order.
    ///
    /// # Errors
    /// One line: `text` names no process.
    pub fn chosen(&self, text: &str) -> Result<Vec<InstanceId>, String> {
        Ok(self.select(text)?.iter().map(|place| place.id).collect())
    }

    /// The only process that `text` names.
    ///
    /// # Errors
    /// One line: `text` names no process or several.
    pub fn chosen_one(&self, text: &str) -> Result<InstanceId, String> {
        match self.chosen(text)?.as_slice() {
            [one] => Ok(*one),
            [] => Err(format!("{text} has no process")),
            several => Err(format!("{text} names {} processes: choose one of them", several.len())),
        }
    }

    /// Empties the logs of a process. Returns its name as a user types it.
    ///
    /// # Errors
    /// One line: the process is gone, or a file cannot be removed or created.
    pub fn clear_logs(&mut self, id: InstanceId) -> Result<String, String> {
        let info = self.info(id).ok_or("the process is gone")?;
        let name = names::shown(&info.group, &info.name);
        for path in info.logs.into_iter().flatten() {
            self.clear_log(&path).map_err(|error| {
                format!(
                    "{name}: cannot clear {}: {}",
                    path.display(),
                    crate::files::reason(error)
                )
            })?;
        }
        Ok(name)
    }

    /// The path of the log of one process.
    ///
    /// # Errors
    /// One line: the process is gone or has no log.
    pub fn log_of(&self, id: InstanceId, channel: Channel) -> Result<std::path::PathBuf, String> {
        let info = self.info(id).ok_or("the process is gone")?;
        let [out, err] = info.logs;
        let log = match channel {
            Channel::Out => out,
            Channel::Err => err,
        };
        let name = names::shown(&info.group, &info.name);
        log.ok_or_else(|| format!("{name} has no log of its {}", channel.name()))
    }

    /// The processes of the configuration that was read last, in the order of their names.
    pub fn available(&self) -> Vec<Available> {
        let mut all = Vec::new();
        for group in &self.staged.groups {
            let in_use = self.group_ids(&group.name).is_some();
            for program in &group.programs {
                let names = (0..program.numprocs).filter_map(|number| program.process_name(number).ok());
                all.extend(names.map(|name| Available {
                    name: names::shown(&group.name, &name),
                    in_use,
                    autostart: program.autostart,
                    priorities: (group.priority, program.priority),
                }));
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The runs of all processes, in start order.
    pub fn runs(&self) -> Vec<Run> {
        let run = |place: &super::select::Place| {
            let status = self.supervisor.status(place.id)?;
            let member = self.members.get(place.member)?;
            Some(Run {
                id: place.id,
                name: names::shown(&member.program.group, member.name(place.number)),
                state: status.state.name(),
                pid: status.pid.map(|pid| pid.as_raw()),
                uptime: status.pid.and(status.uptime),
                restarts: status.runs.saturating_sub(1),
            })
        };
        self.places().iter().filter_map(run).collect()
    }

    /// What a run has used: its whole cgroup if it has one, else its process alone.
    pub fn usage(&self, run: &Run) -> Usage {
        let process = || run.pid.map(usage::of_process).unwrap_or_default();
        let Some(cgroup) = self.supervisor.usage(run.id) else {
            return process();
        };
        match (cgroup.cpu, cgroup.memory_current) {
            (Some(cpu), Some(memory)) => Usage {
                cpu: Some(cpu),
                memory: Some(memory),
            },
            // Without its controller, a cgroup does not count memory.
            (cpu, memory) => {
                let process = process();
                Usage {
                    cpu: cpu.or(process.cpu),
                    memory: memory.or(process.memory),
                }
            }
        }
    }

    /// Applies the changes of the groups `names` in `config`, or all changes if there are no names. Returns each
    /// changed group with what became of it.
    ///
    /// # Errors
    /// One line: nothing is changed.
    pub fn update_groups(&mut self, config: &Config, names: &[String]) -> Result<Vec<(String, &'static str)>, String> {
        let is_chosen =
            |name: &String| names.is_empty() || names.contains(name) || names.iter().any(|name| name == "all");
        let active = self.active_groups();
        let known = || {
            active
                .iter()
                .cloned()
                .chain(config.groups.iter().map(|group| group.name.clone()))
        };
        if let Some(unknown) = names
            .iter()
            .find(|&name| name != "all" && known().all(|known| known != *name))
        {
            return Err(format!("no such group: {unknown}{}", did_you_mean(unknown, known())));
        }
        let differences = self.stage(config.clone())?;
        let with = |names: Vec<String>, what: &'static str| {
            let chosen = names.into_iter().filter(is_chosen);
            chosen.map(|name| (name, what)).collect::<Vec<_>>()
        };
        let mut changes = with(differences.removed, "removed process group");
        changes.extend(with(differences.changed, "updated process group"));
        changes.extend(with(differences.added, "added process group"));
        if changes.is_empty() {
            return Ok(changes);
        }
        let present = |name: &String| active.contains(name).then(|| self.present_group(name));
        let mut groups: Vec<Group> = Vec::new();
        for group in &config.groups {
            if is_chosen(&group.name) {
                groups.push(group.clone());
            } else {
                groups.extend(present(&group.name));
            }
        }
        let is_left = |name: &&String| !is_chosen(name) && config.groups.iter().all(|group| group.name != **name);
        groups.extend(active.iter().filter(is_left).filter_map(present));
        let merged = Config {
            groups,
            ..config.clone()
        };
        self.reload(&merged)?;
        self.staged = config.clone();
        Ok(changes)
    }

    /// A group as it is, whatever the file has become.
    fn present_group(&self, name: &str) -> Group {
        let staying = |member: &&Member| !member.leaving && member.program.group == name;
        let members: Vec<&Member> = self.members.iter().filter(staying).collect();
        Group {
            name: name.to_owned(),
            priority: members.first().map_or(0, |member| member.priority.0),
            programs: members.iter().map(|member| member.program.clone()).collect(),
        }
    }
}
