//! The state of an engine as data, so that another engine can go on with it: after the host has replaced itself by
//! exec(2), or after it was killed.
//!
//! Commands hold closures and descriptors, so an image does not contain them. [`Engine::restore`] gets the descriptions
//! of the groups again, and finds each by its name.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::arena::Place;
use super::commands::check_cgroup_among;
use super::core::Engine;
use super::error::Error;
use super::event::{Event, Name};
use super::history::History;
use super::ids::{GroupId, InstanceId};
use super::instance::{Extra, Group, GroupPrograms, Instance, Reload, Start};
use super::kernel::{Kernel, Sender};
use super::place::{Edges, OrderSpec};
use super::request::Request;
use super::spec::GroupSpec;
use super::stop_of::{StopCommand, StopOf};
use crate::codec::{Damaged, Reader, Stored, Writer, put_list, stored};
use crate::command::{Command, Program};
use crate::exit::{ExitRecord, Pid};
use crate::group::{Roll, Roster};
use crate::lifecycle::{Cause, Lifecycle, Policy, StopLadder, Transition, Wanted};
use crate::notify::NotifyAccess;
use crate::time::Instant;

/// The state of an engine.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) seed: u64,
    pub(crate) closing: bool,
    pub(crate) is_spawns_turn: bool,
    pub(crate) groups: Vec<Place<Box<GroupImage>>>,
    pub(crate) instances: Vec<Place<Box<InstanceImage>>>,
    /// The instances with a pending request, in order.
    pub(crate) waiting: VecDeque<InstanceId>,
    /// The instances with a spawn that waits, in order, and since when.
    pub(crate) spawns: VecDeque<(InstanceId, Instant)>,
    /// The events that were not fetched.
    pub(crate) events: VecDeque<Event>,
    pub(crate) dropped: u64,
}

stored!(struct Image {
    seed,
    closing,
    is_spawns_turn,
    groups,
    instances,
    waiting,
    spawns,
    events,
    dropped,
});

/// The state of a group, without its commands.
#[derive(Clone)]
pub(crate) struct GroupImage {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) wanted: Wanted,
    pub(crate) leaving: bool,
    pub(crate) target: u32,
    pub(crate) roll: Option<(Roll<InstanceId>, u32)>,
    pub(crate) after: Vec<GroupId>,
    pub(crate) requires: Vec<GroupId>,
}

stored!(struct GroupImage {
    name,
    policy,
    wanted,
    leaving,
    target,
    roll,
    after,
    requires,
});

/// The state of an instance. Places hold it in a box: an empty one takes five bytes of input, and must not take
/// hundreds of memory.
#[derive(Clone)]
pub(crate) struct InstanceImage {
    pub(crate) group: GroupId,
    pub(crate) number: u32,
    pub(crate) life: Lifecycle,
    pub(crate) process: Option<Pid>,
    /// The processes with accepted messages, and how many descriptors the instance may store; `None` if no message is
    /// accepted.
    pub(crate) heard: Option<(NotifyAccess, u32)>,
    pub(crate) status_text: Option<Arc<str>>,
    pub(crate) ladder: Option<Box<StopLadder>>,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) reload: Option<Reload>,
    pub(crate) is_frozen: bool,
    pub(crate) pending: Option<Request>,
    pub(crate) because: Option<Cause>,
    pub(crate) start: Option<(Transition, Option<ExitRecord>)>,
    pub(crate) history: History,
    /// What it is for, if it is that of a stop command.
    pub(crate) stop_of: Option<StopOf>,
}

stored!(struct InstanceImage {
    group,
    number,
    life,
    process,
    heard,
    status_text,
    ladder,
    watchdog,
    reload,
    is_frozen,
    pending,
    because,
    start,
    history,
    stop_of,
});

/// Why an image was not restored.
#[derive(Debug)]
pub(crate) enum NotRestored {
    /// The parts of the image contradict each other.
    Damaged,
    /// A description is wrong.
    Error(Error),
}

impl<E: Into<Error>> From<E> for NotRestored {
    fn from(error: E) -> NotRestored {
        NotRestored::Error(error.into())
    }
}

/// The groups after a restoration.
pub(crate) struct Restored {
    /// For each description the group, the number of instances, and whether the image had the group.
    pub(crate) groups: Vec<(GroupId, u32, bool)>,
    /// The groups that were not described.
    pub(crate) undescribed: Vec<GroupId>,
}

impl Image {
    /// Whether its parts agree: every group has a name of its own, every instance has a group and a number of its own
    /// there, every number that a group needs has an instance, a group that is leaving has one at all, the policies are
    /// valid, and exactly the instances with a process that is alive name a process.
    fn is_consistent(&self) -> bool {
        let group = |id: GroupId| {
            let place = self.groups.get(id.index() as usize)?;
            place.value.as_ref().filter(|_| place.is(id))
        };
        let (mut numbers, mut pids, mut stopped) = (HashSet::new(), HashSet::new(), HashSet::new());
        let member = |id: InstanceId| {
            let place = self.instances.get(id.index() as usize).filter(|place| place.is(id));
            place.and_then(|place| place.value.as_ref())
        };
        // For each group, how many numbers below its target have an instance, and whether it has one at all.
        let mut present = vec![(0, false); self.groups.len()];
        for instance in self.instances.iter().filter_map(|place| place.value.as_ref()) {
            let Some(known) = group(instance.group).filter(|_| instance.number < GroupSpec::MOST_INSTANCES) else {
                return false;
            };
            if let Some(of) = instance.stop_of {
                let is_its_program = |program: &InstanceImage| {
                    let is_named = (program.group, program.number) == (instance.group, instance.number);
                    program.stop_of.is_none() && is_named
                };
                let is_alone = stopped.insert(of.program) && instance.heard.is_none() && instance.pending.is_none();
                let is_of_program = member(of.program).is_some_and(|program| is_its_program(program));
                if !(is_alone && is_of_program && instance.process == instance.life.state().pid()) {
                    return false;
                }
                continue;
            }
            let has_number = numbers.insert((instance.group, instance.number));
            if let Some((below, has_any)) = present.get_mut(instance.group.index() as usize) {
                *below += u32::from(instance.number < known.target);
                *has_any = true;
            }
            let state = instance.life.state();
            // Two processes may have one number: the end of a process that another parent has reaped may not be handled
            // yet, while the kernel has given its number to a new one. Messages can come only from one of them.
            let is_reaped = state.is_reaped();
            let unreaped = instance.process.filter(|_| !is_reaped);
            let heard = unreaped.filter(|_| instance.heard.is_some());
            let is_heard_alone = heard.is_none_or(|pid| pids.insert(pid));
            let is_heard_alive = instance.heard.is_none() || unreaped.is_some();
            let is_possible = instance.life.is_joint_possible();
            if !(has_number && is_heard_alone && is_heard_alive && is_possible && instance.process == state.pid()) {
                return false;
            }
        }
        let mut names = HashSet::new();
        let mut groups = (0_u32..).zip(self.groups.iter().zip(present));
        groups.all(|(index, (place, (below, has_any)))| {
            let Some(group) = &place.value else { return true };
            // A group that is leaving ends with its last instance.
            let has_size = !group.leaving || (group.target == 0 && has_any);
            let has_own_name = group.leaving || group.name.is_empty() || names.insert(&group.name);
            let is_member = |id: InstanceId| {
                member(id).is_some_and(|known| known.group.index() == index && known.stop_of.is_none())
            };
            let roll = group.roll.as_ref();
            let rolls = roll.is_none_or(|(roll, after)| {
                let is_size = *after <= GroupSpec::MOST_INSTANCES;
                !group.leaving && is_size && roll.can_go_on() && roll.members().all(is_member)
            });
            group.policy.validate().is_ok() && has_size && has_own_name && below == group.target && rolls
        })
    }

    /// The same image with ids for the arenas with this number.
    pub(crate) fn at_home(&self, home: u32) -> Result<Image, Damaged> {
        let mut bytes = Vec::new();
        self.put(&mut Writer::new(&mut bytes));
        Image::get(&mut Reader::new(&bytes, home))
    }

    /// The numbers of the members, by group.
    fn numbers(&self) -> HashMap<GroupId, BTreeSet<u32>> {
        let mut numbers: HashMap<_, BTreeSet<_>> = HashMap::new();
        for member in self.instances.iter().filter_map(|place| place.value.as_ref()) {
            numbers.entry(member.group).or_default().insert(member.number);
        }
        numbers
    }
}

/// The orders of groups after a restoration.
#[derive(Default)]
struct Orders {
    described: Vec<(GroupId, OrderSpec)>,
    kept: Vec<(GroupId, Edges)>,
}

impl Orders {
    fn add(&mut self, id: GroupId, spec: Option<&GroupSpec>, known: &GroupImage) {
        let described = spec.map(|spec| spec.order.clone());
        match described.filter(|order| !order.is_empty()) {
            Some(order) => self.described.push((id, order)),
            None => {
                let (after, requires) = (known.after.clone(), known.requires.clone());
                self.kept.push((id, Edges { after, requires }));
            }
        }
    }
}

/// A queue without stale entries: only the first one of an instance counts.
fn first_of_each<T>(queue: impl Iterator<Item = T>, id: impl Fn(&T) -> InstanceId) -> VecDeque<T> {
    let mut queued = HashSet::new();
    queue.filter(|entry| queued.insert(id(entry))).collect()
}

/// The places of the descriptions of each name, in order.
fn places_by_name(specs: &[Option<GroupSpec>]) -> HashMap<Arc<str>, VecDeque<usize>> {
    let mut places: HashMap<Arc<str>, VecDeque<usize>> = HashMap::new();
    for (at, spec) in specs.iter().enumerate() {
        let name = spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
        places.entry(name).or_default().push_back(at);
    }
    places
}

/// A group without a description. It has no commands: if a run ends that had a command after it, that command cannot be
/// spawned, which is reported.
fn undescribed(known: &GroupImage) -> Group {
    let stand_in = GroupSpec::new(&known.name, Command::new(""));
    Group {
        policy: known.policy.clone(),
        ..Group::new(stand_in, GroupPrograms::default())
    }
}

impl<K: Kernel> Engine<K> {
    /// Writes the state of this engine: the same as that of [`Engine::image`], without a copy of it.
    pub(crate) fn put_image(&self, to: &mut Writer<'_>) {
        self.seed.put(to);
        self.closing.put(to);
        self.is_spawns_turn.put(to);
        self.groups.put_places(to, |_, group, to| {
            group.name.put(to);
            group.policy.put(to);
            group.wanted.put(to);
            group.leaving.put(to);
            group.roster.target().put(to);
            group.roll.put(to);
            group.order.edges.after.put(to);
            group.order.edges.requires.put(to);
        });
        self.instances.put_places(to, |id, instance, to| {
            instance.group.put(to);
            instance.name.number.put(to);
            instance.life.put(to);
            instance.process.put(to);
            self.access_of(id, instance).put(to);
            instance.status_text.put(to);
            instance.ladder.put(to);
            instance.watchdog.put(to);
            instance.reload.put(to);
            instance.is_frozen.put(to);
            instance.pending.put(to);
            instance.because.put(to);
            instance.start().put(to);
            instance.history.put(to);
            instance.stop_of().put(to);
        });
        self.waiting_once().put(to);
        self.spawns_once().put(to);
        let events = self.events.waiting();
        put_list(events.len(), events, to);
        self.events.dropped().put(to);
    }

    /// What is accepted from an instance; see [`InstanceImage::heard`].
    fn access_of(&self, id: InstanceId, instance: &Instance) -> Option<(NotifyAccess, u32)> {
        let sender = instance.process.and_then(|pid| self.notify_pids.get(&pid));
        sender
            .filter(|sender| sender.id == id)
            .map(|sender| (sender.access, sender.most_stored))
    }

    /// The instances with a request that waits for its turn, in order.
    fn waiting_once(&self) -> VecDeque<InstanceId> {
        let waiting = self.waiting.iter().copied().filter(|&id| self.is_queued(id));
        first_of_each(waiting, |&id| id)
    }

    /// The instances with a spawn that waits, in order.
    fn spawns_once(&self) -> VecDeque<(InstanceId, Instant)> {
        let waiting = self.spawns.iter().copied().filter(|&(id, _)| self.awaits_spawn(id));
        first_of_each(waiting, |&(id, _)| id)
    }

    /// The state of this engine.
    pub(crate) fn image(&self) -> Image {
        let group = |group: &Group| {
            Box::new(GroupImage {
                name: group.name.clone(),
                policy: group.policy.clone(),
                wanted: group.wanted,
                leaving: group.leaving,
                target: group.roster.target(),
                roll: group.roll.clone(),
                after: group.order.edges.after.clone(),
                requires: group.order.edges.requires.clone(),
            })
        };
        let instance = |id: InstanceId, instance: &Instance| {
            Box::new(InstanceImage {
                group: instance.group,
                number: instance.name.number,
                life: instance.life.clone(),
                process: instance.process,
                heard: self.access_of(id, instance),
                status_text: instance.status_text.clone(),
                ladder: instance.ladder.clone(),
                watchdog: instance.watchdog,
                reload: instance.reload,
                is_frozen: instance.is_frozen,
                pending: instance.pending,
                because: instance.because,
                start: instance.start(),
                history: instance.history.clone(),
                stop_of: instance.stop_of(),
            })
        };
        Image {
            seed: self.seed,
            closing: self.closing,
            is_spawns_turn: self.is_spawns_turn,
            groups: self.groups.places(|_, value| group(value)),
            instances: self.instances.places(instance),
            waiting: self.waiting_once(),
            spawns: self.spawns_once(),
            events: self.events.waiting().cloned().collect(),
            dropped: self.events.dropped(),
        }
    }

    /// Whether it has a request that waits for nothing but its turn.
    pub(super) fn is_queued(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(id);
        instance.is_some_and(|known| known.pending.is_some() && !known.awaits_order)
    }

    /// Continues an image, in an engine without groups. A description is for the first group of its name that no other
    /// description is for. A group without a description keeps its policy and has no command.
    ///
    /// The kernel must have the processes of the image, or get them before the engine is used. After an error the
    /// engine must be dropped, and no process was touched.
    pub(crate) fn restore(&mut self, image: Image, specs: Vec<GroupSpec>) -> Result<Restored, NotRestored> {
        if !image.is_consistent() {
            return Err(NotRestored::Damaged);
        }
        let mut specs: Vec<Option<GroupSpec>> = specs.into_iter().map(Some).collect();
        let mut described: Vec<Option<(GroupId, u32, bool)>> = vec![None; specs.len()];
        let mut restored = Vec::with_capacity(image.groups.len());
        let mut orders = Orders::default();
        let (mut own_programs, mut numbers) = (HashMap::new(), image.numbers());
        let mut by_name = places_by_name(&specs);
        for (index, place) in image.groups.iter().enumerate() {
            let id = self
                .groups
                .id(u32::try_from(index).unwrap_or(u32::MAX), place.generation);
            let Some(known) = &place.value else {
                restored.push(Place::new(place.generation, None));
                continue;
            };
            let named = by_name.get_mut(&known.name).filter(|_| !known.leaving);
            let found = named.and_then(VecDeque::pop_front);
            let spec = found.and_then(|at| specs.get_mut(at)?.take());
            orders.add(id, spec.as_ref(), known);
            let mut group = match spec {
                Some(spec) => {
                    spec.check()?;
                    check_cgroup_among(&spec, &restored)?;
                    let mut numbers = numbers.remove(&id).unwrap_or_default();
                    numbers.extend(0..spec.instances);
                    let (shared, own) = self.programs(&spec, numbers)?;
                    own_programs.insert(id, own.into_iter().collect());
                    if let Some(place) = found.and_then(|at| described.get_mut(at)) {
                        *place = Some((id, spec.instances, true));
                    }
                    Group::new(spec, shared)
                }
                None => undescribed(known),
            };
            group.wanted = known.wanted;
            group.leaving = known.leaving;
            group.roster = Roster::new();
            group.roster.set_target(known.target);
            group.roll.clone_from(&known.roll);
            restored.push(Place::new(place.generation, Some(group)));
        }
        self.groups.replace(restored);
        self.restore_names();
        self.seed = image.seed;
        self.is_spawns_turn = image.is_spawns_turn;
        self.restore_instances(image.instances, own_programs);
        self.restore_stop_commands();
        self.restore_queues(image.waiting, image.spawns);
        self.events.restore(image.events, image.dropped);
        for (at, spec) in specs.into_iter().enumerate() {
            let Some(mut spec) = spec else { continue };
            let instances = spec.instances;
            let order = std::mem::take(&mut spec.order);
            let id = self.add(spec)?;
            orders.described.push((id, order));
            if let Some(place) = described.get_mut(at) {
                *place = Some((id, instances, false));
            }
        }
        self.restore_orders(orders)?;
        self.closing = image.closing;
        // The descriptions may have other policies.
        self.must_save = true;
        Ok(self.restored(described))
    }

    /// Gives the groups the orders of their descriptions, and of the image if they are described without any.
    fn restore_orders(&mut self, orders: Orders) -> Result<(), NotRestored> {
        let mut lost = Vec::new();
        for (id, mut edges) in orders.kept {
            let exists = |id: &GroupId| self.groups.get(*id).is_some();
            if !edges.requires.iter().all(exists) {
                lost.push(id);
            }
            edges.after.retain(exists);
            edges.requires.retain(exists);
            self.place_in_order(id, edges);
            if self.comes_after(id, id) {
                return Err(NotRestored::Damaged);
            }
        }
        for (id, order) in orders.described {
            let edges = self.resolve_order(&order, Some(id))?;
            self.place_in_order(id, edges);
        }
        lost.into_iter().for_each(|id| self.withdraw_again_in_order(id));
        self.restore_order();
        Ok(())
    }

    fn restored(&self, described: Vec<Option<(GroupId, u32, bool)>>) -> Restored {
        let groups: Vec<_> = described.into_iter().flatten().collect();
        let known: HashSet<GroupId> = groups.iter().map(|&(id, ..)| id).collect();
        let is_undescribed = |id: &GroupId| {
            let is_leaving = self.groups.get(*id).is_some_and(|group| group.leaving);
            !is_leaving && !known.contains(id)
        };
        let undescribed = self.groups.ids().filter(is_undescribed).collect();
        Restored { groups, undescribed }
    }

    fn restore_instances(
        &mut self,
        images: Vec<Place<Box<InstanceImage>>>,
        mut programs: HashMap<GroupId, HashMap<u32, Option<Program>>>,
    ) {
        let mut places = Vec::with_capacity(images.len());
        let mut pending = Vec::new();
        let mut heard = Vec::new();
        for (index, Place { generation, value }) in images.into_iter().enumerate() {
            let id = self.instances.id(u32::try_from(index).unwrap_or(u32::MAX), generation);
            let instance = value.and_then(|image| {
                let group = self.groups.get_mut(image.group)?;
                let stop_command = image.stop_of.map(|of| Box::new(StopCommand::new(of, &group.policy)));
                if stop_command.is_none() {
                    group.roster.put(image.number, id);
                }
                let name = Name {
                    group: Arc::clone(&group.name),
                    number: image.number,
                };
                let own = programs.get_mut(&image.group).filter(|_| stop_command.is_none());
                let program = own.and_then(|own| own.remove(&image.number)).flatten();
                if let (Some(pid), Some((access, most_stored))) = (image.process, image.heard) {
                    let sender = Sender {
                        id,
                        access,
                        most_stored,
                    };
                    heard.push((pid, sender));
                }
                pending.extend(image.pending.map(|request| (id, request)));
                let is_command = stop_command.is_some();
                let history = image.history.with_most(if is_command { 0 } else { self.kept_runs });
                let extra = Extra {
                    status_text: image.status_text,
                    ladder: image.ladder,
                    watchdog: image.watchdog,
                    reload: image.reload,
                    because: image.because,
                    stop_command,
                    ..Extra::default()
                };
                Some(Instance {
                    process: image.process,
                    program,
                    context: group.context_of(image.number, is_command),
                    is_frozen: image.is_frozen,
                    start: image.start.map(|(step, exit)| Start::new(step, exit.as_ref())),
                    ..Instance::new(image.group, name, image.life, history).with_extra(extra)
                })
            });
            if let Some(instance) = &instance {
                let state = instance.life.state();
                self.alive += usize::from(state.name().is_alive());
                self.unspawned += usize::from(state.is_unspawned());
            }
            places.push(Place {
                generation,
                value: instance,
            });
        }
        self.instances.replace(places);
        heard.into_iter().for_each(|(pid, sender)| self.hear(pid, sender));
        self.restore_waits(pending);
        self.make_room();
    }

    /// Sets the deadlines of all instances, and the requests that are pending.
    fn restore_waits(&mut self, pending: Vec<(InstanceId, Request)>) {
        let ids: Vec<_> = self.instances.ids().collect();
        self.deadlines.reserve(self.instances.slots(), 0);
        for id in ids {
            self.set_deadline(id);
        }
        for (id, request) in pending {
            // The records are stored with the base, when the instances have their cgroups again.
            self.put_pending(id, Some(request));
        }
    }

    /// Continues the queues. What has no place in them, although it waits, is added at their ends, and the spawns that
    /// belong to a stop come first, because they need no place among those in flight. Which requests wait
    /// for nothing but their turn is known with the order ([`Engine::restore_order`]).
    fn restore_queues(&mut self, waiting: VecDeque<InstanceId>, spawns: VecDeque<(InstanceId, Instant)>) {
        let waiting = waiting.into_iter().chain(self.instances.ids());
        let waiting = first_of_each(waiting, |&id| id);
        let now = self.kernel.now();
        let spawns = spawns.into_iter().chain(self.instances.ids().map(|id| (id, now)));
        let spawns = spawns.filter(|&(id, _)| self.awaits_spawn(id));
        let spawns = first_of_each(spawns, |&(id, _)| id);
        let (first, others): (Vec<_>, Vec<_>) = spawns.into_iter().partition(|&(id, _)| self.spawns_for_stop(id));
        self.waiting.extend(waiting);
        self.spawns.extend(first.into_iter().chain(others));
    }

    /// Does what follows from the descriptions: groups get their numbers of instances. During a rolling restart, the
    /// number applies when it is over. A group that was not described is removed, which stops its instances.
    pub(crate) fn follow_descriptions(&mut self, restored: &Restored) {
        self.follow_all_siblings();
        for &(id, instances, was_known) in &restored.groups {
            let Some(group) = self.groups.get_mut(id).filter(|_| was_known) else {
                continue;
            };
            match &mut group.roll {
                Some((_, target)) => *target = instances,
                None if group.roster.target() == instances => {}
                None => self.resize(id, instances),
            }
        }
        let mut undescribed = restored.undescribed.clone();
        self.sort_groups_for_stop(&mut undescribed);
        for id in undescribed {
            // The group exists, so this cannot fail.
            let _removed = self.remove_unchecked(id);
        }
    }
}
