//! Spawns in flight that were dropped before their children had ended.
//!
//! SIGKILL ends a child in microseconds, but for one that hangs in the kernel, that gets no processor on an overloaded
//! machine, or that has changed its ids in a host without CAP_KILL. Such a child still shares the memory of the host. What
//! it may use is kept until it lets go: its stack and its steps, and the dumpable flag of the host, which would open this
//! memory to the user that the child has become. Its zombie is reaped when it has ended.
//!
//! The list belongs to the process, since a spawner can be dropped together with its spawns. The next spawn of any
//! spawner looks through it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use crate::owner::Owner;
use crate::pidfd::{Look, PidFd};
use crate::sys::process::KeepDumpable;
use crate::sys::spawn::flight::Flight;
use crate::sys::wait::Wait;

static LOST: Mutex<Vec<Lost>> = Mutex::new(Vec::new());

/// How many there are, for a look without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Lost {
    owner: Owner,
    pidfd: PidFd,
    /// `None` once the child has let go of it.
    shared: Option<(Flight, Option<KeepDumpable>)>,
}

/// Keeps what the child of this pidfd may still use.
pub(super) fn keep(flight: Flight, dumpable: Option<KeepDumpable>, pidfd: PidFd) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    lost.push(Lost {
        owner: Owner::this_process(),
        pidfd,
        shared: Some((flight, dumpable)),
    });
    COUNT.store(lost.len(), Ordering::Relaxed);
}

/// Frees what no child uses any more. Costs nothing if nothing is kept.
pub(super) fn free() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut lost = match LOST.try_lock() {
        Ok(lost) => lost,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Another thread is at it.
        Err(TryLockError::WouldBlock) => return,
    };
    lost.retain_mut(Lost::is_kept);
    COUNT.store(lost.len(), Ordering::Relaxed);
}

impl Lost {
    /// Reaps the child if it has ended. One that runs its program is reaped later.
    fn is_kept(&mut self) -> bool {
        if !self.owner.is_here() {
            return false;
        }
        let look = self.pidfd.look(Wait::Reap);
        let has_ended = matches!(look, Ok(Look::Ended(_) | Look::Held | Look::Unreaped));
        if let Some((flight, _)) = self.shared.as_mut().filter(|_| has_ended) {
            flight.child_has_ended();
        }
        self.shared.take_if(|(flight, _)| !flight.is_in_use());
        self.shared.is_some() || matches!(look, Ok(Look::Alive | Look::Held))
    }
}
