//! Two states: a small one, and one with everything.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime};

use super::{compare, images, read, state};
use crate::cgroup::{CgroupUsage, OomKill, OomLimit};
use crate::codec::{Stored, decoded, encoded};
use crate::command::error::Subject;
use crate::command::{SpawnError, SpawnStep};
use crate::engine::arena::Place;
use crate::engine::event::{Event, Name, ProcessNotice, RefusalReason, RemovalReason, StopReason, TransitionEvent};
use crate::engine::history::History;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::image::{GroupImage, Image, InstanceImage};
use crate::engine::instance::Reload;
use crate::engine::kernel::Report;
use crate::engine::request::Request;
use crate::engine::run::{End, EndedRun};
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::fdset::{Interest, SetImage, SlotImage};
use crate::group::{Roll, Rolling};
use crate::lifecycle::{
    AutoShutdown, Cause, CrashBudget, Delay, DelayFrom, ExitSet, Failed, Failure, Input, Lifecycle, Phase, Policy,
    Prospect, Remaining, Restart, RunTimeout, Rung, Scope, Startup, State, StateName, StopLadder, Stopping, Strategy,
    Transition, Wanted,
};
use crate::linux::image::{LinuxImage, PipesImage, ProcessImage, SocketImage, WatchImage};
use crate::linux::orphans::OrphanCounts;
use crate::linux::stored_fd::StoredImage;
use crate::notify::{Counts, NotifyAccess};
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;
use crate::timerfd::Clock;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

/// The id of this slot, in its first generation.
fn id<T: Stored>(slot: u32) -> T {
    decoded(&encoded(&(slot, 0_u32)), 0).unwrap()
}

fn place<T>(value: T) -> Place<Box<T>> {
    Place {
        generation: 0,
        value: Some(Box::new(value)),
    }
}

fn record(number: u32, exit: Exit) -> ExitRecord {
    let usage = Usage {
        user: SECOND,
        system: SECOND * 2,
        max_rss: 3,
        major_faults: 4,
        minor_faults: 5,
    };
    ExitRecord {
        pid: pid(number),
        exit,
        usage: Some(usage),
    }
}

fn group(name: &str, policy: Policy, target: u32) -> GroupImage {
    GroupImage {
        name: name.into(),
        policy,
        wanted: Wanted::Up,
        leaving: target == 0,
        target,
        roll: None,
        after: Vec::new(),
        requires: Vec::new(),
    }
}

/// An instance that was started once, and is in this state now.
fn instance(group: u32, number: u32, state: State) -> InstanceImage {
    let policy = Policy::default();
    let mut life = Lifecycle::new(&policy, 7);
    let _started = life.handle(&policy, Input::Start, at(1));
    *life.state_mut() = state;
    let mut history = History::new(5);
    history.began(at(1), wall(100));
    InstanceImage {
        group: id(group),
        number,
        process: state.pid(),
        life,
        heard: None,
        status_text: None,
        ladder: Some(Box::new(StopLadder::kill(Scope::Process))),
        watchdog: Some(SECOND),
        is_frozen: true,
        reload: Some(Reload {
            since: at(3),
            until: at(4),
            has_begun: true,
            began: Some(at(3)),
        }),
        pending: None,
        because: Some(Cause::RequirementStopped),
        start: None,
        history,
        stop_of: None,
    }
}

fn process(slot: u32, number: u32, watch: WatchImage) -> ProcessImage {
    ProcessImage {
        slot,
        pid: pid(number),
        pidfd: 100 + slot as i32,
        watch,
        ready: None,
        cgroup: None,
        in_flight: None,
        pipes: None,
    }
}

fn running(number: u32) -> State {
    State::Running {
        pid: pid(number),
        since: at(1),
        until: at(9),
        ends: at(99),
    }
}

fn slot(generation: u32, entry: Option<(i32, Interest)>) -> SlotImage {
    SlotImage {
        generation,
        entry: entry.map(|(number, interest)| (number, interest.bits())),
    }
}

fn small() -> (LinuxImage, Image) {
    let linux = LinuxImage {
        clock: Clock::Monotonic,
        set: SetImage {
            epoll: 3,
            slots: vec![slot(1, Some((4, Interest::READ))), slot(1, Some((100, Interest::READ)))],
        },
        processes: vec![process(0, 1_000, WatchImage::Alive)],
        socket: None,
        reports: VecDeque::new(),
        retired: Vec::new(),
        orphans: None,
        lost: Vec::new(),
        descriptors: Vec::new(),
    };
    let image = Image {
        seed: 11,
        closing: false,
        is_spawns_turn: false,
        groups: vec![place(group("web", Policy::default(), 1))],
        instances: vec![place(instance(0, 0, running(1_000)))],
        waiting: VecDeque::new(),
        spawns: VecDeque::new(),
        events: VecDeque::new(),
        dropped: 0,
    };
    (linux, image)
}

/// One of each failure.
const FAILURES: [Failure; 5] = [
    Failure::Spawn {
        errno: 2,
        permanent: true,
    },
    Failure::Ended(Exit::Unknown),
    Failure::StartTimeout,
    Failure::NotReady,
    Failure::Watchdog,
];

fn stopping(number: u32, prospect: Prospect, remaining: Remaining) -> State {
    State::Stopping(Stopping {
        pid: pid(number),
        since: at(1),
        failed: Some(Failed {
            failure: Failure::Watchdog,
            ran: true,
        }),
        prospect,
        rung: 1,
        until: at(20),
        remaining,
        phase: Phase::Program,
        has_command: false,
        awaits_command: false,
    })
}

/// The states of the instances of the first group.
fn states() -> Vec<State> {
    let starting = |number, executed| State::Starting {
        pid: number,
        executed,
        since: at(2),
        until: at(5),
    };
    let others = Remaining::Others {
        exit: Exit::Code(3),
        look_at: at(21),
        looks: 4,
    };
    let mut states = vec![
        State::Stopped,
        starting(None, None),
        starting(Some(pid(1_002)), None),
        starting(Some(pid(1_003)), Some(at(3))),
        running(1_004),
        stopping(1_005, Prospect::Open, Remaining::Leader),
        stopping(1_006, Prospect::KillRequested, others),
        stopping(1_007, Prospect::EndedBefore, others),
        State::Exited {
            exit: Exit::Signal {
                signal: Signal::TERM,
                core: true,
            },
            expected: true,
        },
    ];
    states.extend(FAILURES.map(|failure| State::Backoff { until: at(30), failure }));
    states.push(State::Fatal {
        until: Instant::NEVER,
        failure: FAILURES[0],
    });
    states
}

fn errors() -> Vec<SpawnError> {
    let subjects = [
        None,
        Some(Subject::Path("/bin/web".into())),
        Some(Subject::File("/var/log/web".into(), 1)),
        Some(Subject::Stream(2)),
        Some(Subject::Nowhere("web".into())),
        Some(Subject::Interpreted("/bin/web".into(), Some("/bin/sh".into()))),
        Some(Subject::Value("a value".into())),
    ];
    let error = |subject| SpawnError::new("web".into(), SpawnStep::Exec, 2, subject);
    subjects.into_iter().map(error).collect()
}

fn history() -> History {
    let crashed = End::Crashed {
        signal: Signal::SEGV,
        core: true,
    };
    let mut ends: Vec<End> = errors().into_iter().map(End::NotSpawned).collect();
    ends.extend([
        End::Exited(1),
        crashed,
        End::KilledFromOutside(Signal::KILL),
        End::OutOfMemory(OomLimit::Own),
        End::OutOfMemory(OomLimit::Ancestor { levels: 2 }),
        End::OutOfMemory(OomLimit::Machine),
        End::OutOfMemory(OomLimit::Unknown),
        End::MaybeOutOfMemory(OomLimit::Own),
        End::Stopped,
        End::StopTimeout,
        End::StartTimeout,
        End::NotReady,
        End::Watchdog,
        End::Released,
        End::Unknown,
    ]);
    let mut history = History::new(ends.len());
    for (number, end) in (1..).zip(ends) {
        history.began(at(number), wall(number));
        let usage = CgroupUsage {
            cpu: Some(SECOND),
            cpu_user: Some(SECOND),
            cpu_system: None,
            memory_current: Some(2_048),
            memory_peak: Some(4_096),
            memory_swap_current: None,
            oom_kills: Some(1),
            pids_current: Some(1),
            pids_peak: Some(2),
            pids_refused: Some(3),
            io_read: Some(512),
            io_written: None,
        };
        let over = EndedRun {
            end,
            exit: Some(record(900, Exit::Code(1))),
            cgroup: Some(usage),
        };
        history.ended(number, over, at(number + 1), wall(number + 1));
    }
    let oom = OomKill {
        limit: OomLimit::Own,
        is_certain: true,
    };
    history.exited(record(901, Exit::Code(2)), Some(oom));
    history
}

fn causes() -> Vec<Cause> {
    let ended = Cause::Ended {
        exit: Exit::Code(1),
        expected: false,
    };
    let causes = [
        Cause::Requested,
        Cause::GraceOver,
        Cause::Ready,
        ended,
        Cause::Restart,
        Cause::DelayOver,
        Cause::RetriesUsedUp,
        Cause::Permanent,
        Cause::CrashBudgetUsedUp,
        Cause::CoolOffOver,
        Cause::Gone,
        Cause::Adopted,
        Cause::Released,
        Cause::RequirementStopped,
        Cause::RequirementFailed,
        Cause::RequirementRemoved,
    ];
    causes.into_iter().chain(FAILURES.map(Cause::Failed)).collect()
}

fn events_of_an_order(name: &Name) -> [Event; 2] {
    let (instance, group, name) = (id(1), id(0), name.clone());
    let waits = Event::StartWaits {
        instance,
        group,
        name: name.clone(),
        awaited: id(1),
        awaited_name: "database".into(),
    };
    let cause = Cause::RequirementFailed;
    let withdrawn = Event::StartWithdrawn {
        instance,
        group,
        name,
        cause,
    };
    [waits, withdrawn]
}

fn events() -> VecDeque<Event> {
    let name = || Name {
        group: "web".into(),
        number: 1,
    };
    let (group, instance): (GroupId, InstanceId) = (id(0), id(1));
    let transition = |cause| {
        Event::Transition(TransitionEvent {
            instance,
            group,
            name: name(),
            from: StateName::Starting,
            to: StateName::Backoff,
            cause,
            pid: Some(pid(1_001)),
            run: 3,
            at: at(4),
            wall: wall(5),
            exit: Some(record(1_001, Exit::Code(1))),
            error: errors().pop(),
        })
    };
    let mut events: VecDeque<_> = causes().into_iter().map(transition).collect();
    events.extend(events_of_an_order(&name()));
    events.extend(other_events(name, group, instance));
    events
}

fn other_events(name: impl Fn() -> Name, group: GroupId, instance: InstanceId) -> [Event; 8] {
    [
        Event::Unkillable {
            instance,
            group,
            name: name(),
            pid: Some(pid(1_001)),
        },
        Event::LimitFailed {
            instance,
            group,
            name: name(),
            file: "memory.max".into(),
            errno: 16,
        },
        Event::SignalFailed {
            instance,
            group,
            name: name(),
            signal: Signal::HUP,
            errno: 1,
        },
        Event::Signal(SignalInfo {
            signal: Signal::USR1,
            sender: Some(pid(1)),
            uid: 2,
            code: -1,
            status: 3,
            value: 4,
        }),
        Event::GroupStops {
            instance,
            group,
            name: name(),
            reason: StopReason::AnyEnd,
        },
        Event::Rolled {
            group,
            name: "web".into(),
            failed: Some(instance),
        },
        Event::Orphan(record(903, Exit::Code(0))),
        Event::GroupRemoved {
            group,
            name: "old".into(),
        },
    ]
}

fn policies() -> [Policy; 2] {
    let rung = |scope| Rung::new(Signal::INT, scope, SECOND);
    let first = Policy {
        startup: Startup::Notify { timeout: SECOND },
        watchdog: Some(SECOND * 9),
        run_timeout: Some(RunTimeout {
            after: SECOND * 90,
            extra: SECOND,
        }),
        before_run: Some(SECOND * 7),
        after_run: Some(SECOND * 8),
        restart: Restart::Always,
        expected: ExitSet::EMPTY.code(200).signal(Signal::TERM),
        prevent_restart: ExitSet::EMPTY.code(78),
        force_restart: ExitSet::EMPTY.code(75),
        early_exit_fails: true,
        start_retries: 4,
        retry_permanent: false,
        count_shortages: true,
        backoff: Delay::Exponential {
            first: SECOND,
            cap: SECOND * 60,
        },
        restart_delay: Delay::Fixed(Duration::from_nanos(1)),
        restart_delay_from: DelayFrom::Start,
        immediate_restarts: 2,
        jitter: 25,
        crash_budget: Some(CrashBudget {
            max: 5,
            window: SECOND * 10,
        }),
        shared_budget: Some(CrashBudget {
            max: 7,
            window: SECOND * 30,
        }),
        strategy: Strategy::RestForOne,
        auto_shutdown: AutoShutdown::AllEnd,
        stable_after: SECOND * 60,
        cool_off: Some(Duration::MAX),
        stop: StopLadder {
            rungs: vec![rung(Scope::Process), rung(Scope::ProcessGroup)],
            kill: Scope::Cgroup,
            patience: SECOND * 5,
        },
        watchdog_stop: Some(StopLadder::signal(Signal::ABRT, Scope::Cgroup, SECOND)),
    };
    let second = Policy {
        startup: Startup::Completes { timeout: SECOND * 3 },
        restart: Restart::Never,
        crash_budget: None,
        ..Policy::default()
    };
    [first, second]
}

fn everything() -> (LinuxImage, Image) {
    let mut instances: Vec<_> = (0..)
        .zip(states())
        .map(|(number, state)| instance(0, number, state))
        .collect();
    let count = instances.len() as u32;
    let pendings = [Request::Start, Request::Stop, Request::Restart, Request::Kill];
    for (instance, request) in instances.iter_mut().skip(4).zip(pendings) {
        instance.pending = Some(request);
    }
    instances[0].history = history();
    instances[1].start = Some((
        Transition {
            from: StateName::Stopped,
            to: StateName::Starting,
            cause: Cause::Requested,
        },
        Some(record(902, Exit::Unknown)),
    ));
    instances[4].heard = Some((NotifyAccess::All, 253));
    instances[4].status_text = Some("ready for work".into());
    let mut instances: Vec<_> = instances.into_iter().map(place).collect();
    // A free slot in its fourth generation, and the instance of a group that leaves.
    instances.push(Place {
        generation: 3,
        value: None,
    });
    instances.push(place(instance(
        1,
        0,
        stopping(1_008, Prospect::Open, Remaining::Leader),
    )));

    let [policy, other] = policies();
    let mut web = group("web", policy, count);
    let rolling = Rolling {
        max_unavailable: 2,
        surge: 1,
    };
    let mut roll = Roll::new(rolling, [id(4), id(5), id(3)], Vec::new());
    while roll.next().is_some() {}
    roll.reached(id(5), StateName::Fatal);
    web.roll = Some((roll, count - 1));
    let mut old = group("old", other, 0);
    (old.after, old.requires) = (vec![id(0)], vec![id(0)]);
    let image = Image {
        seed: u64::MAX,
        closing: true,
        is_spawns_turn: true,
        groups: vec![place(web), place(old)],
        instances,
        waiting: [6, 4, 7, 5].map(id).into(),
        spawns: [(id(1), at(2))].into(),
        events: events(),
        dropped: 17,
    };
    (kernel_side(count + 1), image)
}

fn stored(fd: RawFd, name: &str, is_watched: bool) -> StoredImage {
    let (slot, name) = (4, name.into());
    StoredImage {
        slot,
        name,
        fd,
        is_watched,
    }
}

/// Reports about descriptors.
fn notices() -> [Report; 3] {
    [
        Report::Notice(ProcessNotice::DescriptorsStored {
            name: "http".into(),
            count: 2,
        }),
        Report::Notice(ProcessNotice::DescriptorsRemoved {
            name: "".into(),
            count: 1,
            reason: RemovalReason::HungUp,
        }),
        Report::Notice(ProcessNotice::DescriptorsRefused {
            count: 253,
            reason: RefusalReason::Errno(28),
        }),
    ]
}

fn kernel_side(last: u32) -> LinuxImage {
    let mut processes = vec![
        process(2, 1_002, WatchImage::Alive),
        process(3, 1_003, WatchImage::Alive),
        process(4, 1_004, WatchImage::Late(2)),
        process(5, 1_005, WatchImage::Reaped),
        process(6, 1_006, WatchImage::Group),
        process(7, 1_007, WatchImage::Zombie),
        process(last, 1_008, WatchImage::Alive),
    ];
    processes[0].in_flight = Some((SECOND, "web".into()));
    processes[1].ready = Some(50);
    processes[1].cgroup = Some(("/sys/fs/cgroup/web".into(), "web-3".into()));
    processes[1].pipes = Some(PipesImage {
        stdin: Some(51),
        stdout: Some(52),
        stderr: None,
        extra: Some(53),
        extra_target: Some(7),
        others: vec![(5, 54), (6, 55)],
    });
    let counts = Counts {
        received: 1,
        truncated: 2,
        nameless: 3,
        unknown_senders: 4,
        descriptors: 5,
        barriers: 7,
        garbage: 6,
    };
    let reports = [
        Report::Ready,
        Report::Alive,
        Report::WatchdogTrigger,
        Report::Extend(SECOND),
        Report::Status(Some("busy".into())),
    ];
    let mut slots = vec![slot(7, None), slot(1, Some((70, Interest::PRIORITY)))];
    slots.extend([102, 103, 105, 116, 40, 50].map(|number| slot(2, Some((number, Interest::READ)))));
    let set = SetImage { epoll: 30, slots };
    let orphans = OrphanCounts {
        reaped: 8,
        postponed: 9,
    };
    LinuxImage {
        clock: Clock::Boottime,
        set,
        processes,
        socket: Some(SocketImage {
            fd: 40,
            address: "@notify".into(),
            counts,
        }),
        reports: reports
            .into_iter()
            .chain(notices())
            .map(|report| (id(4), report))
            .collect(),
        retired: vec![("/sys/fs/cgroup/web".into(), "web-0".into())],
        orphans: Some((orphans, [record(904, Exit::Code(0))].into())),
        lost: vec![60],
        descriptors: vec![stored(90, "http", true), stored(91, "", false)],
    }
}

/// The architecture is part of a state.
#[cfg(target_arch = "x86_64")]
#[test]
fn todays_code_writes_and_reads_the_kept_states() {
    for (file, (linux, image)) in [("small.bin", small()), ("everything.bin", everything())] {
        compare(file, &state(&linux, &image));
        let (linux, image) = read(file, 5);
        compare(file, &state(&linux, &image));
    }
    let (linux, image) = read("everything.bin", 0);
    let expected = everything().1;
    for (place, expected) in image.instances.iter().zip(&expected.instances) {
        assert_eq!(place.generation, expected.generation);
        let (known, expected) = (place.value.as_ref(), expected.value.as_ref());
        assert_eq!(
            known.map(|known| *known.life.state()),
            expected.map(|known| *known.life.state())
        );
        assert_eq!(known.map(|known| known.pending), expected.map(|known| known.pending));
    }
    assert_eq!(format!("{:?}", image.events), format!("{:?}", expected.events));
    assert_eq!((image.waiting, image.spawns), (expected.waiting, expected.spawns));
    assert_eq!((image.seed, image.closing, image.dropped), (u64::MAX, true, 17));
    let numbers = [
        30, 40, 50, 51, 52, 53, 54, 55, 60, 70, 90, 91, 102, 103, 104, 105, 106, 107, 116,
    ];
    assert_eq!(linux.descriptors(), numbers);
}

/// Damage that a checksum does not find is an error too, and never a panic.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_state_with_any_byte_changed_and_a_right_checksum_is_read_or_refused() {
    use crate::codec::checksum;
    use crate::random::Random;
    use crate::supervisor::format;
    let (linux, image) = everything();
    let kept = state(&linux, &image);
    let mut random = Random::new(1);
    for round in 0..4_000 {
        let mut state = kept.clone();
        let at = 32 + random.below(state.len() as u64 - 32) as usize;
        state[at] = match round % 3 {
            0 => 0xff,
            1 => 0,
            _ => state[at] ^ (1 << random.below(8)),
        };
        if round % 10 == 0 {
            state.truncate(at);
        }
        let length = state.len() as u64 - 32;
        state[16..24].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&state[32..]);
        state[24..32].copy_from_slice(&sum.to_le_bytes());
        if let Ok(mut reader) = format::read(format::HAND_OVER, &state, 0) {
            let _read = images(&mut reader);
        }
    }
}
