//! Children that were killed and dropped before they had ended.
//!
//! SIGKILL usually ends a child in microseconds. It does not if the child hangs in the kernel, gets no processor on an
//! overloaded machine, or has changed its ids in a host without CAP_KILL. The pidfd of such a child is kept until the
//! child has ended and is reaped, so that it leaves no zombie.
//!
//! A child whose spawn is in flight still shares the memory of the host. Everything that it may use is kept until it has
//! released the memory: its stack and its steps, and the cleared dumpable flag of the host, without which the new user
//! of the child could read this memory.
//!
//! The list belongs to the process, because a supervisor or a spawner can be dropped together with its children. The next
//! spawn of any spawner checks the list.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use crate::owner::Owner;
use crate::pidfd::{Look, PidFd};
use crate::sys::process::KeepDumpable;
use crate::sys::spawn::flight::Flight;
use crate::sys::wait::{Wait, wait};

static LOST: Mutex<Vec<Lost>> = Mutex::new(Vec::new());

/// The length of the list, for a check without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Lost {
    owner: Owner,
    pidfd: PidFd,
    /// The shared memory; `None` after the child has released it.
    shared: Option<(Flight, Option<KeepDumpable>)>,
}

/// Keeps the resources that the child of this pidfd may still use, until the child has released them, and the pidfd until
/// the child was reaped.
pub(crate) fn keep(flight: Flight, dumpable: Option<KeepDumpable>, pidfd: PidFd) {
    let shared = (flight, dumpable);
    add(pidfd, Some(shared).filter(|(flight, _)| flight.is_in_use()));
}

/// Keeps the pidfd of a child that shares no memory with the host, until the child was reaped.
pub(crate) fn keep_unreaped(pidfd: PidFd) {
    if is_left(&pidfd) {
        add(pidfd, None);
    }
}

/// The same for the pidfd of another owner. Without a free descriptor the child is not reaped.
pub(crate) fn keep_copy_if_unreaped(pidfd: &PidFd) {
    if is_left(pidfd) {
        if let Ok(copy) = pidfd.try_clone() {
            add(copy, None);
        }
    }
}

/// Reaps the child if it has ended. Returns whether it must be reaped later. That is never so for a process that is not a
/// child of this one, or no longer. A child that is bound to its pidfd leaves no zombie, and the kernel kills it when the
/// last copy is closed, so none may be kept.
fn is_left(pidfd: &PidFd) -> bool {
    matches!(wait(pidfd.as_fd(), Wait::Reap), Ok(None)) && !pidfd.is_bound()
}

fn add(pidfd: PidFd, shared: Option<(Flight, Option<KeepDumpable>)>) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    lost.push(Lost {
        owner: Owner::this_process(),
        pidfd,
        shared,
    });
    COUNT.store(lost.len(), Ordering::Relaxed);
}

/// Frees the resources that no child uses any more. Costs one atomic load if nothing is kept.
pub(crate) fn free() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut lost = match LOST.try_lock() {
        Ok(lost) => lost,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Another thread is checking the list.
        Err(TryLockError::WouldBlock) => return,
    };
    lost.retain_mut(Lost::is_kept);
    COUNT.store(lost.len(), Ordering::Relaxed);
}

impl Lost {
    /// Reaps the child if it has ended. A child that runs its program is reaped by a later call.
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
        self.shared.is_some() || is_left(&self.pidfd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::signal::Signal;
    use crate::testing::common::{SOON, isolated, wait_until};

    /// Keeps the pidfd of a process that lives on.
    fn keeps(keep: impl FnOnce(PidFd)) {
        isolated(|| {
            let pidfd = Command::new("sleep").arg("1000").spawn().unwrap().into_pidfd();
            let own = pidfd.try_clone().unwrap();
            keep(pidfd);
            free();
            own.signal(Signal::KILL).unwrap();
            wait_until("a later look reaps it", SOON, || {
                free();
                !own.is_unreaped()
            });
        });
    }

    #[test]
    fn a_process_that_lives_on_is_reaped_after_its_end() {
        keeps(keep_unreaped);
    }

    #[test]
    fn a_process_that_is_no_child_is_not_kept() {
        isolated(|| {
            let own = PidFd::open(std::process::id()).unwrap();
            keep_copy_if_unreaped(&own);
            keep_unreaped(own);
            assert_eq!(COUNT.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_process_with_another_owner_is_reaped_after_its_end() {
        keeps(|pidfd| keep_copy_if_unreaped(&pidfd));
    }
}
