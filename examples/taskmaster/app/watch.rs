//! The view that is open: `top` or a log that is followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use pidherd::{Clock, InstanceId, TimerFd};

use crate::http::Tail;
use crate::top::{self, Top};

/// The view, and the timer that renews it.
#[derive(Debug)]
pub(super) struct View {
    timer: TimerFd,
    pub(super) open: Open,
}

/// What is shown.
#[derive(Debug)]
pub(super) enum Open {
    Nothing,
    Top(Top),
    Follow(Follow),
}

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) tail: Tail,
    /// The process that gets what is typed, and its PID.
    pub(super) process: Option<(InstanceId, u32)>,
    /// Whether more of the log may be there than was shown.
    pub(super) has_more: bool,
}

impl View {
    /// No view.
    ///
    /// # Errors
    /// The kernel refuses a timerfd.
    pub(super) fn new() -> io::Result<View> {
        Ok(View {
            timer: TimerFd::new(Clock::Monotonic)?,
            open: Open::Nothing,
        })
    }

    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.open, Open::Nothing)
    }

    pub(super) fn covers_the_screen(&self) -> bool {
        matches!(self.open, Open::Top(_))
    }

    /// Whether the view handles keys itself. Otherwise the editor does.
    pub(super) fn takes_keys(&self) -> bool {
        self.is_open() && !self.takes_lines()
    }

    /// Whether a process gets the lines that are typed.
    pub(super) fn takes_lines(&self) -> bool {
        matches!(&self.open, Open::Follow(Follow { process: Some(_), .. }))
    }

    /// Whether the log that is followed has more, so that the next turn does not wait.
    pub(super) fn has_more(&self) -> bool {
        matches!(&self.open, Open::Follow(Follow { has_more: true, .. }))
    }

    pub(super) fn set(&mut self, open: Open) -> io::Result<()> {
        self.open = open;
        self.arm()
    }

    /// Takes the expiry of the timer. Returns whether it has expired.
    pub(super) fn acknowledge(&mut self) -> io::Result<bool> {
        self.timer.acknowledge()
    }

    /// The kernel does not report writes of others to a log, so a log is looked at in the same interval.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        let next = self.timer.clock().now().saturating_add(top::PERIOD);
        self.timer.arm(self.is_open().then_some(next))
    }
}
