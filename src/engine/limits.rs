//! The limits of runs, which a reload changes in place where it can, and their usage.

use std::sync::Arc;

use super::core::Engine;
use super::event::Event;
use super::ids::{GroupId, InstanceId};
use super::instance::{Group, Instance};
use super::kernel::Kernel;
use super::run_command::RunCommand;
use super::spec::GroupSpec;
use crate::cgroup::{CgroupFile, CgroupUsage, changes};
use crate::group::Effect;

impl Instance {
    /// The files of the cgroup of its present run; `None` if it has no cgroup.
    fn limits_of_run<'a>(&'a self, group: &'a Group) -> Option<&'a [CgroupFile]> {
        self.run_cgroup.as_ref()?;
        // The run of another host has the limits of its group.
        Some(self.run_files.as_ref().unwrap_or(&group.cgroup_files))
    }
}

impl<K: Kernel> Engine<K> {
    /// The effect of a new description on the instance with this number.
    pub(super) fn effect(&self, group: &Group, spec: &GroupSpec, number: u32) -> Effect {
        let (old, new) = (group.commands.of(number), spec.commands.of(number));
        // A process gets the time of its watchdog when it is started, so a change needs a restart.
        let other_watchdog = spec.notify.socket && group.policy.watchdog != spec.policy.watchdog;
        if group.cgroup != spec.cgroup || group.notify != spec.notify || other_watchdog {
            return Effect::Restart;
        }
        let limits = self.effect_of_limits(group, spec, number);
        let command = if old == new {
            Effect::None
        } else if old.differs_only_in_environment(&new) {
            Effect::AtNextStart
        } else {
            Effect::Restart
        };
        // The commands around a run are looked up when they are to be run.
        let command_of = |around: &Option<RunCommand>| around.as_ref().map(|around| around.command.clone());
        let same_around = command_of(&group.before) == command_of(&spec.before);
        let same_around = same_around && command_of(&group.after) == command_of(&spec.after);
        let same_around = same_around && group.stop_commands == spec.stop_commands;
        let around = if same_around { Effect::None } else { Effect::AtNextStart };
        limits.max(command).max(around)
    }

    fn effect_of_limits(&self, group: &Group, spec: &GroupSpec, number: u32) -> Effect {
        let instance = group.roster.get(number).and_then(|id| self.instances.get(id));
        let present = instance.and_then(|instance| instance.limits_of_run(group));
        match changes(present.unwrap_or(&group.cgroup_files), &spec.limits.files()) {
            Some(changes) if changes.is_empty() => Effect::None,
            Some(_) => Effect::InPlace,
            // Only a new cgroup has the default.
            None => Effect::Restart,
        }
    }

    /// The resources that the present run of an instance has used; `None` if it has no process or no cgroup.
    pub(crate) fn usage(&self, id: InstanceId) -> Option<CgroupUsage> {
        self.instances.get(id)?.process?;
        self.kernel.usage(id.index())
    }

    /// Notes the limits that the runs of a group have, before it gets other ones.
    pub(super) fn keep_limits(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        for member in group.roster.iter() {
            if let Some(instance) = self
                .instances
                .get_mut(member)
                .filter(|instance| instance.run_cgroup.is_some())
            {
                instance
                    .extra_mut()
                    .run_files
                    .get_or_insert_with(|| Arc::clone(&group.cgroup_files));
            }
        }
    }

    /// Changes the limits of the present run of an instance to those of its next one. A child in flight shares the
    /// memory of this process, which the kernel would kill together with the child. So its limits are changed when it
    /// has executed its program.
    pub(super) fn update_limits(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        let is_in_flight = instance.life.state().is_in_flight();
        let Some(before) = instance.run_files.as_ref().filter(|_| !is_in_flight) else {
            return;
        };
        if Arc::ptr_eq(before, &instance.context.files) {
            return;
        }
        // If a default is not known, the instance is about to be restarted.
        let Some(changes) = changes(before, &instance.context.files) else {
            return;
        };
        let files = Arc::clone(&instance.context.files);
        instance.extra_mut().run_files = Some(files);
        for file in changes {
            if let Err(error) = self.kernel.change_limit(id.index(), &file) {
                self.events.push(Event::LimitFailed {
                    instance: instance.known_as(id),
                    group: instance.group,
                    name: instance.name.clone(),
                    file: file.name.to_string_lossy().into(),
                    errno: error.errno(),
                });
            }
        }
    }
}
