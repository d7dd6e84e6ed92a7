//! What a host can ask of an instance, and the waiting place for requests to very many.
//!
//! A command for a group of thousands is carried out in slices, so that the host's other
//! descriptors get their turn. What is left waits here: at most one request an instance, since two
//! that follow each other can be said as one.

use crate::lifecycle::{Input, Reply};

/// What a host can ask of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Be up.
    Start,
    /// Be down, gracefully.
    Stop,
    /// Down, and up again.
    Restart,
    /// Be down, now.
    Kill,
}

impl Request {
    pub(super) const fn input(self) -> Input {
        match self {
            Request::Start => Input::Start,
            Request::Stop => Input::Stop,
            Request::Restart => Input::Restart,
            Request::Kill => Input::Kill,
        }
    }

    pub(super) const fn wants_up(self) -> bool {
        matches!(self, Request::Start | Request::Restart)
    }

    /// The one request that does what this and then `later` would; `None` if there is none.
    pub(super) const fn then(self, later: Request) -> Option<Request> {
        use Request as R;
        match (self, later) {
            (R::Start, R::Start) => Some(R::Start),
            (R::Start | R::Restart | R::Stop, R::Restart) | (R::Restart | R::Stop, R::Start) => Some(R::Restart),
            (R::Start | R::Restart | R::Stop, R::Stop) => Some(R::Stop),
            (R::Start | R::Restart | R::Stop | R::Kill, R::Kill) | (R::Kill, R::Stop) => Some(R::Kill),
            (R::Kill, R::Start | R::Restart) => None,
        }
    }
}

/// What a command led to, summed over the instances it concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// For how many it took effect.
    pub accepted: u32,
    /// How many were already as asked; of a signal: how many have no process that it could go to.
    pub already: u32,
    /// For how many it is remembered: behind a stop that is under way, or behind the requests of
    /// thousands of others.
    pub queued: u32,
    /// How many it could not be done for; an [`Event`](super::Event) tells why.
    pub failed: u32,
}

impl Outcome {
    pub(super) const fn count(&mut self, reply: Reply) {
        let field = match reply {
            Reply::Accepted => &mut self.accepted,
            Reply::Already | Reply::Ignored => &mut self.already,
            Reply::Queued => &mut self.queued,
        };
        *field = field.saturating_add(1);
    }

    pub(super) const fn and(self, other: Outcome) -> Outcome {
        Outcome {
            accepted: self.accepted.saturating_add(other.accepted),
            already: self.already.saturating_add(other.already),
            queued: self.queued.saturating_add(other.queued),
            failed: self.failed.saturating_add(other.failed),
        }
    }

    /// How many instances were concerned.
    #[must_use]
    pub const fn total(self) -> u32 {
        self.accepted
            .saturating_add(self.already)
            .saturating_add(self.queued)
            .saturating_add(self.failed)
    }
}
