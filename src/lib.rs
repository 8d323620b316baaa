//! Tallymark keeps accurate, rerunnable statistics of an application's PostgreSQL.
//!
//! The folders from the ground up. Each imports only those above it. The test `layers` checks this.
//!
//! | folder | part |
//! |---|---|
//! | [`model`] | rollups, measures, slices, instants, reasons to wait; pure |
//! | [`clients`] | connections to databases, queues and secrets |
//! | [`config`] | `tallymark.toml` → definitions |
//! | [`source`] | statements that aggregate a stretch of time, and notice late changes |
//! | [`checkpoint`] | the item of each slice in a store: states, leases, watermark |
//! | [`throttle`] | whether work may start or continue: hours, commands, the source's load |
//! | [`target`] | stage, fence and replace in the rollup tables |
//! | [`work`] | which slices are due, and each of them from claim to checkpoint |
//! | [`check`] | proofs and repairs: verify, scrub, repair |
//! | [`fanout`] | due slices → messages for other invocations; backfills as items |
//! | [`tick`] | what is due now, worked on or sent |
//! | [`manage`] | another name for a rollup, or its end |
//! | [`event`] | the JSON that starts work → a trigger |
//! | [`telemetry`] | log lines and metrics |
//! | [`lambda`] | event → work → response |
//! | [`embedded`] | servers for the demo and the tests |
//! | [`cli`] | command → work → text or JSON |
//! | [`testing`] | a clock that tests can make jump, and properties that fuzzers drive |
//!
//! [`work::worker::Worker`] owns the clients that all of them borrow. A verb is a free function
//! that takes it, as [`tick::run`] and [`work::slice_run::run_slice`].
//!
//! The contract is what CHANGELOG.md names. The Rust API is no part of it. Items are `pub` for the
//! binaries, the tests, the benches and the fuzzers.

// A program with fewer features leaves code unused. A check with all of them finds unused code.
#![cfg_attr(not(all(feature = "embedded", feature = "faults")), allow(dead_code, unused_imports))]
// The readers of these pages work on the code, and have the private items too.
#![allow(rustdoc::private_intra_doc_links)]

pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod clients;
pub mod config;
#[cfg(feature = "embedded")]
pub mod embedded;
mod event;
pub mod fanout;
pub mod lambda;
pub mod manage;
pub mod model;
pub mod source;
pub mod target;
pub mod telemetry;
pub mod testing;
mod throttle;
pub mod tick;
pub mod work;
