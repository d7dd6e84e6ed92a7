//! The descriptors that an instance has given to the supervisor for its next run, without the system calls.
//!
//! The store is generic over the descriptor, so that the simulation runs the same rules.

use std::sync::Arc;

use super::notice::{Notice, Notices, ParseError};

/// The largest number of descriptors of one instance: as many as one message can carry.
pub(crate) const MOST_STORED: u32 = 253;

/// The name of a descriptor that came without one.
const DEFAULT_NAME: &str = "stored";

/// What a message wants of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Keep the descriptors of the message under this name.
    Store {
        name: Arc<str>,
        /// Whether they are removed when they hang up.
        is_polled: bool,
    },
    /// Remove the descriptors of this name.
    Remove { name: Arc<str> },
    /// The message names no valid descriptor.
    Invalid,
}

impl Request {
    /// The request of a message; `None` if it has none. Of several names the first one counts. A removal needs a name,
    /// and excludes that anything is stored.
    pub(crate) fn of(lines: Notices<'_>) -> Option<Request> {
        let (mut stores, mut removes, mut is_polled) = (false, false, true);
        let mut name = None;
        for line in lines {
            match line {
                Ok(Notice::StoreDescriptors) => stores = true,
                Ok(Notice::RemoveDescriptors) => removes = true,
                Ok(Notice::NoPoll) => is_polled = false,
                Ok(Notice::DescriptorName(given)) => {
                    name.get_or_insert(Ok(given));
                }
                Err(ParseError::DescriptorName) => {
                    name.get_or_insert(Err(()));
                }
                Ok(_) | Err(_) => {}
            }
        }
        match (removes, stores, name) {
            (false, false, _) => None,
            (_, _, Some(Err(()))) | (true, _, None) => Some(Request::Invalid),
            (true, _, Some(Ok(name))) => Some(Request::Remove { name: name.into() }),
            (false, true, name) => {
                let name = name.and_then(Result::ok).unwrap_or(DEFAULT_NAME).into();
                Some(Request::Store { name, is_polled })
            }
        }
    }
}

/// Why a descriptor is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Duplicate,
}

/// The descriptors of one instance, the oldest first.
#[derive(Debug)]
pub(crate) struct Store<F>(Vec<Entry<F>>);

#[derive(Debug)]
pub(crate) struct Entry<F> {
    pub(crate) name: Arc<str>,
    pub(crate) fd: F,
}

impl<F> Default for Store<F> {
    fn default() -> Store<F> {
        Store(Vec::new())
    }
}

impl<F> Store<F> {
    /// Whether another descriptor may be stored. `is_same` compares it with one that is stored; a full store compares
    /// nothing, so a flood costs nothing.
    pub(crate) fn check(&self, most: u32, is_same: impl Fn(&F) -> bool) -> Result<(), Refusal> {
        if self.0.len() >= most as usize {
            return Err(Refusal::Full);
        }
        match self.0.iter().any(|entry| is_same(&entry.fd)) {
            true => Err(Refusal::Duplicate),
            false => Ok(()),
        }
    }

    pub(crate) fn push(&mut self, name: Arc<str>, fd: F) {
        self.0.push(Entry { name, fd });
    }

    /// Takes the descriptors of a name out.
    pub(crate) fn remove(&mut self, name: &str) -> Vec<Entry<F>> {
        let all = std::mem::take(&mut self.0);
        let (removed, kept) = all.into_iter().partition(|entry| *entry.name == *name);
        self.0 = kept;
        removed
    }

    /// Takes the first descriptor out for which this is true.
    pub(crate) fn take_first(&mut self, is_it: impl Fn(&F) -> bool) -> Option<Entry<F>> {
        let at = self.0.iter().position(|entry| is_it(&entry.fd))?;
        Some(self.0.remove(at))
    }

    /// Takes all descriptors out but the first ones.
    pub(crate) fn split_off(&mut self, kept: usize) -> Vec<Entry<F>> {
        self.0.split_off(kept.min(self.0.len()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<F>> {
        self.0.iter()
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<F>> {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::parse;
    use super::*;

    #[test]
    fn a_message_has_one_request() {
        let store = |name: &str, is_polled| {
            let name = name.into();
            Some(Request::Store { name, is_polled })
        };
        let remove = |name: &str| Some(Request::Remove { name: name.into() });
        for (message, expected) in [
            ("READY=1", None),
            ("FDNAME=a", None),
            ("FDNAME=a:b", None),
            ("FDSTORE=1", store("stored", true)),
            ("FDNAME=a\nFDSTORE=1", store("a", true)),
            ("FDSTORE=1\nFDNAME=a\nFDNAME=b", store("a", true)),
            ("FDSTORE=1\nFDNAME=\nFDPOLL=0", store("", false)),
            ("FDSTORE=1\nFDNAME=a:b", Some(Request::Invalid)),
            ("FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=a", remove("a")),
            ("FDSTOREREMOVE=1", Some(Request::Invalid)),
            ("FDSTOREREMOVE=1\nFDNAME=a:b", Some(Request::Invalid)),
        ] {
            assert_eq!(Request::of(parse(message.as_bytes())), expected, "{message}");
        }
    }

    #[test]
    fn a_store_is_bounded_and_has_no_duplicates() {
        let mut store = Store::default();
        let put = |store: &mut Store<u32>, name: &str, fd| {
            store.check(2, |&other| other == fd)?;
            store.push(name.into(), fd);
            Ok(())
        };
        assert_eq!(put(&mut store, "a", 1), Ok(()));
        assert_eq!(put(&mut store, "b", 1), Err(Refusal::Duplicate));
        assert_eq!(put(&mut store, "b", 2), Ok(()));
        assert_eq!(put(&mut store, "a", 1), Err(Refusal::Full));
        assert_eq!(store.remove("c").len(), 0);
        assert_eq!(store.remove("a").iter().map(|entry| entry.fd).collect::<Vec<_>>(), [1]);
        assert!(store.take_first(|&fd| fd == 1).is_none());
        store.push("a".into(), 3);
        let left = store
            .split_off(1)
            .into_iter()
            .map(|entry| (entry.name.to_string(), entry.fd));
        assert_eq!(left.collect::<Vec<_>>(), [("a".to_owned(), 3)]);
        assert!(store.take_first(|&fd| fd == 2).is_some());
        assert!(store.is_empty());
        store.push("a".into(), 4);
        store.push("b".into(), 5);
        let all = store.into_entries();
        assert_eq!(all.iter().map(|entry| entry.fd).collect::<Vec<_>>(), [4, 5]);
    }
}
