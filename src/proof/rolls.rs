//! The end of a rolling restart: it waits for nothing that does not move.
//!
//! Whether something moves is read from the states and the pending requests alone, and not from the list of the engine.

use super::host::{Broken, Host, Snapshot, snapshots};
use super::oracle::ensure;
use crate::lifecycle::State;

/// Checks the rolling restarts after a step. A group in one takes no change of its size and no reload, so one that is
/// never over keeps the host from both for ever.
pub(super) fn check(host: &Host) -> Result<(), Broken> {
    let rolls = |id| host.driver.groups.get(id).and_then(|group| group.roll.as_ref());
    for group in &host.model.groups {
        let Some((roll, _)) = rolls(group.id) else { continue };
        let members = host.model.instances.iter().filter(|known| known.group == group.id);
        let ids: Vec<_> = members.map(|known| known.id).collect();
        let now: Vec<_> = snapshots(&host.driver).filter(|now| ids.contains(&now.id)).collect();
        ensure(now.iter().any(moves), || {
            format!(
                "the rolling restart of {:?} is not over, and nothing moves: {now:?}",
                group.id
            )
        })?;
        // Another one that moves, or starts again and again, does not end a wait for this one.
        let still = roll
            .awaits()
            .find(|&id| !now.iter().any(|now| now.id == id && moves(now)));
        ensure(still.is_none(), || {
            format!("a rolling restart waits for {still:?}, which does not move: {now:?}")
        })?;
    }
    Ok(())
}

/// Whether an instance is on its way, so that a rolling restart may wait for it. One that waits in `Backoff` has not come
/// up, which ends the restart.
fn moves(now: &Snapshot) -> bool {
    let is_on_its_way = matches!(
        now.state,
        State::Preparing { .. } | State::Starting { .. } | State::Stopping(_) | State::CleaningUp { .. }
    );
    now.pending.is_some() || is_on_its_way
}
