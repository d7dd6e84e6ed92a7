//! All deadlines of a supervisor, earliest first: an indexed binary heap.
//!
//! One timerfd serves any number of deadlines if something knows the earliest. Each instance has at
//! most one deadline at a time and changes it often (a stop replaces a grace), so a change must find
//! the old entry: `position` says where in the heap a key stands. The alternatives were tried on
//! paper: a `BinaryHeap` with dead entries grows without a bound under changes; a `BTreeMap` allocates
//! nodes on a path that must not; a timer wheel rounds.
//!
//! Deadlines at the same instant come out in the order of their keys, so that a simulation always
//! sees the same order.

use crate::time::Instant;

/// The place of a key that has no deadline.
const NOWHERE: u32 = u32::MAX;

/// Deadlines by key. Keys are small numbers (an arena's indices): memory is that of the largest key
/// ever set. Every operation is O(log n) at most, and nothing is allocated for keys within what was
/// reserved.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// A heap: no entry is before its parent, which stands at half its place.
    heap: Vec<Due>,
    /// Where in `heap` a key's entry stands, or [`NOWHERE`].
    position: Vec<u32>,
}

/// Ordered by time, then by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    key: u32,
}

impl Deadlines {
    /// None yet.
    pub(crate) fn new() -> Deadlines {
        Deadlines::default()
    }

    /// Makes room: no later call allocates as long as the keys are below `keys`.
    pub(crate) fn reserve(&mut self, keys: u32) {
        let keys = keys as usize;
        if self.position.len() < keys {
            self.position.resize(keys, NOWHERE);
        }
        self.heap.reserve(keys.saturating_sub(self.heap.len()));
    }

    /// Gives `key` this deadline instead of any it had; [`Instant::NEVER`] is none.
    pub(crate) fn set(&mut self, key: u32, at: Instant) {
        if at == Instant::NEVER {
            return self.clear(key);
        }
        self.reserve(key.saturating_add(1));
        let place = match self.position[key as usize] {
            NOWHERE => {
                self.heap.push(Due { at, key });
                self.heap.len() - 1
            }
            place => {
                self.heap[place as usize].at = at;
                place as usize
            }
        };
        let place = self.rise(place);
        self.sink(place);
    }

    /// Takes the deadline of `key` away, if it has one.
    pub(crate) fn clear(&mut self, key: u32) {
        match self.position.get(key as usize) {
            None | Some(&NOWHERE) => {}
            Some(&place) => self.take(place as usize),
        }
    }

    /// The earliest deadline.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|due| due.at)
    }

    /// Takes the earliest deadline away and says whose it was, if it is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let first = *self.heap.first()?;
        if first.at > now {
            return None;
        }
        self.take(0);
        Some(first.key)
    }

    /// The deadline of `key`, if it has one.
    #[cfg(test)]
    pub(crate) fn of(&self, key: u32) -> Option<Instant> {
        let place = *self.position.get(key as usize).filter(|&&place| place != NOWHERE)?;
        self.heap.get(place as usize).map(|due| due.at)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Removes the entry at `place`; the last one takes its place and finds its own.
    fn take(&mut self, place: usize) {
        let gone = self.heap.swap_remove(place);
        self.position[gone.key as usize] = NOWHERE;
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Moves the entry at `place` up until its parent is not after it; returns where it stands then.
    fn rise(&mut self, mut place: usize) -> usize {
        let due = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= due {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, due);
        place
    }

    /// Moves the entry at `place` down until none of its children is before it.
    fn sink(&mut self, mut place: usize) {
        let due = self.heap[place];
        while let Some(child) = self.earlier_child(place) {
            if due <= self.heap[child] {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, due);
    }

    fn earlier_child(&self, place: usize) -> Option<usize> {
        let left = 2 * place + 1;
        let right = left + 1;
        let left_due = self.heap.get(left)?;
        match self.heap.get(right) {
            Some(right_due) if right_due < left_due => Some(right),
            _ => Some(left),
        }
    }

    fn put(&mut self, place: usize, due: Due) {
        self.heap[place] = due;
        // There are no more entries than keys, and a key has 32 bits.
        self.position[due.key as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, every_sequence};
    use std::collections::BTreeMap;

    /// The same by looking at everything every time.
    #[derive(Default)]
    struct Model(BTreeMap<u32, Instant>);

    impl Model {
        fn set(&mut self, key: u32, at: Instant) {
            self.0.insert(key, at);
            self.0.retain(|_, at| *at != Instant::NEVER);
        }

        fn earliest(&self) -> Option<Instant> {
            self.0.values().min().copied()
        }

        fn pop_due(&mut self, now: Instant) -> Option<u32> {
            let (&key, _) = self
                .0
                .iter()
                .min_by_key(|&(&key, &at)| (at, key))
                .filter(|(_, at)| **at <= now)?;
            self.0.remove(&key);
            Some(key)
        }
    }

    /// One call to both, chosen by `choice`; then they must agree.
    fn step(real: &mut Deadlines, model: &mut Model, choice: u64, keys: u32, times: u64) {
        let key = (choice % u64::from(keys)) as u32;
        let choice = choice / u64::from(keys);
        let time = match choice % times {
            0 => Instant::NEVER,
            nanos => Instant::from_nanos(nanos - 1),
        };
        match choice / times {
            0 => {
                real.set(key, time);
                model.set(key, time);
            }
            1 => {
                real.clear(key);
                model.0.remove(&key);
            }
            _ => assert_eq!(real.pop_due(time), model.pop_due(time)),
        }
        check(real, model);
    }

    fn check(real: &Deadlines, model: &Model) {
        assert_eq!(real.earliest(), model.earliest());
        assert_eq!(real.heap.len(), model.0.len());
        for (place, due) in real.heap.iter().enumerate() {
            assert_eq!(model.0.get(&due.key), Some(&due.at));
            assert_eq!(real.position[due.key as usize] as usize, place);
            assert!(place == 0 || real.heap[(place - 1) / 2] < *due);
        }
        let placed = real.position.iter().filter(|&&place| place != NOWHERE).count();
        assert_eq!(placed, real.heap.len());
    }

    #[test]
    fn every_short_sequence_does_as_the_model_does() {
        const KEYS: u32 = 3;
        const TIMES: u64 = 3;
        let choices = KEYS as usize * TIMES as usize * 3;
        every_sequence(choices, 3, |sequence| {
            let (mut real, mut model) = (Deadlines::new(), Model::default());
            for &choice in sequence {
                step(&mut real, &mut model, choice as u64, KEYS, TIMES);
            }
            while let Some(key) = model.pop_due(Instant::NEVER) {
                assert_eq!(real.pop_due(Instant::NEVER), Some(key));
            }
            assert_eq!(real.pop_due(Instant::NEVER), None);
        });
    }

    #[test]
    fn long_random_sequences_do_as_the_model_does() {
        for (seed, keys, times) in [(1, 2, 3), (2, 7, 5), (3, 50, 20), (4, 50, 1_000_000)] {
            let (mut real, mut model, mut random) = (Deadlines::new(), Model::default(), Random::new(seed));
            for _ in 0..20_000 {
                let choice = random.below(u64::from(keys) * times * 4);
                step(&mut real, &mut model, choice, keys, times);
            }
        }
    }

    #[test]
    fn within_what_was_reserved_nothing_is_allocated() {
        let mut deadlines = Deadlines::new();
        deadlines.reserve(100);
        let room = |deadlines: &Deadlines| (deadlines.heap.capacity(), deadlines.position.capacity());
        let reserved = room(&deadlines);
        for round in 0..3 {
            (0..100).for_each(|key| deadlines.set(key, Instant::from_nanos(u64::from(key ^ round))));
            while deadlines.pop_due(Instant::from_nanos(u64::MAX - 1)).is_some() {}
        }
        assert_eq!(room(&deadlines), reserved);
    }

    #[test]
    fn a_key_that_was_never_set_may_be_cleared() {
        let mut deadlines = Deadlines::new();
        deadlines.clear(0);
        deadlines.clear(u32::MAX);
        assert_eq!(deadlines.earliest(), None);
    }
}
