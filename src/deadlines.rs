//! All deadlines of a supervisor, earliest first: an indexed binary heap.
//!
//! One timerfd serves any number of deadlines as long as the earliest is known. Each instance has at most one
//! deadline at a time, and changes it often (for example when a stop replaces a start's grace period). So a
//! change must find the old entry quickly: `position` has the heap index of each key.
//!
//! Three alternatives were rejected. A `BinaryHeap` with dead entries grows without bound under changes. A
//! `BTreeMap` allocates nodes, but a change must not allocate. A timer wheel rounds the times.
//!
//! Deadlines at the same instant come out in the order of their keys, so a simulation always sees the same
//! order.
#![allow(
    clippy::indexing_slicing,
    reason = "every index comes from the heap itself; the tests compare all short sequences of calls with a model"
)]

use crate::growth::grow_to;
use crate::time::Instant;

/// The index of a key without a deadline.
const NO_INDEX: u32 = u32::MAX;

/// Deadlines by key. Keys are small numbers (an arena's indices), because the memory grows with the largest
/// key ever set. Every operation takes at most O(log n). It does not allocate for keys within the reserved
/// capacity.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// A binary heap: no entry is earlier than its parent.
    heap: Vec<Entry>,
    /// The index of each key's entry in `heap`, or [`NO_INDEX`].
    position: Vec<u32>,
}

/// A heap entry. Entries are ordered by time, then by key. The time is in halves, because an entry with a `u64` takes
/// four bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    high: u32,
    low: u32,
    key: u32,
}

impl Entry {
    const fn new(at: Instant, key: u32) -> Entry {
        let nanos = at.as_nanos();
        Entry {
            high: (nanos >> 32) as u32,
            low: nanos as u32,
            key,
        }
    }

    const fn at(self) -> Instant {
        Instant::from_nanos((self.high as u64) << 32 | self.low as u64)
    }
}

impl Deadlines {
    /// Creates an empty collection.
    pub(crate) fn new() -> Deadlines {
        Deadlines::default()
    }

    /// Reserves capacity: no later call allocates as long as the keys are below `keys`, and at most `entries` of them
    /// have a deadline at a time.
    pub(crate) fn reserve(&mut self, keys: u32, entries: usize) {
        self.add_keys(keys);
        grow_to(&mut self.heap, entries);
    }

    fn add_keys(&mut self, keys: u32) {
        let keys = keys as usize;
        if self.position.len() < keys {
            grow_to(&mut self.position, keys);
            self.position.resize(keys, NO_INDEX);
        }
    }

    /// Sets the deadline of `key`, and replaces an older one. [`Instant::NEVER`] removes it.
    pub(crate) fn set(&mut self, key: u32, at: Instant) {
        if at == Instant::NEVER {
            return self.clear(key);
        }
        self.add_keys(key.saturating_add(1));
        let index = match self.position[key as usize] {
            NO_INDEX => {
                let room = self.heap.len() + 1;
                grow_to(&mut self.heap, room);
                self.heap.push(Entry::new(at, key));
                self.heap.len() - 1
            }
            index => {
                self.heap[index as usize] = Entry::new(at, key);
                index as usize
            }
        };
        let index = self.sift_up(index);
        self.sift_down(index);
    }

    /// Removes the deadline of `key`, if it has one.
    pub(crate) fn clear(&mut self, key: u32) {
        match self.position.get(key as usize) {
            None | Some(&NO_INDEX) => {}
            Some(&index) => self.take(index as usize),
        }
    }

    /// The earliest deadline.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.at())
    }

    /// Removes the earliest deadline and returns its key. `None` if that deadline is after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let first = *self.heap.first()?;
        if first.at() > now {
            return None;
        }
        self.take(0);
        Some(first.key)
    }

    /// The deadline of `key`, if it has one.
    #[cfg(test)]
    pub(crate) fn of(&self, key: u32) -> Option<Instant> {
        let index = *self.position.get(key as usize).filter(|&&index| index != NO_INDEX)?;
        self.heap.get(index as usize).map(|entry| entry.at())
    }

    /// The number of deadlines.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Removes the entry at `index`. The last entry takes its place, and is then moved to the right one.
    fn take(&mut self, index: usize) {
        let gone = self.heap.swap_remove(index);
        self.position[gone.key as usize] = NO_INDEX;
        if index < self.heap.len() {
            let index = self.sift_up(index);
            self.sift_down(index);
        }
    }

    /// Moves the entry at `index` up until its parent is not later, and returns its new index.
    fn sift_up(&mut self, mut index: usize) -> usize {
        let entry = self.heap[index];
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(index, self.heap[parent]);
            index = parent;
        }
        self.put(index, entry);
        index
    }

    /// Moves the entry at `index` down until none of its children is earlier.
    fn sift_down(&mut self, mut index: usize) {
        let entry = self.heap[index];
        while let Some(child) = self.earlier_child(index) {
            if entry <= self.heap[child] {
                break;
            }
            self.put(index, self.heap[child]);
            index = child;
        }
        self.put(index, entry);
    }

    fn earlier_child(&self, index: usize) -> Option<usize> {
        let left = 2 * index + 1;
        let right = left + 1;
        let left_entry = self.heap.get(left)?;
        match self.heap.get(right) {
            Some(right_entry) if right_entry < left_entry => Some(right),
            _ => Some(left),
        }
    }

    fn put(&mut self, index: usize, entry: Entry) {
        self.heap[index] = entry;
        // A heap index fits into 32 bits, because there is at most one entry for each 32-bit key.
        self.position[entry.key as usize] = index as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::testing::every_sequence;
    use std::collections::BTreeMap;

    /// The model: the same deadlines, found by a search through all of them.
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

    /// Makes the same call on both; `choice` selects it. Then both must have the same content.
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
        for (index, entry) in real.heap.iter().enumerate() {
            assert_eq!(model.0.get(&entry.key), Some(&entry.at()));
            assert_eq!(real.position[entry.key as usize] as usize, index);
            assert!(index == 0 || real.heap[(index - 1) / 2] < *entry);
        }
        let placed = real.position.iter().filter(|&&index| index != NO_INDEX).count();
        assert_eq!(placed, real.heap.len());
    }

    #[test]
    fn every_short_sequence_of_calls_agrees_with_the_model() {
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
    fn long_random_sequences_of_calls_agree_with_the_model() {
        for (seed, keys, times) in [(1, 2, 3), (2, 7, 5), (3, 50, 20), (4, 50, 1_000_000)] {
            let (mut real, mut model, mut random) = (Deadlines::new(), Model::default(), Random::new(seed));
            for _ in 0..20_000 {
                let choice = random.below(u64::from(keys) * times * 4);
                step(&mut real, &mut model, choice, keys, times);
            }
        }
    }

    #[test]
    fn keys_within_the_reserved_capacity_allocate_nothing() {
        let mut deadlines = Deadlines::new();
        deadlines.reserve(100, 100);
        let room = |deadlines: &Deadlines| (deadlines.heap.capacity(), deadlines.position.capacity());
        let reserved = room(&deadlines);
        for round in 0..3 {
            (0..100).for_each(|key| deadlines.set(key, Instant::from_nanos(u64::from(key ^ round))));
            while deadlines.pop_due(Instant::from_nanos(u64::MAX - 1)).is_some() {}
        }
        assert_eq!(room(&deadlines), reserved);
    }

    #[test]
    fn clearing_a_key_without_a_deadline_does_nothing() {
        let mut deadlines = Deadlines::new();
        deadlines.clear(0);
        deadlines.clear(u32::MAX);
        assert_eq!(deadlines.earliest(), None);
    }
}
