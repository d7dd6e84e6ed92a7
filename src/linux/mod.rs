//! The real side of the engine's seam; [`core`] implements it.

mod adoption;
pub(crate) mod core;
pub(crate) mod image;
pub(crate) mod orphans;
mod run_cgroup;
mod watched;
