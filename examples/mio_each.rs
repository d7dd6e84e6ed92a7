//! A host on mio, which registers each descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};
use std::mem::take;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pidherd::supervisor::{FdChange, Progress};
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use rustix::io::{Errno, retry_on_intr};

fn main() -> Result<(), Box<dyn Error>> {
    let signals: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
    let _restored = MaskGuard::block(signals)?;
    let mut supervisor = Supervisor::builder().signals(SignalFd::new(signals)?).build()?;
    let sleep = Command::new("sleep").arg("3");
    let workers = supervisor.add(GroupSpec::new("worker", sleep).instances(3).restart(Restart::Always))?;
    supervisor.start(workers)?;
    run(supervisor)
}

/// mio is edge-triggered, so one interest does for all. With a level-triggered loop each entry needs its own, because the
/// events file of a cgroup is always readable.
const WANTED: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// Drives the supervisor until it is down.
pub fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn Error>> {
    // The glue begins.
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(64);
    let mut ready: Vec<RawFd> = Vec::new();
    supervisor.track_fd_changes(true);
    while !supervisor.is_down() {
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, .. } => {
                    let fd = fd.as_raw_fd();
                    poll.registry()
                        .register(&mut SourceFd(&fd), Token(fd as usize), WANTED)?;
                }
                FdChange::Removed { fd, .. } => poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))?,
            }
        }
        let timeout = (!ready.is_empty()).then_some(Duration::ZERO);
        retry_on_intr(|| poll.poll(&mut events, timeout).map_err(errno))?;
        ready.extend(events.iter().map(|event| event.token().0 as RawFd));
        // A descriptor stays in the list until the answer is `Nothing`.
        for fd in take(&mut ready) {
            if supervisor.process_ready(fd)? > Progress::Nothing {
                ready.push(fd);
            }
        }
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            handle(&mut supervisor, &event)?;
        }
    }
    Ok(())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn handle(supervisor: &mut Supervisor, event: &Event) -> Result<(), pidherd::Error> {
    match event {
        // A closed standard output does not end the host.
        Event::Transition(t) => drop(writeln!(stdout(), "{} {} -> {}: {}", t.name, t.from, t.to, t.cause)),
        Event::Signal(_) => drop(supervisor.shutdown()?),
        _ => {}
    }
    Ok(())
}
