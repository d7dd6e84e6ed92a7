//! Storage of groups and instances: slots are reused, ids are not.
//!
//! An id contains the generation of its slot, so the id of a removed value never refers to its successor. It also
//! contains the number of its arena, so it refers to nothing in another arena. A slot is retired when its generations
//! are used up.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use crate::codec::{Damaged, Reader, Stored, Writer};
use crate::growth::grow_to;

/// The number of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Home(NonZeroU32);

impl Home {
    /// Only so many supervisors can be distinguished.
    fn new(number: u32) -> Home {
        Home(NonZeroU32::MIN.saturating_add(number))
    }
}

/// An arena, a slot, and the slot's generation: the content of an id of any kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RawId {
    /// Not zero, so that an optional id takes no more memory than an id.
    home: Home,
    index: u32,
    generation: u32,
}

impl RawId {
    pub(crate) const fn index(self) -> u32 {
        self.index
    }

    /// The same id in the arena with this number.
    pub(crate) fn at_home(self, home: u32) -> RawId {
        RawId {
            home: Home::new(home),
            ..self
        }
    }
}

impl fmt::Display for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

/// The type of an arena's ids. Each arena has its own, so that an id of one kind does not compile where another is
/// expected.
pub(crate) trait Id: Copy {
    fn from_raw(raw: RawId) -> Self;
    fn raw(self) -> RawId;
}

/// Slots for `T`, which ids of the type `I` refer to.
pub(crate) struct Arena<I, T> {
    home: u32,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    ids: PhantomData<fn() -> I>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A slot as data.
#[derive(Clone)]
pub(crate) struct Place<T> {
    pub(crate) generation: u32,
    pub(crate) value: Option<T>,
}

impl<T> Place<T> {
    pub(crate) const fn new(generation: u32, value: Option<T>) -> Place<T> {
        Place { generation, value }
    }

    /// Whether this is the place of this id, if it has the right slot.
    pub(crate) fn is<I: Id>(&self, id: I) -> bool {
        self.generation == id.raw().generation
    }

    /// Empties the place, as [`Arena::remove`] empties a slot: no later value gets the same id.
    pub(crate) fn clear(&mut self) {
        if self.value.take().is_some() {
            self.generation = self.generation.saturating_add(1);
        }
    }
}

impl<T: Stored> Stored for Place<T> {
    fn put(&self, to: &mut Writer<'_>) {
        self.generation.put(to);
        self.value.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Place<T>, Damaged> {
        Ok(Place {
            generation: u32::get(from)?,
            value: Stored::get(from)?,
        })
    }
}

impl<I: Id, T> Arena<I, T> {
    /// An empty arena; `home` distinguishes its ids from those of other arenas.
    pub(crate) const fn new(home: u32) -> Arena<I, T> {
        Arena {
            home,
            slots: Vec::new(),
            free: Vec::new(),
            ids: PhantomData,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> I {
        while let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                slot.value = Some(value);
                let generation = slot.generation;
                return self.id(index, generation);
            }
        }
        let index = self.slots();
        self.reserve(1);
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        self.id(index, 0)
    }

    /// Makes room for this many more values.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let room = self.slots.len() + additional.saturating_sub(self.free.len());
        grow_to(&mut self.slots, room);
    }

    /// The number that distinguishes its ids from those of other arenas.
    pub(crate) const fn home(&self) -> u32 {
        self.home
    }

    /// All slots as data.
    pub(crate) fn places<U>(&self, mut image: impl FnMut(I, &T) -> U) -> Vec<Place<U>> {
        let place = |(index, slot): (u32, &Slot<T>)| {
            let id = self.id(index, slot.generation);
            Place {
                generation: slot.generation,
                value: slot.value.as_ref().map(|value| image(id, value)),
            }
        };
        (0..).zip(&self.slots).map(place).collect()
    }

    /// Writes a list of places, as [`Arena::places`] makes it, with the values as `put` writes them.
    pub(crate) fn put_places(&self, to: &mut Writer<'_>, put: impl Fn(I, &T, &mut Writer<'_>)) {
        self.slots().put(to);
        for (index, slot) in (0..).zip(&self.slots) {
            slot.generation.put(to);
            slot.value.is_some().put(to);
            if let Some(value) = &slot.value {
                put(self.id(index, slot.generation), value, to);
            }
        }
    }

    /// Replaces all slots. An empty slot that may have used up its generations is retired.
    pub(crate) fn replace(&mut self, places: Vec<Place<T>>) {
        let slot = |Place { generation, value }| Slot { generation, value };
        self.slots = places.into_iter().map(slot).collect();
        let is_free = |slot: &Slot<T>| slot.value.is_none() && slot.generation < u32::MAX;
        let slots = (0..self.slots()).zip(&self.slots).filter(|(_, slot)| is_free(slot));
        self.free = slots.map(|(index, _)| index).rev().collect();
    }

    pub(crate) fn id(&self, index: u32, generation: u32) -> I {
        I::from_raw(RawId {
            home: Home::new(self.home),
            index,
            generation,
        })
    }

    pub(crate) fn remove(&mut self, id: I) -> Option<T> {
        let slot = self.slot_mut(id)?;
        let value = slot.value.take()?;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(id.raw().index);
        }
        Some(value)
    }

    pub(crate) fn get(&self, id: I) -> Option<&T> {
        let id = id.raw();
        let slot = self.slots.get(id.index as usize)?;
        let is_meant = (Home::new(self.home), slot.generation) == (id.home, id.generation);
        slot.value.as_ref().filter(|_| is_meant)
    }

    pub(crate) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.slot_mut(id)?.value.as_mut()
    }

    fn slot_mut(&mut self, id: I) -> Option<&mut Slot<T>> {
        let id = id.raw();
        let slot = self.slots.get_mut(id.index as usize)?;
        let is_meant = (Home::new(self.home), slot.generation) == (id.home, id.generation);
        is_meant.then_some(slot)
    }

    /// The id of the value in this slot; `None` if the slot is empty.
    pub(crate) fn id_at(&self, index: u32) -> Option<I> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| self.id(index, slot.generation))
    }

    /// The number of slots, used or not.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + '_ {
        (0..self.slots()).filter_map(|index| self.id_at(index))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }
}

impl Stored for RawId {
    fn put(&self, to: &mut Writer<'_>) {
        self.index.put(to);
        self.generation.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<RawId, Damaged> {
        Ok(RawId {
            home: Home::new(from.home),
            index: u32::get(from)?,
            generation: u32::get(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Id for RawId {
        fn from_raw(raw: RawId) -> RawId {
            raw
        }

        fn raw(self) -> RawId {
            self
        }
    }

    impl fmt::Debug for RawId {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    }

    #[test]
    fn an_id_never_refers_to_the_successor_of_its_value() {
        let mut arena: Arena<RawId, &str> = Arena::new(0);
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        assert_eq!(arena.remove(first), None);
        let second = arena.insert("second");
        assert_eq!(second.index(), first.index());
        assert_ne!(second, first);
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.get_mut(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.ids().collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn an_id_refers_to_nothing_in_another_arena() {
        let (mut ours, mut theirs): (Arena<RawId, u8>, Arena<RawId, u8>) = (Arena::new(0), Arena::new(1));
        let (here, there) = (ours.insert(1), theirs.insert(2));
        assert_ne!(here, there);
        assert_eq!((ours.get(there), theirs.get_mut(here)), (None, None));
        assert_eq!((ours.remove(there), ours.get(here)), (None, Some(&1)));
    }

    #[test]
    fn a_worn_out_slot_is_retired() {
        let mut arena: Arena<RawId, u8> = Arena::new(0);
        let id = arena.insert(1);
        arena.slots[0].generation = u32::MAX;
        let last = arena.id(id.index(), u32::MAX);
        assert_eq!(arena.remove(last), Some(1));
        let next = arena.insert(2);
        assert_ne!(next.index(), last.index());
        assert_eq!(arena.get(last), None);
    }

    #[test]
    fn there_is_room_for_as_many_values_as_were_reserved() {
        let mut arena: Arena<RawId, u8> = Arena::new(0);
        let ids: Vec<_> = (0..10).map(|value| arena.insert(value)).collect();
        for &id in &ids[..4] {
            assert!(arena.remove(id).is_some());
        }
        arena.reserve(1_000);
        let room = arena.slots.capacity();
        assert_eq!(room, 1_006, "four slots are free");
        for value in 0..1_000_u32 {
            arena.insert(value as u8);
        }
        assert_eq!((arena.slots.len(), arena.slots.capacity()), (room, room));
    }

    #[test]
    fn only_an_empty_place_with_generations_left_is_used_again() {
        let mut arena: Arena<RawId, &str> = Arena::new(0);
        let places = [(u32::MAX, None), (3, Some("kept")), (u32::MAX - 1, None), (0, None)];
        arena.replace(places.map(|(generation, value)| Place::new(generation, value)).into());
        let ids: Vec<_> = (0..3).map(|_| arena.insert("new")).collect();
        assert_eq!(ids, [arena.id(2, u32::MAX - 1), arena.id(3, 0), arena.id(4, 0)]);
        assert_eq!(arena.get(arena.id(1, 3)), Some(&"kept"));
    }

    #[test]
    fn a_place_is_that_of_the_ids_with_its_generation() {
        let mut arena: Arena<RawId, u8> = Arena::new(0);
        let first = arena.insert(1);
        arena.remove(first);
        let second = arena.insert(2);
        let places = arena.places(|_, value| *value);
        assert!(places[0].is(second) && !places[0].is(first));
    }

    #[test]
    fn an_id_can_be_taken_to_another_arena() {
        let (mut ours, mut theirs): (Arena<RawId, u8>, Arena<RawId, u8>) = (Arena::new(0), Arena::new(1));
        let (here, there) = (ours.insert(1), theirs.insert(2));
        assert_eq!(here.at_home(1), there);
        assert_eq!(theirs.get(here.at_home(theirs.home())), Some(&2));
    }
}
