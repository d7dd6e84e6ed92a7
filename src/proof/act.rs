//! The acts that a step can consist of, and how one is drawn.

use std::time::Duration;

use super::chance::Chance;
use super::crash::{Crash, When};
use super::descriptors::{ORPHANS, SIGNALS};
use super::fault_profile::FaultProfile;
use super::host::Host;
use super::model::Model;
use super::own_ladders;
use super::recipe::Draft;
use super::reexec::Redescribed;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::request::Request;
use crate::fdset::Token;
use crate::group::Rolling;
use crate::lifecycle::{Failure, Input, StopLadder};
use crate::signal::Signal;
use crate::time::Instant;

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Act {
    // Acts of the world.
    /// Time advances to this instant.
    Pass(Instant),
    /// The wall clock is set forward or back by this many seconds.
    SetWall(i64),
    /// The fault profile changes.
    Faults(FaultProfile),
    /// Another process signals a process.
    Outside {
        serial: u64,
        signal: Signal,
    },

    // Calls of the host's loop.
    /// The host waits. The entries that are readable now are its next batch.
    Poll,
    /// The host handles an entry of its batch, which may be out of date.
    Ready {
        serial: u64,
    },
    /// The host handles a process with a descriptor that may not be readable.
    Knock(InstanceId),
    /// The host handles the timer.
    Timer,
    /// The host handles the notify socket, readable or not.
    Socket,
    /// The host handles the entry of its signals or of orphans, readable or not.
    Entry(Token),
    /// A signal arrives at the host.
    SignalHost(Signal),
    /// An adopted orphan ends.
    Orphan(u32),
    /// The host dispatches, whether something is ready or not.
    Dispatch,
    /// The timer fires early, so nothing is due yet.
    Early,
    /// The host fetches at most this many events.
    Drain(usize),
    /// The host reports something about a process.
    Report(InstanceId, Input),

    // Commands.
    Add(Box<Draft>),
    Request(Target, Request),
    /// A stop by this ladder.
    StopWith(Target, Box<StopLadder>),
    Signal(Target, Signal),
    Scale(GroupId, u32),
    Reload(GroupId, Box<Draft>),
    Remove(GroupId),
    Roll(GroupId, Rolling),
    Shutdown,
    /// The host is replaced by another program, which may describe one group in another way.
    Reexec(Option<Redescribed>),
    /// The host is killed, and the next one recovers.
    Crash(Box<Crash>),
    /// The host reads an instance's status.
    Status(InstanceId),
}

/// The largest number of instances in a group: more than two slices.
const MOST: u32 = 7;

impl Act {
    /// Draws an act that makes sense in the present state; now and then one that hardly does.
    pub(super) fn random(chance: &mut Chance, host: &Host) -> Act {
        let act = match chance.below(1_000) {
            0..230 => Some(pass(chance, host)),
            230..236 => Some(Act::Reexec(redescribed(chance, &host.model))),
            236..244 if host.world.borrow().file.is_kept => Some(crash(chance, host)),
            236..240 => Some(Act::Reexec(redescribed(chance, &host.model))),
            240..300 => Some(Act::Poll),
            300..520 => ready(chance, host),
            520..570 => host.world.borrow().timer_is_ready().then_some(Act::Timer),
            570..600 => Some(Act::Dispatch),
            600..625 => Some(Act::Socket),
            625..634 => Some(Act::Entry(chance.pick(&[SIGNALS, ORPHANS]))),
            634..637 => Some(Act::SignalHost(chance.pick(&[Signal::HUP, Signal::TERM, Signal::CHLD]))),
            637..640 => Some(Act::Orphan(1_000 + chance.below(100) as u32)),
            640..660 => chance.find(&ids(&host.model)).map(Act::Knock),
            660..680 => Some(Act::Early),
            680..760 => Some(Act::Drain(chance.pick(&[1, 2, 5, 100]))),
            760..790 => report(chance, host),
            790..800 => outside(chance, host),
            800..804 => Some(Act::Faults(FaultProfile::random(chance))),
            804..806 => Some(Act::SetWall(chance.below(200_000) as i64 - 100_000)),
            806..816 => chance.find(&ids(&host.model)).map(Act::Status),
            _ => command(chance, &host.model),
        };
        act.unwrap_or_else(|| pass(chance, host))
    }
}

impl Act {
    /// Whether the act is a call of the host's loop and not a command.
    pub(super) const fn is_of_the_loop(&self) -> bool {
        matches!(
            self,
            Act::Ready { .. } | Act::Knock(_) | Act::Timer | Act::Socket | Act::Entry(_) | Act::Early | Act::Dispatch
        )
    }
}

impl Act {
    /// Whether the host can be killed in the middle of it.
    const fn may_call_the_kernel(&self) -> bool {
        let is_command = matches!(
            self,
            Act::Add(_)
                | Act::Request(..)
                | Act::StopWith(..)
                | Act::Signal(..)
                | Act::Scale(..)
                | Act::Reload(..)
                | Act::Remove(_)
                | Act::Roll(..)
                | Act::Shutdown
                | Act::Report(..)
        );
        is_command || self.is_of_the_loop()
    }
}

fn ids(model: &Model) -> Vec<InstanceId> {
    let old = model.old_instances.iter().rev().take(2).copied();
    model.instances.iter().map(|instance| instance.id).chain(old).collect()
}

fn groups(model: &Model) -> Vec<GroupId> {
    let old = model.old_groups.iter().rev().take(1).copied();
    model.groups.iter().map(|group| group.id).chain(old).collect()
}

/// Advances the time: mostly to the next thing that happens, or close to it, and sometimes far beyond, as after a
/// suspend.
fn pass(chance: &mut Chance, host: &Host) -> Act {
    let world = host.world.borrow();
    let after = |by| world.now.saturating_add(by);
    let next = [world.armed, world.next()]
        .into_iter()
        .flatten()
        .filter(|&at| at > world.now)
        .min();
    let next = next.unwrap_or_else(|| after(Duration::from_millis(1)));
    Act::Pass(match chance.below(40) {
        0 => after(Duration::from_secs(3_600 * (1 + chance.below(100)))),
        1..=3 => after(chance.time()),
        4..=6 => next.saturating_sub(Duration::from_nanos(1)).max(world.now),
        7..=9 => next.saturating_add(Duration::from_nanos(1)),
        10..=13 => next.saturating_add(chance.time()),
        _ => next,
    })
}

fn ready(chance: &mut Chance, host: &Host) -> Option<Act> {
    let serial = if host.batch.is_empty() {
        let world = host.world.borrow();
        let readable: Vec<u64> = world
            .processes
            .iter()
            .filter(|p| p.is_ready())
            .map(|p| p.serial)
            .collect();
        chance.find(&readable)?
    } else {
        chance.pick(&host.batch)
    };
    Some(Act::Ready { serial })
}

fn report(chance: &mut Chance, host: &Host) -> Option<Act> {
    let by = chance.time();
    let input = chance.pick(&[
        Input::Ready,
        Input::Ready,
        Input::Ready,
        Input::Alive,
        Input::Alive,
        Input::Extend(by),
        Input::Failed(Failure::NotReady),
        Input::Failed(Failure::Watchdog),
        Input::Failed(Failure::Unhealthy),
        Input::Failed(Failure::TimedOut),
    ]);
    chance.find(&ids(&host.model)).map(|id| Act::Report(id, input))
}

fn outside(chance: &mut Chance, host: &Host) -> Option<Act> {
    let world = host.world.borrow();
    let alive: Vec<u64> = world.processes.iter().map(|process| process.serial).collect();
    let serial = chance.find(&alive)?;
    let signal = chance.pick(&[Signal::KILL, Signal::TERM, Signal::STOP, Signal::CONT]);
    Some(Act::Outside { serial, signal })
}

fn redescribed(chance: &mut Chance, model: &Model) -> Option<Redescribed> {
    let size = chance.below(u64::from(MOST) + 1) as u32;
    let id = chance.find(&groups(model));
    match chance.below(10) {
        0 => id.map(Redescribed::LeftOut),
        1 | 2 => id.map(|id| Redescribed::Resized(id, size)),
        _ => None,
    }
}

/// The end of the host, often in the middle of another act. The next host begins at once, or much later.
fn crash(chance: &mut Chance, host: &Host) -> Act {
    let mut acts = (0..8).map(|_| Act::random(chance, host));
    let inner = acts.find(Act::may_call_the_kernel);
    let inner = inner.filter(|_| !chance.happens(5));
    let last = chance.pick(&[2, 4, 8, 30]);
    let when = if chance.happens(3) {
        When::AtBirth
    } else {
        When::After(chance.below(last) as u32)
    };
    let gap = chance.time();
    Act::Crash(Box::new(Crash {
        inside: inner.map(|act| (act, when)),
        gap: chance.pick(&[Duration::ZERO, gap, gap, gap + Duration::from_millis(20)]),
        killed: chance.happens(2),
        change: redescribed(chance, &host.model),
    }))
}

fn target(chance: &mut Chance, model: &Model) -> Option<Target> {
    match chance.below(10) {
        0 => Some(Target::All),
        1..=5 => chance.find(&groups(model)).map(Target::Group),
        _ => chance.find(&ids(model)).map(Target::Instance),
    }
}

fn command(chance: &mut Chance, model: &Model) -> Option<Act> {
    let size = |chance: &mut Chance| chance.below(u64::from(MOST) + 1) as u32;
    match chance.below(100) {
        _ if model.groups.is_empty() || (model.groups.len() < 3 && chance.happens(10)) => {
            let draft = Draft::random(chance, None, MOST);
            let draft = if chance.happens(2) {
                draft
            } else {
                draft.with_order(chance, &groups(model))
            };
            Some(Act::Add(Box::new(draft)))
        }
        0..24 => Some(Act::Request(target(chance, model)?, Request::Start)),
        24..28 => own_ladders::act(chance, model),
        28..38 => Some(Act::Request(target(chance, model)?, Request::Stop)),
        38..50 => Some(Act::Request(target(chance, model)?, Request::Restart)),
        50..56 => Some(Act::Request(target(chance, model)?, Request::Kill)),
        56..64 => {
            let signals = [Signal::HUP, Signal::TERM, Signal::STOP, Signal::CONT, Signal::KILL];
            Some(Act::Signal(target(chance, model)?, chance.pick(&signals)))
        }
        64..70 => {
            let rolling = Rolling {
                max_unavailable: chance.below(4) as u32,
                surge: chance.below(3) as u32,
            };
            Some(Act::Roll(chance.find(&groups(model))?, rolling))
        }
        70..80 => Some(Act::Scale(chance.find(&groups(model))?, size(chance))),
        80..95 => {
            let id = chance.find(&groups(model))?;
            let from = model.group(id).map(|group| (&group.recipe, &group.policy));
            let mut draft = Draft::random(chance, from, MOST);
            match (chance.below(4), model.group(id)) {
                (0, _) => draft = draft.with_order(chance, &groups(model)),
                (1 | 2, Some(group)) => (draft.after, draft.requires) = (group.after.clone(), group.requires.clone()),
                _ => {}
            }
            Some(Act::Reload(id, Box::new(draft)))
        }
        95..99 => Some(Act::Remove(chance.find(&groups(model))?)),
        _ => chance.happens(4).then_some(Act::Shutdown),
    }
}
