//! The version for x86_64. The `syscall` instruction overwrites rcx and r11, and returns its result in rax. All other
//! registers keep their values, also in a child that runs on another stack.

use std::arch::asm;
use std::ffi::{c_long, c_void};

use super::clone_args::{CloneArgs, Entry};

/// Makes one system call. Returns the kernel's result, which is `-errno` on failure. It does not write errno, so a
/// child that shares its parent's memory may call it.
///
/// # Safety
/// The arguments must be valid for the call: each pointer must be valid for what the call reads or writes.
#[inline(always)]
pub(crate) unsafe fn syscall(nr: c_long, args: &[usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the registers follow the kernel's calling convention, and the caller guarantees valid arguments. The
    // assembly may access memory (there is no `nomem`), so the compiler expects the kernel's writes.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Calls clone3(2). Returns the child's pid or `-errno` in the parent. The child calls `entry(arg)` on the stack in
/// `args`, and never returns from this function.
///
/// # Safety
/// `args` must contain an unused stack and valid addresses for the results. With CLONE_VM, `arg` must stay valid until
/// the child has called execve or exit (CLONE_VFORK makes the parent wait for that).
pub(crate) unsafe fn clone3(args: &CloneArgs, size: usize, entry: Entry, arg: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: the child starts with a copy of the registers, except rax = 0 and rsp = the top of its own stack, so it
    // finds `entry` in r9 and `arg` in r8. It aligns the stack for a call, ends the chain of frames, and calls a
    // function that does not return. So it never touches this function's frame. In the parent this is an ordinary
    // system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args as *const CloneArgs,
            in("rsi") size,
            in("r8") arg,
            in("r9") entry,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
