//! The limits of a cgroup, as the host describes them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{Display, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::CgroupError;
use super::files::CgroupFile;

/// The limits of a cgroup, and any other files of it that the host sets.
///
/// A limit that is not set here has the kernel's default: the cgroup itself limits nothing. The limits of the cgroups
/// above it hold all the same. Each setter replaces an earlier value. The files are those of version 2, which the
/// kernel describes in `Documentation/admin-guide/cgroup-v2.rst`.
///
/// With [`GroupSpec::limits`](crate::GroupSpec::limits) each run of a group has these limits. The files are written
/// before the program executes its first instruction. For a cgroup without a supervisor there is
/// [`Cgroup::set_limits`](super::Cgroup::set_limits).
///
/// A setter takes any value. [`validate`](Limits::validate) checks the ranges, and is called when the limits are used.
///
/// ```
/// use pidherd::cgroup::{IoMax, Limits};
/// use std::time::Duration;
///
/// let limits = Limits::new()
///     .memory_max(200 << 20)
///     .memory_swap_max(0)
///     .memory_oom_group(true)
///     .cpu_max(Duration::from_millis(50), Duration::from_millis(100))
///     .pids_max(50)
///     .io_max(8, 0, IoMax::new().write_bytes(10_000_000))
///     .file("cgroup.max.depth", "3");
/// assert!(limits.validate().is_ok());
/// assert!(Limits::new().cpu_weight(0).validate().is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    memory_max: Option<u64>,
    memory_high: Option<u64>,
    memory_swap_max: Option<u64>,
    memory_oom_group: Option<bool>,
    cpu_max: Option<(Duration, Duration)>,
    cpu_weight: Option<u32>,
    pids_max: Option<u32>,
    io_weight: Option<u32>,
    io_max: BTreeMap<(u32, u32), IoMax>,
    cpuset_cpus: Option<Vec<u32>>,
    files: Vec<CgroupFile>,
}

impl Limits {
    /// No limits.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// assert!(Limits::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Limits {
        Limits::default()
    }

    /// Sets `memory.max`: how much memory the processes may use together, in bytes. The kernel rounds it down to whole
    /// pages. There is no limit by default.
    ///
    /// When the limit is reached and no memory can be reclaimed, the kernel kills a process in the cgroup. If that is
    /// the run's own process, the run ends with [`End::OutOfMemory`](crate::supervisor::End::OutOfMemory), or with
    /// [`End::MaybeOutOfMemory`](crate::supervisor::End::MaybeOutOfMemory) if that is not certain. Memory that can be
    /// moved to swap is moved there first; see [`memory_swap_max`](Limits::memory_swap_max).
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// let limits = Limits::new().memory_max(512 << 20).memory_swap_max(0);
    /// assert!(limits.validate().is_ok());
    /// ```
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Limits {
        self.memory_max = Some(bytes);
        self
    }

    /// Sets `memory.high`: the memory, in bytes, above which the kernel slows the processes down and reclaims their
    /// memory. It kills none of them. The kernel rounds it down to whole pages. There is no limit by default.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// // It is slowed down at 400 MiB, and killed at 512 MiB.
    /// let limits = Limits::new().memory_high(400 << 20).memory_max(512 << 20);
    /// assert!(limits.validate().is_ok());
    /// ```
    #[must_use]
    pub fn memory_high(mut self, bytes: u64) -> Limits {
        self.memory_high = Some(bytes);
        self
    }

    /// Sets `memory.swap.max`: how much swap the processes may use together, in bytes. 0 means no swap. The kernel
    /// rounds it down to whole pages. There is no limit by default. A kernel without swap does not have the file
    /// ([`CgroupError::NoFile`]).
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// let never_swapped = Limits::new().memory_swap_max(0);
    /// assert_eq!(never_swapped, Limits::new().memory_swap_max(1 << 20).memory_swap_max(0));
    /// ```
    #[must_use]
    pub fn memory_swap_max(mut self, bytes: u64) -> Limits {
        self.memory_swap_max = Some(bytes);
        self
    }

    /// Sets `memory.oom.group` (Linux 4.19): whether the kernel kills all processes in the cgroup together when it must
    /// kill one of them. The default is `false`. With `true` it is certain that the kernel has killed the run's own
    /// process ([`End::OutOfMemory`](crate::supervisor::End::OutOfMemory)).
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// // A worker without its main process is of no use.
    /// let limits = Limits::new().memory_max(512 << 20).memory_oom_group(true);
    /// assert!(limits.validate().is_ok());
    /// ```
    #[must_use]
    pub fn memory_oom_group(mut self, yes: bool) -> Limits {
        self.memory_oom_group = Some(yes);
        self
    }

    /// Sets `cpu.max`: how much CPU time the processes may use together in each period. Both are rounded down to
    /// microseconds. The quota is 1 ms or more; a quota that is longer than the period is a limit of several CPUs. The
    /// period is 1 ms to 1 s; 100 ms is usual. There is no limit by default.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// # use std::time::Duration;
    /// let period = Duration::from_millis(100);
    /// let two_cpus = Limits::new().cpu_max(2 * period, period);
    /// assert!(two_cpus.validate().is_ok());
    /// assert!(two_cpus.cpu_max(period, Duration::from_secs(2)).validate().is_err());
    /// ```
    #[must_use]
    pub fn cpu_max(mut self, quota: Duration, period: Duration) -> Limits {
        self.cpu_max = Some((quota, period));
        self
    }

    /// Sets `cpu.weight`: the share of CPU time beside the other cgroups in the directory, 1 to 10,000. The default
    /// is 100.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// // A tenth of what another cgroup gets, if both need more than there is.
    /// assert!(Limits::new().cpu_weight(10).validate().is_ok());
    /// assert!(Limits::new().cpu_weight(10_001).validate().is_err());
    /// ```
    #[must_use]
    pub fn cpu_weight(mut self, weight: u32) -> Limits {
        self.cpu_weight = Some(weight);
        self
    }

    /// Sets `pids.max`: the largest number of processes and threads at one time, 1 to 4,194,304. A fork beyond it fails
    /// with `EAGAIN`. There is no limit by default. With a limit of 0 nothing could be started, so 0 is refused.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// // No fork bomb has more processes than this.
    /// assert!(Limits::new().pids_max(100).validate().is_ok());
    /// assert!(Limits::new().pids_max(0).validate().is_err());
    /// ```
    #[must_use]
    pub fn pids_max(mut self, tasks: u32) -> Limits {
        self.pids_max = Some(tasks);
        self
    }

    /// Sets `io.weight`: the share of input and output beside the other cgroups in the directory, 1 to 10,000, on each
    /// device. The default is 100. A kernel without the cost model of input and output does not have the file
    /// ([`CgroupError::NoFile`]).
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// assert!(Limits::new().io_weight(10).validate().is_ok());
    /// assert!(Limits::new().io_weight(0).validate().is_err());
    /// ```
    #[must_use]
    pub fn io_weight(mut self, weight: u32) -> Limits {
        self.io_weight = Some(weight);
        self
    }

    /// Sets `io.max` for the block device with these major and minor numbers: the largest rates of input and output.
    /// There is no limit by default. Each device can have its own. A partition is not a device in this sense, and the
    /// kernel refuses it.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// // 8:0 is /dev/sda, and 8:16 is /dev/sdb.
    /// let slow = IoMax::new().write_bytes(10_000_000);
    /// let limits = Limits::new().io_max(8, 0, slow).io_max(8, 16, slow);
    /// assert!(limits.validate().is_ok());
    /// ```
    #[must_use]
    pub fn io_max(mut self, major: u32, minor: u32, rates: IoMax) -> Limits {
        self.io_max.insert((major, minor), rates);
        self
    }

    /// Sets `cpuset.cpus`: the CPUs that the processes may use, by number. The list must not be empty. By default they
    /// may use those of the directory.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// assert_eq!(Limits::new().cpuset_cpus(0..4), Limits::new().cpuset_cpus([3, 2, 1, 0]));
    /// assert!(Limits::new().cpuset_cpus([]).validate().is_err());
    /// ```
    #[must_use]
    pub fn cpuset_cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Limits {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        self.cpuset_cpus = Some(cpus);
        self
    }

    /// Writes `value` into the file `name` of the cgroup, as it is. The same file can be written several times, for
    /// example `io.latency` with a line for each device. These files are written after the limits of the other
    /// setters, in the order of the calls.
    ///
    /// The name must have no slash. Files that are not limits are refused: `cgroup.procs`, `cgroup.threads`,
    /// `cgroup.kill`, `cgroup.freeze`, `cgroup.type` and `cgroup.subtree_control`.
    ///
    /// ```
    /// # use pidherd::cgroup::Limits;
    /// let limits = Limits::new().file("memory.low", "50M").file("io.latency", "8:0 target=10000");
    /// assert!(limits.validate().is_ok());
    /// assert!(limits.file("cgroup.procs", "1").validate().is_err());
    /// ```
    #[must_use]
    pub fn file(mut self, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> Limits {
        self.files.push(CgroupFile {
            name: name.as_ref().to_owned(),
            value: value.as_ref().to_owned(),
        });
        self
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Checks the ranges of all values and the names of all files. It makes no system call, and so it does not find out
    /// whether the kernel has a file or accepts a value.
    ///
    /// ```
    /// # use pidherd::cgroup::{CgroupError, Limits};
    /// let wrong = Limits::new().memory_max(1 << 20).cpu_weight(20_000);
    /// assert!(matches!(wrong.validate(), Err(CgroupError::OutOfRange { .. })));
    /// ```
    ///
    /// # Errors
    /// [`CgroupError::OutOfRange`], [`CgroupError::FileName`].
    pub fn validate(&self) -> Result<(), CgroupError> {
        in_range("cpu.weight", self.cpu_weight, WEIGHTS, WEIGHTS_TEXT)?;
        in_range("io.weight", self.io_weight, WEIGHTS, WEIGHTS_TEXT)?;
        in_range("pids.max", self.pids_max, PIDS, "1 to 4194304")?;
        if let Some((quota, period)) = self.cpu_max {
            in_range(
                "cpu.max",
                Some(micros(quota)),
                QUOTAS,
                "a quota of 1 ms to 17592186044415 us",
            )?;
            in_range("cpu.max", Some(micros(period)), PERIODS, "a period of 1 ms to 1 s")?;
        }
        for rate in self.io_max.values().flat_map(IoMax::rates) {
            in_range("io.max", rate, 1..=u64::MAX, "a rate of 1 or more")?;
        }
        if self.cpuset_cpus.as_ref().is_some_and(Vec::is_empty) {
            return Err(out_of_range("cpuset.cpus", "an empty list", "one CPU or more"));
        }
        self.files.iter().try_for_each(CgroupFile::check)
    }

    /// The files to write, in order.
    pub(crate) fn files(&self) -> Vec<CgroupFile> {
        let mut files = Vec::new();
        let mut put = |name: &str, value: Option<String>| {
            files.extend(value.map(|value| CgroupFile {
                name: name.into(),
                value: value.into(),
            }));
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        put("memory.high", number(self.memory_high));
        put("memory.max", number(self.memory_max));
        put("memory.swap.max", number(self.memory_swap_max));
        put("memory.oom.group", number(self.memory_oom_group.map(u64::from)));
        let times = |(quota, period)| format!("{} {}", micros(quota), micros(period));
        put("cpu.max", self.cpu_max.map(times));
        put("cpu.weight", number(self.cpu_weight.map(u64::from)));
        put("pids.max", number(self.pids_max.map(u64::from)));
        put("io.weight", self.io_weight.map(|weight| format!("default {weight}")));
        for ((major, minor), rates) in &self.io_max {
            put("io.max", Some(format!("{major}:{minor} {}", rates.line())));
        }
        put("cpuset.cpus", self.cpuset_cpus.as_deref().map(list));
        files.extend_from_slice(&self.files);
        files
    }

    /// The name of a file that is set; `None` if nothing is set.
    pub(crate) fn first_name(&self) -> Option<String> {
        let files = self.files();
        files.first().map(|file| file.name.to_string_lossy().into_owned())
    }
}

/// The largest rates of input and output of a cgroup on one device: a line of `io.max`. A rate that is not set is not
/// limited.
///
/// ```
/// use pidherd::cgroup::{IoMax, Limits};
///
/// let slow_disk = IoMax::new().read_bytes(5_000_000).write_operations(100);
/// let limits = Limits::new().io_max(8, 0, slow_disk);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoMax {
    read_bytes: Option<u64>,
    write_bytes: Option<u64>,
    read_operations: Option<u64>,
    write_operations: Option<u64>,
}

impl IoMax {
    /// No limit of any rate.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// // Without a rate, an earlier limit of this device is taken back.
    /// let limits = Limits::new().io_max(8, 0, IoMax::new().read_bytes(1_000)).io_max(8, 0, IoMax::new());
    /// assert_eq!(limits, Limits::new().io_max(8, 0, IoMax::new()));
    /// ```
    #[must_use]
    pub fn new() -> IoMax {
        IoMax::default()
    }

    /// Sets the number of bytes that may be read in a second (`rbps`), 1 or more.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// assert!(Limits::new().io_max(8, 0, IoMax::new().read_bytes(5_000_000)).validate().is_ok());
    /// assert!(Limits::new().io_max(8, 0, IoMax::new().read_bytes(0)).validate().is_err());
    /// ```
    #[must_use]
    pub fn read_bytes(mut self, rate: u64) -> IoMax {
        self.read_bytes = Some(rate);
        self
    }

    /// Sets the number of bytes that may be written in a second (`wbps`), 1 or more.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// let backup = IoMax::new().read_bytes(20_000_000).write_bytes(5_000_000);
    /// assert!(Limits::new().io_max(8, 0, backup).validate().is_ok());
    /// ```
    #[must_use]
    pub fn write_bytes(mut self, rate: u64) -> IoMax {
        self.write_bytes = Some(rate);
        self
    }

    /// Sets the number of reads in a second (`riops`), 1 or more.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// let scanner = IoMax::new().read_operations(200);
    /// assert!(Limits::new().io_max(8, 0, scanner).validate().is_ok());
    /// ```
    #[must_use]
    pub fn read_operations(mut self, rate: u64) -> IoMax {
        self.read_operations = Some(rate);
        self
    }

    /// Sets the number of writes in a second (`wiops`), 1 or more.
    ///
    /// ```
    /// # use pidherd::cgroup::{IoMax, Limits};
    /// let logger = IoMax::new().write_operations(100).write_bytes(1_000_000);
    /// assert!(Limits::new().io_max(8, 0, logger).validate().is_ok());
    /// ```
    #[must_use]
    pub fn write_operations(mut self, rate: u64) -> IoMax {
        self.write_operations = Some(rate);
        self
    }

    const fn rates(&self) -> [Option<u64>; 4] {
        [
            self.read_bytes,
            self.write_bytes,
            self.read_operations,
            self.write_operations,
        ]
    }

    /// The values for `io.max`, all of them, so that nothing of an earlier line stays.
    fn line(&self) -> String {
        let text = |(name, rate): (&str, Option<u64>)| {
            let rate = rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
            format!("{name}={rate}")
        };
        let names = ["rbps", "wbps", "riops", "wiops"].into_iter();
        names.zip(self.rates()).map(text).collect::<Vec<_>>().join(" ")
    }
}

const WEIGHTS: RangeInclusive<u32> = 1..=10_000;
const WEIGHTS_TEXT: &str = "1 to 10000";
/// The largest number of PIDs of any kernel is 2^22.
const PIDS: RangeInclusive<u32> = 1..=4_194_304;
/// The quota and the period of `cpu.max`, in microseconds (`min_cfs_quota_period`, `max_cfs_quota_period` and
/// `max_cfs_runtime` of the kernel).
const QUOTAS: RangeInclusive<u64> = 1_000..=(1 << 44) - 1;
const PERIODS: RangeInclusive<u64> = 1_000..=1_000_000;

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn in_range<T: PartialOrd + Display>(
    file: &'static str,
    value: Option<T>,
    range: RangeInclusive<T>,
    text: &'static str,
) -> Result<(), CgroupError> {
    match value.filter(|value| !range.contains(value)) {
        Some(value) => Err(out_of_range(file, &value.to_string(), text)),
        None => Ok(()),
    }
}

fn out_of_range(file: &'static str, value: &str, range: &'static str) -> CgroupError {
    CgroupError::OutOfRange {
        file,
        value: value.to_owned(),
        range,
    }
}

/// The numbers, sorted and without duplicates, as a list of ranges: `0-3,5`. A list of thousands of numbers would be
/// longer than the kernel accepts.
fn list(numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = numbers.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|&next| last.checked_add(1) == Some(next)) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a text does not fail.
        let _infallible = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limits: &Limits) -> Vec<String> {
        let line = |file: &CgroupFile| {
            let value = String::from_utf8(file.value.clone()).unwrap();
            format!("{} {value}", file.name.to_str().unwrap())
        };
        limits.files().iter().map(line).collect()
    }

    #[test]
    fn each_limit_is_written_as_the_kernel_expects_it() {
        let limits = Limits::new()
            .file("memory.low", "1G")
            .memory_max(1)
            .memory_max(200 << 20)
            .memory_high(4096)
            .memory_swap_max(0)
            .memory_oom_group(true)
            .cpu_max(Duration::from_nanos(1_000_999), Duration::from_millis(100))
            .cpu_weight(10_000)
            .pids_max(1)
            .io_weight(7)
            .io_max(8, 16, IoMax::new().read_bytes(5).write_operations(6))
            .io_max(8, 0, IoMax::new())
            .io_max(8, 32, IoMax::new().write_bytes(8).read_operations(9))
            .cpuset_cpus([7, 0, 1, 2, 5, 1]);
        limits.validate().unwrap();
        assert_eq!(
            lines(&limits),
            [
                "memory.high 4096",
                "memory.max 209715200",
                "memory.swap.max 0",
                "memory.oom.group 1",
                "cpu.max 1000 100000",
                "cpu.weight 10000",
                "pids.max 1",
                "io.weight default 7",
                "io.max 8:0 rbps=max wbps=max riops=max wiops=max",
                "io.max 8:16 rbps=5 wbps=max riops=max wiops=6",
                "io.max 8:32 rbps=max wbps=8 riops=9 wiops=max",
                "cpuset.cpus 0-2,5,7",
                "memory.low 1G",
            ]
        );
        assert!(Limits::new().is_empty() && Limits::new().files().is_empty() && !limits.is_empty());
    }

    #[test]
    fn a_value_outside_of_its_range_is_refused() {
        let ms = Duration::from_millis;
        let new = Limits::new;
        let longest = Duration::from_micros(17_592_186_044_415);
        for (limits, file) in [
            (new().cpu_weight(0), "cpu.weight"),
            (new().cpu_weight(10_001), "cpu.weight"),
            (new().io_weight(0), "io.weight"),
            (new().io_weight(10_001), "io.weight"),
            (new().pids_max(0), "pids.max"),
            (new().pids_max(4_194_305), "pids.max"),
            (new().cpu_max(Duration::from_micros(999), ms(100)), "cpu.max"),
            (new().cpu_max(longest + Duration::from_micros(1), ms(100)), "cpu.max"),
            (new().cpu_max(Duration::MAX, ms(100)), "cpu.max"),
            (new().cpu_max(ms(1), Duration::from_micros(999)), "cpu.max"),
            (new().cpu_max(ms(1), Duration::from_micros(1_000_001)), "cpu.max"),
            (new().io_max(8, 0, IoMax::new().read_bytes(0)), "io.max"),
            (new().io_max(8, 0, IoMax::new().write_operations(0)), "io.max"),
            (new().cpuset_cpus([]), "cpuset.cpus"),
        ] {
            let refused = limits.validate().unwrap_err();
            let named = matches!(refused, CgroupError::OutOfRange { file: name, .. } if name == file);
            assert!(named, "{refused}");
        }
        for limits in [
            new().cpu_weight(1).io_weight(1).cpu_max(ms(1), ms(1)),
            new().cpu_weight(10_000).io_weight(10_000).cpu_max(ms(5_000), ms(1_000)),
            new().cpu_max(longest, ms(100)),
            new().pids_max(4_194_304).memory_max(0).memory_high(u64::MAX),
        ] {
            limits.validate().unwrap();
        }
        let refused = new().file("a/b", "1").validate().unwrap_err();
        assert!(matches!(refused, CgroupError::FileName { .. }), "{refused}");
        let refused = new().cpu_weight(0).validate().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "cannot write a limit of 0 to cpu.weight: it must be 1 to 10000"
        );
    }
}
