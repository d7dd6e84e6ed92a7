//! The order of groups: which groups a start waits for, and which ones a stop waits for.
//!
//! An order holds between requests. The start of an instance waits until the groups that its group comes after are
//! running, and the stop of an instance waits until the groups that come after its group have gone down. A request that
//! waits is a pending request of its instance. It is in no queue: when anything has changed that it can depend on, the
//! engine looks at the gates of the groups with pending requests ([`Engine::follow_order`]). Each gate is a function of
//! the states, so another host finds the same one.
//!
//! Restarts by the policy do not wait, and neither does SIGKILL on request.
//!
//! Rejected: a state of the lifecycle for a start that waits, because the lifecycle of a process knows no other process.

use super::core::Engine;
use super::error::{Error, SpecError};
use super::event::Event;
use super::ids::{GroupId, InstanceId, Target};
use super::instance::{Group, Instance};
use super::kernel::Kernel;
use super::place::{Edges, GroupRef, Order, OrderSpec};
use super::request::Request;
use crate::lifecycle::{Cause, State, StateName, Stopping, Wanted};

/// How an instance stands for the groups that come after its group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is running, or it is a job that is done.
    Up,
    /// It is on its way up or down.
    Moving,
    /// It has failed, and is not started again by itself.
    Failed,
    /// It is stopped.
    Down,
}

fn standing(instance: &Instance) -> Standing {
    if instance.pending.is_some() {
        return Standing::Moving;
    }
    match *instance.life.state() {
        State::Running { .. } | State::Exited { expected: true, .. } => Standing::Up,
        State::Preparing { .. }
        | State::Starting { .. }
        | State::Backoff { .. }
        | State::Stopping(_)
        | State::CleaningUp { .. } => Standing::Moving,
        State::Fatal { .. } | State::Exited { expected: false, .. } => Standing::Failed,
        State::Stopped => Standing::Down,
    }
}

/// Whether an instance is being stopped, or is about to be, and has a process that has not ended. A process that not
/// even SIGKILL has ended is not waited for.
fn goes_down(instance: &Instance) -> bool {
    let is_to_stop = matches!(instance.pending, Some(Request::Stop | Request::Kill));
    match *instance.life.state() {
        State::Stopping(Stopping {
            rung: Stopping::SIGKILL,
            until: crate::time::Instant::NEVER,
            ..
        }) => false,
        // The command after the run may need what the run has needed.
        State::Stopping(_) | State::CleaningUp { .. } => instance.life.wanted() == Wanted::Down || is_to_stop,
        State::Preparing { pid: Some(_), .. } | State::Starting { pid: Some(_), .. } | State::Running { .. } => {
            is_to_stop
        }
        State::Preparing { pid: None, .. }
        | State::Starting { pid: None, .. }
        | State::Stopped
        | State::Exited { .. }
        | State::Backoff { .. }
        | State::Fatal { .. } => false,
    }
}

impl<K: Kernel> Engine<K> {
    // Descriptions.

    /// Finds the groups that a description names, and checks that the order is possible. `own` is the group that gets
    /// the description; `None` for a new one.
    pub(super) fn resolve_order(&self, order: &OrderSpec, own: Option<GroupId>) -> Result<Edges, SpecError> {
        let find = |refs: &[GroupRef]| -> Result<Vec<GroupId>, SpecError> {
            let mut ids = Vec::with_capacity(refs.len());
            for name in refs {
                let id = self.find_group(name)?;
                if own == Some(id) {
                    return Err(SpecError::AfterItself);
                }
                if own.is_some_and(|own| self.comes_after(id, own)) {
                    return Err(SpecError::OrderCycle(name.clone()));
                }
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            Ok(ids)
        };
        let requires = find(&order.requires)?;
        let mut after = find(&order.after)?;
        after.retain(|id| !requires.contains(id));
        Ok(Edges { after, requires })
    }

    fn find_group(&self, group: &GroupRef) -> Result<GroupId, SpecError> {
        let found = match group {
            GroupRef::Id(id) => Some(*id),
            GroupRef::Name(name) => self.group_named(name),
        };
        let known = found.and_then(|id| Some((id, self.groups.get(id)?)));
        match known {
            None => Err(SpecError::NoSuchGroup(group.clone())),
            Some((_, known)) if known.leaving => Err(SpecError::LeavingGroup(group.clone())),
            Some((id, _)) => Ok(id),
        }
    }

    /// Whether a group comes after another one, directly or not.
    pub(super) fn comes_after(&self, id: GroupId, other: GroupId) -> bool {
        let (mut seen, mut next) = (vec![id], 0);
        while let Some(&at) = seen.get(next) {
            next += 1;
            for before in self
                .groups
                .get(at)
                .into_iter()
                .flat_map(|group| group.order.edges.iter())
            {
                if before == other {
                    return true;
                }
                if !seen.contains(&before) {
                    seen.push(before);
                }
            }
        }
        false
    }

    /// Gives a group its place among the others, and looks at what waits for another reason from now on. The edges were
    /// checked.
    pub(super) fn set_order(&mut self, id: GroupId, edges: Edges) {
        let old = self.place_in_order(id, edges);
        // A group that has lost its place in the order is looked at for the last time.
        for other in old
            .into_iter()
            .flat_map(|old| old.iter().chain([id]).collect::<Vec<_>>())
        {
            self.open_gates(other);
        }
    }

    /// Gives a group its place among the others. Returns the old one, if it was another.
    pub(super) fn place_in_order(&mut self, id: GroupId, edges: Edges) -> Option<Edges> {
        let group = self.groups.get_mut(id).filter(|group| group.order.edges != edges)?;
        let old = std::mem::replace(&mut group.order.edges, edges.clone());
        for before in old.iter() {
            if let Some(group) = self.groups.get_mut(before) {
                group.order.followers.retain(|&follower| follower != id);
            }
        }
        for before in edges.iter() {
            if let Some(group) = self.groups.get_mut(before) {
                group.order.followers.push(id);
            }
        }
        self.must_save = true;
        self.rank_groups();
        Some(old)
    }

    /// Gives every group a rank above those of the groups that it comes after.
    pub(super) fn rank_groups(&mut self) {
        let ids: Vec<_> = self.groups.ids().collect();
        for &id in &ids {
            if let Some(group) = self.groups.get_mut(id) {
                group.order.rank = 0;
                // What comes after it later has not lost it.
                group.order.ended = group.order.ended.filter(|_| !group.order.followers.is_empty());
            }
        }
        // No chain is longer than the number of groups.
        for _ in 0..ids.len() {
            let mut is_done = true;
            for &id in &ids {
                let Some(group) = self.groups.get(id) else { continue };
                let rank = group
                    .order
                    .edges
                    .iter()
                    .map(|before| self.rank(before).saturating_add(1));
                let rank = rank.max().unwrap_or(0);
                if let Some(group) = self.groups.get_mut(id).filter(|group| group.order.rank != rank) {
                    (group.order.rank, is_done) = (rank, false);
                }
            }
            if is_done {
                break;
            }
        }
        self.ranked.clear();
        for id in ids {
            let order = self.groups.get(id).map(|group| &group.order);
            if order.is_some_and(|order| order.edges != Edges::default() || !order.followers.is_empty()) {
                self.ranked.push(id);
            }
        }
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.sort_by_key(|&id| self.rank(id));
        self.ranked = ranked;
        self.order_changed = true;
    }

    fn rank(&self, id: GroupId) -> u32 {
        self.groups.get(id).map_or(0, |group| group.order.rank)
    }

    /// Checks that no group that stays requires this one.
    pub(super) fn check_not_required(&self, id: GroupId) -> Result<(), Error> {
        let followers = self.groups.get(id).map(|group| &group.order.followers);
        let requires = |by: &&GroupId| {
            let group = self.groups.get(**by);
            group.is_some_and(|group| !group.leaving && group.order.edges.requires.contains(&id))
        };
        match followers.and_then(|followers| followers.iter().find(requires)) {
            Some(&by) => Err(Error::Required { group: id, by }),
            None => Ok(()),
        }
    }

    /// A group is gone, so no other one comes after it. A start that still waits for it does not take place.
    pub(super) fn leave_order(&mut self, gone: GroupId, order: &Order) {
        for &follower in &order.followers {
            let Some(group) = self.groups.get_mut(follower) else {
                continue;
            };
            let required = group.order.edges.requires.contains(&gone);
            group.order.edges.after.retain(|&id| id != gone);
            group.order.edges.requires.retain(|&id| id != gone);
            if required {
                self.withdraw_starts(follower, Cause::RequirementRemoved);
            }
        }
        for before in order.edges.iter() {
            if let Some(group) = self.groups.get_mut(before) {
                group.order.followers.retain(|&id| id != gone);
            }
        }
        if self.ranked.is_empty() {
            return;
        }
        self.rank_groups();
        for other in order.edges.iter().chain(order.followers.iter().copied()) {
            self.open_gates(other);
        }
    }

    // Gates.

    /// Whether a request for an instance must wait for other groups.
    pub(super) fn waits_in_order(&self, id: InstanceId, request: Request) -> bool {
        if self.ranked.is_empty() {
            return false;
        }
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        let Some(group) = self.groups.get(instance.group) else {
            return false;
        };
        match request {
            Request::Start | Request::Restart => is_startable(instance) && !self.may_start(group),
            Request::Stop => is_stoppable(instance) && !self.may_stop(group),
            Request::Kill => false,
        }
    }

    /// Whether the groups that this one comes after are running, or do not come up.
    fn may_start(&self, group: &Group) -> bool {
        let mut groups = group.order.edges.after.iter();
        groups.all(|&id| !self.is_moving(id)) && group.order.edges.requires.iter().all(|&id| self.is_running(id))
    }

    /// Whether no group that comes after this one is going down.
    fn may_stop(&self, group: &Group) -> bool {
        !group.order.followers.iter().any(|&id| self.is_going_down(id))
    }

    fn is_going_down(&self, id: GroupId) -> bool {
        let members = self.groups.get(id).into_iter().flat_map(|group| group.roster.iter());
        let mut members = members.filter_map(|member| self.instances.get(member));
        members.any(goes_down)
    }

    /// The instances of a group that stay, the highest number first: the last one to be started tells soonest that the
    /// group is not running yet.
    fn staying(&self, id: GroupId) -> impl Iterator<Item = &Instance> + '_ {
        let group = self.groups.get(id);
        let numbers = (0..group.map_or(0, |group| group.roster.target())).rev();
        let members = numbers.filter_map(move |number| group?.roster.get(number));
        members.filter_map(|member| self.instances.get(member))
    }

    fn is_moving(&self, id: GroupId) -> bool {
        self.staying(id).any(|instance| standing(instance) == Standing::Moving)
    }

    /// Whether at least one instance of a group is up, and the others are too or were stopped.
    fn is_running(&self, id: GroupId) -> bool {
        let mut is_any_up = false;
        for instance in self.staying(id) {
            match standing(instance) {
                Standing::Up => is_any_up = true,
                Standing::Down => {}
                Standing::Moving | Standing::Failed => return false,
            }
        }
        is_any_up
    }

    /// The groups that a pending request of an instance waits for.
    pub(super) fn waits_for(&self, instance: &Instance) -> Vec<GroupId> {
        let (Some(request), Some(group)) = (instance.pending, self.groups.get(instance.group)) else {
            return Vec::new();
        };
        let order = &group.order;
        match request {
            _ if !instance.awaits_order => Vec::new(),
            Request::Start | Request::Restart => {
                let after = order.edges.after.iter().filter(|&&id| self.is_moving(id));
                let requires = order.edges.requires.iter().filter(|&&id| !self.is_running(id));
                requires.chain(after).copied().collect()
            }
            Request::Stop | Request::Kill => {
                let followers = order.followers.iter().filter(|&&id| self.is_going_down(id));
                followers.copied().collect()
            }
        }
    }

    // Commands.

    /// Puts the instances of a command into the order of their groups: starts begin with the groups that others come
    /// after, and stops with the groups that come after others. Then each finds those that it waits for on their way.
    pub(super) fn sort_in_order(&self, ids: &mut [InstanceId], request: Request) {
        if self.ranked.is_empty() {
            return;
        }
        let rank = |id: &InstanceId| self.instances.get(*id).map_or(0, |instance| self.rank(instance.group));
        ids.sort_by_key(rank);
        if !request.wants_up() {
            ids.reverse();
        }
    }

    /// Puts groups that are to be removed together into the order of their stops.
    pub(super) fn sort_groups_for_stop(&self, ids: &mut [GroupId]) {
        ids.sort_by_key(|&id| std::cmp::Reverse(self.rank(id)));
    }

    /// The groups that require the target's group, directly or not.
    pub(super) fn requirers(&self, target: Target) -> Vec<GroupId> {
        let Target::Group(id) = target else { return Vec::new() };
        let (mut found, mut next) = (vec![id], 0);
        while let Some(&at) = found.get(next) {
            next += 1;
            let followers = self.groups.get(at).map_or(&[][..], |group| &group.order.followers);
            for &follower in followers {
                let group = self.groups.get(follower);
                let requires = group.is_some_and(|group| group.order.edges.requires.contains(&at));
                if requires && !found.contains(&follower) {
                    found.push(follower);
                }
            }
        }
        found.remove(0);
        found
    }

    // What waits.

    /// Notes that an instance was stopped that others can wait for.
    pub(super) fn note_stop(&mut self, id: InstanceId, from: StateName, to: StateName) {
        if self.ranked.is_empty() || to != StateName::Stopped || from == StateName::Stopped || self.is_retiring(id) {
            return;
        }
        if self.is_stop_command(id) {
            return;
        }
        if let Some(group) = self.instances.get(id).map(|instance| instance.group) {
            self.note_end(group, Cause::RequirementStopped);
        }
    }

    /// Notes why the starts that wait for a group must not go on to wait. A group that nothing comes after is not
    /// looked at, so nothing would forget it.
    fn note_end(&mut self, id: GroupId, cause: Cause) {
        let group = self.groups.get_mut(id);
        if let Some(group) = group.filter(|group| !group.order.followers.is_empty()) {
            group.order.ended = Some(cause);
        }
    }

    /// Looks at what waits, after anything has changed that it can depend on: requests that need no longer wait join
    /// the queue, and starts that have lost what they require are withdrawn.
    pub(crate) fn follow_order(&mut self) {
        if !std::mem::take(&mut self.order_changed) {
            return;
        }
        // A rolling restart may go on with a start in place of one that was withdrawn. It must be looked at too.
        let mut is_withdrawn = true;
        while std::mem::take(&mut is_withdrawn) {
            // The groups that others come after are first, so that a start that is withdrawn is seen by those after it.
            for place in 0..self.ranked.len() {
                if self.pending == 0 {
                    break;
                }
                let Some(&id) = self.ranked.get(place) else { break };
                self.open_gates(id);
                if let Some(cause) = self.lost_requirement(id) {
                    is_withdrawn |= self.withdraw_starts(id, cause);
                }
            }
        }
        for place in 0..self.ranked.len() {
            let group = self.ranked.get(place).copied();
            if let Some(group) = group.and_then(|id| self.groups.get_mut(id)) {
                group.order.ended = None;
            }
        }
        // What was done here has been looked at.
        self.order_changed = false;
    }

    /// Why the starts of a group must not go on to wait; `None` if they may.
    fn lost_requirement(&self, id: GroupId) -> Option<Cause> {
        let requires = &self.groups.get(id)?.order.edges.requires;
        requires.iter().find_map(|&before| {
            let is_any = |is: fn(Standing) -> bool| self.staying(before).any(|instance| is(standing(instance)));
            if is_any(|standing| standing == Standing::Failed) {
                return Some(Cause::RequirementFailed);
            }
            let ended = self.groups.get(before)?.order.ended;
            ended.filter(|_| !is_any(|standing| matches!(standing, Standing::Up | Standing::Moving)))
        })
    }

    /// Withdraws the starts of a group that wait in order, and returns whether there was one.
    fn withdraw_starts(&mut self, id: GroupId, cause: Cause) -> bool {
        let members = self.groups.get(id).map_or(0, |group| group.roster.end());
        let mut is_any = false;
        for number in 0..members {
            let member = self.groups.get(id).and_then(|group| group.roster.get(number));
            let withdrawn = member.filter(|&member| self.withdraw_start(member, cause));
            if let Some(member) = withdrawn {
                is_any = true;
                self.drop_descriptors_at_rest(member);
            }
        }
        if is_any {
            self.note_end(id, Cause::RequirementFailed);
        }
        is_any
    }

    /// Withdraws the start of an instance that waits in order, and returns whether there was one.
    pub(super) fn withdraw_start(&mut self, id: InstanceId, cause: Cause) -> bool {
        let is_start = |instance: &&Instance| instance.awaits_order && instance.pending.is_some_and(Request::wants_up);
        let Some(instance) = self.instances.get(id).filter(is_start) else {
            return false;
        };
        let (group, name) = (instance.group, instance.name.clone());
        self.set_pending(id, None);
        self.events.push(Event::StartWithdrawn {
            instance: id,
            group,
            name,
            cause,
        });
        self.rolled_to(id);
        self.roll_on(group);
        true
    }

    /// Withdraws the starts of a group that have waited for one that is gone. The host was killed after it had removed
    /// that group and before it had recorded that these starts are withdrawn. The records are stored with the next base.
    pub(super) fn withdraw_again_in_order(&mut self, id: GroupId) {
        let members: Vec<_> = self
            .groups
            .get(id)
            .into_iter()
            .flat_map(|group| group.roster.iter())
            .collect();
        for member in members {
            let waits =
                |instance: &&Instance| instance.pending.is_some_and(Request::wants_up) && is_startable(instance);
            let Some(instance) = self.instances.get(member).filter(waits) else {
                continue;
            };
            let name = instance.name.clone();
            self.put_pending(member, None);
            self.events.push(Event::StartWithdrawn {
                instance: member,
                group: id,
                name,
                cause: Cause::RequirementRemoved,
            });
            self.note_end(id, Cause::RequirementFailed);
        }
    }

    /// Lets the pending requests of a group that need not wait join the queue, and takes those that must wait out of it.
    fn open_gates(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        let members = group.roster.end();
        let (mut may_start, mut may_stop) = (None, None);
        for number in 0..members {
            let Some(group) = self.groups.get(id) else { return };
            let Some(member) = group.roster.get(number) else {
                continue;
            };
            let Some(instance) = self.instances.get(member) else {
                continue;
            };
            let waits = match instance.pending {
                None => continue,
                Some(Request::Start | Request::Restart) => {
                    is_startable(instance) && !*may_start.get_or_insert_with(|| self.may_start(group))
                }
                Some(Request::Stop) => is_stoppable(instance) && !*may_stop.get_or_insert_with(|| self.may_stop(group)),
                Some(Request::Kill) => false,
            };
            if instance.awaits_order != waits {
                self.put_pending(member, instance.pending);
                if waits {
                    self.report_wait(member);
                } else {
                    self.waiting.push_back(member);
                }
            }
        }
    }

    /// Reports that a start waits for other groups.
    pub(super) fn report_wait(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(id).filter(|instance| instance.awaits_order) else {
            return;
        };
        let awaited = self.waits_for(instance).first().copied();
        let awaited = awaited.and_then(|id| Some((id, self.groups.get(id)?.name.clone())));
        let is_start = instance.pending.is_some_and(Request::wants_up);
        if let Some((awaited, awaited_name)) = awaited.filter(|_| is_start) {
            self.events.push(Event::StartWaits {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                awaited,
                awaited_name,
            });
        }
    }

    /// After another host: its pending requests wait again, or no longer.
    pub(super) fn restore_order(&mut self) {
        self.rank_groups();
        let ids: Vec<_> = self.instances.ids().collect();
        for id in ids {
            let pending = self.instances.get(id).and_then(|instance| instance.pending);
            self.put_pending(id, pending);
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&id| self.is_queued(id));
        self.waiting = waiting;
    }
}

/// Whether a start makes a difference for this instance that has to wait: nothing of it is alive, or is soon.
fn is_startable(instance: &Instance) -> bool {
    match instance.life.state() {
        State::Stopped | State::Exited { .. } | State::Fatal { .. } => true,
        State::Stopping(_) | State::CleaningUp { .. } => instance.life.wanted() == Wanted::Down,
        State::Preparing { .. } | State::Starting { .. } | State::Running { .. } | State::Backoff { .. } => false,
    }
}

/// Whether a stop of this instance has to wait: its process is alive, and its stop has not begun.
fn is_stoppable(instance: &Instance) -> bool {
    matches!(
        instance.life.state(),
        State::Preparing { pid: Some(_), .. } | State::Starting { pid: Some(_), .. } | State::Running { .. }
    )
}
