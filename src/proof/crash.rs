//! The host is killed by SIGKILL, between two steps or between any two calls to the kernel in a step. The next host
//! recovers from the state file. The world goes on meanwhile: processes end, and their numbers are given to others.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::act::Act;
use super::crashed_model::Known;
use super::host::{Broken, Host, Touched, snapshots};
use super::kernel::SimKernel;
use super::model::Instance;
use super::oracle::{self, ensure};
use super::reexec::Redescribed;
use super::state_file::{Holder, Killed};
use super::world::Planted;
use super::{kernel_log, order, siblings};
use crate::codec::{Reader, Writer};
use crate::engine::core::Engine;
use crate::engine::ids::InstanceId;
use crate::engine::recovery::{Birth, Found, LeftBehind};
use crate::exit::{Exit, ExitRecord, Pid};
use crate::lifecycle::Wanted;
use crate::signal::Signal;

/// The end of a host.
#[derive(Clone, Debug)]
pub(super) struct Crash {
    /// The act in which the host is killed, and when. Without an act, or if it does not come to that, the host is killed
    /// after it.
    pub(super) inside: Option<(Act, When)>,
    /// How long there is no host.
    pub(super) gap: Duration,
    /// Whether a process is killed meanwhile.
    pub(super) killed: bool,
    /// What the next host describes in another way.
    pub(super) change: Option<Redescribed>,
}

/// The moment in an act in which the host is killed.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// After this many calls to the kernel.
    After(u32),
    /// When the kernel has made a process, and the host has not seen that.
    AtBirth,
}

type Left = LeftBehind<Holder>;

impl Host {
    pub(super) fn crash(&mut self, crash: Crash) -> Result<Touched, Broken> {
        let Crash {
            inside,
            gap,
            killed,
            change,
        } = crash;
        let act = self.act.clone();
        let mut known = Known::of(self);
        let in_mid_step = match inside {
            Some((act, when)) => self.is_killed_in(act, when)?,
            None => false,
        };
        if !in_mid_step {
            known = Known::of(self);
            known.note_records(&self.driver);
        }
        self.tally.saw_crash(in_mid_step);
        // The last crash may not have been stored.
        self.model
            .instances
            .iter_mut()
            .for_each(|known| known.remembered = None);
        self.act = act;
        known.note_foreign(&self.world.borrow());
        self.commands_are_foreign();
        let next = self.next_engine();
        // The memory of the old engine is gone, and nothing was told to the kernel.
        self.world.borrow_mut().is_replaced = true;
        self.pass_without_host(gap, killed);
        let home = next.instances.home();
        self.move_ids(home);
        known.move_ids(home);
        let change = change.map(|change| change.moved(home));
        let left = self.left_behind(home)?;
        self.tally.saw_recovery(&left);
        self.recover(next, known, left, change)
    }

    /// Performs an act, and ends the host in the middle. Returns whether it came to that.
    fn is_killed_in(&mut self, act: Act, when: When) -> Result<bool, Broken> {
        self.world.borrow_mut().file.dies = Some(when);
        self.act = act.clone();
        let result = catch_unwind(AssertUnwindSafe(|| self.perform(act)));
        self.world.borrow_mut().file.dies = None;
        self.trace_log();
        match result {
            Ok(touched) => {
                oracle::check(self, touched?)?;
                self.world.borrow_mut().log.clear();
                Ok(false)
            }
            Err(payload) if payload.is::<Killed>() => {
                self.trace(|_| format!("{:>16} the host is killed", "-"));
                self.is_killed = true;
                let checked = self.enlist_the_unfinished();
                let checked = checked.and_then(|()| kernel_log::check(self));
                self.is_killed = false;
                self.world.borrow_mut().log.clear();
                checked.map(|()| true)
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// What the act has added so far.
    fn enlist_the_unfinished(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.world.borrow_mut().broken.take() {
            return Err(broken);
        }
        let groups: Vec<_> = self.driver.groups.ids().collect();
        for id in groups {
            if self.model.group(id).is_none() {
                let Act::Add(draft) = self.act.clone() else {
                    return Err(format!("{id:?} was added by {:?}", self.act));
                };
                oracle::enlist(self, id, &draft);
            }
        }
        let ids: Vec<InstanceId> = self.driver.ids().collect();
        for id in ids {
            let Some(instance) = self.driver.instances.get(id) else {
                continue;
            };
            if self.model.instance(id).is_some() {
                continue;
            }
            let (group, number) = (instance.group, instance.name.number);
            let known = self.model.group(group);
            let is_extra = known.is_some_and(|known| known.after_roll.is_some_and(|after| number >= after));
            let wanted = known.map_or(Wanted::Down, |known| known.wanted);
            let wish = if is_extra { Wanted::Up } else { wanted };
            self.model.instances.push(Instance::new(id, group, number, wish));
        }
        Ok(())
    }

    /// The host is dead. The processes go on.
    fn pass_without_host(&mut self, gap: Duration, killed: bool) {
        let mut world = self.world.borrow_mut();
        world.die();
        let until = world.now.saturating_add(gap);
        world.pass(until);
        let serials: Vec<u64> = world.processes.iter().map(|process| process.serial).collect();
        let victim = world.chance.find(&serials).filter(|_| killed);
        let now = world.now;
        if let Some(process) = victim.and_then(|serial| world.process_mut(serial)) {
            process.receive(Signal::KILL, now);
        }
        let later = world.chance.time();
        if world.chance.happens(2) {
            let until = now.saturating_add(later);
            world.pass(until);
        }
        let given = world.give_numbers_away();
        self.tally.saw_strangers(given);
    }

    /// Reads the state file, and looks for the processes.
    fn left_behind(&self, home: u32) -> Result<Left, Broken> {
        let (base, records) = {
            let file = &self.world.borrow().file;
            (file.base.clone(), file.records.clone())
        };
        if base.is_empty() {
            return Ok(Left::nothing());
        }
        let now = self.world.borrow().now.as_nanos();
        let find = |birth: &Birth, pid: Pid| self.find(birth, pid);
        let left = LeftBehind::read(&mut Reader::new(&base, home), &records, now, find);
        let mut left = left.map_err(|error| format!("the state file cannot be read: {error:?}"))?;
        if self.world.borrow().planted == Some(Planted::EndsForgotten) {
            left.ended.clear();
        }
        Ok(left)
    }

    fn find(&self, birth: &Birth, pid: Pid) -> io::Result<Found<Holder>> {
        let mut world = self.world.borrow_mut();
        if world.planted == Some(Planted::NothingFound) {
            let exit = Exit::Unknown;
            return Ok(Found::Ended(ExitRecord { pid, exit, usage: None }));
        }
        birth.find(pid, |pid| world.holder(pid, birth))
    }

    /// The next host takes the place of the killed one.
    fn recover(
        &mut self,
        mut next: Engine<SimKernel>,
        mut known: Known,
        left: Left,
        change: Option<Redescribed>,
    ) -> Result<Touched, Broken> {
        let home = next.instances.home();
        known.compare_groups(&mut self.model, &left.image)?;
        let change = change.filter(|&change| self.is_possible(change));
        if let Some(Redescribed::LeftOut(id)) = change {
            known.left_out = Some(id);
        }
        let (described, specs) = self.descriptions(change);
        let restored = next.restore_left(&left.image, specs);
        let restored = restored.map_err(|error| format!("the state is not restored: {error:?}"))?;
        let groups = restored.groups.iter().map(|&(id, _, was_known)| (id, was_known));
        let expected = described.into_iter().map(|id| (id, true));
        ensure(groups.eq(expected), || format!("other groups: {:?}", restored.groups))?;
        self.world.borrow_mut().take_found(&left.candidates, &left.unproven);
        self.give_cgroups(&mut next);
        let saved = next.save();
        saved.map_err(|error| format!("the state is not stored: {error}"))?;
        drop(std::mem::replace(&mut self.driver, next));
        self.world.borrow_mut().begin_anew(home);
        self.forget_the_past();
        known.compare_instances(self, &left)?;
        self.look();
        self.world.borrow_mut().clear_cgroups(&left.ended_cgroups);
        let Left {
            born, ended, unproven, ..
        } = left;
        self.world.borrow_mut().file.ended = ended.iter().map(|&(slot, _)| slot).collect();
        self.call(|driver| driver.resume(&restored, born, ended, &unproven));
        let untold = std::mem::take(&mut self.world.borrow_mut().file.ended);
        ensure(untold.is_empty(), || {
            format!("the ends in the slots {untold:?} are not told")
        })?;
        siblings::follow_group_stops(self, &[]);
        self.between = Some(snapshots(&self.driver).collect());
        order::follow_first_call(self);
        let mut concerned = self.follow(change);
        self.call(|driver| driver.follow_descriptions(&restored));
        concerned.extend(self.before.iter().map(|before| before.id));
        let in_vain = self.world.borrow().file.left_cgroups.clone();
        ensure(in_vain.is_empty(), || format!("processes are left in {in_vain:?}"))?;
        Ok(Touched::These(concerned))
    }

    /// The next host knows no event and no id of the killed one.
    fn forget_the_past(&mut self) {
        self.batch.clear();
        self.senders.clear();
        self.taken.clear();
        self.fetches = false;
        self.pushed = 0;
        self.has_gaps = true;
        self.dropped = self.driver.events.dropped();
        self.edges_seen = self.world.borrow().set.edges;
        let model = &mut self.model;
        model.closing = false;
        model.instances.iter_mut().for_each(|known| known.stored.clear());
        model.passing.clear();
        model.departed.clear();
        model.old_groups.clear();
        model.old_instances.clear();
        model.lose_track();
    }
}

/// The record of an instance, as the state file has it.
pub(super) fn record_of(driver: &Engine<SimKernel>, id: InstanceId) -> Option<Vec<u8>> {
    let mut record = Vec::new();
    driver.instances.get(id)?.put_record(&mut Writer::new(&mut record));
    Some(record)
}
