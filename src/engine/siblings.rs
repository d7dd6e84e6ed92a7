//! What the end of one instance means for its siblings: the other instances of its group.
//!
//! The crashes that use up a shared budget are those that each instance remembers in its lifecycle, so they are stored
//! with its record, and a start by request forgets those of the instance that is started. Rejected: one list for the
//! group, which would have to be stored apart from the records, and could differ from them after a crash of the host.
//!
//! A joint restart ([`GroupSpec::strategy`](crate::GroupSpec::strategy)) is in no list either. Each lifecycle knows its
//! own part ([`Joint`]), and the gate is a function of these parts: all that take part are started when each of them
//! waits for nothing else. So another host finds the same gate. The instance that has ended is marked until its siblings
//! are told, so that a host that recovers tells those that the killed one has not told. The first few siblings are told at
//! once, and the others in the turns that follow ([`Telling`]), because a stop takes as long as any other. A request for the
//! instance itself tells all that are left, because it removes the mark. The starts are those of a delay that is over, so
//! many of them are served in slices too.
//!
//! An end for good is marked in the same way until it is known what it means for the group.

use super::core::Engine;
use super::event::{Event, StopReason};
use super::ids::{GroupId, InstanceId};
use super::instance::Instance;
use super::kernel::Kernel;
use super::request::Request;
use super::telling::Telling;
use crate::lifecycle::{AutoShutdown, Cause, Input, Joint, Reply, State, StateName, Strategy, Wanted};
use crate::time::Instant;

impl<K: Kernel> Engine<K> {
    /// The number of crashes of the siblings within the window of the shared budget, for an input that can be a crash.
    pub(super) fn others_crashes(&self, id: InstanceId, input: Input) -> usize {
        if !input.may_end_run() {
            return 0;
        }
        let group = self.instances.get(id).map(|instance| instance.group);
        let Some(group) = group.and_then(|group| self.groups.get(group)) else {
            return 0;
        };
        let Some(budget) = group.policy.shared_budget else {
            return 0;
        };
        let others = group.roster.iter().filter(|&other| other != id);
        let lives = others.filter_map(|other| Some(&self.instances.get(other)?.life));
        lives.map(|life| life.crashes_within(budget.window, self.now)).sum()
    }

    /// After an input to an instance that takes part in a joint restart, or took part before: tells its siblings of its
    /// end, and starts them together when nothing is left to wait for. The instance may have left with the input.
    pub(super) fn follow_siblings(&mut self, id: InstanceId, group: GroupId) {
        if self.tells_siblings {
            return;
        }
        // It may leave meanwhile: a rolling restart that ends takes its additional instances down.
        self.tell_siblings(id);
        self.start_jointly(group);
    }

    /// After another host: what it has not done.
    pub(super) fn follow_all_siblings(&mut self) {
        let joint = |id| {
            let instance = self.instances.get(id).filter(|instance| instance.life.is_joint())?;
            Some((id, instance.group))
        };
        let all: Vec<_> = self.instances.ids().filter_map(joint).collect();
        for (id, group) in all {
            self.follow_siblings(id, group);
        }
    }

    /// Stops the siblings of an instance that has ended and is started again, if it has not been done. What an end for
    /// good means is decided at the end of the call: a request of the host may follow in it.
    fn tell_siblings(&mut self, id: InstanceId) {
        let tells = |instance: &&Instance| instance.life.joint() == Joint::Tells;
        let Some(instance) = self.instances.get(id).filter(tells) else {
            return;
        };
        let (group, number, run) = (instance.group, instance.name.number, instance.life.runs());
        if instance.life.state().name() != StateName::Backoff {
            self.ended.push(id);
            return;
        }
        if self.telling.iter().any(|begun| begun.ended == id && begun.run == run) {
            return;
        }
        self.mark_siblings(group, number);
        let telling = Telling {
            ended: id,
            group,
            run,
            next: 0,
        };
        // A request of the host has started it before all were told of an earlier end.
        self.telling.retain(|earlier| earlier.ended != id);
        if let Some(rest) = self.tell(telling, K::SLICE) {
            self.telling.push_back(rest);
        }
    }

    /// Marks the siblings that the end of the instance with this number concerns. What the host starts from now on is not
    /// concerned.
    fn mark_siblings(&mut self, group: GroupId, ended: u32) {
        let Some(known) = self.groups.get(group) else { return };
        let (strategy, end) = (known.policy.strategy, known.roster.end());
        for number in (0..end).filter(|&number| strategy.concerns(number, ended)) {
            let member = self.member(group, number);
            if let Some(instance) = member.and_then(|member| self.instances.get_mut(member)) {
                instance.is_untold = true;
            }
        }
    }

    /// Tells the next sibling of an instance that has ended; whether there was one to be told.
    pub(super) fn tell_next(&mut self) -> bool {
        let Some(telling) = self.telling.pop_front() else {
            return false;
        };
        let group = telling.group;
        match self.tell(telling, 1) {
            Some(rest) => self.telling.push_front(rest),
            None => self.start_jointly(group),
        }
        true
    }

    /// Tells at most so many siblings. Returns what is left.
    fn tell(&mut self, mut telling: Telling, most: u32) -> Option<Telling> {
        let end = self.groups.get(telling.group).map_or(0, |group| group.roster.end());
        let mut left = most;
        self.tells_siblings = true;
        while telling.next < end && left > 0 {
            let number = telling.next;
            telling.next += 1;
            let Some(member) = self.member(telling.group, number) else {
                continue;
            };
            let instance = self.instances.get_mut(member);
            let is_untold = instance.is_some_and(|instance| std::mem::take(&mut instance.is_untold));
            if is_untold && self.is_to_be_told(member) {
                let reply = self.apply_input(member, Input::StopWithSiblings);
                left -= u32::from(reply == Reply::Accepted);
            }
        }
        self.tells_siblings = false;
        if telling.next < end {
            return Some(telling);
        }
        // A request of the host may have begun another run, which may have ended for good since.
        let ended = self.instances.get(telling.ended);
        if ended.is_some_and(|ended| ended.life.runs() == telling.run) {
            self.note_told(telling.ended);
        }
        None
    }

    /// Before a request that can begin another run of an instance, or end the wait for one: tells all siblings that are left
    /// to be told of its end, because the end is not in its record any more after that. Returns the group if there were any;
    /// its joint restart may have waited for nothing else.
    pub(super) fn tell_the_rest(&mut self, id: InstanceId) -> Option<GroupId> {
        if self.tells_siblings {
            return None;
        }
        let begun = self.telling.iter().position(|telling| telling.ended == id)?;
        let rest = self.telling.remove(begun)?;
        let group = rest.group;
        self.tell(rest, u32::MAX);
        Some(group)
    }

    fn note_told(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.life.note_told();
        }
        self.store(id);
    }

    /// At the end of a call: what the ends for good mean for the groups.
    pub(super) fn follow_ends(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            let tells = |instance: &&Instance| instance.life.joint() == Joint::Tells;
            let ended = self.instances.get(id).filter(tells);
            let Some(group) = ended.map(|instance| instance.group) else {
                continue;
            };
            if let Some(reason) = self.reason_to_stop(group, id) {
                self.stop_group(group, id, reason);
            }
            self.note_told(id);
            self.start_jointly(group);
        }
    }

    /// Why a group stops after the end of this instance; `None` if it does not.
    fn reason_to_stop(&self, id: GroupId, ended: InstanceId) -> Option<StopReason> {
        let group = self.groups.get(id).filter(|group| !group.leaving)?;
        // The host has stopped it since, or it has ended together with another one.
        if !self.is_wanted(ended) || self.is_retiring(ended) || self.is_additional(ended) {
            return None;
        }
        let is_fatal = self.instances.get(ended)?.life.state().name() == StateName::Fatal;
        let goes_on = |member| member != ended && self.goes_on(member);
        match group.policy.auto_shutdown {
            AutoShutdown::AnyEnd => Some(StopReason::AnyEnd),
            _ if is_fatal && group.policy.strategy != Strategy::OneForOne => Some(StopReason::GivenUp),
            AutoShutdown::AllEnd if !group.roster.iter().any(goes_on) => Some(StopReason::AllEnd),
            AutoShutdown::AllEnd | AutoShutdown::Never => None,
        }
    }

    /// Whether it is in the group for the time of a rolling restart only.
    fn is_additional(&self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        let roll = self.groups.get(instance.group).and_then(|group| group.roll.as_ref());
        roll.is_some_and(|&(_, target)| instance.name.number >= target)
    }

    /// Whether an instance is up or is going to be.
    fn goes_on(&self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get(id).filter(|_| self.is_wanted(id)) else {
            return false;
        };
        let is_over = match instance.life.state() {
            State::Stopped | State::Exited { .. } => true,
            State::Fatal { until, .. } => *until == Instant::NEVER,
            _ => false,
        };
        // Its end is looked at later, so that the last one of several is that of the group.
        let is_next = instance.life.joint() == Joint::Tells;
        instance.pending.is_some() || is_next || !is_over
    }

    /// Stops a group because of the end of one of its instances. The stops are pending requests, so that many are served
    /// in slices, and a stop waits for the groups that come after this one.
    fn stop_group(&mut self, id: GroupId, ended: InstanceId, reason: StopReason) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.wanted = Wanted::Down;
        let members: Vec<_> = group.roster.iter().collect();
        self.save_before_starts();
        if let Some(name) = self.instances.get(ended).map(|instance| instance.name.clone()) {
            self.events.push(Event::GroupStops {
                instance: ended,
                group: id,
                name,
                reason,
            });
        }
        for member in members {
            if self.is_wanted(member) {
                self.submit_because(member, Request::Stop, Some(Cause::SiblingEnded), &mut 0);
            }
        }
    }

    /// Whether the end of a sibling concerns an instance: not if the host has requested another thing of it.
    fn is_to_be_told(&self, id: InstanceId) -> bool {
        let pending = self.instances.get(id).and_then(|instance| instance.pending);
        matches!(pending, None | Some(Request::Start))
    }

    /// Whether siblings are still to be told of an end, or an instance that takes part in a joint restart waits for
    /// something else than its siblings.
    fn is_any_unready(&self, group: GroupId) -> bool {
        if self.telling.iter().any(|telling| telling.group == group) {
            return true;
        }
        let waits = |member| {
            let joint = self.instances.get(member).map(|instance| instance.life.joint());
            matches!(joint, Some(Joint::Tells | Joint::Waits))
        };
        let group = self.groups.get(group);
        group.is_some_and(|group| group.roster.iter().any(waits))
    }

    /// Starts the instances that take part in a joint restart, when each of them waits for nothing else.
    pub(super) fn start_jointly(&mut self, group: GroupId) {
        if self.tells_siblings || self.is_any_unready(group) {
            return;
        }
        let end = self.groups.get(group).map_or(0, |group| group.roster.end());
        // Nothing follows from one of them before it is done for all.
        self.tells_siblings = true;
        for number in 0..end {
            let Some(member) = self.member(group, number) else {
                continue;
            };
            let instance = self.instances.get(member);
            if instance.is_some_and(|instance| instance.life.joint() == Joint::Ready) {
                self.apply_input(member, Input::StartWithSiblings);
            }
        }
        self.tells_siblings = false;
    }

    fn member(&self, group: GroupId, number: u32) -> Option<InstanceId> {
        self.groups.get(group)?.roster.get(number)
    }
}
