//! The supervisor as its host sees it, against the real kernel.

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod adopt;
mod by_hand;
mod endings;
mod groups;
mod in_flight;
mod judgement;
mod loops;
mod namespaces;
mod order;
mod orphans;
mod reports;
mod requests;
mod shortage;
mod siblings;
mod stop_command;
mod subscriptions;
mod turns;
