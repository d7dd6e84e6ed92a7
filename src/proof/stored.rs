//! Descriptors that processes store for their next runs: the kernel's side, and a model that knows only the messages.

use std::collections::{BTreeSet, HashMap};

use super::host::{Broken, Host};
use super::model::Instance;
use super::oracle::ensure;
use super::world::{Did, Planted, World};
use crate::engine::event::{ProcessNotice, RefusalReason, RemovalReason};
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Report, Sender};
use crate::engine::request::Request;
use crate::lifecycle::{Joint, StateName};
use crate::notify::{Refusal, Request as Asked, Store, parse};

/// The descriptors of the host that came with messages. Each has a number of its own.
#[derive(Default)]
pub(super) struct Descriptors {
    stores: HashMap<u32, Store<u64>>,
    open: BTreeSet<u64>,
    last: u64,
}

/// Whether a process sends a descriptor with this message.
fn has_descriptor(text: &str) -> bool {
    text.contains("FDSTORE=1")
}

/// One number for a list of descriptors.
fn digest(fds: impl Iterator<Item = u64>) -> u64 {
    fds.fold(0, |sum, fd| sum.wrapping_mul(1_000_003).wrapping_add(fd))
}

impl World {
    /// Receives the descriptor of a message, if it has one, and does what the message asks for. Returns the descriptor
    /// and the notices.
    pub(super) fn store(&mut self, text: &str, sender: Option<Sender>) -> (Option<u64>, Vec<Report>) {
        let fds = &mut self.descriptors;
        let fd = has_descriptor(text).then(|| {
            fds.last += 1;
            fds.open.insert(fds.last);
            fds.last
        });
        let request = Asked::of(parse(text.as_bytes()));
        let (Some(sender), Some(request)) = (sender, request) else {
            fd.map(|fd| fds.open.remove(&fd));
            return (fd, Vec::new());
        };
        let store = fds.stores.entry(sender.id.index()).or_default();
        let notice = match request {
            Asked::Invalid => refused(RefusalReason::Name),
            Asked::Remove { name } => {
                let removed = store.remove(&name);
                fds.open.retain(|fd| removed.iter().all(|entry| entry.fd != *fd));
                ProcessNotice::DescriptorsRemoved {
                    name,
                    count: removed.len() as u32,
                    reason: RemovalReason::Requested,
                }
            }
            Asked::Store { .. } if sender.most_stored == 0 => refused(RefusalReason::NoStore),
            Asked::Store { name, .. } => match store.check(sender.most_stored, |&old| Some(old) == fd) {
                Ok(()) => {
                    store.push(name.clone(), fd.unwrap());
                    ProcessNotice::DescriptorsStored { name, count: 1 }
                }
                Err(Refusal::Full) => refused(RefusalReason::Full),
                Err(Refusal::Duplicate) => refused(RefusalReason::Duplicate),
            },
        };
        if let Some(fd) = fd.filter(|_| !matches!(notice, ProcessNotice::DescriptorsStored { .. })) {
            fds.open.remove(&fd);
        }
        (fd, vec![Report::Notice(notice)])
    }

    pub(super) fn drop_descriptors(&mut self, slot: u32) {
        if self.planted == Some(Planted::DescriptorsKept) {
            return;
        }
        let store = self.descriptors.stores.remove(&slot).unwrap_or_default();
        let open = &mut self.descriptors.open;
        open.retain(|fd| store.iter().all(|entry| entry.fd != *fd));
    }

    /// Passes at most this many descriptors to a process, and closes the others. Returns their digest.
    pub(super) fn pass_descriptors(&mut self, slot: u32, most: u16) -> u64 {
        let fds = &mut self.descriptors;
        let Some(store) = fds.stores.get_mut(&slot) else {
            return 0;
        };
        for surplus in store.split_off(most.into()) {
            fds.open.remove(&surplus.fd);
        }
        if self.planted == Some(Planted::LastDescriptorNotPassed) {
            let count = store.iter().count();
            return digest(store.iter().take(count.saturating_sub(1)).map(|entry| entry.fd));
        }
        digest(store.iter().map(|entry| entry.fd))
    }

    /// The host is killed, and all its descriptors are closed.
    pub(super) fn lose_descriptors(&mut self) {
        self.descriptors.stores.clear();
        self.descriptors.open.clear();
    }
}

fn refused(reason: RefusalReason) -> ProcessNotice {
    ProcessNotice::DescriptorsRefused { count: 1, reason }
}

/// A message was received.
pub(super) fn received(host: &mut Host, did: &Did) {
    let Did::Receive {
        owner: Some(owner),
        text,
        fd,
        ..
    } = *did
    else {
        return;
    };
    let known = host.model.instances.iter_mut().find(|known| known.id == owner);
    let Some(known) = known else { return };
    let most = known.attempts.last().map_or(0, |last| last.most_stored);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    if name.is_some_and(|name| name.contains(':')) {
        return;
    }
    if text.contains("FDSTOREREMOVE=1") {
        known.stored.retain(|(of, _)| Some(of.as_str()) != name);
    } else if let Some(fd) = fd.filter(|_| known.stored.len() < most as usize) {
        known.stored.push((name.unwrap_or("stored").to_owned(), fd));
    }
}

/// The program of an instance was spawned, with the descriptors of this digest. It may get at most this many.
pub(super) fn passed(known: &mut Instance, most: u32, passed: u64) -> Result<(), Broken> {
    known.stored.truncate(most as usize);
    let expected = digest(known.stored.iter().map(|(_, fd)| *fd));
    ensure(passed == expected, || {
        format!(
            "other descriptors are passed than {:?} has stored: {:?}",
            known.id, known.stored
        )
    })
}

/// The host has exactly the descriptors that the instances have stored. One at rest has none.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    let groups = &host.model.groups;
    let is_rolling = |id| groups.iter().any(|group| group.id == id && group.after_roll.is_some());
    for known in &mut host.model.instances {
        let Some(instance) = host.driver.instances.get(known.id) else {
            known.stored.clear();
            continue;
        };
        let is_alive = instance.life.state().name().is_alive();
        let has_none = |id: InstanceId| !host.world.borrow().descriptors.stores.contains_key(&id.index());
        let is_at_rest = match instance.pending {
            None => true,
            // The stop may have been requested after the end, in the same step.
            Some(Request::Stop | Request::Kill) => has_none(known.id),
            // So may a restart, by a rolling restart that goes on.
            Some(Request::Restart) => is_rolling(known.group) && has_none(known.id),
            Some(Request::Start) => false,
        };
        let is_in_backoff = instance.life.state().name() == StateName::Backoff;
        let awaits_siblings = is_in_backoff && instance.life.joint() != Joint::None;
        let may_start = instance.life.deadline().is_some() || awaits_siblings;
        if !is_alive && is_at_rest && !may_start {
            known.stored.clear();
        }
    }
    let stored = host.model.instances.iter().flat_map(|known| &known.stored);
    let expected: BTreeSet<u64> = stored.map(|(_, fd)| *fd).collect();
    let world = host.world.borrow();
    let open = &world.descriptors.open;
    ensure(*open == expected, || {
        format!("the descriptors {open:?} are open, and {expected:?} are stored")
    })
}
