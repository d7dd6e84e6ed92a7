//! Tests of the limit of open files: it is raised for the taskmaster and unchanged for the programs.

use std::fs;
use std::process::Command;

use crate::common::wait_for_content;
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo};

/// Starts a taskmaster under these limits of open files.
fn limited(soft: u32, hard: u32, config: &str) -> Taskmaster {
    let dir = Dir::new();
    dir.file("herd.conf", config);
    fifo(&dir, "events");
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" --events events herd.conf");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(binary());
    Taskmaster::run(dir, command)
}

#[test]
fn more_instances_run_than_the_soft_limit_has_files_and_each_has_that_limit() {
    // The programs are plain ones, ones with a log, and ones with a readiness descriptor.
    let shows = "ulimit -Sn; ulimit -Hn; exec sleep 1000";
    let program = |name: &str, script: &str, keys: &str| {
        format!(
            "[program:{name}]\ncommand=bash -c \"{script}\"\nprocess_name=%(process_num)d\nnumprocs=40\nstartsecs=0\n\
             stdout_logfile=%(here)s/{name}.%(process_num)d\n{keys}"
        )
    };
    let config = [
        program("plain", "exec sleep 1000", "stdout_logfile=NONE\n"),
        program("log", shows, "redirect_stderr=true\n"),
        program("ready", &format!("echo >&3; {shows}"), "readiness=fd:3\n"),
    ];
    let config = config
        .concat()
        .replacen("stdout_logfile=%(here)s/plain.%(process_num)d\n", "", 1);
    let mut herd = limited(50, 400, &config);
    for name in ["plain", "log", "ready"] {
        for number in 0..40 {
            herd.reached(&format!("{name}:{number}"), "RUNNING");
        }
    }
    for name in ["log", "ready"] {
        for number in 0..40 {
            let path = herd.dir.path(&format!("{name}.{number}"));
            wait_for_content(&path, PATIENCE, |text| text == "50\n400\n");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", herd.pid().as_raw_nonzero())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["400", "400"]);
    assert!(herd.ask("reload").contains("0 changed, 3 unchanged"));
    herd.shut_down();
}

#[test]
fn a_lack_of_descriptors_uses_up_no_retry() {
    let config = "[program:many]\ncommand=sleep 1000\nprocess_name=%(process_num)d\nnumprocs=60\nstartsecs=0\n\
                  startretries=1\n";
    let mut herd = limited(40, 40, config);
    // The instance with the highest number starts last, and no descriptor is free for it.
    for _ in 0..3 {
        herd.reached("many:59", "BACKOFF");
    }
    let line = herd.ask("status many:59");
    assert!(
        line.contains("; another attempt in ") && !line.contains("retry"),
        "{line}"
    );
    herd.shut_down();
}
