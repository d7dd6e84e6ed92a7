//! A value whose owner wants something done with it when it is forgotten, but not when it is taken
//! out. A type with a `Drop` of its own can't be moved out of; an `Option` in it would need an answer
//! for `None` in every method.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// What is to be done with a value that was dropped without having been taken out.
pub(crate) trait Abandon {
    fn abandon(&self);
}

/// Calls [`Abandon::abandon`] when dropped, unless [`Guarded::into_inner`] took the value out.
#[derive(Debug)]
pub(crate) struct Guarded<T: Abandon>(ManuallyDrop<T>);

impl<T: Abandon> Guarded<T> {
    pub(crate) fn new(value: T) -> Guarded<T> {
        Guarded(ManuallyDrop::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the value has one owner: the caller.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T: Abandon> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Abandon> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Abandon> Drop for Guarded<T> {
    fn drop(&mut self) {
        self.0.abandon();
        // SAFETY: dropped once: `into_inner` prevents this drop, and nothing uses the value after it.
        unsafe { ManuallyDrop::drop(&mut self.0) }
    }
}
