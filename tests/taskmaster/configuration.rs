//! Tests of the configuration and the command line: mistakes are refused before any start, and valid settings reach
//! the processes.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use crate::driver::{Dir, Taskmaster, aloud, binary, fifo, refused, run_to_end};

#[test]
fn a_bad_value_names_section_key_and_value_and_starts_nothing() {
    for line in [
        "startsecs=soon",
        "stopsignal=SIGNOPE",
        "numprocs=100001",
        "stdout_logfile=syslog",
        "stderr_syslog=true",
        "stdout_logfile=/dev/fd/9",
        "no_new_privs=maybe",
        "umask=9",
        "user=no-such-user",
        "exitcodes=256",
        "readiness=eventually",
        "readiness=fd:2",
        "readysecs=0",
        "watchdogsecs=5",
        "cgroup=relative",
        "lifetime=forever",
    ] {
        let (key, value) = line.split_once('=').unwrap();
        let errors = refused(&format!("[program:web]\ncommand=true\n{line}\n"));
        assert_eq!(errors.lines().count(), 1, "{errors}");
        for part in ["herd.conf", "[program:web]", key, value] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let errors = refused("[program:web]\ncommand=\nstartsecs=x\n[group:g]\nprograms=missing\n[program:db]\n");
    for part in [
        "[program:web] startsecs=\"x\"",
        "[group:g] programs=\"missing\"",
        "[program:db]: command",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    assert!(refused("[program:a]\ncommand\n").contains("line 4"));
}

#[test]
fn the_command_line_is_checked_first() {
    let dir = Dir::new();
    let config = dir.file("a.conf", "[program:a]\ncommand=sleep 1000\n");
    let binary = dir.path("binary.conf");
    fs::write(&binary, b"[program:a]\ncommand=\xff\n").unwrap();
    let (config, binary, nowhere) = (config.as_os_str(), binary.as_os_str(), dir.path("no/such"));
    let option = OsStr::new;
    for (arguments, word) in [
        (&[option("--frobnicate")][..], "frobnicate"),
        (&[option("--events")], "--events"),
        (&[config, config], "one configuration"),
        (&[nowhere.as_os_str()], "No such file"),
        (&[dir.path("").as_os_str()], "Is a directory"),
        (&[binary], "UTF-8"),
        (
            &[option("--events"), nowhere.as_os_str(), config],
            "cannot write events",
        ),
        (
            &[option("--events"), dir.path("").as_os_str(), config],
            "cannot write events",
        ),
    ] {
        let ended = run_to_end(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert!(
            ended.err.contains(word) && ended.out.is_empty(),
            "{arguments:?}: {}",
            ended.err
        );
    }
    let help = run_to_end(&[option("--help")]);
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(
        help.out
            .starts_with("usage: taskmaster [--events FILE] [--state FILE] [CONFIG]\n")
    );
}

#[test]
fn settings_without_effect_on_programs_are_noted_and_ignored() {
    let mut herd = Taskmaster::start(
        "[supervisord]\nlogfile=/dev/stdout\nfrobnicate=1\n[ctlplugin:x]\nx=y\n[foo]\n\
         [program:a]\ncommand=sleep 1000\ncolour=red\nstartsecs=0\n",
    );
    for line in [
        "[ctlplugin:x]: ignored, there are no plugins",
        "[foo]: unknown section, ignored",
        "[supervisord] frobnicate: unknown key, ignored",
        "[supervisord] logfile: the log is on standard error",
        "[program:a] colour: unknown key, ignored",
    ] {
        herd.complaint(line);
    }
    herd.reached("a:a", "RUNNING");
    herd.shut_down();
}

#[test]
fn an_unsupported_section_is_refused() {
    for (text, word) in [
        ("[programs:web]\ncommand=true\n", "write [program:NAME]"),
        ("[program web]\ncommand=true\n", "write [program:NAME]"),
        ("[Group:g]\nprograms=healthy\n", "write [group:NAME]"),
        ("[fcgi-program:f]\ncommand=true\n", "socket=... is missing"),
        (
            "[fcgi-program:f]\ncommand=true\nsocket=unix:///no/such/directory/s\n",
            "cannot create the socket",
        ),
        ("[eventlistener:e]\ncommand=true\n", "events=... is missing"),
        ("[supervisord]\nstrip_ansi=perhaps\n", "strip_ansi"),
        ("[supervisord]\nuser=no-such-user\n", "no such user"),
        ("[supervisor]\nuser=nobody\n", "write [supervisord]"),
    ] {
        let errors = refused(text);
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(word), "{word} in {errors}");
    }
}

#[test]
fn a_file_without_settings_is_refused() {
    for text in [
        "",
        "\n \n",
        "; a comment\n# and another\n",
        "[foo]\nx=y\n",
        "[unix_http_server]\nfile=/x\n",
    ] {
        let dir = Dir::new();
        let file = dir.file("herd.conf", text);
        let ended = run_to_end(&[file.as_os_str()]);
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(2), ""),
            "{text:?}: {}",
            ended.err
        );
        assert!(
            ended.err.contains("the file has no [supervisord]"),
            "{text:?}: {}",
            ended.err
        );
    }
}

#[test]
fn an_emptied_file_stops_no_program() {
    let mut herd = Taskmaster::start("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    let pid = herd.reached("a:a", "RUNNING").pid;
    for text in ["", "# all gone\n", "[foo]\n"] {
        fs::write(herd.dir.path("herd.conf"), text).unwrap();
        let answer = herd.ask("reload");
        assert!(
            answer.starts_with("error: nothing is changed: ") && answer.contains("the file has no [supervisord]"),
            "{answer}"
        );
    }
    herd.signal(rustix::process::Signal::HUP);
    herd.complaint("the file has no [supervisord]");
    herd.complaint("nothing is changed");
    assert!(herd.ask("status a").contains(&format!(" pid {},", pid.unwrap())));
    // An explicit configuration without programs is accepted.
    fs::write(herd.dir.path("herd.conf"), "[supervisord]\n").unwrap();
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 1 removed, 0 changed, 0 unchanged"
    );
    herd.shut_down();
}

#[test]
fn a_mistake_in_an_environment_is_reported_without_its_values() {
    for line in [
        "environment=hunter2",
        "environment=PASSWORD=\"hunter2",
        "environment=PASSWORD=%(hunter2)s",
        "environment=PASSWORD=hunter2 A=hunter2",
        "environment=A=1,\nhunter2",
    ] {
        for section in ["program:web", "supervisord"] {
            let errors = refused(&format!("[{section}]\ncommand=true\n{line}\n"));
            assert!(!errors.contains("hunter2"), "{errors}");
            assert!(
                errors.contains(&format!("[{section}] environment: ")) || errors.contains("line "),
                "{errors}"
            );
        }
    }
    let mut herd = Taskmaster::start("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
    herd.reached("a:a", "RUNNING");
    let text = "[program:a]\ncommand=sleep 1000\nenvironment=PASSWORD=\"hunter2\n";
    fs::write(herd.dir.path("herd.conf"), text).unwrap();
    let answer = herd.ask("reload");
    assert!(
        answer.starts_with("error: ") && answer.contains("a quote is not closed"),
        "{answer}"
    );
    assert!(!herd.transcript().contains("hunter2"), "{}", herd.transcript());
    herd.shut_down();
}

#[test]
fn a_command_is_split_as_supervisord_splits_it() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        "[program:a]\nstdout_logfile=/dev/stdout\nstartsecs=0\nautorestart=false\n\
         command=sh -c 'printf \"[%%s]\" \"$@\"; echo' x --colour %(ENV_COLOUR)s --port 80 \"\\$HOME \\`id\\` \\\"q\\\"\" a\\ b '' x#end ; a comment\n",
    );
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]).env("COLOUR", "#fff");
    let mut herd = Taskmaster::run(dir, command);
    assert_eq!(
        herd.answer(),
        r#"[--colour][#fff][--port][80][\$HOME \`id\` "q"][a b][][x#end]"#
    );
    herd.reached("a:a", "EXITED");
    herd.shut_down();
}

#[test]
fn repeated_sections_are_merged() {
    let mut herd = Taskmaster::start(
        "[program:a]\ncommand=sleep 1000\nstartsecs=60\n[program:b]\ncommand=sleep 1000\nstartsecs=0\n\
         [program:a]\nstartsecs=0\n",
    );
    herd.complaint("[program:a]: this section occurs twice");
    herd.reached("a:a", "RUNNING");
    herd.reached("b:b", "RUNNING");
    herd.shut_down();
}

#[test]
fn a_program_runs_in_each_of_its_groups() {
    let a = "[program:a]\ncommand=sleep 1000\nstartsecs=0\nprocess_name=a%(process_num)d\n";
    let mut herd = Taskmaster::start(&format!(
        "{a}[group:g]\nprograms=a\n[group:h]\nprograms=a,a\n[group:empty]\nprograms=\n[group:none]\n"
    ));
    let first = herd.reached("g:a0", "RUNNING").pid;
    assert_ne!(first, herd.reached("h:a0", "RUNNING").pid);
    assert_eq!(herd.ask("stop h:*"), "ok: stop h:*: accepted");
    herd.reached("h:a0", "STOPPED");
    assert!(herd.ask("status g:a0").contains(&format!(" pid {},", first.unwrap())));
    for group in ["empty", "none"] {
        assert_eq!(
            herd.ask(&format!("start {group}:*")),
            format!("ok: start {group}:*: no processes")
        );
    }
    assert!(
        herd.ask("scale a 2")
            .starts_with("error: the program \"a\" is in several groups")
    );
    assert_eq!(herd.ask("scale g:a 2"), "ok: scale g:a: from 1 to 2");
    herd.reached("g:a1", "RUNNING");
    herd.shut_down();
}

#[test]
fn numbers_below_zero_mean_none() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        "[program:none]\ncommand=sleep 1000\nprocess_name=n%(process_num)d\nnumprocs=%(ENV_COUNT)s\nstartsecs=-1\n\
         [program:less]\ncommand=sleep 1000\nnumprocs=-4\n\
         [program:crash]\ncommand=sh -c \"exit 3\"\nstartretries=-1\n\
         [program:short]\ncommand=true\nstartsecs=-1\n",
    );
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]).env("COUNT", "0");
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("crash:crash", "FATAL");
    assert_eq!(herd.states("crash:crash"), ["STARTING", "BACKOFF", "FATAL"]);
    herd.reached("short:short", "EXITED");
    assert_eq!(herd.status(2).len(), 2);
    assert_eq!(herd.ask("start none:*"), "ok: start none:*: no processes");
    let text = "[program:none]\ncommand=sleep 1000\nnumprocs=1\nstartsecs=0\n";
    fs::write(herd.dir.path("herd.conf"), text).unwrap();
    assert!(herd.ask("reload").starts_with("ok: reload: 1 added, 2 removed"));
    herd.reached("none:none", "RUNNING");
    herd.shut_down();
}

#[test]
fn settings_reach_the_process() {
    let mut herd = Taskmaster::start(
        "[program:probe]\n\
         command=sh -c \"pwd; umask; echo $SUPERVISOR_PROCESS_NAME $SUPERVISOR_GROUP_NAME $A $B; echo wrong >&2; exit 7\"\n\
         process_name=%(program_name)s_%(process_num)02d\n\
         directory=/\numask=027\nenvironment=A=\"one, two\",B=%(process_num)d\n\
         stdout_logfile=%(here)s/%(program_name)s.%(process_num)d.log\nredirect_stderr=true\n\
         numprocs=2\nnumprocs_start=4\nstartsecs=0\nautorestart=unexpected\nexitcodes=0,7\n",
    );
    for number in [4, 5] {
        let ended = herd.reached(&format!("probe:probe_{number:02}"), "EXITED");
        assert_eq!(ended.cause, "exited with code 7, as expected");
        let log = fs::read_to_string(herd.dir.path(&format!("probe.{number}.log"))).unwrap();
        assert_eq!(
            log,
            format!("/\n0027\nprobe_{number:02} probe one, two {number}\nwrong\n")
        );
    }
    assert_eq!(
        herd.ask("restart probe:probe_04"),
        "ok: restart probe:probe_04: accepted"
    );
    herd.reached("probe:probe_04", "EXITED");
    let log = fs::read_to_string(herd.dir.path("probe.4.log")).unwrap();
    assert_eq!(log.lines().count(), 8, "logs are appended to");
    herd.shut_down();
}

#[test]
fn a_program_runs_as_its_user() {
    if !rustix::process::getuid().is_root() {
        return aloud("the test of a program's user needs root");
    }
    let mut herd = Taskmaster::start(
        "[program:ids]\ncommand=sh -c \"id -u; id -g; id -G\"\nuser=nobody\nstdout_logfile=%(here)s/ids.log\nstartsecs=0\n",
    );
    herd.reached("ids:ids", "EXITED");
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let account: Vec<&str> = passwd
        .lines()
        .find(|line| line.starts_with("nobody:"))
        .unwrap()
        .split(':')
        .collect();
    let log = fs::read_to_string(herd.dir.path("ids.log")).unwrap();
    assert_eq!(log, format!("{}\n{}\n{}\n", account[2], account[3], account[3]));
    herd.shut_down();
}

#[test]
fn a_program_of_another_user_may_gain_privileges_unless_told_otherwise() {
    if !rustix::process::getuid().is_root() {
        return aloud("the test of another user's privileges needs root");
    }
    let program = |name: &str, more: &str| {
        let command = "command=sh -c \"grep NoNewPrivs /proc/self/status; echo done; exec sleep 1000\"";
        format!("[program:{name}]\n{command}\nstartsecs=0\nstdout_logfile=/dev/stdout\n{more}\n")
    };
    for (more, expected) in [
        ("user=nobody", "NoNewPrivs:\t0"),
        ("user=nobody\nno_new_privs=true", "NoNewPrivs:\t1"),
        ("no_new_privs=true", "NoNewPrivs:\t1"),
        ("", "NoNewPrivs:\t0"),
    ] {
        let mut herd = Taskmaster::start(&program("a", more));
        assert_eq!(herd.answer(), expected, "{more}");
        assert_eq!(herd.answer(), "done");
        herd.shut_down();
    }
}

#[test]
fn a_failed_spawn_names_the_step_the_path_and_the_reason() {
    let mut herd = Taskmaster::start(
        "[program:place]\ncommand=true\ndirectory=/no/such/place\nstartretries=0\n\
         [program:log]\ncommand=true\nstdout_logfile=/no/such/log\nstartretries=0\n\
         [program:binary]\ncommand=/no/such/binary\nstartretries=0\n\
         [program:forbidden]\ncommand=/etc/passwd\nstartretries=0\n",
    );
    for (name, path, reason) in [
        ("place", "/no/such/place", "ENOENT"),
        ("log", "/no/such/log", "ENOENT"),
        ("binary", "/no/such/binary", "ENOENT"),
        ("forbidden", "/etc/passwd", "EACCES"),
    ] {
        let process = format!("{name}:{name}");
        let cause = herd.reached(&process, "BACKOFF").cause;
        assert!(cause.contains(path) && cause.contains(reason), "{cause}");
        herd.reached(&process, "FATAL");
        let line = herd.ask(&format!("status {name}"));
        assert!(
            line.contains("FATAL") && line.contains(path) && line.contains(reason),
            "{line}"
        );
    }
    herd.shut_down();
}

#[test]
fn stopping_as_a_group_reaches_the_children() {
    let mut herd = Taskmaster::start(
        "[program:family]\ncommand=sh -c \"sleep 1000 & echo ready >&2; wait\"\nstderr_logfile=/dev/stderr\nstopasgroup=true\nstartsecs=0\n",
    );
    herd.complaint("ready");
    assert_eq!(herd.ask("stop family"), "ok: stop family: accepted");
    herd.reached("family:family", "STOPPED");
    herd.shut_down();
}

#[test]
fn a_number_of_processes_with_a_sliding_window_of_names() {
    let mut herd = Taskmaster::start(
        "[program:many]\ncommand=sleep 1000\nprocess_name=%(group_name)s-%(process_num)03d\nnumprocs=100\nstartsecs=0\n",
    );
    for number in 0..100 {
        herd.reached(&format!("many:many-{number:03}"), "RUNNING");
    }
    assert_eq!(
        herd.status(100)
            .last()
            .map(|line| line.starts_with("many:many-099   RUNNING")),
        Some(true)
    );
    herd.shut_down();
}

#[test]
fn a_check_shows_what_would_run_and_starts_nothing() {
    let dir = Dir::new();
    let mark = dir.path("mark");
    let config = format!(
        "[program:a]\ncommand=touch {} \"two words\"\nuser=root\n[program:web]\ncommand=sleep 1000\nautostart=false\n\
         process_name=%(program_name)s_%(process_num)d\nnumprocs=2\ncolour=red\n",
        mark.display()
    );
    let file = dir.file("herd.conf", &config);
    for arguments in [
        &[OsStr::new("--check"), file.as_os_str()][..],
        &[OsStr::new("-c"), file.as_os_str(), OsStr::new("--check")],
    ] {
        let ended = run_to_end(arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let lines: Vec<&str> = ended.out.lines().collect();
        assert_eq!(
            lines,
            [
                &format!("a          auto    touch {} \"two words\"  (as root)", mark.display()),
                "web:web_0  manual  sleep 1000",
                "web:web_1  manual  sleep 1000",
                "the configuration is valid: 2 groups, 2 programs, 3 processes",
            ]
        );
        assert!(ended.err.contains("colour"), "notes are shown too: {}", ended.err);
    }
    assert!(!mark.exists(), "a program was started");
    let bad = dir.file("bad.conf", "[program:a]\n[program:b]\ncommand=\n");
    let ended = run_to_end(&[OsStr::new("--check"), bad.as_os_str()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    assert!(ended.err.lines().count() >= 2, "every mistake is shown: {}", ended.err);
    let demonstration = run_to_end(&[OsStr::new("--check")]);
    assert_eq!(demonstration.code, Some(0));
    assert!(demonstration.out.ends_with("5 groups, 5 programs, 7 processes\n"));
}

#[test]
fn the_version_is_shown_and_a_wrong_option_gets_a_suggestion() {
    let version = run_to_end(&[OsStr::new("--version")]);
    let text = format!("taskmaster {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.out), (Some(0), text));
    let wrong = run_to_end(&[OsStr::new("--chekc"), OsStr::new("a.conf")]);
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong
            .err
            .starts_with("taskmaster: unknown option \"--chekc\"; did you mean \"--check\"?\n")
    );
}
