//! A host on the crate polling, with one descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};

use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use polling::{Event as Readiness, Events, PollMode, Poller};

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
    let poller = Poller::new()?;
    let mut events = Events::new();
    // SAFETY: The poller is declared after the supervisor, so it is dropped first.
    unsafe { poller.add_with_mode(&supervisor, Readiness::readable(0), PollMode::Level) }?;
    while !supervisor.is_down() {
        events.clear();
        poller.wait(&mut events, None)?;
        supervisor.dispatch()?;
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            handle(&mut supervisor, &event)?;
        }
    }
    Ok(poller.delete(&supervisor)?)
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
