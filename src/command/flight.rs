//! A child in flight: what it uses of the host's memory until its execve, and what became of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::error::{SpawnError, SpawnStep};
use super::plan::Staging;
use super::program::Program;
use crate::child::{Child, DROP_WAIT, Pipes};
use crate::exit::Pid;
use crate::lost;
use crate::pidfd::PidFd;
use crate::poll::is_ready;
use crate::procfs;
use crate::sys::guarded::{Abandon, Guarded};
use crate::sys::process::KeepDumpable;
use crate::sys::spawn::flight::Flight;
use crate::sys::wait::{Wait, wait};

/// Everything in the parent's memory and descriptor table that one child uses before its program runs.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) flight: Flight,
    pub(super) staging: Staging,
    pub(super) program: Option<Program>,
    /// The path of the cgroup that the child enters itself.
    pub(super) entered: Option<PathBuf>,
    /// Present while a child changes its ids.
    pub(super) dumpable: Option<KeepDumpable>,
    pub(super) began: Instant,
    /// Whether the host has waited for the child.
    pub(super) waited: bool,
    /// Whether the host has signalled the child in flight.
    pub(super) signalled: bool,
}

/// A child that exists and is not known to run its program yet. [`Spawner::begin`](super::Spawner::begin) makes it, and [`Spawner::finish`](super::Spawner::finish)
/// returns the result.
///
/// Dropping it sends SIGKILL, waits for at most a second, and reaps, like dropping a [`Child`]. If the child has not
/// ended by then, its resources are kept until it has released them. A later spawn of any spawner frees them and reaps
/// the child.
#[derive(Debug)]
pub struct Spawning(pub(super) Guarded<Begun>);

#[derive(Debug)]
pub(super) struct Begun {
    pub(super) child: Child,
    pub(super) launch: Box<Launch>,
}

/// The progress of a spawn in flight.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnProgress {
    /// The child has not called execve yet, or its execve has not returned.
    InFlight(Spawning),
    /// The program runs, or has run.
    Running(Child),
    /// A step of the child failed. The child was reaped, and nothing is left of it.
    Failed(SpawnError),
    /// The child was killed before its program could run. It can be waited for like any child.
    Killed(Child),
}

/// The resources of a child in flight, apart from the child itself.
#[derive(Debug)]
pub(crate) struct InFlight(pub(super) Box<Launch>);

/// The progress of a child in flight.
#[derive(Debug)]
pub(crate) enum Flown {
    /// The child is still in flight.
    Not(InFlight),
    /// The child has executed its program, and may be known to have ended since. It was not reaped.
    Executed { ended: bool },
    /// A step failed, and the child was reaped.
    Failed(SpawnError),
    /// The child ended before its program was executed, and was not reaped.
    Killed,
}

impl Launch {
    pub(super) fn new() -> io::Result<Launch> {
        Ok(Launch {
            flight: Flight::new()?,
            staging: Staging::new(),
            program: None,
            entered: None,
            dumpable: None,
            began: Instant::now(),
            waited: false,
            signalled: false,
        })
    }

    /// Keeps the resources that this child may still use.
    pub(super) fn keep_for(self: Box<Self>, pidfd: PidFd) {
        let Launch { flight, dumpable, .. } = *self;
        lost::keep(flight, dumpable, pidfd);
    }
}

/// An execve that lasts longer than this is rare, so an additional check costs little.
const LONG_EXECVE: Duration = Duration::from_millis(10);

impl Launch {
    /// Whether a child that has released the memory without a failed step was killed before its program ran, or has
    /// executed it.
    ///
    /// A child that is killed releases the memory shortly before waitid(2) and its pidfd show the end. Only `/proc`
    /// distinguishes this from an execve, and reading it takes as long as a spawn. It is read if the host has signalled
    /// the child, or if the execve has lasted long. On a busy machine many last long, and the stat of such a child can
    /// be read only after its execve: so the size of its memory is asked for first. A kill by another process within the
    /// first milliseconds is unlikely to be missed.
    pub(super) fn landed(&self, pidfd: &PidFd) -> Flown {
        if !self.flight.has_reached_exec() {
            return Flown::Killed;
        }
        let (was_killed, ended) = match wait(pidfd.as_fd(), Wait::Peek) {
            Ok(Some((exit, _))) => (exit.signal().is_some() && procfs::has_never_executed(pidfd.pid()), true),
            // The kernel reaps a bound child at once, and keeps no trace of its execve.
            Err(_) if has_ended(pidfd) => {
                let record = pidfd.peek().ok().flatten();
                let is_by_signal = record.is_some_and(|record| record.exit.signal().is_some());
                (self.signalled && is_by_signal, true)
            }
            Ok(None) | Err(_) => {
                let may_be_killed = self.signalled || self.began.elapsed() >= LONG_EXECVE;
                let may_be_killed = may_be_killed && !procfs::has_memory_of_its_own(pidfd.pid());
                (may_be_killed && procfs::ends_unexecuted(pidfd.pid()), false)
            }
        };
        if was_killed {
            Flown::Killed
        } else {
            Flown::Executed { ended }
        }
    }
}

impl InFlight {
    /// Whether a step of the child has failed, so that the child ends.
    pub(crate) fn has_failed(&self) -> bool {
        !self.0.flight.is_in_use() && self.0.flight.failure().is_some()
    }

    /// Whether the child has executed its program, unless it was killed before.
    pub(crate) fn has_executed(&self) -> bool {
        let flight = &self.0.flight;
        !flight.is_in_use() && flight.has_reached_exec() && flight.failure().is_none()
    }

    /// The time since the spawn began.
    pub(crate) fn age(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// The name of the program that the child executes.
    pub(crate) fn program_name(&self) -> OsString {
        let program = self.0.program.as_ref();
        program.map_or_else(OsString::new, |program| program.name().to_owned())
    }

    /// Records that the host has sent a signal to the child.
    pub(crate) const fn note_signal(&mut self) {
        self.0.signalled = true;
    }
}

impl Abandon for Begun {
    fn abandon(self) {
        self.end_until(Instant::now() + DROP_WAIT);
    }
}

impl Begun {
    pub(super) fn end_until(self, until: Instant) {
        let is_here = self.child.is_here();
        let pidfd = self.child.end_until(until);
        if self.launch.flight.is_in_use() {
            self.launch.keep_for(pidfd);
        } else if is_here {
            lost::keep_unreaped(pidfd);
        }
    }
}

impl Launch {
    /// The error of the step that failed in the child; `None` if no step has failed.
    pub(super) fn failure(&self, program: &Program) -> Option<SpawnError> {
        self.flight
            .failure()
            .map(|(label, errno)| self.error(program, label, errno))
    }

    /// The error of a step that failed in the child.
    pub(super) fn error(&self, program: &Program, label: usize, errno: i32) -> SpawnError {
        let error = program.0.failed(label, errno, self.flight.inquiry());
        match self.entered.as_ref().filter(|_| error.step() == SpawnStep::Cgroup) {
            Some(path) => error.about_path(path.clone()),
            None => error,
        }
    }
}

impl Spawning {
    /// The PID of the child, for display.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0.child.pid()
    }

    /// The pidfd of the child. It becomes readable when the child has ended, also because a step failed, and not when
    /// its program begins to run.
    #[must_use]
    pub fn pidfd(&self) -> &PidFd {
        self.0.child.pidfd()
    }

    /// The child without its guard, and its resources.
    pub(crate) fn into_parts(self) -> (PidFd, Pipes, InFlight) {
        let Begun { child, launch } = self.0.into_inner();
        let (pidfd, pipes) = child.into_parts();
        (pidfd, pipes, InFlight(launch))
    }

    /// Whether [`Spawner::finish`](super::Spawner::finish) has a result. Makes no system call; a failed step can take a moment longer.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.0.launch.flight.is_in_use()
    }

    /// Simulates a kernel that has not zeroed the word.
    #[cfg(test)]
    pub(crate) fn pretend_in_flight(&mut self) {
        self.0.launch.flight.pretend_in_use();
    }

    /// Whether the spawn had to wait for the child, so that [`Spawner::finish`](super::Spawner::finish) has a result from the start.
    pub(crate) fn was_waited_for(&self) -> bool {
        self.0.launch.waited
    }

    /// Whether the child has ended. [`Spawner::finish`](super::Spawner::finish) then has a result, unless a tracer (ptrace(2)) holds the child.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(self.0.child.pidfd())
    }

    /// Does the same as dropping it, with another limit for the wait.
    pub(crate) fn end_until(self, until: Instant) {
        self.0.into_inner().end_until(until);
    }
}

/// Reaps a child with a failed step. The child is exiting, so the wait is short.
pub(super) fn reap_failed(child: Child) {
    // An error can only mean that the child was already reaped.
    let _gone = child.pidfd().wait_and_reap();
    child.detach();
}

pub(super) fn has_ended(pidfd: &PidFd) -> bool {
    is_ready(pidfd, PollFlags::IN).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use super::super::{Command, Spawner, Stdio};
    use super::*;
    use crate::exit::Exit;
    use crate::signal::Signal;
    use crate::sys::process::core_dump_ends_sharers;
    use crate::sys::spawn::clone::Method;
    use crate::testing::common::lease::Lease;
    use crate::testing::common::processes::state;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::tracer::Tracer;
    use crate::testing::common::{SOON, TempDir, isolated, skipped, tempdir, wait_readable, wait_until};

    fn sh(script: &str) -> Command {
        Command::new("/bin/sh").arg("-c").arg(script)
    }

    fn begin(spawner: &mut Spawner, command: &Command) -> Spawning {
        spawner.begin(&command.compile().unwrap()).unwrap()
    }

    /// A command with an execve that waits for the end of the lease. `None` if no file here can have one.
    fn held_program() -> Option<(TempDir, Command, Lease)> {
        let place = tempdir();
        let path = place.join("program");
        std::fs::copy("/bin/true", &path).unwrap();
        let lease = Lease::take(&path)?;
        Some((place, Command::new(path), lease))
    }

    /// What a spawner finds out about a child that has run the script and was reaped by other code, and how it ended.
    fn flown_after_reaping(script: &str, is_signalled: bool) -> (Flown, Exit) {
        let mut spawner = Spawner::new().unwrap();
        let (pidfd, _pipes, mut in_flight) = begin(&mut spawner, &sh(script)).into_parts();
        if is_signalled {
            in_flight.note_signal();
        }
        pidfd.wait_and_reap().unwrap();
        let known = pidfd.peek().unwrap().unwrap().exit;
        (spawner.look(in_flight, &pidfd), known)
    }

    /// As for a child that is bound to its host, which the kernel reaps at once.
    #[test]
    fn a_child_that_was_reaped_has_executed_unless_the_host_has_signalled_it_and_a_signal_ended_it() {
        for (script, is_signalled) in [("exit 0", false), ("exit 0", true), ("kill -9 $$", false)] {
            let (flown, _) = flown_after_reaping(script, is_signalled);
            let has_executed = matches!(flown, Flown::Executed { ended: true });
            assert!(has_executed, "{script}, {is_signalled}: {flown:?}");
        }
        let (flown, exit) = flown_after_reaping("kill -9 $$", true);
        if exit == Exit::Unknown {
            return skipped("the kernel keeps no status of a process that was reaped (Linux 6.15)");
        }
        assert!(matches!(flown, Flown::Killed), "{flown:?}");
    }

    #[test]
    fn a_child_that_cannot_be_waited_for_has_not_ended() {
        let (pidfd, input, flown) = refusing(libc::SYS_waitid, libc::EPERM, || {
            let mut spawner = Spawner::new().unwrap();
            let spawning = begin(&mut spawner, &Command::new("cat").stdin(Stdio::piped()));
            wait_until("the program runs", SOON, || spawning.is_finished());
            let (pidfd, pipes, in_flight) = spawning.into_parts();
            let flown = spawner.look(in_flight, &pidfd);
            (pidfd, pipes.stdin, flown)
        });
        drop(input);
        pidfd.wait_and_reap().unwrap();
        assert!(matches!(flown, Flown::Executed { ended: false }), "{flown:?}");
    }

    /// A tracer holds its status, so that waitid(2) does not show the end.
    #[test]
    fn an_end_before_the_execve_is_noticed_if_the_host_has_signalled_or_the_execve_takes_long() {
        isolated(|| {
            let hour = Duration::from_secs(3600);
            for (is_signalled, began) in [
                (true, Instant::now() + hour),
                (false, Instant::now().checked_sub(LONG_EXECVE).unwrap()),
            ] {
                if cfg!(pidherd_portable) {
                    return skipped("the portable path waits for exec");
                }
                let Some((_place, command, lease)) = held_program() else {
                    return;
                };
                let mut spawner = Spawner::new().unwrap();
                let (pidfd, _pipes, mut in_flight) = begin(&mut spawner, &command).into_parts();
                let pid = pidfd.pid().as_raw();
                Lease::wait_for(pid);
                let tracer = Tracer::attach(pid);
                if tracer.is_none() || !procfs::has_never_executed(pidfd.pid()) {
                    pidfd.signal(Signal::KILL).unwrap();
                    drop(tracer);
                    pidfd.wait_and_reap().unwrap();
                    // The second was seen on Linux 5.10 in user mode.
                    return skipped(
                        "a child cannot be traced here, or then does not wait for the lease of its program",
                    );
                }
                pidfd.signal(Signal::KILL).unwrap();
                wait_until("the child has ended", SOON, || state(pid) == Some('Z'));
                in_flight.0.began = began;
                if is_signalled {
                    in_flight.note_signal();
                }
                let flown = spawner.look(in_flight, &pidfd);
                drop(tracer);
                pidfd.wait_and_reap().unwrap();
                lease.end();
                assert!(matches!(flown, Flown::Killed), "{is_signalled}: {flown:?}");
            }
        });
    }

    #[test]
    fn a_spawn_has_failed_or_executed_when_the_child_has_released_the_memory() {
        let mut spawner = Spawner::new().unwrap();
        let commands = [
            (sh(""), false),
            (sh("").current_dir("/no/such"), true),
            (Command::new("/no/such"), true),
        ];
        for (command, fails) in commands {
            let mut spawning = begin(&mut spawner, &command);
            assert!(wait_readable(spawning.pidfd(), SOON));
            spawning.pretend_in_flight();
            let (pidfd, _pipes, mut in_flight) = spawning.into_parts();
            assert!(
                !in_flight.has_failed() && !in_flight.has_executed(),
                "{command:?} in flight"
            );
            in_flight.0.flight.child_has_ended();
            assert_eq!(in_flight.has_failed(), fails, "{command:?}");
            assert_eq!(in_flight.has_executed(), !fails, "{command:?}");
            pidfd.wait_and_reap().unwrap();
        }
    }

    #[test]
    fn the_child_of_a_spawn_ends_when_it_is_killed() {
        let mut spawner = Spawner::new().unwrap();
        let spawning = begin(&mut spawner, &Command::new("sleep").arg("1000"));
        assert!(!spawning.has_ended());
        spawning.pidfd().signal(Signal::KILL).unwrap();
        assert!(wait_readable(spawning.pidfd(), SOON));
        assert!(spawning.has_ended());
    }

    #[test]
    fn a_spawn_waits_for_the_child_only_without_clone3_or_if_the_command_needs_it() {
        let mut spawner = Spawner::new().unwrap();
        let is_portable = cfg!(pidherd_portable);
        assert_eq!(begin(&mut spawner, &sh("")).was_waited_for(), is_portable);
        assert!(begin(&mut spawner, &sh("").oom_score_adj(1000)).was_waited_for());
        refusing(libc::SYS_clone3, libc::ENOSYS, || {
            for _ in 0..2 {
                assert!(begin(&mut spawner, &sh("")).was_waited_for());
            }
        });
        spawner.method = Method::Clone;
        assert!(begin(&mut spawner, &sh("")).was_waited_for());
    }

    #[test]
    fn the_host_can_dump_core_beside_a_child_in_flight_unless_that_would_end_the_host() {
        isolated(|| {
            if cfg!(pidherd_portable) {
                return skipped("the portable path waits for exec");
            }
            let Some((_place, command, lease)) = held_program() else {
                return;
            };
            let before = dumpable_behavior().unwrap();
            let mut spawner = Spawner::new().unwrap();
            let spawning = begin(&mut spawner, &command);
            Lease::wait_for(spawning.pid().as_raw());
            let expected = if core_dump_ends_sharers() {
                DumpableBehavior::NotDumpable
            } else {
                before
            };
            assert_eq!(dumpable_behavior().unwrap(), expected);
            lease.end();
            assert!(wait_readable(spawning.pidfd(), SOON));
            let SpawnProgress::Running(mut child) = spawner.finish(spawning) else {
                panic!("it was not killed")
            };
            assert!(child.wait().unwrap().exit.success());
            assert_eq!(dumpable_behavior().unwrap(), before);
        });
    }
}
