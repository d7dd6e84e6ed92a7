//! The memory that a child uses between clone and exec, and that it shares with the parent: a stack, its steps, and a
//! record of its progress.
//!
//! After vfork the parent waits until the child has called execve or has ended, so the child can use any memory of the
//! parent. A child *in flight* runs while the parent continues. So a flight owns everything that its child reads or
//! writes, and keeps it unchanged until the child has released it. The kernel zeroes a word in this memory at that
//! moment: when the child has called execve or has ended; see CLONE_CHILD_CLEARTID in clone(2).
//!
//! What can happen to the parent meanwhile:
//!
//! - *It drops the flight.* The memory is leaked on purpose: a process that hangs in the kernel may use it later. So
//!   the owner of a flight should keep it until the child has released the memory.
//! - *It forks.* The copy has its own copy of the memory, which no child uses.
//! - *It calls execve or ends.* The kernel keeps the old memory until the child has released it.
//! - *It panics.* The flight is dropped during unwinding, or the process ends.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use super::child::{Part, Run, Stage};
use super::interpreter::Inquiry;
use super::parent::Parent;
use super::script::{DECIMAL, LONGEST_PID_KEY, Prelude, Script, Syscall};
use super::stack::Stack;
use crate::sys::fork::process_number;

/// Everything that one child uses before its program runs. It serves one child after the other.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Freed only when no child uses it.
    parts: ManuallyDrop<Parts>,
    run: NonNull<Run>,
    /// The number of the process that made the last child in flight.
    maker: u64,
}

#[derive(Debug)]
struct Parts {
    stack: Stack,
    prelude: Prelude,
    /// The environment for a child that needs its own pid in it.
    environment: Vec<usize>,
}

// SAFETY: the mapping, the record and the buffers belong to this value alone, and they are not bound to a thread.
unsafe impl Send for Flight {}

impl Flight {
    pub(crate) fn new() -> io::Result<Flight> {
        let run = Box::new(Run {
            parts: [const { Part::EMPTY }; 2],
            parent: Parent::NONE,
            environment: std::ptr::null(),
            pid_entry: [0; LONGEST_PID_KEY + DECIMAL],
            pid_key: 0,
            number: 0,
            pauses: 0,
            in_use: AtomicU32::new(0),
            stage: AtomicU32::new(Stage::SHARED),
            failed_label: AtomicUsize::new(0),
            failed_errno: AtomicI32::new(0),
            inquiry: Inquiry::new(),
        });
        let parts = Parts {
            stack: Stack::new()?,
            prelude: Prelude::new(),
            environment: Vec::new(),
        };
        Ok(Flight {
            parts: ManuallyDrop::new(parts),
            run: NonNull::from(Box::leak(run)),
            maker: 0,
        })
    }

    /// The steps that come before those of the script; `None` while a child uses them.
    pub(crate) fn prelude(&mut self) -> Option<&mut Prelude> {
        if self.is_in_use() {
            None
        } else {
            Some(&mut self.parts.prelude)
        }
    }

    /// Drops the script of the last child. Does nothing while a child uses the memory.
    pub(crate) fn clear(&mut self, nothing: &Arc<Script>) {
        if let Some(prelude) = self.prelude() {
            prelude.end(nothing);
        }
    }

    /// Whether a child uses this memory. A copy of the process that made the child has its own copy of the memory,
    /// where the kernel does not zero the word. So the result is `false` there.
    pub(crate) fn is_in_use(&self) -> bool {
        self.shared().0.load(Ordering::Acquire) != 0 && self.maker == process_number()
    }

    /// Whether the child no longer uses the parent's descriptor table.
    pub(crate) fn has_unshared(&self) -> bool {
        !self.is_in_use() || self.shared().1.load(Ordering::Acquire) >= Stage::UNSHARED
    }

    /// Whether the child has called execve at least once. That call may have failed, or may not have returned.
    pub(crate) fn has_reached_exec(&self) -> bool {
        self.shared().1.load(Ordering::Acquire) >= Stage::EXECUTES
    }

    /// The label and errno of the step that failed, if one did.
    pub(crate) fn failure(&self) -> Option<(usize, c_int)> {
        // SAFETY: the record lives as long as this value. Only atomic fields are read.
        let (label, errno) = unsafe {
            let run = self.run.as_ptr();
            (&(*run).failed_label, &(*run).failed_errno)
        };
        let errno = errno.load(Ordering::Acquire);
        (errno != 0).then(|| (label.load(Ordering::Relaxed), errno))
    }

    /// The findings about an execve that failed: whether the program exists and may be executed, and the path of the
    /// interpreter at fault, if any. `None` while a child uses this memory.
    pub(crate) fn inquiry(&self) -> Option<(bool, Option<Vec<u8>>)> {
        if self.is_in_use() {
            return None;
        }
        // SAFETY: the record lives as long as this value, and no child writes to it any more.
        let inquiry = unsafe { &(*self.run.as_ptr()).inquiry };
        Some((inquiry.found(), inquiry.interpreter()))
    }

    fn shared(&self) -> (&AtomicU32, &AtomicU32) {
        // SAFETY: the record lives as long as this value. Only atomic fields are read.
        unsafe {
            let run = self.run.as_ptr();
            (&(*run).in_use, &(*run).stage)
        }
    }

    /// Marks the memory as free, because the pidfd of the child showed that the child has ended. The kernel does not
    /// always zero the word: it cannot if the page cannot be read back from swap, and before Linux 5.16 it does not
    /// after a core dump.
    pub(crate) fn child_has_ended(&mut self) {
        self.take_back();
    }

    /// Prepares the record for a new child. `in_flight`: the child uses the memory while the parent runs.
    /// `shares_descriptors`: the child starts with the parent's descriptor table.
    ///
    /// No child may use this memory.
    pub(super) fn prepare(&mut self, in_flight: bool, shares_descriptors: bool, pauses: u32) -> Lent {
        if in_flight {
            self.maker = process_number();
        }
        let parts: &mut Parts = &mut self.parts;
        let script = parts.prelude.script();
        let lists = [part(parts.prelude.steps()), part(script.steps())];
        let run = self.run.as_ptr();
        // SAFETY: the caller guarantees that no child uses the record, and nothing else points to it.
        unsafe {
            (*run).parts = lists;
            if script.asks_for_parent {
                (*run).parent = Parent::current();
            }
            (*run).pauses = pauses;
            (*run).stage = AtomicU32::new(if shares_descriptors {
                Stage::SHARED
            } else {
                Stage::UNSHARED
            });
            (*run).failed_errno = AtomicI32::new(0);
            (*run).inquiry = Inquiry::new();
            (*run).in_use = AtomicU32::new(u32::from(in_flight));
            if let Some(own) = script.own_environment() {
                let entry = (&raw mut (*run).pid_entry).cast::<u8>();
                (*run).pid_key = write_key(entry, &own.key);
                parts.environment.clear();
                parts.environment.extend_from_slice(&own.entries);
                parts.environment.extend([entry.expose_provenance(), 0]);
                (*run).environment = parts.environment.as_ptr();
            }
        }
        Lent {
            run,
            // SAFETY: the record lives as long as this value, and no reference to it is made.
            in_use: unsafe { &raw mut (*run).in_use }.cast(),
            stack_bottom: parts.stack.bottom(),
            stack_size: parts.stack.size(),
            stack_top: parts.stack.top(),
        }
    }

    /// Sets the word to the value that it has while a child uses the memory.
    #[cfg(test)]
    pub(crate) fn pretend_in_use(&mut self) {
        self.maker = process_number();
        self.shared().0.store(1, Ordering::Release);
    }

    /// Marks the memory as free: no child was made, or the child has released it.
    pub(super) fn take_back(&mut self) {
        self.shared().0.store(0, Ordering::Release);
    }
}

impl Drop for Flight {
    /// Memory that a child still uses is leaked.
    fn drop(&mut self) {
        if self.is_in_use() {
            return;
        }
        // SAFETY: no child uses the memory, and the value is not used again.
        unsafe {
            ManuallyDrop::drop(&mut self.parts);
            drop(Box::from_raw(self.run.as_ptr()));
        }
    }
}

/// The parts of a flight that clone needs.
pub(super) struct Lent {
    pub run: *mut Run,
    /// The word that the kernel zeroes when the child releases the memory.
    pub in_use: *mut u32,
    pub stack_bottom: *mut c_void,
    pub stack_size: usize,
    pub stack_top: *mut c_void,
}

fn part(steps: &[Syscall]) -> Part {
    let range = steps.as_ptr_range();
    Part {
        first: range.start,
        end: range.end,
    }
}

/// Writes the key of the entry with the pid. Returns its length.
///
/// # Safety
/// `entry` must have room for [`LONGEST_PID_KEY`] bytes.
unsafe fn write_key(entry: *mut u8, key: &CStr) -> usize {
    let key = key.to_bytes();
    let length = key.len().min(LONGEST_PID_KEY);
    // SAFETY: the caller guarantees the room, and the key has at least `length` bytes.
    unsafe { entry.copy_from_nonoverlapping(key.as_ptr(), length) };
    length
}
