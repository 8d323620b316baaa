//! What tells of changes that come late: captured marks, or a column with change times.

pub mod capture;
pub mod column;
pub mod consumers;
pub mod marks;
pub(crate) mod triggers;
