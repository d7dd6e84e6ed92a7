//! The oracles must be able to fail: each is shown something that is wrong, and has to say so.
//!
//! What is planted here can be planted from outside, by meddling with the driver between two steps.
//! Bugs in the driver's own code are for a mutation tester to plant, which finds these tests too.

use super::campaign::Episode;
use super::chance::mix;
use super::host::{Host, snapshots};
use crate::exit::Exit;
use crate::lifecycle::{Input, StateName};
use crate::supervisor::kernel::Kernel;
use crate::supervisor::{InstanceId, Request};
use crate::time::Instant;

/// How many episodes a planted bug may go unnoticed at most.
const EPISODES: u64 = 300;

/// Plants something before every few steps, and expects it to be called this.
#[track_caller]
fn is_noticed(meddle: impl Fn(&mut Host), as_what: &str) {
    let every_few = |host: &mut Host, step: u64| {
        if step % 5 == 4 {
            meddle(host);
        }
    };
    for number in 0..EPISODES {
        let episode = Episode {
            seed: mix(1, number),
            meddler: Some(&every_few),
        };
        if let Err(failure) = episode.run() {
            assert!(
                failure.broken.contains(as_what),
                "expected {as_what:?}: {}",
                failure.broken
            );
            return;
        }
    }
    panic!("{EPISODES} episodes, and nobody has noticed");
}

/// The first instance in this state.
fn one_in(host: &Host, state: StateName) -> Option<InstanceId> {
    let mut all = snapshots(&host.driver);
    all.find(|now| now.state.name() == state).map(|now| now.id)
}

#[test]
fn that_the_timer_is_not_armed() {
    is_noticed(|host| host.forgets_to_settle ^= true, "the timer is armed for");
}

#[test]
fn that_a_deadline_is_lost() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Backoff) {
            host.driver.deadlines.clear(id.index());
        }
    };
    is_noticed(meddle, "its deadline is");
}

#[test]
fn that_a_deadline_is_left_over() {
    let meddle = |host: &mut Host| host.driver.deadlines.set(1_000, Instant::from_nanos(1 << 60));
    is_noticed(meddle, "1 deadlines are kept, and 0 are meant");
}

#[test]
fn that_another_look_is_forgotten() {
    let meddle = |host: &mut Host| {
        let mut world = host.world.borrow_mut();
        if let Some(process) = world.processes.iter_mut().find(|process| process.look.is_some()) {
            process.look = Some(Instant::NEVER);
        }
    };
    is_noticed(meddle, "nothing tells that this one has ended");
}

#[test]
fn that_a_request_is_forgotten() {
    let meddle = |host: &mut Host| {
        let waits = snapshots(&host.driver).find(|now| now.pending == Some(Request::Stop));
        if let Some(instance) = waits.and_then(|now| host.driver.instances.get_mut(now.id)) {
            instance.pending = None;
        }
    };
    is_noticed(meddle, "it wants to be Up, and the host's wish is Down");
}

#[test]
fn that_a_wish_is_made_up() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Stopping) {
            host.driver.feed(id, Input::Start);
        }
    };
    is_noticed(meddle, "it wants to be Up, and the host's wish is Down");
}

#[test]
fn that_an_end_is_made_up() {
    let meddle = |host: &mut Host| {
        if let Some(id) = one_in(host, StateName::Running) {
            host.driver.feed(id, Input::Exited(Exit::Code(0)));
        }
    };
    is_noticed(meddle, "is let go of, and was never collected");
}

#[test]
fn that_a_process_is_dropped() {
    let meddle = |host: &mut Host| {
        let running = one_in(host, StateName::Running);
        if let Some(instance) = running.and_then(|id| host.driver.instances.get_mut(id)) {
            drop(instance.process.take());
        }
    };
    is_noticed(meddle, "a process was dropped without being released");
}

#[test]
fn that_processes_are_exchanged() {
    let meddle = |host: &mut Host| {
        let up: Vec<_> = snapshots(&host.driver).filter(|now| now.serial.is_some()).collect();
        if let [first, second, ..] = &up[..] {
            let mut take = |id| {
                host.driver
                    .instances
                    .get_mut(id)
                    .and_then(|instance| instance.process.take())
            };
            let (one, other) = (take(second.id), take(first.id));
            for (id, process) in [(first.id, one), (second.id, other)] {
                host.driver.instances.get_mut(id).unwrap().process = process;
            }
        }
    };
    is_noticed(meddle, "its process is that of slot");
}

#[test]
fn that_a_process_is_reaped_behind_the_lifecycles_back() {
    let meddle = |host: &mut Host| {
        let dead = host
            .world
            .borrow()
            .processes
            .iter()
            .find(|process| process.is_ready())
            .map(|p| p.owner);
        let instances = &mut host.driver.instances;
        let id = dead.and_then(|owner| instances.id_at(owner));
        if let Some(process) = id.and_then(|id| instances.get_mut(id)?.process.as_mut()) {
            let _seen = host.driver.kernel.collect(process, false);
        }
    };
    is_noticed(meddle, "its process is Reaped in");
}

#[test]
fn that_a_second_process_is_started_beside_the_first() {
    let meddle = |host: &mut Host| {
        let running = one_in(host, StateName::Running);
        let Some(instance) = running.and_then(|id| host.driver.instances.get_mut(id)) else {
            return;
        };
        let shared = host
            .driver
            .groups
            .get_mut(instance.group)
            .and_then(|group| group.program.as_mut());
        if let (Some(program), Some(id)) = (instance.program.as_mut().or(shared), running) {
            let place = instance.place.clone();
            drop(host.driver.kernel.spawn(program, &place, id.index()));
        }
    };
    is_noticed(meddle, "a second process is spawned for slot");
}

#[test]
fn that_a_group_has_another_size() {
    let meddle = |host: &mut Host| {
        let id = host.driver.groups.ids().next();
        if let Some(group) = id.and_then(|id| host.driver.groups.get_mut(id)) {
            group.roster.set_target(group.roster.target() + 1);
        }
    };
    is_noticed(meddle, "its target is");
}

#[test]
fn that_an_event_is_lost() {
    // What comes next does not follow, or is missing when everything has been fetched.
    let meddle = |host: &mut Host| drop(host.driver.events.pop());
    is_noticed(meddle, "told");
}

#[test]
fn that_the_supervisor_does_not_stay_closed() {
    let meddle = |host: &mut Host| host.driver.closing = false;
    is_noticed(meddle, "the answer should be Err(ShuttingDown)");
}
