//! Job control: the command at a terminal, as a part of the job that a shell knows init by.
//!
//! The command has a process group of its own, so that the signals of the terminal and of a shell reach it once and not
//! twice. To the shell the job is the process group of init. What follows from that:
//!
//! - If that group is in the foreground, and standard input and output are the terminal, the command's group takes its
//!   place. In a pipeline, or behind a redirection, others of the job may want the terminal as well: then
//!   the command gets it when it uses it, which the kernel answers by stopping it with SIGTTIN or SIGTTOU. In the
//!   background it never takes it.
//! - What is typed while init's group is in the foreground (`^C`, `^Z`, `^\`) goes to the command's whole group.
//! - When the command stops, so do the others of the job, and init: the shell sees a job that has stopped. SIGCONT to
//!   init continues the command's group, with the terminal if init has got it.
//! - At the end the terminal goes back to init's group.
//!
//! PID 1 cannot stop. Its command is continued after a `^Z`, since nothing else would continue it.
//!
//! If init's group is that of an outer PID namespace, as with unshare(1), it has no number here, so a terminal could
//! not be given back. There the command stays in that group, unless it is to have one for `-g`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use pidherd::signalfd::SignalInfo;
use pidherd::{Command, Signal, SignalSet};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::sys;

/// What the kernel sends to the foreground process group, or to the session leader, for the terminal.
const OF_THE_TERMINAL: SignalSet = SignalSet::EMPTY
    .with(Signal::INT)
    .with(Signal::QUIT)
    .with(Signal::TSTP)
    .with(Signal::HUP)
    .with(Signal::WINCH);

/// What stops a process unless it handles it, SIGSTOP left out.
const STOPPING: SignalSet = SignalSet::EMPTY
    .with(Signal::TSTP)
    .with(Signal::TTIN)
    .with(Signal::TTOU);

/// The job: init's process group, the command's, and the terminal.
pub struct Job {
    /// The controlling terminal, if there is one.
    terminal: Option<OwnedFd>,
    /// Whether standard input and output are that terminal.
    is_interactive: bool,
    own_group: i32,
    /// The process, and its process group if it has its own; 0 if there is none.
    command: i32,
    has_own_group: bool,
    /// Whether all signals go to the command's group.
    whole_group: bool,
    /// Whether the terminal has ever been the command's.
    took_terminal: bool,
    /// Whether a stop signal that was sent to init has been passed on.
    passed_stop: bool,
    /// The signal that stopped the command, while init is stopped for that.
    stopped_by: Option<Signal>,
}

/// Where a signal to init goes.
pub enum Receiver {
    Command,
    Group,
    None,
}

impl Job {
    pub fn new(whole_group: bool) -> Job {
        let terminal = controlling_terminal();
        let own_group = sys::own_group();
        let stdin_is_it = sys::foreground(io::stdin().as_fd()).is_some();
        Job {
            is_interactive: stdin_is_it && io::stdout().is_terminal(),
            has_own_group: whole_group || own_group != 0 || terminal.is_none(),
            terminal,
            own_group,
            command: 0,
            whole_group,
            took_terminal: false,
            passed_stop: false,
            stopped_by: None,
        }
    }

    /// The signals to init that are passed on. PID 1 cannot stop, so TTIN and TTOU are of no use to it.
    pub fn forwarded(&self) -> SignalSet {
        if is_pid_1() {
            SignalSet::FORWARDABLE
        } else {
            SignalSet::FORWARDABLE.with(Signal::TTIN).with(Signal::TTOU)
        }
    }

    /// The command with its process group, in the foreground if it is to be there from the start.
    pub fn arrange(&mut self, command: Command) -> Command {
        if !self.has_own_group {
            return command.inherit_process_group();
        }
        let command = command.process_group(0);
        if self.is_interactive && self.own_group != 0 && self.has_terminal() {
            self.took_terminal = true;
            command.foreground(0)
        } else {
            command
        }
    }

    /// The command is this process, which has not been reaped.
    pub fn command_is(&mut self, pid: pidherd::Pid) {
        self.command = i32::try_from(pid.as_raw()).unwrap_or(0);
    }

    /// Where a signal goes that was sent to init.
    pub fn receiver(&mut self, info: &SignalInfo) -> Receiver {
        let signal = info.signal;
        let is_typed = info.code == libc::SI_KERNEL && OF_THE_TERMINAL.contains(signal);
        // A group that init and the command share has got it from the terminal. A typed stop of PID 1 is none.
        if is_typed && (!self.has_own_group || (is_pid_1() && signal == Signal::TSTP)) {
            return Receiver::None;
        }
        if STOPPING.contains(signal) {
            self.passed_stop = true;
        }
        if signal == Signal::CONT {
            self.passed_stop = false;
            if let Some(by) = self.stopped_by.take() {
                if self.is_interactive || by != Signal::TSTP {
                    self.lend_terminal();
                }
                return Receiver::Group;
            }
        }
        if self.has_own_group && (self.whole_group || is_typed) {
            Receiver::Group
        } else {
            Receiver::Command
        }
    }

    /// Sends a signal to the command's group; to the command if it has left that. Once the command has been reaped its
    /// number may mean another process, and nothing is sent.
    pub fn signal_group(&self, signal: Signal) {
        if !self.is_unreaped() {
            return;
        }
        let to_group = self.has_own_group && sys::send(-self.command, signal).is_ok();
        if !to_group {
            let _ended = sys::send(self.command, signal);
        }
    }

    fn is_unreaped(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Pid::from_raw(self.command).is_some_and(|pid| waitid(WaitId::Pid(pid), look).is_ok())
    }

    /// If the command has stopped, stops the job, or gives the command the terminal that it has stopped for. Returns
    /// when init is continued.
    pub fn follow(&mut self) {
        let Some(signal) = self.stopped() else { return };
        let was_passed = mem::take(&mut self.passed_stop);
        let wants_terminal = matches!(signal, Signal::TTIN | Signal::TTOU) && !was_passed;
        if wants_terminal && self.lend_terminal() {
            self.signal_group(Signal::CONT);
            return;
        }
        if is_pid_1() {
            if signal == Signal::TSTP && !was_passed && self.has_own_group {
                self.signal_group(Signal::CONT);
            }
            return;
        }
        if self.is_lent() {
            self.take_back();
            // The terminal would have stopped the others of the job, too. That of init waits behind its mask, and goes
            // when SIGCONT comes.
            if !was_passed && signal != Signal::STOP {
                let _stopped = sys::send(0, signal);
            }
        }
        self.stopped_by = Some(signal);
        let _stopped = sys::send(sys::own_pid(), Signal::STOP);
    }

    /// The signal that has stopped the command since the last call.
    fn stopped(&self) -> Option<Signal> {
        let pid = Pid::from_raw(self.command)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(pid), options).ok()??;
        Signal::from_raw(status.stopping_signal()?).ok()
    }

    /// Whether init's group is in the foreground.
    fn has_terminal(&self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        if self.own_group == 0 {
            // A group without a number cannot be compared. Reading is refused to the background, SIGTTIN being blocked.
            return rustix::io::read(terminal, &mut [0; 0]).is_ok();
        }
        sys::foreground(terminal.as_fd()) == Some(self.own_group)
    }

    /// Whether the command's group is in the foreground.
    fn is_lent(&self) -> bool {
        let terminal = self.terminal.as_ref().filter(|_| self.has_own_group);
        terminal.is_some_and(|terminal| sys::foreground(terminal.as_fd()) == Some(self.command))
    }

    /// Gives the terminal to the command's group, if init has it; whether that is so.
    fn lend_terminal(&mut self) -> bool {
        if !self.has_own_group || !self.has_terminal() {
            return false;
        }
        let terminal = self.terminal.as_ref();
        let is_lent = terminal.is_some_and(|terminal| sys::set_foreground(terminal.as_fd(), self.command).is_ok());
        self.took_terminal |= is_lent;
        is_lent
    }

    /// The command has been reaped: its number means nothing any more, and the terminal goes back.
    pub fn command_has_ended(&mut self) {
        self.give_back();
        self.command = 0;
    }

    /// Gives the terminal back, unless a shell has taken it meanwhile. That of a command that could not be started is
    /// with a group that has no member.
    fn give_back(&self) {
        let terminal = self.terminal.as_ref().filter(|_| self.took_terminal);
        let holder = terminal.and_then(|terminal| sys::foreground(terminal.as_fd()));
        if holder.is_some_and(|group| group == self.command || !sys::group_exists(group)) {
            self.take_back();
        }
    }

    fn take_back(&self) {
        if let (Some(terminal), 1..) = (&self.terminal, self.own_group) {
            let _hung_up = sys::set_foreground(terminal.as_fd(), self.own_group);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn is_pid_1() -> bool {
    sys::own_pid() == 1
}

/// The controlling terminal: by its name, or as a standard stream where /dev has no such name.
fn controlling_terminal() -> Option<OwnedFd> {
    let by_name = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/tty");
    if let Ok(terminal) = by_name {
        return Some(terminal.into());
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let terminal = streams.into_iter().find(|&stream| sys::foreground(stream).is_some())?;
    terminal.try_clone_to_owned().ok()
}
