//! The difference between two descriptions of a cgroup's files: what must be written to a cgroup that has one of them
//! so that it has the other.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::str;

use super::files::CgroupFile;

/// A setting of a cgroup: a file, or the part of a file that is about one device.
#[derive(Clone, PartialEq, Eq)]
struct Setting {
    name: OsString,
    /// `8:0`, for a file of the io controller.
    device: Option<String>,
}

impl Setting {
    fn of(file: &CgroupFile) -> Setting {
        let first = file.value.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
        let first = first.and_then(|word| str::from_utf8(word).ok());
        let is_io = file.name.as_bytes().starts_with(b"io.");
        Setting {
            name: file.name.clone(),
            device: first.filter(|word| is_io && word.contains(':')).map(str::to_owned),
        }
    }

    /// The file with the kernel's default; `None` if the default is not known.
    fn default(&self) -> Option<CgroupFile> {
        let value = match (&self.device, self.name.to_str()?) {
            (Some(device), "io.max") => format!("{device} rbps=max wbps=max riops=max wiops=max"),
            (Some(device), "io.weight") => format!("{device} default"),
            (None, name) => default_of(name)?.to_owned(),
            (Some(_), _) => return None,
        };
        Some(CgroupFile {
            name: self.name.clone(),
            value: value.into(),
        })
    }

    /// The values that are written for this setting and that have an effect: all lines of a device in `io.max`, where a
    /// line leaves alone what it does not name, and otherwise the last one.
    fn values<'a>(&self, files: &'a [CgroupFile]) -> Vec<&'a [u8]> {
        let own = files.iter().filter(|file| Setting::of(file) == *self);
        let mut values: Vec<_> = own.map(|file| file.value.trim_ascii()).collect();
        if !self.adds_up() {
            values.drain(..values.len().saturating_sub(1));
        }
        values
    }

    /// Whether a line leaves alone what it does not name.
    fn adds_up(&self) -> bool {
        self.name == OsStr::new("io.max")
    }
}

/// The default of a file, as the kernel's documentation states it (`Documentation/admin-guide/cgroup-v2.rst`).
fn default_of(name: &str) -> Option<&'static str> {
    match name {
        "memory.max"
        | "memory.high"
        | "memory.swap.max"
        | "memory.swap.high"
        | "memory.zswap.max"
        | "pids.max"
        | "cgroup.max.depth"
        | "cgroup.max.descendants"
        | "cpu.uclamp.max" => Some("max"),
        "memory.min" | "memory.low" | "memory.oom.group" | "cpu.max.burst" | "cpu.idle" | "cpu.weight.nice"
        | "cpu.uclamp.min" => Some("0"),
        "cpu.max" => Some("max 100000"),
        "cpu.weight" => Some("100"),
        "io.weight" => Some("default 100"),
        "cpuset.cpus" | "cpuset.mems" => Some(""),
        _ => None,
    }
}

fn settings(files: &[CgroupFile]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for setting in files.iter().map(Setting::of) {
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    settings
}

/// The files to write to a cgroup with `old` so that it has `new`, in order. What is only in `old` gets the kernel's
/// default. `None` if that is not known, and only a new cgroup has it.
pub(crate) fn changes(old: &[CgroupFile], new: &[CgroupFile]) -> Option<Vec<CgroupFile>> {
    let mut changes = Vec::new();
    let (before, after) = (settings(old), settings(new));
    for setting in before.iter().filter(|setting| !after.contains(setting)) {
        changes.push(setting.default()?);
    }
    for setting in &after {
        let (was, is) = (setting.values(old), setting.values(new));
        if was == is {
            continue;
        }
        let names_all = is
            .last()
            .is_some_and(|line| line.iter().filter(|&&byte| byte == b'=').count() == 4);
        if setting.adds_up() && !was.is_empty() && !names_all {
            changes.push(setting.default()?);
        }
        changes.extend(is.into_iter().map(|value| CgroupFile {
            name: setting.name.clone(),
            value: value.to_owned(),
        }));
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{IoMax, Limits};

    /// The lines that change a cgroup with `old` into one with `new`.
    fn lines(old: Limits, new: Limits) -> Option<Vec<String>> {
        let line = |file: CgroupFile| {
            let value = String::from_utf8(file.value).unwrap();
            format!("{}={value}", file.name.to_str().unwrap())
        };
        let changes = changes(&old.files(), &new.files())?;
        Some(changes.into_iter().map(line).collect())
    }

    #[test]
    fn what_is_the_same_is_not_written() {
        let limits = || Limits::new().memory_max(1 << 20).file("pids.max", "7\n");
        assert_eq!(lines(limits(), limits()).unwrap(), [""; 0]);
        let typed = Limits::new().memory_max(1 << 20).pids_max(7);
        assert_eq!(lines(limits(), typed).unwrap(), [""; 0]);
        assert_eq!(lines(limits(), limits().memory_max(2)).unwrap(), ["memory.max=2"]);
        // The last one counts.
        let twice = Limits::new().file("pids.max", "9").file("pids.max", "7");
        assert_eq!(lines(twice, Limits::new().pids_max(7)).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_dropped_gets_the_default_of_the_kernel() {
        let all = Limits::new()
            .memory_max(1)
            .memory_high(1)
            .memory_swap_max(1)
            .memory_oom_group(true)
            .cpu_max(std::time::Duration::from_millis(1), std::time::Duration::from_millis(1))
            .cpu_weight(1)
            .pids_max(1)
            .io_weight(1)
            .io_max(8, 0, IoMax::new().read_bytes(1))
            .cpuset_cpus([0])
            .file("io.weight", "8:16 200");
        assert_eq!(
            lines(all, Limits::new()).unwrap(),
            [
                "memory.high=max",
                "memory.max=max",
                "memory.swap.max=max",
                "memory.oom.group=0",
                "cpu.max=max 100000",
                "cpu.weight=100",
                "pids.max=max",
                "io.weight=default 100",
                "io.max=8:0 rbps=max wbps=max riops=max wiops=max",
                "cpuset.cpus=",
                "io.weight=8:16 default",
            ]
        );
        let unknown = Limits::new().file("misc.max", "a 1");
        assert_eq!(lines(unknown.clone(), Limits::new()), None);
        assert_eq!(lines(Limits::new(), unknown).unwrap(), ["misc.max=a 1"]);
    }

    #[test]
    fn the_devices_are_limited_one_by_one() {
        let disk = |minor, rate| Limits::new().io_max(8, minor, IoMax::new().read_bytes(rate));
        let changed = lines(disk(0, 1), disk(16, 1)).unwrap();
        let reset = "io.max=8:0 rbps=max wbps=max riops=max wiops=max";
        assert_eq!(changed, [reset, "io.max=8:16 rbps=1 wbps=max riops=max wiops=max"]);
        // A line that names all needs no reset before it.
        let changed = lines(disk(0, 1), disk(0, 2)).unwrap();
        assert_eq!(changed, ["io.max=8:0 rbps=2 wbps=max riops=max wiops=max"]);
        // A line by name leaves alone what it does not name.
        let named = |lines: &[&str]| {
            lines
                .iter()
                .fold(Limits::new(), |limits, line| limits.file("io.max", line))
        };
        let changed = lines(named(&["8:0 rbps=1", "8:0 wbps=1"]), named(&["8:0 wbps=1"])).unwrap();
        assert_eq!(changed, [reset, "io.max=8:0 wbps=1"]);
        assert_eq!(
            lines(Limits::new(), named(&["8:0 rbps=1", "8:0 wbps=1"])).unwrap(),
            ["io.max=8:0 rbps=1", "io.max=8:0 wbps=1"]
        );
    }
}
