//! The transition table: the reaction to every input in every state.
//!
//! [`Turn::step`] is the table. It has no wildcard arm, so the compiler reports a new state or input that it lacks.
//! The methods below it are the rules that the table names, a few lines each. Decisions that need counters are in
//! `restart.rs`, those about the ladder's shape in `stop.rs`.

use std::time::Duration;

use super::end::RunEnd;
use super::input::{Action, Input, Reaction, Reply};
use super::machine::Lifecycle;
use super::policy::{Policy, Restart, Startup};
use super::state::{Cause, Failed, Failure, Prospect, Remaining, State, Stopping, Transition, Wanted};
use super::stop::Scope;
use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// The first wait before the next check whether any process of a scope is alive. It doubles with each of `LOOKS_RARE`
/// checks, up to 256 ms, since the kernel does not report that a process group has become empty.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOKS_RARE: u8 = 8;

/// SIGKILL is sent again after this number of the rare checks, which take about four seconds. The first SIGKILL can have
/// missed a process that is still alive: a reload widened the scope of the ladder after it was sent, or the kernel refused
/// it.
const LOOKS_PER_SIGKILL: u8 = 16;

impl Lifecycle {
    /// Handles an input under this policy at this time. Never panics, in any order of inputs.
    pub fn handle(&mut self, policy: &Policy, input: Input, now: Instant) -> Reaction {
        Turn::new(self, policy, now).take(input)
    }
}

/// The handling of one input.
pub(super) struct Turn<'a> {
    life: &'a mut Lifecycle,
    policy: &'a Policy,
    now: Instant,
    reaction: Reaction,
}

impl<'a> Turn<'a> {
    pub(super) fn new(life: &'a mut Lifecycle, policy: &'a Policy, now: Instant) -> Turn<'a> {
        Turn {
            life,
            policy,
            now,
            reaction: Reaction::NOTHING,
        }
    }

    pub(super) fn take(mut self, input: Input) -> Reaction {
        let early = input == Input::Timeout && self.life.deadline().is_none_or(|at| self.now < at);
        if !early {
            self.reaction.reply = self.step(input);
        }
        self.reaction
    }

    /// The table. [`Input::Timeout`] arrives here only when the state's deadline has passed.
    #[rustfmt::skip] // One line a rule.
    fn step(&mut self, input: Input) -> Reply {
        use {Input as I, State as S};
        match (self.life.state, input) {
            // At rest: nothing is alive.
            (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. }, I::Start | I::Restart)
                                                                   => self.start(Cause::Requested),
            (S::Stopped | S::Exited { .. },          I::Stop | I::Kill) => self.stay_down(),
            (S::Fatal { until: Instant::NEVER, .. }, I::Stop | I::Kill) => self.stay_down(),
            (S::Fatal { .. } | S::Backoff { .. },    I::Stop | I::Kill) => self.call_off(),
            (S::Backoff { .. },                      I::Timeout)   => self.launch(Cause::DelayOver),
            (S::Fatal { .. },                        I::Timeout)   => self.start(Cause::CoolOffOver),

            // The spawn has been decided and not yet been reported.
            (S::Starting { pid: None, .. }, I::Start | I::Restart) => self.wish(Wanted::Up),
            (S::Starting { pid: None, .. }, I::Stop | I::Kill)     => self.wish(Wanted::Down),
            (S::Starting { pid: None, .. }, I::Spawned(pid))       => self.spawned(pid),
            (S::Starting { pid: None, .. }, I::Cloned(pid))        => self.cloned(pid),
            (S::Starting { pid: None, .. }, I::SpawnWithdrawn)     => self.withdraw(),

            // The process exists, and may not have executed its program yet.
            (S::Starting { pid: Some(pid), executed: false, since, .. }, I::Executed) => self.executed(pid, since),
            (S::Starting { .. }, I::SpawnFailed { errno, permanent }) => self.not_spawned(errno, permanent),

            // The process is alive, in its grace.
            (S::Starting { pid: Some(_), .. },               I::Start)        => Reply::Already,
            (S::Starting { pid: Some(pid), since, .. },      I::Stop)         => self.stop(pid, since, Wanted::Down),
            (S::Starting { pid: Some(pid), since, .. },      I::Restart)      => self.stop(pid, since, Wanted::Up),
            (S::Starting { pid: Some(pid), since, .. },      I::Kill)         => self.kill(pid, since),
            (S::Starting { pid: Some(_), executed: false, .. }, I::Exited(exit) | I::ExitedLeaving(exit))
                                                                              => self.start_failed(Failure::Ended(exit)),
            (S::Starting { pid: Some(pid), since, until, .. }, I::Exited(exit)) => self.ended_early(exit, pid, since, until),
            (S::Starting { pid: Some(pid), since, until, .. }, I::ExitedLeaving(exit)) => self.left_early(exit, pid, since, until),
            (S::Starting { pid: Some(pid), since, .. },      I::Ready)        => self.run(pid, since, Cause::Ready),
            (S::Starting { pid: Some(pid), since, .. },      I::NotReady)     => self.not_ready(pid, since),
            (S::Starting { pid: Some(pid), executed, since, until }, I::Extend(by)) => self.extend_start(pid, executed, since, until, by),
            (S::Starting { pid: Some(pid), since, .. },      I::Failed(why))  => self.fail(pid, since, why, false),
            (S::Starting { pid: Some(pid), executed, since, until }, I::Timeout) => self.start_over(pid, executed, since, until),

            // The process runs.
            (S::Running { .. },             I::Start)        => Reply::Already,
            (S::Running { pid, since, .. }, I::Stop)         => self.stop(pid, since, Wanted::Down),
            (S::Running { pid, since, .. }, I::Restart)      => self.stop(pid, since, Wanted::Up),
            (S::Running { pid, since, .. }, I::Kill)         => self.kill(pid, since),
            (S::Running { since, .. },      I::Exited(exit)) => self.ended(exit, since),
            (S::Running { pid, since, .. }, I::ExitedLeaving(exit)) => self.leaves_others(exit, pid, since, true),
            // The host or a message called the process ready before its program was executed.
            (S::Running { since, .. },      I::SpawnFailed { .. }) => self.ready_without_program(since),
            (S::Running { pid, since, .. }, I::Alive)        => self.watch(pid, since),
            (S::Running { pid, since, .. }, I::Failed(why))  => self.fail(pid, since, why, true),
            (S::Running { pid, since, .. }, I::Timeout)      => self.silent(pid, since),

            // The process is being stopped.
            (S::Stopping(stopping), I::Start | I::Restart) => self.start_after(stopping),
            (S::Stopping(_),        I::Stop)               => self.wish(Wanted::Down),
            (S::Stopping(stopping), I::Kill)               => self.kill_now(stopping),
            (S::Stopping(stopping), I::Extend(by))         => self.extend_stop(stopping, by),
            (S::Stopping(stopping), I::Timeout)            => self.climb_or_look(stopping),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::Exited(exit) | I::ExitedLeaving(exit))
                                                           => self.leader_ended(stopping, exit),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::EndedBefore)
                                                           => self.ended_before(stopping),
            // A step before the program failed, so the process has ended. It had no time to start other processes.
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Leader, .. }), I::SpawnFailed { .. })
                                                           => self.not_executed(stopping),
            (S::Stopping(stopping @ Stopping { remaining: Remaining::Others { exit, .. }, .. }), I::Empty)
                                                           => self.gone(stopping, exit),

            // Inputs without a meaning in the state.
            (S::Stopped | S::Exited { .. },      I::Timeout)
            | (S::Stopped | S::Exited { .. } | S::Backoff { .. } | S::Fatal { .. },
               I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::SpawnFailed { .. } | I::Exited(_) | I::ExitedLeaving(_) | I::EndedBefore
               | I::Empty | I::Ready | I::NotReady | I::Alive | I::Extend(_) | I::Failed(_))
            | (S::Starting { pid: None, .. }, I::Executed | I::Exited(_) | I::ExitedLeaving(_) | I::Ready | I::NotReady | I::Extend(_))
            | (S::Starting { pid: None, .. }, I::Failed(_) | I::Timeout)
            | (S::Starting { pid: Some(_), .. }, I::Spawned(_) | I::Cloned(_) | I::SpawnWithdrawn)
            | (S::Starting { pid: Some(_), executed: true, .. }, I::Executed)
            | (S::Starting { .. },               I::EndedBefore | I::Empty | I::Alive)
            | (S::Running { .. },  I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::EndedBefore | I::Empty
               | I::Ready | I::NotReady | I::Extend(_))
            | (S::Stopping(_),     I::Spawned(_) | I::Cloned(_) | I::Executed | I::SpawnWithdrawn | I::Ready | I::NotReady | I::Alive | I::Failed(_))
            | (S::Stopping(Stopping { remaining: Remaining::Others { .. }, .. }),
               I::SpawnFailed { .. } | I::Exited(_) | I::ExitedLeaving(_) | I::EndedBefore)
            | (S::Stopping(Stopping { remaining: Remaining::Leader, .. }),        I::Empty) => Reply::Ignored,
        }
    }

    // Requests.

    /// Remembers a request that the state cannot fulfil at once.
    fn wish(&mut self, wanted: Wanted) -> Reply {
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
    fn stay_down(&mut self) -> Reply {
        self.life.wanted = Wanted::Down;
        Reply::Already
    }

    /// Nothing is alive, and a planned start is cancelled.
    fn call_off(&mut self) -> Reply {
        self.life.wanted = Wanted::Down;
        self.life.counters.forget();
        self.go(State::Stopped, Cause::Requested)
    }

    // Starts.

    /// Starts the process. Such a start is exempt from every budget.
    fn start(&mut self, cause: Cause) -> Reply {
        self.life.wanted = Wanted::Up;
        self.life.counters.forget();
        self.launch(cause)
    }

    fn launch(&mut self, cause: Cause) -> Reply {
        self.life.runs = self.life.runs.saturating_add(1);
        self.reaction.action = Some(Action::Spawn);
        self.go(
            State::Starting {
                pid: None,
                executed: false,
                since: self.now,
                until: Instant::NEVER,
            },
            cause,
        )
    }

    fn spawned(&mut self, pid: Pid) -> Reply {
        match self.cloned(pid) {
            Reply::Accepted if self.life.wanted == Wanted::Up => self.executed(pid, self.now),
            stopped => stopped,
        }
    }

    /// A timeout for readiness counts from the birth of the process, so that it also ends an execve that hangs. A
    /// grace counts from the execution.
    fn cloned(&mut self, pid: Pid) -> Reply {
        let until = match self.policy.startup {
            Startup::Grace(_) => Instant::NEVER,
            Startup::Notify { timeout } => self.now.saturating_add(timeout),
        };
        self.life.state = State::Starting {
            pid: Some(pid),
            executed: false,
            since: self.now,
            until,
        };
        match self.life.wanted {
            Wanted::Up => Reply::Accepted,
            Wanted::Down => self.stop(pid, self.now, Wanted::Down),
        }
    }

    /// A spawn is withdrawn only if the process is not wanted any more.
    fn withdraw(&mut self) -> Reply {
        if self.life.wanted == Wanted::Up {
            return Reply::Ignored;
        }
        self.life.counters.forget();
        self.ends(RunEnd::Stopped);
        self.go(State::Stopped, Cause::Requested)
    }

    fn executed(&mut self, pid: Pid, since: Instant) -> Reply {
        let until = match self.policy.startup {
            Startup::Grace(Duration::ZERO) => return self.run(pid, since, Cause::GraceOver),
            Startup::Grace(grace) => self.now.saturating_add(grace),
            Startup::Notify { timeout } => since.saturating_add(timeout),
        };
        self.life.state = State::Starting {
            pid: Some(pid),
            executed: true,
            since,
            until,
        };
        Reply::Accepted
    }

    fn run(&mut self, pid: Pid, since: Instant, cause: Cause) -> Reply {
        self.life.counters.started();
        let until = self.silence_ends();
        self.go(State::Running { pid, since, until }, cause)
    }

    /// The process reported that it is alive.
    fn watch(&mut self, pid: Pid, since: Instant) -> Reply {
        let until = self.silence_ends();
        self.life.state = State::Running { pid, since, until };
        Reply::Accepted
    }

    /// The policy can have been exchanged for one without a watchdog.
    fn silent(&mut self, pid: Pid, since: Instant) -> Reply {
        match self.policy.watchdog {
            Some(_) => self.fail(pid, since, Failure::Watchdog, true),
            None => self.watch(pid, since),
        }
    }

    fn silence_ends(&self) -> Instant {
        self.policy
            .watchdog
            .map_or(Instant::NEVER, |silence| self.now.saturating_add(silence))
    }

    /// A start by notification can be extended. A grace is the host's own measure and cannot.
    fn extend_start(&mut self, pid: Pid, executed: bool, since: Instant, until: Instant, by: Duration) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) => Reply::Ignored,
            Startup::Notify { .. } => {
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
    fn not_ready(&mut self, pid: Pid, since: Instant) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) => Reply::Ignored,
            Startup::Notify { .. } => self.fail(pid, since, Failure::NotReady, false),
        }
    }

    /// After SIGKILL the process cannot extend its stop.
    fn extend_stop(&mut self, stopping: Stopping, by: Duration) -> Reply {
        if stopping.rung == Stopping::SIGKILL {
            return Reply::Ignored;
        }
        let until = stopping.until.max(self.now.saturating_add(by));
        self.life.state = State::Stopping(Stopping { until, ..stopping });
        Reply::Accepted
    }

    // Ends.

    /// The end of a start. The policy can have been exchanged for one with a longer limit.
    fn start_ends(&self, since: Instant, until: Instant) -> Instant {
        until.max(since.saturating_add(self.policy.startup.limit()))
    }

    fn start_over(&mut self, pid: Pid, executed: bool, since: Instant, until: Instant) -> Reply {
        // The policy can have been exchanged for one with a grace, which counts from the execution.
        let until = match self.policy.startup {
            Startup::Grace(_) if !executed => Instant::NEVER,
            Startup::Grace(_) | Startup::Notify { .. } => self.start_ends(since, until),
        };
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
            Startup::Grace(_) => self.run(pid, since, Cause::GraceOver),
            Startup::Notify { .. } => self.fail(pid, since, Failure::StartTimeout, false),
        }
    }

    /// The result must not depend on the order in which the exit and the end of the grace are observed.
    fn ended_early(&mut self, exit: Exit, pid: Pid, since: Instant, until: Instant) -> Reply {
        match self.policy.startup {
            Startup::Grace(_) if self.now >= self.start_ends(since, until) => {
                self.run(pid, since, Cause::GraceOver);
                self.ended(exit, since)
            }
            Startup::Grace(_) | Startup::Notify { .. } => self.judge_early_end(exit),
        }
    }

    /// The process ended before it counted as running, and none of its scope is alive.
    fn judge_early_end(&mut self, exit: Exit) -> Reply {
        if !self.policy.is_done_early(exit) {
            return self.start_failed(Failure::Ended(exit));
        }
        self.life.counters.started();
        self.ends(RunEnd::of_exit(exit));
        let expected = true;
        self.go(State::Exited { exit, expected }, Cause::Ended { exit, expected })
    }

    /// Like `ended_early`, but other processes of the scope are alive.
    fn left_early(&mut self, exit: Exit, pid: Pid, since: Instant, until: Instant) -> Reply {
        let ran = match self.policy.startup {
            Startup::Grace(_) => self.now >= self.start_ends(since, until),
            Startup::Notify { .. } => false,
        };
        if ran {
            self.run(pid, since, Cause::GraceOver);
        }
        self.leaves_others(exit, pid, since, ran)
    }

    /// A new process beside the remaining ones would run the service twice. Therefore the remaining processes are
    /// killed, and then the end of the process is judged.
    fn leaves_others(&mut self, exit: Exit, pid: Pid, since: Instant, ran: bool) -> Reply {
        let failure = Failure::Ended(exit);
        let remaining = Remaining::Others {
            exit,
            look_at: self.now.saturating_add(LOOK_FIRST),
            looks: 1,
        };
        let stopping = Stopping {
            pid,
            since,
            failed: Some(Failed { failure, ran }),
            prospect: Prospect::Open,
            rung: 0,
            until: Instant::NEVER,
            remaining,
        };
        self.go(State::Stopping(stopping), Cause::Failed(failure));
        self.climb(stopping, Stopping::SIGKILL)
    }

    fn ended(&mut self, exit: Exit, since: Instant) -> Reply {
        self.ends(RunEnd::of_exit(exit));
        let expected = self.policy.expected.contains(exit);
        self.go(State::Exited { exit, expected }, Cause::Ended { exit, expected });
        let uptime = self.now.saturating_duration_since(since);
        self.life.counters.ran_for(uptime, self.policy);
        match (self.policy.restarts_after(exit), expected) {
            (false, _) => Reply::Accepted,
            (true, true) => {
                let wait = self.life.counters.ended_as_expected(self.policy, uptime);
                self.restart_after(wait, Failure::Ended(exit))
            }
            (true, false) => self.crashed(Failure::Ended(exit)),
        }
    }

    fn crashed(&mut self, failure: Failure) -> Reply {
        match self.life.counters.crashed(self.policy, self.now) {
            None => self.give_up(failure, Cause::CrashBudgetUsedUp),
            Some(wait) => self.restart_after(wait, failure),
        }
    }

    fn restart_after(&mut self, wait: Duration, failure: Failure) -> Reply {
        if wait.is_zero() {
            return self.launch(Cause::Restart);
        }
        let until = self.now.saturating_add(wait);
        self.go(State::Backoff { until, failure }, Cause::Restart)
    }

    fn not_spawned(&mut self, errno: i32, permanent: bool) -> Reply {
        self.start_failed(Failure::Spawn { errno, permanent })
    }

    fn start_failed(&mut self, failure: Failure) -> Reply {
        self.ends(RunEnd::of_failure(failure));
        if self.life.wanted == Wanted::Down {
            self.life.counters.forget();
            return self.go(State::Stopped, Cause::Failed(failure));
        }
        let shortage = matches!(failure, Failure::Spawn { permanent: false, .. });
        let wait = self.life.counters.start_failed(self.policy, shortage);
        let until = self.now.saturating_add(wait.unwrap_or_default());
        self.go(State::Backoff { until, failure }, Cause::Failed(failure));
        match (wait, failure) {
            (None, _) => self.give_up(failure, Cause::RetriesUsedUp),
            (Some(_), Failure::Spawn { permanent: true, .. }) if !self.policy.retry_permanent => {
                self.give_up(failure, Cause::Permanent)
            }
            (Some(_), _) => Reply::Accepted,
        }
    }

    fn give_up(&mut self, failure: Failure, cause: Cause) -> Reply {
        let until = self
            .policy
            .cool_off
            .map_or(Instant::NEVER, |rest| self.now.saturating_add(rest));
        self.go(State::Fatal { until, failure }, cause)
    }

    // Stops.

    fn stop(&mut self, pid: Pid, since: Instant, then: Wanted) -> Reply {
        self.life.wanted = then;
        self.descend(pid, since, None, Cause::Requested)
    }

    fn kill(&mut self, pid: Pid, since: Instant) -> Reply {
        self.life.wanted = Wanted::Down;
        let stopping = Stopping {
            pid,
            since,
            failed: None,
            prospect: Prospect::KillRequested,
            rung: 0,
            until: Instant::NEVER,
            remaining: Remaining::Leader,
        };
        self.go(State::Stopping(stopping), Cause::Requested);
        self.climb(stopping, Stopping::SIGKILL)
    }

    /// The process is alive and has failed: it is stopped, and then judged as if it had ended.
    fn fail(&mut self, pid: Pid, since: Instant, failure: Failure, ran: bool) -> Reply {
        self.descend(pid, since, Some(Failed { failure, ran }), Cause::Failed(failure))
    }

    fn descend(&mut self, pid: Pid, since: Instant, failed: Option<Failed>, cause: Cause) -> Reply {
        let stopping = Stopping {
            pid,
            since,
            failed,
            prospect: Prospect::Open,
            rung: 0,
            until: Instant::NEVER,
            remaining: Remaining::Leader,
        };
        self.go(State::Stopping(stopping), cause);
        self.climb(stopping, 0)
    }

    /// A start during a stop is remembered, and exempt from the judgement of a failure.
    fn start_after(&mut self, stopping: Stopping) -> Reply {
        self.life.state = State::Stopping(Stopping {
            failed: None,
            ..stopping
        });
        if stopping.failed.is_some() {
            self.life.wanted = Wanted::Up;
            return Reply::Queued;
        }
        self.wish(Wanted::Up)
    }

    /// If SIGKILL was sent, the request does not send it again before the wait for its effect is over. Afterwards each
    /// request sends it: the kernel can have refused the first one.
    fn kill_now(&mut self, stopping: Stopping) -> Reply {
        let reply = self.wish(Wanted::Down);
        let stopping = match stopping.prospect {
            Prospect::Open => Stopping {
                prospect: Prospect::KillRequested,
                ..stopping
            },
            Prospect::KillRequested | Prospect::EndedBefore => stopping,
        };
        self.life.state = State::Stopping(stopping);
        if stopping.rung == Stopping::SIGKILL && stopping.until != Instant::NEVER {
            reply
        } else {
            self.climb(stopping, Stopping::SIGKILL)
        }
    }

    fn climb_or_look(&mut self, stopping: Stopping) -> Reply {
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
        self.climb(stopping, stopping.rung.saturating_add(1))
    }

    fn climb(&mut self, stopping: Stopping, number: u8) -> Reply {
        let (number, rung) = self.policy.stop.rung(number);
        self.reaction.action = Some(Action::Signal {
            signal: rung.signal,
            scope: rung.scope,
        });
        let until = self.now.saturating_add(rung.wait);
        self.life.state = State::Stopping(Stopping {
            rung: number,
            until,
            ..stopping
        });
        Reply::Accepted
    }

    fn leader_ended(&mut self, stopping: Stopping, exit: Exit) -> Reply {
        match self.policy.stop.scope() {
            Scope::Process => self.gone(stopping, exit),
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

    fn look(&mut self, stopping: Stopping) -> Reply {
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
                scope: self.policy.stop.kill,
            }
        } else {
            Action::Look {
                scope: self.policy.stop.scope(),
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
    fn ready_without_program(&mut self, since: Instant) -> Reply {
        self.ends(RunEnd::NotSpawned);
        self.ended(Exit::Unknown, since)
    }

    fn ended_before(&mut self, stopping: Stopping) -> Reply {
        let prospect = Prospect::EndedBefore;
        self.life.state = State::Stopping(Stopping { prospect, ..stopping });
        Reply::Accepted
    }

    fn not_executed(&mut self, stopping: Stopping) -> Reply {
        self.ends(RunEnd::NotSpawned);
        self.gone(stopping, Exit::Unknown)
    }

    /// Records why the run ended, unless a more exact reason is recorded.
    fn ends(&mut self, end: RunEnd) {
        self.reaction.end.get_or_insert(end);
    }

    /// All processes of the stop have ended: the only way out of `Stopping`.
    fn gone(&mut self, stopping: Stopping, exit: Exit) -> Reply {
        self.ends(RunEnd::of_stop(&stopping, exit, &self.policy.stop));
        match (self.life.wanted, stopping.failed) {
            (Wanted::Down, _) => {
                self.life.counters.forget();
                self.go(State::Stopped, Cause::Gone)
            }
            (Wanted::Up, None) => self.start(Cause::Requested),
            (
                Wanted::Up,
                Some(Failed {
                    failure: Failure::Ended(exit),
                    ran,
                }),
            ) => match ran {
                true => self.ended(exit, stopping.since),
                false => self.judge_early_end(exit),
            },
            (Wanted::Up, Some(Failed { failure, ran: false })) => self.start_failed(failure),
            (Wanted::Up, Some(Failed { failure, ran: true })) => {
                self.go(State::Exited { exit, expected: false }, Cause::Failed(failure));
                self.life
                    .counters
                    .ran_for(self.now.saturating_duration_since(stopping.since), self.policy);
                // The process failed before the stop, so its exit is never expected.
                match self.policy.restart {
                    Restart::Always | Restart::OnUnexpected => self.crashed(failure),
                    Restart::Never => Reply::Accepted,
                }
            }
        }
    }

    fn go(&mut self, to: State, cause: Cause) -> Reply {
        self.reaction.push(Transition {
            from: self.life.state.name(),
            to: to.name(),
            cause,
        });
        self.life.state = to;
        Reply::Accepted
    }
}
