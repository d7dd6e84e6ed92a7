//! A container's init: runs one command, passes signals on to it, reaps orphans, and ends as it ended: with
//! its code, 128 + n for signal n, 127 if it is not there, 126 if it can't be run. Its own errors are 125.
use std::{error::Error, ffi::OsString, fs::File, io::IsTerminal, process::ExitCode, time::Duration};

use pidherd::lifecycle::{Restart, Startup};
use pidherd::{Command, Event, Exit, GroupSpec, MaskGuard, Policy, Signal, SignalFd, SignalSet, Supervisor};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some((program, arguments)) = arguments.split_first() else {
        eprintln!("usage: init COMMAND [ARGUMENT...]");
        return ExitCode::from(125);
    };
    let command = Command::new(program).args(arguments).process_group(0);
    // Who types at the terminal means the command: its group is the one in the foreground.
    let at_terminal = std::io::stdin().is_terminal() && File::open("/dev/tty").is_ok();
    let command = if at_terminal { command.foreground(0) } else { command };
    ExitCode::from(run(command).unwrap_or_else(|error| {
        eprintln!("init: {error}");
        125
    }))
}

fn run(command: Command) -> Result<u8, Box<dyn Error>> {
    let _mask = MaskGuard::block(SignalSet::FORWARDABLE.with(Signal::CHLD))?;
    let signals = SignalFd::new(SignalSet::FORWARDABLE)?;
    let mut supervisor = Supervisor::builder().signals(signals).adopt_orphans(true).build()?;
    let once = Policy {
        startup: Startup::Grace(Duration::ZERO),
        restart: Restart::Never,
        start_retries: 0,
        ..Policy::default()
    };
    let group = supervisor.add(GroupSpec::new("main", command).policy(once))?;
    supervisor.start(group)?;
    loop {
        while let Some(event) = supervisor.next_event() {
            match event {
                Event::Signal(info) => drop(supervisor.signal(group, info.signal)?),
                Event::Transition(step) => match (step.exit.map(|record| record.exit), step.error) {
                    (Some(Exit::Code(code)), _) => return Ok(code),
                    (Some(Exit::Signal { signal, .. }), _) => return Ok(128 + signal.as_raw() as u8),
                    (_, Some(error)) => {
                        eprintln!("init: {error}");
                        return Ok(if error.errno() == libc::ENOENT { 127 } else { 126 });
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        retry_on_intr(|| poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None))?;
        supervisor.dispatch()?;
    }
}
