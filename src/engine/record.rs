//! What is stored while the supervisor works, so that the next host can go on with it.
//!
//! The base is an [`Image`] without what the host loses with its memory: events that were not fetched, and the runs
//! that are over. The records replace the instances of the base.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::arena::Place;
use super::core::{Engine, starts};
use super::history::History;
use super::ids::InstanceId;
use super::image::{GroupImage, Image};
use super::instance::{Instance, Reload};
use super::kernel::Kernel;
use super::request::Request;
use super::run::{End, EndedRun};
use super::stop_of::StopOf;
use crate::codec::{Damaged, Reader, Stored, Writer, put_text};
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{Action, Cause, Input, Lifecycle, Part, Policy, Reaction, RunEnd, Rung, State, Transition};

/// The state of an instance, as its record contains it ([`Instance::put_record`]).
pub(crate) struct Record {
    pub(crate) life: Lifecycle,
    pub(crate) pending: Option<Request>,
    pub(crate) because: Option<Cause>,
    pub(crate) history: History,
    /// The directory and the name of the cgroup of the present run, or of the last one until it is released.
    pub(crate) cgroup: Option<(PathBuf, String)>,
    /// What it is for, if it is that of a stop command.
    pub(crate) stop_of: Option<StopOf>,
    /// How often its process reports by its own word.
    pub(crate) watchdog: Option<Duration>,
    /// The reload of its program that is under way.
    pub(crate) reload: Option<Reload>,
}

impl Record {
    /// Reads what [`Instance::put_record`] has written.
    pub(crate) fn get(from: &mut Reader<'_>) -> Result<Record, Damaged> {
        Ok(Record {
            life: Stored::get(from)?,
            pending: Stored::get(from)?,
            because: Stored::get(from)?,
            history: History::get_current(from)?,
            cgroup: Stored::get(from)?,
            stop_of: Stored::get(from)?,
            watchdog: Stored::get(from)?,
            reload: Stored::get(from)?,
        })
    }
}

/// More than the encoding of everything in a record but the lifecycle and the cgroup takes.
const FIXED: usize = 256;

impl Instance {
    /// Writes the [`Record`] of this instance, without an allocation.
    pub(crate) fn put_record(&self, to: &mut Writer<'_>) {
        self.life.put(to);
        let pending = match (self.applying, self.pending) {
            (Some(earlier), Some(later)) => Some(earlier.then(later).unwrap_or(later)),
            (earlier, later) => earlier.or(later),
        };
        pending.put(to);
        self.because.put(to);
        self.history.put_current(to);
        let cgroup = match (&self.run_cgroup, self.life.state()) {
            // The next process is about to be spawned, and nothing is left of the last one.
            (None, state) if state.is_unspawned() => &self.context.cgroup,
            (run_cgroup, _) => run_cgroup,
        };
        cgroup.is_some().put(to);
        if let Some(cgroup) = cgroup {
            put_text(cgroup.dir.path().as_os_str().as_bytes(), to);
            put_text(cgroup.name.as_bytes(), to);
        }
        self.stop_of().put(to);
        self.watchdog.put(to);
        self.reload.put(to);
    }

    /// An upper limit for the length of a record before the next base.
    pub(super) fn longest_record(&self, policy: &Policy) -> usize {
        let cgroups = [&self.run_cgroup, &self.context.cgroup].into_iter().flatten();
        let texts = cgroups.map(|cgroup| cgroup.dir.path().as_os_str().len() + cgroup.name.len());
        FIXED + self.life.longest_encoding(policy) + texts.max().unwrap_or(0)
    }
}

impl<K: Kernel> Engine<K> {
    /// Stores the record of an instance, if the state is stored.
    pub(super) fn store(&mut self, id: InstanceId) {
        if !self.kernel.keeps_state() {
            return;
        }
        if let Some(instance) = self.instances.get(id) {
            self.kernel.record(id.index(), &|to| instance.put_record(to));
        }
    }

    /// Notes in the history which run ends and which one begins. Returns the exit record of the run that ends. A process
    /// that could not execute its program has none.
    pub(super) fn note_runs(&mut self, id: InstanceId, reaction: &Reaction) -> Option<ExitRecord> {
        let ends = reaction.transitions().any(Transition::ends_run);
        let begins = matches!(reaction.action, Some(Action::Spawn | Action::SpawnBefore));
        if !ends && !begins {
            return None;
        }
        let wall = self.kernel.wall();
        let instance = self.instances.get_mut(id)?;
        let mut exit = None;
        if ends {
            let number = instance.life.runs().saturating_sub(starts(reaction));
            let (record, oom) = instance.history.take_exit();
            exit = record;
            let error = instance.history.last_error();
            let complaint = instance.history.complaint().cloned();
            let end = End::new(reaction.end.unwrap_or(RunEnd::Unknown), error, oom, complaint);
            if let Some(extra) = instance.known_extra() {
                (extra.ladder, extra.watchdog) = (None, None);
            }
            let earlier = instance.known_extra().and_then(|extra| extra.usage.take());
            let cgroup = instance.process.and_then(|_| self.kernel.usage(id.index())).or(earlier);
            let over = EndedRun { end, exit, cgroup };
            instance.history.ended(number, over, self.now, wall);
        }
        if begins {
            // The spawn may wait, and the run may be withdrawn before it has a process.
            instance.history.began(self.now, wall);
        }
        exit
    }

    /// Sets or clears the pending request of an instance. Returns the previous one.
    pub(super) fn set_pending(&mut self, id: InstanceId, request: Option<Request>) -> Option<Request> {
        let before = self.put_pending(id, request);
        self.store(id);
        before
    }

    /// Takes the pending request of an instance, which is about to be applied.
    pub(super) fn begin_pending(&mut self, id: InstanceId) -> Option<Request> {
        let pending = self.put_pending(id, None);
        if let Some(instance) = self.instances.get_mut(id) {
            instance.applying = pending;
        }
        pending
    }

    /// The next record of an instance contains the effect of the request. Returns whether one was pending.
    pub(super) fn end_pending(&mut self, id: InstanceId) -> bool {
        let instance = self.instances.get_mut(id);
        instance.is_some_and(|instance| instance.applying.take().is_some())
    }

    /// Stores the base if the groups have changed.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        if !self.must_save || !self.kernel.keeps_state() {
            return Ok(());
        }
        let base = self.base();
        let mut longest = 0;
        let mut records = Vec::new();
        for slot in 0..self.instances.slots() {
            let mut record = Vec::new();
            let id = self.instances.id_at(slot);
            if let Some(instance) = id.and_then(|id| self.instances.get(id)) {
                instance.put_record(&mut Writer::new(&mut record));
                let group = self.groups.get(instance.group);
                longest = longest.max(group.map_or(0, |group| instance.longest_record(instance.policy(group))));
            }
            records.push(record);
        }
        self.kernel.save(&base, &records, longest)?;
        self.must_save = false;
        Ok(())
    }

    /// The address of the notify socket, and the image.
    fn base(&self) -> Vec<u8> {
        let mut base = Vec::new();
        let mut writer = Writer::new(&mut base);
        self.socket.put(&mut writer);
        self.image().without_memory().put(&mut writer);
        base
    }

    /// Stores the base because the groups have changed, before anything is started for them. An error shows at the end
    /// of the call.
    pub(super) fn save_before_starts(&mut self) {
        self.must_save = true;
        self.save_if_changed();
    }

    pub(super) fn save_if_changed(&mut self) {
        // The next call tries again, and reports the error.
        let _later = self.save();
    }

    /// The length of the base and of the records, if this many instances came, with cgroups at paths of this length.
    pub(crate) fn stored_size(&self, more: usize, policy: Option<&Policy>, text: usize) -> usize {
        let base = self.base();
        let groups = self.groups.ids().filter_map(|id| self.groups.get(id));
        let crashes = Policy::most_crashes;
        let most = groups
            .map(|group| crashes(&group.policy))
            .chain(policy.map(crashes))
            .max();
        let instances = self.instances.ids().filter_map(|id| self.instances.get(id));
        let longest = instances
            .filter_map(|instance| Some(instance.longest_record(instance.policy(self.groups.get(instance.group)?))))
            .max()
            .unwrap_or(0);
        let longest = longest.max(2 * FIXED + text) + 8 * most.unwrap_or(0);
        // Each can have a stop command.
        let has_commands = |policy: &Policy| policy.stop_commands().next().is_some();
        let mut policies = self
            .groups
            .ids()
            .filter_map(|id| Some(&self.groups.get(id)?.policy))
            .chain(policy);
        let more = if policies.any(has_commands) { 2 * more } else { more };
        let slots = self.instances.slots() as usize + more;
        base.len() + 2 * text + more * FIXED + slots * (2 * longest + FIXED)
    }

    /// Accepts the messages of the processes of groups with the notify socket, except for these instances.
    pub(super) fn hear_groups(&mut self, silent: &HashSet<InstanceId>) {
        let ids: Vec<_> = self.ids().filter(|id| !silent.contains(id)).collect();
        for id in ids {
            let Some(instance) = self.instances.get(id) else {
                continue;
            };
            let is_reaped = instance.life.state().is_reaped();
            let is_heard = !is_reaped && instance.life.state().part() == Part::Program;
            if let Some(pid) = instance.process.filter(|_| is_heard) {
                self.hear_if_described(id, pid);
            }
        }
    }

    /// The host was killed after it had spawned the process of an instance, this long ago, and before it had recorded
    /// that.
    pub(crate) fn was_born(&mut self, id: InstanceId, pid: Pid, age: Duration) {
        let now = self.now;
        let wall = self.kernel.wall();
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        let decided = instance.life.state().since().unwrap_or(now);
        // Its times began with the spawn and not with the recovery.
        self.now = now.saturating_sub(age).max(decided);
        instance.process = Some(pid);
        let part = instance.part();
        if matches!(part, Part::Before | Part::Program) {
            instance.history.began(self.now, wall.checked_sub(age).unwrap_or(wall));
        }
        if part == Part::Program {
            self.hear_if_described(id, pid);
        }
        self.report_stop_command(id, pid);
        self.apply_input(id, Input::Cloned(pid));
        self.now = now;
    }

    /// The instances that are being stopped, and at which rung.
    pub(super) fn rungs(&self) -> Vec<(InstanceId, u8)> {
        let ids = self.instances.ids();
        let rung = |id| match self.instances.get(id)?.life.state() {
            State::Stopping(stopping) => Some((id, stopping.rung)),
            _ => None,
        };
        ids.filter_map(rung).collect()
    }

    /// Sends the signals of these rungs again. The host may have been killed after it had recorded a stop and before it
    /// had sent the signal.
    pub(super) fn signal_again(&mut self, rungs: Vec<(InstanceId, u8)>) {
        for (id, rung) in rungs {
            let Some(instance) = self.instances.get(id).filter(|instance| instance.process.is_some()) else {
                continue;
            };
            let State::Stopping(stopping) = *instance.life.state() else {
                continue;
            };
            // While the ladder waits for a command, no signal was sent, even if the ladder is another one by now.
            let is_there = stopping.rung == rung && !stopping.awaits_command;
            let group = self.groups.get(instance.group).filter(|_| is_there);
            let rung = group.map(|group| stopping.ladder(instance.policy(group)).rung(rung));
            // A command is not begun again: its record tells whether it was.
            if let Some((_, Rung::Signal { signal, scope, .. })) = rung {
                self.send(id, signal, scope);
            }
        }
    }

    /// Withdraws the spawns that nothing wants. The host may have been killed after it had recorded a stop and before it
    /// had withdrawn the spawn.
    pub(super) fn withdraw_again(&mut self) {
        let unwanted: Vec<_> = self.instances.ids().filter(|&id| self.is_to_be_withdrawn(id)).collect();
        for id in unwanted {
            self.apply_input(id, Input::SpawnWithdrawn);
        }
    }

    /// Stops the instances beyond the numbers of their groups. The host may have been killed after it had stored a
    /// number and before it had recorded the stops. Those of a rolling restart are not needed any more.
    pub(super) fn stop_the_retiring(&mut self) {
        let is_at_rest = |id| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| !instance.life.state().name().is_alive())
        };
        let ids = self.ids().filter(|&id| self.is_retiring(id));
        // One that is at rest is removed.
        let retiring: Vec<_> = ids.filter(|&id| self.is_wanted(id) || is_at_rest(id)).collect();
        for id in retiring {
            self.submit(id, Request::Stop, &mut 0);
        }
    }

    /// The process of an instance has ended while no host was there, or its host had only reaped it.
    pub(crate) fn ended_unseen(&mut self, id: InstanceId, record: ExitRecord) {
        // It is not started again while its stop is pending.
        self.run_pending(id);
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        // What its cgroup has counted is not read here.
        if instance.life.state().part() == Part::Program {
            // The last host may have reaped it.
            let exit = instance.life.state().exit_of_reaped().unwrap_or(record.exit);
            instance.history.exited(ExitRecord { exit, ..record }, None);
        }
        self.stop_hearing(id, record.pid);
        self.apply_input(id, Input::Exited(record.exit));
        // The others of its scope can no longer be reached.
        if self
            .instances
            .get(id)
            .is_some_and(|instance| instance.process == Some(record.pid))
        {
            self.apply_input(id, Input::Empty);
        }
    }
}

impl Image {
    /// Without what the host loses with its memory.
    fn without_memory(mut self) -> Image {
        self.forget_memory();
        self
    }

    /// Removes the events, and the runs that are over.
    fn forget_memory(&mut self) {
        self.events.clear();
        for instance in self.instances.iter_mut().filter_map(|place| place.value.as_mut()) {
            instance.history = History::new(0);
            instance.status_text = None;
            instance.ladder = None;
            instance.start = None;
        }
    }

    /// Prepares the image of a host that was killed: the record of each slot replaces what the base says. A rolling
    /// restart and a shutdown are over. A slot without a record is empty.
    pub(crate) fn follow_records(&mut self, records: Vec<Option<Record>>) -> Result<(), Damaged> {
        self.closing = false;
        for group in self.groups.iter_mut().filter_map(|place| place.value.as_mut()) {
            if let Some((_, target)) = group.roll.take() {
                // A larger number has no instances yet. The description asks for them again.
                group.target = group.target.min(target);
            }
        }
        if records.len() != self.instances.len() {
            return Err(Damaged);
        }
        for (place, record) in self.instances.iter_mut().zip(records) {
            match (&mut place.value, record) {
                (Some(instance), Some(record)) => {
                    instance.process = record.life.state().pid();
                    // The groups decide about that.
                    instance.heard = None;
                    instance.life = record.life;
                    instance.pending = record.pending;
                    instance.because = record.because;
                    instance.history = record.history;
                    instance.stop_of = record.stop_of;
                    (instance.watchdog, instance.reload) = (record.watchdog, record.reload);
                }
                (_, None) => place.clear(),
                (None, Some(_)) => return Err(Damaged),
            }
        }
        // The host may have been killed between the end of a group's last instance and the end of the group.
        for index in 0..self.groups.len() {
            let mut instances = self.instances.iter().filter_map(|place| place.value.as_ref());
            let is_used = instances.any(|instance| instance.group.index() as usize == index);
            let is_over = |place: &&mut Place<Box<GroupImage>>| place.value.as_ref().is_some_and(|group| group.leaving);
            if let Some(place) = self.groups.get_mut(index).filter(|_| !is_used).filter(is_over) {
                place.clear();
            }
        }
        Ok(())
    }

    /// Lets the instance of a slot begin anew, because its process is not known to be its own.
    pub(crate) fn reset(&mut self, slot: usize) {
        let Some(instance) = self.instances.get_mut(slot).and_then(|place| place.value.as_mut()) else {
            return;
        };
        self.seed = self.seed.wrapping_add(1);
        instance.life = Lifecycle::new(&Policy::default(), self.seed);
        instance.process = None;
        (instance.pending, instance.because) = (None, None);
        instance.history = History::new(0);
    }
}
