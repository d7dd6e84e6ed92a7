//! The plan for one spawn: how each descriptor is passed to the child.
//!
//! With [`FdTable::Unshared`], the child starts with the host's descriptor table, and then makes its own copy of the
//! low end. The cost does not depend on the number of open descriptors of the host. This works if all descriptors for
//! the child are below number 64. Otherwise the child starts with a private copy of the whole table, as after fork
//! ([`FdTable::Copied`]).
//!
//! Numbers that the child inherits are checked before any descriptor is opened for it. The library's own descriptors
//! never get the numbers of the standard streams, even if the host has closed these.
//!
//! In both cases each source is then copied to its target, and every other descriptor is closed. A source must not be
//! at the number of another target, so it is first copied to a slot, or in a copied table to a number that is no
//! target.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{SpawnError, SpawnStep, Subject};
use super::program::{CGROUP, CLOSE, Compiled, Descriptor, EXTRA, PipeEnd, Source, UNSHARE};
use super::slots::{MOST_SLOTS, SLOTS_FROM, Slot, Slots, UNSHARE_FROM};
use crate::child::Pipes;
use crate::sys::descriptors::{FIRST, Occupied, flags_of, flags_of_stream, occupy_standard};
use crate::sys::process::highest_descriptor;
use crate::sys::spawn::script::Prelude;

/// The descriptor table that the child starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FdTable {
    /// The table of the host. The child then makes its own copy of the low end.
    Unshared,
    /// A copy of the whole table of the host.
    Copied,
}

/// How the descriptors that the program does not get are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// By close_range(2).
    Range,
    /// One by one, where close_range(2) is refused.
    Each,
    /// By the execve: the program takes the place of the host, which keeps its descriptors if the execve fails.
    OnExec,
    /// The same, one by one (before Linux 5.11).
    EachOnExec,
}

/// The host's descriptors at the numbers that a child inherits. They are checked before the spawn opens any descriptor.
/// Otherwise a pipe or the pidfd could get a number that the host has closed, and the child would inherit it.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The flags of each standard stream; `None` for a closed one.
    streams: [Option<i32>; FIRST as usize],
    /// Occupies the numbers of closed streams while the child is made.
    occupied: Occupied,
}

impl Inherited {
    /// # Errors
    /// `EBADF` for a descriptor that the child should inherit and that is not open in the host.
    pub(super) fn new(program: &Compiled, slots: &Slots) -> Result<Inherited, SpawnError> {
        let streams = [0, 1, 2].map(flags_of_stream);
        let inherits = |descriptor: &Descriptor| matches!(descriptor.source, Source::Inherit);
        let is_open = |number: RawFd| {
            let index = usize::try_from(number).ok();
            index.and_then(|index| streams.get(index)).is_some_and(Option::is_some)
        };
        let is_inherited = |number: RawFd| {
            let mut own = program.descriptors.iter();
            own.any(|own| own.target == number && inherits(own))
        };
        for descriptor in &program.descriptors {
            let Descriptor { target, ref source, .. } = *descriptor;
            let is_there = match source {
                // A standard stream that the host has closed is closed in the child too, as after fork and exec.
                Source::Inherit if target < FIRST => true,
                Source::Inherit => flags_of(target).is_some() && !slots.owns(target),
                Source::Stream(number) => is_open(*number) || !is_inherited(*number),
                Source::OfHost(number) => is_open(*number),
                Source::Null | Source::Pipe(_) | Source::Given(_) | Source::File { .. } => true,
            };
            if !is_there {
                return Err(program.error(descriptor.label, libc::EBADF));
            }
        }
        let occupied = if streams.contains(&None) {
            occupy_standard()
        } else {
            Occupied::default()
        };
        Ok(Inherited { streams, occupied })
    }

    /// Whether execve would close the host's descriptor with this number.
    fn is_close_on_exec(&self, number: RawFd) -> bool {
        let flags = usize::try_from(number).ok().and_then(|number| self.streams.get(number));
        matches!(flags, Some(Some(flags)) if flags & libc::FD_CLOEXEC != 0)
    }
}

/// Makes the pipes of the program. The child's ends are stored in the staging. The parent's ends are returned.
pub(super) fn open_pipes(program: &Compiled, staging: &mut Staging) -> Result<Pipes, SpawnError> {
    let mut pipes = Pipes::default();
    for descriptor in &program.descriptors {
        let Source::Pipe(pipe) = descriptor.source else {
            continue;
        };
        let (child, parent) = open_pipe(pipe).map_err(|error| {
            let subject = Subject::Stream(descriptor.target);
            program.parent_error(SpawnStep::Pipe, error.raw_os_error(), Some(subject))
        })?;
        staging
            .ends
            .resize_with(staging.ends.len().max(pipe.index + 1), || None);
        if let Some(end) = staging.ends.get_mut(pipe.index) {
            *end = Some(child);
        }
        match pipe.index {
            0 => pipes.stdin = Some(parent),
            1 => pipes.stdout = Some(parent),
            2 => pipes.stderr = Some(parent),
            EXTRA => pipes.set_extra(descriptor.target, parent),
            _ => pipes.add(descriptor.target, parent),
        }
    }
    Ok(pipes)
}

/// The child's end and the parent's end of a pipe.
fn open_pipe(pipe: PipeEnd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (child, parent) = if pipe.is_read { (read, write) } else { (write, read) };
    if pipe.nonblocking {
        fcntl_setfl(&parent, OFlags::NONBLOCK)?;
    }
    Ok((child, parent))
}

/// The descriptors of one spawn, in the parent. They stay open until the child has a descriptor table of its own.
#[derive(Debug)]
pub(super) struct Staging {
    /// The source of each descriptor of the program, in its order.
    sources: Vec<RawFd>,
    /// Copies of descriptors at the number of another target.
    moved: Vec<OwnedFd>,
    /// The filled slots.
    slots: Vec<Slot>,
    /// The spawner's `/dev/null`, if it is a source. It is kept here because the spawner can be dropped meanwhile.
    null: Option<Arc<OwnedFd>>,
    /// The child's ends of the pipes.
    ends: Vec<Option<OwnedFd>>,
    /// The `cgroup.procs` through which the child enters a cgroup.
    pub(super) entrance: Option<OwnedFd>,
    /// Occupies the numbers of standard streams that the host has closed, until the child was made.
    occupied: Occupied,
}

impl Staging {
    pub(super) fn new() -> Staging {
        let room = 8;
        Staging {
            sources: Vec::with_capacity(room),
            moved: Vec::with_capacity(room),
            slots: Vec::with_capacity(MOST_SLOTS),
            null: None,
            ends: Vec::with_capacity(room),
            entrance: None,
            occupied: Occupied::default(),
        }
    }

    /// Closes everything. The child must have a descriptor table of its own, or must not exist.
    pub(super) fn clear(&mut self, slots: &mut Slots) {
        self.moved.clear();
        self.empty_slots(slots);
        self.null = None;
        self.ends.clear();
        self.entrance = None;
        self.occupied = Occupied::default();
    }

    /// Releases the numbers of closed standard streams in the host. The child closes its own copies.
    pub(super) fn leave_streams(&mut self) {
        self.occupied = Occupied::default();
    }

    fn empty_slots(&mut self, slots: &mut Slots) {
        self.slots.drain(..).for_each(|slot| slots.give_back(slot));
    }
}

/// Plans how each descriptor is passed, and writes the steps to the prelude. If the child must enter its cgroup itself,
/// that is the first step.
pub(super) fn plan(
    program: &Compiled,
    prelude: &mut Prelude,
    inherited: Inherited,
    staging: &mut Staging,
    slots: &mut Slots,
    closing: Closing,
) -> Result<FdTable, SpawnError> {
    prelude.begin(&program.script, program.prelude_steps());
    if let Some(procs) = &staging.entrance {
        prelude.enter_cgroup(CGROUP, procs.as_raw_fd(), program.zero);
    }
    program.clean_capabilities(prelude)?;
    let table = if closing == Closing::Range && find_low_sources(program, staging, slots) {
        prelude.unshare_below(UNSHARE, UNSHARE_FROM as u32);
        FdTable::Unshared
    } else {
        staging.empty_slots(slots);
        find_sources(program, staging, slots)?;
        FdTable::Copied
    };
    write_placing(program, prelude, staging, &inherited);
    if matches!(closing, Closing::Range | Closing::Each) {
        write_closed_streams(program, prelude, &inherited);
    }
    staging.occupied = inherited.occupied;
    write_closing(program, prelude, closing);
    write_opening(program, prelude);
    Ok(table)
}

/// Means that a target has no source: a step in the child makes the descriptor, or the child inherits it.
const NONE: RawFd = -1;

/// Whether every source is below [`UNSHARE_FROM`], or was copied to a slot below it.
fn find_low_sources(program: &Compiled, staging: &mut Staging, slots: &mut Slots) -> bool {
    if program.last_target() >= SLOTS_FROM {
        return false;
    }
    staging.sources.clear();
    for descriptor in &program.descriptors {
        let source = match source_of(&descriptor.source, &staging.ends, None) {
            None if matches!(descriptor.source, Source::Null) => slots.low_null().map(|null| {
                staging.null = Some(Arc::clone(null));
                null.as_raw_fd()
            }),
            None => Some(NONE),
            Some(fd) if is_usable(program, fd.as_raw_fd(), descriptor.target) => Some(fd.as_raw_fd()),
            Some(fd) => slots.fill(fd).map(|slot| {
                let number = slot.as_raw_fd();
                staging.slots.push(slot);
                number
            }),
        };
        match source {
            Some(source) => staging.sources.push(source),
            None => return false,
        }
    }
    true
}

fn is_usable(program: &Compiled, fd: RawFd, target: RawFd) -> bool {
    fd < UNSHARE_FROM && !program.overwrites(fd, target)
}

/// Sources keep their numbers, except those at the number of another target.
fn find_sources(program: &Compiled, staging: &mut Staging, slots: &Slots) -> Result<(), SpawnError> {
    staging.sources.clear();
    for descriptor in &program.descriptors {
        let source = match source_of(&descriptor.source, &staging.ends, Some(slots.null())) {
            None => NONE,
            Some(fd) if !program.overwrites(fd.as_raw_fd(), descriptor.target) => fd.as_raw_fd(),
            Some(fd) => match copy_beside_targets(program, fd) {
                Ok(copy) => {
                    let number = copy.as_raw_fd();
                    staging.moved.push(copy);
                    number
                }
                Err(error) => return Err(program.error(descriptor.label, error.raw_os_error())),
            },
        };
        staging.sources.push(source);
    }
    Ok(())
}

/// A copy of a descriptor at the lowest free number that is no target. A number above the last target might be beyond
/// the limit (RLIMIT_NOFILE).
fn copy_beside_targets(program: &Compiled, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut least = FIRST;
    loop {
        let copy = fcntl_dupfd_cloexec(fd, least)?;
        let number = copy.as_raw_fd();
        if !program.overwrites(number, NONE) {
            return Ok(copy);
        }
        least = number.saturating_add(1);
    }
}

/// The descriptor that is copied to a target; `None` if the source is no descriptor.
fn source_of<'a>(
    source: &'a Source,
    ends: &'a [Option<OwnedFd>],
    null: Option<BorrowedFd<'a>>,
) -> Option<BorrowedFd<'a>> {
    match source {
        Source::Inherit | Source::Stream(_) | Source::File { .. } => None,
        Source::Null => null,
        Source::Given(fd) => Some(fd.as_fd()),
        Source::OfHost(number) => host_stream(*number),
        Source::Pipe(pipe) => ends.get(pipe.index)?.as_ref().map(AsFd::as_fd),
    }
}

/// The host's standard output or standard error.
fn host_stream(number: RawFd) -> Option<BorrowedFd<'static>> {
    match number {
        1 => Some(rustix::stdio::stdout()),
        2 => Some(rustix::stdio::stderr()),
        _ => None,
    }
}

/// Writes the steps that copy each source to its target.
fn write_placing(program: &Compiled, prelude: &mut Prelude, staging: &Staging, inherited: &Inherited) {
    for (descriptor, &source) in program.descriptors.iter().zip(&staging.sources) {
        let (label, target) = (descriptor.label, descriptor.target);
        match descriptor.source {
            Source::Inherit if target >= FIRST || inherited.is_close_on_exec(target) => {
                prelude.duplicate(label, target, target);
            }
            Source::Null | Source::Given(_) | Source::OfHost(_) | Source::Pipe(_) => {
                prelude.duplicate(label, source, target)
            }
            Source::Inherit | Source::Stream(_) | Source::File { .. } => {}
        }
    }
}

/// Writes the steps that close the standard streams which the host has closed.
fn write_closed_streams(program: &Compiled, prelude: &mut Prelude, inherited: &Inherited) {
    // The host can have opened another file at the number of a closed stream before the child has its own table.
    for (number, stream) in (0..).zip(&inherited.streams) {
        let inherits = |descriptor: &&Descriptor| matches!(descriptor.source, Source::Inherit);
        let mut own = program.descriptors.iter().filter(inherits);
        if stream.is_none() && own.any(|descriptor| descriptor.target == number) {
            prelude.close_each(CLOSE, number as u32, number as u32);
        }
    }
}

/// Writes the steps that close every descriptor that was not placed. They come before files are opened, which can take
/// long. Until then the child has copies of pipes, and their readers in the host and in other children would not see
/// the end of the file.
fn write_closing(program: &Compiled, prelude: &mut Prelude, closing: Closing) {
    let mut close = |first: u32, last: u32| match closing {
        Closing::Range => prelude.close_range(CLOSE, first, last),
        Closing::Each => prelude.close_each(CLOSE, first, last),
        Closing::OnExec => prelude.close_range_on_exec(CLOSE, first, last),
        Closing::EachOnExec => prelude.close_each_on_exec(CLOSE, first, last),
    };
    let placed = program.descriptors.iter().filter(|descriptor| match descriptor.source {
        Source::Inherit | Source::Null | Source::Given(_) | Source::OfHost(_) | Source::Pipe(_) => true,
        Source::File { .. } | Source::Stream(_) => false,
    });
    let mut next = 0;
    for target in placed.filter_map(|descriptor| u32::try_from(descriptor.target).ok()) {
        if target > next {
            close(next, target - 1);
        }
        next = target.saturating_add(1);
    }
    let last = match closing {
        Closing::Range | Closing::OnExec => u32::MAX,
        Closing::Each | Closing::EachOnExec => highest_descriptor(),
    };
    close(next, last);
}

/// Writes the steps that open files, and then those that copy standard output or standard error, which can be one of
/// the files.
fn write_opening(program: &Compiled, prelude: &mut Prelude) {
    for descriptor in &program.descriptors {
        if let Source::File { path, flags, mode } = descriptor.source {
            prelude.open(descriptor.label, path, flags, mode, descriptor.target);
        }
    }
    for copy in &program.descriptors {
        if let Source::Stream(number) = copy.source {
            prelude.duplicate(copy.label, number, copy.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::flight::Launch;
    use super::super::{Command, Stdio};
    use super::*;

    #[test]
    fn all_steps_before_the_script_fit_in_the_room_that_is_reserved_for_them() {
        let null = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
        let given = || Stdio::from(Arc::clone(&null));
        let streams = |stdio: fn() -> Stdio| Command::new("true").stdin(stdio()).stdout(stdio()).stderr(stdio());
        // With gaps, which are closed one by one.
        let targets = || (4..44).step_by(2);
        for command in [
            streams(Stdio::null),
            streams(|| Stdio::append("/dev/null")),
            targets().fold(streams(Stdio::null), |command, target| command.fd(target, given())),
            targets().fold(streams(Stdio::null), |command, target| {
                command.fd(target, Stdio::append("/dev/null"))
            }),
        ] {
            let program = command.compile().unwrap();
            for closing in [Closing::Range, Closing::Each, Closing::OnExec, Closing::EachOnExec] {
                let mut launch = Launch::new().unwrap();
                let mut slots = Slots::new().unwrap();
                let Launch { flight, staging, .. } = &mut launch;
                let prelude = flight.prelude().unwrap();
                let inherited = Inherited::new(&program.0, &slots).unwrap();
                plan(&program.0, prelude, inherited, staging, &mut slots, closing).unwrap();
                let (steps, reserved) = (prelude.steps().len(), program.0.prelude_steps());
                assert!(steps <= reserved, "{steps} in {reserved}: {closing:?}, {command:?}");
            }
        }
    }
}
