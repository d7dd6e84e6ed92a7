//! Restarting a group a few at a time, so that most of it is up throughout.

use std::collections::VecDeque;

use crate::lifecycle::StateName;

/// How a group is restarted a few at a time. It stops at the first instance that does not come up
/// again; those that have not had their turn go on as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// How many may be down at a time; at least 1.
    pub max_unavailable: u32,
    /// How many are started before the first is stopped, and stopped after the last: with as many as
    /// may be down, as many as ever are up throughout. They have the numbers after the last.
    pub surge: u32,
}

impl Default for Rolling {
    /// One at a time, none started before.
    fn default() -> Rolling {
        Rolling {
            max_unavailable: 1,
            surge: 0,
        }
    }
}

/// A rolling restart that is under way.
#[derive(Debug)]
pub(crate) struct Roll<I> {
    /// Who has to be up before anybody is restarted.
    awaited: Vec<I>,
    waiting: VecDeque<I>,
    under_way: Vec<I>,
    most: usize,
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

    /// Who is to be restarted now; to be asked until it is nobody.
    pub(crate) fn next(&mut self) -> Option<I> {
        if !self.awaited.is_empty() || self.under_way.len() >= self.most {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.under_way.push(next);
        Some(next)
    }

    /// A member has reached a state.
    pub(crate) fn reached(&mut self, member: I, state: StateName) {
        let concerned = self.under_way.contains(&member) || self.awaited.contains(&member);
        match state {
            StateName::Starting | StateName::Stopping => return,
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

    /// A member is gone for good.
    pub(crate) fn left(&mut self, member: I) {
        self.waiting.retain(|&other| other != member);
        self.under_way.retain(|&other| other != member);
        self.awaited.retain(|&other| other != member);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.awaited.is_empty() && self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Who did not come up again.
    pub(crate) const fn failed(&self) -> Option<I> {
        self.failed
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
    fn no_more_are_down_than_may_be() {
        let mut roll = roll(2, &[]);
        assert_eq!(all(&mut roll), [0, 1]);
        roll.reached(1, StateName::Stopping);
        roll.reached(1, StateName::Starting);
        assert_eq!(all(&mut roll), []);
        roll.reached(1, StateName::Running);
        assert_eq!(all(&mut roll), [2]);
        roll.reached(0, StateName::Running);
        roll.reached(2, StateName::Running);
        assert_eq!(all(&mut roll), [3]);
        assert!(!roll.is_over());
        roll.reached(3, StateName::Running);
        assert!(roll.is_over());
        assert_eq!(roll.failed(), None);
    }

    #[test]
    fn it_ends_at_the_first_that_does_not_come_up() {
        for state in [
            StateName::Backoff,
            StateName::Fatal,
            StateName::Exited,
            StateName::Stopped,
        ] {
            let mut roll = roll(2, &[]);
            assert_eq!(all(&mut roll), [0, 1]);
            roll.reached(3, state);
            assert_eq!(roll.failed(), None, "whose turn has not come is no concern of it");
            roll.reached(0, state);
            assert_eq!(all(&mut roll), []);
            assert!(!roll.is_over(), "1 is under way");
            roll.reached(1, StateName::Running);
            assert!(roll.is_over());
            assert_eq!(roll.failed(), Some(0));
        }
    }

    #[test]
    fn nobody_is_stopped_before_the_additional_ones_are_up() {
        let mut roll = roll(1, &[4, 5]);
        roll.reached(4, StateName::Running);
        assert_eq!(all(&mut roll), []);
        roll.reached(5, StateName::Running);
        assert_eq!(all(&mut roll), [0]);
        let mut roll = self::roll(1, &[4]);
        roll.reached(4, StateName::Backoff);
        assert!(roll.is_over());
        assert_eq!(roll.failed(), Some(4));
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut roll = roll(1, &[]);
        assert_eq!(all(&mut roll), [0]);
        (0..4).for_each(|member| roll.left(member));
        assert!(roll.is_over());
    }
}
