//! The host is replaced by another program, which goes on with the image of the engine. The world stays as it is:
//! processes, messages and spawns in flight, but not the set of descriptors and the timer.

use std::rc::Rc;

use super::host::{Broken, Host, Touched, snapshots};
use super::kernel::SimKernel;
use super::model::{Concerned, Group};
use super::oracle::ensure;
use super::recipe::{Draft, directory};
use crate::codec::{Stored, Writer, decoded, encoded};
use crate::engine::context::CgroupPath;
use crate::engine::core::Engine;
use crate::engine::event::Events;
use crate::engine::ids::GroupId;
use crate::engine::image::Image;
use crate::engine::spec::GroupSpec;

/// A group that the next program does not describe as it is. All other groups are described as they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Redescribed {
    /// It gets another number of instances.
    Resized(GroupId, u32),
    /// It is stopped and removed.
    LeftOut(GroupId),
}

/// A planted fault of the image, which an oracle must notice.
#[derive(Clone, Copy)]
pub(super) struct Spoiler {
    pub(super) spoil: fn(&mut Image),
    /// Whether the comparison of the two images is left out, so that another oracle must notice it.
    pub(super) is_unseen: bool,
}

/// The same id for the next program.
pub(super) fn moved<T: Stored>(id: &T, home: u32) -> T {
    decoded(&encoded(id), home).unwrap()
}

impl Host {
    pub(super) fn reexec(&mut self, change: Option<Redescribed>) -> Result<Touched, Broken> {
        let change = change.filter(|&change| self.is_possible(change));
        let mut kept = Vec::new();
        self.driver.put_image(&mut Writer::new(&mut kept));
        ensure(kept == encoded(&self.driver.image()), || {
            "the engine writes something else than its image".into()
        })?;
        let mut next = self.next_engine();
        let home = next.instances.home();
        let image = decoded::<Image>(&kept, home);
        let mut image = image.map_err(|_| "an image is damaged".to_owned())?;
        if let Some(spoiler) = self.spoiler {
            (spoiler.spoil)(&mut image);
        }
        self.move_ids(home);
        let change = change.map(|change| change.moved(home));
        let (described, specs) = self.descriptions(change);
        let restored = next.restore(image, specs);
        let restored = restored.map_err(|error| format!("the image is not restored: {error:?}"))?;
        let groups = restored.groups.iter().map(|&(id, _, was_known)| (id, was_known));
        let expected = described.into_iter().map(|id| (id, true));
        ensure(groups.eq(expected), || format!("other groups: {:?}", restored.groups))?;
        self.give_cgroups(&mut next);
        self.exchange(next, home);
        let is_seen = self.spoiler.is_none_or(|spoiler| !spoiler.is_unseen);
        ensure(!is_seen || encoded(&self.driver.image()) == kept, || {
            "the image of the next engine differs".into()
        })?;
        let concerned = self.follow(change);
        self.call(|driver| driver.follow_descriptions(&restored));
        Ok(Touched::These(concerned))
    }

    /// An engine for the next program, without groups.
    pub(super) fn next_engine(&self) -> Engine<SimKernel> {
        let kernel = SimKernel(Rc::clone(&self.world));
        let mut next = Engine::new(kernel, Events::new(self.room), 0);
        next.socket.clone_from(&self.driver.socket);
        next.queue = self.driver.queue;
        next.slice = self.driver.slice;
        next.kept_runs = self.driver.kept_runs;
        next
    }

    /// Whether each group gets its own description with this change: of several groups with one name, only the last one
    /// can be left out.
    pub(super) fn is_possible(&self, change: Redescribed) -> bool {
        let (Redescribed::Resized(id, _) | Redescribed::LeftOut(id)) = change;
        let Some(group) = self.model.group(id).filter(|group| !group.leaving) else {
            return false;
        };
        let groups = self.model.groups.iter();
        let mut later = groups.filter(|other| other.id.index() > id.index() && !other.leaving);
        matches!(change, Redescribed::Resized(..)) || later.all(|other| other.name != group.name)
    }

    /// The host and its records know the instances and groups by the ids of the next program.
    pub(super) fn move_ids(&mut self, home: u32) {
        self.move_commands(home);
        let model = &mut self.model;
        for group in &mut model.groups {
            group.id = moved(&group.id, home);
            for other in group.after.iter_mut().chain(&mut group.requires) {
                *other = moved(other, home);
            }
        }
        for known in model.instances.iter_mut().chain(&mut model.departed) {
            known.id = moved(&known.id, home);
            known.group = moved(&known.group, home);
        }
        for (group, _) in &mut model.passing {
            *group = moved(group, home);
        }
        for id in &mut model.old_groups {
            *id = moved(id, home);
        }
        for id in &mut model.old_instances {
            *id = moved(id, home);
        }
        // The next engine tells all of them again.
        model.untold.clear();
        for group in &mut self.telling_before {
            *group = moved(group, home);
        }
        for before in &mut self.before {
            before.id = moved(&before.id, home);
        }
    }

    /// The descriptions of the groups, in the order of their slots, and the groups.
    pub(super) fn descriptions(&self, change: Option<Redescribed>) -> (Vec<GroupId>, Vec<GroupSpec>) {
        let is_left_out = |id| matches!(change, Some(Redescribed::LeftOut(other)) if other == id);
        let groups = self.model.groups.iter();
        let mut described: Vec<_> = groups
            .filter(|group| !group.leaving && !is_left_out(group.id))
            .collect();
        described.sort_by_key(|group| group.id.index());
        let spec = |group: &&Group| {
            let is_kept = !self.describes_order(group);
            let instances = match change {
                Some(Redescribed::Resized(id, size)) if id == group.id => size,
                _ => group.after_roll.unwrap_or(group.target),
            };
            let draft = Draft {
                name: group.name,
                recipe: group.recipe,
                instances,
                policy: group.policy.clone(),
                flawed: false,
                // A description without an order keeps the one that the group has.
                after: if is_kept { Vec::new() } else { group.after.clone() },
                requires: if is_kept { Vec::new() } else { group.requires.clone() },
            };
            draft.spec()
        };
        let specs = described.iter().map(spec).collect();
        (described.iter().map(|group| group.id).collect(), specs)
    }

    /// The kernel's side gives each instance the cgroup of its process again.
    pub(super) fn give_cgroups(&self, next: &mut Engine<SimKernel>) {
        let world = self.world.borrow();
        for process in &world.processes {
            let Some(home) = &process.home else { continue };
            let mut parts = home.rsplit('/');
            let (name, number) = (parts.next().unwrap(), parts.next().unwrap());
            let path = CgroupPath {
                dir: directory(number.parse().unwrap()),
                name: name.to_owned(),
            };
            let id = next.instances.id_at(process.owner);
            if let Some(instance) = id.and_then(|id| next.instances.get_mut(id)) {
                instance.set_run_cgroup(Some(path.into()));
            }
        }
    }

    /// The next engine takes the place of this one, which leaves its processes alone.
    fn exchange(&mut self, next: Engine<SimKernel>, home: u32) {
        self.world.borrow_mut().is_replaced = true;
        let had_flights = self.world.borrow().in_flight > 0;
        drop(std::mem::replace(&mut self.driver, next));
        self.edges_seen = self.world.borrow().set.edges;
        self.world.borrow_mut().begin_anew(home);
        self.tally.saw_hand_over(had_flights);
        self.batch.clear();
        // The next program has not fetched any event, and all that wait are new to it.
        self.fetches = false;
        self.pushed = 0;
        let now: Vec<_> = snapshots(&self.driver).collect();
        for before in &mut self.before {
            let Some(now) = now.iter().find(|now| now.id == before.id) else {
                continue;
            };
            before.look = now.look;
            // It is found again from the state, which may have changed since the request.
            before.is_held = now.is_held;
        }
    }

    /// What the host expects of its descriptions.
    pub(super) fn follow(&mut self, change: Option<Redescribed>) -> Concerned {
        let concerned = match change {
            Some(Redescribed::Resized(id, size)) => match self.model.group_mut(id).map(|group| &mut group.after_roll) {
                Some(Some(after)) => {
                    *after = size;
                    Vec::new()
                }
                _ => self.model.resize(id, size),
            },
            Some(Redescribed::LeftOut(id)) => {
                self.tally.saw_left_out();
                self.model.leave_out(id).unwrap_or_default()
            }
            None => Vec::new(),
        };
        for group in self.model.groups.iter_mut().filter(|group| group.leaving) {
            // It is stopped without a description, so only its processes keep their cgroups.
            group.recipe.cgroup = None;
        }
        concerned
    }
}

impl Redescribed {
    pub(super) fn moved(self, home: u32) -> Redescribed {
        match self {
            Redescribed::Resized(id, size) => Redescribed::Resized(moved(&id, home), size),
            Redescribed::LeftOut(id) => Redescribed::LeftOut(moved(&id, home)),
        }
    }
}
