//! Tests of the transition table's behaviour.
//!
//! [`checked`] contains the rules that hold for every step under every policy; all other tests drive
//! lifecycles through it. [`up`], [`down`], [`limits`] and [`naive`] test single cases in the virtual time of
//! [`world`], [`siblings`] those of a restart with siblings.
//! [`supervisord`] tests cases that were recorded from supervisord. [`sequences`] tries every order of inputs
//! up to a depth, and [`walk`] tries long random orders. From every state that these two reach, a stop must
//! end the process and a start must bring it up ([`reach`]).
//!
//! [`matrix`] and [`graph`] write the table's behaviour as a text and as a drawing, from the same [`cases`]. Their files
//! are beside the table, and [`golden`] compares them.

mod cases;
mod checked;
mod down;
mod golden;
mod graph;
mod in_flight;
mod limits;
mod matrix;
mod naive;
mod reach;
mod sequences;
mod siblings;
mod supervisord;
mod up;
mod walk;
mod world;
