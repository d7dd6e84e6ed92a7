//! The fields of /proc/PID/stat (proc_pid_stat(5)).

use std::fs::File;
use std::io::Write;
use std::str;

use rustix::io::retry_on_intr;

use crate::exit::Pid;

/// More than the length of a line of /proc/PID/stat up to and including its 22nd field.
pub(super) const STAT_ROOM: usize = 1024;

/// The origin of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The parent. `None` if it is outside of this PID namespace.
    pub(super) parent: Option<Pid>,
    /// The start time in clock ticks since boot.
    pub(super) started: u64,
}

/// Reads the origin of a process. `None`: the process does not exist, or is not visible.
pub(super) fn origin(pid: Pid) -> Option<Origin> {
    let mut path = [0; "/proc/4294967295/stat".len()];
    let room = path.len();
    let mut rest = &mut path[..];
    write!(rest, "/proc/{pid}/stat").ok()?;
    let length = room - rest.len();
    let file = File::open(str::from_utf8(path.get(..length)?).ok()?).ok()?;
    let mut stat = [0; STAT_ROOM];
    let length = retry_on_intr(|| rustix::io::read(&file, &mut stat)).ok()?;
    origin_of(stat.get(..length)?)
}

fn origin_of(stat: &[u8]) -> Option<Origin> {
    let mut fields = fields(stat)?;
    let mut number = |skip| str::from_utf8(fields.nth(skip)?).ok()?.parse::<u64>().ok();
    // After the state the fourth field of proc_pid_stat(5), then the 22nd.
    let parent = number(1)?;
    let started = number(17)?;
    Some(Origin {
        parent: Pid::new(u32::try_from(parent).ok()?),
        started,
    })
}

/// The number in the field at this distance from the state.
pub(super) fn number(stat: &[u8], after: usize) -> Option<u64> {
    let field = fields(stat)?.nth(after)?;
    str::from_utf8(field).ok()?.parse().ok()
}

/// The fields of a line of /proc/PID/stat from the third on, the state. The name before it is in parentheses, and can
/// contain any character, including parentheses (proc_pid_stat(5)).
pub(super) fn fields(stat: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = stat.get(end + 1..)?.split(u8::is_ascii_whitespace);
    Some(fields.filter(|field| !field.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parent_and_start_whatever_the_name() {
        let numbers = "7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22000 23 24";
        for (name, parent) in [("(sleep)", 4), ("(a) S 1 2 (b)", 4), ("()", 4), ("(x)", 0)] {
            let stat = format!("3 {name} S {parent} 5 6 {numbers}");
            let expected = Origin {
                parent: Pid::new(parent),
                started: 22000,
            };
            assert_eq!(origin_of(stat.as_bytes()), Some(expected), "{stat}");
        }
        for stat in [
            "",
            "nonsense",
            "3 (x)",
            "3 (x) S",
            "3 (x) S 4",
            "3 (x) S y 5 6",
            "3 (x) S -1 5 6 7",
        ] {
            assert_eq!(origin_of(stat.as_bytes()), None, "{stat}");
        }
        let huge = format!("3 (x) S 4294967296 5 6 {numbers}");
        assert_eq!(origin_of(huge.as_bytes()), None);
    }
}
