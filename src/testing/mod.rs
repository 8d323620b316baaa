//! Parts for tests only: guards that can be removed, and properties that fuzzers drive.

pub mod faults;
#[cfg(feature = "faults")]
pub mod properties;
