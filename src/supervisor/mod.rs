//! The supervisor: groups of processes, driven by whoever owns the event loop.
//!
//! A host adds groups, asks for things, waits on the supervisor's descriptors in its own way and
//! calls back when one is ready. Everything happens inside these calls: there is no thread, no
//! signal handler and no global state. No call blocks, except that spawning takes until exec has
//! happened (see [`Command`](crate::Command)).
//!
//! There are two ways to wait, and they can be changed at any time:
//!
//! 1. The supervisor is one descriptor ([`AsFd`]), readable when there is something to do: then
//!    call [`Supervisor::dispatch`].
//! 2. Each descriptor by itself ([`Supervisor::fds`]): when one is readable, call
//!    [`Supervisor::process_ready`] with its number. They come and go with the processes; a host
//!    follows them by [`Supervisor::next_fd_change`].
//!
//! A loop that is edge-triggered calls until the answer is [`Progress::Nothing`]. That of tokio is:
//! `examples/tokio.rs` puts the supervisor into an `AsyncFd`, and clears its readiness only then. It yields to the
//! runtime between two calls: in a crash storm there is always more to do, and other tasks would never run. A wait may
//! end with `EINTR` when nothing has happened (a host that is stopped and goes on): it is to be repeated.
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
//! let group = supervisor.add(GroupSpec::new("job", command).policy(Policy { start_retries: 0, ..Policy::default() }))?;
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

mod arena;
mod builder;
mod commands;
mod driver;
mod error;
mod event;
mod history;
mod instance;
mod kernel;
mod leaves;
mod orphans;
mod request;
mod rolling;
#[cfg(test)]
mod sim;
mod spec;
mod status;
mod voices;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;

pub use arena::Id;
pub use builder::Builder;
pub use driver::Progress;
pub use error::{Error, SpecError};
pub use event::{Event, Name, TransitionEvent};
pub use history::{End, Run};
pub use orphans::{AdoptError, Hold, OrphanCounts, Spared};
pub use request::{Outcome, Request};
pub use spec::GroupSpec;
pub use status::{GroupStatus, Status};

use crate::child::Pipes;
use crate::fdset::{Change, FdSet, Token};
use crate::group::{Plan, Rolling};
use crate::lifecycle::Input;
use crate::notify::Counts;
use crate::signal::Signal;
use crate::time::Instant;
use driver::Driver;
use kernel::{Kernel, Linux, Source};

/// What a [`GroupId`] points into.
#[doc(hidden)]
pub struct InGroups;
/// What an [`InstanceId`] points into.
#[doc(hidden)]
pub struct InInstances;

/// A group of the supervisor that gave the id, and of no other. It never means another one of that, not even
/// after the group was removed.
pub type GroupId = Id<InGroups>;
/// An instance of the supervisor that gave the id: one place in a group, whichever process fills it. It
/// never means another one of that.
pub type InstanceId = Id<InInstances>;

/// Whom a command concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every instance of every group.
    All,
    /// Every instance of a group; and whether instances that are added later are to be up.
    Group(GroupId),
    /// One instance.
    Instance(InstanceId),
}

impl From<GroupId> for Target {
    fn from(id: GroupId) -> Target {
        Target::Group(id)
    }
}

impl From<InstanceId> for Target {
    fn from(id: InstanceId) -> Target {
        Target::Instance(id)
    }
}

/// Groups of processes, and the descriptors to watch them by; see the [module](self).
///
/// Dropping it leaves no child and no zombie: everything that is alive gets SIGKILL and is reaped,
/// which may take up to two seconds. For a graceful end, call [`Supervisor::shutdown`] first and
/// go on dispatching until [`Supervisor::is_down`].
///
/// It belongs to the process that built it. In a copy that fork(2) made, its calls fail with
/// [`Error::OtherProcess`], and dropping it closes the copy's descriptors and does nothing else.
pub struct Supervisor {
    driver: Driver<Linux>,
    /// Reused by every dispatch.
    ready: Vec<Token>,
    /// Where the notify socket is to be.
    notify_path: Option<PathBuf>,
}

impl Supervisor {
    /// A supervisor with the default settings.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> io::Result<Supervisor> {
        Supervisor::builder().build()
    }

    /// Settings to choose.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    // Groups.

    /// Adds a group. Nothing is started yet.
    ///
    /// The commands are compiled here, each instance's own if they differ
    /// ([`GroupSpec::with`]): that looks up their users, which may ask a name service, and takes the memory
    /// of an environment for each. For thousands, give ids instead of names.
    ///
    /// # Errors
    /// [`Error::Spec`] if the group cannot be as described: everything about it is checked here,
    /// and with an error nothing has happened. [`Error::ShuttingDown`].
    pub fn add(&mut self, spec: GroupSpec) -> Result<GroupId, Error> {
        if self.lacks_socket(&spec) {
            self.driver.check_new(&spec)?;
            self.listen()?;
        }
        self.call(|driver| driver.add(spec))
    }

    /// Stops a group and removes it when the last of its instances is gone, which
    /// [`Event::GroupRemoved`] tells. From now on it takes no more starts.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`].
    pub fn remove(&mut self, group: GroupId) -> Result<Outcome, Error> {
        self.call(|driver| driver.remove(group))
    }

    /// Changes the number of instances. Those with the highest numbers go first; the others keep
    /// their processes. New ones are started if the group was last asked to be up.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::ShuttingDown`]; [`Error::Spec`] for a
    /// number that cannot be, or if the command of a new number is wrong. Nothing has changed then.
    pub fn scale(&mut self, group: GroupId, instances: u32) -> Result<Outcome, Error> {
        self.call(|driver| driver.scale(group, instances))
    }

    /// What [`Supervisor::reload`] would do.
    ///
    /// # Errors
    /// As [`Supervisor::reload`], but for commands that cannot be run: those are found there.
    pub fn plan(&self, group: GroupId, spec: &GroupSpec) -> Result<Plan, Error> {
        self.driver.kernel.owner.check()?;
        self.driver.plan(group, spec)
    }

    /// Makes a group as described, with as little disturbance as possible: a policy changes in place,
    /// an environment at the next start, and only those whose command changed are restarted. Of these, whoever
    /// is wanted and was given up gets another chance; who was stopped, or has ended and was left so, stays.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::ShuttingDown`]; [`Error::Spec`] if the
    /// description is wrong. Everything goes on as it was then.
    pub fn reload(&mut self, group: GroupId, spec: GroupSpec) -> Result<Plan, Error> {
        if self.lacks_socket(&spec) {
            self.driver.plan(group, &spec)?;
            self.listen()?;
        }
        self.call(|driver| driver.reload(group, spec))
    }

    // Commands.

    /// Starts what is not up: whatever its state, with all counters at zero. During a stop it is
    /// remembered, and done when the old process is gone.
    ///
    /// A program that cannot be started is not an error of this call: it is a failed start, told as
    /// an event and retried under the policy.
    ///
    /// Who is leaving, because its group was scaled down or is being removed, is not called back:
    /// that is an error for one of them, and a command for many passes them over.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`], [`Error::Leaving`],
    /// [`Error::LeavingInstance`], [`Error::ShuttingDown`]. Nothing has been done then.
    pub fn start(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Start))
    }

    /// Stops what is up, by its policy's ladder. A second stop changes nothing: deadlines stay.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    pub fn stop(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Stop))
    }

    /// Stops what is up and starts it again when it is gone; starts what is not up.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn restart(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Restart))
    }

    /// Stops what is up by SIGKILL, now, also in the middle of a graceful stop.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`].
    pub fn kill(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        self.call(|driver| driver.request(target.into(), Request::Kill))
    }

    /// Restarts what is up in a group a few at a time; [`Event::Rolled`] tells when that is over. What is
    /// not up stays so.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::Leaving`], [`Error::ShuttingDown`]; [`Error::Rolling`] if one is
    /// under way, during which [`scale`](Supervisor::scale) and [`reload`](Supervisor::reload) are refused
    /// too; [`Error::NoneUnavailable`]; [`Error::Spec`] if there would be too many.
    pub fn rolling_restart(&mut self, group: GroupId, rolling: Rolling) -> Result<Outcome, Error> {
        self.call(|driver| driver.roll(group, rolling))
    }

    /// Sends a signal to processes (not to their groups), whatever it does to them.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`]; for a single instance
    /// [`Error::NotAlive`] and [`Error::Signal`], which for many are counted in the [`Outcome`].
    pub fn signal(&mut self, target: impl Into<Target>, signal: Signal) -> Result<Outcome, Error> {
        self.call(|driver| driver.signal(target.into(), signal))
    }

    /// Tells that an instance is ready, for a host that learns it in a way of its own. With
    /// [`Startup::Notify`](crate::lifecycle::Startup::Notify) it counts as running from now on.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless it is starting.
    pub fn report_ready(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Ready))
    }

    /// Tells that an instance is alive, for a host that learns it in a way of its own: its
    /// [watchdog](crate::lifecycle::Policy::watchdog) begins anew.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless it is running.
    pub fn report_alive(&mut self, instance: InstanceId) -> Result<(), Error> {
        self.call(|driver| driver.report(instance, Input::Alive))
    }

    /// Stops everything gracefully, and starts nothing any more. The host goes on dispatching until
    /// [`Supervisor::is_down`]; to lose patience, [`Supervisor::kill`] with [`Target::All`].
    ///
    /// # Errors
    /// [`Error::Io`] if the timer cannot be armed; everything has been asked to stop all the same.
    pub fn shutdown(&mut self) -> Result<Outcome, Error> {
        self.call(|driver| Ok(driver.shutdown()))
    }

    /// Whether [`Supervisor::shutdown`] was called and nothing is alive any more.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.driver.closing && self.driver.is_quiet()
    }

    // The event loop.

    /// All descriptors, for a host that waits on each by itself: level-triggered, for what their
    /// entries say. The set is an epoll too, the one that `as_fd` gives.
    #[must_use]
    pub fn fds(&self) -> &FdSet {
        &self.driver.kernel.fds
    }

    /// The descriptor of an entry of the set, to register it; `None` if the token is out of date.
    #[must_use]
    pub fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        match self.driver.kernel.source(token)? {
            Source::Timer => Some(self.driver.kernel.timer_fd()),
            Source::Signals => self.driver.kernel.signal_fd(),
            Source::Notify => self.driver.kernel.notify_fd(),
            Source::Orphans => self.driver.kernel.orphans.as_ref()?.fd(token),
            Source::Process(slot) => {
                let instance = self.driver.instances.get(self.driver.instances.id_at(slot)?)?;
                instance.process.as_ref()?.fd(token)
            }
        }
    }

    /// Begins or ends a log of changes to the set; see [`FdSet::track_changes`].
    pub fn track_fd_changes(&mut self, on: bool) {
        self.driver.kernel.fds.track_changes(on);
    }

    /// The oldest change of the set that the host has not seen; see [`FdSet::next_change`].
    pub fn next_fd_change(&mut self) -> Option<Change> {
        self.driver.kernel.fds.next_change()
    }

    /// Does what a descriptor of the set that became ready calls for.
    ///
    /// A call too many is harmless, and answered by [`Progress::Nothing`]. So is a number that is not in the
    /// set: an earlier call of the same batch removes an entry whose event still waits in the batch, and the
    /// kernel may have given the number to another descriptor meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_ready(&mut self, fd: RawFd) -> Result<Progress, Error> {
        match self.fds().token_of(fd) {
            Some(token) => self.process_token(token),
            None => Ok(Progress::Nothing),
        }
    }

    /// The same for a host that has registered tokens instead of numbers
    /// ([`Token::to_raw`](crate::fdset::Token::to_raw)). A token that is out of date, or of another set, is
    /// answered by [`Progress::Nothing`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_token(&mut self, token: Token) -> Result<Progress, Error> {
        self.call(|driver| Ok(process(driver, token)?))
    }

    /// Does whatever is due, a bounded part of it: if there is more, the descriptor stays readable.
    ///
    /// # Errors
    /// [`Error::Io`]: the kernel refused to tell what is ready, or to arm the timer.
    pub fn dispatch(&mut self) -> Result<Progress, Error> {
        let mut ready = std::mem::take(&mut self.ready);
        let result = self.call(|driver| {
            driver.kernel.fds.ready(&mut ready)?;
            let full = ready.len() == ready.capacity();
            let mut result = Ok(if full { Progress::More } else { Progress::Nothing });
            for &token in &ready {
                // Nobody waits behind one whose descriptor fails again and again.
                result = match (result, process(driver, token)) {
                    (Ok(before), Ok(progress)) => Ok(progress.max(before)),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
            Ok(result?)
        });
        self.ready = ready;
        result
    }

    /// The oldest event that the host has not seen. Commands bring events, too, without making the descriptor
    /// readable: fetch them after every call.
    pub fn next_event(&mut self) -> Option<Event> {
        self.driver.events.pop()
    }

    /// How many events had to be dropped, ever, because nobody fetched them in time.
    #[must_use]
    pub const fn dropped_events(&self) -> u64 {
        self.driver.events.dropped()
    }

    // How things stand.

    /// How an instance stands.
    #[must_use]
    pub fn status(&self, instance: InstanceId) -> Option<Status> {
        self.driver.status(instance)
    }

    /// The last runs of an instance that are over, the oldest first, each with the cause of its end.
    pub fn runs(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = &Run> {
        self.driver
            .instances
            .get(instance)
            .into_iter()
            .flat_map(|instance| instance.history.runs())
    }

    /// How a group stands.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<GroupStatus> {
        self.driver.group_status(group)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.driver.groups.ids()
    }

    /// All instances of all groups.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.driver.instances.ids()
    }

    /// The host's ends of the piped streams of an instance's last run. They can be taken once a run;
    /// those that are not taken are closed when the next run begins. So take them at the transition to
    /// `Starting`: at that to `Exited` the next run may have begun already. They are blocking, and not in
    /// the set.
    pub fn take_pipes(&mut self, instance: InstanceId) -> Option<Pipes> {
        self.driver.instances.get_mut(instance)?.pipes.take()
    }

    /// What has come in at the notify socket, and what of it was not heard; `None` if no group has wanted
    /// one.
    #[must_use]
    pub fn notify_counts(&self) -> Option<Counts> {
        self.driver.kernel.notify_counts()
    }

    /// The time on the supervisor's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.driver.kernel.now()
    }

    /// The notify socket is made when the first group wants it.
    const fn lacks_socket(&self, spec: &GroupSpec) -> bool {
        spec.voice.socket && self.driver.socket.is_none()
    }

    fn listen(&mut self) -> Result<(), Error> {
        self.driver.kernel.owner.check()?;
        self.driver.kernel.listen(self.notify_path.as_deref())?;
        self.driver.socket = self.driver.kernel.socket().map(|socket| socket.address().to_owned());
        Ok(())
    }

    /// Every call that changes something: one reading of the clock, and the timer armed at the end.
    fn call<T>(&mut self, act: impl FnOnce(&mut Driver<Linux>) -> Result<T, Error>) -> Result<T, Error> {
        self.driver.kernel.owner.check()?;
        self.driver.wake();
        let result = act(&mut self.driver);
        self.driver.settle()?;
        result
    }
}

impl AsRawFd for Supervisor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Supervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fds().as_fd()
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (groups, instances) = (self.groups().count(), self.instances().count());
        f.debug_struct("Supervisor")
            .field("groups", &groups)
            .field("instances", &instances)
            .finish_non_exhaustive()
    }
}

/// How many signals are read in one go.
const SIGNALS: usize = 32;

/// Does what the entry with this token calls for.
fn process(driver: &mut Driver<Linux>, token: Token) -> io::Result<Progress> {
    match driver.kernel.source(token) {
        None => Ok(Progress::Nothing),
        Some(Source::Timer) => {
            driver.kernel.acknowledge_timer()?;
            // What was said before a deadline counts, though the timer may be the first to be seen. If that
            // fails, the socket's own turn will tell.
            let heard = driver.hear_all().unwrap_or(Progress::Nothing);
            Ok(driver.run_due().max(heard))
        }
        Some(Source::Signals) => {
            for read in 0..SIGNALS {
                match driver.kernel.read_signal()? {
                    Some(signal) => driver.events.push(Event::Signal(signal)),
                    None => return Ok(if read == 0 { Progress::Nothing } else { Progress::Done }),
                }
            }
            Ok(Progress::More)
        }
        Some(Source::Notify) => driver.hear(),
        Some(Source::Orphans) => driver.reap_orphans(),
        Some(Source::Process(slot)) => match driver.instances.id_at(slot) {
            Some(id) => driver.process_ready(id),
            None => Ok(Progress::Nothing),
        },
    }
}
