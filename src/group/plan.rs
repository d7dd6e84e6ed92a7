//! What a new description of a group changes, said before it is done.

/// What a changed command means for an instance that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing has changed for it.
    None,
    /// It runs on as it is; its next start is by the new description (a changed environment).
    AtNextStart,
    /// It has to be restarted to become what is described (a changed command).
    Restart,
}

/// What a reload does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The policy, or the group's name, changes in place: nobody is restarted for that.
    pub policy: bool,
    /// The number of instances changes from the first to the second.
    pub scale: Option<(u32, u32)>,
    /// What becomes of each instance that stays, by number; those with [`Effect::None`] left out.
    pub instances: Vec<(u32, Effect)>,
}

impl Plan {
    /// Compares: `effect` says what the new description means for the instance with a number.
    pub(crate) fn new(policy: bool, from: u32, to: u32, effect: impl Fn(u32) -> Effect) -> Plan {
        let staying = 0..from.min(to);
        let instances = staying
            .map(|number| (number, effect(number)))
            .filter(|&(_, effect)| effect != Effect::None)
            .collect();
        Plan {
            policy,
            scale: (from != to).then_some((from, to)),
            instances,
        }
    }

    /// Whether nothing changes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.policy && self.scale.is_none() && self.instances.is_empty()
    }

    /// The numbers of the instances that have to be restarted.
    pub fn restarts(&self) -> impl Iterator<Item = u32> + '_ {
        self.instances
            .iter()
            .filter(|(_, effect)| *effect == Effect::Restart)
            .map(|&(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_only_what_changes() {
        let plan = Plan::new(false, 3, 3, |_| Effect::None);
        assert!(plan.is_empty());
        let plan = Plan::new(true, 3, 2, |number| {
            if number == 1 {
                Effect::Restart
            } else {
                Effect::AtNextStart
            }
        });
        assert!(!plan.is_empty());
        assert_eq!(plan.scale, Some((3, 2)));
        assert_eq!(plan.instances, [(0, Effect::AtNextStart), (1, Effect::Restart)]);
        assert_eq!(plan.restarts().collect::<Vec<_>>(), [1]);
    }
}
