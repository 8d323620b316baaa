//! The integration tests: one binary, one PostgreSQL server for all of them.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod docs;
mod cli;
mod embedded_postgres;
mod kill;
mod pooler;
mod spine;
#[cfg(feature = "lambda")]
mod lambda;
mod support;
mod versions;
