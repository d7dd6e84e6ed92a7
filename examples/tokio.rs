//! A host on tokio, with one descriptor: three workers kept alive, beside the other tasks of the runtime, until SIGINT or
//! SIGTERM.
use std::error::Error;
use std::io::{Write, stdout};

use pidherd::supervisor::Progress;
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;

fn main() -> Result<(), Box<dyn Error>> {
    // The mask is set before any thread starts, because a new thread inherits the mask of its creator.
    let signals: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
    let _restored = MaskGuard::block(signals)?;
    let mut supervisor = Supervisor::builder().signals(SignalFd::new(signals)?).build()?;
    let sleep = Command::new("sleep").arg("3");
    let workers = supervisor.add(GroupSpec::new("worker", sleep).instances(3).restart(Restart::Always))?;
    supervisor.start(workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(run(supervisor))
}

/// Drives the supervisor until it is down.
pub async fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn Error>> {
    // The glue begins.
    // SAFETY: `AsyncFd` owns the descriptor.
    let copy = unsafe { AsyncFd::register_with_interest(supervisor.try_clone_fd()?, Interest::READABLE) }?;
    while !supervisor.is_down() {
        // The reactor is edge-triggered, so the host waits only when no work is left.
        match supervisor.dispatch()? {
            Progress::Nothing => copy.readable().await?.clear_ready(),
            // Without this yield no other task would run in a storm.
            Progress::Done | Progress::More => yield_now().await,
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
