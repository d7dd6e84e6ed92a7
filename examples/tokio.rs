//! A host on tokio: three workers kept alive, beside the other tasks of the runtime, until SIGINT or SIGTERM.
use std::io::{Write, stdout};

use pidherd::supervisor::Progress;
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use tokio::io::{Interest, unix::AsyncFd};

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
pub async fn run(supervisor: Supervisor) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: AsyncFd owns the supervisor, and the supervisor keeps its descriptor open for as long as it lives.
    let mut supervisor = unsafe { AsyncFd::register_with_interest(supervisor, Interest::READABLE) }?;
    while !supervisor.get_ref().is_down() {
        let mut ready = supervisor.readable_mut().await?;
        // The reactor is edge-triggered, so the readiness is cleared only when no work is left.
        if ready.get_inner_mut().dispatch()? == Progress::Nothing {
            ready.clear_ready();
        }
        while let Some(event) = supervisor.get_mut().next_event() {
            match event {
                // A closed standard output does not end the host.
                Event::Transition(t) => drop(writeln!(stdout(), "{} {} -> {}: {}", t.name, t.from, t.to, t.cause)),
                Event::Signal(_) => drop(supervisor.get_mut().shutdown()?),
                _ => {}
            }
        }
        // While there is work, `readable_mut` returns at once. Without this yield no other task would run.
        tokio::task::yield_now().await;
    }
    Ok(())
}
