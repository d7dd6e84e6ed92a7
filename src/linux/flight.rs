//! Spawns in flight: how they begin, when they are looked at, and how the news of their execve comes.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;

use super::core::Linux;
use super::watched::{Watch, Watched};
use crate::child::Pipes;
use crate::command::{Flown, InFlight, Program, SpawnError, SpawnStep};
use crate::engine::kernel::Collected;
use crate::launcher::next_look;
use crate::pidfd::{Look, PidFd};
use crate::procfs;
use crate::sys::wait::Wait;
use crate::time::Instant;

impl Linux {
    /// Spawns the process: in flight if the host allows that, and otherwise with a wait for its execve.
    pub(super) fn make(
        &mut self,
        program: &Program,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(PidFd, Pipes, Option<InFlight>), SpawnError> {
        if self.most_in_flight == 0 {
            let (pidfd, pipes) = self.spawner.spawn_in(program, cgroup)?.into_parts();
            return Ok((pidfd, pipes, None));
        }
        let spawning = self.spawner.begin_in(program, cgroup)?;
        let was_waited_for = spawning.was_waited_for();
        let (pidfd, pipes, in_flight) = spawning.into_parts();
        if !was_waited_for {
            return Ok((pidfd, pipes, Some(in_flight)));
        }
        match self.spawner.look(in_flight, &pidfd) {
            Flown::Not(in_flight) => Ok((pidfd, pipes, Some(in_flight))),
            Flown::Failed(error) => Err(error),
            // The end of a killed child is reported like any other.
            Flown::Executed { .. } | Flown::Killed => Ok((pidfd, pipes, None)),
        }
    }

    /// When a spawn in flight is looked at next.
    pub(super) fn set_flight_look(&mut self, slot: u32, in_flight: &InFlight) {
        self.looks.set(slot, next_look(self.clock.now(), in_flight.age()));
    }

    /// Finds out what happened to a spawn in flight. `None` if the process is not in flight, or no longer is and may
    /// have more to report.
    pub(super) fn see_flight(&mut self, process: &mut Watched) -> Option<Collected> {
        let inherited = process.rest.as_mut().and_then(|rest| rest.inherited_flight.take());
        if let Some((began, program)) = inherited {
            return self.see_inherited_flight(process, began, program);
        }
        let in_flight = process.in_flight.take()?;
        let flown = self.spawner.look(in_flight, &process.pidfd);
        if let Flown::Not(in_flight) = flown {
            let is_held = in_flight.has_failed() && matches!(process.pidfd.look(Wait::Peek), Ok(Look::Held));
            // The child has ended, and a tracer holds its status. Its descriptor would stay readable in the set.
            if is_held && matches!(process.watch, Watch::Alive(_)) && self.take_out(process).is_ok() {
                process.watch = Watch::Late(0);
            }
            process.in_flight = Some(in_flight);
            return Some(Collected::Nothing);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match flown {
            Flown::Executed { ended } => Some(Collected::Executed { ended }),
            Flown::Failed(error) => {
                process.watch = match process.watch {
                    Watch::Alive(token) | Watch::Reaped(token) => Watch::Reaped(token),
                    Watch::Late(_) | Watch::Group | Watch::Zombie => Watch::Group,
                };
                Some(Collected::SpawnFailed(error))
            }
            // The end is reported like any other. The lifecycle has not got `Input::Executed`, so it counts as a failed
            // start.
            Flown::Killed | Flown::Not(_) => None,
        }
    }

    /// Finds out the same about a spawn that the program before this one began. Its memory is gone with that program,
    /// so `/proc` tells whether the child has executed its program. A child that fails ends with the errno as its exit
    /// code.
    pub(super) fn see_inherited_flight(
        &mut self,
        process: &mut Watched,
        began: Instant,
        program: OsString,
    ) -> Option<Collected> {
        let pid = process.pidfd.pid();
        let looked = process.pidfd.look(Wait::Peek);
        // What cannot be read for lack of a descriptor is read at the next look.
        let Some(has_never_executed) = procfs::was_seen_unexecuted(pid) else {
            process.rest.get_or_insert_default().inherited_flight = Some((began, program));
            return Some(Collected::Nothing);
        };
        if has_never_executed && !matches!(looked, Ok(Look::Ended(_))) {
            // As for a spawn of this program: a tracer holds the status, and the descriptor would stay readable.
            let is_held = matches!(looked, Ok(Look::Held)) && matches!(process.watch, Watch::Alive(_));
            if is_held && self.take_out(process).is_ok() {
                process.watch = Watch::Late(0);
            }
            process.rest.get_or_insert_default().inherited_flight = Some((began, program));
            return Some(Collected::Nothing);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match looked {
            Ok(Look::Ended(record)) if has_never_executed => {
                let errno = record.exit.code().filter(|&errno| errno != 0)?;
                process.pidfd.reap().ok()?;
                process.watch = match process.watch {
                    Watch::Alive(token) | Watch::Reaped(token) => Watch::Reaped(token),
                    Watch::Late(_) | Watch::Group | Watch::Zombie => Watch::Group,
                };
                let error = SpawnError::new(program, SpawnStep::Exec, errno.into(), None);
                Some(Collected::SpawnFailed(error))
            }
            // The kernel reaps a bound child at once, and then nothing tells whether it has executed its program.
            Ok(Look::Ended(record)) if record.usage.is_none() => None,
            looked => Some(Collected::Executed {
                ended: matches!(looked, Ok(Look::Ended(_))),
            }),
        }
    }
}
