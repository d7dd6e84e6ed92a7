//! The end: everything is stopped, the highest priority number first, as supervisord does it.
//!
//! Programs of one priority are stopped at the same time, and those of the next lower number only when they are gone. So
//! a program that others depend on is given the lower number, and outlives them.

use pidherd::{GroupId, Target};

use super::{Herd, Member};

/// The end concerns all programs.
const EVERYTHING: &str = "all";

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Closing {
    begun: bool,
    forced: bool,
    /// The priorities whose turn is still to come, the next one last.
    tiers: Vec<(i32, i32)>,
    /// The priority that is being stopped.
    current: Option<(i32, i32)>,
}

impl Herd {
    /// Whether the end has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.begun
    }

    /// Begins to stop everything.
    pub fn shut_down(&mut self) {
        if self.closing.begun {
            return;
        }
        self.to_start.clear();
        let mut tiers: Vec<(i32, i32)> = self.members.iter().map(|member| member.priority).collect();
        tiers.sort_unstable();
        tiers.dedup();
        self.closing = Closing {
            begun: true,
            tiers,
            ..Closing::default()
        };
        self.stop_next_tier();
        self.advance_closing();
    }

    /// Stops everything with SIGKILL, now.
    pub fn kill_all(&mut self) {
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

    /// Whether the end is reached: everything is down that can be killed.
    pub fn is_over(&self) -> bool {
        let all_asked = self.closing.begun && self.closing.tiers.is_empty();
        all_asked && (self.supervisor.is_down() || self.members.iter().all(|member| self.is_down(member)))
    }

    /// Whether all went well: no stop was cut short, and nothing is left.
    pub fn went_well(&self) -> bool {
        !self.closing.forced && self.unkillable.is_empty()
    }

    pub(super) fn advance_closing(&mut self) {
        while let Some(tier) = self.closing.current {
            if !self
                .members
                .iter()
                .filter(|member| member.priority == tier)
                .all(|member| self.is_down(member))
            {
                return;
            }
            self.stop_next_tier();
        }
    }

    fn stop_next_tier(&mut self) {
        self.closing.current = self.closing.tiers.pop();
        let Some(tier) = self.closing.current.filter(|_| !self.closing.tiers.is_empty()) else {
            // For the last ones, or none at all, the supervisor itself shuts down.
            let stopped = self.supervisor.shutdown();
            self.take_in(stopped.map(drop), EVERYTHING);
            return;
        };
        let ids: Vec<GroupId> = self
            .members
            .iter()
            .filter(|member| member.priority == tier)
            .map(|member| member.id)
            .collect();
        for id in ids {
            let stopped = self.supervisor.stop(id);
            self.take_in(stopped.map(drop), &self.called(id));
        }
    }

    /// Whether nothing of a member is alive or about to be, but for what survives SIGKILL.
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
