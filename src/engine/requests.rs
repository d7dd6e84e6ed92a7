//! The pending requests of instances: submitted, held while the maximum of spawns is in flight, and applied.

use super::core::{COLLECTIONS, Engine};
use super::ids::InstanceId;
use super::kernel::Kernel;
use super::request::Request;
use crate::lifecycle::{Reply, State, StateName};

impl<K: Kernel> Engine<K> {
    /// Submits a request for an instance. It is applied at once while the budget lasts and no earlier request waits.
    pub(crate) fn submit(&mut self, id: InstanceId, request: Request, budget: &mut u32) -> Reply {
        // A rolling restart that ends in the middle of a command retires the instances that it had added.
        if request.wants_up() && self.is_retiring(id) {
            return Reply::Ignored;
        }
        let Some(instance) = self.instances.get(id) else {
            return Reply::Ignored;
        };
        let Some(earlier) = instance.pending else {
            let must_wait = self.kernel.is_saturated() && self.needs_spawn(id, request);
            if *budget > 0 && !must_wait {
                *budget -= 1;
                return self.apply(id, request);
            }
            self.set_pending(id, Some(request));
            self.waiting.push_back(id);
            return Reply::Queued;
        };
        self.set_pending(id, Some(earlier.then(request).unwrap_or(request)));
        if earlier.then(request).is_none() {
            // No single request has the effect of both, so the earlier one is applied now.
            self.apply(id, earlier);
        }
        Reply::Queued
    }

    /// Whether a request needs a spawn of its own: now, or after the stop of a process that works. The restart of a
    /// process in flight does not, because its stop ends a spawn in flight.
    fn needs_spawn(&self, id: InstanceId, request: Request) -> bool {
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        match *instance.life.state() {
            State::Stopped | State::Exited { .. } | State::Backoff { .. } | State::Fatal { .. } => request.wants_up(),
            State::Preparing { executed: Some(_), .. }
            | State::Starting { executed: Some(_), .. }
            | State::Running { .. } => request == Request::Restart,
            State::Preparing { executed: None, .. }
            | State::Starting { executed: None, .. }
            | State::Stopping(_)
            | State::CleaningUp { .. } => false,
        }
    }

    /// Sets or clears the pending request of an instance, and stores nothing. Returns the previous one.
    pub(super) fn put_pending(&mut self, id: InstanceId, request: Option<Request>) -> Option<Request> {
        let is_held = request.is_some_and(|request| self.needs_spawn(id, request));
        let instance = self.instances.get_mut(id)?;
        let before = std::mem::replace(&mut instance.pending, request);
        let was_held = std::mem::replace(&mut instance.is_held, is_held);
        let count = |request: Option<Request>| usize::from(request.is_some());
        self.pending = (self.pending + count(request)).saturating_sub(count(before));
        self.held = (self.held + usize::from(is_held)).saturating_sub(usize::from(was_held));
        before
    }

    /// Applies the next pending request, and returns whether there was one. While the maximum of spawns is in flight, a
    /// request that needs a spawn moves to the end of the queue.
    pub(crate) fn serve_request(&mut self) -> bool {
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { break };
            let is_held = self.instances.get(id).is_some_and(|instance| instance.is_held);
            if is_held && self.kernel.is_saturated() {
                self.waiting.push_back(id);
            } else if self.run_pending(id) {
                return true;
            }
            if self.pending == self.held && self.kernel.is_saturated() {
                break;
            }
        }
        false
    }

    /// Applies the pending request of an instance, and returns whether there was one.
    pub(crate) fn run_pending(&mut self, id: InstanceId) -> bool {
        let pending = self.begin_pending(id);
        if let Some(request) = pending {
            self.apply(id, request);
        }
        if self.pending == 0 {
            self.waiting.clear();
        }
        pending.is_some()
    }

    /// Applies a request. Before a start, an end that was not handled yet is handled, because the instance is not
    /// "already" running then.
    fn apply(&mut self, id: InstanceId, request: Request) -> Reply {
        for _ in 0..COLLECTIONS {
            if request != Request::Start || !self.is_up_and_has_ended(id) {
                break;
            }
            // After an error, the next readiness of the descriptor leads to another attempt.
            let _later = self.process_ready(id);
        }
        let is_ended = self.end_pending(id);
        // A rolling restart may have waited for this end, and may now retire the instance.
        if request.wants_up() && self.is_retiring(id) {
            if is_ended {
                self.store(id);
            }
            return Reply::Ignored;
        }
        self.apply_input(id, request.input())
    }

    /// Whether the process of an instance that is up has ended, and the lifecycle has not yet been given the end.
    fn is_up_and_has_ended(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(id);
        let is_up = |name| matches!(name, StateName::Preparing | StateName::Starting | StateName::Running);
        instance.is_some_and(|instance| is_up(instance.life.state().name())) && self.has_ended(id)
    }
}
