//! Descriptors on their way into a child, for one spawn.
//!
//! The short path shares the host's descriptor table with the child, which then takes the low end of
//! it for its own: that costs the same however many descriptors the host has open. It has room for what
//! fits below number 64. What doesn't fit takes the plain path: a private copy of the whole table, as
//! fork makes it.
//!
//! Numbers that the child inherits are looked at before anything is opened for it, and the library's own
//! descriptors stay away from those of the standard streams, even if the host has closed these.
//!
//! Both end the same way: each source is copied to its target, and everything else is closed. A source is
//! never where another descriptor is to be put: on the short path a slot, on the plain path a copy at a
//! number that is no target keeps it out of the way.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{SpawnError, SpawnStep, Subject};
use super::program::{CGROUP, CLOSE, Compiled, Descriptor, Source, UNSHARE};
use super::slots::{MOST_SLOTS, SLOTS_FROM, Slot, Slots, UNSHARE_FROM};
use crate::child::Pipes;
use crate::sys::descriptors::{FIRST, Occupied, flags_of, flags_of_stream, occupy_standard};
use crate::sys::process::highest_descriptor;
use crate::sys::spawn::script::Prelude;

/// Which descriptor table the child begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FdTable {
    /// That of the host, of which it then unshares the low end.
    Unshared,
    /// A copy of all of it.
    Copied,
}

/// What the host has under the numbers that a child inherits. It is looked at before the spawn opens anything: a
/// pipe or the pidfd would get a number that the host has closed, and the child would get it in turn.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The flags of the standard streams, or `None` for one that is closed.
    streams: [Option<i32>; FIRST as usize],
    /// Keeps the numbers of closed ones from everything else while the child is made.
    occupied: Occupied,
}

impl Inherited {
    /// # Errors
    /// `EBADF` for a descriptor that the child can't have, since the host hasn't got it.
    pub(super) fn new(program: &Compiled, slots: &Slots) -> Result<Inherited, SpawnError> {
        let streams = [0, 1, 2].map(flags_of_stream);
        let [_, stdout, _] = streams;
        let inherits = |descriptor: &Descriptor| matches!(descriptor.source, Source::Inherit);
        let inherits_stdout = || program.descriptors.iter().any(|own| own.target == 1 && inherits(own));
        for descriptor in &program.descriptors {
            let Descriptor { target, ref source, .. } = *descriptor;
            let is_there = match source {
                // A standard stream that the host has closed is closed in the child, as after fork and exec.
                Source::Inherit if target < FIRST => true,
                Source::Inherit => flags_of(target).is_some() && !slots.owns(target),
                Source::Stdout => stdout.is_some() || !inherits_stdout(),
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

    /// Whether the host's descriptor of this number would be closed by execve.
    fn is_close_on_exec(&self, number: RawFd) -> bool {
        let flags = usize::try_from(number).ok().and_then(|number| self.streams.get(number));
        matches!(flags, Some(Some(flags)) if flags & libc::FD_CLOEXEC != 0)
    }
}

/// Makes the pipes that the program asks for. The child's ends go to the staging; the parent's are returned.
pub(super) fn open_pipes(program: &Compiled, staging: &mut Staging) -> Result<Pipes, SpawnError> {
    let mut pipes = Pipes::default();
    for descriptor in &program.descriptors {
        let Source::Pipe(stream) = descriptor.source else {
            continue;
        };
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| {
            let subject = Subject::Stream(descriptor.target);
            program.parent_error(SpawnStep::Pipe, error.raw_os_error(), Some(subject))
        })?;
        let (child, parent) = if stream == 0 { (read, write) } else { (write, read) };
        if let Some(end) = staging.ends.get_mut(stream) {
            *end = Some(child);
        }
        match stream {
            0 => pipes.stdin = Some(parent),
            1 => pipes.stdout = Some(parent),
            2 => pipes.stderr = Some(parent),
            _ => pipes.extra = Some(parent),
        }
    }
    Ok(pipes)
}

/// The descriptors of one spawn, in the parent. They stay open until the child has a descriptor table of its own.
#[derive(Debug)]
pub(super) struct Staging {
    /// The source of each descriptor of the program, in its order.
    sources: Vec<RawFd>,
    /// Copies of descriptors that had to get out of the way.
    moved: Vec<OwnedFd>,
    /// Slots that are filled.
    slots: Vec<Slot>,
    /// The spawner's `/dev/null`, if it is a source: the spawner can be dropped meanwhile.
    null: Option<Arc<OwnedFd>>,
    /// The child's ends of the pipes.
    ends: [Option<OwnedFd>; 4],
    /// The `cgroup.procs` through which the child enters a cgroup.
    pub(super) entrance: Option<OwnedFd>,
    /// What lies under the numbers of standard streams that the host has closed, until the child has been made.
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
            ends: [const { None }; 4],
            entrance: None,
            occupied: Occupied::default(),
        }
    }

    /// Closes everything. The child must have a descriptor table of its own, or must not exist.
    pub(super) fn clear(&mut self, slots: &mut Slots) {
        self.moved.clear();
        self.empty_slots(slots);
        self.null = None;
        self.ends = [const { None }; 4];
        self.entrance = None;
        self.occupied = Occupied::default();
    }

    /// Gives the numbers of closed standard streams back to the host. The child closes its own.
    pub(super) fn leave_streams(&mut self) {
        self.occupied = Occupied::default();
    }

    fn empty_slots(&mut self, slots: &mut Slots) {
        self.slots.drain(..).for_each(|slot| slots.give_back(slot));
    }
}

/// Finds a way for every descriptor and writes the steps of it into the prelude. The first of all
/// is to enter the cgroup with this `cgroup.procs`, if the child has to do that itself.
pub(super) fn plan(
    program: &Compiled,
    prelude: &mut Prelude,
    inherited: Inherited,
    staging: &mut Staging,
    slots: &mut Slots,
    close_range: bool,
) -> Result<FdTable, SpawnError> {
    prelude.begin(&program.script, program.prelude_steps());
    if let Some(procs) = &staging.entrance {
        prelude.enter_cgroup(CGROUP, procs.as_raw_fd(), program.zero);
    }
    program.clean_capabilities(prelude)?;
    let table = if close_range && find_short_ways(program, staging, slots) {
        prelude.unshare_below(UNSHARE, UNSHARE_FROM as u32);
        FdTable::Unshared
    } else {
        staging.empty_slots(slots);
        find_plain_ways(program, staging, slots)?;
        FdTable::Copied
    };
    write_placing(program, prelude, staging, &inherited);
    staging.occupied = inherited.occupied;
    write_closing(program, prelude, close_range);
    write_opening(program, prelude);
    Ok(table)
}

/// Stands for "no source": the step that puts it there makes it.
const NONE: RawFd = -1;

/// Whether every source is, or could be brought, below [`UNSHARE_FROM`].
fn find_short_ways(program: &Compiled, staging: &mut Staging, slots: &mut Slots) -> bool {
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
            Some(fd) if usable_as_it_is(program, fd.as_raw_fd(), descriptor.target) => Some(fd.as_raw_fd()),
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

fn usable_as_it_is(program: &Compiled, fd: RawFd, target: RawFd) -> bool {
    fd < UNSHARE_FROM && !program.overwrites(fd, target)
}

/// Sources stay where they are, but for those in the way.
fn find_plain_ways(program: &Compiled, staging: &mut Staging, slots: &Slots) -> Result<(), SpawnError> {
    staging.sources.clear();
    for descriptor in &program.descriptors {
        let source = match source_of(&descriptor.source, &staging.ends, Some(slots.null())) {
            None => NONE,
            Some(fd) if !program.overwrites(fd.as_raw_fd(), descriptor.target) => fd.as_raw_fd(),
            Some(fd) => match out_of_the_way(program, fd) {
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

/// A copy of a descriptor at the lowest number at which nothing else will be put. A number above the last target might
/// be beyond the limit (RLIMIT_NOFILE).
fn out_of_the_way(program: &Compiled, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
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

/// The descriptor that is to be copied to a target, if it is one.
fn source_of<'a>(
    source: &'a Source,
    ends: &'a [Option<OwnedFd>; 4],
    null: Option<BorrowedFd<'a>>,
) -> Option<BorrowedFd<'a>> {
    match source {
        Source::Inherit | Source::Stdout | Source::File { .. } => None,
        Source::Null => null,
        Source::Given(fd) => Some(fd.as_fd()),
        Source::Pipe(stream) => ends.get(*stream)?.as_ref().map(AsFd::as_fd),
    }
}

/// A source for every target that has one.
fn write_placing(program: &Compiled, prelude: &mut Prelude, staging: &Staging, inherited: &Inherited) {
    for (descriptor, &source) in program.descriptors.iter().zip(&staging.sources) {
        let (label, target) = (descriptor.label, descriptor.target);
        match descriptor.source {
            Source::Inherit if target >= FIRST || inherited.is_close_on_exec(target) => {
                prelude.duplicate(label, target, target);
            }
            Source::Null | Source::Given(_) | Source::Pipe(_) => prelude.duplicate(label, source, target),
            Source::Inherit | Source::Stdout | Source::File { .. } => {}
        }
    }
    // The host may have taken the number of a closed stream when the child has its table.
    for (number, stream) in (0..).zip(&inherited.streams) {
        let inherits = |descriptor: &&Descriptor| matches!(descriptor.source, Source::Inherit);
        let mut own = program.descriptors.iter().filter(inherits);
        if stream.is_none() && own.any(|descriptor| descriptor.target == number) {
            prelude.close_each(CLOSE, number as u32, number as u32);
        }
    }
}

/// Closes every number that has not been placed. It comes before files are opened, which can take long: until then the
/// child has copies of descriptors that other children and the host wait for the end of.
fn write_closing(program: &Compiled, prelude: &mut Prelude, close_range: bool) {
    let placed = program.descriptors.iter().filter(|descriptor| match descriptor.source {
        Source::Inherit | Source::Null | Source::Given(_) | Source::Pipe(_) => true,
        Source::File { .. } | Source::Stdout => false,
    });
    let mut next = 0;
    for target in placed.filter_map(|descriptor| u32::try_from(descriptor.target).ok()) {
        if target > next {
            if close_range {
                prelude.close_range(CLOSE, next, target - 1);
            } else {
                prelude.close_each(CLOSE, next, target - 1);
            }
        }
        next = target.saturating_add(1);
    }
    if close_range {
        prelude.close_range(CLOSE, next, u32::MAX);
    } else {
        prelude.close_each(CLOSE, next, highest_descriptor());
    }
}

/// Opens files, and then copies standard output, which may be one of them.
fn write_opening(program: &Compiled, prelude: &mut Prelude) {
    for descriptor in &program.descriptors {
        if let Source::File { path, flags, mode } = descriptor.source {
            prelude.open(descriptor.label, path, flags, mode, descriptor.target);
        }
    }
    let copies = program.descriptors.iter();
    for copy in copies.filter(|descriptor| matches!(descriptor.source, Source::Stdout)) {
        prelude.duplicate(copy.label, 1, copy.target);
    }
}
