//! The child: the smallest program there is. What it takes to load and to end is part of every number,
//! so it must be next to nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `mov edi, 0; mov eax, 60 (exit); syscall`.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 12] = [0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// Where the one segment is mapped.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A program file, removed when dropped if it was written here.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    directory: Option<PathBuf>,
}

impl Program {
    /// Writes it, or takes `/bin/true` where that can't be.
    pub fn new() -> Program {
        write().unwrap_or_else(|| Program {
            path: PathBuf::from("/bin/true"),
            directory: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn describe(&self) -> &'static str {
        match self.directory {
            Some(_) => "a static program of one system call",
            None => "/bin/true (dynamically linked: its start outweighs the spawn)",
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
fn write() -> Option<Program> {
    let directory = std::env::temp_dir().join(format!("pidherd-bench-{}", std::process::id()));
    fs::create_dir(&directory).ok()?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).ok()?;
    let path = directory.join("nothing");
    fs::write(&path, image(&CODE)).ok()?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).ok()?;
    Some(Program {
        path,
        directory: Some(directory),
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn write() -> Option<Program> {
    None
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
