//! The smallest host: three workers kept alive on the host's own epoll, until SIGINT or SIGTERM.
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor, fdset::Change};
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

pub(crate) fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn std::error::Error>> {
    let epoll = create(CreateFlags::CLOEXEC)?;
    supervisor.track_fd_changes(true);
    let mut ready = Vec::with_capacity(64);
    while !supervisor.is_down() {
        while let Some(change) = supervisor.next_fd_change() {
            match (&change, supervisor.fd(change.token())) {
                (Change::Added(entry), Some(fd)) => {
                    let wanted = EventFlags::from_bits_retain(entry.interest.bits());
                    add(&epoll, fd, EventData::new_u64(entry.fd as u64), wanted)?;
                }
                (Change::Added(_), None) => {} // It was removed again before the host saw it.
                (Change::Removed { fd, .. }, _) => drop(delete(&epoll, fd)),
            }
        }
        retry_on_intr(|| wait(&epoll, spare_capacity(&mut ready), None))?;
        for event in ready.drain(..) {
            supervisor.process_ready(event.data.u64() as i32)?;
        }
        while let Some(event) = supervisor.next_event() {
            match event {
                Event::Transition(t) => drop(writeln!(stdout(), "{} {} -> {}: {}", t.name, t.from, t.to, t.cause)),
                Event::Signal(_) => drop(supervisor.shutdown()?),
                _ => {}
            }
        }
    }
    Ok(())
}
