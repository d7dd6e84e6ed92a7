//! The memory for what restarts store, after a restoration.
//!
//! No restart allocates: an instance has the memory for its runs and crashes from the time when it is made. A
//! restoration does not allocate this memory. That would take as long as everything else together, and no deadline
//! needs it. The calls of the host's loop allocate it afterwards, in portions and after their other work, and the set
//! stays readable until all is there. An instance that restarts before its turn allocates at that time.

use super::core::Engine;
use super::kernel::Kernel;

/// How many instances get their memory in one call. It takes less than half a millisecond.
const PORTION: u32 = 256;

impl<K: Kernel> Engine<K> {
    /// Whether an instance has no memory for its runs yet.
    pub(crate) const fn lacks_room(&self) -> bool {
        self.next_without_room.is_some()
    }

    /// Allocates for the next instances that have no memory yet.
    pub(super) fn make_room(&mut self) {
        let Some(next) = self.next_without_room else { return };
        if next == 0 {
            let all = self.instances.slots() as usize;
            // The set has the entries of the processes that are alive.
            self.reserve(all.saturating_sub(self.kernel.entries()), all);
        }
        let end = self.instances.slots().min(next.saturating_add(PORTION));
        for slot in next..end {
            let id = self.instances.id_at(slot);
            if let Some(instance) = id.and_then(|id| self.instances.get_mut(id)) {
                instance.history.make_room();
                if let Some(group) = self.groups.get(instance.group) {
                    instance.life.make_room(&group.policy);
                }
            }
        }
        self.next_without_room = Some(end).filter(|&end| end < self.instances.slots());
    }
}
