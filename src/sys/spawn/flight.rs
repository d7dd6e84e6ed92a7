//! The memory that a child uses between clone and exec, and which it shares with the parent: a stack, its steps, and a
//! record of how far it has come.
//!
//! The parent of a vfork waits until the child has called execve or has ended, so it can lend the child anything. A
//! child *in flight* runs while the parent goes on. So a flight owns everything that its child reads or writes, and
//! keeps it unchanged until the child has released it. The kernel tells when that is: it zeroes a word in this memory
//! when the child has a memory of its own (execve) or none any more (its end); see CLONE_CHILD_CLEARTID in clone(2).
//!
//! What can happen to the parent meanwhile:
//!
//! - *It drops the flight.* The memory is leaked on purpose: a process that hangs in the kernel may use it later. The
//!   owner of a flight had better keep it until then.
//! - *It forks.* The copy has its own copy of the memory, which no child uses.
//! - *It calls execve or ends.* The child keeps the old memory alive until it lets go.
//! - *It panics.* The flight is dropped like anything else, or the process ends.

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
    /// The process that made the last child in flight.
    maker: u64,
}

#[derive(Debug)]
struct Parts {
    stack: Stack,
    prelude: Prelude,
    /// The environment for a child that needs its own pid in it.
    environment: Vec<usize>,
}

// SAFETY: the mapping, the record and the buffers belong to this value alone, and no thread has a tie to them.
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

    /// Gives the script up that the last child used. Does nothing while a child uses it.
    pub(crate) fn clear(&mut self, nothing: &Arc<Script>) {
        if let Some(prelude) = self.prelude() {
            prelude.end(nothing);
        }
    }

    /// Whether a child uses this memory. In a copy of the process that made the child, it is other memory, in which the
    /// kernel leaves the word as it is.
    pub(crate) fn is_in_use(&self) -> bool {
        self.shared().0.load(Ordering::Acquire) != 0 && self.maker == process_number()
    }

    /// Whether the child no longer uses the parent's descriptor table.
    pub(crate) fn has_unshared(&self) -> bool {
        !self.is_in_use() || self.shared().1.load(Ordering::Acquire) >= Stage::UNSHARED
    }

    /// Whether the child has called execve at least once. It may have failed, or may not have come back.
    pub(crate) fn has_reached_exec(&self) -> bool {
        self.shared().1.load(Ordering::Acquire) >= Stage::EXECUTES
    }

    /// The label and errno of the step that failed, if one did.
    pub(crate) fn failure(&self) -> Option<(usize, c_int)> {
        // SAFETY: the record lives as long as this value; only atomic fields are read.
        let (label, errno) = unsafe {
            let run = self.run.as_ptr();
            (&(*run).failed_label, &(*run).failed_errno)
        };
        let errno = errno.load(Ordering::Acquire);
        (errno != 0).then(|| (label.load(Ordering::Relaxed), errno))
    }

    /// Of an execve that failed: whether the program is there and may be executed, and the path of the interpreter that
    /// is at fault, if one is. `None` while a child uses this memory.
    pub(crate) fn inquiry(&self) -> Option<(bool, Option<Vec<u8>>)> {
        if self.is_in_use() {
            return None;
        }
        // SAFETY: the record lives as long as this value, and no child writes to it any more.
        let inquiry = unsafe { &(*self.run.as_ptr()).inquiry };
        Some((inquiry.found(), inquiry.interpreter()))
    }

    fn shared(&self) -> (&AtomicU32, &AtomicU32) {
        // SAFETY: as above.
        unsafe {
            let run = self.run.as_ptr();
            (&(*run).in_use, &(*run).stage)
        }
    }

    /// The child of this flight has ended, as its pidfd tells, so nothing uses the memory. The kernel can have failed to
    /// zero the word: where it could not bring the page back from swap, and before Linux 5.16 after a core dump.
    pub(crate) fn child_has_ended(&mut self) {
        self.take_back();
    }

    /// Prepares the record for a new child. `in_flight` says that the child will use the memory while the parent runs,
    /// `shares_descriptors` that it begins with the parent's descriptor table.
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
        // SAFETY: no child uses the record (the caller), and nothing else points to it.
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
            // SAFETY: the record lives as long as this value; no reference is made.
            in_use: unsafe { &raw mut (*run).in_use }.cast(),
            stack_bottom: parts.stack.bottom(),
            stack_size: parts.stack.size(),
            stack_top: parts.stack.top(),
        }
    }

    /// Sets the word as if a child used the memory.
    #[cfg(test)]
    pub(crate) fn pretend_in_use(&mut self) {
        self.maker = process_number();
        self.shared().0.store(1, Ordering::Release);
    }

    /// No child was made, or the child has let go: the memory is free again.
    pub(super) fn take_back(&mut self) {
        self.shared().0.store(0, Ordering::Release);
    }
}

impl Drop for Flight {
    /// What a child still uses is leaked.
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

/// What clone needs of a flight.
pub(super) struct Lent {
    pub run: *mut Run,
    /// The word that the kernel zeroes.
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

/// Writes the key of the entry with the pid; its length.
///
/// # Safety
/// `entry` has room for [`LONGEST_PID_KEY`] bytes.
unsafe fn write_key(entry: *mut u8, key: &CStr) -> usize {
    let key = key.to_bytes();
    let length = key.len().min(LONGEST_PID_KEY);
    // SAFETY: as promised by the caller, and no longer than the key.
    unsafe { entry.copy_from_nonoverlapping(key.as_ptr(), length) };
    length
}
