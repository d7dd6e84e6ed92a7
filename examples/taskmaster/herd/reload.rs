//! From one configuration to the next with as little disturbance as possible.
//!
//! What the new file no longer has is stopped and removed, what it has besides is added and started.
//! A program that is in both goes through the library's plan: a policy changes in place, an
//! environment at the next start, and only a changed command restarts a process. What did not change
//! keeps its processes, and also the number of instances that `scale` has given it.

use std::sync::Arc;

use pidherd::lifecycle::StateName;
use pidherd::{GroupId, InstanceId};

use super::{Herd, Member, Terms, with_priorities};
use crate::config::{Config, Program};
use crate::spec;

/// How much a reload did, in programs.
#[derive(Debug, Default)]
struct Changes {
    added: u32,
    removed: u32,
    changed: u32,
    unchanged: u32,
}

impl Herd {
    /// Makes the herd what `config` says, and says in one line what changed.
    ///
    /// # Errors
    /// One line: a program cannot be as described, and nothing was done.
    pub fn reload(&mut self, config: &Config) -> Result<String, String> {
        if self.is_closing() {
            return Err("shutting down: nothing is changed any more".to_owned());
        }
        // A herd of its own that never starts anything: whatever is wrong with one comes up here.
        let terms = Terms {
            open_files: self.open_files,
            adopts_orphans: false,
        };
        drop(Herd::new(config, terms)?);
        self.start_rest();
        let programs: Vec<_> = with_priorities(config).collect();
        let mut changes = Changes {
            removed: self.remove_missing(config),
            ..Changes::default()
        };
        for (priority, program) in programs {
            match self.members.iter().position(|member| member.is_same_as(&program)) {
                Some(index) => self.update(index, priority, program, &mut changes)?,
                None => self.introduce(priority, program, &mut changes)?,
            }
        }
        self.sort_as(config);
        let Changes {
            added,
            removed,
            changed,
            unchanged,
        } = changes;
        Ok(format!(
            "{added} added, {removed} removed, {changed} changed, {unchanged} unchanged"
        ))
    }

    fn remove_missing(&mut self, config: &Config) -> u32 {
        let stays = |member: &Member| with_priorities(config).any(|(_, program)| member.is_same_as(&program));
        let gone: Vec<usize> = (0..self.members.len())
            .filter(|&index| !self.members[index].leaving && !stays(&self.members[index]))
            .collect();
        let ids: Vec<GroupId> = gone.iter().map(|&index| self.members[index].id).collect();
        for &index in &gone {
            self.members[index].leaving = true;
        }
        for &id in ids.iter().rev() {
            let removed = self.supervisor.remove(id);
            self.take_in(removed.map(drop), &self.called(id));
        }
        ids.len() as u32
    }

    fn introduce(&mut self, priority: (i32, i32), program: Arc<Program>, changes: &mut Changes) -> Result<(), String> {
        let namesake = |member: &&Member| {
            member.leaving && member.program.group == program.group && member.program.name == program.name
        };
        let after = self.members.iter().find(namesake).map(|member| member.id);
        let index = self.add(priority, program)?;
        changes.added += 1;
        let member = &mut self.members[index];
        member.after = after;
        if member.program.autostart && after.is_none() {
            self.to_start.push_back(member.id);
        }
        Ok(())
    }

    fn update(
        &mut self,
        index: usize,
        priority: (i32, i32),
        program: Arc<Program>,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let member = &self.members[index];
        let (id, old) = (member.id, Arc::clone(&member.program));
        let current = self.supervisor.group(id).map_or(old.numprocs, |group| group.target);
        let target = if old.numprocs == program.numprocs {
            current
        } else {
            program.numprocs
        };
        let autostart = program.autostart;
        let member = &mut self.members[index];
        let spec = spec::group(&program, &member.alias, target, self.open_files);
        member.priority = priority;
        member.program = program;
        member.rename(target);
        let plan = self.supervisor.reload(id, spec);
        self.collect();
        let plan = plan.map_err(|error| self.plainly(&error, &old.name))?;
        if plan.is_empty() {
            changes.unchanged += 1;
            return Ok(());
        }
        changes.changed += 1;
        if autostart {
            let numbers: Vec<u32> = plan.restarts().collect();
            self.revive(id, &numbers);
        }
        Ok(())
    }

    /// Gives those another chance that had come to an end with the old command.
    fn revive(&mut self, group: GroupId, numbers: &[u32]) {
        let instances = self
            .supervisor
            .group(group)
            .map(|group| group.instances)
            .unwrap_or_default();
        let ended = |id: &InstanceId| {
            let Some(status) = self.supervisor.status(*id) else {
                return false;
            };
            let ended = matches!(status.state.name(), StateName::Exited | StateName::Fatal);
            ended && numbers.contains(&status.name.number)
        };
        let ended: Vec<InstanceId> = instances.into_iter().filter(ended).collect();
        for id in ended {
            let started = self.supervisor.start(id);
            self.take_in(started.map(drop), &self.called(group));
        }
    }

    /// Those who stay in the order of the new file, those who leave behind them.
    fn sort_as(&mut self, config: &Config) {
        let order: Vec<_> = with_priorities(config).map(|(_, program)| program).collect();
        self.members.sort_by_key(|member| {
            order
                .iter()
                .position(|program| Arc::ptr_eq(program, &member.program))
                .unwrap_or(usize::MAX)
        });
    }
}

impl Member {
    /// Whether `program` is what this member is to become: the same name, and processes of the same
    /// names, since a process with another name is another process.
    fn is_same_as(&self, program: &Program) -> bool {
        let same_name = self.program.group == program.group && self.program.name == program.name;
        same_name && !self.leaving && self.program.process_name(0).ok() == program.process_name(0).ok()
    }
}
