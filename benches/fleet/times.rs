//! What a contender measures.

use std::time::Duration;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The most children that are in flight at a time.
pub const IN_FLIGHT: usize = 32;

/// What was measured in one run.
#[derive(Default)]
pub struct Times {
    /// The time to start all children.
    pub start: Duration,
    /// The time to stop all of them.
    pub stop: Duration,
    /// How long each spawn held the thread.
    pub held: Vec<Duration>,
}
