//! The source: the application's PostgreSQL, which is only read.
//!
//! [`shape`] asks the catalogue once what a rollup's columns are; [`read`] writes the statements
//! that aggregate a time range; [`pace`] decides how wide that range is, and [`plan_guard`] whether it can
//! be read without reading everything. Of a coarse rollup the source
//! is a finer one's table: [`fine`].

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
