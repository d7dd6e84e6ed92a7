//! Spawning, against the real kernel.

mod basics;
#[path = "../common/mod.rs"]
mod common;
mod conversions;
mod environment;
mod errors;
mod exchange;
mod exec;
mod files;
mod held;
mod helpers;
mod host;
mod in_flight;
mod launcher;
mod namespaces;

mod pipes;
mod scheduling;
mod search;
mod settings;
mod shell;
mod shortage;
mod streams;
