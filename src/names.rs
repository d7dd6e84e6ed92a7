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

/// Gives a type without data names that do not change: `as_str` and [`FromStr`](std::str::FromStr).
macro_rules! machine_names {
    ($type:ident, $what:literal, $($variant:ident = $name:literal)*) => {
        impl $type {
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

pub(crate) use machine_names;
