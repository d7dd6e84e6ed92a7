//! What the calls work on.

use std::path::Path;

use crate::herd::Herd;
use crate::own_log::OwnLog;

/// What a call works on.
pub struct Remote<'a> {
    /// The programs.
    pub herd: &'a mut Herd,
    /// The configuration file. `None` in the demonstration.
    pub config: Option<&'a Path>,
    /// The taskmaster's own log file.
    pub own_log: Option<&'a mut OwnLog>,
    /// What the loop must do after the call.
    pub wishes: &'a mut Wishes,
}

/// What a call wants from the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// To stop all programs and to end.
    pub shutdown: bool,
    /// To stop all programs and to begin anew.
    pub restart: bool,
}
