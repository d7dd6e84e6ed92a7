//! The contender *limit*: the time that the kernel needs for the system calls that the library makes, without
//! any code around them.
//!
//! In each case, parent and child make the same system calls in the same order as the library does (strace
//! shows them). The child's calls are a table, and the child makes them in a loop. The only check is that the
//! child ended with status 0.

#[cfg(target_arch = "x86_64")]
mod bare;
#[cfg(target_arch = "x86_64")]
mod raw;
#[cfg(target_arch = "x86_64")]
mod steps;

#[cfg(target_arch = "x86_64")]
pub use bare::Limit;

/// On other architectures this contender does not exist.
#[cfg(not(target_arch = "x86_64"))]
pub struct Limit(std::convert::Infallible);

#[cfg(not(target_arch = "x86_64"))]
impl Limit {
    pub fn new(_: crate::case::Case, _: &std::path::Path) -> Result<Limit, String> {
        Err("it is written for x86_64 only".to_owned())
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl crate::contender::Contender for Limit {
    fn name(&self) -> crate::contender::Name {
        crate::contender::Name::Limit
    }

    fn run(&mut self) {
        match self.0 {}
    }
}
