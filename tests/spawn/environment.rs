//! Variables that follow from other settings, and where a program is looked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pidherd::{Command, SpawnStep};

use crate::helpers::{Scratch, output, root};

/// The environment that the command brings about.
fn environment(command: Command) -> BTreeMap<String, String> {
    let text = output(command.arg("-0"));
    let entries = text.split_terminator('\0').filter_map(|entry| entry.split_once('='));
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn env() -> Command {
    Command::new("/usr/bin/env")
}

/// A host as root's shell leaves it.
fn of_root(command: Command) -> Command {
    [
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/bash"),
        ("PWD", "/root"),
    ]
    .into_iter()
    .fold(command, |command, (key, value)| command.env(key, value))
}

/// The line of a user, as fields.
fn account(name: &str) -> Vec<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name));
    line.unwrap().split(':').map(str::to_owned).collect()
}

const LOGIN: [&str; 4] = ["USER", "LOGNAME", "HOME", "SHELL"];

#[test]
fn a_user_brings_the_variables_of_a_login() {
    if !root("a_user_brings_the_variables_of_a_login") {
        return;
    }
    for name in ["nobody", "daemon", "root"] {
        let account = account(name);
        let seen = environment(env().user(name));
        let values = [name, name, &account[5], &account[6]];
        for (key, value) in LOGIN.into_iter().zip(values) {
            assert_eq!(seen.get(key).map(String::as_str), Some(value), "{key} of {name}");
        }
    }
    // What the command says itself is as it says.
    let said = environment(env().user("nobody").env("HOME", "/elsewhere").env_remove("SHELL"));
    assert_eq!((said["HOME"].as_str(), said["USER"].as_str()), ("/elsewhere", "nobody"));
    assert!(!said.contains_key("SHELL"));
    let before = environment(env().env("HOME", "/elsewhere").user("nobody"));
    assert_eq!(before["HOME"], "/elsewhere");
    let exact = environment(env().user("nobody").env_clear().env("A", "b"));
    assert_eq!(
        exact.into_iter().collect::<Vec<_>>(),
        [("A".to_owned(), "b".to_owned())]
    );
    // A number is no name.
    let host = environment(of_root(env()));
    let numbers = environment(of_root(env()).uid(65534).gid(65534));
    assert_eq!(LOGIN.map(|key| &numbers[key]), LOGIN.map(|key| &host[key]));
}

#[test]
fn pwd_is_the_directory_that_the_command_names() {
    let scratch = Scratch::new("pwd");
    fs::create_dir(scratch.0.join("below")).unwrap();
    let pwd = |command: Command| environment(command).remove("PWD");
    let here = scratch.0.to_str().unwrap();
    assert_eq!(pwd(env().current_dir(here)).as_deref(), Some(here));
    assert_eq!(pwd(env().current_dir("/")).as_deref(), Some("/"));
    // It goes by the name, as in a shell.
    let link = scratch.0.join("link");
    std::os::unix::fs::symlink("below", &link).unwrap();
    assert_eq!(pwd(env().current_dir(&link)).as_deref(), link.to_str());
    // A name from which it cannot be known: none is better than a wrong one.
    for unknown in [".", "..", "/usr/..", "/usr/./bin"] {
        assert_eq!(pwd(env().current_dir(unknown)), None, "{unknown}");
    }
    // Without a directory it is the host's, whatever that is.
    assert_eq!(pwd(env()), std::env::var("PWD").ok());
    // What the command says itself is as it says.
    assert_eq!(
        pwd(env().current_dir("/").env("PWD", "/said")).as_deref(),
        Some("/said")
    );
    assert_eq!(pwd(env().current_dir("/").env_remove("PWD")), None);
    assert_eq!(pwd(env().current_dir("/").env_clear()), None);
    // The shell believes it.
    let shell = Command::new("/bin/sh").arg("-c").arg("pwd").current_dir(&link);
    assert_eq!(output(shell).trim(), link.to_str().unwrap());
}

#[test]
fn pwd_is_that_inside_the_root_directory() {
    if !root("pwd_is_that_inside_the_root_directory") {
        return;
    }
    // The same machine under another root: what is there is there.
    for (directory, pwd) in [(None, "/"), (Some("/usr"), "/usr"), (Some("usr/bin"), "/usr/bin")] {
        let command = env().chroot("/");
        let command = directory.into_iter().fold(command, Command::current_dir);
        assert_eq!(
            environment(command).get("PWD").map(String::as_str),
            Some(pwd),
            "{directory:?}"
        );
    }
}

/// As execvp(3) has it: an empty name in PATH is the working directory, the child's.
#[test]
fn an_empty_directory_in_path_is_the_working_directory_of_the_child() {
    let scratch = Scratch::new("empty");
    scratch.file("probe", "#!/bin/sh\necho found\n", 0o755);
    for path in ["", ":", "/no/such:", ":/no/such", "/no/such::/no/such/too"] {
        let command = Command::new("probe").env("PATH", path);
        assert_eq!(output(command.clone().current_dir(&scratch.0)), "found\n", "{path:?}");
        let error = command.current_dir("/usr").spawn().unwrap_err();
        assert_eq!(
            (error.step(), error.errno()),
            (SpawnStep::Exec, libc::ENOENT),
            "{path:?}"
        );
    }
    // No PATH at all is another matter.
    let command = Command::new("probe").env_remove("PATH").current_dir(&scratch.0);
    assert_eq!(command.spawn().unwrap_err().errno(), libc::ENOENT);
    assert_eq!(output(Command::new("echo").arg("x").env_remove("PATH")), "x\n");
}

/// As the standard library and posix_spawn(3) have it.
#[test]
fn a_relative_program_is_looked_for_in_the_directory_of_the_child() {
    let scratch = Scratch::new("relative");
    fs::create_dir(scratch.0.join("bin")).unwrap();
    scratch.file("bin/probe", "#!/bin/sh\necho found\n", 0o755);
    for (program, directory) in [("bin/probe", ""), ("./probe", "bin"), ("../bin/probe", "bin")] {
        let command = Command::new(program).current_dir(scratch.0.join(directory));
        assert_eq!(output(command), "found\n", "{program}");
        let error = Command::new(program).current_dir("/usr").spawn().unwrap_err();
        assert_eq!(
            (error.step(), error.path()),
            (SpawnStep::Exec, Some(Path::new(program)))
        );
    }
    let searched = Command::new("probe")
        .env("PATH", "/no/such:bin")
        .current_dir(&scratch.0);
    assert_eq!(output(searched), "found\n");
}
