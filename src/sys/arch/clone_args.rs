//! The arguments of clone3(2), the same for every architecture.

/// The function that a child runs on its own stack. It never returns.
pub(crate) type Entry = unsafe extern "C" fn(*mut std::ffi::c_void) -> !;

/// `struct clone_args` of clone3(2), as of Linux 5.7. (libc lacks it on some targets.)
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
    /// The size of the first version (Linux 5.3). It is enough if all later fields are zero.
    pub const SIZE_FIRST: usize = 64;
    /// The size with `cgroup` (Linux 5.7).
    pub const SIZE_CGROUP: usize = 88;
}
