//! Tests of the file: what it refuses, what it stores, and how it grows.

use std::iter;
use std::os::unix::fs::{FileExt, PermissionsExt};

use rustix::fs::{FileType, mknodat};

use super::*;
use crate::sys::wait::{Wait, wait_into};
use crate::testing::common::descriptors::readable;
use crate::testing::common::refuse::answering;
use crate::testing::common::{TempDir, isolated, skipped, tempdir};

/// The path of a state file, below a directory that is removed with the first value.
fn place() -> (TempDir, PathBuf) {
    let directory = tempdir();
    let path = directory.join("state");
    (directory, path)
}

fn made(path: &Path) -> StateFile {
    StateFile::open(path).unwrap().0
}

/// What a host has left in a file.
fn left(path: &Path) -> Option<Left> {
    StateFile::open(path).unwrap().1
}

fn is_damaged(path: &Path) -> bool {
    matches!(StateFile::open(path), Err(FileError::Damaged))
}

/// Changes bytes of a file.
fn change(path: &Path, offset: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset as u64).unwrap();
}

fn pid() -> Pid {
    Pid::new(std::process::id()).unwrap()
}

/// The text of each record.
fn records(left: &Left) -> Vec<&str> {
    let records = left.records.iter();
    records
        .map(|(record, _)| std::str::from_utf8(record).unwrap())
        .collect()
}

#[test]
fn a_new_file_is_for_its_user_only() {
    let (_directory, path) = place();
    let _state = made(&path);
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_in_use_is_locked() {
    let (_directory, path) = place();
    let _state = made(&path);
    let another = File::open(&path).unwrap();
    let locked = flock(another, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(locked, Err(Errno::WOULDBLOCK));
}

#[test]
fn the_header_has_the_boot_id_of_the_kernel() {
    let (_directory, path) = place();
    let _state = made(&path);
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let header = std::fs::read(&path).unwrap();
    assert_eq!(&header[BOOT_ID..BOOT_ID + 36], id.trim_end().as_bytes());
}

/// For each descriptor of the file in this process, whether a new program keeps it.
fn kept_by_programs(path: &Path) -> Vec<bool> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let info = readable(|| std::fs::read_to_string(info)).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            kept.push(flags & OFlags::CLOEXEC.bits() == 0);
        }
    }
    kept
}

/// Another thread of the host may start one at any moment. It would keep the lock.
#[test]
fn no_program_gets_a_descriptor_of_the_file() {
    isolated(|| {
        let (_directory, path) = place();
        let mut seen = Vec::new();
        // Each time when a descriptor is about to be closed.
        let looks = iter::from_fn(|| {
            seen.push(kept_by_programs(&path));
            Some(None)
        });
        answering(libc::SYS_close, looks, || drop(made(&path)));
        assert!(seen.iter().any(|kept| kept.len() > 1), "{seen:?}");
        assert!(seen.iter().flatten().all(|&is_kept| !is_kept), "{seen:?}");
    });
}

#[test]
fn a_file_that_others_can_write_or_that_is_no_file_is_refused() {
    let (directory, path) = place();
    let is_foreign = |path: &Path| matches!(StateFile::open(path), Err(FileError::Foreign));
    drop(made(&path));
    for (mode, expected) in [(0o620, true), (0o602, true), (0o644, false), (0o600, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(is_foreign(&path), expected, "{mode:o}");
    }
    let fifo = directory.join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    assert!(is_foreign(&fifo));
    assert!(is_foreign(directory.path()));
    let link = directory.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(is_foreign(&link));
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        return skipped("only root can make a file of another user");
    }
    assert!(is_foreign(&path));
}

#[test]
fn a_file_that_was_not_completed_is_made_anew() {
    let (_directory, path) = place();
    std::fs::write(&path, [0; PAGE]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (mut state, nothing) = StateFile::open(&path).unwrap();
    assert!(nothing.is_none());
    state.save(b"base", &[], 0).unwrap();
    drop(state);
    assert_eq!(self::left(&path).unwrap().base, b"base");
}

#[test]
fn a_header_with_one_thing_damaged_is_refused() {
    let (_directory, path) = place();
    let damages: [(usize, &[u8]); 5] = [
        (0, b"P"),
        // The kind.
        (12, &[3]),
        // The mark is no hexadecimal number, or is too short.
        (MARK + 5, b"x"),
        (MARK + 31, &[0]),
        (CURRENT, &[255; 8]),
    ];
    for (offset, bytes) in damages {
        let _removed = std::fs::remove_file(&path);
        let mut state = made(&path);
        state.save(b"base", &[], 0).unwrap();
        drop(state);
        assert!(!is_damaged(&path));
        change(&path, offset, bytes);
        assert!(is_damaged(&path), "{bytes:?} at {offset}");
    }
    for text in [&b""[..], &[0; 100], &[1; PAGE]] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(is_damaged(&path), !text.is_empty(), "{} bytes", text.len());
    }
}

/// The size of a record without room for any state.
const STRIDE: usize = COPIES + 2 * COPY;

#[test]
fn an_area_is_read_if_its_records_are_whole_and_in_place() {
    let (_directory, path) = place();
    let whole = PAGE + AREA + STRIDE;
    // The start, the size and the number of the records, where the file ends, and how many are read.
    for (start, stride, number, end, expected) in [
        (AREA, STRIDE, 1, whole, Some(1)),
        (AREA, STRIDE, 0, PAGE + AREA, Some(0)),
        // Only the copy that is not the present one is incomplete.
        (AREA, STRIDE, 1, whole - 8, None),
        (AREA, STRIDE - 8, 1, whole, None),
        (AREA, STRIDE + 4, 1, whole + 8, None),
        (AREA + 4, STRIDE, 0, whole, None),
        (AREA - 8, STRIDE, 0, whole, None),
    ] {
        let _removed = std::fs::remove_file(&path);
        let mut state = made(&path);
        state.save(b"", &[Vec::new()], 0).unwrap();
        for (place, number) in [(16, start), (24, stride), (32, number)] {
            state.mapping.store(PAGE + place, number as u64);
        }
        drop(state);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(end as u64)
            .unwrap();
        let case = format!("{number} of {stride} at {start} until {end}");
        match StateFile::open(&path) {
            Ok((_, left)) => assert_eq!(left.map(|left| left.records.len()), expected, "{case}"),
            Err(error) => assert!(
                matches!(error, FileError::Damaged) && expected.is_none(),
                "{case}: {error:?}"
            ),
        }
    }
}

#[test]
fn an_area_in_the_header_is_refused() {
    const INSIDE: usize = 128;
    let (_directory, path) = place();
    let state = made(&path);
    for (place, number) in [0, checksum(&[]), AREA as u64, 0, 0].into_iter().enumerate() {
        state.mapping.store(INSIDE + 8 * place, number);
    }
    state.mapping.store(CURRENT, INSIDE as u64);
    drop(state);
    assert!(is_damaged(&path));
}

#[test]
fn what_a_host_has_left_stays_until_the_next_save() {
    let (_directory, path) = place();
    let mut state = made(&path);
    let mark = state.mark().to_owned();
    state.save(b"base", &[b"one".to_vec(), b"two".to_vec()], 8).unwrap();
    drop(state);
    for _ in 0..2 {
        let (state, left) = StateFile::open(&path).unwrap();
        let left = left.unwrap();
        assert_eq!(
            (state.mark(), &left.base[..], records(&left)),
            (&mark[..], &b"base"[..], vec!["one", "two"])
        );
    }
    made(&path).clear();
    assert!(left(&path).is_none());
}

#[test]
fn what_was_left_before_the_last_boot_is_forgotten() {
    let (_directory, path) = place();
    let mut state = made(&path);
    state.save(b"base", &[], 0).unwrap();
    drop(state);
    change(&path, BOOT_ID, b"00000000");
    for _ in 0..2 {
        assert!(left(&path).is_none());
    }
}

#[test]
fn a_record_is_stored_if_it_has_the_length_that_was_said() {
    let (_directory, path) = place();
    let mut state = made(&path);
    state.save(b"", &[Vec::new(), b"second".to_vec()], 16).unwrap();
    let write = |state: &mut StateFile, text: &str| state.record(0, |to| to.raw(text.as_bytes()));
    let first = || {
        let left = left(&path).unwrap();
        assert_eq!((&left.base[..], records(&left)[1]), (&b""[..], "second"));
        records(&left)[0].to_owned()
    };
    for (text, expected) in [
        ("short", "short"),
        ("0123456789abcdef", "0123456789abcdef"),
        ("0123456789abcdefg", "0123456789abcdef"),
        ("", ""),
    ] {
        write(&mut state, text);
        drop(state);
        assert_eq!(first(), expected);
        state = made(&path);
    }
}

#[test]
fn a_file_has_room_for_two_areas_of_twice_the_size() {
    let (_directory, path) = place();
    let mut state = made(&path);
    let records = vec![vec![b'r'; 64]; 300];
    let base = vec![b'b'; 10_000];
    let size = base.len() + records.len() * (COPIES + 2 * (COPY + 64));
    for turn in 0..4 {
        state.save(&base, &records, 64).unwrap();
        let length = path.metadata().unwrap().len() as usize;
        assert!(
            (4 * size..4 * size + 8 * PAGE).contains(&length),
            "{turn}: {length} for {size}"
        );
    }
    drop(state);
    let left = left(&path).unwrap();
    assert_eq!((&left.base, left.records.len()), (&base, 300));
    assert!(left.records.iter().all(|(record, _)| *record == records[0]));
}

#[test]
fn new_areas_leave_the_one_that_is_present_alone() {
    let (_directory, path) = place();
    // What is kept, how much room is wanted, and where the new areas begin.
    for (kept, start) in [
        ((0, 0), PAGE),
        ((PAGE, 3 * PAGE), 3 * PAGE),
        ((5 * PAGE, 7 * PAGE), PAGE),
        ((5 * PAGE - 8, 7 * PAGE - 8), 7 * PAGE),
    ] {
        let _removed = std::fs::remove_file(&path);
        let mut state = made(&path);
        state.kept = kept;
        state.reserve(PAGE - AREA).unwrap();
        assert_eq!(
            (state.areas, state.capacity),
            ([start, start + 2 * PAGE], 2 * PAGE),
            "{kept:?}"
        );
        assert_eq!(path.metadata().unwrap().len(), (start + 4 * PAGE) as u64);
        // There is room for as much again.
        state.reserve(2 * PAGE - AREA).unwrap();
        assert_eq!(state.areas[0], start);
    }
}

#[test]
fn a_state_that_grows_keeps_what_is_stored() {
    let (_directory, path) = place();
    let mut state = made(&path);
    let mut length = 0;
    for pages in [1, 3, 9, 27, 81] {
        let base = vec![pages as u8; pages * PAGE];
        state.save(&base, &[b"record".to_vec()], 8).unwrap();
        drop(state);
        let left = left(&path).unwrap();
        assert_eq!((left.base, left.records[0].0.as_slice()), (base, &b"record"[..]));
        state = made(&path);
        length = path.metadata().unwrap().len() as usize;
        state.save(&vec![0; pages * PAGE], &[b"record".to_vec()], 8).unwrap();
    }
    assert!(length < 16 * 81 * PAGE, "{length}");
}

#[test]
fn each_birth_has_its_own_times_and_its_own_end() {
    let (_directory, path) = place();
    let mut state = made(&path);
    state
        .save(b"base", &[b"other".to_vec(), b"record".to_vec()], 8)
        .unwrap();
    let birth = |expected: &str| {
        let left = left(&path).unwrap();
        let other = left.records[0].1;
        assert_eq!((other.number, other.pid, other.before), (0, None, 0), "{expected}");
        left.records[1].1
    };
    let begin = Clock::Boottime.now().as_nanos();
    assert!(state.begin_birth(1, 6).is_some());
    state.end_birth(1, pid());
    drop(state);
    let first = birth("ended");
    assert_eq!((first.number, first.pid), (6, Some(pid())));
    assert!(first.before >= begin && first.after.is_some_and(|after| after >= first.before));
    let state = made(&path);
    // It was found, and its time is known already.
    state.end_found(1, pid());
    drop(state);
    assert_eq!(birth("found").after, first.after);
    let state = made(&path);
    assert!(state.begin_birth(1, 10).is_some());
    drop(state);
    let second = birth("begun");
    assert_eq!((second.number, second.pid, second.after), (10, None, None));
    assert!(second.before >= first.after.unwrap());
    let state = made(&path);
    state.end_found(1, pid());
    drop(state);
    let second = birth("found without a time");
    assert_eq!(second.pid, Some(pid()));
    assert!(second.after.is_some_and(|after| after >= second.before));
    let state = made(&path);
    state.adopted(1, 14, pid(), 123);
    drop(state);
    let third = birth("adopted");
    assert_eq!(
        (third.number, third.pid, third.before, third.after),
        (14, Some(pid()), 123, Some(123))
    );
}

#[test]
fn the_status_of_a_process_counts_for_its_own_birth_only() {
    let (_directory, path) = place();
    let child = crate::Command::new("true").spawn().unwrap();
    let number = child.pid();
    let mut state = made(&path);
    state.save(b"base", &[b"record".to_vec()], 8).unwrap();
    state.begin_birth(0, 2).unwrap();
    state.end_birth(0, number);
    let cell = state.exit_cell(0);
    let reaped = wait_into(child.pidfd().as_fd(), Wait::Block, cell.as_ref());
    assert!(reaped.unwrap().is_some());
    drop((child, cell));
    let exit = || left(&path).unwrap().records[0].1.exit;
    drop(state);
    assert_eq!(exit(), Some(crate::exit::Exit::Code(0)));
    let state = made(&path);
    state.end_birth(0, pid());
    drop(state);
    assert_eq!(exit(), None, "of another process");
    let state = made(&path);
    state.begin_birth(0, 3).unwrap();
    state.end_birth(0, number);
    drop(state);
    assert_eq!(exit(), None, "of an earlier one with this number");
}
