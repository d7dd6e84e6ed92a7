//! What a recovery must find: of each fact either the one from before the step in which the host was killed, or the one
//! that the step was to make. If the host was killed between two steps, both are the same.

use super::crash::record_of;
use super::host::{Broken, Host};
use super::model::{Attempt, Group, Instance, Model, Spawn};
use super::oracle::ensure;
use super::reexec::moved;
use super::siblings;
use super::state_file::Holder;
use super::world::World;
use crate::engine::core::Engine;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::image::{GroupImage, Image};
use crate::engine::instance::Instance as Supervised;
use crate::engine::recovery::{Candidate, LeftBehind};
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{Part, Policy, Remaining, State, Wanted};
use crate::time::Instant;

use super::kernel::SimKernel;
use super::recipe::Recipe;

/// A group before the step.
struct KnownGroup {
    id: GroupId,
    name: &'static str,
    recipe: Recipe,
    policy: Policy,
    epoch: u32,
    sizes: [Option<u32>; 2],
    wanted: Wanted,
    leaving: bool,
    after: Vec<GroupId>,
    requires: Vec<GroupId>,
}

/// The model before the step.
pub(super) struct Known {
    groups: Vec<KnownGroup>,
    instances: Vec<(InstanceId, Wanted)>,
    /// The records of a host that was killed between two steps.
    records: Vec<(InstanceId, Vec<u8>)>,
    /// The processes that were not children of the killed host.
    foreign: Vec<u64>,
    /// When the last call of the killed host began.
    woken: Instant,
    /// The group that the next host does not describe.
    pub(super) left_out: Option<GroupId>,
    /// The groups that required another one before the step, or were to require one.
    requirers: Vec<GroupId>,
}

impl Known {
    pub(super) fn of(host: &Host) -> Known {
        let group = |group: &Group| KnownGroup {
            id: group.id,
            name: group.name,
            recipe: group.recipe,
            policy: group.policy.clone(),
            epoch: group.epoch,
            sizes: [Some(group.target), group.after_roll],
            wanted: group.wanted,
            leaving: group.leaving,
            after: group.after.clone(),
            requires: group.requires.clone(),
        };
        Known {
            groups: host.model.groups.iter().map(group).collect(),
            instances: host
                .model
                .instances
                .iter()
                .map(|known| (known.id, known.wish))
                .collect(),
            records: Vec::new(),
            foreign: Vec::new(),
            woken: host.woken,
            left_out: None,
            requirers: Vec::new(),
        }
    }

    /// Between two steps, the state file has everything.
    pub(super) fn note_records(&mut self, driver: &Engine<SimKernel>) {
        let records = driver.ids().filter_map(|id| Some((id, record_of(driver, id)?)));
        self.records = records.collect();
    }

    pub(super) fn note_foreign(&mut self, world: &World) {
        let foreign = world.processes.iter().filter(|process| process.is_foreign);
        self.foreign = foreign.map(|process| process.serial).collect();
    }

    pub(super) fn move_ids(&mut self, home: u32) {
        for group in &mut self.groups {
            group.id = moved(&group.id, home);
            for other in group.after.iter_mut().chain(&mut group.requires) {
                *other = moved(other, home);
            }
        }
        for (id, _) in &mut self.instances {
            *id = moved(id, home);
        }
        for (id, _) in &mut self.records {
            *id = moved(id, home);
        }
    }

    /// Compares the groups that were left with the model, which follows what the state file has.
    pub(super) fn compare_groups(&mut self, model: &mut Model, image: &Image) -> Result<(), Broken> {
        let there = |id: GroupId| {
            let place = image.groups.get(id.index() as usize)?;
            place.value.as_ref().filter(|_| place.is(id))
        };
        let groups = std::mem::take(&mut model.groups);
        let mut gone = Vec::new();
        for mut group in groups {
            let before = self.groups.iter().find(|known| known.id == group.id);
            let Some(left) = there(group.id) else {
                let may_be_gone = group.leaving || before.is_none_or(|before| before.leaving);
                ensure(may_be_gone, || format!("group {:?} is lost", group.id))?;
                gone.push(group.id);
                continue;
            };
            let required = before.map_or(&[][..], |before| &before.requires);
            if !(required.is_empty() && group.requires.is_empty()) {
                self.requirers.push(group.id);
            }
            one_group(&mut group, before, left, |id| there(id).is_some())
                .map_err(|broken| format!("group {:?} after the recovery: {broken}", group.id))?;
            model.groups.push(group);
        }
        gone.into_iter().for_each(|id| model.forget_order(id));
        let count = image.groups.iter().filter(|place| place.value.is_some()).count();
        ensure(count == model.groups.len(), || {
            format!("{count} groups were left, and {} are known", model.groups.len())
        })
    }

    /// Compares the restored instances with the model, which follows them.
    pub(super) fn compare_instances(&self, host: &mut Host, left: &LeftBehind<Holder>) -> Result<(), Broken> {
        enlist_the_passing(host);
        // Their events are lost with the host.
        host.model.lose_track();
        let mut instances = Vec::new();
        for mut known in std::mem::take(&mut host.model.instances) {
            let before = self.instances.iter().find(|(id, _)| *id == known.id);
            let group = host.model.group(known.group);
            if host.driver.instances.get(known.id).is_none() {
                let is_leaving = group.is_none_or(|group| known.number >= group.target);
                ensure(is_leaving || before.is_none(), || format!("{:?} is lost", known.id))?;
                continue;
            }
            let group = group.ok_or_else(|| format!("the group of {:?} is gone", known.id))?;
            let wish = before.map_or(Wanted::Down, |&(_, wish)| wish);
            self.one_instance(host, group, &mut known, wish, left)
                .map_err(|broken| format!("{:?} after the recovery: {broken}", known.id))?;
            instances.push(known);
        }
        host.model.instances = instances;
        let count = host.driver.ids().count();
        let known = host.model.instances.len();
        ensure(count == known, || {
            format!("{count} instances are restored, and {known} are known")
        })
    }

    fn one_instance(
        &self,
        host: &Host,
        group: &Group,
        known: &mut Instance,
        wish_before: Wanted,
        left: &LeftBehind<Holder>,
    ) -> Result<(), Broken> {
        let instance = host.driver.instances.get(known.id).ok_or("it is missing")?;
        let slot = known.id.index();
        let is_leaving = known.number >= group.target;
        if left.unproven.iter().any(|&(unproven, _)| unproven == slot) {
            *known = Instance::new(known.id, known.group, known.number, Wanted::Down);
            return Ok(());
        }
        let ended = left
            .ended
            .iter()
            .find(|(ended, _)| *ended == slot)
            .map(|(_, record)| record);
        let born = left
            .born
            .iter()
            .find(|&&(born, ..)| born == slot)
            .map(|&(_, _, age)| age);
        let was_born = born.is_some();
        let may_be_withdrawn = self.requirers.contains(&group.id) || siblings::may_stop(&group.policy);
        follow_wish(instance, group, known, wish_before, may_be_withdrawn)?;
        host.lacks_no_group(group, instance)?;
        let is_described = !group.leaving && self.left_out != Some(group.id);
        let is_whole = is_described && !is_leaving && !was_born && ended.is_none();
        let record = self.records.iter().find(|(id, _)| *id == known.id);
        if let Some((_, record)) = record.filter(|_| is_whole) {
            let now = record_of(&host.driver, known.id);
            ensure(now.as_ref() == Some(record), || {
                format!("another state was restored: {:?}", instance.life)
            })?;
        }
        let state = *instance.life.state();
        follow_runs(known, &state, instance.life.runs(), group.epoch)?;
        let over = instance.life.runs() - u64::from(state.name().is_in_run());
        known.forgotten = usize::try_from(over).map_err(|error| error.to_string())?;
        if matches!(state, State::Stopping(_)) {
            let run = known.attempts.len();
            let same = known.stopping.filter(|&(_, _, of)| of == run);
            known.stopping = same.or(Some((self.woken, group.epoch, run)));
        }
        for attempt in &mut known.attempts {
            attempt.is_error_lost |= attempt.has_failed();
        }
        let Some(last) = known.attempts.last_mut() else {
            return Ok(());
        };
        if let Some(age) = born {
            let decided = state.since().unwrap_or(Instant::ZERO);
            last.at = host.world.borrow().now.saturating_sub(age).max(decided);
        }
        last.most_stored = group.recipe.most_stored;
        last.may_notify = group.recipe.is_heard() && is_described && last.part == Part::Program;
        let is_this = |known: &Candidate<Holder>| known.slot == slot && known.in_flight.is_some();
        follow_attempt(last, left.candidates.iter().any(is_this));
        ended.map_or(Ok(()), |record| self.follow_end(last, &state, record))
    }

    /// A process has ended without a host. Its status is known if the killed host had reaped it as its child.
    fn follow_end(&self, last: &mut Attempt, state: &State, record: &ExitRecord) -> Result<(), Broken> {
        ensure(last.pid == Some(record.pid), || {
            format!("{record:?} has ended, and its process was {:?}", last.pid)
        })?;
        if let Some(exit) = collected(state) {
            return ensure(last.exit == Some(exit), || {
                format!("it has ended with {exit:?}, and it was {:?}", last.exit)
            });
        }
        let is_unknown = record.exit == Exit::Unknown;
        let was_reaped = last.exit.filter(|_| !self.foreign.contains(&last.serial));
        let is_right = was_reaped.map_or(is_unknown || last.exit == Some(record.exit), |exit| exit == record.exit);
        ensure(is_right, || {
            format!("{record:?} was restored, and it was {:?}", last.exit)
        })?;
        last.exit = Some(record.exit);
        if last.has_failed() || state.is_in_flight() || state.is_unspawned() {
            // It may have executed its program, and nothing tells that any more.
            (last.spawn, last.is_unseen) = (Spawn::InFlight, true);
        }
        Ok(())
    }
}

/// The end of a process that the killed host had collected, and stored.
fn collected(state: &State) -> Option<Exit> {
    let State::Stopping(stopping) = state else { return None };
    match stopping.remaining {
        Remaining::Others { exit, .. } | Remaining::Command { exit, executed: true } => Some(exit),
        Remaining::Command { .. } | Remaining::Leader => None,
    }
}

/// An instance that was added for a rolling restart, and removed when that ended at once, is in the state file until its
/// record is emptied.
fn enlist_the_passing(host: &mut Host) {
    let ids: Vec<_> = host.driver.ids().collect();
    for id in ids {
        let Some(instance) = host.driver.instances.get(id) else {
            continue;
        };
        let (group, number) = (instance.group, instance.name.number);
        let is_leaving = host.model.group(group).is_some_and(|group| number >= group.target);
        if is_leaving && host.model.instance(id).is_none() {
            let mut known = Instance::new(id, group, number, Wanted::Down);
            let failed = Attempt {
                spawn: Spawn::Failed,
                ..Attempt::waiting((0, Part::Program), Instant::ZERO, 0)
            };
            let runs = 1..=instance.life.runs();
            known.attempts = runs.map(|run| Attempt { run, ..failed }).collect();
            host.model.instances.push(known);
        }
    }
}

/// The group is as it was, or as the step was to make it.
fn one_group(
    group: &mut Group,
    before: Option<&KnownGroup>,
    left: &GroupImage,
    exists: impl Fn(GroupId) -> bool,
) -> Result<(), Broken> {
    let (target, wanted, leaving) = (left.target, left.wanted, left.leaving);
    let sizes = before.map_or([None; 2], |before| before.sizes);
    let mut sizes = sizes
        .into_iter()
        .chain([Some(group.target), group.after_roll])
        .flatten();
    let is_size = sizes.any(|size| size == target);
    ensure(is_size, || {
        format!("its target is {target}, and should be {}", group.target)
    })?;
    let is_wish = wanted == group.wanted || before.is_some_and(|before| wanted == before.wanted);
    // It may have been stopped because of the end of an instance.
    let is_wish = is_wish || (wanted == Wanted::Down && siblings::may_stop(&left.policy));
    ensure(is_wish || leaving, || {
        format!("it is wanted {wanted:?}, and should be {:?}", group.wanted)
    })?;
    let may_leave = leaving == group.leaving || before.is_some_and(|before| leaving == before.leaving);
    ensure(may_leave, || "it does not know whether it leaves".into())?;
    // The order ends with a group that was removed, and the file may have the one without the other.
    let is_it =
        |left: &[GroupId], known: &[GroupId]| left == known || left.iter().eq(known.iter().filter(|&&id| exists(id)));
    let is_order =
        |after: &[GroupId], requires: &[GroupId]| is_it(&left.after, after) && is_it(&left.requires, requires);
    let is_known = is_order(&group.after, &group.requires)
        || before.is_none_or(|before| is_order(&before.after, &before.requires));
    ensure(is_known, || {
        format!("it comes after {:?} and {:?}", left.after, left.requires)
    })?;
    (group.after, group.requires) = (left.after.clone(), left.requires.clone());
    let is_new = *left.name == *group.name && left.policy == group.policy;
    if !is_new {
        let before = before.ok_or("it is another group")?;
        let is_old = *left.name == *before.name && left.policy == before.policy;
        ensure(is_old, || format!("it is called {}, with another policy", left.name))?;
        (group.name, group.recipe, group.epoch) = (before.name, before.recipe, before.epoch);
        group.policy.clone_from(&before.policy);
    }
    (group.target, group.wanted, group.leaving) = (target, wanted, leaving);
    group.after_roll = None;
    if leaving {
        // It is stopped without a description, so only its processes keep their cgroups.
        group.recipe.cgroup = None;
    }
    Ok(())
}

/// It is wanted as it was, or as the step was to make it.
fn follow_wish(
    instance: &Supervised,
    group: &Group,
    known: &mut Instance,
    wish_before: Wanted,
    may_be_withdrawn: bool,
) -> Result<(), Broken> {
    let wanted = instance.life.wanted();
    let wish = instance.pending.map_or(wanted, |request| match request.wants_up() {
        true => Wanted::Up,
        false => Wanted::Down,
    });
    let is_leaving = known.number >= group.target;
    // A rolling restart may have ended in the step, and a start that waited for a group that has failed or is gone was
    // withdrawn.
    let is_withdrawn = wish == Wanted::Down && may_be_withdrawn;
    ensure(
        is_leaving || is_withdrawn || wish == known.wish || wish == wish_before,
        || format!("it is wanted {wish:?}, and was wanted {wish_before:?}"),
    )?;
    known.wish = if is_leaving { Wanted::Down } else { wish };
    Ok(())
}

/// What a killed host knew of the last attempt and did not store.
fn follow_attempt(last: &mut Attempt, in_flight: bool) {
    last.reported_ready = false;
    last.is_foreign = last.pid.is_some();
    if in_flight {
        last.spawn = Spawn::InFlight;
    }
}

/// The runs that the killed host had begun. It may have decided on a spawn and not begun it.
fn follow_runs(known: &mut Instance, state: &State, runs: u64, epoch: u32) -> Result<(), Broken> {
    let attempts = known.runs();
    let waits = state.is_unspawned();
    let since = state.since().unwrap_or(Instant::ZERO);
    ensure(runs == attempts || (waits && runs == attempts + 1), || {
        format!("{runs} runs are recorded, and there were {attempts}: {state:?}")
    })?;
    let waiting = Attempt::waiting((runs, state.part()), since, epoch);
    let is_known = known
        .attempts
        .last()
        .is_some_and(|last| (last.run, last.part) == (runs, state.part()));
    if waits && !is_known {
        known.attempts.push(waiting);
    }
    let Some(last) = known.attempts.last_mut() else {
        return Ok(());
    };
    if waits && last.pid.is_none() {
        // An attempt that has failed and was not recorded is made again.
        *last = waiting;
    } else if last.spawn == Spawn::Waits {
        last.spawn = Spawn::Withdrawn;
    }
    Ok(())
}
