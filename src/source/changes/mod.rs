//! Reports late changes: by captured marks, or by a column with change times.

pub mod capture;
pub mod column;
pub(crate) mod consumers;
pub(crate) mod lookup;
pub(crate) mod lookup_marks;
pub(crate) mod marks;
mod triggers;
