//! The output of the programs: where it goes after a reload, after a hand-over, and on the commands of a user.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use pidherd::InstanceId;
use serde_json::{Value, json};

use super::model::Herd;
use crate::config::{Channel, Rotation, Sink, Target};
use crate::handing::{self, to_list, to_number, to_path};
use crate::limits::OpenFiles;
use crate::logs::{Capture, Left};

impl Herd {
    /// The descriptor that is readable while a program has written something.
    pub fn logs_fd(&self) -> BorrowedFd<'_> {
        self.logs.as_fd()
    }

    /// Collects what the programs have written.
    ///
    /// # Errors
    /// The kernel refuses a call that the event loop needs.
    pub fn collect_logs(&mut self) -> io::Result<()> {
        self.logs.dispatch()?;
        self.hear();
        self.note_logs();
        Ok(())
    }

    /// The limit of open files for the programs. `None` if it equals the taskmaster's own.
    pub fn open_files(&self) -> Option<OpenFiles> {
        self.shared.open_files
    }

    /// Opens the log files that were renamed. Returns a line for each one.
    pub fn reopen_logs(&mut self) -> Vec<String> {
        self.logs.reopen()
    }

    /// Collects the rest at the end.
    pub fn finish_logs(&mut self) {
        self.logs.drain_all();
        self.hear();
        self.note_logs();
    }

    /// Lets the output of living processes go where the changed configuration wants it.
    pub(super) fn redirect_output(&mut self) {
        let (supervisor, members) = (&self.supervisor, &self.members);
        self.logs.redirect(|instance, channel| {
            let status = supervisor.status(instance)?;
            let member = members.iter().find(|member| member.id == status.group)?;
            member.program.sink(status.name.number, channel)
        });
        self.note_logs();
    }

    /// The pipes and their logs. `place` names an instance.
    pub(super) fn describe_logs(&self, place: impl Fn(InstanceId) -> Option<Value>) -> Value {
        let input = |(instance, pipe, pending): (InstanceId, BorrowedFd<'_>, &[u8])| {
            let place = place(instance)?;
            let pending = handing::bytes(pending);
            Some(json!({ "place": place, "channel": "stdin", "pipe": pipe.as_raw_fd(), "pending": pending }))
        };
        let stream = |left: Left<'_>| {
            let Left { sink, capture, .. } = left;
            let file = sink.file.as_ref().map(|file| {
                json!({
                    "path": handing::path(&file.path),
                    "mode": file.mode,
                    "rotation": [file.rotation.maxbytes, u64::from(file.rotation.backups)],
                    "strip": file.strip,
                })
            });
            Some(json!({
                "place": place(left.instance)?,
                "channel": left.channel.name(),
                "pipe": left.pipe.as_raw_fd(),
                "file": file,
                "capture": [sink.capture, u64::from(sink.events), u64::from(sink.protocol)],
                "captured": [capture.is_on, handing::bytes(&capture.tail), handing::bytes(&capture.held)],
            }))
        };
        let inputs = self.logs.inputs().filter_map(input);
        self.logs
            .streams()
            .filter_map(stream)
            .chain(inputs)
            .collect::<Vec<_>>()
            .into()
    }

    /// Goes on with the pipes that the program before this one has handed over.
    pub(super) fn remember_logs(&mut self, left: &Value) {
        for stream in to_list(left, |stream| Some(stream.clone())).unwrap_or_default() {
            let Some(pipe) = handing::fd(&stream["pipe"]) else {
                continue;
            };
            let Some(instance) = self.find_instance(&stream["place"]) else {
                continue;
            };
            let channel = match stream["channel"].as_str() {
                Some("stdin") => {
                    let pending = handing::to_bytes(&stream["pending"]).unwrap_or_default();
                    self.logs.take_input(instance, pipe, pending);
                    continue;
                }
                Some("stderr") => Channel::Err,
                _ => Channel::Out,
            };
            if let Some((sink, capture)) = to_sink(&stream) {
                self.logs.collect((instance, channel), pipe, sink, capture);
            }
        }
        self.redirect_output();
    }

    fn note_logs(&mut self) {
        for note in self.logs.take_notes() {
            self.note(note);
        }
    }
}

fn to_sink(left: &Value) -> Option<(Sink, Capture)> {
    let [capture, captured] = [&left["capture"], &left["captured"]];
    let sink = Sink {
        file: to_target(&left["file"]),
        capture: capture[0].as_u64()?,
        events: capture[1] == 1,
        protocol: capture[2] == 1,
    };
    let capture = Capture {
        is_on: captured[0].as_bool()?,
        tail: handing::to_bytes(&captured[1])?,
        held: handing::to_bytes(&captured[2])?,
    };
    Some((sink, capture))
}

fn to_target(left: &Value) -> Option<Target> {
    Some(Target {
        path: to_path(&left["path"])?,
        mode: to_number(&left["mode"])?,
        rotation: Rotation {
            maxbytes: left["rotation"][0].as_u64()?,
            backups: to_number(&left["rotation"][1])?,
        },
        strip: left["strip"].as_bool()?,
    })
}
