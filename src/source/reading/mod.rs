//! Reading a stretch of time: which columns, by which axis, how much at once, and how gently.

pub(crate) mod axis;
pub(crate) mod expressions;
pub(crate) mod fingerprint;
pub mod first_row;
mod lookups;
pub(crate) mod nap;
mod origin;
pub(crate) mod pace;
pub mod plan_guard;
mod privileges;
pub mod read;
pub mod shape;
pub(crate) mod zones;
