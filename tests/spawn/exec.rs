//! A program in the place of the host.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pidherd::{Command, CommandError, Lifetime, Resource, Signal, SignalSet, SpawnStep, Stdio};

use crate::common::fork::in_fork;
use crate::common::{isolated, tempdir};
use crate::helpers::{root, sh};

/// What the program writes to a file that takes its standard output, in the place of a copy of this process.
fn executed(command: impl FnOnce() -> Command) -> String {
    let directory = tempdir();
    let file = directory.join("out");
    assert!(in_fork(|| panic!(
        "{}",
        command().stdout(Stdio::truncate(&file)).exec()
    )));
    fs::read_to_string(&file).unwrap()
}

#[test]
fn a_program_takes_the_place_of_the_host_with_all_settings() {
    isolated(|| {
        let high = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 300).unwrap();
        let given: Arc<OwnedFd> = Arc::new(high);
        // Neither is for the program, and the second would survive an execve.
        let _own = File::open("/dev/null").unwrap();
        let leaked = rustix::io::fcntl_dupfd_cloexec(&given, 50).unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        let script = "echo $1 $A $PWD; umask; ulimit -n; cd /proc/self/fd; echo *; test $LISTEN_PID = $$ && echo right";
        // The number 4 is that of the directory which the shell lists.
        let text = executed(|| {
            sh(script)
                .args(["sh", "word"])
                .env("A", "x")
                .current_dir("/")
                .umask(0o27)
                .limit(Resource::OpenFiles, 555, 555)
                .stdin(Stdio::null())
                .stderr(Stdio::stdout())
                .listen_fd(Arc::clone(&given))
                .fd(7, Arc::clone(&given))
                .signal_mask(SignalSet::EMPTY.with(Signal::USR1))
        });
        assert_eq!(text, "word x /\n0027\n555\n0 1 2 3 4 7\nright\n");
        let text = executed(|| {
            Command::new("/bin/cat")
                .arg("/proc/self/status")
                .signal_mask(SignalSet::EMPTY.with(Signal::USR1))
        });
        for line in [
            "SigBlk:\t0000000000000200\n",
            "SigIgn:\t0000000000000000\n",
            "SigCgt:\t0000000000000000\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    });
}

#[test]
fn a_program_in_the_place_of_the_host_is_another_user() {
    if !root("a_program_in_the_place_of_the_host_is_another_user") {
        return;
    }
    isolated(|| {
        let status = || Command::new("/bin/cat").arg("/proc/self/status").uid(12345).gid(12346);
        // A process that leads its group, as a service does, cannot begin a session.
        let text = executed(|| {
            rustix::process::setsid().unwrap();
            status().parent_death_signal(Signal::KILL).nice(3)
        });
        for line in [
            "Uid:\t12345\t12345",
            "Gid:\t12346\t12346",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(in_fork(|| {
            rustix::process::setsid().unwrap();
            let error = status().setsid(true).exec();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Session, libc::EPERM));
        }));
    });
}

#[test]
fn another_thread_can_replace_the_host() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("out");
        let script = "test $$ = $EXPECTED && echo same";
        assert!(in_fork(|| {
            let command = sh(script).env("EXPECTED", std::process::id().to_string());
            let command = command.stdout(Stdio::truncate(&file));
            std::thread::scope(|scope| {
                let error = scope.spawn(|| command.exec()).join().unwrap();
                panic!("{error}");
            });
        }));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with("same\n"), "{text}");
    });
}

#[test]
fn a_host_that_cannot_be_replaced_keeps_its_descriptors() {
    isolated(|| {
        let directory = tempdir();
        let path = directory.join("file");
        fs::write(&path, "content").unwrap();
        assert!(in_fork(|| {
            let mut file = File::open(&path).unwrap();
            let number = file.as_raw_fd();
            let error = Command::new("/no/such").stdin(Stdio::null()).exec();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ENOENT));
            assert_eq!(error.path().unwrap().to_str(), Some("/no/such"));
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), file.as_raw_fd()), ("content", number));
            let error = sh("").current_dir("/no/such").exec();
            assert_eq!((error.step(), error.errno()), (SpawnStep::CurrentDir, libc::ENOENT));
            // It can still start children, and another attempt can succeed.
            assert!(sh("").status().unwrap().exit.success());
            panic!("{}", sh("exit 0").exec());
        }));
    });
}

#[test]
fn what_only_a_child_can_have_is_refused_before_anything_happens() {
    for command in [
        sh("").stdout(Stdio::piped()),
        sh("").fd(5, Stdio::piped()),
        sh("").lifetime(Lifetime::Bound),
        sh("").lifetime(Lifetime::BoundOrSignal),
    ] {
        let error = command.exec();
        assert!(
            matches!(error.command_error(), Some(CommandError::Needs { .. })),
            "{error}"
        );
    }
    let error = sh("").umask(0o1000).exec();
    assert_eq!(error.command_error(), Some(&CommandError::Umask { mask: 0o1000 }));
}
