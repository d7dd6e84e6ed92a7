//! The ids of groups and instances.

use std::fmt;

use super::arena::{Id, RawId};

use crate::codec::{Damaged, Reader, Stored, Writer};

/// The id of a group. It is valid for the supervisor that issued it, and never refers to another group, not even after
/// the group was removed.
///
/// It is displayed as `#SLOT.GENERATION`, for example `#3.0`. The order of ids has no meaning beyond being total.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(RawId);

/// The id of an instance: a numbered place in a group, which one process after another may fill. It is valid for the
/// supervisor that issued it, and never refers to another instance.
///
/// It is displayed as `#SLOT.GENERATION`, for example `#3.0`. The order of ids has no meaning beyond being total.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(RawId);

impl GroupId {
    /// The number of the slot, which is unique among the present groups.
    pub(crate) const fn index(self) -> u32 {
        self.0.index()
    }
}

impl InstanceId {
    /// The number of the slot, which is unique among the present instances.
    pub(crate) const fn index(self) -> u32 {
        self.0.index()
    }

    /// The same id in the arena with this number.
    pub(crate) fn at_home(self, home: u32) -> InstanceId {
        InstanceId(self.0.at_home(home))
    }
}

impl Id for GroupId {
    fn from_raw(raw: RawId) -> GroupId {
        GroupId(raw)
    }

    fn raw(self) -> RawId {
        self.0
    }
}

impl Id for InstanceId {
    fn from_raw(raw: RawId) -> InstanceId {
        InstanceId(raw)
    }

    fn raw(self) -> RawId {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({})", self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({})", self.0)
    }
}

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

impl Stored for GroupId {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<GroupId, Damaged> {
        RawId::get(from).map(GroupId)
    }
}

impl Stored for InstanceId {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<InstanceId, Damaged> {
        RawId::get(from).map(InstanceId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arena::Arena;

    #[test]
    fn ids_are_shown_with_their_slot_and_generation() {
        let (mut groups, mut instances): (Arena<GroupId, ()>, Arena<InstanceId, ()>) = (Arena::new(0), Arena::new(0));
        let first = instances.insert(());
        instances.remove(first);
        let (group, instance) = (groups.insert(()), instances.insert(()));
        assert_eq!(
            (group.to_string(), instance.to_string()),
            ("#0.0".into(), "#0.1".into())
        );
        assert_eq!(format!("{group:?} {instance:?}"), "GroupId(#0.0) InstanceId(#0.1)");
    }
}
