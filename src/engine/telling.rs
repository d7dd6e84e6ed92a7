//! What is left to be done about the siblings of an instance that has ended ([`siblings`](super::siblings)).

use super::ids::{GroupId, InstanceId};
use crate::lifecycle::Strategy;

/// The siblings of an instance that has ended are told of it one by one.
pub(crate) struct Telling {
    pub(crate) ended: InstanceId,
    pub(crate) group: GroupId,
    pub(super) number: u32,
    /// Its run that has ended.
    pub(super) run: u64,
    /// That of the time of the end.
    pub(super) strategy: Strategy,
    /// The number of the next sibling.
    pub(super) next: u32,
}
