//! The places in the lists of what runs.
//!
//! An instance gets its places when its start is requested for the first time, so that no start has to wait until a list
//! has grown. An instance that was never started does not need them. The memory for its remembered runs and crashes comes
//! with the first of them ([`History`](super::history::History)), for all that may follow, so later restarts allocate
//! nothing.

use super::core::Engine;
use super::ids::InstanceId;
use super::instance::Instance;
use super::kernel::Kernel;
use crate::growth::grow_to;

impl<K: Kernel> Engine<K> {
    /// Allocates the places of the instances that another host has started, or was asked to start.
    pub(super) fn make_room(&mut self) {
        let may_run = |instance: &Instance| instance.life.runs() > 0 || instance.pending.is_some();
        let ids = self.instances.ids();
        let ids: Vec<_> = ids.filter(|&id| self.instances.get(id).is_some_and(may_run)).collect();
        self.notify_pids.reserve(self.instances.slots() as usize);
        self.reserve_for_starts(&ids);
        ids.into_iter().for_each(|id| self.give_room(id));
    }

    /// Allocates for new instances.
    pub(super) fn reserve(&mut self, notify_pids: usize) {
        self.notify_pids.reserve(notify_pids);
        let slots = self.instances.slots();
        self.deadlines.reserve(slots, 0);
        grow_to(&mut self.waiting, slots as usize);
    }

    /// Allocates the places of these instances in the lists, before they get them one by one.
    pub(super) fn reserve_for_starts(&mut self, ids: &[InstanceId]) {
        let lacks_room = |&&id: &&InstanceId| self.instances.get(id).is_some_and(|instance| !instance.has_room);
        let lacking = ids.iter().filter(lacks_room).count();
        if lacking > 0 {
            self.reserve_places(self.roomy + lacking);
        }
    }

    /// Gives an instance its places, if it has none yet.
    pub(super) fn give_room(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        if instance.has_room {
            return;
        }
        instance.has_room = true;
        self.roomy += 1;
        self.reserve_places(self.roomy);
        if let Some(command) = self.instances.get(id).and_then(|instance| instance.stopper) {
            self.give_room(command);
        }
    }

    /// Allocates the places of this many instances that run.
    fn reserve_places(&mut self, instances: usize) {
        let slots = self.instances.slots();
        self.kernel.reserve(instances, slots);
        self.deadlines.reserve(slots, instances);
        grow_to(&mut self.spawns, instances);
    }
}
