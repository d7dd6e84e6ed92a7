//! The ids of groups and instances.

use super::arena::Id;

/// The marker of a [`GroupId`].
#[doc(hidden)]
pub struct InGroups;
/// The marker of an [`InstanceId`].
#[doc(hidden)]
pub struct InInstances;

/// The id of a group. It is valid for the supervisor that issued it, and never refers to another group, not even after
/// the group was removed.
pub type GroupId = Id<InGroups>;
/// The id of an instance: a numbered place in a group, which one process after another may fill. It is valid for the
/// supervisor that issued it, and never refers to another instance.
pub type InstanceId = Id<InInstances>;

/// The instances that a command applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every instance of every group.
    All,
    /// Every instance of a group. A start or a stop also sets whether instances that are added later are started.
    Group(GroupId),
    /// One instance.
    Instance(InstanceId),
}

impl From<GroupId> for Target {
    fn from(id: GroupId) -> Target {
        Target::Group(id)
    }
}

impl From<InstanceId> for Target {
    fn from(id: InstanceId) -> Target {
        Target::Instance(id)
    }
}
