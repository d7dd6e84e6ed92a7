//! The processes of a host that was killed: which of them live, and the proof that they are the same.
//!
//! A PID alone proves nothing, because the kernel gives it to another process after the end. The state file contains
//! the time before and after each process was made. A process that has the PID and was made in between is the same one:
//! no PID is given twice in such a short time. If the host was killed before it noted the second time, the mark of the
//! state file in the environment of the process is the proof. A process that has not executed its program yet still
//! has the memory of the host, with the state file mapped into it.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use super::core::Linux;
use super::image::{Belongings, Directories, NotTaken};
use super::run_cgroup::RunCgroup;
use super::state_file::{Birth, StateFile};
use super::watched::{Watch, Watched};
use crate::exit::{Exit, ExitRecord, Pid};
use crate::fdset::Interest;
use crate::launcher::next_look;
use crate::pidfd::PidFd;
use crate::procfs::{self, TICK};
use crate::time::Instant;

/// What became of a process.
#[derive(Debug)]
pub(crate) enum Found {
    /// It lives, or is a zombie that nobody has reaped.
    Present(PidFd),
    /// It has ended.
    Ended(ExitRecord),
    /// Whether the process with this number is the same one is not known.
    Unproven(Pid),
}

/// A process that is to be watched again.
pub(crate) struct Candidate {
    pub(crate) slot: u32,
    pub(crate) pidfd: PidFd,
    /// When its spawn began, if no execve was seen.
    pub(crate) in_flight: Option<Instant>,
    pub(crate) cgroup: Option<(PathBuf, String)>,
}

/// How often an execve that is under way is waited for, with a millisecond in between.
const PAUSES: u32 = 100;

/// Finds out what became of a process.
///
/// # Errors
/// No descriptor or memory is free, or a filter refuses pidfd_open(2).
pub(crate) fn find(birth: &Birth, pid: Pid, state: &StateFile) -> io::Result<Found> {
    let gone = |exit| Ok(Found::Ended(ExitRecord { pid, exit, usage: None }));
    if birth.pid != Some(pid) {
        return Ok(Found::Unproven(pid));
    }
    if let Some(exit) = birth.exit {
        return gone(exit);
    }
    let pidfd = match PidFd::open(pid.as_raw()) {
        Ok(pidfd) => pidfd,
        // No process has the number, or a thread of another process has it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => {
            return gone(Exit::Unknown);
        }
        Err(error) => return Err(error),
    };
    let Some(made_at) = procfs::made_at(pid) else {
        return if pidfd.is_unreaped() {
            Ok(Found::Unproven(pid))
        } else {
            gone(Exit::Unknown)
        };
    };
    let is_same = match birth.after {
        Some(after) => birth.before / TICK * TICK <= made_at && made_at <= after,
        None if made_at < birth.before / TICK * TICK => false,
        None => match is_marked(&pidfd, state) {
            Some(is_marked) => is_marked,
            None => return Ok(Found::Unproven(pid)),
        },
    };
    // What /proc said was about the process of the pidfd only if that was not reaped meanwhile.
    match is_same && pidfd.is_unreaped() {
        true => Ok(Found::Present(pidfd)),
        false => gone(Exit::Unknown),
    }
}

/// Whether a process that was made after the birth began is one of this state file's hosts; `None` if that is not
/// known.
fn is_marked(pidfd: &PidFd, state: &StateFile) -> Option<bool> {
    let pid = pidfd.pid();
    let entry = state.entry();
    for _ in 0..PAUSES {
        if procfs::has_in_environment(pid, entry.as_bytes()).unwrap_or(false) {
            return Some(true);
        }
        if !pidfd.is_alive() {
            return Some(false);
        }
        if procfs::has_never_executed(pid) && state.is_mapped_by(pid) {
            return Some(true);
        }
        // Between the old memory and the new environment there is neither.
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

impl Linux {
    /// Watches processes again. After an error nothing is watched, and no process was touched.
    pub(crate) fn take_found(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Belongings>, NotTaken> {
        let mut directories = Directories::default();
        let mut taken = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let place = candidate.cgroup.map(|(directory, name)| (directory, name.into()));
            let cgroup = place.map(|place| directories.run_cgroup(&place)).transpose()?.flatten();
            let (run_cgroup, path) = cgroup.unzip();
            taken.push(Belongings {
                slot: candidate.slot,
                run_cgroup: path,
                pipes: None,
            });
            self.watch_found(candidate.slot, candidate.pidfd, candidate.in_flight, run_cgroup)?;
        }
        Ok(taken)
    }

    fn watch_found(
        &mut self,
        slot: u32,
        pidfd: PidFd,
        in_flight: Option<Instant>,
        run_cgroup: Option<RunCgroup>,
    ) -> io::Result<()> {
        let token = self.fds.add(pidfd.as_fd(), Interest::READ)?;
        self.set_slot(token, slot);
        if let Some(run_cgroup) = &run_cgroup {
            self.run_cgroups.move_in(run_cgroup, slot);
        }
        if let Some(began) = in_flight {
            let now = self.clock.now();
            self.in_flight += 1;
            self.looks
                .set(slot, next_look(now, now.saturating_duration_since(began)));
        }
        self.put(Watched {
            pidfd,
            watch: Watch::Alive(token),
            run_cgroup,
            ready: None,
            slot,
            in_flight: None,
            inherited_flight: in_flight.map(|began| (began, std::ffi::OsString::new())),
        });
        Ok(())
    }

    /// Kills what is left in the cgroups of runs that ended while no host was there, and removes them.
    pub(crate) fn clear_cgroups(&mut self, places: Vec<(PathBuf, String)>) {
        let mut directories = Directories::default();
        for (directory, name) in places {
            // A cgroup that cannot be opened cannot be removed either.
            if let Ok(Some((run_cgroup, _))) = directories.run_cgroup(&(directory, name.into())) {
                self.retire(Some(run_cgroup));
            }
        }
    }
}
