//! The check before an adoption, and the reasons for a refusal.

use std::error;
use std::fmt;
use std::process;

use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::ids::InstanceId;
use crate::linux::core::Linux;
use crate::pidfd::PidFd;

/// Whether the process can become the process of this instance.
pub(super) fn check(driver: &Engine<Linux>, instance: InstanceId, pidfd: &PidFd) -> Result<(), AdoptRefusal> {
    driver.check_adoption(instance).map_err(AdoptRefusal::Error)?;
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
    /// The call is refused for this instance: [`Error::UnknownInstance`], [`Error::Alive`] if it has a process,
    /// [`Error::LeavingInstance`], [`Error::ShuttingDown`], [`Error::OtherProcess`]; or the process cannot be watched
    /// ([`Error::Io`]).
    Error(Error),
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
    pub(super) pidfd: PidFd,
    pub(super) reason: AdoptRefusal,
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
            AdoptRefusal::Error(error) => error.fmt(f),
            AdoptRefusal::Ended => f.write_str("it has ended"),
            AdoptRefusal::Host => f.write_str("it is the host itself"),
            AdoptRefusal::Supervised(other) => write!(f, "it is the process of instance {other}"),
        }
    }
}

impl error::Error for NotAdopted {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.reason {
            AdoptRefusal::Error(error) => Some(error),
            AdoptRefusal::Ended | AdoptRefusal::Host | AdoptRefusal::Supervised(_) => None,
        }
    }
}
