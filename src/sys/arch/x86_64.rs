//! x86_64: `syscall` clobbers rcx and r11 and returns in rax; everything else survives it, also into a
//! child that runs on another stack.

use std::arch::asm;
use std::ffi::{c_long, c_void};

use super::{CloneArgs, Entry};

/// One system call; the result as the kernel gives it, `-errno` on failure. Touches no errno, so a
/// child that shares its parent's memory may use it.
///
/// # Safety
/// The arguments must be what the call asks for: pointers valid for what it reads and writes.
#[inline(always)]
pub(crate) unsafe fn syscall(nr: c_long, args: &[usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention. The caller answers for the arguments. Memory is not
    // declared untouched, so the compiler expects writes through them.
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

/// clone3(2). In the parent: the child's pid or `-errno`. The child calls `entry(arg)` on the stack
/// that `args` names and never comes back here.
///
/// # Safety
/// `args` must name an unused stack and valid places for the results. With CLONE_VM, `arg` must stay
/// valid until the child has called execve or exit (CLONE_VFORK sees to that).
pub(crate) unsafe fn clone3(args: &CloneArgs, size: usize, entry: Entry, arg: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: the child's registers are copies of ours but for rax = 0 and rsp = the top of its own
    // stack, so it finds `entry` and `arg` in r9 and r8. It aligns the stack as a call wants it,
    // ends the chain of frames, and calls a function that does not return: nothing of our frame is
    // touched by it. In the parent this is an ordinary system call.
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
