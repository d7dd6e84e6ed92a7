//! What is left to be done about the siblings of an instance that has ended ([`siblings`](super::siblings)).

use super::ids::{GroupId, InstanceId};
use crate::lifecycle::{Cause, Reaction};

/// The siblings of an instance that has ended are told of it one by one. They are marked at the time of the end
/// ([`Instance::is_untold`](super::instance::Instance)).
pub(crate) struct Telling {
    pub(crate) ended: InstanceId,
    pub(crate) group: GroupId,
    /// Its run that has ended.
    pub(super) run: u64,
    /// The number of the next sibling.
    pub(super) next: u32,
}

/// Whether a run begins that no end of before concerns: not one that follows another by the policy.
pub(super) fn begins_apart(reaction: &Reaction) -> bool {
    let is_apart = |cause| matches!(cause, Cause::Requested | Cause::CoolOffOver | Cause::Adopted);
    reaction
        .transitions()
        .any(|step| step.begins_run() && is_apart(step.cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, Pid};
    use crate::lifecycle::{Input, Lifecycle, Policy, Restart};
    use crate::time::Instant;

    #[test]
    fn only_a_run_that_was_asked_for_begins_apart() {
        let policy = Policy {
            restart: Restart::Always,
            ..Policy::default()
        };
        let mut life = Lifecycle::new(&policy, 1);
        let pid = Pid::new(1).unwrap();
        let mut handle = |input| begins_apart(&life.handle(&policy, input, Instant::ZERO));
        assert!(handle(Input::Start));
        assert!(!handle(Input::Spawned(pid)));
        assert!(!handle(Input::Ready));
        assert!(
            !handle(Input::Exited(Exit::Code(0))),
            "it is started again by the policy"
        );
        assert!(!handle(Input::Spawned(pid)));
        assert!(!handle(Input::Stop));
    }
}
