//! The smallest host: three workers kept alive on the host's own epoll, until SIGINT or SIGTERM.
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use pidherd::{fdset::Token, supervisor::FdChange};
use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create, delete, wait};
use rustix::{buffer::spare_capacity, io::retry_on_intr};
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let signals: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
    let _restored = MaskGuard::block(signals)?;
    let mut supervisor = Supervisor::builder().signals(SignalFd::new(signals)?).build()?;
    let sleep = Command::new("sleep").arg("3");
    let workers = supervisor.add(GroupSpec::new("worker", sleep).instances(3).restart(Restart::Always))?;
    supervisor.start(workers)?;
    run(supervisor)
}

/// Drives the supervisor until it is down.
pub fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn std::error::Error>> {
    // The glue begins.
    let epoll = create(CreateFlags::CLOEXEC)?;
    let mut ready = Vec::with_capacity(64);
    supervisor.track_fd_changes(true);
    while !supervisor.is_down() {
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, token } => {
                    let flags = EventFlags::from_bits_retain(interest.bits());
                    add(&epoll, fd, EventData::new_u64(token.to_raw()), flags)?;
                }
                FdChange::Removed { fd, .. } => delete(&epoll, fd)?,
            }
        }
        retry_on_intr(|| wait(&epoll, spare_capacity(&mut ready), None))?;
        for event in ready.drain(..) {
            supervisor.process_token(Token::from_raw(event.data.u64()))?;
        }
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            match event {
                Event::Transition(t) => drop(writeln!(stdout(), "{} {} -> {}: {}", t.name, t.from, t.to, t.cause)),
                Event::Signal(_) => drop(supervisor.shutdown()?),
                _ => {}
            }
        }
    }
    Ok(())
}
