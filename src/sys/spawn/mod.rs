//! How a child is made, and what it does until its program runs.
//!
//! [`script`] and [`settings`] compile the settings of a command to a list of system calls, in the parent. [`flight`]
//! is the memory that a child uses. [`clone`] makes the child, which runs [`child`] on its own [`stack`].

pub(crate) mod capabilities;
pub(crate) mod child;
pub(crate) mod clone;
pub(crate) mod flight;
mod interpreter;
mod parent;
pub(crate) mod script;
pub(crate) mod settings;
mod stack;
#[cfg(test)]
mod tests;
