//! The real side of the engine's seam: one set of descriptors, the timer, signals, processes and their cgroups, the
//! notify socket, and orphans.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::failures::{cgroup_failed, watch_failed};
use super::orphans::Orphans;
use super::run_cgroup::{RunCgroup, RunCgroups};
use super::state_file::StateFile;
use super::stored_fd::Stores;
use super::watched::{
    Rest, Spare, Watch, Watched, group_is_alive, is_errno, keeps_number, reaches_group, send, wait_for_end,
};
use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::child::Pipes;
use crate::codec::{Stored, Writer};
use crate::command::{InFlight, Program, SpawnError, Spawner};
use crate::deadlines::Deadlines;
use crate::engine::context::SpawnContext;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Collected, Happening, Kernel, Report, Senders, Spawned};
use crate::exit::{ExitRecord, Pid};
use crate::fdset::{FdSet, Interest, Token};
use crate::growth::grow_to;
use crate::launcher::next_look;
use crate::lifecycle::Scope;
use crate::lost;
use crate::notify::{Buffer, NotifySocket, Readiness, ReadyFd};
use crate::owner::Owner;
use crate::pidfd::{Look, PidFd};
use crate::procfs;
use crate::signal::Signal;
use crate::signalfd::SignalFd;
use crate::sys::wait::Wait;
use crate::time::Instant;
use crate::timerfd::{Clock, TimerFd};
use crate::waker::Waker;

/// The real kernel.
pub(crate) struct Linux {
    pub(crate) owner: Owner,
    pub(crate) fds: FdSet,
    /// The set that this program has made, while it tries to go on with one that it has inherited.
    pub(super) own_set: Option<FdSet>,
    pub(super) spawner: Spawner,
    pub(super) clock: Clock,
    timer: TimerFd,
    timer_token: Token,
    signals: Option<(SignalFd, Token)>,
    waker: Option<(Waker, Token)>,
    /// For each entry of the set, by its index: the slot of the instance that the entry belongs to.
    pub(super) slots: Vec<u32>,
    pub(super) run_cgroups: RunCgroups,
    /// The time of the next look at a process that has ended and has no status yet, or that is in flight, by slot.
    pub(super) looks: Deadlines,
    pub(super) notify: Option<(NotifySocket, Token)>,
    /// The remaining lines of the last message.
    pub(super) reports: VecDeque<(InstanceId, Report)>,
    /// The descriptors that instances have stored.
    pub(super) stores: Stores,
    pub(super) buffer: Box<Buffer>,
    pub(crate) orphans: Option<Orphans>,
    /// The processes, by the slot of their instance.
    pub(super) processes: Vec<Option<Watched>>,
    pub(super) spare: Spare,
    /// The number of processes in flight, and its maximum.
    pub(super) in_flight: usize,
    pub(crate) most_in_flight: usize,
    /// Where the state is stored, if it is.
    pub(crate) state: Option<StateFile>,
}

/// The kind of an entry of the set.
enum Kind {
    Timer,
    Signals,
    Notify,
    Orphans,
    Waker,
    /// A descriptor of the process in this slot.
    Process(u32),
    /// A descriptor that the instance in this slot has stored.
    Stored(u32),
}

impl Linux {
    pub(crate) fn new(clock: Clock, spawner: Spawner, signals: Option<SignalFd>) -> io::Result<Linux> {
        let mut fds = FdSet::new()?;
        let timer = TimerFd::new(clock)?;
        let timer_token = fds.add(timer.as_fd(), Interest::READ)?;
        let signals = match signals {
            Some(signals) => {
                let token = fds.add(signals.as_fd(), Interest::READ)?;
                Some((signals, token))
            }
            None => None,
        };
        Ok(Linux {
            owner: Owner::this_process(),
            fds,
            own_set: None,
            spawner,
            clock,
            timer,
            timer_token,
            signals,
            waker: None,
            slots: Vec::new(),
            run_cgroups: RunCgroups::default(),
            looks: Deadlines::new(),
            notify: None,
            reports: VecDeque::new(),
            stores: Stores::default(),
            buffer: Box::new(Buffer::new()),
            orphans: None,
            processes: Vec::new(),
            spare: Spare::default(),
            in_flight: 0,
            most_in_flight: SPAWNS_IN_FLIGHT,
            state: None,
        })
    }

    /// Adds the descriptors that this program has made itself to a set that it has inherited.
    pub(super) fn join_set(&mut self) -> io::Result<()> {
        self.timer_token = self.fds.add(self.timer.as_fd(), Interest::READ)?;
        if let Some((signals, token)) = &mut self.signals {
            *token = self.fds.add(signals.as_fd(), Interest::READ)?;
        }
        match &mut self.orphans {
            Some(orphans) => orphans.join(&mut self.fds),
            None => Ok(()),
        }
    }

    /// Remembers the slot that an entry of the set belongs to.
    pub(super) fn set_slot(&mut self, token: Token, slot: u32) {
        if self.slots.len() <= token.index() {
            let needed = token.index() + 1;
            grow_to(&mut self.slots, needed);
            self.slots.resize(needed, slot);
        }
        if let Some(place) = self.slots.get_mut(token.index()) {
            *place = slot;
        }
    }

    pub(crate) fn adopt_orphans(&mut self) -> io::Result<()> {
        self.orphans = Some(Orphans::new(&mut self.fds)?);
        Ok(())
    }

    /// The handle that wakes the host. The first call makes its descriptor.
    pub(crate) fn waker(&mut self) -> io::Result<Waker> {
        if let Some((waker, _)) = &self.waker {
            return Ok(waker.clone());
        }
        let waker = Waker::new()?;
        let token = self.fds.add(waker.as_fd(), Interest::READ)?;
        self.waker = Some((waker.clone(), token));
        Ok(waker)
    }

    /// The descriptor of the set's entry with this token; `None` for a token that is out of date.
    pub(crate) fn fd(&self, entry: Token) -> Option<BorrowedFd<'_>> {
        match self.kind(entry)? {
            Kind::Timer => Some(self.timer.as_fd()),
            Kind::Signals => self.signals.as_ref().map(|(signals, _)| signals.as_fd()),
            Kind::Notify => self.notify.as_ref().map(|(socket, _)| socket.as_fd()),
            Kind::Orphans => self.orphans.as_ref()?.fd(entry),
            Kind::Waker => self.waker.as_ref().map(|(waker, _)| waker.as_fd()),
            Kind::Process(slot) => self.process(slot)?.fd(entry),
            Kind::Stored(slot) => self.stored(slot, entry),
        }
    }

    /// The kind of the set's entry with this token; `None` for a token that is out of date.
    fn kind(&self, entry: Token) -> Option<Kind> {
        self.fds.get(entry)?;
        if entry == self.timer_token {
            return Some(Kind::Timer);
        }
        match &self.signals {
            Some((_, signals)) if *signals == entry => Some(Kind::Signals),
            _ if self.notify_entry() == Some(entry) => Some(Kind::Notify),
            _ if self.waker.as_ref().is_some_and(|(_, waker)| *waker == entry) => Some(Kind::Waker),
            _ if self.orphans.as_ref().is_some_and(|orphans| orphans.fd(entry).is_some()) => Some(Kind::Orphans),
            _ => self
                .slots
                .get(entry.index())
                .map(|&slot| match self.stored(slot, entry) {
                    Some(_) => Kind::Stored(slot),
                    None => Kind::Process(slot),
                }),
        }
    }

    pub(super) fn process(&self, slot: u32) -> Option<&Watched> {
        self.processes.get(slot as usize)?.as_ref()
    }

    /// Takes the process out of its slot during `work`, which needs the process and the rest at the same time.
    fn with<T>(&mut self, slot: u32, work: impl FnOnce(&mut Linux, &mut Watched) -> T) -> Option<T> {
        let mut process = self.processes.get_mut(slot as usize)?.take()?;
        let result = work(self, &mut process);
        if let Some(place) = self.processes.get_mut(slot as usize) {
            *place = Some(process);
        }
        Some(result)
    }

    fn next_orphan(&mut self) -> io::Result<Option<ExitRecord>> {
        let Some(orphans) = &mut self.orphans else {
            return Ok(None);
        };
        let own = self.processes.iter().flatten().filter_map(Watched::unreaped);
        orphans.next(own, &self.fds, self.clock.now())
    }

    /// Adds a new child to the set. After an error nothing is left of the child.
    fn watch(
        &mut self,
        (pidfd, pipes, in_flight): (PidFd, Pipes, Option<InFlight>),
        program: &Program,
    ) -> Result<(PidFd, Token, Pipes, Option<InFlight>), SpawnError> {
        match self.fds.add(pidfd.as_fd(), Interest::READ) {
            Ok(token) => Ok((pidfd, token, pipes, in_flight)),
            Err(error) => {
                self.end(&pidfd, in_flight);
                Err(watch_failed(program, &error))
            }
        }
    }

    /// Notes when a process was made, if its state is stored.
    fn note_birth(&mut self, slot: u32, made: &Result<(PidFd, Pipes, Option<InFlight>), SpawnError>) {
        if let (Some(state), Ok((pidfd, ..))) = (&self.state, made) {
            state.end_birth(slot, pidfd.pid());
            self.spawner.set_birth(None);
        }
    }

    fn watch_readiness(&mut self, pipe: OwnedFd) -> io::Result<(ReadyFd, Token)> {
        let ready = ReadyFd::new(pipe)?;
        let token = self.fds.add(ready.as_fd(), Interest::READ)?;
        Ok((ready, token))
    }

    fn abandon(&mut self, token: Token, pidfd: PidFd, in_flight: Option<InFlight>) {
        self.end(&pidfd, in_flight);
        self.forget(token, pidfd);
    }

    /// Kills a new child that cannot be watched.
    fn end(&mut self, pidfd: &PidFd, in_flight: Option<InFlight>) {
        let _gone = pidfd.signal(Signal::KILL);
        wait_for_end(pidfd, LAST_PATIENCE);
        self.release(pidfd, in_flight);
    }

    /// Takes back the resources of a child that was killed. One that has not ended yet is reaped by a later spawn.
    fn release(&mut self, pidfd: &PidFd, in_flight: Option<InFlight>) {
        match in_flight {
            Some(in_flight) => self.spawner.abandon(in_flight, pidfd),
            None => lost::keep_copy_if_unreaped(pidfd),
        }
    }

    /// Reads the readiness descriptor. It is read before the end of the process is looked for, because a process may
    /// report its readiness and then end.
    fn read_readiness(&mut self, process: &mut Watched) -> io::Result<Collected> {
        let Some(rest) = process.rest.as_mut() else {
            return Ok(Collected::Nothing);
        };
        let Some((mut ready, token)) = rest.ready.take() else {
            return Ok(Collected::Nothing);
        };
        let read = ready.read_portion();
        match read {
            Ok(Some(Readiness::Ready | Readiness::Closed)) => drop(self.fds.remove(token, OwnedFd::from(ready))),
            Ok(Some(Readiness::Waiting) | None) | Err(_) => rest.ready = Some((ready, token)),
        }
        Ok(match read? {
            None => Collected::Spurious,
            Some(Readiness::Waiting) => Collected::Nothing,
            Some(Readiness::Ready) => Collected::Ready,
            // A process that is ending closes all its descriptors. Its end is reported by its exit status, so this is
            // no failure. If that cannot be read (EMFILE), only a process that has ended already counts as ending: the
            // pipe reports its end once.
            Some(Readiness::Closed) => match procfs::is_ending(process.pidfd.pid()) {
                Ok(true) => Collected::Nothing,
                Err(_) if !process.pidfd.is_alive() => Collected::Nothing,
                Ok(false) | Err(_) => Collected::NotReady,
            },
        })
    }

    /// Looks whether a process has ended. If its status is not available yet, the process is taken out of the set,
    /// where its descriptor would stay readable, and looked at again later.
    pub(super) fn look(&mut self, process: &mut Watched, how: Wait) -> io::Result<Option<ExitRecord>> {
        let state = self.state.as_ref().filter(|_| how == Wait::Reap);
        let cell = state.and_then(|state| state.exit_cell(process.slot));
        let looked = process.pidfd.look_into(how, cell.as_ref());
        if let Ok(Look::Ended(record)) = looked {
            return Ok(Some(record));
        }
        let before = match process.watch {
            Watch::Late(looks) => Some(looks),
            Watch::Alive(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => None,
        };
        let looks = match (before, &looked) {
            // The process is not a child of this process, and its parent does not reap it.
            (Some(MOST_LOOKS..), Ok(Look::Unreaped)) => return Ok(Some(process.pidfd.unknown())),
            (Some(looks), _) => looks.saturating_add(1),
            (None, Ok(Look::Held | Look::Unreaped)) if self.take_out(process).is_ok() => 0,
            // The process is alive, or no descriptor is free and the one in the set must stay.
            (None, _) => return looked.map(|_| None),
        };
        process.watch = Watch::Late(looks);
        looked.map(|_| None)
    }

    /// Sets the time of the next look at a process after it was collected, if it needs one.
    fn schedule_look(&mut self, process: &Watched) {
        if let Some((began, _)) = process.inherited_flight() {
            let now = self.clock.now();
            let age = now.saturating_duration_since(*began);
            return self.looks.set(process.slot, next_look(now, age));
        }
        if let Some(in_flight) = &process.in_flight {
            return self.set_flight_look(process.slot, in_flight);
        }
        match process.watch {
            Watch::Late(looks) => {
                let wait = LOOK_FIRST.saturating_mul(1 << looks.min(LOOKS_GROW));
                self.looks.set(process.slot, self.clock.now().saturating_add(wait));
            }
            Watch::Alive(_) | Watch::Reaped(_) | Watch::Group | Watch::Zombie => self.looks.clear(process.slot),
        }
    }

    /// Finds out what happened to a process: its readiness first, then its end, then the end of its cgroup.
    fn see(&mut self, process: &mut Watched, hold: bool) -> io::Result<Collected> {
        if let Some(seen) = self.see_flight(process) {
            return Ok(seen);
        }
        let readiness = self.read_readiness(process)?;
        if readiness != Collected::Nothing {
            return Ok(readiness);
        }
        let is_left = matches!(process.watch, Watch::Reaped(_)) && reaches_group(process);
        if is_left && self.take_out(process).is_ok() {
            // Before, no descriptor was free for a copy, and the entry was still readable.
            process.watch = Watch::Group;
        }
        match (&process.watch, process.run_cgroup()) {
            (Watch::Alive(_) | Watch::Late(_), _) => {
                let record = if hold {
                    self.keep_others(process)?
                } else {
                    self.reap(process)?
                };
                Ok(record.map_or(Collected::Nothing, Collected::Ended))
            }
            (Watch::Group | Watch::Zombie, Some(run_cgroup)) if run_cgroup.changed()? => Ok(Collected::CgroupEmpty),
            (Watch::Reaped(_) | Watch::Group | Watch::Zombie, _) => Ok(Collected::Nothing),
        }
    }

    /// Reaps a process that has ended, and keeps no access to its group.
    fn reap(&mut self, process: &mut Watched) -> io::Result<Option<ExitRecord>> {
        let record = self.look(process, Wait::Reap)?;
        if record.is_some() {
            process.watch = match process.watch {
                Watch::Alive(token) | Watch::Reaped(token) => Watch::Reaped(token),
                Watch::Late(_) | Watch::Group | Watch::Zombie => Watch::Group,
            };
        }
        Ok(record)
    }

    /// Kills what is left in the cgroup of a run that has ended, and removes the cgroup.
    pub(super) fn retire(&mut self, run_cgroup: Option<RunCgroup>) {
        if let Some(run_cgroup) = run_cgroup {
            let now = self.clock.now();
            self.run_cgroups.retire(run_cgroup, &mut self.fds, now);
        }
    }

    /// Stores a process in the slot of its instance.
    pub(super) fn put(&mut self, process: Watched) {
        let slot = process.slot as usize;
        if self.processes.len() <= slot {
            let needed = slot + 1;
            grow_to(&mut self.processes, needed);
            self.processes.resize_with(needed, || None);
        }
        if let Some(place) = self.processes.get_mut(slot) {
            *place = Some(process);
        }
    }

    pub(super) fn forget(&mut self, token: Token, pidfd: PidFd) {
        // A refusal means that the entry is already gone. Dropping the descriptor closes it.
        drop(self.fds.remove(token, OwnedFd::from(pidfd)));
    }
}

impl Kernel for Linux {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn monotonic(&self) -> Instant {
        Clock::Monotonic.now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn is_saturated(&self) -> bool {
        self.most_in_flight > 0 && self.in_flight >= self.most_in_flight
    }

    fn spawn(&mut self, slot: u32, program: &Program, context: &SpawnContext) -> Result<Spawned, SpawnError> {
        let with_stored = match context.gets_stored {
            true => self.with_stored(slot, program)?,
            false => None,
        };
        let program = with_stored.as_ref().unwrap_or(program);
        let now = self.clock.now();
        let mut make = |path| self.run_cgroups.make(path, &context.files, now);
        let run_cgroup = match context.cgroup.as_deref().map(&mut make).transpose() {
            Ok(run_cgroup) => run_cgroup,
            Err(error) => return Err(cgroup_failed(program, &error)),
        };
        let spawned = self.make(program, run_cgroup.as_ref().map(RunCgroup::fd));
        self.note_birth(slot, &spawned);
        let watched = spawned.and_then(|made| self.watch(made, program));
        let watched = watched.and_then(|(pidfd, token, mut pipes, in_flight)| {
            let ready = context.ready_fd.then(|| pipes.extra.take()).flatten();
            let ready = ready.map(|pipe| self.watch_readiness(pipe)).transpose();
            match ready {
                Ok(ready) => Ok((pidfd, token, ready, pipes, in_flight)),
                Err(error) => {
                    self.abandon(token, pidfd, in_flight);
                    Err(watch_failed(program, &error))
                }
            }
        });
        match watched {
            Ok((pidfd, token, ready, pipes, in_flight)) => {
                self.set_slot(token, slot);
                if let Some((_, token)) = &ready {
                    self.set_slot(*token, slot);
                }
                if let Some(run_cgroup) = &run_cgroup {
                    self.run_cgroups.move_in(run_cgroup, slot);
                }
                let pid = pidfd.pid();
                let watch = Watch::Alive(token);
                let executed = in_flight.is_none();
                if let Some(in_flight) = &in_flight {
                    self.in_flight += 1;
                    self.set_flight_look(slot, in_flight);
                }
                let rest = self.spare.rest(run_cgroup, ready);
                self.put(Watched {
                    pidfd,
                    watch,
                    slot,
                    in_flight,
                    rest,
                });
                Ok(Spawned { pid, pipes, executed })
            }
            Err(error) => {
                self.retire(run_cgroup);
                Err(error)
            }
        }
    }

    fn collect(&mut self, slot: u32, keep_scope: bool) -> io::Result<Collected> {
        let seen = self.with(slot, |linux, process| {
            let seen = linux.see(process, keep_scope);
            linux.schedule_look(process);
            seen
        });
        seen.unwrap_or(Ok(Collected::Nothing))
    }

    fn has_executed(&self, slot: u32) -> bool {
        let in_flight = self.process(slot).and_then(|process| process.in_flight.as_ref());
        in_flight.is_some_and(InFlight::has_executed)
    }

    fn has_ended(&self, slot: u32) -> bool {
        self.process(slot).is_none_or(|process| match process.watch {
            Watch::Alive(_) | Watch::Late(_) => matches!(process.pidfd.look(Wait::Peek), Ok(Look::Ended(_))),
            Watch::Reaped(_) | Watch::Group | Watch::Zombie => true,
        })
    }

    fn signal(&mut self, slot: u32, signal: Signal, scope: Scope) -> io::Result<()> {
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Ok(());
        };
        if let Some(in_flight) = &mut process.in_flight {
            in_flight.note_signal();
        }
        send(process, signal, scope)
    }

    fn reserve(&mut self, processes: usize, slots: u32) {
        // The set has not only the entries of processes.
        let places = processes + OWN_ENTRIES;
        self.fds.reserve(places.saturating_sub(self.fds.len()));
        // If this fails, the spawn that needs the memory tries to allocate it again, and reports the failure.
        let most_in_flight = self.most_in_flight.min(slots as usize);
        let _for_later = self.spawner.reserve_beside(most_in_flight, self.in_flight);
        // Almost only spawns in flight are looked at.
        self.looks.reserve(slots, most_in_flight);
        grow_to(&mut self.slots, places);
        grow_to(&mut self.processes, slots as usize);
    }

    fn is_empty(&mut self, slot: u32, scope: Scope, looks: u8) -> io::Result<bool> {
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Ok(true);
        };
        match (&process.watch, scope) {
            // This holds also for a process that moved itself to another cgroup.
            (Watch::Alive(_) | Watch::Late(_), _) => Ok(false),
            (Watch::Reaped(_) | Watch::Group | Watch::Zombie, Scope::Cgroup) if process.run_cgroup().is_some() => {
                process.run_cgroup().map_or(Ok(true), RunCgroup::is_empty)
            }
            (Watch::Reaped(_), _) | (Watch::Group | Watch::Zombie, Scope::Process) => Ok(true),
            (Watch::Group, Scope::ProcessGroup | Scope::Cgroup) => {
                let probe = process.pidfd.signal_group(None);
                // A zombie that its parent does not reap answers the probe too. All of /proc is listed only for the
                // few groups that stay.
                Ok(is_errno(&probe, Errno::SRCH) || (looks >= CAREFUL_LOOK && !group_is_alive(process)?))
            }
            (Watch::Zombie, Scope::ProcessGroup | Scope::Cgroup) => {
                Ok(!keeps_number(process) || !group_is_alive(process)?)
            }
        }
    }

    fn usage(&self, slot: u32) -> Option<CgroupUsage> {
        self.process(slot)?.run_cgroup().map(RunCgroup::usage)
    }

    fn out_of_memory(&self, slot: u32) -> Option<OomKill> {
        self.process(slot)?.run_cgroup()?.out_of_memory()
    }

    fn change_limit(&mut self, slot: u32, file: &CgroupFile) -> Result<(), CgroupError> {
        let run_cgroup = self.process(slot).and_then(Watched::run_cgroup);
        run_cgroup.map_or(Ok(()), |run_cgroup| run_cgroup.change_limit(file))
    }

    fn freeze(&mut self, slot: u32, on: bool) -> io::Result<()> {
        let run_cgroup = self.process(slot).and_then(Watched::run_cgroup);
        run_cgroup.map_or(Ok(()), |run_cgroup| run_cgroup.freeze(on))
    }

    fn discard(&mut self, slot: u32, patience: Duration) {
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        let Watched {
            pidfd,
            watch,
            slot,
            in_flight,
            rest,
        } = process;
        let Rest {
            run_cgroup,
            ready,
            inherited_flight,
            member: _,
        } = self.spare.emptied(rest);
        self.in_flight = self.in_flight.saturating_sub(usize::from(inherited_flight.is_some()));
        self.looks.clear(slot);
        if let Some(run_cgroup) = &run_cgroup {
            self.run_cgroups.move_out(run_cgroup, slot);
        }
        if let Some((ready, token)) = ready {
            drop(self.fds.remove(token, OwnedFd::from(ready)));
        }
        match watch {
            Watch::Alive(_) => {
                let _gone = pidfd.signal(Signal::KILL);
                wait_for_end(&pidfd, patience);
            }
            // The process has ended, and the wait is for its tracer.
            Watch::Late(_) => wait_for_end(&pidfd, patience),
            Watch::Reaped(_) | Watch::Group => {}
            // The process has ended, so this does not block. An error cannot be handled here.
            Watch::Zombie => drop(pidfd.reap()),
        }
        self.in_flight = self.in_flight.saturating_sub(usize::from(in_flight.is_some()));
        // What is usually let go of was reaped, and costs no system call here.
        if in_flight.is_some() || !matches!(watch, Watch::Reaped(_) | Watch::Group) {
            self.release(&pidfd, in_flight);
        }
        if let Watch::Alive(token) | Watch::Reaped(token) = watch {
            self.forget(token, pidfd);
        }
        self.retire(run_cgroup);
    }

    fn keeps_state(&self) -> bool {
        self.state.is_some()
    }

    fn record(&mut self, slot: u32, put: &dyn Fn(&mut Writer<'_>)) {
        if let Some(state) = &mut self.state {
            state.record(slot, put);
        }
    }

    fn save(&mut self, base: &[u8], records: &[Vec<u8>], longest: usize) -> io::Result<()> {
        let clock = self.clock;
        self.state.as_mut().map_or(Ok(()), |state| {
            let mut whole = Vec::with_capacity(base.len() + 1);
            clock.put(&mut Writer::new(&mut whole));
            whole.extend_from_slice(base);
            state.save(&whole, records, longest)
        })
    }

    fn begin_birth(&mut self, slot: u32, number: u64) {
        if let Some(state) = &self.state {
            self.spawner.set_birth(state.begin_birth(slot, number));
        }
    }

    fn forget_birth(&mut self, slot: u32) {
        if let Some(state) = &self.state {
            state.forget_birth(slot);
        }
    }

    fn note_adopted(&mut self, slot: u32, number: u64, pid: Pid) {
        if let (Some(state), Some(made_at)) = (&self.state, procfs::made_at(pid)) {
            state.adopted(slot, number, pid, made_at);
        }
    }

    fn close(&mut self, until: Instant) {
        if let Some(state) = &self.state {
            state.clear();
        }
        self.close_stores();
        let clock = self.clock;
        self.run_cgroups.close(|| until.saturating_duration_since(clock.now()));
    }

    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()> {
        self.fds.ready(entries)
    }

    fn entries(&self) -> usize {
        self.fds.len()
    }

    fn next(&mut self, entry: Token, senders: &Senders) -> io::Result<Option<Happening>> {
        match self.kind(entry) {
            None => Ok(None),
            Some(Kind::Timer) => Ok(self.timer.acknowledge()?.then_some(Happening::TimerExpired)),
            Some(Kind::Signals) => match &self.signals {
                Some((signals, _)) => Ok(signals.read()?.map(Happening::Signal)),
                None => Ok(None),
            },
            Some(Kind::Notify) => self.receive(senders),
            Some(Kind::Orphans) => Ok(self.next_orphan()?.map(Happening::Orphan)),
            // What to do is the host's own affair.
            Some(Kind::Waker) => {
                self.waker.iter().for_each(|(waker, _)| waker.acknowledge());
                Ok(None)
            }
            Some(Kind::Process(slot)) => Ok(Some(Happening::Process(slot))),
            Some(Kind::Stored(slot)) => self.remove_if_hung_up(slot, entry),
        }
    }

    fn expect_descriptors(&mut self) {
        if let Some((socket, _)) = &mut self.notify {
            socket.receive_descriptors(true);
        }
    }

    fn drop_descriptors(&mut self, slot: u32) {
        self.close_store(slot);
    }

    fn notify_entry(&self) -> Option<Token> {
        self.notify.as_ref().map(|(_, entry)| *entry)
    }

    fn look_at(&self) -> Option<Instant> {
        let orphans = self.orphans.as_ref().and_then(Orphans::look_at);
        let looks = [self.looks.earliest(), self.run_cgroups.sweep_at(), orphans];
        looks.into_iter().flatten().min()
    }

    fn look_again(&mut self, now: Instant) -> Option<u32> {
        self.run_cgroups.sweep(now);
        if let Some(orphans) = &mut self.orphans {
            orphans.look_again(now);
        }
        self.looks.pop_due(now)
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        self.timer.arm(at)
    }

    fn is_ours(&self) -> bool {
        self.owner.is_here()
    }
}

/// The entries of the set besides those of processes: the timer, the signals, the waker, the notify socket and the
/// orphans.
const OWN_ENTRIES: usize = 6;

/// The default maximum of spawns in flight. More do not start sooner on two processors (`benches/fleet`), and each
/// takes a stack.
pub(crate) const SPAWNS_IN_FLIGHT: usize = 32;

/// The length of the queue of a socket that is made now (unix(7)). It is one more than the kernel's limit, because the
/// kernel checks the limit before it adds a message.
pub(crate) fn queue_length() -> usize {
    /// The length that is assumed if the limit cannot be read.
    const LONG: usize = 1_024;
    let limit = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
    let limit = limit.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(LONG).saturating_add(1)
}

/// The first wait before another look at a process that has ended without an available status, and how often the wait
/// doubles.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOKS_GROW: u32 = 7;

/// How many looks a process gets that is not a child of this process: about ten seconds in all.
const MOST_LOOKS: u32 = 84;

/// From this look on, the members of a group are looked at one by one.
const CAREFUL_LOOK: u8 = 6;

/// How long to wait for the end of a process that was killed because it cannot be watched.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
