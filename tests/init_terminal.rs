//! The init example at a terminal: a part of the job that a shell controls.

mod common;
#[path = "common/example.rs"]
mod example;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use common::terminal::{END_OF_FILE, INTERRUPT, SUSPEND, Terminal};
use common::{SOON, isolated, processes, root_or_skip, skipped, wait_gone, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// The shells that control the jobs, without anything that they read at their start.
const SHELLS: [&[&str]; 2] = [&["bash", "--norc", "--noprofile", "--noediting", "-i"], &["dash", "-i"]];

/// A shell with job control at a terminal of its own. In its lines `$INIT` is init.
struct Session {
    terminal: Terminal,
    shell: Child,
}

impl Session {
    fn begin(init: &Path, shell: &[&str]) -> Session {
        let mut terminal = Terminal::new();
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .env("INIT", init)
            // Its lines do not go to a file of the account.
            .env("HISTFILE", "")
            .env("PS1", "")
            .env("PS2", "");
        command.env_remove("ENV").env_remove("BASH_ENV");
        terminal.lead(&mut command);
        let shell = command.spawn().unwrap();
        terminal.type_line("echo shell-$((1 + 1))-ready");
        terminal.expect("shell-2-ready", SOON);
        Session { terminal, shell }
    }

    fn type_line(&self, line: &str) {
        self.terminal.type_line(line);
    }

    fn type_text(&self, text: &str) {
        self.terminal.type_text(text);
    }

    fn expect(&mut self, text: &str) -> String {
        self.terminal.expect(text, SOON)
    }

    /// Reads `init-N-command-N-`, which a script writes by [`SAY_PIDS`].
    fn expect_pids(&mut self) -> (u32, u32) {
        self.expect("init-");
        let init = self.expect("-command-").parse().unwrap();
        (init, self.expect("-").parse().unwrap())
    }

    /// Waits until the shell has the terminal and reads from it.
    fn expect_prompt(&mut self) {
        self.until_foreground(self.shell.id());
        self.type_line("echo prompt-$((2 + 2))-");
        self.expect("prompt-4-");
    }

    fn until_foreground(&self, group: u32) {
        wait_until("it is in the foreground", SOON, || {
            self.terminal.foreground() == Some(group)
        });
    }

    fn end(mut self) {
        self.type_line("exit");
        assert!(
            wait_gone(self.shell.id(), SOON),
            "{}",
            processes::describe(self.shell.id())
        );
        self.shell.wait().unwrap();
    }
}

/// What a script says for [`Session::expect_pids`].
const SAY_PIDS: &str = "echo init-$PPID-command-$$-";

/// Runs a test in each shell there is.
fn in_shells(body: impl Fn(&mut Session)) {
    // Built outside as well, where the watchdog does not count the time.
    let init = example::binary("init");
    isolated(|| {
        for shell in SHELLS {
            if Command::new(shell[0]).args(["-c", ":"]).status().is_err() {
                skipped(&format!("needs the shell {}", shell[0]));
                continue;
            }
            println!("in {}", shell[0]);
            let mut session = Session::begin(init, shell);
            body(&mut session);
            session.end();
        }
    });
}

fn is_stopped(pid: u32) -> bool {
    processes::state(pid) == Some('T')
}

fn until_stopped(pids: &[u32]) {
    wait_until("they are stopped", SOON, || pids.iter().all(|&pid| is_stopped(pid)));
}

fn until_going_on(pids: &[u32]) {
    wait_until("they go on", SOON, || !pids.iter().any(|&pid| is_stopped(pid)));
}

/// Waits until a child of this process runs this program, and returns the child. A shell that has not got so far may
/// miss a signal, or wait in vfork(2) for a child that has stopped before its exec.
fn until_it_runs(parent: u32, program: &str) -> u32 {
    let mut child = 0;
    wait_until("it runs", SOON, || {
        child = only_child(parent);
        fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim_end() == program)
    });
    child
}

/// The child of this process; 0 if there is none.
fn only_child(parent: u32) -> u32 {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.trim().parse().unwrap_or(0)
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn a_job_in_the_background_leaves_the_terminal_to_the_shell() {
    in_shells(|session| {
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; exec sleep 1000' &"));
        let (init, command) = session.expect_pids();
        session.expect_prompt();
        assert_eq!(session.terminal.foreground(), Some(session.shell.id()));
        assert!(!is_stopped(init) && !is_stopped(command));
        session.type_line("kill %1; wait %1; echo ended-$?-");
        session.expect("ended-143-");
        assert_eq!(session.terminal.foreground(), Some(session.shell.id()));
    });
}

#[test]
fn a_script_reads_the_terminal_after_init() {
    in_shells(|session| {
        // Also when the command has had the terminal and could not be started, or was killed.
        for command in [
            "true",
            "/no/such/program",
            "sh -c \"kill -9 \\$\\$\"",
            "sh -c \"read line; echo \\$line\"",
        ] {
            session.type_line(&format!(
                "sh -c '$INIT {command}; echo over; read line; echo script-$line-'"
            ));
            if command.contains("read") {
                session.type_line("to the command");
                session.expect("to the command");
            }
            session.expect("over");
            session.type_line("read");
            session.expect("script-read-");
            session.expect_prompt();
        }
    });
}

#[test]
fn the_command_reads_and_writes_the_terminal_in_the_foreground() {
    in_shells(|session| {
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; read line; echo got-$line-'"));
        let (_, command) = session.expect_pids();
        assert_eq!(session.terminal.foreground(), Some(command));
        session.type_line("this");
        session.expect("got-this-");
        session.expect_prompt();
    });
}

#[test]
fn a_typed_stop_stops_the_whole_job_and_the_shell_continues_it() {
    in_shells(|session| {
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; cat; echo cat-ended-'"));
        let (init, command) = session.expect_pids();
        session.until_foreground(command);
        let cat = until_it_runs(command, "cat");
        for _ in 0..2 {
            session.type_text(SUSPEND);
            until_stopped(&[init, command, cat]);
            session.expect_prompt();
            session.type_line("fg");
            session.until_foreground(command);
            until_going_on(&[init, command, cat]);
            session.type_line("to cat");
            session.expect("to cat\r\n");
        }
        session.type_text(END_OF_FILE);
        session.expect("cat-ended-");
        session.expect_prompt();
    });
}

#[test]
fn a_typed_stop_stops_the_script_that_runs_init_as_well() {
    in_shells(|session| {
        let say = SAY_PIDS.replace('$', "\\$");
        session.type_line(&format!(
            "sh -c '$INIT sh -c \"{say}; read line; echo got-\\$line-\"; echo script-over-'"
        ));
        let (init, command) = session.expect_pids();
        session.until_foreground(command);
        session.type_text(SUSPEND);
        until_stopped(&[init, command]);
        session.expect_prompt();
        session.type_line("fg");
        session.until_foreground(command);
        session.type_line("this");
        session.expect("got-this-");
        session.expect("script-over-");
        session.expect_prompt();
    });
}

#[test]
fn a_stopped_job_goes_on_in_the_background() {
    in_shells(|session| {
        session.type_line(&format!(
            "$INIT sh -c 'trap \"exit 5\" USR1; {SAY_PIDS}; sleep 1000 & wait'"
        ));
        let (init, command) = session.expect_pids();
        session.until_foreground(command);
        until_it_runs(command, "sleep");
        session.type_text(SUSPEND);
        until_stopped(&[init, command]);
        session.expect_prompt();
        session.type_line("bg");
        until_going_on(&[init, command]);
        session.expect_prompt();
        session.type_line("kill -USR1 %1; wait %1; echo ended-$?-");
        session.expect("ended-5-");
        session.expect_prompt();
    });
}

#[test]
fn a_job_in_the_background_that_reads_stops_until_it_is_in_the_foreground() {
    in_shells(|session| {
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; read line; echo got-$line-' &"));
        let (init, command) = session.expect_pids();
        until_stopped(&[init, command]);
        session.expect_prompt();
        session.type_line("fg");
        session.until_foreground(command);
        session.type_line("this");
        session.expect("got-this-");
        session.expect_prompt();
    });
}

#[test]
fn a_running_job_that_is_brought_to_the_foreground_gets_the_terminal_when_it_reads() {
    in_shells(|session| {
        let script = "trap \"read line; echo got-\\$line-; exit\" USR1";
        session.type_line(&format!("$INIT sh -c '{script}; {SAY_PIDS}; sleep 1000 & wait' &"));
        let (init, command) = session.expect_pids();
        session.expect_prompt();
        // No shell sends SIGCONT to a job that runs.
        session.type_line("fg");
        session.until_foreground(init);
        send(init, Signal::USR1);
        session.type_line("this");
        session.expect("got-this-");
        assert!(wait_gone(command, SOON));
        session.expect_prompt();
    });
}

#[test]
fn others_of_a_pipeline_keep_the_terminal() {
    in_shells(|session| {
        // Init's standard output, or its input, is not the terminal.
        session.type_line("$INIT true | sh -c 'cat; read line </dev/tty; echo reader-$line-'");
        session.type_line("this");
        session.expect("reader-this-");
        session.expect_prompt();
        session.type_line("sh -c 'echo writer; read line </dev/tty; echo writer-$line-' | $INIT cat");
        session.expect("writer\r\n");
        session.type_line("that");
        session.expect("writer-that-");
        session.expect_prompt();
        // And init's command has it when it reads.
        session.type_line("$INIT sh -c 'read line; echo got-$line-' | cat");
        session.type_line("too");
        session.expect("got-too-");
        session.expect_prompt();
    });
}

#[test]
fn what_is_typed_ends_all_of_a_pipeline() {
    in_shells(|session| {
        // The shell of the command would wait for its sleep.
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; sleep 1000; echo not-reached' | cat"));
        let (init, command) = session.expect_pids();
        until_it_runs(command, "sleep");
        session.type_text(INTERRUPT);
        assert!(wait_gone(command, SOON) && wait_gone(init, SOON));
        session.expect_prompt();
    });
}

#[test]
fn what_is_typed_ends_the_command_and_its_status_tells() {
    in_shells(|session| {
        session.type_line(&format!("$INIT sh -c '{SAY_PIDS}; sleep 1000; echo not-reached'"));
        let (_, command) = session.expect_pids();
        session.until_foreground(command);
        until_it_runs(command, "sleep");
        session.type_text(INTERRUPT);
        session.type_line("echo ended-$?-");
        session.expect("ended-130-");
        session.expect_prompt();
    });
}

#[test]
fn at_a_terminal_that_is_not_the_controlling_one_it_runs() {
    let init = example::binary("init");
    isolated(|| {
        // The session has no terminal at all, or it has another one.
        for controlling in [None, Some(Terminal::new())] {
            let mut terminal = Terminal::new();
            let mut shell = Command::new("sh");
            let script = "exec \"$INIT\" sh -c 'echo it-runs; read line; echo got-$line-; exit 3' <\"$0\" >\"$0\" 2>&1";
            shell.args(["-c", script]).arg(terminal.path()).env("INIT", init);
            match &controlling {
                None => terminal.connect(&mut shell),
                Some(controlling) => controlling.lead(&mut shell),
            }
            let mut init = shell.spawn().unwrap();
            terminal.expect("it-runs", SOON);
            terminal.type_line("this");
            terminal.expect("got-this-", SOON);
            assert!(wait_gone(init.id(), SOON));
            assert_eq!(init.wait().unwrap().code(), Some(3));
        }
    });
}

#[test]
fn as_the_leader_of_the_session_it_stops_and_goes_on_with_its_command() {
    let init = example::binary("init");
    isolated(|| {
        let mut terminal = Terminal::new();
        let mut command = Command::new(init);
        command.args(["sh", "-c", &format!("{SAY_PIDS}; read line; echo got-$line-; exit 4")]);
        terminal.lead(&mut command);
        let mut init = command.spawn().unwrap();
        terminal.expect("-command-", SOON);
        let command: u32 = terminal.expect("-", SOON).parse().unwrap();
        terminal.type_text(SUSPEND);
        until_stopped(&[init.id(), command]);
        assert_eq!(terminal.foreground(), Some(init.id()));
        send(init.id(), Signal::CONT);
        wait_until("it has the terminal", SOON, || terminal.foreground() == Some(command));
        terminal.type_line("this");
        terminal.expect("got-this-", SOON);
        assert!(wait_gone(init.id(), SOON));
        assert_eq!(init.wait().unwrap().code(), Some(4));
    });
}

/// Starts init as PID 1 of a PID namespace; `None`, said aloud, where that is not possible.
fn pid_1(terminal: &Terminal, init: &Path, options: &[&str], before: &[&str]) -> Option<Child> {
    if !root_or_skip("it makes PID namespaces") {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    let script = format!("{SAY_PIDS}; while read line; do echo got-$line-; done; echo over; exit 6");
    command.args(before).arg(init).args(options).args(["sh", "-c", &script]);
    if before.is_empty() {
        terminal.lead(&mut command);
    } else {
        terminal.connect(&mut command);
    }
    command
        .spawn()
        .map_err(|error| skipped(&format!("unshare of util-linux: {error}")))
        .ok()
}

#[test]
fn as_pid_1_of_a_session_it_has_the_terminal_and_a_typed_stop_has_no_effect() {
    let init = example::binary("init");
    isolated(|| {
        let mut terminal = Terminal::new();
        let Some(mut unshare) = pid_1(&terminal, init, &[], &["setsid", "--ctty"]) else {
            return;
        };
        terminal.expect("init-1-command-", SOON);
        for line in ["this", "that"] {
            terminal.type_text(SUSPEND);
            terminal.type_line(line);
            terminal.expect(&format!("got-{line}-"), SOON);
        }
        terminal.type_text(END_OF_FILE);
        terminal.expect("over", SOON);
        assert!(wait_gone(unshare.id(), SOON));
        assert_eq!(unshare.wait().unwrap().code(), Some(6));
    });
}

#[test]
fn as_pid_1_in_the_process_group_of_another_namespace_its_command_has_the_terminal() {
    let init = example::binary("init");
    isolated(|| {
        for options in [&[][..], &["-g"]] {
            let mut terminal = Terminal::new();
            let Some(mut unshare) = pid_1(&terminal, init, options, &[]) else {
                return;
            };
            terminal.expect("init-1-command-", SOON);
            terminal.type_line("this");
            terminal.expect("got-this-", SOON);
            terminal.type_text(END_OF_FILE);
            terminal.expect("over", SOON);
            assert!(wait_gone(unshare.id(), SOON));
            assert_eq!(unshare.wait().unwrap().code(), Some(6));
        }
    });
}

#[test]
fn as_pid_1_in_the_job_of_a_shell_it_is_stopped_and_continued_with_the_job() {
    if std::env::var_os(common::MARKER).is_some() && !root_or_skip("it makes PID namespaces") {
        return isolated(|| {});
    }
    in_shells(|session| {
        let namespace = "unshare --pid --fork --mount-proc --kill-child";
        session.type_line(&format!(
            "{namespace} $INIT sh -c '{SAY_PIDS}; read line; echo got-$line-; exit 6'"
        ));
        session.expect_pids();
        let unshare = only_child(session.shell.id());
        let command = only_child(only_child(unshare));
        session.type_text(SUSPEND);
        until_stopped(&[unshare, command]);
        session.expect_prompt();
        session.type_line("fg");
        until_going_on(&[unshare, command]);
        session.type_line("this");
        session.expect("got-this-");
        session.type_line("echo ended-$?-");
        session.expect("ended-6-");
        // Nothing of the namespace has kept the terminal from a script.
        session.type_line(&format!(
            "sh -c '{namespace} $INIT true; read line; echo script-$line-'"
        ));
        session.type_line("that");
        session.expect("script-that-");
        session.expect_prompt();
    });
}

#[test]
fn without_a_terminal_stop_signals_stop_both_and_sigcont_continues_both() {
    let init = example::binary("init");
    isolated(|| {
        for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
            let mut init = Command::new(init).args(["sleep", "1000"]).spawn().unwrap();
            let command = until_it_runs(init.id(), "sleep");
            send(init.id(), signal);
            until_stopped(&[init.id(), command]);
            assert!(!is_stopped(std::process::id()));
            send(init.id(), Signal::CONT);
            until_going_on(&[init.id(), command]);
            // Stopped by itself, and not by way of init.
            send(command, Signal::STOP);
            until_stopped(&[init.id(), command]);
            send(init.id(), Signal::CONT);
            until_going_on(&[init.id(), command]);
            send(init.id(), Signal::TERM);
            assert!(wait_gone(init.id(), SOON));
            assert_eq!(init.wait().unwrap().code(), Some(128 + libc::SIGTERM));
        }
    });
}
