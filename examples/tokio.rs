//! A host on tokio: three workers kept alive, and whatever else the runtime does beside it.
use pidherd::supervisor::Progress;
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use tokio::io::{Interest, unix::AsyncFd};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before there are threads: a mask is each thread's own, and inherited.
    let signals: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
    let _restored = MaskGuard::block(signals)?;
    let mut supervisor = Supervisor::builder().signals(SignalFd::new(signals)?).build()?;
    let sleep = Command::new("sleep").arg("3").process_group(0);
    let workers = supervisor.add(GroupSpec::new("worker", sleep).instances(3).restart(Restart::Always))?;
    supervisor.start(workers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(supervise(supervisor))
}

async fn supervise(supervisor: Supervisor) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: its descriptor is the same for as long as it lives, and AsyncFd owns it.
    let mut supervisor = unsafe { AsyncFd::register_with_interest(supervisor, Interest::READABLE) }?;
    while !supervisor.get_ref().is_down() {
        let mut ready = supervisor.readable_mut().await?;
        // Tokio is told of changes alone: the readiness lasts until there is nothing left to do.
        if ready.get_inner_mut().dispatch()? == Progress::Nothing {
            ready.clear_ready();
        }
        while let Some(event) = supervisor.get_mut().next_event() {
            match event {
                Event::Transition(t) => println!("{} {} -> {}: {}", t.name, t.from, t.to, t.cause),
                Event::Signal(_) => drop(supervisor.get_mut().shutdown()?),
                _ => {}
            }
        }
    }
    Ok(())
}
