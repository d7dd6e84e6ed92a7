//! What only /proc tells: whether a process group has a member that is not a zombie.
//!
//! A signal to a group also "reaches" zombies that nobody reaps, so the signal alone cannot tell a
//! group that refuses to die from one that is dead and unburied.

use std::fs;
use std::io;

use crate::exit::Pid;

/// Whether any process of this group is alive. Reads all of /proc: for those few cases in which
/// nothing else can tell.
///
/// # Errors
/// /proc is not mounted, or may not be read. A process that ends meanwhile is not an error.
pub(crate) fn group_lives(group: Pid) -> io::Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let is_process = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        let Ok(stat) = fs::read(format!("/proc/{}/stat", name.to_string_lossy())) else {
            continue;
        };
        if lives_in(&stat, group) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether this line of /proc/PID/stat is that of a living member of the group. The name before
/// the state is in parentheses, and may hold anything, parentheses too (proc_pid_stat(5)).
fn lives_in(stat: &[u8], group: Pid) -> bool {
    let Some(end) = stat.iter().rposition(|&byte| byte == b')') else {
        return false;
    };
    let mut fields = stat[end + 1..]
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let alive = fields.next().is_some_and(|state| !matches!(state, b"Z" | b"X" | b"x"));
    let group_field = fields.nth(1).and_then(|field| std::str::from_utf8(field).ok());
    alive && group_field == Some(group.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_state_and_group_whatever_the_name() {
        let group = Pid::new(77).unwrap();
        for (stat, lives) in [
            (&b"5 (sleep) S 1 77 77 0 -1"[..], true),
            (b"5 (a) Z 1 77 (b) R 1 77 3", true),
            (b"5 (sleep) Z 1 77 77 0 -1", false),
            (b"5 (x) X 1 77 77", false),
            (b"5 (sleep) S 1 7 77", false),
            (b"5 (sleep) S 1", false),
            (b"nonsense", false),
            (b"", false),
        ] {
            assert_eq!(lives_in(stat, group), lives, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn the_own_group_lives() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        assert!(group_lives(Pid::new(own.try_into().unwrap()).unwrap()).unwrap());
    }
}
