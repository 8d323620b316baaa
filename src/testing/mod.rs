//! Parts for tests only: a clock that jumps, and properties that fuzzers drive.

pub(crate) mod faults;
#[cfg(feature = "faults")]
pub mod properties;
