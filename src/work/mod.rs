//! The computation of slices, from the choice of the due ones to the checkpoint of each.

pub(crate) mod access;
pub mod backfill;
pub(crate) mod backlog;
pub(crate) mod compose;
pub(crate) mod consumer;
pub(crate) mod coverage;
pub mod due;
pub mod empty;
pub mod estimate;
mod generation;
pub mod identity;
pub mod late;
pub(crate) mod meter;
pub mod price;
pub mod ready;
pub mod replay;
pub mod report;
pub(crate) mod size;
pub mod slice_run;
pub mod standings;
pub(crate) mod survey;
pub(crate) mod things;
pub(crate) mod want;
pub mod worker;
pub(crate) mod workload;
