//! The source: the application's PostgreSQL, which is only read.
//!
//! [`shape`] reads a rollup's columns from the catalogue once. [`read`] writes the statements that
//! aggregate a time range. [`pace`] decides the width of that range, and [`plan_guard`] whether it
//! can be read without a full scan. The source of a coarse rollup is a finer one's table: [`fine`].

pub mod axis;
pub mod begin;
pub mod capture;
pub mod changes;
pub mod consumers;
pub mod fine;
pub mod fingerprint;
pub mod marks;
mod origin;
pub mod pace;
pub mod plan_guard;
mod probe;
pub mod read;
pub mod settle;
pub mod shape;
mod triggers;
pub mod zones;
