//! The init example and its command: the command line, what the command inherits, where signals go, how init ends.

mod common;
#[path = "common/example.rs"]
mod example;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{SOON, TempDir, isolated, patience, processes, root_or_skip, skipped, tempdir, wait_gone, wait_until};
use pidherd::Signal;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, kill_process};

/// Runs a test with the example's binary, in a process of its own.
fn with_init(body: impl FnOnce(&Path)) {
    // Built outside, where the watchdog does not count the time.
    let init = example::binary("init");
    isolated(|| body(init));
}

fn run(init: &Path, arguments: &[&str]) -> Output {
    Command::new(init)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a process has written, both streams.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A running init, the lines of its command, and what the command reads.
struct Running {
    init: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut init = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(init.stdout.take().unwrap()).lines();
        Running { init, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").unwrap()
    }

    fn send(&self, signal: rustix::process::Signal) {
        kill_process(Pid::from_child(&self.init), signal).unwrap();
    }

    /// Waits for its end; the status that a shell would show.
    fn status(mut self) -> Option<i32> {
        assert!(
            wait_gone(self.init.id(), SOON),
            "{}",
            processes::describe(self.init.id())
        );
        self.init.wait().unwrap().code()
    }
}

/// A directory with files that cannot be executed, each for another reason.
fn unexecutable() -> TempDir {
    let directory = tempdir();
    let file = |name: &str, content: &str, mode| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    file("forbidden", "#!/bin/sh\n", 0o644);
    file("garbage", "\x7fELF and nothing more", 0o755);
    file("interpreter", "#!/no/such/interpreter\n", 0o755);
    symlink("loop", directory.join("loop")).unwrap();
    directory
}

#[test]
fn a_program_that_is_not_found_is_127_and_one_that_cannot_be_executed_is_126() {
    with_init(|init| {
        let directory = unexecutable();
        let too_long = "x".repeat(300);
        for (program, status) in [
            ("missing", 127),
            ("forbidden/below", 127),
            ("loop", 127),
            ("interpreter", 127),
            (&too_long, 127),
            ("forbidden", 126),
            ("garbage", 126),
            (".", 126),
        ] {
            let output = run(init, &[directory.join(program).to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(status), "{program}: {}", said(&output));
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.starts_with("init: ") && text.lines().count() == 1, "{text}");
        }
        // Searched for in PATH, in which one entry is no directory.
        for (program, status) in [("missing", 127), ("forbidden", 126)] {
            let path = format!("/no/such:{0}:{0}/forbidden", directory.path().display());
            let output = Command::new(init).arg(program).env("PATH", path).output().unwrap();
            assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        }
    });
}

/// Writers that refuse what is written to them.
fn refusing() -> Vec<(&'static str, OwnedFd)> {
    let (reader, no_reader) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    let (full_reader, full) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    while rustix::io::write(&full, &[0; 4096]).is_ok() {}
    let device = OpenOptions::new().write(true).open("/dev/full").unwrap();
    vec![
        ("without a reader", no_reader),
        ("a full device", device.into()),
        ("a full pipe", full),
        ("a stream for reading", full_reader),
    ]
}

#[test]
fn a_standard_error_that_takes_nothing_changes_no_status() {
    with_init(|init| {
        for (what, stream) in &refusing() {
            for (arguments, status) in [
                (&["/no/such/program"][..], 127),
                (&["/etc"], 126),
                (&["--no-such-option"], 125),
                (&[], 125),
                (&["sh", "-c", "exit 7"], 7),
            ] {
                let mut command = Command::new(init);
                command.args(arguments).stderr(stream.try_clone().unwrap());
                assert_eq!(command.status().unwrap().code(), Some(status), "{what}: {arguments:?}");
            }
            // The standard library takes a stream that is not for writing as one that is closed.
            if *what == "a stream for reading" {
                continue;
            }
            let mut help = Command::new(init);
            help.arg("--help")
                .stdout(stream.try_clone().unwrap())
                .stderr(Stdio::null());
            assert_eq!(help.status().unwrap().code(), Some(125), "{what}");
        }
        // No stream is open at all.
        let closed = |script| {
            Command::new("sh")
                .args(["-c", script])
                .env("INIT", init)
                .status()
                .unwrap()
        };
        assert_eq!(closed("exec $INIT /no/such/program <&- >&- 2>&-").code(), Some(127));
        assert_eq!(closed("exec $INIT sh -c 'exit 7' <&- >&- 2>&-").code(), Some(7));
    });
}

#[test]
fn a_wrong_command_line_shows_the_usage_and_is_125() {
    with_init(|init| {
        for (arguments, words) in [
            (&[][..], "no command is given"),
            (&["--"], "no command is given"),
            (&["-g"], "no command is given"),
            (&["-x", "true"], "unknown option \"-x\""),
            (&["-gx", "true"], "unknown option \"-x\""),
            (&["--group", "true"], "unknown option \"--group\""),
            (&["-p"], "option -p needs a value"),
            (&["-p", "NOPE", "true"], "option -p: there is no signal \"NOPE\""),
            (&["-p0", "true"], "option -p: there is no signal \"0\""),
            (&["-t"], "option -t needs a value"),
            (&["-t", "soon", "true"], "option -t: \"soon\" is no number of seconds"),
            (&["-t-1", "true"], "option -t: \"-1\" is no number of seconds"),
        ] {
            let output = run(init, arguments);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{arguments:?}: {text}");
            assert!(text.contains(words), "{arguments:?}: {text}");
            assert!(
                text.contains("usage: init COMMAND") && text.lines().count() == 1,
                "{text}"
            );
            assert!(output.stdout.is_empty());
        }
    });
}

#[test]
fn options_end_at_two_dashes_and_at_the_command() {
    with_init(|init| {
        for help in ["--help", "-h", "-gh"] {
            let output = run(init, &[help, "false"]);
            assert!(output.status.success() && output.stderr.is_empty());
            assert!(
                said(&output).starts_with("usage: init [OPTION...]"),
                "{}",
                said(&output)
            );
        }
        let version = format!("init (pidherd) {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(said(&run(init, &["--version"])), version);
        for arguments in [
            &["echo", "--help", "-g", "--"][..],
            &["--", "echo", "--help", "-g", "--"],
            &["-g", "-pTERM", "-t", "0.5", "echo", "--help", "-g", "--"],
            &["-gp15", "-t1", "--", "echo", "--help", "-g", "--"],
        ] {
            let output = run(init, arguments);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert_eq!(said(&output), "--help -g --\n");
        }
        // A program with a name that looks like an option.
        let directory = tempdir();
        symlink("/bin/echo", directory.join("-g")).unwrap();
        let mut command = Command::new(init);
        command.args(["--", "-g", "it runs"]).env("PATH", directory.path());
        assert_eq!(said(&command.output().unwrap()), "it runs\n");
    });
}

/// The same as `exec`, with these signals ignored and these blocked, run by init or directly.
fn state_of_cat(init: Option<&Path>, ignored: &'static [Signal], blocked: &'static [Signal]) -> Vec<String> {
    let mut command = match init {
        Some(init) => Command::new(init),
        None => Command::new("env"),
    };
    command.args(["cat", "/proc/self/status"]);
    let prepare = move || {
        for signal in ignored {
            // SAFETY: no handler is installed.
            unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
        }
        for signal in blocked {
            // SAFETY: the set is a local, made empty before the signal is added; no old mask is asked for.
            unsafe {
                let mut set = std::mem::zeroed::<libc::sigset_t>();
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, signal.as_raw());
                libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls on locals, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let wanted = ["SigBlk:", "SigIgn:", "SigCgt:", "Umask:"];
    let text = said(&output);
    let lines = text
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(without_the_c_librarys_own).collect()
}

/// A set of signals without 32 and 33, which this test may have been started with, and which init does not pass on.
fn without_the_c_librarys_own(line: &str) -> String {
    let (name, set) = line.split_once(":\t").unwrap();
    let set = u64::from_str_radix(set, 16).unwrap() & !(1 << 31 | 1 << 32);
    format!("{name}: {set:x}")
}

#[test]
fn the_command_has_the_mask_and_the_ignored_signals_that_init_was_started_with() {
    with_init(|init| {
        const SOME: &[Signal] = &[
            Signal::HUP,
            Signal::PIPE,
            Signal::TERM,
            Signal::CHLD,
            Signal::TSTP,
            Signal::TTOU,
        ];
        const NONE: &[Signal] = &[];
        for (ignored, blocked) in [
            (NONE, NONE),
            (SOME, NONE),
            (NONE, SOME),
            (SOME, SOME),
            (&SOME[..1], &SOME[1..]),
        ] {
            let direct = state_of_cat(None, ignored, blocked);
            assert_eq!(direct.len(), 4);
            assert_eq!(state_of_cat(Some(init), ignored, blocked), direct);
        }
    });
}

#[test]
fn a_command_under_nohup_survives_what_init_passes_on() {
    with_init(|init| {
        let mut nohup = Command::new("nohup");
        nohup.arg(init).args(["sh", "-c", "echo ready; read line; exit 8"]);
        let mut running = Running::start(nohup.stderr(Stdio::null()));
        assert_eq!(running.line(), "ready");
        running.send(rustix::process::Signal::HUP);
        writeln!(running.init.stdin.take().unwrap()).unwrap();
        assert_eq!(running.status(), Some(8));
    });
}

#[test]
fn a_parent_that_ignores_sigchld_loses_no_status() {
    with_init(|init| {
        let ignore = || {
            // SAFETY: no handler is installed.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        for (script, status) in [("exit 7", 7), ("kill -9 $$", 137), ("(exit 3 &); exit 5", 5)] {
            let mut command = Command::new(init);
            command.args(["sh", "-c", script]);
            // SAFETY: between fork and exec it makes one system call.
            unsafe { command.pre_exec(ignore) };
            assert_eq!(command.status().unwrap().code(), Some(status), "{script}");
        }
    });
}

#[test]
fn the_command_has_the_descriptors_and_the_directory_that_init_lets_go() {
    with_init(|init| {
        let directory = tempdir();
        fs::write(directory.join("file"), "a line\n").unwrap();
        let files = [7, 40].map(|number| (number, File::open(directory.join("file")).unwrap()));
        let mut command = Command::new(init);
        let script = "pwd; cat /dev/fd/7 /dev/fd/40; echo $PPID; read line; exit 4";
        command.args(["sh", "-c", script]).current_dir(directory.path());
        let pass = move || {
            for (number, file) in &files {
                // SAFETY: the file is open, and the number is one of the child's own table.
                unsafe { libc::dup2(file.as_raw_fd(), *number) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls on numbers, and allocates nothing.
        unsafe { command.pre_exec(pass) };
        let mut running = Running::start(&mut command);
        assert_eq!(running.line(), directory.path().to_str().unwrap());
        assert_eq!(
            (running.line(), running.line()),
            ("a line".to_owned(), "a line".to_owned())
        );
        assert_eq!(running.line(), running.init.id().to_string());
        // Init itself holds neither.
        let of_init = |name: &str| format!("/proc/{}/{name}", running.init.id());
        wait_until("init is at the root", SOON, || {
            fs::read_link(of_init("cwd")).is_ok_and(|path| path == Path::new("/"))
        });
        for entry in fs::read_dir(of_init("fd")).unwrap() {
            let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
            assert!(!target.starts_with(directory.path()), "{}", target.display());
        }
        writeln!(running.init.stdin.take().unwrap()).unwrap();
        assert_eq!(running.status(), Some(4));
    });
}

/// A line for each variable that a service manager sets, and whether the pid in it is that of the shell.
const SERVICE: &str = "echo $NOTIFY_SOCKET $WATCHDOG_USEC $LISTEN_FDS $LISTEN_FDNAMES; \
                       [ \"$LISTEN_PID\" = $$ ] && echo mine; cat /dev/fd/3";

#[test]
fn what_a_service_manager_tells_init_is_for_the_command() {
    with_init(|init| {
        let directory = tempdir();
        fs::write(directory.join("file"), "of the socket\n").unwrap();
        let mut shell = Command::new("sh");
        let script = "export LISTEN_PID=$$; exec \"$INIT\" sh -c \"$0\" 3<file";
        shell
            .args(["-c", script, SERVICE])
            .env("INIT", init)
            .current_dir(directory.path());
        shell.envs([
            ("NOTIFY_SOCKET", "@x"),
            ("WATCHDOG_USEC", "5"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_FDNAMES", "web"),
        ]);
        assert_eq!(said(&shell.output().unwrap()), "@x 5 1 web\nmine\nof the socket\n");
    });
}

/// Two shells in one process group, which say their names when they get SIGUSR1. The inner one ends then; the outer one
/// when it gets SIGTERM.
const TWO: &str = "trap 'echo outer' USR1; trap 'exit 6' TERM
                   sh -c \"trap 'echo inner; exit' USR1; echo ready; while :; do :; done\" &
                   while :; do :; done";

#[test]
fn signals_go_to_the_command_alone_or_to_its_process_group() {
    with_init(|init| {
        use rustix::process::Signal;
        for options in [&[][..], &["-g"]] {
            let mut running = Running::start(Command::new(init).args(options).args(["sh", "-c", TWO]));
            assert_eq!(running.line(), "ready");
            running.send(Signal::USR1);
            let mut names = vec![running.line()];
            if options.is_empty() {
                // The inner one would have spoken before the outer one speaks again.
                running.send(Signal::USR1);
            }
            names.push(running.line());
            names.sort();
            let expected = if options.is_empty() {
                ["outer", "outer"]
            } else {
                ["inner", "outer"]
            };
            assert_eq!(names, expected);
            running.send(Signal::TERM);
            assert_eq!(running.status(), Some(6));
        }
        // What has left the group is not concerned: it ends with what remains when the command has ended.
        let script = "echo ready; while :; do :; done";
        let mut running = Running::start(Command::new(init).args(["-g", "setsid", "-w", "sh", "-c", script]));
        assert_eq!(running.line(), "ready");
        running.send(Signal::TERM);
        assert_eq!(running.status(), Some(128 + 15));
    });
}

/// Processes that stay when the command has ended: in the command's group, in a session of their own, stopped, and
/// born twice. Each says when it gets SIGTERM.
const REST: &str = r#"
    stay="trap 'echo term; exit' TERM; echo ready; while :; do :; done"
    sh -c "$stay" &
    setsid sh -c "$stay" &
    sh -c "trap 'echo term; exit' TERM; echo ready; kill -STOP \$\$; while :; do :; done" &
    (setsid sh -c "$stay" &)
    read line
    exit 3
"#;

/// Runs init as a subreaper, and as PID 1 where that is possible.
fn in_both_ways(init: &Path, run: impl Fn(Command)) {
    run(Command::new(init));
    if root_or_skip("it makes PID namespaces") {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        match unshare.arg("true").stderr(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            other => return skipped(&format!("unshare of util-linux: {other:?}")),
        }
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"])
            .arg(init);
        run(unshare);
    }
}

#[test]
fn what_remains_gets_sigterm_and_time() {
    with_init(|init| {
        in_both_ways(init, |mut command| {
            let mut running = Running::start(command.args(["-t", "1000", "sh", "-c", REST]));
            for _ in 0..4 {
                assert_eq!(running.line(), "ready");
            }
            writeln!(running.init.stdin.take().unwrap()).unwrap();
            for _ in 0..4 {
                assert_eq!(running.line(), "term");
            }
            assert_eq!(running.status(), Some(3));
        });
    });
}

#[test]
fn what_remains_in_spite_of_sigterm_is_killed() {
    with_init(|init| {
        in_both_ways(init, |mut command| {
            let script = r#"
                stay="trap '' TERM; echo ready; while :; do sleep 1000; done"
                sh -c "$stay" &
                (setsid sh -c "$stay" &)
                read line; kill -9 $$"#;
            let mut running = Running::start(command.args(["-t0.1", "sh", "-c", script]));
            assert_eq!(
                (running.line(), running.line()),
                ("ready".to_owned(), "ready".to_owned())
            );
            let began = Instant::now();
            writeln!(running.init.stdin.take().unwrap()).unwrap();
            assert_eq!(running.status(), Some(137));
            assert!(began.elapsed() >= Duration::from_millis(100));
        });
    });
}

#[test]
fn what_remains_gets_the_signals_that_come_meanwhile() {
    with_init(|init| {
        let script = "(trap '' TERM; trap 'echo got; exit' USR1; echo ready; while :; do :; done) & read line; exit 3";
        let mut running = Running::start(Command::new(init).args(["-t", "1000", "sh", "-c", script]));
        assert_eq!(running.line(), "ready");
        let command = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.init.id())).unwrap();
        let command = command.trim().parse().unwrap();
        writeln!(running.init.stdin.take().unwrap()).unwrap();
        wait_until("the command is reaped", SOON, || processes::state(command).is_none());
        running.send(rustix::process::Signal::USR1);
        assert_eq!(running.line(), "got");
        assert_eq!(running.status(), Some(3));
    });
}

#[test]
fn a_crowd_of_orphans_in_sessions_of_their_own_leaves_nothing() {
    if patience() > 1 {
        return skipped(
            "init gives up after two seconds of SIGKILL, which are too few for this storm on a slow machine",
        );
    }
    with_init(|init| {
        in_both_ways(init, |mut command| {
            // Five storms of sessions that end and of sessions that leave a sleeper behind; the command ends in the
            // middle of them. A storm starts at most 800 sessions that end and leaves at most 300 sleepers: if init gets too
            // little of the processors to reap them in time, their zombies still leave PIDs for the other tests.
            let script = "
                storm() {
                    n=0
                    while [ $n -lt 800 ]; do
                        n=$((n+1)); (setsid sh -c 'exit 1' &)
                        [ $n -gt 300 ] || (setsid sh -c 'sh -c \"sleep 1000\" &' &)
                    done
                }
                n=0; while [ $n -lt 5 ]; do storm & n=$((n+1)); done
                n=0; while [ $n -lt 100 ]; do sh -c 'exit 1'; n=$((n+1)); done
                exit 9";
            let status = command
                .args(["-t", "0.2", "sh", "-c", script])
                .stdin(Stdio::null())
                .status();
            assert_eq!(status.unwrap().code(), Some(9));
        });
    });
}

#[test]
fn the_death_of_the_parent_is_passed_on() {
    with_init(|init| {
        for signal in ["USR1", "KILL"] {
            let command = "trap 'exit' USR1; echo $$; while :; do :; done";
            let script = "\"$INIT\" -p $0 sh -c \"$1\" & echo $!; wait";
            let mut shell = Command::new("sh");
            shell.args(["-c", script, signal, command]).env("INIT", init);
            let mut running = Running::start(&mut shell);
            let both: Vec<u32> = (0..2).map(|_| running.line().parse().unwrap()).collect();
            running.send(rustix::process::Signal::KILL);
            assert!(both.iter().all(|&pid| wait_gone(pid, SOON)));
            assert_eq!(running.status(), None);
        }
    });
}

#[test]
fn the_command_gets_the_signal_when_init_is_killed() {
    with_init(|init| {
        let script = "trap 'echo got; exit' USR1; echo $$; while :; do :; done";
        let mut running = Running::start(Command::new(init).args(["-p", "usr1", "sh", "-c", script]));
        let command = running.line().parse().unwrap();
        running.send(rustix::process::Signal::KILL);
        assert_eq!(running.line(), "got");
        assert!(wait_gone(command, SOON));
        assert_eq!(running.status(), None);
    });
}

#[test]
fn a_signal_that_comes_too_late_changes_no_status() {
    with_init(|init| {
        for _ in 0..50 {
            let mut running = Running::start(Command::new(init).args(["sh", "-c", "echo over; exit 5"]));
            assert_eq!(running.line(), "over");
            // The shell ends at this moment; it is hit, or init is when it has gone.
            while processes::state(running.init.id()).is_some_and(|state| state != 'Z') {
                running.send(rustix::process::Signal::WINCH);
                running.send(rustix::process::Signal::USR1);
            }
            let status = running.status();
            assert!(matches!(status, Some(5 | 138)), "{status:?}");
        }
    });
}
