//! The transition table: the reaction to every input in every state.
//!
//! [`Turn::step`] is the table. It has no wildcard arm, so the compiler reports a new state or input that it lacks. The
//! methods below it are the rules that the table names, a few lines each. Decisions that need counters are in
//! `restart.rs`, those about the ladder's shape in `stop.rs`.

use std::time::Duration;

use super::cause::{Cause, Transition};
use super::end::RunEnd;
use super::failure::{CommandFailure, Failure};
use super::input::{Action, Input, Reaction, Reply};
use super::machine::Lifecycle;
use super::policy::{Policy, Restart, Startup};
use super::state::{Ended, Failed, Phase, Remaining, State, Stopping, Wanted};
use super::stop::StopLadder;
use super::strategy::Joint;
use crate::exit::{Exit, Pid};
use crate::time::Instant;

impl Lifecycle {
    /// Handles an input under this policy at this time. Never panics, in any order of inputs.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Action, Input, Lifecycle, Policy, Reply, StateName};
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let policy = Policy::new();
    /// let mut life = Lifecycle::new(&policy, 1);
    /// let reaction = life.handle(&policy, Input::Start, Instant::ZERO);
    /// assert_eq!((reaction.reply, reaction.action), (Reply::Accepted, Some(Action::Spawn)));
    /// // The host spawns the process, and passes on what became of it.
    /// life.handle(&policy, Input::SpawnFailed { errno: 2, permanent: true }, Instant::ZERO);
    /// assert_eq!(life.state().name(), StateName::Backoff);
    /// assert_eq!(life.deadline(), Some(Instant::ZERO.saturating_add(Duration::from_secs(1))));
    /// ```
    pub fn handle(&mut self, policy: &Policy, input: Input, now: Instant) -> Reaction {
        self.handle_with(policy, Own::default(), input, now)
    }

    /// The same with what holds for the present run alone, in place of the policy's.
    pub(crate) fn handle_with(&mut self, policy: &Policy, own: Own<'_>, input: Input, now: Instant) -> Reaction {
        Turn::new(self, policy, own, now).take(input)
    }
}

/// What holds for one run alone, in place of the policy's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own<'a> {
    /// The ladder that the host has given for its stop.
    pub(crate) ladder: Option<&'a StopLadder>,
    /// How often its process reports by its own word, if the policy has a watchdog.
    pub(crate) watchdog: Option<Duration>,
    /// Why it is stopped, if it is stopped and the host did not request that itself.
    pub(crate) because: Option<Cause>,
    /// The number of crashes of the other instances within the window of the shared budget.
    pub(crate) others_crashes: usize,
}

/// The handling of one input.
pub(super) struct Turn<'a> {
    pub(super) life: &'a mut Lifecycle,
    pub(super) policy: &'a Policy,
    pub(super) own: Own<'a>,
    pub(super) now: Instant,
    pub(super) reaction: Reaction,
}

impl<'a> Turn<'a> {
    pub(super) fn new(life: &'a mut Lifecycle, policy: &'a Policy, own: Own<'a>, now: Instant) -> Turn<'a> {
        Turn {
            life,
            policy,
            own,
            now,
            reaction: Reaction::NOTHING,
        }
    }

    pub(super) fn take(mut self, input: Input) -> Reaction {
        let early = input == Input::Timeout && self.life.deadline().is_none_or(|at| self.now < at);
        if !early {
            self.reaction.reply = self.take_jointly(input);
        }
        self.reaction
    }

    /// The table. [`Input::Timeout`] arrives here only when the state's deadline has passed.
    #[rustfmt::skip] // One line a rule.
    #[expect(clippy::too_many_lines, reason = "it is the table: one line a rule")]
    pub(super) fn step(&mut self, input: Input) -> Reply {
        use {Input as I, State as S};
        match (self.life.state, input) {
            // At rest: nothing is alive.
            (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. }, I::Start | I::Restart)
                                                                   => self.start(Cause::Requested),
            (S::Stopped | S::Exited { .. },          I::Stop | I::Kill) => self.confirm_down(),
            (S::Fatal { until: Instant::NEVER, .. }, I::Stop | I::Kill) => self.confirm_down(),
            (S::Fatal { .. } | S::Backoff { .. },    I::Stop | I::Kill) => self.cancel_start(),
            (S::Backoff { .. },                      I::Timeout)   => self.delay_over(),
            (S::Backoff { .. },              I::StopWithSiblings)  => self.join(true),
            (S::Backoff { .. },              I::StartWithSiblings) => self.start_with_siblings(),
            (S::Fatal { .. },                        I::Timeout)   => self.start(Cause::CoolOffOver),
            (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. }, I::Adopted(pid))
                                                                   => self.adopt(pid),

            // The command before the run: its spawn has been decided, then it exists.
            (S::Preparing { pid: None, .. }, I::Start | I::Restart) => self.record_wanted(Wanted::Up),
            (S::Preparing { pid: None, .. }, I::Stop | I::Kill)     => self.record_wanted(Wanted::Down),
            (S::Preparing { pid: None, .. }, I::Spawned(pid))       => self.before_spawned(pid, Some(self.now)),
            (S::Preparing { pid: None, .. }, I::Cloned(pid))        => self.before_spawned(pid, None),
            (S::Preparing { pid: None, .. }, I::SpawnWithdrawn)     => self.spawn_withdrawn(),
            (S::Preparing { pid: pid @ Some(_), executed: None, since, until }, I::Executed) => self.before_executed(pid, since, until),
            (S::Preparing { .. },            I::SpawnFailed { errno, permanent }) => self.before_not_spawned(errno, permanent),
            (S::Preparing { pid: Some(_), .. },          I::Start)        => Reply::Already,
            (S::Preparing { pid: Some(pid), since, .. }, I::Stop)         => self.stop(pid, since, Wanted::Down),
            (S::Preparing { pid: Some(pid), since, .. }, I::Restart)      => self.stop(pid, since, Wanted::Up),
            (S::Preparing { pid: Some(pid), since, .. }, I::Kill)         => self.kill(pid, since),
            (S::Preparing { pid: Some(_), since, .. },   I::Exited(exit)) => self.before_ended(exit, since),
            (S::Preparing { pid: Some(pid), since, .. }, I::ExitedLeaving(exit)) => self.before_ended_leaving_others(exit, pid, since),
            (S::Preparing { pid: Some(pid), since, .. }, I::Timeout)      => self.stop_after_failure(pid, since, Failure::Before(CommandFailure::TimedOut), false),

            // A sibling has ended.
            (S::Preparing { pid: None, .. } | S::Starting { pid: None, .. }, I::StopWithSiblings) => self.put_start_off(),
            (S::Preparing { pid: Some(pid), since, .. } | S::Starting { pid: Some(pid), since, .. } | S::Running { pid, since, .. },
             I::StopWithSiblings)                                    => self.stop_with_siblings(pid, since),
            (S::CleaningUp { ended, .. }, I::StopWithSiblings)       => self.join(ended.failed.is_some()),
            (S::Stopping(stopping),       I::StopWithSiblings)       => self.join(stopping.is_judged()),

            // The spawn has been decided and not yet been reported.
            (S::Starting { pid: None, .. }, I::Start | I::Restart) => self.record_wanted(Wanted::Up),
            (S::Starting { pid: None, .. }, I::Stop | I::Kill)     => self.record_wanted(Wanted::Down),
            (S::Starting { pid: None, .. }, I::Spawned(pid))       => self.process_spawned(pid),
            (S::Starting { pid: None, .. }, I::Cloned(pid))        => self.process_cloned(pid),
            (S::Starting { pid: None, .. }, I::SpawnWithdrawn)     => self.spawn_withdrawn(),

            // The process exists, and may not have executed its program yet.
            (S::Starting { pid: Some(pid), executed: None, since, until }, I::Executed) => self.program_executed(pid, since, until),
            (S::Starting { .. }, I::SpawnFailed { errno, permanent }) => self.spawn_failed(errno, permanent),

            // The process is alive, in its grace.
            (S::Starting { pid: Some(_), .. },               I::Start)        => Reply::Already,
            (S::Starting { pid: Some(pid), since, .. },      I::Stop)         => self.stop(pid, since, Wanted::Down),
            (S::Starting { pid: Some(pid), since, .. },      I::Restart)      => self.stop(pid, since, Wanted::Up),
            (S::Starting { pid: Some(pid), since, .. },      I::Kill)         => self.kill(pid, since),
            (S::Starting { pid: Some(_), executed: None, since, .. }, I::Exited(exit) | I::ExitedLeaving(exit))
                                                                              => self.start_failed(Failure::Ended(exit), since),
            (S::Starting { pid: Some(pid), executed, since, until }, I::Exited(exit)) => self.ended_early(exit, pid, since, self.start_deadline(executed, since, until)),
            (S::Starting { pid: Some(pid), executed, since, until }, I::ExitedLeaving(exit)) => self.ended_early_leaving_others(exit, pid, since, self.start_deadline(executed, since, until)),
            (S::Starting { pid: Some(pid), since, .. },      I::Ready)        => self.reported_ready(pid, since),
            (S::Starting { pid: Some(pid), since, .. },      I::NotReady)     => self.readiness_closed(pid, since),
            (S::Starting { pid: Some(pid), executed, since, until }, I::Extend(by)) => self.extend_start(pid, executed, since, until, by),
            (S::Starting { pid: Some(pid), since, .. },      I::Failed(why))  => self.stop_after_failure(pid, since, why, false),
            (S::Starting { pid: Some(_), executed: Some(_), .. }, I::Released) => self.release(),
            (S::Starting { pid: Some(pid), executed, since, until }, I::Timeout) => self.start_deadline_passed(pid, executed, since, until),

            // The process runs.
            (S::Running { .. },             I::Start)        => Reply::Already,
            (S::Running { pid, since, .. }, I::Stop)         => self.stop(pid, since, Wanted::Down),
            (S::Running { pid, since, .. }, I::Restart)      => self.stop(pid, since, Wanted::Up),
            (S::Running { pid, since, .. }, I::Kill)         => self.kill(pid, since),
            (S::Running { .. },             I::Released)     => self.release(),
            (S::Running { since, .. },      I::Exited(exit)) => self.ended(exit, since),
            (S::Running { pid, since, .. }, I::ExitedLeaving(exit)) => self.ended_leaving_others(exit, pid, since, true),
            // The host or a message called the process ready before its program was executed.
            (S::Running { since, .. },      I::SpawnFailed { .. }) => self.spawn_failed_after_ready(since),
            (S::Running { pid, since, ends, .. }, I::Alive)  => self.renew_watchdog(pid, since, ends),
            (S::Running { pid, since, .. }, I::PolicyChanged) => self.renew_limits(pid, since),
            (S::Running { pid, since, .. }, I::Failed(why))  => self.stop_after_failure(pid, since, why, true),
            (S::Running { pid, since, until, ends }, I::Timeout) if ends <= until => self.run_timed_out(pid, since),
            (S::Running { pid, since, ends, .. }, I::Timeout) => self.watchdog_missed(pid, since, ends),

            // The command after the run: its spawn has been decided, then it exists.
            (S::CleaningUp { ended, .. },            I::Start | I::Restart) => self.start_after_cleanup(ended),
            (S::CleaningUp { .. },                   I::Stop)             => self.record_wanted(Wanted::Down),
            (S::CleaningUp { pid: None, ended, .. }, I::Kill)             => self.skip_after(ended),
            (S::CleaningUp { pid: None, ended, .. }, I::Spawned(pid))     => self.after_spawned(pid, Some(self.now), ended),
            (S::CleaningUp { pid: None, ended, .. }, I::Cloned(pid))      => self.after_spawned(pid, None, ended),
            (S::CleaningUp { pid: pid @ Some(_), executed: None, since, until, ended }, I::Executed) => self.after_executed(pid, since, until, ended),
            (S::CleaningUp { ended, .. },            I::SpawnFailed { errno, permanent }) => self.after_not_spawned(errno, permanent, ended),
            (S::CleaningUp { pid: Some(pid), since, .. }, I::Kill)        => self.kill(pid, since),
            (S::CleaningUp { pid: Some(_), ended, .. }, I::Exited(exit))  => self.after_ended(CommandFailure::of_exit(exit), ended),
            (S::CleaningUp { pid: Some(pid), since, .. }, I::ExitedLeaving(exit)) => self.ended_leaving_others(exit, pid, since, false),
            (S::CleaningUp { pid: Some(pid), since, .. }, I::Timeout)     => self.stop_after_failure(pid, since, Failure::TimedOut, false),

            // The process is being stopped.
            (S::Stopping(stopping), I::Start | I::Restart) => self.start_after_stop(stopping),
            (S::Stopping(_),        I::Stop)               => self.record_wanted(Wanted::Down),
            (S::Stopping(stopping), I::Kill)               => self.kill_during_stop(stopping),
            (S::Stopping(stopping), I::Extend(by))         => self.extend_stop(stopping, by),
            (S::Stopping(stopping), I::Timeout)            => self.next_rung_or_look(stopping),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::Exited(exit) | I::ExitedLeaving(exit))
                                                           => self.leader_ended(stopping, exit),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::EndedBefore)
                                                           => self.mark_ended_before(stopping),
            // A step before the program failed, so the process has ended. It had no time to start other processes.
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::SpawnFailed { errno, permanent })
                                                           => self.spawn_failed_during_stop(stopping, errno, permanent),
            (S::Stopping(stopping @ Stopping { has_command: true, .. }), I::StopCommandEnded { succeeded })
                                                           => self.stop_command_ended(stopping, succeeded),
            (S::Stopping(stopping @ Stopping { has_command: true, .. }), I::StopCommandUnkillable)
                                                           => self.go_on_without_command(stopping),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Others { exit, .. }, .. }), I::Empty)
                                                           => self.all_ended(stopping, exit),

            // Inputs without a meaning in the state.
            (S::Stopped | S::Exited { .. },      I::Timeout)
            | (S::Stopped | S::Exited { .. } | S::Fatal { .. }, I::StopWithSiblings)
            | (S::Stopped | S::Exited { .. } | S::Fatal { .. } | S::Preparing { .. } | S::Starting { .. } | S::Running { .. } | S::Stopping(_)
               | S::CleaningUp { .. }, I::StartWithSiblings)
            | (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. },
               I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::SpawnFailed { .. } | I::Exited(_) | I::ExitedLeaving(_) | I::EndedBefore
               | I::Empty | I::Ready | I::NotReady | I::Alive | I::Extend(_) | I::Failed(_) | I::Released)
            | (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. } | S::Preparing { .. } | S::Starting { .. } | S::Stopping(_)
               | S::CleaningUp { .. }, I::PolicyChanged)
            | (S::Preparing { .. } | S::Starting { .. } | S::Running { .. } | S::Stopping(_) | S::CleaningUp { .. }, I::Adopted(_))
            | (S::Preparing { pid: None, .. } | S::CleaningUp { pid: None, .. }, I::Executed | I::Exited(_) | I::ExitedLeaving(_) | I::Timeout)
            | (S::Preparing { pid: Some(_), .. }, I::Spawned(_) | I::Cloned(_) | I::SpawnWithdrawn)
            | (S::CleaningUp { pid: Some(_), .. }, I::Spawned(_) | I::Cloned(_))
            | (S::Preparing { executed: Some(_), .. } | S::CleaningUp { executed: Some(_), .. }, I::Executed)
            | (S::CleaningUp { .. }, I::SpawnWithdrawn)
            | (S::Preparing { .. } | S::CleaningUp { .. }, I::EndedBefore | I::Empty | I::Ready | I::NotReady | I::Alive | I::Extend(_)
               | I::Failed(_) | I::Released)
            | (S::Starting { executed: None, .. } | S::Stopping(_), I::Released)
            | (S::Starting { pid: None, executed: Some(_), .. }, I::Released)
            | (S::Starting { pid: None, .. }, I::Executed | I::Exited(_) | I::ExitedLeaving(_) | I::Ready | I::NotReady | I::Extend(_))
            | (S::Starting { pid: None, .. }, I::Failed(_) | I::Timeout)
            | (S::Starting { pid: Some(_), .. }, I::Spawned(_) | I::Cloned(_) | I::SpawnWithdrawn)
            | (S::Starting { pid: Some(_), executed: Some(_), .. }, I::Executed)
            | (S::Starting { .. },               I::EndedBefore | I::Empty | I::Alive)
            | (S::Running { .. },  I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::EndedBefore | I::Empty
               | I::Ready | I::NotReady | I::Extend(_))
            | (S::Stopping(_),     I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::Ready | I::NotReady | I::Alive | I::Failed(_))
            | (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. } | S::Preparing { .. } | S::Starting { .. } | S::Running { .. }
               | S::CleaningUp { .. } | S::Stopping(Stopping { has_command: false, .. }), I::StopCommandEnded { .. } | I::StopCommandUnkillable)
            | (S::Stopping(Stopping { remaining: Remaining::Others { .. } | Remaining::Command { .. }, .. }),
               I::SpawnFailed { .. } | I::Exited(_) | I::ExitedLeaving(_) | I::EndedBefore)
            | (S::Stopping(Stopping { remaining: Remaining::Leader | Remaining::Command { .. }, .. }), I::Empty) => Reply::Ignored,
        }
    }

    // Requests.

    /// Remembers a request that the state cannot fulfil at once.
    pub(super) fn record_wanted(&mut self, wanted: Wanted) -> Reply {
        if self.life.wanted == wanted {
            return Reply::Already;
        }
        self.life.wanted = wanted;
        match wanted {
            Wanted::Up => Reply::Queued,
            Wanted::Down => Reply::Accepted,
        }
    }

    /// Nothing is alive and no start is planned.
    fn confirm_down(&mut self) -> Reply {
        self.life.wanted = Wanted::Down;
        Reply::Already
    }

    /// Nothing is alive, and a planned start is cancelled.
    fn cancel_start(&mut self) -> Reply {
        self.life.wanted = Wanted::Down;
        self.life.counters.forget();
        self.transition(State::Stopped, self.stop_cause())
    }

    // Processes that come from elsewhere, and that go on by themselves.

    /// Takes over a process that was started elsewhere. It counts as running: whether it has become ready is not known.
    fn adopt(&mut self, pid: Pid) -> Reply {
        self.life.wanted = Wanted::Up;
        self.life.counters.forget();
        self.life.runs = self.life.runs.saturating_add(1);
        self.life.prepared = false;
        let born = State::Starting {
            pid: Some(pid),
            executed: Some(self.now),
            since: self.now,
            until: Instant::NEVER,
        };
        self.transition(born, Cause::Adopted);
        self.enter_running(pid, self.now, Cause::Adopted)
    }

    /// Lets the process go on by itself.
    fn release(&mut self) -> Reply {
        self.life.wanted = Wanted::Down;
        self.life.counters.forget();
        self.record_end(RunEnd::Released);
        self.transition(State::Stopped, Cause::Released)
    }

    // Starts.

    /// Starts the process. Such a start is exempt from every budget.
    pub(super) fn start(&mut self, cause: Cause) -> Reply {
        self.life.wanted = Wanted::Up;
        self.life.counters.forget();
        self.begin_run(cause)
    }

    /// Begins a run: with the command before it, if there is one.
    pub(super) fn begin_run(&mut self, cause: Cause) -> Reply {
        self.life.runs = self.life.runs.saturating_add(1);
        self.life.prepared = false;
        if self.policy.before_run.is_none() {
            return self.spawn(cause);
        }
        self.reaction.action = Some(Action::SpawnBefore);
        let preparing = State::Preparing {
            pid: None,
            executed: None,
            since: self.now,
            until: Instant::NEVER,
        };
        self.transition(preparing, cause)
    }

    pub(super) fn spawn(&mut self, cause: Cause) -> Reply {
        self.reaction.action = Some(Action::Spawn);
        self.transition(
            State::Starting {
                pid: None,
                executed: None,
                since: self.now,
                until: Instant::NEVER,
            },
            cause,
        )
    }

    fn process_spawned(&mut self, pid: Pid) -> Reply {
        match self.process_cloned(pid) {
            Reply::Accepted if self.life.wanted == Wanted::Up => self.program_executed(pid, self.now, Instant::NEVER),
            stopped => stopped,
        }
    }

    /// The timeout for readiness begins when the process is made, so that it also limits an execve that hangs. The
    /// grace begins when the program is executed.
    fn process_cloned(&mut self, pid: Pid) -> Reply {
        let until = match self.policy.startup {
            Startup::Grace(_) => Instant::NEVER,
            Startup::Notify { timeout } | Startup::Completes { timeout } => self.now.saturating_add(timeout),
        };
        self.life.state = State::Starting {
            pid: Some(pid),
            executed: None,
            since: self.now,
            until,
        };
        match self.life.wanted {
            Wanted::Up => Reply::Accepted,
            Wanted::Down => self.stop(pid, self.now, Wanted::Down),
        }
    }

    /// A spawn is withdrawn only if the process is not wanted any more.
    fn spawn_withdrawn(&mut self) -> Reply {
        if self.life.wanted == Wanted::Up {
            return Reply::Ignored;
        }
        self.record_end(RunEnd::Stopped);
        if self.life.prepared && self.policy.after_run.is_some() {
            let since = self.now;
            return self.clean_up(Exit::Unknown, None, since, self.stop_cause());
        }
        self.life.counters.forget();
        self.transition(State::Stopped, self.stop_cause())
    }

    /// The start can have been extended in flight. Without a timeout for readiness it had no end until now.
    fn program_executed(&mut self, pid: Pid, since: Instant, until: Instant) -> Reply {
        let extended = if until == Instant::NEVER { since } else { until };
        let until = match self.policy.startup {
            Startup::Grace(Duration::ZERO) => return self.enter_running(pid, since, Cause::GraceOver),
            Startup::Grace(grace) => self.now.saturating_add(grace),
            Startup::Notify { timeout } | Startup::Completes { timeout } => extended.max(since.saturating_add(timeout)),
        };
        self.life.state = State::Starting {
            pid: Some(pid),
            executed: Some(self.now),
            since,
            until,
        };
        Reply::Accepted
    }

    fn enter_running(&mut self, pid: Pid, since: Instant, cause: Cause) -> Reply {
        self.life.counters.started();
        let (until, ends) = (self.watchdog_deadline(), self.run_deadline(since));
        self.transition(
            State::Running {
                pid,
                since,
                until,
                ends,
            },
            cause,
        )
    }

    /// A job counts as started when it is done, whatever it reports before.
    fn reported_ready(&mut self, pid: Pid, since: Instant) -> Reply {
        if matches!(self.policy.startup, Startup::Completes { .. }) {
            return Reply::Ignored;
        }
        self.enter_running(pid, since, Cause::Ready)
    }

    /// The process reported that it is alive.
    fn renew_watchdog(&mut self, pid: Pid, since: Instant, ends: Instant) -> Reply {
        let until = self.watchdog_deadline();
        self.life.state = State::Running {
            pid,
            since,
            until,
            ends,
        };
        Reply::Accepted
    }

    fn renew_limits(&mut self, pid: Pid, since: Instant) -> Reply {
        let ends = self.run_deadline(since);
        self.renew_watchdog(pid, since, ends)
    }

    /// The policy can have been exchanged for one without a watchdog.
    fn watchdog_missed(&mut self, pid: Pid, since: Instant, ends: Instant) -> Reply {
        match self.policy.watchdog {
            Some(_) => self.stop_after_failure(pid, since, Failure::Watchdog, true),
            None => self.renew_watchdog(pid, since, ends),
        }
    }

    /// The policy can have been exchanged for one without a limit, or with a longer one.
    fn run_timed_out(&mut self, pid: Pid, since: Instant) -> Reply {
        let limit = self.policy.run_timeout;
        match limit.map(|limit| since.saturating_add(limit.after)) {
            Some(earliest) if earliest <= self.now => self.stop_after_failure(pid, since, Failure::TimedOut, true),
            Some(_) | None => self.renew_limits(pid, since),
        }
    }

    /// When the run times out. A new policy can have a limit that the run has exceeded already.
    fn run_deadline(&mut self, since: Instant) -> Instant {
        let Some(limit) = self.policy.run_timeout else {
            return Instant::NEVER;
        };
        let extra = self.life.counters.part_of(limit.extra);
        since.saturating_add(limit.after).saturating_add(extra)
    }

    fn watchdog_deadline(&self) -> Instant {
        let silence = self.policy.watchdog.map(|silence| self.own.watchdog.unwrap_or(silence));
        silence.map_or(Instant::NEVER, |silence| self.now.saturating_add(silence))
    }

    /// A start by notification can be extended. A grace is the host's own measure and cannot.
    fn extend_start(
        &mut self,
        pid: Pid,
        executed: Option<Instant>,
        since: Instant,
        until: Instant,
        by: Duration,
    ) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) => Reply::Ignored,
            Startup::Notify { .. } | Startup::Completes { .. } => {
                let until = until.max(self.now.saturating_add(by));
                self.life.state = State::Starting {
                    pid: Some(pid),
                    executed,
                    since,
                    until,
                };
                Reply::Accepted
            }
        }
    }

    /// The process may close a readiness descriptor that the policy does not wait for.
    fn readiness_closed(&mut self, pid: Pid, since: Instant) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) | Startup::Completes { .. } => Reply::Ignored,
            Startup::Notify { .. } => self.stop_after_failure(pid, since, Failure::NotReady, false),
        }
    }

    /// After SIGKILL the process cannot extend its stop. A process that has ended cannot either.
    fn extend_stop(&mut self, stopping: Stopping, by: Duration) -> Reply {
        let has_ended = matches!(stopping.remaining, Remaining::Command { .. });
        if stopping.rung == Stopping::SIGKILL || has_ended {
            return Reply::Ignored;
        }
        let until = stopping.until.max(self.now.saturating_add(by));
        self.life.state = State::Stopping(Stopping { until, ..stopping });
        Reply::Accepted
    }

    // Ends.

    /// The end of a start. The policy can have been exchanged for one with a longer limit, or for one with a grace,
    /// which counts from the execution.
    pub(super) fn start_deadline(&self, executed: Option<Instant>, since: Instant, until: Instant) -> Instant {
        let began = match self.policy.startup {
            Startup::Grace(_) => executed.unwrap_or(Instant::NEVER),
            Startup::Notify { .. } | Startup::Completes { .. } => since,
        };
        until.max(began.saturating_add(self.policy.startup.limit()))
    }

    fn start_deadline_passed(&mut self, pid: Pid, executed: Option<Instant>, since: Instant, until: Instant) -> Reply {
        let until = self.start_deadline(executed, since, until);
        match self.policy.startup {
            _ if self.now < until => {
                let pid = Some(pid);
                self.life.state = State::Starting {
                    pid,
                    executed,
                    since,
                    until,
                };
                Reply::Accepted
            }
            Startup::Grace(_) => self.enter_running(pid, since, Cause::GraceOver),
            _ => self.stop_after_failure(pid, since, Failure::StartTimeout, false),
        }
    }

    /// The result must not depend on the order in which the exit and the end of the grace are observed.
    fn ended_early(&mut self, exit: Exit, pid: Pid, since: Instant, until: Instant) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) if self.now >= until => {
                self.enter_running(pid, since, Cause::GraceOver);
                self.ended(exit, since)
            }
            _ => self.ended_in_start(exit, since),
        }
    }

    /// The process ended before it counted as running, and none of its scope is alive.
    fn ended_in_start(&mut self, exit: Exit, since: Instant) -> Reply {
        let failure = Failure::Ended(exit);
        if !self.policy.is_done_early(exit) {
            return self.start_failed(failure, since);
        }
        self.record_end(RunEnd::of_exit(exit));
        if self.policy.after_run.is_some() {
            let expected = self.policy.expected.contains(exit);
            let failed = Some(Failed { failure, ran: false });
            return self.clean_up(exit, failed, since, Cause::Ended { exit, expected });
        }
        self.judge_early_end(exit)
    }

    pub(super) fn judge_early_end(&mut self, exit: Exit) -> Reply {
        if !self.policy.is_done_early(exit) {
            return self.judge_failed_start(Failure::Ended(exit));
        }
        self.life.counters.started();
        let expected = self.policy.expected.contains(exit);
        self.transition(State::Exited { exit, expected }, Cause::Ended { exit, expected })
    }

    /// Like `ended_early`, but other processes of the scope are alive.
    fn ended_early_leaving_others(&mut self, exit: Exit, pid: Pid, since: Instant, until: Instant) -> Reply {
        let ran = match self.policy.startup {
            Startup::Grace(_) => self.now >= until,
            Startup::Notify { .. } | Startup::Completes { .. } => false,
        };
        if ran {
            self.enter_running(pid, since, Cause::GraceOver);
        }
        self.ended_leaving_others(exit, pid, since, ran)
    }

    /// A new process beside the remaining ones would run the service twice. Therefore the remaining processes are
    /// killed, and then the end of the process is judged.
    pub(super) fn ended_leaving_others(&mut self, exit: Exit, pid: Pid, since: Instant, ran: bool) -> Reply {
        let failure = match self.present_phase() {
            Phase::Before => Failure::Before(CommandFailure::Ended(exit)),
            Phase::Program | Phase::LeftByBefore | Phase::After(_) => Failure::Ended(exit),
        };
        let stopping = Stopping {
            remaining: self.others_left(exit),
            ..self.beginning(pid, since, Some(Failed { failure, ran }))
        };
        self.transition(State::Stopping(stopping), Cause::Failed(failure));
        self.send_rung(stopping, Stopping::SIGKILL)
    }

    pub(super) fn ended(&mut self, exit: Exit, since: Instant) -> Reply {
        self.record_end(RunEnd::of_exit(exit));
        if self.policy.after_run.is_some() {
            let expected = self.policy.expected.contains(exit);
            let failure = Failure::Ended(exit);
            let failed = Some(Failed { failure, ran: true });
            return self.clean_up(exit, failed, since, Cause::Ended { exit, expected });
        }
        self.judge_end(exit, self.now.saturating_duration_since(since))
    }

    pub(super) fn judge_end(&mut self, exit: Exit, uptime: Duration) -> Reply {
        let expected = self.policy.expected.contains(exit);
        self.transition(State::Exited { exit, expected }, Cause::Ended { exit, expected });
        self.life.counters.ran_for(uptime, self.policy);
        match (self.policy.restarts_after(exit), expected) {
            (false, _) => Reply::Accepted,
            (true, true) => {
                let wait = self.life.counters.ended_as_expected(self.policy, uptime);
                self.restart_after(wait, Failure::Ended(exit))
            }
            (true, false) => self.crashed(Failure::Ended(exit), uptime),
        }
    }

    fn crashed(&mut self, failure: Failure, uptime: Duration) -> Reply {
        match self
            .life
            .counters
            .crashed(self.policy, self.own.others_crashes, uptime, self.now)
        {
            None => self.enter_fatal(failure, Cause::CrashBudgetUsedUp),
            Some(wait) => self.restart_after(wait, failure),
        }
    }

    fn restart_after(&mut self, wait: Duration, failure: Failure) -> Reply {
        let until = self.now.saturating_add(wait);
        if !self.restarts_jointly(until) && wait.is_zero() {
            return self.begin_run(Cause::Restart);
        }
        self.transition(State::Backoff { until, failure }, Cause::Restart)
    }

    fn spawn_failed(&mut self, errno: i32, permanent: bool) -> Reply {
        self.start_failed(Failure::Spawn { errno, permanent }, self.now)
    }

    /// After a run in which nothing was executed, there is nothing to clean up.
    pub(super) fn start_failed(&mut self, failure: Failure, since: Instant) -> Reply {
        self.record_end(RunEnd::of_failure(failure));
        let has_executed = match failure {
            Failure::Spawn { .. } | Failure::Before(CommandFailure::Spawn { .. }) => self.life.prepared,
            _ => true,
        };
        if has_executed && self.policy.after_run.is_some() {
            let exit = match failure {
                Failure::Ended(exit) | Failure::Before(CommandFailure::Ended(exit)) => exit,
                _ => Exit::Unknown,
            };
            let failed = Some(Failed { failure, ran: false });
            return self.clean_up(exit, failed, since, Cause::Failed(failure));
        }
        self.judge_failed_start(failure)
    }

    pub(super) fn judge_failed_start(&mut self, failure: Failure) -> Reply {
        if self.life.wanted == Wanted::Down {
            self.life.counters.forget();
            return self.transition(State::Stopped, Cause::Failed(failure));
        }
        // Whether another spawn cannot succeed; `None` if something was spawned.
        let is_permanent = match failure {
            Failure::Spawn { permanent, .. } | Failure::Before(CommandFailure::Spawn { permanent, .. }) => {
                Some(permanent)
            }
            _ => None,
        };
        let shortage = is_permanent == Some(false);
        let wait = self.life.counters.start_failed(self.policy, shortage);
        let until = self.now.saturating_add(wait.unwrap_or_default());
        self.transition(State::Backoff { until, failure }, Cause::Failed(failure));
        match (wait, is_permanent) {
            (None, _) => self.enter_fatal(failure, Cause::RetriesUsedUp),
            (Some(_), Some(true)) if !self.policy.retry_permanent => self.enter_fatal(failure, Cause::Permanent),
            (Some(_), _) => Reply::Accepted,
        }
    }

    fn enter_fatal(&mut self, failure: Failure, cause: Cause) -> Reply {
        let until = match self.policy.cool_off {
            Some(rest) => self.now.saturating_add(self.life.counters.shortened(rest, self.policy)),
            None => Instant::NEVER,
        };
        self.transition(State::Fatal { until, failure }, cause)
    }

    /// Records why the run ended, unless a more exact reason is recorded.
    pub(super) fn record_end(&mut self, end: RunEnd) {
        self.reaction.end.get_or_insert(end);
    }

    /// Judges a run that is over, together with the command after it.
    pub(super) fn judge(&mut self, ended: Ended) -> Reply {
        let Ended { exit, uptime, .. } = ended;
        match (self.life.wanted, ended.failed) {
            (Wanted::Down, _) => {
                self.life.counters.forget();
                self.transition(State::Stopped, Cause::Gone)
            }
            (Wanted::Up, None) if self.life.joint == Joint::Waits => self.wait_for_siblings(),
            (Wanted::Up, None) => self.start(Cause::Requested),
            (
                Wanted::Up,
                Some(Failed {
                    failure: Failure::Ended(exit),
                    ran,
                }),
            ) => match ran {
                true => self.judge_end(exit, uptime),
                false if ended.executed => self.judge_early_end(exit),
                false => self.judge_failed_start(Failure::Ended(exit)),
            },
            (Wanted::Up, Some(Failed { failure, ran: false })) => self.judge_failed_start(failure),
            (Wanted::Up, Some(Failed { failure, ran: true })) => {
                self.transition(State::Exited { exit, expected: false }, Cause::Failed(failure));
                self.life.counters.ran_for(uptime, self.policy);
                // The process failed before the stop, so its exit is never expected.
                match (self.policy.restart, failure) {
                    (Restart::Never, _) => Reply::Accepted,
                    (Restart::Always | Restart::OnUnexpected, Failure::TimedOut) => {
                        let wait = self.life.counters.restarted(self.policy, uptime);
                        self.restart_after(wait, failure)
                    }
                    (Restart::Always | Restart::OnUnexpected, _) => self.crashed(failure, uptime),
                }
            }
        }
    }

    /// Enters a state. A change within the state of one name is no transition.
    pub(super) fn transition(&mut self, to: State, cause: Cause) -> Reply {
        let (from, name) = (self.life.state.name(), to.name());
        self.life.state = to;
        if from != name {
            self.reaction.push(Transition { from, to: name, cause });
        }
        Reply::Accepted
    }
}
