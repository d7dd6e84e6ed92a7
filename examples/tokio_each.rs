//! A host on tokio, with a task for each descriptor: three workers kept alive, beside the other tasks of the runtime,
//! until SIGINT or SIGTERM.
use std::collections::HashMap;
use std::error::Error;
use std::io::{Write, stdout};
use std::os::fd::OwnedFd;

use pidherd::fdset::Token;
use pidherd::supervisor::{FdChange, Progress};
use pidherd::{Command, Event, GroupSpec, MaskGuard, Restart, Signal, SignalFd, SignalSet, Supervisor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, JoinSet};

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

/// The reactor is edge-triggered, so one interest does for all. With a level-triggered loop each entry needs its own,
/// because the events file of a cgroup is always readable.
const WANTED: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// Drives the supervisor until it is down.
pub async fn run(mut supervisor: Supervisor) -> Result<(), Box<dyn Error>> {
    // The glue begins.
    let (mut waits, mut handles) = (JoinSet::new(), HashMap::new());
    supervisor.track_fd_changes(true);
    while !supervisor.is_down() {
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, token, .. } => {
                    // SAFETY: `AsyncFd` owns the descriptor.
                    let fd = unsafe { AsyncFd::register_with_interest(fd.try_clone_to_owned()?, WANTED) }?;
                    handles.insert(token, waits.spawn(wait(token, fd, Progress::Nothing)));
                }
                FdChange::Removed { token, .. } => handles.remove(&token).iter().for_each(AbortHandle::abort),
            }
        }
        // A wait that was aborted has no result.
        if let Some(Ok((token, fd))) = waits.join_next().await {
            let progress = supervisor.process_token(token)?;
            if supervisor.fd(token).is_some() {
                handles.insert(token, waits.spawn(wait(token, fd, progress)));
            }
        }
        while let Some(event) = supervisor.next_event() {
            // The glue ends.
            handle(&mut supervisor, &event)?;
        }
    }
    Ok(())
}

/// Waits for an edge, unless work is left from the last one.
async fn wait(token: Token, fd: AsyncFd<OwnedFd>, last: Progress) -> (Token, AsyncFd<OwnedFd>) {
    // The glue begins again.
    if last == Progress::Nothing {
        let _closed = fd.ready(WANTED).await.map(|mut ready| ready.clear_ready());
    }
    (token, fd)
    // The glue ends.
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
