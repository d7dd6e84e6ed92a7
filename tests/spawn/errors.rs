//! Errors name the object, the operation and the reason, the reason in words.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chroot;

use pidherd::lifecycle::{Cause, Failure};
use pidherd::{Command, OpenFile, SetupError, SpawnStep, Spawner, Stdio, Supervisor};

use crate::common::{isolated, tempdir};
use crate::helpers::{Scratch, root, sh};

/// No number of an errno, in none of the forms that are in use.
fn assert_in_words(text: &str) {
    assert!(!text.contains("os error") && !text.contains("errno"), "{text}");
}

/// Without /dev, as in a container that was put together by hand.
#[test]
fn a_machine_without_dev_null_gets_an_error_that_names_it() {
    if !root("a_machine_without_dev_null_gets_an_error_that_names_it") {
        return;
    }
    isolated(|| {
        let directory = tempdir();
        let (outside, before) = (File::open("/").unwrap(), std::env::current_dir().unwrap());
        chroot(directory.path()).unwrap();
        let supervisor = Supervisor::new().map(drop).unwrap_err();
        let spawner = Spawner::new().map(drop).unwrap_err();
        let command = Command::new("/bin/true").spawn().map(drop).unwrap_err();
        rustix::process::fchdir(outside.as_fd()).unwrap();
        chroot(".").unwrap();
        std::env::set_current_dir(before).unwrap();
        for error in [supervisor, spawner] {
            assert_eq!(error.to_string(), "cannot open /dev/null: No such file or directory");
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            let setup = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
            assert_eq!(setup.map(SetupError::errno), Some(libc::ENOENT));
        }
        let text = r#"cannot start "/bin/true": open /dev/null: No such file or directory (ENOENT)"#;
        assert_eq!(command.to_string(), text);
        assert_eq!((command.step(), command.errno()), (SpawnStep::Prepare, libc::ENOENT));
        assert_eq!(command.path(), Some("/dev/null".as_ref()));
    });
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_its_stream() {
    let scratch = Scratch::new("named");
    let missing = scratch.0.join("missing/log");
    let words = "No such file or directory (ENOENT)";
    for (command, stream) in [
        (sh("").stdin(Stdio::read(&missing)), "stdin"),
        (sh("").stdout(Stdio::append(&missing)), "stdout"),
        (sh("").stderr(Stdio::truncate(&missing)), "stderr"),
        (sh("").fd(7, OpenFile::read(&missing)), "descriptor 7"),
    ] {
        let error = command.spawn().unwrap_err();
        let text = format!("cannot start \"/bin/sh\": open {missing:?} for {stream}: {words}");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.path(), Some(missing.as_path()));
        assert_eq!(error.subject(), Some(missing.display().to_string()));
    }
}

#[test]
fn a_cgroup_that_is_none_is_named() {
    let scratch = Scratch::new("no-cgroup");
    let directory = OwnedFd::from(File::open(&scratch.0).unwrap());
    let error = sh("").cgroup(directory).spawn().unwrap_err();
    assert_eq!(
        (error.step(), error.path()),
        (SpawnStep::Cgroup, Some(scratch.0.as_path()))
    );
    assert!(error.to_string().contains(&format!("{:?}", scratch.0)), "{error}");
}

#[test]
fn no_reason_is_a_number() {
    let scratch = Scratch::new("words");
    fs::write(scratch.0.join("text"), "no program").unwrap();
    let commands = [
        Command::new("/no/such"),
        Command::new(scratch.0.join("text")),
        sh("").current_dir("/no/such"),
        sh("").process_group(0x3fff_ffff),
        sh("").user("no-such-user"),
    ];
    for command in commands {
        assert_in_words(&command.spawn().unwrap_err().to_string());
    }
    for errno in 1..140 {
        let permanent = false;
        let cause = Cause::Failed(Failure::Spawn { errno, permanent });
        assert_in_words(&cause.to_string());
    }
}
