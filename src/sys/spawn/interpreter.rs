//! The reason why an execve failed: the child finds out whether the program exists and which interpreter is at fault.
//!
//! execve(2) returns ENOENT for a script with a missing interpreter, and for a program with a missing dynamic linker.
//! Only the child can distinguish these from a missing program: it has the root, the directory and the rights that the
//! kernel used. It follows the chain of interpreters as the kernel does, with system calls only; [`super::child`] lists
//! the rules for code in the child. A spawn that succeeds never runs this code.

use std::ffi::{CStr, c_int};

use crate::sys::arch::syscall;

/// The number of bytes that the kernel reads from a program to find its interpreter (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// The kernel gives up (ELOOP) after this many interpreters of interpreters.
const DEPTH: usize = 6;

/// The findings.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Inquiry {
    /// Whether the program exists and may be executed.
    found: bool,
    /// The path of the interpreter that cannot be executed, in one of the heads; or null.
    interpreter: *const u8,
    /// The beginnings of two files. The first contains the path of the second. Each has room for a NUL after it.
    heads: [[u8; HEAD + 1]; 2],
}

impl Inquiry {
    pub(super) const fn new() -> Inquiry {
        Inquiry {
            found: false,
            interpreter: std::ptr::null(),
            heads: [[0; HEAD + 1]; 2],
        }
    }

    /// Whether the program exists and may be executed. For the parent.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// The interpreter at fault. For the parent.
    pub(super) fn interpreter(&self) -> Option<Vec<u8>> {
        let start = (self.interpreter as usize).wrapping_sub(self.heads.as_ptr() as usize);
        let path = self
            .heads
            .as_flattened()
            .get(start..)
            .filter(|_| !self.interpreter.is_null())?;
        let path = CStr::from_bytes_until_nul(path).ok()?;
        Some(path.to_bytes().to_owned())
    }
}

/// Whether this errno of execve can concern the program or one of its interpreters. Other errnos concern the arguments,
/// or a shortage.
pub(super) fn is_about_files(errno: c_int) -> bool {
    !matches!(
        errno,
        libc::E2BIG | libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ETXTBSY | libc::EFAULT
    )
}

/// Whether this user may execute the file at this path. (access(2) checks the real ids. In a child that has changed its
/// ids, the real and the effective ids are equal.)
///
/// # Safety
/// `path` is the address of a text that ends with a NUL.
pub(super) unsafe fn may_execute(path: usize) -> bool {
    let args = [libc::AT_FDCWD as usize, path, libc::X_OK as usize, 0, 0, 0];
    // SAFETY: the caller guarantees a valid text.
    unsafe { syscall(libc::SYS_faccessat, &args) == 0 }
}

/// Finds out why execve of `path` failed with `errno`.
///
/// # Safety
/// `path` must be the address of a text that ends with a NUL. `inquiry` must be valid for reads and writes.
pub(super) unsafe fn inquire(path: usize, errno: c_int, inquiry: *mut Inquiry) {
    let (mut path, mut depth) = (path, 0usize);
    // SAFETY: the caller guarantees valid arguments. Each further path is in a head and ends with a NUL.
    unsafe {
        let heads = (&raw mut (*inquiry).heads).cast::<[u8; HEAD + 1]>();
        let mut interpreter = std::ptr::null::<u8>();
        let mut at_fault = false;
        while depth < DEPTH {
            at_fault = !may_execute(path);
            if at_fault {
                break;
            }
            if depth == 0 {
                (*inquiry).found = true;
            }
            let head = heads.wrapping_add(depth & 1).cast::<u8>();
            match next(path, errno, head) {
                Next::Interpreter(next) => interpreter = next,
                Next::None => {
                    // The kernel does not know the format of this file.
                    at_fault = errno == libc::ENOEXEC;
                    break;
                }
                Next::Directory => {
                    at_fault = true;
                    break;
                }
            }
            path = interpreter as usize;
            depth = depth.wrapping_add(1);
        }
        if at_fault {
            (*inquiry).interpreter = interpreter;
        }
    }
}

/// The information in the beginning of a file.
enum Next {
    /// The path of its interpreter.
    Interpreter(*const u8),
    /// The file needs no interpreter, or cannot be read.
    None,
    /// The file is a directory.
    Directory,
}

/// Reads the beginning of a file into `head`, and finds the interpreter in it.
unsafe fn next(path: usize, errno: c_int, head: *mut u8) -> Next {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path ends with a NUL, and the head has room for HEAD bytes and one more.
    unsafe {
        let file = syscall(
            libc::SYS_openat,
            &[libc::AT_FDCWD as usize, path, flags as usize, 0, 0, 0],
        );
        if file < 0 {
            return Next::None;
        }
        let length = syscall(libc::SYS_read, &[file as usize, head as usize, HEAD, 0, 0, 0]);
        let next = if length == -(libc::EISDIR as isize) {
            Next::Directory
        } else if length < 2 {
            Next::None
        } else if byte(head, 0) == b'#' && byte(head, 1) == b'!' {
            of_script(head, length as usize)
        } else if errno == libc::ENOEXEC {
            // The program is for another architecture, so the kernel has not looked for its dynamic linker.
            Next::None
        } else {
            of_program(file as usize, head, length as usize)
        };
        syscall(libc::SYS_close, &[file as usize, 0, 0, 0, 0, 0]);
        next
    }
}

/// The interpreter in the first line of a script: the text after `#!` and blanks, up to the next blank.
unsafe fn of_script(head: *mut u8, length: usize) -> Next {
    let is_blank = |byte| byte == b' ' || byte == b'\t';
    let mut start: usize = 2;
    // SAFETY: `length` bytes were read into the head, and there is room for one more.
    unsafe {
        while start < length && is_blank(byte(head, start)) {
            start = start.wrapping_add(1);
        }
        let mut end = start;
        while end < length && !is_blank(byte(head, end)) && byte(head, end) != b'\n' && byte(head, end) != 0 {
            end = end.wrapping_add(1);
        }
        // A path that reaches the end of the head may be longer than the head, and the kernel refuses it.
        if end == start || end == HEAD {
            return Next::None;
        }
        head.wrapping_add(end).write(0);
    }
    Next::Interpreter(head.wrapping_add(start))
}

/// The dynamic linker of a 64-bit program, which its program header PT_INTERP names (elf(5)). That header is one of the
/// first, so it is in the head.
#[cfg(target_pointer_width = "64")]
unsafe fn of_program(file: usize, head: *mut u8, length: usize) -> Next {
    const PT_INTERP: u32 = 3;
    const ENTRY: usize = 56;
    // SAFETY: no byte after the `length` bytes that were read into the head is accessed.
    unsafe {
        let is_elf = byte(head, 0) == 0x7f && byte(head, 1) == b'E' && byte(head, 2) == b'L' && byte(head, 3) == b'F';
        if length < 64 || !is_elf || byte(head, 4) != 2 {
            return Next::None;
        }
        let mut entry = head.wrapping_add(32).cast::<u64>().read_unaligned() as usize;
        let count = head.wrapping_add(56).cast::<u16>().read_unaligned() as usize;
        let mut number: usize = 0;
        while number < count && entry < length && length.wrapping_sub(entry) >= ENTRY {
            let at = head.wrapping_add(entry);
            if at.cast::<u32>().read_unaligned() == PT_INTERP {
                let offset = at.wrapping_add(8).cast::<u64>().read_unaligned() as usize;
                let size = at.wrapping_add(32).cast::<u64>().read_unaligned() as usize;
                let size = if size > HEAD { HEAD } else { size };
                let length = syscall(libc::SYS_pread64, &[file, head as usize, size, offset, 0, 0]);
                if length <= 0 {
                    return Next::None;
                }
                head.wrapping_add(length as usize).write(0);
                return Next::Interpreter(head);
            }
            entry = entry.wrapping_add(ENTRY);
            number = number.wrapping_add(1);
        }
    }
    Next::None
}

#[cfg(not(target_pointer_width = "64"))]
unsafe fn of_program(_: usize, _: *mut u8, _: usize) -> Next {
    Next::None
}

/// Reads one byte. The read is volatile, so that the compiler does not replace a loop of reads by a call of the C
/// library.
unsafe fn byte(head: *const u8, at: usize) -> u8 {
    // SAFETY: the callers stay within the bytes that were read.
    unsafe { head.wrapping_add(at).read_volatile() }
}
