//! The throttle decides whether work may start or continue now, and at what pace.
//!
//! The questions in their order, and the effect of a "no":
//!
//! | question | asked | a no |
//! |---|---|---|
//! | `wake_per_hour` (`may_wake`) | by a tick, first of all | the tick leaves its due slices |
//! | is the rest after the last chunk over? | before each reading statement | the worker rests |
//! | was the process asked to end? | before each slice and reading statement | the turn ends |
//! | `quiet_hours`; `window` for backfills | likewise | the turn ends |
//! | is the slice before the store's seal? | likewise | the turn ends |
//! | the operator's `cancel` and `pause` | likewise | the turn ends |
//! | `throttle_query` | before each reading statement | the worker waits (an error ends the turn) |
//! | `critical_load` | in the reading transaction | the turn ends |
//! | `max_load`, with the same statement | in the reading transaction | the worker waits |
//! | a slot, with the same statement | in the reading transaction | the worker waits |
//!
//! [`Gate`] asks all but the first, the last three through [`Governor::enter`]. A worker rests and
//! waits while its budget lasts, and then ends its turn. An unreadable load counts as critical.
//! Each "no" is a [`NotNow`](crate::model::not_now::NotNow).
//!
//! | module | part |
//! |---|---|
//! | `permit` | the decision, and the waiting |
//! | `governor` | one source: its slots, its load, the rests after its chunks |
//! | `signals` | how each signal of the load is read |
//! | `pace` | the pace of `nice_ratio = "auto"`, a pure function of looks at the source |
//! | `listen` | the looks, before a statement whose naps would take long |
//! | `watch` | the short looks beside a statement without rests |

mod governor;
pub(crate) mod interrupt;
mod listen;
pub(crate) mod pace;
mod permit;
mod signals;
mod watch;

use std::time::Duration;

pub(crate) use governor::Governor;
pub(crate) use permit::{Gate, Patience, RETRY, Throttle, Waits, may_wake};

/// A command ends after waiting this long for a slot. A chunk holds a slot for seconds, and a
/// comparison for its `--timeout`, 5 minutes by default. A longer hold comes from another program.
pub(crate) const SLOT_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
