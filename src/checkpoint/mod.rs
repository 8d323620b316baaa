//! The checkpoint of each slice: one item in a store with its state and the worker that holds it
//! now.
//!
//! | module | part |
//! |---|---|
//! | [`state`] | the states and the one function between them |
//! | [`item`] | the item, typed |
//! | [`store`] | where items are kept: the interface, with DynamoDB and PostgreSQL behind it |
//! | `checkpoints` | the store for the other modules, and the reads of slices |
//! | `together` | the reads of many rollups at once |
//! | `claim`, `finish`, `reopen`, `watermark`, `changes`, `scrub`, `restore` | the conditional writes |
//! | `bond` | the installation that a rollup's checkpoints belong to |
//! | `backfills` | a fanned-out backfill |
//! | `control` | the operator's commands: pauses, speed, cancelled backfills |
//! | `pace` | the pace that workers have found |
//! | `seal` | the instant before which slices stay as they are |
//! | `notices` | what operators were told |
//! | `moving` | all items of a rollup at once, for renaming or dropping it |
//! | `workload` | the workload units that mirrors took from an app |
//! | `copy`, `tombstone` | a copy into another store, and what the old one answers after it |
//!
//! In the normal case a slice costs two writes: [`Checkpoints::claim`] and
//! [`Checkpoints::complete`].

mod backfills;
mod bond;
mod changes;
mod checkpoints;
mod claim;
mod control;
mod copy;
mod error;
mod finish;
mod item;
mod moving;
mod notices;
mod pace;
#[cfg(feature = "faults")]
pub(crate) mod properties;
mod reopen;
mod restore;
mod scrub;
mod seal;
pub mod state;
pub mod store;
mod together;
mod tombstone;
mod watermark;
mod workload;

// Two attributes, as clippy recognises a test module only by exactly the first.
#[cfg(test)]
#[cfg(feature = "embedded")]
mod tests;

pub(crate) use backfills::begun;
pub use backfills::{Backfill, BackfillState};
pub(crate) use bond::Bond;
pub(crate) use changes::{KeptConsumer, Registration, SearchedChanges};
pub use checkpoints::Checkpoints;
pub(crate) use claim::LEASE_MARGIN;
pub use claim::{Claim, Lease};
pub(crate) use control::Control;
pub use control::{Pause, Scope};
pub use copy::StoreCopy;
pub(crate) use copy::{CopyError, CopyStanding, CopyToDo};
pub(crate) use error::{CheckpointError, ClaimError, ClaimRefused, LostLease};
pub use finish::Yield;
pub(crate) use item::Glance;
pub use item::{Checkpoint, Completion};
pub(crate) use moving::Items;
pub(crate) use notices::KeptNotices;
pub use pace::KeptPace;
pub(crate) use reopen::Changed;
pub(crate) use restore::{CommittedMarker, Restored};
pub use scrub::Drift;
pub(crate) use scrub::{Budget, DRIFT_MAX, PAGE, ScrubProgress};
pub use seal::Seal;
pub use state::State;
pub(crate) use store::Created;
pub(crate) use together::Wanted;
pub use watermark::Watermark;
pub(crate) use workload::Spending;
