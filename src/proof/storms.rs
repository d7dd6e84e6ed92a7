//! Storms: every process ends, or every spawn fails, as soon as it is started, without end. In each way of waiting the
//! host gets its turn again, and misses nothing when the storm is over.

use std::time::Duration;

use super::act::Act;
use super::chance::{Chance, mix};
use super::ending::Way;
use super::fault_profile::FaultProfile;
use super::host::{Broken, Host};
use super::recipe::Draft;
use super::world::World;
use crate::engine::ids::Target;
use crate::engine::request::Request;
use crate::lifecycle::{Delay, ExitSet, Policy, Restart, Startup, StateName, StopLadder};

/// The kinds of storms.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Each process is dead before its spawn returns.
    Crashes,
    /// No process can be spawned, and each try follows at once.
    Refusals,
}

fn profile(kind: Kind) -> FaultProfile {
    let clear = FaultProfile {
        call_takes_long: 7,
        ..FaultProfile::KIND
    };
    match kind {
        Kind::Crashes => FaultProfile {
            dead_on_arrival: 1,
            ..clear
        },
        Kind::Refusals => FaultProfile {
            spawn_fails: 1,
            ..clear
        },
    }
}

/// A host in the middle of a storm. It has registered the one descriptor of the set.
fn in_a_storm(seed: u64, kind: Kind, slice: Duration) -> Result<Host, Broken> {
    let mut world = World::new(seed);
    world.faults = profile(kind);
    let mut host = Host::new(world, 4_096, None);
    host.driver.slice = slice;
    host.way = Way::Edges;
    let mut chance = Chance::new(seed);
    let mut draft = Draft::random(&mut chance, None, 7);
    while draft.flawed {
        draft = Draft::random(&mut chance, None, 7);
    }
    draft.instances = 7;
    // A stop with a sibling that is under way when the storm is over must not wait for long.
    let stop = StopLadder::kill(draft.policy.stop.scope());
    draft.policy = Policy {
        startup: Startup::Grace(Duration::ZERO),
        stop,
        watchdog_stop: None,
        restart: Restart::Always,
        expected: ExitSet::EMPTY,
        start_retries: u32::MAX,
        backoff: Delay::NONE,
        restart_delay: Delay::NONE,
        crash_budget: None,
        shared_budget: None,
        watchdog: None,
        retry_permanent: true,
        ..draft.policy
    };
    host.step(Act::Add(Box::new(draft)), Chance::new(seed))?;
    host.step(Act::Request(Target::All, Request::Start), Chance::new(seed))?;
    Ok(host)
}

fn storm(seed: u64) -> Result<(), Broken> {
    let mut chance = Chance::new(mix(seed, 1));
    let kind = chance.pick(&[Kind::Crashes, Kind::Refusals]);
    let slice = chance.pick(&[Duration::ZERO, Duration::from_micros(100), Duration::from_millis(5)]);
    let mut host = in_a_storm(seed, kind, slice)?;
    for _ in 0..6 {
        host.step(Act::Drain(usize::MAX), Chance::new(seed))?;
        host.step(Act::Poll, Chance::new(seed))?;
        host.until_nothing()?;
    }
    // The storm is over, and the host continues as before.
    host.world.borrow_mut().mend();
    host.world.borrow_mut().execute_soon();
    let runs = |host: &Host| {
        let mut states = super::host::snapshots(&host.driver).map(|now| now.state.name());
        states.all(|state| state == StateName::Running)
    };
    match host.settle(Duration::from_secs(10), runs)? {
        true => Ok(()),
        false => Err(format!("{kind:?}, {slice:?}: not all are up when the storm is over")),
    }
}

#[test]
fn a_host_that_is_edge_triggered_gets_its_turn_in_every_storm_and_misses_nothing() {
    for number in 0..60 {
        let seed = mix(11, number);
        if let Err(broken) = storm(seed) {
            panic!("storm {seed:#x}: {broken}");
        }
    }
}
