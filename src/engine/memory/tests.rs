//! Runs that are remembered in few bytes. Compiled under `#[cfg(test)]` alone.

use super::*;
use crate::cgroup::OomLimit;
use crate::command::{SpawnError, SpawnStep};
use crate::lifecycle::CommandFailure;
use crate::random::Random;

fn record(pid: u32, exit: Exit, usage: Option<Usage>) -> ExitRecord {
    let pid = Pid::new(pid).unwrap();
    ExitRecord { pid, exit, usage }
}

fn run(number: u64, exit: Option<ExitRecord>, end: End) -> Run {
    Run {
        number,
        pid: exit.map(|exit| exit.pid),
        started_at: wall(1_700_000_000_123_456_789),
        ended_at: wall(1_700_000_007_123_499_111),
        lasted: Duration::from_nanos(7_000_042_321),
        exit,
        cgroup: None,
        end,
    }
}

fn usage(unit: u64) -> Usage {
    Usage {
        user: Duration::from_micros(3 * unit),
        system: Duration::from_micros(unit),
        max_rss: unit * 4_096,
        major_faults: unit / 1_000,
        minor_faults: unit,
    }
}

/// Runs with every end and every kind of exit record.
fn runs() -> Vec<Run> {
    let signal = Signal::SEGV;
    let exits = [
        Exit::Code(0),
        Exit::Code(255),
        Exit::Signal { signal, core: false },
        Exit::Signal { signal, core: true },
        Exit::Unknown,
    ];
    let mut ends = PLAIN.to_vec();
    ends.extend([
        End::NotSpawned(SpawnError::new("web".into(), SpawnStep::Exec, 2, None)),
        End::Exited(0),
        End::Exited(255),
        End::Crashed { signal, core: true },
        End::KilledFromOutside(signal),
        End::OutOfMemory(OomLimit::Ancestor { levels: 3 }),
        End::MaybeOutOfMemory(OomLimit::Own),
        End::Unhealthy {
            reason: "x".repeat(300).into(),
        },
        End::BeforeFailed(CommandFailure::TimedOut),
    ]);
    let usages = [
        None,
        Some(usage(1)),
        Some(usage(1 << 40)),
        Some(Usage { max_rss: 1, ..usage(5) }),
    ];
    let mut runs = Vec::new();
    for end in ends {
        runs.push(run(1, None, end.clone()));
        for (number, exit) in (2..).zip(exits) {
            let usage = usages[number as usize % usages.len()];
            runs.push(run(number, Some(record(1 << 22, exit, usage)), end.clone()));
        }
    }
    runs.extend(odd_runs());
    runs
}

/// Runs with rare fields, or that only the form of images fits.
fn odd_runs() -> Vec<Run> {
    let plain = || run(u64::MAX, None, End::Stopped);
    let far = Duration::from_secs(u64::MAX / 4);
    let usage = CgroupUsage {
        cpu: Some(Duration::from_micros(7)),
        io_written: Some(1 << 50),
        ..CgroupUsage::default()
    };
    [
        Run {
            pid: Pid::new(7),
            ..plain()
        },
        Run {
            started_at: SystemTime::UNIX_EPOCH - far,
            ..plain()
        },
        Run {
            ended_at: wall(i64::MIN + 1),
            ..plain()
        },
        Run {
            lasted: Duration::MAX,
            ..plain()
        },
        Run {
            lasted: Duration::ZERO,
            ..plain()
        },
        Run {
            cgroup: Some(CgroupUsage::default()),
            ..plain()
        },
        Run {
            cgroup: Some(usage),
            ..plain()
        },
        Run {
            cgroup: Some(CgroupUsage {
                cpu: Some(Duration::from_nanos(1)),
                ..usage
            }),
            ..plain()
        },
    ]
    .into()
}

#[test]
fn every_run_comes_back_as_it_was() {
    let mut memory = Memory::default();
    let runs = runs();
    runs.iter().for_each(|run| memory.push(run));
    assert_eq!(memory.iter().collect::<Vec<_>>(), runs);
    assert_eq!(memory.len(), runs.len());
    assert!(memory.iter().rev().eq(runs.iter().rev().cloned()));
    let mut ends = memory.iter();
    assert_eq!(
        (ends.next_back().as_ref(), ends.next().as_ref()),
        (runs.last(), runs.first())
    );
    assert_eq!(ends.count(), runs.len() - 2);
}

#[test]
fn the_last_runs_and_the_last_exit_are_those_of_a_list() {
    let all = runs();
    for most in [1, 3, 40] {
        let (mut memory, mut random) = (Memory::default(), Random::new(most));
        let (mut model, mut last) = (std::collections::VecDeque::new(), None);
        memory.reserve(most as usize);
        for _ in 0..2_000 {
            let next = &all[random.below(all.len() as u64) as usize];
            match random.below(4) {
                0 => {
                    last = next.exit;
                    memory.set_last_exit(last.as_ref());
                }
                1 => {
                    memory.forget_oldest();
                    model.pop_front();
                }
                _ => {
                    if model.len() == most as usize {
                        memory.forget_oldest();
                        model.pop_front();
                    }
                    memory.push(next);
                    model.push_back(next.clone());
                }
            }
            assert!(memory.iter().eq(model.iter().cloned()));
            assert_eq!((memory.len(), memory.last_exit()), (model.len(), last));
        }
    }
}

#[test]
fn runs_of_a_day_fit_into_the_memory_that_is_reserved() {
    let usage = Usage {
        user: Duration::from_micros(36_000_123_456),
        system: Duration::from_micros(7_200_123_456),
        max_rss: 8 << 30,
        major_faults: 1_000,
        minor_faults: 1 << 24,
    };
    let exit = record(4_000_000, Exit::Code(1), Some(usage));
    let day = Duration::from_secs(24 * 3_600);
    let mut long = run(10_000, Some(exit), End::Exited(1));
    (long.lasted, long.ended_at) = (day, long.started_at + day + Duration::from_micros(500));
    let mut memory = Memory::default();
    memory.reserve(5);
    let reserved = memory.capacity();
    for number in 0..50 {
        memory.set_last_exit(Some(&exit));
        if memory.len() == 5 {
            memory.forget_oldest();
        }
        memory.push(&Run { number, ..long.clone() });
    }
    assert_eq!(memory.capacity(), reserved);
    assert_eq!(memory.iter().next_back(), Some(Run { number: 49, ..long }));
}

#[test]
fn the_last_exit_outlives_its_run() {
    let exit = record(7, Exit::Code(3), Some(usage(5)));
    let mut memory = Memory::default();
    memory.set_last_exit(Some(&exit));
    memory.push(&run(1, Some(exit), End::Exited(3)));
    let length = memory.bytes.len();
    memory.push(&run(2, None, End::Stopped));
    memory.forget_oldest();
    assert_eq!((memory.len(), memory.last_exit()), (1, Some(exit)));
    assert_eq!(memory.exit, memory.end, "after all runs");
    memory.push(&run(3, Some(exit), End::Exited(3)));
    assert!(memory.exit < memory.end && memory.bytes.len() > length, "in its run");
    assert_eq!(memory.last_exit(), Some(exit));
}

#[test]
fn a_run_of_any_length_comes_back_as_it_was() {
    let runs = |length: usize| {
        let reason = "x".repeat(length).into();
        run(1, None, End::Unhealthy { reason })
    };
    for length in 200..300 {
        let mut memory = Memory::default();
        memory.push(&runs(length));
        memory.push(&runs(0));
        let read: Vec<_> = memory.iter().collect();
        assert_eq!(read, [runs(length), runs(0)], "{length}");
    }
}

#[test]
fn a_large_run_leaves_no_more_room_than_a_run_takes() {
    let mut memory = Memory::default();
    for number in 0..20 {
        let reason = "x".repeat(10_000).into();
        memory.push(&run(number, None, End::Unhealthy { reason }));
        assert_eq!(memory.capacity() - memory.bytes.len(), TYPICAL + TYPICAL_EXIT);
    }
}

#[test]
fn an_end_is_that_of_the_exit_only_if_they_agree() {
    let (term, kill) = (Signal::TERM, Signal::KILL);
    let by = |signal, core| Some(Exit::Signal { signal, core });
    let crash = |core| End::Crashed { signal: term, core };
    let rows = [
        (End::Exited(3), Some(Exit::Code(3)), EXITED),
        (End::Exited(3), Some(Exit::Code(4)), OTHER),
        (crash(true), by(term, true), CRASHED),
        (crash(false), by(term, false), CRASHED),
        (crash(false), by(term, true), OTHER),
        (crash(false), by(kill, false), OTHER),
        (crash(false), None, OTHER),
        (End::KilledFromOutside(term), by(term, false), KILLED),
        (End::KilledFromOutside(term), by(term, true), OTHER),
        (End::KilledFromOutside(term), by(kill, false), OTHER),
        (End::Stopped, by(term, false), FIRST_PLAIN),
    ];
    for (end, exit, number) in rows {
        assert_eq!(number_of(&end, exit), number, "{end:?} {exit:?}");
        let whole = run(1, exit.map(|exit| record(7, exit, None)), end);
        let mut memory = Memory::default();
        memory.push(&whole);
        assert_eq!(memory.iter().next(), Some(whole));
    }
}

#[test]
fn numbers_are_short_and_come_back() {
    let rows = [(0, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (u64::MAX, 10)];
    for (number, length) in rows {
        let mut bytes = Vec::new();
        put_number(number, &mut bytes);
        assert_eq!(bytes.len(), length, "{number}");
        assert_eq!(get_number(&mut Reader::new(&bytes, 0)).ok(), Some(number));
    }
    for number in [0, 1, -1, 63, -64, 64, -65, i64::MAX, i64::MIN] {
        let mut bytes = Vec::new();
        put_signed(number, &mut bytes);
        assert_eq!(bytes.len() == 1, (-64..64).contains(&number), "{number}");
        assert_eq!(get_signed(&mut Reader::new(&bytes, 0)).ok(), Some(number));
    }
}

#[test]
fn a_time_before_1970_comes_back_as_it_was() {
    for nanos in [-1, 0, 1, i64::MAX, i64::MIN + 1] {
        assert_eq!(wall_nanos(wall(nanos)), Some(nanos));
    }
    assert!(wall(-1) < SystemTime::UNIX_EPOCH);
}

#[test]
fn the_usage_of_a_cgroup_fits_into_the_short_form() {
    let full = |unit: u64| CgroupUsage {
        cpu: Some(Duration::from_micros(unit)),
        cpu_user: Some(Duration::from_micros(unit + 1)),
        cpu_system: Some(Duration::from_micros(unit + 2)),
        memory_current: Some(unit + 3),
        memory_peak: Some(unit + 4),
        memory_swap_current: Some(unit + 5),
        oom_kills: Some(unit + 6),
        pids_current: Some(unit + 7),
        pids_peak: Some(unit + 8),
        pids_refused: Some(unit + 9),
        io_read: Some(unit + 10),
        io_written: Some(unit + 11),
    };
    for unit in [0, 100, 1 << 40] {
        let mut bytes = Vec::new();
        assert_eq!(put_cgroup(&full(unit), &mut bytes), Some(()));
        assert!(bytes.len() < 90, "{}", bytes.len());
        assert_eq!(get_cgroup(&mut Reader::new(&bytes, 0)).ok(), Some(full(unit)));
    }
}
