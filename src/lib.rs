//! Tallymark keeps accurate, rerunnable statistics of an application's PostgreSQL.
//!
//! The modules in the order in which data flows through them:
//!
//! | module | part |
//! |---|---|
//! | [`config`] | `tallymark.toml` → [`rollup`] definitions |
//! | [`slice`] | a calendar cuts time into slices and buckets |
//! | [`checkpoint`] | the DynamoDB item of each slice: states, leases, watermark |

pub mod clock;
pub mod config;
pub mod rollup;
pub mod slice;
pub mod sql;
