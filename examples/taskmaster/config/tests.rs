//! Tests of whole configurations.

use std::process::Command;
use std::time::Duration;

use pidherd::signal::Signal;

use super::users::Accounts;
use super::*;

pub(super) fn world() -> Arc<World> {
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
        ..World::default()
    })
}

pub(super) fn config(text: &str) -> Config {
    parse(text, &world()).unwrap()
}

fn program(text: &str) -> Arc<Program> {
    config(&format!("[program:web]\n{text}"))
        .groups
        .remove(0)
        .programs
        .remove(0)
}

pub(super) fn problems(text: &str) -> Vec<String> {
    parse(text, &world())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Every text of at most `longest` symbols of an alphabet.
pub(super) fn every_text(alphabet: &str, longest: usize) -> Vec<String> {
    let mut texts = vec![String::new()];
    for length in 0..longest {
        let longer = texts.iter().filter(|text| text.chars().count() == length);
        let longer = longer.flat_map(|text| alphabet.chars().map(move |symbol| format!("{text}{symbol}")));
        texts.extend(longer.collect::<Vec<_>>());
    }
    texts
}

/// Python's result for each text: a list of strings, or `None` for a ValueError. Without Python the whole result is
/// `None`, and the test reports that it is skipped.
pub(super) fn asked_of_python(name: &str, expression: &str, texts: &[String]) -> Option<Vec<Option<Vec<String>>>> {
    let script = format!(
        "import json, shlex, sys\n\
         def lexer(text):\n    made = shlex.shlex(text)\n    made.wordchars += '/.+-():'\n    return made\n\
         for text in sys.stdin.buffer.read().decode().split('\\0')[:-1]:\n    try: print(json.dumps({expression}))\n    \
         except ValueError: print('null')\n"
    );
    let input = std::env::temp_dir().join(format!("taskmaster-{name}-{}", std::process::id()));
    let joined: String = texts.iter().map(|text| format!("{text}\0")).collect();
    std::fs::write(&input, joined).unwrap();
    let python = Command::new("python3")
        .args(["-c", &script])
        .stdin(std::fs::File::open(&input).unwrap())
        .output();
    std::fs::remove_file(&input).unwrap();
    let Ok(output) = python else {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {name} are not compared with shlex: there is no python3"
        );
        return None;
    };
    let answers = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(answers.lines().count(), texts.len(), "{complaint}");
    Some(
        answers
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
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
fn every_key_is_parsed() {
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
    assert_eq!(second.stderr, Log::Discard, "it is redirected");
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
        "stopwaitsecs=1.5",
        "numprocs=many",
        "numprocs=100001",
        "numprocs_start=99999999999",
        "autostart=perhaps",
        "autorestart=sometimes",
        "exitcodes=0,300",
        "exitcodes=zero",
        "stopsignal=SIGNOPE",
        "stopsignal=0",
        "stopasgroup=x",
        "killasgroup=x",
        "user=no-such-user",
        "umask=999",
        "redirect_stderr=2",
        "priority=first",
        "process_name=a b",
        "process_name=%(nope)s",
        "directory=%(ENV_NOPE)s",
        "directory=~no-such-user/x",
        "stdout_logfile=%",
        "stdout_logfile=100%%",
        "stdout_logfile=syslog",
        "stderr_logfile=/dev/fd/7",
        "stdout_syslog=true",
        "stderr_syslog=perhaps",
        "no_new_privs=x",
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
fn all_problems_are_reported_together() {
    let found = problems("[program:a]\ncommand=a\nstartsecs=x\numask=x\n[program:b]\n[program:c d]\ncommand=c\n");
    assert_eq!(
        found,
        [
            "[program:a] startsecs=\"x\": expected a whole number",
            "[program:a] umask=\"x\": expected an octal number from 0 to 777",
            "[program:b]: command=... is missing",
            "[program:c d]: \"c d\" can't be a name: no spaces, colons, slashes",
        ]
    );
}

#[test]
fn names_that_would_collide_are_refused() {
    for (text, word) in [
        ("[program:a]\ncommand=a\nnumprocs=2\n", "process_num"),
        (
            "[program:a]\ncommand=a\nnumprocs=2\nprocess_name=%%(process_num)s\n",
            "two of its processes",
        ),
        (
            "[program:a]\ncommand=a\nprocess_name=x%(process_num)d\nnumprocs=2\n\
             [program:b]\ncommand=b\nprocess_name=x1\n[group:g]\nprograms=a,b\n",
            "some of its processes",
        ),
        ("[program:*]\ncommand=a\n", "several processes"),
        ("[program:]\ncommand=a\n", "missing"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
    }
    let text = "[program:a]\ncommand=a\nprocess_name=%(process_num)s0%%\nnumprocs=2\n";
    assert_eq!(config(text).groups[0].programs[0].names(), ["00%", "10%"]);
}

/// The processes of all groups, as `group:process`, in start order.
fn processes(config: &Config) -> Vec<String> {
    let of = |group: &Group| {
        let programs = group.programs.iter().map(|program| program.names());
        let names: Vec<String> = programs
            .flatten()
            .map(|name| format!("{}:{name}", group.name))
            .collect();
        if names.is_empty() {
            vec![format!("{}:", group.name)]
        } else {
            names
        }
    };
    config.groups.iter().flat_map(of).collect()
}

const A_AND_B: &str = "[program:a]\ncommand=a\n[program:b]\ncommand=b\n";

#[test]
fn groups_have_supervisords_meaning() {
    for (text, expected) in [
        ("[group:g]\nprograms=a\n", &["b:b", "g:a"][..]),
        (
            "[group:g]\nprograms=a\n[group:h]\nprograms=a,b\n",
            &["g:a", "h:a", "h:b"],
        ),
        ("[group:g]\nprograms=a,a\n", &["b:b", "g:a"]),
        ("[group:g]\nprograms=\n", &["a:a", "b:b", "g:"]),
        ("[group:g]\n", &["a:a", "b:b", "g:"]),
        ("[group:g]\nprograms=a\n[group:g]\nprograms=b\n", &["a:a", "g:b"]),
        // Of two groups with one name, the first in the order of priorities counts.
        ("[group:a]\nprograms=b\n", &["a:b"]),
        ("[group:a]\nprograms=b\npriority=1000\n", &["a:a"]),
        // Of two processes with one name, the last one counts.
        (
            "[group:g]\nprograms=a,b\n[program:a]\nprocess_name=x\n[program:b]\nprocess_name=x\n",
            &["g:x"],
        ),
        ("[program:a]\nnumprocs=0\n", &["a:", "b:b"]),
        ("[program:a]\nnumprocs=-3\n", &["a:", "b:b"]),
        (
            "[program:a]\nnumprocs_start=-1\nprocess_name=x%(process_num)d\nnumprocs=2\n",
            &["a:x-1", "a:x0", "b:b"],
        ),
        ("[program:all]\ncommand=c\n", &["a:a", "all:all", "b:b"]),
    ] {
        assert_eq!(processes(&config(&format!("{A_AND_B}{text}"))), expected, "{text}");
    }
    let text = "[group:g]\nprograms=b,a\n[program:a]\nprocess_name=x\n[program:b]\nprocess_name=x\n";
    let config = config(&format!("{A_AND_B}{text}"));
    assert_eq!(config.groups[0].programs[0].name, "a");
    let not_run = "[program:b]: not run, because its processes have the names of others in [group:g]";
    assert!(config.notes.iter().any(|note| note == not_run), "{:?}", config.notes);
}

#[test]
fn a_group_must_name_existing_programs() {
    for (text, word) in [
        ("[group:g]\nprograms=a\n", "no [program:a]"),
        ("[group:g]\nprograms=b,c d\n[program:b]\ncommand=b\n", "can't be a name"),
        (
            "[group:g]\nprograms=a\npriority=x\n[program:a]\ncommand=a\n",
            "priority",
        ),
        ("[group:]\nprograms=a\n[program:a]\ncommand=a\n", "missing"),
        (
            "[fcgi-program:f]\ncommand=f\n[group:g]\nprograms=f\n",
            "[fcgi-program:f]: socket=... is missing",
        ),
        (
            "[group:g]\nprograms=f\n[program:f]\ncommand=f\n\
             [fcgi-program:f]\ncommand=f\nsocket=unix:///s\n",
            "f is a [program:f] and an [fcgi-program:f]",
        ),
        (
            "[group:g]\nprograms=a\n[group:h]\nprograms=a\n[program:a]\ncommand=\n",
            "[program:a] command",
        ),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
    }
}

#[test]
fn a_file_without_settings_is_refused() {
    for text in [
        "",
        "\n\n",
        "; nothing\n# at all\n",
        "[foo]\nx=1\n",
        "[supervisorctl]\n",
        "[DEFAULT]\nuser=ann\n",
    ] {
        let found = problems(text);
        assert!(
            found.len() == 1 && found[0].contains("the file has no [supervisord]"),
            "{text}: {found:?}"
        );
    }
    for text in ["[supervisord]\n", "[group:g]\n"] {
        assert_eq!(config(text).notes, Vec::<String>::new());
    }
}

#[test]
fn sections_are_applied_ignored_with_a_note_or_refused() {
    let text = "[supervisord]\n[unix_http_server]\nfile=/tmp/x\n[inet_http_server]\nport=1\n[supervisorctl]\n\
                [rpcinterface:supervisor]\na=b\n[ctlplugin:x]\n[foo]\ncommand=x\n";
    // The plugin and the unknown section have no effect.
    assert_eq!(config(text).notes.len(), 2);
    assert_eq!(config(text).supervisord.servers.len(), 2);
    for section in [
        "programs:a",
        "program a",
        "Program:a",
        "groups:g",
        "event_listener:e",
        "fcgi_program:f",
        "supervisor",
        "includes",
    ] {
        let found = problems(&format!("[program:b]\ncommand=b\n[{section}]\ncommand=a\n"));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("[{section}]: ")),
            "{section}: {found:?}"
        );
    }
}

#[test]
fn defaults_apply_to_all_sections() {
    let config =
        config("[DEFAULT]\nuser=ann\npriority=7\n[supervisord]\n[program:a]\ncommand=a\npriority=8\n[group:g]\n");
    assert_eq!(config.supervisord.user.as_ref().map(|user| user.uid), Some(1000));
    let priorities: Vec<(&str, i32)> = config
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.priority))
        .collect();
    assert_eq!(priorities, [("g", 7), ("a", 8)]);
    assert!(config.groups[1].programs[0].user.is_some());
}

#[test]
fn no_message_contains_a_possible_password() {
    for text in [
        "[program:a]\ncommand=a\nenvironment=hunter2\n",
        "[program:a]\ncommand=a\nenvironment=A=\"hunter2\n",
        "[program:a]\ncommand=a\nenvironment=A=%(hunter2)s\n",
        "[program:a]\ncommand=a\nenvironment=A=\"50% hunter2\"\n",
        "[program:a]\ncommand=a\nenvironment=A=\"hunter2\0\"\n",
        "[program:a]\ncommand=a\nserverurl=http://user:hunter2@\0\n",
        "[supervisord]\nenvironment=A=hunter2,hunter2\n",
        "[supervisord]\nenvironment=A=\"%%(hunter2)s\"\n",
        "[program:a]\ncommand=a\nenvironment=A=1,\nhunter2\n",
        "hunter2\n",
    ] {
        let found = problems(text);
        assert!(
            !found.is_empty() && found.iter().all(|line| !line.contains("hunter2")),
            "{text}: {found:?}"
        );
    }
    assert_eq!(
        problems("[program:a]\ncommand=a\nenvironment=A=%(ENV_NOPE)s\n"),
        ["[program:a] environment: %(ENV_NOPE)s: the environment has no NOPE"]
    );
}

#[test]
fn a_setting_without_effect_gets_a_note() {
    let lines = "stdout_logfile_maxbytes=0\nstderr_logfile_backups=3\nstdout_events_enabled=true\n\
                 stderr_capture_maxbytes=0\nstderr_events_enabled=false\nstderr_syslog=false\nserverurl=AUTO\n";
    let config = config(&format!("[program:a]\ncommand=a\n{lines}"));
    assert_eq!(
        config.notes,
        ["[program:a] stdout_events_enabled: ignored, there are no event listeners",]
    );
}

#[test]
fn each_output_has_its_destination() {
    let outputs = |lines: &str| {
        let instance = program(&format!("command=a\n{lines}")).instance(0).unwrap();
        (instance.stdout, instance.stderr)
    };
    let out = Log::Own(Stream::Out);
    assert_eq!(
        outputs("stdout_logfile=NONE\nstderr_logfile=/dev/stdout"),
        (Log::Discard, out.clone())
    );
    assert_eq!(
        outputs("stdout_logfile=/dev/fd/2\nstderr_logfile=/proc/self/fd/1"),
        (Log::Own(Stream::Err), out)
    );
    // The file of a redirected stream is not checked.
    assert_eq!(outputs("redirect_stderr=true\nstderr_logfile=syslog").1, Log::Discard);
    let (stdout, stderr) = outputs("stdout_logfile=AUTO");
    assert!(matches!(stdout, Log::Automatic(path) if path.starts_with(std::env::temp_dir())));
    assert_eq!(stderr, Log::Discard);
    let config = config("[supervisord]\nchildlogdir=/tmp\n[program:a]\ncommand=a\nstderr_logfile=off\n");
    let instance = config.groups[0].programs[0].instance(0).unwrap();
    assert!(matches!(instance.stdout, Log::Automatic(path) if path.starts_with("/tmp/")));
    assert_eq!(instance.stderr, Log::Discard);
}

#[test]
fn each_log_has_its_rotation() {
    let web = program("command=a\nstdout_logfile=/x\nstdout_logfile_maxbytes=1KB\nstderr_logfile_backups=3\n");
    let [out, err] = web.rotations;
    assert_eq!((out.maxbytes, out.backups), (1024, 10));
    assert_eq!((err.maxbytes, err.backups), (50 << 20, 3));
    let target = web.sink(0, Channel::Out).and_then(|sink| sink.file).unwrap();
    assert_eq!((target.path, target.rotation, target.strip), ("/x".into(), out, false));
    assert!(web.sink(0, Channel::Err).is_none());
    let found = problems("[program:a]\ncommand=a\nstdout_logfile_maxbytes=much\nstderr_logfile_backups=some\n");
    assert_eq!(found.len(), 2, "{found:?}");
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
fn readiness_and_watchdog_keys_are_checked_together() {
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
fn a_missing_file_is_reported_in_one_line() {
    let errors = load(Path::new("/no/such/file.conf")).unwrap_err();
    assert_eq!(errors, ["cannot read /no/such/file.conf: No such file or directory"]);
}

/// The files in the README between lines that begin and end such a block.
fn examples() -> Vec<&'static str> {
    let blocks = include_str!("../README.md").split("```ini\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_examples_of_the_readme_are_accepted() {
    let examples = examples();
    assert!(examples.len() >= 7);
    for text in examples {
        // The directory need not exist here.
        let problems: Vec<String> = match parse(text, &world()) {
            Ok(config) => config.notes,
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        let others = problems.iter().filter(|problem| !problem.contains(" cgroup="));
        assert_eq!(others.count(), 0, "{text}: {problems:?}");
    }
}

#[test]
fn the_readme_has_an_example_of_each_key_that_supervisord_lacks() {
    let examples = examples().concat();
    for key in super::beyond::keys() {
        let is_it = |line: &str| line.split_once('=').is_some_and(|(name, _)| name == key);
        assert!(examples.lines().any(is_it), "{key}");
    }
}

#[test]
fn programs_come_after_others() {
    let text = "[program:web]\ncommand=web\nrequires=db\nafter=tools:cache,jobs\n[program:db]\ncommand=db\n\
        [group:tools]\nprograms=cache\n[program:cache]\ncommand=cache\n[program:job]\ncommand=job\n\
        [group:jobs]\nprograms=job\n";
    let config = config(text);
    let programs: Vec<_> = config.groups.iter().flat_map(|group| group.programs.clone()).collect();
    let names: Vec<String> = sorted(programs, |program| program)
        .iter()
        .map(|program| program.name.clone())
        .collect();
    let at = |name: &str| names.iter().position(|other| other == name).unwrap();
    assert!(
        ["db", "cache", "job"].iter().all(|name| at(name) < at("web")),
        "{names:?}"
    );
}

#[test]
fn an_impossible_order_is_a_mistake() {
    let program = |name: &str, keys: &str| format!("[program:{name}]\ncommand=true\n{keys}\n");
    for (text, word) in [
        (program("a", "after=b"), "there is no program and no group b"),
        (program("a", "requires=a"), "means the program itself"),
        (
            program("a", "requires=b") + &program("b", "numprocs=0"),
            "would never be running",
        ),
        (
            program("a", "after=b") + &program("b", "requires=c") + &program("c", "after=a"),
            "comes after",
        ),
        (program("a", "after=b c"), "can't be a name"),
    ] {
        let problems = problems(&text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(word), "{problems:?}");
    }
}

#[test]
fn keys_that_need_another_key_are_refused_without_it() {
    for (keys, word) in [
        ("memory.max=1GB", "needs cgroup"),
        ("runsecs_random=5", "needs runsecs"),
        ("watchdog_stopsignal=ABRT", "needs watchdogsecs"),
        ("rolling_surge=1", "needs rolling"),
        ("before_secs=1", "needs before_command"),
        ("stop_secs=1", "needs stop_command"),
        ("stopsteps=command 1, INT 1", "needs stop_command"),
        ("stop_command=true", "in stopsteps"),
        ("stopsteps=INT 1\nstopsignal=TERM", "cannot be combined"),
        ("readiness=completes\nautorestart=true", "never done"),
    ] {
        let problems = problems(&format!("[program:a]\ncommand=true\n{keys}\n"));
        assert!(
            problems.len() == 1 && problems[0].contains(word),
            "{keys}: {problems:?}"
        );
    }
}

#[test]
fn event_listeners_and_fastcgi_programs_have_keys_of_their_own() {
    let listener = "[eventlistener:e]\ncommand=e\n";
    let fcgi = "[fcgi-program:f]\ncommand=f\n";
    for (text, word) in [
        (listener.to_owned(), "events=... is missing"),
        (format!("{listener}events=\n"), "expected event types"),
        (format!("{listener}events=TICK_7\n"), "no event type TICK_7"),
        (
            format!("{listener}events=TICK_7\n  more\n"),
            "no event type TICK_7\\nMORE",
        ),
        (format!("{listener}events=TICK_5\nbuffer_size=0\n"), "buffer_size"),
        (format!("{listener}events=TICK_5\nredirect_stderr=true\n"), "protocol"),
        (
            format!("{listener}events=TICK_5\nresult_handler=my:handler\n"),
            "built in",
        ),
        (
            format!("{listener}events=TICK_5\nstdin=pipe\n"),
            "standard input of its own",
        ),
        (
            format!("{listener}events=TICK_5\nstdout_logfile=/dev/stdout\n"),
            "file or NONE",
        ),
        (format!("{fcgi}socket=unix://relative\n"), "absolute"),
        (
            format!("{fcgi}socket=tcp://example.org:80\n"),
            "IPv4 address or localhost",
        ),
        (
            format!("{fcgi}socket=tcp://127.0.0.1:80\nsocket_mode=0700\n"),
            "socket in the file system",
        ),
        (format!("{fcgi}socket=unix:///s\nsocket_backlog=0\n"), "1 to 65535"),
        (
            format!("{fcgi}socket=unix:///s\nsocket_owner=nobody-here\n"),
            "no such user",
        ),
    ] {
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
    }
    let config = config(&format!(
        "{listener}events=EVENT\n{fcgi}socket=unix:///run/%(program_name)s\nuser=ann\n"
    ));
    let first = &config.groups[0];
    assert_eq!((first.name.as_str(), first.priority, config.notes.len()), ("e", -1, 0));
    let place = FcgiPlace::Unix {
        path: "/run/f".into(),
        mode: 0o700,
        owner: (Some(1000), Some(100)),
    };
    let socket = FcgiSocket { place, backlog: None };
    assert_eq!(config.groups[1].programs[0].role, Role::FastCgi(socket));
}
