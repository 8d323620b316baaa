//! Proofs and repairs: verification on demand, the scrub, and checkpoints that follow markers.

pub mod repair;
pub mod scrub;
pub mod verify;
