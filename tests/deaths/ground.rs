//! Where the processes die: the cgroups, and what this kernel can do.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use pidherd::cgroup::{CgroupDir, Limits};

use crate::common::memory::{LIMIT, limit};
use crate::common::{TempDir, TestCgroup, cgroup_root, kernel_since, skipped, tempdir, test_cgroup};

/// Where a run has its cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// No cgroup above has a limit of memory.
    Plain,
    /// The cgroup above has one.
    Near,
    /// The one two levels above has one.
    Far,
}

pub struct Ground {
    /// Below it are the cgroups of all places. `None` if cgroups cannot be used here.
    cgroups: Option<(TestCgroup, [CgroupDir; 3])>,
    /// Whether the memory controller counts.
    pub memory: bool,
    pub pids: bool,
    /// Whether the kernel has `pids.peak`.
    pub peak: bool,
    /// Whether the kernel keeps the exit status of a process that another part of the host has reaped.
    pub keeps_status: bool,
    /// Whether a process leaves a core dump with a limit of 0, and without a limit.
    pub dumps: [bool; 2],
    /// It contains the working directories of the processes, where the kernel writes core dumps.
    pub files: TempDir,
}

impl Ground {
    pub fn new() -> Ground {
        let cgroup = test_cgroup();
        let has = |controller: &str| {
            let has = cgroup.is_some() && delegates(controller);
            if cgroup.is_some() && !has {
                skipped(&format!("cgroup v2 has no {controller} controller here"));
            }
            has
        };
        let (memory, pids) = (has("memory"), has("pids"));
        let files = tempdir();
        let dumps = ["0", "unlimited"].map(|most| dumps(&files, most));
        if !dumps[1] {
            skipped("processes leave no core dumps here");
        }
        Ground {
            cgroups: cgroup.map(|cgroup| places(cgroup, memory)),
            memory,
            pids,
            peak: kernel_since(6, 1),
            keeps_status: kernel_since(6, 15),
            dumps,
            files,
        }
    }

    pub fn dir(&self, place: Place) -> Option<&CgroupDir> {
        let (_, dirs) = self.cgroups.as_ref()?;
        Some(&dirs[place as usize])
    }
}

/// Whether the root of the hierarchy gives its children this controller.
fn delegates(controller: &str) -> bool {
    let control = cgroup_root().unwrap().join("cgroup.subtree_control");
    let _already = fs::write(&control, format!("+{controller}"));
    let enabled = fs::read_to_string(&control).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller)
}

fn places(cgroup: TestCgroup, memory: bool) -> (TestCgroup, [CgroupDir; 3]) {
    let counted = Limits::new().memory_max(LIMIT);
    let paths = ["plain", "near", "far/inner"].map(|name| cgroup.path().join(name));
    let enable = |path| CgroupDir::open(path).unwrap().enable_controllers(&counted).unwrap();
    if memory {
        enable(cgroup.path());
    }
    fs::create_dir(cgroup.path().join("far")).unwrap();
    if memory {
        enable(&cgroup.path().join("far"));
    }
    paths.iter().for_each(|path| fs::create_dir(path).unwrap());
    if memory {
        limit(&paths[1]);
        limit(&cgroup.path().join("far"));
    }
    let dirs = paths.map(|path| CgroupDir::open(path).unwrap());
    (cgroup, dirs)
}

/// Whether a shell that crashes with this limit of core dumps leaves one, as the standard library reports it.
fn dumps(files: &TempDir, most: &str) -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -c {most}; kill -SEGV $$")]);
    shell.current_dir(files.path()).stderr(Stdio::null());
    let dumped = shell.status().unwrap().core_dumped();
    let _none = fs::remove_file(files.join("core"));
    dumped
}
