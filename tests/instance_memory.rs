//! How much memory of the heap an instance takes. Every byte that the library has allocated counts, also what is
//! reserved.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{SOON, isolated, wait_readable};
use pidherd::lifecycle::{Policy, Startup, StateName};
use pidherd::{Command, GroupId, GroupSpec, Supervisor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The bytes that are allocated, in all threads.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all calls are passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// The most bytes that an instance may take, with the default policy, before its first run has ended.
const MOST: usize = 512;

/// The most bytes of an instance after a run: it has the memory for the remembered ones, by default five.
const MOST_WITH_RUNS: usize = 1_024;

/// Dispatches until all instances of a group are in this state.
fn until(supervisor: &mut Supervisor, group: GroupId, state: StateName) {
    let is_there = |supervisor: &Supervisor| {
        let instances = supervisor.group(group).unwrap().instances;
        let mut states = instances.iter().map(|&id| supervisor.status(id).unwrap().state.name());
        states.all(|name| name == state)
    };
    while !is_there(supervisor) {
        assert!(wait_readable(&*supervisor, SOON));
        supervisor.dispatch().unwrap();
        while supervisor.next_event().is_some() {}
    }
}

/// How many processes the limit of open descriptors allows, at most `wanted`.
fn allowed(wanted: u64) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(2 * wanted, |maximum| maximum.min(2 * wanted));
    let current = limit.current.map_or(current, |before| before.max(current));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            ..limit
        },
    )
    .unwrap();
    u32::try_from(wanted.min(current / 2)).unwrap()
}

fn sleepers(name: &str, instances: u32) -> GroupSpec {
    // Only the time until they count as running differs from the default policy.
    let policy = Policy::new().startup(Startup::Grace(Duration::ZERO));
    GroupSpec::new(name, Command::new("/bin/sleep").arg("1000"))
        .instances(instances)
        .policy(policy)
}

/// The bytes for each of this many stopped and running instances. Some of the stopped ones were added one by one. If all
/// `were_up`, they have had a run before.
fn bytes_of_each(stopped: u32, running: u32, one_by_one: u32, were_up: bool) -> usize {
    let mut supervisor = Supervisor::new().unwrap();
    // What is made once for all instances, such as what spawns in flight share.
    let first = supervisor.add(sleepers("first", 64)).unwrap();
    supervisor.start(first).unwrap();
    until(&mut supervisor, first, StateName::Running);
    let before = allocated();
    let at_rest = supervisor.add(sleepers("stopped", stopped - one_by_one)).unwrap();
    for more in 1..=one_by_one {
        supervisor.scale(at_rest, stopped - one_by_one + more).unwrap();
    }
    let up = supervisor.add(sleepers("running", running)).unwrap();
    if were_up {
        for group in [at_rest, up] {
            supervisor.start(group).unwrap();
            until(&mut supervisor, group, StateName::Running);
            supervisor.stop(group).unwrap();
            until(&mut supervisor, group, StateName::Stopped);
        }
    }
    supervisor.start(up).unwrap();
    until(&mut supervisor, up, StateName::Running);
    let bytes = (allocated() - before) / (stopped + running) as usize;
    println!("{stopped} stopped and {running} running instances: {bytes} bytes each");
    supervisor.shutdown().unwrap();
    until(&mut supervisor, up, StateName::Stopped);
    bytes
}

#[test]
fn an_instance_takes_half_a_kilobyte() {
    isolated(|| {
        let running = allowed(1_000);
        assert!(bytes_of_each(10_000, running, 0, false) <= MOST);
    });
}

#[test]
fn an_instance_that_is_added_alone_takes_half_a_kilobyte() {
    isolated(|| {
        assert!(bytes_of_each(3_000, 10, 1_000, false) <= MOST);
    });
}

#[test]
fn an_instance_that_runs_takes_half_a_kilobyte() {
    isolated(|| {
        let running = allowed(1_000);
        assert!(bytes_of_each(1, running, 0, false) <= MOST);
    });
}

#[test]
fn an_instance_that_was_up_takes_less_than_a_kilobyte() {
    isolated(|| {
        let running = allowed(300);
        assert!(bytes_of_each(1, running, 0, true) <= MOST_WITH_RUNS);
    });
}
