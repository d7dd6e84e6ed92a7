//! The limit of open files (RLIMIT_NOFILE). It is raised for the taskmaster and restored for the programs.
//!
//! Each instance needs at least one descriptor in the taskmaster, so a soft limit of 1,024 allows about a thousand
//! instances. The soft limit is low by custom for programs that use select(2). The taskmaster does not use select(2).
//! A program may use it, so it gets the limit that it would have without a taskmaster.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::files;

/// The limits of open files for the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit, which the kernel enforces.
    pub soft: u64,
    /// The hard limit. A program may raise its soft limit up to this value.
    pub hard: u64,
}

/// Raises the soft limit of this process to its hard limit. Returns the limit for the programs if it differs.
///
/// `minfds` is supervisord's key: the number of open files that the taskmaster and each program must be able to have.
/// A lower limit is raised. The hard limit is raised too if the kernel permits it. Without the key, the programs get
/// the limit that this process was started with.
///
/// # Errors
/// One line: the limit is below `minfds` and cannot be raised.
pub fn raise_open_files(minfds: Option<u64>) -> Result<Option<OpenFiles>, String> {
    let before = OpenFiles::from(getrlimit(Resource::Nofile));
    let programs = at_least(before, minfds.unwrap_or(0));
    let own = OpenFiles {
        soft: programs.hard,
        ..programs
    };
    match setrlimit(Resource::Nofile, own.into()) {
        Ok(()) => Ok((programs != own).then_some(programs)),
        // The limit is high enough. A filter that refuses the call does not prevent the start.
        Err(_) if programs == before => Ok(None),
        Err(error) => Err(format!(
            "cannot raise the limit of open files to {} (minfds): {}",
            programs.soft,
            files::reason(error)
        )),
    }
}

fn at_least(limit: OpenFiles, minimum: u64) -> OpenFiles {
    OpenFiles {
        soft: limit.soft.max(minimum),
        hard: limit.hard.max(minimum),
    }
}

/// The library represents "no limit" as the largest number.
impl From<Rlimit> for OpenFiles {
    fn from(limit: Rlimit) -> OpenFiles {
        OpenFiles {
            soft: limit.current.unwrap_or(u64::MAX),
            hard: limit.maximum.unwrap_or(u64::MAX),
        }
    }
}

impl From<OpenFiles> for Rlimit {
    fn from(limit: OpenFiles) -> Rlimit {
        let finite = |number: u64| (number != u64::MAX).then_some(number);
        Rlimit {
            current: finite(limit.soft),
            maximum: finite(limit.hard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minfds_raises_a_limit_and_never_lowers_one() {
        let limit = |soft, hard| OpenFiles { soft, hard };
        assert_eq!(at_least(limit(1_024, 4_096), 0), limit(1_024, 4_096));
        assert_eq!(at_least(limit(1_024, 4_096), 2_000), limit(2_000, 4_096));
        assert_eq!(at_least(limit(1_024, 4_096), 9_000), limit(9_000, 9_000));
        assert_eq!(at_least(limit(u64::MAX, u64::MAX), 9_000), limit(u64::MAX, u64::MAX));
    }

    #[test]
    fn an_unlimited_value_stays_unlimited() {
        for limit in [(7, 9), (7, u64::MAX), (u64::MAX, u64::MAX)] {
            let limit = OpenFiles {
                soft: limit.0,
                hard: limit.1,
            };
            assert_eq!(OpenFiles::from(Rlimit::from(limit)), limit);
        }
    }
}
