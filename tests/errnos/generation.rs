//! The scenarios with two hosts: a host that was killed and one that recovers, and a host that hands over to another
//! program. Also the program that sends messages.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use pidherd::lifecycle::{Scope, StateName};
use pidherd::supervisor::{HandOver, Undescribed};
use pidherd::{Command, GroupSpec, Stdio};
use rustix::process::{getpid, set_child_subreaper};

use StateName::{Running, Stopped};

use crate::campaign::Request;
use crate::common::{Oracle, SOON, wait_until};
use crate::host::{Host, builder, for_ever, ms, sleeper, term};
use crate::scenarios::SCENARIOS;
use crate::stage::{Stage, Tried};

/// The variable with the message that a process of this binary sends.
const MESSAGE: &str = "PIDHERD_TEST_MESSAGE";

/// A command that sends the message, with a descriptor, and stays.
pub fn sender(message: &str) -> Command {
    Command::new(env::current_exe().unwrap())
        .args(["a_program_that_sends_a_message", "--test-threads=1"])
        .env(MESSAGE, message)
        .stdout(Stdio::null())
}

/// The scenarios run this test as a process. Without the variable it does nothing.
#[test]
fn a_program_that_sends_a_message() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let Ok(message) = env::var(MESSAGE) else { return };
    // It ends with the host, whatever happens.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.connect(env::var("NOTIFY_SOCKET").unwrap()).unwrap();
    let kept = rustix::fs::memfd_create("pidherd-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let kept = [kept.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); 64];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&kept)));
    let text = [std::io::IoSlice::new(message.as_bytes())];
    sendmsg(&socket, &text, &mut ancillary, SendFlags::empty()).unwrap();
    loop {
        std::thread::park();
    }
}

fn groups() -> Vec<GroupSpec> {
    let web = GroupSpec::new("web", sleeper())
        .policy(for_ever())
        .stop(term(Scope::Process, ms(10_000)));
    let told = GroupSpec::new("told", sleeper())
        .policy(for_ever())
        .notify_socket(true)
        .ready_fd(7)
        .stop(term(Scope::Process, ms(10_000)));
    vec![web, told]
}

/// A host is killed, and the scenario finds its processes again.
pub fn recover(stage: &mut Stage) -> Tried {
    set_child_subreaper(Some(getpid())).unwrap();
    ignore_sigchld(true);
    let state = stage.directory.join("state");
    killed_host(&state);
    let result = go_on(stage, &state);
    stage.heal();
    for pid in crate::common::processes::children() {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    wait_until("the children are gone", SOON, || {
        crate::common::processes::children().is_empty()
    });
    ignore_sigchld(false);
    set_child_subreaper(None).unwrap();
    result
}

fn ignore_sigchld(yes: bool) {
    let action = if yes { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: the call installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, action) };
}

fn go_on(stage: &mut Stage, state: &Path) -> Tried {
    let builder = builder().state_file(state);
    let recovered = stage.alone("recover", || builder.recover(groups(), Undescribed::Stop))?;
    stage.supervisor = Some(recovered.supervisor);
    // A process without a readable identity is not touched.
    if !recovered.unproven.is_empty() {
        return Err(stage.note("unproven", None));
    }
    let group = recovered.groups[0].id;
    let id = stage.supervisor.as_ref().unwrap().group(group).unwrap().instances[0];
    stage.until_state("running", id, Running)?;
    stage.call("stop", |supervisor| supervisor.stop(pidherd::Target::All))?;
    stage.until_state("stopped", id, Stopped)?;
    stage.quiet("drop", |supervisor| drop(supervisor.take()));
    Ok(())
}

/// Runs a host in a copy of this process, and kills it when its processes run.
fn killed_host(state: &Path) {
    let told = state.with_extension("told");
    // SAFETY: as in `common::fork`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        ignore_sigchld(false);
        let mut host = Host::with(builder().state_file(state).build().unwrap());
        for group in groups() {
            let group = host.supervisor.add(group).unwrap();
            host.supervisor.start(group).unwrap();
        }
        host.until_executed();
        fs::write(&told, "").unwrap();
        loop {
            std::thread::park();
        }
    }
    wait_until("the host runs", SOON, || told.exists());
    let raw = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    assert!(crate::common::wait_gone(pid as u32, SOON));
}

/// The file with what the program must know that goes on with the supervisor of this process.
fn request_path() -> PathBuf {
    env::temp_dir().join(format!("pidherd-errnos-{}", std::process::id()))
}

/// A host hands over to another program. This is its first part. Only an error returns.
pub fn hand_over(stage: &mut Stage) -> Tried {
    let builder = builder().notify_path(stage_path(&stage.directory));
    let supervisor = stage.alone("build", || builder.build())?;
    stage.supervisor = Some(supervisor);
    let mut first = None;
    for spec in groups() {
        let (group, id) = stage.add("add", spec)?;
        first = first.or(Some(id));
        stage.call("start", |supervisor| supervisor.start(group))?;
    }
    stage.until_state("running", first.unwrap(), Running)?;
    stage.write_request(&request_path());
    let arguments = ["--exact", "generation::a_host_that_goes_on", "--test-threads=1"];
    // The calls up to the execve are found out by a hand-over that fails.
    let program = match stage.is_recording {
        true => PathBuf::from("/no/such/program"),
        false => env::current_exe().unwrap(),
    };
    let error = stage.quiet("hand over", |supervisor| {
        supervisor.as_mut().unwrap().hand_over(program, arguments)
    });
    fs::remove_file(request_path()).unwrap();
    Err(stage.fail("hand over", &error))
}

fn stage_path(directory: &Path) -> PathBuf {
    directory.join("notify")
}

/// The second part. Without a request it does nothing.
#[test]
fn a_host_that_goes_on() {
    let Ok(request) = fs::read_to_string(request_path()) else {
        return;
    };
    fs::remove_file(request_path()).unwrap();
    let mut lines = request.lines();
    let name = lines.next().unwrap();
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let fault = lines
        .next()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().unwrap());
    let directory = PathBuf::from(lines.next().unwrap());
    let request = Request {
        scenario,
        fault,
        directory: &directory,
        cgroup: None,
        is_recording: lines.next() == Some("true"),
    };
    let stage = request.stage(scenario.fails_later);
    let oracle = Oracle::begin_after_exec();
    request.play(stage, oracle, take_over);
}

fn take_over(stage: &mut Stage) -> Tried {
    let path = stage_path(&stage.directory);
    let builder = || builder().notify_path(&path);
    let received = match stage.alone("receive", HandOver::receive) {
        Ok(received) => received.expect("a supervisor"),
        // It is still there.
        Err(_) => HandOver::receive().unwrap().expect("a supervisor"),
    };
    let taken = stage.shim.observed("take over", || {
        builder().take_over(received, groups(), Undescribed::Stop)
    });
    let taken = taken.or_else(|refused| {
        stage.fail("take over", &refused);
        builder().take_over(refused.handed_over, groups(), Undescribed::Stop)
    });
    let taken = taken.expect("a second attempt succeeds");
    stage.supervisor = Some(taken.supervisor);
    let group = taken.groups[0].id;
    let id = stage.supervisor.as_ref().unwrap().group(group).unwrap().instances[0];
    stage.until_state("running", id, Running)?;
    stage.call("stop", |supervisor| supervisor.stop(pidherd::Target::All))?;
    stage.until_state("stopped", id, Stopped)?;
    stage.quiet("drop", |supervisor| drop(supervisor.take()));
    Ok(())
}
