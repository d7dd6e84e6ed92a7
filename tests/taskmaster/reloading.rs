//! Tests of a reload by command and by signal, and of its effects on running processes.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use crate::driver::{Taskmaster, fifo};

const ONE: &str = "[program:one]\ncommand=sleep 1001\nstartsecs=0\n";
const TWO: &str = "[program:two]\ncommand=sleep 1002\nstartsecs=0\n";

fn herd(config: &str) -> Taskmaster {
    let mut herd = Taskmaster::start(config);
    for name in ["one", "two"] {
        if config.contains(&format!("[program:{name}]")) {
            herd.reached(&format!("{name}:{name}"), "RUNNING");
        }
    }
    herd
}

fn rewrite(herd: &Taskmaster, config: &str) {
    fs::write(herd.dir.path("herd.conf"), config).unwrap();
}

#[test]
fn new_programs_start_removed_ones_stop_and_unchanged_ones_stay() {
    let mut herd = herd(&format!("{ONE}{TWO}"));
    rewrite(
        &herd,
        &format!("{TWO}[program:three]\ncommand=sleep 1003\nstartsecs=0\n"),
    );
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 1 added, 1 removed, 0 changed, 1 unchanged"
    );
    herd.reached("one:one", "STOPPED");
    herd.reached("three:three", "RUNNING");
    assert_eq!(herd.states("two:two"), ["STARTING", "RUNNING"]);
    assert_eq!(herd.ask("status one"), "error: there is no process \"one\"");
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 0 changed, 2 unchanged"
    );
    herd.shut_down();
}

#[test]
fn a_broken_file_changes_nothing() {
    let mut herd = herd(&format!("{ONE}{TWO}"));
    rewrite(&herd, &format!("{ONE}startsecs=never\n[program:two]\n"));
    let answer = herd.ask("reload");
    assert!(answer.starts_with("error: nothing is changed: "), "{answer}");
    assert!(
        answer.contains("[program:one] startsecs=\"never\"") && answer.ends_with("(and 1 more)"),
        "{answer}"
    );
    herd.complaint("[program:two]: command=... is missing");
    fs::remove_file(herd.dir.path("herd.conf")).unwrap();
    assert!(herd.ask("reload").contains("No such file"));
    assert_eq!(herd.status(2).iter().filter(|line| line.contains("RUNNING")).count(), 2);
    assert_eq!(herd.events.len(), 4);
    herd.shut_down();
}

#[test]
fn a_changed_command_restarts_and_nothing_else_does() {
    let says = |name: &str, word: &str| {
        let command = format!("sh -c \"echo {name} is {word} >&2; exec sleep 1000\"");
        format!("[program:{name}]\ncommand={command}\nstderr_logfile=/dev/stderr\nstartsecs=0\n")
    };
    let mut herd = herd(&format!("{}{}", says("one", "old"), says("two", "$NEW")));
    let pid = herd.pid_of("two:two");
    rewrite(
        &herd,
        &format!(
            "{}{}stopwaitsecs=77\nenvironment=NEW=\"new\"\n",
            says("one", "new"),
            says("two", "$NEW")
        ),
    );
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 2 changed, 0 unchanged"
    );
    let again = herd.reached("one:one", "STARTING");
    assert_eq!((again.from.as_str(), again.run), ("STOPPING", 2));
    herd.complaint("one is new");
    assert!(herd.ask("status two").contains(&format!(" pid {pid},")));
    assert_eq!(herd.ask("restart two"), "ok: restart two: accepted");
    herd.complaint("two is new");
    herd.shut_down();
}

#[test]
fn numbers_follow_the_file_only_where_the_file_changed() {
    let web = |count: u32| {
        format!("[program:web]\ncommand=sleep 1000\nprocess_name=w%(process_num)d\nnumprocs={count}\nstartsecs=0\n")
    };
    let mut herd = Taskmaster::start(&web(2));
    herd.reached("web:w1", "RUNNING");
    assert_eq!(herd.ask("scale web 3"), "ok: scale web: from 2 to 3");
    herd.reached("web:w2", "RUNNING");
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 0 changed, 1 unchanged"
    );
    let pid = herd.pid_of("web:w0");
    rewrite(&herd, &web(1));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 1 changed, 0 unchanged"
    );
    herd.reached("web:w1", "STOPPED");
    herd.reached("web:w2", "STOPPED");
    rewrite(&herd, &web(4));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 1 changed, 0 unchanged"
    );
    herd.reached("web:w3", "RUNNING");
    assert_eq!(herd.pid_of("web:w0"), pid);
    herd.shut_down();
}

#[test]
fn a_fatal_instance_restarts_with_a_new_command() {
    let mut herd = Taskmaster::start("[program:one]\ncommand=/no/such/program\nstartretries=0\nstartsecs=0\n");
    herd.reached("one:one", "FATAL");
    rewrite(&herd, ONE);
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 1 changed, 0 unchanged"
    );
    herd.reached("one:one", "RUNNING");
    assert_eq!(herd.ask("stop one"), "ok: stop one: accepted");
    herd.reached("one:one", "STOPPED");
    rewrite(&herd, &ONE.replace("1001", "1011"));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 1 changed, 0 unchanged"
    );
    assert!(
        herd.ask("status").contains("STOPPED"),
        "a process that was stopped by a command stays down"
    );
    herd.shut_down();
}

#[test]
fn a_readded_program_waits_until_the_old_one_is_gone() {
    let deaf = "[program:one]\ncommand=sh -c \"trap '' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
                stderr_logfile=/dev/stderr\nstopwaitsecs=1\nkillasgroup=true\nstartsecs=0\n";
    let mut herd = Taskmaster::start(deaf);
    herd.complaint("ready");
    rewrite(&herd, "[supervisord]\n");
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 1 removed, 0 changed, 0 unchanged"
    );
    herd.reached("one:one", "STOPPING");
    assert_eq!(
        herd.ask("start one"),
        "error: the program is no longer in the configuration"
    );
    rewrite(&herd, ONE);
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 1 added, 0 removed, 0 changed, 0 unchanged"
    );
    herd.reached("one:one", "STOPPED");
    let back = herd.reached("one:one", "STARTING");
    assert_eq!(back.run, 1);
    herd.reached("one:one", "RUNNING");
    herd.shut_down();
}

#[test]
fn a_program_that_moves_to_a_group_gets_its_name() {
    let mut herd = herd(ONE);
    rewrite(&herd, &format!("{ONE}[group:g]\nprograms=one\n"));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 1 added, 1 removed, 0 changed, 0 unchanged"
    );
    herd.reached("one:one", "STOPPED");
    herd.reached("g:one", "RUNNING");
    herd.shut_down();
}

#[test]
fn a_program_that_is_down_is_removed_at_once() {
    let mut herd = herd(&format!(
        "{ONE}[program:idle]\ncommand=sleep 1000\nautostart=false\n\
         [program:lost]\ncommand=/no/such/program\nstartretries=0\n\
         [program:trying]\ncommand=/no/such/program\nstartretries=1000\n"
    ));
    herd.reached("lost:lost", "FATAL");
    herd.reached("trying:trying", "BACKOFF");
    rewrite(&herd, ONE);
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 3 removed, 0 changed, 1 unchanged"
    );
    herd.reached("trying:trying", "STOPPED");
    herd.say("status");
    assert!(herd.answer().starts_with("one   RUNNING "));
    assert_eq!(herd.ask("status idle"), "error: there is no process \"idle\"");
    herd.shut_down();
}

#[test]
fn hangup_reloads() {
    let mut herd = herd(ONE);
    rewrite(&herd, &format!("{ONE}{TWO}"));
    herd.signal(Signal::HUP);
    herd.reached("two:two", "RUNNING");
    herd.complaint("reload: 1 added, 0 removed, 0 changed, 1 unchanged");
    rewrite(&herd, "junk");
    herd.signal(Signal::HUP);
    herd.complaint("nothing is changed");
    assert_eq!(herd.states("one:one"), ["STARTING", "RUNNING"]);
    herd.shut_down();
}

#[test]
fn a_fatal_instance_restarts_with_any_change() {
    let lost = |keys: &str| format!("[program:lost]\ncommand=/no/such/program\nstartretries=0\n{keys}");
    let mut herd = Taskmaster::start(&lost(""));
    herd.reached("lost:lost", "FATAL");
    for (count, keys) in [
        "environment=A=1",
        "startsecs=2",
        "directory=/",
        "umask=077",
        "exitcodes=0,1",
        "autorestart=true",
        "stopsignal=INT",
        "stopwaitsecs=3",
        "priority=5",
        "stdout_logfile=%(here)s/log",
        "redirect_stderr=true",
        "startretries=0",
    ]
    .into_iter()
    .enumerate()
    {
        rewrite(&herd, &lost(if keys.starts_with("startretries") { "" } else { keys }));
        assert_eq!(
            herd.ask("reload"),
            "ok: reload: 0 added, 0 removed, 1 changed, 0 unchanged",
            "{keys}"
        );
        assert_eq!(herd.reached("lost:lost", "STARTING").run, count as u64 + 2, "{keys}");
        herd.reached("lost:lost", "FATAL");
    }
    let seen = herd.states("lost:lost").len();
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 0 changed, 1 unchanged"
    );
    assert!(herd.ask("status lost").starts_with("lost   FATAL "));
    assert_eq!(
        herd.states("lost:lost").len(),
        seen,
        "a fatal instance stays down without a change"
    );
    herd.shut_down();
}

#[test]
fn a_fatal_instance_without_autostart_restarts_with_a_change() {
    let lost = "[program:lost]\ncommand=/no/such/program\nstartretries=0\nautostart=false\n";
    let mut herd = Taskmaster::start(lost);
    assert_eq!(herd.ask("start lost"), "ok: start lost: accepted");
    herd.reached("lost:lost", "FATAL");
    rewrite(&herd, &format!("{lost}environment=A=1\n"));
    assert!(herd.ask("reload").contains("1 changed"));
    assert_eq!(herd.reached("lost:lost", "STARTING").run, 2);
    herd.shut_down();
}

#[test]
fn a_failed_instance_restarts_with_a_change_and_a_successful_one_does_not() {
    let programs = |keys: &str| {
        let program = |name, code| {
            format!("[program:{name}]\ncommand=sh -c \"exit {code}\"\nautorestart=false\nstartsecs=0\n{keys}")
        };
        format!("{}{}", program("failed", 3), program("done", 0))
    };
    let mut herd = Taskmaster::start(&programs(""));
    herd.reached("failed:failed", "EXITED");
    herd.reached("done:done", "EXITED");
    rewrite(&herd, &programs("environment=A=1\n"));
    assert!(herd.ask("reload").contains("2 changed"));
    assert_eq!(herd.reached("failed:failed", "EXITED").run, 2);
    herd.ask("status all");
    assert_eq!(herd.states("done:done"), ["STARTING", "RUNNING", "EXITED"]);
    herd.shut_down();
}

#[test]
fn turning_autostart_on_starts_instances_that_are_down() {
    let programs = |autostart: &str| {
        let program =
            |name: &str| format!("[program:{name}]\ncommand=sleep 1000\nautostart={autostart}\nstartsecs=0\n");
        let web = "process_name=%(process_num)d\nnumprocs=2\n";
        format!("{}{}{}{web}", program("idle"), program("stopped"), program("web"))
    };
    let mut herd = Taskmaster::start(&programs("false"));
    herd.ask("start stopped");
    herd.reached("stopped:stopped", "RUNNING");
    herd.ask("stop stopped");
    herd.reached("stopped:stopped", "STOPPED");
    herd.ask("start web:1");
    let pid = herd.reached("web:1", "RUNNING").pid;
    rewrite(&herd, &programs("true"));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 3 changed, 0 unchanged"
    );
    for process in ["idle:idle", "stopped:stopped", "web:0"] {
        herd.reached(process, "RUNNING");
    }
    assert!(herd.ask("status web:1").contains(&format!("pid {},", pid.unwrap())));
    herd.ask("scale web 3");
    herd.reached("web:2", "RUNNING");
    // Turning autostart off stops no program.
    rewrite(&herd, &programs("false"));
    assert!(herd.ask("reload").contains("3 changed"));
    assert_eq!(herd.status(5).iter().filter(|line| line.contains("RUNNING")).count(), 5);
    herd.shut_down();
}

#[test]
fn a_change_does_not_start_a_program_that_waits_for_the_old_one() {
    let deaf = "[program:one]\ncommand=sh -c \"trap '' TERM; echo ready >&2; while :; do sleep 0.1; done\"\n\
                stderr_logfile=/dev/stderr\nstopwaitsecs=1000\nkillasgroup=true\nstartsecs=0\n";
    let mut herd = Taskmaster::start(&format!("{deaf}{TWO}"));
    herd.complaint("ready");
    rewrite(&herd, TWO);
    assert!(herd.ask("reload").contains("1 removed"));
    rewrite(&herd, &format!("{ONE}autostart=false\n{TWO}"));
    assert!(herd.ask("reload").contains("1 added"));
    rewrite(&herd, &format!("{ONE}{TWO}"));
    assert!(herd.ask("reload").contains("1 changed"));
    assert_eq!(
        herd.ask("start one"),
        "error: the old program of this name is still being stopped"
    );
    let old = herd.pid_of("one:one");
    herd.reached("one:one", "STOPPING");
    crate::terminal::signal(old, Signal::KILL);
    herd.reached("one:one", "STOPPED");
    assert_eq!(herd.reached("one:one", "STARTING").run, 1);
    herd.shut_down();
}

#[test]
fn a_path_that_has_become_a_special_file_is_refused_at_once() {
    let mut herd = herd(&format!("{ONE}{TWO}"));
    let path = herd.dir.path("herd.conf");
    let gone = |herd: &Taskmaster| {
        let path = herd.dir.path("herd.conf");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    };
    for (kind, reason) in [
        ("fifo", "it is a FIFO, not a regular file"),
        ("directory", "Is a directory"),
        ("/dev/zero", "it is a device, not a regular file"),
        ("/dev/tty", "it is a device, not a regular file"),
        ("socket", "it is not a regular file"),
        ("huge", "it is larger than 16 MiB"),
        ("dangling", "No such file or directory"),
        ("loop", "Too many levels of symbolic links"),
    ] {
        gone(&herd);
        match kind {
            "fifo" => drop(fifo(&herd.dir, "herd.conf")),
            "directory" => fs::create_dir(&path).unwrap(),
            "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            "huge" => fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(),
            "dangling" => symlink("/no/such/file", &path).unwrap(),
            "loop" => symlink("herd.conf", &path).unwrap(),
            device => symlink(device, &path).unwrap(),
        }
        let asked = herd.ask("reload");
        assert!(asked.starts_with("error: nothing is changed: cannot read "), "{asked}");
        assert!(asked.ends_with(&format!("herd.conf: {reason}")), "{kind}: {asked}");
        herd.signal(Signal::HUP);
        let noted = herd.complaint("nothing is changed: ");
        assert!(noted.ends_with(&format!("herd.conf: {reason}")), "{kind}: {noted}");
    }
    gone(&herd);
    rewrite(&herd, &format!("{ONE}{TWO}"));
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 0 removed, 0 changed, 2 unchanged"
    );
    assert_eq!(herd.events.len(), 4, "nothing was touched");
    herd.shut_down();
}
