//! The types of supervisord's events, and the `[eventlistener:x]` keys about them.

use super::keys::Keys;
use super::values;

/// A type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each has the meaning of supervisord's type of the same name")]
pub enum Kind {
    ProcessStateStarting,
    ProcessStateRunning,
    ProcessStateBackoff,
    ProcessStateStopping,
    ProcessStateExited,
    ProcessStateStopped,
    ProcessStateFatal,
    /// The library has no unknown state, so nothing sends it.
    ProcessStateUnknown,
    ProcessLogStdout,
    ProcessLogStderr,
    ProcessCommunicationStdout,
    ProcessCommunicationStderr,
    RemoteCommunication,
    SupervisorStateChangeRunning,
    SupervisorStateChangeStopping,
    Tick5,
    Tick60,
    Tick3600,
    ProcessGroupAdded,
    ProcessGroupRemoved,
}

impl Kind {
    /// All types with their names.
    const NAMES: [(Kind, &'static str); 20] = [
        (Kind::ProcessStateStarting, "PROCESS_STATE_STARTING"),
        (Kind::ProcessStateRunning, "PROCESS_STATE_RUNNING"),
        (Kind::ProcessStateBackoff, "PROCESS_STATE_BACKOFF"),
        (Kind::ProcessStateStopping, "PROCESS_STATE_STOPPING"),
        (Kind::ProcessStateExited, "PROCESS_STATE_EXITED"),
        (Kind::ProcessStateStopped, "PROCESS_STATE_STOPPED"),
        (Kind::ProcessStateFatal, "PROCESS_STATE_FATAL"),
        (Kind::ProcessStateUnknown, "PROCESS_STATE_UNKNOWN"),
        (Kind::ProcessLogStdout, "PROCESS_LOG_STDOUT"),
        (Kind::ProcessLogStderr, "PROCESS_LOG_STDERR"),
        (Kind::ProcessCommunicationStdout, "PROCESS_COMMUNICATION_STDOUT"),
        (Kind::ProcessCommunicationStderr, "PROCESS_COMMUNICATION_STDERR"),
        (Kind::RemoteCommunication, "REMOTE_COMMUNICATION"),
        (Kind::SupervisorStateChangeRunning, "SUPERVISOR_STATE_CHANGE_RUNNING"),
        (Kind::SupervisorStateChangeStopping, "SUPERVISOR_STATE_CHANGE_STOPPING"),
        (Kind::Tick5, "TICK_5"),
        (Kind::Tick60, "TICK_60"),
        (Kind::Tick3600, "TICK_3600"),
        (Kind::ProcessGroupAdded, "PROCESS_GROUP_ADDED"),
        (Kind::ProcessGroupRemoved, "PROCESS_GROUP_REMOVED"),
    ];

    /// The names that stand for several types: all with a name that begins with them and an underscore.
    const ABSTRACT: [&'static str; 6] = [
        "PROCESS_STATE",
        "PROCESS_LOG",
        "PROCESS_COMMUNICATION",
        "SUPERVISOR_STATE_CHANGE",
        "TICK",
        "PROCESS_GROUP",
    ];

    /// The types with a period, and the period in seconds.
    pub const TICKS: [(Kind, u64); 3] = [(Kind::Tick5, 5), (Kind::Tick60, 60), (Kind::Tick3600, 3600)];

    /// The name in the header of an event.
    pub fn name(self) -> &'static str {
        let found = Kind::NAMES.iter().find(|(kind, _)| *kind == self);
        found.map_or("EVENT", |(_, name)| name)
    }

    /// The type with this name.
    pub fn of(name: &str) -> Option<Kind> {
        let found = Kind::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| *kind)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The types that a pool of listeners gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// Whether a type is in the set.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether a type with a period is in the set.
    pub fn has_ticks(self) -> bool {
        Kind::TICKS.iter().any(|(kind, _)| self.contains(*kind))
    }

    /// Parses names that are separated by commas, in upper or lower case.
    ///
    /// # Errors
    /// There is no name, or one that is not known.
    pub fn parse(text: &str) -> Result<Kinds, String> {
        let mut kinds = Kinds::default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for name in parts.map(str::to_uppercase) {
            let is_meant = |known: &str| {
                let rest = known.strip_prefix(name.as_str());
                let is_abstract = Kind::ABSTRACT.contains(&name.as_str());
                name == "EVENT" || rest.is_some_and(|rest| rest.is_empty() || is_abstract && rest.starts_with('_'))
            };
            let meant = Kind::NAMES.iter().filter(|(_, known)| is_meant(known));
            let bits = meant.fold(0, |bits, (kind, _)| bits | kind.bit());
            if bits == 0 {
                return Err(format!("there is no event type {name}"));
            }
            kinds.0 |= bits;
        }
        match kinds.0 {
            0 => Err("expected event types, separated by commas".to_owned()),
            _ => Ok(kinds),
        }
    }
}

/// The settings of a pool of event listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The events that it gets.
    pub kinds: Kinds,
    /// The number of events that wait while no listener is ready.
    pub buffer_size: u32,
}

/// The keys of an `[eventlistener:x]` that a program does not have.
pub const KEYS: &[&str] = &["events", "buffer_size", "result_handler"];

/// supervisord's default for `buffer_size`.
const BUFFER_SIZE: u32 = 10;
/// The largest `buffer_size`. A larger one is probably a mistake.
const MOST_EVENTS: u32 = 100_000;
/// The only handler of results that needs no Python.
const HANDLER: &str = "supervisor.dispatchers:default_handler";

impl PoolSettings {
    /// Reads these keys.
    pub fn read(keys: &mut Keys<'_>) -> Option<PoolSettings> {
        if !keys.has("events") {
            keys.fail("events=... is missing");
        }
        if keys.optional("redirect_stderr", values::boolean) == Some(true) {
            keys.complain(
                "redirect_stderr",
                "standard output is for the protocol of event listeners",
            );
        }
        keys.optional("result_handler", |text| match text {
            HANDLER => Ok(()),
            _ => Err(format!("only {HANDLER} is built in")),
        });
        let buffer_size = keys.optional("buffer_size", |text| match values::count(text)? {
            size @ 1..=MOST_EVENTS => Ok(size),
            _ => Err(format!("expected a number from 1 to {MOST_EVENTS}")),
        });
        Some(PoolSettings {
            kinds: keys.optional("events", Kinds::parse)?,
            buffer_size: buffer_size.unwrap_or(BUFFER_SIZE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_type_or_several() {
        let kinds = Kinds::parse("process_state, TICK_5").unwrap();
        assert!(kinds.contains(Kind::ProcessStateFatal) && kinds.contains(Kind::Tick5));
        assert!(!kinds.contains(Kind::Tick60) && !kinds.contains(Kind::ProcessLogStdout));
        assert!(kinds.has_ticks() && !Kinds::parse("PROCESS_GROUP").unwrap().has_ticks());
        let all = Kinds::parse("EVENT").unwrap();
        assert!(Kind::NAMES.iter().all(|(kind, _)| all.contains(*kind)));
        for text in ["", ",", "NOPE", "TICK_7", "PROCESS", "TICK_", "EVENTS"] {
            assert!(Kinds::parse(text).is_err(), "{text}");
        }
        for (kind, name) in Kind::NAMES {
            assert_eq!((kind.name(), Kind::of(name)), (name, Some(kind)));
        }
    }
}
