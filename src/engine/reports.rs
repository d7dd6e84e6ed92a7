//! Reports of processes about themselves, and their way to the lifecycles.
//!
//! A message and the end of its sender arrive at two descriptors, in an unknown order. A process sends nothing after
//! its end. So the socket is read before an end is handled, up to every message that was in the queue when the process
//! was found to have ended. Until then the process is not reaped, so its pid belongs to it and identifies it as the
//! sender. The same is done for a deadline that a message could have put off: the socket is read before the deadline is
//! declared expired.
//!
//! The number of messages is limited to the length of the queue, because a process that sends without a pause would
//! otherwise keep the host. Handling the end again when a message arrives later was rejected: the instance may have
//! been restarted by then.

use std::time::Duration;

use super::core::Engine;
use super::ids::InstanceId;
use super::kernel::{Happening, Kernel, Report};
use crate::lifecycle::{Failure, Input};

/// The longest extension by one message. A process may ask again, and must be alive to do so.
const LONGEST_EXTENSION: Duration = Duration::from_secs(3_600);

impl<K: Kernel> Engine<K> {
    /// Handles every message that was in the queue of the notify socket at the time of the call.
    pub(crate) fn receive_queued(&mut self) {
        let Some(entry) = self.kernel.notify_entry() else {
            return;
        };
        let mut left = self.queue;
        while left > 0 {
            match self.kernel.next(entry, &self.notify_pids) {
                Ok(Some(Happening::Report {
                    from,
                    report,
                    ends_message,
                })) => {
                    left -= usize::from(ends_message);
                    self.apply_report(from, report);
                }
                Ok(Some(_)) => left -= 1,
                // After an error, the socket's own turn reports it.
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Handles the queued messages once per call of the host: the messages from before the call.
    pub(crate) fn receive_queued_once(&mut self) {
        if !std::mem::replace(&mut self.received, true) {
            self.receive_queued();
        }
    }

    /// If the process of an instance has ended, handles its last messages. Returns whether no message of it can follow.
    pub(crate) fn receive_last_messages(&mut self, id: InstanceId) -> bool {
        if !self.may_notify(id) {
            return true;
        }
        let has_ended = self.has_ended(id);
        if has_ended {
            self.receive_queued();
        }
        has_ended
    }

    /// Whether the deadline of an instance ends a time in which it had to send a message.
    pub(crate) fn is_judged_by_silence(&self, id: InstanceId) -> bool {
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        let group = self.groups.get(instance.group);
        group.is_some_and(|group| instance.life.judges_silence(&group.policy))
    }

    /// Whether messages of an instance's process are accepted.
    pub(crate) fn may_notify(&self, id: InstanceId) -> bool {
        let process = self.instances.get(id).and_then(|instance| instance.process);
        process.is_some_and(|pid| self.notify_pids.get(&pid) == Some(&id))
    }

    /// Gives a report of a process to its lifecycle.
    pub(crate) fn apply_report(&mut self, id: InstanceId, report: Report) {
        match report {
            Report::Ready => drop(self.apply_input(id, Input::Ready)),
            Report::Alive => drop(self.apply_input(id, Input::Alive)),
            Report::WatchdogTrigger => drop(self.apply_input(id, Input::Failed(Failure::Watchdog))),
            Report::Extend(by) => drop(self.apply_input(id, Input::Extend(by.min(LONGEST_EXTENSION)))),
            Report::Status(text) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.status_text = text;
                }
            }
        }
    }
}
