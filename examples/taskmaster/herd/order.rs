//! The order of the programs (`after`, `requires`) as an order of the library's groups.
//!
//! A reference of the configuration may mean several programs, and a program may come and go while others refer to it.
//! So the order is made anew after each change of the herd ([`Herd::put_in_order`]).

use pidherd::{GroupId, GroupSpec};

use super::model::{Herd, Member};
use crate::config::{self, Program};
use crate::spec;

/// The groups that a group comes after, each list in the order of the ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) after: Vec<GroupId>,
    pub(super) requires: Vec<GroupId>,
}

impl Places {
    fn new(mut after: Vec<GroupId>, mut requires: Vec<GroupId>) -> Places {
        after.retain(|id| !requires.contains(id));
        for ids in [&mut after, &mut requires] {
            ids.sort_unstable();
            ids.dedup();
        }
        Places { after, requires }
    }

    /// The part that is also in `other`.
    fn common(&self, other: &Places) -> Places {
        let of = |ids: &[GroupId], others: &[GroupId]| ids.iter().copied().filter(|id| others.contains(id)).collect();
        Places::new(of(&self.after, &other.after), of(&self.requires, &other.requires))
    }

    /// The description with this order.
    pub(super) fn of(&self, spec: GroupSpec) -> GroupSpec {
        let spec = self.after.iter().fold(spec, |spec, &id| spec.after(id));
        self.requires.iter().fold(spec, |spec, &id| spec.requires(id))
    }
}

impl Herd {
    /// The order that the configuration gives to a program among the present ones.
    pub(super) fn wanted_places(&self, program: &Program) -> Places {
        let order = &program.beyond.order;
        if order.is_empty() {
            return Places::default();
        }
        let meant = |names: &[String]| {
            let is_meant = |member: &&Member| {
                let is_it = |name: &String| config::means(name, &member.program);
                !member.leaving && names.iter().any(is_it)
            };
            self.members.iter().filter(is_meant).map(|member| member.id).collect()
        };
        Places::new(meant(&order.after), meant(&order.requires))
    }

    /// The order that a group has.
    pub(super) fn present_places(&self, id: GroupId) -> Places {
        let group = self.supervisor.group(id);
        group.map_or_else(Places::default, |group| Places::new(group.after, group.requires))
    }

    /// A name that a program requires and that no present program has.
    pub(super) fn missing_requirement(&self, program: &Program) -> Option<String> {
        let is_missing = |name: &&String| {
            let is_it = |member: &Member| !member.leaving && config::means(name, &member.program);
            !self.members.iter().any(is_it)
        };
        program.beyond.order.requires.iter().find(is_missing).cloned()
    }

    /// A program that requires one of these groups, and is not in them.
    pub(super) fn requiring(&self, ids: &[GroupId]) -> Option<String> {
        let requires = |member: &&Member| {
            let places = self.present_places(member.id);
            let is_in = !ids.contains(&member.id) && !member.leaving;
            is_in && places.requires.iter().any(|id| ids.contains(id))
        };
        self.members
            .iter()
            .find(requires)
            .map(|member| member.program.name.clone())
    }

    /// Gives every program its place. What is no longer wanted goes first, so that no cycle arises in between.
    pub(super) fn put_in_order(&mut self) {
        let staying = self.members.iter().filter(|member| !member.leaving);
        let changes: Vec<(GroupId, Places, Places)> = staying
            .map(|member| {
                let wanted = self.wanted_places(&member.program);
                (member.id, self.present_places(member.id), wanted)
            })
            .filter(|(_, present, wanted)| present != wanted)
            .collect();
        for (id, present, wanted) in &changes {
            let common = present.common(wanted);
            if common != *present {
                self.place(*id, &common);
            }
        }
        for (id, _, wanted) in &changes {
            self.place(*id, wanted);
        }
    }

    fn place(&mut self, id: GroupId, places: &Places) {
        let Some(member) = self.members.iter().find(|member| member.id == id) else {
            return;
        };
        let program = &member.program;
        let count = self.supervisor.group(id).map_or(program.numprocs, |group| group.target);
        let spec = places.of(spec::group(program, &member.alias, count, self.shared));
        let placed = self.supervisor.reload(id, spec);
        self.take_in(placed.map(drop), &self.called(id));
    }
}
