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
//! never where another descriptor is to be put: on the short path a slot, on the plain path a copy above the
//! last target keeps it out of the way.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{SpawnError, Step, Subject};
use super::program::{CGROUP, CLOSE, Descriptor, Program, Source, UNSHARE};
use super::slots::{Occupied, SLOTS_FROM, Slots, UNSHARE_FROM};
use crate::child::Pipes;
use crate::sys::descriptors::{FIRST, flags_of};
use crate::sys::process::highest_descriptor;

/// The way descriptors take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Short,
    Plain,
}

/// The pipes of a spawn: the child's ends by stream, and the parent's.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub child: [Option<OwnedFd>; 4],
    pub parent: Pipes,
}

/// What the host has under the numbers that a child inherits. It is looked at before the spawn opens anything: a
/// pipe or the pidfd would get a number that the host has closed, and the child would get it in turn.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The flags of the standard streams, or `None` for one that is closed.
    streams: [Option<i32>; FIRST as usize],
    /// Keeps the numbers of closed ones from everything else while the child is made.
    _occupied: Occupied,
}

impl Inherited {
    /// # Errors
    /// `EBADF` for a descriptor that the child can't have, since the host hasn't got it.
    pub(super) fn new(program: &Program, slots: &Slots) -> Result<Inherited, SpawnError> {
        let streams = [0, 1, 2].map(flags_of);
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
            slots.occupy_standard()
        } else {
            Occupied::default()
        };
        Ok(Inherited {
            streams,
            _occupied: occupied,
        })
    }

    /// Whether the host's descriptor of this number would be closed by execve.
    fn is_close_on_exec(&self, number: RawFd) -> bool {
        let flags = usize::try_from(number).ok().and_then(|number| self.streams.get(number));
        matches!(flags, Some(Some(flags)) if flags & libc::FD_CLOEXEC != 0)
    }
}

/// Makes the pipes that the program asks for.
pub(super) fn open_pipes(program: &Program) -> Result<Ends, SpawnError> {
    let mut ends = Ends::default();
    for descriptor in &program.descriptors {
        let Source::Pipe(stream) = descriptor.source else {
            continue;
        };
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| {
            let subject = Subject::Stream(descriptor.target);
            program.parent_error(Step::Pipe, error.raw_os_error(), Some(subject))
        })?;
        let (child, parent) = if stream == 0 { (read, write) } else { (write, read) };
        if let Some(end) = ends.child.get_mut(stream) {
            *end = Some(child);
        }
        match stream {
            0 => ends.parent.stdin = Some(parent),
            1 => ends.parent.stdout = Some(parent),
            2 => ends.parent.stderr = Some(parent),
            _ => ends.parent.extra = Some(parent),
        }
    }
    Ok(ends)
}

/// Finds a way for every descriptor and writes the steps of it into the program's prelude. The first of all
/// is to enter the cgroup with this `cgroup.procs`, if the child has to do that itself.
pub(super) fn plan(
    program: &mut Program,
    inherited: &Inherited,
    ends: &Ends,
    slots: &mut Slots,
    close_range: bool,
    entrance: Option<BorrowedFd<'_>>,
) -> Result<Path, SpawnError> {
    program.prelude.clear();
    if let Some(procs) = entrance {
        program.prelude.enter_cgroup(CGROUP, procs.as_raw_fd(), program.zero);
    }
    program.clean_capabilities()?;
    let path = if close_range && find_short_ways(program, ends, slots) {
        program.prelude.unshare_below(UNSHARE, UNSHARE_FROM as u32);
        Path::Short
    } else {
        slots.empty();
        find_plain_ways(program, ends, slots)?;
        Path::Plain
    };
    write_placing(program, inherited);
    write_closing(program, close_range);
    Ok(path)
}

/// Stands for "no source": the step that puts it there makes it.
const NONE: RawFd = -1;

/// Whether every source is, or could be brought, below [`UNSHARE_FROM`].
fn find_short_ways(program: &mut Program, ends: &Ends, slots: &mut Slots) -> bool {
    let last = program.last_target();
    if last >= SLOTS_FROM {
        return false;
    }
    let mut sources = std::mem::take(&mut program.sources);
    sources.clear();
    let ways = program
        .descriptors
        .iter()
        .map(|descriptor| match source_of(&descriptor.source, ends, None) {
            Some(fd) if usable_as_it_is(program, fd.as_raw_fd(), descriptor.target) => Some(fd.as_raw_fd()),
            Some(fd) => slots.fill(fd),
            None => Some(NONE),
        });
    let mut complete = true;
    for way in ways {
        complete &= way.is_some();
        sources.push(way.unwrap_or(NONE));
    }
    let wants_null = program
        .descriptors
        .iter()
        .any(|descriptor| matches!(descriptor.source, Source::Null));
    complete &= !wants_null || slots.free() > 0;
    if let Some(null) = slots.low_null() {
        for (descriptor, source) in program.descriptors.iter().zip(&mut sources) {
            if matches!(descriptor.source, Source::Null) {
                *source = null;
            }
        }
    }
    program.sources = sources;
    complete
}

fn usable_as_it_is(program: &Program, fd: RawFd, target: RawFd) -> bool {
    fd < UNSHARE_FROM && !program.overwrites(fd, target)
}

/// Sources stay where they are, but for those in the way.
fn find_plain_ways(program: &mut Program, ends: &Ends, slots: &Slots) -> Result<(), SpawnError> {
    let above = program.last_target().saturating_add(1);
    let mut sources = std::mem::take(&mut program.sources);
    let mut moved = std::mem::take(&mut program.moved);
    sources.clear();
    let mut failed = None;
    for descriptor in &program.descriptors {
        let source = match source_of(&descriptor.source, ends, Some(slots.null())) {
            None => NONE,
            Some(fd) if !program.overwrites(fd.as_raw_fd(), descriptor.target) => fd.as_raw_fd(),
            Some(fd) => match fcntl_dupfd_cloexec(fd, above) {
                Ok(copy) => {
                    let number = copy.as_raw_fd();
                    moved.push(copy);
                    number
                }
                Err(error) => {
                    failed = Some(program.error(descriptor.label, error.raw_os_error()));
                    NONE
                }
            },
        };
        sources.push(source);
    }
    program.sources = sources;
    program.moved = moved;
    failed.map_or(Ok(()), Err)
}

/// The descriptor that is to be copied to a target, if it is one.
fn source_of<'a>(source: &'a Source, ends: &'a Ends, null: Option<BorrowedFd<'a>>) -> Option<BorrowedFd<'a>> {
    match source {
        Source::Inherit | Source::Stdout | Source::File { .. } => None,
        Source::Null => null,
        Source::Given(fd) => Some(fd.as_fd()),
        Source::Pipe(stream) => ends.child.get(*stream)?.as_ref().map(AsFd::as_fd),
    }
}

/// A source for every target; copies of standard output last, when that is in place.
fn write_placing(program: &mut Program, inherited: &Inherited) {
    let Program {
        descriptors,
        sources,
        prelude,
        ..
    } = program;
    for (descriptor, &source) in descriptors.iter().zip(sources.iter()) {
        let (label, target) = (descriptor.label, descriptor.target);
        match descriptor.source {
            Source::File { path, flags, mode } => prelude.open(label, path, flags, mode, target),
            Source::Inherit if target >= FIRST || inherited.is_close_on_exec(target) => {
                prelude.duplicate(label, target, target);
            }
            Source::Inherit | Source::Stdout => {}
            Source::Null | Source::Given(_) | Source::Pipe(_) => prelude.duplicate(label, source, target),
        }
    }
    for descriptor in descriptors
        .iter()
        .filter(|descriptor| matches!(descriptor.source, Source::Stdout))
    {
        prelude.duplicate(descriptor.label, 1, descriptor.target);
    }
}

/// Closes what lies between the targets and after the last.
fn write_closing(program: &mut Program, close_range: bool) {
    let Program {
        descriptors, prelude, ..
    } = program;
    let mut next = 0;
    for target in descriptors
        .iter()
        .filter_map(|descriptor| u32::try_from(descriptor.target).ok())
    {
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
