//! The supervisor: groups of processes, driven by the host's event loop.
//!
//! A host adds groups, issues commands, waits on the supervisor's descriptors in its own way, and calls the supervisor
//! when a descriptor is ready. Everything happens inside these calls: there is no thread, no signal handler and no
//! global state. No call waits for a process, except where a spawn cannot be in flight (see
//! [`Spawner::begin`](crate::Spawner::begin)).
//!
//! There are two ways to wait, and a host may change between them at any time:
//!
//! 1. The supervisor is one descriptor ([`AsFd`](std::os::fd::AsFd)). It is readable when there is something to do:
//!    call [`Supervisor::dispatch`] then.
//! 2. Each descriptor of the set is registered by itself ([`Supervisor::fds`]). When one is readable, call
//!    [`Supervisor::process_ready`] with its number. Descriptors are added and removed as processes start and end. A
//!    host follows the changes with [`Supervisor::next_fd_change`].
//!
//! A wait can end with `EINTR` when nothing has happened, for example in a host that is stopped and continued. Repeat
//! it.
//!
//! # The loop of a host
//!
//! A host waits, dispatches and fetches events, in any order. Events wake it: those of a command such as
//! [`start`](Supervisor::start) make the set readable, and so do those of a dispatch that come after the host has
//! fetched. A host that never fetches events is woken once for them. The set also becomes readable when everything is
//! [down](Supervisor::is_down) after a shutdown. An idle supervisor makes no system call.
//!
//! A call serves the deadlines that are due first. It lasts for one [slice](Builder::slice), 5 ms by default, so the
//! host's other descriptors have their turn in a crash storm.
//!
//! # Edge-triggered hosts
//!
//! A host with an edge-triggered registration of the one descriptor calls [`Supervisor::dispatch`] until the result is
//! [`Progress::Nothing`], and only then waits for the next edge. `examples/tokio.rs` and `examples/mio.rs` do so, since
//! their loops are edge-triggered. [`Progress::timeout`] is the timeout of the next wait.
//!
//! This loop ends in a crash storm as well. Work that becomes ready after the first of these calls is left for later.
//! When all the earlier work is done and the calls have taken longer than a slice, the result is `Nothing`, and the set
//! is readable by a new edge for the rest. On a runtime with other tasks, yield between two calls: the earlier work of
//! thousands of processes takes many slices.
//!
//! A host that waits for each descriptor by itself registers them level-triggered, or keeps a descriptor in a list of its
//! own until the answer for it is [`Progress::Nothing`]. [`guide::hosts`](crate::guide::hosts) has a page about each loop.
//!
//! # A host that replaces itself
//!
//! [`Supervisor::hand_over`] calls execve(2): the process stays the same, with its PID and its children, and another
//! program runs in it, usually a newer version of the host. No process is stopped, and nothing is lost: exit statuses,
//! deadlines, counters, run numbers, histories, events that were not fetched, messages that were not read, and pipes
//! that were not taken are all handed over. The other program receives them with [`HandOver::receive`], describes its
//! groups again, and goes on with [`Builder::take_over`].
//!
//! ```no_run
//! use std::env;
//! use std::path::Path;
//!
//! use pidherd::supervisor::{HandOver, Undescribed};
//! use pidherd::{Command, GroupSpec, Supervisor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let groups = vec![GroupSpec::new("web", Command::new("/usr/bin/web")).instances(3)];
//! let mut supervisor = match HandOver::receive()? {
//!     Some(handed_over) => Supervisor::builder().take_over(handed_over, groups, Undescribed::Stop)?.supervisor,
//!     None => {
//!         let mut supervisor = Supervisor::new()?;
//!         for group in groups {
//!             let group = supervisor.add(group)?;
//!             supervisor.start(group)?;
//!         }
//!         supervisor
//!     }
//! };
//! // Later, when a new version of the host is installed. It does not return, except with an error.
//! let error = supervisor.hand_over(Path::new("/usr/bin/host"), env::args_os().skip(1));
//! eprintln!("this version goes on: {error}");
//! # Ok(())
//! # }
//! ```
//!
//! # A host that is killed
//!
//! With [`Builder::state_file`] a supervisor keeps its state in a file that is mapped into memory. When its host ends
//! without dropping it (SIGKILL, an abort, the OOM killer), the next host finds its instances with
//! [`Builder::recover`], and goes on watching, stopping and restarting them under their policies.
//!
//! ```no_run
//! use pidherd::supervisor::Undescribed;
//! use pidherd::{Command, GroupSpec, Supervisor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let groups = vec![GroupSpec::new("web", Command::new("/usr/bin/web")).instances(3)];
//! let recovered = Supervisor::builder()
//!     .state_file("/run/host/state")
//!     .recover(groups, Undescribed::Stop)?;
//! let mut supervisor = recovered.supervisor;
//! for group in recovered.groups.iter().filter(|group| group.is_new) {
//!     supervisor.start(group.id)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ## What is recovered
//!
//! The groups with their numbers of instances, and for each instance its state, its deadlines, its counters, its run
//! number and the last exit. A stop goes on at its rung, and the signal of the rung is sent again, because the host may have been
//! killed just before it sent it. A backoff goes on to its deadline. The status of a process that ended while no host
//! was there is unknown, unless the host was killed when it had just reaped it. A process that ends later is a child of
//! another process (init, or the nearest subreaper) and its status is known after that has reaped it (Linux 6.15).
//!
//! What was in the memory of the host is lost: events that were not fetched, runs that are over, pipes, readiness
//! descriptors, rolling restarts, and the ladder of [`Supervisor::stop_with`]: that stop goes on by the ladder of the group. A notify socket gets its address again; messages from in between are lost. After
//! the end of a leader, what is left of its process group is not found again; what is left in its cgroup is.
//!
//! ## What proves that a process is the same
//!
//! The time when the kernel made it, which the state file limits to a few milliseconds, or the mark of the state file
//! in its environment (`PIDHERD_STATE`). A process without such a proof is not touched: its instance is stopped, and
//! the process is in [`Recovered::unproven`].
//!
//! ## What it costs
//!
//! A restart makes no system call more, and allocates nothing. Commands that change groups write the whole state anew:
//! about a microsecond for each instance. The file should be on a tmpfs, such as `/run`; on a disk the kernel writes it
//! back from time to time.
//!
//! # Example
//!
//! ```
//! use pidherd::{Command, Event, GroupSpec, Policy, StateName, Supervisor};
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut supervisor = Supervisor::new()?;
//! let command = Command::new("/bin/sh").args(["-c", "exit 3"]);
//! let policy = Policy::new()
//!     .start_retries(0);
//! let group = supervisor.add(GroupSpec::new("job", command).policy(policy))?;
//! supervisor.start(group)?;
//!
//! let mut states = Vec::new();
//! while states.last() != Some(&StateName::Fatal) {
//!     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
//!     supervisor.dispatch()?;
//!     while let Some(event) = supervisor.next_event() {
//!         if let Event::Transition(step) = event {
//!             states.push(step.to);
//!         }
//!     }
//! }
//! assert_eq!(states, [StateName::Starting, StateName::Backoff, StateName::Fatal]);
//! # Ok(())
//! # }
//! ```

mod adopt;
mod builder;
mod by_hand;
mod calls;
pub(crate) mod driven;
mod event_loop;
mod fd_change;
mod format;
mod hand_over;
mod processes;
mod recover;
mod subscription;
pub(crate) mod supervise;
mod take_over;
#[cfg(test)]
mod tests;
mod usage;

pub use crate::engine::error::{Error, SpecError};
pub use crate::engine::event::{
    Event, Name, ProcessNotice, RefusalName, RefusalReason, ReloadResult, RemovalReason, StopReason, TransitionEvent,
};
pub use crate::engine::ids::{GroupId, InstanceId, Target};
pub use crate::engine::place::GroupRef;
pub use crate::engine::progress::Progress;
pub use crate::engine::request::{Outcome, Request};
pub use crate::engine::run::{End, Run};
pub use crate::engine::spec::GroupSpec;
pub use crate::engine::status::{GroupStatus, Status};
pub use crate::linux::orphans::{AdoptError, KnownChildren, OrphanCounts, ReapPause};
pub use adopt::{AdoptRefusal, NotAdopted};
pub use builder::Builder;
pub use calls::Supervisor;
pub use fd_change::FdChange;
pub use format::StateError;
pub use hand_over::{HandOver, HandOverError, ReceiveError};
pub use recover::{RecoverError, Recovered};
pub use subscription::Subscription;
pub use supervise::Supervise;
pub use take_over::{NotTakenOver, TakeOverReason, TakenGroup, TakenOver, Undescribed};
