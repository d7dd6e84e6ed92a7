//! The child: the smallest program there is. What it takes to load and to end is part of every number,
//! so it must be next to nothing.
#![allow(dead_code)] // Each benchmark uses one of two programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `mov edi, 0; mov eax, 60 (exit); syscall`.
#[cfg(target_arch = "x86_64")]
const NOTHING: [u8; 12] = [0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// `mov eax, 34 (pause); syscall`, and again.
#[cfg(target_arch = "x86_64")]
const SLEEPER: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// Where the one segment is mapped.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A program file, removed when dropped if it was written here.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: &'static [&'static str],
    directory: Option<PathBuf>,
}

impl Program {
    /// One that ends at once. Writes it, or takes `/bin/true` where that can't be.
    pub fn nothing() -> Program {
        #[cfg(target_arch = "x86_64")]
        if let Some(program) = write(&NOTHING) {
            return program;
        }
        Program::installed("/bin/true", &[])
    }

    /// One that sleeps until it is killed; or `/bin/sleep`.
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
            None => "dynamically linked, whose start outweighs the spawn",
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

/// In a directory that other users may enter: one case runs it as one.
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

/// An ELF file of one loadable segment: headers and code (elf(5)).
#[cfg(target_arch = "x86_64")]
fn image(code: &[u8]) -> Vec<u8> {
    let length = HEADERS + code.len() as u64;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |value: u64, size: usize| bytes.extend(&value.to_le_bytes()[..size]);
    // The file header: an executable for x86_64, its entry, where the program headers are, flags and sizes.
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
    // The segment: loadable, to be read and run; offset, addresses, sizes, alignment.
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
