use std::fs::File;
use std::io::Write;
use std::iter;
use std::os::fd::AsRawFd;
use std::process;
use std::thread;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::super::stdio::Pipe;
use super::*;
use crate::pidfd::PidFd;
use crate::testing::common::processes::state;
use crate::testing::common::refuse::{answering, refusing};
use crate::testing::common::tracer::Tracer;
use crate::testing::common::{Isolation, SOON, isolated, wait_readable, wait_until};

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(1_000);

fn sleep() -> Command {
    Command::new("sleep").arg("1000")
}

/// A command with a process group of its own, which starts another process, prints the number of that, and waits.
fn group() -> Command {
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!; wait";
    Command::new("sh").args(["-c", script]).process_group(0)
}

/// The process with the number that the command has printed.
fn printed(talk: &mut Talk<'_>) -> PidFd {
    let stdout = &mut talk.outputs[0];
    while !stdout.bytes.ends_with(b"\n") {
        assert!(wait_readable(stdout.fd.as_ref().unwrap(), SOON));
        stdout.read().unwrap();
    }
    let number = std::str::from_utf8(&stdout.bytes).unwrap().trim().parse();
    PidFd::open(number.unwrap()).unwrap()
}

/// The other end of the standard output, as another process has it that got it from the command.
fn other_end(talk: &Talk<'_>) -> File {
    let fd = talk.outputs[0].fd.as_ref().unwrap();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    File::options().write(true).open(path).unwrap()
}

/// Reaps the process after its end.
fn end(talk: &mut Talk<'_>) {
    assert!(wait_readable(talk.child.pidfd(), SOON));
    talk.end().unwrap();
}

/// Another part of the host has reaped the process, so its number may be that of another group.
#[test]
fn a_group_is_not_signalled_by_the_number_of_a_process_that_was_reaped() {
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let command = Command::new("sh").args(["-c", script]).process_group(0);
    let exchange = command.exchange();
    let mut talk = exchange.begin().unwrap();
    let left = printed(&mut talk);
    talk.child.pidfd().wait_and_reap().unwrap();
    for errno in [libc::EPERM, libc::ENOSYS] {
        refusing(libc::SYS_pidfd_send_signal, errno, || {
            assert_eq!(talk.send(Signal::KILL).unwrap_err().raw_os_error(), Some(errno));
        });
    }
    assert!(left.is_alive());
    left.signal(Signal::KILL).unwrap();
}

/// Those of Linux before 6.9 and of filters.
#[test]
fn a_group_is_signalled_by_its_number_after_an_errno_that_can_be_a_refusal() {
    for (errno, is_refusal) in [
        (libc::EINVAL, true),
        (libc::ENOSYS, true),
        (libc::EPERM, true),
        (libc::EAGAIN, false),
    ] {
        let command = group();
        let exchange = command.exchange();
        let mut talk = exchange.begin().unwrap();
        let other = printed(&mut talk);
        let sent = refusing(libc::SYS_pidfd_send_signal, errno, || talk.send(Signal::KILL));
        let refused = sent.err().and_then(|error| error.raw_os_error());
        assert_eq!(refused, Some(errno).filter(|_| !is_refusal));
        if !is_refusal {
            assert!(other.is_alive() && talk.child.pidfd().is_alive());
            talk.send(Signal::KILL).unwrap();
        }
        assert!(wait_readable(&other, SOON), "{errno}");
        end(&mut talk);
    }
}

/// The kernel reaps a bound child at once.
#[test]
fn a_signal_to_a_process_that_was_reaped_is_no_error() {
    let command = Command::new("true");
    let exchange = command.exchange();
    let talk = exchange.begin().unwrap();
    talk.child.pidfd().wait_and_reap().unwrap();
    talk.send(Signal::TERM).unwrap();
}

#[test]
fn the_rest_of_a_group_is_killed_only_if_the_process_was_stopped() {
    let command = sleep().process_group(0);
    let exchange = command.exchange().stop(Signal::INT, LONG);
    for is_stopped in [false, true] {
        let mut talk = exchange.begin().unwrap();
        let rest = sleep().ignored_signals(SignalSet::EMPTY.with(Signal::INT));
        let group = i32::try_from(talk.child.pid().as_raw()).unwrap();
        let mut rest = rest.process_group(group).spawn().unwrap();
        if is_stopped {
            talk.ask().unwrap();
        } else {
            talk.child.pidfd().signal(Signal::INT).unwrap();
        }
        end(&mut talk);
        // The first of two signals decides.
        rest.pidfd().signal(Signal::TERM).unwrap();
        let expected = if is_stopped { Signal::KILL } else { Signal::TERM };
        assert_eq!(rest.wait().unwrap().exit.signal(), Some(expected));
    }
}

#[test]
fn the_time_after_a_signal_is_that_of_the_exchange_and_sigkill_ends_the_process() {
    let command = sleep();
    // The longest one cannot be added to the time.
    for patience in [LONG, Duration::MAX] {
        let exchange = command.exchange().stop(Signal::CONT, patience);
        let mut talk = exchange.begin().unwrap();
        let before = Instant::now();
        talk.ask().unwrap();
        let is_asked = matches!(talk.phase, Phase::Asked(until) if until >= before + LONG);
        assert!(is_asked, "{patience:?}: {:?}", talk.phase);
        talk.kill().unwrap();
        let is_killed = matches!(talk.phase, Phase::Killed(until) if until >= before + KILL_WAIT);
        assert!(is_killed, "{:?}", talk.phase);
        end(&mut talk);
        let (record, _) = talk.ended.unwrap();
        assert_eq!(record.exit.signal(), Some(Signal::KILL));
    }
}

#[test]
fn what_is_in_the_pipes_of_a_stopped_process_is_read_and_nothing_later_is_waited_for() {
    isolated(|| {
        let command = sleep();
        let exchange = command.exchange().stop(Signal::TERM, LONG);
        let mut talk = exchange.begin().unwrap();
        let mut other = other_end(&talk);
        fcntl_setpipe_size(&other, 4 * PORTION).unwrap();
        other.write_all(&[b'x'; 3 * PORTION]).unwrap();
        talk.ask().unwrap();
        end(&mut talk);
        let record = talk.run().unwrap();
        let output = talk.into_output(record);
        assert_eq!(output.record.exit.signal(), Some(Signal::TERM));
        assert_eq!((output.stdout.len(), output.left_open), (3 * PORTION, true));
    });
}

#[test]
fn what_another_process_writes_after_the_end_is_read_as_long_as_it_writes() {
    const LENGTH: usize = 20 * PORTION;
    let command = Command::new("true");
    let exchange = command.exchange();
    let mut talk = exchange.begin().unwrap();
    let mut other = other_end(&talk);
    end(&mut talk);
    let writer = thread::spawn(move || other.write_all(&[b'x'; LENGTH]));
    let record = talk.run().unwrap();
    let output = talk.into_output(record);
    assert_eq!((output.stdout.len(), output.left_open), (LENGTH, false));
    writer.join().unwrap().unwrap();
}

/// As a pipe that is filled faster than it is read.
#[test]
fn a_stream_that_is_always_readable_hides_no_limit() {
    isolated(|| {
        let short = Duration::from_millis(20);
        let ignores = sleep().ignored_signals(SignalSet::EMPTY.with(Signal::TERM));
        for (command, exit, is_forced) in [(sleep(), Signal::TERM, false), (ignores, Signal::KILL, true)] {
            let patience = if is_forced { short } else { LONG };
            let exchange = command.exchange().stop(Signal::TERM, patience);
            let exchange = exchange.time_limit(short).output_limit(10);
            let mut talk = exchange.begin().unwrap();
            talk.outputs[0].fd = Some(File::open("/dev/zero").unwrap().into());
            let record = talk.run().unwrap();
            let output = talk.into_output(record);
            assert_eq!((output.record.exit.signal(), output.forced), (Some(exit), is_forced));
            assert!(output.timed_out && output.left_open && output.stdout.len() == 10);
        }
        let command = Command::new("true");
        let exchange = command.exchange().output_limit(10).linger(Duration::ZERO);
        let mut talk = exchange.begin().unwrap();
        talk.outputs[0].fd = Some(File::open("/dev/zero").unwrap().into());
        assert!(talk.run().unwrap().exit.success());
    });
}

#[test]
fn a_process_that_a_tracer_holds_is_waited_for() {
    isolated(|| {
        let command = sleep();
        let exchange = command.exchange();
        let mut talk = exchange.begin().unwrap();
        let pid = talk.child.pid().as_raw();
        let tracer = Tracer::attach(pid);
        talk.child.pidfd().signal(Signal::KILL).unwrap();
        wait_until("it is a zombie", SOON, || state(pid) == Some('Z'));
        if tracer.is_some() {
            talk.end().unwrap();
            assert_eq!(talk.ended, None);
        }
        drop(tracer);
        assert_eq!(talk.run().unwrap().exit.signal(), Some(Signal::KILL));
    });
}

/// A read of a blocking end could wait for ever.
#[test]
fn the_ends_of_the_pipes_do_not_block_whatever_the_command_sets() {
    for nonblocking in [false, true] {
        let pipe = Pipe::new().nonblocking(nonblocking);
        let command = Command::new("true").stdout(pipe).stderr(pipe);
        let exchange = command.exchange().input("bytes");
        let talk = exchange.begin().unwrap();
        let [stdout, stderr] = &talk.outputs;
        for fd in [&talk.input.fd, &stdout.fd, &stderr.fd] {
            let flags = fcntl_getfl(fd.as_ref().unwrap()).unwrap();
            assert!(flags.contains(OFlags::NONBLOCK), "{nonblocking}: {flags:?}");
        }
    }
}

#[test]
fn a_write_to_a_closed_pipe_leaves_exactly_the_signals_that_were_pending() {
    let _guard = MaskGuard::block(SignalSet::EMPTY.with(Signal::PIPE)).unwrap();
    for (is_pending_before, is_closed) in [(false, false), (false, true), (true, false), (true, true)] {
        if is_pending_before {
            // The kernel sends the signal to this thread.
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            drop(reader);
            assert_eq!(write(&writer, b"x"), Err(Errno::PIPE));
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let _reader = (!is_closed).then_some(reader);
        let expected = if is_closed { Err(Errno::PIPE) } else { Ok(1) };
        assert_eq!(write_without_signal(&writer, b"x"), expected);
        assert_eq!(is_pending(Signal::PIPE), is_pending_before, "{is_closed}");
        discard_pending(Signal::PIPE);
    }
}

/// It was not pending before, and is not from the write.
#[test]
fn a_signal_that_another_process_sends_during_a_write_stays_pending() {
    let blocked = SignalSet::EMPTY.with(Signal::PIPE);
    Isolation::new().blocked(blocked).run(|| {
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let at_write = iter::once_with(|| {
            let own = PidFd::open(process::id()).unwrap();
            own.signal(Signal::PIPE).unwrap();
            None
        });
        let written = answering(libc::SYS_write, at_write, || write_without_signal(&writer, b"x"));
        assert_eq!(written, Ok(1));
        assert!(is_pending(Signal::PIPE));
        discard_pending(Signal::PIPE);
    });
}
