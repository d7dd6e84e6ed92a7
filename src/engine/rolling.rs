//! Rolling restarts, as the engine carries them out.
//!
//! After every input to a member, the engine asks for the next member to restart. The restart itself is a pending
//! request, like those of a command for thousands, so restarts are never nested.

use super::core::Engine;
use super::error::Error;
use super::event::Event;
use super::ids::{GroupId, InstanceId};
use super::kernel::Kernel;
use super::request::{Outcome, Request};
use super::spec::check_count;
use crate::group::{Roll, Rolling};
use crate::lifecycle::StateName;

impl<K: Kernel> Engine<K> {
    pub(crate) fn roll(&mut self, id: GroupId, rolling: Rolling) -> Result<Outcome, Error> {
        self.check_open()?;
        self.check_size(id)?;
        if rolling.max_unavailable == 0 {
            return Err(Error::NoneUnavailable);
        }
        let group = self.group(id)?;
        let target = group.roster.target();
        // Where no instance is restarted, none is added for the time being.
        let surge = if target == 0 { 0 } else { rolling.surge };
        let more = target.saturating_add(surge);
        check_count(more)?;
        let members: Vec<_> = (0..target).filter_map(|number| group.roster.get(number)).collect();
        let (_, own) = self.programs(&group.spec(more), group.roster.newcomers(more))?;
        let alive: Vec<_> = members.into_iter().filter(|&member| self.is_up(member)).collect();
        let queued = u32::try_from(alive.len()).unwrap_or(u32::MAX);
        self.exchange(id, more, own);
        let extra = self.members_from(id, target);
        if let Some(group) = self.groups.get_mut(id) {
            group.roll = Some((Roll::new(rolling, alive, extra.clone()), target));
        }
        let not_asked: Vec<_> = extra
            .iter()
            .copied()
            .filter(|&member| !self.is_wanted(member))
            .collect();
        self.submit_all(&not_asked, Request::Start);
        for &member in &extra {
            self.rolled_to(member);
        }
        self.roll_on(id);
        Ok(Outcome {
            queued,
            ..Outcome::default()
        })
    }

    /// Checks that the size of a group may change: not during a rolling restart, and not while the group is leaving.
    pub(crate) fn check_size(&self, id: GroupId) -> Result<(), Error> {
        let group = self.group(id)?;
        match (group.leaving, &group.roll) {
            (true, _) => Err(Error::Leaving(id)),
            (false, Some(_)) => Err(Error::Rolling(id)),
            (false, None) => Ok(()),
        }
    }

    /// Gives the state of an instance to the rolling restart of its group, if there is one.
    pub(crate) fn rolled_to(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(id) else { return };
        if instance.pending.is_none() {
            let state = instance.life.state().name();
            self.rolled_through(id, instance.group, state);
        }
    }

    pub(crate) fn rolled_through(&mut self, id: InstanceId, group: GroupId, state: StateName) {
        if let Some((roll, _)) = self.groups.get_mut(group).and_then(|group| group.roll.as_mut()) {
            roll.reached(id, state);
        }
    }

    /// Continues the rolling restart of a group, if there is one.
    pub(crate) fn roll_on(&mut self, id: GroupId) {
        loop {
            let Some((roll, _)) = self.groups.get_mut(id).and_then(|group| group.roll.as_mut()) else {
                return;
            };
            let Some(next) = roll.next() else { break };
            if self.is_up(next) {
                self.submit(next, Request::Restart, &mut 0);
            } else if let Some((roll, _)) = self.groups.get_mut(id).and_then(|group| group.roll.as_mut()) {
                roll.left(next);
            }
        }
        let Some(group) = self.groups.get_mut(id) else { return };
        if let Some((roll, target)) = group.roll.take_if(|(roll, _)| roll.is_over()) {
            let (name, failed) = (group.name.clone(), roll.failed());
            self.events.push(Event::Rolled {
                group: id,
                name,
                failed,
            });
            // A program that took over in the middle may want more instances than there are.
            self.resize(id, target);
        }
    }

    fn members_from(&self, id: GroupId, number: u32) -> Vec<InstanceId> {
        let Some(group) = self.groups.get(id) else {
            return Vec::new();
        };
        (number..group.roster.target())
            .filter_map(|number| group.roster.get(number))
            .collect()
    }
}
