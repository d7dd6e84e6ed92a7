//! Spawning, against the real kernel.

mod alone;
mod basics;
mod helpers;
mod refused;
mod settings;
