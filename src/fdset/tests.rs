//! The set against a naive model of it, on real descriptors. Compiled under `#[cfg(test)]` alone.

use super::*;
use crate::random::Random;
use crate::testing::every_sequence;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A pipe: the end that is added to the set, and the end that shows whether the first one is still open.
struct Pipe {
    reader: Option<OwnedFd>,
    writer: OwnedFd,
    number: RawFd,
}

impl Pipe {
    fn new() -> Pipe {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        Pipe {
            number: reader.as_raw_fd(),
            reader: Some(reader),
            writer,
        }
    }

    fn make_readable(&self) {
        rustix::io::write(&self.writer, b"x").unwrap();
    }

    /// Whether the set has closed the reading end. A child that another test has just forked may hold a copy of it
    /// until its exec.
    fn is_closed(&self) -> bool {
        self.has_no_reader_within(&Timespec { tv_sec: 10, tv_nsec: 0 })
    }

    fn is_open(&self) -> bool {
        !self.has_no_reader_within(&NOW)
    }

    fn has_no_reader_within(&self, time: &Timespec) -> bool {
        let mut polled = [PollFd::new(&self.writer, PollFlags::empty())];
        poll(&mut polled, Some(time)).unwrap();
        polled[0].revents().contains(PollFlags::ERR)
    }
}

fn ready(set: &FdSet) -> Vec<Token> {
    let mut tokens = Vec::new();
    set.ready(&mut tokens).unwrap();
    tokens
}

/// The same with a list of entries that is searched every time, and a log without descriptors.
#[derive(Default)]
struct Model {
    entries: Vec<(Token, RawFd)>,
    every_token: Vec<Token>,
    log: Option<VecDeque<(Token, RawFd, bool)>>,
}

struct Both {
    set: FdSet,
    model: Model,
    pipes: Vec<Pipe>,
}

impl Both {
    fn new(pipes: usize) -> Both {
        let pipes = (0..pipes).map(|_| Pipe::new()).collect();
        Both {
            set: FdSet::new().unwrap(),
            model: Model::default(),
            pipes,
        }
    }

    /// Adds the pipe if it is not in the set. Otherwise checks that it cannot be added again.
    fn add(&mut self, which: usize) {
        let Some(reader) = &self.pipes[which].reader else {
            return;
        };
        let number = reader.as_raw_fd();
        let result = self.set.add(reader.as_fd(), Interest::READ);
        if self.model.entries.iter().any(|&(_, fd)| fd == number) {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EEXIST));
            return;
        }
        let token = result.unwrap();
        assert!(!self.model.every_token.contains(&token), "no name is given twice");
        self.model.every_token.push(token);
        self.model.entries.push((token, number));
        self.model
            .log
            .iter_mut()
            .for_each(|log| log.push_back((token, number, true)));
    }

    /// Removes the pipe by a name that may be its own, another's or stale.
    fn remove(&mut self, which: usize, token: Token) {
        let pipe = &mut self.pipes[which];
        let Some(reader) = pipe.reader.take() else { return };
        let known = self
            .model
            .entries
            .iter()
            .position(|&entry| entry == (token, pipe.number));
        match self.set.remove(token, reader) {
            Ok(()) => {
                self.model.entries.swap_remove(known.unwrap());
                let mut log = self.model.log.iter_mut();
                let is_known = |log: &&mut VecDeque<_>| !log.contains(&(token, pipe.number, true));
                match log.find(is_known) {
                    Some(log) => log.push_back((token, pipe.number, false)),
                    None => {
                        // The host has never seen it.
                        assert!(pipe.is_closed());
                        let news = (token, pipe.number, true);
                        self.model
                            .log
                            .iter_mut()
                            .for_each(|log| log.retain(|change| *change != news));
                        *pipe = Pipe::new();
                    }
                }
            }
            Err(stale) => {
                assert_eq!((known, stale.token()), (None, token));
                let back = stale.into_fd();
                assert_eq!(back.as_raw_fd(), pipe.number);
                pipe.reader = Some(back);
            }
        }
    }

    fn take_change(&mut self) {
        let expected = self.model.log.as_mut().and_then(VecDeque::pop_front);
        match (self.set.next_change(), expected) {
            (None, None) => {}
            (Some(Change::Added(entry)), Some((token, fd, true))) => {
                assert_eq!(
                    entry,
                    Entry {
                        fd,
                        interest: Interest::READ,
                        token
                    }
                );
            }
            (Some(Change::Removed { token, fd }), Some((expected, number, false))) => {
                assert_eq!((token, fd.as_raw_fd()), (expected, number));
                let pipe = self
                    .pipes
                    .iter_mut()
                    .find(|pipe| pipe.number == number && pipe.reader.is_none())
                    .unwrap();
                assert!(pipe.is_open(), "open until the host drops it");
                drop(fd);
                assert!(pipe.is_closed());
                *pipe = Pipe::new();
            }
            (real, expected) => panic!("{real:?} instead of {expected:?}"),
        }
    }

    fn track(&mut self, on: bool) {
        self.set.track_changes(on);
        if on && self.model.log.is_none() {
            let added = self.set.iter().map(|entry| (entry.token, entry.fd, true));
            self.model.log = Some(added.collect());
        } else if !on && self.model.log.take().is_some() {
            for pipe in self.pipes.iter_mut().filter(|pipe| pipe.reader.is_none()) {
                assert!(pipe.is_closed(), "closed with the log");
                *pipe = Pipe::new();
            }
        }
    }

    /// One call, chosen by `choice`.
    fn step(&mut self, choice: usize) {
        let (kind, which) = (choice / self.pipes.len(), choice % self.pipes.len());
        let own = self.set.token_of(self.pipes[which].number);
        let any = self
            .model
            .every_token
            .get(choice % self.model.every_token.len().max(1))
            .copied();
        match (kind, own, any) {
            (0, ..) => self.add(which),
            (1, Some(token), _) | (2, _, Some(token)) => self.remove(which, token),
            (3, ..) => self.take_change(),
            (4, ..) => self.track(which > 0),
            _ => {}
        }
        self.check();
    }

    fn check(&self) {
        let Both { set, model, .. } = self;
        assert_eq!(
            (set.len(), set.is_empty()),
            (model.entries.len(), model.entries.is_empty())
        );
        let mut listed: Vec<_> = set.iter().map(|entry| (entry.token, entry.fd)).collect();
        let mut expected = model.entries.clone();
        listed.sort_by_key(|entry| entry.1);
        expected.sort_by_key(|entry| entry.1);
        assert_eq!(listed, expected);
        for &(token, fd) in &model.entries {
            assert_eq!(set.token_of(fd), Some(token));
            assert_eq!(
                set.get(token),
                Some(Entry {
                    fd,
                    interest: Interest::READ,
                    token
                })
            );
        }
        let live = model.every_token.iter().filter(|&&token| set.get(token).is_some());
        assert_eq!(live.count(), model.entries.len());
    }

    /// Checks that the kernel has registered exactly the entries of the model: it makes all pipes readable, and reads
    /// the ready entries.
    fn check_kernel(&self) {
        self.pipes
            .iter()
            .filter(|pipe| pipe.reader.is_some())
            .for_each(Pipe::make_readable);
        let mut reported = ready(&self.set);
        reported.sort_by_key(|token| token.to_raw());
        let mut expected: Vec<_> = self.model.entries.iter().map(|entry| entry.0).collect();
        expected.sort_by_key(|token| token.to_raw());
        assert_eq!(reported, expected);
    }
}
#[test]
fn every_short_sequence_does_as_the_model_does() {
    every_sequence(5 * 2, 4, |sequence| {
        let mut both = Both::new(2);
        sequence.iter().for_each(|&choice| both.step(choice));
        both.check_kernel();
    });
}

#[test]
fn long_random_sequences_do_as_the_model_does() {
    for (seed, pipes) in [(1, 2), (2, 7), (3, 30)] {
        let (mut both, mut random) = (Both::new(pipes), Random::new(seed));
        for _ in 0..2_000 {
            both.step(random.below(5 * pipes as u64) as usize);
        }
        both.check_kernel();
    }
}

#[test]
fn a_child_does_not_get_it() {
    let set = FdSet::new().unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&set), Ok(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn it_can_be_sent_to_another_thread() {
    fn assert_send<T: Send + Sync>() {}
    assert_send::<FdSet>();
    assert_send::<Change>();
    assert_send::<StaleToken>();
}

#[test]
fn a_token_rides_as_a_number() {
    for token in [
        Token { slot: 0, generation: 1 },
        Token {
            slot: u32::MAX,
            generation: u32::MAX,
        },
    ] {
        assert!(token.to_raw() > u64::from(u32::MAX));
        assert_eq!(Token::from_raw(token.to_raw()), token);
    }
    let mut set = FdSet::new().unwrap();
    let pipe = Pipe::new();
    set.add(pipe.reader.as_ref().unwrap().as_fd(), Interest::READ).unwrap();
    assert_eq!(set.get(Token::from_raw(0)), None, "numbers below 2^32 are the host's");
}

#[test]
fn what_the_kernel_refuses_leaves_no_trace() {
    let mut set = FdSet::new().unwrap();
    set.track_changes(true);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = set.add(file.as_fd(), Interest::READ).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!((set.len(), set.token_of(file.as_raw_fd())), (0, None));
    assert!(set.next_change().is_none());
}

#[test]
fn entries_come_in_turns_when_not_all_fit() {
    let mut both = Both::new(3);
    (0..3).for_each(|which| both.add(which));
    both.pipes.iter().for_each(Pipe::make_readable);
    let mut seen = Vec::new();
    let mut one = Vec::with_capacity(1);
    for _ in 0..3 {
        both.set.ready(&mut one).unwrap();
        assert_eq!(one.len(), 1);
        seen.push(one[0]);
    }
    both.model.every_token.retain(|token| !seen.contains(token));
    assert_eq!(both.model.every_token, []);
}

#[test]
fn a_removed_descriptor_is_out_of_the_epoll_though_a_copy_lives_on() {
    let mut set = FdSet::new().unwrap();
    let pipe = Pipe::new();
    let reader = pipe.reader.as_ref().unwrap().try_clone().unwrap();
    pipe.make_readable();
    let token = set.add(reader.as_fd(), Interest::READ).unwrap();
    assert_eq!(ready(&set), [token]);
    set.remove(token, reader).unwrap();
    assert_eq!(poll(&mut [PollFd::new(&set, PollFlags::IN)], Some(&NOW)), Ok(0));
    assert!(pipe.is_open());
}

#[test]
fn a_descriptor_closed_without_the_set_causes_no_wakeup_and_can_be_removed() {
    let mut set = FdSet::new().unwrap();
    let (first, second) = (Pipe::new(), Pipe::new());
    let number = first.number;
    let token = set.add(first.reader.as_ref().unwrap().as_fd(), Interest::READ).unwrap();
    // dup2 closes the descriptor with this number and gives the number to another pipe, in one step.
    let mut taken = first.reader.unwrap();
    rustix::io::dup2(second.reader.as_ref().unwrap(), &mut taken).unwrap();
    second.make_readable();
    assert_eq!(ready(&set), []);
    let error = set.add(taken.as_fd(), Interest::READ).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    set.remove(token, taken).unwrap();
    assert_eq!((set.token_of(number), set.len()), (None, 0));
}

#[test]
fn each_interest_is_what_the_kernel_was_asked_for() {
    let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
    for (interest, expected) in [(Interest::READ, 0), (Interest::WRITE, 1), (Interest::PRIORITY, 0)] {
        let mut set = FdSet::new().unwrap();
        set.add(left.as_fd(), interest).unwrap();
        assert_eq!(ready(&set).len(), expected);
    }
    drop(right);
}

#[test]
fn what_comes_and_goes_between_two_looks_is_not_in_the_log_and_is_closed_at_once() {
    for looks_first in [false, true] {
        let mut set = FdSet::new().unwrap();
        set.track_changes(true);
        let mut pipe = Pipe::new();
        let reader = pipe.reader.take().unwrap();
        let token = set.add(reader.as_fd(), Interest::READ).unwrap();
        if looks_first {
            assert!(matches!(set.next_change(), Some(Change::Added(entry)) if entry.token == token));
        }
        set.remove(token, reader).unwrap();
        if looks_first {
            assert!(pipe.is_open(), "the host has it in its loop");
            assert!(matches!(set.next_change(), Some(Change::Removed { token: removed, .. }) if removed == token));
        }
        assert!(set.next_change().is_none());
        assert!(pipe.is_closed());
    }
}

#[test]
fn a_log_that_is_turned_on_again_tells_of_everything_again() {
    let mut set = FdSet::new().unwrap();
    let pipe = Pipe::new();
    let reader = pipe.reader.unwrap();
    let token = set.add(reader.as_fd(), Interest::READ).unwrap();
    for takes in [false, true, true] {
        set.track_changes(true);
        if takes {
            assert!(matches!(set.next_change(), Some(Change::Added(entry)) if entry.token == token));
            assert!(set.next_change().is_none());
        }
        set.track_changes(false);
        assert!(set.next_change().is_none());
    }
    set.track_changes(true);
    set.remove(token, reader).unwrap();
    assert!(
        set.next_change().is_none(),
        "the host has not taken its addition from this log"
    );
}

#[test]
fn a_copy_of_the_epoll_is_readable_with_the_set_and_tells_nothing_after_it() {
    let mut set = FdSet::new().unwrap();
    let copy = set.try_clone_fd().unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&copy), Ok(rustix::io::FdFlags::CLOEXEC));
    assert!(copy.as_raw_fd() > 2 && copy.as_raw_fd() != set.as_raw_fd());
    let is_readable = || poll(&mut [PollFd::new(&copy, PollFlags::IN)], Some(&NOW)).unwrap() == 1;
    let mut pipe = Pipe::new();
    let reader = pipe.reader.take().unwrap();
    let token = set.add(reader.as_fd(), Interest::READ).unwrap();
    assert!(!is_readable());
    pipe.make_readable();
    assert!(is_readable());
    set.remove(token, reader).unwrap();
    assert!(!is_readable());
    drop(set);
    assert!(!is_readable());
}

#[test]
fn within_what_was_reserved_the_log_does_not_grow() {
    let mut both = Both::new(20);
    both.track(true);
    both.set.reserve(20);
    let reserved = both.set.changes.as_ref().unwrap().capacity();
    assert!(reserved >= 40, "each of them is added and removed");
    for _ in 0..3 {
        (0..20).for_each(|which| both.add(which));
        for which in 0..20 {
            both.remove(which, both.set.token_of(both.pipes[which].number).unwrap());
        }
        (0..40).for_each(|_| both.take_change());
    }
    assert_eq!(both.set.changes.as_ref().unwrap().capacity(), reserved);
}

#[test]
fn a_released_entry_leaves_the_set_and_its_descriptor_stays_open() {
    let mut set = FdSet::new().unwrap();
    let (pipe, other) = (Pipe::new(), Pipe::new());
    let reader = pipe.reader.as_ref().unwrap();
    let token = set.add(reader.as_fd(), Interest::READ).unwrap();
    pipe.make_readable();
    assert_eq!(ready(&set), [token]);

    let not_its_own = other.reader.as_ref().unwrap().as_fd();
    assert!(!set.release(token, not_its_own));
    assert_eq!((ready(&set), set.token_of(pipe.number)), (vec![token], Some(token)));

    assert!(set.release(token, reader.as_fd()));
    assert_eq!((ready(&set), set.token_of(pipe.number)), (vec![], None));
    assert!(pipe.is_open());
    assert!(!set.release(token, reader.as_fd()), "it is no longer in the set");
    let again = set.add(reader.as_fd(), Interest::READ).unwrap();
    assert_ne!(again, token);
    assert_eq!(ready(&set), [again]);
}

#[test]
fn nothing_is_released_from_a_set_whose_changes_are_tracked() {
    let mut set = FdSet::new().unwrap();
    let pipe = Pipe::new();
    let reader = pipe.reader.as_ref().unwrap();
    let token = set.add(reader.as_fd(), Interest::READ).unwrap();
    set.track_changes(true);
    pipe.make_readable();
    assert!(!set.release(token, reader.as_fd()));
    assert_eq!((ready(&set), set.token_of(pipe.number)), (vec![token], Some(token)));
    assert!(matches!(set.next_change(), Some(Change::Added { .. })));
    assert!(set.next_change().is_none());
}

#[test]
fn what_leaves_the_epoll_of_a_set_at_its_end_is_out_though_a_copy_lives_on() {
    for ends in [false, true] {
        let mut set = FdSet::new().unwrap();
        let mut pipe = Pipe::new();
        let reader = pipe.reader.take().unwrap();
        let _copy = reader.try_clone().unwrap();
        set.add(reader.as_fd(), Interest::READ).unwrap();
        pipe.make_readable();
        assert!(is_readable(set.as_fd()));
        if ends {
            let epoll = set.into_epoll();
            end(epoll.as_fd(), reader);
            assert!(!is_readable(epoll.as_fd()));
        } else {
            set.leave(reader.as_fd());
            assert!(!is_readable(set.as_fd()) && !set.is_empty());
        }
    }
}

/// Whether an epoll has anything to report.
fn is_readable(epoll: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&epoll, PollFlags::IN)];
    poll(&mut polled, Some(&NOW)).unwrap() > 0
}
