//! The calls that exchange a process or its pipes with the host.

use super::adopt::{self, AdoptRefusal, NotAdopted};
use super::calls::Supervisor;
use super::driven::Driven;
use crate::child::Pipes;
use crate::engine::error::Error;
use crate::engine::ids::InstanceId;
use crate::lifecycle::State;
use crate::pidfd::PidFd;

impl Supervisor {
    /// The pidfd of an instance's process; `None` while it has none. It becomes readable when the process ends. The
    /// process may have ended already, and the supervisor reaps it: use the pidfd to look at it, to signal it, or to
    /// pass it on ([`PidFd::try_clone`]), and not to reap.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::Signal;
    ///
    /// supervisor.start(group)?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// let pidfd = supervisor.pidfd(instance).ok_or("it has no process")?.try_clone()?;
    /// // Another thread can signal this very process, whatever the supervisor does meanwhile.
    /// pidfd.signal(Signal::WINCH)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn pidfd(&self, instance: InstanceId) -> Option<&PidFd> {
        self.driver.instances.get(instance)?.process?;
        self.driver.kernel.pidfd(instance.index())
    }

    /// Takes over a process that was started elsewhere: by the host itself, by an earlier host, or by hand. The
    /// instance is running from now on, in a new run, and its policy applies: the process is watched, stopped and
    /// restarted like one that the supervisor has started. The next run is a start of the instance's own command.
    ///
    /// The pidfd comes from [`PidFd::open`], [`PidFd::try_from`], [`Child::into_pidfd`](crate::Child::into_pidfd) or
    /// [`Supervisor::release`]. The process need not be a child of the host, with these differences:
    ///
    /// - Its exit status is known when its own parent has reaped it, from Linux 6.15 on. If the parent does not reap it
    ///   within about ten seconds, and on older kernels, the status is [`Exit::Unknown`](crate::Exit::Unknown).
    /// - What it used is not known ([`ExitRecord::usage`](crate::exit::ExitRecord::usage) is `None`).
    ///
    /// The supervisor sees the end of such a process when its status is known, or after these ten seconds; until then
    /// the instance is not restarted, and a stop is not over.
    ///
    /// The instance may be at rest in any way: stopped, exited, in a backoff or fatal. A request of it that waits for
    /// its turn is withdrawn. The events are a transition to `Starting` and one to `Running`, both with
    /// [`Cause::Adopted`](crate::lifecycle::Cause::Adopted). A watchdog of the policy begins at once. Whether the group
    /// is [wanted](crate::supervisor::GroupStatus) up does not change.
    ///
    /// Nothing stops a host from adopting what it must not: another supervisor's process, its own parent or process 1.
    /// The supervisor stops and kills an adopted process like its own.
    ///
    /// The run has no pipes, no readiness descriptor and no cgroup. Messages to the notify socket count if the group
    /// accepts them. A stop with the scope of a process group reaches the group that the process leads; if it leads
    /// none, the process alone. Dropping the supervisor kills the process like the others.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Supervisor, Target};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sleeper = Command::new("sleep").arg("1000");
    /// let mut supervisor = Supervisor::new()?;
    /// let group = supervisor.add(GroupSpec::new("sleeper", sleeper.clone()))?;
    /// let instance = supervisor.instances().next().unwrap();
    ///
    /// let child = sleeper.process_group(0).spawn()?;
    /// supervisor.adopt(instance, child.into_pidfd())?;
    /// supervisor.stop(group)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`NotAdopted`], which gives the pidfd back. Nothing has changed.
    pub fn adopt(&mut self, instance: InstanceId, pidfd: PidFd) -> Result<(), NotAdopted> {
        let mut given = Some(pidfd);
        let mut reason = None;
        let called = self.call(|driver| {
            match given.as_ref().map(|pidfd| adopt::check(driver, instance, pidfd)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    reason = Some(refusal);
                    return Ok(());
                }
                None => return Ok(()),
            }
            let Some(pidfd) = given.take() else { return Ok(()) };
            let pid = pidfd.pid();
            match driver.kernel.take_in(instance.index(), pidfd) {
                Ok(()) => driver.adopted(instance, pid),
                Err((pidfd, error)) => {
                    given = Some(pidfd);
                    reason = Some(AdoptRefusal::Error(Error::Io(error)));
                }
            }
            Ok(())
        });
        let reason = reason.or_else(|| called.err().map(AdoptRefusal::Error));
        match (given, reason) {
            (Some(pidfd), Some(reason)) => Err(NotAdopted { pidfd, reason }),
            // The process is adopted. An error of the timer shows again at the next call.
            _ => Ok(()),
        }
    }

    /// Lets the process of an instance that is running or in its grace go on by itself, and returns its pidfd. A
    /// request of the instance that waits for its turn is withdrawn. The run ends as
    /// [`End::Released`](super::End::Released), and the instance is stopped. The process gets no signal.
    ///
    /// It stays a child of the host: when it has ended, the holder of the pidfd reaps it ([`PidFd::reap`]), or another
    /// instance adopts it ([`Supervisor::adopt`]). The supervisor closes its end of the readiness pipe, and messages of
    /// the process no longer count. What binds the process to the host stays: with
    /// [`Lifetime::Bound`](crate::Lifetime::Bound) it dies with the last descriptor of its pidfd, and with a
    /// parent-death signal when the host's thread ends. A rolling restart in which it is the instance's turn fails.
    ///
    /// ```
    /// # use pidherd::{Command, Event, GroupSpec, StateName, Supervisor};
    /// # use std::time::Duration;
    /// # use rustix::event::{PollFd, PollFlags, poll};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).grace(Duration::ZERO);
    /// # let group = supervisor.add(spec)?;
    /// # supervisor.start(group)?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// # while supervisor.status(instance).is_none_or(|status| status.state.name() != StateName::Running) {
    /// #     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    /// #     supervisor.dispatch()?;
    /// #     while supervisor.next_event().is_some() {}
    /// # }
    /// // It is running.
    /// let pidfd = supervisor.release(instance)?;
    /// drop(supervisor);
    /// // It lives on, and the host has to reap it.
    /// assert_eq!(pidfd.peek()?, None);
    /// # pidfd.signal(pidherd::Signal::KILL)?;
    /// # while pidfd.reap()?.is_none() {
    /// #     poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] if the instance has no process; [`Error::NotReleasable`] while
    /// its spawn is in flight, while it is being stopped, and if its run has a cgroup, because the next run would kill
    /// what is in it; [`Error::Io`] with EMFILE if no descriptor is free.
    pub fn release(&mut self, instance: InstanceId) -> Result<PidFd, Error> {
        let mut released = None;
        let called = self.call(|driver| {
            let known = driver.instances.get(instance).ok_or(Error::UnknownInstance(instance))?;
            if known.process.is_none() {
                return Err(Error::NotAlive(instance));
            }
            let is_up = matches!(
                *known.life.state(),
                State::Starting { executed: Some(_), .. } | State::Running { .. }
            );
            if !is_up || known.run_cgroup.is_some() {
                return Err(Error::NotReleasable(instance));
            }
            released = driver.kernel.let_go(instance.index())?;
            driver.released(instance);
            Ok(())
        });
        match (released, called) {
            // No other descriptor refers to the process. An error of the timer shows again at the next call.
            (Some(pidfd), _) => Ok(pidfd),
            (None, called) => called.and(Err(Error::NotAlive(instance))),
        }
    }

    /// The host's ends of the piped streams of an instance's last run. They can be taken once per run. Pipes that were
    /// not taken are closed when the next run begins. Take them at the transition to `Starting`: at the transition to
    /// `Exited` the next run may have begun already. The pipes are blocking, and not in the set.
    ///
    /// While the spawn is in flight, the supervisor itself may hold the child's ends. The loop closes them. So a thread
    /// that reads to the end of a pipe must not be the one that runs the loop, unless the run is over.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Restart, StateName, Stdio, Supervisor};
    /// use std::io::Read;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let mut supervisor = Supervisor::new()?;
    /// let echo = Command::new("echo").arg("hello").stdout(Stdio::piped());
    /// let group = supervisor.add(GroupSpec::new("echo", echo).restart(Restart::Never))?;
    /// supervisor.start(group)?;
    /// let instance = supervisor.group(group).ok_or("no group")?.instances[0];
    /// let mut pipes = supervisor.take_pipes(instance).ok_or("no pipes")?;
    /// while supervisor.status(instance).is_some_and(|status| status.state.name() != StateName::Exited) {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    /// }
    /// let mut text = String::new();
    /// std::fs::File::from(pipes.take(1).ok_or("no pipe")?).read_to_string(&mut text)?;
    /// assert_eq!(text, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_pipes(&mut self, instance: InstanceId) -> Option<Pipes> {
        self.driver.instances.get_mut(instance)?.take_pipes()
    }
}
