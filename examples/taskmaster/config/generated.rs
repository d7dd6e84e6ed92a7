//! Generated configurations.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::tests::world;
use super::*;
use crate::generated::{damage, for_each_input, pick};

const SECTIONS: &[&str] = &[
    "program:web",
    "program:web",
    "program:db",
    "program:a:b",
    "program:",
    "group:all",
    "group:web",
    "eventlistener:l",
    "fcgi-program:f",
    "supervisord",
    "unix_http_server",
    "inet_http_server",
    "supervisorctl",
    "rpcinterface:supervisor",
    "ctlplugin:x",
    "DEFAULT",
    "include",
    "unknown",
    "Program:x",
];

/// One line for each key, most of them valid.
const LINES: &[&str] = &[
    "command=/bin/cat",
    "command=sh -c \"exit 3\" 'a b'",
    "command=/bin/x --n=%(process_num)02d %(ENV_HOME)s ; comment",
    "process_name=%(program_name)s_%(process_num)d",
    "process_name=%(group_name)s",
    "numprocs=3",
    "numprocs=%(ENV_COLOUR)s",
    "numprocs_start=7",
    "priority=1",
    "autostart=false",
    "startsecs=0",
    "startretries=2",
    "autorestart=unexpected",
    "exitcodes=0,2",
    "stopsignal=USR1",
    "stopwaitsecs=1",
    "stopasgroup=true",
    "killasgroup=true",
    "user=ann",
    "user=nobody",
    "directory=%(here)s/x",
    "umask=022",
    "environment=A=\"s3cr3t\",B='s3cr3t',C=s3cr3t",
    "environment=A=s3cr3t,",
    "stdout_logfile=AUTO",
    "stdout_logfile=NONE",
    "stdout_logfile=/dev/stdout",
    "stderr_logfile=/var/log/%(program_name)s.log",
    "redirect_stderr=true",
    "serverurl=AUTO",
    "stdout_syslog=true",
    "stdout_logfile_maxbytes=1MB",
    "stdout_logfile_backups=3",
    "stdout_capture_maxbytes=1KB",
    "stdout_events_enabled=true",
    "stderr_logfile_maxbytes=0",
    "events=PROCESS_STATE,TICK_5",
    "buffer_size=10",
    "result_handler=supervisor.dispatchers:default_handler",
    "socket=unix:///run/%(program_name)s.sock",
    "socket=tcp://localhost:9002",
    "socket_owner=ann:users",
    "socket_mode=0700",
    "socket_backlog=8",
    "programs=web,db",
    "programs=db",
    "file=/run/sv.sock",
    "chmod=0700",
    "chown=ann:users",
    "username=u",
    "password={SHA}82ab876d1387bfafe46cc1c8a2ef074eae50cb1d",
    "password=%(ENV_OFTEN)s",
    "port=9001",
    "port=*:9001",
    "port=[::1]:9001",
    "minfds=1024",
    "minprocs=200",
    "identifier=box",
    "nodaemon=true",
    "loglevel=debug",
    "logfile=/dev/null",
    "strip_ansi=true",
    "readiness=notify",
    "readiness=fd:3",
    "readysecs=5",
    "watchdogsecs=2",
    "watchdog_stopsignal=ABRT",
    "after=db",
    "requires=db,web",
    "expected_signals=HUP",
    "prevent_restart=3,KILL",
    "force_restart=4",
    "early_exit_fails=false",
    "backoff=exponential 1 60",
    "backoff=linear 1",
    "restart_delay=fixed 2",
    "restart_delay_from=start",
    "immediate_restarts=1",
    "jitter=50",
    "crash_budget=3/60",
    "crash_budget=none",
    "shared_crash_budget=5/60",
    "strategy=one_for_all",
    "autoshutdown=any",
    "stable_after=10",
    "cool_off=60",
    "retry_permanent=false",
    "count_shortages=true",
    "runsecs=60",
    "runsecs_random=5",
    "stopsteps=INT 2, TERM 5",
    "stopsteps=command 2, TERM 5\nstop_command=/bin/true",
    "killsecs=1",
    "before_command=/bin/true",
    "before_secs=2",
    "after_command=/bin/true",
    "no_new_privs=true",
    "nice=5",
    "oom_score_adj=10",
    "lifetime=bound",
    "rolling=1",
    "rolling_surge=1",
    "stdin=pipe",
    "memory.max=1MB",
    "cpu.max=50%%",
    "io.max=8:0 rbps=1",
    "cpuset.cpus=0-3",
    "pids.max=9",
    "memory.high=x",
    "cgroup=/no/such/group",
    "colour=red",
    "files=/no/such/*.conf",
    "x",
    "=",
    "a: b",
    "; comment",
    "# comment",
    "",
    "   more",
    "\tmore",
    "[half",
    "startsecs=99999999999999999999",
    "numprocs=-1",
    "command=%(nothing)s",
    "command=%",
    "command=%(program_name",
    "jitter=101",
    "command=\"open",
    "numprocs=1001",
    "directory=~ann/x",
    "umask=999",
    "stopsignal=NOTHING",
    "command=\u{e9}\u{1f600}",
    "exitcodes=",
];

fn text(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..4) {
        text.push_str(&format!("[{}]\n", pick(rng, SECTIONS)));
        if rng.u8(..4) != 0 {
            text.push_str("command=/bin/cat\n");
        }
        for _ in 0..rng.usize(..5) {
            text.push_str(pick(rng, LINES));
            text.push('\n');
        }
    }
    text
}

/// What a text means, or the mistakes in it.
fn meaning(text: &str, world: &Arc<World>) -> Result<Config, Vec<String>> {
    parse(text, world).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What holds for every configuration without a mistake.
fn check_config(config: &Config, text: &str) {
    let names: BTreeSet<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names.len(), config.groups.len(), "{text}");
    for program in config.groups.iter().flat_map(|group| &group.programs) {
        assert!(program.numprocs <= MOST_INSTANCES, "{text}");
        // As in supervisord, a program may have no process.
        let Some(last) = program.numprocs.checked_sub(1) else {
            continue;
        };
        for number in [0, last] {
            let instance = program.instance(number).unwrap();
            assert!(!instance.argv.is_empty() && !instance.name.is_empty(), "{text}");
        }
    }
}

#[test]
fn every_text_is_a_configuration_or_has_mistakes_with_a_place() {
    let world = world();
    for_each_input(|rng| {
        let mut text = text(rng);
        let is_damaged = rng.u8(..3) == 0;
        if is_damaged {
            let mut bytes = text.into_bytes();
            damage(&mut bytes, rng);
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        let seen = meaning(&text, &world);
        match &seen {
            Ok(config) => check_config(config, &text),
            Err(problems) => {
                assert!(!problems.is_empty(), "{text}");
                for problem in problems {
                    let is_line = !problem.is_empty() && !problem.contains(char::is_control);
                    assert!(
                        is_line && (is_damaged || !problem.contains("s3cr3t")),
                        "{problem:?}: {text}"
                    );
                }
            }
        }
        if rng.u8(..8) == 0 {
            let commented = format!("; before\n{text}\n# after\n");
            assert_eq!(meaning(&commented, &world).is_ok(), seen.is_ok(), "{text}");
        }
    });
}
