//! The faults of the simulated world, and how likely each of them is.

use std::time::Duration;

use super::chance::{Chance, OneIn};
use super::process::{Habits, KILLED, Member, Takeoff};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::time::Instant;

/// The probability of each fault. It changes during an episode: a fault may occur once, now and then, or always.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FaultProfile {
    /// A spawn fails, with any errno.
    pub(super) spawn_fails: OneIn,
    /// The execution of a program takes any time instead of a short one.
    pub(super) exec_is_slow: OneIn,
    /// It hangs until the process is killed.
    pub(super) exec_hangs: OneIn,
    /// It fails, after any time, with any errno.
    pub(super) exec_fails: OneIn,
    /// A spawn waits for the execution although it could be in flight.
    pub(super) spawn_waits: OneIn,
    /// A process has ended before its spawn returned.
    pub(super) dead_on_arrival: OneIn,
    /// A signal fails with EPERM, ESRCH, or an unexpected errno.
    pub(super) signal_fails: OneIn,
    /// Collecting a process returns an error.
    pub(super) collect_fails: OneIn,
    /// Collecting a process that has ended finds it alive.
    pub(super) collect_is_late: OneIn,
    /// No descriptor is free to keep a group in reach, so every process in it is killed at once.
    pub(super) group_is_lost: OneIn,
    /// The kernel cannot answer whether a group is empty.
    pub(super) look_fails: OneIn,
    /// The timer cannot be armed.
    pub(super) arm_fails: OneIn,
    /// A call takes a while.
    pub(super) call_takes_long: OneIn,
    /// A new process ends by itself, ignores signals, stops itself, or leaves other processes behind.
    pub(super) sick: OneIn,
}

impl FaultProfile {
    /// No fault occurs.
    pub(super) const KIND: FaultProfile = FaultProfile {
        spawn_fails: 0,
        exec_is_slow: 0,
        exec_hangs: 0,
        exec_fails: 0,
        spawn_waits: 0,
        dead_on_arrival: 0,
        signal_fails: 0,
        collect_fails: 0,
        collect_is_late: 0,
        group_is_lost: 0,
        look_fails: 0,
        arm_fails: 0,
        call_takes_long: 0,
        sick: 0,
    };

    /// A random profile, from one with faulty processes alone to one in which nothing works.
    pub(super) fn random(chance: &mut Chance) -> FaultProfile {
        if chance.happens(3) {
            return FaultProfile {
                sick: chance.pick(&[0, 1, 2]),
                ..FaultProfile::KIND
            };
        }
        let mut often = |most: &[OneIn]| chance.pick(most);
        FaultProfile {
            spawn_fails: often(&[0, 1, 2, 5, 20]),
            dead_on_arrival: often(&[0, 2, 5, 20]),
            signal_fails: often(&[0, 0, 1, 3, 20]),
            collect_fails: often(&[0, 0, 2, 5]),
            collect_is_late: often(&[0, 0, 2, 5]),
            group_is_lost: often(&[0, 0, 3]),
            look_fails: often(&[0, 0, 2, 5]),
            arm_fails: often(&[0, 0, 0, 3, 20]),
            call_takes_long: often(&[0, 2, 10]),
            sick: often(&[1, 1, 2, 4]),
            exec_is_slow: often(&[0, 1, 1, 2, 5]),
            exec_hangs: often(&[0, 0, 1, 3, 10]),
            exec_fails: often(&[0, 1, 2, 5, 20]),
            spawn_waits: often(&[0, 0, 4]),
        }
    }

    /// How the next process in flight comes to execute its program.
    pub(super) fn takeoff(&self, chance: &mut Chance) -> Takeoff {
        let soon = Duration::from_micros(chance.below(300));
        let late = chance.time();
        let takes = match () {
            () if chance.happens(self.exec_hangs) => Duration::MAX,
            () if chance.happens(self.exec_is_slow) => late,
            () => chance.pick(&[Duration::ZERO, soon, soon]),
        };
        let fails = chance.happens(self.exec_fails).then(|| any_errno(chance));
        let blocks = chance.happens(2);
        Takeoff { takes, fails, blocks }
    }

    /// The behaviour of the next process that runs a command before or after a run: it ends by itself, as a rule soon
    /// and with success.
    pub(super) fn command_habits(&self, chance: &mut Chance, now: Instant) -> Habits {
        let habits = self.habits(chance, now);
        let soon = Duration::from_micros(chance.below(20_000));
        if chance.happens(self.sick) && chance.happens(2) {
            return habits;
        }
        Habits {
            ends: Some((soon, Exit::Code(0))),
            stops: None,
            ..habits
        }
    }

    /// The behaviour of the next process.
    pub(super) fn habits(&self, chance: &mut Chance, now: Instant) -> Habits {
        let end = any_exit(chance);
        if !chance.happens(self.sick) {
            return Habits {
                ends: None,
                stops: None,
                ends_on_signal: Some((Duration::from_millis(chance.below(20)), end)),
                dying: Duration::ZERO,
                readiness: Some((Duration::from_micros(chance.below(1_000)), true)),
                messages: vec![(Duration::from_micros(chance.below(1_000)), READY)],
                others: Vec::new(),
            };
        }
        let ends_on_signal = !chance.happens(3);
        let hangs = chance.happens(8);
        Habits {
            ends: (!chance.happens(3)).then(|| (chance.time(), any_exit(chance))),
            stops: chance.happens(5).then(|| chance.time()),
            ends_on_signal: ends_on_signal.then(|| (chance.time(), end)),
            dying: if hangs { chance.time() } else { Duration::ZERO },
            readiness: chance.happens(2).then(|| (chance.time(), !chance.happens(4))),
            messages: (0..chance.below(4))
                .map(|_| (chance.time(), chance.pick(MESSAGES)))
                .collect(),
            others: (0..chance.below(4)).map(|_| any_member(chance, now)).collect(),
        }
    }
}

/// The message of a process that is ready.
pub(super) const READY: &str = "READY=1";

/// The message of a process that has found out that it failed.
pub(super) const FAILED: &str = "WATCHDOG=trigger";

/// The messages that a process may send.
const MESSAGES: &[&str] = &[
    READY,
    READY,
    "STATUS=Reading.\nREADY=1",
    "STATUS=Busy.",
    "WATCHDOG=1",
    FAILED,
    "EXTEND_TIMEOUT_USEC=1000",
    "nonsense",
];

/// The message that a process with a descriptor store sends in place of this one.
pub(super) fn with_descriptor(text: &'static str) -> &'static str {
    match text {
        "STATUS=Reading.\nREADY=1" => "FDSTORE=1\nREADY=1",
        "STATUS=Busy." => "FDSTORE=1\nFDNAME=a",
        "EXTEND_TIMEOUT_USEC=1000" => "FDSTORE=1\nFDNAME=a:b",
        "nonsense" => "FDSTOREREMOVE=1\nFDNAME=a",
        other => other,
    }
}

/// The errno of a spawn that fails.
pub(super) fn any_errno(chance: &mut Chance) -> i32 {
    if chance.happens(2) {
        chance.pick(&[libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENOENT, libc::EACCES])
    } else {
        1 + chance.below(133) as i32
    }
}

fn any_member(chance: &mut Chance, now: Instant) -> Member {
    Member {
        ends: if chance.happens(2) {
            Instant::NEVER
        } else {
            now.saturating_add(chance.time())
        },
        in_group: !chance.happens(3),
        ends_on_signal: chance.happens(2),
        is_reaped: !chance.happens(4),
        alive: true,
    }
}

fn any_exit(chance: &mut Chance) -> Exit {
    let term = Exit::Signal {
        signal: Signal::TERM,
        core: false,
    };
    let fault = Exit::Signal {
        signal: Signal::SEGV,
        core: true,
    };
    match chance.below(8) {
        0..=2 => Exit::Code(0),
        3 => Exit::Code(chance.below(256) as u8),
        4 | 5 => term,
        6 => chance.pick(&[fault, KILLED]),
        _ => chance.pick(&[Exit::Code(1), Exit::Unknown]),
    }
}
