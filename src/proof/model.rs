//! The model of the host's requests, independent of the engine: the expected instances, whether each is wanted up, its
//! program, and what was observed of it.
//!
//! It contains what the commands promise, and nothing about their implementation: no states, no deadlines, no queue.
//! After each step the engine is compared with it.

use super::causes::Reasons;
use super::recipe::{Draft, Label, Recipe};
use crate::engine::error::Error;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::request::Request;
use crate::exit::{Exit, Pid};
use crate::group::{Effect, Rolling};
use crate::lifecycle::{Cause, Part, Policy, StateName, StopLadder, Wanted};
use crate::time::Instant;

/// The groups and instances that the host expects.
#[derive(Default)]
pub(super) struct Model {
    pub(super) groups: Vec<Group>,
    pub(super) instances: Vec<Instance>,
    /// Removed instances. Events about them may still be in the queue.
    pub(super) departed: Vec<Instance>,
    pub(super) closing: bool,
    /// The instances that the last command concerns because of others.
    pub(super) also: Concerned,
    /// The groups and numbers of instances that were added and removed in one step.
    pub(super) passing: Vec<(GroupId, u32)>,
    /// The ids of removed groups.
    pub(super) old_groups: Vec<GroupId>,
    pub(super) old_instances: Vec<InstanceId>,
    /// The commands of stops, the last one last.
    pub(super) commands: Vec<super::stop_commands::Known>,
    /// The siblings that are still to be told of an end.
    pub(super) untold: Vec<super::siblings::Untold>,
}

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) name: &'static str,
    pub(super) recipe: Recipe,
    pub(super) policy: Policy,
    /// The number of changes of the policy.
    pub(super) epoch: u32,
    pub(super) target: u32,
    /// The number of instances after the rolling restart; `None` without one.
    pub(super) after_roll: Option<u32>,
    pub(super) wanted: Wanted,
    pub(super) leaving: bool,
    /// The groups that it comes after, and those that it requires.
    pub(super) after: Vec<GroupId>,
    pub(super) requires: Vec<GroupId>,
    /// Whether a group that it required was removed in this step.
    pub(super) lost_a_group: bool,
    /// How many times it was stopped because of the end of an instance, and that was not reported yet.
    pub(super) stops: u32,
    /// Whether it was stopped because of the end of an instance in this step. Something may have been spawned before.
    pub(super) is_just_stopped: bool,
    /// Whether it was ever stopped because of the end of an instance. The stops may be served after another description.
    pub(super) was_stopped: bool,
    /// Whether siblings were still told of an end after another description. What concerned them was the strategy of before.
    pub(super) was_told_late: bool,
}

pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) group: GroupId,
    pub(super) number: u32,
    pub(super) wish: Wanted,
    /// Why it may be stopped.
    pub(super) reasons: Reasons,
    /// Every spawn, successful or not: of the command before a run, of its program, and of the command after it.
    pub(super) attempts: Vec<Attempt>,
    /// When its stop began, the epoch of the policy at that time, and the run.
    pub(super) stopping: Option<(Instant, u32, usize)>,
    /// The state after the last event; `None` after events were dropped.
    pub(super) reported: Option<StateName>,
    /// The run of the last event; `None` after events were dropped.
    pub(super) run: Option<u64>,
    /// The failed starts in a row, by the events; `None` after events were dropped.
    pub(super) failures: Option<u32>,
    pub(super) first_failure: u64,
    /// The crashes since the last request that a restart followed, by the events: when, and which run.
    pub(super) crashes: Vec<(Instant, u64)>,
    /// The restarts after crashes that an instance can still remember, by the events; `None` after events were dropped, and
    /// after a crash of the host.
    pub(super) remembered: Option<Vec<Instant>>,
    /// The run that was stable, and is over or being stopped.
    pub(super) stable_run: Option<u64>,
    /// When the last reported end was, and whether it was expected; `None` after events were dropped.
    pub(super) last_end: Option<(Instant, bool)>,
    /// The last run with a command after it that was reported as failed.
    pub(super) failed_command: Option<u64>,
    /// The run of the last transition to `CleaningUp`; `None` after events were dropped.
    pub(super) cleaned_up: Option<u64>,
    /// How the process ended, if it ended by itself.
    pub(super) last_exit: Option<Exit>,
    /// The number of runs that are over and that the supervisor does not remember, because its host was killed.
    pub(super) forgotten: usize,
    /// The names and the numbers of the descriptors that it has stored.
    pub(super) stored: Vec<(String, u64)>,
    /// The ladders that the host has given for the stop of a run, and the run. They are lost with the host.
    pub(super) own_ladders: Vec<(u64, StopLadder)>,
}

/// The progress of a spawn, by the reports to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spawn {
    /// It waits until fewer spawns are in flight.
    Waits,
    /// It was withdrawn before it began.
    Withdrawn,
    /// The process exists, and has not executed its program.
    InFlight,
    /// The program was executed.
    Executed,
    /// There is no process, or it could not execute its program.
    Failed,
}

/// One spawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// The number of its run, from 1 up.
    pub(super) run: u64,
    /// The part of the run that it is.
    pub(super) part: Part,
    pub(super) serial: u64,
    /// The pid; `None` if there was no process.
    pub(super) pid: Option<Pid>,
    pub(super) at: Instant,
    pub(super) spawn: Spawn,
    /// When its program was executed, which may not have been reported to the engine.
    pub(super) executed: Option<Instant>,
    /// The spawns of others that began while this one waited.
    pub(super) overtaken: u32,
    /// Whether the host reported that it is ready.
    pub(super) reported_ready_by_host: bool,
    /// The epoch of the policy at the time of the spawn.
    pub(super) epoch: u32,
    /// How it ended; `None` if it was not collected.
    pub(super) exit: Option<Exit>,
    /// Whether a signal of its stop was sent or tried before its end was known.
    pub(super) is_stopped: bool,
    /// Whether SIGKILL was sent or tried.
    pub(super) killed: bool,
    /// Whether its messages to the supervisor's socket are accepted.
    pub(super) may_notify: bool,
    /// How many descriptors it may store.
    pub(super) most_stored: u32,
    /// Whether it has sent a message that it is ready.
    pub(super) reported_ready: bool,
    /// How many signals to it were refused.
    pub(super) refused: u32,
    /// Whether its host was killed, so that another parent reaps it.
    pub(super) is_foreign: bool,
    /// Whether it has ended before the supervisor looked whether it had executed its program.
    pub(super) is_unseen: bool,
    /// Whether its program was started in the same run although this one, the command before it, was not executed: it is
    /// not described any more.
    pub(super) is_skipped: bool,
    /// Whether the error of its spawn was lost together with a host that was killed.
    pub(super) is_error_lost: bool,
}

impl Attempt {
    /// Whether this command around a run may have ended so. The state remembers the status that a killed host had learnt,
    /// which the next host does not learn again.
    pub(super) fn may_have_ended(&self, exit: Exit) -> bool {
        self.exit == Some(exit) || (self.is_foreign && self.exit == Some(Exit::Unknown))
    }

    /// The attempt of a part of a run without a process.
    pub(super) const fn waiting((run, part): (u64, Part), at: Instant, epoch: u32) -> Attempt {
        Attempt {
            run,
            part,
            serial: 0,
            pid: None,
            at,
            spawn: Spawn::Waits,
            executed: None,
            overtaken: 0,
            reported_ready_by_host: false,
            epoch,
            exit: None,
            is_stopped: false,
            killed: false,
            may_notify: false,
            most_stored: 0,
            reported_ready: false,
            refused: 0,
            is_foreign: false,
            is_unseen: false,
            is_skipped: false,
            is_error_lost: false,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.spawn == Spawn::Failed
    }
}

/// Why a command must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownGroup,
    UnknownInstance,
    Leaving,
    ShuttingDown,
    Spec,
    Rolling,
    Required,
    Other,
}

impl Refusal {
    pub(super) fn of(error: &Error) -> Refusal {
        match error {
            Error::UnknownGroup(_) => Refusal::UnknownGroup,
            Error::UnknownInstance(_) => Refusal::UnknownInstance,
            Error::Leaving(_) | Error::LeavingInstance(_) => Refusal::Leaving,
            Error::ShuttingDown => Refusal::ShuttingDown,
            Error::Spec(_) | Error::NoneUnavailable => Refusal::Spec,
            Error::Rolling(_) => Refusal::Rolling,
            Error::Required { .. } => Refusal::Required,
            Error::NotAlive(_)
            | Error::NoCgroup(_)
            | Error::Freeze { .. }
            | Error::CannotNotify(_)
            | Error::Alive(_)
            | Error::NotReleasable(_)
            | Error::Signal { .. }
            | Error::Io(_)
            | Error::StateFile(_)
            | Error::OtherProcess => Refusal::Other,
        }
    }
}

/// The instances that a command may change. Every other instance must stay unchanged.
pub(super) type Concerned = Vec<InstanceId>;

/// The expected plan of a reload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) policy: bool,
    pub(super) scale: Option<(u32, u32)>,
    pub(super) instances: Vec<(u32, Effect)>,
}

impl Model {
    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    pub(super) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.id == id)
    }

    pub(super) fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// Whether an instance is leaving because of its number.
    pub(super) fn leaves(&self, instance: &Instance) -> bool {
        self.group(instance.group)
            .is_none_or(|group| instance.number >= group.target)
    }

    fn members(&self, target: Target) -> Result<Vec<usize>, Refusal> {
        let all = 0..self.instances.len();
        match target {
            Target::All => Ok(all.collect()),
            Target::Group(id) => {
                self.group(id).ok_or(Refusal::UnknownGroup)?;
                Ok(all.filter(|&place| self.instances[place].group == id).collect())
            }
            Target::Instance(id) => {
                let place = self.instances.iter().position(|instance| instance.id == id);
                Ok(vec![place.ok_or(Refusal::UnknownInstance)?])
            }
        }
    }

    /// The instances that a signal goes to.
    pub(super) fn audience(&self, target: Target) -> Result<Concerned, Refusal> {
        let members = self.members(target)?;
        Ok(members.iter().map(|&place| self.instances[place].id).collect())
    }

    /// A request to be up or down. A leaving instance accepts no request to be up.
    pub(super) fn request(&mut self, target: Target, request: Request) -> Result<Concerned, Refusal> {
        let mut members = self.members(target)?;
        let up = request.wants_up();
        if up {
            self.check_open()?;
            if let Target::Group(id) = target {
                self.check_staying(id)?;
            }
            members.retain(|&place| !self.leaves(&self.instances[place]));
            if members.is_empty() && matches!(target, Target::Instance(_)) {
                return Err(Refusal::Leaving);
            }
        }
        let wish = if up { Wanted::Up } else { Wanted::Down };
        for group in &mut self.groups {
            let meant = match target {
                Target::All => true,
                Target::Group(id) => group.id == id,
                Target::Instance(_) => false,
            };
            if meant && !(up && group.leaving) {
                group.wanted = wish;
            }
        }
        if let (Target::Group(id), Request::Stop) = (target, request) {
            self.also = self.stop_requirers(id);
        }
        self.give_reason(&members, Cause::Requested);
        Ok(self.wish(&members, wish))
    }

    fn give_reason(&mut self, members: &[usize], reason: Cause) {
        for &place in members {
            self.instances[place].reasons.replace(reason);
        }
    }

    /// The stop of a group stops those that require it.
    fn stop_requirers(&mut self, id: GroupId) -> Concerned {
        let mut lost = vec![id];
        while let Some(group) = self
            .groups
            .iter()
            .find(|group| !lost.contains(&group.id) && group.requires.iter().any(|required| lost.contains(required)))
        {
            lost.push(group.id);
        }
        lost.remove(0);
        for group in self.groups.iter_mut().filter(|group| lost.contains(&group.id)) {
            group.wanted = Wanted::Down;
        }
        let places = 0..self.instances.len();
        let members: Vec<_> = places
            .filter(|&place| lost.contains(&self.instances[place].group))
            .collect();
        self.give_reason(&members, Cause::RequirementStopped);
        self.wish(&members, Wanted::Down)
    }

    fn wish(&mut self, members: &[usize], wish: Wanted) -> Concerned {
        for &place in members {
            self.instances[place].wish = wish;
        }
        members.iter().map(|&place| self.instances[place].id).collect()
    }

    pub(super) fn check_open(&self) -> Result<(), Refusal> {
        if self.closing {
            Err(Refusal::ShuttingDown)
        } else {
            Ok(())
        }
    }

    fn check_staying(&self, id: GroupId) -> Result<(), Refusal> {
        let group = self.group(id).ok_or(Refusal::UnknownGroup)?;
        if group.leaving { Err(Refusal::Leaving) } else { Ok(()) }
    }

    /// A group in a rolling restart keeps its size.
    fn check_size(&self, id: GroupId) -> Result<(), Refusal> {
        self.check_staying(id)?;
        let rolls = self.group(id).is_some_and(|group| group.after_roll.is_some());
        if rolls { Err(Refusal::Rolling) } else { Ok(()) }
    }

    /// Adds a group. `inhabited` is true if processes of other groups are in its cgroups.
    pub(super) fn add(&self, draft: &Draft, inhabited: bool) -> Result<(), Refusal> {
        self.check_open()?;
        self.check_draft(draft, None, inhabited)
    }

    /// Two groups cannot have one name, and a group that is being removed can have it where the cgroups differ.
    fn check_draft(&self, draft: &Draft, own: Option<GroupId>, inhabited: bool) -> Result<(), Refusal> {
        let others = || self.groups.iter().filter(|group| Some(group.id) != own);
        let place = |recipe: &Recipe, name| recipe.cgroup.map(|directory| (directory, name));
        let own_place = place(&draft.recipe, draft.name);
        let has_name = others().any(|group| group.name == draft.name && !group.leaving);
        let has_place = |group: &Group| place(&group.recipe, group.name) == own_place;
        let taken = has_name || own_place.is_some() && others().any(has_place);
        if draft.flawed || taken || inhabited || !self.is_possible_order(draft, own) {
            Err(Refusal::Spec)
        } else {
            Ok(())
        }
    }

    /// Whether the groups that a description names are there and stay, and none of them comes after this one.
    fn is_possible_order(&self, draft: &Draft, own: Option<GroupId>) -> bool {
        let mut before: Vec<_> = draft.after.iter().chain(&draft.requires).copied().collect();
        if !before
            .iter()
            .all(|&id| self.group(id).is_some_and(|group| !group.leaving))
        {
            return false;
        }
        let mut next = 0;
        while let Some(&id) = before.get(next) {
            next += 1;
            let group = self.group(id);
            let further = group
                .into_iter()
                .flat_map(|group| group.after.iter().chain(&group.requires));
            let further: Vec<_> = further.copied().filter(|id| !before.contains(id)).collect();
            before.extend(further);
        }
        own.is_none_or(|own| !before.contains(&own))
    }

    /// A group is gone, and so is every order with it.
    pub(super) fn forget_order(&mut self, gone: GroupId) {
        for group in &mut self.groups {
            group.lost_a_group |= group.requires.contains(&gone);
            group.after.retain(|&id| id != gone);
            group.requires.retain(|&id| id != gone);
        }
    }

    pub(super) fn scale(&mut self, id: GroupId, target: u32) -> Result<Concerned, Refusal> {
        self.check_open()?;
        self.check_size(id)?;
        Ok(self.resize(id, target))
    }

    pub(super) fn remove(&mut self, id: GroupId) -> Result<Concerned, Refusal> {
        let stays = !self.group(id).ok_or(Refusal::UnknownGroup)?.leaving;
        let mut others = self.groups.iter().filter(|group| !group.leaving);
        if stays && others.any(|group| group.requires.contains(&id)) {
            return Err(Refusal::Required);
        }
        self.leave_out(id)
    }

    /// Removes a group even if others require it.
    pub(super) fn leave_out(&mut self, id: GroupId) -> Result<Concerned, Refusal> {
        let group = self.group_mut(id).ok_or(Refusal::UnknownGroup)?;
        group.leaving = true;
        group.after_roll = None;
        group.wanted = Wanted::Down;
        Ok(self.resize(id, 0))
    }

    /// Changes the size: instances beyond the target leave, and a leaving instance below it stays after all.
    pub(super) fn resize(&mut self, id: GroupId, target: u32) -> Concerned {
        let Some(group) = self.group_mut(id) else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut group.target, target);
        let wanted = group.wanted;
        let with = |model: &Model, wanted: &dyn Fn(u32) -> bool| {
            let places = 0..model.instances.len();
            let is_meant = |&place: &usize| model.instances[place].group == id && wanted(model.instances[place].number);
            places.filter(is_meant).collect::<Vec<_>>()
        };
        let leaving = with(self, &|number| number >= target);
        for &place in &leaving {
            // The stop is not requested again of one that leaves already.
            self.instances[place].reasons.add(Cause::Requested);
        }
        let mut concerned = self.wish(&leaving, Wanted::Down);
        if wanted == Wanted::Up {
            let recalled = with(self, &|number| (before..target).contains(&number));
            concerned.extend(self.wish(&recalled, Wanted::Up));
        }
        concerned
    }

    pub(super) fn reload(
        &mut self,
        id: GroupId,
        draft: &Draft,
        inhabited: bool,
    ) -> Result<(Expected, Concerned), Refusal> {
        self.check_open()?;
        self.check_size(id)?;
        self.check_draft(draft, Some(id), inhabited)?;
        let expected = self.expect(id, draft).ok_or(Refusal::UnknownGroup)?;
        let group = self.group_mut(id).ok_or(Refusal::UnknownGroup)?;
        group.epoch += u32::from(group.policy != draft.policy);
        group.policy.clone_from(&draft.policy);
        group.recipe = draft.recipe;
        group.name = draft.name;
        (group.after, group.requires) = draft.edges();
        let mut concerned = self.resize(id, draft.instances);
        let restarted = |&(number, effect): &(u32, Effect)| (effect == Effect::Restart).then_some(number);
        let numbers: Vec<u32> = expected.instances.iter().filter_map(restarted).collect();
        let up = self.instances.iter().filter(|instance| {
            instance.group == id && instance.wish == Wanted::Up && numbers.contains(&instance.number)
        });
        concerned.extend(up.map(|instance| instance.id));
        Ok((expected, concerned))
    }

    /// Begins a rolling restart: additional instances are started for the time being, and the others are restarted.
    pub(super) fn roll(&mut self, id: GroupId, rolling: Rolling) -> Result<(), Refusal> {
        self.check_open()?;
        self.check_size(id)?;
        if rolling.max_unavailable == 0 {
            return Err(Refusal::Spec);
        }
        let target = self.group(id).map_or(0, |group| group.target);
        let staying = if target == 0 { 0 } else { target + rolling.surge };
        self.resize(id, staying);
        let extra = |instance: &&mut Instance| instance.group == id && instance.number >= target;
        for instance in self.instances.iter_mut().filter(extra) {
            instance.wish = if instance.number < staying {
                Wanted::Up
            } else {
                Wanted::Down
            };
        }
        if let Some(group) = self.group_mut(id) {
            group.after_roll = Some(target);
        }
        Ok(())
    }

    /// Ends a rolling restart: the additional instances leave.
    pub(super) fn rolled(&mut self, id: GroupId) {
        if let Some(target) = self.group_mut(id).and_then(|group| group.after_roll.take()) {
            self.resize(id, target);
        }
    }

    fn expect(&self, id: GroupId, draft: &Draft) -> Option<Expected> {
        let group = self.group(id)?;
        let (was, is) = (group.policy.watchdog, draft.policy.watchdog);
        let told_another = group.recipe.notify() != draft.recipe.notify() || (draft.recipe.socket && was != is);
        let effect = |number| {
            let (old, new) = (group.recipe.label("", number), draft.recipe.label("", number));
            let command = |label: Label| (label.version, label.number, label.leads, label.home, label.ready_fd);
            let around =
                |recipe: &Recipe| [recipe.before, recipe.after].map(|around| around.map(|around| around.version));
            if told_another || command(old) != command(new) {
                Some((number, Effect::Restart))
            } else if old != new
                || around(&group.recipe) != around(&draft.recipe)
                || group.recipe.stop_version != draft.recipe.stop_version
            {
                Some((number, Effect::AtNextStart))
            } else {
                None
            }
        };
        Some(Expected {
            policy: group.policy != draft.policy
                || group.name != draft.name
                || (group.after.clone(), group.requires.clone()) != draft.edges(),
            scale: (group.target != draft.instances).then_some((group.target, draft.instances)),
            instances: (0..group.target.min(draft.instances)).filter_map(effect).collect(),
        })
    }

    pub(super) fn shutdown(&mut self) -> Concerned {
        self.closing = true;
        self.groups.iter_mut().for_each(|group| group.wanted = Wanted::Down);
        let everyone: Vec<usize> = (0..self.instances.len()).collect();
        self.give_reason(&everyone, Cause::Requested);
        self.wish(&everyone, Wanted::Down)
    }

    /// Events were dropped, so the next event may follow any state.
    pub(super) fn lose_track(&mut self) {
        for instance in self.instances.iter_mut().chain(&mut self.departed) {
            instance.reported = None;
            instance.run = None;
            instance.failures = None;
            instance.cleaned_up = None;
            instance.crashes.clear();
            instance.remembered = None;
            (instance.last_end, instance.last_exit) = (None, None);
        }
        self.groups.iter_mut().for_each(|group| group.stops = 0);
    }
}

impl Instance {
    /// The number of runs.
    pub(super) fn runs(&self) -> u64 {
        self.attempts.last().map_or(0, |last| last.run)
    }

    /// The attempt of this part of a run.
    pub(super) fn attempt(&self, run: u64, part: Part) -> Option<&Attempt> {
        let of_it = |attempt: &&Attempt| (attempt.run, attempt.part) == (run, part);
        self.attempts.iter().rev().find(of_it)
    }

    /// The attempt of the program of a run, or of the command before it if the program was not tried.
    pub(super) fn start(&self, run: u64) -> Option<&Attempt> {
        self.attempt(run, Part::Program)
            .or_else(|| self.attempt(run, Part::Before))
    }

    /// The run and the part that a spawn of this part is of.
    pub(super) fn next(&self, part: Part) -> (u64, Part) {
        let last = self.attempts.last();
        let goes_on = match part {
            Part::After => true,
            Part::Program => last.is_some_and(|last| {
                let has_succeeded = last.may_have_ended(Exit::Code(0)) && !last.is_stopped;
                last.part == Part::Before && (has_succeeded || last.is_skipped)
            }),
            _ => false,
        };
        (self.runs() + u64::from(!goes_on), part)
    }

    pub(super) fn new(id: InstanceId, group: GroupId, number: u32, wish: Wanted) -> Instance {
        Instance {
            id,
            group,
            number,
            wish,
            reasons: Reasons::default(),
            attempts: Vec::new(),
            stopping: None,
            reported: Some(StateName::Stopped),
            run: Some(0),
            failures: Some(0),
            first_failure: 0,
            crashes: Vec::new(),
            remembered: Some(Vec::new()),
            stable_run: None,
            last_end: None,
            failed_command: None,
            cleaned_up: None,
            last_exit: None,
            forgotten: 0,
            stored: Vec::new(),
            own_ladders: Vec::new(),
        }
    }
}
