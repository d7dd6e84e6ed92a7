//! A supervisor that goes on after its host was killed.

use std::io;
use std::path::{Path, PathBuf};

use super::builder::Builder;
use super::calls::Supervisor;
use super::driven::Driven;
use super::format::StateError;
use super::hand_over::HandOver;
use super::take_over::{TakeOverReason, TakenGroup, Undescribed};
use crate::codec::{Reader, Stored};
use crate::engine::error::Error;
use crate::engine::event::Name;
use crate::engine::image::Restored;
use crate::engine::recovery::{LeftBehind, NotRead};
use crate::engine::spec::GroupSpec;
use crate::errno::Reason;
use crate::exit::{ExitRecord, Pid};
use crate::linux::found::find;
use crate::linux::state_file::{FileError, Left, StateFile};
use crate::pidfd::PidFd;
use crate::timerfd::Clock;

/// Why a state file cannot be used. No process was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// A supervisor of another process, or another one of this process, uses the file.
    #[error("the state file {0:?} is in use by another supervisor")]
    InUse(PathBuf),
    /// It is not a regular file that belongs to the user of this process and that no other user can write.
    #[error("the state file {0:?} is not a regular file that only this user can write")]
    Foreign(PathBuf),
    /// The file contains the state of a host that was killed, and the supervisor was built without
    /// [`Builder::recover`].
    #[error("the state file {0:?} contains a state, and the supervisor was not built by a recovery")]
    NotRecovered(PathBuf),
    /// The state cannot be read.
    #[error("the state file {path:?} cannot be used: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: StateError,
    },
    /// The file cannot be opened, mapped or allocated: EACCES, ENOENT, EROFS, ENOSPC, EMFILE and others.
    #[error("the state file {path:?} cannot be used: {}", Reason(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// [`Builder::recover`] was called without [`Builder::state_file`].
    #[error("cannot recover: no state file was set")]
    NoFile,
    /// A description is wrong, or the supervisor cannot be built.
    #[error(transparent)]
    Error(#[from] Error),
}

/// A supervisor that goes on where a killed host has left off.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// The supervisor.
    pub supervisor: Supervisor,
    /// The groups, in the order of their descriptions. All are new if the file had no state of this boot.
    pub groups: Vec<TakenGroup>,
    /// The processes of groups that were not described, with [`Undescribed::Release`].
    pub released: Vec<(Name, PidFd)>,
    /// The processes that ended while no host was there. Their runs have ended, and the policies have decided.
    pub ended: Vec<(Name, ExitRecord)>,
    /// The numbers of processes that may belong to an instance, without a proof. They were not touched. The instances
    /// are stopped, with all counters at zero.
    pub unproven: Vec<(Name, Pid)>,
}

fn file_error(path: &Path, error: FileError) -> RecoverError {
    let path = path.to_owned();
    let reason = match error {
        FileError::InUse => return RecoverError::InUse(path),
        FileError::Foreign => return RecoverError::Foreign(path),
        FileError::Io(source) => return RecoverError::Io { path, source },
        FileError::Damaged => StateError::Damaged,
        FileError::Version(version) => StateError::Version(version),
        FileError::Architecture(name) => StateError::Architecture(name),
    };
    RecoverError::State { path, reason }
}

impl Builder {
    /// Builds a supervisor that keeps its state in the [state file](Builder::state_file), and goes on with what a
    /// killed host has left there; see [the module](super). Without a state of this boot the groups are just added.
    ///
    /// The groups are described as for [`Builder::take_over`].
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// use pidherd::supervisor::Undescribed;
    ///
    /// # let path = std::env::temp_dir().join(format!("pidherd-doc-recover-{}", std::process::id()));
    /// let groups = vec![GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2)];
    /// let builder = Supervisor::builder().state_file(&path);
    /// let mut recovered = builder.recover(groups, Undescribed::Stop)?;
    /// // The file was not there: all groups are new, and nothing has ended meanwhile.
    /// assert!(recovered.groups.iter().all(|group| group.is_new) && recovered.ended.is_empty());
    /// recovered.supervisor.start(Target::All)?;
    /// # drop(recovered);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`RecoverError`]. No process was touched, and the state is still there.
    pub fn recover(mut self, groups: Vec<GroupSpec>, undescribed: Undescribed) -> Result<Recovered, RecoverError> {
        let path = self.state_file.take().ok_or(RecoverError::NoFile)?;
        let failed = |error| file_error(&path, error);
        let (file, left) = StateFile::open(&path).map_err(failed)?;
        let left = match left {
            Some(left) => Some(self.read(&left, &file).map_err(failed)?),
            None => None,
        };
        let mut supervisor = self.build().map_err(Error::Io)?;
        supervisor.keep_state(file);
        match left {
            Some(left) => supervisor
                .recovered(left, groups, undescribed)
                .map_err(|reason| match reason {
                    TakeOverReason::Error(error) => RecoverError::Error(error),
                    TakeOverReason::State(reason) => RecoverError::State { path, reason },
                    // Only a hand-over has numbers of descriptors.
                    TakeOverReason::Descriptor(_) => file_error(&path, FileError::Damaged),
                }),
            None => supervisor.fresh(groups),
        }
    }

    /// Reads what a host has left, and finds its processes.
    fn read(&mut self, left: &Left, file: &StateFile) -> Result<LeftBehind<PidFd>, FileError> {
        let mut base = Reader::new(&left.base, 0);
        self.clock = Clock::get(&mut base).map_err(|_| FileError::Damaged)?;
        let now = Clock::Boottime.now().as_nanos();
        let found = LeftBehind::read(&mut base, &left.records, now, |birth, pid| find(birth, pid, file));
        found.map_err(|error| match error {
            NotRead::Damaged => FileError::Damaged,
            NotRead::Io(error) => FileError::Io(error),
        })
    }
}

impl Supervisor {
    /// Keeps the state in this file from now on.
    pub(super) fn keep_state(&mut self, file: StateFile) {
        self.driver.mark = Some(file.mark().into());
        self.driver.kernel.state = Some(file);
    }

    /// Opens the state file of a supervisor that does not recover.
    pub(super) fn open_state(&mut self, path: &Path, handed_over: Option<&HandOver>) -> Result<(), RecoverError> {
        let (file, left) = StateFile::open(path).map_err(|error| file_error(path, error))?;
        if left.is_some() && handed_over.is_none() {
            return Err(RecoverError::NotRecovered(path.to_owned()));
        }
        self.keep_state(file);
        Ok(())
    }

    fn fresh(mut self, groups: Vec<GroupSpec>) -> Result<Recovered, RecoverError> {
        let mut added = Vec::with_capacity(groups.len());
        for spec in groups {
            let id = self.add(spec)?;
            added.push(TakenGroup { id, is_new: true });
        }
        Ok(Recovered {
            supervisor: self,
            groups: added,
            released: Vec::new(),
            ended: Vec::new(),
            unproven: Vec::new(),
        })
    }

    fn recovered(
        mut self,
        mut found: LeftBehind<PidFd>,
        groups: Vec<GroupSpec>,
        undescribed: Undescribed,
    ) -> Result<Recovered, TakeOverReason> {
        let restored = match self.restore_found(&mut found, groups) {
            Ok(restored) => restored,
            Err(reason) => {
                // The state stays for another try.
                self.driver.kernel.state = None;
                self.driver.kernel.let_all_go();
                return Err(reason);
            }
        };
        let name = |slot| Some(self.status(self.driver.instances.id_at(slot)?)?.name);
        let ended = found.ended.iter();
        let names: Vec<_> = ended
            .filter_map(|&(slot, record)| Some((name(slot)?, record)))
            .collect();
        let unproven = found.unproven.iter();
        let unproven: Vec<_> = unproven.filter_map(|&(slot, pid)| Some((name(slot)?, pid))).collect();
        self.driver.kernel.clear_cgroups(found.ended_cgroups);
        // An error of the timer shows again at the next call.
        let _later = self.call(|driver| {
            driver.resume(&restored, found.born, found.ended, &found.unproven);
            Ok(())
        });
        let taken = self.taken_over(&restored, undescribed);
        Ok(Recovered {
            supervisor: taken.supervisor,
            groups: taken.groups,
            released: taken.released,
            ended: names,
            unproven,
        })
    }

    fn restore_found(
        &mut self,
        found: &mut LeftBehind<PidFd>,
        groups: Vec<GroupSpec>,
    ) -> Result<Restored, TakeOverReason> {
        if let Some(address) = &found.socket {
            self.driver
                .kernel
                .listen_again(address, self.notify_path.as_deref())
                .map_err(Error::Io)?;
            self.heed_socket();
        } else if groups.iter().any(|spec| self.lacks_socket(spec)) {
            self.listen()?;
        }
        let restored = self.driver.restore_left(&found.image, groups)?;
        for belongings in self.driver.kernel.take_found(std::mem::take(&mut found.candidates))? {
            let id = self.driver.instances.id_at(belongings.slot);
            if let Some(instance) = id.and_then(|id| self.driver.instances.get_mut(id)) {
                instance.set_run_cgroup(belongings.run_cgroup);
                instance.is_frozen = self.driver.kernel.is_frozen(belongings.slot);
            }
        }
        self.driver.save().map_err(Error::Io)?;
        Ok(restored)
    }
}
