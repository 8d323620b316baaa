//! Changes of a rollup as a whole: its name, its end.

pub mod rename_rollup;
