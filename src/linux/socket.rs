//! The notify socket of the supervisor, and how the sender of a message is found.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::core::Linux;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Happening, Report};
use crate::exit::Pid;
use crate::fdset::Interest;
use crate::notify::{Counts, Credentials, NotifySocket, Received};

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

    /// Makes the notify socket with the address of one that is gone. If another process has that address, it is made as
    /// by [`Linux::listen`].
    pub(crate) fn listen_again(&mut self, address: &OsStr, path: Option<&Path>) -> io::Result<()> {
        match NotifySocket::again(address) {
            Ok(socket) => {
                let token = self.fds.add(socket.as_fd(), Interest::READ)?;
                self.notify = Some((socket, token));
                Ok(())
            }
            Err(_) => self.listen(path),
        }
    }

    pub(crate) fn socket(&self) -> Option<&NotifySocket> {
        self.notify.as_ref().map(|(socket, _)| socket)
    }

    /// Reads one message from the notify socket, if one waits, and finds the instance of its sender.
    pub(super) fn receive(&mut self, senders: &HashMap<Pid, InstanceId>) -> io::Result<Option<Happening>> {
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
        let (run_cgroups, processes) = (&self.run_cgroups, &self.processes);
        let by_pid = |pid| senders.get(&pid).copied();
        // The instance of this slot, if its messages are accepted and its cgroup contains the sender.
        let in_cgroup_of = |slot: u32, sender: Pid| {
            let process = processes.get(slot as usize)?.as_ref()?;
            let instance = process.unreaped().and_then(by_pid)?;
            process.contains(sender).then_some(instance)
        };
        let find = |sender: Credentials| {
            let by_cgroup = |path: &Path| {
                run_cgroups
                    .candidates(path)
                    .find_map(|slot| in_cgroup_of(slot, sender.pid))
            };
            sender.find_by_pid(by_pid).or_else(|| sender.find_by_cgroup(by_cgroup))
        };
        match socket.receive(&mut self.buffer, find)? {
            Received::Nothing => return Ok(None),
            Received::Ignored => return Ok(Some(Happening::UnknownMessage)),
            Received::Message(message) => {
                let reports = message.notices().filter_map(Report::of);
                self.reports.extend(reports.map(|report| (message.owner, report)));
            }
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
