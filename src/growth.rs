//! How the lists with a place for each instance grow.
//!
//! A list that doubles its room has twice the memory that it needs in the worst case. With many thousand instances most
//! of the library's memory is in a few such lists. So they get exactly the room for a large group, and an eighth more
//! when instances are added one by one. A long list is moved by mremap(2), which copies nothing.

use std::collections::VecDeque;

/// Gives a list room for this many values in all.
pub(crate) fn grow_to<L: Growing>(list: &mut L, room: usize) {
    let length = list.length();
    if list.room() < room {
        list.reserve_exactly((room - length).max(length / 8).max(4));
    }
}

/// A list that can grow by a number of values.
pub(crate) trait Growing {
    fn length(&self) -> usize;
    fn room(&self) -> usize;
    fn reserve_exactly(&mut self, additional: usize);
}

macro_rules! growing {
    ($($list:ident)*) => {
        $(
            impl<T> Growing for $list<T> {
                fn length(&self) -> usize {
                    self.len()
                }

                fn room(&self) -> usize {
                    self.capacity()
                }

                fn reserve_exactly(&mut self, additional: usize) {
                    self.reserve_exact(additional);
                }
            }
        )*
    };
}

growing! { Vec VecDeque }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_group_gets_exactly_its_room_and_single_ones_an_eighth_more() {
        let mut list: Vec<u64> = Vec::new();
        grow_to(&mut list, 1_000);
        assert_eq!(list.capacity(), 1_000);
        let mut moves = 0;
        for number in 0..10_000 {
            moves += usize::from(list.len() == list.capacity());
            let room = list.len() + 1;
            grow_to(&mut list, room);
            list.push(number);
        }
        assert!(moves <= 20 && list.capacity() <= 11_300, "{moves}, {}", list.capacity());
    }
}
