//! The capability sets of a thread (capabilities(7)), for capget(2) and capset(2).

use std::ffi::c_int;

use crate::sys::arch;

/// The three sets of capset(2), with one bit for each capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`, with the pid 0 for the caller.
const VERSION: [u32; 2] = [0x2008_0522, 0];

impl CapabilitySets {
    /// The sets of the calling thread (capget(2)). A child of the thread starts with the same sets.
    ///
    /// # Errors
    /// The errno of a filter (seccomp(2)). The kernel itself never refuses the call.
    pub(crate) fn current() -> Result<CapabilitySets, c_int> {
        let (mut header, mut data) = (VERSION, [0u32; 6]);
        let args = [(&raw mut header) as usize, (&raw mut data) as usize, 0, 0, 0, 0];
        // SAFETY: the pointers refer to a header and to two structures of three words, as version 3 requires.
        let result = unsafe { arch::syscall(libc::SYS_capget, &args) };
        if result < 0 {
            return Err(result.wrapping_neg() as c_int);
        }
        let [
            effective,
            permitted,
            inheritable,
            effective_high,
            permitted_high,
            inheritable_high,
        ] = data;
        let join = |low, high| u64::from(low) | u64::from(high) << 32;
        Ok(CapabilitySets {
            effective: join(effective, effective_high),
            permitted: join(permitted, permitted_high),
            inheritable: join(inheritable, inheritable_high),
        })
    }

    /// The header and the data of capset(2), one after the other.
    pub(super) fn to_words(self) -> [u64; CAPABILITY_WORDS] {
        let half = |word: u64, high: bool| if high { (word >> 32) as u32 } else { word as u32 };
        let [version, pid] = VERSION;
        let halves = [
            [version, pid],
            [half(self.effective, false), half(self.permitted, false)],
            [half(self.inheritable, false), half(self.effective, true)],
            [half(self.permitted, true), half(self.inheritable, true)],
        ];
        halves.map(|[first, second]| {
            let mut bytes = [0; 8];
            let pair = first.to_ne_bytes().into_iter().chain(second.to_ne_bytes());
            for (slot, byte) in bytes.iter_mut().zip(pair) {
                *slot = byte;
            }
            u64::from_ne_bytes(bytes)
        })
    }
}

/// The offset of the data in bytes: the header before it has eight bytes.
pub(super) const CAPABILITY_DATA: usize = 8;

/// The size of the header and the data in words.
pub(super) const CAPABILITY_WORDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::common::refuse::refusing;

    #[test]
    fn sets_that_a_filter_hides_are_an_error() {
        let sets = refusing(libc::SYS_capget, libc::EPERM, CapabilitySets::current);
        assert_eq!(sets, Err(libc::EPERM));
    }

    #[test]
    fn the_words_of_capset_contain_all_sets() {
        let sets = CapabilitySets {
            effective: 1 << 40 | 2,
            permitted: 3 << 40 | 2,
            inheritable: 1 << 33,
        };
        let mut bytes = Vec::new();
        for word in sets.to_words() {
            bytes.extend(word.to_ne_bytes());
        }
        let words: Vec<u32> = bytes
            .chunks(4)
            .map(|four| u32::from_ne_bytes(four.try_into().unwrap()))
            .collect();
        assert_eq!(words, [0x2008_0522, 0, 2, 2, 0, 1 << 8, 3 << 8, 2]);
    }

    #[test]
    fn the_sets_of_the_thread_are_those_in_proc() {
        let sets = CapabilitySets::current().unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        for (key, set) in [
            ("CapEff:", sets.effective),
            ("CapPrm:", sets.permitted),
            ("CapInh:", sets.inheritable),
        ] {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            assert_eq!(u64::from_str_radix(line.trim(), 16).unwrap(), set, "{key}");
        }
    }
}
