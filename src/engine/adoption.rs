//! Processes that were started elsewhere, and processes that go on by themselves.

use super::core::Engine;
use super::error::Error;
use super::ids::InstanceId;
use super::kernel::Kernel;
use crate::exit::Pid;
use crate::lifecycle::{Cause, Input};

impl<K: Kernel> Engine<K> {
    /// Checks that an instance can get a process from elsewhere.
    pub(crate) fn check_adoption(&self, id: InstanceId) -> Result<(), Error> {
        let instance = self.instances.get(id).ok_or(Error::UnknownInstance(id))?;
        self.check_open()?;
        if self.is_retiring(id) {
            return Err(Error::LeavingInstance(id));
        }
        match instance.life.state().name().is_alive() {
            true => Err(Error::Alive(id)),
            false => Ok(()),
        }
    }

    /// The instance with the process of this number.
    pub(crate) fn supervises(&self, pid: Pid) -> Option<InstanceId> {
        let has_it = |id: &InstanceId| {
            self.instances
                .get(*id)
                .is_some_and(|instance| instance.process == Some(pid))
        };
        let found = self.instances.ids().find(has_it)?;
        self.instances.get(found).map(|instance| instance.known_as(found))
    }

    /// The kernel watches a process from elsewhere for this instance.
    pub(crate) fn adopted(&mut self, id: InstanceId, pid: Pid) {
        let wall = self.kernel.wall();
        self.give_room(id);
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        instance.process = Some(pid);
        instance.set_pipes(None);
        if let Some(extra) = instance.known_extra() {
            (extra.run_cgroup, extra.status_text) = (None, None);
        }
        instance.history.began(self.now, wall);
        self.withdraw_start(id, Cause::Adopted);
        self.set_pending(id, None);
        self.hear_if_described(id, pid);
        self.apply_input(id, Input::Adopted(pid));
        if let Some(instance) = self.instances.get(id) {
            self.kernel
                .note_adopted(id.index(), instance.life.process_number(), pid);
        }
    }

    /// The kernel no longer watches the process of this instance, which lives on.
    pub(crate) fn released(&mut self, id: InstanceId) {
        let pid = self.instances.get(id).and_then(|instance| instance.process);
        if let Some(pid) = pid {
            self.stop_hearing(id, pid);
        }
        self.set_pending(id, None);
        self.apply_input(id, Input::Released);
    }
}
