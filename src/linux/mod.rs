//! The real side of the engine's seam; [`core`] implements it.

mod adoption;
pub(crate) mod core;
mod failures;
mod flight;
pub(crate) mod found;
pub(crate) mod image;
pub(crate) mod inherited;
mod keeping;
pub(crate) mod orphans;
mod run_cgroup;
mod socket;
pub(crate) mod state_file;
mod stored;
pub(crate) mod stored_fd;
#[cfg(test)]
mod tests;
mod watched;
