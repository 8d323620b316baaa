//! What changes a rollup as a whole: its name, its end.

pub mod drop_rollup;
pub(crate) mod holdings;
pub(crate) mod rename_rollup;
