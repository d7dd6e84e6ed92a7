//! Processes that were started elsewhere, and processes that go on by themselves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::core::Linux;
use super::run_cgroup::RunCgroup;
use super::watched::{Watch, Watched};
use crate::fdset::Interest;
use crate::pidfd::PidFd;

impl Linux {
    /// The pidfd of the process in this slot.
    pub(crate) fn pidfd(&self, slot: u32) -> Option<&PidFd> {
        self.process(slot).map(|process| &process.pidfd)
    }

    /// Whether the process in this slot is frozen with its cgroup.
    pub(crate) fn is_frozen(&self, slot: u32) -> bool {
        let run_cgroup = self.process(slot).and_then(|process| process.run_cgroup());
        run_cgroup.is_some_and(RunCgroup::is_frozen)
    }

    /// Watches a process that was started elsewhere, in a slot without a process.
    ///
    /// # Errors
    /// Of epoll_ctl(2), with the pidfd.
    pub(crate) fn take_in(&mut self, slot: u32, pidfd: PidFd) -> Result<(), (PidFd, io::Error)> {
        let token = match self.fds.add(pidfd.as_fd(), Interest::READ) {
            Ok(token) => token,
            Err(error) => return Err((pidfd, error)),
        };
        self.set_slot(token, slot);
        self.put(Watched {
            pidfd,
            watch: Watch::Alive(token),
            slot,
            in_flight: None,
            rest: None,
        });
        Ok(())
    }

    /// Stops watching a process, which lives on, and returns a pidfd of it. `None` if the slot has no process.
    ///
    /// # Errors
    /// EMFILE: the set may keep the descriptor that it watches, and no other is free. Nothing has changed.
    pub(crate) fn let_go(&mut self, slot: u32) -> io::Result<Option<PidFd>> {
        let Some(process) = self.process(slot) else {
            return Ok(None);
        };
        let kept = process.pidfd.try_clone()?;
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::take) else {
            return Ok(None);
        };
        self.looks.clear(slot);
        if let Some((ready, token)) = process.rest.and_then(|rest| rest.ready) {
            drop(self.fds.remove(token, OwnedFd::from(ready)));
        }
        if let Watch::Alive(token) | Watch::Reaped(token) = process.watch {
            self.forget(token, process.pidfd);
        }
        Ok(Some(kept))
    }
}
