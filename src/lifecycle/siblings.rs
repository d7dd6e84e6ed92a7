//! The part of one process in a restart together with its siblings: the other instances of its group.
//!
//! A lifecycle knows no other one. It knows whether it takes part ([`Joint`]), and a supervisor gives the inputs
//! [`Input::StopWithSiblings`](super::Input) and [`Input::StartWithSiblings`](super::Input). Every request of the host
//! ends its part. What takes part is stored with the lifecycle, so a supervisor that takes over finds the same.

use super::cause::Cause;
use super::end::RunEnd;
use super::failure::Failure;
use super::input::{Input, Reply};
use super::machine::Lifecycle;
use super::state::{State, Wanted};
use super::strategy::{AutoShutdown, Joint, Strategy};
use super::table::Turn;
use crate::exit::{Exit, Pid};
use crate::time::Instant;

impl Lifecycle {
    /// Its part in a joint restart.
    pub(crate) const fn joint(&self) -> Joint {
        self.joint
    }

    /// Whether it takes part in a joint restart.
    pub(crate) fn is_joint(&self) -> bool {
        self.joint != Joint::None
    }

    /// Whether it is started again together with its siblings.
    pub(crate) fn awaits_siblings(&self) -> bool {
        self.is_joint() && matches!(self.state, State::Backoff { .. })
    }

    /// Its siblings have been told of its end.
    pub(crate) fn note_told(&mut self) {
        if self.joint == Joint::Tells {
            self.joint = match self.state {
                State::Backoff {
                    until: Instant::NEVER, ..
                } => Joint::Ready,
                State::Backoff { .. } => Joint::Waits,
                _ => Joint::None,
            };
        }
    }

    /// Whether its part agrees with its state.
    pub(crate) fn is_joint_possible(&self) -> bool {
        let is_possible = match (self.joint, self.state) {
            (Joint::None, _) => return true,
            (Joint::Tells, State::Backoff { .. } | State::Exited { .. }) => true,
            (Joint::Tells, State::Fatal { until, .. }) => until == Instant::NEVER,
            (Joint::Ready, State::Backoff { until, .. }) => until == Instant::NEVER,
            (Joint::Waits, State::Backoff { until, .. }) => until != Instant::NEVER,
            (Joint::Waits, State::Stopping(_) | State::CleaningUp { .. }) => true,
            (Joint::Tells | Joint::Waits | Joint::Ready, _) => false,
        };
        is_possible && self.wanted == Wanted::Up
    }
}

impl Turn<'_> {
    /// Takes an input together with the part in a joint restart: a request of the host ends the part, and so does a
    /// state that is none of it.
    pub(super) fn take_jointly(&mut self, input: Input) -> Reply {
        let is_request = matches!(input, Input::Start | Input::Restart | Input::Stop | Input::Kill);
        let was_joint = is_request && self.life.is_joint();
        if is_request {
            self.life.joint = Joint::None;
        }
        let reply = self.step(input);
        if self.has_ended_for_good() {
            self.life.joint = Joint::Tells;
        }
        // With an endless delay it is not started again, and nothing may wait for it.
        if self.life.joint != Joint::None && !self.life.is_joint_possible() {
            self.life.joint = Joint::None;
        }
        match reply {
            // It was to be started later.
            Reply::Already if was_joint && self.life.wanted == Wanted::Up => Reply::Queued,
            reply => reply,
        }
    }

    /// Whether it has just ended for good, and that may mean something for the siblings. A stop on request leads to
    /// `Stopped`.
    fn has_ended_for_good(&self) -> bool {
        let is_shut_down = self.policy.auto_shutdown != AutoShutdown::Never;
        let concerns = match self.life.state {
            State::Exited { .. } => is_shut_down,
            // With a cool-off it takes no part: it is started again.
            State::Fatal { .. } => is_shut_down || self.policy.strategy != Strategy::OneForOne,
            _ => false,
        };
        concerns && self.reaction.transitions().next().is_some()
    }

    /// A run that follows by the policy waits for the siblings that the strategy concerns.
    pub(super) fn restarts_jointly(&mut self, until: Instant) -> bool {
        match self.policy.strategy {
            _ if until == Instant::NEVER => return false,
            Strategy::OneForOne if self.life.joint == Joint::None => return false,
            Strategy::OneForOne => self.life.joint = Joint::Waits,
            Strategy::OneForAll | Strategy::RestForOne => self.life.joint = Joint::Tells,
        }
        true
    }

    /// The process is stopped because a sibling has ended. It stays wanted. Its run was no failure, and clears the
    /// counters if it was stable.
    pub(super) fn stop_with_siblings(&mut self, pid: Pid, since: Instant) -> Reply {
        self.life.joint = Joint::Waits;
        if matches!(self.life.state, State::Running { .. }) {
            let uptime = self.now.saturating_duration_since(since);
            self.life.counters.ran_for(uptime, self.policy);
        }
        self.begin_stop(pid, since, None, Cause::SiblingEnded)
    }

    /// A start that has not begun is put off.
    pub(super) fn put_start_off(&mut self) -> Reply {
        if self.life.wanted == Wanted::Down {
            return Reply::Ignored;
        }
        self.record_end(RunEnd::Stopped);
        if self.life.prepared && self.policy.after_run.is_some() {
            self.life.joint = Joint::Waits;
            return self.clean_up(Exit::Unknown, None, self.now, Cause::SiblingEnded);
        }
        self.wait_for_siblings()
    }

    /// Nothing is alive, and the next run begins together with those of the siblings.
    pub(super) fn wait_for_siblings(&mut self) -> Reply {
        self.life.joint = Joint::Ready;
        let waiting = State::Backoff {
            until: Instant::NEVER,
            failure: Failure::Sibling,
        };
        self.transition(waiting, Cause::SiblingEnded)
    }

    /// A run that is judged later, and then may be followed by another one, takes part. A run of which the next one was
    /// requested does not.
    pub(super) fn join(&mut self, follows_by_policy: bool) -> Reply {
        match self.life.joint {
            _ if !follows_by_policy || self.life.wanted == Wanted::Down => Reply::Ignored,
            Joint::None => {
                self.life.joint = Joint::Waits;
                Reply::Accepted
            }
            Joint::Tells | Joint::Waits | Joint::Ready => Reply::Already,
        }
    }

    /// The wait in `Backoff` is over.
    pub(super) fn delay_over(&mut self) -> Reply {
        match self.life.joint {
            Joint::None => return self.begin_run(Cause::DelayOver),
            Joint::Waits => self.life.joint = Joint::Ready,
            Joint::Tells | Joint::Ready => {}
        }
        self.set_wait(Instant::NEVER)
    }

    /// All siblings that take part have ended, and all their delays are over. The own delay must be over too. Only a
    /// supervisor notes that the siblings are told; a host that has only lifecycles gives this input when they are.
    pub(super) fn start_with_siblings(&mut self) -> Reply {
        if !self.life.is_joint() || self.life.deadline().is_some() {
            return Reply::Ignored;
        }
        self.life.joint = Joint::None;
        self.set_wait(self.now)
    }

    fn set_wait(&mut self, until: Instant) -> Reply {
        if let State::Backoff { until: wait, .. } = &mut self.life.state {
            *wait = until;
        }
        Reply::Accepted
    }
}
