//! Bugs that other people's supervisors and runtimes had in the field: each a test that is named
//! after it, with what went wrong there, and the same situation brought about here.
//!
//! Some are guarded where spawning is tested (`tests/spawn`, `src/command`), with the number in the
//! comment: moby#42680, hpctoolkit#441, golang#27505, bun#33060, rust#25784. The clock jumps of
//! Supervisor#281 and #1043 are a test of `tests/lifecycle.rs`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod lifecycles;
mod reaping;
mod recycling;
mod spawning;
