//! The names of groups. Each is that of one group, apart from groups that are being removed. Any number of groups can
//! have no name, which is the empty one.

use std::sync::Arc;

use super::core::Engine;
use super::error::SpecError;
use super::ids::GroupId;
use super::kernel::Kernel;
use super::spec::GroupSpec;

impl<K: Kernel> Engine<K> {
    /// The group with this name that is not being removed.
    pub(crate) fn group_named(&self, name: &str) -> Option<GroupId> {
        self.names.get(name).copied()
    }

    /// Rejects a description with the name of another group.
    pub(super) fn check_name(&self, spec: &GroupSpec, own: Option<GroupId>) -> Result<(), SpecError> {
        match self.group_named(&spec.name) {
            Some(other) if own != Some(other) => Err(SpecError::NameTaken(spec.name.to_string())),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn enter_name(&mut self, id: GroupId) {
        let group = self.groups.get(id).filter(|group| !group.leaving);
        if let Some(group) = group.filter(|group| !group.name.is_empty()) {
            self.names.insert(Arc::clone(&group.name), id);
        }
    }

    /// The group gives its name up.
    pub(super) fn leave_name(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get(id) {
            if self.names.get(&group.name) == Some(&id) {
                self.names.remove(&group.name);
            }
        }
    }

    /// The names of groups that were restored.
    pub(super) fn restore_names(&mut self) {
        self.names.clear();
        let ids: Vec<GroupId> = self.groups.ids().collect();
        ids.into_iter().for_each(|id| self.enter_name(id));
    }
}
