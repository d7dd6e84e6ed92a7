//! Waits for events, never for a fixed time.
//!
//! If the kernel reports an event on a descriptor, the test waits for the descriptor. For the rest there is
//! [`wait_until`], which checks a condition every few milliseconds. The length of that interval decides only
//! how long a test takes, never its result.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::SOON;

/// The time between two checks of [`wait_until`].
const INTERVAL: Duration = Duration::from_millis(2);

/// Waits until the descriptor is readable (or has an error or a hangup). Returns `false` if the limit passes
/// first. The limit [`SOON`], after which a test fails, is longer on slow machines.
pub fn wait_readable(fd: impl AsFd, limit: Duration) -> bool {
    readable_within(fd, if limit == SOON { limit * patience() } else { limit })
}

fn readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// Waits until the process has ended, so that it is a zombie or gone. Returns `false` if the limit passes
/// first. The limit is longer on slow machines.
pub fn wait_gone(pid: u32, limit: Duration) -> bool {
    let raw = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => readable_within(pidfd, limit * patience()),
        // Kernels before 6.9 return EINVAL for a number that belongs only to a process group, or that is just
        // being freed.
        Err(Errno::SRCH | Errno::INVAL) => true,
        Err(errno) => panic!("pidfd_open({pid}): {errno}"),
    }
}

/// The factor of each time limit after which a test fails: `PIDHERD_TEST_PATIENCE`, for slow machines; 1 by default. It
/// is read once, because a test that counts its allocations waits too.
pub fn patience() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let factor = std::env::var("PIDHERD_TEST_PATIENCE").ok();
        factor.map_or(1, |text| text.parse().expect("PIDHERD_TEST_PATIENCE is a whole number"))
    })
}

/// Waits until `condition` holds, for a state that has no event. Panics with `what` after the limit.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let limit = limit * patience();
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "still false after {limit:?}: {what}");
        thread::sleep(INTERVAL);
    }
}

/// Waits until the file exists and its content satisfies `wanted`, and returns the content. Panics after the
/// limit.
pub fn wait_for_content(path: &Path, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
    let directory = path.parent().expect("a file in a directory");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
    let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, events).expect("a watch on the directory");
    let limit = limit * patience();
    let end = Instant::now() + limit;
    loop {
        // The watch is older than this read, so every later write makes the watch readable.
        let content = fs::read_to_string(path).unwrap_or_default();
        if wanted(&content) {
            return content;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(
            wait_readable(&watch, left),
            "{} does not have the expected content after {limit:?}, but: {content}",
            path.display(),
        );
        let _taken = rustix::io::read(&watch, &mut [0u8; 4096]);
    }
}
