//! A diamond of 50 groups: one root, layers that come after each other, and one sink. The groups of a layer come after
//! some of the layer before, and require some of them. Requests, ends, failures, restarts, late readiness, other sizes
//! and hand-overs come in any order, and every oracle runs after each step, that of the order (`order.rs`) among them.
//!
//! The episodes of the other scenario (`campaign.rs`) have three groups, so chains are short there and a withdrawal
//! goes through two groups at most. Here it goes through seven, and a gate has up to eight groups on either side.
//!
//! ```text
//! PIDHERD_SIM_DIAMOND=0x1234 cargo test --lib proof::diamond      repeats one episode
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use super::act::Act;
use super::chance::{Chance, mix};
use super::fault_profile::FaultProfile;
use super::host::{Broken, Host, snapshots};
use super::oracle::ensure;
use super::recipe::Draft;
use super::world::World;
use crate::engine::ids::{GroupId, Target};
use crate::engine::request::Request;
use crate::group::Rolling;
use crate::lifecycle::{Delay, Policy, Restart, Startup};

/// The sizes of the layers: 50 groups in all.
const LAYERS: [usize; 8] = [1, 8, 8, 8, 8, 8, 8, 1];

/// The name of each group.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let numbers = 0..LAYERS.into_iter().sum();
    numbers.map(|number: usize| format!("group{number}")).collect()
});

/// The number of steps of an episode before its ending.
const LENGTH: u64 = 1_500;

/// The number of episodes in an ordinary run.
const EPISODES: u64 = 3;

/// How many lines of a trace are printed.
const LINES: usize = 60;

/// A function that interferes with a host before each step.
type Meddler<'a> = &'a dyn Fn(&mut Host, u64);

fn faults(chance: &mut Chance) -> FaultProfile {
    FaultProfile {
        spawn_fails: chance.pick(&[0, 0, 100]),
        exec_is_slow: chance.pick(&[0, 5]),
        exec_fails: chance.pick(&[0, 0, 50]),
        dead_on_arrival: chance.pick(&[0, 50]),
        collect_is_late: chance.pick(&[0, 5]),
        arm_fails: chance.pick(&[0, 20]),
        call_takes_long: chance.pick(&[0, 10]),
        sick: chance.pick(&[0, 0, 20]),
        ..FaultProfile::KIND
    }
}

/// A group that comes up quickly or slowly, by itself or by its word, and that gives up soon.
fn draft(chance: &mut Chance) -> Draft {
    let mut draft = Draft::random(chance, None, 2);
    while draft.flawed || draft.recipe.cgroup.is_some() {
        draft = Draft::random(chance, None, 2);
    }
    if chance.happens(25) {
        // Any policy: it may block everything below for ever.
        return draft;
    }
    let timeout = Duration::from_millis(200) + chance.time();
    let startup = [
        Startup::Grace(Duration::ZERO),
        Startup::Grace(Duration::from_millis(chance.below(200))),
        Startup::Notify { timeout },
    ];
    let restart = [Restart::Always, Restart::OnUnexpected, Restart::Never];
    draft.policy = Policy {
        startup: chance.pick(&startup),
        restart: chance.pick(&restart),
        start_retries: chance.below(3) as u32,
        backoff: Delay::Fixed(Duration::from_millis(chance.below(50))),
        restart_delay: Delay::Fixed(Duration::from_millis(chance.below(50))),
        before_run: draft.policy.before_run,
        after_run: draft.policy.after_run,
        ..Policy::default()
    };
    // As a rule it reports that it is ready.
    draft.recipe.ready_fd |= !chance.happens(10);
    draft
}

/// Adds the groups, layer by layer.
fn grow(host: &mut Host, chance: &mut Chance) -> Result<(), Broken> {
    let mut before: Vec<GroupId> = Vec::new();
    let mut all: Vec<GroupId> = Vec::new();
    for (layer, size) in LAYERS.into_iter().enumerate() {
        let mut present = Vec::new();
        for _ in 0..size {
            let mut draft = draft(chance);
            draft.name = NAMES.get(host.model.groups.len()).map_or("", String::as_str);
            let is_sink = layer == LAYERS.len() - 1;
            let chosen = before.iter().copied().filter(|_| is_sink || chance.happens(3));
            let mut chosen: Vec<_> = chosen.collect();
            // Each has a way to the root, and some skip layers.
            let earlier = if chance.happens(4) { chance.find(&all) } else { None };
            chosen.extend(chance.find(&before).into_iter().chain(earlier));
            for id in chosen {
                match chance.happens(3) {
                    true => draft.requires.push(id),
                    false => draft.after.push(id),
                }
            }
            host.step(Act::Add(Box::new(draft)), Chance::new(1))?;
            present.extend(host.model.groups.last().map(|group| group.id));
        }
        all.extend(&present);
        before = present;
    }
    ensure(host.model.groups.len() == NAMES.len(), || {
        format!("{} groups are there", host.model.groups.len())
    })
}

fn command(chance: &mut Chance, host: &Host) -> Option<Act> {
    let groups: Vec<_> = host.model.groups.iter().map(|group| group.id).collect();
    let ids: Vec<_> = host.model.instances.iter().map(|known| known.id).collect();
    let group = chance.find(&groups)?;
    let target = match chance.below(6) {
        0 => Target::All,
        1 | 2 => Target::Instance(chance.find(&ids)?),
        _ => Target::Group(group),
    };
    Some(match chance.below(20) {
        0..6 => Act::Request(Target::All, Request::Start),
        6..10 => Act::Request(target, Request::Start),
        10..13 => Act::Request(target, Request::Stop),
        13..16 => Act::Request(target, Request::Restart),
        16 => Act::Request(Target::Group(group), Request::Kill),
        17 => Act::Scale(group, chance.below(4) as u32),
        18 => Act::Faults(faults(chance)),
        _ => {
            let (max_unavailable, surge) = (1 + chance.below(2) as u32, chance.below(2) as u32);
            Act::Roll(group, Rolling { max_unavailable, surge })
        }
    })
}

/// The time of what happens next.
fn soon(host: &Host) -> Act {
    let world = host.world.borrow();
    let next = [world.armed, world.next()].into_iter().flatten();
    let next = next.filter(|&at| at > world.now).min();
    Act::Pass(next.unwrap_or_else(|| world.now.saturating_add(Duration::from_millis(1))))
}

/// A call of the loop, something in the world, or a command.
fn act(chance: &mut Chance, host: &Host) -> Act {
    if let Some(act) = chance.happens(25).then(|| command(chance, host)).flatten() {
        return act;
    }
    let is_of_this = |act: &Act| {
        let is_other = matches!(
            act,
            Act::Add(_)
                | Act::Request(..)
                | Act::Signal(..)
                | Act::Scale(..)
                | Act::Reload(..)
                | Act::Remove(_)
                | Act::Roll(..)
                | Act::Shutdown
                | Act::Crash(_)
                | Act::Reexec(Some(_))
                | Act::Faults(_)
        );
        !is_other
    };
    // A host that is called often enough for 50 groups, and an outside that is less busy than with three.
    let mut acts = (0..100).map(|_| match chance.below(10) {
        0..5 => Act::Dispatch,
        5..8 => soon(host),
        _ => Act::random(chance, host),
    });
    acts.find(is_of_this).unwrap_or(Act::Dispatch)
}

fn run(seed: u64, meddler: Option<Meddler<'_>>, trace: Option<&Rc<RefCell<Vec<String>>>>) -> Result<u64, Broken> {
    let mut chance = Chance::new(mix(seed, 1));
    let mut world = World::new(mix(seed, 2));
    world.faults = FaultProfile::KIND;
    let mut host = Host::new(world, 4_096, trace.cloned());
    grow(&mut host, &mut chance)?;
    host.step(Act::Faults(faults(&mut chance)), Chance::new(1))?;
    host.step(Act::Request(Target::All, Request::Start), Chance::new(1))?;
    let mut most_up = 0;
    for step in 0..LENGTH {
        if let Some(meddle) = meddler {
            meddle(&mut host, step);
        }
        let mut chance = Chance::new(mix(seed, 3 + step));
        let act = act(&mut chance, &host);
        host.step(act, Chance::new(mix(seed, !step)))?;
        let up = snapshots(&host.driver).filter(|now| now.state.name().is_alive());
        most_up = most_up.max(up.count() as u64);
    }
    host.end(&mut Chance::new(mix(seed, 2)))?;
    Ok(most_up)
}

/// Runs an episode, and tells its last steps if it breaks a promise.
fn run_and_tell(seed: u64) -> u64 {
    match run(seed, None, None) {
        Ok(most_up) => most_up,
        Err(broken) => {
            let lines = Rc::new(RefCell::new(Vec::new()));
            let again = run(seed, None, Some(&lines));
            let lines = lines.borrow();
            println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
            panic!("The diamond {seed:#x} breaks a promise: {broken}\nAgain: {again:?}");
        }
    }
}

#[test]
fn a_diamond_of_groups_goes_up_and_down_in_order() {
    if let Some(seed) = crate::testing::from_environment("PIDHERD_SIM_DIAMOND") {
        println!("{} are up at a time", run_and_tell(seed));
        return;
    }
    let up = (0..EPISODES).map(|number| run_and_tell(mix(super::FIXED, number)));
    let up: Vec<_> = up.collect();
    println!("{up:?} instances are up at a time");
    let most_up = up.into_iter().max().unwrap_or(0);
    assert!(most_up > 20, "at most {most_up} instances are up at a time");
}

#[test]
fn a_diamond_goes_up_and_down_in_order_with_a_new_random_seed() {
    use std::hash::{BuildHasher, RandomState};
    let fresh = RandomState::new().hash_one(std::process::id());
    match crate::testing::from_environment("PIDHERD_SIM_STEPS") {
        // A step of 50 groups costs as much as a hundred of three.
        Some(steps) => (0..(steps / LENGTH / 100).max(1)).for_each(|number| {
            run_and_tell(mix(fresh, number));
        }),
        None => eprintln!("SKIPPED: diamonds with a new seed: set PIDHERD_SIM_STEPS to their length (ci/sim)"),
    }
}

/// Plants a fault before every fifth step, and expects a report that contains one of these texts.
#[track_caller]
fn is_noticed(meddle: impl Fn(&mut Host), as_what: &str) {
    let every_few = |host: &mut Host, step: u64| {
        if step % 5 == 4 {
            meddle(host);
        }
    };
    for number in 0..20 {
        if let Err(broken) = run(mix(7, number), Some(&every_few), None) {
            let is_it = as_what.split('|').any(|what| broken.contains(what));
            assert!(is_it, "expected {as_what:?}: {broken}");
            return;
        }
    }
    panic!("no report of the planted fault");
}

#[test]
fn that_a_start_passes_a_gate_is_noticed() {
    let open = |host: &mut Host| {
        let waits = snapshots(&host.driver).find(|now| now.awaits_order);
        let Some(id) = waits.map(|now| now.id) else { return };
        if let Some(instance) = host.driver.instances.get_mut(id) {
            instance.awaits_order = false;
        }
        host.driver.waiting.push_back(id);
        // Every gate is open from now on.
        host.driver.ranked.clear();
    };
    is_noticed(open, "is started before|must wait for other groups|is stopped before");
}

#[test]
fn that_a_group_forgets_one_of_many_that_it_comes_after_is_noticed() {
    let forget = |host: &mut Host| {
        let last = host.driver.groups.ids().last();
        if let Some(group) = last.and_then(|id| host.driver.groups.get_mut(id)) {
            group.order.edges.after.pop();
            group.order.edges.requires.pop();
        }
    };
    is_noticed(
        forget,
        "must wait for other groups: true|is started before|does not tell what it waits for",
    );
}

#[test]
fn that_a_stop_does_not_know_what_comes_after_is_noticed() {
    let forget = |host: &mut Host| {
        for group in host.driver.groups.values_mut() {
            group.order.followers.clear();
        }
    };
    is_noticed(
        forget,
        "must wait for other groups: true|is stopped before|was not concerned|it is wanted",
    );
}
