//! Tests that look at their own process need it for themselves: they run in a second process of the same
//! binary, which runs nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const MARK: &str = "PIDHERD_TEST_ALONE";

/// Runs `body`, the body of the test called `name`, in a process of its own.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let binary = std::env::current_exe().unwrap();
    let status = Command::new(binary)
        .args([name, "--exact", "--test-threads=1", "--nocapture"])
        .env(MARK, "1")
        .status();
    assert!(status.unwrap().success(), "{name} failed in its own process");
}

/// What a spawn must not change.
pub struct Leaks {
    descriptors: BTreeMap<i32, String>,
}

impl Leaks {
    pub fn snapshot() -> Leaks {
        Leaks {
            descriptors: descriptors(),
        }
    }

    /// Panics unless everything is as it was, and no child is left.
    pub fn compare(&self) {
        assert_eq!(self.descriptors, descriptors());
        // SAFETY: a zeroed siginfo is valid, and the kernel fills it.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_ALL,
                0,
                &raw mut info,
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            )
        };
        let error = std::io::Error::last_os_error();
        assert_eq!(
            (result, error.raw_os_error()),
            (-1, Some(libc::ECHILD)),
            "a child is left"
        );
    }
}

/// Every open descriptor and what it is, but for the one that lists them.
fn descriptors() -> BTreeMap<i32, String> {
    let own = "/proc/self/fd";
    let list = fs::read_dir(own)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>();
    let number = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let target = |path: &std::path::Path| fs::read_link(path).ok().map(|to| to.display().to_string());
    list.iter()
        .filter_map(|path| Some((number(path), target(path)?)))
        .collect()
}
