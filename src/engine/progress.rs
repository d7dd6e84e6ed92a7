//! The answers of the calls of a host's loop.

/// Whether a call found work, and whether work is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Progress {
    /// Everything that was ready at the first call of the host's loop is done. The host may wait: a descriptor that has
    /// become ready since makes the set readable with a new edge.
    Nothing,
    /// Everything that was found is done. An edge-triggered host calls again.
    Done,
    /// Work is left. The set stays readable until it is done.
    More,
}

impl Progress {
    pub(crate) const fn of(did: bool, more: bool) -> Progress {
        match (did, more) {
            (_, true) => Progress::More,
            (true, false) => Progress::Done,
            (false, false) => Progress::Nothing,
        }
    }
}
