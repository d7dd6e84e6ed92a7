//! Waiting for events, never for a while.
//!
//! Whatever the kernel tells by a descriptor is waited for by a descriptor. For the rest there is
//! [`wait_until`], which looks again every few milliseconds: it costs a test a moment, and no test is
//! right or wrong by how long that moment is.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How often [`wait_until`] looks.
const INTERVAL: Duration = Duration::from_millis(2);

/// Waits until the descriptor is readable (or has an error or a hangup); whether it came to that
/// within the limit.
pub fn wait_readable(fd: impl AsFd, limit: Duration) -> bool {
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

/// Waits until the process has ended: it is a zombie, or gone. Whether it did within the limit.
pub fn wait_gone(pid: u32, limit: Duration) -> bool {
    let raw = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => wait_readable(pidfd, limit),
        // EINVAL is what kernels before 6.9 say of a number that is somebody's group only, or just being freed.
        Err(Errno::SRCH | Errno::INVAL) => true,
        Err(errno) => panic!("pidfd_open({pid}): {errno}"),
    }
}

/// Waits until `condition` holds, for state that has no event. Panics with `what` at the limit.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        thread::sleep(INTERVAL);
    }
}

/// Waits until the file exists and its content is such, and returns it. Panics at the limit.
pub fn wait_for_content(path: &Path, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
    let directory = path.parent().expect("a file in a directory");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
    let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, events).expect("a watch on the directory");
    let end = Instant::now() + limit;
    loop {
        // The watch came first, so whatever is written after this look makes it readable.
        let content = fs::read_to_string(path).unwrap_or_default();
        if wanted(&content) {
            return content;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(
            wait_readable(&watch, left),
            "waited {limit:?} in vain for {}; it has: {content}",
            path.display()
        );
        let _taken = rustix::io::read(&watch, &mut [0u8; 4096]);
    }
}
