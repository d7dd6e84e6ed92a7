//! Rolling restart: the instances of a group are restarted a few at a time, so that most of them are always
//! up.

use std::collections::VecDeque;

use crate::codec::{Damaged, Reader, Stored, Writer};
use crate::lifecycle::StateName;

/// The settings of a rolling restart. The restart ends at the first instance that does not come up again. The
/// instances that were not restarted yet keep running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Rolling {
    /// How many instances may be down at the same time; at least 1.
    pub max_unavailable: u32,
    /// How many additional instances are started before the first one is restarted, and stopped after the
    /// last one. Their numbers follow those of the group. If `surge` is at least `max_unavailable`, the group
    /// always has its full number of running instances.
    pub surge: u32,
}

impl Default for Rolling {
    /// One instance at a time, without additional instances.
    fn default() -> Rolling {
        Rolling {
            max_unavailable: 1,
            surge: 0,
        }
    }
}

impl Rolling {
    /// One instance at a time, without additional instances, as [`Rolling::default`].
    ///
    /// ```
    /// use pidherd::group::Rolling;
    ///
    /// let never_fewer = Rolling::new().max_unavailable(2).surge(2);
    /// ```
    #[must_use]
    pub fn new() -> Rolling {
        Rolling::default()
    }

    /// Sets how many instances may be down at the same time: 1 or more, 1 by default.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::group::Rolling;
    ///
    /// supervisor.start(group)?;
    /// supervisor.rolling_restart(group, Rolling::new().max_unavailable(2))?;
    /// // None may be down, so none can be restarted.
    /// assert!(supervisor.rolling_restart(group, Rolling::new().max_unavailable(0)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn max_unavailable(mut self, instances: u32) -> Rolling {
        self.max_unavailable = instances;
        self
    }

    /// Sets how many additional instances are started first: 0 by default.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::group::Rolling;
    ///
    /// supervisor.start(group)?;
    /// // A third instance is started first, so that two are always running.
    /// supervisor.rolling_restart(group, Rolling::new().surge(1))?;
    /// assert_eq!(supervisor.group(group).ok_or("no group")?.instances.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn surge(mut self, instances: u32) -> Rolling {
        self.surge = instances;
        self
    }
}

/// A rolling restart in progress.
#[derive(Clone, Debug)]
pub(crate) struct Roll<I> {
    /// The additional instances that must be up before the first instance is restarted.
    awaited: Vec<I>,
    /// The instances that are still to be restarted.
    waiting: VecDeque<I>,
    /// The instances that are being restarted, at most `most` of them.
    under_way: Vec<I>,
    most: usize,
    /// The first instance that did not come up.
    failed: Option<I>,
}

impl<I: Copy + PartialEq> Roll<I> {
    pub(crate) fn new(rolling: Rolling, members: impl IntoIterator<Item = I>, awaited: Vec<I>) -> Roll<I> {
        Roll {
            awaited,
            waiting: members.into_iter().collect(),
            under_way: Vec::new(),
            most: usize::try_from(rolling.max_unavailable).unwrap_or(usize::MAX),
            failed: None,
        }
    }

    /// The next instance to restart now. The caller repeats the call until it returns `None`.
    pub(crate) fn next(&mut self) -> Option<I> {
        if !self.awaited.is_empty() || self.under_way.len() >= self.most {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.under_way.push(next);
        Some(next)
    }

    /// Records that a member has reached a state.
    pub(crate) fn reached(&mut self, member: I, state: StateName) {
        let concerned = self.under_way.contains(&member) || self.awaited.contains(&member);
        match state {
            StateName::Preparing | StateName::Starting | StateName::Stopping | StateName::CleaningUp => return,
            StateName::Running => {}
            StateName::Stopped | StateName::Exited | StateName::Backoff | StateName::Fatal => {
                if concerned {
                    self.failed.get_or_insert(member);
                    self.waiting.clear();
                    self.awaited.clear();
                }
            }
        }
        self.under_way.retain(|&other| other != member);
        self.awaited.retain(|&other| other != member);
    }

    /// Records that a member was removed from the group.
    pub(crate) fn left(&mut self, member: I) {
        self.waiting.retain(|&other| other != member);
        self.under_way.retain(|&other| other != member);
        self.awaited.retain(|&other| other != member);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.awaited.is_empty() && self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Whether an instance may be restarted at all.
    pub(crate) const fn can_go_on(&self) -> bool {
        self.most > 0
    }

    /// All instances that the restart still has to do with.
    pub(crate) fn members(&self) -> impl Iterator<Item = I> + '_ {
        let parts = self.awaited.iter().chain(&self.waiting).chain(&self.under_way);
        parts.copied()
    }

    /// The instances that must come up, or fail to, before anything else is done.
    #[cfg(test)]
    pub(crate) fn awaits(&self) -> impl Iterator<Item = I> + '_ {
        self.awaited.iter().chain(&self.under_way).copied()
    }

    /// The instance that did not come up again.
    pub(crate) const fn failed(&self) -> Option<I> {
        self.failed
    }
}

impl<I: Stored> Stored for Roll<I> {
    fn put(&self, to: &mut Writer<'_>) {
        self.awaited.put(to);
        self.waiting.put(to);
        self.under_way.put(to);
        u32::try_from(self.most).unwrap_or(u32::MAX).put(to);
        self.failed.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Roll<I>, Damaged> {
        Ok(Roll {
            awaited: Stored::get(from)?,
            waiting: Stored::get(from)?,
            under_way: Stored::get(from)?,
            most: u32::get(from)? as usize,
            failed: Stored::get(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll(most: u32, awaited: &[u32]) -> Roll<u32> {
        Roll::new(
            Rolling {
                max_unavailable: most,
                surge: 0,
            },
            0..4,
            awaited.to_vec(),
        )
    }

    fn all(roll: &mut Roll<u32>) -> Vec<u32> {
        std::iter::from_fn(|| roll.next()).collect()
    }

    #[test]
    fn at_most_max_unavailable_instances_are_down() {
        let mut roll = roll(2, &[]);
        assert_eq!(all(&mut roll), [0, 1]);
        roll.reached(1, StateName::Stopping);
        roll.reached(1, StateName::Starting);
        assert!(all(&mut roll).is_empty());
        roll.reached(1, StateName::Running);
        assert_eq!(all(&mut roll), [2]);
        roll.reached(0, StateName::Running);
        roll.reached(2, StateName::Running);
        assert_eq!(all(&mut roll), [3]);
        assert!(!roll.is_over());
        roll.reached(3, StateName::Running);
        assert!(roll.is_over());
        assert_eq!(roll.failed(), None);
        assert_eq!(all(&mut self::roll(9, &[])), [0, 1, 2, 3]);
    }

    #[test]
    fn the_restart_ends_at_the_first_instance_that_does_not_come_up() {
        for state in [
            StateName::Backoff,
            StateName::Fatal,
            StateName::Exited,
            StateName::Stopped,
        ] {
            let mut roll = roll(2, &[]);
            assert_eq!(all(&mut roll), [0, 1]);
            roll.reached(3, state);
            assert_eq!(
                roll.failed(),
                None,
                "an instance that is not being restarted does not count"
            );
            roll.reached(0, state);
            assert!(all(&mut roll).is_empty());
            assert!(!roll.is_over(), "instance 1 is still being restarted");
            roll.reached(1, StateName::Running);
            assert!(roll.is_over());
            assert_eq!(roll.failed(), Some(0));
        }
    }

    #[test]
    fn no_instance_is_restarted_before_the_additional_ones_are_up() {
        let mut roll = roll(1, &[4, 5]);
        roll.reached(4, StateName::Running);
        assert!(all(&mut roll).is_empty());
        roll.reached(5, StateName::Running);
        assert_eq!(all(&mut roll), [0]);
        let mut roll = self::roll(1, &[4]);
        roll.reached(4, StateName::Backoff);
        assert!(roll.is_over());
        assert_eq!(roll.failed(), Some(4));
    }

    #[test]
    fn a_removed_instance_is_not_awaited() {
        let mut roll = roll(1, &[]);
        assert_eq!(all(&mut roll), [0]);
        (0..4).for_each(|member| roll.left(member));
        assert!(roll.is_over());
    }
}
