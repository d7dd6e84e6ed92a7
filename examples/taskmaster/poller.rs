//! The epoll of the main loop.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::console::Channel;

/// A descriptor that epoll watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The supervisor.
    Herd,
    /// The pipes from the programs.
    Logs,
    /// The signalfd.
    Signals,
    /// Standard input.
    Input,
    /// The timer of the demonstration.
    Tour,
    /// The timer of a view.
    Ticks,
    /// The server for supervisorctl.
    Serving,
    /// Room for lines on a channel of the console.
    Room(Channel),
}

impl Source {
    const ALL: [Source; 10] = [
        Source::Herd,
        Source::Logs,
        Source::Signals,
        Source::Input,
        Source::Tour,
        Source::Ticks,
        Source::Serving,
        Source::Room(Channel::Out),
        Source::Room(Channel::Log),
        Source::Room(Channel::Events),
    ];

    /// The index in [`Source::ALL`], which is the number in an epoll event.
    fn index(self) -> usize {
        Source::ALL.iter().position(|&source| source == self).unwrap_or(0)
    }

    fn event(self) -> epoll::EventFlags {
        match self {
            Source::Room(_) => epoll::EventFlags::OUT,
            _ => epoll::EventFlags::IN,
        }
    }
}

/// An epoll with a record of the watched sources. It is level-triggered, so work that one turn leaves over is
/// reported again.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    watched: [bool; Source::ALL.len()],
}

impl Poller {
    /// Creates an epoll that watches no source.
    ///
    /// # Errors
    /// The kernel refuses an epoll.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            watched: [false; Source::ALL.len()],
        })
    }

    /// Starts or stops watching `fd`.
    ///
    /// # Errors
    /// The errors of epoll_ctl(2). EPERM means that the descriptor is always ready.
    pub fn watch(&mut self, source: Source, fd: BorrowedFd<'_>, wanted: bool) -> Result<(), Errno> {
        let index = source.index();
        if self.watched[index] == wanted {
            return Ok(());
        }
        if wanted {
            epoll::add(&self.epoll, fd, epoll::EventData::new_u64(index as u64), source.event())?;
        } else {
            epoll::delete(&self.epoll, fd)?;
        }
        self.watched[index] = wanted;
        Ok(())
    }

    /// Waits until a source is ready, or for at most `limit`. `None` means no limit.
    ///
    /// # Errors
    /// The errors of epoll_wait(2), except EINTR. After EINTR no source is ready.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<Source>> {
        let mut events = [const { MaybeUninit::uninit() }; Source::ALL.len()];
        let limit = limit.map(whole_milliseconds);
        let ready = match epoll::wait(&self.epoll, &mut events, limit.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let source = |event: &epoll::Event| Source::ALL.get(event.data.u64() as usize).copied();
        Ok(ready.iter().filter_map(source).collect())
    }
}

/// Rounds up to milliseconds. A finer timeout needs epoll_pwait2(2), which Linux before 5.11 lacks.
fn whole_milliseconds(limit: Duration) -> Timespec {
    let millis = i64::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: millis / 1_000,
        tv_nsec: (millis % 1_000) * 1_000_000,
    }
}
