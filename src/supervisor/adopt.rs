//! Processes that were started elsewhere, and processes that go on by themselves.

use std::error;
use std::fmt;
use std::process;

use super::Supervisor;
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::ids::InstanceId;
use crate::lifecycle::State;
use crate::linux::core::Linux;
use crate::pidfd::PidFd;

impl Supervisor {
    /// Takes over a process that was started elsewhere: by the host itself, by an earlier host, or by hand. The instance
    /// is running from now on, in a new run, and its policy applies: the process is watched, stopped and restarted like
    /// one that the supervisor has started. The next run is a start of the instance's own command.
    ///
    /// The pidfd comes from [`PidFd::open`], [`PidFd::try_from`], [`Child::into_pidfd`](crate::Child::into_pidfd) or
    /// [`Supervisor::release`]. The process need not be a child of the host, with these differences:
    ///
    /// - Its exit status is known when its own parent has reaped it, from Linux 6.15 on. If the parent does not reap it within
    ///   about ten seconds, and on older kernels, the status is [`Exit::Unknown`](crate::Exit::Unknown).
    /// - What it used is not known ([`ExitRecord::usage`](crate::exit::ExitRecord::usage) is `None`).
    ///
    /// The run has no pipes, no readiness descriptor and no cgroup. Messages to the notify socket count if the group accepts
    /// them. A stop with the scope of a process group reaches the group that the process leads; if it leads none, the process
    /// alone. Dropping the supervisor kills the process like the others.
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
            driver.run_pending(instance);
            match given.as_ref().map(|pidfd| check(driver, instance, pidfd)) {
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
                    reason = Some(AdoptRefusal::Call(Error::Io(error)));
                }
            }
            Ok(())
        });
        let reason = reason.or_else(|| called.err().map(AdoptRefusal::Call));
        match (given, reason) {
            (Some(pidfd), Some(reason)) => Err(NotAdopted { pidfd, reason }),
            // The process is adopted. An error of the timer shows again at the next call.
            _ => Ok(()),
        }
    }

    /// Lets the process of a running instance go on by itself, and returns its pidfd. The run ends as
    /// [`End::Released`](crate::supervisor::End::Released), and the instance is stopped. The process gets no signal.
    ///
    /// It stays a child of the host: when it has ended, whoever has the pidfd reaps it ([`PidFd::reap`]), or another
    /// instance adopts it ([`Supervisor::adopt`]). The other end of its readiness descriptor is closed, and messages of the
    /// process no longer count. A process that is bound to the host ([`Lifetime::Bound`](crate::Lifetime::Bound)) dies with
    /// the last descriptor of its pidfd.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`]; [`Error::NotAlive`] if the instance has no process; [`Error::NotReleasable`] while its
    /// spawn is in flight, while it is being stopped, and if its run has a cgroup, because the next run would kill what is in
    /// it; [`Error::Io`] with EMFILE if no descriptor is free.
    pub fn release(&mut self, instance: InstanceId) -> Result<PidFd, Error> {
        self.call(|driver| {
            driver.run_pending(instance);
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
            let pidfd = driver.kernel.let_go(instance.index())?;
            driver.released(instance);
            pidfd.ok_or(Error::NotAlive(instance))
        })
    }
}

/// Whether the process can become the process of this instance.
fn check(driver: &Engine<Linux>, instance: InstanceId, pidfd: &PidFd) -> Result<(), AdoptRefusal> {
    driver.check_adoption(instance).map_err(AdoptRefusal::Call)?;
    if pidfd.pid().as_raw() == process::id() {
        return Err(AdoptRefusal::Host);
    }
    if !pidfd.is_alive() {
        return Err(AdoptRefusal::Ended);
    }
    match driver.supervises(pidfd.pid()) {
        Some(other) => Err(AdoptRefusal::Supervised(other)),
        None => Ok(()),
    }
}

/// Why a process was not adopted.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdoptRefusal {
    /// The instance cannot have it: [`Error::UnknownInstance`], [`Error::Alive`] if it has a process,
    /// [`Error::LeavingInstance`], [`Error::ShuttingDown`], [`Error::OtherProcess`]; or the process cannot be watched
    /// ([`Error::Io`]).
    Call(Error),
    /// The process has ended.
    Ended,
    /// The process is the host itself.
    Host,
    /// The process is the process of another instance of this supervisor.
    Supervised(InstanceId),
}

/// A process that was not adopted. Nothing has changed.
#[derive(Debug)]
pub struct NotAdopted {
    pidfd: PidFd,
    reason: AdoptRefusal,
}

impl NotAdopted {
    /// Why it was not adopted.
    #[must_use]
    pub fn reason(&self) -> &AdoptRefusal {
        &self.reason
    }

    /// The pidfd that was given.
    #[must_use]
    pub fn into_pidfd(self) -> PidFd {
        self.pidfd
    }
}

impl fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} cannot be adopted: ", self.pidfd.pid())?;
        match &self.reason {
            AdoptRefusal::Call(error) => error.fmt(f),
            AdoptRefusal::Ended => f.write_str("it has ended"),
            AdoptRefusal::Host => f.write_str("it is the host itself"),
            AdoptRefusal::Supervised(other) => write!(f, "it is the process of instance {other}"),
        }
    }
}

impl error::Error for NotAdopted {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.reason {
            AdoptRefusal::Call(error) => Some(error),
            AdoptRefusal::Ended | AdoptRefusal::Host | AdoptRefusal::Supervised(_) => None,
        }
    }
}
