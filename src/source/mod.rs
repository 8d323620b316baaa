//! The source: the application's PostgreSQL, which is only read.
//!
//! [`reading::shape`] reads a rollup's columns from the catalogue once. [`reading::read`] writes
//! the statements that aggregate a time range. [`reading::pace`] decides the width of that range,
//! and [`reading::plan_guard`] whether it can be read without a full scan. [`settle`] waits until
//! all rows of a range are visible, and [`changes`] finds later changes. The source of a coarse
//! rollup is a finer one's table: [`finer`].

pub mod changes;
pub mod finer;
pub mod reading;
pub mod settle;
