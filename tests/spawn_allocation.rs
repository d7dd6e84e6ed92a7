//! A spawn of a compiled program allocates no memory, whatever its settings are. A restart by a supervisor
//! allocates none either.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{SOON, guide, isolated, tempdir, wait_readable};
use pidherd::lifecycle::{Cause, Delay, Policy, Restart, Startup, StateName};
use pidherd::{
    Command, Event, GroupId, GroupSpec, InstanceId, Launcher, Signal, SpawnProgress, Spawner, Stdio, Supervisor,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all calls are passed on to the system's allocator. The counter is thread-local and has no
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many allocations spawns make after this many others, from the call to the running child, and until it is
/// reaped; those that wait for exec, and those in flight.
fn allocations(command: Command, others: usize) -> usize {
    let mut spawner = Spawner::new().unwrap();
    let program = command.compile().unwrap();
    for _ in 0..others {
        assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
    }
    let mut all = 0;
    for _ in 0..3 {
        let before = ALLOCATIONS.with(Cell::get);
        let mut progress = SpawnProgress::InFlight(spawner.begin(&program).unwrap());
        while let SpawnProgress::InFlight(spawning) = progress {
            std::thread::yield_now();
            progress = spawner.finish(spawning);
        }
        let SpawnProgress::Running(mut child) = progress else {
            panic!("{progress:?}");
        };
        let record = child.wait().unwrap();
        drop(child);
        all += ALLOCATIONS.with(Cell::get) - before;
        assert!(record.exit.success());
    }
    for _ in 0..3 {
        let before = ALLOCATIONS.with(Cell::get);
        let mut child = spawner.spawn(&program).unwrap();
        let record = child.wait().unwrap();
        drop(child);
        all += ALLOCATIONS.with(Cell::get) - before;
        assert!(record.exit.success());
    }
    all
}

#[test]
fn a_restart_allocates_nothing() {
    // By itself: what a spawn has to do depends on the descriptors of the process, and other tests open some.
    isolated(|| {
        let piped = Command::new("true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::append("/dev/null"));
        assert_eq!(allocations(piped.clone(), 0), 0);
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        // So many descriptors need the slower way to pass them, and some must be moved out of the way first.
        let many = (3..24).fold(piped.stderr(Stdio::null()), |command, target| {
            command.fd(target, null())
        });
        assert_eq!(allocations(many, 1), 0);
        let error = || Command::new("/no/such").spawn();
        let before = ALLOCATIONS.with(Cell::get);
        assert!(error().is_err());
        assert!(
            ALLOCATIONS.with(Cell::get) > before,
            "the counter did not count the allocations of an error"
        );
    });
}

#[test]
fn a_launcher_allocates_nothing_but_for_more_in_flight_than_before() {
    let mut launcher = Launcher::new().unwrap();
    let program = Command::new("true").stdin(Stdio::piped()).compile().unwrap();
    let mut round = || {
        for _ in 0..4 {
            launcher.begin(&program).unwrap();
        }
        while launcher.in_flight() > 0 {
            assert!(wait_readable(&launcher, SOON));
            while let Some((_, child)) = launcher.finish() {
                assert!(child.unwrap().wait().unwrap().exit.success());
            }
        }
    };
    round();
    let before = ALLOCATIONS.with(Cell::get);
    (0..5).for_each(|_| round());
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

/// The number of allocations that a supervisor makes until it has made this many restarts.
fn allocations_of_restarts(supervisor: &mut Supervisor, restarts: usize) -> usize {
    let (mut seen, mut all) = (0, 0);
    while seen < restarts {
        assert!(wait_readable(&*supervisor, SOON));
        let before = ALLOCATIONS.with(Cell::get);
        supervisor.dispatch().unwrap();
        while let Some(event) = supervisor.next_event() {
            let restarted = matches!(event, Event::Transition(step) if step.cause == Cause::Restart);
            seen += usize::from(restarted);
        }
        all += ALLOCATIONS.with(Cell::get) - before;
    }
    all
}

/// Dispatches until every instance has the memory for its runs, which the end of its first run brings.
fn until_each_has_ended(supervisor: &mut Supervisor, group: GroupId) {
    let instances = supervisor.group(group).unwrap().instances;
    while instances.iter().any(|&id| supervisor.runs(id).count() == 0) {
        allocations_of_restarts(supervisor, 1);
    }
}

/// Restarts hundreds of instances, and checks that nothing is allocated for them.
fn restarts_allocate_nothing(supervisor: Supervisor) {
    restarts_of_allocate_nothing(supervisor, |group| group);
}

/// The same for a group that gets more settings.
fn restarts_of_allocate_nothing(mut supervisor: Supervisor, with: impl FnOnce(GroupSpec) -> GroupSpec) {
    let policy = Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Always)
        .restart_delay(Delay::Fixed(Duration::from_millis(1)))
        .crash_budget(None);
    let group = GroupSpec::new("a", Command::new("/bin/true")).instances(200);
    let group = supervisor.add(with(group.policy(policy))).unwrap();
    // The command `start` may allocate. It starts only the first few instances; the event loop starts the
    // others.
    supervisor.start(group).unwrap();
    until_each_has_ended(&mut supervisor, group);
    assert_eq!(allocations_of_restarts(&mut supervisor, 500), 0);
}

#[test]
fn a_supervisor_that_restarts_hundreds_of_instances_allocates_nothing() {
    isolated(|| restarts_allocate_nothing(Supervisor::new().unwrap()));
}

#[test]
fn a_supervisor_that_stores_its_state_allocates_nothing_for_a_restart() {
    isolated(|| {
        let directory = tempdir();
        let builder = Supervisor::builder().state_file(directory.join("state"));
        restarts_allocate_nothing(builder.build().unwrap());
    });
}

#[test]
fn a_supervisor_that_restarts_hundreds_of_instances_in_order_allocates_nothing() {
    isolated(|| {
        let mut supervisor = Supervisor::new().unwrap();
        let sleeper = || Command::new("/bin/sleep").arg("1000");
        let policy = Policy::new().startup(Startup::Grace(Duration::ZERO));
        let root = supervisor
            .add(GroupSpec::new("root", sleeper()).policy(policy))
            .unwrap();
        let down = supervisor.add(GroupSpec::new("down", sleeper())).unwrap();
        // Its start waits all the time, so the order is followed after every restart.
        let waits = GroupSpec::new("waits", sleeper()).requires(down).after(root);
        let waits = supervisor.add(waits).unwrap();
        supervisor.start(waits).unwrap();
        supervisor.start(root).unwrap();
        let is_running = |supervisor: &Supervisor| {
            let instance = supervisor.group(root).unwrap().instances[0];
            supervisor.status(instance).unwrap().state.name() == StateName::Running
        };
        while !is_running(&supervisor) {
            assert!(wait_readable(&supervisor, SOON));
            supervisor.dispatch().unwrap();
            while supervisor.next_event().is_some() {}
        }
        restarts_of_allocate_nothing(supervisor, |group| group.requires(root).after(down));
    });
}

fn spec() -> GroupSpec {
    GroupSpec::new("a", Command::new("/bin/sleep").arg("1000")).grace(Duration::ZERO)
}

/// A supervisor with a group `a` that runs, with room for everything that has happened once.
fn running() -> (Supervisor, GroupId, InstanceId) {
    let mut supervisor = Supervisor::new().unwrap();
    let group = supervisor.add(spec()).unwrap();
    let instance = supervisor.group(group).unwrap().instances[0];
    supervisor.start(group).unwrap();
    until(&mut supervisor, instance, StateName::Running);
    (supervisor, group, instance)
}

fn until(supervisor: &mut Supervisor, instance: InstanceId, state: StateName) {
    while supervisor.status(instance).unwrap().state.name() != state {
        assert!(wait_readable(&*supervisor, SOON));
        supervisor.dispatch().unwrap();
        while supervisor.next_event().is_some() {}
    }
}

type Call = fn(&mut Supervisor, GroupId, InstanceId);

/// The calls in the guide's table, and whether they allocate.
const CALLS: &[(&str, bool, Call)] = &[
    ("dispatch", false, |supervisor, _, _| drop(supervisor.dispatch())),
    ("next_event", false, |supervisor, _, _| drop(supervisor.next_event())),
    ("status", false, |supervisor, _, instance| {
        drop(supervisor.status(instance))
    }),
    ("runs", false, |supervisor, _, instance| {
        assert!(supervisor.runs(instance).count() <= 5);
    }),
    ("group", true, |supervisor, group, _| drop(supervisor.group(group))),
    ("groups", true, |supervisor, _, _| {
        assert_eq!(supervisor.groups().count(), 1)
    }),
    ("group_named", false, |supervisor, group, _| {
        assert_eq!(supervisor.group_named("a"), Some(group));
    }),
    ("signal", true, |supervisor, _, instance| {
        supervisor.signal(instance, Signal::CONT).unwrap();
    }),
    ("report_alive", false, |supervisor, _, instance| {
        supervisor.report_alive(instance).unwrap();
    }),
    ("restart", true, |supervisor, _, instance| {
        supervisor.restart(instance).unwrap();
        until(supervisor, instance, StateName::Running);
    }),
    ("stop", true, |supervisor, _, instance| {
        supervisor.stop(instance).unwrap();
        until(supervisor, instance, StateName::Stopped);
    }),
    ("start", true, |supervisor, _, instance| {
        supervisor.start(instance).unwrap();
        until(supervisor, instance, StateName::Running);
    }),
    ("scale", true, |supervisor, group, _| {
        supervisor.scale(group, 2).unwrap();
        supervisor.scale(group, 1).unwrap();
    }),
    ("reload", true, |supervisor, group, _| {
        supervisor.reload(group, spec()).unwrap();
    }),
    ("add", true, |supervisor, _, _| {
        supervisor.add(GroupSpec::new("", Command::new("/bin/true"))).unwrap();
    }),
];

#[test]
fn the_guide_has_what_allocates() {
    isolated(|| {
        let (mut supervisor, group, instance) = running();
        for &(name, allocates, call) in CALLS {
            // The first call may allocate what later ones use again.
            call(&mut supervisor, group, instance);
            let before = ALLOCATIONS.with(Cell::get);
            call(&mut supervisor, group, instance);
            let found = ALLOCATIONS.with(Cell::get) - before;
            assert!((found > 0) == allocates, "{name}: {found} allocations");
        }
        let rows: Vec<_> = CALLS
            .iter()
            .map(|(name, allocates, _)| {
                let name = format!("[`Supervisor::{name}`](crate::Supervisor::{name})");
                [name, if *allocates { "yes" } else { "no" }.to_owned()]
            })
            .collect();
        guide::agrees("allocations.md", ["call", "allocates"], &rows);
    });
}
