//! The ladders that a stop can have: that of the policy, that for a watchdog, and one that the host gives for this stop.

use super::act::Act;
use super::chance::Chance;
use super::host::{Broken, Host, Touched};
use super::model::{Group, Instance, Model};
use super::recipe;
use crate::engine::error::Error;
use crate::engine::ids::{InstanceId, Target};
use crate::engine::request::Request;
use crate::lifecycle::{Policy, Scope, StopLadder};

impl Instance {
    /// The ladders that its stop may follow, or may have followed. Those of the host are for its present run.
    pub(super) fn ladders<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a StopLadder> + Clone {
        let run = self.runs();
        let own = self.own_ladders.iter().filter(move |(of, _)| *of == run);
        let of_policy = [Some(&policy.stop), policy.watchdog_stop.as_ref()];
        of_policy.into_iter().flatten().chain(own.map(|(_, ladder)| ladder))
    }
}

/// A ladder for the stop of a group or of one of its instances.
pub(super) fn act(chance: &mut Chance, model: &Model) -> Option<Act> {
    let id = chance.find(&model.groups.iter().map(|group| group.id).collect::<Vec<_>>())?;
    let ladder = recipe::ladder_like(chance, &model.group(id)?.policy.stop);
    let members: Vec<InstanceId> = model
        .instances
        .iter()
        .filter(|known| known.group == id)
        .map(|known| known.id)
        .collect();
    let target = match chance.find(&members).filter(|_| chance.happens(2)) {
        Some(id) => Target::Instance(id),
        None => Target::Group(id),
    };
    Some(Act::StopWith(target, Box::new(ladder)))
}

impl Host {
    /// Stops by a ladder that the groups allow. For a group that leaves, the engine may have no description.
    pub(super) fn stop_with(&mut self, target: Target, ladder: &StopLadder) -> Result<Touched, Broken> {
        let groups: Vec<&Group> = match target {
            Target::Group(id) => self.model.group(id).into_iter().collect(),
            Target::Instance(id) => {
                let known = self.model.instance(id);
                known
                    .and_then(|known| self.model.group(known.group))
                    .into_iter()
                    .collect()
            }
            Target::All => self.model.groups.iter().collect(),
        };
        if groups.iter().any(|group| group.leaving) {
            return Ok(Touched::These(Vec::new()));
        }
        if groups.iter().any(|group| !allows(group, ladder)) {
            let result = self.call(|driver| driver.stop_with(target, ladder));
            return match result {
                Err(Error::Spec(_)) => Ok(Touched::These(Vec::new())),
                other => Err(format!("the ladder is not allowed, and the answer is {other:?}")),
            };
        }
        // The host may be killed in the call.
        for id in self.model.audience(target).unwrap_or_default() {
            let is_in_run = |before: &&super::host::Snapshot| before.id == id && before.state.name().is_in_run();
            if self.before.iter().any(|before| is_in_run(&before)) {
                let mut known = self.model.instances.iter_mut();
                if let Some(known) = known.find(|known| known.id == id) {
                    let run = known.runs();
                    known.own_ladders.retain(|(of, _)| *of == run);
                    known.own_ladders.push((run, ladder.clone()));
                }
            }
        }
        let expected = self.model.request(target, Request::Stop);
        let result = self.call(|driver| driver.stop_with(target, ladder));
        let touched = self.concerned(expected, result)?;
        Ok(touched.and(std::mem::take(&mut self.model.also)))
    }
}

fn allows(group: &Group, ladder: &StopLadder) -> bool {
    ladder.scope() >= group.policy.stop.scope()
        && (!ladder.has(Scope::Cgroup) || group.recipe.cgroup.is_some())
        && (!ladder.has(Scope::ProcessGroup) || group.recipe.leads)
}
