//! Resolves a NAME that a user typed to targets of the supervisor.

use pidherd::{InstanceId, Target};

use super::model::{Herd, Member};
use crate::names;
use crate::suggest::did_you_mean;

/// One process of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) member: usize,
    pub(super) number: u32,
    pub(super) id: InstanceId,
}

impl Herd {
    pub(super) fn select(&self, text: &str) -> Result<Vec<Place>, String> {
        let places = self.places();
        let pairs = places.iter().map(|place| {
            let member = &self.members[place.member];
            (member.program.group.as_str(), member.name(place.number))
        });
        let chosen = names::select(text, pairs, &self.empty)?;
        Ok(chosen
            .into_iter()
            .filter_map(|index| places.get(index).copied())
            .collect())
    }

    /// Every process, in start order.
    pub(super) fn places(&self) -> Vec<Place> {
        let of = |(member, Member { id, .. }): (usize, &Member)| {
            let ids = self
                .supervisor
                .group(*id)
                .map(|group| group.instances)
                .unwrap_or_default();
            let place = move |id| {
                let number = self.supervisor.status(id)?.name.number;
                Some(Place { member, number, id })
            };
            ids.into_iter().filter_map(place).collect::<Vec<_>>()
        };
        self.members.iter().enumerate().flat_map(of).collect()
    }

    /// Converts whole members to groups, and single processes to instances.
    pub(super) fn targets(&self, places: &[Place]) -> Vec<Target> {
        let mut targets = Vec::new();
        for places in places.chunk_by(|a, b| a.member == b.member) {
            let Some(member) = places.first().and_then(|place| self.members.get(place.member)) else {
                continue;
            };
            let all = self
                .supervisor
                .group(member.id)
                .map_or(0, |group| group.instances.len());
            if places.len() == all {
                targets.push(Target::Group(member.id));
            } else {
                targets.extend(places.iter().map(|place| Target::Instance(place.id)));
            }
        }
        targets
    }

    pub(super) fn check_startable(&self, places: &[Place]) -> Result<(), String> {
        if self.is_closing() {
            return Err("shutting down: no start is accepted".to_owned());
        }
        if !places.is_empty() && places.iter().all(|place| self.members[place.member].leaving) {
            return Err("the program is no longer in the configuration".to_owned());
        }
        if !places.is_empty() && places.iter().all(|place| !self.members[place.member].may_start()) {
            return Err("the old program of this name is still being stopped".to_owned());
        }
        Ok(())
    }

    /// The index of the program that `scale text` refers to.
    pub(super) fn scalable(&self, text: &str) -> Result<usize, String> {
        if self.is_closing() {
            return Err("shutting down: no start is accepted".to_owned());
        }
        let wanted = text.strip_suffix(":*").unwrap_or(text);
        let staying = || self.members.iter().enumerate().filter(|(_, member)| !member.leaving);
        let in_group: Vec<usize> = staying()
            .filter(|(_, member)| member.program.group == wanted)
            .map(|(index, _)| index)
            .collect();
        match in_group.as_slice() {
            [one] => Ok(*one),
            [] => self.scalable_by_name(wanted),
            _ => Err(format!(
                "the group {wanted:?} has several programs: scale one of them by its name"
            )),
        }
    }

    /// The only program with the name `wanted`. If several groups have it, `wanted` must be `GROUP:NAME`.
    fn scalable_by_name(&self, wanted: &str) -> Result<usize, String> {
        let (group, name) = match wanted.split_once(':') {
            Some((group, name)) => (Some(group), name),
            None => (None, wanted),
        };
        let is_meant = |member: &Member| {
            !member.leaving && member.program.name == name && group.is_none_or(|group| member.program.group == group)
        };
        let meant: Vec<usize> = (0..self.members.len())
            .filter(|&index| is_meant(&self.members[index]))
            .collect();
        match meant.as_slice() {
            [one] => Ok(*one),
            [] => {
                let staying = self.members.iter().filter(|member| !member.leaving);
                let names = staying.flat_map(|member| [member.program.group.clone(), member.program.name.clone()]);
                Err(format!("there is no group {wanted:?}{}", did_you_mean(wanted, names)))
            }
            _ => Err(format!(
                "the program {wanted:?} is in several groups: scale GROUP:{wanted}"
            )),
        }
    }

    /// Checks that `count` processes of a member have names that no other process of the group has.
    pub(super) fn check_new_names(&self, index: usize, count: u32) -> Result<(), String> {
        let member = &self.members[index];
        let siblings: Vec<&Member> = self
            .members
            .iter()
            .filter(|other| other.id != member.id && other.program.group == member.program.group)
            .collect();
        let taken = |name: &String| siblings.iter().any(|other| other.names.contains(name));
        let new = (member.names.len() as u32..count).filter_map(|number| member.program.process_name(number).ok());
        match new.into_iter().filter(|_| !siblings.is_empty()).find(taken) {
            Some(name) => Err(format!(
                "there is a process {:?} already",
                names::shown(&member.program.group, &name)
            )),
            None => Ok(()),
        }
    }
}
