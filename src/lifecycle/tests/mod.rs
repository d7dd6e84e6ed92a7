//! What the table must do, apart from how.
//!
//! [`watched`] holds what is true of every step whatever the policy; everything else drives
//! lifecycles through it. [`up`], [`down`] and [`naive`] say what happens in cases that somebody
//! thought of, in the virtual time of [`world`].

mod down;
mod naive;
mod up;
mod watched;
mod world;
