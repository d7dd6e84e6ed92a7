//! The processor time and the memory of one process, from /proc.

use std::time::Duration;

/// What a run has used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode and in the kernel. `None` if it is not known.
    pub cpu: Option<Duration>,
    /// The memory in use now, in bytes. `None` if it is not known.
    pub memory: Option<u64>,
}

/// What a process has used, without its children: its processor time, and its resident memory (proc_pid_stat(5),
/// proc_pid_statm(5)).
pub fn of_process(pid: u32) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok();
    let pages = statm.as_deref().and_then(resident_pages);
    Usage {
        cpu: stat.as_deref().and_then(processor_time),
        memory: pages.map(|pages| pages.saturating_mul(rustix::param::page_size() as u64)),
    }
}

/// The 14th and the 15th field of /proc/PID/stat, counted in clock ticks. The second field may contain any character,
/// so the fields are counted from its end.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let all = ticks()?.saturating_add(ticks()?);
    let second = rustix::param::clock_ticks_per_second().max(1);
    let nanos = all % second * 1_000_000_000 / second;
    Some(Duration::from_secs(all / second) + Duration::from_nanos(nanos))
}

/// The second field of /proc/PID/statm.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_after_any_name() {
        let fields = "R 1 2 3 4 5 6 7 8 9 10 150 25 7 7 20";
        for name in ["(sleep)", "(a) b)", "(()"] {
            let time = processor_time(&format!("12 {name} {fields}"));
            let ticks = rustix::param::clock_ticks_per_second();
            assert_eq!(time.map(|time| time.as_millis()), Some(u128::from(175_000 / ticks)));
        }
        assert_eq!(processor_time("12 (sleep) R 1"), None);
        assert_eq!(resident_pages("900 42 7 1 0 3 0"), Some(42));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn this_process_uses_memory_and_one_that_is_gone_uses_nothing() {
        let own = of_process(std::process::id());
        assert!(own.memory.is_some_and(|memory| memory > 100_000), "{own:?}");
        assert!(own.cpu.is_some());
        assert_eq!(of_process(u32::MAX), Usage::default());
    }
}
