//! The defaults in the guide, and the stored states.

mod defaults;
mod golden;
