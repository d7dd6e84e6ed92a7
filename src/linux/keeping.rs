//! What is kept of a process that has ended while its stop goes on: its pidfd, outside of the set, to reach the others.

use std::io;
use std::os::fd::AsFd;

use super::core::Linux;
use super::watched::{Watch, Watched, reaches_group, send};
use crate::exit::ExitRecord;
use crate::lifecycle::Scope;
use crate::signal::Signal;
use crate::sys::wait::Wait;

impl Linux {
    /// Reaps a process that is being stopped and has ended, so that the other processes of its scope can still be
    /// signalled.
    pub(super) fn keep_others(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        let record = self.keep_group(process)?;
        if let (Some(_), Some(run_cgroup)) = (record, process.run_cgroup_mut()) {
            // Without this descriptor, looking from time to time finds the empty cgroup.
            if let Ok(token) = run_cgroup.watch(&mut self.fds) {
                self.set_slot(token, process.slot);
            }
        }
        Ok(record)
    }

    /// Takes a process that has ended out of the set, and keeps a descriptor of it.
    fn keep_group(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        // Since Linux 6.9 a pidfd reaches the process group while it has members. On an older kernel, and if a filter
        // refuses the call, only the number of the group reaches it. An unreaped leader keeps that number from being
        // given to another process.
        let by_pidfd = reaches_group(process);
        let Some(record) = self.look(process, if by_pidfd { Wait::Reap } else { Wait::Peek })? else {
            return Ok(None);
        };
        // Without the pidfd, /proc tells what is left of the group, and each look at it needs a free descriptor too.
        let taken = if by_pidfd {
            self.take_out(process)
        } else {
            self.replace(process)
        };
        if let Err(error) = taken {
            let Watch::Alive(token) = process.watch else {
                return Err(error);
            };
            // No descriptor is free to wait with, so everything that cannot be watched is killed.
            let _gone = send(process, Signal::KILL, Scope::ProcessGroup);
            process.watch = Watch::Reaped(token);
            return if process.pidfd.reap()?.is_some() {
                Ok(Some(record))
            } else {
                Err(error)
            };
        }
        process.watch = if by_pidfd { Watch::Group } else { Watch::Zombie };
        Ok(Some(record))
    }

    /// Takes the descriptor of a process out of the set. A host that tracks changes gets it, to close it, and the process
    /// keeps a copy.
    pub(super) fn take_out(&mut self, process: &mut Watched) -> io::Result<()> {
        if let Watch::Alive(token) | Watch::Reaped(token) = process.watch {
            if self.fds.release(token, process.pidfd.as_fd()) {
                return Ok(());
            }
        }
        self.replace(process)
    }

    /// Replaces the descriptor of a process in the set by a copy that is not in the set.
    fn replace(&mut self, process: &mut Watched) -> io::Result<()> {
        if let Watch::Alive(token) | Watch::Reaped(token) = process.watch {
            let kept = process.pidfd.try_clone()?;
            let watched = std::mem::replace(&mut process.pidfd, kept);
            self.forget(token, watched);
        }
        Ok(())
    }
}
