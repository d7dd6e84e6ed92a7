//! Whole configurations.

use super::*;
use pidherd::signal::Signal;
use std::time::Duration;

fn world() -> Arc<World> {
    let environment = [("HOME", "/home/me"), ("COLOUR", "green"), ("OFTEN", "false")];
    Arc::new(World {
        here: "/etc/herd".to_owned(),
        host: "box".to_owned(),
        environment: environment
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        accounts: Accounts {
            passwd: "ann:x:1000:100::/home/ann:/bin/sh\n".to_owned(),
            group: String::new(),
        },
    })
}

fn config(text: &str) -> Config {
    parse(text, &world()).unwrap()
}

fn program(text: &str) -> Arc<Program> {
    config(&format!("[program:web]\n{text}"))
        .groups
        .remove(0)
        .programs
        .remove(0)
}

fn problems(text: &str) -> Vec<String> {
    parse(text, &world())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn the_defaults_are_those_of_supervisord() {
    let web = program("command=/bin/true");
    assert_eq!((web.startsecs, web.startretries), (Duration::from_secs(1), 3));
    assert_eq!(
        (web.autostart, web.autorestart, web.exitcodes.as_slice()),
        (true, AutoRestart::Unexpected, &[0][..])
    );
    assert_eq!(
        (web.stopsignal, web.stopwaitsecs),
        (Signal::TERM, Duration::from_secs(10))
    );
    assert_eq!((web.numprocs, web.priority), (1, 999));
    assert!(!web.stopasgroup && !web.killasgroup && !web.redirect_stderr);
    assert_eq!((&web.user, web.umask), (&None, None));
    let expected = Instance {
        name: "web".to_owned(),
        argv: words(&["/bin/true"]),
        environment: Vec::new(),
        directory: None,
        stdout: Log::Discard,
        stderr: Log::Discard,
    };
    assert_eq!(web.instance(0), Ok(expected));
}

#[test]
fn every_key_is_understood() {
    let web = program(
        "command=/bin/sh -c \"exec sleep %(process_num)d\"\nprocess_name=%(program_name)s_%(process_num)02d\n\
         numprocs=2\nnumprocs_start=8\nautostart=false\nstartsecs=5\nstartretries=0\nautorestart=true\n\
         exitcodes=0,2\nstopsignal=QUIT\nstopwaitsecs=3\nstopasgroup=true\nuser=ann\ndirectory=~ann/%(program_name)s\n\
         umask=027\nenvironment=PORT=\"80%(process_num)d\",HOST=%(host_node_name)s\nredirect_stderr=true\n\
         stdout_logfile=%(here)s/%(ENV_PORT)s.log\nstderr_logfile=/dev/stderr\npriority=-3",
    );
    assert_eq!(
        (web.numprocs, web.autostart, web.startsecs),
        (2, false, Duration::from_secs(5))
    );
    assert_eq!((web.startretries, web.autorestart), (0, AutoRestart::Always));
    assert_eq!((web.exitcodes.as_slice(), web.stopsignal), (&[0, 2][..], Signal::QUIT));
    assert_eq!(
        (web.stopwaitsecs, web.stopasgroup, web.killasgroup),
        (Duration::from_secs(3), true, true)
    );
    assert_eq!(web.user.as_ref().map(|user| (user.uid, user.gid)), Some((1000, 100)));
    assert_eq!((web.umask, web.redirect_stderr, web.priority), (Some(0o027), true, -3));
    let second = web.instance(1).unwrap();
    assert_eq!(second.name, "web_09");
    assert_eq!(second.argv, words(&["/bin/sh", "-c", "exec sleep 9"]));
    assert_eq!(
        second.environment,
        [("PORT", "809"), ("HOST", "box")].map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
    assert_eq!(second.directory, Some("/home/ann/web".into()));
    assert_eq!(second.stdout, Log::File("/etc/herd/809.log".into()));
    assert_eq!(second.stderr, Log::Inherit);
    assert_eq!(web.names(), words(&["web_08", "web_09"]));
    assert_eq!(web.process_name(5), Ok("web_13".to_owned()));
}

#[test]
fn programs_outside_groups_are_groups() {
    let config = config(
        "[program:b]\ncommand=b\n[program:a]\ncommand=a\n[program:c]\ncommand=c\npriority=1\n\
         [group:g]\nprograms=b,c\npriority=5\n[x-timeline]\n3.0=stop a\n[program:d]\ncommand=d\ncolour=red\n",
    );
    let shape: Vec<(&str, Vec<&str>)> = config
        .groups
        .iter()
        .map(|group| {
            (
                group.name.as_str(),
                group.programs.iter().map(|program| program.name.as_str()).collect(),
            )
        })
        .collect();
    assert_eq!(shape, [("g", vec!["c", "b"]), ("a", vec!["a"]), ("d", vec!["d"])]);
    assert_eq!(config.groups[0].programs[1].group, "g");
    assert_eq!(
        config.notes,
        [
            "[x-timeline]: unknown section, ignored",
            "[program:d] colour: unknown key, ignored"
        ]
    );
}

#[test]
fn a_bad_value_names_section_key_and_value() {
    for line in [
        "startsecs=soon",
        "startsecs=-1",
        "startretries=-1",
        "stopwaitsecs=1.5",
        "numprocs=0",
        "numprocs=-2",
        "numprocs=many",
        "numprocs_start=-1",
        "numprocs_start=4294967295",
        "autostart=perhaps",
        "autorestart=sometimes",
        "exitcodes=0,300",
        "exitcodes=zero",
        "stopsignal=SIGNOPE",
        "stopsignal=0",
        "stopasgroup=x",
        "killasgroup=x",
        "user=nobody-here",
        "umask=999",
        "environment=A",
        "environment==x",
        "redirect_stderr=2",
        "priority=first",
        "process_name=a b",
        "process_name=%(nope)s",
        "directory=%(ENV_NOPE)s",
        "directory=~nobody-here/x",
        "stdout_logfile=%",
        "readiness=maybe",
        "readiness=fd:0",
        "readysecs=0",
        "readysecs=x",
        "watchdogsecs=-1",
        "watchdogsecs=3",
        "cgroup=relative",
        "cgroup=/no/such/cgroup",
        "cgroup=/",
        "stderr_logfile=a\0b",
    ] {
        let (key, value) = line.split_once('=').unwrap();
        let found = problems(&format!("[program:web]\ncommand=/bin/true\n{line}\n"));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        let place = format!("[program:web] {key}={value:?}: ");
        assert!(found[0].starts_with(&place), "{line}: {found:?}");
    }
    for command in ["", "''", "'open", "%(x", "a\0b"] {
        let found = problems(&format!("[program:web]\ncommand={command}\n"));
        assert_eq!(found.len(), 1, "{command}: {found:?}");
        assert!(found[0].starts_with("[program:web] command="), "{command}: {found:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problems("[program:a]\ncommand=a\nstartsecs=x\numask=x\n[program:b]\n[program:c d]\ncommand=c\n");
    assert_eq!(
        found,
        [
            "[program:a] startsecs=\"x\": expected a whole number",
            "[program:a] umask=\"x\": expected an octal number from 0 to 777",
            "[program:b]: command=... is missing",
            "[program:c d]: \"c d\" can't be a name: no spaces, colons, slashes, brackets",
        ]
    );
}

#[test]
fn names_that_would_collide_are_refused() {
    for (text, word) in [
        ("[program:a]\ncommand=a\nnumprocs=2\n", "process_num"),
        (
            "[program:a]\ncommand=a\nprocess_name=%(process_num)s0%%\nnumprocs=2\n",
            "",
        ),
        ("[program:a]\ncommand=a\n[program:a]\ncommand=b\n", "twice"),
        (
            "[program:a]\ncommand=a\n[group:a]\nprograms=b\n[program:b]\ncommand=b\n",
            "same name",
        ),
        (
            "[program:a]\ncommand=a\nprocess_name=x\n[program:b]\ncommand=b\nprocess_name=x\n[group:g]\nprograms=a,b\n",
            "two processes",
        ),
        ("[program:all]\ncommand=a\n", "more than one"),
        ("[program:]\ncommand=a\n", "missing"),
    ] {
        if word.is_empty() {
            assert_eq!(config(text).groups[0].programs[0].names(), ["00%", "10%"]);
            continue;
        }
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
    }
}

#[test]
fn groups_name_programs_that_exist_and_are_free() {
    for (text, word) in [
        ("[group:g]\nprograms=a\n", "no [program:a]"),
        ("[group:g]\n", "missing"),
        ("[group:g]\nprograms=\n", "at least one"),
        (
            "[group:g]\nprograms=a\npriority=x\n[program:a]\ncommand=a\n",
            "priority",
        ),
        (
            "[group:g]\nprograms=a\n[group:h]\nprograms=a\n[program:a]\ncommand=a\n",
            "already",
        ),
        ("[group:g]\nprograms=a,a\n[program:a]\ncommand=a\n", "already"),
        ("[group:]\nprograms=a\n[program:a]\ncommand=a\n", "missing"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
    }
}

#[test]
fn stopping_as_a_group_kills_as_a_group() {
    assert!(program("command=a\nstopasgroup=true").killasgroup);
    assert!(program("command=a\nkillasgroup=true").killasgroup);
    assert!(!program("command=a\nkillasgroup=true").stopasgroup);
    let found = problems("[program:a]\ncommand=a\nstopasgroup=true\nkillasgroup=false\n");
    assert!(found[0].contains("killasgroup=\"false\""), "{found:?}");
}

#[test]
fn the_environment_expands_in_any_value() {
    let web = program("command=paint %(ENV_COLOUR)s %(ENV_SHADE)s\nenvironment=SHADE=dark\nautorestart=%(ENV_OFTEN)s");
    assert_eq!(web.instance(0).unwrap().argv, words(&["paint", "green", "dark"]));
    assert_eq!(web.autorestart, AutoRestart::Never);
}

#[test]
fn readiness_and_watchdogs() {
    let beyond = |text: &str| program(&format!("command=a\n{text}")).beyond.clone();
    let default = beyond("");
    assert_eq!((default.readiness, default.watchdogsecs), (Readiness::Grace, None));
    assert_eq!(default.readysecs, Duration::from_secs(60));
    assert_eq!(default.cgroup, None);
    let notify = beyond("readiness=notify\nreadysecs=5\nwatchdogsecs=7\n");
    assert_eq!(notify.readiness, Readiness::Notify);
    assert_eq!(
        (notify.readysecs, notify.watchdogsecs),
        (Duration::from_secs(5), Some(Duration::from_secs(7)))
    );
    assert_eq!(beyond("readiness=fd:3\nwatchdogsecs=0").watchdogsecs, None);
    let found = problems("[program:a]\ncommand=a\nreadiness=fd:3\nwatchdogsecs=2\n");
    assert_eq!(
        found,
        ["[program:a] watchdogsecs=\"2\": a watchdog needs readiness=notify"]
    );
    let found = problems("[program:a]\ncommand=a\nreadiness=x\nwatchdogsecs=2\n");
    assert_eq!(found.len(), 1, "{found:?}");
    let idle = config("[program:a]\ncommand=a\nreadysecs=5\n");
    assert_eq!(idle.notes.len(), 1);
}

#[test]
fn a_file_that_is_not_there_is_one_clear_line() {
    let errors = load(Path::new("/no/such/file.conf")).unwrap_err();
    assert_eq!(errors, ["cannot read /no/such/file.conf: No such file or directory"]);
}
