//! The simulated kernel as the engine calls it.

use std::io;
use std::time::{Duration, SystemTime};

use super::behavior::Role;
use super::process::{Phase, Process};
use super::world::{SIGNALS, SOCKET, TIMER, World};
use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::child::Pipes;
use crate::command::{Program, SpawnError};
use crate::engine::context::SpawnContext;
use crate::engine::kernel::{Collected, Coming, Happening, Kernel, Report, Senders, Spawned};
use crate::fdset::Token;
use crate::lifecycle::Scope;
use crate::signal::Signal;
use crate::time::Instant;

/// The simulated kernel.
pub(crate) struct SimKernel(pub(super) World);

impl Kernel for SimKernel {
    fn now(&self) -> Instant {
        self.0.now
    }

    fn monotonic(&self) -> Instant {
        self.now()
    }

    fn keeps_state(&self) -> bool {
        false
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        self.0.armed = at;
        Ok(())
    }

    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()> {
        self.0.report(entries);
        Ok(())
    }

    fn entries(&self) -> usize {
        self.0.entries()
    }

    fn next(&mut self, entry: Token, senders: &Senders) -> io::Result<Option<Happening>> {
        Ok(match entry {
            TIMER => {
                let is_ready = self.0.timer_is_ready();
                if is_ready {
                    self.0.armed = None;
                }
                is_ready.then_some(Happening::TimerExpired)
            }
            SOCKET => self.receive(senders),
            SIGNALS => self.0.signals.pop_front().map(Happening::Signal),
            _ => {
                let slot = entry.index() as u32;
                let process = self.0.process(slot).filter(|process| process.token == entry);
                process.map(|_| Happening::Process(slot))
            }
        })
    }

    fn notify_entry(&self) -> Option<Token> {
        self.0.is_listening.then_some(SOCKET)
    }

    fn look_at(&self) -> Option<Instant> {
        self.0.looks.earliest()
    }

    fn look_again(&mut self, now: Instant) -> Option<u32> {
        self.0.looks.pop_due(now)
    }

    fn is_saturated(&self) -> bool {
        self.0.is_saturated()
    }

    fn announce(&mut self, coming: &Coming<'_>) {
        self.0.coming = Some(Role::of(coming));
    }

    fn spawn(&mut self, slot: u32, program: &Program, context: &SpawnContext) -> Result<Spawned, SpawnError> {
        let (pid, executed) = self.0.spawn(slot, program, context)?;
        let pipes = Pipes::default();
        Ok(Spawned { pid, pipes, executed })
    }

    fn collect(&mut self, slot: u32, keep_scope: bool) -> io::Result<Collected> {
        let was_in_flight = self.0.process(slot).is_some_and(|process| process.is_in_flight());
        let collected = self.0.change(slot, |process, _| process.collect(keep_scope));
        if was_in_flight && !self.0.process(slot).is_some_and(|process| process.is_in_flight()) {
            self.0.landed();
        }
        Ok(collected.unwrap_or(Collected::Nothing))
    }

    fn has_executed(&self, slot: u32) -> bool {
        self.0.process(slot).is_some_and(Process::has_executed)
    }

    fn has_ended(&self, slot: u32) -> bool {
        self.0.process(slot).is_none_or(|process| process.phase != Phase::Alive)
    }

    fn signal(&mut self, slot: u32, signal: Signal, scope: Scope) -> io::Result<()> {
        if signal != Signal::KILL && self.0.process(slot).is_some() && self.0.faults.signal(&mut self.0.random) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let _gone = self.0.change(slot, |process, now| process.signal(signal, scope, now));
        Ok(())
    }

    fn is_empty(&mut self, slot: u32, scope: Scope, _looks: u8) -> io::Result<bool> {
        Ok(self.0.process(slot).is_none_or(|process| process.is_empty(scope)))
    }

    fn usage(&self, _slot: u32) -> Option<CgroupUsage> {
        None
    }

    fn out_of_memory(&self, slot: u32) -> Option<OomKill> {
        self.0.process(slot)?.oom()
    }

    fn change_limit(&mut self, _slot: u32, _file: &CgroupFile) -> Result<(), CgroupError> {
        Ok(())
    }

    fn freeze(&mut self, slot: u32, on: bool) -> io::Result<()> {
        let _gone = self.0.change(slot, |process, now| process.freeze(on, now));
        Ok(())
    }

    fn discard(&mut self, slot: u32, patience: Duration) {
        self.0.discard(slot, patience);
    }

    /// No simulated process sends descriptors.
    fn drop_descriptors(&mut self, _slot: u32) {}

    fn reserve(&mut self, _processes: usize, _slots: u32) {}

    fn close(&mut self, _until: Instant) {}

    fn is_ours(&self) -> bool {
        true
    }
}

impl SimKernel {
    /// Takes the next line of a message from the notify socket.
    fn receive(&mut self, senders: &Senders) -> Option<Happening> {
        let world = &mut self.0;
        if world.reports.is_empty() {
            let (pid, text) = world.socket.pop_front()?;
            if let Some(sender) = senders.get(&pid) {
                let notices = crate::notify::parse(text.as_bytes()).filter_map(Result::ok);
                let reports = notices.filter_map(Report::of).map(|report| (sender.id, report));
                world.reports.extend(reports);
            }
        }
        let Some((from, report)) = world.reports.pop_front() else {
            return Some(Happening::UnknownMessage);
        };
        let ends_message = world.reports.is_empty();
        Some(Happening::Report {
            from,
            report,
            ends_message,
        })
    }
}
