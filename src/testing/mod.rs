//! What only tests use: guards that can be removed, and properties that fuzzers drive.

pub mod faults;
#[cfg(feature = "faults")]
pub mod properties;
