//! Programs of a few instructions, written byte by byte. They are static, so they run below any root
//! directory, and they start very fast.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::places::skipped;

/// The address of the word that [`WAITING`] sets to 1 once it runs. The next word is its parent-death signal.
pub const REPORT: u64 = 0x40_0800;

/// Reads its parent-death signal, sets the word at [`REPORT`], and waits for signals for ever.
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
