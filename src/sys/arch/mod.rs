//! What differs from one architecture to the next: a raw system call, and `clone3`.
//!
//! x86_64 has both in assembly. Everything else, and a build with `--cfg pidherd_portable`, asks the
//! C library: assembly that nobody has run is worth less than none.

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable)))]
pub(crate) use x86_64::{clone3, syscall};

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable))))]
mod portable;
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable))))]
pub(crate) use portable::{clone3, syscall};

/// What a child starts with: a function that never returns, on a stack of its own.
pub(crate) type Entry = unsafe extern "C" fn(*mut std::ffi::c_void) -> !;

/// `struct clone_args` of clone3(2), up to Linux 5.7. (libc lacks it on some targets.)
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

impl CloneArgs {
    /// The size of the first version (Linux 5.3): all a kernel needs to know when the later fields are zero.
    pub const SIZE_FIRST: usize = 64;
    /// The size with `cgroup` (Linux 5.7).
    pub const SIZE_CGROUP: usize = 88;
}
