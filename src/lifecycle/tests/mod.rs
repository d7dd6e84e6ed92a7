//! Tests of the transition table's behaviour.
//!
//! [`checked`] contains the rules that hold for every step under every policy; all other tests drive
//! lifecycles through it. [`up`], [`down`], [`limits`] and [`naive`] test single cases in the virtual time of [`world`], [`siblings`] those of a
//! restart with siblings.
//! [`supervisord`] tests cases that were recorded from supervisord. [`sequences`] tries every order of inputs
//! up to a depth, and [`walk`] tries long random orders. From every state that these two reach, a stop must
//! end the process and a start must bring it up ([`reach`]).

mod checked;
mod down;
mod in_flight;
mod limits;
mod naive;
mod reach;
mod sequences;
mod siblings;
mod supervisord;
mod up;
mod walk;
mod world;
