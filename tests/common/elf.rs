//! Programs of a few instructions, written byte by byte. They are static, so they run below any root
//! directory, and they start very fast.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::places::skipped;

/// The address of the word that [`WAITING`] sets to 1 when it runs. The next word is its parent-death signal.
pub const REPORT: u64 = 0x40_0800;

/// Reads its parent-death signal, sets the word at [`REPORT`], and waits for signals without end.
pub const WAITING: &[u8] = &[
    0xb8, 157, 0, 0, 0, // mov eax, prctl
    0xbf, 2, 0, 0, 0, // mov edi, PR_GET_PDEATHSIG
    0xbe, 0x04, 0x08, 0x40, 0x00, // mov esi, REPORT + 4
    0x0f, 0x05, // syscall
    0xc7, 0x04, 0x25, 0x00, 0x08, 0x40, 0x00, 1, 0, 0, 0, // mov dword [REPORT], 1
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the pause
];

/// Exits with the first byte of its first argument.
pub const EXITING: &[u8] = &[
    0x48, 0x8b, 0x44, 0x24, 0x10, // mov rax, [rsp + 16]
    0x0f, 0xb6, 0x38, // movzx edi, byte [rax]
    0xb8, 231, 0, 0, 0, // mov eax, exit_group
    0x0f, 0x05, // syscall
];

/// Ignores SIGTERM, starts a second thread and ends the first one, so the leader of the process is a zombie in /proc
/// while the process lives. The second thread reads a byte from descriptor 0, closes descriptor 3, and waits for
/// signals without end.
pub const LEADERLESS: &[u8] = &[
    0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
    0xbf, 15, 0, 0, 0, // mov edi, SIGTERM
    0xc7, 0x04, 0x25, 0x00, 0x09, 0x40, 0x00, 1, 0, 0, 0, // mov dword [ACTION], SIG_IGN
    0xbe, 0x00, 0x09, 0x40, 0x00, // mov esi, ACTION
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 56, 0, 0, 0, // mov eax, clone
    0xbf, 0x00, 0x0f, 0x01, 0x00, // mov edi, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
    0xbe, 0xf0, 0x0f, 0x40, 0x00, // mov esi, the end of the page
    0x31, 0xd2, // xor edx, edx
    0x45, 0x31, 0xd2, // xor r10d, r10d
    0x45, 0x31, 0xc0, // xor r8d, r8d
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x75, 0x23, // jnz to the exit
    0x31, 0xff, // xor edi, edi
    0xbe, 0x00, 0x0a, 0x40, 0x00, // mov esi, a byte
    0xba, 1, 0, 0, 0, // mov edx, 1
    0x0f, 0x05, // syscall: read
    0xbf, 3, 0, 0, 0, // mov edi, 3
    0xb8, 3, 0, 0, 0, // mov eax, close
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the pause
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, exit (of this thread)
    0x0f, 0x05, // syscall
];

/// Enters the process group of its parent and waits for signals without end.
pub const LEAVING: &[u8] = &[
    0xb8, 110, 0, 0, 0, // mov eax, getppid
    0x0f, 0x05, // syscall
    0x89, 0xc7, // mov edi, eax
    0xb8, 121, 0, 0, 0, // mov eax, getpgid
    0x0f, 0x05, // syscall
    0x89, 0xc6, // mov esi, eax
    0x31, 0xff, // xor edi, edi
    0xb8, 109, 0, 0, 0, // mov eax, setpgid
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the pause
];

/// Whether these programs run on this machine. If not, reports the test as skipped.
#[must_use]
pub fn runs_or_skip() -> bool {
    let runs = cfg!(all(target_arch = "x86_64", target_pointer_width = "64"));
    if !runs {
        skipped("its programs are written for x86_64");
    }
    runs
}

/// Writes a program with this code to `path`. It has one segment of one page, with all rights.
pub fn install(path: &Path, code: &[u8]) {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let length = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let halves = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let words = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    // The file header: an executable for x86_64, version 1; entry, program headers, no sections.
    halves(&mut file, &[2, 62, 1, 0]);
    words(&mut file, &[BASE + HEADERS, 64, 0]);
    halves(&mut file, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // The segment: type (loadable), all rights; offset, addresses, sizes, alignment.
    halves(&mut file, &[1, 0, 7, 0]);
    words(&mut file, &[0, BASE, BASE, length, 0x1000, 0x1000]);
    file.extend(code);
    fs::write(path, file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("cannot make the program executable");
}
