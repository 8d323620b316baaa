//! The integration tests: one binary, one PostgreSQL server for all of them.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod embedded_postgres;
mod flights;
mod pooler;
mod spine;
mod support;
mod versions;
