//! The real side of the engine's seam; [`core`] implements it.

pub(crate) mod core;
pub(crate) mod orphans;
mod run_cgroup;
mod watched;
