//! The demonstration, which runs without a configuration file.
//!
//! The configuration and the commands of the tour are ordinary ones. At a terminal, the user may type other commands
//! in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use pidherd::time::Instant;
use pidherd::{Clock, TimerFd};
use serde_json::{Value, json};

use crate::handing;

/// The configuration of the demonstration.
pub const CONFIGURATION: &str = include_str!("demo.conf");

/// The lines that the demonstration prints first.
pub const WELCOME: &[&str] = &[
    "Five programs under one supervisor:",
    "  api       a healthy service",
    "  web       a group of three",
    "  flaky     crashes every few seconds, and is restarted",
    "  doomed    cannot be started",
    "  stubborn  ignores SIGTERM",
];

/// An additional line at a terminal.
pub const INVITATION: &str = "The tour takes 15 seconds. Type a command to end it; help lists the commands.";

/// A step of the tour.
#[derive(Debug)]
pub struct Step {
    /// The time since the start of the tour.
    at: Duration,
    /// The text that introduces the step.
    pub says: &'static str,
    /// The command of the step.
    pub types: &'static str,
}

const fn step(millis: u64, types: &'static str, says: &'static str) -> Step {
    Step {
        at: Duration::from_millis(millis),
        says,
        types,
    }
}

/// All steps of the tour, in order of time.
const STEPS: &[Step] = &[
    step(3_500, "status", "doomed has failed, and all other programs are running"),
    step(
        5_000,
        "signal KILL web:web_1",
        "kills one of three instances, which restarts at once",
    ),
    step(
        6_500,
        "scale web 5",
        "starts two more instances; the others keep their PIDs",
    ),
    step(8_000, "scale web 3", "stops the last two instances"),
    step(
        9_000,
        "stop stubborn",
        "stubborn ignores SIGTERM, so it is killed after two seconds",
    ),
    step(11_500, "status", "shows the state of all processes"),
    step(12_500, "shutdown", "stops all programs; no process is left"),
];

/// The running tour.
#[derive(Debug)]
pub struct Tour {
    timer: TimerFd,
    began: Instant,
    steps: std::slice::Iter<'static, Step>,
}

impl Tour {
    /// Starts the tour now.
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

    /// The rest of the tour, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        json!({ "began": self.began.as_nanos(), "left": self.steps.len() })
    }

    /// Continues with what the program before this one has handed over.
    ///
    /// # Errors
    /// The kernel refuses a timerfd.
    pub fn take_over(left: &Value) -> io::Result<Tour> {
        let steps: usize = handing::to_number(&left["left"]).unwrap_or(0);
        let mut tour = Tour {
            timer: TimerFd::new(Clock::Monotonic)?,
            began: Instant::from_nanos(left["began"].as_u64().unwrap_or(0)),
            steps: STEPS.get(STEPS.len().saturating_sub(steps)..).unwrap_or(STEPS).iter(),
        };
        tour.arm()?;
        Ok(tour)
    }

    /// The next step, if it is due. The caller calls this when the descriptor is readable.
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

    /// Ends the tour. Returns whether steps were left.
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
