//! The settings of what the end of one process means for its siblings, and its part in a restart together with them.

use crate::codec::stored;
use crate::names::{machine_names, shown_by_name};

/// What the end of one instance means for its siblings, if its policy starts it again: Erlang's supervision strategies.
/// See [`GroupSpec::strategy`](crate::GroupSpec::strategy).
///
/// ```
/// use pidherd::lifecycle::Strategy;
///
/// assert_eq!("rest-for-one".parse(), Ok(Strategy::RestForOne));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Strategy {
    /// Nothing: it is restarted alone.
    #[default]
    OneForOne,
    /// All siblings that are up are stopped, and started again together with it.
    OneForAll,
    /// The siblings with a higher number that are up are stopped, and started again together with it.
    RestForOne,
}

machine_names! { Strategy, "strategy",
    OneForOne = "one-for-one"
    OneForAll = "one-for-all"
    RestForOne = "rest-for-one"
}

shown_by_name! { Strategy }

impl Strategy {
    /// Whether the end of the instance with the number `ended` concerns the one with this number.
    pub(crate) const fn concerns(self, number: u32, ended: u32) -> bool {
        match self {
            Strategy::OneForOne => false,
            Strategy::OneForAll => number != ended,
            Strategy::RestForOne => number > ended,
        }
    }
}

/// What it means for a group that an instance has ended for good by itself: it was given up, or it has ended and is not
/// started again by its policy. See [`GroupSpec::auto_shutdown`](crate::GroupSpec::auto_shutdown).
///
/// ```
/// use pidherd::lifecycle::AutoShutdown;
///
/// assert_eq!("any-end".parse(), Ok(AutoShutdown::AnyEnd));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum AutoShutdown {
    /// Nothing.
    #[default]
    Never,
    /// The first end stops the group.
    AnyEnd,
    /// With the last end the group is over.
    AllEnd,
}

machine_names! { AutoShutdown, "automatic shutdown",
    Never = "never"
    AnyEnd = "any-end"
    AllEnd = "all-end"
}

shown_by_name! { AutoShutdown }

/// The part of a lifecycle in a joint restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Joint {
    /// It takes no part.
    #[default]
    None,
    /// Its run has ended, and another one follows, or it has ended for good. Its siblings are to be told.
    Tells,
    /// It is being stopped for it, or its delay is not over.
    Waits,
    /// It waits for nothing but its siblings.
    Ready,
}

stored!(enum Strategy { 0 = OneForOne, 1 = OneForAll, 2 = RestForOne });
stored!(enum AutoShutdown { 0 = Never, 1 = AnyEnd, 2 = AllEnd });
stored!(enum Joint { 0 = None, 1 = Tells, 2 = Waits, 3 = Ready });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_concerns_all_others_or_those_after_it() {
        let concerned = |strategy: Strategy| [1, 2, 3].map(|number| strategy.concerns(number, 2));
        assert_eq!(concerned(Strategy::OneForOne), [false, false, false]);
        assert_eq!(concerned(Strategy::OneForAll), [true, false, true]);
        assert_eq!(concerned(Strategy::RestForOne), [false, false, true]);
    }
}
