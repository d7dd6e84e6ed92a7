//! The memory for what runs store.
//!
//! No restart allocates: an instance gets the memory for its runs and crashes, and its places in the lists of what runs,
//! when its start is requested for the first time. An instance that was never started does not need them, and takes
//! half as much memory.
//!
//! A restoration does not allocate this memory either. That would take as long as everything else together, and no
//! deadline needs it. The calls of the host's loop allocate it afterwards, in portions and after their other work, and
//! the set stays readable until all is there. An instance that restarts before its turn allocates at that time.

use super::core::Engine;
use super::ids::InstanceId;
use super::instance::Instance;
use super::kernel::Kernel;
use crate::growth::grow_to;

/// How many instances get their memory in one call. It takes less than half a millisecond.
const PORTION: u32 = 256;

impl<K: Kernel> Engine<K> {
    /// Whether an instance has no memory for its runs after a restoration.
    pub(crate) const fn lacks_room(&self) -> bool {
        self.next_without_room.is_some()
    }

    /// Allocates for the next instances that have no memory after a restoration.
    pub(super) fn make_room(&mut self) {
        let Some(next) = self.next_without_room else { return };
        let slots = self.instances.slots();
        let ids = |engine: &Engine<K>, slots: std::ops::Range<u32>| {
            let ids = slots.filter_map(|slot| engine.instances.id_at(slot));
            let may_run = |instance: &Instance| instance.life.runs() > 0 || instance.pending.is_some();
            ids.filter(|&id| engine.instances.get(id).is_some_and(may_run))
                .collect::<Vec<_>>()
        };
        if next == 0 {
            self.notify_pids.reserve(slots as usize);
            let all = ids(self, 0..slots);
            self.reserve_for_starts(&all);
        }
        let end = slots.min(next.saturating_add(PORTION));
        for id in ids(self, next..end) {
            self.give_room(id);
        }
        self.next_without_room = Some(end).filter(|&end| end < slots);
    }

    /// Allocates for new instances.
    pub(super) fn reserve(&mut self, notify_pids: usize) {
        self.notify_pids.reserve(notify_pids);
        let slots = self.instances.slots();
        self.deadlines.reserve(slots, 0);
        grow_to(&mut self.waiting, slots as usize);
    }

    /// Allocates the places of these instances in the lists, before they get their memory one by one.
    pub(super) fn reserve_for_starts(&mut self, ids: &[InstanceId]) {
        let lacks_room = |&&id: &&InstanceId| self.instances.get(id).is_some_and(|instance| !instance.has_room);
        let lacking = ids.iter().filter(lacks_room).count();
        if lacking > 0 {
            self.reserve_places(self.roomy + lacking);
        }
    }

    /// Gives an instance the memory for its runs, if it has none yet.
    pub(super) fn give_room(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        if instance.has_room {
            return;
        }
        instance.has_room = true;
        instance.history.make_room();
        // A stop command has no crashes.
        let group = self.groups.get(instance.group).filter(|_| !instance.is_stop_command());
        if let Some(group) = group {
            instance.life.make_room(&group.policy);
        }
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
