//! A host on mio, with one descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
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

/// Drives the supervisor until it is down.
pub fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn Error>> {
    // The glue begins.
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(64);
    let mut source = SourceFd(&supervisor.as_raw_fd());
    poll.registry().register(&mut source, Token(0), Interest::READABLE)?;
    while !supervisor.is_down() {
        // mio is edge-triggered, so the host waits only when no work is left.
        let timeout = supervisor.dispatch()?.timeout();
        retry_on_intr(|| poll.poll(&mut events, timeout).map_err(errno))?;
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
