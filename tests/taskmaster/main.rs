//! Tests of the taskmaster example through its command line, its input, its output and its signals.

#[path = "../common/example.rs"]
mod example;

#[path = "../common/mod.rs"]
mod common;

mod beyond;
mod commands;
mod configuration;
mod demonstration;
mod driver;
mod ending;
mod events;
mod fastcgi;
mod job_control;
mod limits;
mod listeners;
mod logs;
mod order;
mod outputs;
mod own_process;
mod prompt;
mod recordings;
mod reexec;
mod reloading;
mod rules;
mod screen;
mod session;
mod siblings;
mod signals;
mod standard_streams;
mod supervisorctl;
mod terminal;
mod tracing;
mod views;
