//! A kernel that does what the test says, and notes what it is asked for.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::child::Pipes;
use crate::command::{Program, SpawnError};
use crate::engine::context::SpawnContext;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Collected, Coming, Happening, Kernel, Report, Senders, Spawned};
use crate::exit::Pid;
use crate::fdset::Token;
use crate::lifecycle::{Part, Scope};
use crate::signal::Signal;
use crate::time::Instant;

/// The entry of the notify socket.
pub(super) const SOCKET: Token = Token::from_raw(1 << 32);
/// The entry of the timer.
pub(super) const TIMER: Token = Token::from_raw(1 << 32 | 1);

pub(super) struct TestKernel {
    // What the test says.
    pub(super) now: Instant,
    /// Whether the maximum of spawns is in flight.
    pub(super) is_saturated: bool,
    /// Whether a process that is spawned has not executed its program yet.
    pub(super) is_slow: bool,
    /// How long a spawn takes.
    pub(super) spawn_takes: Duration,
    /// Whether every process in flight has executed its program.
    pub(super) has_executed: bool,
    /// Whether every process has ended.
    pub(super) has_ended: bool,
    /// What the next calls find out about a process.
    pub(super) found: VecDeque<Collected>,
    /// What the set reports as ready, one time after the other.
    pub(super) ready: VecDeque<Vec<Token>>,
    /// What is in the notify socket.
    pub(super) messages: VecDeque<Happening>,
    /// Whether no signal can be sent.
    pub(super) refuses_signals: bool,
    pub(super) usage: Option<CgroupUsage>,
    // What it was asked for.
    /// The slots and the programs of the processes.
    pub(super) spawned: Vec<(u32, String)>,
    /// What was announced of them: the instance, the part of the run, and the number of the run.
    pub(super) announced: Vec<(InstanceId, Part, u64)>,
    pub(super) signals: Vec<(u32, Signal)>,
    pub(super) frozen: Vec<(u32, bool)>,
    /// The files that were written to cgroups.
    pub(super) written: Vec<(u32, String)>,
    /// The numbers of processes that memory was allocated for.
    pub(super) reserved: Vec<usize>,
    /// What was left in the notify socket when a process was reaped.
    pub(super) unread: Vec<usize>,
}

/// A line of a message from an instance.
pub(super) fn line(from: InstanceId, report: Report, ends_message: bool) -> Happening {
    Happening::Report {
        from,
        report,
        ends_message,
    }
}

/// A message of one line.
pub(super) fn message(from: InstanceId, report: Report) -> Happening {
    line(from, report, true)
}

impl TestKernel {
    pub(super) fn new() -> TestKernel {
        TestKernel {
            now: Instant::from_nanos(1_000_000_000),
            is_saturated: false,
            is_slow: false,
            spawn_takes: Duration::ZERO,
            has_executed: false,
            has_ended: false,
            found: VecDeque::new(),
            ready: VecDeque::new(),
            messages: VecDeque::new(),
            refuses_signals: false,
            usage: None,
            spawned: Vec::new(),
            announced: Vec::new(),
            signals: Vec::new(),
            frozen: Vec::new(),
            written: Vec::new(),
            reserved: Vec::new(),
            unread: Vec::new(),
        }
    }
}

impl Kernel for TestKernel {
    fn now(&self) -> Instant {
        self.now
    }

    fn monotonic(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn keeps_state(&self) -> bool {
        false
    }

    fn arm(&mut self, _at: Option<Instant>) -> io::Result<()> {
        Ok(())
    }

    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()> {
        entries.extend(self.ready.pop_front().unwrap_or_default());
        Ok(())
    }

    fn entries(&self) -> usize {
        0
    }

    fn next(&mut self, entry: Token, _senders: &Senders) -> io::Result<Option<Happening>> {
        Ok(match entry {
            SOCKET => self.messages.pop_front(),
            TIMER => Some(Happening::TimerExpired),
            _ => None,
        })
    }

    fn notify_entry(&self) -> Option<Token> {
        Some(SOCKET)
    }

    fn look_at(&self) -> Option<Instant> {
        None
    }

    fn look_again(&mut self, _now: Instant) -> Option<u32> {
        None
    }

    fn is_saturated(&self) -> bool {
        self.is_saturated
    }

    fn spawn(&mut self, slot: u32, program: &Program, _context: &SpawnContext) -> Result<Spawned, SpawnError> {
        self.now = self.now.saturating_add(self.spawn_takes);
        self.spawned.push((slot, program.name().to_string_lossy().into()));
        let pid = Pid::new(1_000 + self.spawned.len() as u32).unwrap();
        Ok(Spawned {
            pid,
            pipes: Pipes::default(),
            executed: !self.is_slow,
        })
    }

    fn announce(&mut self, coming: &Coming<'_>) {
        self.announced.push((coming.id, coming.part, coming.run));
    }

    fn collect(&mut self, _slot: u32, _hold: bool) -> io::Result<Collected> {
        let found = self.found.pop_front().unwrap_or(Collected::Nothing);
        if matches!(found, Collected::Ended(_)) {
            self.unread.push(self.messages.len());
        }
        Ok(found)
    }

    fn has_executed(&self, _slot: u32) -> bool {
        self.has_executed
    }

    fn has_ended(&self, _slot: u32) -> bool {
        self.has_ended
    }

    fn signal(&mut self, slot: u32, signal: Signal, _scope: Scope) -> io::Result<()> {
        if self.refuses_signals {
            return Err(Errno::PERM.into());
        }
        self.signals.push((slot, signal));
        Ok(())
    }

    fn is_empty(&mut self, _slot: u32, _scope: Scope, _looks: u8) -> io::Result<bool> {
        Ok(true)
    }

    fn usage(&self, _slot: u32) -> Option<CgroupUsage> {
        self.usage
    }

    fn out_of_memory(&self, _slot: u32) -> Option<OomKill> {
        None
    }

    fn change_limit(&mut self, slot: u32, file: &CgroupFile) -> Result<(), CgroupError> {
        let value = String::from_utf8_lossy(&file.value);
        self.written
            .push((slot, format!("{}={value}", file.name.to_string_lossy())));
        Ok(())
    }

    fn freeze(&mut self, slot: u32, on: bool) -> io::Result<()> {
        self.frozen.push((slot, on));
        Ok(())
    }

    fn discard(&mut self, _slot: u32, _patience: Duration) {}

    fn drop_descriptors(&mut self, _slot: u32) {}

    fn reserve(&mut self, processes: usize, _slots: u32) {
        self.reserved.push(processes);
    }

    fn close(&mut self, _until: Instant) {}

    fn is_ours(&self) -> bool {
        true
    }
}
