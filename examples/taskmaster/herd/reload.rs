//! Changes the herd from one configuration to the next with as little disturbance as possible.
//!
//! A program that only the old file has is stopped and removed. A program that only the new file has is added and
//! started. A program in both files goes through the library's reload plan: a policy changes in place, an environment
//! changes at the next start, and only a changed command restarts a process. An unchanged program keeps its
//! processes, and also the number of instances that `scale` set.
//!
//! Different rules apply to a process that is down. A failed instance is started again after any change, because the
//! change may remove the cause of the failure. If the change turns `autostart` on, each process that is down is
//! started. A process that was stopped by a command stays down after any other change.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pidherd::lifecycle::State;
use pidherd::supervisor::Status;
use pidherd::{GroupId, GroupSpec, InstanceId};

use super::model::{Herd, Member, Terms, empty_groups, socket, with_priorities};
use crate::config::{AutoRestart, Config, Program};
use crate::spec;

/// The number of programs that a reload added, removed, changed, or left unchanged.
#[derive(Debug, Default)]
pub(super) struct Changes {
    added: u32,
    removed: u32,
    changed: u32,
    unchanged: u32,
}

/// The change that a reload makes to a program in both files.
struct Update {
    id: GroupId,
    priority: (i32, i32),
    program: Arc<Program>,
    spec: GroupSpec,
    target: u32,
    socket: Option<Arc<OwnedFd>>,
}

/// The rule for which instances of a changed program are started if they are down.
struct Revival {
    /// Whether every instance is started.
    all: bool,
    /// The numbers of the ended instances with a changed command.
    restarts: Vec<u32>,
    /// Whether an instance is restarted after every exit.
    always: bool,
    /// Whether the program has `autostart`.
    autostart: bool,
    /// The new number of instances. Instances with higher numbers are being removed.
    target: u32,
}

impl Herd {
    /// Changes the herd to what `config` describes, and returns the number of changes in one line.
    ///
    /// # Errors
    /// One line: the library refuses a program, and nothing was changed.
    pub fn reload(&mut self, config: &Config) -> Result<String, String> {
        if self.is_closing() {
            return Err("shutting down: no reload is accepted".to_owned());
        }
        self.check(config)?;
        self.start_rest();
        let mut updates = Vec::new();
        let mut additions = Vec::new();
        for (priority, program) in with_priorities(config) {
            match self.members.iter().position(|member| member.is_same_as(&program)) {
                Some(index) => updates.push(self.check_update(index, priority, program)?),
                None => additions.push((priority, program)),
            }
        }
        let groups = self.group_names();
        let mut changes = Changes::default();
        for update in updates {
            self.update(update, &mut changes);
        }
        let missing = self.leave_missing(config);
        for (priority, program) in additions {
            self.introduce(priority, program, &mut changes);
        }
        // A group that others require cannot be removed, and a new group may be one that others require.
        self.put_in_order();
        changes.removed = self.remove_all(&missing);
        self.sort_as(config);
        self.redirect_output();
        self.empty = empty_groups(config);
        self.staged = config.clone();
        self.update_pools(&groups);
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

    /// Checks whether the taskmaster can go on with `config`.
    ///
    /// # Errors
    /// One line: the library refuses a program, or a setting has changed that only a restart can change.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        self.own.check_reload(&config.supervisord)?;
        let terms = Terms {
            shared: self.shared,
            adopts_orphans: false,
        };
        // Building a second herd, which starts nothing, reveals every error in the programs.
        drop(Herd::new(config, terms).map_err(|error| format!("nothing is changed: {error}"))?);
        Ok(())
    }

    /// Marks the programs that `config` does not have. Returns their groups, in start order.
    fn leave_missing(&mut self, config: &Config) -> Vec<GroupId> {
        let stays = |member: &Member| with_priorities(config).any(|(_, program)| member.is_same_as(&program));
        let mut gone = Vec::new();
        for member in &mut self.members {
            if !member.leaving && !stays(member) {
                member.leaving = true;
                gone.push(member.id);
            }
        }
        gone
    }

    /// Stops and removes groups, the last one first.
    pub(super) fn remove_all(&mut self, ids: &[GroupId]) -> u32 {
        for &id in ids.iter().rev() {
            let removed = self.supervisor.remove(id);
            self.take_in(removed.map(drop), &self.called(id));
        }
        ids.len() as u32
    }

    /// Adds a program. All values were checked before, so an error is rare. It does not affect other programs.
    pub(super) fn introduce(&mut self, priority: (i32, i32), program: Arc<Program>, changes: &mut Changes) {
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

    /// Prepares the change of a program that is in both files.
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
        let socket = socket(&program).map_err(|error| format!("nothing is changed: {error}"))?;
        let spec = spec::group(&program, &member.alias, target, self.shared);
        // The order changes later, when all programs are there.
        let spec = self.present_places(member.id).of(spec);
        let plan = self.supervisor.plan_reload(member.id, &spec);
        plan.map_err(|error| format!("nothing is changed: {}", self.plainly(&error, &program.name)))?;
        Ok(Update {
            id: member.id,
            priority,
            program,
            spec,
            target,
            socket,
        })
    }

    /// Whether a reload would change nothing of a program.
    pub(super) fn is_unchanged(&self, index: usize, priority: (i32, i32), program: &Arc<Program>) -> bool {
        let member = &self.members[index];
        let same_terms = member.has_same_terms(priority, program) && member.program.numprocs == program.numprocs;
        let update = self.check_update(index, priority, Arc::clone(program));
        let plan = update.and_then(|update| {
            let plan = self.supervisor.plan_reload(update.id, &update.spec);
            plan.map_err(|error| error.to_string())
        });
        same_terms && plan.is_ok_and(|plan| plan.is_empty())
    }

    /// Changes a program. All values were checked before, so an error is rare. After an error the program stays as it
    /// is.
    fn update(&mut self, update: Update, changes: &mut Changes) {
        let Update {
            id,
            priority,
            program,
            spec,
            target,
            socket,
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
        let same_terms = member.has_same_terms(priority, &program);
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
        member.socket = socket;
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
            // The start of the group also applies to instances that are added later.
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

    /// Sorts the programs into the order of the new file. Programs that are being removed come last.
    pub(super) fn sort_as(&mut self, config: &Config) {
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
            // A fatal instance was wanted until it failed. If its command changed, the library itself has started it
            // again.
            State::Fatal { .. } => !another_command,
            State::Exited { expected, .. } => self.autostart && (another_command || !expected || self.always),
            _ => false,
        }
    }
}

impl Member {
    /// Whether `program` is the new version of this member. Both have the same name and the same process names,
    /// because a process with another name is another process.
    pub(super) fn is_same_as(&self, program: &Program) -> bool {
        let same_name = self.program.group == program.group && self.program.name == program.name;
        same_name && !self.leaving && self.program.process_name(0).ok() == program.process_name(0).ok()
    }

    /// Whether `program` has the same settings that the library does not know.
    fn has_same_terms(&self, priority: (i32, i32), program: &Program) -> bool {
        let (old, new) = (&self.program.beyond, &program.beyond);
        self.priority == priority
            && self.program.autostart == program.autostart
            && old.order == new.order
            && old.rules.rolling == new.rules.rolling
            && self.program.has_same_logs(program)
    }
}
