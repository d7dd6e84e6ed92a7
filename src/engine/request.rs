//! Requests of the host for instances, and how two pending requests become one.
//!
//! A command for a group of thousands is carried out in slices, so that the host's other descriptors are served in
//! between. An instance that waits has at most one pending request, because two requests in a row are combined.

use crate::codec::stored;
use crate::lifecycle::{Input, Reply};
use crate::names::{machine_names, shown_by_name};

/// A request of the host for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Request {
    /// Start the instance if it is down.
    Start,
    /// Stop the instance gracefully.
    Stop,
    /// Stop the instance gracefully, and start it again.
    Restart,
    /// Stop the instance with SIGKILL at once.
    Kill,
}

machine_names! { Request, "request",
    Start = "start"
    Stop = "stop"
    Restart = "restart"
    Kill = "kill"
}

shown_by_name! { Request }

impl Request {
    pub(crate) const fn input(self) -> Input {
        match self {
            Request::Start => Input::Start,
            Request::Stop => Input::Stop,
            Request::Restart => Input::Restart,
            Request::Kill => Input::Kill,
        }
    }

    pub(crate) const fn wants_up(self) -> bool {
        matches!(self, Request::Start | Request::Restart)
    }

    /// The one request with the effect of this one followed by `later`; `None` if there is none.
    pub(crate) const fn then(self, later: Request) -> Option<Request> {
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

/// The result of a command, counted over the instances it applied to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Outcome {
    /// The number of instances for which the command took effect.
    pub accepted: u32,
    /// The number of instances that were already in the requested state. For a signal: the number of instances without
    /// a process.
    pub already: u32,
    /// The number of instances for which the command is remembered: until a stop has ended, or until the requests of
    /// many other instances are served.
    pub queued: u32,
    /// The number of instances for which the command failed; an [`Event`](crate::supervisor::Event) gives the reason.
    pub failed: u32,
}

impl Outcome {
    pub(crate) const fn count(&mut self, reply: Reply) {
        let field = match reply {
            Reply::Accepted => &mut self.accepted,
            Reply::Already | Reply::Ignored => &mut self.already,
            Reply::Queued => &mut self.queued,
        };
        *field = field.saturating_add(1);
    }

    pub(crate) const fn and(self, other: Outcome) -> Outcome {
        Outcome {
            accepted: self.accepted.saturating_add(other.accepted),
            already: self.already.saturating_add(other.already),
            queued: self.queued.saturating_add(other.queued),
            failed: self.failed.saturating_add(other.failed),
        }
    }

    /// The number of instances that the command applied to.
    #[must_use]
    pub const fn total(self) -> u32 {
        self.accepted
            .saturating_add(self.already)
            .saturating_add(self.queued)
            .saturating_add(self.failed)
    }
}

stored!(enum Request { 0 = Start, 1 = Stop, 2 = Restart, 3 = Kill });
