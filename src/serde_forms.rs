//! The forms of plain values for serde, where they are not those of their fields.
//!
//! Signals and names of states are texts, as a person writes them. Ids are texts and cannot be read back: an id is valid
//! for its supervisor alone. An error of a spawn is an object with its message.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::command::{SpawnError, SpawnStep};
use crate::engine::ids::{GroupId, InstanceId};
use crate::exit::{Exit, Pid};
use crate::lifecycle::{ExitSet, StateName};
use crate::signal::{Signal, SignalSet};
use crate::time::Instant;

macro_rules! texts {
    ($($type:ty)*) => {
        $(impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })*
    };
}

texts! { Signal StateName GroupId InstanceId }

impl Serialize for SpawnStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SpawnStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SpawnStep, D::Error> {
        let parse = |text: &str| text.parse().ok();
        deserializer.deserialize_str(Text("the name of a step of a spawn, such as exec", parse))
    }
}

/// Reads a text by a function.
struct Text<T>(&'static str, fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let Text(expected, parse) = self;
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &expected))
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Signal, D::Error> {
        let parse = |text: &str| text.parse().ok();
        deserializer.deserialize_str(Text("the name or the number of a signal", parse))
    }
}

impl<'de> Deserialize<'de> for StateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StateName, D::Error> {
        let parse = |text: &str| text.parse().ok();
        deserializer.deserialize_str(Text("the name of a state, such as RUNNING", parse))
    }
}

impl Serialize for SignalSet {
    /// A list of names.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for SignalSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SignalSet, D::Error> {
        Ok(Vec::<Signal>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// The form of an [`ExitSet`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Exits {
    codes: Vec<u8>,
    signals: SignalSet,
}

impl Serialize for ExitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let codes = (0..=u8::MAX).filter(|&code| self.contains(Exit::Code(code))).collect();
        let core = false;
        let signals = Signal::all()
            .filter(|&signal| self.contains(Exit::Signal { signal, core }))
            .collect();
        Exits { codes, signals }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExitSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExitSet, D::Error> {
        let exits = Exits::deserialize(deserializer)?;
        let set = exits.codes.into_iter().fold(ExitSet::EMPTY, ExitSet::code);
        Ok(exits.signals.iter().fold(set, ExitSet::signal))
    }
}

impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.as_raw())
    }
}

impl<'de> Deserialize<'de> for Pid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pid, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Pid::new(number)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Unsigned(number.into()), &"the number of a process"))
    }
}

impl Serialize for Instant {
    /// Nanoseconds since the origin of the clock.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.as_nanos())
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        u64::deserialize(deserializer).map(Instant::from_nanos)
    }
}

impl Serialize for SpawnError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("SpawnError", 4)?;
        fields.serialize_field("step", &self.step())?;
        fields.serialize_field("errno", &self.errno())?;
        fields.serialize_field("path", &self.path().map(std::path::Path::to_string_lossy))?;
        fields.serialize_field("message", &self.to_string())?;
        fields.end()
    }
}
