//! The members of a group, by number.
//!
//! There is only one rule: a member stays if its number is below the target, and goes otherwise. So the group
//! stores no list of leaving members, and a new target needs no undoing of an older one.

use crate::growth::grow_to;

/// The members by number, and the target number of members.
#[derive(Debug)]
pub(crate) struct Roster<I> {
    members: Vec<Option<I>>,
    target: u32,
}

/// The changes that a new target requires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scaling<I> {
    /// The members that must go, the highest number first.
    pub(crate) leaving: Vec<I>,
    /// The members that were going and now stay.
    pub(crate) recalled: Vec<I>,
    /// The numbers for which a member must be created.
    pub(crate) missing: Vec<u32>,
}

impl<I: Copy> Roster<I> {
    pub(crate) const fn new() -> Roster<I> {
        Roster {
            members: Vec::new(),
            target: 0,
        }
    }

    pub(crate) const fn target(&self) -> u32 {
        self.target
    }

    /// Whether the member with this number must go.
    pub(crate) const fn leaves(&self, number: u32) -> bool {
        number >= self.target
    }

    pub(crate) fn get(&self, number: u32) -> Option<I> {
        self.members.get(number as usize).copied().flatten()
    }

    /// One more than the highest number of a member.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// All members in ascending order, including the ones that are going.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = I> + '_ {
        self.members.iter().copied().flatten()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn put(&mut self, number: u32, member: I) {
        let index = number as usize;
        if self.members.len() <= index {
            grow_to(&mut self.members, index + 1);
            self.members.resize(index + 1, None);
        }
        if let Some(slot) = self.members.get_mut(index) {
            *slot = Some(member);
        }
    }

    /// Makes room for this many more members.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let room = self.members.len() + additional;
        grow_to(&mut self.members, room);
    }

    pub(crate) fn take(&mut self, number: u32) {
        if let Some(place) = self.members.get_mut(number as usize) {
            *place = None;
        }
        while self.members.last().is_some_and(Option::is_none) {
            self.members.pop();
        }
    }

    /// The changes that `target` would require. Only [`Roster::set_target`] sets it.
    pub(crate) fn scaling(&self, target: u32) -> Scaling<I> {
        Scaling {
            leaving: (target..self.end())
                .rev()
                .filter_map(|number| self.get(number))
                .collect(),
            recalled: (self.target.min(target)..target)
                .filter_map(|number| self.get(number))
                .collect(),
            missing: (0..target).filter(|&number| self.get(number).is_none()).collect(),
        }
    }

    /// The numbers below a new target that need a program: numbers without a member, and numbers of members
    /// that are going. (A member that is going may run an outdated command, because reloads skip it.)
    pub(crate) fn newcomers(&self, target: u32) -> impl Iterator<Item = u32> + '_ {
        (0..target).filter(|&number| self.leaves(number) || self.get(number).is_none())
    }

    pub(crate) const fn set_target(&mut self, target: u32) {
        self.target = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(numbers: &[u32], target: u32) -> Roster<u32> {
        let mut roster = Roster::new();
        for &number in numbers {
            roster.put(number, number + 100);
        }
        roster.set_target(target);
        roster
    }

    #[test]
    fn the_highest_number_goes_first() {
        let scaling = roster(&[0, 1, 2, 3], 4).scaling(2);
        assert_eq!(
            scaling,
            Scaling {
                leaving: vec![103, 102],
                recalled: vec![],
                missing: vec![]
            }
        );
    }

    #[test]
    fn a_leaving_member_is_recalled_instead_of_being_replaced() {
        // The target changed from 4 to 2, number 3 is gone already, and the target becomes 5.
        let scaling = roster(&[0, 1, 2], 2).scaling(5);
        assert_eq!(
            scaling,
            Scaling {
                leaving: vec![],
                recalled: vec![102],
                missing: vec![3, 4]
            }
        );
    }

    #[test]
    fn a_lower_target_recalls_no_member() {
        let scaling = roster(&[0, 1, 2, 3], 2).scaling(1);
        assert_eq!(
            scaling,
            Scaling {
                leaving: vec![103, 102, 101],
                recalled: vec![],
                missing: vec![]
            }
        );
    }

    #[test]
    fn a_roster_is_empty_after_its_last_member_left() {
        let mut roster = roster(&[0, 1, 2], 0);
        for number in [1, 2, 7, 0] {
            assert!(!roster.is_empty());
            roster.take(number);
        }
        assert!(roster.is_empty());
        assert_eq!(roster.get(1), None);
    }
}
