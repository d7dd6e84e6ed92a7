//! The shutdown: it stops all programs, the highest priority number first, as supervisord does.
//!
//! Programs of equal priority are stopped at the same time. The next lower number follows when they have ended. A
//! program that other programs need gets a lower number, so it outlives them. The order (`after`, `requires`) does the
//! same: a program is stopped no earlier than those that come after it.

use std::collections::HashMap;

use pidherd::{GroupId, Target};

use super::model::{Closing, Herd, Member};

/// The name for all programs in messages about the shutdown.
const EVERYTHING: &str = "all";

impl Herd {
    /// Whether the shutdown has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.begun
    }

    /// Begins to stop all programs.
    pub fn shut_down(&mut self) {
        if self.closing.begun {
            return;
        }
        self.announce_shutdown();
        self.to_start.clear();
        let tier_of = self.tiers();
        let mut tiers: Vec<(i32, i32)> = tier_of.values().copied().collect();
        tiers.sort_unstable();
        tiers.dedup();
        self.closing = Closing {
            begun: true,
            tiers,
            tier_of,
            ..Closing::default()
        };
        self.stop_next_tier();
        self.advance_closing();
    }

    /// Kills all programs with SIGKILL at once.
    pub fn kill_all(&mut self) {
        if !self.closing.begun {
            self.announce_shutdown();
        }
        self.to_start.clear();
        self.closing = Closing {
            begun: true,
            forced: true,
            ..Closing::default()
        };
        let stopped = self.supervisor.shutdown();
        self.take_in(stopped.map(drop), EVERYTHING);
        let killed = self.supervisor.kill(Target::All);
        self.take_in(killed.map(drop), EVERYTHING);
    }

    /// Whether the shutdown is complete: each process that can be killed has ended.
    pub fn is_over(&self) -> bool {
        let all_asked = self.closing.begun && self.closing.tiers.is_empty();
        all_asked && (self.supervisor.is_down() || self.members.iter().all(|member| self.is_down(member)))
    }

    /// Whether the shutdown was clean: no stop was cut short, and no process survived SIGKILL.
    pub fn went_well(&self) -> bool {
        !self.closing.forced && self.unkillable.is_empty()
    }

    pub(super) fn advance_closing(&mut self) {
        while let Some(tier) = self.closing.current {
            if !self
                .members
                .iter()
                .filter(|member| self.closing.tier_of.get(&member.id) == Some(&tier))
                .all(|member| self.is_down(member))
            {
                return;
            }
            self.stop_next_tier();
        }
    }

    /// The priority with which each group is stopped: its own, or a lower one of a group that comes after it.
    fn tiers(&self) -> HashMap<GroupId, (i32, i32)> {
        let priorities = self.members.iter().map(|member| (member.id, member.priority));
        let mut tiers: HashMap<GroupId, (i32, i32)> = priorities.collect();
        // Each member follows those that it comes after, so one pass from the last to the first suffices.
        for member in self.members.iter().rev() {
            let Some(&own) = tiers.get(&member.id) else { continue };
            let places = self.present_places(member.id);
            for before in places.after.iter().chain(&places.requires) {
                if let Some(tier) = tiers.get_mut(before) {
                    *tier = own.min(*tier);
                }
            }
        }
        tiers
    }

    fn stop_next_tier(&mut self) {
        self.closing.current = self.closing.tiers.pop();
        let Some(tier) = self.closing.current.filter(|_| !self.closing.tiers.is_empty()) else {
            // The supervisor itself shuts down the last tier, or an empty herd.
            let stopped = self.supervisor.shutdown();
            self.take_in(stopped.map(drop), EVERYTHING);
            return;
        };
        let ids: Vec<GroupId> = self
            .members
            .iter()
            .filter(|member| self.closing.tier_of.get(&member.id) == Some(&tier))
            .map(|member| member.id)
            .collect();
        for id in ids {
            let stopped = self.supervisor.stop(id);
            self.take_in(stopped.map(drop), &self.called(id));
        }
    }

    /// Whether no process of a member is alive or about to start. Processes that survive SIGKILL do not count.
    fn is_down(&self, member: &Member) -> bool {
        let Some(group) = self.supervisor.group(member.id) else {
            return true;
        };
        group.instances.iter().all(|id| {
            let Some(status) = self.supervisor.status(*id) else {
                return true;
            };
            let quiet = status.pid.is_none() && status.pending.is_none() && status.state.deadline().is_none();
            quiet || self.unkillable.contains(id)
        })
    }
}
