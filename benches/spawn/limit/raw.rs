//! The assembly code: a system call, clone3, and the child's loop.

use std::arch::asm;
use std::ffi::{c_long, c_void};

use super::steps::Step;
use crate::contender::{Name, give_up};

/// Makes a system call in the parent. Ends the benchmark if the call fails.
#[inline(always)]
pub fn call(nr: c_long, args: [usize; 5]) -> usize {
    // SAFETY: all callers are in this module's parent. They pass addresses of local variables or of memory
    // that they own.
    let result = unsafe { syscall(nr as usize, args) };
    if result < 0 {
        give_up(Name::Limit, &format!("system call {nr}: errno {}", -result));
    }
    result as usize
}

/// # Safety
/// The arguments are valid for the call.
#[inline(always)]
unsafe fn syscall(nr: usize, args: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the registers follow the kernel's calling convention.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// `struct clone_args` of clone3(2), in its first version.
#[repr(C)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
}

/// The child's system calls, and the error of the call that failed (0 if none did).
#[repr(C)]
pub struct Run {
    first: *const Step,
    end: *const Step,
    pub failed: isize,
}

impl Run {
    pub fn new(steps: &[Step]) -> Run {
        let range = steps.as_ptr_range();
        Run {
            first: range.start,
            end: range.end,
            failed: 0,
        }
    }
}

/// The memory for the child's stack. It is never unmapped.
pub struct Stack(*mut c_void);

impl Stack {
    pub const SIZE: usize = 32 * 1024;

    pub fn new() -> Stack {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a free address for the mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Stack::SIZE, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            give_up(Name::Limit, "cannot map a stack");
        }
        Stack(base)
    }

    pub fn bottom(&self) -> usize {
        self.0.expose_provenance()
    }
}

/// Returns the child's pid, or `-errno`.
pub fn clone3(args: &CloneArgs, _stack: &mut Stack, run: &mut Run) -> isize {
    let result: isize;
    // SAFETY: the child finds its function and its argument in registers, and the function does not return.
    // The child runs on the stack in `args`, which nothing else uses. CLONE_VFORK makes the parent wait until
    // the child has left this memory.
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
            in("rsi") size_of::<CloneArgs>(),
            in("r8") run as *mut Run,
            in("r9") child as unsafe extern "C" fn(*mut Run) -> !,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes the system calls of `run` in order. The last one is execve(2).
///
/// # Safety
/// `run` and everything that its steps point to are valid.
unsafe extern "C" fn child(run: *mut Run) -> ! {
    // SAFETY: the caller guarantees valid pointers. The code neither panics nor allocates nor takes a lock.
    unsafe {
        let mut step = (*run).first;
        while step != (*run).end {
            let result = syscall((*step).nr, (*step).args);
            if result < 0 && !(*step).may_fail {
                (*run).failed = result;
                break;
            }
            step = step.wrapping_add(1);
        }
        loop {
            syscall(libc::SYS_exit_group as usize, [127, 0, 0, 0, 0]);
        }
    }
}
