//! A host for tests: waits for a supervisor's descriptors in either of the two ways, and remembers all that it was
//! told.
//!
//! It never sleeps. A test says what is to come ([`Host::until`]), and the host turns until it has come; what must not
//! come is shown by [`Host::nothing_for`], or by an event that comes later. Children tell what they are at by a line on
//! their standard output, and wait for one on their input.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use pidherd::lifecycle::{Delay, Policy, Restart, Rung, Scope, Startup, State, StateName, StopLadder};
use pidherd::supervisor::{Builder, FdChange, Outcome, Status, TransitionEvent};
use pidherd::{Command, Error, Event, GroupId, GroupSpec, InstanceId, Pipes, Signal, Stdio, Supervisor, Target};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

pub use super::common::kernel_since;
use super::common::{SOON, patience, wait_readable, wait_until};

/// A supervisor, a host's loop that waits for it, and the events that it reported.
pub struct Host {
    pub supervisor: Supervisor,
    pub events: Vec<Event>,
    way: Way,
    pipes: HashMap<InstanceId, Pipes>,
}

/// How a host waits.
enum Way {
    /// For the one descriptor of the set.
    One,
    /// For each descriptor by itself, registered as the change log says.
    Each(OwnedFd),
}

impl Host {
    /// One that waits for the one descriptor.
    pub fn new() -> Host {
        Host::with(builder().build().unwrap())
    }

    pub fn with(supervisor: Supervisor) -> Host {
        Host {
            supervisor,
            events: Vec::new(),
            way: Way::One,
            pipes: HashMap::new(),
        }
    }

    /// One that has an epoll of its own with each descriptor in it.
    pub fn with_own_epoll() -> Host {
        let mut host = Host::new();
        host.wait_for_each();
        host
    }

    /// From now on, waits for each descriptor by itself.
    pub fn wait_for_each(&mut self) {
        self.way = Way::Each(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        self.supervisor.track_fd_changes(true);
    }

    /// From now on, waits for the one descriptor.
    pub fn wait_for_one(&mut self) {
        self.way = Way::One;
        self.supervisor.track_fd_changes(false);
    }

    /// Waits until something is ready, and does what that calls for; whether something was.
    pub fn turn(&mut self, limit: Duration) -> bool {
        self.follow_changes();
        let ready = match &self.way {
            Way::One => wait_readable(&self.supervisor, limit),
            Way::Each(own) => wait_readable(own, limit),
        };
        if ready {
            self.process();
        }
        self.take_events();
        ready
    }

    fn process(&mut self) {
        let Way::Each(own) = &self.way else {
            self.supervisor.dispatch().unwrap();
            return;
        };
        let mut ready = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(own, rustix::buffer::spare_capacity(&mut ready), Some(&at_once)).unwrap();
        for event in &ready {
            self.supervisor.process_ready(event.data.u64() as i32).unwrap();
        }
    }

    fn follow_changes(&mut self) {
        let Way::Each(own) = &self.way else { return };
        while let Some(change) = self.supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, .. } => {
                    let flags = epoll::EventFlags::from_bits_retain(interest.bits());
                    epoll::add(own, fd, epoll::EventData::new_u64(fd.as_raw_fd() as u64), flags).unwrap();
                }
                FdChange::Removed { fd, .. } => epoll::delete(own, fd).unwrap(),
            }
        }
    }

    /// Takes what the supervisor has to tell.
    pub fn take_events(&mut self) {
        while let Some(event) = self.supervisor.next_event() {
            self.events.push(event);
        }
    }

    /// Turns until this holds; panics with the events so far if it never does. The condition may also depend on a file
    /// or a process, whose change wakes no supervisor.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Host) -> bool) {
        let end = Instant::now() + SOON * patience();
        self.take_events();
        while !holds(self) {
            let left = end.saturating_duration_since(Instant::now());
            if !self.turn(left.min(ms(20))) && left.is_zero() {
                panic!("waited in vain until {what}; events: {}", self.story());
            }
        }
    }

    /// Turns until an instance is in this state.
    pub fn until_state(&mut self, id: InstanceId, state: StateName) {
        self.until(&format!("{id:?} is {state}"), |host| host.state(id) == state);
    }

    /// Turns until the last of an instance's steps led to this state, which it may have left in the same turn.
    pub fn until_reached(&mut self, id: InstanceId, state: StateName) {
        self.until(&format!("{id:?} was {state}"), |host| host.states(id).contains(&state));
    }

    /// Asserts that nothing becomes ready in this time.
    pub fn nothing_for(&mut self, time: Duration) {
        // Events that a command brought are ready until they are fetched.
        self.take_events();
        assert!(!self.turn(time), "nothing was to happen; events: {}", self.story());
    }

    /// Stops everything by the ladders, and turns until all is down.
    pub fn shut_down(&mut self) {
        self.supervisor.shutdown().unwrap();
        self.until("all is down", |host| host.supervisor.is_down());
        self.take_events();
    }

    // What there is.

    /// Adds a group; its instances by number.
    pub fn add(&mut self, spec: GroupSpec) -> (GroupId, Vec<InstanceId>) {
        let group = self.supervisor.add(spec).unwrap();
        (group, self.supervisor.group(group).unwrap().instances)
    }

    /// Adds a group of one, and starts it. The process has executed its program then, or could not.
    pub fn start(&mut self, command: Command, policy: Policy) -> InstanceId {
        let id = self.begin(command, policy);
        self.until_each_executed(&[id]);
        id
    }

    /// The same without a turn: the process exists, and its spawn is in flight.
    pub fn begin(&mut self, command: Command, policy: Policy) -> InstanceId {
        let free = (1..).map(|number| {
            if number == 1 {
                "one".to_owned()
            } else {
                format!("one-{number}")
            }
        });
        let mut free = free.filter(|name| self.supervisor.group_named(name).is_none());
        let name = free.next().unwrap();
        let (_, instances) = self.add(GroupSpec::new(&name, command).policy(policy));
        self.supervisor.start(instances[0]).unwrap();
        self.take_events();
        instances[0]
    }

    /// Starts these, and turns until each of the processes has executed its program, or could not.
    pub fn start_these(&mut self, target: impl Into<Target>) -> Outcome {
        let target = target.into();
        let outcome = self.supervisor.start(target).unwrap();
        let ids = match target {
            Target::All => self.supervisor.instances().collect(),
            Target::Group(group) => self.supervisor.group(group).unwrap().instances,
            Target::Instance(id) => vec![id],
        };
        self.until_each_executed(&ids);
        outcome
    }

    /// Turns until no start waits for its turn, and no spawn is in flight.
    pub fn until_executed(&mut self) {
        let ids: Vec<_> = self.supervisor.instances().collect();
        self.until_each_executed(&ids);
    }

    fn until_each_executed(&mut self, ids: &[InstanceId]) {
        self.until("no spawn is in flight", |host| {
            let mut statuses = ids.iter().filter_map(|&id| host.supervisor.status(id));
            statuses.all(|status| status.pending.is_none() && !is_in_flight(&status.state))
        });
    }

    /// Whether an instance has a process, or is about to, that has not executed its program yet.
    pub fn is_in_flight(&self, id: InstanceId) -> bool {
        is_in_flight(&self.status(id).state)
    }

    pub fn status(&self, id: InstanceId) -> Status {
        self.supervisor.status(id).unwrap()
    }

    pub fn state(&self, id: InstanceId) -> StateName {
        self.status(id).state.name()
    }

    /// The number of its process, which must be there.
    pub fn pid(&self, id: InstanceId) -> u32 {
        self.status(id).pid.unwrap().as_raw()
    }

    /// All steps of an instance so far.
    pub fn steps(&self, id: InstanceId) -> Vec<&TransitionEvent> {
        self.all_steps().filter(|step| step.instance == id).collect()
    }

    pub fn all_steps(&self) -> impl Iterator<Item = &TransitionEvent> {
        self.events.iter().filter_map(|event| match event {
            Event::Transition(step) => Some(step),
            _ => None,
        })
    }

    /// The states that an instance has reached, in order. That each step began where the one before ended is checked on
    /// the way.
    pub fn states(&self, id: InstanceId) -> Vec<StateName> {
        let steps = self.steps(id);
        for pair in steps.windows(2) {
            assert_eq!(pair[0].to, pair[1].from, "{}", self.story());
            assert!(pair[0].at <= pair[1].at, "{}", self.story());
        }
        steps.iter().map(|step| step.to).collect()
    }

    /// All events, a line each.
    pub fn story(&self) -> String {
        let line = |event: &Event| match event {
            Event::Transition(step) => format!(
                "\n  {} {} -> {} run {} pid {:?}: {}",
                step.name, step.from, step.to, step.run, step.pid, step.cause
            ),
            other => format!("\n  {other:?}"),
        };
        self.events.iter().map(line).collect()
    }

    // Communication with children. Their streams must be piped.

    /// The next line that an instance's process writes, without its end.
    pub fn line(&mut self, id: InstanceId) -> String {
        let mut line = Vec::new();
        loop {
            let stdout = self.pipes(id).stdout.as_ref().expect("a piped stdout");
            assert!(wait_readable(stdout, SOON * patience()), "no line from {id:?}");
            let mut byte = [0];
            let read = rustix::io::read(stdout, &mut byte).unwrap();
            assert!(
                read == 1,
                "{id:?} closed its output after {:?}",
                String::from_utf8_lossy(&line)
            );
            if byte == *b"\n" {
                return String::from_utf8(line).unwrap();
            }
            line.push(byte[0]);
        }
    }

    /// Writes an empty line to an instance's process: whatever it waits for may go on.
    pub fn go_on(&mut self, id: InstanceId) {
        self.write(id, b"\n");
    }

    /// Writes this to an instance's process.
    pub fn write(&mut self, id: InstanceId, text: &[u8]) {
        let stdin = self.pipes(id).stdin.as_ref().expect("a piped stdin");
        assert_eq!(rustix::io::write(stdin, text), Ok(text.len()));
    }

    /// Closes the streams of an instance.
    pub fn drop_pipes(&mut self, id: InstanceId) {
        drop(self.pipes.remove(&id));
    }

    /// Sets the streams of the last run, which another program has taken before.
    pub fn put_streams(&mut self, id: InstanceId, stdin: Option<OwnedFd>, stdout: Option<OwnedFd>) {
        let mut pipes = Pipes::default();
        (pipes.stdin, pipes.stdout) = (stdin, stdout);
        self.pipes.insert(id, pipes);
    }

    /// The streams of the last run.
    pub fn pipes(&mut self, id: InstanceId) -> &Pipes {
        if let Some(pipes) = self.supervisor.take_pipes(id) {
            self.pipes.insert(id, pipes);
        }
        self.pipes.get(&id).expect("piped streams")
    }
}

/// The settings of the supervisors of most tests. `PIDHERD_TEST_SPAWNS_IN_FLIGHT` sets how many spawns may be in
/// flight, so that all tests can be run with waits for each execve, too.
pub fn builder() -> Builder {
    Supervisor::builder().spawns_in_flight(spawns_in_flight())
}

/// How many spawns may be in flight in a supervisor of [`builder`]: the default, unless the environment says otherwise.
/// With 0, and on the portable path, each spawn waits for its execve.
pub fn spawns_in_flight() -> usize {
    if cfg!(pidherd_portable) {
        return 0;
    }
    std::env::var("PIDHERD_TEST_SPAWNS_IN_FLIGHT").map_or(32, |text| text.parse().expect("a number"))
}

/// How many of a command that starts hundreds are started by the command itself, by a supervisor of [`builder`].
pub fn started_at_once() -> usize {
    match spawns_in_flight() {
        0 => 64,
        most => most.min(64),
    }
}

fn is_in_flight(state: &State) -> bool {
    matches!(state, State::Starting { executed: None, .. })
}

/// A shell script, its standard input and output piped to the host.
pub fn sh(script: &str) -> Command {
    quiet_sh(script).stdin(Stdio::piped()).stdout(Stdio::piped())
}

/// A shell script that reads nothing.
pub fn quiet_sh(script: &str) -> Command {
    Command::new("/bin/sh").arg("-c").arg(script)
}

/// Waits until a child's child runs its sleep: what its shell had to set up for it is set up then.
pub fn wait_for_sleep(pid: u32) {
    let name = format!("/proc/{pid}/comm");
    wait_until("it sleeps", SOON, || {
        fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n")
    });
}

/// A process that stays and does nothing.
pub fn sleeper() -> Command {
    Command::new("/bin/sleep").arg("1000")
}

/// The policy of most tests: running as soon as exec succeeded, and left alone when it has ended.
pub fn at_once() -> Policy {
    Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Never)
}

/// The same, restarted whenever it has ended, without a bound.
pub fn for_ever() -> Policy {
    at_once().restart(Restart::Always).crash_budget(None)
}

/// One rung of SIGTERM with this wait, then SIGKILL, all with this scope.
pub fn term(scope: Scope, wait: Duration) -> StopLadder {
    StopLadder::signal(Signal::TERM, scope, wait)
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Longer than any test: what is given so long is to come about in another way.
pub const LONG: Duration = Duration::from_secs(1000);
