//! The table of an [`FdSet`](super::FdSet): entries by name and by descriptor number.
//!
//! Slots have a generation each, as in any generational arena, and are chained by descriptor number. A `HashMap` for
//! the numbers was rejected because it sometimes allocates without growth. A vector as long as the highest number was
//! rejected because it cannot be reserved in advance. No system calls here.
#![allow(
    clippy::indexing_slicing,
    reason = "every index comes from the table itself; the tests compare all short sequences of calls with a model"
)]

use std::mem;
use std::os::fd::RawFd;

use super::entry::{Entry, Interest, Token};
use super::image::SlotImage;
use crate::growth::grow_to;

/// The end of a chain, and of the list of free slots.
const NONE: u32 = u32::MAX;

/// There is at least one bucket for this many slots. The kernel gives the lowest free numbers, so chains are short.
const LOAD: usize = 2;

/// All operations are O(1), except for growth.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    /// The first free slot; its `next` leads to the other free slots.
    free: u32,
    /// The number of free slots.
    vacant: usize,
    /// The number of slots with an entry.
    len: usize,
    /// The first slot of each chain. The length is a power of two.
    buckets: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    /// The generation of the entry, or of the next entry if the slot is free.
    generation: u32,
    /// The next slot of the same chain, or the next free one.
    next: u32,
    held: Held,
    interest: Interest,
}

/// The descriptor of a slot, or none if the slot is free. A descriptor's number is not negative, and its sign bit tells
/// whether the change log holds the addition of the entry.
#[derive(Clone, Copy, Debug)]
struct Held(u32);

const NEWS: u32 = 1 << 31;

impl Held {
    const FREE: Held = Held(u32::MAX);

    const fn new(fd: RawFd) -> Held {
        Held(fd as u32)
    }

    fn fd(self) -> Option<RawFd> {
        (self.0 != u32::MAX).then_some((self.0 & !NEWS) as RawFd)
    }

    /// Sets whether the addition of the entry is news. Returns whether it was.
    fn set_news(&mut self, is_news: bool) -> bool {
        let was_news = self.0 & NEWS != 0;
        self.0 = self.0 & !NEWS | if is_news { NEWS } else { 0 };
        was_news
    }
}

impl Slot {
    fn held(&self) -> Option<(RawFd, Interest)> {
        self.held.fd().map(|fd| (fd, self.interest))
    }
}

impl Table {
    pub(super) const fn new() -> Table {
        Table {
            slots: Vec::new(),
            free: NONE,
            vacant: 0,
            len: 0,
            buckets: Vec::new(),
        }
    }

    /// All slots as data.
    pub(super) fn image(&self) -> Vec<SlotImage> {
        let slot = |slot: &Slot| SlotImage {
            generation: slot.generation,
            entry: slot.held().map(|(fd, interest)| (fd, interest.bits())),
        };
        self.slots.iter().map(slot).collect()
    }

    /// The table with these slots; `None` if they contradict each other. An empty slot that may have used up its
    /// generations stays empty for ever.
    pub(super) fn of(image: &[SlotImage]) -> Option<Table> {
        let mut table = Table::new();
        table.slots.reserve_exact(image.len());
        for (index, slot) in (0..NONE).zip(image) {
            let held = match slot.entry {
                Some((fd, events)) if fd >= 0 => Some((fd, Interest::from_bits(events)?)),
                Some(_) => return None,
                None => None,
            };
            if slot.generation == 0 {
                return None;
            }
            let mut next = NONE;
            if held.is_some() {
                table.len += 1;
            } else if slot.generation < u32::MAX {
                next = mem::replace(&mut table.free, index);
                table.vacant += 1;
            }
            table.slots.push(Slot {
                generation: slot.generation,
                next,
                held: held.map_or(Held::FREE, |(fd, _)| Held::new(fd)),
                interest: held.map_or(Interest::empty(), |(_, interest)| interest),
            });
        }
        table.rehash();
        let is_alone = |(index, slot): (usize, &Slot)| {
            let found = slot.held.fd().map(|fd| table.token_of(fd));
            found.is_none_or(|token| token.is_some_and(|token| token.index() == index))
        };
        let is_consistent = table.slots.iter().enumerate().all(is_alone);
        is_consistent.then_some(table)
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Reserves memory for this many more entries.
    pub(super) fn reserve(&mut self, additional: usize) {
        let room = self.slots.len() + additional.saturating_sub(self.vacant);
        grow_to(&mut self.slots, room);
        if self.buckets.len() < self.slots.capacity() / LOAD {
            self.rehash();
        }
    }

    /// The name of the next entry.
    pub(super) fn next_token(&self) -> Token {
        match self.slots.get(self.free as usize) {
            Some(slot) => Token {
                slot: self.free,
                generation: slot.generation,
            },
            None => Token {
                slot: self.slots.len() as u32,
                generation: 1,
            },
        }
    }

    /// Puts an entry into the first free slot, or into a new one, with the name from [`Table::next_token`]. No entry
    /// of the same number may exist.
    pub(super) fn insert(&mut self, fd: RawFd, interest: Interest) -> Entry {
        self.reserve(1);
        let token = self.next_token();
        let bucket = self.bucket(fd);
        let next = mem::replace(&mut self.buckets[bucket], token.slot);
        let held = Held::new(fd);
        match self.slots.get_mut(token.slot as usize) {
            Some(slot) => {
                self.free = slot.next;
                self.vacant -= 1;
                slot.next = next;
                (slot.held, slot.interest) = (held, interest);
            }
            None => self.slots.push(Slot {
                generation: token.generation,
                next,
                held,
                interest,
            }),
        }
        self.len += 1;
        Entry { fd, interest, token }
    }

    /// Sets whether the change log holds the addition of this entry. Returns whether it did; `false` for an unknown
    /// name.
    pub(super) fn set_news(&mut self, token: Token, is_news: bool) -> bool {
        match self.slots.get_mut(token.slot as usize) {
            Some(slot) if slot.generation == token.generation && slot.held.fd().is_some() => {
                slot.held.set_news(is_news)
            }
            _ => false,
        }
    }

    /// Removes the entry of this name. Its slot becomes free for the next generation.
    pub(super) fn remove(&mut self, token: Token) -> Option<Entry> {
        let entry = self.get(token)?;
        self.unlink(token.slot, entry.fd);
        self.len -= 1;
        let slot = &mut self.slots[token.slot as usize];
        slot.held = Held::FREE;
        // A slot without further generations stays empty for ever: no name is used twice.
        if let Some(generation) = slot.generation.checked_add(1) {
            slot.generation = generation;
            slot.next = mem::replace(&mut self.free, token.slot);
            self.vacant += 1;
        }
        Some(entry)
    }

    pub(super) fn token_of(&self, fd: RawFd) -> Option<Token> {
        let mut index = *self.buckets.get(self.bucket(fd))?;
        while let Some(slot) = self.slots.get(index as usize) {
            if slot.held.fd() == Some(fd) {
                return Some(Token {
                    slot: index,
                    generation: slot.generation,
                });
            }
            index = slot.next;
        }
        None
    }

    pub(super) fn get(&self, token: Token) -> Option<Entry> {
        let slot = self.slots.get(token.slot as usize)?;
        let (fd, interest) = slot.held().filter(|_| slot.generation == token.generation)?;
        Some(Entry { fd, interest, token })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let (fd, interest) = slot.held()?;
            let token = Token {
                slot: index,
                generation: slot.generation,
            };
            Some(Entry { fd, interest, token })
        })
    }

    /// The kernel gives the lowest free number, so numbers are dense and need no mixing.
    fn bucket(&self, fd: RawFd) -> usize {
        fd as usize & self.buckets.len().wrapping_sub(1)
    }

    /// Takes the slot of `fd` out of its chain.
    fn unlink(&mut self, index: u32, fd: RawFd) {
        let after = self.slots[index as usize].next;
        let bucket = self.bucket(fd);
        if self.buckets[bucket] == index {
            self.buckets[bucket] = after;
            return;
        }
        let mut before = self.buckets[bucket];
        while self.slots[before as usize].next != index {
            before = self.slots[before as usize].next;
        }
        self.slots[before as usize].next = after;
    }

    /// Makes the buckets for all slots that there can be, and chains every entry again.
    fn rehash(&mut self) {
        self.buckets.clear();
        self.buckets
            .resize((self.slots.capacity() / LOAD).next_power_of_two(), NONE);
        for index in 0..self.slots.len() {
            if let Some(fd) = self.slots[index].held.fd() {
                let bucket = self.bucket(fd);
                self.slots[index].next = mem::replace(&mut self.buckets[bucket], index as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::testing::every_sequence;

    /// A model of the table: a list that is searched every time.
    #[derive(Default)]
    struct Model {
        entries: Vec<Entry>,
        every_token: Vec<Token>,
    }

    /// Makes one call, chosen by `choice`, to the table and the model: insert, or remove by a name that can be stale.
    fn step(table: &mut Table, model: &mut Model, choice: usize, numbers: usize) {
        let (fd, names) = ((choice % numbers) as RawFd * 4, model.every_token.len());
        let known = model.entries.iter().position(|entry| entry.fd == fd);
        match (choice / numbers, known) {
            (0, None) => {
                let entry = table.insert(fd, Interest::READ);
                assert_eq!((entry.fd, entry.interest), (fd, Interest::READ));
                assert!(!model.every_token.contains(&entry.token), "no name is given twice");
                model.entries.push(entry);
                model.every_token.push(entry.token);
            }
            (1, Some(known)) => {
                let entry = model.entries.swap_remove(known);
                assert_eq!(table.remove(entry.token), Some(entry));
            }
            (2, _) if names > 0 => {
                let token = model.every_token[choice % names];
                let known = model.entries.iter().position(|entry| entry.token == token);
                assert_eq!(table.remove(token), known.map(|known| model.entries.swap_remove(known)));
            }
            _ => {}
        }
        check(table, model, numbers);
    }

    fn check(table: &Table, model: &Model, numbers: usize) {
        assert_eq!(table.len(), model.entries.len());
        let mut listed: Vec<Entry> = table.iter().collect();
        let mut expected = model.entries.clone();
        listed.sort_by_key(|entry| entry.fd);
        expected.sort_by_key(|entry| entry.fd);
        assert_eq!(listed, expected);
        for fd in -1..=numbers as RawFd * 4 {
            let token = expected.iter().find(|entry| entry.fd == fd).map(|entry| entry.token);
            assert_eq!(table.token_of(fd), token);
        }
        for &token in &model.every_token {
            let entry = expected.iter().find(|entry| entry.token == token).copied();
            assert_eq!(table.get(token), entry);
        }
        assert_eq!(table.slots.len(), table.len() + table.vacant);
    }

    #[test]
    fn every_short_sequence_does_as_the_model_does() {
        every_sequence(9, 5, |sequence| {
            let (mut table, mut model) = (Table::new(), Model::default());
            for &choice in sequence {
                step(&mut table, &mut model, choice, 3);
            }
        });
    }

    #[test]
    fn long_random_sequences_do_as_the_model_does() {
        for (seed, numbers) in [(1, 2), (2, 9), (3, 40)] {
            let (mut table, mut model, mut random) = (Table::new(), Model::default(), Random::new(seed));
            for _ in 0..2_000 {
                step(
                    &mut table,
                    &mut model,
                    random.below(numbers as u64 * 3) as usize,
                    numbers,
                );
            }
        }
    }

    #[test]
    fn a_slot_without_further_generations_is_never_used_again() {
        let mut table = Table::new();
        let first = table.insert(3, Interest::READ);
        table.remove(first.token);
        table.slots[0].generation = u32::MAX;
        let last = table.insert(3, Interest::READ);
        assert_eq!(
            last.token,
            Token {
                slot: 0,
                generation: u32::MAX
            }
        );
        table.remove(last.token);
        assert_eq!(table.insert(3, Interest::READ).token, Token { slot: 1, generation: 1 });
        assert_eq!(table.get(last.token), None);
        assert_eq!((table.len(), table.vacant), (1, 0));
    }

    fn slot(generation: u32, fd: Option<RawFd>) -> SlotImage {
        let entry = fd.map(|fd| (fd, Interest::READ.bits()));
        SlotImage { generation, entry }
    }

    #[test]
    fn a_slot_that_has_used_up_its_generations_stays_empty_in_the_next_program() {
        let image = [slot(u32::MAX, None), slot(u32::MAX - 1, None), slot(1, Some(7))];
        let mut table = Table::of(&image).unwrap();
        assert_eq!((table.len(), table.vacant), (1, 1));
        let slots = [8, 9].map(|fd| table.insert(fd, Interest::READ).token.index());
        assert_eq!(slots, [1, 3]);
    }

    #[test]
    fn slots_that_contradict_each_other_make_no_table() {
        for image in [
            &[slot(1, Some(-1))][..],
            &[slot(1, Some(-5))],
            &[slot(0, None)],
            &[slot(1, Some(7)), slot(1, Some(7))],
        ] {
            assert!(Table::of(image).is_none(), "{:?}", image[0].entry);
        }
    }

    #[test]
    fn within_what_was_reserved_nothing_is_allocated() {
        let mut table = Table::new();
        table.insert(0, Interest::READ);
        table.reserve(99);
        let room = |table: &Table| (table.slots.capacity(), table.buckets.capacity());
        let reserved = room(&table);
        for round in 0..5 {
            let tokens: Vec<_> = (1..100)
                .map(|fd| table.insert(fd << round, Interest::READ).token)
                .collect();
            tokens
                .into_iter()
                .for_each(|token| assert!(table.remove(token).is_some()));
        }
        assert_eq!(room(&table), reserved);
    }
}
