//! Numbers that libc lacks, or that have different names on different targets.
//!
//! The calls about ids have other names on architectures where ids once had 16 bits.

use std::ffi::c_long;

macro_rules! ids {
    ($($name:ident = $wide:ident or $legacy:ident;)*) => {
        $(
            #[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "m68k", target_arch = "sparc"))]
            pub(crate) const $name: c_long = libc::$legacy as c_long;
            #[cfg(not(any(target_arch = "x86", target_arch = "arm", target_arch = "m68k", target_arch = "sparc")))]
            pub(crate) const $name: c_long = libc::$wide as c_long;
        )*
    };
}

ids! {
    SETGROUPS = SYS_setgroups or SYS_setgroups32;
    GETGROUPS = SYS_getgroups or SYS_getgroups32;
    SETRESGID = SYS_setresgid or SYS_setresgid32;
    SETRESUID = SYS_setresuid or SYS_setresuid32;
    GETUID = SYS_getuid or SYS_getuid32;
    GETEUID = SYS_geteuid or SYS_geteuid32;
    GETGID = SYS_getgid or SYS_getgid32;
    GETEGID = SYS_getegid or SYS_getegid32;
}

/// close_range(2), since Linux 5.9. libc lacks it on some targets; the number is the same on all.
pub(crate) const CLOSE_RANGE: c_long = 436;

/// The file system type that statfs(2) returns for cgroup v2. libc's constant has another type on some targets.
pub(crate) const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The option of a Unix socket that each message comes with a pidfd of its sender, since Linux 6.5, and the type of that
/// control message. libc lacks both.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
pub(crate) const SO_PASSPIDFD: std::ffi::c_int = 76;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
pub(crate) const SO_PASSPIDFD: std::ffi::c_int = 0x55;
pub(crate) const SCM_PIDFD: std::ffi::c_int = 4;

/// The operation of fcntl(2) that tells whether two descriptors refer to the same open file, since Linux 6.10.
pub(crate) const F_DUPFD_QUERY: std::ffi::c_int = 1_027;

/// The type for kcmp(2) that compares open files.
pub(crate) const KCMP_FILE: usize = 0;
