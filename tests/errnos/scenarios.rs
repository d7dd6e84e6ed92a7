//! The scenarios. Each uses a part of the library from beginning to end.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pidherd::cgroup::{Cgroup, CgroupDir, Limits};
use pidherd::fdset::{FdSet, Interest};
use pidherd::lifecycle::{Delay, Scope, Startup, StateName};
use pidherd::notify::{Buffer, NotifySocket, ReadyFd};
use pidherd::signal::{Signal, SignalSet};
use pidherd::signalfd::{MaskGuard, SignalFd};
use pidherd::supervisor::Builder;
use pidherd::timerfd::{Clock, TimerFd};
use pidherd::{Command, GroupSpec, PidFd, Stdio, Supervisor};

use StateName::{Exited, Running, Stopped};

use crate::common::{SOON, wait_readable, wait_until};
use crate::host::{LONG, at_once, builder, for_ever, ms, sleeper, term};
use crate::shim::Call;
use crate::stage::{Stage, Tried};

pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&mut Stage) -> Tried,
    pub needs_cgroup: bool,
    /// Whether calls of children fail too.
    pub with_children: bool,
    /// The faults are injected after an execve.
    pub fails_later: bool,
}

const fn scenario(name: &'static str, run: fn(&mut Stage) -> Tried) -> Scenario {
    Scenario {
        name,
        run,
        needs_cgroup: false,
        with_children: false,
        fails_later: false,
    }
}

pub const SCENARIOS: &[Scenario] = &[
    scenario("supervise", supervise).with_children(),
    scenario("restarts", restarts),
    scenario("ladder", ladder),
    scenario("readiness", readiness),
    scenario("notify", notify),
    scenario("commands", commands),
    scenario("orphans", orphans),
    scenario("state", state),
    scenario("give", give),
    scenario("drop", dropped),
    scenario("recover", crate::generation::recover),
    scenario("hand-over", crate::generation::hand_over),
    Scenario {
        fails_later: true,
        ..scenario("take-over", crate::generation::hand_over)
    },
    scenario("child", child).with_children(),
    scenario("primitives", primitives),
    Scenario {
        needs_cgroup: true,
        ..scenario("cgroup", cgroup).with_children()
    },
    Scenario {
        needs_cgroup: true,
        ..scenario("leaf", leaf)
    },
];

/// The phases that several scenarios have. Their calls fail in the first scenario alone.
const COMMON: &[&str] = &[
    "build", "add", "start", "running", "stop", "stopped", "remove", "removed",
];

impl Scenario {
    const fn with_children(self) -> Scenario {
        Scenario {
            with_children: true,
            ..self
        }
    }

    /// Whether a call of this scenario fails.
    pub fn tries(&self, call: &Call) -> bool {
        let is_common = self.name != "supervise" && COMMON.contains(&call.phase);
        !is_common && (self.with_children || !call.in_child)
    }
}

/// A ladder that ends soon, but not so soon that a slow machine would use its last rung.
fn gentle(scope: Scope) -> pidherd::lifecycle::StopLadder {
    term(scope, Duration::from_secs(10))
}

fn build(stage: &mut Stage, phase: &'static str, builder: Builder) -> Tried {
    let supervisor = stage.alone(phase, || builder.build())?;
    stage.supervisor = Some(supervisor);
    Ok(())
}

fn drop_supervisor(stage: &mut Stage) {
    stage.quiet("drop", |supervisor| drop(supervisor.take()));
}

/// A supervisor with signals, a waker and a subscription, one group that is started, signalled, resized, stopped and
/// removed, and a shutdown.
fn supervise(stage: &mut Stage) -> Tried {
    let set = SignalSet::EMPTY.with(Signal::WINCH);
    let mask = stage.alone("mask", || MaskGuard::block(set))?;
    let result = supervise_with(stage, set);
    stage.quiet("drop", |_| drop(mask));
    result
}

fn supervise_with(stage: &mut Stage, set: SignalSet) -> Tried {
    let signals = stage.alone("signals", || SignalFd::new(set))?;
    build(stage, "build", builder().signals(signals))?;
    let waker = stage.call("waker", |supervisor| supervisor.waker())?;
    let subscription = stage.call("subscribe", |supervisor| supervisor.subscribe(16, |_| true))?;
    let streams = Command::new("/bin/cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::append(stage.directory.join("log")))
        .stderr(Stdio::stdout());
    let spec = GroupSpec::new("web", streams)
        .policy(at_once())
        .stop(gentle(Scope::Process));
    let (group, id) = stage.add("add", spec.clone())?;
    stage.call("start", |supervisor| supervisor.start(group))?;
    stage.until_state("running", id, Running)?;
    stage.call("signal", |supervisor| supervisor.signal(id, Signal::CONT))?;
    stage.quiet("wake", |_| waker.wake());
    stage.call("dispatch", Supervisor::dispatch)?;
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::WINCH).unwrap();
    stage.until("host signal", |stage| {
        stage.story.iter().any(|event| event.starts_with("Signal("))
    })?;
    stage.call("scale", |supervisor| supervisor.scale(group, 2))?;
    stage.until("scaled", |stage| {
        let supervisor = stage.supervisor.as_ref().unwrap();
        let instances = supervisor.group(group).unwrap().instances;
        instances.iter().all(|&id| stage.state(id) == Some(Running))
    })?;
    stage.call("reload", |supervisor| supervisor.reload(group, spec.instances(2)))?;
    stage.quiet("subscription", |_| while subscription.next_event().is_some() {});
    stage.call("fd", |supervisor| supervisor.try_clone_fd())?;
    stage.call("stop", |supervisor| supervisor.stop(group))?;
    stage.until_state("stopped", id, Stopped)?;
    stage.call("remove", |supervisor| supervisor.remove(group))?;
    stage.until("removed", |stage| {
        stage.supervisor.as_ref().unwrap().group(group).is_none()
    })?;
    stage.call("shutdown", |supervisor| supervisor.shutdown())?;
    stage.until("down", |stage| stage.supervisor.as_ref().unwrap().is_down())?;
    stage.quiet("drop", |_| drop((waker, subscription)));
    drop_supervisor(stage);
    Ok(())
}

/// A process that ends and is started again, with and without a delay, and a restart by the host.
fn restarts(stage: &mut Stage) -> Tried {
    build(stage, "build", builder())?;
    let spec = GroupSpec::new("web", sleeper())
        .policy(for_ever().restart_delay(Delay::Fixed(ms(1))))
        .stop(gentle(Scope::Process));
    let (_, id) = stage.add("add", spec)?;
    stage.call("start", |supervisor| supervisor.start(id))?;
    stage.until_state("running", id, Running)?;
    kill(stage.pid(id));
    stage.until("again", |stage| stage.runs(id) == 2 && stage.state(id) == Some(Running))?;
    stage.call("restart", |supervisor| supervisor.restart(id))?;
    stage.until("restarted", |stage| {
        stage.runs(id) == 3 && stage.state(id) == Some(Running)
    })?;
    stage.call("kill", |supervisor| supervisor.kill(id))?;
    stage.until_state("killed", id, Stopped)
}

fn kill(pid: Option<u32>) {
    let pid = rustix::process::Pid::from_raw(pid.expect("a process") as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A stop ladder with two rungs for a process group with a leader that ends first.
fn ladder(stage: &mut Stage) -> Tried {
    build(stage, "build", builder())?;
    // The second process ignores SIGTERM. Its standard output tells that it does.
    let script = "(trap '' TERM; echo; exec sleep 1000) & wait";
    let command = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped());
    let ladder = term(Scope::ProcessGroup, ms(20));
    let (_, id) = stage.add("add", GroupSpec::new("web", command).policy(at_once()).stop(ladder))?;
    stage.call("start", |supervisor| supervisor.start(id))?;
    stage.until_state("running", id, Running)?;
    let pipes = stage.quiet("pipes", |supervisor| supervisor.as_mut().unwrap().take_pipes(id));
    assert!(wait_readable(pipes.unwrap().stdout.unwrap(), SOON));
    stage.call("stop the group", |supervisor| supervisor.stop(id))?;
    stage.until_state("the group stops", id, Stopped)
}

/// Readiness by a pipe, and a process that closes it too early.
fn readiness(stage: &mut Stage) -> Tried {
    build(stage, "build", builder())?;
    let policy = at_once().startup(Startup::Notify { timeout: LONG });
    let script = |text: &str| Command::new("/bin/sh").args(["-c", text]);
    let spec = GroupSpec::new("web", script("echo >&5; exec 5>&-; exec sleep 1000")).ready_fd(5);
    let (_, first) = stage.add("add", spec.policy(policy.clone()).stop(gentle(Scope::Process)))?;
    stage.call("start with a pipe", |supervisor| supervisor.start(first))?;
    stage.until_state("ready", first, Running)?;
    let spec = GroupSpec::new("other", script("exec 5>&-; exec sleep 1000")).ready_fd(5);
    let policy = policy.start_retries(0);
    let (_, id) = stage.add("add", spec.policy(policy).stop(gentle(Scope::Process)))?;
    stage.call("start with a pipe", |supervisor| supervisor.start(id))?;
    stage.until("failed", |stage| {
        stage.state(id).is_some_and(|state| state == StateName::Fatal)
    })?;
    stage.call("stop", |supervisor| supervisor.stop(pidherd::Target::All))?;
    stage.until_state("stopped", first, Stopped)
}

/// Messages by the notify socket: readiness, a stored descriptor, the watchdog, and a second run that gets the
/// descriptor.
fn notify(stage: &mut Stage) -> Tried {
    build(
        stage,
        "build with a socket",
        builder().notify_path(stage.directory.join("notify")),
    )?;
    let policy = for_ever()
        .startup(Startup::Notify { timeout: LONG })
        .watchdog(LONG)
        .restart_delay(Delay::Fixed(ms(1)));
    let command = crate::generation::sender("FDSTORE=1\nFDNAME=kept\nREADY=1\nWATCHDOG=1");
    let spec = GroupSpec::new("web", command)
        .policy(policy)
        .notify_socket(true)
        .descriptor_store(2)
        .stop(gentle(Scope::Process));
    let (group, id) = stage.add("add with a socket", spec)?;
    stage.call("start with a socket", |supervisor| supervisor.start(id))?;
    stage.until_state("ready", id, Running)?;
    kill(stage.pid(id));
    stage.until("again", |stage| stage.runs(id) == 2 && stage.state(id) == Some(Running))?;
    stage.call("stop", |supervisor| supervisor.stop(group))?;
    stage.until_state("stopped", id, Stopped)?;
    stage.call("remove with a socket", |supervisor| supervisor.remove(group))?;
    stage.until("removed", |stage| {
        stage.supervisor.as_ref().unwrap().group(group).is_none()
    })?;
    drop_supervisor(stage);
    Ok(())
}

/// The commands before and after a run.
fn commands(stage: &mut Stage) -> Tried {
    build(stage, "build", builder())?;
    let spec = GroupSpec::new("web", sleeper())
        .policy(at_once())
        .before_run(Command::new("/bin/true"), LONG)
        .after_run(Command::new("/bin/true"), LONG)
        .stop(gentle(Scope::Process));
    let (_, id) = stage.add("add", spec)?;
    stage.call("start with commands", |supervisor| supervisor.start(id))?;
    stage.until_state("prepare", id, Running)?;
    stage.call("stop", |supervisor| supervisor.stop(id))?;
    stage.until_state("clean up", id, Stopped)
}

/// The duties of an init: an orphan is reaped.
fn orphans(stage: &mut Stage) -> Tried {
    let set = SignalSet::EMPTY.with(Signal::CHLD);
    let _mask = MaskGuard::block(set).unwrap();
    let result = orphans_of(stage);
    stage.heal();
    rustix::process::set_child_subreaper(None).unwrap();
    result
}

fn orphans_of(stage: &mut Stage) -> Tried {
    build(stage, "build an init", builder().adopt_orphans(true))?;
    // The second process ends when the host closes the pipe. If it ended before, the shell could reap it.
    let script = "exec 3<&0; (read end <&3) & echo; exec sleep 1000";
    let command = Command::new("/bin/sh").args(["-c", script]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let spec = GroupSpec::new("web", command)
        .policy(at_once())
        .stop(gentle(Scope::ProcessGroup));
    let (_, id) = stage.add("add", spec)?;
    stage.call("start", |supervisor| supervisor.start(id))?;
    stage.until_state("running", id, Running)?;
    let mut pipes = stage.supervisor.as_mut().unwrap().take_pipes(id).unwrap();
    assert!(wait_readable(pipes.stdout.as_ref().unwrap(), SOON));
    // Its child becomes an orphan.
    kill(stage.pid(id));
    stage.until_state("ended", id, Exited)?;
    drop(pipes.stdin.take());
    stage.until("reaped", |stage| {
        stage.supervisor.as_ref().unwrap().orphans().unwrap().reaped == 1
    })?;
    stage.call("reap", |supervisor| supervisor.reap_orphans())?;
    Ok(())
}

/// A supervisor with a state file.
fn state(stage: &mut Stage) -> Tried {
    build(
        stage,
        "build with a state",
        builder().state_file(stage.directory.join("state")),
    )?;
    let spec = GroupSpec::new("web", sleeper())
        .instances(2)
        .policy(for_ever().restart_delay(Delay::Fixed(ms(1))))
        .stop(gentle(Scope::Process));
    let (group, id) = stage.add("add with a state", spec)?;
    stage.call("start with a state", |supervisor| supervisor.start(group))?;
    stage.until_state("run with a state", id, Running)?;
    kill(stage.pid(id));
    stage.until("again", |stage| stage.runs(id) == 2 && stage.state(id) == Some(Running))?;
    stage.call("scale", |supervisor| supervisor.scale(group, 3))?;
    stage.call("stop with a state", |supervisor| supervisor.stop(group))?;
    stage.until_state("stopped", id, Stopped)?;
    drop_supervisor(stage);
    Ok(())
}

/// A process that is released, and adopted again.
fn give(stage: &mut Stage) -> Tried {
    build(stage, "build", builder())?;
    let spec = GroupSpec::new("web", sleeper())
        .policy(at_once())
        .stop(gentle(Scope::Process));
    let (_, id) = stage.add("add", spec)?;
    stage.call("start", |supervisor| supervisor.start(id))?;
    stage.until_state("running", id, Running)?;
    let pidfd = stage.call("release", |supervisor| supervisor.release(id))?;
    stage.until("released", |stage| stage.pid(id).is_none())?;
    let supervisor = stage.supervisor.as_mut().unwrap();
    if let Err(refused) = stage.shim.observed("adopt", || supervisor.adopt(id, pidfd)) {
        let told = stage.fail("adopt", &refused);
        let pidfd = refused.into_pidfd();
        pidfd.signal(Signal::KILL).unwrap();
        assert!(wait_readable(&pidfd, SOON));
        pidfd.reap().unwrap();
        return Err(told);
    }
    stage.until_state("adopted", id, Running)?;
    stage.call("stop", |supervisor| supervisor.stop(id))?;
    stage.until_state("stopped", id, Stopped)
}

/// A supervisor that is dropped while its processes run.
fn dropped(stage: &mut Stage) -> Tried {
    build(stage, "build", builder().notify_path(stage.directory.join("notify")))?;
    let cgroup = stage.cgroup.clone();
    let mut spec = GroupSpec::new("web", sleeper())
        .instances(2)
        .notify_socket(true)
        .policy(at_once());
    if let Some(cgroup) = &cgroup {
        spec = spec.cgroup(CgroupDir::open(cgroup).unwrap());
    }
    let (group, id) = stage.add("add", spec)?;
    stage.call("start", |supervisor| supervisor.start(group))?;
    stage.until_state("running", id, Running)?;
    drop_supervisor(stage);
    Ok(())
}

/// A child without a supervisor.
fn child(stage: &mut Stage) -> Tried {
    let mut first = stage.alone("spawn", || sleeper().user("nobody").spawn())?;
    let found = stage.alone("try_wait", || first.try_wait());
    let waited = found.and_then(|_| stage.alone("wait_timeout", || first.wait_timeout(ms(1))));
    let stopped = waited.and_then(|_| stage.alone("stop", || first.stop(Signal::TERM, LONG)));
    stage.quiet("drop", |_| drop(first));
    stopped?;
    let mut second = stage.alone("spawn again", || Command::new("/bin/true").spawn())?;
    let waited = stage.alone("wait", || second.wait());
    stage.quiet("drop", |_| drop(second));
    waited?;
    let mut third = stage.alone("spawn more", || sleeper().spawn())?;
    let killed = stage.alone("kill", || third.kill());
    stage.quiet("drop", |_| drop(third));
    killed?;
    let fourth = stage.alone("spawn last", || sleeper().spawn())?;
    stage.quiet("drop alive", |_| drop(fourth));
    Ok(())
}

/// The primitives, each alone.
fn primitives(stage: &mut Stage) -> Tried {
    let mut other = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let result = of_a_process(stage, other.id());
    other.kill().unwrap();
    other.wait().unwrap();
    result?;
    let mut timer = stage.alone("timerfd", || TimerFd::new(Clock::Boottime))?;
    stage.alone("arm", || timer.arm(Some(Clock::Boottime.now())))?;
    assert!(wait_readable(&timer, SOON));
    stage.alone("acknowledge", || timer.acknowledge())?;
    let mut set = stage.alone("fdset", FdSet::new)?;
    let fd = OwnedFd::from(timer);
    let token = stage.alone("add", || set.add(fd.as_fd(), Interest::READ))?;
    stage.alone("ready", || set.ready(&mut Vec::new()))?;
    stage.alone("clone", || set.try_clone_fd())?;
    stage.quiet("drop entry", |_| drop(set.remove(token, fd)));
    let signals = SignalSet::EMPTY.with(Signal::USR2);
    let mask = MaskGuard::block(signals).unwrap();
    let signals = stage.alone("signalfd", || SignalFd::new(signals))?;
    stage.alone("read signal", || signals.read())?;
    drop(mask);
    let (mut ready, writer) = stage.alone("pipe", ReadyFd::pipe)?;
    File::from(writer).write_all(b"\n").unwrap();
    stage.alone("read ready", || ready.read())?;
    let path = stage.directory.join("socket");
    let mut socket = stage.alone("bind", || NotifySocket::bind(&path))?;
    socket.receive_descriptors(true);
    let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
    sender.send_to(b"READY=1", &path).unwrap();
    let mut buffer = Buffer::new();
    stage.alone("receive", || socket.receive(&mut buffer, |_| Some(())).map(drop))?;
    stage.quiet("drop socket", |_| drop(socket));
    let abstract_socket = stage.alone("socket", NotifySocket::new)?;
    stage.quiet("drop socket", |_| drop(abstract_socket));
    Ok(())
}

fn of_a_process(stage: &mut Stage, number: u32) -> Tried {
    let pidfd = stage.alone("open", || PidFd::open(number))?;
    stage.alone("send", || pidfd.signal(Signal::CONT))?;
    stage.alone("peek", || pidfd.peek())?;
    stage.alone("copy", || pidfd.try_clone())?;
    let fd = OwnedFd::from(pidfd);
    stage.alone("from", || PidFd::try_from(fd))?;
    Ok(())
}

/// Runs with cgroups: limits, freezing, a stop of the whole cgroup, and the removal.
fn cgroup(stage: &mut Stage) -> Tried {
    let path = stage.cgroup.clone().unwrap();
    build(stage, "build", builder())?;
    let directory = stage.alone("open", || CgroupDir::open(&path))?;
    let limits = |depth: &str| Limits::new().file("cgroup.max.depth", depth);
    let script = "(trap '' TERM; echo; exec sleep 1000) & wait";
    let command = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped());
    let spec = GroupSpec::new("web", command)
        .policy(for_ever().restart_delay(Delay::Fixed(ms(1))))
        .cgroup(directory)
        .limits(limits("3"))
        .stop(term(Scope::Cgroup, ms(20)));
    let (group, id) = stage.add("add with a cgroup", spec.clone())?;
    stage.call("start in a cgroup", |supervisor| supervisor.start(id))?;
    stage.until_state("run in a cgroup", id, Running)?;
    stage.call("freeze", |supervisor| supervisor.freeze(id))?;
    stage.call("thaw", |supervisor| supervisor.thaw(id))?;
    stage.call("reload", |supervisor| {
        supervisor.reload(group, spec.limits(limits("4")))
    })?;
    stage.quiet("usage", |supervisor| {
        let _unknown = supervisor.as_ref().unwrap().usage(id);
    });
    stage.call("signal", |supervisor| {
        supervisor.signal_scope(id, Signal::CONT, Scope::Cgroup)
    })?;
    let pipes = stage.supervisor.as_mut().unwrap().take_pipes(id);
    assert!(wait_readable(pipes.unwrap().stdout.unwrap(), SOON));
    kill(stage.pid(id));
    stage.until("again", |stage| stage.runs(id) == 2 && stage.state(id) == Some(Running))?;
    stage.call("stop the cgroup", |supervisor| supervisor.stop(id))?;
    stage.until_state("the cgroup stops", id, Stopped)?;
    stage.call("remove with a cgroup", |supervisor| supervisor.remove(group))?;
    stage.until("all cgroups are removed", |stage| {
        stage.supervisor.as_ref().unwrap().group(group).is_none()
    })?;
    drop_supervisor(stage);
    Ok(())
}

/// A cgroup without a supervisor.
fn leaf(stage: &mut Stage) -> Tried {
    let path = stage.cgroup.clone().unwrap();
    let directory = stage.alone("open", || CgroupDir::open(&path))?;
    let limits = Limits::new().file("cgroup.max.depth", "3");
    stage.alone("controllers", || directory.enable_controllers(&limits))?;
    let leaf = stage.alone("make", || directory.make("leaf"));
    // It may have been made before the failure.
    let result = leaf.and_then(|leaf| of_a_leaf(stage, &leaf, &limits));
    let left = path.join("leaf");
    if result.is_err() && left.exists() {
        let leaf = directory.leaf("leaf").unwrap();
        leaf.clear().unwrap();
        wait_until("it is empty", SOON, || !leaf.is_populated().unwrap());
        leaf.remove().unwrap();
    }
    result
}

fn of_a_leaf(stage: &mut Stage, leaf: &Cgroup, limits: &Limits) -> Tried {
    stage.alone("limits", || leaf.set_limits(limits))?;
    let mut inhabitant = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    fs::write(leaf.path().join("cgroup.procs"), inhabitant.id().to_string()).unwrap();
    let result = of_an_inhabited(stage, leaf);
    inhabitant.kill().unwrap();
    inhabitant.wait().unwrap();
    wait_until("it is empty", SOON, || !leaf.is_populated().unwrap());
    result?;
    stage.alone("clear", || leaf.clear())?;
    stage.alone("remove", || leaf.remove())
}

fn of_an_inhabited(stage: &mut Stage, leaf: &Cgroup) -> Tried {
    let events = stage.alone("events", || leaf.events())?;
    stage.alone("acknowledge", || Cgroup::acknowledge(&events))?;
    stage.alone("processes", || leaf.processes())?;
    stage.quiet("usage", |_| {
        let _unknown = leaf.usage();
    });
    stage.alone("freeze", || leaf.freeze())?;
    stage.alone("frozen", || leaf.is_frozen())?;
    stage.alone("thaw", || leaf.thaw())?;
    stage.alone("signal", || leaf.signal(Signal::CONT))?;
    stage.alone("kill", || leaf.kill())
}
