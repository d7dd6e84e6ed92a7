//! Tests of job control: a taskmaster in the foreground and in the background of an interactive shell.

use rustix::process::Signal;

use crate::common::{processes, wait_gone};
use crate::driver::PATIENCE;
use crate::terminal::{
    CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Q, CTRL_S, CTRL_Z, Terminal, is_stopped, pid_in, processor_time, signal,
    with_each_shell,
};

const HERD: &str = "[program:a]\ncommand=sleep 1000\nstartsecs=0\n";

/// A program that ignores SIGTERM.
const DEAF: &str = "[program:a]\ncommand=sh -c \"trap '' TERM; echo no ears; while :; do sleep 0.1; done\"\n\
                    stdout_logfile=/dev/stdout\nstopwaitsecs=1000\nkillasgroup=true\nstartsecs=0\n";

/// Starts the taskmaster in the background. Returns its PID and that of its program.
fn in_the_background(terminal: &mut Terminal) -> (u32, u32) {
    terminal.types("\"$T\" herd.conf &\n");
    let child = pid_in(&terminal.reaches("a", "STARTING"));
    terminal.reaches("a", "RUNNING");
    (terminal.taskmaster(), child)
}

/// Starts the taskmaster in the foreground. Returns its PID and that of its program.
fn in_the_foreground(terminal: &mut Terminal) -> (u32, u32) {
    terminal.types("\"$T\" herd.conf\n");
    let child = pid_in(&terminal.reaches("a", "STARTING"));
    terminal.reaches("a", "RUNNING");
    (terminal.taskmaster(), child)
}

/// Kills the program, and waits until the taskmaster has reaped and restarted it.
fn is_served(terminal: &mut Terminal, child: u32) -> u32 {
    signal(child, Signal::KILL);
    terminal.reaches("a", "EXITED");
    let next = pid_in(&terminal.reaches("a", "STARTING"));
    terminal.reaches("a", "RUNNING");
    assert_eq!(processes::state(child), None, "it was not reaped");
    next
}

/// Ends the taskmaster with SIGTERM, and checks its end.
fn ends(mut terminal: Terminal, taskmaster: u32) {
    signal(taskmaster, Signal::TERM);
    terminal.reaches("a", "STOPPED");
    assert!(wait_gone(taskmaster, PATIENCE));
    terminal.close();
}

#[test]
fn a_background_job_never_reads_the_terminal() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, child) = in_the_background(&mut terminal);
        terminal.types("echo $((40 + 2))\n");
        terminal.shows("42");
        let child = is_served(&mut terminal, child);
        // Unread input stays in the terminal.
        terminal.types("sleep 1000\n");
        terminal.runs("sleep");
        terminal.types("scale a 1\nscale a 2\n");
        let before = processor_time(taskmaster);
        let mut child = child;
        for _ in 0..5 {
            child = is_served(&mut terminal, child);
        }
        assert_ne!(processes::state(taskmaster), Some('T'));
        let used = processor_time(taskmaster) - before;
        assert!(used < 20, "it spins: {used} ticks");
        terminal.types(CTRL_C);
        terminal.shows("scale: ");
        terminal.shows("not found");
        ends(terminal, taskmaster);
    });
}

#[test]
fn a_background_job_that_comes_to_the_foreground_takes_commands() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, _) = in_the_background(&mut terminal);
        terminal.types("sleep 1000\n");
        terminal.runs("sleep");
        terminal.types("echo $((40 + 2))\n");
        terminal.types(CTRL_C);
        terminal.is_the_shells();
        // The input is typed ahead: the shell reads the first line, and the taskmaster the second.
        terminal.types("fg\nstatus a\n");
        terminal.shows("a   RUNNING    pid ");
        terminal.types("stop a\n");
        terminal.shows("ok: stop a: accepted");
        terminal.reaches("a", "STOPPED");
        terminal.types("shutdown\n");
        terminal.shows("ok: shutdown: started");
        assert!(wait_gone(taskmaster, PATIENCE));
        terminal.close();
    });
}

#[test]
fn ctrl_z_stops_only_the_taskmaster_and_fg_handles_the_missed_events() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, child) = in_the_foreground(&mut terminal);
        terminal.types(CTRL_Z);
        is_stopped(taskmaster, true);
        terminal.is_the_shells();
        assert!(
            processes::state(child).is_some_and(|state| state != 'T'),
            "the program keeps running"
        );
        signal(child, Signal::KILL);
        assert!(wait_gone(child, PATIENCE));
        terminal.types("fg\n");
        terminal.reaches("a", "EXITED");
        let child = pid_in(&terminal.reaches("a", "STARTING"));
        terminal.reaches("a", "RUNNING");
        terminal.types("status a\n");
        terminal.shows(&format!("a   RUNNING    pid {child},"));
        // The same holds after a detour through the background.
        terminal.types(CTRL_Z);
        is_stopped(taskmaster, true);
        terminal.is_the_shells();
        terminal.types("bg\n");
        is_stopped(taskmaster, false);
        terminal.types("echo $((40 + 2))\n");
        terminal.shows("42");
        is_served(&mut terminal, child);
        terminal.types("fg\n");
        terminal.runs("taskmaster");
        terminal.types("status a\n");
        terminal.shows("a   RUNNING    pid ");
        terminal.types(CTRL_C);
        terminal.reaches("a", "STOPPED");
        assert!(wait_gone(taskmaster, PATIENCE));
        terminal.close();
    });
}

#[test]
fn a_stopped_job_ends_after_sigterm_and_sigcont() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, _) = in_the_foreground(&mut terminal);
        terminal.types(CTRL_Z);
        is_stopped(taskmaster, true);
        signal(taskmaster, Signal::TERM);
        signal(taskmaster, Signal::CONT);
        terminal.reaches("a", "STOPPED");
        assert!(wait_gone(taskmaster, PATIENCE));
        terminal.close();
    });
}

#[test]
fn ctrl_c_and_ctrl_backslash_stop_everything_gracefully() {
    for key in [CTRL_C, CTRL_BACKSLASH] {
        with_each_shell(HERD, |mut terminal| {
            let (taskmaster, child) = in_the_foreground(&mut terminal);
            terminal.types(key);
            let stopped = terminal.reaches("a", "STOPPED");
            assert!(stopped.ends_with("killed by SIGTERM"), "{stopped:?}");
            assert!(wait_gone(taskmaster, PATIENCE));
            assert_eq!(processes::state(child), None);
            terminal.is_the_shells();
            terminal.types("echo ended with $?\n");
            terminal.shows("ended with 0");
            terminal.close();
        });
    }
}

#[test]
fn a_second_key_kills_at_once() {
    with_each_shell(DEAF, |mut terminal| {
        terminal.types("\"$T\" herd.conf\n");
        terminal.shows("no ears\r\n");
        let taskmaster = terminal.taskmaster();
        terminal.types(CTRL_BACKSLASH);
        terminal.reaches("a", "STOPPING");
        terminal.types(CTRL_C);
        let stopped = terminal.reaches("a", "STOPPED");
        assert!(stopped.ends_with("killed by SIGKILL"), "{stopped:?}");
        assert!(wait_gone(taskmaster, PATIENCE));
        terminal.is_the_shells();
        terminal.types("echo ended with $?\n");
        terminal.shows("ended with 1");
        terminal.close();
    });
}

#[test]
fn the_end_of_input_at_a_terminal_stops_no_program() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, child) = in_the_foreground(&mut terminal);
        terminal.types(CTRL_D);
        terminal.shows("standard input has ended");
        is_served(&mut terminal, child);
        ends(terminal, taskmaster);
    });
}

#[test]
fn a_hangup_of_the_terminal_stops_no_program() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, child) = in_the_foreground(&mut terminal);
        terminal.hang_up();
        signal(child, Signal::KILL);
        let next = || {
            let children = format!("/proc/{taskmaster}/task/{taskmaster}/children");
            let children = std::fs::read_to_string(children).unwrap();
            children.split_whitespace().any(|pid| pid != child.to_string())
        };
        crate::common::wait_until("the program is up again", PATIENCE, next);
        signal(taskmaster, Signal::TERM);
        assert!(wait_gone(taskmaster, PATIENCE));
        terminal.close();
    });
}

#[test]
fn tostop_stops_neither_the_taskmaster_nor_its_programs() {
    let talker = "[program:b]\ncommand=sh -c \"while :; do read x < go; echo heard $x; done\"\n\
                  stdout_logfile=/dev/stdout\nstartsecs=0\n";
    with_each_shell(&format!("{HERD}{talker}"), |mut terminal| {
        let go = crate::driver::fifo(&terminal.dir, "go");
        terminal.types("stty tostop\n");
        let (taskmaster, child) = in_the_background(&mut terminal);
        is_served(&mut terminal, child);
        for word in ["one", "two"] {
            std::fs::write(&go, format!("{word}\n")).unwrap();
            terminal.shows(&format!("heard {word}\r\n"));
        }
        ends(terminal, taskmaster);
    });
}

#[test]
fn stopped_output_of_a_terminal_does_not_stop_the_supervision() {
    with_each_shell(HERD, |mut terminal| {
        let (taskmaster, child) = in_the_foreground(&mut terminal);
        terminal.types(CTRL_S);
        terminal.types("restart a\n");
        assert!(wait_gone(child, PATIENCE), "the command is carried out all the same");
        terminal.types(CTRL_Q);
        terminal.shows("ok: restart a: accepted");
        ends(terminal, taskmaster);
    });
}
