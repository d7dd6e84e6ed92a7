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
use super::error::Error;
use super::event::{Event, ProcessNotice, ReloadResult};
use super::ids::{InstanceId, Target};
use super::instance::{Instance, Reload};
use super::kernel::{Happening, Kernel, Report, Sender};
use super::request::Outcome;
use super::spec::NotifySpec;
use crate::exit::Pid;
use crate::lifecycle::{Failure, Input, Scope, StateName};
use crate::signal::Signal;

/// The longest extension by one message. A process may ask again, and must be alive to do so.
pub(crate) const LONGEST_EXTENSION: Duration = Duration::from_secs(3_600);

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
        group.is_some_and(|group| instance.life.judges_silence(instance.policy(group)))
    }

    /// Whether messages of an instance's process are accepted.
    pub(crate) fn may_notify(&self, id: InstanceId) -> bool {
        let process = self.instances.get(id).and_then(|instance| instance.process);
        process.is_some_and(|pid| self.is_heard(id, pid))
    }

    /// Accepts the messages of this process.
    pub(super) fn hear(&mut self, pid: Pid, sender: Sender) {
        if sender.most_stored > 0 {
            self.kernel.expect_descriptors();
        }
        self.notify_pids.insert(pid, sender);
    }

    /// Accepts the messages of this process if the description of its group says so.
    pub(super) fn hear_if_described(&mut self, id: InstanceId, pid: Pid) {
        let instance = self.instances.get(id);
        let group = instance.and_then(|instance| self.groups.get(instance.group));
        if let Some(notify) = group.map(|group| group.notify).filter(NotifySpec::accepts) {
            let sender = Sender {
                id,
                access: notify.access,
                most_stored: notify.most_stored,
            };
            self.hear(pid, sender);
        }
    }

    /// Accepts no more messages of this process.
    pub(super) fn stop_hearing(&mut self, id: InstanceId, pid: Pid) {
        if self.is_heard(id, pid) {
            self.notify_pids.remove(&pid);
        }
    }

    /// Whether the messages of this process are accepted for this instance.
    pub(crate) fn is_heard(&self, id: InstanceId, pid: Pid) -> bool {
        self.notify_pids.get(&pid).is_some_and(|sender| sender.id == id)
    }

    /// Gives a report of a process to its lifecycle.
    pub(crate) fn apply_report(&mut self, id: InstanceId, report: Report) {
        self.see_execution(id);
        match report {
            Report::Ready => self.ready(id),
            Report::Alive => drop(self.apply_input(id, Input::Alive)),
            Report::WatchdogTrigger => drop(self.apply_input(id, Input::Failed(Failure::Watchdog))),
            Report::Extend(by) => {
                let extend = Input::Extend(by.min(LONGEST_EXTENSION));
                self.apply_input(id, extend);
                self.apply_to_stop_command(id, extend);
            }
            Report::Status(text) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    if let Some(extra) = instance.extra_for(text.as_ref()) {
                        extra.status_text = text;
                    }
                }
            }
            Report::Reloading => {
                self.with_reload(id, |reload| reload.has_begun = true);
                self.notice(id, ProcessNotice::Reloading);
            }
            Report::ReloadingSince(at) => self.with_reload(id, |reload| reload.began = Some(at)),
            Report::Stopping => self.notice(id, ProcessNotice::Stopping),
            Report::Errno(errno) => self.notice(id, ProcessNotice::Errno(errno)),
            Report::Notice(notice) => self.notice(id, notice),
            Report::WatchdogEvery(every) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.extra_mut().watchdog = Some(every);
                }
                self.notice(id, ProcessNotice::WatchdogEvery(every));
                self.apply_input(id, Input::Alive);
            }
        }
    }

    /// A program that reports was executed. This is seen first, so that its start comes before what it reports.
    fn see_execution(&mut self, id: InstanceId) {
        let is_in_flight = |instance: &Instance| instance.life.state().is_in_flight();
        if self.instances.get(id).is_some_and(is_in_flight) && self.kernel.has_executed(id.index()) {
            self.executed(id);
        }
    }

    /// `READY=1`: a process that runs already has ended a reload.
    fn ready(&mut self, id: InstanceId) {
        let instance = self.instances.get(id);
        if instance.is_none_or(|instance| instance.life.state().name() != StateName::Running) {
            self.apply_input(id, Input::Ready);
            return;
        }
        self.notice(id, ProcessNotice::Ready);
        let reload = self.instances.get(id).and_then(|instance| instance.reload);
        // The report can be that of a reload from before the request.
        let is_done = |reload: Reload| reload.has_begun && reload.began.is_none_or(|began| began >= reload.since);
        if reload.is_some_and(is_done) {
            self.end_reload(id, ReloadResult::Done);
            self.set_deadline(id);
        }
    }

    pub(super) fn notice(&mut self, id: InstanceId, notice: ProcessNotice) {
        if let Some(instance) = self.instances.get(id) {
            self.events.push(Event::Notice {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                notice,
            });
        }
    }

    // Reloads of programs.

    /// Sends a signal to every running process of the target. With a timeout, the reload ends with an event.
    pub(crate) fn reload_program(
        &mut self,
        target: Target,
        signal: Signal,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Error> {
        let members = self.members(target)?;
        let runs = |id: InstanceId| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| instance.life.state().name() == StateName::Running)
        };
        let (running, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|&id| runs(id));
        if let (Target::Instance(id), true) = (target, running.is_empty()) {
            return Err(Error::NotAlive(id));
        }
        if let Some(&id) = running.iter().find(|&&id| timeout.is_some() && !self.may_notify(id)) {
            return Err(Error::CannotNotify(id));
        }
        let mut outcome = Outcome {
            already: u32::try_from(others.len()).unwrap_or(u32::MAX),
            ..Outcome::default()
        };
        for id in running {
            // Messages from before the signal are those of an earlier reload.
            self.receive_queued_once();
            let since = self.kernel.monotonic();
            let until = timeout.map(|timeout| self.now.saturating_add(timeout));
            match self.kernel.signal(id.index(), signal, Scope::Process) {
                Ok(()) => outcome.accepted += 1,
                Err(source) if matches!(target, Target::Instance(_)) => {
                    let instance = id;
                    return Err(Error::Signal {
                        instance,
                        signal,
                        source,
                    });
                }
                Err(source) => {
                    outcome.failed += 1;
                    self.signal_failed(id, signal, &source);
                    continue;
                }
            }
            if let Some(instance) = self.instances.get_mut(id) {
                let reload = until.map(|until| Reload {
                    since,
                    until,
                    has_begun: false,
                    began: None,
                });
                if let Some(extra) = instance.extra_for(reload.as_ref()) {
                    extra.reload = reload;
                }
            }
            self.store(id);
            self.set_deadline(id);
        }
        Ok(outcome)
    }

    /// Sets the next deadline of an instance: that of its lifecycle, or that of the reload of its program.
    pub(super) fn set_deadline(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(id) else { return };
        let reload = instance.reload.map(|reload| reload.until);
        match instance.life.deadline().into_iter().chain(reload).min() {
            Some(at) => self.deadlines.set(id.index(), at),
            None => self.deadlines.clear(id.index()),
        }
    }

    fn with_reload(&mut self, id: InstanceId, change: impl FnOnce(&mut Reload)) {
        let extra = self.instances.get_mut(id).and_then(Instance::known_extra);
        if let Some(reload) = extra.and_then(|extra| extra.reload.as_mut()) {
            change(reload);
            self.store(id);
        }
    }

    fn end_reload(&mut self, id: InstanceId, result: ReloadResult) {
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        if instance.known_extra().and_then(|extra| extra.reload.take()).is_some() {
            self.events.push(Event::Reloaded {
                instance: id,
                group: instance.group,
                name: instance.name.clone(),
                result,
            });
            self.store(id);
        }
    }

    /// The reload of a process that no longer runs has ended.
    pub(super) fn note_end_of_reload(&mut self, id: InstanceId) {
        let instance = self.instances.get(id);
        if instance.is_some_and(|instance| instance.life.state().name() != StateName::Running) {
            self.end_reload(id, ReloadResult::Ended);
        }
    }

    /// Ends a reload that takes too long. A message in the socket may have ended it in time.
    pub(super) fn check_reload_deadline(&mut self, id: InstanceId) {
        let is_due = |engine: &Engine<K>| {
            let reload = engine.instances.get(id).and_then(|instance| instance.reload);
            reload.is_some_and(|reload| reload.until <= engine.now)
        };
        if is_due(self) {
            self.receive_queued_once();
        }
        if is_due(self) {
            self.end_reload(id, ReloadResult::TimedOut);
        }
        self.set_deadline(id);
    }
}
