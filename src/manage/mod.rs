//! What changes a rollup as a whole: its name, its store, its end.

pub mod copy_checkpoints;
pub mod drop_rollup;
pub(crate) mod holdings;
pub(crate) mod rename_rollup;
