//! Calls that go beyond the policy, the waker, and subscriptions.

use std::time::Duration;

use super::calls::Supervisor;
use super::driven::Driven;
use super::subscription::Subscription;
use super::supervise::Supervise;
use crate::engine::error::Error;
use crate::engine::event::Event;
use crate::engine::ids::{InstanceId, Target};
use crate::engine::request::Outcome;
use crate::lifecycle::{Scope, StopLadder};
use crate::signal::Signal;
use crate::waker::Waker;

impl Supervisor {
    /// Stops every instance of the target that is up, by this ladder instead of that of its policy. A stop that is under
    /// way goes on with it: its next rung is that of the new ladder with the same number. The ladder is for this stop
    /// only, and is kept by a [hand-over](Supervisor::hand_over) but not by a
    /// [recovery](crate::supervisor::Builder::recover).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::{Scope, StopLadder};
    /// use pidherd::{Command, GroupSpec, Signal, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// supervisor.start(group)?;
    /// // This time without a hurry.
    /// let patient = StopLadder::signal(Signal::QUIT, Scope::Process, Duration::from_secs(600));
    /// supervisor.stop_with(group, &patient)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`]; [`Error::Spec`] if the ladder is wrong, if its scope is
    /// narrower than that of the policy's ladder, or if it has a scope that the group does not allow or a command that the
    /// group does not have. Nothing is stopped then.
    pub fn stop_with(&mut self, target: impl Into<Target>, ladder: &StopLadder) -> Result<Outcome, Error> {
        Supervise::stop_with(self, target, ladder)
    }

    /// Restarts every instance of the target that is up, and leaves the others down. An instance that waits for another
    /// try is up. [`Outcome::already`] counts those that are down.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// // They are down, and stay down.
    /// assert_eq!(supervisor.restart_if_up(group)?.already, 2);
    /// supervisor.start(group)?;
    /// assert_eq!(supervisor.restart_if_up(group)?.already, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervisor::start`].
    pub fn restart_if_up(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::restart_if_up(self, target)
    }

    /// Sends a signal to the processes of the target, not to their process groups. The supervisor does not treat it as
    /// a stop.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::Signal;
    ///
    /// supervisor.start(group)?;
    /// let outcome = supervisor.signal(group, Signal::WINCH)?;
    /// assert_eq!((outcome.accepted, outcome.failed), (2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`]; for a single instance [`Error::NotAlive`] and
    /// [`Error::Signal`], which the [`Outcome`] counts for many instances.
    pub fn signal(&mut self, target: impl Into<Target>, signal: Signal) -> Result<Outcome, Error> {
        Supervise::signal(self, target, signal)
    }

    /// Sends a signal to all processes of a scope: the process, its process group or its cgroup. If the process leads no
    /// process group, only the process gets the signal. The supervisor does not treat it as a stop.
    ///
    /// ```
    /// use pidherd::lifecycle::Scope;
    /// use pidherd::{Command, GroupSpec, Signal, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// supervisor.start(group)?;
    /// let outcome = supervisor.signal_scope(group, Signal::WINCH, Scope::ProcessGroup)?;
    /// assert_eq!(outcome.failed, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Supervisor::signal`]; also [`Error::NoCgroup`] for the scope of a cgroup, if a process of the target has
    /// none. No signal is sent then.
    pub fn signal_scope(&mut self, target: impl Into<Target>, signal: Signal, scope: Scope) -> Result<Outcome, Error> {
        Supervise::signal_scope(self, target, signal, scope)
    }

    /// Lets the running processes of the target read their configuration again: sends each of them a signal, usually
    /// SIGHUP, and waits for the end of the reload if there is a timeout. Instances that do not run are counted as
    /// [`Outcome::already`].
    ///
    /// With a timeout, the process reports `RELOADING=1` and then `READY=1` to the notify socket, as a service of
    /// systemd's type `notify-reload`. [`Event::Reloaded`] tells the end: done, too late, or the process has ended. A
    /// process that is too late goes on running. With `MONOTONIC_USEC=` it tells when its reload began, so that an
    /// earlier one is not taken for it. Without a timeout there is no such event. A second reload takes the place of one
    /// that is under way.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Command, GroupSpec, Signal, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let web = GroupSpec::new("web", Command::new("sleep").arg("1000")).notify_socket(true);
    /// let web = supervisor.add(web)?;
    /// let outcome = supervisor.reload_program(web, Signal::HUP, Some(Duration::from_secs(90)))?;
    /// assert_eq!((outcome.accepted, outcome.already), (0, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`]; [`Error::NotAlive`] for a single instance that does not run;
    /// [`Error::CannotNotify`] if there is a timeout, and a running process has no notify socket, before any signal is
    /// sent; [`Error::Signal`] for a single instance, and counted for many.
    pub fn reload_program(
        &mut self,
        target: impl Into<Target>,
        signal: Signal,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Error> {
        Supervise::reload_program(self, target, signal, timeout)
    }

    /// Freezes the processes of the target: each stands still with its whole cgroup, until [`Supervisor::thaw`]
    /// (`cgroup.freeze`, Linux 5.2). [`Status::is_frozen`](crate::supervisor::Status::is_frozen) shows it. Instances
    /// without a process, and those that are being stopped, are counted as [`Outcome::already`].
    ///
    /// The watchdog of a frozen process stands still too. All other deadlines go on: a process that is frozen during its
    /// start may not be ready in time. A stop thaws: the signal of its first rung is sent, and the process handles it.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut supervisor = pidherd::Supervisor::new()?;
    /// # let batch = supervisor.groups().next().ok_or("no group")?;
    /// // The batch jobs stand still while the machine is busy with something else.
    /// supervisor.freeze(batch)?;
    /// supervisor.thaw(batch)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownInstance`]; [`Error::NoCgroup`] if a process of the target has no cgroup,
    /// before anything is frozen; [`Error::NotAlive`] for a single instance; [`Error::Freeze`] for the first cgroup that
    /// the kernel refuses, after all others were frozen.
    pub fn freeze(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::freeze(self, target)
    }

    /// Thaws what [`Supervisor::freeze`] froze. The time of a watchdog begins anew.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// supervisor.start(group)?;
    /// // They have no cgroup, so they can be neither frozen nor thawed.
    /// assert!(matches!(supervisor.thaw(group), Err(pidherd::Error::NoCgroup(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervisor::freeze`].
    pub fn thaw(&mut self, target: impl Into<Target>) -> Result<Outcome, Error> {
        Supervise::thaw(self, target)
    }

    /// Reports that an instance has failed although its process is alive, for a host that has its own check. The process
    /// is stopped by the ladder, and then judged as if it had failed by itself: the crash budget and the delays of the
    /// policy apply, and [`Restart::Never`](crate::lifecycle::Restart::Never) leaves it down. An instance that is still
    /// starting has failed to start. The run ends as [`End::Unhealthy`](crate::supervisor::End::Unhealthy) with
    /// `reason`, a text for people of any length.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut supervisor = pidherd::Supervisor::new()?;
    /// # let instance = supervisor.instances().next().ok_or("no instance")?;
    /// # fn answers(_: &str) -> bool { true }
    /// if !answers("http://localhost:8080/health") {
    ///     supervisor.report_failed(instance, "no answer from /health")?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] unless the instance is starting, with a process, or running.
    pub fn report_failed(&mut self, instance: InstanceId, reason: &str) -> Result<(), Error> {
        Supervise::report_failed(self, instance, reason)
    }

    /// A copy of the events for another part of the host, from now on: those that the filter accepts, `capacity` of them
    /// at most. [`Supervisor::next_event`] is not affected. The filter is called in the supervisor's calls, so it must be
    /// quick; it may not panic.
    ///
    /// ```
    /// use std::thread;
    /// use pidherd::lifecycle::StateName;
    /// use pidherd::supervisor::Event;
    /// use pidherd::{Command, GroupSpec, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
    /// let is_start = move |event: &Event| {
    ///     matches!(event, Event::Transition(step) if step.group == web && step.to == StateName::Starting)
    /// };
    /// let starts = supervisor.subscribe(100, is_start)?;
    /// supervisor.start(web)?;
    ///
    /// let thread = thread::spawn(move || starts.next_event());
    /// assert!(thread.join().unwrap().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] of eventfd(2): EMFILE, ENFILE, ENOMEM.
    pub fn subscribe(
        &mut self,
        capacity: usize,
        filter: impl FnMut(&Event) -> bool + Send + 'static,
    ) -> Result<Subscription, Error> {
        self.call(|driver| {
            let (subscription, push) = Subscription::new(capacity, filter)?;
            driver.events.listen(Box::new(push));
            Ok(subscription)
        })
    }

    /// A handle with which other threads wake this supervisor's host: it makes the set readable. The first call adds a
    /// descriptor to the set; every handle is a copy of the same one.
    ///
    /// ```
    /// # use pidherd::Supervisor;
    /// let mut supervisor = Supervisor::new()?;
    /// let waker = supervisor.waker()?;
    /// // One for each thread.
    /// for copy in [waker.clone(), waker] {
    ///     std::thread::spawn(move || copy.wake());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] of eventfd(2) and epoll_ctl(2): EMFILE, ENFILE, ENOMEM, ENOSPC.
    pub fn waker(&mut self) -> Result<Waker, Error> {
        self.call(|driver| Ok(driver.kernel.waker()?))
    }
}
