//! The place of a group among the others: how a description names it, and how it is kept.

use std::fmt;
use std::sync::Arc;

use super::ids::GroupId;
use crate::lifecycle::Cause;

/// A group that another one comes after: an id, or a name.
///
/// ```
/// use pidherd::supervisor::GroupRef;
///
/// assert_eq!(GroupRef::from("database"), GroupRef::Name("database".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupRef {
    /// The group with this id.
    Id(GroupId),
    /// The only group of this name that is not being removed. A host that takes over the groups of another program
    /// describes them by name, because their ids are new.
    Name(Arc<str>),
}

impl From<GroupId> for GroupRef {
    fn from(id: GroupId) -> GroupRef {
        GroupRef::Id(id)
    }
}

impl From<&str> for GroupRef {
    fn from(name: &str) -> GroupRef {
        GroupRef::Name(name.into())
    }
}

impl From<String> for GroupRef {
    fn from(name: String) -> GroupRef {
        GroupRef::Name(name.into())
    }
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupRef::Id(id) => id.fmt(f),
            GroupRef::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// The order that a description asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct OrderSpec {
    pub(crate) after: Vec<GroupRef>,
    pub(crate) requires: Vec<GroupRef>,
}

impl OrderSpec {
    pub(crate) fn is_empty(&self) -> bool {
        self.after.is_empty() && self.requires.is_empty()
    }
}

/// The groups that a group comes after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) after: Vec<GroupId>,
    pub(crate) requires: Vec<GroupId>,
}

impl Edges {
    pub(crate) fn iter(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.after.iter().chain(&self.requires).copied()
    }
}

/// The place of a group among the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    pub(crate) edges: Edges,
    /// The groups that come after this one.
    pub(crate) followers: Vec<GroupId>,
    /// A group comes after groups of lower ranks only.
    pub(crate) rank: u32,
    /// Why a start that requires this group must not go on to wait for it, unless an instance of it is up again.
    pub(crate) ended: Option<Cause>,
}
