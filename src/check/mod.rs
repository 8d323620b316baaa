//! Proofs and repairs: verification on demand, previews, the scrub, checkpoints that follow markers,
//! and which rows of the source are still needed.

pub mod adopt;
mod late_change;
pub(crate) mod preview;
pub mod purgeable;
pub mod repair;
pub(crate) mod retention;
pub mod scrub;
pub mod verify;
