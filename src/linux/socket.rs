//! The notify socket of the supervisor, and how the sender of a message is found.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::core::Linux;
use super::run_cgroup::RunCgroups;
use super::stored::Delivery;
use super::watched::Watched;
use crate::engine::kernel::{Happening, Report, Sender, Senders};
use crate::exit::Pid;
use crate::fdset::Interest;
use crate::notify::{Counts, Credentials, NotifyAccess, NotifySocket, Received, has_number, is_reaped, may_be_main};
use crate::sys::datagram::SenderProcess;

impl Linux {
    /// Makes the notify socket if there is none, at this path or at an address that the kernel chooses.
    pub(crate) fn listen(&mut self, path: Option<&Path>) -> io::Result<()> {
        if self.notify.is_none() {
            let socket = path.map_or_else(NotifySocket::new, NotifySocket::bind)?;
            let token = self.fds.add(socket.as_fd(), Interest::READ)?;
            self.notify = Some((socket, token));
        }
        Ok(())
    }

    /// Makes the notify socket with the address of one that is gone. If another process has that address, or it cannot
    /// be bound any more, the socket is made as by [`Linux::listen`]. The processes of the socket that is gone then cannot
    /// be heard, so a shortage that passes is an error instead.
    pub(crate) fn listen_again(&mut self, address: &OsStr, path: Option<&Path>) -> io::Result<()> {
        match NotifySocket::again(address) {
            Ok(socket) => {
                let token = self.fds.add(socket.as_fd(), Interest::READ)?;
                self.notify = Some((socket, token));
                Ok(())
            }
            Err(error) if is_shortage(&error) => Err(error),
            Err(_) => self.listen(path),
        }
    }

    pub(crate) fn socket(&self) -> Option<&NotifySocket> {
        self.notify.as_ref().map(|(socket, _)| socket)
    }

    /// Reads one message from the notify socket, if one waits, and finds the instance of its sender.
    pub(super) fn receive(&mut self, senders: &Senders) -> io::Result<Option<Happening>> {
        if let Some((from, report)) = self.reports.pop_front() {
            let ends_message = self.reports.is_empty();
            return Ok(Some(Happening::Report {
                from,
                report,
                ends_message,
            }));
        }
        let Some((socket, _)) = &mut self.notify else {
            return Ok(None);
        };
        let lookup = Lookup {
            run_cgroups: &self.run_cgroups,
            processes: &self.processes,
            senders,
        };
        let find = |sender: Credentials, process: &SenderProcess| lookup.owner(sender, process);
        let stored = match socket.receive_from(&mut self.buffer, find)? {
            Received::Nothing => return Ok(None),
            Received::Ignored => return Ok(Some(Happening::UnknownMessage)),
            Received::Message(mut message) => {
                let from = message.owner.id;
                let reports = message.notices().filter_map(Report::of);
                self.reports.extend(reports.map(|report| (from, report)));
                Delivery::of(&mut message)
            }
        };
        if let Some(delivery) = stored {
            self.store_descriptors(delivery);
        }
        if self.reports.is_empty() {
            return Ok(Some(Happening::UnknownMessage));
        }
        self.receive(senders)
    }

    pub(crate) fn notify_counts(&self) -> Option<Counts> {
        self.notify.as_ref().map(|(socket, _)| socket.counts())
    }
}

/// What the sender of a message is looked up in.
struct Lookup<'a> {
    run_cgroups: &'a RunCgroups,
    processes: &'a [Option<Watched>],
    senders: &'a Senders,
}

impl Lookup<'_> {
    /// The instance of a sender, if its messages count.
    fn owner(&self, sender: Credentials, process: &SenderProcess) -> Option<Sender> {
        let main = self.senders.get(&sender.pid).copied();
        if let Some(main) = main.filter(|main| main.access >= NotifyAccess::Main) {
            return may_be_main(|| self.is_reaped(main), || has_number(process)).then_some(main);
        }
        let by_pid = |pid| {
            let ancestor = self.senders.get(&pid).copied();
            ancestor.filter(|ancestor| ancestor.access >= NotifyAccess::Descendants)
        };
        let by_cgroup = |path: &Path| {
            self.run_cgroups
                .candidates(path)
                .find_map(|slot| self.in_cgroup_of(slot, sender.pid))
        };
        let found = sender.find_by_pid(by_pid).or_else(|| sender.find_by_cgroup(by_cgroup));
        // The number is checked after the look-up, which would otherwise be about another process.
        found.filter(|_| has_number(process) != Some(false))
    }

    fn is_reaped(&self, main: Sender) -> bool {
        let process = self.processes.get(main.id.index() as usize).and_then(Option::as_ref);
        process.is_none_or(|process| is_reaped(process.pidfd.as_fd()))
    }

    /// The instance of this slot, if its messages are accepted from all processes of its cgroup, and its cgroup
    /// contains the sender.
    fn in_cgroup_of(&self, slot: u32, sender: Pid) -> Option<Sender> {
        let process = self.processes.get(slot as usize)?.as_ref()?;
        let main = self.senders.get(&process.unreaped()?).copied()?;
        (main.access >= NotifyAccess::All && process.contains(sender)).then_some(main)
    }
}

/// Whether the machine lacks something now that it can have later.
fn is_shortage(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Spawner};
    use crate::engine::arena::Arena;
    use crate::engine::ids::InstanceId;
    use crate::linux::watched::Watch;
    use crate::pidfd::PidFd;
    use crate::testing::common::refuse::refusing_once;
    use crate::timerfd::Clock;

    #[test]
    fn a_shortage_is_an_error_and_another_socket_is_made_if_the_address_cannot_be_had() {
        for (errno, is_error) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ENOMEM, true),
            (libc::ENOBUFS, true),
            (libc::EADDRINUSE, false),
            (libc::EACCES, false),
        ] {
            let mut linux = Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap();
            let listened = refusing_once(libc::SYS_bind, errno, || {
                let listened = linux.listen_again(OsStr::new("@pidherd a test"), None);
                listened.map_err(|error| error.raw_os_error())
            });
            let expected = if is_error { Err(Some(errno)) } else { Ok(()) };
            assert_eq!(listened, expected);
            assert_eq!(linux.socket().is_some(), !is_error);
        }
    }

    /// Its number can belong to another process.
    #[test]
    fn a_message_from_another_process_with_the_number_of_one_that_was_reaped_has_no_owner() {
        let mut child = Command::new("true").spawn().unwrap();
        let reaped = child.pidfd().try_clone().unwrap();
        child.wait().unwrap();
        let main = Sender {
            id: Arena::<InstanceId, ()>::new(0).insert(()),
            access: NotifyAccess::Main,
            most_stored: 0,
        };
        let number = Pid::new(1).unwrap();
        let from = Credentials {
            pid: number,
            uid: 0,
            gid: 0,
        };
        let own = || PidFd::open(std::process::id()).unwrap();
        for (watched, owner) in [(own(), Some(main)), (reaped, None)] {
            let watched = Watched {
                pidfd: watched,
                watch: Watch::Group,
                slot: 0,
                in_flight: None,
                rest: None,
            };
            let lookup = Lookup {
                run_cgroups: &RunCgroups::default(),
                processes: &[Some(watched)],
                senders: &Senders::from([(number, main)]),
            };
            assert_eq!(lookup.owner(from, &SenderProcess::Pidfd(own().into())), owner);
        }
    }
}
