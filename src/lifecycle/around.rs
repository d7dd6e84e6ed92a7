//! The rules of the commands before and after a run that the [table](super::table) names.
//!
//! Such a command has the one process of the lifecycle for its time: before the program has it, or after that. So it is
//! spawned, watched, stopped, stored and found again like the program. It has a state of its own, and its stop is that
//! of every other process with another [`Phase`].
//!
//! The command before the run must end with exit code 0. Everything else is a failed start: the program is not started,
//! and the delays and budgets of failed starts apply. The command after the run is started when a run is over in which
//! a program or the command before it was executed, however the run has ended. How the run is judged is decided when the
//! command has ended, from what is known of the end of the run ([`Ended`]). Its own failure is only reported.

use super::cause::Cause;
use super::failure::{CommandFailure, Failure};
use super::input::{Action, Reply};
use super::state::{Ended, Failed, Phase, State, Stopping, Wanted};
use super::table::Turn;
use crate::exit::{Exit, Pid};
use crate::time::Instant;

impl Turn<'_> {
    // The command before a run.

    /// The time of the command begins when the process is made, so that it also limits an execve that hangs.
    pub(super) fn before_spawned(&mut self, pid: Pid, executed: Option<Instant>) -> Reply {
        let limit = self.policy.before_run.unwrap_or_default();
        self.life.state = State::Preparing {
            pid: Some(pid),
            executed,
            since: self.now,
            until: self.now.saturating_add(limit),
        };
        match self.life.wanted {
            Wanted::Up => Reply::Accepted,
            Wanted::Down => self.stop(pid, self.now, Wanted::Down),
        }
    }

    pub(super) fn before_executed(&mut self, pid: Option<Pid>, since: Instant, until: Instant) -> Reply {
        self.life.state = State::Preparing {
            pid,
            executed: Some(self.now),
            since,
            until,
        };
        Reply::Accepted
    }

    /// While the spawn waited, the policy can have been exchanged for one without such a command.
    pub(super) fn before_not_spawned(&mut self, errno: i32, permanent: bool) -> Reply {
        match self.policy.before_run {
            None if self.life.wanted == Wanted::Up => self.spawn(Cause::Prepared),
            _ => {
                let failure = CommandFailure::Spawn { errno, permanent };
                self.start_failed(Failure::Before(failure), self.now)
            }
        }
    }

    pub(super) fn before_ended(&mut self, exit: Exit, since: Instant) -> Reply {
        match CommandFailure::of_exit(exit) {
            Some(failure) => self.start_failed(Failure::Before(failure), since),
            None => self.start_prepared(),
        }
    }

    pub(super) fn start_prepared(&mut self) -> Reply {
        self.life.prepared = true;
        self.spawn(Cause::Prepared)
    }

    /// The program is not started beside the processes that the command has left.
    pub(super) fn before_ended_leaving_others(&mut self, exit: Exit, pid: Pid, since: Instant) -> Reply {
        if CommandFailure::of_exit(exit).is_some() {
            return self.ended_leaving_others(exit, pid, since, false);
        }
        let stopping = Stopping {
            phase: Phase::LeftByBefore,
            remaining: self.others_left(exit),
            ..self.beginning(pid, since, None)
        };
        self.life.state = State::Stopping(stopping);
        self.send_rung(stopping, Stopping::SIGKILL)
    }

    // The command after a run.

    /// Begins the command after the run. The end of the run is judged when the command has ended.
    pub(super) fn clean_up(&mut self, exit: Exit, failed: Option<Failed>, since: Instant, cause: Cause) -> Reply {
        let ended = self.end_of_run(exit, failed, since);
        self.reaction.action = Some(Action::SpawnAfter);
        let cleaning_up = State::CleaningUp {
            pid: None,
            executed: None,
            since: self.now,
            until: Instant::NEVER,
            ended,
        };
        self.transition(cleaning_up, cause)
    }

    /// The command runs whatever is wanted. Its time begins when the process is made.
    pub(super) fn after_spawned(&mut self, pid: Pid, executed: Option<Instant>, ended: Ended) -> Reply {
        let limit = self.policy.after_run.unwrap_or_default();
        self.life.state = State::CleaningUp {
            pid: Some(pid),
            executed,
            since: self.now,
            until: self.now.saturating_add(limit),
            ended,
        };
        Reply::Accepted
    }

    pub(super) fn after_executed(&mut self, pid: Option<Pid>, since: Instant, until: Instant, ended: Ended) -> Reply {
        self.life.state = State::CleaningUp {
            pid,
            executed: Some(self.now),
            since,
            until,
            ended,
        };
        Reply::Accepted
    }

    /// While the spawn waited, the policy can have been exchanged for one without such a command.
    pub(super) fn after_not_spawned(&mut self, errno: i32, permanent: bool, ended: Ended) -> Reply {
        let failure = CommandFailure::Spawn { errno, permanent };
        self.after_ended(self.policy.after_run.map(|_| failure), ended)
    }

    pub(super) fn after_ended(&mut self, failure: Option<CommandFailure>, ended: Ended) -> Reply {
        self.reaction.after_failed = failure;
        self.judge(ended)
    }

    /// Goes on without the command, which was not spawned yet.
    pub(super) fn skip_after(&mut self, ended: Ended) -> Reply {
        self.life.wanted = Wanted::Down;
        self.judge(ended)
    }

    /// A start is remembered, and exempt from the judgement of a failure, as during a stop.
    pub(super) fn start_after_cleanup(&mut self, ended: Ended) -> Reply {
        let had_failed = ended.failed.is_some();
        if let State::CleaningUp { ended, .. } = &mut self.life.state {
            ended.failed = None;
        }
        if had_failed {
            self.life.wanted = Wanted::Up;
            return Reply::Queued;
        }
        self.record_wanted(Wanted::Up)
    }
}
