//! The logs: collected through pipes, rotated, reopened, and never in the way of a process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use crate::common::{wait_for_content, wait_until};
use crate::driver::{Dir, PATIENCE, Taskmaster, aloud, binary, fifo};

/// A program that runs a script, with a log in the configuration's directory.
fn program(script: &str, keys: &str) -> String {
    format!("[program:a]\ncommand=sh -c \"{script}\"\nstdout_logfile=%(here)s/log\nstartsecs=0\n{keys}\n")
}

fn text(herd: &Taskmaster, name: &str) -> String {
    fs::read_to_string(herd.dir.path(name)).unwrap_or_default()
}

#[test]
fn a_log_is_rotated_at_its_size_and_the_oldest_backups_are_removed() {
    let script = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; done";
    let keys = "stdout_logfile_maxbytes=1KB\nstdout_logfile_backups=2\nautorestart=false";
    let mut herd = Taskmaster::start(&program(&format!("{script}; sleep 0.1; echo end"), keys));
    herd.reached("a:a", "EXITED");
    // The lines of a read stay together, so a file may be larger than its size.
    let all = ["log.2", "log.1", "log"].map(|name| text(&herd, name)).concat();
    assert!(all.ends_with("line 1000\nend\n"), "{}", &all[all.len() - 40..]);
    let lines: Vec<&str> = all.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[1] != "end") {
        let number = |line: &str| line.trim_start_matches("line ").parse::<u32>();
        assert_eq!(
            number(pair[0]).map(|n| n + 1),
            number(pair[1]),
            "no line is lost between files"
        );
    }
    assert!(herd.dir.path("log.1").exists() && !herd.dir.path("log.3").exists());
    herd.shut_down();
}

#[test]
fn the_last_words_of_a_process_are_in_its_log_before_its_end_is_told() {
    let script = "head -c 60000 /dev/zero | tr '\\\\0' x; echo; echo bye >&2; exit 3";
    let mut herd = Taskmaster::start(&program(script, "redirect_stderr=true\nautorestart=false"));
    herd.reached("a:a", "EXITED");
    let log = text(&herd, "log");
    assert!(log.len() == 60_005 && log.ends_with("x\nbye\n"), "{} bytes", log.len());
    herd.shut_down();
}

#[test]
fn escape_sequences_are_stripped_on_request_only() {
    for (own, expected) in [("strip_ansi=true", "red plain\n"), ("", "\x1b[31mred\x1b[0m plain\n")] {
        let script = "printf '\\\\033[31mred\\\\033[0m plain\\\\n'";
        let config = format!("[supervisord]\n{own}\n{}", program(script, "autorestart=false"));
        let mut herd = Taskmaster::start(&config);
        herd.reached("a:a", "EXITED");
        assert_eq!(text(&herd, "log"), expected, "{own}");
        herd.shut_down();
    }
}

#[test]
fn usr2_and_hup_open_a_renamed_log_anew() {
    for signal in [Signal::USR2, Signal::HUP] {
        let mut herd = Taskmaster::start(&program("echo one; read x < go; echo two; exec sleep 1000", ""));
        let go = fifo(&herd.dir, "go");
        let (log, old) = (herd.dir.path("log"), herd.dir.path("old"));
        wait_for_content(&log, PATIENCE, |text| text == "one\n");
        fs::rename(&log, &old).unwrap();
        herd.signal(signal);
        herd.complaint("/log was reopened");
        fs::write(go, "go\n").unwrap();
        wait_for_content(&log, PATIENCE, |text| text == "two\n");
        assert_eq!(text(&herd, "old"), "one\n");
        herd.shut_down();
    }
}

/// The file at `log` is limited. The program goes on, the loss is reported once, and output resumes after `room`.
fn survives(mut herd: Taskmaster, log: &Path, reason: &str, room: impl Fn(&Taskmaster)) {
    herd.complaint(reason);
    let pid = herd.pid_of("a:a");
    assert!(herd.ask("status a").contains(&format!("pid {pid}")));
    room(&herd);
    herd.complaint("is written again");
    wait_until("output after the shortage", PATIENCE, || {
        fs::metadata(log).is_ok_and(|log| log.len() > 0)
    });
    assert!(
        herd.ask("status a").contains(&format!("RUNNING    pid {pid}")),
        "{}",
        herd.transcript()
    );
    let told = |line: &&String| line.contains(reason);
    assert!(herd.err.iter().filter(told).count() <= 2, "{}", herd.transcript());
    herd.shut_down();
}

const FLOOD: &str = "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done";

#[test]
fn a_file_at_its_limit_costs_output_and_no_process() {
    let dir = Dir::new();
    dir.file(
        "herd.conf",
        &program(FLOOD, "stdout_logfile_maxbytes=0\nkillasgroup=true"),
    );
    fifo(&dir, "events");
    let mut command = Command::new("bash");
    let script = "ulimit -f 64 && exec \"$0\" --events events herd.conf";
    command.args(["-c", script]).arg(binary());
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    let log = herd.dir.path("log");
    survives(herd, &log.clone(), "File too large", |herd| {
        fs::rename(&log, herd.dir.path("old")).unwrap();
        herd.signal(Signal::USR2);
    });
}

#[test]
fn a_full_disk_costs_output_and_no_process() {
    let dir = Dir::new();
    let disk = dir.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |arguments: &[&str]| {
        let mounted = Command::new(arguments[0]).args(&arguments[1..]).arg(&disk).output();
        mounted.is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=128k", "none"]) {
        return aloud("the test of a full disk needs root, to mount one");
    }
    let config = program(FLOOD, "stdout_logfile_maxbytes=0\nkillasgroup=true").replace("/log", "/disk/log");
    dir.file("herd.conf", &config);
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command.args(["--events", "events", "herd.conf"]);
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("a:a", "RUNNING");
    let log = disk.join("log");
    survives(herd, &log, "No space left on device", |_| {
        // The disk gets room when the file is emptied.
        fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    });
    assert!(mount(&["umount", "-l"]));
    // The directory of the test could not be removed while the file system was mounted in it.
    fs::remove_dir_all(disk.parent().unwrap()).unwrap();
}

#[test]
fn a_flood_of_output_uses_bounded_memory_and_delays_no_command() {
    let keys = "stdout_logfile_maxbytes=1MB\nstdout_logfile_backups=1\nkillasgroup=true";
    let mut herd = Taskmaster::start(&program("exec yes", keys));
    herd.reached("a:a", "RUNNING");
    wait_until("a rotation", PATIENCE, || herd.dir.path("log.1").exists());
    let before = herd.memory();
    for _ in 0..50 {
        let began = Instant::now();
        assert!(herd.ask("status a").contains("RUNNING"));
        assert!(began.elapsed().as_secs() < 5);
    }
    assert!(herd.memory() < before + (4 << 20));
    herd.shut_down();
}

#[test]
fn a_reload_directs_the_output_of_a_living_process_to_another_file() {
    let config = program("echo one; read x < go; echo two; exec sleep 1000", "");
    let mut herd = Taskmaster::start(&config);
    let go = fifo(&herd.dir, "go");
    let pid = herd.reached("a:a", "RUNNING").pid;
    wait_for_content(&herd.dir.path("log"), PATIENCE, |text| text == "one\n");
    herd.dir.file("herd.conf", &config.replace("/log", "/other"));
    assert!(herd.ask("reload").contains("1 changed"));
    fs::write(go, "go\n").unwrap();
    wait_for_content(&herd.dir.path("other"), PATIENCE, |text| text == "two\n");
    assert_eq!(text(&herd, "log"), "one\n");
    assert!(herd.ask("status a").contains(&format!("pid {}", pid.unwrap())));
    herd.shut_down();
}

#[test]
fn output_goes_on_after_a_reexec() {
    let mut herd = Taskmaster::start(&program("echo one; read x < go; echo two; exec sleep 1000", ""));
    let go = fifo(&herd.dir, "go");
    herd.reached("a:a", "RUNNING");
    assert!(herd.ask("reexec").contains("1 kept"));
    fs::write(go, "go\n").unwrap();
    wait_for_content(&herd.dir.path("log"), PATIENCE, |text| text == "one\ntwo\n");
    herd.shut_down();
}

#[test]
fn what_a_process_leaves_behind_may_still_write() {
    let script = "(read x < go; echo late) & echo early";
    let mut herd = Taskmaster::start(&program(script, "autorestart=false"));
    let go = fifo(&herd.dir, "go");
    herd.reached("a:a", "EXITED");
    fs::write(go, "go\n").unwrap();
    wait_for_content(&herd.dir.path("log"), PATIENCE, |text| text == "early\nlate\n");
    herd.shut_down();
}

#[test]
fn the_taskmasters_own_log_has_a_file_and_a_level() {
    let own = |keys: &str| {
        format!(
            "[supervisord]\nlogfile=%(here)s/own\n{keys}\n{}",
            program("exit 3", "startretries=0\nautorestart=false\nstartsecs=5")
        )
    };
    let mut herd = Taskmaster::start(&own(""));
    herd.reached("a:a", "FATAL");
    herd.complaint("-> FATAL");
    let log = text(&herd, "own");
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines
            .iter()
            .all(|line| line.as_bytes()[4] == b'-' && line.as_bytes()[19] == b','),
        "{log}"
    );
    assert!(log.contains(" INFO ") && log.contains("STARTING"), "{log}");
    assert!(log.contains(" WARN ") && log.contains("FATAL"), "{log}");
    herd.shut_down();
    let mut herd = Taskmaster::start(&own("loglevel=warn\nsilent=true"));
    herd.reached("a:a", "FATAL");
    herd.ask("status");
    let log = text(&herd, "own");
    assert!(!log.contains(" INFO ") && log.contains("FATAL"), "{log}");
    assert!(herd.err.is_empty(), "{:?}", herd.err);
    herd.shut_down();
}
