//! A host on poll(2), with one descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};

use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use rustix::event::{PollFd, PollFlags, poll};
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
    while !supervisor.is_down() {
        retry_on_intr(|| poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None))?;
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
