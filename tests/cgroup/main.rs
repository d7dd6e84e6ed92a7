//! Cgroups against the real kernel. As root, with cgroup v2 mounted; otherwise they say what they skip.

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod dir;
mod leaf;
mod limits;
mod tree;
mod verdicts;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{TestCgroup, cgroup_root, isolated, skipped, test_cgroup};
use pidherd::cgroup::{Cgroup, CgroupDir};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit};

const LIMIT: Duration = Duration::from_secs(10);

/// A directory of the test's own; `None`, said aloud, where there can be none.
fn delegated() -> Option<(TestCgroup, CgroupDir)> {
    let cgroup = test_cgroup()?;
    let dir = CgroupDir::open(cgroup.path()).unwrap();
    Some((cgroup, dir))
}

/// Runs `body` with a directory in which these controllers can be enabled, and none is. Where they do not exist, that
/// is said aloud.
fn with_controllers(controllers: &[&str], body: impl FnOnce(&TestCgroup, CgroupDir)) {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let root = cgroup_root().unwrap();
        for controller in controllers {
            if std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).is_err() {
                return skipped(&format!("cgroup v2 has no {controller} controller here"));
            }
        }
        body(&cgroup, dir);
    });
}

/// Waits for the events of a cgroup until it is unpopulated.
fn wait_empty(leaf: &Cgroup, events: impl AsFd) {
    let end = Instant::now() + LIMIT;
    while leaf.is_populated().unwrap() {
        let left = end.saturating_duration_since(Instant::now());
        assert!(
            wait_priority(&events, left),
            "still there: {:?}",
            leaf.processes().unwrap()
        );
        Cgroup::acknowledge(&events).unwrap();
    }
}

/// Whether `EPOLLPRI` comes within the limit.
fn wait_priority(events: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    let mut fds = [PollFd::new(&events, PollFlags::PRI)];
    poll(&mut fds, Some(&limit)).unwrap() > 0 && fds[0].revents().contains(PollFlags::PRI)
}

/// Runs `body` while this process can have only so many descriptors more.
fn with_descriptors(more: u64, body: impl FnOnce()) {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let highest = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let highest = highest.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    // All below the highest are open, or there would be more than that; the listing's own is gone.
    let open = highest.count() as u64 - 1;
    let limit = Rlimit {
        current: Some(open + more),
        maximum: before.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    body();
    rustix::process::setrlimit(Resource::Nofile, before).unwrap();
}
