//! Single steps, in a copy of the test's process or in a child. Compiled under `#[cfg(test)]` alone.

use std::ffi::{CStr, CString, c_int};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::clone::{CloneRequest, Method, clone_child, execute_here};
use super::flight::Flight;
use super::script::{Image, Prelude, Script, Text};
use crate::signal::{Signal, SignalSet};
use crate::sys::descriptors::flags_of;
use crate::sys::wait::{Wait, wait};
use crate::testing::common::fork::in_fork;
use crate::testing::common::terminal::Terminal;
use crate::testing::common::{root_or_skip, tempdir};

/// The outcome of a run without an execve: each step has succeeded.
const ALL: (usize, c_int) = (0, libc::ENOENT);

/// Runs the steps of a prelude and then those of a script in the calling process. Returns the label and the errno of
/// the failed step.
fn run_here(script: Script, prelude: impl FnOnce(&mut Prelude)) -> (usize, c_int) {
    let mut flight = Flight::new().unwrap();
    let steps = flight.prelude().unwrap();
    steps.begin(&Arc::new(script), 0);
    prelude(steps);
    execute_here(&mut flight, 0)
}

/// A child that has nothing of its own, made by vfork(2)'s flags.
pub(super) const VFORK: CloneRequest<'_> = CloneRequest {
    birth: None,
    method: Method::Clone,
    share_descriptors: false,
    cgroup: None,
    in_flight: false,
    bound: None,
    new_pid_namespace: false,
    pauses: 0,
};

/// Runs a script in a child, and returns the flight after its end.
fn run_in_child(script: Script) -> Flight {
    let mut flight = Flight::new().unwrap();
    flight.prelude().unwrap().begin(&Arc::new(script), 0);
    let request = CloneRequest { pauses: 1_000, ..VFORK };
    let cloned = clone_child(&mut flight, &request).unwrap();
    wait(cloned.pidfd.as_fd(), Wait::Block).unwrap();
    flight
}

/// The last step: the program at this path, with one argument.
fn executing(script: &mut Script, path: &CStr, arg: &CStr) {
    let image = Image {
        candidates: &[(7, path.to_owned())],
        argv: &[arg.to_owned()],
        env: &[],
        pid_key: None,
    };
    script.execute(2, SignalSet::EMPTY, SignalSet::EMPTY, &image);
}

fn text(script: &mut Script, path: &str) -> Text {
    script.text(&CString::new(path).unwrap())
}

fn status_flags(number: RawFd) -> c_int {
    // SAFETY: the call takes numbers only.
    unsafe { libc::fcntl(number, libc::F_GETFL) }
}

#[test]
fn an_opened_file_is_at_its_number_and_has_only_the_flags_of_its_command() {
    let file = memfd_create("a test", MemfdFlags::CLOEXEC).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    for flags in [
        libc::O_RDONLY,
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_WRONLY | libc::O_APPEND,
    ] {
        assert!(in_fork(|| {
            let mut script = Script::default();
            let path = text(&mut script, &path);
            assert_eq!(run_here(script, |prelude| prelude.open(1, path, flags, 0, 900)), ALL);
            let seen = status_flags(900) & (libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK);
            assert_eq!(seen, flags);
        }));
    }
}

/// A leader of a session without a terminal gets one by an open without O_NOCTTY.
#[test]
fn a_terminal_that_is_opened_as_a_file_does_not_become_the_controlling_one() {
    let terminal = Terminal::new();
    assert!(in_fork(|| {
        rustix::process::setsid().unwrap();
        let mut script = Script::default();
        let path = text(&mut script, terminal.path().to_str().unwrap());
        assert_eq!(
            run_here(script, |prelude| prelude.open(1, path, libc::O_RDWR, 0, 900)),
            ALL
        );
        let own = File::open("/dev/tty").map(drop).unwrap_err();
        assert_eq!(own.raw_os_error(), Some(libc::ENXIO));
    }));
}

#[test]
fn a_process_enters_a_cgroup_by_a_zero_in_the_list_of_its_processes() {
    let list = File::from(memfd_create("a test", MemfdFlags::CLOEXEC).unwrap());
    let mut script = Script::default();
    let zero = text(&mut script, "0");
    assert!(in_fork(|| {
        let ran = run_here(script, |prelude| prelude.enter_cgroup(1, list.as_raw_fd(), zero));
        assert_eq!(ran, ALL);
    }));
    let written = fs::read_to_string(format!("/proc/self/fd/{}", list.as_raw_fd())).unwrap();
    assert_eq!(written, "0");
}

#[test]
fn descriptors_are_marked_one_by_one_and_those_beside_them_are_not() {
    let null = File::open("/dev/null").unwrap();
    assert!(in_fork(|| {
        for number in 900..905 {
            // SAFETY: the numbers are those of no other descriptors that this copy of the process uses.
            assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), number) }, number);
        }
        let marked = || [900, 901, 902, 903, 904].map(|number| flags_of(number) == Some(libc::FD_CLOEXEC));
        let ran = run_here(Script::default(), |prelude| prelude.close_each_on_exec(1, 904, 903));
        assert_eq!((ran, marked()), (ALL, [false; 5]));
        let ran = run_here(Script::default(), |prelude| prelude.close_each_on_exec(1, 901, 901));
        assert_eq!((ran, marked()), (ALL, [false, true, false, false, false]));
        let ran = run_here(Script::default(), |prelude| prelude.close_each_on_exec(1, 901, 903));
        assert_eq!((ran, marked()), (ALL, [false, true, true, true, false]));
    }));
}

#[test]
fn an_unused_prelude_keeps_no_program_in_memory() {
    let (script, nothing) = (Arc::new(Script::default()), Arc::new(Script::default()));
    let mut flight = Flight::new().unwrap();
    let prelude = flight.prelude().unwrap();
    prelude.begin(&script, 0);
    prelude.close_range(1, 900, 901);
    flight.pretend_in_use();
    flight.clear(&nothing);
    assert_eq!(Arc::strong_count(&script), 2);
    flight.child_has_ended();
    flight.clear(&nothing);
    assert_eq!(Arc::strong_count(&script), 1);
    assert!(flight.prelude().unwrap().steps().is_empty());
}

#[test]
fn a_child_has_reached_its_execve_only_after_all_other_steps() {
    let mut script = Script::default();
    script.call(1, libc::SYS_close, &[RawFd::MAX as usize]);
    executing(&mut script, c"/no/such", c"");
    let flight = run_in_child(script);
    assert_eq!(flight.failure(), Some((1, libc::EBADF)));
    assert!(!flight.has_reached_exec());

    let mut script = Script::default();
    executing(&mut script, c"/no/such", c"");
    let flight = run_in_child(script);
    assert_eq!(flight.failure(), Some((7, libc::ENOENT)));
    assert!(flight.has_reached_exec());
}

#[test]
fn the_interpreter_is_looked_for_only_if_a_file_can_be_at_fault() {
    let directory = tempdir();
    let program = directory.join("program");
    fs::write(&program, "#!/no/such\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = CString::new(program.to_str().unwrap()).unwrap();
    // Longer than any argument may be (MAX_ARG_STRLEN in execve(2), with the largest pages).
    let long = CString::new(vec![b'x'; 32 * 65_536]).unwrap();
    for (path, arg, errno, inquiry) in [
        (c"/no/such", c"", libc::ENOENT, (false, None)),
        (&program, c"", libc::ENOENT, (true, Some(b"/no/such".to_vec()))),
        (&program, &long, libc::E2BIG, (false, None)),
    ] {
        let mut script = Script::default();
        executing(&mut script, path, arg);
        let flight = run_in_child(script);
        assert_eq!(flight.failure(), Some((7, errno)), "{path:?}");
        assert_eq!(flight.inquiry(), Some(inquiry), "{path:?}");
    }
}

#[test]
fn a_script_with_more_entries_asks_for_the_parent_like_the_one_it_is_made_from() {
    let mut base = Script::default();
    base.parent_death_signal(1, Signal::TERM);
    executing(&mut base, c"/no/such", c"");
    let more = Script::with_environment(&Arc::new(base), &[c"A=b".to_owned()]);
    assert_eq!(run_in_child(more).failure(), Some((7, libc::ENOENT)));
}

/// The identity of a namespace of the calling process.
fn namespace(name: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn a_given_namespace_is_entered_and_its_descriptor_is_closed() {
    if !root_or_skip("a namespace") {
        return;
    }
    let given = File::open("/proc/self/ns/uts").unwrap();
    let before = namespace("uts");
    assert!(in_fork(|| {
        let mut script = Script::default();
        script.unshare(1, libc::CLONE_NEWUTS);
        assert_eq!(run_here(script, |_| ()), ALL);
        assert_ne!(namespace("uts"), before);
        let copy = fcntl_dupfd_cloexec(&given, 900).unwrap();
        fcntl_setfd(&copy, FdFlags::empty()).unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(copy);
        let mut script = Script::default();
        script.setns(1, number, libc::CLONE_NEWUTS);
        assert_eq!(run_here(script, |_| ()), ALL);
        assert_eq!((namespace("uts"), flags_of(number)), (before.clone(), None));
    }));
}

/// The lines of proc_pid_mountinfo(5) about what is mounted at this place.
fn mounts(place: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at_place = mounts.lines().filter(|line| line.split(' ').nth(4) == Some(place));
    at_place.map(str::to_owned).collect()
}

#[test]
fn a_proc_has_no_devices_and_no_programs_and_mounts_do_not_propagate_to_the_host() {
    if !root_or_skip("mounts") {
        return;
    }
    assert!(in_fork(|| {
        // A host with shared mounts, as systemd makes them.
        let mut host = Script::default();
        host.unshare(1, libc::CLONE_NEWNS);
        let (none, root) = (host.hold(b"none\0"), host.hold(b"/\0"));
        for propagation in [libc::MS_PRIVATE, libc::MS_SHARED] {
            let flags = (libc::MS_REC | propagation) as usize;
            host.call(2, libc::SYS_mount, &[none, root, 0, flags, 0]);
        }
        assert_eq!(run_here(host, |_| ()), ALL);
        assert!(mounts("/").iter().all(|mount| mount.contains(" shared:")));

        // The namespace of the host does not end.
        let _host = File::open("/proc/self/ns/mnt").unwrap();
        let before = mounts("/proc").len();
        let mut script = Script::default();
        script.unshare(1, libc::CLONE_NEWNS);
        script.make_mounts_slaves(2);
        script.mount_proc(3);
        assert_eq!(run_here(script, |_| ()), ALL);
        let follows = |mount: &String| mount.contains(" master:") && !mount.contains(" shared:");
        assert!(mounts("/").iter().all(follows), "{:?}", mounts("/"));
        let new = mounts("/proc").split_off(before);
        let [new] = new.as_slice() else { panic!("{new:?}") };
        let options: Vec<&str> = new.split(' ').nth(5).unwrap().split(',').collect();
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(options.contains(&option), "{new}");
        }
        assert!(!new.contains(" master:") && new.contains(" - proc proc "), "{new}");
    }));
}
