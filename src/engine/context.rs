//! The settings of a run besides its program.

use std::sync::Arc;

use crate::cgroup::{CgroupDir, CgroupFile};

/// The settings of a run besides its program. Every run of an instance uses the same ones, until they are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpawnContext {
    /// The cgroup of the run; `None` for no cgroup of its own.
    pub(crate) cgroup: Option<Arc<CgroupPath>>,
    /// The values for the files of the cgroup.
    pub(crate) files: Arc<[CgroupFile]>,
    /// Whether the child's extra pipe reports its readiness.
    pub(crate) ready_fd: bool,
    /// Whether the child gets the stored descriptors of its instance.
    pub(crate) gets_stored: bool,
}

/// The directory and the name of an instance's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    pub(crate) dir: CgroupDir,
    pub(crate) name: String,
}

impl CgroupPath {
    /// `group-number`. A dash, because the kernel's own files have dots in their names.
    pub(crate) fn new(dir: &CgroupDir, group: &str, number: u32) -> CgroupPath {
        CgroupPath {
            dir: dir.clone(),
            name: format!("{group}-{number}"),
        }
    }

    /// Whether this is the cgroup of an instance of a group with this name.
    pub(crate) fn is_of(&self, group: &str) -> bool {
        self.name.rsplit_once('-').is_some_and(|(own, _)| own == group)
    }
}
