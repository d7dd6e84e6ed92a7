//! Spawning, against the real kernel.

mod alone;
mod basics;
mod helpers;

mod settings;
mod shortage;
