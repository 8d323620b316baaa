//! Tallymark keeps accurate, rerunnable statistics of an application's PostgreSQL.
//!
//! The modules in the order in which data flows through them:
//!
//! | module | part |
//! |---|---|
//! | [`config`] | `tallymark.toml` → [`rollup`] definitions |
//! | [`measure`] | kinds of measures: their columns, and the SQL that fills them |
//! | [`event`] | the JSON that starts work → a trigger |
//! | [`mod@slice`] | a calendar cuts time into slices and buckets |
//! | [`plan`] | checkpoints and the time → which slices are due; pure |
//! | [`estimate`], [`price`] | the time and cost of a backfill, before it starts |
//! | [`tick`], [`backfill`] | a trigger's due slices, one after another or several at once |
//! | [`fanout`], [`queue`] | due slices → messages for other invocations; backfills as items |
//! | [`compose`] | rollups of rollups: when a coarse slice waits, and when it runs again |
//! | [`late`] | late changes of the source → reopened slices |
//! | [`run`] | the spine: one slice from claim to checkpoint |
//! | [`not_now`] | reasons to wait, and their consequences; pure |
//! | [`throttle`] | whether work may start or continue: hours, commands, the source's load |
//! | [`checkpoint`] | the item of each slice in a store: states, leases, watermark |
//! | [`source`] | statements that aggregate a chunk of the source |
//! | [`target`] | stage, fence and replace in the rollup tables |
//! | [`report`], [`metrics`], [`telemetry`], [`visible`] | reports of the work, and where they go |
//! | [`lambda`] | event → work → response |
//! | [`verify`], [`scrub`], [`repair`] | proofs and repairs |
//!
//! [`worker::Worker`] owns the clients that all of them borrow.

pub mod address;
pub mod aws;
pub mod backfill;
pub mod checkpoint;
#[cfg(all(feature = "cli", feature = "embedded"))]
pub mod cli;
pub mod clock;
pub mod compose;
pub mod config;
mod consumer;
pub mod db;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod estimate;
pub mod event;
pub mod fanout;
pub mod faults;
pub mod generation;
pub mod identity;
pub mod interrupt;
pub mod lambda;
pub mod late;
pub mod measure;
pub mod metrics;
pub mod not_now;
pub mod plan;
pub mod price;
pub mod probe;
#[cfg(feature = "faults")]
pub mod properties;
pub mod queue;
pub mod ready;
pub mod rename;
pub mod repair;
pub mod replay;
pub mod report;
pub mod rollup;
pub mod run;
pub mod scrub;
pub mod secret;
pub mod slice;
pub mod source;
pub mod sql;
pub mod target;
pub mod telemetry;
pub mod text;
pub mod throttle;
pub mod tick;
pub mod verify;
pub mod visible;
pub mod worker;
