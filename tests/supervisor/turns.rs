//! The loop of a host: what wakes it, how long a call lasts, and what the answers mean.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use pidherd::fdset::Token;
use pidherd::lifecycle::{CrashBudget, Delay, Scope, Startup, State, StateName, StopLadder};
use pidherd::supervisor::{FdChange, Progress};
use pidherd::{Command, Event, GroupSpec, InstanceId, Signal, SignalFd, SignalSet, Supervisor, Target};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::common::{Isolation, SOON, isolated, patience, wait_readable, wait_until};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

fn supervisor(slice: Duration) -> Supervisor {
    builder().slice(slice).build().unwrap()
}

fn states(events: &[Event], id: InstanceId) -> Vec<StateName> {
    let of_it = events.iter().filter_map(|event| match event {
        Event::Transition(step) if step.instance == id => Some(step.to),
        _ => None,
    });
    of_it.collect()
}

fn fetch(supervisor: &mut Supervisor, events: &mut Vec<Event>) {
    while let Some(event) = supervisor.next_event() {
        events.push(event);
    }
}

fn is_in_flight(supervisor: &Supervisor) -> bool {
    let is_executed = |id| {
        !matches!(
            supervisor.status(id).unwrap().state,
            State::Starting { executed: None, .. }
        )
    };
    !supervisor.instances().all(is_executed)
}

// What wakes a host.

/// What a host waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The one descriptor.
    One,
    /// Each descriptor by itself.
    Each,
}

/// A host that waits, dispatches and fetches in a given order.
struct Loop {
    supervisor: Supervisor,
    way: Way,
    own: rustix::fd::OwnedFd,
    events: Vec<Event>,
}

impl Loop {
    fn new(way: Way) -> Loop {
        let mut supervisor = builder().build().unwrap();
        supervisor.track_fd_changes(way == Way::Each);
        Loop {
            supervisor,
            way,
            own: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            events: Vec::new(),
        }
    }

    fn wait(&mut self) {
        while let Some(change) = self.supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, token } => {
                    let flags = epoll::EventFlags::from_bits_retain(interest.bits());
                    epoll::add(&self.own, fd, epoll::EventData::new_u64(token.to_raw()), flags).unwrap();
                }
                FdChange::Removed { fd, .. } => epoll::delete(&self.own, fd).unwrap(),
            }
        }
        let is_woken = match self.way {
            Way::One => wait_readable(&self.supervisor, SOON),
            Way::Each => wait_readable(&self.own, SOON),
        };
        assert!(is_woken, "nothing wakes the host; so far: {:#?}", self.events);
    }

    fn dispatch(&mut self) {
        if self.way == Way::One {
            self.supervisor.dispatch().unwrap();
            return;
        }
        let mut ready = Vec::with_capacity(64);
        epoll::wait(&self.own, spare_capacity(&mut ready), Some(&Timespec::default())).unwrap();
        for event in &ready {
            let token = Token::from_raw(event.data.u64());
            self.supervisor.process_token(token).unwrap();
        }
    }

    /// Waits and dispatches until no spawn is in flight, and fetches nothing.
    fn until_executed(&mut self) {
        while is_in_flight(&self.supervisor) {
            self.wait();
            self.dispatch();
        }
    }

    /// Runs until everything is down: `w` waits, `d` dispatches, `f` fetches events and may give a command.
    fn run(&mut self, order: &str, mut command: impl FnMut(&mut Supervisor, &[Event])) {
        for step in order.chars().cycle() {
            match step {
                'w' => self.wait(),
                'd' => self.dispatch(),
                _ => {
                    let before = self.events.len();
                    fetch(&mut self.supervisor, &mut self.events);
                    command(&mut self.supervisor, &self.events[before..]);
                }
            }
            if self.supervisor.is_down() {
                return;
            }
        }
    }
}

#[test]
fn a_loop_misses_nothing_in_whichever_order_it_waits_dispatches_and_fetches() {
    isolated(|| {
        for way in [Way::One, Way::Each] {
            for order in ["wdf", "wfd", "fwd", "fdw", "dfw", "fdwf"] {
                let mut host = Loop::new(way);
                let twice = for_ever().crash_budget(Some(CrashBudget { max: 1, window: LONG }));
                let crashing = GroupSpec::new("crashing", quiet_sh("exit 1")).policy(twice);
                let crashing = host.supervisor.add(crashing).unwrap();
                let steady = GroupSpec::new("steady", sleeper()).policy(at_once());
                let steady = host.supervisor.add(steady).unwrap();
                let of = |host: &Loop, group| host.supervisor.group(group).unwrap().instances[0];
                let (crashing, steady) = (of(&host, crashing), of(&host, steady));
                host.supervisor.start(Target::All).unwrap();
                host.run(order, |supervisor, _| {
                    let is = |id, state| supervisor.status(id).unwrap().state.name() == state;
                    // When the one is given up and the other is up, nothing happens any more by itself.
                    if is(crashing, Fatal) && is(steady, Running) {
                        supervisor.shutdown().unwrap();
                    }
                });
                let expected = [Starting, Running, Exited, Starting, Running, Exited, Fatal];
                assert_eq!(states(&host.events, crashing), expected, "{way:?}, {order}");
                let expected = [Starting, Running, Stopping, Stopped];
                assert_eq!(states(&host.events, steady), expected, "{way:?}, {order}");
            }
        }
    });
}

#[test]
fn a_shutdown_of_what_has_been_given_up_wakes_the_host() {
    isolated(|| {
        for order in ["wdf", "wfd", "fwd", "w"] {
            let mut host = Loop::new(Way::One);
            let policy = at_once().start_retries(0);
            let group = GroupSpec::new("a", Command::new("/no/such")).policy(policy);
            let group = host.supervisor.add(group).unwrap();
            host.supervisor.start(group).unwrap();
            host.until_executed();
            fetch(&mut host.supervisor, &mut host.events);
            assert!(!wait_readable(&host.supervisor, ms(20)));
            host.supervisor.shutdown().unwrap();
            host.wait();
            host.run(order, |_, _| {});
            // It does so once.
            host.dispatch();
            assert!(!wait_readable(&host.supervisor, ms(20)));
        }
    });
}

#[test]
fn everything_is_down_when_the_last_event_has_been_fetched_or_dropped() {
    isolated(|| {
        for capacity in [0, 1, 100] {
            let mut supervisor = builder().event_capacity(capacity).build().unwrap();
            let group = supervisor
                .add(GroupSpec::new("a", sleeper()).policy(at_once()))
                .unwrap();
            supervisor.start(group).unwrap();
            while is_in_flight(&supervisor) {
                assert!(wait_readable(&supervisor, SOON));
                supervisor.dispatch().unwrap();
            }
            supervisor.shutdown().unwrap();
            let id = supervisor.group(group).unwrap().instances[0];
            while supervisor.status(id).unwrap().state.name() != Stopped {
                assert!(wait_readable(&supervisor, SOON));
                assert!(!supervisor.is_down());
                supervisor.dispatch().unwrap();
            }
            for left in (0..capacity.min(4)).rev() {
                assert!(!supervisor.is_down(), "events wait");
                assert!(supervisor.next_event().is_some());
                assert_eq!(supervisor.is_down(), left == 0);
            }
            assert!(supervisor.is_down());
            assert_eq!(supervisor.dropped_events(), 4 - capacity.min(4) as u64);
            // A host can wait for this state.
            assert!(wait_readable(&supervisor, SOON));
        }
    });
}

#[test]
fn a_host_that_never_fetches_events_is_woken_once_for_them() {
    isolated(|| {
        let mut host = Loop::new(Way::One);
        let spec = |name, command| GroupSpec::new(name, command).policy(at_once()).instances(3);
        let steady = host.supervisor.add(spec("steady", sleeper())).unwrap();
        host.supervisor.start(steady).unwrap();
        assert!(wait_readable(&host.supervisor, SOON));
        host.dispatch();
        host.until_executed();
        assert!(!wait_readable(&host.supervisor, ms(50)), "once");

        // An exit wakes the host.
        let brief = host.supervisor.add(spec("brief", quiet_sh("exit 1"))).unwrap();
        host.supervisor.start(brief).unwrap();
        let ids = host.supervisor.group(brief).unwrap().instances;
        let has_ended = |supervisor: &Supervisor, id| supervisor.status(id).unwrap().state.name() == Exited;
        while !ids.iter().all(|&id| has_ended(&host.supervisor, id)) {
            host.wait();
            host.dispatch();
        }
        assert!(!wait_readable(&host.supervisor, ms(50)), "it is not kept awake");

        // The events are still there.
        fetch(&mut host.supervisor, &mut host.events);
        assert_eq!(host.events.len(), 3 * 2 + 3 * 3);
        assert!(!wait_readable(&host.supervisor, Duration::ZERO));
        host.supervisor.kill(Target::All).unwrap();
        host.wait();
    });
}

#[test]
fn a_host_that_fetches_one_event_at_a_time_is_woken_until_it_has_all() {
    isolated(|| {
        let mut host = Loop::new(Way::One);
        let spec = GroupSpec::new("a", sleeper()).policy(at_once()).instances(5);
        let group = host.supervisor.add(spec).unwrap();
        host.supervisor.start(group).unwrap();
        let mut fetched = 0;
        while fetched < 10 {
            assert!(wait_readable(&host.supervisor, SOON), "{fetched} are fetched");
            let was_in_flight = is_in_flight(&host.supervisor);
            host.dispatch();
            let event = host.supervisor.next_event();
            assert!(event.is_some() || was_in_flight, "{fetched} are fetched");
            fetched += u32::from(event.is_some());
        }
        assert!(host.supervisor.next_event().is_none());
        assert!(!wait_readable(&host.supervisor, ms(20)));
    });
}

// The time of a call.

/// Instances that exit at once and are restarted at once, without a bound.
fn storm(instances: u32) -> GroupSpec {
    GroupSpec::new("storm", quiet_sh("exit 1"))
        .instances(instances)
        .policy(for_ever().stop(StopLadder::kill(Scope::Process)))
}

/// A host in a storm, in which each instance was restarted.
fn storming(instances: u32, slice: Duration) -> Host {
    let mut host = Host::with(supervisor(slice));
    let (group, ids) = host.add(storm(instances));
    host.supervisor.start(group).unwrap();
    host.until("it is a storm", |host| ids.iter().all(|&id| host.status(id).runs > 1));
    host
}

#[test]
fn a_call_starts_nothing_after_its_slice_is_over() {
    isolated(|| {
        for slice in [ms(1), ms(5)] {
            let mut host = storming(100, slice);
            let mut started = 0;
            while started < 300 {
                let told = host.events.len();
                assert!(wait_readable(&host.supervisor, SOON));
                host.supervisor.dispatch().unwrap();
                host.take_events();
                let starts = host.events[told..].iter().filter_map(|event| match event {
                    Event::Transition(step) if step.to == Starting => Some(step.at),
                    _ => None,
                });
                let starts: Vec<_> = starts.collect();
                // The slice began before the first of them. The process may have waited for a processor before that.
                let Some(&first) = starts.first() else { continue };
                let late = starts.iter().filter(|at| at.saturating_duration_since(first) > slice);
                assert!(late.count() <= 1, "{slice:?}: {starts:?}");
                started += starts.len();
            }
        }
    });
}

#[test]
fn with_a_slice_of_zero_each_call_makes_progress() {
    isolated(|| {
        let mut host = Host::with(supervisor(Duration::ZERO));
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(100).policy(at_once()));
        host.supervisor.start(group).unwrap();
        host.until("all are up", |host| ids.iter().all(|&id| host.state(id) == Running));
        host.supervisor.kill(group).unwrap();
        host.until("all are down", |host| ids.iter().all(|&id| host.state(id) == Stopped));
        host.nothing_for(Duration::ZERO);
    });
}

// Deadlines.

#[test]
fn a_deadline_is_served_by_the_first_dispatch_after_it_however_much_is_ready() {
    isolated(|| {
        let mut host = storming(200, ms(5));
        let slow = at_once().startup(Startup::Grace(ms(60)));
        for _ in 0..5 {
            let calm = host.start(sleeper(), slow.clone());
            let due = host.status(calm).state.deadline().unwrap();
            // A call that waits for a processor for longer than its slice serves no more than one thing.
            let mut missed = 0;
            while host.state(calm) == Starting {
                let was_due = host.supervisor.now() > due;
                assert!(host.turn(SOON));
                missed += u32::from(was_due && host.state(calm) == Starting);
                assert!(missed <= patience(), "it was due");
            }
        }
    });
}

#[test]
fn a_deadline_is_served_whichever_descriptor_is_processed() {
    isolated(|| {
        for by_token in [false, true] {
            let mut host = Host::new();
            let slow = at_once().startup(Startup::Grace(ms(30)));
            let other = host.start(sleeper(), at_once());
            let before: Vec<_> = host.supervisor.fds().iter().collect();
            let calm = host.start(sleeper(), slow);
            let due = host.status(calm).state.deadline().unwrap();
            wait_until("it is due", SOON, || host.supervisor.now() > due);
            // The timer is the first entry; the last one is the process of the other instance.
            let entry = before.last().unwrap();
            let progress = match by_token {
                true => host.supervisor.process_token(entry.token),
                false => host.supervisor.process_ready(entry.fd),
            };
            assert_eq!(progress.unwrap(), Progress::Nothing, "it lives");
            assert_eq!((host.state(calm), host.state(other)), (Running, Running));
        }
    });
}

// Answers.

/// Dispatches until the answer is `Nothing`. Returns the number of calls.
fn ask_until_nothing(supervisor: &mut Supervisor, what: &str) -> u32 {
    let began = Instant::now();
    for calls in 1.. {
        if supervisor.dispatch().unwrap() == Progress::Nothing {
            return calls;
        }
        assert!(
            began.elapsed() < SOON * patience(),
            "{what}: still asking, after {calls} calls"
        );
    }
    0
}

#[test]
fn a_loop_until_nothing_ends_in_every_storm() {
    isolated(|| {
        let at_no_time = for_ever().start_retries(u32::MAX).backoff(Delay::NONE);
        let silent = at_no_time.clone().startup(Startup::Notify { timeout: LONG });
        let missing = || {
            GroupSpec::new("missing", Command::new("/no/such"))
                .instances(20)
                .policy(at_no_time.clone())
        };
        let flood = || {
            GroupSpec::new("flood", sh("yes x | tr -d '\\n' >&3"))
                .ready_fd(3)
                .policy(silent.clone())
        };
        let closing = || {
            GroupSpec::new("closing", quiet_sh("exit 1"))
                .instances(20)
                .ready_fd(3)
                .policy(silent.clone())
        };
        for slice in [Duration::ZERO, ms(5)] {
            for spec in [storm(1), storm(50), storm(100), missing(), flood(), closing()] {
                let what = format!("{spec:?}, {slice:?}");
                let mut host = Host::with(supervisor(slice));
                let (group, _) = host.add(spec);
                host.supervisor.start(group).unwrap();
                for _ in 0..3 {
                    ask_until_nothing(&mut host.supervisor, &what);
                    host.take_events();
                    assert!(wait_readable(&host.supervisor, SOON), "the storm goes on");
                }
            }
        }
    });
}

/// An edge-triggered registration of the one descriptor, like that of tokio.
struct Edges {
    epoll: rustix::fd::OwnedFd,
}

impl Edges {
    fn of(supervisor: &Supervisor) -> Edges {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, supervisor.as_fd(), epoll::EventData::new_u64(1), flags).unwrap();
        Edges { epoll }
    }

    /// Waits for an edge.
    fn wait(&self, limit: Duration) -> bool {
        let mut ready = Vec::with_capacity(1);
        let limit = Timespec::try_from(limit).unwrap();
        epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&limit)).unwrap();
        !ready.is_empty()
    }
}

#[test]
fn a_host_that_is_edge_triggered_misses_nothing() {
    isolated(|| {
        for slice in [Duration::ZERO, ms(5)] {
            for fetches_first in [false, true] {
                let mut host = Host::with(supervisor(slice));
                let what = format!("{slice:?}");
                let edges = Edges::of(&host.supervisor);
                let four_times = for_ever().crash_budget(Some(CrashBudget { max: 3, window: LONG }));
                let crashing = GroupSpec::new("crashing", quiet_sh("exit 1"))
                    .instances(30)
                    .policy(four_times);
                let (crashing, ids) = host.add(crashing);
                let delayed = at_once().start_retries(2).backoff(Delay::Fixed(ms(20)));
                let missing = GroupSpec::new("missing", Command::new("/no/such"))
                    .instances(5)
                    .policy(delayed);
                let (missing, failing) = host.add(missing);
                let (steady, _) = host.add(GroupSpec::new("steady", sleeper()).instances(70).policy(at_once()));
                for group in [crashing, missing, steady] {
                    host.supervisor.start(group).unwrap();
                }
                let turn = |host: &mut Host| {
                    assert!(edges.wait(SOON), "{slice:?}: no edge; events: {}", host.story());
                    if fetches_first {
                        host.take_events();
                    }
                    ask_until_nothing(&mut host.supervisor, &what);
                    if !fetches_first {
                        host.take_events();
                    }
                };
                let given_up = |host: &Host| {
                    ids.iter()
                        .chain(&failing)
                        .all(|&id| host.states(id).last() == Some(&Fatal))
                };
                while !given_up(&host) {
                    turn(&mut host);
                }
                host.supervisor.shutdown().unwrap();
                while !host.supervisor.is_down() {
                    turn(&mut host);
                }
                assert_eq!(host.states(ids[0]).len(), 4 * 3 + 1);
            }
        }
    });
}

/// A host with an edge-triggered registration of each descriptor. It calls for a descriptor until the answer is
/// `Nothing`.
struct EachEdge {
    own: rustix::fd::OwnedFd,
}

impl EachEdge {
    fn of(supervisor: &mut Supervisor) -> EachEdge {
        supervisor.track_fd_changes(true);
        EachEdge {
            own: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        }
    }

    /// Waits for edges, and handles each descriptor that has one. Returns whether there was any.
    fn turn(&self, supervisor: &mut Supervisor) -> bool {
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, token } => {
                    let flags = epoll::EventFlags::from_bits_retain(interest.bits()) | epoll::EventFlags::ET;
                    epoll::add(&self.own, fd, epoll::EventData::new_u64(token.to_raw()), flags).unwrap();
                }
                FdChange::Removed { fd, .. } => epoll::delete(&self.own, fd).unwrap(),
            }
        }
        let mut events = Vec::with_capacity(64);
        let limit = Timespec::try_from(SOON).unwrap();
        epoll::wait(&self.own, spare_capacity(&mut events), Some(&limit)).unwrap();
        for event in &events {
            let token = Token::from_raw(event.data.u64());
            while supervisor.process_token(token).unwrap() > Progress::Nothing {}
        }
        !events.is_empty()
    }
}

/// Thousands of signals keep a host for longer than a slice, and none of them makes an edge later.
#[test]
fn a_host_that_is_edge_triggered_for_each_descriptor_loses_nothing_of_a_flood() {
    const FLOOD: usize = 5_000;
    let signal: Signal = "RTMIN".parse().unwrap();
    let signals = SignalSet::EMPTY.with(signal);
    Isolation::new().blocked(signals).run(|| {
        for slice in [Duration::ZERO, ms(5), ms(20)] {
            let send = |number: usize| {
                // SAFETY: kill(2) takes only numbers, and the signal is blocked in all threads.
                (0..number).for_each(|_| assert_eq!(unsafe { libc::kill(libc::getpid(), signal.as_raw()) }, 0));
            };
            let settings = builder().slice(slice).signals(SignalFd::new(signals).unwrap());
            let mut supervisor = settings.event_capacity(2 * FLOOD).build().unwrap();
            let host = EachEdge::of(&mut supervisor);
            send(1);
            assert!(host.turn(&mut supervisor));
            send(FLOOD);
            let mut events = Vec::new();
            while events.len() < 1 + FLOOD {
                assert!(host.turn(&mut supervisor), "{slice:?}: {} events", events.len());
                fetch(&mut supervisor, &mut events);
            }
            assert!(
                events.iter().all(|event| matches!(event, Event::Signal(_))),
                "{events:?}"
            );
        }
    });
}

/// The answers rely on this: each event of a descriptor makes an edge of the outer epoll, even if another descriptor of
/// the inner epoll was ready all the time.
#[test]
fn an_epoll_in_an_epoll_makes_an_edge_for_every_event() {
    isolated(|| {
        let (inner, outer) = (
            epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        );
        let bells = [0, 1].map(|count| eventfd(count, EventfdFlags::CLOEXEC).unwrap());
        for (number, bell) in (0..).zip(&bells) {
            epoll::add(&inner, bell, epoll::EventData::new_u64(number), epoll::EventFlags::IN).unwrap();
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&outer, &inner, epoll::EventData::new_u64(9), flags).unwrap();
        let is_edge = || {
            let mut ready = Vec::with_capacity(1);
            epoll::wait(&outer, spare_capacity(&mut ready), Some(&Timespec::default())).unwrap();
            !ready.is_empty()
        };
        assert!(is_edge(), "the one that is ready from the beginning");
        assert!(!is_edge(), "and nothing new");
        rustix::io::write(&bells[0], &1u64.to_ne_bytes()).unwrap();
        assert!(is_edge());
        assert!(!is_edge());
        assert!(inner.as_raw_fd() >= 0);
    });
}
