//! A copy of the stream of events for another part of the host.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::engine::event::Event;
use crate::waker::Waker;

/// A stream of events of its own, made by [`Supervisor::subscribe`](crate::Supervisor::subscribe). There may be any
/// number of them, and each may live in another thread. It is a descriptor that is readable while events wait.
///
/// Each has a bound. When it is full, the oldest event is dropped and counted, so that a slow reader holds up nothing.
/// Dropping a subscription ends it. When the supervisor is dropped, the events that wait can still be fetched, and
/// [`Subscription::is_over`] tells that no more will come.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Readable while events wait, and after the end.
    signal: Waker,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    lost: u64,
    is_over: bool,
}

impl Shared {
    /// A thread that panicked with the lock cannot have left the queue half changed.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// A subscription, and what the supervisor calls with each event. The call returns false when the subscription was
    /// dropped.
    pub(crate) fn new(
        capacity: usize,
        mut is_wanted: impl FnMut(&Event) -> bool + Send + 'static,
    ) -> io::Result<(Subscription, impl FnMut(&Event) -> bool + Send + 'static)> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                events: VecDeque::with_capacity(capacity.min(RESERVED)),
                ..Queue::default()
            }),
            capacity,
            signal: Waker::new()?,
        });
        let feed = Feed(Arc::downgrade(&shared));
        let push = move |event: &Event| {
            let Some(shared) = feed.0.upgrade() else { return false };
            if is_wanted(event) {
                shared.push(event);
            }
            true
        };
        Ok((Subscription { shared }, push))
    }

    /// The next event; `None` if none waits. Never blocks, except for the moment in which the supervisor adds an event.
    #[must_use = "the event is gone from the subscription"]
    pub fn next_event(&self) -> Option<Event> {
        let mut queue = self.shared.queue();
        let event = queue.events.pop_front();
        if queue.events.is_empty() && !queue.is_over {
            self.shared.signal.acknowledge();
        }
        event
    }

    /// How many events were dropped because the subscription was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.queue().lost
    }

    /// Whether the supervisor is gone. Then the descriptor stays readable.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.queue().is_over
    }
}

/// The descriptor is readable while events wait, and when the supervisor is gone.
impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.signal.as_fd()
    }
}

impl AsRawFd for Subscription {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The capacity that is reserved in advance. A subscription that may hold more grows when needed.
const RESERVED: usize = 1_024;

impl Shared {
    fn push(&self, event: &Event) {
        let mut queue = self.queue();
        if queue.events.len() >= self.capacity {
            queue.lost = queue.lost.saturating_add(1);
            if queue.events.pop_front().is_none() {
                return;
            }
        }
        queue.events.push_back(event.clone());
        self.signal.wake();
    }
}

/// The supervisor's end.
struct Feed(Weak<Shared>);

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.queue().is_over = true;
            shared.signal.wake();
        }
    }
}
