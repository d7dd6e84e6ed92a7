//! The child's program: the smallest possible one. The time to load and end it is a part of every
//! measurement, so it must be as short as possible.
#![allow(dead_code)] // Each benchmark uses one of two programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The machine code `mov edi, 0; mov eax, 60 (exit); syscall`.
#[cfg(target_arch = "x86_64")]
const NOTHING: [u8; 12] = [0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// The machine code `mov eax, 34 (pause); syscall`, with a jump back to the system call.
#[cfg(target_arch = "x86_64")]
const SLEEPER: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// The address where the only segment is mapped.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// The path of a program. If the benchmark wrote the file, it is removed on drop.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: &'static [&'static str],
    directory: Option<PathBuf>,
}

impl Program {
    /// A program that ends at once: a file written for it, or `/bin/true` if it cannot be written.
    pub fn nothing() -> Program {
        #[cfg(target_arch = "x86_64")]
        if let Some(program) = write(&NOTHING) {
            return program;
        }
        Program::installed("/bin/true", &[])
    }

    /// A program that sleeps until it is killed: a file written for it, or `/bin/sleep` if it cannot be
    /// written.
    pub fn sleeper() -> Program {
        #[cfg(target_arch = "x86_64")]
        if let Some(program) = write(&SLEEPER) {
            return program;
        }
        Program::installed("/bin/sleep", &["1000000"])
    }

    fn installed(path: &str, args: &'static [&'static str]) -> Program {
        Program {
            path: PathBuf::from(path),
            args,
            directory: None,
        }
    }

    pub fn args(&self) -> &'static [&'static str] {
        self.args
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn describe(&self) -> &'static str {
        match self.directory {
            Some(_) => "a static program of a few instructions",
            None => "a dynamically linked program; its start takes longer than the spawn",
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Writes the program to a directory that every user may enter, because one case runs it as another user.
#[cfg(target_arch = "x86_64")]
fn write(code: &[u8]) -> Option<Program> {
    let directory = std::env::temp_dir().join(format!("pidherd-bench-{}", std::process::id()));
    fs::create_dir(&directory).ok()?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).ok()?;
    let path = directory.join("program");
    fs::write(&path, image(code)).ok()?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).ok()?;
    Some(Program {
        path,
        args: &[],
        directory: Some(directory),
    })
}

/// Builds an ELF file with one loadable segment, which holds the headers and the code (elf(5)).
#[cfg(target_arch = "x86_64")]
fn image(code: &[u8]) -> Vec<u8> {
    let length = HEADERS + code.len() as u64;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |value: u64, size: usize| bytes.extend(&value.to_le_bytes()[..size]);
    // The file header: type (executable), machine (x86_64), version, entry, offsets, flags and sizes.
    let header = [
        (2, 2),
        (62, 2),
        (1, 4),
        (BASE + HEADERS, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (0, 2),
        (0, 2),
        (0, 2),
    ];
    // The segment: type (loadable), rights (read and execute), offset, addresses, sizes, alignment.
    let segment = [
        (1, 4),
        (5, 4),
        (0, 8),
        (BASE, 8),
        (BASE, 8),
        (length, 8),
        (length, 8),
        (0x1000, 8),
    ];
    for (value, size) in header.into_iter().chain(segment) {
        put(value, size);
    }
    bytes.extend(code);
    bytes
}
