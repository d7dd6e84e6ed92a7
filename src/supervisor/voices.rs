//! What instances say about themselves, taken to their lifecycles.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::InstanceId;
use super::driver::{Driver, Progress};
use super::kernel::Linux;
use crate::exit::Pid;
use crate::lifecycle::{Failure, Input};
use crate::notify::{Buffer, Credentials, Notice, Received};

/// How many messages are read in one go.
const MESSAGES: usize = 32;

/// More messages than a datagram socket's queue holds as a rule (`net.unix.max_dgram_qlen`).
const LONGEST_QUEUE: usize = 1_024;

/// What a process may ask for at a time. It may ask again; but somebody has to be there to do it.
const LONGEST_EXTENSION: Duration = Duration::from_secs(3_600);

impl Driver<Linux> {
    /// Whatever waits in the notify socket, and that is bounded: nobody's deadline may pass for what others say.
    pub(super) fn hear_all(&mut self) -> io::Result<Progress> {
        for _ in 0..LONGEST_QUEUE / MESSAGES {
            match self.hear()? {
                Progress::More => {}
                heard => return Ok(heard),
            }
        }
        Ok(Progress::More)
    }

    /// The notify socket is readable.
    pub(super) fn hear(&mut self) -> io::Result<Progress> {
        let mut buffer = Buffer::new();
        for heard in 0..MESSAGES {
            let Some((socket, leaves)) = self.kernel.socket_and_leaves() else {
                return Ok(Progress::Nothing);
            };
            let (speakers, instances) = (&self.speakers, &self.instances);
            let whose = |pid| speakers.get(&pid).copied();
            // Of those that may speak, the one whose cgroup the sender lives in.
            let houses = |id: &InstanceId, sender: Pid| {
                let process = instances.get(*id).and_then(|instance| instance.process.as_ref());
                process.is_some_and(|process| {
                    let own = process.unreaped().and_then(whose);
                    own == Some(*id) && process.houses(sender)
                })
            };
            let find = |sender: Credentials| {
                let by_cgroup = |path: &Path| {
                    let mut ids = leaves.candidates(path).filter_map(|slot| instances.id_at(slot));
                    ids.find(|id| houses(id, sender.pid))
                };
                sender.find_by_pid(whose).or_else(|| sender.find_by_cgroup(by_cgroup))
            };
            match socket.receive(&mut buffer, find)? {
                Received::Nothing if heard == 0 => return Ok(Progress::Nothing),
                Received::Nothing => return Ok(Progress::Done),
                Received::Ignored => {}
                Received::Message(message) => {
                    message
                        .notices()
                        .for_each(|notice| self.take_notice(message.owner, notice));
                }
            }
        }
        Ok(Progress::More)
    }

    fn take_notice(&mut self, id: InstanceId, notice: Notice<'_>) {
        match notice {
            Notice::Ready => drop(self.feed(id, Input::Ready)),
            Notice::Watchdog => drop(self.feed(id, Input::Alive)),
            Notice::WatchdogTrigger => drop(self.feed(id, Input::Failed(Failure::Watchdog))),
            Notice::ExtendTimeout(by) => drop(self.feed(id, Input::Extend(by.min(LONGEST_EXTENSION)))),
            Notice::Status(text) => {
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.says = (!text.is_empty()).then(|| text.into());
                }
            }
            // How it ends is seen, not believed; and the times of a watchdog are the host's to say.
            _ => {}
        }
    }
}
