//! The data behind the events of the herd: the pools of listeners, the reported states, and the timer of periodic events.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pidherd::{Clock, InstanceId, TimerFd};

use crate::listeners::{Pool, States};

/// The pools, and what the events need.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The pools.
    pub(super) pools: Vec<Pool>,
    /// The states as they were reported.
    pub(super) states: States,
    /// The number of the next event.
    pub(super) serial: u64,
    /// The timer, if a pool has asked for periodic events.
    pub(super) ticker: Option<Ticker>,
}

/// The timer of the events with a period.
#[derive(Debug)]
pub(super) struct Ticker {
    pub(super) timer: TimerFd,
    /// The wall-clock time of the last look, in seconds since 1970.
    pub(super) last: u64,
}

/// The shortest period.
const PERIOD: u64 = 5;

impl Ticker {
    /// Arms a new timer.
    ///
    /// # Errors
    /// The kernel refuses a timerfd.
    pub(super) fn new() -> io::Result<Ticker> {
        let mut ticker = Ticker {
            timer: TimerFd::new(Clock::Monotonic)?,
            last: seconds(),
        };
        ticker.arm()?;
        Ok(ticker)
    }

    /// Arms the timer for the next multiple of the period on the wall clock.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next = Duration::from_secs((now.as_secs() / PERIOD + 1) * PERIOD);
        let at = self.timer.clock().now().saturating_add(next.saturating_sub(now));
        self.timer.arm(Some(at))
    }
}

/// The wall-clock time in seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

impl Events {
    /// Forgets the processes that are not known any more.
    pub(super) fn forget(&mut self, is_known: impl Fn(InstanceId) -> bool) {
        self.states.0.retain(|&instance, _| is_known(instance));
        for pool in &mut self.pools {
            pool.listeners.retain(|&instance, _| is_known(instance));
        }
    }
}
