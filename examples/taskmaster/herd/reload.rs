//! From one configuration to the next with as little disturbance as possible.
//!
//! What the new file no longer has is stopped and removed, what it has besides is added and started. A program that is
//! in both goes through the library's plan: a policy changes in place, an environment at the next start, and only a
//! changed command restarts a process. What did not change keeps its processes, and also the number of instances that
//! `scale` has given it.
//!
//! A program that is down is another matter. An instance that failed gets another chance with any change, since the
//! change may be what was wrong. `autostart` that is turned on starts what is down. What was stopped on request stays
//! down with any other change.

use std::sync::Arc;

use pidherd::lifecycle::State;
use pidherd::supervisor::Status;
use pidherd::{GroupId, GroupSpec, InstanceId};

use super::{Herd, Member, Terms, empty_groups, with_priorities};
use crate::config::{AutoRestart, Config, Program};
use crate::spec;

/// How much a reload did, in programs.
#[derive(Debug, Default)]
struct Changes {
    added: u32,
    removed: u32,
    changed: u32,
    unchanged: u32,
}

/// What a reload means for a program that is in both files.
struct Update {
    id: GroupId,
    priority: (i32, i32),
    program: Arc<Program>,
    spec: GroupSpec,
    target: u32,
}

/// Which instances of a changed program are started, if they are down.
struct Revival {
    /// Every instance.
    all: bool,
    /// Instances that have come to an end with a changed command, by number.
    restarts: Vec<u32>,
    /// Whether an instance is restarted whatever it ended with.
    always: bool,
    /// Whether the program starts by itself.
    autostart: bool,
    /// How many instances there are to be: those with higher numbers are on their way out.
    target: u32,
}

impl Herd {
    /// Makes the herd what `config` describes, and returns in one line what changed.
    ///
    /// # Errors
    /// One line: a program cannot be as described, and nothing was done.
    pub fn reload(&mut self, config: &Config) -> Result<String, String> {
        if self.is_closing() {
            return Err("shutting down: nothing is changed any more".to_owned());
        }
        self.own.check_reload(&config.supervisord)?;
        let terms = Terms {
            open_files: self.open_files,
            adopts_orphans: false,
        };
        // A herd of its own that never starts anything: whatever is wrong with a program comes up here.
        drop(Herd::new(config, terms).map_err(|error| format!("nothing is changed: {error}"))?);
        self.start_rest();
        let mut updates = Vec::new();
        let mut additions = Vec::new();
        for (priority, program) in with_priorities(config) {
            match self.members.iter().position(|member| member.is_same_as(&program)) {
                Some(index) => updates.push(self.check_update(index, priority, program)?),
                None => additions.push((priority, program)),
            }
        }
        let mut changes = Changes::default();
        for update in updates {
            self.update(update, &mut changes);
        }
        changes.removed = self.remove_missing(config);
        for (priority, program) in additions {
            self.introduce(priority, program, &mut changes);
        }
        self.sort_as(config);
        self.empty = empty_groups(config);
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

    /// Adds a program. All of it was checked, so an error is rare, and keeps no other program back.
    fn introduce(&mut self, priority: (i32, i32), program: Arc<Program>, changes: &mut Changes) {
        let namesake = |member: &&Member| {
            member.leaving && member.program.group == program.group && member.program.name == program.name
        };
        let after = self.members.iter().find(namesake).map(|member| member.id);
        let index = match self.add(priority, program) {
            Ok(index) => index,
            Err(error) => return self.note(format!("not added: {error}")),
        };
        changes.added += 1;
        let member = &mut self.members[index];
        member.after = after;
        if member.program.autostart && after.is_none() {
            self.to_start.push_back(member.id);
        }
    }

    /// What the new file means for a program that is there.
    fn check_update(&self, index: usize, priority: (i32, i32), program: Arc<Program>) -> Result<Update, String> {
        let member = &self.members[index];
        let old = &member.program;
        let current = self
            .supervisor
            .group(member.id)
            .map_or(old.numprocs, |group| group.target);
        let target = if old.numprocs == program.numprocs {
            current
        } else {
            program.numprocs
        };
        let spec = spec::group(&program, &member.alias, target, self.open_files);
        let plan = self.supervisor.plan(member.id, &spec);
        plan.map_err(|error| format!("nothing is changed: {}", self.plainly(&error, &program.name)))?;
        Ok(Update {
            id: member.id,
            priority,
            program,
            spec,
            target,
        })
    }

    /// Changes a program. All of it was checked, so an error is rare; the program then stays as it is.
    fn update(&mut self, update: Update, changes: &mut Changes) {
        let Update {
            id,
            priority,
            program,
            spec,
            target,
        } = update;
        let plan = match self.supervisor.reload(id, spec) {
            Ok(plan) => plan,
            Err(error) => {
                let line = self.plainly(&error, &program.name);
                return self.note(format!("not changed: {line}"));
            }
        };
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return;
        };
        let starts_now = program.autostart && !member.program.autostart;
        let same_terms = member.priority == priority && member.program.autostart == program.autostart;
        let revival = Revival {
            all: starts_now,
            restarts: plan.restarts().collect(),
            always: program.autorestart == AutoRestart::Always,
            autostart: program.autostart,
            target,
        };
        let may_start = member.may_start();
        member.priority = priority;
        member.program = program;
        member.rename(target);
        self.collect();
        if plan.is_empty() && same_terms {
            changes.unchanged += 1;
            return;
        }
        changes.changed += 1;
        if may_start {
            self.revive(id, &revival);
        }
    }

    fn revive(&mut self, group: GroupId, revival: &Revival) {
        if revival.all {
            // Also for instances that are added later.
            let started = self.supervisor.start(group);
            return self.take_in(started.map(drop), &self.called(group));
        }
        let instances = self
            .supervisor
            .group(group)
            .map(|group| group.instances)
            .unwrap_or_default();
        let is_revived = |id: &InstanceId| {
            let status = self.supervisor.status(*id);
            status.is_some_and(|status| revival.concerns(&status))
        };
        let revived: Vec<InstanceId> = instances.into_iter().filter(is_revived).collect();
        for id in revived {
            let started = self.supervisor.start(id);
            self.take_in(started.map(drop), &self.called(group));
        }
    }

    /// The programs that stay in the order of the new file, those that are being removed behind them.
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

impl Revival {
    fn concerns(&self, status: &Status) -> bool {
        let another_command = self.restarts.contains(&status.name.number);
        match status.state {
            _ if status.name.number >= self.target => false,
            // It was wanted up to the end, by `autostart` or by a command. With another command the library itself has
            // started it again.
            State::Fatal { .. } => !another_command,
            State::Exited { expected, .. } => self.autostart && (another_command || !expected || self.always),
            _ => false,
        }
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
