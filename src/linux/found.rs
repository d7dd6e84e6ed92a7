//! The processes of a host that was killed, as the kernel shows them to the next host. What proves that a process is
//! the same is decided in [`recovery`](crate::engine::recovery).
//!
//! The mark of a state file is in the environment of a process. A process that has not executed its program yet still
//! has the memory of the host, with the state file mapped into it.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use super::core::Linux;
use super::image::{Belongings, Directories, NotTaken};
use super::run_cgroup::RunCgroup;
use super::state_file::StateFile;
use super::watched::{Rest, Watch, Watched};
use crate::engine::recovery::{Birth, Candidate, Found, Suspect};
use crate::exit::Pid;
use crate::fdset::Interest;
use crate::launcher::next_look;
use crate::pidfd::PidFd;
use crate::procfs::{self, TICK};
use crate::time::Instant;

/// How often an execve that is under way is waited for, with a millisecond in between.
const PAUSES: u32 = 100;

/// The process that has a number now.
struct Opened<'a> {
    pidfd: PidFd,
    state: &'a StateFile,
}

/// Finds out what became of a process.
///
/// # Errors
/// No descriptor or memory is free, or a filter refuses pidfd_open(2).
pub(crate) fn find(birth: &Birth, pid: Pid, state: &StateFile) -> io::Result<Found<PidFd>> {
    let open = |pid: Pid| match PidFd::open(pid.as_raw()) {
        Ok(pidfd) => Ok(Some(Opened { pidfd, state })),
        // No process has the number, or a thread of another process has it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    };
    Ok(match birth.find(pid, open)? {
        Found::Present(opened) => Found::Present(opened.pidfd),
        Found::Ended(record) => Found::Ended(record),
        Found::Unproven(pid) => Found::Unproven(pid),
    })
}

impl Suspect for Opened<'_> {
    const TICK: u64 = TICK;

    fn made_at(&self) -> Option<u64> {
        procfs::made_at(self.pidfd.pid())
    }

    fn is_marked(&self) -> Option<bool> {
        is_marked(&self.pidfd, self.state)
    }

    fn is_unreaped(&self) -> bool {
        self.pidfd.is_unreaped()
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
    pub(crate) fn take_found(&mut self, candidates: Vec<Candidate<PidFd>>) -> Result<Vec<Belongings>, NotTaken> {
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
            self.watch_found(candidate.slot, candidate.process, candidate.in_flight, run_cgroup)?;
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
        if let Some(state) = &self.state {
            state.end_found(slot, pidfd.pid());
        }
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
            slot,
            in_flight: None,
            rest: Rest {
                run_cgroup,
                inherited_flight: in_flight.map(|began| (began, std::ffi::OsString::new())),
                ..Rest::default()
            }
            .boxed(),
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;
    use crate::command::Spawner;
    use crate::engine::kernel::Kernel;
    use crate::engine::run_command::MARK;
    use crate::exit::Exit;
    use crate::testing::common::fork::waiting_copy;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{SOON, TempDir, isolated, tempdir, test_cgroup, wait_gone, wait_until};
    use crate::timerfd::Clock;

    fn state() -> (TempDir, StateFile) {
        let directory = tempdir();
        let state = StateFile::open(&directory.join("state")).unwrap().0;
        (directory, state)
    }

    fn sleep(mark: &str) -> Child {
        let child = Command::new("sleep").arg("1000").env(MARK, mark).spawn().unwrap();
        // For a moment after the spawn it still has the memory of this process.
        let pid = Pid::new(child.id()).unwrap();
        wait_until("it has executed its program", SOON, || !procfs::has_never_executed(pid));
        child
    }

    /// What became of a process, of which the host had not noted the time after it was made.
    fn found(number: u32, state: &StateFile) -> io::Result<Found<u32>> {
        let pid = Pid::new(number).unwrap();
        let birth = Birth {
            number: 1,
            pid: Some(pid),
            ..Birth::default()
        };
        Ok(match find(&birth, pid, state)? {
            Found::Present(pidfd) => Found::Present(pidfd.pid().as_raw()),
            Found::Ended(record) => Found::Ended(record),
            Found::Unproven(pid) => Found::Unproven(pid),
        })
    }

    fn has_ended(found: &io::Result<Found<u32>>) -> bool {
        matches!(found, Ok(Found::Ended(record)) if record.exit == Exit::Unknown)
    }

    fn end(pid: u32) {
        let pidfd = PidFd::open(pid).unwrap();
        pidfd.signal(crate::Signal::KILL).unwrap();
        pidfd.wait_and_reap().unwrap();
    }

    #[test]
    fn a_process_of_a_host_has_its_mark_or_still_its_memory() {
        isolated(|| {
            let (_directory, state) = state();
            for pid in [sleep(state.mark()).id(), waiting_copy()] {
                let found = found(pid, &state).unwrap();
                assert!(matches!(found, Found::Present(present) if present == pid), "{found:?}");
                end(pid);
            }
            // A zombie has neither.
            let mut child = sleep(state.mark());
            child.kill().unwrap();
            assert!(wait_gone(child.id(), SOON));
            assert!(has_ended(&found(child.id(), &state)));
            child.wait().unwrap();
        });
    }

    #[test]
    fn a_process_of_another_host_is_not_proven() {
        isolated(|| {
            let (_directory, state) = state();
            let pid = sleep("another").id();
            let found = found(pid, &state).unwrap();
            assert!(matches!(found, Found::Unproven(_)), "{found:?}");
            end(pid);
        });
    }

    #[test]
    fn a_process_before_its_execve_without_the_memory_of_the_host_is_not_proven() {
        isolated(|| {
            let pid = waiting_copy();
            let (_directory, state) = state();
            let found = found(pid, &state).unwrap();
            assert!(matches!(found, Found::Unproven(_)), "{found:?}");
            end(pid);
        });
    }

    #[test]
    fn a_number_without_a_process_is_that_of_one_that_has_ended() {
        let (_directory, state) = state();
        let found = |errno| refusing(libc::SYS_pidfd_open, errno, || found(std::process::id(), &state));
        for errno in [libc::ESRCH, libc::EINVAL, libc::ENOENT] {
            assert!(has_ended(&found(errno)), "{errno}");
        }
        for errno in [libc::EMFILE, libc::EPERM] {
            assert_eq!(found(errno).unwrap_err().raw_os_error(), Some(errno));
        }
    }

    #[test]
    fn the_number_of_a_reaped_process_is_not_its_own() {
        isolated(|| {
            let (_directory, state) = state();
            let mut child = sleep(state.mark());
            let pidfd = PidFd::open(child.id()).unwrap();
            let opened = Opened { pidfd, state: &state };
            assert!(opened.is_unreaped());
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!opened.is_unreaped());
        });
    }

    #[test]
    fn a_spawn_in_flight_that_is_found_is_counted_and_looked_at() {
        let mut linux = Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap();
        let candidate = |slot, in_flight| Candidate {
            slot,
            process: PidFd::open(std::process::id()).unwrap(),
            in_flight,
            cgroup: None,
        };
        let began = linux.clock.now();
        linux.take_found(vec![candidate(0, None)]).unwrap();
        assert_eq!((linux.in_flight, linux.looks.earliest()), (0, None));
        assert!(linux.process(0).unwrap().rest.is_none(), "nothing is allocated");
        linux
            .take_found(vec![candidate(1, Some(began)), candidate(2, Some(began))])
            .unwrap();
        assert_eq!(linux.in_flight, 2);
        assert!(linux.looks.earliest().is_some_and(|look| look > began));
        assert!(linux.process(2).unwrap().inherited_flight().is_some());
    }
    #[test]
    fn the_cgroups_of_runs_that_have_ended_are_emptied_and_removed() {
        isolated(|| {
            let Some(cgroup) = test_cgroup() else { return };
            let mut linux = Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap();
            let run = cgroup.path().join("run");
            fs::create_dir(&run).unwrap();
            let mut child = sleep("none");
            fs::write(run.join("cgroup.procs"), child.id().to_string()).unwrap();
            let (here, elsewhere) = (cgroup.path().to_owned(), cgroup.path().join("none"));
            let places = [(&here, "gone"), (&elsewhere, "run"), (&here, "run")];
            linux.clear_cgroups(places.map(|(path, name)| (path.clone(), name.to_owned())).into());
            assert!(wait_gone(child.id(), SOON));
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
            linux.close(linux.now().saturating_add(SOON));
            assert!(!run.exists());
        });
    }
}
