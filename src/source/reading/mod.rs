//! Reading a stretch of time: which columns, by which axis, how much at once, and how gently.

pub mod axis;
pub mod fingerprint;
pub mod first_row;
pub mod nap;
pub(crate) mod origin;
pub mod pace;
pub mod plan_guard;
pub(crate) mod privileges;
pub mod read;
pub mod shape;
pub mod zones;
