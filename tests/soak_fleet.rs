//! One supervisor with many children, and things that happen to them all the time: kills from outside, restarts, stops that
//! need SIGKILL, runs that end by themselves, runs that take too long, changes of the number of instances. From time to time
//! everything comes to rest, and then the descriptors, the threads and the memory are compared with those at the first
//! rest.
//!
//! The engine's lateness is printed for three kinds of deadlines: the wait before a restart, the time until SIGKILL, and
//! the longest time of a run. It counts until the call that served the deadline has returned, because no event tells when a
//! spawn is decided or a signal is sent. The first two are printed again with what follows: the start of the process, which
//! may wait for its place among the spawns in flight, and the death. No time is asserted. The processes of a large fleet
//! often want the processor at the same time as their supervisor, which would then be late because of the scheduler of
//! the kernel. So the host of a large fleet is scheduled before all others (SCHED_FIFO in sched(7)), if it may. The
//! kernel counts the time in which the host could run and had no processor (/proc/thread-self/schedstat), and the number
//! of late deadlines is printed without it too. After a call that begins a restart or sends SIGKILL late by more than a
//! slice, its times are printed.
//!
//! `cargo test` takes 200 children and a few seconds. `PIDHERD_SOAK_CHILDREN` and `PIDHERD_SOAK_SECONDS` set other numbers;
//! `ci/soak hour` takes 15,000 children and an hour.

mod common;
mod host;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::processes::children;
use common::resources::Resources;
use common::{Isolation, SOON, patience, wait_readable};
use fastrand::Rng;
use host::{at_once, builder, for_ever, ms, quiet_sh, sleeper, term};
use pidherd::lifecycle::{Cause, Delay, Failure, RunTimeout, Scope, StateName};
use pidherd::supervisor::TransitionEvent;
use pidherd::{Error, Event, GroupId, GroupSpec, InstanceId, Supervisor, Target};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};

/// The wait before each restart.
const DELAY: Duration = ms(200);

/// The time of a call of the supervisor, by default.
const SLICE: Duration = ms(5);

/// How often the fleet comes to rest.
const PARTS: u32 = 12;

/// The time that a process has to end after SIGTERM.
const WAIT: Duration = ms(300);

/// The length of the runs that end by themselves, and the longest time of those in the group `timed`. In a large fleet
/// they take longer, so that the machine is not busy with them alone.
fn length_of_runs(children: u32) -> Duration {
    ms(100 + 2 * u64::from(children))
}

/// How many instances may be on their way at a time before the host lets more happen.
fn at_once_on_their_way(children: u32) -> usize {
    48 + children as usize / 150
}

/// The time between two things that the host lets happen. In a large fleet it is so long that the processors are not busy
/// all the time: a deadline that is served late would say nothing then.
fn pause(children: u32) -> Duration {
    ms(2 + u64::from(children) / 1_250)
}

/// How many looks at the clock are kept: two for each call.
const RECENT: usize = 256;

/// The host of a fleet with this many instances comes before all other processes.
const LARGE: u32 = 1_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// How late the deadlines of a kind were served: the number of them in each step of [`STEP`] microseconds. All of its memory
/// is in use from the beginning, because that of the process must not grow.
struct Lateness {
    counts: Vec<u32>,
    most: Duration,
    /// How many were late by more than a slice without the time in which the host waited for a processor.
    too_late_by_itself: u32,
}

/// The precision, in microseconds, and the number of steps. What is later counts in the last one.
const STEP: u128 = 50;
const STEPS: usize = 40_000;

impl Default for Lateness {
    fn default() -> Lateness {
        let mut counts = vec![1; STEPS];
        counts.fill(0);
        Lateness {
            counts,
            most: Duration::ZERO,
            too_late_by_itself: 0,
        }
    }
}

impl Lateness {
    /// Counts one; `queued`: for how long the host had waited for a processor.
    fn add(&mut self, late: Duration, queued: Duration) {
        self.too_late_by_itself += u32::from(late > queued + SLICE);
        let step = usize::try_from(late.as_micros() / STEP).unwrap_or(STEPS);
        self.counts[step.min(STEPS - 1)] += 1;
        self.most = self.most.max(late);
    }

    fn show(&self, what: &str) {
        let number: u32 = self.counts.iter().sum();
        if number == 0 {
            return println!("{what}: none");
        }
        let at = |thousandths: u64| {
            let wanted = u64::from(number) * thousandths / 1000;
            let mut seen = 0;
            let steps = self.counts.iter().take_while(|&&count| {
                seen += u64::from(count);
                seen <= wanted
            });
            steps.count() as u128 * STEP
        };
        let (median, most, max) = (at(500), at(999), self.most.as_micros());
        println!("{what}: {number} deadlines, late by {median} us (median), {most} us (99.9 %), {max} us (at most)");
        println!(
            "  {} of them by more than a slice, {SLICE:?}; {} without the waits for a processor",
            self.too_late(),
            self.too_late_by_itself
        );
    }

    /// How many were late by more than a slice.
    fn too_late(&self) -> u32 {
        self.counts.iter().skip((SLICE.as_micros() / STEP) as usize).sum()
    }
}

/// The times of the host's thread so far: on a processor, and able to run without one. The rest of a call's time is
/// sleep. A processor of a virtual machine can itself be without one, which counts as on the processor.
#[derive(Clone, Copy)]
struct Times {
    at: Instant,
    ran: Duration,
    queued: Duration,
}

/// The kernel's count of these times (/proc/PID/schedstat, with CONFIG_SCHED_INFO). Without it, both are zero.
struct Clock(Option<File>);

impl Clock {
    fn of_this_thread() -> Clock {
        let file = File::open("/proc/thread-self/schedstat");
        if let Err(error) = &file {
            println!("SKIPPED: waits for a processor are not counted: {error}");
        }
        Clock(file.ok())
    }

    fn now(&self) -> Times {
        let mut text = [0; 80];
        let length = self.0.as_ref().map_or(0, |file| file.read_at(&mut text, 0).unwrap());
        let text = std::str::from_utf8(&text[..length]).unwrap();
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
        let [ran, queued] = [0; 2].map(|none| Duration::from_nanos(numbers.next().unwrap_or(none)));
        Times {
            at: Instant::now(),
            ran,
            queued,
        }
    }
}

impl Times {
    /// For how long the host has waited for a processor since then.
    fn queued_since(&self, before: &Times) -> Duration {
        self.queued.saturating_sub(before.queued)
    }

    /// Prints the times since then.
    fn show_since(&self, before: &Times, what: &str) {
        println!(
            "  {what} took {:?}, {:?} of it on a processor and {:?} waiting for one",
            self.at - before.at,
            self.ran.saturating_sub(before.ran),
            self.queued_since(before),
        );
    }
}

/// A deadline that the supervisor has to serve.
struct Awaited {
    instance: InstanceId,
    /// Whether it ends a wait before a restart. Otherwise SIGKILL follows.
    is_delay: bool,
    at: pidherd::time::Instant,
}

/// The last step of an instance.
#[derive(Clone, Copy)]
struct Last {
    at: pidherd::time::Instant,
    /// When its present run was spawned.
    spawned: pidherd::time::Instant,
}

/// A supervisor, and what its events have told.
struct Fleet {
    supervisor: Supervisor,
    /// The number of its instances changes.
    elastic: GroupId,
    /// The groups with runs that end after some time. They are down while the fleet is at rest.
    passing: Vec<GroupId>,
    /// The length of these runs.
    length: Duration,
    /// How many instances may be away before the host lets more happen.
    most_away: usize,
    pause: Duration,
    /// Whether deadlines count: while the whole fleet starts or stops, the machine is busy with it.
    is_measured: bool,
    /// Whether the first look was taken: before it, every process crashes at the same time.
    has_begun: bool,
    random: Rng,
    last: HashMap<InstanceId, Last>,
    /// The instances that are not up.
    away: HashSet<InstanceId>,
    /// Those that are down, to be started again.
    stopped: Vec<InstanceId>,
    awaited: Vec<Awaited>,
    starts: u64,
    deaths: u64,
    slow_kills: u64,
    clock: Clock,
    /// When the last call returned.
    left: Times,
    /// The last of the times before and after calls.
    recent: VecDeque<(pidherd::time::Instant, Times)>,
    delays: Lateness,
    kills: Lateness,
    timeouts: Lateness,
    restarts: Lateness,
    deaths_by_kill: Lateness,
}

impl Fleet {
    fn new(children: u32) -> Fleet {
        let mut supervisor = builder().event_capacity(4 * children as usize).build().unwrap();
        let restarted = for_ever().restart_delay(Delay::Fixed(DELAY)).jitter(0);
        let length = length_of_runs(children);
        let timed = restarted.clone().run_timeout(RunTimeout::new(length));
        let ending = quiet_sh(&format!("exec sleep {}", length.as_secs_f64()));
        let specs = [
            (70, "steady", sleeper(), restarted.clone()),
            (10, "ending", ending, restarted.clone()),
            (10, "timed", sleeper(), timed),
            (10, "stubborn", stubborn(), restarted.stop(term(Scope::Process, WAIT))),
        ];
        let clock = Clock::of_this_thread();
        let mut passing = Vec::new();
        for (part, name, command, policy) in specs {
            let spec = GroupSpec::new(name, command).instances(children * part / 100);
            let group = supervisor.add(spec.policy(policy)).unwrap();
            if matches!(name, "ending" | "timed") {
                passing.push(group);
            }
        }
        let spec = GroupSpec::new("elastic", sleeper()).policy(at_once());
        let elastic = supervisor.add(spec).unwrap();
        Fleet {
            supervisor,
            elastic,
            passing,
            length,
            most_away: at_once_on_their_way(children),
            pause: pause(children),
            is_measured: false,
            has_begun: false,
            random: Rng::new(),
            last: HashMap::new(),
            away: HashSet::new(),
            stopped: Vec::new(),
            // No more are awaited at a time, so this does not grow.
            awaited: Vec::with_capacity(children as usize),
            starts: 0,
            deaths: 0,
            slow_kills: 0,
            left: clock.now(),
            clock,
            recent: VecDeque::with_capacity(RECENT),
            delays: Lateness::default(),
            kills: Lateness::default(),
            timeouts: Lateness::default(),
            restarts: Lateness::default(),
            deaths_by_kill: Lateness::default(),
        }
    }

    /// Waits, dispatches and takes the events once. Returns whether something was ready.
    fn turn(&mut self, limit: Duration) -> bool {
        let ready = wait_readable(&self.supervisor, limit);
        if ready {
            let before = self.look_at_the_clock();
            self.supervisor.dispatch().unwrap();
            let after = self.look_at_the_clock();
            let left = std::mem::replace(&mut self.left, after);
            let most = self.note_served();
            if most > SLICE {
                println!("a deadline was served {most:?} late:");
                before.show_since(&left, "the time from the last call to this one, with the wait,");
                after.show_since(&before, "the call");
            }
        }
        while let Some(event) = self.supervisor.next_event() {
            match event {
                Event::Transition(step) => self.follow(&step),
                // The machine was too busy to end it for the time of the policy.
                Event::Unkillable { .. } => self.slow_kills += 1,
                _ => {}
            }
        }
        ready
    }

    fn look_at_the_clock(&mut self) -> Times {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        let times = self.clock.now();
        self.recent.push_back((self.supervisor.now(), times));
        times
    }

    /// For how long the host has waited for a processor until the end of the last call, since it looked at the clock for
    /// the last time before a deadline.
    fn queued_since(&self, deadline: pidherd::time::Instant) -> Duration {
        let is_before = |(at, _): &&(pidherd::time::Instant, Times)| *at <= deadline;
        let since = self.recent.iter().rev().find(is_before).or(self.recent.front());
        since.map_or(Duration::ZERO, |(_, since)| self.left.queued_since(since))
    }

    /// The deadline of an instance, if it has one and is still in this state.
    fn deadline(&self, id: InstanceId, is_delay: bool) -> Option<pidherd::time::Instant> {
        let wanted = if is_delay {
            StateName::Backoff
        } else {
            StateName::Stopping
        };
        let state = self.supervisor.status(id)?.state;
        state.deadline().filter(|_| state.name() == wanted)
    }

    /// Counts the deadlines that the last call has served. Returns by how much it was late at most.
    fn note_served(&mut self) -> Duration {
        let now = self.supervisor.now();
        let mut most = Duration::ZERO;
        let mut awaited = std::mem::take(&mut self.awaited);
        awaited.retain(|awaited| {
            let waits = self.deadline(awaited.instance, awaited.is_delay) == Some(awaited.at);
            // What ends before its deadline was ended by something else.
            if !waits && now >= awaited.at && self.is_measured {
                let queued = self.queued_since(awaited.at);
                let lateness = if awaited.is_delay {
                    &mut self.delays
                } else {
                    &mut self.kills
                };
                let late = now.saturating_duration_since(awaited.at);
                lateness.add(late, queued);
                most = most.max(late);
            }
            waits
        });
        self.awaited = awaited;
        most
    }

    fn follow(&mut self, step: &TransitionEvent) {
        if matches!(step.to, StateName::Backoff | StateName::Stopping) {
            let (instance, is_delay) = (step.instance, step.to == StateName::Backoff);
            let at = self.deadline(instance, is_delay);
            let awaited = at.map(|at| Awaited { instance, is_delay, at });
            self.awaited.extend(awaited);
        }
        let last = self.last.get(&step.instance).copied();
        let late = |since: pidherd::time::Instant, time: Duration| {
            let deadline = since.saturating_add(time);
            (step.at.saturating_duration_since(deadline), self.queued_since(deadline))
        };
        match (step.from, step.to, step.cause) {
            _ if !self.is_measured => {}
            (StateName::Backoff, _, Cause::DelayOver) => {
                let late = last.map(|last| late(last.at, DELAY));
                self.restarts.extend(late);
            }
            (StateName::Running, _, Cause::Failed(Failure::TimedOut)) => {
                let late = last.map(|last| late(last.spawned, self.length));
                self.timeouts.extend(late);
            }
            // A process that ends before SIGKILL has not needed it.
            (StateName::Stopping, _, Cause::Gone) => {
                let waited = last.filter(|last| step.at >= last.at.saturating_add(WAIT));
                let late = waited.map(|last| late(last.at, WAIT));
                self.deaths_by_kill.extend(late);
            }
            _ => {}
        }
        self.starts += u64::from(step.to == StateName::Starting);
        self.deaths += u64::from(step.exit.is_some());
        // An instance that has left is stopped, and not known any more.
        if step.to == StateName::Running || self.supervisor.status(step.instance).is_none() {
            self.away.remove(&step.instance);
        } else {
            self.away.insert(step.instance);
        }
        // One that was killed may have ended only after the request to start all.
        if matches!(step.to, StateName::Stopped | StateName::Exited) {
            self.stopped.push(step.instance);
        }
        let spawned = match step.to {
            StateName::Starting => step.at,
            _ => last.map_or(step.at, |last| last.spawned),
        };
        self.last.insert(step.instance, Last { at: step.at, spawned });
    }

    /// Stops the groups with runs that end by themselves, and turns until every other instance is up.
    fn come_to_rest(&mut self) {
        self.is_measured = false;
        self.supervisor.scale(self.elastic, 20).unwrap();
        self.supervisor.start(Target::All).unwrap();
        for &group in &self.passing {
            self.supervisor.stop(group).unwrap();
        }
        let mut end = Instant::now() + SOON * patience();
        let mut seen = (self.starts, self.deaths);
        while !self.is_at_rest() {
            if !self.turn(ms(20)) {
                // One that has left may have been there still when its last event was fetched.
                let supervisor = &self.supervisor;
                self.away.retain(|&id| supervisor.status(id).is_some());
            }
            self.start_the_stopped(true);
            if (self.starts, self.deaths) != seen {
                seen = (self.starts, self.deaths);
                end = Instant::now() + SOON * patience();
            }
            assert!(Instant::now() < end, "it does not come to rest: {:?}", self.states());
        }
    }

    /// How many instances of each group are in each state.
    fn states(&self) -> HashMap<(String, StateName), usize> {
        let mut states = HashMap::new();
        for id in self.supervisor.instances() {
            let status = self.supervisor.status(id).unwrap();
            *states
                .entry((status.name.group.to_string(), status.state.name()))
                .or_default() += 1;
        }
        states
    }

    fn is_at_rest(&self) -> bool {
        let is_at_rest = |id| {
            let status = self.supervisor.status(id).unwrap();
            let wanted = if self.passing.contains(&status.group) {
                StateName::Stopped
            } else {
                StateName::Running
            };
            status.state.name() == wanted && status.pending.is_none()
        };
        // Most looks end here: each of thousands of instances is asked only when the number is right.
        let passing = self.passing.iter().filter_map(|&group| self.supervisor.group(group));
        let stopped: usize = passing.map(|group| group.instances.len()).sum();
        self.away.len() <= stopped && self.supervisor.instances().all(is_at_rest)
    }

    fn start_the_stopped(&mut self, comes_to_rest: bool) {
        for id in std::mem::take(&mut self.stopped) {
            let Some(status) = self.supervisor.status(id) else {
                continue;
            };
            // An end that another run follows passes through the state of an exit too.
            let is_down = matches!(status.state.name(), StateName::Stopped | StateName::Exited);
            if !is_down {
                continue;
            }
            if !comes_to_rest || !self.passing.contains(&status.group) {
                asked(self.supervisor.start(id));
            }
        }
    }

    /// Does one thing to one instance that is up.
    fn act(&mut self, ids: &[InstanceId]) {
        let Some(&id) = self.random.choice(ids) else { return };
        let Some(status) = self.supervisor.status(id) else {
            return;
        };
        let Some(pid) = status.pid.filter(|_| status.state.name() == StateName::Running) else {
            return;
        };
        match self.random.u32(..100) {
            0..50 => {
                // It may have ended by itself, but it is not reaped before the next turn.
                let pid = Pid::from_raw(pid.as_raw().try_into().unwrap()).unwrap();
                kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
            50..75 => asked(self.supervisor.restart(id)),
            75..95 => asked(self.supervisor.stop(id)),
            _ => drop(self.supervisor.scale(self.elastic, self.random.u32(1..=20)).unwrap()),
        }
    }

    /// Lets every process crash. The first crash of an instance allocates memory for those that follow.
    fn crash_all(&mut self) {
        for id in self.supervisor.instances().collect::<Vec<_>>() {
            self.supervisor.signal(id, pidherd::Signal::KILL).ok();
        }
    }

    /// Lets things happen for this time.
    fn churn(&mut self, time: Duration) {
        self.supervisor.start(Target::All).unwrap();
        let ids: Vec<_> = self.supervisor.instances().collect();
        let (mut now, mut next) = (Instant::now(), Instant::now());
        let end = now + time;
        while now < end {
            if now >= next && self.away.len() < self.most_away {
                // What was stopped for the rest is up again.
                self.is_measured = self.has_begun;
                self.act(&ids);
                next = now + self.pause;
            }
            self.turn(next.saturating_duration_since(now).max(ms(1)));
            now = Instant::now();
            self.start_the_stopped(false);
        }
    }

    /// Comes to rest, and returns the resources.
    fn rest(&mut self) -> Resources {
        self.come_to_rest();
        let up = |id: &InstanceId| self.supervisor.status(*id).unwrap().pid.is_some();
        assert_eq!(
            children().len(),
            self.supervisor.instances().filter(up).count(),
            "children"
        );
        assert_eq!(self.supervisor.dropped_events(), 0);
        Resources::now()
    }
}

impl Extend<(Duration, Duration)> for Lateness {
    fn extend<T: IntoIterator<Item = (Duration, Duration)>>(&mut self, late: T) {
        late.into_iter().for_each(|(late, queued)| self.add(late, queued));
    }
}

/// A request about one instance is accepted, unless the instance leaves with a smaller number of instances.
fn asked<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Ok(_) | Err(Error::LeavingInstance(_))), "{answer:?}");
}

/// A process that ignores SIGTERM.
fn stubborn() -> pidherd::Command {
    quiet_sh("trap '' TERM; exec sleep 1000")
}

#[test]
fn a_fleet_under_churn_takes_no_more_resources_after_any_time() {
    let wanted = u32::try_from(number("PIDHERD_SOAK_CHILDREN", 200)).unwrap();
    let time = Duration::from_secs(number("PIDHERD_SOAK_SECONDS", 6));
    let limit = 2 * time + Duration::from_secs(60 + u64::from(wanted) / 20);
    Isolation::new().limit(limit).run(|| {
        allow_descriptors(2 * u64::from(wanted) + 200);
        if wanted >= LARGE {
            come_before_others();
        }
        let mut fleet = Fleet::new(wanted);
        fleet.rest();
        fleet.slow_kills = 0;
        // Everything happens once before the first look.
        fleet.supervisor.start(Target::All).unwrap();
        fleet.crash_all();
        fleet.churn(time / PARTS);
        let before = fleet.rest();
        fleet.has_begun = true;
        let tolerance = 512 * 1024 + 64 * u64::from(wanted);
        let mut after = before;
        for _ in 1..PARTS {
            fleet.churn(time / PARTS);
            after = fleet.rest();
            let late = [&fleet.delays, &fleet.kills, &fleet.timeouts].map(Lateness::too_late);
            println!(
                "{} starts, {} deaths, late {late:?}, {after:?}",
                fleet.starts, fleet.deaths
            );
            after.assert_no_more_than(&before, tolerance);
        }
        println!("{wanted} children, {time:?}; before: {before:?}, after: {after:?}");
        println!("processes that SIGKILL did not end in time: {}", fleet.slow_kills);
        fleet.delays.show("waits before a restart");
        fleet.kills.show("SIGKILL after SIGTERM");
        fleet.timeouts.show("ends by time");
        fleet.restarts.show("waits before a restart, until the process exists");
        fleet
            .deaths_by_kill
            .show("SIGKILL after SIGTERM, until the process is gone");
        fleet.supervisor.shutdown().unwrap();
        while !fleet.supervisor.is_down() {
            assert!(fleet.turn(SOON), "it does not come down");
        }
        assert_eq!(children(), [0; 0], "zombies or children are left");
    });
}

/// Allows this many open descriptors, as far as the hard limit goes.
fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = limit.current.map(|current| current.max(most));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

/// Lets this thread run before all threads that are not real-time threads. Its children do not inherit that.
fn come_before_others() {
    let parameter = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameter lives until the call returns.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } < 0 {
        let error = std::io::Error::last_os_error();
        println!("SKIPPED: the host does not run before other processes, so they can make it late: {error}");
    }
}
