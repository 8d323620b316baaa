//! Logs.

/// Logs as text on stderr.
pub fn cli(_verbosity: u8) {}
