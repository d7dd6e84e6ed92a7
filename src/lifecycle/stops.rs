//! The rules of stops that the [table](super::table) names: the rungs of a ladder, and the looks for remaining
//! processes.

use std::time::Duration;

use super::cause::Cause;
use super::end::RunEnd;
use super::failure::{CommandFailure, Failure};
use super::input::{Action, Reply};
use super::policy::Policy;
use super::state::{Ended, Failed, Phase, Prospect, Remaining, State, Stopping, Wanted};
use super::stop::{Rung, Scope, StopLadder};
use super::table::Turn;
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// The first wait before the next check whether any process of a scope is alive. It doubles with each of `LOOKS_RARE`
/// checks, up to 256 ms, since the kernel does not report that a process group has become empty.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOKS_RARE: u8 = 8;

/// SIGKILL is sent again after this number of the rare checks, which take about four seconds. The first SIGKILL can
/// have missed a process that is still alive: a reload widened the scope of the ladder after it was sent, or the kernel
/// refused it.
const LOOKS_PER_SIGKILL: u8 = 16;

impl RunEnd {
    /// The end of a process that was being stopped.
    pub(super) fn of_stop(stopping: &Stopping, exit: Exit, ladder: &StopLadder) -> RunEnd {
        match (stopping.prospect, stopping.failed) {
            (Prospect::EndedBefore, _) if stopping.phase != Phase::Program => {
                CommandFailure::of_exit(exit).map_or(RunEnd::Stopped, RunEnd::BeforeFailed)
            }
            (Prospect::EndedBefore, _) => RunEnd::of_exit(exit),
            (_, Some(failed)) => RunEnd::of_failure(failed.failure),
            (Prospect::Open, None) if timed_out(stopping, exit, ladder) => RunEnd::StopTimeout,
            (Prospect::Open | Prospect::KillRequested, None) => RunEnd::Stopped,
        }
    }
}

impl Stopping {
    /// The ladder of the policy for this stop: that for the failure, else the general one.
    pub(crate) fn ladder<'a>(&self, policy: &'a Policy) -> &'a StopLadder {
        match self.failed {
            Some(Failed {
                failure: Failure::Watchdog,
                ..
            }) => policy.watchdog_stop.as_ref().unwrap_or(&policy.stop),
            Some(_) | None => &policy.stop,
        }
    }
}

/// Whether SIGKILL ended the process after all rungs of the ladder.
fn timed_out(stopping: &Stopping, exit: Exit, ladder: &StopLadder) -> bool {
    let exhausted = !ladder.rungs.is_empty() && stopping.rung == Stopping::SIGKILL;
    exhausted && exit.signal() == Some(Signal::KILL)
}

impl<'a> Turn<'a> {
    // Stops.

    pub(super) fn stop(&mut self, pid: Pid, since: Instant, then: Wanted) -> Reply {
        self.life.wanted = then;
        self.begin_stop(pid, since, None, self.stop_cause())
    }

    pub(super) fn stop_cause(&self) -> Cause {
        self.own.because.unwrap_or(Cause::Requested)
    }

    pub(super) fn kill(&mut self, pid: Pid, since: Instant) -> Reply {
        self.life.wanted = Wanted::Down;
        let stopping = Stopping {
            prospect: Prospect::KillRequested,
            ..self.beginning(pid, since, None)
        };
        self.transition(State::Stopping(stopping), Cause::Requested);
        self.send_rung(stopping, Stopping::SIGKILL)
    }

    /// The process is alive and has failed: it is stopped, and then judged as if it had ended.
    pub(super) fn stop_after_failure(&mut self, pid: Pid, since: Instant, failure: Failure, ran: bool) -> Reply {
        self.begin_stop(pid, since, Some(Failed { failure, ran }), Cause::Failed(failure))
    }

    pub(super) fn begin_stop(&mut self, pid: Pid, since: Instant, failed: Option<Failed>, cause: Cause) -> Reply {
        let stopping = self.beginning(pid, since, failed);
        self.transition(State::Stopping(stopping), cause);
        self.send_rung(stopping, 0)
    }

    /// The beginning of a stop of the present process.
    pub(super) fn beginning(&self, pid: Pid, since: Instant, failed: Option<Failed>) -> Stopping {
        Stopping {
            pid,
            since,
            failed,
            prospect: Prospect::Open,
            rung: 0,
            until: Instant::NEVER,
            remaining: Remaining::Leader,
            phase: self.present_phase(),
            has_command: false,
            awaits_command: false,
        }
    }

    /// The part of the run that a stop of the present process is about.
    pub(super) fn present_phase(&self) -> Phase {
        match self.life.state {
            State::Preparing { .. } => Phase::Before,
            State::CleaningUp { ended, .. } => Phase::After(ended),
            State::Stopping(Stopping { phase, .. }) => phase,
            State::Stopped
            | State::Starting { .. }
            | State::Running { .. }
            | State::Exited { .. }
            | State::Backoff { .. }
            | State::Fatal { .. } => Phase::Program,
        }
    }

    /// A start during a stop is remembered, and exempt from the judgement of a failure.
    pub(super) fn start_after_stop(&mut self, stopping: Stopping) -> Reply {
        // The failure of the command after a run is not judged, and the one of the run is.
        let (failed, cleared) = match stopping.phase {
            Phase::After(ended) => {
                let phase = Phase::After(Ended { failed: None, ..ended });
                (ended.failed, Stopping { phase, ..stopping })
            }
            Phase::Program | Phase::Before | Phase::LeftByBefore => {
                let failed = None;
                (stopping.failed, Stopping { failed, ..stopping })
            }
        };
        self.life.state = State::Stopping(cleared);
        if failed.is_some() {
            self.life.wanted = Wanted::Up;
            return Reply::Queued;
        }
        self.record_wanted(Wanted::Up)
    }

    /// If SIGKILL was sent, the request does not send it again before the wait for its effect is over. Afterwards each
    /// request sends it: the kernel can have refused the first one.
    pub(super) fn kill_during_stop(&mut self, stopping: Stopping) -> Reply {
        let reply = self.record_wanted(Wanted::Down);
        let stopping = match stopping.prospect {
            Prospect::Open => Stopping {
                prospect: Prospect::KillRequested,
                ..stopping
            },
            Prospect::KillRequested | Prospect::EndedBefore => stopping,
        };
        self.life.state = State::Stopping(stopping);
        if let Remaining::Command { .. } = stopping.remaining {
            // The host ends the command.
            return reply;
        }
        if stopping.rung == Stopping::SIGKILL && stopping.until != Instant::NEVER {
            reply
        } else {
            self.send_rung(stopping, Stopping::SIGKILL)
        }
    }

    pub(super) fn next_rung_or_look(&mut self, stopping: Stopping) -> Reply {
        if self.now < stopping.until {
            return self.look(stopping);
        }
        if stopping.rung == Stopping::SIGKILL {
            self.reaction.action = Some(Action::ReportUnkillable);
            self.life.state = State::Stopping(Stopping {
                until: Instant::NEVER,
                ..stopping
            });
            return Reply::Accepted;
        }
        self.send_rung(stopping, stopping.rung.saturating_add(1))
    }

    /// The ladder of a stop: the one that the host has given for it, else that for the failure, else the general one.
    pub(super) fn ladder_of(&self, stopping: Stopping) -> &'a StopLadder {
        if let Phase::After(_) = stopping.phase {
            return &self.policy.stop;
        }
        self.own.ladder.unwrap_or_else(|| stopping.ladder(self.policy))
    }

    /// Begins a rung. A command is for the stop of the program: a command around a run has no use for it, and neither has
    /// a program that ended by itself. No two commands run at once. The ladder waits for a command without a deadline of
    /// its own, because the command has one.
    pub(super) fn send_rung(&mut self, stopping: Stopping, number: u8) -> Reply {
        let ladder = self.ladder_of(stopping);
        let mut found = ladder.rung(number);
        let is_useless = stopping.phase != Phase::Program || stopping.prospect == Prospect::EndedBefore;
        while (is_useless || stopping.has_command) && matches!(found.1, Rung::Command { .. }) {
            found = ladder.rung(found.0.saturating_add(1));
        }
        let (rung, until, begins_command) = match found {
            (number, Rung::Signal { signal, scope, wait }) => {
                self.reaction.action = Some(Action::Signal { signal, scope });
                (number, self.now.saturating_add(wait), false)
            }
            (number, Rung::Command { index, limit, .. }) => {
                self.reaction.action = Some(Action::RunStopCommand { index, limit });
                (number, Instant::NEVER, true)
            }
        };
        self.life.state = State::Stopping(Stopping {
            rung,
            until,
            has_command: stopping.has_command || begins_command,
            awaits_command: begins_command,
            ..stopping
        });
        Reply::Accepted
    }

    /// The command of a rung is over. After a success the program has the time of the rung to end.
    pub(super) fn stop_command_ended(&mut self, stopping: Stopping, succeeded: bool) -> Reply {
        let waited = stopping.awaits_command;
        let stopping = Stopping {
            has_command: false,
            awaits_command: false,
            ..stopping
        };
        self.life.state = State::Stopping(stopping);
        match stopping.remaining {
            Remaining::Command { exit, executed: true } => self.finish_stop(stopping, exit),
            Remaining::Command { executed: false, .. } => self.end_unspawned(stopping),
            // The ladder has gone on without the command, or SIGKILL was requested.
            Remaining::Leader | Remaining::Others { .. } if !waited => Reply::Accepted,
            Remaining::Leader | Remaining::Others { .. } if succeeded => {
                let (_, rung) = self.ladder_of(stopping).rung(stopping.rung);
                let until = self.now.saturating_add(rung.wait());
                self.life.state = State::Stopping(Stopping { until, ..stopping });
                Reply::Accepted
            }
            Remaining::Leader | Remaining::Others { .. } => self.send_rung(stopping, stopping.rung.saturating_add(1)),
        }
    }

    /// The end of a command that not even SIGKILL ends is not waited for before the next rung.
    pub(super) fn go_on_without_command(&mut self, stopping: Stopping) -> Reply {
        match stopping.remaining {
            Remaining::Leader | Remaining::Others { .. } if stopping.awaits_command => {
                self.send_rung(stopping, stopping.rung.saturating_add(1))
            }
            Remaining::Leader | Remaining::Others { .. } | Remaining::Command { .. } => Reply::Ignored,
        }
    }

    /// No process of the stop's scope is alive. A command of the ladder keeps the time that it has.
    pub(super) fn all_ended(&mut self, stopping: Stopping, exit: Exit) -> Reply {
        if !stopping.has_command {
            return self.finish_stop(stopping, exit);
        }
        let remaining = Remaining::Command { exit, executed: true };
        self.life.state = State::Stopping(Stopping { remaining, ..stopping });
        Reply::Accepted
    }

    pub(super) fn leader_ended(&mut self, stopping: Stopping, exit: Exit) -> Reply {
        match self.ladder_of(stopping).scope() {
            Scope::Process => self.all_ended(stopping, exit),
            Scope::ProcessGroup | Scope::Cgroup => {
                let remaining = Remaining::Others {
                    exit,
                    look_at: self.now,
                    looks: 0,
                };
                self.look(Stopping { remaining, ..stopping })
            }
        }
    }

    pub(super) fn look(&mut self, stopping: Stopping) -> Reply {
        let Remaining::Others { exit, looks, .. } = stopping.remaining else {
            return Reply::Accepted;
        };
        let killed = stopping.rung == Stopping::SIGKILL;
        let in_vain = killed && looks >= LOOKS_RARE + LOOKS_PER_SIGKILL;
        let looks = if killed && !in_vain {
            looks
        } else {
            looks.min(LOOKS_RARE)
        };
        self.reaction.action = Some(if in_vain {
            Action::Signal {
                signal: Signal::KILL,
                scope: self.ladder_of(stopping).kill,
            }
        } else {
            Action::Look {
                scope: self.ladder_of(stopping).scope(),
                looks,
            }
        });
        let wait = LOOK_FIRST.saturating_mul(1 << looks.min(LOOKS_RARE));
        let remaining = Remaining::Others {
            exit,
            look_at: self.now.saturating_add(wait),
            looks: looks.saturating_add(1),
        };
        self.life.state = State::Stopping(Stopping { remaining, ..stopping });
        Reply::Accepted
    }

    /// The process reported readiness, and then its program could not be executed.
    pub(super) fn spawn_failed_after_ready(&mut self, since: Instant) -> Reply {
        self.record_end(RunEnd::NotSpawned);
        self.ended(Exit::Unknown, since)
    }

    /// A command is not begun for a process that has ended by itself: the next rung is for what it has left.
    pub(super) fn mark_ended_before(&mut self, stopping: Stopping) -> Reply {
        let ended = Stopping {
            prospect: Prospect::EndedBefore,
            has_command: false,
            ..stopping
        };
        if stopping.awaits_command {
            return self.send_rung(ended, stopping.rung.saturating_add(1));
        }
        self.life.state = State::Stopping(ended);
        Reply::Accepted
    }

    pub(super) fn spawn_failed_during_stop(&mut self, stopping: Stopping, errno: i32, permanent: bool) -> Reply {
        let failure = CommandFailure::Spawn { errno, permanent };
        match stopping.phase {
            Phase::After(ended) => return self.after_ended(Some(failure), ended),
            Phase::Program if stopping.has_command => {
                let (exit, executed) = (Exit::Unknown, false);
                let remaining = Remaining::Command { exit, executed };
                self.life.state = State::Stopping(Stopping { remaining, ..stopping });
                return Reply::Accepted;
            }
            Phase::Program => return self.end_unspawned(stopping),
            Phase::Before | Phase::LeftByBefore => self.record_end(RunEnd::BeforeFailed(failure)),
        }
        self.end_stop(stopping, Exit::Unknown, self.life.prepared)
    }

    /// The process that was being stopped has not executed its program.
    fn end_unspawned(&mut self, stopping: Stopping) -> Reply {
        self.record_end(RunEnd::NotSpawned);
        self.end_stop(stopping, Exit::Unknown, self.life.prepared)
    }

    /// All processes of the stop have ended.
    pub(super) fn finish_stop(&mut self, stopping: Stopping, exit: Exit) -> Reply {
        match stopping.phase {
            Phase::LeftByBefore if self.life.wanted == Wanted::Up && !self.life.is_joint() => {
                return self.start_prepared();
            }
            Phase::After(ended) => {
                let failure = match stopping.failed.map(|failed| failed.failure) {
                    Some(Failure::TimedOut) => Some(CommandFailure::TimedOut),
                    _ => CommandFailure::of_exit(exit),
                };
                return self.after_ended(failure, ended);
            }
            Phase::Program | Phase::Before | Phase::LeftByBefore => {}
        }
        self.record_end(RunEnd::of_stop(&stopping, exit, self.ladder_of(stopping)));
        self.end_stop(stopping, exit, true)
    }

    /// The run of a stop is over.
    pub(super) fn end_stop(&mut self, stopping: Stopping, exit: Exit, has_executed: bool) -> Reply {
        if has_executed && self.policy.after_run.is_some() {
            return self.clean_up(exit, stopping.failed, stopping.since, Cause::Gone);
        }
        self.judge(self.end_of_run(exit, stopping.failed, stopping.since))
    }

    pub(super) fn end_of_run(&self, exit: Exit, failed: Option<Failed>, since: Instant) -> Ended {
        Ended {
            end: self.reaction.end.unwrap_or(RunEnd::Unknown),
            exit,
            failed,
            uptime: self.now.saturating_duration_since(since),
            executed: !self.life.state.is_in_flight(),
        }
    }

    pub(super) fn others_left(&self, exit: Exit) -> Remaining {
        Remaining::Others {
            exit,
            look_at: self.now.saturating_add(LOOK_FIRST),
            looks: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal {
        signal: Signal::KILL,
        core: false,
    };

    fn stopping(rung: u8, failed: Option<Failure>, prospect: Prospect) -> Stopping {
        Stopping {
            pid: Pid::new(1).unwrap(),
            since: Instant::ZERO,
            failed: failed.map(|failure| Failed { failure, ran: true }),
            prospect,
            rung,
            until: Instant::NEVER,
            remaining: Remaining::Leader,
            phase: Phase::Program,
            has_command: false,
            awaits_command: false,
        }
    }

    #[test]
    fn an_end_by_a_stop_is_judged_by_the_stop() {
        let ladder = StopLadder::default();
        let of = |rung, failed, prospect, exit| RunEnd::of_stop(&stopping(rung, failed, prospect), exit, &ladder);
        assert_eq!(of(0, None, Prospect::Open, Exit::Code(1)), RunEnd::Stopped);
        // A signal of another process came before the ladder.
        assert_eq!(of(0, None, Prospect::Open, KILLED), RunEnd::Stopped);
        assert_eq!(of(Stopping::SIGKILL, None, Prospect::Open, KILLED), RunEnd::StopTimeout);
        assert_eq!(
            of(Stopping::SIGKILL, None, Prospect::KillRequested, KILLED),
            RunEnd::Stopped
        );
        assert_eq!(of(0, None, Prospect::EndedBefore, Exit::Code(1)), RunEnd::Exited(1));
        assert_eq!(of(0, Some(Failure::Watchdog), Prospect::Open, KILLED), RunEnd::Watchdog);
        assert_eq!(
            of(1, Some(Failure::StartTimeout), Prospect::Open, KILLED),
            RunEnd::StartTimeout
        );
        let without_rungs = StopLadder::kill(Scope::Process);
        let killed = stopping(Stopping::SIGKILL, None, Prospect::Open);
        assert_eq!(RunEnd::of_stop(&killed, KILLED, &without_rungs), RunEnd::Stopped);
    }
}
