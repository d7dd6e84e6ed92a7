//! Names of plain values for programs: stable, and with a way back.

/// The error for a text that is no name of such a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} {text:?}")]
pub struct UnknownName {
    what: &'static str,
    text: String,
}

impl UnknownName {
    pub(crate) fn new(what: &'static str, text: &str) -> UnknownName {
        UnknownName {
            what,
            text: text.to_owned(),
        }
    }
}

/// Gives a type without data names that do not change: `as_str` and [`FromStr`](std::str::FromStr), and a list of all
/// its values.
macro_rules! machine_names {
    ($type:ident, $what:literal, $($variant:ident = $name:literal)*) => {
        impl $type {
            /// All values. A later version may add some.
            pub const ALL: &'static [$type] = &[$($type::$variant,)*];

            /// The name for programs. It does not change in later versions; [`FromStr`](std::str::FromStr) reads it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)*
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::names::UnknownName;

            fn from_str(text: &str) -> Result<$type, $crate::names::UnknownName> {
                match text {
                    $($name => Ok($type::$variant),)*
                    _ => Err($crate::names::UnknownName::new($what, text)),
                }
            }
        }
    };
}

/// Shows a type by its name for programs. Format options such as a width apply.
macro_rules! shown_by_name {
    ($($type:ident)*) => {
        $(
            impl std::fmt::Display for $type {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.pad(self.as_str())
                }
            }
        )*
    };
}

pub(crate) use {machine_names, shown_by_name};

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::str::FromStr;

    use super::*;
    use crate::cgroup::OomLimitName;
    use crate::command::{Namespace, SpawnStep};
    use crate::lifecycle::{
        AutoShutdown, CauseName, CommandFailureName, EndName, FailureName, Part, Prospect, StateName,
        StopCommandEndName, Strategy, Wanted,
    };
    use crate::supervisor::{RefusalName, ReloadResult, RemovalReason, Request, StopReason};

    fn come_back<T: FromStr<Err = UnknownName> + Copy + Debug + PartialEq>(
        all: &[T],
        name: fn(T) -> &'static str,
        what: &str,
    ) {
        for (index, &value) in all.iter().enumerate() {
            assert_eq!(name(value).parse(), Ok(value));
            assert!(!all[..index].contains(&value));
        }
        for wrong in ["", "no-such-name", &name(all[0])[1..], &format!("{} ", name(all[0]))] {
            let error = wrong.parse::<T>().unwrap_err();
            assert_eq!(error.to_string(), format!("there is no {what} {wrong:?}"));
        }
    }

    #[test]
    fn every_name_is_read_back_and_no_other_text_is() {
        come_back(StateName::ALL, StateName::as_str, "state");
        come_back(CauseName::ALL, CauseName::as_str, "cause");
        come_back(EndName::ALL, EndName::as_str, "end of a run");
        come_back(FailureName::ALL, FailureName::as_str, "failure");
        come_back(SpawnStep::ALL, SpawnStep::as_str, "step of a spawn");
        come_back(Namespace::ALL, Namespace::as_str, "kind of namespace");
        come_back(
            CommandFailureName::ALL,
            CommandFailureName::as_str,
            "failure of a command",
        );
        come_back(
            StopCommandEndName::ALL,
            StopCommandEndName::as_str,
            "end of a stop command",
        );
        come_back(Part::ALL, Part::as_str, "part of a run");
        come_back(Prospect::ALL, Prospect::as_str, "prospect of a stop");
        come_back(Wanted::ALL, Wanted::as_str, "wanted state");
        come_back(AutoShutdown::ALL, AutoShutdown::as_str, "automatic shutdown");
        come_back(StopReason::ALL, StopReason::as_str, "reason of a stop of a group");
        come_back(Strategy::ALL, Strategy::as_str, "strategy");
        come_back(Request::ALL, Request::as_str, "request");
        come_back(ReloadResult::ALL, ReloadResult::as_str, "result of a reload");
        come_back(RemovalReason::ALL, RemovalReason::as_str, "reason of a removal");
        come_back(RefusalName::ALL, RefusalName::as_str, "reason of a refusal");
        come_back(OomLimitName::ALL, OomLimitName::as_str, "limit of memory");
    }
}
