//! The supervisor: groups of processes, driven by the host's event loop.
//!
//! A host adds groups, issues commands, waits on the supervisor's descriptors in its own way, and calls the supervisor
//! when a descriptor is ready. Everything happens inside these calls: there is no thread, no signal handler and no
//! global state. No call waits for a process, except where a spawn cannot be in flight (see
//! [`Spawner::begin`](crate::Spawner::begin)).
//!
//! There are two ways to wait, and a host may change between them at any time:
//!
//! 1. The supervisor is one descriptor ([`AsFd`]). It is readable when there is something to do: call
//!    [`Supervisor::dispatch`] then.
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
//! [`Progress::Nothing`], and only then waits for the next edge. `examples/tokio.rs` does so: tokio's `AsyncFd` is
//! edge-triggered, and the example clears its readiness at `Nothing`.
//!
//! This loop ends in a crash storm as well. Work that becomes ready after the first of these calls is left for later.
//! When all the earlier work is done and the calls have taken longer than a slice, the result is `Nothing`, and the set
//! is readable by a new edge for the rest. On a runtime with other tasks, yield between two calls: the earlier work of
//! thousands of processes takes many slices.
//!
//! A host that waits for each descriptor by itself registers them level-triggered.
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
//! let policy = Policy { start_retries: 0, ..Policy::default() };
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
mod calls;
mod format;
#[cfg(test)]
mod golden;
mod hand_over;
mod take_over;

pub use crate::engine::error::{Error, SpecError};
pub use crate::engine::event::{Event, Name, TransitionEvent};
pub use crate::engine::ids::{GroupId, InstanceId, Target};
pub use crate::engine::progress::Progress;
pub use crate::engine::request::{Outcome, Request};
pub use crate::engine::run::{End, Run};
pub use crate::engine::spec::GroupSpec;
pub use crate::engine::status::{GroupStatus, Status};
pub use crate::linux::orphans::{AdoptError, KnownChildren, OrphanCounts, ReapPause};
pub use adopt::{AdoptRefusal, NotAdopted};
pub use builder::Builder;
pub use calls::Supervisor;
pub use format::StateError;
pub use hand_over::{HandOver, HandOverError, ReceiveError};
pub use take_over::{NotTakenOver, TakeOverReason, TakenGroup, TakenOver, Undescribed};
