//! Numbers that libc doesn't have, or not by the same name everywhere.
//!
//! The calls about ids have another name where ids were once 16 bits wide.

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

/// close_range(2), Linux 5.9; not in libc for every target, but the same number on all.
pub(crate) const CLOSE_RANGE: c_long = 436;

/// What fstatfs(2) says of cgroup v2; libc's has another type on some targets.
pub(crate) const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
