//! One turn of the host's loop: the work of one call, its order, its time and its answer.
//!
//! A turn lasts one [slice](crate::supervisor::Builder::slice). Deadlines come first, for at most half of the slice: a
//! crash storm in one group does not delay the deadlines of another. After them, pending requests and ready descriptors
//! take turns. The next call continues with the rest, and the set stays readable until then.
//!
//! Descriptors are handled in *rounds*. A round has as many places as the set has entries. The epoll reports its ready
//! entries in rotation, so each entry that was ready at the beginning of a round is handled by its end, however many
//! others become ready meanwhile. A host that is edge-triggered calls until the answer is [`Progress::Nothing`]. In a
//! storm there is always more to do, so such a host would never return to its loop. When a round is complete and the
//! calls without a pause have taken longer than a slice, the answer is therefore `Nothing` too. If something is ready
//! then, the timer is armed for the past, which makes a new edge for the host.
//!
//! Two things were rejected. A limit by number does not bound the time: 64 spawns take 8 ms on one machine and 40 ms on
//! another. To serve deadlines when the epoll reports the timer is too late: in a storm of 5,000 the timer is one of
//! 5,000 ready entries.

use std::io;

use super::core::{COLLECTIONS, Engine};
use super::event::{Event, ProcessNotice, RemovalReason};
use super::kernel::{Happening, Kernel};
use super::progress::Progress;
use super::round::{Budget, SHORTEST_STREAK};
use crate::fdset::Token;
use crate::lifecycle::Input;
use crate::time::Instant;

/// How many signals, messages or orphans are handled in one go.
const HAPPENINGS: usize = 32;

impl<K: Kernel> Engine<K> {
    /// Serves deadlines, pending requests and ready descriptors for a slice of time.
    pub(crate) fn dispatch(&mut self) -> io::Result<Progress> {
        self.round.begin(self.woken, self.kernel.entries());
        let turn = self.turn(Engine::next_descriptor);
        // In a storm there are always spawns that wait. Those that began to wait later belong to the next round.
        let began = self.round.began();
        let is_left = self.may_serve_from(began) || self.is_due(began);
        let more = self.round.end(is_left);
        let kept = self.answer(turn?, more);
        // The host may have waited since the round began. Then it has used up the edge of an entry that became ready
        // after the beginning of the round.
        let is_missed = kept == Progress::Nothing && !self.wakes_anew && !self.round.is_fresh();
        Ok(if is_missed && self.is_anything_ready() {
            Progress::Done
        } else {
            kept
        })
    }

    /// Serves the deadlines that are due, then handles one entry of the set.
    pub(crate) fn process_token(&mut self, entry: Token) -> io::Result<Progress> {
        let served = self.serve_due(&mut Budget::new(self.half_time(), K::TURN));
        match self.handle(entry)? {
            Handled::Process(progress) => Ok(progress),
            Handled::Timer => {
                let progress = self.run_due();
                let more = progress == Progress::More;
                Ok(self.answer(served || progress > Progress::Nothing, more))
            }
            Handled::Other(progress) => Ok(self.answer(progress > Progress::Nothing, progress == Progress::More)),
        }
    }

    /// Reaps the orphans that have ended.
    pub(crate) fn reap_orphans(&mut self, entry: Token) -> io::Result<Progress> {
        Ok(self.handle(entry)?.progress())
    }

    /// Serves deadlines and pending requests for a slice of time.
    pub(crate) fn run_due(&mut self) -> Progress {
        // Only a descriptor can cause an error.
        let did = self.turn(|_| Ok(None)).unwrap_or(true);
        Progress::of(did, self.may_serve() || self.is_due(self.woken))
    }

    /// One turn; `next` handles one descriptor. Returns whether there was any work.
    fn turn(&mut self, mut next: impl FnMut(&mut Engine<K>) -> io::Result<Option<Progress>>) -> io::Result<bool> {
        let end = self.woken.saturating_add(self.slice);
        let mut did = self.serve_due(&mut Budget::new(self.half_time(), K::TURN));
        let mut budget = Budget::new(end, K::TURN);
        let mut requests = K::SLICE;
        let mut result = Ok(());
        while budget.take(self.kernel.now()) {
            self.is_requests_turn = !self.is_requests_turn;
            let may_ask = requests > 0 && self.may_serve();
            if may_ask && self.is_requests_turn {
                requests -= 1;
                did |= self.serve_next();
                continue;
            }
            match next(self) {
                Ok(Some(progress)) => did |= progress > Progress::Nothing,
                Ok(None) if may_ask => {
                    requests -= 1;
                    did |= self.serve_next();
                }
                Ok(None) => break,
                // The others are handled all the same: one descriptor may fail in every call.
                Err(error) => result = Err(error),
            }
        }
        if self.kernel.now() < end {
            did |= self.serve_due(&mut Budget::new(end, K::TURN));
        }
        // Before the answer: what waited for other groups may be work that is left.
        self.follow_ends();
        self.follow_order();
        result.map(|()| did)
    }

    /// Handles the next descriptor of the round, if there is one.
    fn next_descriptor(&mut self) -> io::Result<Option<Progress>> {
        let Some(token) = self.round.next(|tokens| self.kernel.ready(tokens))? else {
            return Ok(None);
        };
        let progress = self.handle(token)?.progress();
        if progress == Progress::More {
            self.round.repeat(token);
        }
        Ok(Some(progress))
    }

    /// The answer of a call. `Nothing` if the calls without a pause have taken longer than a slice.
    fn answer(&mut self, did: bool, more: bool) -> Progress {
        let progress = Progress::of(did, more);
        let patience = self.slice.max(SHORTEST_STREAK);
        self.streak.begin(self.woken, patience);
        if self.streak.end(progress, self.kernel.now(), patience) {
            self.wakes_anew = more || self.may_serve() || self.is_anything_ready();
            return Progress::Nothing;
        }
        progress
    }

    fn is_anything_ready(&mut self) -> bool {
        self.round.is_anything_ready(|tokens| self.kernel.ready(tokens))
    }

    fn half_time(&self) -> Instant {
        self.woken.saturating_add(self.slice / 2)
    }

    // Deadlines. A pending request of the instance is served before its deadline and before its exit: no instance is
    // started by the end of a delay, or by an exit, while its stop is pending.

    /// Whether a deadline is not after this time.
    pub(crate) fn is_due(&self, by: Instant) -> bool {
        let next = self.deadlines.earliest().into_iter().chain(self.kernel.look_at()).min();
        next.is_some_and(|at| at <= by)
    }

    /// Serves the deadlines that were due when the call began, the earliest first, and then the processes that have to be
    /// looked at again: a storm of spawns in flight needs many looks. Returns whether there were any.
    fn serve_due(&mut self, budget: &mut Budget) -> bool {
        let mut did = false;
        while self.is_due(self.woken) && budget.take(self.kernel.now()) {
            if let Some(index) = self.deadlines.pop_due(self.woken) {
                self.serve_deadline(index);
            } else if let Some(index) = self.kernel.look_again(self.woken) {
                if let Some(id) = self.instances.id_at(index) {
                    // After an error the kernel's side sets the next look.
                    let _later = self.process_ready(id);
                }
            } else {
                break;
            }
            did = true;
        }
        did
    }

    fn serve_deadline(&mut self, index: u32) {
        let Some(id) = self.instances.id_at(index) else { return };
        self.run_pending(id);
        if self.is_judged_by_silence(id) {
            // A message or the exit of the process may be ready and not handled. An error here is no loss: the
            // descriptor stays ready.
            if self.may_notify(id) {
                self.receive_queued_once();
            }
            for _ in 0..COLLECTIONS {
                if !matches!(self.process_ready(id), Ok(Progress::Done)) {
                    break;
                }
            }
        }
        self.check_reload_deadline(id);
        let input = if self.is_silent_because_frozen(id) {
            Input::Alive
        } else {
            Input::Timeout
        };
        self.apply_input(id, input);
    }

    // Descriptors.

    /// Handles what happened at this entry of the set. This is the only place where news from outside enters the
    /// engine.
    pub(crate) fn handle(&mut self, entry: Token) -> io::Result<Handled> {
        for handled in 0..HAPPENINGS {
            let Some(happening) = self.kernel.next(entry, &self.notify_pids)? else {
                return Ok(Handled::Other(Progress::of(handled > 0, false)));
            };
            match happening {
                Happening::TimerExpired => {
                    self.events.acknowledge();
                    return Ok(Handled::Timer);
                }
                Happening::Process(slot) => {
                    let id = self.instances.id_at(slot);
                    let progress = id.map_or(Ok(Progress::Nothing), |id| self.descriptor_ready(id))?;
                    return Ok(Handled::Process(progress));
                }
                Happening::Report { from, report, .. } => self.apply_report(from, report),
                Happening::UnknownMessage => {}
                Happening::HungUp { slot, name } => {
                    let (count, reason) = (1, RemovalReason::HungUp);
                    if let Some(id) = self.instances.id_at(slot) {
                        self.notice(id, ProcessNotice::DescriptorsRemoved { name, count, reason });
                    }
                }
                Happening::Signal(signal) => self.events.push(Event::Signal(signal)),
                Happening::Orphan(record) => self.events.push(Event::Orphan(record)),
            }
        }
        Ok(Handled::Other(Progress::More))
    }
}

/// What was handled at an entry of the set.
pub(crate) enum Handled {
    /// The timer has expired.
    Timer,
    /// News of a process.
    Process(Progress),
    /// Anything else, or nothing.
    Other(Progress),
}

impl Handled {
    pub(crate) fn progress(self) -> Progress {
        match self {
            Handled::Timer => Progress::Nothing,
            Handled::Process(progress) | Handled::Other(progress) => progress,
        }
    }
}
