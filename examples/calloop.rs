//! A host on calloop, with one descriptor: three workers kept alive until SIGINT or SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};

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
    let mut event_loop: EventLoop<Supervisor> = EventLoop::try_new()?;
    let copy = Generic::new(supervisor.try_clone_fd()?, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(copy, |_, _, supervisor| {
        supervisor.dispatch().map_err(std::io::Error::other)?;
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            handle(supervisor, &event).map_err(std::io::Error::other)?;
        }
        // The glue begins again.
        Ok(PostAction::Continue)
    })?;
    while !supervisor.is_down() {
        event_loop.dispatch(None, &mut supervisor)?;
        // The glue ends.
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
