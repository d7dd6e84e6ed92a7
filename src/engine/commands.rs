//! The commands of the host, for groups and instances.

use std::sync::Arc;

use super::arena::Place;
use super::core::Engine;
use super::error::{Error, SpecError};
use super::event::Name;
use super::history::History;
use super::ids::{GroupId, InstanceId, Target};
use super::instance::{Group, GroupPrograms, Instance};
use super::kernel::Kernel;
use super::request::{Outcome, Request};
use super::run_command::RunCommand;
use super::spec::{GroupSpec, check_count};
use super::status::{GroupStatus, Status};
use crate::command::Program;
use crate::group::{Effect, ReloadPlan};
use crate::lifecycle::{Cause, Input, Lifecycle, Part, Reply, StateName, Wanted};

impl<K: Kernel> Engine<K> {
    /// Checks whether a group with this description can be added.
    pub(crate) fn check_new(&self, spec: &GroupSpec) -> Result<(), Error> {
        self.check_open()?;
        spec.check()?;
        self.check_name(spec, None)?;
        self.resolve_order(&spec.order, None)?;
        Ok(self.check_cgroup(spec, None)?)
    }

    pub(crate) fn add(&mut self, spec: GroupSpec) -> Result<GroupId, Error> {
        self.check_new(&spec)?;
        let (shared, own) = self.programs(&spec, 0..spec.instances)?;
        let edges = self.resolve_order(&spec.order, None)?;
        let instances = spec.instances;
        let id = self.groups.insert(Group::new(spec, shared));
        self.enter_name(id);
        self.set_order(id, edges);
        self.create_instances(id, own);
        self.give_stop_commands(id);
        self.set_target(id, instances);
        self.must_save = true;
        Ok(id)
    }

    pub(crate) fn request(&mut self, target: Target, request: Request) -> Result<Outcome, Error> {
        let mut members = self.members(target)?;
        if request.wants_up() {
            self.check_open()?;
            self.check_staying(target)?;
            // A command for many instances skips a retiring one, which would stay beyond the target.
            members.retain(|&id| !self.is_retiring(id));
        }
        self.set_wanted(target, if request.wants_up() { Wanted::Up } else { Wanted::Down });
        let requirers = match request {
            Request::Stop => self.requirers(target),
            Request::Start | Request::Restart | Request::Kill => Vec::new(),
        };
        for &group in &requirers {
            self.set_wanted(Target::Group(group), Wanted::Down);
        }
        self.save_if_changed();
        if !requirers.is_empty() {
            self.stop_requirers(&requirers);
        }
        self.sort_in_order(&mut members, request);
        Ok(self.submit_all(&members, request))
    }

    /// Stops the instances of these groups, because a group that they require is stopped.
    fn stop_requirers(&mut self, groups: &[GroupId]) {
        let groups = groups.iter().filter_map(|&id| self.groups.get(id));
        let mut members: Vec<_> = groups.flat_map(|group| group.roster.iter()).collect();
        self.sort_in_order(&mut members, Request::Stop);
        self.submit_all_because(&members, Request::Stop, Some(Cause::RequirementStopped));
    }

    /// Handles an input about an instance that the host reports.
    pub(crate) fn report(&mut self, id: InstanceId, input: Input) -> Result<(), Error> {
        if self.instances.get(id).is_none() {
            return Err(Error::UnknownInstance(id));
        }
        match self.apply_input(id, input) {
            Reply::Ignored => Err(Error::NotAlive(id)),
            Reply::Accepted | Reply::Already | Reply::Queued => Ok(()),
        }
    }

    pub(crate) fn scale(&mut self, id: GroupId, target: u32) -> Result<Outcome, Error> {
        check_count(target)?;
        self.check_open()?;
        self.check_size(id)?;
        let group = self.group(id)?;
        let (_, own) = self.programs(&group.spec(target), group.roster.newcomers(target))?;
        Ok(self.exchange(id, target, own))
    }

    pub(crate) fn remove(&mut self, id: GroupId) -> Result<Outcome, Error> {
        if !self.group(id)?.leaving {
            self.check_not_required(id)?;
        }
        self.remove_unchecked(id)
    }

    /// Removes a group even if others require it.
    pub(super) fn remove_unchecked(&mut self, id: GroupId) -> Result<Outcome, Error> {
        self.leave_name(id);
        let group = self.groups.get_mut(id).ok_or(Error::UnknownGroup(id))?;
        group.leaving = true;
        group.roll = None;
        group.wanted = Wanted::Down;
        let outcome = self.scale_with(id, 0, Vec::new());
        self.remove_if_empty(id);
        Ok(outcome)
    }

    pub(crate) fn plan(&self, id: GroupId, spec: &GroupSpec) -> Result<ReloadPlan, Error> {
        self.check_open()?;
        self.check_size(id)?;
        spec.check()?;
        self.check_name(spec, Some(id))?;
        self.check_cgroup(spec, Some(id))?;
        let group = self.group(id)?;
        let from = group.roster.target();
        let edges = self.resolve_order(&spec.order, Some(id))?;
        let policy = group.policy != spec.policy_in_force() || group.name != spec.name || group.order.edges != edges;
        Ok(ReloadPlan::new(policy, from, spec.instances, |number| {
            self.effect(group, spec, number)
        }))
    }

    pub(crate) fn reload(&mut self, id: GroupId, spec: GroupSpec) -> Result<ReloadPlan, Error> {
        let plan = self.plan(id, &spec)?;
        let (shared, own) = self.programs(&spec, 0..spec.instances)?;
        let edges = self.resolve_order(&spec.order, Some(id))?;
        let target = spec.instances;
        self.keep_limits(id);
        self.leave_name(id);
        let group = self.groups.get_mut(id).ok_or(Error::UnknownGroup(id))?;
        let roster = std::mem::replace(&mut group.roster, crate::group::Roster::new());
        let (wanted, limits) = (group.wanted, (group.policy.watchdog, group.policy.run_timeout));
        let order = std::mem::take(&mut group.order);
        *group = Group {
            roster,
            wanted,
            order,
            ..Group::new(spec, shared)
        };
        self.enter_name(id);
        self.set_order(id, edges);
        self.rename(id);
        self.exchange(id, target, own);
        let policy = &self.group(id)?.policy;
        if (policy.watchdog, policy.run_timeout) != limits {
            self.limit_anew(id);
        }
        let with = |effect| -> Vec<_> {
            let roster = self.group(id).map(|group| &group.roster);
            let numbers = plan.with(effect);
            numbers.filter_map(|number| roster.as_ref().ok()?.get(number)).collect()
        };
        let (limited, restart) = (with(Effect::InPlace), with(Effect::Restart));
        for member in limited {
            self.update_limits(member);
        }
        self.submit_if_up_or_fatal(&restart, Request::Restart);
        Ok(plan)
    }

    pub(crate) fn shutdown(&mut self) -> Outcome {
        self.closing = true;
        self.events.announce_down_again();
        self.set_wanted(Target::All, Wanted::Down);
        let mut all: Vec<_> = self.ids().collect();
        self.sort_in_order(&mut all, Request::Stop);
        self.submit_all(&all, Request::Stop)
    }

    pub(crate) fn status(&self, id: InstanceId) -> Option<Status> {
        let instance = self.instances.get(id).filter(|instance| !instance.is_stop_command())?;
        let state = *instance.life.state();
        let history = &instance.history;
        let over = history.over();
        Some(Status {
            instance: id,
            group: instance.group,
            name: instance.name.clone(),
            state,
            wanted: instance.life.wanted(),
            pending: instance.pending,
            waits_for: self.waits_for(instance),
            pid: state.pid(),
            uptime: state
                .since()
                .map(|since| self.kernel.now().saturating_duration_since(since)),
            runs: instance.life.runs(),
            failed_starts: instance.life.failed_starts(),
            restarts: instance.life.restarts(),
            started_at: history.started_at(),
            ended_at: over.map(|(at, _)| at),
            lasted: over.map(|(_, lasted)| lasted),
            last_exit: history.last_exit(),
            last_error: history.last_error().cloned(),
            is_frozen: instance.is_frozen,
            status_text: instance.status_text.clone(),
        })
    }

    pub(crate) fn group_status(&self, id: GroupId) -> Option<GroupStatus> {
        let group = self.groups.get(id)?;
        Some(GroupStatus {
            group: id,
            name: Arc::clone(&group.name),
            target: group.roster.target(),
            wanted: group.wanted,
            instances: group.roster.iter().collect(),
            leaving: group.leaving,
            after: group.order.edges.after.clone(),
            requires: group.order.edges.requires.clone(),
        })
    }

    // Helpers of the commands.

    pub(crate) fn group(&self, id: GroupId) -> Result<&Group, Error> {
        self.groups.get(id).ok_or(Error::UnknownGroup(id))
    }

    pub(crate) const fn check_open(&self) -> Result<(), Error> {
        if self.closing { Err(Error::ShuttingDown) } else { Ok(()) }
    }

    pub(super) fn check_staying(&self, target: Target) -> Result<(), Error> {
        let id = match target {
            Target::All => return Ok(()),
            Target::Group(id) => id,
            Target::Instance(id) => self.instances.get(id).ok_or(Error::UnknownInstance(id))?.group,
        };
        match target {
            _ if self.group(id)?.leaving => Err(Error::Leaving(id)),
            Target::Instance(instance) if self.is_retiring(instance) => Err(Error::LeavingInstance(instance)),
            Target::All | Target::Group(_) | Target::Instance(_) => Ok(()),
        }
    }

    /// Whether an instance is leaving, because its group was scaled down or is being removed.
    pub(crate) fn is_retiring(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_none_or(|instance| {
            let group = self.groups.get(instance.group);
            group.is_none_or(|group| group.roster.leaves(instance.name.number))
        })
    }

    /// Checks that no other group uses the cgroups of this group's name in the same directory. A process stays in its
    /// cgroup when its group is renamed, so the cgroups of present processes are checked too.
    pub(super) fn check_cgroup(&self, spec: &GroupSpec, own: Option<GroupId>) -> Result<(), SpecError> {
        let Some(directory) = &spec.cgroup else { return Ok(()) };
        let is_other = |id: GroupId| Some(id) != own;
        let mut groups = self.groups.ids().filter(|&id| is_other(id));
        let mut instances = self.instances.ids().filter_map(|id| self.instances.get(id));
        let named = groups.any(|id| {
            let group = self.groups.get(id);
            group.is_some_and(|group| group.cgroup.as_ref() == Some(directory) && group.name == spec.name)
        });
        let in_use = instances.any(|instance| {
            // The next process of the run may get another one. The group may have another name since, which an instance
            // that leaves does not follow.
            let next = instance.context.cgroup.as_ref();
            let next = next.filter(|_| instance.life.state().name().is_alive());
            let mut paths = instance.run_cgroup.as_ref().into_iter().chain(next);
            is_other(instance.group) && paths.any(|path| path.dir == *directory && path.is_of(&spec.name))
        });
        match named || in_use {
            true => Err(SpecError::CgroupTaken(spec.name.to_string())),
            false => Ok(()),
        }
    }

    /// Changes the number of instances to one that was checked. The programs of the present instances stay.
    pub(super) fn resize(&mut self, id: GroupId, target: u32) {
        let Ok(group) = self.group(id) else { return };
        let missing: Vec<_> = (0..target)
            .filter(|&number| group.roster.get(number).is_none())
            .collect();
        // The description was compiled before, so a failure can only be one of memory. Then the group stays as it is.
        if let Ok((_, own)) = self.programs(&group.spec(target), missing) {
            self.scale_with(id, target, own);
        }
    }

    /// The instances that a command applies to, by number.
    pub(super) fn members(&self, target: Target) -> Result<Vec<InstanceId>, Error> {
        match target {
            Target::All => Ok(self.ids().collect()),
            Target::Group(id) => Ok(self.group(id)?.roster.iter().collect()),
            Target::Instance(id) => match self.instances.get(id) {
                Some(instance) if !instance.is_stop_command() => Ok(vec![id]),
                Some(_) | None => Err(Error::UnknownInstance(id)),
            },
        }
    }

    /// Sets whether instances that are added later are started. A request for a single instance does not change this.
    fn set_wanted(&mut self, target: Target, wanted: Wanted) {
        match target {
            Target::All => {
                for group in self.groups.values_mut() {
                    self.must_save |= group.wanted != wanted;
                    group.wanted = wanted;
                }
            }
            Target::Group(id) => {
                if let Some(group) = self.groups.get_mut(id) {
                    self.must_save |= group.wanted != wanted;
                    group.wanted = wanted;
                }
            }
            Target::Instance(_) => {}
        }
    }

    pub(crate) fn submit_all(&mut self, ids: &[InstanceId], request: Request) -> Outcome {
        self.submit_all_because(ids, request, None)
    }

    /// The same for a request that the host did not make itself.
    fn submit_all_because(&mut self, ids: &[InstanceId], request: Request, because: Option<Cause>) -> Outcome {
        // Messages from before a command are handled before it. A rolling restart may continue because of them.
        if ids.iter().any(|&id| self.may_notify(id)) {
            self.receive_queued_once();
        }
        if request.wants_up() {
            self.reserve_for_starts(ids);
        }
        let mut budget = K::SLICE;
        let mut outcome = Outcome::default();
        for &id in ids {
            outcome.count(self.submit_because(id, request, because, &mut budget));
        }
        outcome
    }

    /// Submits a request for the instances that are up, and for those that are wanted and in `Fatal`: a new command can
    /// be the remedy.
    fn submit_if_up_or_fatal(&mut self, ids: &[InstanceId], request: Request) {
        let is_wanted_in_fatal = |id| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| instance.life.state().name() == StateName::Fatal) && self.is_wanted(id)
        };
        let is_concerned = |&id: &InstanceId| self.is_up(id) || is_wanted_in_fatal(id);
        let concerned: Vec<_> = ids.iter().copied().filter(is_concerned).collect();
        self.submit_all(&concerned, request);
    }

    /// Whether an instance is alive or about to be, and no pending request will change that. While the command after a run
    /// runs, that run is over, and the next one begins with what the description is then.
    pub(crate) fn is_up(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_some_and(|instance| {
            let state = instance.life.state().name();
            (state.is_in_run() || state == StateName::Backoff) && self.is_wanted(id)
        })
    }

    /// Whether an instance is wanted up, by the last request.
    pub(crate) fn is_wanted(&self, id: InstanceId) -> bool {
        self.instances.get(id).is_some_and(|instance| {
            let wanted = instance.life.wanted() == Wanted::Up;
            instance.pending.map_or(wanted, Request::wants_up)
        })
    }

    pub(crate) fn scale_with(&mut self, id: GroupId, target: u32, missing: Vec<(u32, Option<Program>)>) -> Outcome {
        let Some(group) = self.groups.get(id) else {
            return Outcome::default();
        };
        let wanted = group.wanted;
        let scaling = group.roster.scaling(target);
        let made = self.create_instances(id, missing);
        self.give_stop_commands(id);
        self.set_target(id, target);
        self.save_before_starts();
        let mut outcome = self.submit_all(&scaling.leaving, Request::Stop);
        if wanted == Wanted::Up {
            let coming: Vec<_> = scaling.recalled.into_iter().chain(made).collect();
            outcome = outcome.and(self.submit_all(&coming, Request::Start));
        }
        outcome
    }

    /// Applies the limits of the current policy to every running instance.
    fn limit_anew(&mut self, id: GroupId) {
        let members: Vec<_> = self.group(id).map_or(Vec::new(), |group| group.roster.iter().collect());
        for member in members {
            self.apply_input(member, Input::PolicyChanged);
        }
    }

    /// Gives the instances the current name of their group.
    fn rename(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        for member in group.roster.iter() {
            if let Some(instance) = self.instances.get_mut(member) {
                instance.name.group = Arc::clone(&group.name);
            }
        }
    }

    /// Gives new programs to the present instances, and creates the missing ones.
    pub(crate) fn exchange(&mut self, id: GroupId, target: u32, own: Vec<(u32, Option<Program>)>) -> Outcome {
        let mut missing = Vec::new();
        for (number, program) in own {
            let Some(group) = self.groups.get(id) else { break };
            let present = group.roster.get(number);
            match present.and_then(|member| self.instances.get_mut(member)) {
                Some(instance) => {
                    instance.context = group.context(number);
                    instance.program = program;
                }
                None => missing.push((number, program)),
            }
        }
        self.scale_with(id, target, missing)
    }

    fn set_target(&mut self, id: GroupId, target: u32) {
        if let Some(group) = self.groups.get_mut(id) {
            group.roster.set_target(target);
            self.order_changed = true;
        }
    }

    fn create_instances(&mut self, id: GroupId, members: Vec<(u32, Option<Program>)>) -> Vec<InstanceId> {
        let mut made = Vec::new();
        let Some(group) = self.groups.get_mut(id) else {
            return made;
        };
        self.instances.reserve(members.len());
        group.roster.reserve(members.len());
        for (number, program) in members {
            self.seed = self.seed.wrapping_add(1);
            let name = Name {
                group: Arc::clone(&group.name),
                number,
            };
            let life = Lifecycle::without_room(self.seed);
            let context = group.context(number);
            let instance = Instance {
                program,
                context,
                ..Instance::new(id, name, life, History::new(self.kept_runs))
            };
            let instance = self.instances.insert(instance);
            group.roster.put(number, instance);
            made.push(instance);
        }
        let notify_pids = if group.notify.accepts() { made.len() } else { 0 };
        self.reserve(notify_pids);
        made
    }

    pub(crate) fn programs(
        &self,
        spec: &GroupSpec,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<Programs, SpecError> {
        let each = spec.has_one_each();
        let compile = |number| spec.compile(number, self.socket.as_deref(), self.mark.as_deref());
        let (before, after) = (spec.before.as_ref(), spec.after.as_ref());
        let around = |part, command: Option<&RunCommand>| {
            let program = command.map(|command| command.compile(part, &spec.policy, self.mark.as_deref()));
            program.transpose()
        };
        let shared = GroupPrograms {
            program: if each { None } else { Some(compile(0)?) },
            before: around(Part::Before, before)?,
            after: around(Part::After, after)?,
            stop: spec.stop_programs(self.mark.as_deref())?,
        };
        let own = |number| Ok((number, if each { Some(compile(number)?) } else { None }));
        Ok((shared, numbers.into_iter().map(own).collect::<Result<_, SpecError>>()?))
    }
}

/// Checks the cgroups of a group against those of groups that are not in an engine yet.
pub(super) fn check_cgroup_among(spec: &GroupSpec, groups: &[Place<Group>]) -> Result<(), SpecError> {
    let mut groups = groups.iter().filter_map(|place| place.value.as_ref());
    let has_it = |group: &Group| group.cgroup.is_some() && group.cgroup == spec.cgroup && group.name == spec.name;
    match groups.any(has_it) {
        true => Err(SpecError::CgroupTaken(spec.name.to_string())),
        false => Ok(()),
    }
}

/// The programs that all instances share, and those of these instances by number.
type Programs = (GroupPrograms, Vec<(u32, Option<Program>)>);
