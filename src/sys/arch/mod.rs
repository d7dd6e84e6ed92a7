//! The code that depends on the architecture: a raw system call, and `clone3`.
//!
//! For x86_64 both are written in assembly. All other architectures, and a build with `--cfg pidherd_portable`, use the
//! C library instead, because assembly for them was never tested.

mod clone_args;
pub(crate) use clone_args::CloneArgs;

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable)))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable)))]
pub(crate) use x86_64::{clone3, syscall};

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable))))]
mod portable;
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(pidherd_portable))))]
pub(crate) use portable::{clone3, syscall};
