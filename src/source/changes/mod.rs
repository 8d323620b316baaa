//! Reports late changes: by captured marks, or by a column with change times.

pub mod capture;
pub mod column;
pub mod consumers;
pub mod marks;
pub(crate) mod triggers;
