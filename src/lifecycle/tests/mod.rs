//! What the table must do, apart from how.
//!
//! [`watched`] holds what is true of every step whatever the policy; everything else drives
//! lifecycles through it. [`up`], [`down`] and [`naive`] say what happens in cases that somebody
//! thought of, in the virtual time of [`world`], and [`supervisord`] in cases that it was seen in.
//! [`sequences`] tries every order of inputs up to a depth, and [`walk`] goes where nobody thought
//! of; from wherever they come to, a stop must lead down and a start up ([`reach`]).

mod down;
mod naive;
mod reach;
mod sequences;
mod supervisord;
mod up;
mod walk;
mod watched;
mod world;
