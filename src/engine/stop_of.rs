//! What makes an instance that of a stop command.

use std::time::Duration;

use super::ids::InstanceId;
use crate::codec::stored;
use crate::lifecycle::{Policy, Restart, Scope, Startup, StopLadder};

/// The command that an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopOf {
    /// The instance with the program that is stopped.
    pub(crate) program: InstanceId,
    /// The run that it stops; 0 if it was never begun, or if its end was told.
    pub(crate) run: u64,
    /// The number of the command among those of the group.
    pub(crate) index: u8,
    /// The rung of the ladder that runs it.
    pub(crate) rung: u8,
    /// The time that it has.
    pub(crate) limit: Duration,
}

stored!(struct StopOf { program, run, index, rung, limit });

/// What makes an instance that of a command.
pub(crate) struct StopCommand {
    pub(crate) of: StopOf,
    /// The policy of its lifecycle.
    pub(crate) policy: Policy,
}

impl StopCommand {
    pub(crate) fn new(of: StopOf, group: &Policy) -> StopCommand {
        let policy = policy_of(of.limit, group);
        StopCommand { of, policy }
    }
}

/// The policy of a command: it is done with exit code 0, or it has failed. What it has started ends with it.
pub(super) fn policy_of(limit: Duration, group: &Policy) -> Policy {
    let scope = if group.has_scope(Scope::Cgroup) {
        Scope::Cgroup
    } else {
        Scope::ProcessGroup
    };
    Policy {
        startup: Startup::Completes { timeout: limit },
        restart: Restart::Never,
        start_retries: 0,
        count_shortages: true,
        crash_budget: None,
        stop: StopLadder::kill(scope),
        ..Policy::default()
    }
}
