//! The child's environment: that of the host with changes, or only the variables of the command.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// Variables from a service manager that are about the host itself. A child that inherited them would send notify
/// messages in the name of the host, or use the host's sockets as its own.
const OF_THE_HOST: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "PIDHERD_HAND_OVER",
];

/// Changes to the host's environment, with the semantics of [`std::process::Command`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    clear: bool,
    /// The only variables that are inherited, whether `clear` is set or not; `None` for no such list.
    keep: Option<BTreeSet<OsString>>,
    changes: BTreeMap<OsString, Option<OsString>>,
}

impl Environment {
    pub(super) fn set(&mut self, key: &OsStr, value: &OsStr) {
        self.changes.insert(key.to_owned(), Some(value.to_owned()));
    }

    pub(super) fn remove(&mut self, key: &OsStr) {
        if self.clear {
            self.changes.remove(key);
            self.keep.as_mut().map(|keep| keep.remove(key));
        } else {
            self.changes.insert(key.to_owned(), None);
        }
    }

    pub(super) fn clear(&mut self) {
        self.clear = true;
        self.keep = None;
        self.changes.clear();
    }

    pub(super) fn keep(&mut self, key: &OsStr) {
        self.keep.get_or_insert_default().insert(key.to_owned());
    }

    /// Begins a list of the only variables that are inherited, which may stay empty.
    pub(super) fn keep_none(&mut self) {
        self.keep.get_or_insert_default();
    }

    /// The only variables that are inherited; `None` for no such list.
    pub(super) fn kept(&self) -> Option<impl Iterator<Item = &OsStr>> {
        self.keep.as_ref().map(|keep| keep.iter().map(OsString::as_os_str))
    }

    /// The values to set, and the keys to remove.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        let pair = |(key, value): (_, _)| (OsString::as_os_str(key), Option::as_deref(value));
        self.changes.iter().map(pair)
    }

    /// Whether the host's variables are not inherited.
    pub(super) fn is_cleared(&self) -> bool {
        self.clear
    }

    /// The keys of all changes, and of the variables to keep.
    pub(super) fn keys(&self) -> impl Iterator<Item = &OsStr> {
        let kept = self.keep.iter().flatten();
        self.changes.keys().chain(kept).map(OsString::as_os_str)
    }

    /// The resulting environment. Variables of `host` are inherited, except those in [`OF_THE_HOST`]. `implied` values
    /// follow from other settings, and replace inherited ones. The changes replace both.
    pub(super) fn resolve(
        &self,
        host: impl Iterator<Item = (OsString, OsString)>,
        implied: &[(&str, Option<OsString>)],
    ) -> BTreeMap<OsString, OsString> {
        let is_of_the_host = |key: &OsString| OF_THE_HOST.iter().any(|own| key == own);
        let is_inherited = |key: &OsString| match &self.keep {
            Some(keep) => keep.contains(key),
            None => !self.clear,
        };
        let inherited = host.filter(|(key, _)| is_inherited(key) && !is_of_the_host(key));
        let mut all: BTreeMap<_, _> = inherited.collect();
        let implied = implied.iter().filter(|_| !self.clear);
        let implied = implied.map(|(key, value)| (OsString::from(key), value));
        let changes = self.changes.iter().map(|(key, value)| (key.clone(), value));
        for (key, value) in implied.chain(changes) {
            match value {
                Some(value) => all.insert(key, value.clone()),
                None => all.remove(&key),
            };
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> impl Iterator<Item = (OsString, OsString)> {
        [("A", "1"), ("B", "2")]
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
    }

    fn resolved(environment: &Environment) -> Vec<String> {
        let entry =
            |(key, value): (OsString, OsString)| format!("{}={}", key.to_str().unwrap(), value.to_str().unwrap());
        environment.resolve(host(), &[]).into_iter().map(entry).collect()
    }

    #[test]
    fn changes_apply_to_what_the_host_has() {
        let mut environment = Environment::default();
        assert_eq!(resolved(&environment), ["A=1", "B=2"]);
        environment.set("B".as_ref(), "3".as_ref());
        environment.set("C".as_ref(), "".as_ref());
        environment.remove("A".as_ref());
        assert_eq!(resolved(&environment), ["B=3", "C="]);
    }

    #[test]
    fn what_other_settings_imply_comes_between_the_host_and_the_changes() {
        let implied = [
            ("A", Some("implied".into())),
            ("B", None),
            ("C", Some("implied".into())),
        ];
        let resolved = |environment: &Environment| {
            let all = environment.resolve(host(), &implied).into_iter();
            all.map(|(key, value)| format!("{}={}", key.to_str().unwrap(), value.to_str().unwrap()))
                .collect::<Vec<_>>()
        };
        let mut environment = Environment::default();
        assert_eq!(resolved(&environment), ["A=implied", "C=implied"]);
        environment.set("A".as_ref(), "set".as_ref());
        environment.set("B".as_ref(), "set".as_ref());
        environment.remove("C".as_ref());
        assert_eq!(resolved(&environment), ["A=set", "B=set"]);
        environment.clear();
        assert!(resolved(&environment).is_empty());
    }

    #[test]
    fn only_kept_variables_are_inherited() {
        let mut environment = Environment::default();
        environment.keep("B".as_ref());
        environment.keep("of no host".as_ref());
        environment.set("C".as_ref(), "3".as_ref());
        assert_eq!(resolved(&environment), ["B=2", "C=3"]);
        environment.set("B".as_ref(), "set".as_ref());
        assert_eq!(resolved(&environment), ["B=set", "C=3"]);
        environment.remove("B".as_ref());
        assert_eq!(resolved(&environment), ["C=3"]);
        environment.clear();
        assert!(resolved(&environment).is_empty());
        environment.keep("A".as_ref());
        environment.keep("B".as_ref());
        assert_eq!(resolved(&environment), ["A=1", "B=2"]);
        environment.remove("A".as_ref());
        assert_eq!(resolved(&environment), ["B=2"]);
        let mut environment = Environment::default();
        environment.keep_none();
        assert!(resolved(&environment).is_empty());
    }

    #[test]
    fn clear_removes_inherited_variables_and_earlier_changes() {
        let mut environment = Environment::default();
        environment.set("X".as_ref(), "0".as_ref());
        environment.clear();
        environment.set("Y".as_ref(), "1".as_ref());
        assert_eq!(resolved(&environment), ["Y=1"]);
        environment.remove("Y".as_ref());
        assert!(resolved(&environment).is_empty());
    }

    #[test]
    fn variables_about_the_hosts_own_service_are_not_inherited() {
        let inherited = || {
            OF_THE_HOST
                .into_iter()
                .chain(["HOME"])
                .map(|key| (key.into(), "of the host".into()))
        };
        let mut environment = Environment::default();
        let keys = |environment: &Environment| environment.resolve(inherited(), &[]).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(&environment), ["HOME"]);
        environment.set(OsStr::new("NOTIFY_SOCKET"), OsStr::new("its own"));
        assert_eq!(keys(&environment), ["HOME", "NOTIFY_SOCKET"]);
    }
}
