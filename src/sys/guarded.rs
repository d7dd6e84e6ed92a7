//! A value for which cleanup runs when it is dropped, but not when it is moved out.
//!
//! Rust does not allow moving out of a type with its own `Drop`. An `Option` around the value would allow it, but then
//! every method would have to handle `None`.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// The cleanup for a value that is dropped and was not moved out.
pub(crate) trait Abandon {
    fn abandon(self);
}

/// A wrapper that calls [`Abandon::abandon`] on drop, unless [`Guarded::into_inner`] moved the value out.
#[derive(Debug)]
pub(crate) struct Guarded<T: Abandon>(ManuallyDrop<T>);

impl<T: Abandon> Guarded<T> {
    pub(crate) fn new(value: T) -> Guarded<T> {
        Guarded(ManuallyDrop::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the returned value is the only owner.
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
        // SAFETY: the value is taken only once. `into_inner` prevents this drop, and no code uses the value after it.
        unsafe { ManuallyDrop::take(&mut self.0) }.abandon();
    }
}
