//! What the host is told: a bounded queue that counts what it had to drop.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::{GroupId, InstanceId};
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{Cause, StateName};
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An instance went from one state to another.
    Transition(TransitionEvent),
    /// SIGKILL did not end an instance within its ladder's patience. It is waited for all the same.
    Unkillable {
        /// Which.
        instance: InstanceId,
        /// Its group.
        group: GroupId,
        /// Its group's name and its number in it.
        name: Name,
        /// Its process.
        pid: Option<Pid>,
    },
    /// A signal of a stop ladder could not be delivered (EPERM, say). The ladder goes on.
    SignalFailed {
        /// To whom.
        instance: InstanceId,
        /// Its group.
        group: GroupId,
        /// Its group's name and its number in it.
        name: Name,
        /// What was sent.
        signal: Signal,
        /// The kernel's reason.
        errno: i32,
    },
    /// A signal of the supervisor's [`SignalFd`](crate::SignalFd) arrived at the host's process.
    Signal(SignalInfo),
    /// A rolling restart is over.
    ///
    /// Of a group that is removed meanwhile [`Event::GroupRemoved`] tells alone.
    Rolled {
        /// Of which group.
        group: GroupId,
        /// Its name.
        name: Arc<str>,
        /// Who did not come up again, which ended it early.
        failed: Option<InstanceId>,
    },
    /// An orphan that had been [adopted](super::Builder::adopt_orphans) has ended, and was reaped.
    Orphan(ExitRecord),
    /// The last instance of a group that was to be removed is gone, and so is the group.
    GroupRemoved {
        /// Which; the id means nothing any more.
        group: GroupId,
        /// Its name.
        name: Arc<str>,
    },
}

/// An instance's group name and its number in the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The group's name.
    pub group: Arc<str>,
    /// The instance's number in it, from 0 up.
    pub number: u32,
}

impl fmt::Display for Name {
    /// `group:number`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.group, self.number)
    }
}

/// An instance went from one state to another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransitionEvent {
    /// Which.
    pub instance: InstanceId,
    /// Its group.
    pub group: GroupId,
    /// Its group's name and its number in it.
    pub name: Name,
    /// The state left.
    pub from: StateName,
    /// The state reached.
    pub to: StateName,
    /// Why.
    pub cause: Cause,
    /// The process concerned: the new one on the way into `Starting`, else the one there is or was.
    pub pid: Option<Pid>,
    /// The how-manieth run of the instance this belongs to, from 1 up.
    pub run: u64,
    /// When, on the supervisor's clock.
    pub at: Instant,
    /// When, for showing.
    pub wall: SystemTime,
    /// How the process ended, if it did with this transition.
    pub exit: Option<ExitRecord>,
    /// Why it could not be spawned, if that is the cause.
    pub error: Option<SpawnError>,
}

/// The queue. When it is full the oldest event makes room: a host that is late wants to know how
/// things stand, and how much it has missed.
pub(super) struct Events {
    queue: VecDeque<Event>,
    capacity: usize,
    dropped: u64,
}

/// The most events that room is reserved for in advance; a queue that may hold more grows to it.
const RESERVED: usize = 4_096;

impl Events {
    pub(super) fn new(capacity: usize) -> Events {
        Events {
            queue: VecDeque::with_capacity(capacity.min(RESERVED)),
            capacity,
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.capacity == 0 {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        if self.queue.len() == self.capacity {
            self.queue.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
