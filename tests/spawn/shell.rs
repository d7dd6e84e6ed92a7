//! A command as text, and commands of the standard library.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::process;

use pidherd::{Capabilities, Command, IoPriority, Lifetime, Namespace, Resource, Scheduling, Signal, SignalSet, Stdio};

use crate::common::isolated;
use crate::helpers::{Scratch, output};

/// What a shell does with the text of a command.
fn pasted(command: &Command) -> Vec<u8> {
    let ran = process::Command::new("/bin/sh")
        .arg("-c")
        .arg(command.to_string())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{command}: {ran:?}");
    ran.stdout
}

/// What the command itself does.
fn spawned(command: &Command) -> Vec<u8> {
    let mut child = command.clone().stdout(Stdio::piped()).spawn().unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut fs::File::from(child.stdout.take().unwrap()), &mut bytes).unwrap();
    assert!(child.wait().unwrap().exit.success(), "{command}");
    bytes
}

#[test]
fn the_text_of_a_command_does_the_same_in_a_shell() {
    isolated(|| {
        let scratch = Scratch::new("shell");
        for name in ["a b", "-", "$HOME", "a=b", "it's", "if"] {
            let path = scratch.0.join(name);
            fs::write(
                &path,
                "#!/bin/sh\nprintf '%s|' \"$0\" \"$@\"; pwd; printf '%s|' \"$K\" \"$L\"\n",
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let odd: [OsString; 14] = [
            "".into(),
            "a b".into(),
            "'".into(),
            "a'b''c".into(),
            "\"$(echo no)\" `echo no` $HOME ${HOME} \\".into(),
            "* ? [a-z] ~ # ! & | ; < > ( ) { }".into(),
            "line\nline\n".into(),
            "\ttab\r\x1b[31mred\x07\x7f".into(),
            "-n".into(),
            "--".into(),
            "a=b".into(),
            "ünï \u{85}\u{202e}".into(),
            bytes(b"\xff\xfe\x80 mixed \xc3"),
            bytes(b"\n\x01\n"),
        ];
        for name in ["a b", "-", "$HOME", "a=b", "it's", "if"] {
            let programs = [scratch.0.join(name).into_os_string(), OsString::from(name)];
            for program in programs {
                let path = format!("{}:/usr/bin:/bin", scratch.0.display());
                let command = Command::new(&program).args(&odd).env("PATH", &path);
                // A shell finds a name in the PATH that it has itself.
                let command = if program.as_bytes().contains(&b'/') {
                    command
                } else {
                    command.env("odd.key", "")
                };
                let directories = [None, Some("/"), Some("/tmp/../tmp")];
                for (value, directory) in odd.iter().zip(directories.into_iter().cycle()) {
                    let command = directory.into_iter().fold(command.clone(), Command::current_dir);
                    let command = command.env("K", value).env("L", "x");
                    assert_eq!(pasted(&command), spawned(&command), "{command}");
                }
            }
        }
    });
}

#[test]
fn the_text_of_a_command_has_its_environment() {
    isolated(|| {
        let list = || Command::new("/usr/bin/env").arg("-0");
        let commands = [
            list()
                .env_clear()
                .env("A", "1")
                .env("odd-key", "two words")
                .env("-x", "y"),
            list().env_clear(),
            list().env_remove("HOME").env_remove("odd key").env("B", "'"),
        ];
        let sorted = |text: Vec<u8>| {
            let mut entries: Vec<Vec<u8>> = text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
            // Variables of the shell's own.
            entries.retain(|entry| {
                ["PWD=", "_=", "OLDPWD=", "SHLVL="]
                    .iter()
                    .all(|own| !entry.starts_with(own.as_bytes()))
            });
            entries.sort();
            entries
        };
        for command in commands {
            assert_eq!(sorted(pasted(&command)), sorted(spawned(&command)), "{command}");
        }
    });
}

#[test]
fn a_command_of_the_standard_library_runs_the_same() {
    isolated(|| {
        let mut builder = process::Command::new("sh");
        builder.args([
            "-c",
            r#"printf '%s|' "$@" "$A" "${CARGO_MANIFEST_DIR-unset}" "$PWD""#,
            "sh",
            "a b",
            "",
        ]);
        builder
            .env("A", "old")
            .env("A", "x=y")
            .env_remove("CARGO_MANIFEST_DIR")
            .current_dir("/usr");
        builder.env("REMOVED", "1").env_remove("REMOVED");
        let command = Command::from(&builder);
        assert!(command.get_args().eq(builder.get_args()) && command.get_envs().eq(builder.get_envs()));
        assert_eq!(output(command), "a b||x=y|unset|/usr|");
        let ran = builder.output().unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), "a b||x=y|unset|/usr|");
    });
}

const GETTERS: &[fn(&Command) -> String] = &[
    |c| format!("{:?}", c.get_arg0()),
    |c| format!("{:?}", c.get_args().collect::<Vec<_>>()),
    |c| format!("{:?}", c.get_envs().collect::<Vec<_>>()),
    |c| format!("{:?}", c.get_env_clear()),
    |c| format!("{:?}", c.get_current_dir()),
    |c| format!("{:?}", c.get_chroot()),
    |c| format!("{:?}", c.get_stdin()),
    |c| format!("{:?}", c.get_stdout()),
    |c| format!("{:?}", c.get_stderr()),
    |c| format!("{:?}", c.get_fds().collect::<Vec<_>>()),
    |c| format!("{:?}", c.get_umask()),
    |c| format!("{:?}", c.get_user()),
    |c| format!("{:?}", c.get_uid()),
    |c| format!("{:?}", c.get_gid()),
    |c| format!("{:?}", c.get_groups()),
    |c| format!("{:?}", c.get_setsid()),
    |c| format!("{:?}", c.get_process_group()),
    |c| format!("{:?}", c.get_no_new_privileges()),
    |c| format!("{:?}", c.get_signal_mask()),
    |c| format!("{:?}", c.get_ignored_signals()),
    |c| format!("{:?}", c.get_nice()),
    |c| format!("{:?}", c.get_cpu_affinity()),
    |c| format!("{:?}", c.get_oom_score_adj()),
    |c| format!("{:?}", c.get_limits().collect::<Vec<_>>()),
    |c| format!("{:?}", c.get_controlling_terminal()),
    |c| format!("{:?}", c.get_foreground()),
    |c| format!("{:?}", c.get_lifetime()),
    |c| format!("{:?}", c.get_parent_death_signal()),
    |c| format!("{:?}", c.get_bounding_capabilities()),
    |c| format!("{:?}", c.get_inheritable_capabilities()),
    |c| format!("{:?}", c.get_ambient_capabilities()),
    |c| format!("{:?}", c.get_listen_fds()),
    |c| format!("{:?}", c.get_env_keep().map(|kept| kept.collect::<Vec<_>>())),
    |c| format!("{:?}", c.get_group()),
    |c| format!("{:?}", c.get_group_names()),
    |c| format!("{:?}", c.get_added_groups()),
    |c| format!("{:?}", c.get_added_group_names()),
    |c| format!("{:?}", c.get_login_env()),
    |c| format!("{:?}", c.get_scheduling()),
    |c| format!("{:?}", c.get_io_priority()),
    |c| format!("{:?}", c.get_namespaces().collect::<Vec<_>>()),
    |c| format!("{:?}", c.get_mount_proc()),
];

/// A command with every setting.
fn full() -> Command {
    let set = SignalSet::EMPTY.with(Signal::USR1);
    Command::new("a")
        .arg0("b")
        .arg("c")
        .env_clear()
        .env("d", "e")
        .current_dir("/f")
        .chroot("/g")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::stdout())
        .umask(0o77)
        .user("h")
        .uid(1)
        .gid(2)
        .groups(&[3])
        .setsid(true)
        .process_group(4)
        .no_new_privileges(false)
        .signal_mask(set)
        .ignored_signals(set)
        .nice(5)
        .cpu_affinity(&[6])
        .oom_score_adj(7)
        .limit(Resource::Core, 8, 9)
        .controlling_terminal(0)
        .foreground(0)
        .lifetime(Lifetime::BoundOrSignal)
        .parent_death_signal(Signal::TERM)
        .bounding_capabilities(Capabilities::KILL)
        .inheritable_capabilities(Capabilities::KILL)
        .ambient_capabilities(Capabilities::KILL)
        .listen_fd(Stdio::null())
        .env_keep(["PATH"])
        .group("i")
        .group_names(["j"])
        .add_groups(&[10])
        .add_group_names(["k"])
        .login_env(true)
        .scheduling(Scheduling::Idle)
        .io_priority(IoPriority::Idle)
        .unshare(Namespace::Uts)
        .mount_proc(true)
}

#[test]
fn every_setting_can_be_read_back() {
    let (full, plain) = (full(), Command::new("a"));
    for (number, get) in GETTERS.iter().enumerate() {
        assert_ne!(get(&full), get(&plain), "getter {number}");
    }
    assert_eq!(full.get_fds().collect::<Vec<_>>(), [(3, &Stdio::null())]);
    assert_eq!(full.get_limits().collect::<Vec<_>>(), [(Resource::Core, 8, 9)]);
    assert_eq!(
        full.get_envs().collect::<Vec<_>>(),
        [(OsStr::new("d"), Some(OsStr::new("e")))]
    );
    let inherits = Command::new("a").inherit_process_group();
    assert_eq!(
        (inherits.get_inherit_process_group(), inherits.get_process_group()),
        (true, None)
    );
    assert!(!plain.get_inherit_process_group() && !full.get_inherit_process_group());
    let directory = std::sync::Arc::new(std::os::fd::OwnedFd::from(fs::File::open("/").unwrap()));
    assert!(Command::new("a").get_cgroup().is_none() && Command::new("a").cgroup(directory).get_cgroup().is_some());
}
