//! The end of an engine.

use std::time::Duration;

use super::core::Engine;
use super::ids::InstanceId;
use super::kernel::Kernel;
use crate::lifecycle::Scope;
use crate::signal::Signal;

/// How long [`Drop`] waits for all processes together after SIGKILL.
pub(crate) const LAST_PATIENCE: Duration = Duration::from_secs(2);

impl<K: Kernel> Drop for Engine<K> {
    /// Leaves no child and no zombie: every process gets SIGKILL, then every process is reaped. In a copy that fork(2)
    /// made, the descriptors are closed with the fields, and the children are left to the original.
    fn drop(&mut self) {
        if !self.kernel.is_ours() {
            return;
        }
        let until = self.kernel.now().saturating_add(LAST_PATIENCE);
        let processes: Vec<InstanceId> = self.instances.ids().collect();
        for &id in &processes {
            let Some(instance) = self.instances.get(id).filter(|instance| instance.process.is_some()) else {
                continue;
            };
            let group = self.groups.get(instance.group);
            let scope = group.map_or(Scope::Process, |group| instance.policy(group).stop.scope());
            // A process that may not be signalled is waited for like the others, for the same time.
            let _refused = self.kernel.signal(id.index(), Signal::KILL, scope);
        }
        for id in processes {
            let process = self.instances.get_mut(id).and_then(|instance| instance.process.take());
            if process.is_some() {
                let patience = until.saturating_duration_since(self.kernel.now());
                self.kernel.discard(id.index(), patience);
            }
        }
        self.kernel.close(until);
    }
}
