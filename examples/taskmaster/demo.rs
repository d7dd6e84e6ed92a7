//! The demonstration: what the taskmaster shows when it is run without a configuration.
//!
//! It is no mock-up: the configuration and the commands of the tour are ordinary ones. At a terminal, other commands may
//! be typed in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use pidherd::time::Instant;
use pidherd::{Clock, TimerFd};

/// The configuration.
pub const CONFIGURATION: &str = include_str!("demo.conf");

/// The first lines.
pub const WELCOME: &[&str] = &[
    "Five programs under one supervisor:",
    "  api       a healthy service",
    "  web       a group of three",
    "  flaky     crashes every few seconds, and is started again",
    "  doomed    can't be started at all",
    "  stubborn  ignores SIGTERM",
];

/// A further line, at a terminal.
pub const INVITATION: &str = "Watch for a quarter of a minute, or type a command to take over: try help.";

/// A step of the tour.
#[derive(Debug)]
pub struct Step {
    /// When, since the beginning.
    at: Duration,
    /// What it shows.
    pub says: &'static str,
    /// The command that is typed.
    pub types: &'static str,
}

const fn step(millis: u64, types: &'static str, says: &'static str) -> Step {
    Step {
        at: Duration::from_millis(millis),
        says,
        types,
    }
}

/// The whole tour: a time for everything, and nothing longer than a look at it.
const STEPS: &[Step] = &[
    step(3_500, "status", "doomed has no try left, all others are up"),
    step(
        5_000,
        "signal KILL web:web_1",
        "one of three is killed, and replaced at once",
    ),
    step(6_500, "scale web 5", "two more; the others keep their pids"),
    step(8_000, "scale web 3", "the last two leave again"),
    step(9_000, "stop stubborn", "it won't listen: in two seconds it is killed"),
    step(11_500, "status", "how things stand"),
    step(12_500, "shutdown", "everything stops, and nothing is left behind"),
];

/// The tour under way.
#[derive(Debug)]
pub struct Tour {
    timer: TimerFd,
    began: Instant,
    steps: std::slice::Iter<'static, Step>,
}

impl Tour {
    /// Begins now.
    ///
    /// # Errors
    /// The kernel refuses a timerfd.
    pub fn new() -> io::Result<Tour> {
        let timer = TimerFd::new(Clock::Monotonic)?;
        let mut tour = Tour {
            began: timer.clock().now(),
            timer,
            steps: STEPS.iter(),
        };
        tour.arm()?;
        Ok(tour)
    }

    /// The next step, if it is due: call this when the descriptor is readable.
    ///
    /// # Errors
    /// The kernel refuses to read or to arm the timer.
    pub fn next_step(&mut self) -> io::Result<Option<&'static Step>> {
        if !self.timer.acknowledge()? {
            return Ok(None);
        }
        let step = self.steps.next();
        self.arm()?;
        Ok(step)
    }

    /// Ends it. Whether there was anything left to end.
    ///
    /// # Errors
    /// The kernel refuses to disarm the timer.
    pub fn cancel(&mut self) -> io::Result<bool> {
        let was_under_way = self.steps.len() > 0;
        self.steps = [].iter();
        self.arm()?;
        Ok(was_under_way)
    }

    fn arm(&mut self) -> io::Result<()> {
        let next = self.steps.as_slice().first();
        self.timer.arm(next.map(|step| self.began.saturating_add(step.at)))
    }
}

impl AsFd for Tour {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
