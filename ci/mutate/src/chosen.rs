//! The module `mutant` of the rewritten library: which mutant is chosen. It is compiled in the library, not here.
//!
//! The environment chooses, before `main`. `is` takes no lock and calls nothing, so that it may be called between
//! clone(2) and execve(2).

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

static CHOSEN: AtomicU32 = AtomicU32::new(0);
/// A byte for each mutant, which is set when the code around the mutant is reached. Null if that is not recorded.
static REACHED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Whether mutant `number` is chosen.
#[inline(always)]
pub(crate) fn is(number: u32) -> bool {
    let reached = REACHED.load(Ordering::Relaxed);
    if !reached.is_null() {
        // SAFETY: the file is longer than the number of mutants.
        unsafe { reached.add(number as usize).write_volatile(1) };
    }
    CHOSEN.load(Ordering::Relaxed) == number
}

/// The items of an iterator, or if a mutant of them is chosen, only this item.
pub(crate) fn items<I: Iterator>(
    unchanged: I,
    is_chosen: bool,
    only: Option<I::Item>,
) -> impl Iterator<Item = I::Item> {
    let most = if is_chosen { 0 } else { usize::MAX };
    only.into_iter().chain(unchanged.take(most))
}

extern "C" fn choose() {
    // SAFETY: no other thread exists before main, and the strings are terminated.
    unsafe {
        let number = libc::getenv(c"PIDHERD_MUTANT".as_ptr());
        if !number.is_null() {
            CHOSEN.store(libc::atoi(number) as u32, Ordering::Relaxed);
        }
        let path = libc::getenv(c"PIDHERD_MUTANTS_REACHED".as_ptr());
        if !path.is_null() {
            record(path);
        }
    }
}

/// Maps the file that records what is reached.
///
/// # Safety
/// `path` is a terminated string.
unsafe fn record(path: *const libc::c_char) {
    // SAFETY: as promised, and the mapping has the size of the file.
    unsafe {
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        let size = libc::lseek(file, 0, libc::SEEK_END);
        if file >= 0 && size > 0 {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(std::ptr::null_mut(), size as usize, access, libc::MAP_SHARED, file, 0);
            if map != libc::MAP_FAILED {
                REACHED.store(map.cast(), Ordering::Relaxed);
            }
            libc::close(file);
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;
