//! The frame of a stored state: what it is, whether it is whole, and whether this program can read it.
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 7 | `pidherd` and a zero byte |
//! | 8 to 11 | the [version](VERSION) of the format |
//! | 12 to 15 | the kind: 1 for a hand-over |
//! | 16 to 23 | the length of the content |
//! | 24 to 31 | the checksum of the content: FNV-1a (64 bits) over words of eight bytes, the last one filled with zeros |
//! | from 32 on | the content: the architecture as a text (signals and errnos differ on some), then the state |
//!
//! All numbers are little-endian. The module `codec` describes the encoding of values.
//!
//! The state is a `LinuxImage` and then an `Image`. `tests/golden/types.txt` lists every stored struct with its fields in the
//! order of the encoding, and every stored enum with the numbers of its variants. The page is made of the sources, and
//! a test fails when it is out of date. These types are not on it:
//!
//! | type | encoding |
//! |---|---|
//! | `GroupId`, `InstanceId` | the slot and its generation, each a `u32` |
//! | `Place` | the generation of the slot as `u32`, and the optional value |
//! | `Roll` | the lists `awaited`, `waiting` and `under_way`, `most` as `u32`, and the optional `failed` |
//! | `History` | `started_at`, `last_error`, `last_exit`, `over`, `exit`, `start` and the list `runs` |
//! | `SpawnError` | the program, the step, the errno as `i32`, and the optional subject |
//! | `Subject` | a number and its fields, see the next table |
//! | `Pid`, `RawFd` | `u32`, never 0; `i32` |
//! | `Signal`, `SignalSet` | `u8`; `u64` with a bit for each signal |
//! | `Instant`, `Random` | nanoseconds as `u64`; `u64` |
//!
//! | number of `Subject` | fields |
//! |---|---|
//! | 0 `Path`, 3 `Nowhere` | a path |
//! | 1 `File` | a path, and a descriptor as `i32` |
//! | 2 `Stream` | a descriptor as `i32` |
//! | 4 `Interpreted` | a path, and an optional path |
//! | 5 `Value` | a text |
//!
//! `tests/golden/` has two whole states as bytes, which this version must read and write.

use std::env::consts::ARCH;

use crate::codec::{Damaged, Reader, Stored, Writer, checksum};

const MAGIC: [u8; 8] = *b"pidherd\0";

/// The version of the format. A change of any stored type is a new version.
pub(crate) const VERSION: u32 = 1;

/// The kind of a hand-over.
pub(super) const HAND_OVER: u32 = 1;

const HEADER: usize = 32;

/// Why a stored state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It is not a stored state, or parts of it are missing or changed.
    #[error("the stored state is damaged")]
    Damaged,
    /// It was written by a newer or an older version of the library.
    #[error("the stored state has version {0} of the format, and this program reads version {VERSION}")]
    Version(u32),
    /// It was written by a program for another architecture.
    #[error("the stored state is of a program for {0}, and this program is for {ARCH}")]
    Architecture(String),
}

impl From<Damaged> for StateError {
    fn from(_: Damaged) -> StateError {
        StateError::Damaged
    }
}

/// A whole state of this kind.
pub(super) fn write(kind: u32, put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut state = vec![0; HEADER];
    let mut writer = Writer::new(&mut state);
    ARCH.to_owned().put(&mut writer);
    put(&mut writer);
    let mut header = Vec::with_capacity(HEADER);
    if let Some((place, content)) = state.split_at_mut_checked(HEADER) {
        let mut writer = Writer::new(&mut header);
        writer.raw(&MAGIC);
        VERSION.put(&mut writer);
        kind.put(&mut writer);
        (content.len() as u64).put(&mut writer);
        checksum(content).put(&mut writer);
        place.iter_mut().zip(&header).for_each(|(place, &byte)| *place = byte);
    }
    state
}

/// A reader of the content of a state of this kind.
pub(super) fn read(kind: u32, state: &[u8], home: u32) -> Result<Reader<'_>, StateError> {
    let mut reader = Reader::new(state, home);
    if reader.raw(MAGIC.len())? != MAGIC {
        return Err(StateError::Damaged);
    }
    let version = u32::get(&mut reader)?;
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    if u32::get(&mut reader)? != kind {
        return Err(StateError::Damaged);
    }
    let (length, sum) = (u64::get(&mut reader)?, u64::get(&mut reader)?);
    let content = state.get(HEADER..).ok_or(StateError::Damaged)?;
    if length != content.len() as u64 || checksum(content) != sum {
        return Err(StateError::Damaged);
    }
    let mut reader = Reader::new(content, home);
    let architecture = String::get(&mut reader)?;
    match architecture == ARCH {
        true => Ok(reader),
        false => Err(StateError::Architecture(architecture)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_was_changed_anywhere_is_refused() {
        let state = write(HAND_OVER, |to| 7_u64.put(to));
        let mut reader = read(HAND_OVER, &state, 0).unwrap();
        assert_eq!((u64::get(&mut reader), reader.end()), (Ok(7), Ok(())));
        assert_eq!(read(HAND_OVER + 1, &state, 0).err(), Some(StateError::Damaged));
        for at in 0..state.len() {
            let mut changed = state.clone();
            changed[at] ^= 1;
            assert!(read(HAND_OVER, &changed, 0).is_err(), "byte {at}");
            assert!(read(HAND_OVER, &state[..at], 0).is_err(), "cut to {at}");
        }
        let mut newer = state.clone();
        newer[8] = 2;
        assert_eq!(read(HAND_OVER, &newer, 0).err(), Some(StateError::Version(2)));
    }

    #[test]
    fn a_state_of_another_architecture_is_refused() {
        let mut content = Vec::new();
        "z80".to_owned().put(&mut Writer::new(&mut content));
        let mut state = write(HAND_OVER, |_| ());
        state.truncate(16);
        let mut writer = Writer::new(&mut state);
        (content.len() as u64).put(&mut writer);
        checksum(&content).put(&mut writer);
        writer.raw(&content);
        let refused = read(HAND_OVER, &state, 0).err();
        assert_eq!(refused, Some(StateError::Architecture("z80".into())));
    }
}
