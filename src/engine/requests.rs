//! The pending requests of instances: submitted, held while the maximum of spawns is in flight, and applied.

use super::core::{COLLECTIONS, Engine};
use super::ids::InstanceId;
use super::instance::Instance;
use super::kernel::Kernel;
use super::request::Request;
use crate::lifecycle::{Cause, Reply, State, StateName};

impl<K: Kernel> Engine<K> {
    /// Submits a request for an instance. It is applied at once while the budget lasts and no earlier request waits.
    pub(crate) fn submit(&mut self, id: InstanceId, request: Request, budget: &mut u32) -> Reply {
        self.submit_because(id, request, None, budget)
    }

    /// The same for a request that the host did not make itself.
    pub(super) fn submit_because(
        &mut self,
        id: InstanceId,
        request: Request,
        because: Option<Cause>,
        budget: &mut u32,
    ) -> Reply {
        // A rolling restart that ends in the middle of a command retires the instances that it had added.
        if request.wants_up() && self.is_retiring(id) {
            return Reply::Ignored;
        }
        if request.wants_up() {
            self.give_room(id);
        }
        self.replace_waiting(id, request, because);
        let Some(instance) = self.instances.get_mut(id) else {
            return Reply::Ignored;
        };
        instance.set_because(because);
        let waited = instance.awaits_order;
        let Some(earlier) = instance.pending else {
            if self.waits_in_order(id, request) {
                self.set_pending(id, Some(request));
                self.report_wait(id);
                return Reply::Queued;
            }
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
        let waits = |instance: &Instance| instance.awaits_order || instance.pending.is_none();
        if waited && !self.instances.get(id).is_none_or(waits) {
            self.waiting.push_back(id);
        }
        Reply::Queued
    }

    /// A request that waits for other groups is replaced by one that ends the wait: a start by a stop, and a stop by
    /// SIGKILL.
    fn replace_waiting(&mut self, id: InstanceId, request: Request, because: Option<Cause>) {
        let Some(instance) = self.instances.get(id).filter(|instance| instance.awaits_order) else {
            return;
        };
        match (instance.pending, request) {
            (Some(Request::Start | Request::Restart), Request::Stop | Request::Kill) => {
                self.withdraw_start(id, because.unwrap_or(Cause::Requested));
            }
            // It is stored with the SIGKILL: a host that is killed in between must not forget both.
            (Some(Request::Stop), Request::Kill) => drop(self.put_pending(id, None)),
            (Some(_) | None, _) => {}
        }
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
        let awaits_order = request.is_some_and(|request| self.waits_in_order(id, request));
        let is_held = !awaits_order && request.is_some_and(|request| self.needs_spawn(id, request));
        let instance = self.instances.get_mut(id)?;
        let before = std::mem::replace(&mut instance.pending, request);
        let was_held = std::mem::replace(&mut instance.is_held, is_held);
        let awaited_order = std::mem::replace(&mut instance.awaits_order, awaits_order);
        let count = |request: Option<Request>| usize::from(request.is_some());
        self.pending = (self.pending + count(request)).saturating_sub(count(before));
        self.held = (self.held + usize::from(is_held)).saturating_sub(usize::from(was_held));
        self.ordered = (self.ordered + usize::from(awaits_order)).saturating_sub(usize::from(awaited_order));
        self.order_changed = true;
        before
    }

    /// Applies the next pending request, and returns whether there was one. While the maximum of spawns is in flight, a
    /// request that needs a spawn moves to the end of the queue.
    pub(crate) fn serve_request(&mut self) -> bool {
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { break };
            let is_held = self.instances.get(id).is_some_and(|instance| instance.is_held);
            if self.must_wait_on(id) {
                continue;
            }
            if is_held && self.kernel.is_saturated() {
                self.waiting.push_back(id);
            } else if self.run_pending(id) {
                return true;
            }
        }
        false
    }

    /// Whether the pending request of an instance waits for other groups. It does not wait in the queue then.
    fn must_wait_on(&mut self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        let (pending, waited) = (instance.pending, instance.awaits_order);
        let waits = pending.is_some_and(|request| self.waits_in_order(id, request));
        if waits && !waited {
            self.put_pending(id, pending);
            self.report_wait(id);
        }
        waits
    }

    /// Applies the pending request of an instance, and returns whether there was one that need not wait. The stop of a
    /// process that has ended does not wait for other groups: the process is not to be started again.
    pub(crate) fn run_pending(&mut self, id: InstanceId) -> bool {
        let pending = self.instances.get(id).and_then(|instance| instance.pending);
        if !(pending == Some(Request::Stop) && self.has_ended(id)) && self.must_wait_on(id) {
            return false;
        }
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
            self.about_to_start = Some(id);
            // After an error, the next readiness of the descriptor leads to another attempt.
            let _later = self.process_ready(id);
            self.about_to_start = None;
        }
        let told = self.tell_the_rest(id);
        let reply = self.apply_now(id, request);
        if let Some(group) = told {
            // The request may have done nothing: the instance may have left when its end was handled.
            self.start_jointly(group);
        }
        reply
    }

    /// The same, when nothing is left to be done before it.
    fn apply_now(&mut self, id: InstanceId, request: Request) -> Reply {
        let is_ended = self.end_pending(id);
        // A rolling restart may have waited for this end, and may now retire the instance.
        if request.wants_up() && self.is_retiring(id) {
            if is_ended {
                self.store(id);
            }
            return Reply::Ignored;
        }
        let reply = self.apply_input(id, request.input());
        if reply == Reply::Already {
            self.note_that_it_stays(id);
        }
        reply
    }

    /// A rolling restart can have waited for a start of this instance that a stop has replaced. No transition tells it.
    fn note_that_it_stays(&mut self, id: InstanceId) {
        if let Some(group) = self.instances.get(id).map(|instance| instance.group) {
            self.rolled_to(id);
            self.roll_on(group);
        }
    }

    /// Whether the process of an instance that is up has ended, and the lifecycle has not yet been given the end.
    fn is_up_and_has_ended(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(id);
        let is_up = |name| matches!(name, StateName::Preparing | StateName::Starting | StateName::Running);
        instance.is_some_and(|instance| is_up(instance.life.state().name())) && self.has_ended(id)
    }
}
