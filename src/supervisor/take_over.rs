//! A supervisor that goes on with the state of another one.

use std::fmt;
use std::os::fd::RawFd;

use super::builder::Builder;
use super::calls::Supervisor;
use super::driven::Driven;
use super::format::StateError;
use super::hand_over::HandOver;
use crate::engine::error::Error;
use crate::engine::event::Name;
use crate::engine::ids::GroupId;
use crate::engine::image::{Image, NotRestored, Restored};
use crate::engine::spec::GroupSpec;
use crate::linux::image::{LinuxImage, NotTaken};
use crate::pidfd::PidFd;

/// What becomes of a group of the state that is not described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undescribed {
    /// Its instances are stopped by the ladder of their old policy, and the group is removed.
    Stop,
    /// Its instances that work go on by themselves, and their pidfds are in [`TakenOver::released`]. An instance that
    /// is being started or stopped, or that has a cgroup, cannot be let go, and is stopped.
    Release,
}

/// A supervisor that goes on with a handed-over state.
#[derive(Debug)]
#[non_exhaustive]
pub struct TakenOver {
    /// The supervisor. Its events include those that the program before this one had not fetched.
    pub supervisor: Supervisor,
    /// The groups, in the order of their descriptions.
    pub groups: Vec<TakenGroup>,
    /// The processes of groups that were not described, with [`Undescribed::Release`].
    pub released: Vec<(Name, PidFd)>,
}

/// A group after [`Builder::take_over`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenGroup {
    /// The group.
    pub id: GroupId,
    /// Whether the group is new: the state had none with this name. It was added and not started.
    pub is_new: bool,
}

/// Why a state was not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverReason {
    /// The state cannot be read, or contradicts itself.
    #[error(transparent)]
    State(#[from] StateError),
    /// A descriptor is not what the state says.
    #[error("descriptor {0} is not what the handed-over state says")]
    Descriptor(RawFd),
    /// A description is wrong, or the supervisor cannot be built.
    #[error(transparent)]
    Error(#[from] Error),
}

/// A state that was not taken over. No process was touched, and another try can be made.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotTakenOver {
    /// The state.
    pub handed_over: HandOver,
    /// The reason.
    pub reason: TakeOverReason,
}

impl fmt::Display for NotTakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot take over: {}", self.reason)
    }
}

impl std::error::Error for NotTakenOver {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl From<NotRestored> for TakeOverReason {
    fn from(error: NotRestored) -> TakeOverReason {
        match error {
            NotRestored::Damaged => TakeOverReason::State(StateError::Damaged),
            NotRestored::Error(error) => TakeOverReason::Error(error),
        }
    }
}

impl From<NotTaken> for TakeOverReason {
    fn from(error: NotTaken) -> TakeOverReason {
        match error {
            NotTaken::Damaged => TakeOverReason::State(StateError::Damaged),
            NotTaken::Descriptor(number) => TakeOverReason::Descriptor(number),
            NotTaken::Cgroup(error) => TakeOverReason::Error(Error::Spec(error.into())),
            NotTaken::Io(error) => TakeOverReason::Error(Error::Io(error)),
        }
    }
}

impl Builder {
    /// Builds a supervisor that goes on with a handed-over state.
    ///
    /// Commands are not part of a state, so the groups are described again. A description belongs to the group of the
    /// state with the same name. Its policy applies at once, its command at the next start of an instance, and its
    /// number of instances as by [`Supervisor::scale`]. No process is restarted because its command is another one; for
    /// that, call [`Supervisor::rolling_restart`]. A description without such a group adds one, which is not started.
    ///
    /// The [clock](Builder::clock) is that of the state. [`Builder::seed`] has no effect. More events than
    /// [`Builder::event_capacity`] are dropped, the oldest first. The notify socket keeps its address, so
    /// [`Builder::notify_path`] has an effect only if the state has no socket. Ids of the program before this one have
    /// no meaning here.
    ///
    /// Each process is proven to be the one of the state before anything happens: its pidfd is the descriptor that the
    /// inherited epoll waits for under this number, or, for a process that has ended, a pidfd of its PID.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// use pidherd::supervisor::{HandOver, Undescribed};
    ///
    /// let groups = || vec![GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2)];
    /// let mut supervisor = match HandOver::receive()? {
    ///     Some(state) => Supervisor::builder().take_over(state, groups(), Undescribed::Stop)?.supervisor,
    ///     None => Supervisor::new()?,
    /// };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`NotTakenOver`], which gives the state back. No process was touched.
    pub fn take_over(
        mut self,
        handed_over: HandOver,
        groups: Vec<GroupSpec>,
        undescribed: Undescribed,
    ) -> Result<TakenOver, NotTakenOver> {
        let mut handed_over = handed_over;
        self.clock = handed_over.linux.clock;
        let state_file = self.state_file.take();
        let HandOver { linux, descriptors, .. } = &mut handed_over;
        if let Err(reason) = linux.end_rest(descriptors) {
            let reason = reason.into();
            return Err(NotTakenOver { handed_over, reason });
        }
        let built = self.build().and_then(|mut supervisor| {
            if let Some(path) = state_file {
                let opened = supervisor.open_state(&path, Some(&handed_over));
                opened.map_err(std::io::Error::other)?;
            }
            Ok(supervisor)
        });
        let mut supervisor = match built {
            Ok(supervisor) => supervisor,
            Err(error) => {
                return Err(NotTakenOver {
                    handed_over,
                    reason: Error::Io(error).into(),
                });
            }
        };
        match supervisor.restore(&mut handed_over, groups) {
            Ok(restored) => Ok(supervisor.taken_over(&restored, undescribed)),
            Err(reason) => {
                let HandOver { linux, descriptors, .. } = &mut handed_over;
                supervisor.driver.kernel.give_back(&linux.set, descriptors);
                Err(NotTakenOver { handed_over, reason })
            }
        }
    }
}

impl Supervisor {
    fn restore(&mut self, handed_over: &mut HandOver, groups: Vec<GroupSpec>) -> Result<Restored, TakeOverReason> {
        let home = self.driver.instances.home();
        let image = handed_over.image(home)?;
        let HandOver { linux, descriptors, .. } = handed_over;
        let (linux, fds) = (&**linux, descriptors);
        self.driver.kernel.take_set(&linux.set, fds)?;
        if let Some(socket) = &linux.socket {
            self.driver.kernel.take_socket(socket, fds)?;
            self.heed_socket();
        } else if groups.iter().any(|spec| self.lacks_socket(spec)) {
            self.listen()?;
        }
        // The ids of groups and instances have the same form, so one number serves for both.
        self.check_processes(linux, &image)?;
        let restored = self.driver.restore(image, groups)?;
        for belongings in self.driver.kernel.take_processes(linux, fds)? {
            let id = self.driver.instances.id_at(belongings.slot);
            if let Some(instance) = id.and_then(|id| self.driver.instances.get_mut(id)) {
                instance.set_run_cgroup(belongings.run_cgroup);
                instance.set_pipes(belongings.pipes);
            }
        }
        self.driver.kernel.take_reports(&linux.reports, home);
        Ok(restored)
    }

    /// Checks that exactly the instances with a process have one.
    fn check_processes(&self, linux: &LinuxImage, image: &Image) -> Result<(), StateError> {
        let has = |slot: u32| {
            let place = image.instances.get(slot as usize)?;
            place.value.as_ref()?.process
        };
        let all_belong = linux
            .processes
            .iter()
            .all(|process| has(process.slot) == Some(process.pid));
        let exists = |slot: u32| {
            let place = image.instances.get(slot as usize);
            place.is_some_and(|place| place.value.is_some())
        };
        let all_belong = all_belong && linux.descriptors.iter().all(|stored| exists(stored.slot));
        let named = image.instances.iter().filter_map(|place| place.value.as_ref()?.process);
        match all_belong && named.count() == linux.processes.len() {
            true => Ok(()),
            false => Err(StateError::Damaged),
        }
    }

    pub(super) fn taken_over(mut self, restored: &Restored, undescribed: Undescribed) -> TakenOver {
        let mut released = Vec::new();
        if undescribed == Undescribed::Release {
            for &group in &restored.undescribed {
                for instance in self.group(group).map_or(Vec::new(), |status| status.instances) {
                    let name = self.status(instance).map(|status| status.name);
                    // One that cannot be let go is stopped with its group.
                    if let (Some(name), Ok(pidfd)) = (name, self.release(instance)) {
                        released.push((name, pidfd));
                    }
                }
            }
        }
        // An error of the timer shows again at the next call.
        let _later = self.call(|driver| {
            driver.follow_descriptions(restored);
            Ok(())
        });
        let groups = restored
            .groups
            .iter()
            .map(|&(id, _, was_known)| TakenGroup { id, is_new: !was_known });
        TakenOver {
            groups: groups.collect(),
            supervisor: self,
            released,
        }
    }
}
