//! Whole runs of a command: input, output, limits, and the stop of a child.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use pidherd::{Command, Exit, Output, PidFd, Signal, SpawnError, SpawnStep, Stdio, StillAlive};

use crate::common::{SOON, isolated, patience, tempdir, wait_readable, wait_until};
use crate::helpers::sh;

const MIB: usize = 1024 * 1024;
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(1_000);

fn text(output: &Output) -> (&str, &str) {
    (
        std::str::from_utf8(&output.stdout).unwrap(),
        std::str::from_utf8(&output.stderr).unwrap(),
    )
}

/// Bytes that differ at every place, so that a lost or moved part is noticed.
fn pattern(length: usize) -> Vec<u8> {
    (0..length / 8 + 1).flat_map(usize::to_ne_bytes).take(length).collect()
}

#[test]
fn input_and_output_of_any_size_do_not_block_each_other() {
    isolated(|| {
        for size in [0, 1, 4_096, 65_536, 65_537, 9 * MIB] {
            let input = pattern(size);
            // Every byte comes back through both streams.
            let output = sh("tee /dev/stderr").exchange().input(input.clone()).run().unwrap();
            assert!(output.stdout == input && output.stderr == input, "{size}");
            assert_eq!(
                (output.input_written, output.is_truncated(), output.left_open),
                (size, false, false)
            );
            assert!(output.success() && !output.timed_out && !output.forced);
        }
        // One stream is filled before the other has anything, and before the input is read.
        let script = "head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero; cat";
        let output = sh(script).exchange().input(pattern(3 * MIB)).run().unwrap();
        assert_eq!(
            (output.stderr.len(), output.stdout.len()),
            (3_000_000, 3_000_000 + 3 * MIB)
        );
    });
}

#[test]
fn a_program_that_does_not_read_its_input_is_no_error() {
    isolated(|| {
        for script in ["exit 3", "head -c 1 >/dev/null; exit 3", "exec <&-; sleep 0.05; exit 3"] {
            let output = sh(script).exchange().input(pattern(MIB)).run().unwrap();
            assert_eq!(output.record.exit, Exit::Code(3), "{script}");
            assert!(output.input_written < MIB, "{script}");
        }
    });
}

/// The pending signals of this thread and its process.
fn pending(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let has = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    };
    has("SigPnd:") || has("ShdPnd:")
}

#[test]
fn a_closed_input_raises_no_signal_in_the_host() {
    isolated(|| {
        // SAFETY: this process has no handler of its own for the signal.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let command = sh("exec <&-; sleep 0.05");
        let exchange = || command.exchange().input(pattern(MIB)).run().unwrap();
        // The process would end here.
        assert!(exchange().success());
        let set = pidherd::SignalSet::EMPTY.with(Signal::PIPE);
        let guard = pidherd::MaskGuard::block(set).unwrap();
        assert!(exchange().success());
        assert!(!pending(Signal::PIPE));
        // SAFETY: the signal is blocked.
        unsafe { libc::raise(libc::SIGPIPE) };
        assert!(exchange().success());
        assert!(pending(Signal::PIPE), "the host's own signal was taken");
        let signals = pidherd::SignalFd::new(set).unwrap();
        assert!(signals.read().unwrap().is_some());
        drop(guard);
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    });
}

#[test]
fn a_program_that_takes_too_long_is_stopped() {
    isolated(|| {
        let run = |script: &str, patience| {
            sh(script)
                .exchange()
                .time_limit(SHORT * 4)
                .stop(Signal::TERM, patience)
                .run()
                .unwrap()
        };
        let output = run("echo before; exec sleep 1000", LONG);
        assert_eq!(output.record.exit.signal(), Some(Signal::TERM));
        assert_eq!(
            (text(&output), output.timed_out, output.forced),
            (("before\n", ""), true, false)
        );
        // What it writes while it is being stopped is collected.
        let output = run(
            "trap 'echo bye; exit 5' TERM; echo before; while :; do sleep 0.01; done",
            LONG,
        );
        assert_eq!(
            (output.record.exit, text(&output)),
            (Exit::Code(5), ("before\nbye\n", ""))
        );
        assert!(output.timed_out && !output.forced);
        let output = run("trap '' TERM; echo before; while :; do sleep 0.01; done", SHORT);
        assert_eq!(output.record.exit.signal(), Some(Signal::KILL));
        assert_eq!(
            (text(&output), output.timed_out, output.forced),
            (("before\n", ""), true, true)
        );
        // A stopped process acts on the signal too.
        let output = run("kill -STOP $$", LONG);
        assert_eq!(
            (output.record.exit.signal(), output.forced),
            (Some(Signal::TERM), false)
        );
        // It neither reads nor writes.
        let command = Command::new("sleep").arg("1000");
        let output = command
            .exchange()
            .input(pattern(MIB))
            .time_limit(SHORT)
            .stop(Signal::KILL, LONG)
            .run()
            .unwrap();
        assert!(output.timed_out && output.forced && output.input_written < MIB);
        let output = sh("echo quick").exchange().time_limit(Duration::MAX).run().unwrap();
        assert_eq!((text(&output), output.timed_out), (("quick\n", ""), false));
        // So long a wait for its end cannot be added to the time.
        let output = run(
            "trap 'sleep 0.1; exit 6' TERM; while :; do sleep 0.01; done",
            Duration::MAX,
        );
        assert_eq!((output.record.exit, output.forced), (Exit::Code(6), false));
    });
}

/// Kills the process with the number that a script has printed.
fn kill_printed(output: &Output) {
    let left = PidFd::open(text(output).0.trim().parse().unwrap()).unwrap();
    left.signal(Signal::KILL).unwrap();
    // A zombie that init has not reaped yet has ended too.
    assert!(wait_readable(&left, SOON));
}

#[test]
fn another_process_with_the_pipe_holds_nothing_beyond_the_limit() {
    isolated(|| {
        let script = "sleep 1000 & echo $!; exit 6";
        let output = sh(script).exchange().time_limit(SHORT * 6).run().unwrap();
        assert_eq!(
            (output.record.exit, output.left_open, output.timed_out),
            (Exit::Code(6), true, false)
        );
        kill_printed(&output);
        let before = Instant::now();
        let output = sh(script).exchange().time_limit(LONG).linger(SHORT).run().unwrap();
        assert_eq!((output.record.exit, output.left_open), (Exit::Code(6), true));
        assert!(before.elapsed() < SOON * patience());
        kill_printed(&output);
        // The process itself is stopped, and the one behind it is not waited for.
        let output = sh("trap '' TERM; sleep 1000 & echo $!; trap - TERM; wait")
            .exchange()
            .time_limit(SHORT * 6)
            .run()
            .unwrap();
        assert_eq!(
            (output.record.exit.signal(), output.left_open, output.timed_out),
            (Some(Signal::TERM), true, true)
        );
        kill_printed(&output);
        // It writes without end, and what is in the pipe belongs to the result.
        let output =
            sh("(trap '' PIPE; exec sh -c 'echo $$; while echo x; do :; done' 2>/dev/null) & sleep 0.1; exit 0")
                .exchange()
                .time_limit(SHORT * 20)
                .output_limit(20)
                .run()
                .unwrap();
        assert!(output.left_open && output.stdout_truncated && output.success());
    });
}

#[test]
fn a_process_group_is_stopped_whole() {
    isolated(|| {
        let script = "(trap '' TERM; while :; do sleep 0.01; done) & sleep 1000 & wait";
        let command = sh(script).process_group(0);
        let output = command
            .exchange()
            .time_limit(SHORT * 4)
            .stop(Signal::TERM, LONG)
            .run()
            .unwrap();
        // The oracle finds a process that is left.
        assert_eq!(
            (output.record.exit.signal(), output.timed_out),
            (Some(Signal::TERM), true)
        );
    });
}

#[test]
fn no_more_bytes_than_the_limit_are_kept() {
    isolated(|| {
        let run = |limit| {
            sh("printf 12345; printf 123 >&2; exit 2")
                .exchange()
                .output_limit(limit)
                .run()
                .unwrap()
        };
        for (limit, stdout, stderr, truncated) in [
            (0, "", "", (true, true)),
            (3, "123", "123", (true, false)),
            (4, "1234", "123", (true, false)),
            (5, "12345", "123", (false, false)),
            (usize::MAX, "12345", "123", (false, false)),
        ] {
            let output = run(limit);
            assert_eq!(text(&output), (stdout, stderr));
            assert_eq!((output.stdout_truncated, output.stderr_truncated), truncated, "{limit}");
            assert_eq!(output.is_truncated(), truncated.0, "of either stream");
            assert!(!output.success());
            assert_eq!(
                output.record.exit,
                Exit::Code(2),
                "the rest was read, so it was not killed by SIGPIPE"
            );
        }
        let output = sh("head -c 5000000 /dev/zero; echo end >&2")
            .exchange()
            .output_limit(4)
            .run()
            .unwrap();
        assert_eq!(
            (output.stdout.len(), output.stderr.as_slice(), output.success()),
            (4, &b"end\n"[..], true)
        );
        let output = Command::new("yes")
            .exchange()
            .output_limit(100_000)
            .stop_when_full(true)
            .run()
            .unwrap();
        assert_eq!(
            (output.stdout.len(), output.record.exit.signal()),
            (100_000, Some(Signal::TERM))
        );
        assert!(output.stdout_truncated && !output.timed_out);
        let output = Command::new("yes")
            .exchange()
            .output_limit(10)
            .time_limit(SHORT * 2)
            .run()
            .unwrap();
        assert!(output.timed_out && output.stdout.len() == 10);
    });
}

#[test]
fn a_program_that_closes_its_streams_is_waited_for() {
    isolated(|| {
        let output = sh("exec >&- 2>&-; sleep 0.1; exit 4").output().unwrap();
        assert_eq!(output.record.exit, Exit::Code(4));
    });
}

#[test]
fn streams_that_the_command_sets_stay_as_they_are() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("file");
        fs::write(&file, "from the file").unwrap();
        let output = sh("cat; echo err >&2")
            .stdin(Stdio::read(&file))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(text(&output), ("from the file", ""));
        let output = sh("echo out; echo err >&2").stderr(Stdio::stdout()).output().unwrap();
        assert_eq!(text(&output), ("out\nerr\n", ""));
        let output = sh("cat")
            .stdin(Stdio::read(&file))
            .exchange()
            .input("instead")
            .run()
            .unwrap();
        assert_eq!(text(&output), ("instead", ""));
        // Without any input there is none, and nothing waits for the host's.
        for command in [
            sh("cat; readlink /proc/self/fd/0"),
            sh("cat; echo /dev/null").stdin(Stdio::piped()),
        ] {
            assert_eq!(text(&command.output().unwrap()), ("/dev/null\n", ""));
        }
        // A pipe that is not a standard stream has no reader.
        let output = sh("while echo x >&5; do :; done; exit 7")
            .fd(5, Stdio::piped())
            .ignored_signals(pidherd::SignalSet::EMPTY.with(Signal::PIPE))
            .output()
            .unwrap();
        assert_eq!(output.record.exit, Exit::Code(7));
        let std = std::process::Output::try_from(sh("echo a; exit 1").output().unwrap()).unwrap();
        assert_eq!((std.status.code(), std.stdout.as_slice()), (Some(1), &b"a\n"[..]));
    });
}

#[test]
fn a_command_that_cannot_be_started_has_its_error_inside() {
    isolated(|| {
        let command = Command::new("/no/such");
        for error in [command.status().unwrap_err(), command.output().unwrap_err()] {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SpawnError>());
            assert_eq!(inner.map(SpawnError::step), Some(SpawnStep::Exec));
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(sh("exit 9").status().unwrap().exit, Exit::Code(9));
        // The pipe would be full, and has no reader.
        let status = sh("head -c 1000000 /dev/zero").stdout(Stdio::piped()).status().unwrap();
        assert!(!status.exit.success());
    });
}

#[test]
fn a_child_is_stopped_by_a_signal_and_then_by_force() {
    isolated(|| {
        let start = |script: &str| {
            let mut child = sh(script).stdout(Stdio::piped()).spawn().unwrap();
            let mut byte = [0];
            rustix::io::read(child.stdout.as_ref().unwrap(), &mut byte).unwrap();
            child.stdin = None;
            child
        };
        let loops = "while :; do sleep 0.01; done";
        let mut child = start(&format!("echo; {loops}"));
        let stopped = child.stop(Signal::TERM, LONG).unwrap();
        assert_eq!(
            (stopped.record.exit.signal(), stopped.forced),
            (Some(Signal::TERM), false)
        );
        assert_eq!(
            child.stop(Signal::TERM, LONG).unwrap(),
            stopped,
            "a second stop has the same result"
        );
        let mut child = start(&format!("trap 'exit 3' INT; echo; {loops}"));
        let stopped = child.stop(Signal::INT, LONG).unwrap();
        assert_eq!((stopped.record.exit, stopped.forced), (Exit::Code(3), false));
        for patience in [SHORT, Duration::ZERO] {
            let mut child = start(&format!("trap '' TERM; echo; {loops}"));
            let stopped = child.stop(Signal::TERM, patience).unwrap();
            assert_eq!(
                (stopped.record.exit.signal(), stopped.forced),
                (Some(Signal::KILL), true)
            );
        }
        let mut child = start(&format!("echo; {loops}"));
        let stopped = child.stop(Signal::KILL, LONG).unwrap();
        assert_eq!(
            (stopped.record.exit.signal(), stopped.forced),
            (Some(Signal::KILL), true)
        );
        let mut child = start("echo; kill -STOP $$");
        let stopped = child.stop(Signal::TERM, LONG).unwrap();
        assert_eq!(
            (stopped.record.exit.signal(), stopped.forced),
            (Some(Signal::TERM), false)
        );
        // It has ended by itself, and gets no signal.
        let mut child = start("echo; exit 8");
        wait_until("it has ended", SOON, || child.pidfd().peek().unwrap().is_some());
        let stopped = child.stop(Signal::KILL, LONG).unwrap();
        assert_eq!((stopped.record.exit, stopped.forced), (Exit::Code(8), false));
    });
}

#[test]
fn the_error_of_a_child_that_does_not_end_names_it() {
    let error = StillAlive {
        pid: PidFd::open(std::process::id()).unwrap().pid(),
    };
    let text = format!("process {} has not ended in 10 s after SIGKILL", std::process::id());
    assert_eq!(error.to_string(), text);
}
