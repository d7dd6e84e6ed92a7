//! Who belongs to a group, by number.
//!
//! The one rule: a member whose number is below the target is to stay, and any other is to go. So
//! nothing has to remember who is leaving, and a change of mind needs no undoing.

/// Members by number, and how many there are to be.
#[derive(Debug)]
pub(crate) struct Roster<I> {
    members: Vec<Option<I>>,
    target: u32,
}

/// What a new target means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scaling<I> {
    /// Who is to go, the highest number first.
    pub(crate) leaving: Vec<I>,
    /// Who was going, and is to stay after all.
    pub(crate) recalled: Vec<I>,
    /// Which numbers are to be filled.
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

    /// Whether the member with this number is to go.
    pub(crate) const fn leaves(&self, number: u32) -> bool {
        number >= self.target
    }

    pub(crate) fn get(&self, number: u32) -> Option<I> {
        self.members.get(number as usize).copied().flatten()
    }

    /// Members from the lowest number up, those who are leaving included.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = I> + '_ {
        self.members.iter().copied().flatten()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn put(&mut self, number: u32, member: I) {
        let index = number as usize;
        if self.members.len() <= index {
            self.members.resize(index + 1, None);
        }
        self.members[index] = Some(member);
    }

    pub(crate) fn take(&mut self, number: u32) {
        if let Some(place) = self.members.get_mut(number as usize) {
            *place = None;
        }
        while self.members.last().is_some_and(Option::is_none) {
            self.members.pop();
        }
    }

    /// What `target` would mean; [`Roster::set_target`] makes it so.
    pub(crate) fn scaling(&self, target: u32) -> Scaling<I> {
        let end = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        Scaling {
            leaving: (target..end).rev().filter_map(|number| self.get(number)).collect(),
            recalled: (self.target.min(target)..target)
                .filter_map(|number| self.get(number))
                .collect(),
            missing: (0..target).filter(|&number| self.get(number).is_none()).collect(),
        }
    }

    /// The numbers that a new target gives a place to: those that are missing, and those of who was
    /// going and has been passed over by changes since.
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
    fn who_was_going_is_recalled_before_anyone_new_is_made() {
        // 4 -> 2, and number 3 is already gone, when the target becomes 5.
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
    fn a_target_below_the_last_recalls_nobody() {
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
    fn it_is_empty_when_the_last_has_left() {
        let mut roster = roster(&[0, 1, 2], 0);
        for number in [1, 2, 7, 0] {
            assert!(!roster.is_empty());
            roster.take(number);
        }
        assert!(roster.is_empty());
        assert_eq!(roster.get(1), None);
    }
}
