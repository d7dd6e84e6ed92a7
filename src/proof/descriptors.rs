//! The simulated set of descriptors, as an epoll shows it: ready entries in turns, and edges. The notify socket is an
//! entry of it.

use std::collections::VecDeque;

use super::reexec::moved;
use super::world::{Did, World};
use crate::engine::ids::InstanceId;
use crate::engine::kernel::Report;
use crate::exit::Pid;
use crate::exit::{Exit, ExitRecord, Usage};
use crate::fdset::Token;
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;

/// The largest number of messages in the socket. Further messages are lost.
pub(super) const QUEUE: usize = 4;

pub(super) const TIMER: Token = Token::from_raw(1 << 32);
pub(super) const SOCKET: Token = Token::from_raw(2 << 32);
pub(super) const SIGNALS: Token = Token::from_raw(4 << 32);
pub(super) const ORPHANS: Token = Token::from_raw(5 << 32);
const PROCESS: u64 = 3 << 32;

/// The entry of the process with this serial number.
pub(super) const fn process(serial: u64) -> Token {
    Token::from_raw(PROCESS | serial)
}

/// One message in the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) serial: u64,
    pub(super) pid: Pid,
    pub(super) text: &'static str,
}

/// The ready entries, and the edges so far.
#[derive(Default)]
pub(super) struct Set {
    /// The ready entries, with the next one to report first.
    turns: VecDeque<Token>,
    /// The number of edges, each of which wakes an edge-triggered host.
    pub(super) edges: u64,
    pub(super) messages: VecDeque<Message>,
    /// The remaining lines of the last message.
    pub(super) reports: VecDeque<(InstanceId, Report)>,
    /// Signals to the host.
    pub(super) signals: VecDeque<SignalInfo>,
    /// Adopted orphans that have ended.
    pub(super) orphans: VecDeque<ExitRecord>,
}

impl Set {
    /// The host has ended, and everything that was not read is lost.
    pub(super) fn forget(&mut self) {
        *self = Set {
            edges: self.edges,
            ..Set::default()
        };
    }

    /// Another program has a set of its own. The messages that were not handled are for its ids.
    pub(super) fn begin_anew(&mut self, home: u32) {
        self.turns.clear();
        for (from, _) in &mut self.reports {
            *from = moved(from, home);
        }
    }
}

impl World {
    /// Whether the entry with this token is readable.
    fn is_ready(&self, token: Token) -> bool {
        match token {
            TIMER => self.timer_is_ready(),
            SOCKET => !self.set.messages.is_empty() || !self.set.reports.is_empty(),
            SIGNALS => !self.set.signals.is_empty(),
            ORPHANS => !self.set.orphans.is_empty(),
            _ => self
                .processes
                .iter()
                .any(|process| self::process(process.serial) == token && process.is_ready()),
        }
    }

    /// Whether a level-triggered host is woken.
    pub(super) fn is_readable(&self) -> bool {
        self.timer_is_ready() || self.is_readable_but_for_the_timer()
    }

    pub(super) fn is_readable_but_for_the_timer(&self) -> bool {
        let set = &self.set;
        let is_told = !set.messages.is_empty() || !set.signals.is_empty() || !set.orphans.is_empty();
        is_told || self.processes.iter().any(|process| process.is_ready())
    }

    /// Forgets which entries were ready and are not any more. When such an entry becomes ready again, that is an edge.
    pub(super) fn forget_what_was_read(&mut self) {
        let mut turns = std::mem::take(&mut self.set.turns);
        turns.retain(|&token| self.is_ready(token));
        self.set.turns = turns;
    }

    /// Counts an edge if an entry has become ready.
    pub(super) fn note_edges(&mut self) {
        let mut turns = std::mem::take(&mut self.set.turns);
        turns.retain(|&token| self.is_ready(token));
        let serials = self.processes.iter().map(|process| process.serial);
        let entries = serials.map(process).chain([TIMER, SOCKET, SIGNALS, ORPHANS]);
        let mut fresh: Vec<Token> = entries
            .filter(|&token| self.is_ready(token) && !turns.contains(&token))
            .collect();
        self.chance.shuffle(&mut fresh);
        self.set.edges += fresh.len() as u64;
        turns.extend(fresh);
        self.set.turns = turns;
    }

    /// Appends ready entries, each in its turn.
    pub(super) fn report(&mut self, tokens: &mut Vec<Token>) {
        self.note_edges();
        tokens.clear();
        let room = tokens.capacity().min(self.set.turns.len());
        tokens.extend(self.set.turns.drain(..room));
        self.set.turns.extend(tokens.iter());
    }

    /// The slot of the process that the entry belongs to.
    pub(super) fn owner_of(&self, entry: Token) -> Option<u32> {
        let mut processes = self.processes.iter().filter(|process| process.is_watched());
        let found = processes.find(|process| self::process(process.serial) == entry)?;
        Some(found.owner)
    }

    pub(super) fn entries(&self) -> usize {
        self.processes.iter().filter(|process| process.is_watched()).count() + 4
    }

    /// Sends a signal to the host. A signal that is already pending is not queued a second time.
    pub(super) fn signal_host(&mut self, signal: Signal) {
        if self.set.signals.iter().all(|pending| pending.signal != signal) {
            self.set.signals.push_back(SignalInfo {
                signal,
                sender: None,
                uid: 0,
                code: 0,
                status: 0,
                value: 0,
            });
            self.note_edges();
        }
    }

    /// Ends an adopted orphan.
    pub(super) fn end_orphan(&mut self, number: u32) {
        if let Some(pid) = Pid::new(number) {
            let exit = Exit::Code(0);
            let usage = Usage::default();
            self.set.orphans.push_back(ExitRecord {
                pid,
                exit,
                usage: Some(usage),
            });
            self.note_edges();
        }
    }

    /// Puts messages of processes into the socket, in the order of their times.
    pub(super) fn send(&mut self, mut sent: Vec<(Instant, Message)>) {
        sent.sort_by_key(|&(at, message)| (at, message.serial));
        for (_, message) in sent {
            if self.set.messages.len() < QUEUE {
                self.set.messages.push_back(message);
                self.set.edges += 1;
                let Message { serial, text, .. } = message;
                self.log.push(Did::Send { serial, text });
            }
        }
    }
}
