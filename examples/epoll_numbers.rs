//! A host on its own epoll, which registers each descriptor under its number: three workers kept alive until SIGINT or
//! SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};
use std::os::fd::{AsRawFd, RawFd};

use pidherd::supervisor::FdChange;
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create, delete, wait};
use rustix::io::retry_on_intr;

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
    let epoll = create(CreateFlags::CLOEXEC)?;
    let mut ready = Vec::with_capacity(64);
    supervisor.track_fd_changes(true);
    while !supervisor.is_down() {
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, .. } => {
                    let flags = EventFlags::from_bits_retain(interest.bits());
                    add(&epoll, fd, EventData::new_u64(fd.as_raw_fd() as u64), flags)?;
                }
                FdChange::Removed { fd, .. } => delete(&epoll, fd)?,
            }
        }
        retry_on_intr(|| wait(&epoll, spare_capacity(&mut ready), None))?;
        for event in ready.drain(..) {
            supervisor.process_ready(event.data.u64() as RawFd)?;
        }
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            handle(&mut supervisor, &event)?;
        }
    }
    Ok(())
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
