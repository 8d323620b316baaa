//! What changes a rollup as a whole: its name, its end.

pub mod drop_rollup;
pub mod holdings;
pub mod rename_rollup;
