//! Damaged images: each is refused, or restored to an engine that works.
//!
//! A checksum guards a stored state, so damage that gets here was not an accident of a disk. It is a fault of the
//! program that wrote the state, or it was made on purpose.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::chance::{Chance, mix};
use super::fault_profile::FaultProfile;
use super::host::Host;
use super::kernel::SimKernel;
use super::process::{Phase, Place, SimProcess, Takeoff};
use super::recipe::Draft;
use super::world::World;
use crate::codec::{decoded, encoded};
use crate::engine::core::Engine;
use crate::engine::event::Events;
use crate::engine::ids::Target;
use crate::engine::image::{Image, NotRestored};
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
use crate::group::Rolling;
use crate::lifecycle::{Input, Remaining, Scope, State, Stopping};
use crate::signal::Signal;

/// The number of inputs in an ordinary run.
const INPUTS: u64 = 8_000;

/// How many images of random episodes are damaged.
const IMAGES: u64 = 50;

/// What became of the inputs.
#[derive(Debug, Default)]
struct Results {
    undecoded: u64,
    refused: u64,
    restored: u64,
}

/// The images of hosts in the middle of random episodes.
fn images(seed: u64) -> Vec<(Vec<u8>, Vec<GroupSpec>)> {
    let image = |number| {
        let seed = mix(seed, number);
        let mut chance = Chance::new(seed);
        let mut host = Host::new(World::new(mix(seed, 2)), chance.pick(&[4, 64]), None);
        for step in 0..100 + chance.below(200) {
            host.random_step(seed, step).unwrap();
        }
        host.world.borrow_mut().dropping = true;
        let staying = host.model.groups.iter().filter(|group| !group.leaving);
        let spec = |group: &super::model::Group| {
            let draft = Draft {
                name: group.name,
                recipe: group.recipe,
                instances: group.target,
                policy: group.policy.clone(),
                flawed: false,
                after: Vec::new(),
                requires: Vec::new(),
            };
            draft.spec()
        };
        (encoded(&host.driver.image()), staying.map(spec).collect())
    };
    (0..IMAGES).map(image).collect()
}

/// Changes bytes of an image.
fn damage_bytes(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let place = |bytes: &[u8], chance: &mut Chance| chance.below(bytes.len().max(1) as u64) as usize;
    match chance.below(8) {
        0 => bytes.truncate(place(bytes, chance)),
        1 => {
            let length = chance.below(400);
            *bytes = (0..length).map(|_| chance.below(256) as u8).collect();
        }
        2 => {
            let from = place(bytes, chance);
            for byte in bytes.iter_mut().skip(from).take(20) {
                *byte = chance.below(256) as u8;
            }
        }
        3 => {
            let (from, to) = (place(bytes, chance), place(bytes, chance));
            let moved: Vec<u8> = bytes.iter().skip(from).take(30).copied().collect();
            bytes.splice(to..to, moved);
        }
        4 | 5 => {
            let number: u32 = chance.pick(&[0, 1, 2, 100_000, u32::MAX, u32::MAX - 1, 1 << 31]);
            let from = place(bytes, chance);
            for (byte, new) in bytes.iter_mut().skip(from).zip(number.to_le_bytes()) {
                *byte = new;
            }
        }
        _ => {
            for _ in 0..1 + chance.below(3) {
                let at = place(bytes, chance);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
}

/// Changes the order of records, or ids, or processes, in an image that can be decoded.
fn damage_records(image: &mut Image, chance: &mut Chance) {
    let count = image.instances.len();
    let two = |chance: &mut Chance| (chance.below(count as u64) as usize, chance.below(count as u64) as usize);
    match chance.below(8) {
        0 => chance.shuffle(&mut image.instances),
        1 => chance.shuffle(&mut image.groups),
        2 => chance.shuffle(image.waiting.make_contiguous()),
        3 => chance.shuffle(image.spawns.make_contiguous()),
        4 => chance.shuffle(image.events.make_contiguous()),
        _ if count == 0 => image.groups.clear(),
        5 => {
            let (from, to) = two(chance);
            if let Some(value) = image.instances[from].value.clone() {
                image.instances[to].value = Some(value);
            }
        }
        6 => {
            let (from, to) = two(chance);
            let group = image.instances[from].value.as_ref().map(|value| value.group);
            if let (Some(group), Some(value)) = (group, &mut image.instances[to].value) {
                value.group = group;
                value.number = chance.below(9) as u32;
            }
        }
        _ => {
            let (from, to) = two(chance);
            let pid = image.instances[from].value.as_ref().and_then(|value| value.process);
            if let Some(value) = &mut image.instances[to].value {
                value.process = pid;
            }
        }
    }
}

/// Gives the world the processes that an image names.
fn populate(world: &mut World, image: &Image) {
    let instances = (0..).zip(&image.instances);
    for (slot, instance) in instances.filter_map(|(slot, place)| Some((slot, place.value.as_ref()?))) {
        let Some(pid) = instance.process else { continue };
        let place = Place {
            leads: true,
            home: None,
            has_ready_fd: false,
            socket: false,
            stores: false,
            part: instance.life.state().part(),
        };
        let takeoff = Takeoff {
            takes: Duration::from_millis(1),
            fails: None,
            blocks: false,
        };
        let is_in_flight = instance.life.state().is_in_flight();
        let habits = FaultProfile::KIND.habits(&mut world.chance, world.now);
        let takeoff = (habits, is_in_flight.then_some(takeoff));
        let serial = 1_000_000 + u64::from(slot);
        let mut process = SimProcess::new((serial, pid), slot, place, takeoff, world.now);
        if let State::Stopping(Stopping {
            remaining: Remaining::Others { .. },
            ..
        }) = instance.life.state()
        {
            process.phase = Phase::Held;
        }
        world.in_flight += usize::from(is_in_flight);
        world.processes.push(process);
    }
    world.most_in_flight = world.most_in_flight.max(world.in_flight);
}

/// Makes a random call.
fn call(engine: &mut Engine<SimKernel>, chance: &mut Chance) {
    let groups: Vec<_> = engine.groups.ids().collect();
    let instances: Vec<_> = engine.instances.ids().collect();
    let (group, instance) = (chance.find(&groups), chance.find(&instances));
    engine.wake();
    let target = match chance.below(3) {
        0 => Target::All,
        1 => group.map_or(Target::All, Target::Group),
        _ => instance.map_or(Target::All, Target::Instance),
    };
    let all = [Request::Start, Request::Stop, Request::Restart, Request::Kill];
    match (chance.below(12), group, instance) {
        (0 | 1, ..) => drop(engine.request(target, chance.pick(&all))),
        (2, Some(id), _) => drop(engine.scale(id, chance.below(8) as u32)),
        (3, Some(id), _) => drop(engine.roll(id, Rolling::default())),
        (4, Some(id), _) => drop(engine.remove(id)),
        (5, ..) => drop(engine.signal(target, Signal::HUP, Scope::Process)),
        (6, _, Some(id)) => drop(engine.process_ready(id)),
        (7, _, Some(id)) => drop(engine.report(id, chance.pick(&[Input::Ready, Input::Alive]))),
        (8, _, Some(id)) => drop(engine.status(id)),
        (9, ..) => drop(engine.next_event()),
        (10, ..) => {
            let later = engine.kernel.0.borrow().now.saturating_add(chance.time());
            engine.kernel.0.borrow_mut().pass(later);
        }
        _ => drop(engine.dispatch()),
    }
    let _armed = engine.settle(None);
}

fn restore(bytes: &[u8], specs: &[GroupSpec], chance: &mut Chance, results: &mut Results) {
    let mut world = World::new(1);
    world.faults = FaultProfile::KIND;
    let world = Rc::new(RefCell::new(world));
    let mut engine = Engine::new(SimKernel(Rc::clone(&world)), Events::new(16), 1);
    let Ok(image) = decoded::<Image>(bytes, engine.instances.home()) else {
        results.undecoded += 1;
        return;
    };
    populate(&mut world.borrow_mut(), &image);
    let restored = match engine.restore(image, specs.to_vec()) {
        Ok(restored) => restored,
        Err(NotRestored::Damaged | NotRestored::Error(_)) => {
            results.refused += 1;
            world.borrow_mut().is_replaced = true;
            return;
        }
    };
    results.restored += 1;
    engine.follow_descriptions(&restored);
    for _ in 0..chance.below(20) {
        call(&mut engine, chance);
    }
    let ids: Vec<_> = engine.instances.ids().collect();
    let is_at_rest = |&id| {
        let instance = engine.instances.get(id).unwrap();
        instance.pending.is_none() && !instance.life.state().name().is_alive()
    };
    assert_eq!(engine.is_quiet(), ids.iter().all(is_at_rest));
    // What works can be handed over once more.
    let mut next = Engine::new(SimKernel(Rc::clone(&world)), Events::new(16), 1);
    let image = decoded::<Image>(&encoded(&engine.image()), next.instances.home()).unwrap();
    assert!(next.restore(image, Vec::new()).is_ok());
    assert_eq!(world.borrow_mut().broken.take(), None);
    world.borrow_mut().is_replaced = true;
}

/// Damages images and restores them.
fn fuzz(seed: u64, inputs: u64) -> Results {
    let images = images(seed);
    let mut results = Results::default();
    for number in 0..inputs {
        let mut chance = Chance::new(mix(seed, number));
        let (mut bytes, specs) = images[chance.below(IMAGES) as usize].clone();
        if chance.happens(4) {
            let mut image = decoded::<Image>(&bytes, 0).unwrap();
            damage_records(&mut image, &mut chance);
            bytes = encoded(&image);
        } else {
            damage_bytes(&mut bytes, &mut chance);
        }
        let specs = if chance.happens(4) { &[] } else { &specs[..] };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            restore(&bytes, specs, &mut chance, &mut results);
        }));
        if let Err(panic) = result {
            println!("input {number} of seed {seed:#x}, {} bytes", bytes.len());
            std::panic::resume_unwind(panic);
        }
    }
    results
}

#[test]
fn a_damaged_image_is_refused_or_restored_to_an_engine_that_works() {
    let inputs = crate::testing::from_environment("PIDHERD_FUZZ_INPUTS").unwrap_or(INPUTS);
    let seed = crate::testing::from_environment("PIDHERD_FUZZ_SEED").unwrap_or(super::FIXED);
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    let share = inputs.div_ceil(processors);
    let results: Vec<Results> = std::thread::scope(|scope| {
        let each = |number| scope.spawn(move || fuzz(mix(seed, number), share));
        let threads: Vec<_> = (0..processors).map(each).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{results:?}");
    let met = |count: fn(&Results) -> u64| results.iter().all(|results| count(results) > 0);
    assert!(met(|r| r.undecoded) && met(|r| r.refused) && met(|r| r.restored));
}
