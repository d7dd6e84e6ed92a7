//! The encoding of stored values: little-endian numbers, one after the other.
//!
//! | type | bytes |
//! |---|---|
//! | `u8`, `u16`, `u32`, `u64`, `i32`, `i64` | 1, 2, 4, 8, 4, 8; little-endian |
//! | `bool` | one byte, 0 or 1 |
//! | an enum | one byte for the variant, then its fields |
//! | a struct | its fields |
//! | `Option` | one byte, 0 or 1, then the value if it is 1 |
//! | a list | its length as `u32`, then its values |
//! | a text | its length in bytes as `u32`, then its bytes |
//! | `Duration` | seconds as `u64`, nanoseconds as `u32` |
//! | `SystemTime` | seconds since 1970 as `i64`, nanoseconds as `u32` |
//!
//! Reading never panics and allocates no more than a small multiple of the input: whatever the bytes are, the result is
//! a value or [`Damaged`].

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The bytes do not encode a value of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// A value with an encoding.
pub(crate) trait Stored: Sized {
    /// Appends the encoding.
    fn put(&self, to: &mut Writer<'_>);

    /// Reads a value.
    fn get(from: &mut Reader<'_>) -> Result<Self, Damaged>;
}

/// The encodings of values, one after the other, in memory of the caller.
pub(crate) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to these bytes.
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { bytes }
    }

    pub(crate) fn raw(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }
}

/// The bytes that are not read yet.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// The number of the arena that the ids in the bytes are for.
    pub(crate) home: u32,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8], home: u32) -> Reader<'a> {
        Reader { bytes, home }
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.raw(N)?.try_into().map_err(|_| Damaged)
    }

    /// The number of bytes that are not read yet.
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), Damaged> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// The encoding of one value.
#[cfg(test)]
pub(crate) fn encoded<T: Stored>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put(&mut Writer::new(&mut bytes));
    bytes
}

/// The value that these bytes encode, and nothing else.
#[cfg(test)]
pub(crate) fn decoded<T: Stored>(bytes: &[u8], home: u32) -> Result<T, Damaged> {
    let mut reader = Reader::new(bytes, home);
    let value = T::get(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A number that changes with every change of a few bits. It protects against damage, not against an attacker.
///
/// It is FNV-1a with 64 bits, over words of eight bytes (little-endian, the last one filled up with zeros). Every step is
/// a bijection, so a change of one word is always noticed. A step for each byte would take eight times as long, and a
/// hand-over waits for it.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.chunks(8).fold(START, |sum, part| {
        let word = part.try_into().unwrap_or_else(|_| {
            let mut last = [0; 8];
            last.iter_mut().zip(part).for_each(|(place, &byte)| *place = byte);
            last
        });
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(PRIME)
    })
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl Stored for $type {
            fn put(&self, to: &mut Writer<'_>) {
                to.raw(&self.to_le_bytes());
            }

            fn get(from: &mut Reader<'_>) -> Result<$type, Damaged> {
                Ok(<$type>::from_le_bytes(from.array()?))
            }
        }
    )* };
}

numbers!(u8 u16 u32 u64 i32 i64);

impl Stored for bool {
    fn put(&self, to: &mut Writer<'_>) {
        u8::from(*self).put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<bool, Damaged> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl<T: Stored> Stored for Option<T> {
    fn put(&self, to: &mut Writer<'_>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Option<T>, Damaged> {
        bool::get(from)?.then(|| T::get(from)).transpose()
    }
}

/// Writes a list with these values, which are as many as `length`.
pub(crate) fn put_list<'a, T: Stored + 'a>(length: usize, values: impl Iterator<Item = &'a T>, to: &mut Writer<'_>) {
    // No list of the library has so many values.
    u32::try_from(length).unwrap_or(u32::MAX).put(to);
    values.for_each(|value| value.put(to));
}

fn get_list<T: Stored, L: List<T>>(from: &mut Reader<'_>) -> Result<L, Damaged> {
    let length = u32::get(from)?;
    // Each value takes a byte at least, so a length beyond the input is found before the values are read.
    if length as usize > from.bytes.len() {
        return Err(Damaged);
    }
    // A list that grows is copied again and again. The length may be wrong, so the input limits the room too.
    let room = ROOM * from.bytes.len() / size_of::<T>().max(1);
    let mut list = L::default();
    list.reserve((length as usize).min(room));
    for _ in 0..length {
        list.extend([T::get(from)?]);
    }
    Ok(list)
}

/// The room for the values of a list before they are read, in bytes for each byte of the input.
const ROOM: usize = 4;

/// A list that is read.
trait List<T>: Default + Extend<T> {
    fn reserve(&mut self, additional: usize);
}

impl<T> List<T> for Vec<T> {
    fn reserve(&mut self, additional: usize) {
        self.reserve_exact(additional);
    }
}

impl<T> List<T> for VecDeque<T> {
    fn reserve(&mut self, additional: usize) {
        self.reserve_exact(additional);
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn put(&self, to: &mut Writer<'_>) {
        put_list(self.len(), self.iter(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Vec<T>, Damaged> {
        get_list(from)
    }
}

impl<T: Stored> Stored for VecDeque<T> {
    fn put(&self, to: &mut Writer<'_>) {
        put_list(self.len(), self.iter(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<VecDeque<T>, Damaged> {
        get_list(from)
    }
}

impl<T: Stored> Stored for Box<T> {
    fn put(&self, to: &mut Writer<'_>) {
        T::put(self, to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Box<T>, Damaged> {
        T::get(from).map(Box::new)
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<(A, B), Damaged> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

impl<const N: usize> Stored for [u64; N] {
    fn put(&self, to: &mut Writer<'_>) {
        self.iter().for_each(|number| number.put(to));
    }

    fn get(from: &mut Reader<'_>) -> Result<[u64; N], Damaged> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u64::get(from)?;
        }
        Ok(numbers)
    }
}

/// Writes a text.
pub(crate) fn put_text(text: &[u8], to: &mut Writer<'_>) {
    u32::try_from(text.len()).unwrap_or(u32::MAX).put(to);
    to.raw(text);
}

fn get_text(from: &mut Reader<'_>) -> Result<Vec<u8>, Damaged> {
    let length = u32::get(from)?;
    Ok(from.raw(length as usize)?.to_vec())
}

impl Stored for String {
    fn put(&self, to: &mut Writer<'_>) {
        put_text(self.as_bytes(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<String, Damaged> {
        String::from_utf8(get_text(from)?).map_err(|_| Damaged)
    }
}

impl Stored for Arc<str> {
    fn put(&self, to: &mut Writer<'_>) {
        put_text(self.as_bytes(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Arc<str>, Damaged> {
        String::get(from).map(Arc::from)
    }
}

impl Stored for OsString {
    fn put(&self, to: &mut Writer<'_>) {
        put_text(self.as_bytes(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<OsString, Damaged> {
        get_text(from).map(OsString::from_vec)
    }
}

impl Stored for PathBuf {
    fn put(&self, to: &mut Writer<'_>) {
        put_text(self.as_os_str().as_bytes(), to);
    }

    fn get(from: &mut Reader<'_>) -> Result<PathBuf, Damaged> {
        OsString::get(from).map(PathBuf::from)
    }
}

const NANOS: u32 = 1_000_000_000;

impl Stored for Duration {
    fn put(&self, to: &mut Writer<'_>) {
        self.as_secs().put(to);
        self.subsec_nanos().put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Duration, Damaged> {
        let (seconds, nanos) = (u64::get(from)?, u32::get(from)?);
        if nanos >= NANOS {
            return Err(Damaged);
        }
        Ok(Duration::new(seconds, nanos))
    }
}

impl Stored for SystemTime {
    fn put(&self, to: &mut Writer<'_>) {
        let (seconds, nanos) = match self.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => (-seconds, 0),
                    nanos => (-seconds - 1, NANOS - nanos),
                }
            }
        };
        seconds.put(to);
        nanos.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<SystemTime, Damaged> {
        let (seconds, nanos) = (i64::get(from)?, u32::get(from)?);
        if nanos >= NANOS {
            return Err(Damaged);
        }
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let start = match seconds < 0 {
            true => epoch.checked_sub(whole),
            false => epoch.checked_add(whole),
        };
        start
            .and_then(|start| start.checked_add(Duration::from_nanos(nanos.into())))
            .ok_or(Damaged)
    }
}

/// Implements [`Stored`] for a struct with these fields, or for an enum with these numbers of its variants.
macro_rules! stored {
    (struct $type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Stored for $type {
            fn put(&self, to: &mut $crate::codec::Writer<'_>) {
                // A field that is missing here does not compile.
                let Self { $($field),* } = self;
                $($crate::codec::Stored::put($field, to);)*
            }

            fn get(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Damaged> {
                Ok(Self { $($field: $crate::codec::Stored::get(from)?),* })
            }
        }
    };
    (enum $type:ty {
        $($number:literal = $variant:ident $(($($place:ident),*))? $({ $($field:ident),* })?),* $(,)?
    }) => {
        impl $crate::codec::Stored for $type {
            fn put(&self, to: &mut $crate::codec::Writer<'_>) {
                match self {
                    $(Self::$variant $(($($place),*))? $({ $($field),* })? => {
                        $crate::codec::Stored::put(&($number as u8), to);
                        $($($crate::codec::Stored::put($place, to);)*)?
                        $($($crate::codec::Stored::put($field, to);)*)?
                    })*
                }
            }

            fn get(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Damaged> {
                match <u8 as $crate::codec::Stored>::get(from)? {
                    $($number => {
                        $($(let $place = $crate::codec::Stored::get(from)?;)*)?
                        Ok(Self::$variant $(($($place),*))? $({ $($field: $crate::codec::Stored::get(from)?),* })?)
                    })*
                    _ => Err($crate::codec::Damaged),
                }
            }
        }
    };
}

pub(crate) use stored;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Shape {
        Point,
        Circle(u32),
        Box { width: u16, name: String },
    }

    stored!(enum Shape { 0 = Point, 1 = Circle(radius), 7 = Box { width, name } });

    fn assert_round_trip<T: Stored + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = encoded(value);
        assert_eq!(decoded::<T>(&bytes, 0).as_ref(), Ok(value));
        for length in 0..bytes.len() {
            assert_eq!(
                decoded::<T>(&bytes[..length], 0),
                Err(Damaged),
                "{value:?} cut to {length}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decoded::<T>(&longer, 0), Err(Damaged));
    }

    #[test]
    fn values_come_back_and_no_shorter_or_longer_input_is_one() {
        assert_round_trip(&Shape::Point);
        assert_round_trip(&vec![Shape::Circle(7), Shape::Point]);
        let name = "a box".to_owned();
        assert_round_trip(&Some(Shape::Box { width: 3, name }));
        assert_round_trip(&(u64::MAX, -3_i32));
        assert_round_trip(&Duration::new(5, 999_999_999));
        let epoch = SystemTime::UNIX_EPOCH;
        for offset in [Duration::ZERO, Duration::from_nanos(1), Duration::new(7, 5)] {
            assert_round_trip(&(epoch + offset));
            assert_round_trip(&(epoch - offset));
        }
    }

    #[test]
    fn bytes_without_a_meaning_are_refused() {
        assert_eq!(decoded::<Shape>(&[2], 0), Err(Damaged));
        assert_eq!(decoded::<bool>(&[2], 0), Err(Damaged));
        assert_eq!(decoded::<String>(&[1, 0, 0, 0, 0xff], 0), Err(Damaged));
        assert_eq!(decoded::<Vec<u8>>(&[255, 255, 255, 255, 1], 0), Err(Damaged));
        let nanos = encoded(&(1_u64, NANOS));
        assert_eq!(decoded::<Duration>(&nanos, 0), Err(Damaged));
        let nanos = encoded(&(1_i64, NANOS));
        assert_eq!(decoded::<SystemTime>(&nanos, 0), Err(Damaged));
    }

    #[test]
    fn the_checksum_is_that_of_another_implementation() {
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"foobar"), 0xdb17_9086_5558_95d9);
        assert_eq!(checksum(b"a state of 19 bytes"), 0xfeac_70b2_490c_aa57);
    }

    #[test]
    fn the_checksum_notices_every_changed_bit() {
        let bytes: Vec<u8> = (0..29).collect();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(checksum(&changed), checksum(&bytes), "bit {bit}");
        }
    }
}
