//! A host on async-io, the reactor of smol, with one descriptor: three workers kept alive, beside the other tasks of the
//! executor, until SIGINT or SIGTERM.
//!
//! `smol::Async` and `smol::block_on` are the same items as those of async-io.
use std::error::Error;
use std::io::{Write, stdout};

use async_io::{Async, block_on};
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};

fn main() -> Result<(), Box<dyn Error>> {
    // The mask is set before any thread starts, because a new thread inherits the mask of its creator.
    let signals: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
    let _restored = MaskGuard::block(signals)?;
    let mut supervisor = Supervisor::builder().signals(SignalFd::new(signals)?).build()?;
    let sleep = Command::new("sleep").arg("3");
    let workers = supervisor.add(GroupSpec::new("worker", sleep).instances(3).restart(Restart::Always))?;
    supervisor.start(workers)?;
    block_on(run(supervisor))
}

/// Drives the supervisor until it is down.
pub async fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn Error>> {
    // The glue begins.
    let copy = Async::new_nonblocking(supervisor.try_clone_fd()?)?;
    while !supervisor.is_down() {
        copy.readable().await?;
        supervisor.dispatch()?;
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
