//! What a process takes from the system, for tests that compare it at two times.

use std::fs;

/// The resources of this process.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    pub descriptors: usize,
    pub threads: usize,
    /// The resident memory that is of no file, in bytes. The kernel reclaims pages of files, and brings them back.
    pub resident: u64,
}

impl Resources {
    pub fn now() -> Resources {
        let count = |path| fs::read_dir(path).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")).unwrap();
        Resources {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            resident: 1024 * kib.parse::<u64>().unwrap(),
        }
    }

    /// Asserts that there are as many descriptors and threads as before, and no more memory but for this tolerance in
    /// bytes.
    pub fn assert_no_more_than(&self, before: &Resources, tolerance: u64) {
        assert_eq!(
            (self.descriptors, self.threads),
            (before.descriptors, before.threads),
            "{self:?}, after {before:?}"
        );
        assert!(
            self.resident <= before.resident + tolerance,
            "{self:?}, after {before:?}"
        );
    }
}
