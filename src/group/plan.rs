//! The comparison of a group with its new description, before a reload is carried out.

/// The effect of a changed command on an existing instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Effect {
    /// Nothing changes for the instance.
    None,
    /// The running process is not affected. The next start uses the new description (for example a changed
    /// environment).
    AtNextStart,
    /// The limits of the running process change at once, without a restart
    /// ([`GroupSpec::limits`](crate::GroupSpec::limits)). Other changes, such as one of the environment, apply at the
    /// next start.
    InPlace,
    /// The instance must be restarted to match the new description (for example a changed program).
    Restart,
}

/// The changes that a reload makes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReloadPlan {
    /// Whether the policy or the group's name changes. Such a change restarts no instance.
    pub policy: bool,
    /// The old and the new number of instances. `None` if the number does not change.
    pub scale: Option<(u32, u32)>,
    /// The effect on each instance that stays, by number. Instances with [`Effect::None`] are left out.
    pub instances: Vec<(u32, Effect)>,
}

impl ReloadPlan {
    /// Plans a change from `from` to `to` instances. `effect` returns the effect on the instance with a
    /// number.
    pub(crate) fn new(policy: bool, from: u32, to: u32, effect: impl Fn(u32) -> Effect) -> ReloadPlan {
        let staying = 0..from.min(to);
        let instances = staying
            .map(|number| (number, effect(number)))
            .filter(|&(_, effect)| effect != Effect::None)
            .collect();
        ReloadPlan {
            policy,
            scale: (from != to).then_some((from, to)),
            instances,
        }
    }

    /// Whether the reload changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.policy && self.scale.is_none() && self.instances.is_empty()
    }

    /// The numbers of the instances that must be restarted.
    pub fn restarts(&self) -> impl Iterator<Item = u32> + '_ {
        self.with(Effect::Restart)
    }

    /// The numbers of the instances with this effect.
    pub(crate) fn with(&self, effect: Effect) -> impl Iterator<Item = u32> + '_ {
        self.instances
            .iter()
            .filter(move |(_, other)| *other == effect)
            .map(|&(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_contains_only_what_changes() {
        let plan = ReloadPlan::new(false, 3, 3, |_| Effect::None);
        assert!(plan.is_empty());
        let plan = ReloadPlan::new(true, 3, 2, |number| {
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
