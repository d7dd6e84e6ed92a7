//! A host on io_uring, with one descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode::PollAdd};
use pidherd::fdset::Interest;
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
    let mut ring = IoUring::new(8)?;
    let poll = PollAdd::new(Fd(supervisor.as_raw_fd()), Interest::READ.bits()).build();
    // SAFETY: The request refers to no memory.
    unsafe { ring.submission().push(&poll) }?;
    while !supervisor.is_down() {
        retry_on_intr(|| ring.submit_and_wait(1).map_err(errno))?;
        // A request polls once. The next one follows the work, so what is left makes it complete at once.
        for _ in 0..ring.completion().count() {
            supervisor.dispatch()?;
            // SAFETY: The request refers to no memory.
            unsafe { ring.submission().push(&poll) }?;
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
