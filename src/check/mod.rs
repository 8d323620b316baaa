//! Proofs and repairs: verification on demand, previews, the scrub, and checkpoints that follow
//! markers.

pub(crate) mod preview;
pub mod repair;
pub mod scrub;
pub mod verify;
