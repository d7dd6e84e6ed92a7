//! The answers of the calls of a host's loop.

use std::time::Duration;

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
    /// How long an edge-triggered host may wait after this answer: not at all, unless it is `Nothing`. No edge may come for
    /// work that is left. `None` is a wait without a limit, as in the calls of mio, polling and std.
    ///
    /// A wait of zero still serves the host's other descriptors, so a loop that always waits for so long starves none of
    /// them. `examples/mio.rs` does so.
    /// ```
    /// use std::time::Duration;
    /// use pidherd::Supervisor;
    /// use pidherd::supervisor::Progress;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// assert_eq!(supervisor.dispatch()?.timeout(), None);
    /// assert_eq!(Progress::Done.timeout(), Some(Duration::ZERO));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn timeout(self) -> Option<Duration> {
        match self {
            Progress::Nothing => None,
            Progress::Done | Progress::More => Some(Duration::ZERO),
        }
    }

    pub(crate) const fn of(did: bool, more: bool) -> Progress {
        match (did, more) {
            (_, true) => Progress::More,
            (true, false) => Progress::Done,
            (false, false) => Progress::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_waits_only_after_a_call_that_found_nothing() {
        let all = [Progress::Nothing, Progress::Done, Progress::More];
        assert_eq!(
            all.map(Progress::timeout),
            [None, Some(Duration::ZERO), Some(Duration::ZERO)]
        );
    }
}
