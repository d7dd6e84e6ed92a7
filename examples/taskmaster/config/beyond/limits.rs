//! The keys with the names of files of a cgroup: limits, and any other file.
//!
//! A key with the name of a known limit is parsed, so that a mistake is reported with the key. Every other key that
//! begins with the name of a controller is a file, which gets the value as it is (cgroups(7)).

use std::time::Duration;

use pidherd::cgroup::{IoMax, Limits};

use super::super::keys::Keys;
use super::super::values;

/// The period of `cpu.max` if the value has none.
const PERIOD: Duration = Duration::from_millis(100);

/// Reads the limits. They need a cgroup.
pub fn read(keys: &mut Keys<'_>) -> Limits {
    let mut names: Vec<&str> = Vec::new();
    let entries = keys.section.defaults.iter().chain(&keys.section.entries);
    for (key, _) in entries.filter(|(key, _)| values::is_cgroup_file(key)) {
        if !names.contains(&key.as_str()) {
            names.push(key);
        }
    }
    let has_cgroup = keys.has("cgroup");
    let mut limits = Limits::new();
    for name in names {
        if !has_cgroup {
            keys.complain(name, "a limit needs cgroup=DIRECTORY");
            continue;
        }
        let before = limits.clone();
        limits = keys
            .optional(name, |text| limit(limits.clone(), name, text))
            .unwrap_or(before);
    }
    limits
}

fn limit(limits: Limits, name: &str, text: &str) -> Result<Limits, String> {
    let limited = match name {
        // `max` is the kernel's word for no limit, and written as it is.
        _ if text == "max" => limits.file(name, text),
        "memory.max" => limits.memory_max(values::bytes(text)?),
        "memory.high" => limits.memory_high(values::bytes(text)?),
        "memory.swap.max" => limits.memory_swap_max(values::bytes(text)?),
        "memory.oom.group" => limits.memory_oom_group(values::boolean(text)?),
        "cpu.max" => {
            let (quota, period) = cpu_max(text)?;
            limits.cpu_max(quota, period)
        }
        "cpu.weight" => limits.cpu_weight(values::count(text)?),
        "pids.max" => limits.pids_max(values::count(text)?),
        "io.weight" => limits.io_weight(values::count(text)?),
        "io.max" => {
            let devices = text.lines().map(str::trim).filter(|line| !line.is_empty());
            devices.map(io_max).try_fold(limits, |limits, device| {
                let (major, minor, rates) = device?;
                Ok::<_, String>(limits.io_max(major, minor, rates))
            })?
        }
        "cpuset.cpus" => limits.cpuset_cpus(cpus(text)?),
        _ => text.lines().fold(limits, |limits, line| limits.file(name, line.trim())),
    };
    limited.validate().map_err(|error| error.to_string())?;
    Ok(limited)
}

/// Parses `50%` of one CPU, or a quota and a period in microseconds, as in the kernel's file.
fn cpu_max(text: &str) -> Result<(Duration, Duration), String> {
    const FORM: &str = "expected a percentage of one CPU, such as 50%, or QUOTA PERIOD in microseconds";
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u32 = percent.trim().parse().map_err(|_| FORM.to_owned())?;
        return Ok((PERIOD.saturating_mul(percent) / 100, PERIOD));
    }
    let micros = |word: &str| word.parse().map(Duration::from_micros).map_err(|_| FORM.to_owned());
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [quota] => Ok((micros(quota)?, PERIOD)),
        [quota, period] => Ok((micros(quota)?, micros(period)?)),
        _ => Err(FORM.to_owned()),
    }
}

/// Parses `MAJOR:MINOR rbps=N wbps=N riops=N wiops=N`, as in the kernel's file. A rate may be missing or `max`.
fn io_max(line: &str) -> Result<(u32, u32, IoMax), String> {
    let form = || "expected MAJOR:MINOR and rates, such as 8:0 rbps=1000000 wiops=100".to_owned();
    let mut words = line.split_whitespace();
    let (major, minor) = words.next().and_then(|word| word.split_once(':')).ok_or_else(form)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| form());
    let mut rates = IoMax::new();
    for word in words {
        let (name, rate) = word.split_once('=').ok_or_else(form)?;
        if rate == "max" {
            continue;
        }
        let rate = values::bytes(rate)?;
        rates = match name {
            "rbps" => rates.read_bytes(rate),
            "wbps" => rates.write_bytes(rate),
            "riops" => rates.read_operations(rate),
            "wiops" => rates.write_operations(rate),
            _ => return Err(form()),
        };
    }
    Ok((number(major)?, number(minor)?, rates))
}

/// The largest number of a CPU that a list may name.
const MOST_CPUS: u32 = 65_535;

/// Parses a list of CPUs, such as `0-3,8`.
fn cpus(text: &str) -> Result<Vec<u32>, String> {
    let form = || format!("expected numbers of CPUs up to {MOST_CPUS}, such as 0-3,8");
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|&number| number <= MOST_CPUS);
        number.ok_or_else(form)
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cpus.push(number(part)?),
            Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, text: &str) -> Result<Limits, String> {
        super::limit(Limits::new(), name, text)
    }

    #[test]
    fn limits_have_the_kernels_names_and_supervisords_units() {
        assert_eq!(limit("memory.max", "200MB"), Ok(Limits::new().memory_max(200 << 20)));
        assert_eq!(limit("pids.max", "50"), Ok(Limits::new().pids_max(50)));
        let half = Limits::new().cpu_max(Duration::from_millis(50), PERIOD);
        for text in ["50%", "50000", "50000 100000"] {
            assert_eq!(limit("cpu.max", text), Ok(half.clone()), "{text}");
        }
        let disk = IoMax::new().read_bytes(1 << 20).write_operations(100);
        let disk = Limits::new().io_max(8, 0, disk);
        assert_eq!(limit("io.max", "8:0 rbps=1MB wiops=100 wbps=max"), Ok(disk));
        assert_eq!(
            limit("cpuset.cpus", "0-2,5"),
            Ok(Limits::new().cpuset_cpus([0, 1, 2, 5]))
        );
        assert_eq!(limit("memory.low", "50M"), Ok(Limits::new().file("memory.low", "50M")));
        assert_eq!(limit("memory.max", "max"), Ok(Limits::new().file("memory.max", "max")));
    }

    #[test]
    fn a_wrong_limit_is_a_mistake() {
        for (name, text) in [
            ("memory.max", "much"),
            ("pids.max", "0"),
            ("cpu.max", "half"),
            ("cpu.weight", "10001"),
            ("io.max", "8 rbps=1"),
            ("io.max", "8:0 speed=1"),
            ("cpuset.cpus", "3-x"),
            ("cpuset.cpus", "0-4000000000"),
            ("cgroup.procs", "1"),
        ] {
            assert!(limit(name, text).is_err(), "{name}={text}");
        }
    }
}
