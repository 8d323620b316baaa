//! Parts for tests only: a clock that jumps, and properties that fuzzers drive.

pub mod faults;
#[cfg(feature = "faults")]
pub mod properties;
